"""One receiver's life, sans-IO: finding its speed, setting it up, reading it back. Pure."""
