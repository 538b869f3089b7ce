"""What is wanted of a receiver, in the words of its owner: no frame, no key, no maker. What is left open (None) stays as it is.

Flow: ``[[source]]`` (refclock.config) -> **profile** -> configure (frames), readback (wanted against found).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from refclock.config import PULSE_WIDTH_MS, Position, ReceiverSource, position


class TimeBase(Enum):
    """Whose second the pulse marks, and the measurements: UTC or the GPS system's own."""

    UTC = 0
    GNSS = 1


@dataclass(frozen=True, slots=True)
class PulseProfile:
    """A pulse once a second. ``rising``: whether the rising edge marks the second. ``cable_delay_ns``: delay of the antenna's cable; the
    pulse is sent earlier by it. None of either leaves what the receiver has."""

    on_lock_only: bool = True
    width_ms: int = PULSE_WIDTH_MS
    rising: bool | None = None
    cable_delay_ns: int | None = None


@dataclass(frozen=True, slots=True)
class PositionProfile:
    """Time from a known position, for receivers made for it. ``fixed`` None: the receiver surveys its position, for ``survey_s`` at least
    and until it is known to ``accuracy_m``; a position that was fixed in the receiver is then left alone. ``named_only``: only receivers
    whose name says that they are made for timing are asked."""

    survey_s: int = 3600
    accuracy_m: float = 10.0
    fixed: Position | None = None
    named_only: bool = False


@dataclass(frozen=True, slots=True)
class TimingProfile:
    """``keep_nmea``: a UBX receiver's sentences stay on, as far as the line carries them. ``pulse`` None, ``stationary`` False, ``timing``
    None: those settings are left alone. ``save``: settings outlast a loss of power. ``baud``: of the line; 0: the receiver's own USB.
    """

    keep_nmea: bool = False
    pulse: PulseProfile | None = field(default_factory=PulseProfile)
    stationary: bool = False
    timing: PositionProfile | None = None
    time_base: TimeBase = TimeBase.UTC
    save: bool = False
    baud: int = 9600


def timing_profile(config: ReceiverSource, baud: int) -> TimingProfile:
    """What the configuration wants of a receiver on a line of ``baud``; 0: the receiver's own USB, which has no line speed."""
    pulse = PulseProfile(width_ms=config.pulse_width_ms or PULSE_WIDTH_MS, cable_delay_ns=config.cable_delay_ns) if config.pps else None
    place = position(config.fixed_position) if config.fixed_position else None
    timing = None
    if place is not None or config.survey_in or (config.survey_in is None and config.stationary):
        named = place is None and not config.survey_in
        timing = PositionProfile(config.survey_in_s, config.position_accuracy_m, place, named)
    return TimingProfile(
        keep_nmea=config.keep_nmea,
        pulse=pulse,
        stationary=config.stationary,
        timing=timing,
        time_base=TimeBase.UTC if config.time_base == "utc" else TimeBase.GNSS,
        save=config.save,
        baud=baud,
    )
