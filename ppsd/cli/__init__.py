"""The ``refclock`` command."""
