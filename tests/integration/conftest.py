"""Fixtures of the tests with real programs (see peers.py)."""

from peers import network, processes

__all__ = ["network", "processes"]
