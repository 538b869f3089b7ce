"""Pulses without a receiver's line: numbered by a clock that another program keeps or by another source, never by themselves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refclock_sim.worlds.scenario import NO_RECEIVER, Fault, OscillatorModel, PulseModel, ReceiverModel, Scenario, Start
from refclock_sim.worlds.world import World

from ppsd.config.tables import Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Note, Pulsed, Sampled, SourceFound, Ticked
from ppsd.discipline.saved import Saved
from ppsd.snapshot import Mode
from refclock.condition import Code
from refclock.config import PpsSource, SockSource
from refclock.sample import NS, Edge, EdgeKind, ForeignSample, Instant, Leap, SourceId


def world(duration_s: int, offset_s: float, kept_ms: float | None, pulse: PulseModel, *faults: Fault, **config: object) -> World:
    """A pulse and the system clock, which is ahead by ``offset_s``."""
    scenario = Scenario(
        name=f"pulse {offset_s} {kept_ms}",
        claim="",
        duration_s=duration_s,
        start=Start(clock_offset_s=offset_s, clock_kept_ms=kept_ms),
        oscillator=OscillatorModel(ppm=2.0),
        pulse=pulse,
        receiver=ReceiverModel(NO_RECEIVER),
        config=config,
        faults=faults,
    )
    return World(scenario, 1)


@given(
    st.sampled_from([1.0, 10.0, 49.0, 100.0, 200.0, 245.0]),
    st.floats(-0.99, 0.99),
    st.sampled_from(["perfect", "clean", "pi"]),
    st.sampled_from([1.0, 0.5, 0.2]),
    st.booleans(),
)
@settings(max_examples=15)
def test_a_kept_clock_numbers_pulses_within_its_error(kept_ms: float, share: float, model: str, rate_hz: float, inverted: bool) -> None:
    """However far the clock is off within the error that the kernel states: LOCKED, the right second, no packet beyond its bound."""
    w = world(90, share * kept_ms / 1e3, kept_ms, PulseModel(model, 4.0, rate_hz=rate_hz, inverted=inverted))
    outcome = w.run()
    assert (outcome.violations, outcome.wrong_seconds, outcome.final) == (0, 0, "LOCKED"), outcome.worst


@pytest.mark.parametrize("kept_ms", [None, 251.0, 600.0, 16_000.0])
def test_without_somebody_who_names_the_second_nothing_is_served(kept_ms: float | None) -> None:
    """No kept clock, or one that might be off by the half of a second: the pulses wait, and it is told for whom."""
    w = world(60, 0.0, kept_ms, PulseModel("pi"))
    outcome = w.run()
    assert outcome.synchronised == 0
    (source,) = w.snapshot().sources
    assert Code.PULSES_UNNUMBERED in [c.code for c in source.conditions]
    assert "let NTP keep that clock" in w.snapshot().why
    assert ("kept within" in w.snapshot().why) == (kept_ms is not None)


def test_a_trailing_edge_is_refused_by_the_kept_clock() -> None:
    """Only the end of a pulse of 200 ms arrives: its seconds lie beside those of the clock. Nothing is served, and the reason is told."""
    w = world(60, 0.005, 20.0, PulseModel("pi", width_ms=200.0, edges="clear"))
    assert w.run().synchronised == 0
    assert "its pulses come 205 ms after" in w.snapshot().why
    assert "probably a trailing edge" in w.snapshot().why


@pytest.mark.parametrize("edge", ["auto", "assert"])
@pytest.mark.parametrize("kept_ms", [20.0, 60.0, 100.0, 240.0])
@pytest.mark.parametrize("share", [-0.95, 0.0, 0.95])
def test_a_lone_trailing_edge_is_never_taken_for_the_second(kept_ms: float, share: float, edge: str) -> None:
    """One edge is captured, and it ends the pulse: no packet is off, however far the clock is off within its error. A leading edge is used
    where the clock is good enough to tell, and always where the file states it."""
    for width_ms in (100.0, 200.0):
        trailing = world(60, share * kept_ms / 1e3, kept_ms, PulseModel("pi", width_ms=width_ms, edges="clear"))
        assert trailing.run().violations == 0
    leading = world(60, share * kept_ms / 1e3, kept_ms, PulseModel("pi", edges="assert"), edge=edge)
    outcome = leading.run()
    assert outcome.violations == 0
    told = (1 + abs(share)) * kept_ms < 100
    assert (outcome.final == "LOCKED") is (told or edge == "assert"), leading.snapshot().why
    if outcome.final != "LOCKED":
        assert 'or state the edge that marks the second (edge = "assert" or "clear")' in leading.snapshot().why


@pytest.mark.parametrize("inverted", [False, True])
def test_a_square_wave_is_locked_to_by_its_edge_that_the_clock_names(inverted: bool) -> None:
    """Half on, half off: neither edge is the shorter one's. The edge that lies on the seconds of the kept clock is taken."""
    w = world(90, 0.03, 40.0, PulseModel("pi", width_ms=500.0, inverted=inverted))
    outcome = w.run()
    assert (outcome.violations, outcome.wrong_seconds, outcome.final) == (0, 0, "LOCKED"), w.snapshot().why


