"""What was measured: seconds in memory, minutes and hours on disk, and what can be said of them."""
