"""Estimates phase and frequency from samples with continuous noise of any shape, skew and tails.

Theory. A sample is a measurement of x with an error of unknown scale and shape. ``noise`` learns the distribution of the innovations and
limits each one accordingly. The bank of ``kalman`` takes the limited innovations, so its covariance matches the real error.

Guards against the filter's own mistakes:

* The first state is a robust line through five samples. The range of their residuals is in the bound and fades as later samples confirm it.
* A state made within a burst, or from an outlier, is made anew once the samples that follow lie on a line.
* ``RUN`` consecutive refused samples on one straight line replace the state: the phase has jumped. A burst lies on no line.
* Repeated jumps are an unknown sawtooth. They raise the noise scale, and their whole size stays in the bound.
* The scout (see ``kalman``) shows when the mixture lags. The distance between them goes into the bound.

Pure. Times are seconds since the estimator's first sample, phases ns. Constants without a derivation: as in ``kalman``.
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
"""s between two samples of the first state, and from the first to the last, at least: closer samples do not determine the frequency."""
SEED_SIGMAS = 4.0
"""Factor on the first frequency's standard deviation, because the noise scale of five samples is uncertain. Also sigmas within which an
earlier frequency is consistent with it."""
USUAL_RANGE = 6.0
"""Noise scales; when the range of the first residuals exceeds this, the noise is not the one that an earlier run learned. Five residuals of
the same noise have a range of 2.3 +- 0.9 scales."""
TOO_CAUTIOUS, UNPROVEN = 30.0, 300
"""Factor, and samples. Until ``UNPROVEN`` samples were used, the last ``RUN`` replace the state when they scatter about a line by less than
its sigma / ``TOO_CAUTIOUS``. This repairs a start within a burst, or with an outlier of milliseconds among the five samples. Otherwise the
filter would converge slowly, learn its own error as noise, and accept a later outlier in full."""
STRAYED = 10.0
"""Noise scales; when the phase may have strayed farther in a holdover, a new state is made, because a single sample may be an outlier."""
ASTRAY_CLEAR = 3.0
"""Sigmas; a larger distance between mixture and scout is significant. It then fades out of the bound over ``ASTRAY_HOLD_S``."""
ASTRAY_CHANCE, ASTRAY_COVER = 0.67, 3.0
"""Sigmas, and a factor. The excess of the distance between mixture and scout over ``ASTRAY_CHANCE`` sigmas goes into the bound, times
``ASTRAY_COVER``. By chance there is an excess half of the time, so the median bound is unchanged."""
EARLY_EDGE = 1.5
"""Robust sigmas from the middle of the noise to its early edge. The second lies there when the stated bias is not that of the mean. A
one-sided exponential latency has 1.40, a uniform one 1.35."""
MISSES = 2e-3
"""Times a day that the error may exceed the bound, if P is exact and errors are Gaussian."""
DAY_S = 86_400.0
STUDENT = (6.0, 100.0)
"""Terms of the factor on sigma after n samples, 1 + 6/n + 100/n^2: Student's t with n - 2 degrees of freedom over a Gaussian at 1e-6
(within 7 % from n = 10 on; below, the range of the first samples is in the bound as well). Few samples may not show a second latency."""
JUMP_HOLD_S = 300.0
"""s for which a jump of phase stays in the bound."""
JUMPS_REPEAT_S = 1000.0
"""s; two jumps within this time are a sawtooth: a crystal 1 ppm off drifts through a USB frame of 1 ms in 1000 s."""
RUN_STRAIGHT = 3.0
"""Noise scales; a run of refused samples that scatters more about its line is a burst."""


class Jumps:
    """Jumps of phase after which the state was replaced. ``sawtooth_ns``: standard deviation of repeated jumps, 0 while there are none."""

    def __init__(self) -> None:
        self.sawtooth_ns = 0.0
        self._size_ns, self._t = 0.0, -math.inf

    def forced(self, size_ns: float, t: float) -> bool:
        """A jump at ``t``. True when it repeats an earlier one within ``JUMPS_REPEAT_S``."""
        again = t - self._t < JUMPS_REPEAT_S
        if again:
            self.sawtooth_ns = max(self.sawtooth_ns, UNIFORM * min(size_ns, self._size_ns))
        self._size_ns, self._t = size_ns, t
        return again

    def held(self, t: float) -> float:
        """ns; the part of the last jump that is in the bound at ``t``."""
        return self._size_ns if t - self._t < JUMP_HOLD_S else 0.0


class ContinuousEstimator:
    """See the module. ``floor_ns``: smallest noise scale. ``centred``: the source's stated bias is that of the mean of the samples.
    ``prior``: frequency and its standard deviation from an earlier run (ns/s)."""

    def __init__(self, floor_ns: float, centred: bool, prior: tuple[float, float] | None, learned: Learned | None) -> None:
        self.centred = centred
        self.noise = Noise(floor_ns, learned.noise if learned else ())
        self.jumps = Jumps()
        self._floor_ns = floor_ns
        self._prior = prior
        self._learned = learned
        self._seed: deque[tuple[float, float]] = deque(maxlen=SEED_SAMPLES + 2)

    def twin(self) -> Self:
        """An independent copy."""
        twin = copy(self)
        twin.noise, twin.jumps, twin._seed = self.noise.twin(), copy(self.jumps), self._seed.copy()
        return twin

    def cut_to(self, grain_ns: float) -> None:
        """The stamps are whole multiples of ``grain_ns``. They hide smaller noise, so the scale does not go below a grain's."""
        self.noise.floor_ns = max(self._floor_ns, UNIFORM * grain_ns, self.jumps.sawtooth_ns)

    def lapse(self, scale_ns: float) -> None:
        """Forget the learned noise, because the samples came from a polled line. When the grid is lost again, the noise starts with
        ``scale_ns``."""
        self.noise = Noise(self._floor_ns)
        self.noise.start([], scale_ns)
        self.jumps.sawtooth_ns = 0.0

    # ---- a state from samples ------------------------------------------------------------------------------------------------------

    def begin_anew(self) -> None:
        """Forget the samples of the last first state."""
        self._seed.clear()

    def begin(self, t: float, z: float) -> Track | None:
        """A sample while there is no state. Returns the state once there are enough samples."""
        if self._seed and t - self._seed[-1][0] < SEED_APART_S:
            return None
        self._seed.append((t, z))
        if len(self._seed) < SEED_SAMPLES or self._seed[-1][0] - self._seed[0][0] < SEED_SPAN_S:
            return None
        return self._through(list(self._seed))

    def _through(self, points: list[tuple[float, float]]) -> Track | None:
        """The state from a robust line through ``points``; None when its slope is beyond any crystal's frequency error."""
        level, slope, sigma = robust_line(points)
        if abs(slope) > MAX_FREQUENCY_PPM * 1e3:
            return None
        t = points[-1][0]
        span = t - points[0][0]
        n = len(points)
        # 1. Scale of the noise. With enough points, outliers are recognised and left out.
        residuals = [z - level - slope * tt for tt, z in points]
        near = [r for r in residuals if abs(r) <= GATE * max(sigma, self.noise.floor_ns)]
        enough = n >= RUN and len(near) >= NO_OUTLIERS * n
        if enough:
            residuals = near
        range_ns = max(residuals) - min(residuals)
        # If the points fit the noise that an earlier run learned, it is kept; else the noise starts from these residuals.
        usual = self.noise.known and range_ns < USUAL_RANGE * self.noise.scale_ns
        if usual:
            range_ns /= EARLY_RANGES
        else:
            self.noise.start(residuals, max(sigma * (1 + CAUTION / n), 0.0 if enough else range_ns / 2))
        # 2. Frequency: the line's slope, combined with the prior unless the two contradict each other.
        scale = self.noise.scale_ns
        slope_sigma = SEED_SIGMAS * scale / (span * math.sqrt(n / 3))
        y, pyy = slope, slope_sigma**2
        if self._prior is not None and abs(self._prior[0] - slope) < SEED_SIGMAS * (self._prior[1] + slope_sigma):
            gain = pyy / (pyy + self._prior[1] ** 2)
            y += gain * (self._prior[0] - slope)
            pyy = gain * self._prior[1] ** 2  # (1 - gain) pyy, without the difference that rounding takes to 0
        # 3. Phase: the line's level in the middle of the points, where the slope matters least, extrapolated to the last one.
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
        """As in ``LineEstimator``. The frequency of a state that does not survive becomes the prior of the next one."""
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
        # The noise learns from outliers too: only they show its tails.
        innovation = z - predicted.x
        noise.add(innovation)
        track.recent.append((t, z))
        if self._too_cautious(track, predicted.pxx) and (anew := self._through(list(track.recent))) is not None:
            return anew
        if abs(innovation) > noise.gate * math.sqrt(predicted.pxx + noise.scale_ns**2):
            return None
        bank.sample(z, noise, self.jumps.sawtooth_ns > 0)
        # A clear lag is remembered. Sigma shrinks no faster than over ASTRAY_HOLD_S, or over the age of the state if shorter: after a run
        # of the rarer of two latencies the weights recover at once, but the phase error that the run left does not.
        distance, sigma = bank.astray()
        if distance > ASTRAY_CLEAR * sigma:
            track.astray = (max(distance, track.lag_held(t)), t)
        slowest = track.sigma_ns * math.exp(-dt / min(ASTRAY_HOLD_S, t - track.started))
        track.sigma_ns = max(math.sqrt(bank.doubted().pxx), slowest)
        return track

    def _too_cautious(self, track: Track, pxx: float) -> bool:
        """Whether the first samples made the state far too uncertain; tested with every fifth sample."""
        if track.since > UNPROVEN or track.since % (RUN // 4) or len(track.recent) < RUN:
            return False
        _, _, sigma = robust_line(list(track.recent))
        return max(sigma, self.noise.floor_ns) * TOO_CAUTIOUS < math.sqrt(pxx)

    def replacement(self, track: Track, t: float) -> Track | None:
        """As in ``LineEstimator``: a line through the refused samples when they lie on one."""
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
    """Sigmas of phase that errors exceed at most ``MISSES`` times a day. Errors farther apart than the filter's memory, sqrt(Pxx / Pyy),
    are independent, so a slow filter has fewer of them: 4.2 sigmas for messages, 5.2 for pulses."""
    independent = max(1.0, DAY_S / math.sqrt(now.pxx / now.pyy))
    return math.sqrt(2 * math.log(independent / MISSES))
