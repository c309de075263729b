"""The core, pure: positions, row ranges, plans, entries, segments, fences."""
