"""Offset and frequency of the local oscillator from noisy samples, and how wrong they may be: one channel of one source.

Theory. On CLOCK_MONOTONIC_RAW nothing but the crystal moves: x = TAI - raw (ns), y = dx/dt (ns/s), a random walk of frequency. A sample
measures x with an error whose scale and shape are unknown, skewed and heavy-tailed. Each part of the work is a pure machine of its own:

* ``continuous`` filters samples with continuous noise, ``polled`` stamps of a polled line; it also recognises them;
* ``kalman``: filters with different wanders, weighed by likelihood;
* ``noise`` learns how wide the innovations are and what of a sample to believe, so that the covariance is that of the real error;
* ``wander`` learns from failed forecasts what holdover costs.

Flow: Sample -> **Estimator** -> Estimate -> selection -> timescale. Pure. Times are raw ns in, floats relative to the first sample inside.
"""

from __future__ import annotations

import math
from copy import copy
from typing import Self

from ppsd.discipline.continuous import ContinuousEstimator
from ppsd.discipline.estimate import Bound, Estimate
from ppsd.discipline.polled import PolledEstimator
from ppsd.discipline.saved import Learned
from ppsd.discipline.track import COVER_RATE, EARLY_RANGES, RUN, SEED_SAMPLES, UNIFORM, LineEstimator, Posterior, Track
from ppsd.discipline.wander import STEP_S, Wander
from refclock.sample import NS


