"""Addresses on this machine's loopback: sockets that systemd hands over, and changes of what is configured."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from records import true_record

from ppsd.config.access import ACTIONS
from ppsd.serve.addresses import Addresses
from ppsd.serve.ntp_server import NtpServer, ServerRules
from refclock.kernel.timescale import TimescaleWriter

pytestmark = pytest.mark.device


class Notes:
    """What was logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(f"{event} {fields}")

    warning = info


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NtpServer]:
    """A running server that answers everybody and has no address."""
    writer = TimescaleWriter(tmp_path / "timescale")
    writer.publish(true_record())
    with NtpServer(tmp_path / "timescale", [], ServerRules(ranges=((0, ACTIONS.index("allow")),)), threads=2) as made:
        made.start()
        yield made
    writer.close()


def answers(host: str, port: int) -> bool:
    """Whether a request there is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.connect((host, port))
        try:
            client.send(bytes([0x23]) + bytes(47))
            return len(client.recv(100)) == 48
        except OSError:
            return False


def free_port() -> int:
    """A UDP port that nobody has at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


def test_a_wrong_socket_handed_over_leaves_the_right_ones_served(server: NtpServer) -> None:
    """systemd hands over a TCP and a UDP socket: the UDP one is served, the other is reported with the reason. TCP alone is refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as wrong, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as right:
        right.bind(("127.0.0.1", 0))
        addresses = Addresses(server, Notes(), [wrong.fileno(), right.fileno()])
        addresses.serve(["203.0.113.1:123"], "")
        port = right.getsockname()[1]
        assert addresses.served == (f"127.0.0.1:{port}",)
        assert "no UDP socket" in addresses.unserved[0].why
        assert answers("127.0.0.1", port)
        with pytest.raises(OSError, match="no UDP socket"):
            Addresses(server, Notes(), [wrong.fileno()]).serve([], "")


def test_addresses_change_while_serving_and_only_those(server: NtpServer) -> None:
    """Another list of addresses: what stays is not touched, what is new is served, what is left is not. One that cannot be served at all is
    refused, and all is as it was."""
    notes, (first, second) = Notes(), (free_port(), free_port())
    addresses = Addresses(server, notes, [])
    addresses.serve([f"127.0.0.1:{first}"], "")
    assert answers("127.0.0.1", first)
    addresses.serve([f"127.0.0.1:{first}", f"127.0.0.2:{second}"], "")
    assert answers("127.0.0.1", first)
    assert answers("127.0.0.2", second)
    assert len(notes.lines) == 2, "nothing is said of the one that stayed"
    addresses.serve([f"127.0.0.2:{second}"], "")
    assert not answers("127.0.0.1", first)
    with pytest.raises(OSError, match="no interface has this address") as caught:
        addresses.serve(["203.0.113.1:123"], "")
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert addresses.served == (f"127.0.0.2:{second}",)
    assert answers("127.0.0.2", second)
    addresses.serve([f"0.0.0.0:{second}", f"127.0.0.2:{second}"], "")
    assert answers("127.0.0.2", second)
    assert answers("127.0.0.3", second)
    addresses.serve([f"127.0.0.2:{second}"], "")
    assert answers("127.0.0.2", second)
    assert not answers("127.0.0.3", second)


def test_more_addresses_than_there_is_room_for(server: NtpServer) -> None:
    """The first 32 are served, the rest is named."""
    port = free_port()
    addresses = Addresses(server, Notes(), [])
    addresses.serve([f"127.0.1.{n}:{port}" for n in range(1, 35)], "")
    assert len(addresses.served) == 32
    assert [one.address for one in addresses.unserved] == [f"127.0.1.33:{port}", f"127.0.1.34:{port}"]
    assert "too many addresses" in addresses.unserved[0].why
    assert answers("127.0.1.32", port)
