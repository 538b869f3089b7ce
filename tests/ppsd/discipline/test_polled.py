"""Stamps of a polled line: recognised, and read as frames instead of noise."""

from __future__ import annotations

import pytest

from ppsd.discipline.estimator import Estimator
from refclock.sample import NS

RAW0, TAI0 = 10**13 + 123_456, 1_800_000_037 * NS
FRAME_NS = 1_000_000


@pytest.mark.parametrize("first_late", [1, 7, 33, 41])
@pytest.mark.parametrize("ppm", [12, 50, -200])
def test_samples_late_on_top_of_frames_are_left_out(ppm: int, first_late: int) -> None:
    """Every fiftieth sample is late by three frames when the grid is recognised: the bound covers at every second from the first estimate
    on, and after ten minutes it is a fifth of a frame at most."""
    estimator = Estimator(50.0, 0.0)
    for k in range(1500):
        second = RAW0 + k * (NS + ppm * 1000)
        stamp = second + (3 * FRAME_NS if k % 50 == first_late else 0)
        stamp += -stamp % FRAME_NS  # seen when the next frame begins
        estimator.add(stamp, TAI0 + k * NS + FRAME_NS // 2)
        if estimator.ready:
            e = estimator.estimate(stamp)
            assert abs(e.tai_ns - (TAI0 + k * NS) - (stamp - second)) <= e.bound_ns
            assert k < 600 or e.bound_ns < FRAME_NS / 5
