"""Spans: what is kept of a second, and that a longer span says the same as its seconds."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_daemon import LOCKED
from spans_at_hand import NOON, minute, snapshot

from ppsd.history.spans import COLUMNS, MOST_SOURCES, Span, Spread, merged, second, series_s


def test_a_second() -> None:
    """Offset, bound, frequency, temperature, satellites and requests of a snapshot, and of each source."""
    found = second(snapshot(5), 12, 1)
    assert (found.at, found.seconds, found.locked, found.stratum, found.refid, found.leap) == (NOON + 5, 1, 1, 1, "PPS", "insert")
    assert found.offsets == Spread(1, -214.0, 0.0, -214.0, -214.0)
    assert (found.bound_ns, found.frequency_ppm, found.celsius, found.satellites) == (18_100.0, -12.345, 48.5, 9.0)
    assert (found.requests, found.drops) == (12, 1)
    assert [(s.name, s.tally, s.selected, s.offsets is None) for s in found.sources] == [
        ("gps0", "*", 1, False),
        ("receiver-on-the-roof", "?", 0, True),
    ]


def test_an_old_sample_is_not_told_again() -> None:
    """A source that gives a sample now and then does not fill the seconds between with copies of it."""
    clock = snapshot(5)
    late = replace(clock, sources=(replace(clock.sources[0], last_sample_s=30.0),))
    assert second(late, None, None).offsets is None


def test_many_sources_are_bounded() -> None:
    """A machine with forty sources has the first ones in its history."""
    many = replace(LOCKED, sources=tuple(replace(LOCKED.sources[0], name=f"gps{n}") for n in range(40)))
    assert len(merged(0, [second(many, None, None)] * 3).sources) == MOST_SOURCES


@given(st.lists(st.integers(-1_000_000, 1_000_000), min_size=2, max_size=40), st.integers(1, 39))
def test_a_span_of_spans_is_the_span_of_their_seconds(offsets: list[int], cut: int) -> None:
    """Mean, deviation and extremes are those of all offsets, however they are grouped on the way."""
    seconds = [second(snapshot(n, offset, 1000 + n), 2, 0) for n, offset in enumerate(offsets)]
    whole = merged(NOON, seconds)
    assert whole.offsets is not None
    assert whole.offsets.mean == pytest.approx(statistics.fmean(offsets), abs=1e-6)
    assert whole.offsets.deviation == pytest.approx(statistics.pstdev(offsets), abs=1e-3)
    assert (whole.offsets.low, whole.offsets.high, whole.bound_ns) == (min(offsets), max(offsets), 999.0 + len(offsets))
    assert (whole.seconds, whole.requests) == (len(offsets), 2 * len(offsets))
    at = min(cut, len(seconds) - 1)
    grouped = merged(NOON, [merged(NOON, seconds[:at]), merged(NOON + at, seconds[at:])])
    assert grouped.offsets is not None
    assert grouped.offsets.deviation == pytest.approx(whole.offsets.deviation, abs=1e-3)
    assert (grouped.seconds, grouped.requests, grouped.bound_ns) == (whole.seconds, whole.requests, whole.bound_ns)


def test_rows_come_back() -> None:
    """What is stored or sent is what is read; a row of another version is refused, not misread."""
    for span in (minute(3), second(replace(LOCKED, sources=(), stratum=0, bound_ns=None), None, None)):
        row, sources = json.loads(json.dumps([span.row(), [one.row() for one in span.sources]]))
        assert Span.of(row, sources) == span
        assert len(row) == len(COLUMNS)
    with pytest.raises(ValueError, match="another version"):
        Span.of(minute(3).row()[:-1], [])


def test_a_series_has_gaps_and_beginnings() -> None:
    """A missing second is a gap; after a clock that was set back, and after a gap of an hour, a new series begins."""

    def at(*seconds: int) -> list[Span]:
        return [replace(second(snapshot(0, 1000 * (n + 1)), None, None), at=s) for n, s in enumerate(seconds)]

    assert series_s(at(10, 11, 13), 1) == pytest.approx([1e-6, 2e-6, None, 3e-6])
    assert series_s(at(10, 11, 11, 12), 1) == pytest.approx([1e-6, 3e-6, 4e-6])
    assert series_s(at(10, 11, 5, 6), 1) == pytest.approx([3e-6, 4e-6])
    assert series_s(at(10, 11, 10**9), 1) == pytest.approx([3e-6])
