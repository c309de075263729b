"""Films, rated one after the other."""
