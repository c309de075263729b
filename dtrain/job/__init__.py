"""What a job is: ids, lifecycle, status, events, and the protocols that keep and launch it."""
