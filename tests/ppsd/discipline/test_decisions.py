"""Selection and time scales: the small decisions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.discipline.estimate import Estimate
from ppsd.discipline.selection import Candidate, outvoted, select
from refclock.robust import robust_line
from refclock.sample import NS, EraMismatch, Instant, SourceId
from refclock.timescales import DAY_S, ntp64, utc_of_ntp64, window_weeks

A, B, C = SourceId("a"), SourceId("b"), SourceId("c")
NEW_YEAR = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())


def claim(source: SourceId, offset_ns: int, bound_ns: float, prefer: bool = False, trust: bool = False) -> Candidate:
    return Candidate(source, Estimate(0, 10**18 + offset_ns, 0.0, bound_ns, 0.0, 0.0, 1.0, 0.0, 100), 0, "GPS", prefer, trust)


def test_tightest_of_those_that_agree_wins() -> None:
    """Among agreeing sources the one with the smallest bound is served, and the one far away is named with by how much."""
    choice = select([claim(A, 0, 1000), claim(B, 300, 500), claim(C, 50_000, 100)], None)
    assert choice.selected is not None
    assert choice.selected.source == B
    assert choice.agreeing == {A, B}
    assert choice.falsetickers[C] == pytest.approx(49_100)


def test_two_that_disagree_both_lose() -> None:
    """With two sources that contradict each other neither wins."""
    choice = select([claim(A, 0, 100), claim(B, 10_000, 100)], A)
    assert choice.selected is None
    assert set(choice.falsetickers) == {A, B}


def test_trusted_sources_outvote_the_others() -> None:
    """However many agree on something else, a trusted source's time is true; the tightest that agrees with it is served, the others are
    named. Two trusted ones that contradict each other both lose, and then nobody wins."""
    crowd = [claim(B, 10_000, 100), claim(C, 10_050, 100)]
    choice = select([claim(A, 0, 1000, trust=True), *crowd, claim(SourceId("d"), 900, 50)], None)
    assert choice.selected is not None
    assert choice.selected.source == SourceId("d")
    assert choice.agreeing == {A, SourceId("d")}
    assert set(choice.falsetickers) == {B, C}
    assert select([claim(A, 0, 100, trust=True), claim(B, 10_000, 100, trust=True), claim(C, 0, 100)], None).selected is None
    without = select([claim(A, 0, 1000), *crowd], None)
    assert without.agreeing == {B, C}


def test_of_three_in_a_chain_the_odd_one_is_the_farther() -> None:
    """The middle claim meets both others, which do not meet: the one farther from it is named, though its own bound is the tightest."""
    choice = select([claim(A, 0, 4000), claim(B, 600, 5000), claim(C, 9_000, 3800)], None)
    assert choice.agreeing == {A, B}
    assert set(choice.falsetickers) == {C}


def test_labels_vote_on_the_second() -> None:
    """Before the second is known: of two receivers that name different seconds both are odd, of three the one alone, by how much;
    half a second of message delay is no disagreement, and one receiver alone has nobody against it."""
    assert outvoted({A: 0}) == {}
    assert outvoted({A: 0, B: NS // 2}) == {}
    assert outvoted({A: 0, B: NS}) == {A: -NS, B: NS}
    assert outvoted({A: 0, B: 10**6, C: 3 * NS}) == {C: 3 * NS - 10**6}


def test_prefer_and_reluctance() -> None:
    """``prefer`` beats a tighter bound; without it the selected source stays unless a rival is clearly tighter."""
    chosen = [
        select([claim(A, 0, 1000, prefer=True), claim(B, 0, 500)], None),
        select([claim(A, 0, 1000), claim(B, 0, 900)], A),
        select([claim(A, 0, 1000), claim(B, 0, 500)], A),
    ]
    assert [c.selected.source for c in chosen if c.selected is not None] == [A, A, B]


@given(st.integers(-(2**33), 2**34), st.integers(0, NS - 1))
def test_ntp_stamps_round_trip_in_any_era(second: int, nanosecond: int) -> None:
    """A 64-bit stamp comes back within a nanosecond when the era is known to within 68 years."""
    utc_ns = second * NS + nanosecond
    assert abs(utc_of_ntp64(ntp64(utc_ns), utc_ns + 30 * 365 * DAY_S * NS) - utc_ns) <= 1


@given(st.integers(0, 2**33), st.integers(10**9, 2 * 10**9))
def test_window_repairs_by_whole_rollovers(utc_s: int, not_before_s: int) -> None:
    """The repaired date lies in [not before, + 1024 weeks)."""
    repaired = utc_s + window_weeks(utc_s, not_before_s) * 1024 * 604_800
    assert not_before_s <= repaired < not_before_s + 1024 * 604_800


def test_eras_cannot_be_compared() -> None:
    """REALTIME readings on two sides of a step raise."""
    with pytest.raises(EraMismatch):
        Instant(5, 5, 1).real_since(Instant(4, 4, 0))


def test_robust_line_ignores_a_quarter_of_outliers() -> None:
    """Theil-Sen: 5 of 20 points far off change neither level nor slope."""
    points = [(float(t), 3.0 + 0.5 * t + (1000.0 if t % 4 == 0 else 0.0)) for t in range(20)]
    level, slope, _ = robust_line(points)
    assert slope == pytest.approx(0.5, abs=0.2)
    assert level == pytest.approx(3.0, abs=3.0)
