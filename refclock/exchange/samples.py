"""What the samples of other programs have in common, whichever way they take: the value, why one is refused, the state of a feed.

Flow: another program -> sock | shm -> **RawSample** (or a SampleReject) -> ``ppsd.clock.sources``; our sample -> **FeedWriter** (sock |
shm) -> chronyd, ntpd.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from refclock.sample import FeedStatus, Instant, Leap
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


class FeedWriter(ABC):
    """Hands samples to a program, and knows how the last one fared. ``limit_ns``: the error bound that the program was promised.

    A writer finds its peer anew with every sample (a datagram is addressed by path, a segment attached by key: a few system calls a
    second). So nothing is reconnected: a peer that restarts, comes late or removes the segment gets the next sample. A peer that is away is
    a state of the writer, never an exception.
    """

    kind = ""

    def __init__(self, name: str, target: str, limit_ns: float = math.inf) -> None:
        self.name = name or self.kind
        self.target = target
        self.limit_ns = limit_ns
        self.state = "waiting"
        self.why = "no sample has been made yet"
        self.sent = 0
        self.lost = 0

    def send(self, at: Instant, offset_ns: int, bound_ns: int, leap: Leap) -> None:
        """One sample: at ``at`` (REALTIME) reference - local was ``offset_ns``, certain within ``bound_ns`` (0: unknown). It is withheld
        when that is more than ``limit_ns``, which the program was promised. Failure shows in ``status``."""
        if bound_ns > self.limit_ns:
            why = (
                f"withheld: the error bound is {bound_ns / 1e3:.3g} µs, more than the {self.limit_ns / 1e3:.4g} µs that the program was "
                "promised; wait, or raise max_bound_us in [[feed]] and take the line of refclock feed anew"
            )
            self._failed("withheld", why)
        else:
            self._write(at, offset_ns, bound_ns, leap)

    @abstractmethod
    def _write(self, at: Instant, offset_ns: int, bound_ns: int, leap: Leap) -> None:
        """Hand one sample over, and note how that went."""

    @abstractmethod
    def close(self) -> None:
        """Close our end."""

    def _done(self) -> None:
        self.state, self.why = "sending", ""
        self.sent += 1

    def _failed(self, state: str, why: str) -> None:
        self.state, self.why = state, why
        self.lost += 1

    def status(self) -> FeedStatus:
        """The state for people: see FeedStatus."""
        return FeedStatus(self.name, self.kind, self.target, self.state, self.sent, self.lost, self.why)
