"""``refclock doctor``: what is wrong with this machine as a time server."""
