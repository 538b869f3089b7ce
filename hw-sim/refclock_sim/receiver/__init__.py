"""A simulated receiver: what it knows, what it is told, the bytes that come of it."""
