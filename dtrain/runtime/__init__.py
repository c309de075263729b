"""Ray: the coordinator, reader and trainer actors, and their launcher."""
