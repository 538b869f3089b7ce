"""The timescale record as values: what the clock process publishes, and what a reader makes of it at an instant (native/record.h).

Flow: ``ppsd.timescale`` -> **record** -> ``refclock.kernel``, which keeps it in a file that every process of this machine may read. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from refclock.sample import Leap


class Record(Protocol):
    """What can be published: struct rec_params field by field (native/record.h has signs and units)."""

    @property
    def raw_ns(self) -> int: ...
    @property
    def tai_ns(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def bound_ns(self) -> float: ...
    @property
    def bound_rate(self) -> float: ...
    @property
    def bound_wander_ns(self) -> float: ...
    @property
    def root_delay_ns(self) -> int: ...
    @property
    def reference_raw_ns(self) -> int: ...
    @property
    def valid_until_raw_ns(self) -> int: ...
    @property
    def leap_tai_ns(self) -> int: ...
    @property
    def leap_step_s(self) -> int: ...
    @property
    def tai_offset_s(self) -> int: ...
    @property
    def refid(self) -> int: ...
    @property
    def precision(self) -> int: ...
    @property
    def stratum(self) -> int: ...
    @property
    def simulated(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class TimescaleReading:
    """struct rec_reading. ``bound_ns`` rounded up; ``stratum`` 0 and ``leap`` 3 when unsynchronised; ``reference_utc_ns`` 0 = never."""

    utc_ns: int
    tai_ns: int
    bound_ns: int
    root_delay_ns: int
    reference_utc_ns: int
    refid: int
    precision: int
    stratum: int
    leap: Leap
    simulated: bool
