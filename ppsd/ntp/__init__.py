"""NTP's packets as values. Pure."""
