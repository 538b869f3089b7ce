"""The timescale record as values: what the clock process publishes, and its reading at one instant (native/record.h).

A record is an affine map from CLOCK_MONOTONIC_RAW to TAI with an error bound that grows with time. The clock process publishes it,
``refclock.kernel.timescale`` keeps it in a file that every process of this machine may read, and the server answers from it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from refclock.sample import Leap


@dataclass(frozen=True, slots=True)
class Record:
    """The fields of struct rec_params, same names and order (native/record.h has signs and units).

    ``stratum`` 0: never synchronised. ``simulated``: it comes from a simulated receiver.
    """

    raw_ns: int
    tai_ns: int
    rate: float
    bound_ns: float
    bound_rate: float
    bound_wander_ns: float
    root_delay_ns: int
    reference_raw_ns: int
    valid_until_raw_ns: int
    leap_tai_ns: int
    leap_step_s: int
    tai_offset_s: int
    refid: int
    precision: int
    stratum: int
    simulated: bool


_NAMES: Final = tuple(field.name for field in fields(Record))


def fill(struct: object, record: Record) -> None:
    """Copy ``record`` into a C struct rec_params."""
    for name in _NAMES:
        setattr(struct, name, getattr(record, name))


def record_of(struct: object) -> Record:
    """The record in a C struct rec_params."""
    values = {name: getattr(struct, name) for name in _NAMES}
    return Record(**values | {"simulated": bool(values["simulated"])})


@dataclass(frozen=True, slots=True)
class TimescaleReading:
    """struct rec_reading: a record evaluated at one instant.

    ``bound_ns`` is rounded up. ``reference_utc_ns`` 0: never set. Unsynchronised: ``stratum`` 0 and ``leap`` UNSYNCHRONISED.
    """

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
