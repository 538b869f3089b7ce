"""A snapshot as text for people. Pure."""
