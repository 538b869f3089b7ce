"""The state of the filters, shared by the two line estimators, and the protocol that both follow.

There are two kinds of line. Samples with continuous noise are filtered (``continuous``). Stamps of a polled line only say in which frame
the second lies (``polled``). The crystal is the same, so both work on one track: when a grid is recognised or lost, the other estimator
continues from the present state. ``Estimator`` chooses between them. Pure. Times are seconds since the estimator's first sample, phases ns.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from dataclasses import dataclass
from typing import Protocol, Self

from ppsd.discipline.kalman import Bank, Mixture
from refclock.sample import MAX_FREQUENCY_PPM

SEED_SAMPLES = 5
"""Samples that make the first state. Their share of the bound shrinks as later samples confirm it."""
EARLY_RANGES = 4.0
"""Factor on the range of the first residuals; the product is in the bound at first. Five residuals may by chance lie within a fifth of
their true range (seen with Laplace noise)."""
RUN = 20
"""Consecutive refused samples; when they lie on one line, they replace the state."""
CONTRADICTING = 2
"""Refused samples in a row on one side that the bound covers: one alone is mostly a late interrupt."""
ASTRAY_HOLD_S = 50.0
"""s over which a clear distance between mixture and scout fades out of the bound. The distance may vanish because the mixture moved to the
scout. The scout may then be wrong: it may have followed a run of the rarer of two latencies."""
COVER_RATE = 3.3
"""Sigmas of frequency and wander in the growth of the bound: exceeded in one holdover of a thousand."""
UNIFORM = 0.29
"""Standard deviation of a uniform distribution of width 1: 1/sqrt(12)."""


class Track:
    """The filters from the making of a state at ``t`` on. ``made_of``: number of samples that made it; ``range_ns``: range of their
    residuals. ``frame_ns``: frame of the polled line that they came from, 0 for none."""

    def __init__(self, bank: Bank, t: float, range_ns: float, made_of: int, frame_ns: int = 0) -> None:
        self.bank = bank
        self.started = t
        self.t = t  # of the last sample
        self.t_used = t  # of the last sample that was used
        self.range_ns = range_ns
        self.made_of = made_of
        self.frame_ns = frame_ns
        self.since = 0  # samples used since the start
        self.outliers: list[tuple[float, float]] = []  # (t, z) of samples refused in a row
        self.recent: deque[tuple[float, float]] = deque(maxlen=RUN)  # (t, z) that made the state, and later ones
        self.astray = (0.0, t)  # the last clear distance from the scout (ns), and when
        self.sigma_ns = 0.0  # of the phase; it shrinks no faster than over ASTRAY_HOLD_S

    def twin(self) -> Self:
        """An independent copy."""
        twin = copy(self)
        twin.bank, twin.outliers, twin.recent = self.bank.twin(), self.outliers.copy(), self.recent.copy()
        return twin

    @property
    def samples(self) -> int:
        """Samples behind the state: those that made it and those used since."""
        return SEED_SAMPLES + self.since

    def refused(self, now: Mixture) -> tuple[float, float]:
        """How far away the samples lie that were refused last, and how fast they move away: ns, ns/s. ``now``: the state at the last
        sample. Zero unless ``CONTRADICTING`` or more in a row lie on one side."""
        away: list[tuple[float, float]] = []
        for t, z in reversed(self.outliers[-RUN:]):
            ns = z - now.x - now.y * (t - self.t)
            if away and ns * away[-1][1] < 0:
                break
            away.append((t, ns))
        if len(away) < CONTRADICTING:
            return 0.0, 0.0
        (last_t, last), (first_t, first) = away[0], away[-1]
        slope = (abs(last) - abs(first)) / (last_t - first_t)
        return max(abs(ns) for _, ns in away), min(max(0.0, slope), MAX_FREQUENCY_PPM * 1e3)

    def lag_held(self, t: float) -> float:
        """ns; the last clear distance between mixture and scout as faded at ``t``."""
        distance, since = self.astray
        return distance * max(0.0, 1.0 - (t - since) / ASTRAY_HOLD_S)


@dataclass(frozen=True, slots=True)
class Posterior:
    """The state after the last sample, with the terms of the bound that depend on the kind of line. ``sigma_ns``: of the phase; ``sigmas``:
    factor on it in the bound; ``place_ns`` and ``lag_ns``: as in ``Bound``."""

    mixture: Mixture
    sigma_ns: float
    sigmas: float
    place_ns: float
    lag_ns: float


class LineEstimator(Protocol):
    """Estimation from the samples of one kind of line. All methods work on the track they are given."""

    def survives(self, track: Track, dt: float, stray: float) -> bool:
        """Predict over a gap of ``dt`` seconds; the crystal may have strayed by ``stray`` (ns/s per sqrt(s)). False: the phase is too
        uncertain for a single sample to correct, and a new state must be made."""

    def take(self, track: Track, t: float, z: float, dt: float) -> Track | None:
        """A sample of x at ``t``, ``dt`` seconds after the last one; the track is already predicted. Returns the track to continue with:
        a new one when the state was made anew, None when the sample is an outlier."""

    def replacement(self, track: Track, t: float) -> Track | None:
        """The state that ``RUN`` consecutive refused samples make, the last one at ``t``; None when they make none."""

    def posterior(self, track: Track, t: float) -> Posterior:
        """State and terms of the bound at ``t``, which is not before the last sample."""
