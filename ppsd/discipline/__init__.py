"""What time is it? Samples to the served timescale and its bound. Pure."""
