"""What the samples of other programs have in common, whichever way they take: the value, why one is refused, the state of a feed.

Flow: another program -> sock | shm -> **RawSample** (or a SampleReject) -> ``ppsd.clock.sources``; our sample -> **FeedWriter** (sock |
shm) -> chronyd, ntpd.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from refclock.sample import FeedStatus, Leap
from refclock.timescales import GPS_EPOCH_S

EARLIEST_S: Final = GPS_EPOCH_S
"""POSIX s; a sample that names an earlier time is refused."""
LATEST_S: Final = 9_214_646_400
"""POSIX s of 2262-01-01; a sample that names this or later is refused: int64 ns, in which records are held, end in April of that year."""


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
    """One sample as its writer made it: at CLOCK_REALTIME ``real_ns`` reference - local was ``offset_ns``.

    ``pulse``: the offset is known modulo one second only. ``uncertainty_ns``: what the writer says of it, 0 = nothing. ``leap``:
    UNSYNCHRONISED when the writer does not believe the sample itself.
    """

    real_ns: int
    offset_ns: int
    leap: Leap
    pulse: bool = False
    uncertainty_ns: int = 0


class FeedWriter:
    """How the last sample for a program fared.

    A writer finds its peer anew with every sample (a datagram is addressed by path, a segment attached by key: a few system calls a
    second). So nothing is reconnected: a peer that restarts, comes late or removes the segment gets the next sample. A peer that is away is
    a state of the writer, never an exception.
    """

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
        """The state for people: see FeedStatus."""
        return FeedStatus(self.name, self.kind, self.target, self.state, self.sent, self.lost, self.why)
