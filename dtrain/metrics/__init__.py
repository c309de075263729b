"""One catalogue of metrics and its exporter."""
