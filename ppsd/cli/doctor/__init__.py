"""``refclock doctor``: finds what is wrong with this machine as a time server."""
