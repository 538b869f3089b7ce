"""Pulses: which edges are pulses, at which rate, which edge begins them, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refclock.sample import NS, Edge, EdgeKind, Instant
from refclock.timing.pulses import Rhythm

MS = 1_000_000


def wire(starts: Iterable[int], width_ns: int | None, first: EdgeKind = EdgeKind.ASSERT) -> list[Edge]:
    """Both edges of pulses that begin at ``starts``; of those without a width the first only."""
    second = EdgeKind.CLEAR if first is EdgeKind.ASSERT else EdgeKind.ASSERT
    edges = [Edge(Instant(at, at), first, 0) for at in starts]
    if width_ns is not None:
        edges += [Edge(Instant(at + width_ns, at + width_ns), second, 0) for at in starts]
    return sorted(edges, key=lambda e: e.at.mono_ns)


def passed(rhythm: Rhythm, edges: Iterable[Edge]) -> list[int]:
    return [pulse.at.mono_ns for edge in edges for pulse in rhythm.accept(edge)]


def refused(rhythm: Rhythm) -> str:
    """Why no pulses are passed on, code and words; "" when they are."""
    found = rhythm.refusal()
    return "" if found is None else f"{found.code}: {found.words}"


@pytest.mark.parametrize("hz", [1, 2, 3, 4, 5, 7, 8, 9, 10, 0.5, 0.2, 0.25])
@pytest.mark.parametrize("width", [0.01, 0.3, None])
def test_every_rate_is_found_by_itself(hz: float, width: float | None) -> None:
    """Any whole number of pulses a second up to ten, or one every two to five seconds: found within four pulses or two seconds, with
    noise of 100 us, and from then on every pulse is passed on, the first ones too."""
    random, period = Random(str(hz)), round(NS / hz)
    starts = [k * period + round(random.gauss(0, 100_000)) for k in range(40)]
    rhythm = Rhythm()
    assert passed(rhythm, wire(starts, None if width is None else round(width * period))) == starts
    assert rhythm.period_ns == pytest.approx(period, abs=1)
    assert rhythm.refusal() is None


@pytest.mark.parametrize("hz", [0.15, 0.7, 1.02, 1.5, 12, 16, 20, 60, 1000])
def test_other_rates_are_refused_with_what_was_measured(hz: float) -> None:
    """A rhythm that cannot mark seconds (the mains, a kernel timer, a frequency output) passes nothing, and its rate is told."""
    period = round(NS / hz)
    rhythm = Rhythm()
    assert passed(rhythm, wire([k * period for k in range(400)], period // 3)) == []
    assert refused(rhythm).startswith("no-rhythm")
    assert f"{hz:g} times a second" in refused(rhythm)
    report = rhythm.report()
    assert report is not None
    assert not report.good


def test_a_rate_near_one_a_second_is_found_out() -> None:
    """1.003 pulses a second pass for one a second for some pulses; their exact rate gives them away, for good."""
    rhythm = Rhythm()
    came = passed(rhythm, wire([round(k * NS / 1.003) for k in range(200)], 100 * MS))
    assert len(came) < 40
    assert "1.003 times a second" in refused(rhythm)


def test_noise_never_makes_pulses() -> None:
    """Hours of edges without rhythm, of any density, hardly ever pass as a pulse."""
    for rate in (0.3, 1.0, 3.0, 10.0, 100.0):
        random, at, starts = Random(str(rate)), 0, []
        for _ in range(3000):
            at += round(random.expovariate(rate) * NS)
            starts.append(at)
        rhythm = Rhythm()
        assert len(passed(rhythm, wire(starts, 20_000))) <= 30, rate


@pytest.mark.parametrize(("first", "width_ms"), [("assert", 100), ("clear", 100), ("assert", 1), ("clear", 400), ("assert", 500)])
@pytest.mark.parametrize("begin_with", [0, 1])
def test_leading_edge_is_found(first: str, width_ms: int, begin_with: int) -> None:
    """The edge that starts the shorter part of the period marks the second, however it is wired, whichever comes first; a square wave's
    is assert."""
    rhythm = Rhythm()
    came = passed(rhythm, wire([k * NS for k in range(10)], width_ms * MS, EdgeKind(first))[begin_with:])
    assert len(came) >= 8
    assert all(at % NS == 0 for at in came)
    assert rhythm.width_ns == width_ms * MS


def test_strays_and_ringing_are_counted_and_go_no_further() -> None:
    """A spike in every third second and a bounce after every rise: exactly the pulses pass."""
    random = Random(1)
    starts = [k * NS for k in range(100)]
    spikes = [k * NS + random.randrange(150, 900) * MS for k in range(0, 100, 3)]
    edges = wire(starts, 100 * MS) + wire(spikes, 20_000) + wire([at + 300_000 for at in starts], 50_000)
    rhythm = Rhythm()
    came = passed(rhythm, sorted(edges, key=lambda e: e.at.mono_ns))
    assert set(came) <= set(starts)
    assert len(came) >= 90
    report = rhythm.report()
    assert report is not None
    assert report.stray > 100
    assert "stray" in report.words


@pytest.mark.parametrize(("before_hz", "after_hz"), [(1, 5), (5, 1), (1, 10), (10, 1), (1, 0.5), (0.5, 1), (5, 10), (0.2, 1)])
def test_a_change_of_rate_is_noticed_within_a_few_pulses(before_hz: float, after_hz: float) -> None:
    """The new rate is told within four of its pulses, or two seconds, and nothing that is no pulse passes meanwhile."""
    before = [round(k * NS / before_hz) for k in range(20)]
    after = [before[-1] + round(k * NS / after_hz) for k in range(1, 25)]
    rhythm = Rhythm()
    passed(rhythm, wire(before, 10 * MS))
    assert not rhythm.changed
    soon = [at for at in after if at - before[-1] <= max(2.5 * NS, 4.5 * NS / after_hz)]
    came = passed(rhythm, wire(soon, 10 * MS))
    assert set(came) <= set(after)
    assert rhythm.changed == f"the pulses went from {before_hz:g} to {after_hz:g} a second"
    assert rhythm.period_ns == round(NS / after_hz)


def test_a_missing_pulse_changes_nothing() -> None:
    """Gaps are counted, also right after the start, and the rhythm stays."""
    starts = [k * NS for k in range(50) if k not in (4, 9, 20, 21, 30)]
    rhythm = Rhythm()
    assert passed(rhythm, wire(starts, 100 * MS)) == starts
    report = rhythm.report()
    assert report is not None
    assert (report.missing, report.stray, rhythm.changed) == (5, 0, "")
    assert "5 missing" in report.words


def test_pulses_that_come_back_elsewhere_are_taken_up_again() -> None:
    """After an outage, at another phase: passed on once they keep the rhythm again."""
    rhythm = Rhythm()
    passed(rhythm, wire([k * NS for k in range(20)], 100 * MS))
    again = [1000 * NS + 370 * MS + k * NS for k in range(10)]
    came = passed(rhythm, wire(again, 100 * MS))
    assert came == again[2:]


def test_hum_that_takes_the_place_of_pulses_ends_the_trust() -> None:
    """Within a second of 60 Hz instead of pulses nothing passes any more."""
    rhythm = Rhythm()
    passed(rhythm, wire([k * NS for k in range(20)], 100 * MS))
    hum = [20 * NS + round((k + 0.5) * NS / 60) for k in range(600)]
    came = passed(rhythm, wire(hum, 8 * MS))
    assert len(came) <= 2
    assert "60 times a second" in refused(rhythm)


def test_a_stated_trailing_edge_is_found_out() -> None:
    """The configuration says clear, and clear starts the longer part: contradicted; the leading one is not, nor a single kind of edge."""
    starts = [k * NS for k in range(10)]
    for fixed, width, wrong in (
        ("clear", 100 * MS, True),
        ("assert", 100 * MS, False),
        ("assert", None, False),
        ("clear", 500 * MS, False),
    ):
        rhythm = Rhythm(EdgeKind(fixed))
        passed(rhythm, wire(starts, width))
        assert bool(rhythm.contradiction()) is wrong
    rhythm = Rhythm(EdgeKind.CLEAR)
    assert passed(rhythm, wire(starts, None)) == []
    assert 'edge-not-coming: only assert edges come, and the configuration says edge = "clear"' in refused(rhythm)


@pytest.mark.parametrize("width_ms", [1, 100, 300, 480, 500, 520, 600, 900, 999])
def test_a_stated_width_decides_which_edge_leads(width_ms: int) -> None:
    """A pulse as wide as its owner states, also longer than half its period: its rise marks the second, from the first pulse on."""
    random = Random(width_ms)
    starts = [k * NS + round(random.gauss(0, 200_000)) for k in range(40)]
    rhythm = Rhythm(stated_ns=width_ms * MS)
    assert passed(rhythm, wire(starts, width_ms * MS)) == starts
    assert rhythm.width_ns == pytest.approx(width_ms * MS, abs=MS)
    fixed = Rhythm(EdgeKind.CLEAR, width_ms * MS)
    assert passed(fixed, wire(starts, width_ms * MS, EdgeKind.CLEAR)) == starts
    assert fixed.contradiction() is None


@pytest.mark.parametrize("width_ms", [600, 700, 900, 999])
def test_a_wide_pulse_that_comes_reversed_is_refused_until_the_edge_is_stated(width_ms: int) -> None:
    """Reversed, a pulse of 900 ms is one of 100 ms: a receiver that was not set to the stated width, or wiring that inverts. Nobody guesses
    which; people are told what to state."""
    starts = [k * NS for k in range(20)]
    rhythm = Rhythm(stated_ns=width_ms * MS)
    assert passed(rhythm, wire(starts, (1000 - width_ms) * MS)) == []
    assert f"wrong-edge: pulse_width_ms = {width_ms} is stated, but that long the line is low" in refused(rhythm)
    came = passed(rhythm, wire([at + 20 * NS for at in starts], width_ms * MS))  # it is set by now
    assert came[-15:] == [at + 20 * NS for at in starts[-15:]]
    assert {at % NS for at in came} == {0}
    late = [at + (1000 - width_ms) * MS for at in starts]
    for edge, seconds in ((EdgeKind.ASSERT, starts), (EdgeKind.CLEAR, late)):
        assert passed(Rhythm(edge, width_ms * MS), wire(starts, (1000 - width_ms) * MS)) == seconds


@pytest.mark.parametrize(("stated_ms", "width_ms"), [(900, 300), (100, 300), (900, 500), (100, 500), (1500, 100)])
def test_a_width_that_does_not_come_is_not_believed(stated_ms: int, width_ms: int) -> None:
    """The receiver is not set to the stated width: the shorter part is the pulse, as if nothing were stated, and a square wave rises."""
    starts = [k * NS for k in range(20)]
    assert passed(Rhythm(stated_ns=stated_ms * MS), wire(starts, width_ms * MS)) == starts


@pytest.mark.parametrize(
    ("gaps_ns", "width_ns", "words", "good"),
    [
        ([NS + 200, NS - 300, NS + 100, NS], 100 * MS, "one pulse a second, jitter 0.1 µs (9 of 10), 100.0 ms wide: good", True),
        ([NS // 10] * 30, 5 * MS, "10 pulses a second", False),
        ([NS, NS, NS, 3 * NS, NS, NS], None, "2 missing", False),
        ([NS] * 5, NS // 2, "half on, half off", True),
        ([NS], None, "too few pulses", False),
        ([2 * NS] * 6, 100 * MS, "one pulse every 2 s", False),
    ],
)
def test_pulses_are_judged(gaps_ns: list[int], width_ns: int | None, words: str, good: bool) -> None:
    """Rate, jitter, gaps and width in one sentence, and whether that is what timing wants."""
    starts = [1_800_000_000 * NS]
    for gap in gaps_ns:
        starts.append(starts[-1] + gap)
    rhythm = Rhythm()
    passed(rhythm, wire(starts, width_ns))
    report = rhythm.report()
    assert report is not None
    assert words in report.words
    assert report.good is good


@given(st.lists(st.tuples(st.integers(0, 60 * NS), st.sampled_from(EdgeKind)), max_size=300), st.sampled_from([None, *EdgeKind]))
def test_whatever_comes_pulses_are_edges_in_order_each_once(stamps: list[tuple[int, EdgeKind]], fixed: EdgeKind | None) -> None:
    """Of any edges only those that came pass, none twice, never back in time, of one kind while the choice stands; it never raises."""
    edges = [Edge(Instant(at, at), kind, n) for n, (at, kind) in enumerate(sorted(stamps, key=lambda s: s[0]))]
    rhythm = Rhythm(fixed)
    came = [pulse for edge in edges for pulse in rhythm.accept(edge)]
    instants = [pulse.at.mono_ns for pulse in came]
    assert instants == sorted(set(instants))
    assert set(came) <= set(edges)
    assert fixed is None or all(pulse.kind is fixed for pulse in came)
    rhythm.report()
    rhythm.refusal()


@pytest.mark.parametrize("seed", range(20))
def test_strays_in_every_second_never_make_the_trailing_edge_lead(seed: int) -> None:
    """A spike in each second from the start on, among both kinds of edges: whatever passes begins a pulse, and most of them pass."""
    random = Random(seed)
    starts = [k * NS for k in range(300)]
    spikes = [at + random.randrange(150, 900) * MS for at in starts]
    edges = wire(starts, 100 * MS) + wire(spikes, 20_000)
    came = passed(Rhythm(), sorted(edges, key=lambda e: e.at.mono_ns))
    assert set(came) <= set(starts)
    assert len(came) > 250
