"""What the engine asks of the system clock: when it may be stepped, and how far it may be corrected."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import ClockStepped, Event, Publish, Reported, Sampled, Steer, Ticked
from ppsd.discipline.saved import Saved
from ppsd.discipline.steering import FIRST_STEP_NS, LATER_STEP_NS
from refclock.config import ReceiverSource, ShmSource
from refclock.sample import NS, ForeignSample, Instant, SecondLabel, SourceId
from refclock.timescales import LeapTable

TAI = 1_800_000_037 * NS
RAW = 5_000 * NS
SHM = SourceId("shm0")
PANIC_NS = 1000 * NS
BIAS_NS = 1000
CONFIG = Config(
    clock=ClockConfig(not_before=date(2026, 1, 1), steer="kernel"), sources=(ShmSource(name="shm0", unit=0, bias_us=BIAS_NS / 1e3),)
)


def at(second: float, real_ns: int = 0, era: int = 0) -> Instant:
    raw = RAW + round(second * NS)
    return Instant(LeapTable().tai_to_utc_ns(TAI) + raw - RAW + real_ns, raw, era)


def engine(config: Config = CONFIG) -> Engine:
    return Engine(config, Saved(), at(0), simulated=False, version="test", pid=0)


def steppable(some: list[Steer]) -> list[bool]:
    """Whether each of them may be a step."""
    return [s.step_above_ns is not None for s in some]


def steers(engine: Engine, event: Event) -> list[Steer]:
    return [e for e in engine.handle(event) if isinstance(e, Steer)]


def follow(engine: Engine, first: int, last: int, step_ns: int = 0, era: int = 0) -> list[Steer]:
    """Right samples and ticks of the seconds from ``first`` to before ``last``; REALTIME is ``step_ns`` ahead."""
    out = []
    for k in range(first, last):
        now = at(k, step_ns, era)
        out += steers(engine, Sampled(SHM, ForeignSample(now, LeapTable().tai_to_utc_ns(TAI + k * NS) - now.real_ns), now))
        out += steers(engine, Ticked(at(k + 0.5, step_ns, era)))
    return out


def test_first_correction_may_be_a_step_and_the_rest_may_not() -> None:
    """As chronyd's makestep with a limit of one update, from 0.1 ms; nothing is too far for the first one of a boot."""
    seen = follow(engine(), 0, 20)
    assert steppable(seen) == [True] + [False] * (len(seen) - 1)
    assert (seen[0].step_above_ns, seen[0].panic_ns) == (seen[0].max_error_ns - BIAS_NS, None)
    assert {s.panic_ns for s in seen[1:]} == {PANIC_NS}


def test_corrections_may_be_steps_until_the_time_is_known_to_a_millisecond() -> None:
    """While only messages are heard (known to 0.3 s) what is certainly wrong may be stepped, so that the pulses that come then find leave
    to step the rest; noise within the bound never is."""
    coarse, seen = engine(replace(CONFIG, sources=(ReceiverSource(name="gps0", device="/dev/a", pps=""),))), []
    for k in range(30):
        heard = at(k + 0.2)
        label = SecondLabel(LeapTable().tai_to_utc_ns(TAI + k * NS), heard, "NAV-PVT", leap_known=True)
        seen += steers(coarse, Reported(SourceId("gps0"), (label,), heard))
    assert len(seen) > 10
    assert all(steppable(seen))
    assert all(s.step_above_ns is not None and s.step_above_ns >= s.max_error_ns > 0.3 * NS for s in seen)


def test_another_programs_samples_are_stepped_to_whatever_is_allowed_for_them() -> None:
    """Nothing is known of a shared memory segment's samples, so 0.6 s are promised; the clock is led to them all the same, at once and not
    over minutes, and once only."""
    seen = follow(engine(replace(CONFIG, sources=(ShmSource(name="shm0", unit=0),))), 0, 20)
    assert steppable(seen) == [True] + [False] * (len(seen) - 1)
    assert seen[0].step_above_ns is not None and seen[0].step_above_ns < NS / 1000
    assert min(s.max_error_ns for s in seen) > 0.6 * NS


@pytest.mark.parametrize(("step", "first", "later"), [("never", None, None), ("always", FIRST_STEP_NS, LATER_STEP_NS)])
def test_the_policy_for_steps_can_be_chosen(step: str, first: int | None, later: int | None) -> None:
    """clock.step = "never" slews everything, "always" steps what would take minutes to slew, at any time."""
    seen = follow(engine(replace(CONFIG, clock=replace(CONFIG.clock, step=step))), 0, 20)
    assert seen[0].step_above_ns == (max(first, seen[0].max_error_ns - BIAS_NS) if first else None)
    assert {s.step_above_ns for s in seen[1:]} == {later}


def test_a_foreign_step_is_undone_at_once() -> None:
    """Somebody sets the clock by +0.5 s: the answer is a correction that may be a step, the next ones may not; served time never moved."""
    clock = engine()
    follow(clock, 0, 20)
    before = clock.timescale.tai_at(at(23).mono_ns)
    assert steppable(steers(clock, ClockStepped(NS // 2, at(19.6, NS // 2, 1)))) == [True]
    assert not any(steppable(follow(clock, 20, 23, NS // 2, 1)))
    assert abs(clock.timescale.tai_at(at(23).mono_ns) - before) < 100


def test_the_panic_limit_survives_a_restart() -> None:
    """A process that goes on from the record of the same boot is as careful as the one that left it."""
    first = engine()
    records = []
    for k in range(20):
        now = at(k)
        records += [
            e.record
            for e in first.handle(Sampled(SHM, ForeignSample(now, LeapTable().tai_to_utc_ns(TAI + k * NS) - now.real_ns), now))
            if isinstance(e, Publish)
        ]
    again = Engine(CONFIG, Saved(), at(20), simulated=False, version="test", pid=0, resume=records[-1])
    tick = Ticked(at(21))
    assert [s.panic_ns for s in steers(again, tick)] == [PANIC_NS]
