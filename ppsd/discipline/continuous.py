"""Phase and frequency from samples with continuous noise: whatever shape, skew and tails it has.

Theory. A sample is a measurement of x with an error of unknown scale and shape. ``noise`` learns how wide the innovations are and what of a
sample to believe; the bank of ``kalman`` is fed with that, so its covariance is that of the real error.

Guards against the filter's own mistakes:

* The first state is a robust line through five samples. The range of their residuals stays in the bound and fades as others confirm them.
* A state made within a burst, or from an outlier, is made anew once the samples that follow lie on a line.
* ``RUN`` refused samples on one straight line replace the state: a jump of phase is real. A burst lies on no line and never does.
* Jumps that keep coming back are an unknown sawtooth. They raise the scale and stay in the bound whole.
* A scout shows when the mixture lags behind: the distance goes into the bound.

Pure. Seconds since the estimator's first sample, ns. Constants without a derivation: as in ``kalman``.
"""

from __future__ import annotations

import math
from collections import deque
from copy import copy
from typing import Self

from ppsd.discipline.kalman import Bank, Mixture
from ppsd.discipline.noise import CAUTION, GATE, NO_OUTLIERS, Noise
from ppsd.discipline.saved import Learned
from ppsd.discipline.track import ASTRAY_HOLD_S, EARLY_RANGES, RUN, SEED_SAMPLES, UNIFORM, Posterior, Track
from refclock.robust import median, robust_line
from refclock.sample import MAX_FREQUENCY_PPM

SEED_APART_S, SEED_SPAN_S = 0.2, 1.0
"""Samples of the first state are at least so far apart and span so much: those of a fast source tell nothing new of the frequency."""
SEED_SIGMAS = 4.0
"""Factor on the first frequency's standard deviation, and sigmas within which an earlier frequency is taken to be the same: the scale of
five samples is a guess."""
USUAL_RANGE = 6.0
"""Scales: five residuals of the noise that an earlier run knew have a range of 2.3 +- 0.9; beyond, it is not taken to be the same."""
TOO_CAUTIOUS, UNPROVEN = 30.0, 300
"""While fewer samples than the second were used: when the last ``RUN`` lie on a line this many times better than the state is known, the
state is made anew from them. That mends a start within a burst, or with an outlier of milliseconds among its five samples. Without it the
filter would come near at the pace of a noise that is over, take its own error for noise, and believe one outlier whole."""
STRAYED = 10.0
"""Scales of noise by which the second may have moved in a holdover before a single sample, an outlier perhaps, is no guide any more."""
ASTRAY_CLEAR = 3.0
"""Standard deviations: a distance between mixture and scout beyond them is no chance, and fades only in ``ASTRAY_HOLD_S``."""
ASTRAY_CHANCE, ASTRAY_COVER = 0.67, 3.0
"""Of the distance between mixture and scout what is beyond so many of its standard deviations goes into the bound, that many times. Chance
takes it there half of the time, which leaves the median bound alone."""
EARLY_EDGE = 1.5
"""Robust sigmas from the middle of the noise to its early edge, where the second is when the source's mean was not stated: a one-sided
exponential has 1.40, a uniform latency 1.35."""
MISSES = 2e-3
"""A day: how often the bound may be passed, were P exact and its errors Gaussian."""
DAY_S = 86_400.0
STUDENT = (6.0, 100.0)
"""After n samples sigma counts 1 + 6/n + 100/n^2 times, as Student's t with n - 2 degrees of freedom beside a Gaussian at 1e-6 (within 7 %
from n = 10 on; below, the range of the first samples is in the bound as well). What so few do not show, a second latency, may be there."""
JUMP_HOLD_S = 300.0
"""A jump that samples forced stays in the bound for so long."""
JUMPS_REPEAT_S = 1000.0
"""Two jumps within this are a sawtooth: 1 ms USB frames beat with a crystal 1 ppm off in 1000 s."""
RUN_STRAIGHT = 3.0
"""Scales of noise by which a run of refused samples may scatter about its line: beyond, it is a burst."""


