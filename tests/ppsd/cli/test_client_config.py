"""`refclock client-config`: which names of this server clients are told."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from ppsd.cli.client_config import server_names
from ppsd.cli.main import main
from ppsd.config.client_templates import ServerNames
from ppsd.config.tables import ServerConfig
from refclock.kernel.interfaces import Address

HERE = (
    Address(ip_address("172.17.0.1"), 16, "docker0", True),
    Address(ip_address("192.0.2.5"), 24, "eth0", True),
    Address(ip_address("2001:db8::5"), 64, "eth0", True),
)


def test_the_interface_to_everybody_comes_first() -> None:
    """Clients are told the IPv4 address of the interface with the default route, and its IPv6 address as another way to the same server.
    Addresses of other interfaces are told to whoever asked."""
    names, remarks = server_names(ServerConfig(), (), HERE, "eth0")
    assert names == ServerNames(("192.0.2.5",), ("2001:db8::5",))
    assert "172.17.0.1 (docker0)" in remarks[0]


def test_only_what_is_served_is_told() -> None:
    """An address that the server does not listen on, a port that it has not, an interface that is not served are never told."""
    assert server_names(ServerConfig(listen=("0.0.0.0:123",)), (), HERE, "eth0")[0] == ServerNames(("192.0.2.5",))
    assert server_names(ServerConfig(interface="docker0"), (), HERE, "eth0")[0] == ServerNames(("172.17.0.1",))
    sim, remarks = server_names(ServerConfig(listen=("127.0.0.1:11123",)), (), HERE, "eth0")
    assert sim == ServerNames(("127.0.0.1",), port=11123)
    assert "no other machine" in remarks[0]
    off, remarks = server_names(ServerConfig(enabled=False), (), HERE, "eth0")
    assert not off.servers
    assert "server.enabled" in remarks[0]


def test_a_name_of_ones_own() -> None:
    """--server puts a name, or several servers, in place of the addresses; the port is the server's."""
    names, _ = server_names(ServerConfig(), ("ntp1.example.net", "ntp2.example.net"), HERE, "eth0")
    assert names == ServerNames(("ntp1.example.net", "ntp2.example.net"))


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a word there is the list; an unknown word gets a suggestion; a name that no file could take is refused."""
    assert main(["client-config"]) == 0
    assert "chronyd" in capsys.readouterr().out
    assert main(["client-config", "chorny"]) == 64
    assert "did you mean chrony?" in capsys.readouterr().err
    assert main(["client-config", "chrony", "--server", 'a"b\nc']) == 64
