"""The replica, its step, its collectives, and the task that a user writes."""
