"""Scenario files: conditions and limits, one claim each. ``refclock sim FILE`` runs one and says whether its claim holds.

    claim = "what a user may rely on"
    duration_s = 1800
    [start]       utc = 2026-12-31T23:30:00Z, clock_offset_s = 0.1 (of the system clock, positive = ahead),
                  clock_kept_ms (the kernel says that NTP keeps it within this error)
    [oscillator]  ppm, wander, sine_ppm, sine_period_s, [[oscillator.ramps]] ppm at_s over_s lag_s
    [temperature] what warms crystal and thermometer: keys of thermal.Heat (celsius, day, day_s, load ...), [[temperature.warmings]] kelvin
                  at_s over_s; without the table there is no thermometer
    [pulse]       model (of pulse.PRESETS, or "none"), late_us (constant), inverted (the wiring inverts the pulse), width_ms,
                  rate_hz (1 to 10, 0.5, 0.2 ...), edges ("both", or the one kind that arrives)
    [receiver]    kind (of receiver.MODELS; or "none": a pulse without a line), baud, fix_after_s, leap_known_after_s, leap_error_s,
                  leap_at (UTC midnight), leap_step_s,
                  rollovers, delay_ms, without (messages)
    [config]      keys of a [[source]] type = "receiver", or without one "pps" (pps_bias_us, edge ...) and of [clock]
    [state]       what an earlier run left: utc_s; [state.sources.gps0.delay] delay_ms, spread_ms, byte_ns (ppsd/discipline/saved.py)
    [[fault]]     what = one of FAULTS, from_s, until_s, value, share; pulse-rate: value pulses a second; stray-pulse: each second with
                  probability share; hum: value edges of each kind a second instead of pulses; vm-stop: the machine stands still for value s
                  and all its clocks with it, messages wait and pulses are lost; raw-jump: its clocks jump ahead by value s (both in the
                  middle of second from_s); raw-rate: they run faster by value ppm
    [limits]      locked_within_s, max_error_us (once LOCKED), settled_max_error_us (last tenth), final = "LOCKED" ...,
                  unsynchronised_until_s, holdover (true: it must occur), says (sentences, or parts of them, that must be said), blind_s
                  (after a fault of the raw clock: before the next pulses and messages nothing can show it)

Whatever the limits: at every packet |served - true| <= root dispersion + root delay / 2, and no packet is a wrong second, but within
blind_s.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ppsd.discipline.saved import VERSION, Saved, from_json
from refclock_sim.models import oscillator, pulse
from refclock_sim.models.thermal import LIES, Heat, Warming
from refclock_sim.receiver.gnss import TROUBLES, LabelFault
from refclock_sim.receiver.output import MODELS

NO_RECEIVER = "none"
"""The kind of a receiver of which nothing but the pulse arrives."""


@dataclass(frozen=True, slots=True)
class Start:
    """The true time at the start. ``clock_offset_s``: error of the system clock, positive = ahead. ``clock_kept_ms``: the kernel says that
    another program keeps the clock within this error; in truth the clock runs free."""

    utc: datetime = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
    clock_offset_s: float = 0.05
    clock_kept_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Ramp:
    """A change of frequency by ``ppm`` at ``at_s``: linearly over ``over_s``, or (0) as a step with thermal lag ``lag_s``."""

    ppm: float
    at_s: float
    over_s: float = 0.0
    lag_s: float = 60.0

    def term(self) -> oscillator.Term:
        """The oscillator's term."""
        if self.over_s > 0:
            return oscillator.ramp(self.ppm * 1e-6, self.at_s, self.over_s)
        return oscillator.step(self.ppm * 1e-6, self.at_s, self.lag_s)


@dataclass(frozen=True, slots=True)
class OscillatorModel:
    """The crystal. ``wander``: random-walk step per second^0.5."""

    ppm: float = 12.0
    wander: float = 1e-9
    sine_ppm: float = 0.0
    sine_period_s: float = 7200.0
    ramps: tuple[Ramp, ...] = ()

    def make(self, seed: int, *more: oscillator.Term) -> oscillator.Oscillator:
        """The oscillator of one run, with the terms ``more``."""
        terms = [*more, *(r.term() for r in self.ramps)]
        if self.sine_ppm:
            terms.append(oscillator.sinusoid(self.sine_ppm * 1e-6, self.sine_period_s))
        return oscillator.Oscillator(seed, self.ppm * 1e-6, self.wander, terms)


