"""The thermometer through the whole engine: better where it shows the crystal's temperature, not worse where it lies, always covered."""

from __future__ import annotations

import statistics

import pytest
from refclock_sim.worlds.noise_scenarios import WARM, Course, run


def rms(course: Course) -> float:
    """Less the mean, us."""
    return statistics.pstdev(course.errors)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("t-room", 1.0), ("t-load", 0.85), ("t-fork", 0.85), ("t-probe", 0.92), ("t-late", 0.97)])
def test_the_clock_is_held_better_with_the_thermometer(name: str, share: float) -> None:
    """RMS error at most that share of what it is without, and every instant is covered, with a thermometer slower than the crystal too.
    In a room that changes over hours the drift is followed without one as well; it must only do no harm."""
    course = run(WARM[name], 921)
    assert course.uncovered == 0, f"error {course.worst:.2f} times the bound at {course.worst_s} s"
    assert rms(course) <= share * rms(run(WARM[name], 921, temperature="off"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t-frozen", "t-jump", "t-inverted", "t-elsewhere", "t-lost", "t-still"])
def test_a_thermometer_that_lies_costs_nothing(name: str) -> None:
    """The RMS error from the lie on is at most 5 % above that without a thermometer, and every instant is covered."""
    since = 12_000 - WARM[name].warm_s
    course, without = (run(WARM[name], 922, 16_000, temperature=choice) for choice in ("auto", "off"))
    assert course.uncovered == 0, f"error {course.worst:.2f} times the bound at {course.worst_s} s"
    assert statistics.pstdev(course.errors[since:]) <= 1.05 * statistics.pstdev(without.errors[since:])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [931, 932])
def test_an_hour_of_holdover_while_the_board_warms_ends_three_times_nearer(seed: int) -> None:
    """8 K and 1.5 ppm within the hour: the error at its end is at most a third, and every instant is covered."""
    course, without = run(WARM["t-holdover"], seed), run(WARM["t-holdover"], seed, temperature="off")
    assert course.uncovered == 0, f"error {course.worst:.2f} times the bound at {course.worst_s} s"
    assert abs(course.errors[-1]) <= abs(without.errors[-1]) / 3
