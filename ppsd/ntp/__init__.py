"""NTP packets as values. Pure."""