@dataclass(frozen=True, slots=True)
class PulseModel:
    """A preset of ``pulse``, a constant ``late_us`` later. ``rate_hz``: a whole number of pulses a second, or one pulse every few whole
    seconds. ``edges``: both arrive, or one kind."""

    model: str = "clean"
    late_us: float = 0.0
    width_ms: float = 100.0
    inverted: bool = False
    rate_hz: float = 1.0
    edges: str = "both"

    def make(self, seed: int) -> pulse.PulseError | None:
        """The pulse of one run; None without one."""
        return None if self.model == "none" else pulse.PRESETS[self.model](seed) + pulse.Offset(self.late_us * 1e3)


@dataclass(frozen=True, slots=True)
class ReceiverModel:
    """The receiver. Until it knows the leap count its UTC is ``leap_error_s`` ahead. Its dates are ``rollovers`` times 1024 weeks behind.
    ``delay_ms``: of its messages, instead of the kind's own. ``without``: messages that it does not send."""

    kind: str = "nmea"
    baud: int = 9600
    fix_after_s: int = 2
    leap_known_after_s: int = 2
    leap_error_s: int = 3
    leap_at: datetime | None = None
    leap_step_s: int = 1
    rollovers: int = 0
    delay_ms: float | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from ``from_s`` to ``until_s``. ``value``: its size, in s unless the kind says otherwise; ``share``: its probability."""

    what: str
    from_s: int
    until_s: int = 1 << 40
    value: float = 1.0
    share: float = 1.0

    def hides(self, at_s: float, blind_s: float) -> bool:
        """Whether at ``at_s`` the raw clock has moved by this fault, and ``blind_s`` have not passed since."""
        if self.what not in ("vm-stop", "raw-jump", "raw-rate"):
            return False
        begin = self.from_s + (0.0 if self.what == "raw-rate" else 0.5)
        return any(0 <= at_s - t < blind_s for t in (begin + (self.value if self.what == "vm-stop" else 0.0), self.until_s))

    @property
    def middle_ns(self) -> int:
        """The middle of its first second, ns since the start: when a fault begins that takes no whole second."""
        return self.from_s * 1_000_000_000 + 500_000_000

    def on_labels(self) -> LabelFault:
        """The receiver's fault: late seconds, or delayed messages."""
        if self.what == "late-label":
            return LabelFault(self.from_s, self.until_s, shift_s=-round(self.value), probability=self.share)
        return LabelFault(self.from_s, self.until_s, delay_ns=round(self.value * 1e9), probability=self.share)


