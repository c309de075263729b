"""What a user writes: validated, immutable."""