class Estimator:
    """See the module. ``floor_ns``: smallest noise scale. ``bias_ns``: stated systematic allowance of the source. ``rate``: d(TAI)/d(raw)
    - 1 from an earlier run, with sigma ``rate_sigma``. ``polled``: the samples may come from a polled line. ``centred``: the stated bias is
    that of the **mean** of the samples, so the second lies within it of the mean; else the second may lie anywhere in the noise.
    """

    def __init__(
        self,
        floor_ns: float,
        bias_ns: float,
        rate: float | None = None,
        rate_sigma: float = 1e-4,
        *,
        centred: bool = False,
        polled: bool = True,
        learned: Learned | None = None,
    ) -> None:
        self.bias_ns = bias_ns
        self.accepted = 0
        self.refused = 0
        self.restarts = 0
        prior = None if rate is None else (rate * 1e9, rate_sigma * 1e9)
        self._continuous = ContinuousEstimator(floor_ns, centred, prior, learned)
        self._polled = PolledEstimator(polled)
        self._wander = Wander((learned.wander, learned.watched_s) if learned else None)
        self._base: tuple[int, int] | None = None  # raw and TAI of the first sample
        self._track: Track | None = None

    def twin(self) -> Self:
        """An independent copy."""
        twin = copy(self)
        twin._continuous, twin._polled, twin._wander = self._continuous.twin(), self._polled.twin(), self._wander.twin()
        twin._track = None if self._track is None else self._track.twin()
        return twin

    @property
    def ready(self) -> bool:
        """A state exists."""
        return self._track is not None

    def learned(self) -> Learned | None:
        """For the next start; None while there is too little, and of a polled line, which is known by its stamps."""
        noise = self._continuous.noise.quantiles()
        if self._track is None or not noise or self._polled.frame_ns or self._continuous.jumps.sawtooth_ns:
            return None
        return Learned(tuple(noise), self._wander.expected(self._track.bank.wander()), self._wander.watched_s)

    def cut_to(self, grain_ns: float) -> None:
        """The stamps are whole multiples of this."""
        self._continuous.cut_to(grain_ns)

    def shift(self, delta_ns: int) -> None:
        """The TAI scale itself was redefined by ``delta_ns`` (a corrected leap second table)."""
        if self._base is not None:
            self._base = (self._base[0], self._base[1] + delta_ns)

    # ---- samples in ----------------------------------------------------------------------------------------------------------------

    def add(self, mono_ns: int, tai_ns: int) -> bool:
        """One sample: at raw ``mono_ns`` it was TAI ``tai_ns``. True when it was used. Samples must not go back in time (ignored)."""
        if self._base is None:
            self._base = (mono_ns, tai_ns)
        t = (mono_ns - self._base[0]) / NS
        z = float((tai_ns - self._base[1]) - (mono_ns - self._base[0]))
        track = self._track
        if track is None:
            self._polled.watch(mono_ns, t, z)
            return self._start(self._continuous.begin(t, z))
        if t <= track.t:
            return False
        was = self._polled.frame_ns
        if self._polled.watch(mono_ns, t, z):
            if self._start(self._polled.fitted()):
                return True
            if self._polled.frame_ns != was:
                # Some samples are late on top, so the frames make no state. The filters took them for noise and may be off by half a frame.
                phase = UNIFORM * self._polled.frame_ns
                track.bank.widen(phase, phase / max(1.0, t - track.started))
        # Time passes: predict. What a long gap brought is more than the filters' wanders know of.
        dt, track.t = t - track.t, t
        track.bank.predict(dt)
        line = self._line
        if dt > STEP_S and not line.survives(track, dt, COVER_RATE * self._wander.expected(track.bank.wander())):
            self._track = None
            return self._start(self._continuous.begin(t, z))
        # The sample: used, refused, or the last one that it took to see that the state was wrong.
        taken = line.take(track, t, z, dt)
        if not track.bank.sound:
            self._track = None
            self._continuous.begin_anew()
            return self._start(self._continuous.begin(t, z))
        if taken is None:
            return self._refuse(line, track, t, z)
        if taken is not track:
            return self._start(taken)
        track.outliers.clear()
        track.t_used = t
        track.since += 1
        self.accepted += 1
        if self._wander.due(t):
            now = track.bank.mixture()
            self._wander.add(t, now.x, now.y, now.pyy, track.bank.wander())
        return True

    @property
    def _line(self) -> LineEstimator:
        """The one that reads the samples as the line is known now."""
        return self._polled if self._polled.frame_ns else self._continuous

    def _start(self, track: Track | None) -> bool:
        """Go on with a new state, when there is one that is sound."""
        if track is None or not track.bank.sound:
            return False
        if track.frame_ns:
            self._continuous.lapse(UNIFORM * track.frame_ns)
        self._track = track
        self._wander.restart()
        self.accepted += track.made_of
        return True

    def _refuse(self, line: LineEstimator, track: Track, t: float, z: float) -> bool:
        """An outlier. After ``RUN`` in a row it is the state that may be wrong."""
        self.refused += 1
        track.outliers.append((t, z))
        if len(track.outliers) < RUN or not self._start(line.replacement(track, t)):
            return False
        self.restarts += 1
        return True

    # ---- estimates out -------------------------------------------------------------------------------------------------------------

    def estimate(self, mono_ns: int) -> Estimate:
        """The state carried to raw ``mono_ns`` (not before the last sample). Needs ``ready``."""
        assert self._base is not None
        assert self._track is not None
        t = (mono_ns - self._base[0]) / NS
        dt = max(0.0, t - self._track.t)
        known = self._line.posterior(self._track, t)
        now = known.mixture
        bound = self._bound(self._track, known, t)
        return Estimate(
            mono_ns=mono_ns,
            tai_ns=self._base[1] + (mono_ns - self._base[0]) + round(now.x + now.y * dt),
            rate=now.y / NS,
            bound_ns=bound.after(dt),
            bound_rate=bound.rate / NS,
            bound_wander_ns=bound.wander,
            jitter_ns=self._continuous.noise.scale_ns,
            skew=math.sqrt(now.pyy) / NS,
            samples=self.accepted,
            phase_sigma_ns=known.sigma_ns,
            restarts=self.restarts,
            terms=bound,
        )

    def _bound(self, track: Track, known: Posterior, t: float) -> Bound:
        """Every term of the bound: see ``Bound``. For a random walk of frequency the error after dt without samples has the variance
        Pxx + Pyy dt^2 + w^2 dt^3 / 3; the square roots are added, not the squares, which is more."""
        assert self._base is not None
        jumps = self._continuous.jumps
        doubt, doubt_rate = self._polled.doubt(self._base[0] + round(track.t * NS))
        refused, refused_rate = track.refused(known.mixture)
        return Bound(
            bias_ns=self.bias_ns,
            jump_ns=jumps.held(t),
            early_ns=EARLY_RANGES * track.range_ns * (SEED_SAMPLES / track.samples) ** 2,
            place_ns=known.place_ns + jumps.sawtooth_ns / UNIFORM,
            lag_ns=known.lag_ns,
            doubt_ns=doubt + doubt_rate * (track.t - track.t_used),
            refused_ns=refused,
            chance_ns=known.sigmas * known.sigma_ns,
            rate=COVER_RATE * math.sqrt(known.mixture.pyy) + doubt_rate + refused_rate,
            wander=COVER_RATE * self._wander.expected(track.bank.wander()) / math.sqrt(3),
        )
