"""Handwritten digits, read from PNG images as they come."""
