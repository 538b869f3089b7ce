"""Noise scenarios: one crystal, one stream of samples, and the served time held against the truth every second.

The noise models that chronyd, ntpd and the limit filters were measured on, drawn with the standard library, and shapes that none of them
was tuned for. Each scenario runs through the very Engine that runs behind devices, as a shared memory source that another program writes.

Discrete model, a step per true second: the crystal's frequency error f[k] = f0 + w * sum of N(0, 1) + a term of time; the sample of second
k is stamped late by n[k] (ns, positive = late). The error of second k + 1 is taken **before** its sample arrives, when the map is a second
old: there the served time stands where the clock of a dead-beat servo stands. The bound is held against the error then, and once more right
after the sample.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from random import Random

from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import LeapFileRead, Sampled, SourceFound, TemperatureRead
from ppsd.discipline.saved import Saved
from refclock.config import ShmSource
from refclock.sample import NS, ForeignSample, Instant, SourceId
from refclock.timescales import LeapTable
from refclock_sim.models.noise import (
    Busy,
    Correlated,
    Quantised,
    Switching,
    bimodal,
    drawn,
    flicker,
    gaussian,
    laplace,
    lognormal,
    one_sided,
    student2,
)
from refclock_sim.models.oscillator import Oscillator, Term, ramp, sinusoid, step
from refclock_sim.models.pulse import LoadBursts, Offset, Outliers, PiLatency, PulseError, UsbFrames
from refclock_sim.models.thermal import Board, Heat, Warming

SOURCE = SourceId("pulse")
RAW_START_NS, TAI_START_NS = 5_000 * NS, 1_800_000_037 * NS
NOTICE_NS = 20_000
"""From the stamp of a sample to the event: less than any scenario's half second, more than nothing."""


def _pi(seed: int) -> PulseError:
    return PiLatency(seed, mean_removed=True)


def _busy(seed: int) -> PulseError:
    return Busy(PiLatency(seed), 8_000, 14_000) + Offset(-PiLatency.MEAN_NS)


@dataclass(frozen=True, slots=True)
class NoiseScenario:
    """One scenario. ``bias_us``: what the user states of the source: its mean is that near to the second. ``warm_s``: scored after it."""

    name: str
    what: str
    noise: Callable[[int], PulseError]
    bias_us: float = 0.0
    wander: float = 1e-9
    constant: float = 12e-6
    terms: tuple[Term, ...] = ()
    length_s: int = 20_000
    warm_s: int = 6_000
    silent_from_s: int | None = None
    missing: float = 0.0
    every_s: int = 1
    """Seconds from sample to sample."""
    gap_s: int = 0
    """Of every 600 s these have no sample."""
    restless: Callable[[int], Term] | None = None
    """A further random part of the crystal's frequency."""
    heat: Heat | None = None
    """Warms the crystal, and the thermometer beside it."""
    lie: tuple[str, int] = ("", 0)
    """What the thermometer does (``thermal.LIES``), and from when on, s."""


@dataclass(slots=True)
class Course:
    """What came of a run: errors (served - true) and bounds in us, one a second from ``NoiseScenario.warm_s`` on.

    ``frequency_ppb``: RMS of the served clock's frequency error over the same seconds.
    """

    errors: array[float] = field(default_factory=lambda: array("d"))
    bounds: array[float] = field(default_factory=lambda: array("d"))
    frequency_ppb: float = 0.0
    uncovered: int = 0
    judged: int = 0
    worst: float = 0.0
    """Largest |error| / bound, and the second of it."""
    worst_s: int = 0
    first_served_s: int | None = None
    above_10us_s: int = 0
    """From the first sample to the last error above 10 us, or to the first served time."""
    state: Saved = field(default_factory=Saved)
    """What the run left for the next."""


