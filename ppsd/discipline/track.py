"""What both estimators work on: the crystal's state from one start to the next, and what they tell of it.

There are two kinds of line. Continuous noise is filtered (``continuous``); stamps of a polled line only say in which frame the second lies
(``polled``). The crystal is the same, so one track serves both: when a grid is recognised or lost, the other one goes on where this one
stopped. ``Estimator`` chooses. Pure; seconds since the estimator's first sample, phases in ns.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from dataclasses import dataclass
from typing import Protocol, Self

from ppsd.discipline.kalman import Bank, Mixture

SEED_SAMPLES = 5
"""Samples that a state is made from at first. In the bound they fade as others confirm them."""
EARLY_RANGES = 4.0
"""Ranges of the residuals that a state was made from that its bound allows for at first: by luck five of them lie within a fifth of what
their noise is (seen with Laplace noise)."""
RUN = 20
"""Refused samples in a row on one line that make it the new truth."""
ASTRAY_HOLD_S = 50.0
"""In so many seconds a clear distance between mixture and scout fades out of the bound: when it vanishes because the mixture has gone to
the scout, the scout may have been the one that was wrong (a run of the rarer of two latencies)."""
COVER_RATE = 3.3
"""Sigmas of frequency and wander in the growth of a bound: a holdover is one draw in a thousand, not one of a day's 10 000."""
UNIFORM = 0.29
"""Standard deviation of a uniform distribution over its width: 1/sqrt(12)."""


class Track:
    """The filters since a state was made at ``t``. ``range_ns``: of the residuals of the ``made_of`` samples that it was made from.
    ``frame_ns``: they were frames of a polled line; 0: they were not."""

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
        self.recent: deque[tuple[float, float]] = deque(maxlen=RUN)  # (t, z) that it was made from, and since
        self.astray = (0.0, t)  # the last clear distance from the scout (ns), and when
        self.sigma_ns = 0.0  # of the phase, shrinking no faster than it should

    def twin(self) -> Self:
        """A track in the same state that goes on by itself."""
        twin = copy(self)
        twin.bank, twin.outliers, twin.recent = self.bank.twin(), self.outliers.copy(), self.recent.copy()
        return twin

    @property
    def samples(self) -> int:
        """Samples that its statistics rest on."""
        return SEED_SAMPLES + self.since

    def lag_held(self, t: float) -> float:
        """What is left at ``t`` of the last clear distance between mixture and scout (ns)."""
        distance, since = self.astray
        return distance * max(0.0, 1.0 - (t - since) / ASTRAY_HOLD_S)


@dataclass(frozen=True, slots=True)
class Posterior:
    """The state after the last sample and the terms of its bound that depend on the kind of line: ``sigma_ns`` of the phase and how many
    ``sigmas`` of it chance needs; ``place_ns`` and ``lag_ns`` as in ``Bound``."""

    mixture: Mixture
    sigma_ns: float
    sigmas: float
    place_ns: float
    lag_ns: float


class LineEstimator(Protocol):
    """How the samples of one kind of line are read. All methods work on the track they are given."""

    def survives(self, track: Track, dt: float, stray: float) -> bool:
        """``dt`` seconds without samples have passed, and the crystal may have strayed by ``stray`` (ns/s per sqrt(s)). False when one
        sample must not decide where the second is now, and the state is to be made anew."""

    def take(self, track: Track, t: float, z: float, dt: float) -> Track | None:
        """A sample of x at ``t``, ``dt`` seconds after the last one; the track is already predicted. Returns the track that goes on,
        another one when the state was made anew. None: it is an outlier."""

    def replacement(self, track: Track, t: float) -> Track | None:
        """``RUN`` samples in a row were refused, the last one at ``t``: the state that they make, or None when they make none."""

    def posterior(self, track: Track, t: float) -> Posterior:
        """What is known at ``t``, not before the last sample."""
