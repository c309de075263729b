"""Where records come from: the Source protocol, Kafka, and the twin in memory."""
