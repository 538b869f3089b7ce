"""What the NTP client tells the clock process of a server."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refclock.exchange.samples import RawSample, SampleReject
from refclock.exchange.sock import SOCK_64, parse_sock
from refclock.exchange.upstream import FARTHEST_NS, LONGEST, UpstreamIntake, pack, parse
from refclock.sample import NS, Authentication, Leap, ServerPackets, UpstreamServer

SECOND = 1_795_237_841
SAMPLE = RawSample(SECOND * NS + 123_456_000, -250_000_001, Leap.DELETE)
SERVER = UpstreamServer("ntp0", "2001:db8::1", 0o377, 6, 2, 0xC0000201, 12_345_678, 1_000_000, 500_001, "", False)
FAR = st.integers(0, FARTHEST_NS - 1)
TEXTS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u00a0\u3000"), max_size=60).filter(
    str.isprintable
)
ADDRESSES = st.sampled_from(("192.0.2.1", "2001:db8::1", "fe80::1%eth0"))
BYTES, POLLS, STRATA, REFIDS = st.integers(0, 255), st.integers(-128, 127), st.integers(1, 15), st.integers(0, 2**32 - 1)
PORTS, COUNTS, TIMES = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.integers(-(2**63), 2**63 - 1)
PACKETS = st.builds(
    ServerPackets, ADDRESSES | st.just(""), PORTS, st.integers(0, 3), BYTES, BYTES, POLLS, POLLS, FAR, FAR, TIMES, TIMES, FAR, FAR,
    st.booleans(), st.booleans(), COUNTS, COUNTS, COUNTS, COUNTS,
)  # fmt: skip
AUTHENTICATIONS = st.builds(
    Authentication, st.sampled_from(("", "key", "nts")), COUNTS, PORTS, PORTS, COUNTS, st.none() | st.integers(0, 2**32 - 2), COUNTS, PORTS,
    PORTS,
)  # fmt: skip
SERVERS = st.builds(
    UpstreamServer, TEXTS.filter(bool), ADDRESSES, BYTES, POLLS, STRATA, REFIDS, FAR, FAR, FAR, TEXTS, st.booleans(), PACKETS,
    AUTHENTICATIONS,
)  # fmt: skip


@given(SERVERS)
def test_what_is_sent_is_read(server: UpstreamServer) -> None:
    """Every value survives, and the sample's error is half of both delays and the dispersion."""
    assert parse(pack(server, SAMPLE)) == (server, replace(SAMPLE, uncertainty_ns=server.distance_ns))
    assert parse(pack(server, None)) == (server, None)


def test_its_head_is_what_chrony_reads() -> None:
    """The first forty octets are a SOCK sample as every program sends it."""
    assert parse_sock(pack(SERVER, SAMPLE)[: SOCK_64.size]) == SAMPLE


@given(st.binary(max_size=200), st.integers(0, 200))
def test_nothing_that_comes_raises(noise: bytes, cut: int) -> None:
    """Noise, datagrams that are cut, and datagrams with something behind them are refused."""
    whole = pack(SERVER, SAMPLE)
    for data in (noise, whole[:40] + noise, whole[:88] + noise):
        assert isinstance(parse(data), SampleReject | tuple)
    if cut < len(whole):
        assert isinstance(parse(whole[:cut]), SampleReject)
    assert isinstance(parse(whole + b"x"), SampleReject)


@pytest.mark.parametrize(
    "server",
    [
        replace(SERVER, stratum=16),
        replace(SERVER, stratum=0),
        replace(SERVER, dispersion_ns=FARTHEST_NS),
        replace(SERVER, name=""),
        replace(SERVER, address="time.example"),
        replace(SERVER, why="\x1b[2J"),
        replace(SERVER, packets=ServerPackets(local="here")),
    ],
)
def test_what_cannot_be_is_refused(server: UpstreamServer) -> None:
    """Strata, errors and texts that no server of ours has: a sample with them is not used, and nothing is printed on a terminal."""
    assert parse(pack(server, SAMPLE)) is SampleReject.NONSENSE


@pytest.mark.device
def test_the_socket_takes_what_is_sent(tmp_path: Path) -> None:
    """A datagram goes through the socket; noise is counted; the name goes with the socket."""
    intake = UpstreamIntake(tmp_path / "u.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for data in (pack(SERVER, SAMPLE), b"noise", bytes(LONGEST + 9), pack(SERVER, None)):
            sender.sendto(data, str(tmp_path / "u.sock"))
    assert intake.read() == [(SERVER, replace(SAMPLE, uncertainty_ns=SERVER.distance_ns)), (SERVER, None)]
    assert intake.rejected == 2
    intake.close()
    assert not (tmp_path / "u.sock").exists()
