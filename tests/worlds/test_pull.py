"""A spoofer that drags a receiver's time away: what is seen with one source, with two, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from random import Random

import pytest
from refclock_sim.models.oscillator import Oscillator, Term, step
from refclock_sim.models.pulse import PiLatency, PulseError
from refclock_sim.worlds.noise_scenarios import SCENARIOS, gaussian

from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Note, Sampled, SourceFound
from ppsd.discipline.saved import Saved
from ppsd.snapshot import Mode
from refclock.config import ShmSource
from refclock.sample import NS, ForeignSample, Instant, SourceId
from refclock.timescales import LeapTable

RAW0, TAI0 = 5_000 * NS, 1_800_000_037 * NS
REAL0 = LeapTable().tai_to_utc_ns(TAI0) - RAW0
BEGIN_S = 1500
"""The crystal has been watched for so long when the pull begins."""
Noise = Callable[[int], PulseError]


@dataclass
class Seen:
    """``notes``: (second, event, source); ``errors_ns``: served - true, ``modes``: of each second; ``odd``: who disagrees at the end, by
    how many ns."""

    notes: list[tuple[int, str, str]]
    errors_ns: list[float]
    bounds_ns: list[float]
    modes: list[Mode]
    odd: dict[SourceId, int]

    def when(self, event: str) -> list[tuple[int, str]]:
        return [(s, source) for s, what, source in self.notes if what == event]


def run(noises: list[Noise], pulls_ns: list[float], length_s: int, seed: int = 1, terms: tuple[Term, ...] = ()) -> Seen:
    """Pulse sources of one host, each pulled by so many ns/s from ``BEGIN_S`` on (positive: its time runs ahead), on one crystal."""
    base = Random(f"pull {seed}")
    crystal = Oscillator(base.getrandbits(62), 12e-6, 1e-9, terms)
    errors = [noise(base.getrandbits(62)) for noise in noises]
    names = [SourceId(f"s{i}") for i in range(len(noises))]
    config = Config(
        clock=ClockConfig(not_before=date(2026, 1, 1)),
        sources=tuple(ShmSource(name=str(name), unit=i, bias_us=1.0) for i, name in enumerate(names)),
    )
    engine = Engine(config, Saved(), Instant(REAL0 + RAW0, RAW0), simulated=False, version="pull", pid=0)
    seen = Seen([], [], [], [], {})
    raw = RAW0
    for k in range(length_s):
        effects = [e for name in names for e in engine.handle(SourceFound(name, "samples", Instant(REAL0 + raw, raw)))] if k == 0 else []
        for i, name in enumerate(names):
            stamp = raw + round(errors[i].late_ns(k, raw) - pulls_ns[i] * max(0, k - BEGIN_S)) + i * 1_000_000
            at = Instant(REAL0 + stamp, stamp)
            effects += engine.handle(
                Sampled(name, ForeignSample(at, LeapTable().tai_to_utc_ns(TAI0 + k * NS + i * 1_000_000) - at.real_ns), at.shifted(20_000))
            )
        seen.notes += [(k, e.event, str(e.fields.get("source", ""))) for e in effects if isinstance(e, Note)]
        raw += round(NS * (1 + crystal.advance()))
        if engine.timescale.estimate is not None:
            seen.errors_ns.append(engine.timescale.tai_at(raw) - TAI0 - (k + 1) * NS)
            seen.bounds_ns.append(engine.timescale.bound_ns(raw))
        seen.modes.append(engine.mode)
    seen.odd = engine.choice.falsetickers
    return seen


def pi(seed: int) -> PulseError:
    return PiLatency(seed, mean_removed=True)


@pytest.mark.parametrize("noise", [gaussian(200.0), pi, gaussian(1e3)], ids=["tcxo", "pi", "1us"])
@pytest.mark.parametrize("rate_ns", [1000.0, -1000.0, 10_000.0])
def test_a_sudden_pull_by_a_microsecond_a_second_is_refused(noise: Noise, rate_ns: float) -> None:
    """One source: within a minute it is named and refused, and the time served is again what was known before, not where it was dragged."""
    seen = run([noise], [rate_ns], BEGIN_S + 200)
    (when, _name), *more = seen.when("time pulled away")
    assert BEGIN_S < when <= BEGIN_S + 60
    assert not more
    assert seen.modes[-1] is Mode.HOLDOVER
    assert not [s for s, _ in seen.when("time as expected again")]
    assert all(abs(e) <= b for e, b in zip(seen.errors_ns[when + 1 :], seen.bounds_ns[when + 1 :], strict=False))


@pytest.mark.parametrize("rate_ns", [100.0, 10.0])
def test_a_slow_pull_is_invisible_in_one_source(rate_ns: float) -> None:
    """Stated assumption: 0.1 ppm looks like a warmer room, and a single receiver that lies consistently is believed."""
    seen = run([pi], [rate_ns], BEGIN_S + 300)
    assert seen.when("time pulled away") == []
    assert seen.modes[-1] is Mode.TRACK


@pytest.mark.parametrize(("rate_ns", "within_s"), [(1000.0, 60), (100.0, 400), (10.0, 3000)])
def test_a_second_source_shows_any_pull(rate_ns: float, within_s: int) -> None:
    """Two sources on one crystal part at the rate of the pull: a sudden one is left out and the other served on; of a slow one neither
    wins as soon as their bounds no longer meet, and the time is held over."""
    seen = run([pi, pi], [0.0, rate_ns], BEGIN_S + within_s)
    named = seen.when("time pulled away") + seen.when("sources disagree")
    assert named
    assert min(s for s, _ in named) > BEGIN_S
    if rate_ns >= 1000.0:
        assert {name for _, name in seen.when("time pulled away")} == {"s1"}
        assert seen.modes[-1] is Mode.TRACK
        assert abs(seen.errors_ns[-1]) <= seen.bounds_ns[-1]
    else:
        assert seen.modes[-1] is Mode.HOLDOVER


@pytest.mark.parametrize("rate_ns", [1000.0, 100.0, 10.0])
def test_of_three_the_puller_is_named(rate_ns: float) -> None:
    """Three sources: once it has left the bounds of the others the one that pulls is the odd one, named with by how much, and the others go
    on being served within their bound."""
    seen = run([pi, pi, pi], [0.0, rate_ns, 0.0], BEGIN_S + (3000 if rate_ns == 10.0 else 400))
    assert set(seen.odd) == ({"s1"} if rate_ns < 1000.0 else set())
    assert {name for _, name in seen.when("time pulled away")} <= {"s1"}
    assert all(by > 0 for by in seen.odd.values())
    assert seen.modes[-1] is Mode.TRACK
    assert abs(seen.errors_ns[-1]) <= seen.bounds_ns[-1]


def test_a_shocked_crystal_is_no_pull_when_another_source_sees_it() -> None:
    """The crystal itself jumps by 2 ppm at once (a module is plugged in beside it): two sources see the same, so neither is refused for
    long; one alone is refused until its forecast allows for it."""
    shock = (step(2e-6, float(BEGIN_S)),)
    seen = run([pi, pi], [0.0, 0.0], BEGIN_S + 300, terms=shock)
    assert seen.modes[-1] is Mode.TRACK
    assert abs(seen.errors_ns[-1]) <= seen.bounds_ns[-1]


@pytest.mark.parametrize("name", ["b-step", "step-1us", "warm-up", "b-ramp"])
def test_no_false_alarm_from_warming(name: str) -> None:
    """Steps of 1 and 2 ppm with the lag of a board, and a ramp: no pull."""
    scenario = SCENARIOS[name]
    shifted = tuple(lambda t, term=term: term(t + 6_500.0) for term in scenario.terms)
    seen = run([scenario.noise], [0.0], 4_000, terms=shifted)
    assert seen.when("time pulled away") == []
