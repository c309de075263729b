"""Topic and step log to weights, in one plain process."""
