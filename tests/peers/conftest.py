"""Fixtures of the tests with real programs (see peers.py, packet_net.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from key_server import keys
from packet_net import Lan, Server, Serving, Sockets
from peers import Processes, network, processes, tmp_path

__all__ = ["keys", "lan", "network", "processes", "serve", "sockets", "tmp_path"]


@pytest.fixture
def serve(network: Processes) -> Iterator[Serving]:
    """Starts a server on a loopback of its own."""
    started: list[Server] = []

    def start(config: str) -> Server:
        started.append(Server(network, config))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def sockets(network: Processes) -> Iterator[Sockets]:
    """Sockets on that loopback."""
    assert network.network is not None
    maker = Sockets(network.network)
    yield maker
    maker.close()


@pytest.fixture
def lan(network: Processes, tmp_path: Path) -> Iterator[Lan]:
    """A cable from the server's network to another."""
    made = Lan(network, tmp_path / "neighbour")
    yield made
    made.close()
