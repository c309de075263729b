"""A model of flight delays that learns from a live topic."""