class Jumps:
    """Jumps of phase that samples forced. ``sawtooth_ns``: standard deviation of jumps that keep coming back; 0: none do."""

    def __init__(self) -> None:
        self.sawtooth_ns = 0.0
        self._size_ns, self._t = 0.0, -math.inf

    def forced(self, size_ns: float, t: float) -> bool:
        """One happened at ``t``. True when it is not the first one of late."""
        again = t - self._t < JUMPS_REPEAT_S
        if again:
            self.sawtooth_ns = max(self.sawtooth_ns, UNIFORM * min(size_ns, self._size_ns))
        self._size_ns, self._t = size_ns, t
        return again

    def held(self, t: float) -> float:
        """What of the last one is in the bound at ``t`` (ns)."""
        return self._size_ns if t - self._t < JUMP_HOLD_S else 0.0


class ContinuousEstimator:
    """See the module's text. ``floor_ns``: no noise scale is believed below it. ``centred``: the source's bias was stated of the mean of
    the samples. ``prior``: frequency and its standard deviation as known from before (ns/s)."""

    def __init__(self, floor_ns: float, centred: bool, prior: tuple[float, float] | None, learned: Learned | None) -> None:
        self.centred = centred
        self.noise = Noise(floor_ns, learned.noise if learned else ())
        self.jumps = Jumps()
        self._floor_ns = floor_ns
        self._prior = prior
        self._learned = learned
        self._seed: deque[tuple[float, float]] = deque(maxlen=SEED_SAMPLES + 2)

    def twin(self) -> Self:
        """One in the same state that goes on by itself."""
        twin = copy(self)
        twin.noise, twin.jumps, twin._seed = self.noise.twin(), copy(self.jumps), self._seed.copy()
        return twin

    def cut_to(self, grain_ns: float) -> None:
        """The stamps are whole multiples of this: noise much smaller than a grain does not show, so no smaller scale is believed."""
        self.noise.floor_ns = max(self._floor_ns, UNIFORM * grain_ns, self.jumps.sawtooth_ns)

    def lapse(self, scale_ns: float) -> None:
        """The samples were frames of a polled line, not noise: forget what was learned of it. Should the grid be lost again, their errors
        are taken to be of ``scale_ns``."""
        self.noise = Noise(self._floor_ns)
        self.noise.start([], scale_ns)
        self.jumps.sawtooth_ns = 0.0

    # ---- a state from samples ------------------------------------------------------------------------------------------------------

    def begin(self, t: float, z: float) -> Track | None:
        """One sample while there is no state: the state, once there are enough."""
        if self._seed and t - self._seed[-1][0] < SEED_APART_S:
            return None
        self._seed.append((t, z))
        if len(self._seed) < SEED_SAMPLES or self._seed[-1][0] - self._seed[0][0] < SEED_SPAN_S:
            return None
        return self._through(list(self._seed))

    def _through(self, points: list[tuple[float, float]]) -> Track | None:
        """The state that a robust line through ``points`` makes; None when no crystal can run like that."""
        level, slope, sigma = robust_line(points)
        if abs(slope) > MAX_FREQUENCY_PPM * 1e3:
            return None
        t = points[-1][0]
        span = t - points[0][0]
        n = len(points)
        # 1. How wide is the noise? Enough points tell which of them are outliers; the noise is the middle of them.
        residuals = [z - level - slope * tt for tt, z in points]
        near = [r for r in residuals if abs(r) <= GATE * max(sigma, self.noise.floor_ns)]
        enough = n >= RUN and len(near) >= NO_OUTLIERS * n
        if enough:
            residuals = near
        range_ns = max(residuals) - min(residuals)
        # If the points fit the noise that an earlier run knew, that one is believed; else it starts from these residuals.
        usual = self.noise.known and range_ns < USUAL_RANGE * self.noise.scale_ns
        if usual:
            range_ns /= EARLY_RANGES
        else:
            self.noise.start(residuals, max(sigma * (1 + CAUTION / n), 0.0 if enough else range_ns / 2))
        # 2. Frequency: the line's slope, and what was known before unless the two contradict each other.
        scale = self.noise.scale_ns
        slope_sigma = SEED_SIGMAS * scale / (span * math.sqrt(n / 3))
        y, pyy = slope, slope_sigma**2
        if self._prior is not None and abs(self._prior[0] - slope) < SEED_SIGMAS * (self._prior[1] + slope_sigma):
            gain = pyy / (pyy + self._prior[1] ** 2)
            y += gain * (self._prior[0] - slope)
            pyy *= 1 - gain
        # 3. Phase: the line's level in the middle of the points, where the slope matters least, carried to the last one.
        middle = median([p[0] for p in points])
        x = level + slope * middle + y * (t - middle)
        pxx = (2 * scale) ** 2 / n + pyy * (t - middle) ** 2
        bank = Bank(x, y, pxx, pyy * (t - middle), pyy)
        if usual and self._learned is not None:
            bank.expect(self._learned.wander)
        track = Track(bank, t, range_ns, n)
        track.recent.extend(points)
        return track

    # ---- what LineEstimator asks for -----------------------------------------------------------------------------------------------

    def survives(self, track: Track, dt: float, stray: float) -> bool:
        """As in ``LineEstimator``. A state that does not survive leaves its frequency, known as well as ``dt`` allows."""
        phase, rate = stray * dt**1.5 / math.sqrt(3), stray * math.sqrt(dt)
        if phase < STRAYED * self.noise.scale_ns:
            track.bank.widen(phase, rate)
            return True
        self._prior = (track.bank.mixture().y, rate)
        self._seed.clear()
        return False

    def take(self, track: Track, t: float, z: float, dt: float) -> Track | None:
        """As in ``LineEstimator``."""
        bank, noise = track.bank, self.noise
        predicted = bank.mixture()
        # Outliers teach too: how long the tails are shows only with them.
        innovation = z - predicted.x
        noise.add(innovation)
        track.recent.append((t, z))
        if self._too_cautious(track, predicted.pxx) and (anew := self._through(list(track.recent))) is not None:
            return anew
        if abs(innovation) > noise.gate * math.sqrt(predicted.pxx + noise.scale_ns**2):
            return None
        bank.sample(z, noise, self.jumps.sawtooth_ns > 0)
        # A clear lag is remembered, and the phase gets better known no faster than in ASTRAY_HOLD_S, or than the state is old: weights
        # that swing back after a run of the rarer of two latencies know nothing of the phase it left behind.
        distance, sigma = bank.astray()
        if distance > ASTRAY_CLEAR * sigma:
            track.astray = (max(distance, track.lag_held(t)), t)
        slowest = track.sigma_ns * math.exp(-dt / min(ASTRAY_HOLD_S, t - track.started))
        track.sigma_ns = max(math.sqrt(bank.doubted().pxx), slowest)
        return track

    def _too_cautious(self, track: Track, pxx: float) -> bool:
        """Whether the first samples gave a wrong idea of the noise; looked at with every fifth sample."""
        if track.since > UNPROVEN or track.since % (RUN // 4) or len(track.recent) < RUN:
            return False
        _, _, sigma = robust_line(list(track.recent))
        return max(sigma, self.noise.floor_ns) * TOO_CAUTIOUS < math.sqrt(pxx)

    def replacement(self, track: Track, t: float) -> Track | None:
        """As in ``LineEstimator``: the samples that were refused, when they lie on one line."""
        points = track.outliers[-RUN:]
        level, slope, sigma = robust_line(points)
        if sigma > RUN_STRAIGHT * self.noise.scale_ns or abs(slope) > MAX_FREQUENCY_PPM * 1e3:
            del track.outliers[: RUN // 2]
            return None
        if self.jumps.forced(abs(level + slope * t - track.bank.mixture().x), t):
            self.noise.widen(self.jumps.sawtooth_ns)
        return self._through(points)

    def posterior(self, track: Track, t: float) -> Posterior:
        """As in ``LineEstimator``."""
        now = track.bank.doubted()
        distance, sigma = track.bank.astray()
        few = 1.0 if self.noise.known else 1.0 + STUDENT[0] / track.samples + STUDENT[1] / (track.samples * track.samples)
        return Posterior(
            mixture=now,
            sigma_ns=few * math.sqrt(max(now.pxx, track.sigma_ns**2) + self.noise.centre_variance),
            sigmas=_sigmas(now),
            place_ns=0.0 if self.centred else EARLY_EDGE * self.noise.scale_ns,
            lag_ns=max(ASTRAY_COVER * max(0.0, distance - ASTRAY_CHANCE * sigma), track.lag_held(t)),
        )


def _sigmas(now: Mixture) -> float:
    """Sigmas of phase that pass at most ``MISSES`` times a day. Errors farther apart than the filter's memory, sqrt(Pxx / Pyy), are
    independent, so a slow filter has few of them: 4.2 for messages, 5.2 for pulses."""
    independent = max(1.0, DAY_S / math.sqrt(now.pxx / now.pyy))
    return math.sqrt(2 * math.log(independent / MISSES))
