"""The discipline scenarios, short: the bound covers the truth on every kind of noise, and the time is as good as the kept figures say."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
from refclock_sim.worlds.noise_scenarios import SCENARIOS, run

SHORT_S = {"b-step": 10_200, "step-1us": 10_200, "warm-up": 8_400, "b-ramp": 9_600}
"""As long as it takes to see what they are about; half an hour for the others. `make bench-clock` runs them whole."""
ERRORS_US = {"a": 0.047, "b-quiet": 0.24, "b-wander": 0.55, "c-iid": 22.0, "c-beat": 17.0, "e": 0.30, "h": 0.2, "i": 0.30}
"""RMS less the mean: chronyd's best of 15 settings per scenario, or three quarters of it, or 1.35 x the limit filter where that is less;
h: three quarters, for the drift of a room is followed."""


OUTRUN = {"step-1us"}
"""1 ppm within a minute under 1 us of noise: for some seconds nothing in the samples tells it from chance."""


@pytest.mark.parametrize("seed", range(901, 904))
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in OUTRUN])
def test_bound_covers_the_truth_at_every_instant(name: str, seed: int) -> None:
    """From the first served second on |served - true| <= bound, whatever the shape of the noise and whatever the crystal does."""
    course = run(SCENARIOS[name], seed, SHORT_S.get(name, 1800))
    assert course.judged > 1000
    assert course.uncovered == 0, f"error {course.worst:.2f} times the bound at {course.worst_s} s"


def test_a_step_under_small_noise_outruns_the_bound_for_seconds_only() -> None:
    """1 ppm within a minute, 1 us of noise, no bias stated: in none of eight seeds more than five seconds, or by a factor of 2.5."""
    for seed in range(901, 909):
        course = run(SCENARIOS["step-1us"], seed, SHORT_S["step-1us"])
        assert course.uncovered <= 10
        assert course.worst < 2.5


@pytest.mark.parametrize("name", list(ERRORS_US))
def test_served_time_is_near_and_its_bound_is_tight(name: str) -> None:
    """Error and tightness in steady state: the median bound is at most 8 times the error that a client sees.

    One seed's RMS of slow errors (USB) is itself uncertain by a third; the claim of 6 is for many seeds: tests/bench/clock.md.
    """
    course = run(SCENARIOS[name], 903)
    mean = statistics.fmean(course.errors)
    rms = statistics.pstdev(course.errors, mean)
    assert rms <= 1.1 * ERRORS_US[name]
    assert statistics.median(course.bounds) <= 8 * math.hypot(rms, mean)


@pytest.mark.parametrize("name", ["b-quiet", "gauss-10us", "one-sided", "lognormal", "d"])
def test_a_restart_knows_its_noise(name: str) -> None:
    """With the state of an earlier run the first five minutes (of messages: the first hour) have a bound smaller by a tenth at least in
    their first fifth and never a larger error, and it covers."""
    length_s = 300 if name != "d" else 3600
    saved = run(SCENARIOS[name], 920, 6000).state
    scenario = replace(SCENARIOS[name], warm_s=0)
    cold, warm = ([run(scenario, seed, length_s, state) for seed in range(921, 931)] for state in (None, saved))
    assert saved.sources["pulse"].pulse is not None
    assert sum(c.uncovered for c in warm) == 0
    first = [statistics.median(b for c in runs for b in c.bounds[: length_s // 5]) for runs in (cold, warm)]
    assert first[1] < 0.9 * first[0]
    error = [math.sqrt(statistics.fmean(e * e for c in runs for e in c.errors)) for runs in (cold, warm)]
    assert error[1] <= error[0]


def test_a_state_of_another_line_does_no_harm() -> None:
    """Saved when the noise was 1 us, started where it is 10 us, and the other way round: covered from the first second on."""
    saved = {name: run(SCENARIOS[name], 931, 3000).state for name in ("missing", "gauss-10us", "one-sided", "b-quiet")}
    for state in saved.values():
        for name in saved:
            for seed in range(932, 937):
                assert run(SCENARIOS[name], seed, 400, state).uncovered == 0


def test_cold_start_is_below_ten_microseconds_within_ten_seconds() -> None:
    """50 ppm off, first sample to the last error above 10 us: at most 10 s in each of five seeds."""
    assert all(run(SCENARIOS["g"], seed).above_10us_s <= 10 for seed in range(904, 909))


def test_holdover_is_covered_and_not_exaggerated() -> None:
    """After an hour without samples the bound covers six crystals and is within 5 of their RMS error, sampling of that RMS allowed for."""
    courses = [run(SCENARIOS["f"], seed) for seed in range(910, 916)]
    assert all(c.uncovered == 0 for c in courses)
    rms = math.sqrt(statistics.fmean(c.errors[-1] ** 2 for c in courses))
    assert statistics.median(c.bounds[-1] for c in courses) <= 5 * rms * (1 + 2 / math.sqrt(2 * len(courses)))
