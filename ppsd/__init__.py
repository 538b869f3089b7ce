"""The daemon: decides what time it is, publishes it, serves it, and tells how far it may be off."""
