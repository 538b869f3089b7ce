"""Percentiles and Allan deviation: the numbers are those of the textbooks."""

from __future__ import annotations

import math
import statistics
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.history.stability import allan_deviation, deviations, percentile


def nist() -> list[float | None]:
    """Phase of the 1000-point test set of NIST SP 1065, section 12.4: frequencies by a linear congruential generator."""
    n, frequencies = 1_234_567_890, []
    for _ in range(1000):
        frequencies.append(n / 2_147_483_647)
        n = 16_807 * n % 2_147_483_647
    mean = statistics.fmean(frequencies)
    return [0.0, *accumulate(f - mean for f in frequencies)]


@pytest.mark.parametrize(("steps", "expected"), [(1, 2.922319e-01), (10, 9.159953e-02), (100, 3.241343e-02)])
def test_the_1000_point_set_of_nist(steps: int, expected: float) -> None:
    """NIST SP 1065, table 31: the overlapping Allan deviation of its test set, to seven digits."""
    found = allan_deviation(nist(), 1.0, steps)
    assert found == pytest.approx(expected, rel=1e-6)


def test_allantools_agrees() -> None:
    """Where allantools is installed: the same values at every power of two."""
    allantools = pytest.importorskip("allantools")
    taus, found = zip(*deviations(nist(), 1.0), strict=True)
    _, theirs, _, _ = allantools.oadev(nist(), rate=1.0, data_type="phase", taus=list(taus))
    assert list(theirs) == pytest.approx(found, rel=1e-9)


def test_known_shapes() -> None:
    """A constant frequency has no deviation, a steady drift d has d * tau / sqrt(2)."""
    assert allan_deviation([3e-9 * n for n in range(100)], 1.0, 4) == pytest.approx(0.0, abs=1e-20)
    assert allan_deviation([1e-9 * n * n / 2 for n in range(100)], 1.0, 8) == pytest.approx(8e-9 / math.sqrt(2))


def test_gaps_are_left_out() -> None:
    """No difference is made across a gap; where only gaps are, there is no value."""
    steady: list[float | None] = [5e-9 * n for n in range(50)]
    steady[20:25] = [None] * 5
    assert allan_deviation(steady, 1.0, 2) == pytest.approx(0.0, abs=1e-20)
    assert allan_deviation([None] * 10, 1.0, 1) is None
    assert allan_deviation([1.0, 2.0], 1.0, 1) is None
    assert list(deviations([None] * 100, 1.0)) == []
    assert list(deviations([], 1.0)) == []


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=50))
def test_percentiles_are_those_of_the_standard_library(values: list[float]) -> None:
    """The inclusive method: the smallest value is the 0th, the largest the 100th."""
    ordered = sorted(values)
    found = [percentile(ordered, n) for n in range(1, 100)]
    assert found == pytest.approx(statistics.quantiles(ordered, n=100, method="inclusive"), rel=1e-9, abs=1e-6)
    assert (percentile(ordered, 0), percentile(ordered, 100)) == (ordered[0], ordered[-1])
