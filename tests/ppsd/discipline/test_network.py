"""The time of one NTP server: its interval holds the truth, whatever path and crystal do."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppsd.discipline.network import WANDER_NS, KnownRate, NetworkEstimator
from refclock.sample import NS

RAW0, TAI0 = 5_000 * NS, 1_800_000_000 * NS


@dataclass(frozen=True)
class Path:
    """A path (ms) and a crystal (ppm off, wandering by half of WANDER_NS), asked every ``every_s``."""

    out_ms: float
    back_ms: float
    jitter_ms: float
    ppm: float
    every_s: int

    def answers(self, seed: int, count: int) -> list[tuple[int, int, int, float]]:
        """(raw, true TAI, claimed TAI, distance)."""
        random, found, raw, tai, rate = Random(seed), [], RAW0, TAI0, self.ppm * 1e-6
        for _ in range(count):
            out, back = (round((ms + random.expovariate(1) * self.jitter_ms) * 1e6) for ms in (self.out_ms, self.back_ms))
            found.append((raw, tai, tai + (out - back) // 2, (out + back) / 2 + 2))
            step = self.every_s * NS
            rate += random.uniform(-1, 1) * WANDER_NS * self.every_s**0.5 / NS / 2
            raw, tai = raw + step, tai + step + round(step * rate)
        return found


MS = st.floats(0, 100)
PATHS = st.builds(Path, MS, MS, st.floats(0.01, 20), st.floats(-400, 400), st.sampled_from((2, 64, 512)))


@given(st.integers(0, 1 << 30), PATHS)
@settings(max_examples=50)
def test_the_bound_holds_the_truth(seed: int, path: Path) -> None:
    """At every answer, and half way to the next one; and the estimate lies within the latest answer."""
    estimator = NetworkEstimator()
    for (raw, true, claimed, distance), (later, then, _, _) in pairwise(path.answers(seed, 40)):
        estimator.add(raw, claimed, distance, 2 * distance)
        for at, tai in ((raw, true), ((raw + later) // 2, (true + then) // 2)):
            estimate = estimator.estimate(at)
            assert abs(estimate.tai_ns - tai) <= estimate.bound_ns + 100
        assert abs(estimator.estimate(raw).tai_ns - claimed) <= distance + 2
    assert estimator.restarts == 0


def _error_us(seed: int, out: float, back: float) -> float:
    """us; RMS of the estimate's error over the last hour of two, asked every 64 s, with exponential noise (us) on the way out and back."""
    random, estimator, squares = Random(seed), NetworkEstimator(), []
    for k in range(112):
        raw = RAW0 + k * 64 * NS
        ways = [100e3 + random.expovariate(1) * us * 1e3 for us in (out, back)]
        estimator.add(raw, TAI0 + k * 64 * (NS + 5_000) + round((ways[0] - ways[1]) / 2), sum(ways) / 2 + 100, sum(ways))
        if k >= 56:
            for later in (0, 32):
                true = TAI0 + k * 64 * (NS + 5_000) + later * (NS + 5_000)
                squares.append(((estimator.estimate(raw + later * NS).tai_ns - true) / 1e3) ** 2)
    return (sum(squares) / len(squares)) ** 0.5


def test_noise_is_averaged_where_both_ways_have_it_and_avoided_where_one_has() -> None:
    """100 us of noise on each way leave a fifth of what one answer is off by (71 us), and 500 us on the way back alone, which make every
    answer 250 us early at the mean, a twentieth of that."""
    assert sum(_error_us(seed, 100, 100) for seed in range(5)) / 5 < 14
    assert sum(_error_us(seed, 0, 500) for seed in range(5)) / 5 < 14


@pytest.mark.parametrize("seed", range(3))
def test_a_restless_crystal_is_covered_once_it_has_shown_itself(seed: int) -> None:
    """A crystal that wanders seven times as far as is thought of any, as when it is breathed on: after an hour of answers every bound holds
    again, at the answers and between them."""
    random, estimator, raw, tai, rate, beyond = Random(seed), NetworkEstimator(), RAW0, float(TAI0), 20e-6, []
    for _ in range(200):
        out, back = (100e3 + random.expovariate(1) * 100e3 for _ in range(2))
        estimator.add(raw, round(tai + (out - back) / 2), (out + back) / 2 + 2, out + back)
        for _ in range(4):
            estimate = estimator.estimate(raw)
            beyond.append(abs(estimate.tai_ns - tai) > estimate.bound_ns + 100)
            raw, tai = raw + 16 * NS, tai + 16 * NS * (1 + rate)
            rate += random.gauss(0, 100 * 4e-9)
    assert not any(beyond[240:])


def test_a_known_rate_keeps_the_bound_small() -> None:
    """With the rate that receivers gave the bound hardly grows in an hour; without, by half a millisecond a second."""
    known, alone = NetworkEstimator(), NetworkEstimator()
    known.runs_at(KnownRate(RAW0, 20e-6, 1e-8, 1.0))
    for estimator in (known, alone):
        estimator.add(RAW0, TAI0, 1e6, 2e6)
    hour = RAW0 + 3600 * NS
    assert known.estimate(hour).bound_ns < 1.5e6
    assert alone.estimate(hour).bound_ns == pytest.approx(1e6 + 3600 * 500e3, rel=0.01)


def test_the_rate_is_learned_from_the_answers() -> None:
    """After hours the rate is known within some ppm, and the bound between two answers is small."""
    estimator = NetworkEstimator()
    for raw, _, claimed, distance in Path(10, 10, 0.5, 37, 512).answers(3, 30):
        estimator.add(raw, claimed, distance, 2 * distance)
        last = raw
    estimate = estimator.estimate(last + 512 * NS)
    assert abs(estimate.rate - 37e-6) < 10e-6
    assert estimate.bound_ns < 20e6


def test_a_server_that_was_stepped_begins_anew() -> None:
    """What it said before counts no more: its interval is that of its latest answer."""
    estimator = NetworkEstimator()
    for k in range(5):
        estimator.add(RAW0 + k * 64 * NS, TAI0 + k * 64 * NS, 1e6, 2e6)
    estimator.add(RAW0 + 320 * NS, TAI0 + 321 * NS, 1e6, 2e6)
    estimate = estimator.estimate(RAW0 + 320 * NS)
    assert (estimate.tai_ns, estimator.restarts) == (TAI0 + 321 * NS, 1)
    assert estimate.bound_ns == pytest.approx(1e6, abs=2)
