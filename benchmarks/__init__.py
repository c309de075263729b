"""What dtrain claims, measured against a named peer in the same run."""
