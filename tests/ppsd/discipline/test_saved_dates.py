"""A date that was saved, or that a record of an earlier run names, against the receiver and the clocks of today."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Effect, Note, Persist, Publish, Pulsed, Reported, SourceFound, Ticked
from ppsd.discipline.saved import Saved
from ppsd.snapshot import Mode
from refclock.config import ReceiverSource, SockFeed
from refclock.record import Record
from refclock.sample import NS, Edge, EdgeKind, Instant, SecondLabel, SourceId
from refclock.timescales import ROLLOVER_S

UTC0, RAW0 = 1_800_000_000, 5_000 * NS
YEAR_S = 365 * 86_400
AHEAD_S = 5 * YEAR_S
GPS, OTHER = SourceId("gps0"), SourceId("gps1")
RECEIVER = ReceiverSource(name=str(GPS), device="/dev/a", pps="/dev/pps0", edge="assert")
CONFIG = Config(clock=ClockConfig(not_before=date(2026, 1, 1)), sources=(RECEIVER,))
UNSET_S = -UTC0
"""Of the system clock: it begins in 1970."""


def at(s: float, clock_s: float = 0.0) -> Instant:
    """``clock_s``: by which the system clock is ahead."""
    return Instant(round((UTC0 + s + clock_s) * NS), RAW0 + round(s * NS))


def start(
    state: Saved, s: float, clock_s: float = 0.0, *, resume: Record | None = None, config: Config = CONFIG, battery_s: int | None = None
) -> Engine:
    engine = Engine(config, state, at(s, clock_s), simulated=False, version="", pid=0, resume=resume, battery_s=battery_s)
    for source in config.sources:
        engine.handle(SourceFound(SourceId(source.name), "a receiver", at(s, clock_s)))
    return engine


def run(
    engine: Engine,
    seconds: range,
    off_s: float,
    clock_s: float = 0.0,
    *,
    counted: bool = True,
    kept_ns: int | None = None,
    sources: tuple[SourceId, ...] = (GPS,),
) -> list[Effect]:
    """Pulse and label in each of the ``seconds``; the receiver's date is ``off_s`` ahead."""
    out: list[Effect] = []
    for s in seconds:
        out += engine.handle(Ticked(at(s - 0.1, clock_s), kept_ns))
        for source in sources:
            out += engine.handle(Pulsed(source, Edge(at(s, clock_s), EdgeKind.ASSERT, s, 0), at(s + 1e-4, clock_s)))
            heard = at(s + 0.23, clock_s)
            label = SecondLabel(round((UTC0 + s + off_s) * NS), heard, "NAV-PVT", leap_known=counted)
            out += engine.handle(Reported(source, (label,), heard))
    return out


def record(out: list[Effect]) -> Record:
    return [e.record for e in out if isinstance(e, Publish)][-1]


def saved(out: list[Effect]) -> Saved:
    return [e.state for e in out if isinstance(e, Persist)][-1]


def error_s(engine: Engine, s: float) -> float:
    assert engine.timescale.estimate is not None, engine.snapshot(at(s)).why
    return (engine.timescale.tai_at(at(s).mono_ns) - (UTC0 + s + 37) * NS) / NS


def test_five_minutes_of_a_wrong_date_do_not_outlive_the_fault() -> None:
    """A receiver five years ahead is believed for five minutes, and its date is not saved. When it is right again, a restarted daemon
    gives up the record of before within seconds, because the receiver and the system clock contradict it; after a reboot the time is right
    as well."""
    engine = start(Saved(), 0)
    out = run(engine, range(1, 330), AHEAD_S)
    assert error_s(engine, 330) == pytest.approx(AHEAD_S, abs=1)
    assert saved(out).utc_s is None
    state, left = engine.state(), record(out)
    assert state.utc_s is None
    restarted = start(state, 331, resume=left)
    assert restarted.mode is Mode.HOLDOVER
    out = run(restarted, range(332, 337), 0)
    assert record(out).stratum == 0
    run(restarted, range(337, 350), 0)
    assert error_s(restarted, 350) == pytest.approx(0, abs=1e-3)
    rebooted = start(state, 400)
    run(rebooted, range(401, 420), 0)
    assert error_s(rebooted, 420) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("counted", [True, False])
