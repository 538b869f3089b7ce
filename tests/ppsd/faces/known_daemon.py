"""A daemon that is known by heart, for the tests of everything that tells people and programs what it says."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ppsd.snapshot import Client, Mode, Snapshot, SourceStatus, UpstreamStatus, Verdict
from refclock.sample import Authentication, ServerPackets

SOURCE = SourceStatus(
    name="gps0", kind="receiver", what="GPS+PPS", present=True, tally="*", why="selected", reach=0o377, last_sample_s=0.4, offset_ns=-214,
    jitter_ns=120, bound_ns=18_100, frequency_ppm=-12.3, skew_ppm=0.01, samples=8, pulses=90, labels=90, fix="3D", satellites_used=9,
    satellites_seen=12, message_delay_ms=143.2, message_spread_ms=4.1,
)  # fmt: skip
CLOCK = Snapshot(
    version="0.1.0", pid=7, simulated=False, uptime_s=3700.0, utc="2026-11-21T12:00:00.500000000Z", mode=Mode.TRACK,
    verdict=Verdict.LOCKED, why="", stages=(("receiver", True), ("locked", True)), stratum=1, refid="PPS", leap="normal",
    leap_pending="none", tai_offset_s=37, bound_ns=18_100, frequency_ppm=-12.345, skew_ppm=0.012, system_offset_ns=31, holdover_s=None,
    holdover_left_s=None, steering="none", clock_steps=0, sources=(SOURCE,),
)  # fmt: skip
"""One receiver with a pulse, and all is well."""
GPS = replace(SOURCE, why="", last_sample_s=3.4, span_s=77.0, prefer=True)
NEVER = replace(
    GPS, name="receiver-on-the-roof", tally="?", present=False, reach=0, last_sample_s=None, offset_ns=None, jitter_ns=None, bound_ns=None,
    frequency_ppm=None, skew_ppm=None, samples=0, span_s=None, prefer=False, noselect=True,
)  # fmt: skip
LOCKED = replace(CLOCK, leap="insert", sources=(GPS, NEVER))
"""Two sources, of which one never said anything, before a leap second."""
UPSTREAM = UpstreamStatus(
    name="ntp0", host="time.example", address="192.0.2.9", tally="-", why="agrees", stratum=2, refid=0xC0000201, poll=6, reach=0o377,
    last_sample_s=21.0, span_s=640.0, offset_ns=150_000, delay_ns=4_000_000, root_delay_ns=1_000_000, dispersion_ns=200_000,
    jitter_ns=30_000, bound_ns=2_700_000, frequency_ppm=-12.3, skew_ppm=0.1, samples=14,
    packets=ServerPackets(
        local="192.0.2.7", leap=0, stratum=2, poll=6, precision=-24, root_delay_ns=1_000_000, root_dispersion_ns=199_000,
        reference_utc_ns=1_795_262_300_000_000_000, offset_ns=-42_000, reading_ns=1_000, turn_ns=53_000, stamped=True, sent=16,
        received=15, valid=14, good=14,
    ),
    authentication=Authentication("key", 30, 13, 128),
)  # fmt: skip
WITNESSED = replace(CLOCK, upstreams=(UPSTREAM,))
"""A server beside the receiver."""
FALLEN = replace(
    CLOCK, mode=Mode.FALLBACK, verdict=Verdict.FALLBACK, stratum=3, refid="192.0.2.9", bound_ns=2_700_000, root_delay_ns=5_000_000,
    why="no receiver can be used", sources=(NEVER,), upstreams=(replace(UPSTREAM, tally="*", why="followed"),),
)  # fmt: skip
"""The server is followed."""
CLIENTS = [
    Client("192.0.2.7", 5123, 3, 16.2, 3.0, 900.0, 4, False, False),
    Client("2001:db8:0:1::/64", 1, 0, None, 50.0, 50.0, 4, False, False),
    Client("1:2:3:4 (local)", 9, 0, 1.0, 0.2, 50.0, 4, True, True),
    *(Client(f"10.0.0.{n}", n, 0, 64.0, n, n, 4, False, False) for n in range(2, 20)),
]
COUNTERS = {
    "reply": {"basic": 100, "interleaved": 20},
    "kod": {"rate": 3},
    "drop": {"rate": 7, "short": 1},
    "server": {"authenticated": 5, "unstamped": 4, "departures": 18, "kernel_drops": 2},
    "command": {"received": 41, "dropped": 2},
}


def noise(seed: int, whole: Sequence[bytes], kept: int) -> Iterator[bytes]:
    """100,000 datagrams: a quarter of random octets, the others mutations of the ``whole`` ones, of which a quarter of all keep their first
    ``kept`` octets."""
    chance = random.Random(seed)
    for k in range(100_000):
        if k % 4 == 0:
            yield chance.randbytes(chance.randrange(600))
            continue
        piece = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(4)):
            piece[chance.randrange(kept if k % 4 == 1 else 0, len(piece))] = chance.randrange(256)
        yield bytes(piece[: chance.randrange(len(piece))] if chance.random() < 0.2 else piece)


class Known:
    """A daemon that is known by heart."""

    def __init__(self, clock: Snapshot | None = LOCKED) -> None:
        self.snapshot = clock

    def clock(self) -> Snapshot | None:
        return self.snapshot

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        return COUNTERS

    def clients(self, anew: bool) -> Sequence[Client]:
        return CLIENTS

    def serves(self, address: str) -> bool:
        return address in {"192.0.2.1", "2001:db8::1"}

    def hears(self, address: str) -> bool:
        return address == "127.0.0.1"
