"""Snapshot: the one record that every face reads, and the one sentence that says how we are.

The engine makes a Snapshot on request; the control socket sends it as JSON (``as_json``); CLI, dashboard, metrics and the chronyc and
ntpq faces read nothing else about the clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum

from refclock.sample import Satellite
from refclock.timing.pulses import PulseReport


class Mode(Enum):
    """What the engine is doing (one place knows, everybody reads it here)."""

    ACQUIRE = "acquire"  # which second is it?
    CONVERGE = "converge"  # the second is known, the frequency is being learned
    TRACK = "track"  # pulses are rounded by the timescale, labels only check it
    HOLDOVER = "holdover"  # no usable measurement; the bound grows


class Verdict(Enum):
    """The state a person sees; the value is the word shown."""

    LOCKED = "LOCKED"
    ACQUIRING = "ACQUIRING"
    HOLDOVER = "HOLDOVER"
    NO_TIME = "NO TIME"


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source of time as it stands."""

    name: str
    kind: str  # receiver, gpsd, sock, shm
    what: str  # the devices, in words
    present: bool
    tally: str  # as in chronyc sources: * selected, + agrees, x falseticker, ~ too variable, ? unusable
    why: str  # one sentence: why it is not selected, or what it contributes
    reach: int  # one bit for each of the last eight seconds... as chronyc prints it, octal 377 = all
    last_sample_s: float | None  # seconds since the last sample
    offset_ns: int | None  # last sample minus the served timescale (+: the source says it is later)
    jitter_ns: int | None  # robust standard deviation of the samples
    bound_ns: int | None  # what we think this source alone would allow
    frequency_ppm: float | None  # error of the local oscillator against it (+: fast)
    skew_ppm: float | None
    samples: int
    pulses: int
    labels: int
    fix: str  # none, 2D, 3D, time-only, unknown
    satellites_used: int | None
    satellites_seen: int | None
    message_delay_ms: float | None
    message_spread_ms: float | None
    rejected: Mapping[str, int] = field(default_factory=dict)
    message: str = ""  # "NMEA arrives 143 ms ± 4 after the pulse"; empty while not measured
    satellites: tuple[Satellite, ...] = ()
    health: tuple[str, ...] = ()  # what is the matter with the receiver, a sentence each
    bias_us: float | None = None  # how late its pulses may be stamped: part of the bound
    bias_how: str = ""  # by what they are stamped; "as configured"
    pulse: PulseReport | None = None  # rate, width, jitter and verdict of its pulses; None before the first edge
    timing: str = ""  # survey-in and timing mode of a timing receiver, in words
    cable: str = ""  # who takes off the antenna cable's delay; empty when none is configured


@dataclass(frozen=True, slots=True)
class TemperatureStatus:
    """The thermometer beside the crystal."""

    sensor: str  # where it is read
    celsius: float | None  # None: not read now
    explains_ppm: float | None  # range of the frequency that it explains, of the last hour; None while nothing is learned
    in_use: bool  # whether estimates and holdover follow it
    why: str  # why not, one sentence; "" when in use
    score: float  # independent forecasts that it made better, less those that it made worse
    lag_s: float  # of the low-pass between it and the crystal
    ppm_per_kelvin: float  # slope at the present temperature (+: faster when warmer)
    words: str  # all this in one sentence


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The clock process at one instant."""

    version: str
    pid: int
    simulated: bool
    uptime_s: float
    utc: str  # ISO 8601, ns, of the served timescale; of the system clock before the first lock
    mode: str
    verdict: str
    why: str  # one cause in plain words (empty when LOCKED)
    stages: tuple[tuple[str, bool], ...]  # receiver found, fix, second known, pulses numbered, locked
    stratum: int
    refid: str
    leap: str  # normal, insert, delete, unsynchronised
    leap_pending: str  # "none" or "+1 s at 2026-12-31"
    tai_offset_s: int
    bound_ns: int | None  # |served - true| is claimed to be below it
    frequency_ppm: float | None
    skew_ppm: float | None
    system_offset_ns: int | None  # served UTC minus CLOCK_REALTIME
    holdover_s: float | None
    holdover_left_s: float | None
    steering: str  # none, kernel
    clock_steps: int  # foreign steps of CLOCK_REALTIME seen
    sources: tuple[SourceStatus, ...]
    temperature: TemperatureStatus | None = None  # None: no thermometer is read

    def as_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))