def test_the_receiver_is_right_again_without_a_restart(counted: bool) -> None:
    """The same daemon goes on: the receiver's date returns to that of the system clock, whether it states its leap count or not."""
    engine = start(Saved(), 0)
    run(engine, range(1, 330), AHEAD_S)
    run(engine, range(330, 345), 0, counted=counted)
    assert error_s(engine, 345) == pytest.approx(0, abs=1e-3)


def test_a_date_saved_wrongly_is_overruled_by_receiver_and_system_clock() -> None:
    """A state file five years ahead, as an earlier release wrote it: receiver and system clock name the same day, so they are believed, and
    the file is mended."""
    engine = start(Saved(utc_s=UTC0 + AHEAD_S), 0)
    out = run(engine, range(1, 330), 0)
    assert error_s(engine, 330) == pytest.approx(0, abs=1e-3)
    assert saved(out).utc_s == pytest.approx(UTC0 + 300, abs=2)


def test_a_clock_that_is_set_later_overrules_as_well() -> None:
    """The system clock is not set at first, so the saved date stands and the reason names what to do; once that is done there is time."""
    engine = start(Saved(utc_s=UTC0 + AHEAD_S), 0, UNSET_S)
    run(engine, range(1, 60), 0, UNSET_S)
    why = engine.snapshot(at(60, UNSET_S)).why
    assert "already known here: time does not go back; set the system clock" in why
    run(engine, range(60, 80), 0, clock_s=5.0)
    assert error_s(engine, 80) == pytest.approx(0, abs=1e-3)


def test_battery_clock_and_receiver_overrule_a_saved_date() -> None:
    """The battery clock is the second witness while the system clock is not set."""
    engine = start(Saved(utc_s=UTC0 + AHEAD_S), 0, UNSET_S, battery_s=UTC0 + 40)
    run(engine, range(1, 20), 0, UNSET_S)
    assert error_s(engine, 20) == pytest.approx(0, abs=1e-3)


def test_a_clock_that_stopped_is_no_witness_against_a_saved_date() -> None:
    """A host that was off, whose clock goes on where it stopped: a receiver that states an earlier date, not the clock's, is refused."""
    engine = start(Saved(utc_s=UTC0), 0, -90 * 86_400)
    run(engine, range(1, 30), -30 * 86_400, -90 * 86_400)
    assert "time does not go back" in engine.snapshot(at(30, -90 * 86_400)).why


def test_a_saved_date_repairs_a_rollover_that_the_release_cannot() -> None:
    """Twenty years after the release a receiver rolls over into the release's own window: the saved date names the period, and the clock
    confirms it."""
    later = 20 * YEAR_S
    engine = start(Saved(utc_s=UTC0 + later - 3600), 0, later)
    run(engine, range(1, 20), later - ROLLOVER_S, later)
    assert error_s(engine, 20) == pytest.approx(later, abs=1e-3)


@pytest.mark.parametrize(
    ("clock_s", "kept_ns", "config", "kept"),
    [
        (0.0, None, CONFIG, True),
        (40_000.0, None, CONFIG, True),  # half a day: the same date
        (0.0, 5_000_000, CONFIG, True),
        (UNSET_S, None, CONFIG, False),
        (-AHEAD_S, None, CONFIG, False),
        (0.0, None, replace(CONFIG, clock=replace(CONFIG.clock, steer="kernel")), False),  # the clock is set by the receiver itself
        (0.0, None, replace(CONFIG, feeds=(SockFeed(path="/run/chrony.sock"),)), False),  # so it is here, by chronyd
    ],
)
def test_only_a_date_with_two_witnesses_is_saved(clock_s: float, kept_ns: int | None, config: Config, kept: bool) -> None:
    """The system clock confirms a receiver's date, unless it was never set, contradicts it, or is set by that receiver."""
    engine = start(Saved(), 0, clock_s, config=config)
    out = run(engine, range(1, 330), 0, clock_s, kept_ns=kept_ns)
    assert (saved(out).utc_s is not None) is kept


def test_two_receivers_confirm_each_other() -> None:
    """Without any clock: two receivers that name the same seconds overrule a record that neither confirms, and their date is saved."""
    left = record(run(start(Saved(), 0, UNSET_S), range(1, 60), AHEAD_S, UNSET_S))
    other = ReceiverSource(name=str(OTHER), device="/dev/b", pps="/dev/pps1", edge="assert")
    both = start(Saved(), 61, UNSET_S, resume=left, config=replace(CONFIG, sources=(RECEIVER, other)))
    out = run(both, range(62, 400), 0, UNSET_S, sources=(GPS, OTHER))
    assert error_s(both, 400) == pytest.approx(0, abs=1e-3)
    assert saved(out).utc_s is not None


