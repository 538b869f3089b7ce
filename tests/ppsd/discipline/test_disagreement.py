"""Receivers that name different seconds: who is served, and what is told."""

from __future__ import annotations

from datetime import date

import pytest

from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Effect, Note, Publish, Pulsed, Reported, Ticked
from ppsd.discipline.saved import Saved
from ppsd.snapshot import Mode, Verdict
from refclock.condition import Code
from refclock.config import ReceiverSource
from refclock.sample import NS, Edge, EdgeKind, Instant, SecondLabel, SourceId

UTC0, RAW0 = 1_800_000_000, 5_000 * NS
GOOD, ODD = SourceId("good"), SourceId("odd")
CONFIG = Config(
    clock=ClockConfig(not_before=date(2026, 1, 1)),
    sources=(
        ReceiverSource(name=str(GOOD), device="/dev/a", pps="/dev/pps0", edge="assert"),
        ReceiverSource(name=str(ODD), device="/dev/b", pps="/dev/pps1", edge="assert"),
    ),
)


def at(s: float) -> Instant:
    return Instant(round((UTC0 + s) * NS), RAW0 + round(s * NS))


def second(engine: Engine, s: int, off_s: dict[SourceId, int]) -> list[Effect]:
    """Pulse and label of each receiver named in ``off_s``, its labels wrong by so many seconds although it states its leap count."""
    out = []
    for i, (name, wrong) in enumerate(off_s.items()):
        out += engine.handle(Pulsed(name, Edge(at(s + i * 1e-6), EdgeKind.ASSERT, s, 0), at(s + 1e-4)))
        heard = at(s + 0.08 + i * 1e-3)
        out += engine.handle(Reported(name, (SecondLabel((UTC0 + s + wrong) * NS, heard, "NAV-PVT", leap_known=True),), heard))
    return out


def told(effects: list[Effect], event: str) -> list[Note]:
    return [e for e in effects if isinstance(e, Note) and e.event == event]


def test_two_that_start_together_and_disagree_give_no_time() -> None:
    """Two receivers alone whose seconds differ: neither wins, whoever spoke first, both are named with by how much, and nothing is served;
    once the odd one is silent the other one is believed."""
    for first, second_ in (({GOOD: 0, ODD: 1}, {GOOD: 0}), ({ODD: 1, GOOD: 0}, {GOOD: 0})):
        engine = Engine(CONFIG, Saved(), at(0), simulated=False, version="test", pid=0)
        out = [e for s in range(1, 60) for e in second(engine, s, first)]
        assert engine.mode is Mode.ACQUIRE
        assert sorted(str(n.fields["source"]) for n in told(out, "sources disagree")) == [GOOD, ODD]
        assert engine.choice.falsetickers == {GOOD: pytest.approx(-NS, abs=NS / 100), ODD: pytest.approx(NS, abs=NS / 100)}
        assert {s.tally for s in engine.snapshot(at(60)).sources} == {"x"}
        for s in range(60, 90):
            second(engine, s, second_)
        assert (engine.mode, engine.selected) == (Mode.TRACK, GOOD)
        assert abs(engine.timescale.tai_at(at(90).mono_ns) - (UTC0 + 90 + 37) * NS) < 1e6


def test_a_newcomer_that_contradicts_is_refused_and_told() -> None:
    """A second receiver that names other seconds than the ones served takes nothing over; after five labels it is told once, with how far
    off it is."""
    engine = Engine(CONFIG, Saved(), at(0), simulated=False, version="test", pid=0)
    for s in range(1, 90):
        second(engine, s, {GOOD: 0})
    out = [e for s in range(90, 150) for e in second(engine, s, {GOOD: 0, ODD: 1})]
    notes = told(out, "sources disagree")
    assert [n.fields["source"] for n in notes] == [ODD]
    assert "its messages name seconds 0.92 s before these begin" in str(notes[0].fields["why"])
    assert (engine.mode, engine.selected) == (Mode.TRACK, GOOD)
    assert abs(engine.timescale.tai_at(at(150).mono_ns) - (UTC0 + 150 + 37) * NS) < 1e6


def ahead(now: Instant, clock_s: float) -> Instant:
    return Instant(now.real_ns + round(clock_s * NS), now.mono_ns)


def ticked(engine: Engine, s: float, clock_s: float, error_ns: int = 5_000_000) -> list[Effect]:
    """Another program keeps the system clock within ``error_ns``, by what the kernel says; it is ``clock_s`` ahead."""
    return engine.handle(Ticked(ahead(at(s), clock_s), error_ns))


def test_a_kept_clock_overrules_a_second_that_it_has_never_confirmed() -> None:
    """A receiver a second ahead was served; NTP begins to keep the system clock. From the next tick on nothing is served. The second is
    given up, and the right one is served."""
    engine = Engine(CONFIG, Saved(), at(0), simulated=False, version="test", pid=0)
    for s in range(1, 60):
        second(engine, s, {GOOD: 1})
    assert engine.mode is Mode.TRACK
    out = ticked(engine, 59.9, 0.0)
    assert [e.record.stratum for e in out if isinstance(e, Publish)][-1] == 0
    snapshot = engine.snapshot(at(59.95))
    assert snapshot.verdict is Verdict.NO_TIME
    assert "1.00 s ahead of the system clock, which another program keeps" in snapshot.why
    assert snapshot.bound_ns is None
    for s in range(60, 90):
        out += second(engine, s, {GOOD: 1})
        out += ticked(engine, s + 0.9, 0.0)
    assert len(told(out, "second given up")) == 1
    assert engine.mode is Mode.TRACK
    assert abs(engine.timescale.tai_at(at(90).mono_ns) - (UTC0 + 90 + 37) * NS) < 1e6


def test_a_kept_clock_that_steps_is_told_and_not_followed() -> None:
    """NTP had confirmed the second; then the system clock is 2 s off, whoever did that: the time is served on, and people are told."""
    engine = Engine(CONFIG, Saved(), at(0), simulated=False, version="test", pid=0)
    for s in range(1, 120):
        second(engine, s, {GOOD: 0})
        ticked(engine, s + 0.9, 0.0 if s < 60 else 2.0)
    assert engine.mode is Mode.TRACK
    assert Code.CLOCK_CONTRADICTS in {c.code for c in engine.snapshot(ahead(at(120), 2.0)).conditions}
    assert abs(engine.timescale.tai_at(at(120).mono_ns) - (UTC0 + 120 + 37) * NS) < 1e6


def test_a_clock_that_is_kept_loosely_contradicts_what_lies_beyond_its_error() -> None:
    """A clock that NTP keeps within 2 s names no second, yet a served second that is an hour off it is not served."""
    for clock_s, served in ((1.5, True), (-3600.0, False)):
        engine = Engine(CONFIG, Saved(), at(0), simulated=False, version="test", pid=0)
        for s in range(1, 60):
            second(engine, s, {GOOD: 0})
        assert engine.mode is Mode.TRACK
        ticked(engine, 59.9, clock_s, error_ns=2 * NS)
        assert (engine.mode is Mode.TRACK) is served