SCENARIOS = {
    s.name: s
    for s in (
        NoiseScenario("a", "TCXO, N(0, 0.2 us)", gaussian(200.0), wander=1e-10, constant=1e-6),
        NoiseScenario("b-quiet", "Pi interrupt latency", _pi, 1.0),
        NoiseScenario("b-ramp", "+ 1 ppm over an hour", _pi, 1.0, terms=(ramp(1e-6, 9000.0, 3600.0),)),
        NoiseScenario("b-step", "+ 1 ppm step, 60 s lag", _pi, 1.0, terms=(step(1e-6, 10_000.0, 60.0),)),
        NoiseScenario("b-wander", "restless crystal", _pi, 1.0, wander=1e-8),
        NoiseScenario("c-iid", "USB polling, 1 ms", drawn(lambda r: r.random() * 1e6 - 5e5 + r.gauss(0.0, 2e4))),
        NoiseScenario("c-beat", "USB frames of the host's crystal", lambda seed: UsbFrames(seed) + Offset(-5e5)),
        NoiseScenario("d", "messages only, N(0, 30 ms)", gaussian(3e7), length_s=60_000, warm_s=30_000),
        NoiseScenario("e", "1 us, 5 % late by 1..20 ms", lambda seed: gaussian(1e3)(seed) + Outliers(seed)),
        NoiseScenario("f", "6 h of Pi pulses, then 1 h of none", _pi, 1.0, length_s=25_200, warm_s=21_600, silent_from_s=21_600),
        NoiseScenario("g", "cold start, 50 ppm off", _pi, 1.0, constant=50e-6, length_s=4_000, warm_s=2_000),
        NoiseScenario("h", "sinusoid 0.25 ppm, 2 h", gaussian(1e3), wander=1e-10, terms=(sinusoid(0.25e-6, 7200.0),)),
        NoiseScenario("i", "1 us, load bursts", lambda seed: gaussian(1e3)(seed) + LoadBursts(seed)),
        NoiseScenario("laplace", "Laplace 2 us", drawn(laplace(2e3))),
        NoiseScenario("bimodal", "two latencies 10 us apart", drawn(bimodal)),
        NoiseScenario("uniform", "U(-50, 50) us", drawn(lambda r: r.uniform(-5e4, 5e4))),
        NoiseScenario("lognormal", "one-sided, long tail, mean 5.7 us off", drawn(lognormal)),
        NoiseScenario("gauss-10us", "N(0, 10 us)", gaussian(1e4)),
        NoiseScenario("missing", "N(0, 1 us), 30 % lost", gaussian(1e3), missing=0.3),
        NoiseScenario("step-1us", "N(0, 1 us), 1 ppm step, 60 s lag", gaussian(1e3), terms=(step(1e-6, 10_000.0, 60.0),)),
        NoiseScenario("warm-up", "Pi pulses, -2 ppm step, 300 s lag", _pi, 1.0, terms=(step(-2e-6, 8_000.0, 300.0),)),
        # not looked at while the constants were found:
        NoiseScenario("student", "Student t, 2 degrees, 1 us", drawn(student2(1e3))),
        NoiseScenario("one-sided", "exponential, 30 us, woken thread", drawn(one_sided(3e4))),
        NoiseScenario("switching", "10 us to and fro every 20 min", lambda seed: Switching(seed, 1e4, 1200, 500.0), 5.0),
        NoiseScenario("quantised", "stamps of 1 us, a step a second", lambda seed: Quantised(seed, 1000, 100.0), constant=1e-6),
        NoiseScenario(
            "correlated", "0.5 us, and 1 us that lasts 30 s", lambda seed: gaussian(500.0)(seed) + Correlated(seed, 1e3, 30.0), 3.0
        ),
        NoiseScenario("busy", "Pi latency twice as long for hours", _busy, 1.5),
        NoiseScenario("usb-high", "USB frames of 125 us", lambda seed: UsbFrames(seed, 125e3) + Offset(-62.5e3)),
        NoiseScenario("usb-near", "USB frames of 1 ms, crystal 3 ppm off", lambda seed: UsbFrames(seed) + Offset(-5e5), constant=3e-6),
        NoiseScenario("day", "Pi pulses, 3 ppm to and fro in a day", _pi, 1.0, terms=(sinusoid(3e-6, 86_400.0),), length_s=40_000),
        NoiseScenario("flicker", "Pi pulses, flicker and random walk", _pi, 1.0, restless=flicker(3e-9)),
        NoiseScenario("half", "N(0, 1 us), every second one lost", gaussian(1e3), missing=0.5),
        NoiseScenario("every-5-s", "N(0, 1 us), one in 5 s", gaussian(1e3), every_s=5),
        NoiseScenario("gaps", "Pi pulses, 60 s of silence in 600 s", _pi, 1.0, gap_s=60),
    )
}
_ROOM = Heat(day=1.5, day_s=7200.0)
_THERMOSTAT = Heat(day=2.0, day_s=3600.0)
WARM = {
    s.name: s
    for s in (
        NoiseScenario("t-room", "+-1.5 K in 2 h: 0.5 ppm", _pi, 1.0, heat=_ROOM),
        NoiseScenario("t-day", "+-5 K in a day: 1.6 ppm", _pi, 1.0, length_s=86_400, heat=Heat(day=5.0)),
        NoiseScenario("t-load", "5 of 25 minutes of load: 1 ppm", _pi, 1.0, heat=Heat(load=6.0)),
        NoiseScenario(
            "t-probe", "+-2 K in 1 h, a probe in steps of 1/16 K", _pi, 1.0, heat=replace(_THERMOSTAT, quantum=0.0625, noise=0.03)
        ),
        NoiseScenario(
            "t-late", "+-2 K in 1 h, a thermometer slower than the crystal", _pi, 1.0, heat=replace(_THERMOSTAT, sensor_lag_s=120.0)
        ),
        NoiseScenario("t-fork", "+-2 K in 1 h, a tuning fork: 5 ppm", _pi, 1.0, heat=replace(_THERMOSTAT, curve_ppm=-0.034)),
        NoiseScenario("t-still", "nothing warms", _pi, 1.0, heat=Heat()),
        NoiseScenario(
            "t-holdover",
            "3 h of +-2 K, then an hour without pulses, 8 K warmer",
            _pi,
            1.0,
            length_s=14_400,
            warm_s=10_800,
            silent_from_s=10_800,
            heat=replace(_THERMOSTAT, warmings=(Warming(8.0, 10_900.0, 3000.0),)),
        ),
        *(
            NoiseScenario(
                f"t-{lie}", "+-1.5 K in 2 h, the thermometer lies after 3 h 20 m", _pi, 1.0, heat=_ROOM, lie=(f"sensor-{lie}", 12_000)
            )
            for lie in ("frozen", "jump", "inverted", "elsewhere", "lost")
        ),
    )
}
"""With a thermometer: how well the clock is held with it, and without."""
LISTED = 13
"""The first ones have figures of other programs; the rest are shapes that nobody tuned for."""


