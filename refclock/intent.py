"""What is wanted of a receiver, in the words of its owner: no frame, no key, no maker.

Flow: ``[[source]]`` (refclock.config) -> **intent** -> configure (frames), inquiry (wanted against found). What is left open (None) stays
as the receiver's owner has it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

EARTH_M: Final = (6_340_000.0, 6_400_000.0)
"""Distances from the Earth's centre at which an antenna may stand: WGS 84's poles (6 356 752 m) less 16 km, its equator plus 22 km."""
HEIGHT_M: Final = (-1000.0, 20_000.0)


class TimeBase(Enum):
    """Whose second the pulse marks, and the measurements: UTC or the GPS system's own."""

    UTC = 0
    GNSS = 1


@dataclass(frozen=True, slots=True)
class PulseIntent:
    """A pulse once a second. ``rising``: the edge on the second; it and ``cable_delay_ns`` (positive: the cable delays the signal, so the
    pulse is sent that much earlier): None leaves what the receiver has."""

    on_lock_only: bool = True
    width_ms: int = 100
    rising: bool | None = None
    cable_delay_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where the antenna stands: ``ecef`` x, y, z in m, or else latitude and longitude in degrees, height above the ellipsoid in m."""

    ecef: bool
    at: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class TimingIntent:
    """Time from a known position, of receivers made for it. ``fixed`` None: the receiver surveys it in, for ``survey_s`` at least and until
    it is known to ``accuracy_m``; a position that its owner has fixed in it is then left alone. ``named_only``: asked only of those whose
    name says that they are made for it."""

    survey_s: int = 3600
    accuracy_m: float = 10.0
    fixed: Position | None = None
    named_only: bool = False


@dataclass(frozen=True, slots=True)
class Intent:
    """``keep_nmea``: the sentences of a UBX receiver stay, as far as the line carries them; ``pulse`` None, ``stationary`` False and
    ``timing`` None: left alone; ``save``: beyond the next loss of power; ``baud``: of the line, 0: its own USB, which carries all.
    """

    keep_nmea: bool = False
    pulse: PulseIntent | None = field(default_factory=PulseIntent)
    stationary: bool = False
    timing: TimingIntent | None = None
    time_base: TimeBase = TimeBase.UTC
    save: bool = False
    baud: int = 9600


def position(text: str) -> Position | None:
    """"47.28512 8.56531 408.3" (latitude, longitude, height above the ellipsoid) or "ecef 4278000.1 645000.2 4672000.3"; else None."""
    words = re.split(r"[\s,]+", text.strip().lower())
    ecef = words[0] == "ecef"
    try:
        numbers = [float(word) for word in words[ecef:]]
    except ValueError:
        return None
    if len(numbers) != 3 or not all(math.isfinite(n) for n in numbers):
        return None
    x, y, z = numbers
    if ecef:
        possible = EARTH_M[0] <= math.hypot(x, y, z) <= EARTH_M[1]
    else:
        possible = abs(x) <= 90 and abs(y) <= 180 and HEIGHT_M[0] <= z <= HEIGHT_M[1]
    return Position(ecef, (x, y, z)) if possible else None
