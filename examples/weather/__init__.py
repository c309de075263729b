"""Departures of the next hour, forecast from the last day's, and from its weather."""
