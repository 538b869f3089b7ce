"""Samples for the programs that keep this host's clock: chrony SOCK datagrams and NTP shared memory.

Flow: Feed effect (instant, offset, uncertainty, leap) -> **feed** -> chronyd, ntpd. Both writers find their peer anew with every sample: a
datagram is addressed by path, a segment attached by key (a few system calls a second). So there is nothing to reconnect: a peer that
restarts, comes late or removes the segment gets the next sample. A peer that is away is a state of the writer, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from refclock.sample import FeedStatus, Leap


class _Writer:
    """What both writers remember: how the last sample fared."""

    kind = ""

    def __init__(self, name: str, target: str) -> None:
        self.name = name or self.kind
        self.target = target
        self.state = "waiting"
        self.why = "no sample has been made yet"
        self.sent = 0
        self.lost = 0

    def _done(self) -> None:
        self.state, self.why = "sending", ""
        self.sent += 1

    def _failed(self, state: str, why: str) -> None:
        self.state, self.why = state, why
        self.lost += 1

    def status(self) -> FeedStatus:
        """How the last sample fared."""
        return FeedStatus(self.name, self.kind, self.target, self.state, self.sent, self.lost, self.why)


EARLIEST_S: Final = 315_964_800
"""1980-01-06, the start of GPS time (IS-GPS-200): no reference says less."""
LATEST_S: Final = 9_214_646_400
"""2262-01-01: int64 ns end in April of that year (the shared memory and timescale records hold int64)."""


class SampleReject(StrEnum):
    """Why a datagram or segment gave no sample."""

    SIZE = "size"  # neither 40 nor 32 bytes
    MAGIC = "magic"
    STAMP = "stamp"  # microseconds out of range
    NOT_FINITE = "not-finite"
    RANGE = "range"  # names a time before GPS or after 2262, or a pulse off by more than half a second
    LEAP = "leap"
    NONSENSE = "nonsense"  # shared memory with impossible fields
    CLASH = "clash"  # shared memory was written while we read


@dataclass(frozen=True, slots=True)
class RawSample:
    """At CLOCK_REALTIME ``real_ns`` reference - local was ``offset_ns``; with ``pulse`` only modulo one second. ``uncertainty_ns``: what
    the writer says, 0 = nothing. ``leap`` UNSYNCHRONISED: the writer itself does not believe it."""

    real_ns: int
    offset_ns: int
    leap: Leap
    pulse: bool = False
    uncertainty_ns: int = 0