def run(
    scenario: NoiseScenario,
    seed: int,
    length_s: int | None = None,
    state: Saved | None = None,
    temperature: str = "auto",
) -> Course:
    """One realisation. ``state``: what an earlier run left; ``temperature`` "off": the thermometer is not looked at.
    Cost: about 0.12 ms a simulated second."""
    base = Random(f"{scenario.name} {seed}")
    crystal = base.getrandbits(62)
    noise = scenario.noise(base.getrandbits(62))
    lost = Random(base.getrandbits(62)).random
    lie, lie_s = scenario.lie
    board = None if scenario.heat is None else Board(scenario.heat, seed, lambda t_s: lie if t_s >= lie_s else "")
    terms = scenario.terms if board is None else (*scenario.terms, board.error)
    terms = terms if scenario.restless is None else (*terms, scenario.restless(base.getrandbits(62)))
    oscillator = Oscillator(crystal, scenario.constant, scenario.wander, terms)
    clock = ClockConfig(not_before=date(2026, 1, 1), max_bound_ms=16_000.0, temperature=temperature)
    config = Config(clock=clock, sources=(ShmSource(name=str(SOURCE), unit=0, bias_us=scenario.bias_us),))
    table = LeapTable()
    real_ns = table.tai_to_utc_ns(TAI_START_NS) - RAW_START_NS
    start = Instant(real_ns + RAW_START_NS, RAW_START_NS)
    engine = Engine(config, state or Saved(), start, simulated=False, version="discipline", pid=0)
    engine.handle(LeapFileRead(table, "", start))
    engine.handle(SourceFound(SOURCE, "samples", start))
    course = Course()
    scale = engine.timescale
    raw, squares, duration = RAW_START_NS, 0.0, length_s or scenario.length_s
    for k in range(duration):
        tai = TAI_START_NS + k * NS
        late = noise.late_ns(k, raw)
        celsius = None if board is None else board.celsius()
        if celsius is not None:
            engine.handle(TemperatureRead("simulated", celsius, Instant(real_ns + raw, raw)))
        quiet = scenario.silent_from_s is not None and k >= scenario.silent_from_s
        quiet = quiet or k % scenario.every_s > 0 or k % 600 >= 600 - scenario.gap_s
        if not quiet and not (scenario.missing and lost() < scenario.missing):
            stamp = raw + round(late)
            at = Instant(real_ns + stamp, stamp)
            offset_ns = table.tai_to_utc_ns(tai) - at.real_ns
            engine.handle(Sampled(SOURCE, ForeignSample(at, offset_ns), at.shifted(NOTICE_NS)))
            now = stamp + NOTICE_NS
            if scale.estimate is not None and late > -NS / 2:
                _judge(course, k, scale.tai_at(now) - tai - (now - raw), scale.bound_ns(now))
        error_rate = oscillator.advance()
        raw += round(NS * (1.0 + error_rate))
        if scale.estimate is None:
            course.above_10us_s = k + 1
            continue
        if course.first_served_s is None:
            course.first_served_s = k
        error = scale.tai_at(raw) - tai - NS
        bound = scale.bound_ns(raw)
        _judge(course, k, error, bound)
        if abs(error) > 1e4:
            course.above_10us_s = k + 1
        if k + 1 >= scenario.warm_s:
            course.errors.append(error / 1e3)
            course.bounds.append(bound / 1e3)
            squares += (error_rate + scale.rate) ** 2
    course.state = engine.state()
    course.frequency_ppb = math.sqrt(squares / max(1, len(course.errors))) * 1e9
    return course


def _judge(course: Course, k: int, error_ns: float, bound_ns: float) -> None:
    course.judged += 1
    course.uncovered += abs(error_ns) > bound_ns
    if abs(error_ns) > course.worst * bound_ns:
        course.worst, course.worst_s = abs(error_ns) / bound_ns, k