def test_a_right_date_that_was_saved_is_not_lost() -> None:
    """A run in which nothing confirms the date hands on the one that an earlier run confirmed."""
    engine = start(Saved(utc_s=UTC0 - 86_400), 0, UNSET_S)
    out = run(engine, range(1, 330), 0, UNSET_S)
    assert saved(out).utc_s == UTC0 - 86_400


def test_one_witness_alone_overrules_no_record() -> None:
    """A receiver that sends local time after a restart, while the system clock is right or not set: the record stands, the labels are in
    doubt, and what is told names what to do if it is the record that is wrong."""
    engine = start(Saved(), 0)
    left = record(run(engine, range(1, 100), 0))
    for clock_s in (0.0, UNSET_S):
        restarted = start(Saved(), 101, clock_s, resume=left)
        run(restarted, range(102, 160), 7200.0, clock_s, counted=False)
        assert error_s(restarted, 160) == pytest.approx(0, abs=1e-3)
        told = " ".join(c.words for c in restarted.snapshot(at(160, clock_s)).sources[0].conditions)
        assert "it sends local time" in told
        assert "if the served date is wrong, set the system clock" in told


def test_a_kept_clock_alone_withholds_a_record_that_it_contradicts() -> None:
    """Before the receiver has said anything: from the first tick on the record of before is not served, and after five seconds it is given
    up."""
    left = record(run(start(Saved(), 0), range(1, 60), AHEAD_S))
    restarted = start(Saved(), 61, resume=left)
    out = run(restarted, range(62, 64), 0, kept_ns=5_000_000, sources=())
    assert record(out).stratum == 0
    run(restarted, range(64, 72), 0, kept_ns=5_000_000, sources=())
    assert restarted.timescale.estimate is None


@pytest.mark.parametrize(("first_s", "second_s", "clock_s"), [(AHEAD_S, 0.0, 20.0), (0.0, 3600.0, 3620.0)])
def test_receiver_against_receiver_and_clock_does_not_come_and_go(first_s: float, second_s: float, clock_s: float) -> None:
    """One receiver states its leap count, a second one names another date or hour and has the system clock beside it, roughly. Nobody
    guesses: the second is given up once, and nothing is served."""
    other = ReceiverSource(name=str(OTHER), device="/dev/b", pps="/dev/pps1", edge="assert")
    engine = start(Saved(), 0, clock_s, config=replace(CONFIG, sources=(RECEIVER, other)))
    out = run(engine, range(1, 20), first_s, clock_s)
    assert record(out).stratum == 1
    given_up = 0
    for s in range(20, 140):
        out = run(engine, range(s, s + 1), first_s, clock_s)
        out += run(engine, range(s, s + 1), second_s, clock_s, counted=False, sources=(OTHER,))
        given_up += sum(isinstance(e, Note) and e.event == "second given up" for e in out)
    assert given_up == 1
    assert engine.timescale.estimate is None


def test_a_battery_clock_in_local_time_takes_no_second_that_the_system_clock_confirms() -> None:
    """Two clocks of this machine differ by an hour, and a second receiver sends the time of the wrong one: what is served goes on."""
    other = ReceiverSource(name=str(OTHER), device="/dev/b", pps="/dev/pps1", edge="assert")
    config = replace(CONFIG, sources=(RECEIVER, other))
    engine = start(Saved(), 0, 2.0, config=config, battery_s=UTC0 + 3600)
    run(engine, range(1, 20), 0, 2.0)
    for s in range(20, 60):
        run(engine, range(s, s + 1), 0, 2.0)
        run(engine, range(s, s + 1), 3600, 2.0, counted=False, sources=(OTHER,))
        assert error_s(engine, s + 0.5) == pytest.approx(0, abs=1e-3)
    both = start(Saved(), 100, 2.0, config=config, battery_s=UTC0 + 3700)
    for s in range(101, 130):
        run(both, range(s, s + 1), 3600, 2.0, counted=False, sources=(OTHER,))
        run(both, range(s, s + 1), 0, 2.0)
    assert error_s(both, 130) == pytest.approx(0, abs=1e-3)