@pytest.mark.parametrize("error_ms", [1.0, 24.0])
def test_ten_pulses_a_second_are_more_than_a_clock_can_number(error_ms: float) -> None:
    """The clock's stated error may leave out 50 ms of the network's asymmetry: half a period. The pulses wait."""
    w = world(60, 0.045, error_ms, PulseModel("pi", rate_hz=10.0, width_ms=20.0))
    assert w.run().synchronised == 0
    assert Code.PULSES_UNNUMBERED in [c.code for c in w.snapshot().sources[0].conditions]


def test_a_kept_clock_alone_ends_no_second_that_sources_name() -> None:
    """Two sources of samples name the seconds beside the pulse. The clock that NTP keeps goes wrong by 0.6 s: the pulse goes on counting,
    and nothing is given up."""
    pps, labs = SourceId("pps0"), (SourceId("lab"), SourceId("lab2"))
    feeds = [SockSource(name=lab, path=f"/run/{lab}", bias_us=5_000.0) for lab in labs]
    sources = (*feeds, PpsSource(name="pps0", pps="/dev/pps0", pps_over_usb=False))
    engine = Engine(Config(sources=sources), Saved(), Instant(0, 0), simulated=False, version="test", pid=0)
    utc, notes = 1_795_000_000 * NS, list[str]()
    for name in (pps, *labs):
        engine.handle(SourceFound(name, str(name), Instant(utc, NS)))
    for k in range(1, 120):
        true, wrong_ns = Instant(utc + k * NS, k * NS + NS), 0 if k < 60 else 600_000_000
        second = Instant(true.real_ns + wrong_ns, true.mono_ns)
        effects = engine.handle(Pulsed(pps, Edge(second, EdgeKind.ASSERT, k), second.shifted(60_000)))
        at = second.shifted(300_000_000)
        for lab in labs:
            effects += engine.handle(Sampled(lab, ForeignSample(at, -wrong_ns, 1_000, Leap.NORMAL, False), at))
        effects += engine.handle(Ticked(second.shifted(900_000_000), kept_error_ns=20_000_000))
        notes += [effect.event for effect in effects if isinstance(effect, Note)]
        if k > 70 and engine.mode is Mode.TRACK:
            assert abs(engine.timescale.tai_at(true.mono_ns) - (true.real_ns + 37 * NS)) < 100_000
    assert "second given up" not in notes
    (message,) = (s.message for s in engine.snapshot(Instant(utc + 119 * NS, 120 * NS)).sources if s.name == "pps0")
    assert message == "numbered by the seconds of another source"


@pytest.mark.parametrize("kept_ms", [60.0, 99.0, 240.0])
def test_a_clock_that_can_tell_no_more_ends_nothing(kept_ms: float) -> None:
    """The clock named the second by the only edge that is captured. Later its error grows, as when NTP's servers do not answer: it does not
    contradict, so the pulses are counted on."""
    w = world(200, 0.02, 20.0, PulseModel("pi", edges="assert"))
    w.advance(60)
    assert w.snapshot().verdict == "LOCKED"
    object.__setattr__(w.scenario.start, "clock_kept_ms", kept_ms)
    outcome = w.run()
    assert (outcome.violations, outcome.wrong_seconds, outcome.final) == (0, 0, "LOCKED"), w.snapshot().why
    assert not [note for note in outcome.notes if "given up" in note]


