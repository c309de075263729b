"""The composition roots: each command imports what it needs, inside itself."""
