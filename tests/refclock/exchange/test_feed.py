"""Feeds: what goes out to chronyd and ntpd, and what happens while they are away."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppsd.clock.sources import open_feed
from refclock import config
from refclock.exchange.shm import ShmFeedWriter, ShmSample, ShmSegment, precision_of
from refclock.exchange.sock import SockFeedWriter
from refclock.sample import NS, Instant, Leap

AT = Instant(1_795_237_841 * NS + 123_456_789, 5 * NS)


@pytest.fixture
def unit() -> Iterator[int]:
    """A shared memory unit that nobody has, removed afterwards."""
    for number in range(17, 256):
        try:
            ShmSegment(number).close()
        except FileNotFoundError:
            yield number
            subprocess.run(["ipcrm", "-M", hex(0x4E545030 + number)], check=False, capture_output=True)
            return
    raise AssertionError("no free shared memory unit")


def listener(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    peer.bind(str(path))
    peer.settimeout(5)
    return peer


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SockFeedWriter]:
    made = SockFeedWriter(str(tmp_path / "chrony.sock"), wide=True)
    yield made
    made.close()


def test_a_sample_is_the_forty_bytes_that_chrony_reads(writer: SockFeedWriter) -> None:
    """tv is the local time cut to us, the offset reference - local in seconds with its ns, pulse 0, the leap, the magic."""
    with listener(Path(writer.target)) as peer:
        writer.send(AT, -1_500_000_007, 100, Leap.INSERT)
        data = peer.recv(100)
    seconds, us, offset, pulse, leap, _, magic = struct.unpack("@qqdiiii", data)
    assert (seconds, us, pulse, leap, magic) == (1_795_237_841, 123_456, 0, 1, 0x534F434B)
    assert round(offset * NS) == -1_500_000_007


def test_a_thirty_two_bit_peer_gets_thirty_two_bytes(tmp_path: Path) -> None:
    """With 32-bit time_t the sample has 32 bytes and its seconds go on past 2038."""
    writer = SockFeedWriter(str(tmp_path / "s"), wide=False)
    with listener(tmp_path / "s") as peer:
        writer.send(Instant(3_000_000_000 * NS, 0), 5, 0, Leap.NORMAL)
        data = peer.recv(100)
    writer.close()
    assert len(data) == 32
    assert struct.unpack("=Ii", data[:8]) == (3_000_000_000, 0)


def test_an_absent_peer_is_a_state_and_its_return_is_noticed(writer: SockFeedWriter) -> None:
    """Nobody there, there, gone leaving its socket behind, back with a new one: the state follows, and each sample that can arrive does."""
    path = Path(writer.target)
    assert writer.status().state == "waiting"
    writer.send(AT, 1, 0, Leap.NORMAL)
    assert writer.status().state == "absent"
    assert f"refclock SOCK {path}" in writer.status().why
    with listener(path):
        writer.send(AT, 1, 0, Leap.NORMAL)
        assert (writer.status().state, writer.status().why) == ("sending", "")
    writer.send(AT, 1, 0, Leap.NORMAL)
    assert writer.status().state == "absent"
    path.unlink()
    with listener(path) as peer:
        writer.send(AT, 1, 0, Leap.NORMAL)
        assert len(peer.recv(100)) == 40
    assert (writer.status().sent, writer.status().lost) == (2, 2)


def test_what_is_no_chrony_socket_is_refused_in_words(writer: SockFeedWriter) -> None:
    """A plain file or a stream socket at the path is named as such."""
    path = Path(writer.target)
    path.touch()
    writer.send(AT, 1, 0, Leap.NORMAL)
    assert writer.status().state in ("absent", "refused")  # Linux says ECONNREFUSED of a file
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(path))
        writer.send(AT, 1, 0, Leap.NORMAL)
    assert writer.status().state == "refused"
    assert "stream" in writer.status().why


def test_a_peer_that_does_not_read_blocks_nobody(writer: SockFeedWriter) -> None:
    """When its queue is full samples are lost, counted and said; nothing waits."""
    with listener(Path(writer.target)):
        for _ in range(10_000):
            writer.send(AT, 1, 0, Leap.NORMAL)
            if writer.status().state == "stalled":
                break
    assert writer.status().state == "stalled"
    assert writer.status().lost == 1


def test_the_uncertainty_becomes_a_precision_rounded_up() -> None:
    """log2 of the seconds, never better than claimed, within what the field can say."""
    assert precision_of(0) == -20
    assert [precision_of(n) for n in (1, 953, 954, NS, 50 * NS)] == [-29, -20, -19, 0, 0]


def test_a_shared_memory_that_cannot_be_had_is_a_state() -> None:
    """A unit that does not exist and a time that the segment cannot hold are failures in the status, not exceptions."""
    writer = ShmFeedWriter(256)
    writer.send(AT, 1, 0, Leap.NORMAL)
    assert writer.status().state == "failed"
    assert writer.status().why


def test_a_sample_worse_than_promised_is_withheld(tmp_path: Path) -> None:
    """The program was told to allow for 50 µs: a sample of 60 µs does not go out, is counted and said; the next of 40 µs does."""
    writer = open_feed(config.SockFeed(path=str(tmp_path / "s"), max_bound_us=50.0))
    with listener(tmp_path / "s") as peer:
        writer.send(AT, 1, 60_000, Leap.NORMAL)
        assert (writer.status().state, writer.status().lost) == ("withheld", 1)
        assert "60 µs, more than the 50 µs" in writer.status().why
        writer.send(AT, 2, 40_000, Leap.NORMAL)
        assert writer.status().state == "sending"
        assert struct.unpack("@qqdiiii", peer.recv(100))[2] * NS == pytest.approx(2)
    writer.close()


def test_what_is_promised_follows_the_sources() -> None:
    """Not stated: 1 ms while every source has pulses, 1 s when one is served from messages or is another program's."""
    feed, pulses = config.SockFeed(path="/x"), config.PpsSource(pps="/dev/pps0")
    assert config.promise_us(feed, [pulses]) == config.promise_us(feed, []) == 1000
    assert config.promise_us(feed, [pulses, config.GpsdSource()]) == 1_000_000
    assert config.promise_us(feed, [pulses, config.ShmSource(unit=0, noselect=True)]) == 1000
    assert config.promise_us(config.ShmFeed(unit=2, max_bound_us=5.0), [config.GpsdSource()]) == 5


@pytest.mark.device
def test_shared_memory_that_nobody_reads_is_told(unit: int) -> None:
    """Half a minute of samples that stay in the segment: nobody reads, told with the remedy; a reader ends it."""
    writer = ShmFeedWriter(unit)
    for _ in range(40):
        writer.send(AT, 1, 1000, Leap.NORMAL)
    assert writer.status().state == "absent"
    assert "nobody reads shared memory" in writer.status().why
    reader = ShmSegment(unit)
    assert isinstance(reader.read(), ShmSample)
    writer.send(AT, 1, 1000, Leap.NORMAL)
    assert writer.status().state == "sending"
    reader.close()


def test_the_configuration_opens_the_right_writer() -> None:
    """Each kind of feed has its writer; the name defaults to the kind."""
    sock = open_feed(config.SockFeed(path="/nowhere/sock", name="to-chrony"))
    shm = open_feed(config.ShmFeed(unit=200))
    assert (sock.name, sock.kind, sock.target) == ("to-chrony", "sock", "/nowhere/sock")
    assert (shm.name, shm.kind, shm.target) == ("shm", "shm", "200")
    sock.close()
    shm.close()
