"""server.py: the C server on real UDP sockets of the loopback interface."""

import os
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from records import true_record

from ppsd.config.access import ACTIONS
from ppsd.serve.ntp_server import NtpServer, PacketPath, ServerRules, respond
from refclock.kernel.clocks import read_clocks
from refclock.kernel.timescale import TimescaleWriter
from refclock.sample import NS
from refclock.timescales import ntp64, utc_of_ntp64

pytestmark = pytest.mark.device

COOKIE = b"\x01\x02\x03\x04\x05\x06\x07\xff"
REQUEST = bytes([4 << 3 | 3, 0, 6, 0]) + bytes(36) + COOKIE


OPEN = ServerRules(ranges=((0, ACTIONS.index("allow")),))
"""Everybody, without limit."""


@pytest.fixture
def timescale(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "timescale"
    writer = TimescaleWriter(path)
    writer.publish(true_record())
    yield path
    writer.close()


def ask(address: tuple[str, int], request: bytes = REQUEST) -> tuple[bytes, tuple[str, int]]:
    """The reply and where it came from."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(request, address)
        reply, source = client.recvfrom(2048)
        return reply, (source[0], source[1])


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
            s.bind(("::1", 0))
    except OSError:
        return False
    return True


HOSTS = [
    ("127.0.0.1", "127.0.0.1"),
    ("0.0.0.0", "127.0.0.2"),
    pytest.param("::1", "::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on loopback")),
    pytest.param("::", "::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on loopback")),
]


@pytest.mark.parametrize(("listen", "asked"), HOSTS)
def test_a_client_gets_the_time_from_the_address_it_asked(timescale: Path, listen: str, asked: str) -> None:
    """48 bytes, stratum 1, origin intact, receive and transmit in order and between the client's own readings, sent from where it asked."""
    with NtpServer(timescale, [(listen, 0)], OPEN) as server:
        server.start()
        before = read_clocks().real_ns
        reply, source = ask((asked, server.bound_addresses[0][1]))
        after = read_clocks().real_ns
    assert source == (asked, server.bound_addresses[0][1])
    assert len(reply) == 48
    assert reply[:4] == bytes([4 << 3 | 4, 1, 6, 256 - 24])
    assert (reply[12:16], reply[24:32]) == (b"GPS\0", COOKIE)
    received, sent = (utc_of_ntp64(int.from_bytes(reply[i : i + 8], "big"), before) for i in (32, 40))
    slack = 1_000_000  # two paired readings and the slew between them
    assert before - slack <= received <= sent <= after + slack


def test_every_packet_is_counted_under_one_reason(timescale: Path) -> None:
    """Good, with a MAC of nobody, short, wrong version and wrong mode: each adds one to one counter, whichever thread took it."""
    with NtpServer(timescale, [("127.0.0.1", 0)], OPEN, threads=2) as server:
        server.start()
        address = server.bound_addresses[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            for data in (b"", REQUEST[:47], bytes([5 << 3 | 3]) + REQUEST[1:], bytes([4 << 3 | 6]) + REQUEST[1:], REQUEST + bytes(10)):
                silent.sendto(data, address)
            silent.settimeout(5)
            silent.sendto(REQUEST, address)  # the same thread: when this is answered, the others have been looked at
            assert len(silent.recv(2048)) == 48
            silent.sendto(REQUEST + bytes(20), address)
            silent.sendto(REQUEST, address)
            assert len(silent.recv(2048)) == 48, "no word on the one whose MAC is not ours"
        server.stop()
        counted = server.counters()
        own = counted.pop("server")
        assert (own["unstamped"], own["stepped"], own["receive_errors"], own["kernel_drops"]) == (0, 0, 0, 0)
        assert counted == {
            "drop": {"short": 2, "version": 1, "mode_control": 1, "mac_malformed": 1, "unknown_key": 1},
            "reply": {"basic": 2},
            "kod": {},
        }


def test_a_new_record_is_served_at_once(timescale: Path) -> None:
    """Each batch reads the record: what is published shows in the next reply, unsynchronised included."""
    with NtpServer(timescale, [("127.0.0.1", 0)], OPEN) as server:
        server.start()
        address = server.bound_addresses[0]
        assert ask(address)[0][1] == 1
        writer = TimescaleWriter(timescale)
        writer.publish(true_record(refid=int.from_bytes(b"PPS\0", "big"), stratum=2))
        assert (ask(address)[0][1], ask(address)[0][12:16]) == (2, b"PPS\0")
        writer.publish(true_record(stratum=0))
        reply = ask(address)[0]
        writer.close()
        assert (reply[0] >> 6, reply[1], reply[12:16], reply[24:32]) == (3, 0, b"INIT", COOKIE)


def test_before_there_is_a_record_it_says_so(tmp_path: Path) -> None:
    """Without a clock process the server answers leap 3 and stratum 0, with the system clock's stamps: a client that does not look at the
    leap bits would take zeros for the year 2036. Once a record appears it is found by itself."""
    with NtpServer(tmp_path / "timescale", [("127.0.0.1", 0)], OPEN) as server:
        server.start()
        before = read_clocks().real_ns
        reply, _ = ask(server.bound_addresses[0])
        after = read_clocks().real_ns
        assert (reply[0] >> 6, reply[1]) == (3, 0)
        received, sent = (utc_of_ntp64(int.from_bytes(reply[i : i + 8], "big"), before) for i in (32, 40))
        assert before - 1_000_000 <= received < sent <= after + 1_000_000
        writer = TimescaleWriter(tmp_path / "timescale")
        writer.publish(true_record())
        deadline = time.monotonic() + 10
        while reply[0] >> 6 == 3 and time.monotonic() < deadline:
            time.sleep(0.1)
            reply, _ = ask(server.bound_addresses[0])
        writer.close()
        assert (reply[0] >> 6, reply[1]) == (0, 1)


def test_inherited_sockets_are_served(timescale: Path) -> None:
    """Socket activation: a bound descriptor is served and stays the caller's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inherited:
        inherited.bind(("127.0.0.1", 0))
        with NtpServer(timescale, [], OPEN, fds=[inherited.fileno()]) as server:
            server.start()
            assert server.bound_addresses == (inherited.getsockname(),)
            assert len(ask(inherited.getsockname())[0]) == 48
        assert inherited.getsockname()[1] == server.bound_addresses[0][1]


def test_a_taken_address_says_who_to_look_for(timescale: Path) -> None:
    """A second server on the same address is refused, also by a server of several threads (which share ports among themselves)."""
    with NtpServer(timescale, [("127.0.0.1", 0)], OPEN, threads=2) as first, pytest.raises(OSError, match="another NTP server has it"):
        NtpServer(timescale, first.bound_addresses, OPEN, threads=2)


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda path: NtpServer(path, [("localhost", 0)], OPEN), "numeric"),
        (lambda path: NtpServer(path, [("192.0.2.1", 0)], OPEN), "no interface"),
        (lambda path: NtpServer(path, [], OPEN, threads=0), "0 threads"),
    ],
)
def test_a_bad_setting_says_what_to_do(timescale: Path, make: Callable[[Path], NtpServer], advice: str) -> None:
    """The error names the setting and the remedy, and nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a count
    with pytest.raises(OSError, match=advice):
        make(timescale)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_closed_is_closed(timescale: Path) -> None:
    """A closed server gives its port up and refuses further calls."""
    server = NtpServer(timescale, [("127.0.0.1", 0)], OPEN)
    server.start()
    server.close()
    server.close()
    with pytest.raises(ValueError, match="closed"):
        server.counters()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(server.bound_addresses[0])


def test_the_packet_path_is_a_function() -> None:
    """The same packet, record and instants give the same reply; another record another."""
    record = true_record()
    arrival, departure = record.raw_ns + NS, record.raw_ns + NS + 700
    path = PacketPath(record)
    reply, action, reason = path.respond(REQUEST, arrival, departure)
    assert (action, reason) == ("reply", "basic")
    assert int.from_bytes(reply[32:40], "big") == ntp64(record.tai_ns - 37 * NS + NS)
    assert int.from_bytes(reply[40:48], "big") == ntp64(record.tai_ns - 37 * NS + NS + 700)
    assert (reply, action, reason) == path.respond(REQUEST, arrival, departure) == respond(REQUEST, record, arrival, departure)
    assert respond(bytes([8]) + REQUEST[1:], record, arrival, departure, source_port=123) == (b"", "drop", "mode_reserved")
    path.publish(true_record(stratum=3))
    assert path.respond(REQUEST, arrival, departure)[0][1] == 3


def test_the_latest_clients_are_told_in_constant_memory(timescale: Path) -> None:
    """Of 6000 clients the five that asked last, the latest first, and how many there are. A list of all of them would take 3 MB."""
    with NtpServer(timescale, [("127.0.0.1", 0)], OPEN, table_bytes=4 << 20) as server:
        server.start()
        for n in range(6000):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind((f"127.1.{n // 200}.{n % 200 + 1}", 0))
                client.settimeout(5)
                client.sendto(REQUEST, server.bound_addresses[0])
                client.recv(2048)
        tracemalloc.start()
        found, known = server.clients(5)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert known > 5900  # a set of 16 may have been full
    assert [client.address for client in found] == [f"127.1.29.{n}" for n in (200, 199, 198, 197, 196)]
    assert peak < 1_000_000