FAULTS = (
    "no-pulse",
    "no-fix",
    "late-label",
    "label-delay",
    "unplugged",
    "clock-step",
    "pulse-offset",
    "pulse-rate",
    "stray-pulse",
    "hum",
    "vm-stop",
    "raw-jump",
    "raw-rate",
    *TROUBLES,
    *LIES,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits besides the bound."""

    locked_within_s: float | None = None
    max_error_us: float | None = None
    settled_max_error_us: float | None = None
    final: str = "LOCKED"
    unsynchronised_until_s: float = 0.0
    holdover: bool = False
    blind_s: float = 0.0
    says: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario file."""

    name: str
    claim: str
    duration_s: int
    start: Start = Start()
    oscillator: OscillatorModel = OscillatorModel()
    heat: Heat | None = None
    pulse: PulseModel = PulseModel()
    receiver: ReceiverModel = ReceiverModel()
    config: Mapping[str, Any] = field(default_factory=dict)
    clock: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    limits: Limits = Limits()
    state: Saved = field(default_factory=Saved)


class ScenarioError(ValueError):
    """A scenario file that cannot be run; the text says where and why."""


def _table(cls: type[Any], table: object, where: str) -> Any:
    known = {f.name for f in fields(cls)}
    if not isinstance(table, dict):
        raise ScenarioError(f"{where}: expected a table")
    unknown = sorted(set(table) - known)
    if unknown:
        raise ScenarioError(f"{where}: unknown key {unknown[0]}; allowed: {', '.join(sorted(known))}")
    try:
        return cls(**table)
    except TypeError as error:
        raise ScenarioError(f"{where}: {error}") from error


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file; raises ScenarioError or OSError."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    known = {"claim", "duration_s", "start", "oscillator", "temperature", "pulse", "receiver"}
    known |= {"config", "clock", "fault", "limits", "state"}
    unknown = sorted(set(data) - known)
    if unknown:
        raise ScenarioError(f"{path}: unknown key {unknown[0]}; allowed: {', '.join(sorted(known))}")
    duration = data.get("duration_s")
    if not isinstance(data.get("claim"), str) or not isinstance(duration, int) or not 10 <= duration <= 10_000_000:
        raise ScenarioError(f"{path}: needs claim (a text) and duration_s (10 to 10000000)")
    crystal = dict(data.get("oscillator", {}))
    ramps = tuple(_table(Ramp, r, f"{path}: [[oscillator.ramps]]") for r in crystal.pop("ramps", []))
    warmth = dict(data.get("temperature", {}))
    warmings = tuple(_table(Warming, w, f"{path}: [[temperature.warmings]]") for w in warmth.pop("warmings", []))
    heat = _table(Heat, {**warmth, "warmings": warmings}, f"{path}: [temperature]") if "temperature" in data else None
    faults = tuple(_table(Fault, f, f"{path}: [[fault]]") for f in data.get("fault", []))
    pulse_model = _table(PulseModel, data.get("pulse", {}), f"{path}: [pulse]")
    if pulse_model.model not in ("none", *pulse.PRESETS):
        raise ScenarioError(f"{path}: [pulse]: model = {pulse_model.model!r}; allowed: none, {', '.join(pulse.PRESETS)}")
    receiver = _table(ReceiverModel, data.get("receiver", {}), f"{path}: [receiver]")
    if receiver.kind not in (NO_RECEIVER, *MODELS):
        raise ScenarioError(f"{path}: [receiver]: kind = {receiver.kind!r}; allowed: {NO_RECEIVER}, {', '.join(MODELS)}")
    for fault in faults:
        if fault.what not in FAULTS:
            raise ScenarioError(f"{path}: [[fault]]: what = {fault.what!r}; allowed: {', '.join(FAULTS)}")
    return Scenario(
        name=path.stem,
        claim=data["claim"],
        duration_s=duration,
        start=_table(Start, data.get("start", {}), f"{path}: [start]"),
        oscillator=_table(OscillatorModel, {**crystal, "ramps": ramps}, f"{path}: [oscillator]"),
        heat=heat,
        pulse=pulse_model,
        receiver=receiver,
        config=data.get("config", {}),
        clock=data.get("clock", {}),
        faults=faults,
        state=_state(data.get("state", {}), path),
        limits=_table(Limits, data.get("limits", {}), f"{path}: [limits]"),
    )


def _state(table: Mapping[str, object], path: Path) -> Saved:
    saved, useless = from_json({"version": VERSION, **table})
    if useless:
        raise ScenarioError(f"{path}: [state]: {useless}")
    return saved


@dataclass(slots=True)
class Outcome:
    """Result of a run. Errors in us. ``violations``: packets with an error beyond their own bound."""

    seed: int
    packets: int = 0
    synchronised: int = 0
    violations: int = 0
    wrong_seconds: int = 0
    locked_after_s: float | None = None
    first_synchronised_s: float | None = None
    max_error_us: float = 0.0
    rms_error_us: float = 0.0
    settled_max_error_us: float = 0.0
    median_bound_us: float = 0.0
    held_over: bool = False
    final: str = ""
    wall_s: float = 0.0
    worst: str = ""
    notes: list[str] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    """Sentences shown to people: each without its digits, and as it was first shown."""

    def failures(self, scenario: Scenario) -> list[str]:
        """Every broken limit, in words."""
        limits, bad = scenario.limits, []
        if self.violations:
            bad.append(f"{self.violations} of {self.synchronised} packets beyond their own bound ({self.worst})")
        if self.wrong_seconds:
            bad.append(f"{self.wrong_seconds} packets with a wrong second")
        if limits.locked_within_s is not None and (self.locked_after_s is None or self.locked_after_s > limits.locked_within_s):
            bad.append(f"LOCKED after {self.locked_after_s} s, limit {limits.locked_within_s} s")
        if limits.max_error_us is not None and self.max_error_us > limits.max_error_us:
            bad.append(f"maximum error {self.max_error_us:.2f} us after locking, limit {limits.max_error_us} us")
        if limits.settled_max_error_us is not None and self.settled_max_error_us > limits.settled_max_error_us:
            bad.append(f"maximum error {self.settled_max_error_us:.2f} us in the last tenth, limit {limits.settled_max_error_us} us")
        if self.first_synchronised_s is not None and self.first_synchronised_s < limits.unsynchronised_until_s:
            bad.append(f"served time after {self.first_synchronised_s:.0f} s, must not before {limits.unsynchronised_until_s:.0f} s")
        bad += [f"never said {words!r}" for words in limits.says if not any(words in said for said in self.said.values())]
        if limits.holdover and not self.held_over:
            bad.append("never went into holdover")
        if self.final != limits.final:
            bad.append(f"ended {self.final}, expected {limits.final}")
        return bad
