"""Reviews of clothes, read word by word."""
