"""refclock alone, without the daemon: a recorded line and pulses become samples, and chronyd's socket takes them."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from refclock.config import ReceiverSource
from refclock.exchange.sock import SOCK_64, SockFeedWriter
from refclock.receiver.session import ReceiverSession
from refclock.sample import NS, Edge, EdgeKind, Instant, Leap, Sample, SecondLabel
from refclock.timescales import LeapTable
from refclock.timing.pulse_time import Context
from refclock.timing.receiver_time import ReceiverTime

RECORDING = Path(__file__).parents[2] / "data" / "recordings" / "gpsd-ublox-8.log"
NOT_BEFORE_S = 1_420_070_400
"""2015-01-01."""
LATE_NS, WRONG_NS = 70_000_000, 123_456
"""The message comes so long after its second; the system clock is ahead by so much."""


def cycles() -> list[bytes]:
    """The recording, cut where each second's burst begins."""
    return [part for part in re.split(rb"(?=\$G.RMC)", RECORDING.read_bytes()) if part.startswith(b"$G")]


def second_of(cycle: bytes) -> int | None:
    """POSIX second that a burst names, None without a valid one."""
    at = Instant(0, 0)
    values = ReceiverSession(0, NOT_BEFORE_S, baud=9600).feed(cycle, at, 0)
    return next((v.utc_ns // NS for v in values if isinstance(v, SecondLabel)), None)


def samples(delay_ns: int, clock_off_ns: int) -> list[Sample]:
    """What comes of the recording, played once a second beside a pulse on each second; the system clock is ``clock_off_ns`` ahead."""
    session = ReceiverSession(0, NOT_BEFORE_S, baud=9600)
    source = ReceiverTime(ReceiverSource(device="/dev/ttyS0", pps="/dev/pps0"), NOT_BEFORE_S)
    context, found = Context(LeapTable()), list[Sample]()
    named = [(second, cycle) for cycle in cycles() if (second := second_of(cycle)) is not None]
    for second, cycle in named:
        mono_ns = 5_000 * NS + (second - named[0][0]) * NS
        pulse = Instant(second * NS + clock_off_ns, mono_ns)
        found += source.pulse(Edge(pulse, EdgeKind.ASSERT, second), context)
        came = pulse.shifted(delay_ns)
        for value in session.feed(cycle, came, 0):
            found += source.take(value, 0, context).pulses
    return found


def test_a_recorded_line_and_its_pulses_make_samples() -> None:
    """Every sample has the second that the recording names, as TAI, and more than half a minute of pulses is numbered."""
    found = samples(LATE_NS, WRONG_NS)
    assert len(found) > 30
    for sample in found:
        assert sample.tai_ns == LeapTable().utc_to_tai_ns(sample.at.real_ns - WRONG_NS)
        assert sample.bias_ns == 15_000.0


def test_labels_half_a_second_late_make_none() -> None:
    """When the message may belong to this pulse or to the next, and no clock tells which, no pulse is numbered."""
    assert samples(500_000_000, 400_000_000) == []


def test_samples_reach_the_socket_of_chronyd(tmp_path: Path) -> None:
    """What chronyd reads from its socket is by how much the system clock is off: here 123.456 us ahead."""
    path = tmp_path / "chrony.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as chronyd:
        chronyd.bind(str(path))
        chronyd.setblocking(False)
        feed = SockFeedWriter(str(path), wide=True)
        for sample in samples(LATE_NS, WRONG_NS)[:5]:
            feed.send(sample.at, LeapTable().tai_to_utc_ns(sample.tai_ns) - sample.at.real_ns, sample.uncertainty_ns, Leap.NORMAL)
            offset_s = SOCK_64.unpack(chronyd.recv(64))[2]
            assert offset_s == pytest.approx(-WRONG_NS / NS, abs=1e-12)
        feed.close()
