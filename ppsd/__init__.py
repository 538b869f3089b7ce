"""The daemon: decides what time it is, publishes it, serves it, and tells how far it may be off."""

from __future__ import annotations


def version() -> str:
    """The installed package's version."""
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415 (it takes 20 ms, and few ask)
    from importlib.metadata import version as installed  # noqa: PLC0415

    try:
        return installed("refclock")
    except PackageNotFoundError:
        return "0 (not installed)"
