"""The complete vocabulary between the engine and the machine: what can happen (Event) and what can be done (Effect).

Every event carries its own Instant; the engine has no clock. A shell (``ppsd.clock.main`` on a machine, ``refclock_sim.worlds.world`` in
simulated time) turns devices into events and carries out effects. Nothing else crosses this line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ppsd.discipline.saved import Saved
from refclock.record import Record
from refclock.sample import Edge, ForeignSample, Instant, Leap, LineStatus, ReceiverValue, SourceId
from refclock.timescales import LeapTable

# ---- events -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reported:
    """What a receiver said, decoded, in order; empty when bytes came that say nothing.

    ``at``: when the read ended that brought it; ``byte_ns``: line time of a byte (0: unknown, as over USB or from gpsd).
    """

    source: SourceId
    values: tuple[ReceiverValue, ...]
    at: Instant
    byte_ns: int = 0


@dataclass(frozen=True, slots=True)
class LineSeen:
    """What the receiver's line has shown so far, when that has changed."""

    source: SourceId
    line: LineStatus
    at: Instant


@dataclass(frozen=True, slots=True)
class Pulsed:
    """An edge of the pulse that belongs to this source; ``at`` is when we learned of it (just after ``edge.at``)."""

    source: SourceId
    edge: Edge
    at: Instant


@dataclass(frozen=True, slots=True)
class Sampled:
    """A finished sample from another program (SOCK, SHM)."""

    source: SourceId
    sample: ForeignSample
    at: Instant


@dataclass(frozen=True, slots=True)
class SourceFound:
    """A device was opened. ``what`` names it for people."""

    source: SourceId
    what: str
    at: Instant


@dataclass(frozen=True, slots=True)
class PulseFound:
    """The pulse device at ``path`` is open. ``over_usb``: whether its line is polled (None: unknown). ``bias_us``: how late it may stamp an
    edge, by ``how`` it does (for people)."""

    source: SourceId
    path: str
    over_usb: bool | None
    bias_us: float
    how: str
    at: Instant


@dataclass(frozen=True, slots=True)
class SourceLost:
    """A device failed or vanished; ``why`` says what and what to do."""

    source: SourceId
    why: str
    at: Instant


@dataclass(frozen=True, slots=True)
class Configured:
    """A receiver was set up, or not. ``what`` happened; ``complete``: it answered to everything; ``results``: names of the items by result;
    ``pulse_set``: its pulse is as wanted, the cable's delay included."""

    source: SourceId
    what: str
    complete: bool
    identity: str
    results: Mapping[str, tuple[str, ...]]
    at: Instant
    pulse_set: bool = False


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """Somebody stepped CLOCK_REALTIME; ``at`` is the first instant of the new era. ``by_ns``: positive = moved forward."""

    by_ns: int
    at: Instant


@dataclass(frozen=True, slots=True)
class LeapFileRead:
    """leap-seconds.list was (re-)read."""

    table: LeapTable
    path: str
    at: Instant


@dataclass(frozen=True, slots=True)
class TemperatureRead:
    """The thermometer ``sensor`` says ``celsius``."""

    sensor: str
    celsius: float
    at: Instant


@dataclass(frozen=True, slots=True)
class TemperatureLost:
    """The thermometer cannot be read; ``why`` says what and what to do."""

    why: str
    at: Instant


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed (the engine's deadline came). ``kept_error_ns``: within what another program keeps the system clock, as the kernel
    tells; None when nobody does, or when we do, or when it may follow us."""

    at: Instant
    kept_error_ns: int | None = None


Report = Reported | LineSeen | Pulsed | Sampled | Configured
Event = Report | SourceFound | PulseFound | SourceLost | ClockStepped | LeapFileRead | TemperatureRead | TemperatureLost | Ticked

# ---- effects ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publish:
    """Make ``record`` the served timescale."""

    record: Record


@dataclass(frozen=True, slots=True)
class Steer:
    """Bring CLOCK_REALTIME onto the timescale: at raw ``raw_ns`` it should have read ``utc_ns``, running at ``rate`` = d(UTC)/d(raw) - 1.

    The clock decides how (frequency or slew, a step when REALTIME is off by more than ``step_above_ns``, never when that is None); ``leap``
    and the errors are what the kernel should tell others. An error beyond ``panic_ns`` (None: no limit) is left as it is and reported.
    """

    raw_ns: int
    utc_ns: int
    rate: float
    step_above_ns: int | None
    leap: Leap
    tai_offset_s: int
    est_error_ns: int
    max_error_ns: int
    panic_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Feed:
    """One sample for the programs that we feed: at ``at`` (REALTIME) reference minus local was ``offset_ns``."""

    at: Instant
    offset_ns: int
    uncertainty_ns: int
    leap: Leap


@dataclass(frozen=True, slots=True)
class Persist:
    """Save what the next start wants to know."""

    state: Saved


@dataclass(frozen=True, slots=True)
class Note:
    """What happened, for the log. ``level`` is one of debug, info, warning, error."""

    event: str
    level: str
    fields: Mapping[str, str | int | float | bool | None]


Effect = Publish | Steer | Feed | Persist | Note
