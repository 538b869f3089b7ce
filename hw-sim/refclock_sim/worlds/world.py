"""A world in simulated time: the second shell around the real engine and the real packet code.

True time runs in whole seconds of TAI. In each second the oscillator gives the rate of the local clock, the pulse model the error of the
edge's stamp, and the receiver bytes with their arrival; clients ask at random moments. All of it becomes events of the real Engine, in
order. The engine's records go to the real ``pkt_respond``, and every reply is compared with the truth.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from random import Random
from typing import TextIO

from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import (
    ClockStepped,
    Effect,
    LeapFileRead,
    LineSeen,
    Note,
    Publish,
    Pulsed,
    Reported,
    SourceFound,
    SourceLost,
    TemperatureRead,
    Ticked,
)
from ppsd.process.exit_codes import FAILED, GOOD, IO_ERROR, USAGE
from ppsd.serve.ntp_server import PacketPath
from ppsd.snapshot import Mode, Snapshot
from refclock.config import PpsSource, ReceiverSource, Source
from refclock.errors import explain
from refclock.receiver.session import ReceiverSession
from refclock.sample import NS, Edge, EdgeKind, Instant, SourceId
from refclock.timescales import NTP_UNIX_S, LeapTable
from refclock_sim.models.pulse import PulseError
from refclock_sim.models.thermal import LIES, Board
from refclock_sim.receiver.gnss import TROUBLES, Gnss
from refclock_sim.receiver.output import MODELS, Receiver
from refclock_sim.worlds.scenario import NO_RECEIVER, Fault, Outcome, Scenario, ScenarioError, load_scenario

GPS = SourceId("gps0")
RAW_START_NS = 5_000 * NS
"""The host has been up for a while."""
EDGE_NOTICE_NS = 60_000
"""ns from the edge to the event: a thread wakes up."""
REQUEST = bytes([0x23]) + bytes(39) + b"\x12\x34\x56\x78\x9a\xbc\xde\xf0"
SPIKE_NS = 20e3
"""ns: width of a stray pulse that couples in from a neighbouring wire."""
TURN_NS = 20_000
"""ns from arrival to departure of a packet."""
BOUND_RESOLUTION_NS = 2
"""ns: rounding of the stamps on the wire."""


class World:
    """One run of one scenario with one seed."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.outcome = Outcome(seed)
        base = Random(f"{scenario.name}/{seed}")
        r = scenario.receiver
        crystal = base.getrandbits(62)
        lies = [f for f in scenario.faults if f.what in LIES]

        def lie(t_s: float) -> str:
            return next((f.what for f in lies if f.from_s <= t_s < f.until_s), "")

        self._board = None if scenario.heat is None else Board(scenario.heat, crystal, lie)
        self._oscillator = scenario.oscillator.make(crystal, *([self._board.error] if self._board else []))
        self._pulse = scenario.pulse.make(base.getrandbits(62))
        self._clients = Random(base.getrandbits(62))
        self._table = LeapTable()
        self._leap_s = int(r.leap_at.timestamp()) if r.leap_at is not None else None
        self._truth = self._table if self._leap_s is None else self._table.with_leap(self._leap_s, r.leap_step_s)
        utc_s = int(scenario.start.utc.timestamp())
        self._tai0 = self._truth.utc_to_tai_ns(utc_s * NS)
        seed = base.getrandbits(62)
        gnss = Gnss(
            seed,
            self._tai0 // NS,
            self._truth,
            fix_s=r.fix_after_s,
            leap_known_s=r.leap_known_after_s,
            firmware_tai_offset_s=self._truth.tai_offset_s(utc_s) - r.leap_error_s,
            losses=[(f.from_s, f.until_s) for f in scenario.faults if f.what == "no-fix"],
            troubles=[(f.what, f.from_s, f.until_s) for f in scenario.faults if f.what in TROUBLES],
            rollovers=r.rollovers,
            faults=[f.on_labels() for f in scenario.faults if f.what in ("late-label", "label-delay")],
        )
        self._mute = r.kind == NO_RECEIVER
        model = MODELS["nmea" if self._mute else r.kind]
        if r.delay_ms is not None:
            model = replace(model, delay_ns=round(r.delay_ms * 1e6))
        self._receiver = Receiver(model, gnss, seed, r.baud)
        for name in r.without:
            self._receiver.settings.rates.pop(name, None)
        self._real0 = utc_s * NS + round(scenario.start.clock_offset_s * NS)
        self._k = 0  # the present true second, of the scenario
        self._raw = RAW_START_NS  # raw reading at the beginning of the present true second
        self._rate = 0.0
        self._stops = [(f.middle_ns, round(f.value * NS)) for f in scenario.faults if f.what == "vm-stop"]
        self._jumps = [(f.middle_ns, round(f.value * NS)) for f in scenario.faults if f.what == "raw-jump"]
        self._era = 0
        self._line: list[tuple[int, bytes]] = []  # (true ns since the start, chunk) still to arrive
        self._wire: list[tuple[float, EdgeKind]] = []  # the same of edges
        self._strays = Random(f"strays {scenario.name}/{seed}")
        self._plugged = True
        pps = "/dev/simulated-pps" if self._pulse else ""
        source: Source
        if self._mute:
            source = PpsSource(name=str(GPS), pps=pps, **dict(scenario.config))
        else:
            source = ReceiverSource(name=str(GPS), device="/dev/simulated", pps=pps, **dict(scenario.config))
        clock = ClockConfig(not_before=date(2026, 1, 1), **dict(scenario.clock))
        config = Config(clock=clock, sources=(source,))
        at = self._instant(0)
        self.engine = Engine(config, scenario.state, at, simulated=False, version="world", pid=0)
        self._session = self._open(at)
        self._path: PacketPath | None = None
        self._effects(self.engine.handle(LeapFileRead(self._table, "the world's table", at)))
        self._effects(self.engine.handle(SourceFound(GPS, "simulated receiver", at)))
        self._errors: list[float] = []
        self._bounds: list[float] = []

    def _open(self, at: Instant) -> ReceiverSession:
        """The receiver's line, opened anew."""
        return ReceiverSession(at.mono_ns, self.engine.not_before_s, baud=9600)

    # ---- clocks ------------------------------------------------------------------------------------------------------------------

    def _raw_at(self, into_ns: float) -> int:
        """Raw clock ``into_ns`` after the beginning of the present true second (a little beyond its end is allowed)."""
        now = self._k * NS + into_ns
        stood = sum(min(max(0.0, now - begin), length) for begin, length in self._stops)
        jumped = sum(by for begin, by in self._jumps if now >= begin)
        return self._raw + round(into_ns * (1.0 + self._rate) - stood) + jumped

    def _resumed_ns(self, at_ns: float) -> float:
        """When the machine runs again at or after the true instant ``at_ns`` since the start."""
        return next((begin + length for begin, length in self._stops if begin <= at_ns < begin + length), at_ns)

    def _instant(self, into_ns: float) -> Instant:
        raw = self._raw_at(into_ns)
        return Instant(self._real0 + raw - RAW_START_NS, raw, self._era)

    # ---- one second after another ------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """The whole scenario."""
        self.advance(self.scenario.duration_s)
        return self._finish()

    def advance(self, until_s: int) -> None:
        """Go on to the beginning of true second ``until_s``."""
        while self._k < until_s:
            faster = self._active("raw-rate", self._k)
            self._rate = self._oscillator.advance() + (0.0 if faster is None else faster.value * 1e-6)
            for into, kind, payload in sorted(self._second(self._k), key=lambda event: event[0]):
                if kind in ("packet", "lost", "found") or self._resumed_ns(self._k * 1e9 + into) == self._k * 1e9 + into:
                    self._happen(self._k, into, kind, payload)
            self._raw += round(NS * (1.0 + self._rate))
            self._k += 1

    def snapshot(self) -> Snapshot:
        """What the daemon says of itself now."""
        return self.engine.snapshot(self._instant(0))

    def hear(self, data: bytes, into_ns: float = 0.0) -> None:
        """The receiver's line brings ``data``, ``into_ns`` after the beginning of the present second."""
        at, byte_ns = self._instant(into_ns), self._receiver.byte_ns
        self._effects(self.engine.handle(Reported(GPS, tuple(self._session.feed(data, at, byte_ns)), at, byte_ns)))

    def _active(self, what: str, k: int) -> Fault | None:
        for fault in self.scenario.faults:
            if fault.what == what and fault.from_s <= k < fault.until_s:
                return fault
        return None

    def _second(self, k: int) -> list[tuple[float, str, bytes | EdgeKind]]:
        """What happens in true second ``k``: (ns into it, kind, payload)."""
        tai_ns = self._tai0 + k * NS
        happenings: list[tuple[float, str, bytes | EdgeKind]] = [(self._clients.random() * NS, "packet", b"") for _ in range(2)]
        happenings.append((0.95e9, "tick", b""))
        if self._board is not None:
            happenings.append((0.3e9, "thermometer", b""))
        if self._active("clock-step", k):
            happenings.append((0.5e9, "step", b""))
        unplugged = self._active("unplugged", k) is not None
        if unplugged == self._plugged:
            self._plugged = not unplugged
            happenings.append((0.0, "lost" if unplugged else "found", b""))
        if unplugged:
            self._line.clear()
            self._wire.clear()
            return happenings
        if self._pulse is not None:
            self._wire += [(k * 1e9 + into, kind) for into, kind in self._edges(k, tai_ns // NS, self._pulse)]
            happenings += [(at - k * 1e9, "edge", kind) for at, kind in self._wire if at < (k + 1) * 1e9]
            self._wire = [(at, kind) for at, kind in self._wire if at >= (k + 1) * 1e9]
        cycle = [] if self._mute else self._receiver.cycle(tai_ns // NS)
        self._line += [(round(self._resumed_ns(k * NS + chunk.offset_ns)), chunk.data) for chunk in cycle]
        for at, chunk in self._line:
            if at < (k + 1) * NS:
                happenings.append((float(at - k * NS), "bytes", chunk))
        self._line = [(at, chunk) for at, chunk in self._line if at >= (k + 1) * NS]
        return happenings

    def _edges(self, k: int, tai_s: int, errors: PulseError) -> Iterator[tuple[float, EdgeKind]]:
        """The edges that begin in true second ``k``: (ns into it, kind)."""
        model = self.scenario.pulse
        late = errors.late_ns(k, self._raw)
        offset, rate = self._active("pulse-offset", k), self._active("pulse-rate", k)
        late += offset.value * 1e9 if offset is not None else 0.0
        rate_hz = model.rate_hz if rate is None else rate.value
        kinds = (EdgeKind.CLEAR, EdgeKind.ASSERT) if model.inverted else (EdgeKind.ASSERT, EdgeKind.CLEAR)
        spikes: list[tuple[float, float]] = []  # (beginning, width)
        hum, stray = self._active("hum", k), self._active("stray-pulse", k)
        if hum is not None:
            spikes += [((j + 0.5) / hum.value * 1e9, 0.5 / hum.value * 1e9) for j in range(round(hum.value))]
        elif self._active("no-pulse", k) is None and late < 0.8e9 and (rate_hz >= 1 or tai_s % round(1 / rate_hz) == 0):
            spikes += [(late + j / rate_hz * 1e9, model.width_ms * 1e6) for j in range(max(1, round(rate_hz)))]
        if stray is not None and self._strays.random() < stray.share:
            spikes.append((self._strays.random() * 0.9e9, SPIKE_NS))
        for at, width in spikes:
            for kind, edge in zip(kinds, (at, at + width), strict=True):
                if model.edges in ("both", kind.value):
                    yield edge, kind

    def _happen(self, k: int, into: float, kind: str, payload: bytes | EdgeKind) -> None:
        at = self._instant(into)
        engine = self.engine
        if kind == "packet":
            self._ask(k, into)
        elif kind == "bytes" and isinstance(payload, bytes):
            self.hear(payload, into)
        elif kind == "edge" and isinstance(payload, EdgeKind):
            self._effects(engine.handle(Pulsed(GPS, Edge(at, payload, k), at.shifted(EDGE_NOTICE_NS))))
        elif kind == "thermometer" and self._board is not None:
            celsius = self._board.celsius()
            if celsius is not None:
                self._effects(engine.handle(TemperatureRead("simulated thermometer", celsius, at)))
        elif kind == "tick":
            kept_ms = self.scenario.start.clock_kept_ms
            self._effects(engine.handle(Ticked(at, None if kept_ms is None else round(kept_ms * 1e6))))
            if not self._mute:
                self._effects(engine.handle(LineSeen(GPS, self._session.status(), at)))
            if engine.mode is Mode.TRACK and self.outcome.locked_after_s is None:
                self.outcome.locked_after_s = float(k + 1)
            self.outcome.held_over = self.outcome.held_over or engine.mode is Mode.HOLDOVER
            if self.scenario.limits.says:
                self._listen(k, at)
        elif kind == "step":
            by = round(next(f.value for f in self.scenario.faults if f.what == "clock-step") * NS)
            self._real0 += by
            self._era += 1
            self._effects(engine.handle(ClockStepped(by, self._instant(into))))
        elif kind == "lost":
            self._session = self._open(at)
            self._effects(engine.handle(SourceLost(GPS, "unplugged", at)))
        elif kind == "found":
            self._effects(engine.handle(SourceFound(GPS, "simulated receiver", at)))

    def _listen(self, k: int, at: Instant) -> None:
        """Note what a person would read now, once each."""
        snapshot = self.engine.snapshot(at)
        sentences = [f"{snapshot.verdict}: {snapshot.why}" if snapshot.why else snapshot.verdict]
        sentences += [c.words for c in snapshot.conditions if c.words != snapshot.why]
        for source in snapshot.sources:
            sentences += [*(c.words for c in source.conditions if c.words != snapshot.why), source.message]
            if source.pulse is not None:
                sentences += [*source.pulse.doubts, source.pulse.changed]
        if snapshot.temperature is not None:
            sentences.append(snapshot.temperature.words)
        for words in filter(None, sentences):
            self.outcome.said.setdefault(re.sub(r"[\d.]+", "#", words), f"{k:5d} s  {words}")

    def _effects(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Publish):
                if self._path is None:
                    self._path = PacketPath(effect.record)
                self._path.publish(effect.record)
            elif isinstance(effect, Note):
                words = " ".join(f"{key}={value}" for key, value in effect.fields.items())
                self.outcome.notes.append(f"{(self._raw - RAW_START_NS) / NS:.0f} s: {effect.event} {words}")

    # ---- clients -----------------------------------------------------------------------------------------------------------------

    def _ask(self, k: int, into: float) -> None:
        """One client's request, and its reply held against the truth at the moment it left."""
        self.outcome.packets += 1
        if self._path is None or self._resumed_ns(k * 1e9 + into) != k * 1e9 + into:
            return
        reply, _, _ = self._path.respond(REQUEST, self._raw_at(into), self._raw_at(into + TURN_NS))
        if len(reply) != 48 or reply[0] >> 6 == 3 or reply[1] == 0:
            return
        true_tai = self._tai0 + k * NS + round(into) + TURN_NS
        true_utc = self._truth.tai_to_utc_ns(true_tai)
        stamp = int.from_bytes(reply[40:48], "big")
        served_utc = ((stamp >> 32) - NTP_UNIX_S) * NS + ((stamp & 0xFFFF_FFFF) * NS >> 32)
        bound = int.from_bytes(reply[8:12], "big") * NS / 65536 + int.from_bytes(reply[4:8], "big") * NS / 131072 + BOUND_RESOLUTION_NS
        error = served_utc - true_utc
        near_leap = self._leap_s is not None and abs(true_utc - self._leap_s * NS) < bound + TURN_NS + NS
        if near_leap:
            return  # within its own uncertainty of the leap either count is right
        out = self.outcome
        out.synchronised += 1
        if out.first_synchronised_s is None:
            out.first_synchronised_s = float(k)
        if any(fault.hides(k + into / NS, self.scenario.limits.blind_s) for fault in self.scenario.faults):
            return
        if abs(error) > bound:
            out.violations += 1
            out.worst = out.worst or f"first at {k} s: error {error / 1e3:.3f} us, bound {bound / 1e3:.3f} us, {self.engine.mode.value}"
        if abs(error) > 0.5e9:
            out.wrong_seconds += 1
        if out.locked_after_s is not None:
            self._errors.append(error / 1e3)
            self._bounds.append(self.engine.timescale.bound_ns(self._raw_at(into)) / 1e3)

    def _finish(self) -> Outcome:
        out = self.outcome
        out.final = self.snapshot().verdict.value
        if self._errors:
            tail = self._errors[-max(1, len(self._errors) // 10) :]
            out.max_error_us = max(map(abs, self._errors))
            out.rms_error_us = math.sqrt(sum(e * e for e in self._errors) / len(self._errors))
            out.settled_max_error_us = max(map(abs, tail))
            out.median_bound_us = sorted(self._bounds)[len(self._bounds) // 2]
        return out


def run_scenario_file(path: Path, seeds: Sequence[int], out: TextIO) -> int:
    """Run a scenario for each seed, a line each; 0 when every limit held, 1 otherwise, 64 for a file that cannot be run, 74 unreadable."""
    try:
        scenario = load_scenario(path)
    except ScenarioError as error:
        out.write(f"{error}\n")
        return USAGE
    except OSError as error:
        out.write(f"{explain(error, str(path))}\n")
        return IO_ERROR
    out.write(f"{scenario.name}: {scenario.claim}\n")
    failed = False
    for seed in seeds:
        began = time.perf_counter()
        outcome = World(scenario, seed).run()
        outcome.wall_s = time.perf_counter() - began
        bad = outcome.failures(scenario)
        failed = failed or bool(bad)
        locked = "never LOCKED" if outcome.locked_after_s is None else f"LOCKED after {outcome.locked_after_s:.0f} s"
        shown = f"error rms {outcome.rms_error_us:.3f} us max {outcome.max_error_us:.3f} us, median bound {outcome.median_bound_us:.1f} us"
        speed = f"{outcome.packets} packets, {scenario.duration_s / outcome.wall_s:.0f} x real time"
        out.write(f"  seed {seed}: {'FAILED' if bad else 'held  '}  {locked}, {shown}, {speed}\n")
        for words in bad:
            out.write(f"          {words}\n")
        out.flush()
    return FAILED if failed else GOOD
