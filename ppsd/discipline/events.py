"""The interface of the engine: events, which go in, and effects, which come out.

Every event carries its own Instant, because the engine has no clock. ``ppsd.clock.main`` on a machine and ``refclock_sim.worlds.world`` in
simulated time make events from their devices and carry out the effects. Nothing else passes between them and the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ppsd.discipline.saved import Saved
from refclock.condition import Condition
from refclock.record import Record
from refclock.sample import Edge, ForeignSample, Instant, Leap, LineStatus, ReceiverValue, SourceId, UpstreamServer
from refclock.timescales import LeapTable

# ---- events -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reported:
    """Decoded values of a receiver, in order; empty when bytes came without any.

    ``at``: end of the read that brought them. ``byte_ns``: line time of a byte, 0 when unknown (USB, gpsd).
    """

    source: SourceId
    values: tuple[ReceiverValue, ...]
    at: Instant
    byte_ns: int = 0


@dataclass(frozen=True, slots=True)
class LineSeen:
    """The state of a receiver's line has changed."""

    source: SourceId
    line: LineStatus
    at: Instant


@dataclass(frozen=True, slots=True)
class Pulsed:
    """An edge of this source's pulse. ``at``: when it was read, just after ``edge.at``."""

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
class UpstreamHeard:
    """What the NTP client says of a server, and a sample when there is a new one. Its ``uncertainty_ns`` is a bound."""

    server: UpstreamServer
    sample: ForeignSample | None
    at: Instant


@dataclass(frozen=True, slots=True)
class SourceFound:
    """A device was opened. ``what``: its name for users."""

    source: SourceId
    what: str
    at: Instant


@dataclass(frozen=True, slots=True)
class PulseFound:
    """The pulse device at ``path`` is open. ``over_usb``: whether its line is polled, None when unknown. ``bias_us``: the most by which it
    stamps an edge late. ``how``: the way of stamping, in words."""

    source: SourceId
    path: str
    over_usb: bool | None
    bias_us: float
    how: str
    at: Instant


@dataclass(frozen=True, slots=True)
class SourceLost:
    """A device failed or vanished. ``why``: cause and remedy."""

    source: SourceId
    why: str
    at: Instant


@dataclass(frozen=True, slots=True)
class Configured:
    """Outcome of setting a receiver up. ``what``: the outcome in words. ``complete``: every item was answered. ``results``: names of
    the items by result. ``pulse_set``: the pulse is set as configured, the cable's delay included."""

    source: SourceId
    what: str
    complete: bool
    identity: str
    results: Mapping[str, tuple[str, ...]]
    at: Instant
    pulse_set: bool = False


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """CLOCK_REALTIME was stepped by another program. ``at``: first instant of the new era. ``by_ns`` positive: moved forward."""

    by_ns: int
    at: Instant


@dataclass(frozen=True, slots=True)
class RawClockChanged:
    """The kernel counts its clocks on another counter, ``now`` instead of ``was``: CLOCK_MONOTONIC_RAW goes on at another rate."""

    was: str
    now: str
    at: Instant


@dataclass(frozen=True, slots=True)
class LeapFileRead:
    """leap-seconds.list was read: its ``table``, or why it is refused. ``kernel_s``: TAI-UTC that the kernel has, 0 for none."""

    table: LeapTable | Condition
    path: str
    at: Instant
    kernel_s: int = 0


@dataclass(frozen=True, slots=True)
class TemperatureRead:
    """A reading of the thermometer ``sensor``, degrees Celsius."""

    sensor: str
    celsius: float
    at: Instant


@dataclass(frozen=True, slots=True)
class TemperatureLost:
    """The thermometer cannot be read. ``why``: cause and remedy."""

    why: str
    at: Instant


@dataclass(frozen=True, slots=True)
class Ticked:
    """The engine's deadline has passed. ``kept_error_ns``: error within which another program keeps the system clock, as the kernel
    reports; None when none does, when this daemon steers the clock, or when that program may follow this daemon."""

    at: Instant
    kept_error_ns: int | None = None


MachineEvent = ClockStepped | RawClockChanged | LeapFileRead | TemperatureRead | TemperatureLost
Report = Reported | LineSeen | Pulsed | Sampled | Configured
Event = Report | UpstreamHeard | SourceFound | PulseFound | SourceLost | MachineEvent | Ticked

# ---- effects ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publish:
    """Make ``record`` the served timescale."""

    record: Record


@dataclass(frozen=True, slots=True)
class Steer:
    """Bring CLOCK_REALTIME onto the timescale: at raw ``raw_ns`` it should have read ``utc_ns``, running at ``rate`` = d(UTC)/d(raw) - 1.

    The system clock is slewed, or stepped when it is off by more than ``step_above_ns`` (None: never). ``leap``, ``tai_offset_s`` and the
    errors are reported to the kernel. An error beyond ``panic_ns`` (None: no limit) is not corrected but logged.
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
    """One sample for the configured feeds: at ``at`` reference - REALTIME was ``offset_ns``. ``bound_ns``: of the served time then."""

    at: Instant
    offset_ns: int
    bound_ns: int
    leap: Leap


@dataclass(frozen=True, slots=True)
class Persist:
    """Save ``state`` for the next start."""

    state: Saved


@dataclass(frozen=True, slots=True)
class Note:
    """An entry of the log. ``level``: debug, info, warning or error."""

    event: str
    level: str
    fields: Mapping[str, str | int | float | bool | None]


Effect = Publish | Steer | Feed | Persist | Note
