"""Snapshot: the one record that every face reads, and the one sentence that says how we are.

The engine makes a Snapshot on request; the control socket sends it as JSON (``as_json``); CLI, dashboard, metrics and the chronyc and
ntpq faces read nothing else about the clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum

from refclock.rhythm import PulseReport
from refclock.sample import Satellite


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


def plain_ns(ns: float) -> str:
    """An error in the unit people read: 85 ns, 1.2 µs, 17 ms, 3.1 s."""
    for limit, unit, scale in ((1e3, "ns", 1.0), (1e6, "µs", 1e3), (1e9, "ms", 1e6)):
        if abs(ns) < limit:
            value = ns / scale
            return f"{value:.0f} {unit}" if abs(value) >= 10 or unit == "ns" else f"{value:.1f} {unit}"
    return f"{ns / 1e9:.1f} s"


def plain_duration(s: float) -> str:
    """45 s, 12 m, 2 h 10 m, 12 d."""
    if s < 120:
        return f"{s:.0f} s"
    if s < 7200:
        return f"{s / 60:.0f} m"
    if s < 2 * 86400:
        return f"{int(s // 3600)} h {int(s % 3600 // 60)} m"
    return f"{s / 86400:.0f} d"


def top_line(clock: Mapping[str, object]) -> str:
    """The one sentence, from a decoded snapshot: what we are locked to, within what, leap, satellites, uptime."""
    sources = clock["sources"]
    assert isinstance(sources, list | tuple)
    selected = next((s for s in sources if s["tally"] == "*"), None)
    verdict = str(clock["verdict"])
    bound = clock["bound_ns"]
    words = []
    if verdict == Verdict.LOCKED.value and selected is not None:
        words.append(f"LOCKED to {selected['what']}")
    elif verdict == Verdict.HOLDOVER.value and isinstance(clock["holdover_s"], int | float):
        words.append(f"HOLDOVER {plain_duration(clock['holdover_s'])}")
        left = clock["holdover_left_s"]
        if isinstance(left, int | float):
            words.append(f"safe for {plain_duration(left)}")
    else:
        words.append(verdict)
    if isinstance(bound, int | float):
        words.append(f"within ±{plain_ns(bound)}")
    if clock["why"]:
        words.append(str(clock["why"]))
    words.append(f"leap: {'none pending' if clock['leap_pending'] == 'none' else clock['leap_pending']}")
    counted = selected or (sources[0] if sources else None)
    if counted is not None and counted["satellites_used"] is not None:
        words.append(f"{counted['satellites_used']}/{counted['satellites_seen']} sats")
    uptime = clock["uptime_s"]
    if isinstance(uptime, int | float):
        words.append(f"up {plain_duration(uptime)}")
    return ("SIMULATED " if clock["simulated"] else "") + " · ".join(words)