def test_the_second_goes_on_when_nobody_keeps_the_clock_any_more() -> None:
    """Once named, the pulses are counted; a step of a clock that nobody keeps any more changes nothing."""
    w = world(200, 0.02, 30.0, PulseModel("pi"), Fault("clock-step", 100, 101, value=-3.0))
    w.advance(60)
    object.__setattr__(w.scenario.start, "clock_kept_ms", None)
    outcome = w.run()
    assert (outcome.violations, outcome.wrong_seconds, outcome.final) == (0, 0, "LOCKED")


def test_a_clock_that_names_another_second_later_is_not_contradicted_by_its_own_word() -> None:
    """The clock was three seconds off while NTP said that it was right, and then NTP sets it right: the served time is withheld at once,
    and the second is taken anew within ten seconds."""
    w = world(200, 3.0, 30.0, PulseModel("pi"), Fault("clock-step", 100, 101, value=-3.0))
    w.advance(102)
    assert w.snapshot().verdict == "ACQUIRING"
    w.advance(125)
    wrong = w.outcome.wrong_seconds
    outcome = w.run()
    assert (outcome.wrong_seconds, outcome.final) == (wrong, "LOCKED")


def test_pulses_are_numbered_by_another_source() -> None:
    """Samples of another program name the second to 20 ms, the pulse gives the microseconds; and it goes on when those samples stop. The
    pulses have no vote about the second."""
    pps, lab = SourceId("pps0"), SourceId("lab")
    sources = (SockSource(name="lab", path="/run/lab.sock", bias_us=20_000.0), PpsSource(name="pps0", pps="/dev/pps0", pps_over_usb=False))
    engine = Engine(Config(sources=sources), Saved(), Instant(0, 0), simulated=False, version="test", pid=0)
    utc = 1_795_000_000 * NS
    for name in (pps, lab):
        engine.handle(SourceFound(name, str(name), Instant(utc, NS)))
    for k in range(1, 120):
        second = Instant(utc + k * NS + 700 * 1_000_000, k * NS + NS)  # the system clock is 0.7 s ahead, and nobody keeps it
        engine.handle(Pulsed(pps, Edge(second, EdgeKind.ASSERT, k), second.shifted(60_000)))
        if k < 60:
            at = second.shifted(300_000_000)
            engine.handle(Sampled(lab, ForeignSample(at, -690_000_000, 1_000, Leap.NORMAL, False), at))
        engine.handle(Ticked(second.shifted(900_000_000)))
        if k == 4:
            assert engine.snapshot(second).sources[1].conditions[0].code is Code.PULSES_UNNUMBERED
        if k == 40:
            assert engine.snapshot(second).sources[1].message == "numbered by the seconds of another source"
    now = Instant(utc + 120 * NS, 121 * NS)
    snapshot = engine.snapshot(now)
    assert (snapshot.verdict, engine.selected) == ("LOCKED", pps)
    assert abs(engine.timescale.tai_at(now.mono_ns) - (utc + 120 * NS + 37 * NS)) < 10_000
    assert snapshot.sources[1].message == "counted on from the seconds before"
    assert (snapshot.bound_ns or NS) < 50_000


def test_a_source_that_a_reload_adds_is_heard() -> None:
    """The configuration gets a second source while the daemon runs; its samples count like those of the first."""
    first, second = (SockSource(name=name, path=f"/run/{name}", bias_us=5_000.0) for name in ("lab", "new"))
    engine = Engine(Config(sources=(first,)), Saved(), Instant(0, 0), simulated=False, version="test", pid=0)
    engine.configure(Config(sources=(first, second)))
    utc = 1_795_000_000 * NS
    for name in ("lab", "new"):
        engine.handle(SourceFound(SourceId(name), name, Instant(utc, NS)))
    for k in range(1, 30):
        at = Instant(utc + k * NS, k * NS + NS).shifted(300_000_000)
        for name, late_ns in (("lab", 0), ("new", 2_000_000)):
            shifted = at.shifted(late_ns)
            engine.handle(Sampled(SourceId(name), ForeignSample(shifted, 0, 1_000, Leap.NORMAL, False), shifted))
        engine.handle(Ticked(at.shifted(500_000_000)))
    assert engine.choice.agreeing == {"lab", "new"}
