"""Offset and frequency of the local oscillator from noisy samples, and how wrong they may be.

Theory. On CLOCK_MONOTONIC_RAW nothing but the crystal moves: x = TAI - raw (ns), y = dx/dt (ns/s), a random walk of frequency. A sample
measures x with an error whose scale and shape are unknown, skewed and heavy-tailed. Parts, each a pure machine of its own:

* ``ppsd.noise`` learns how wide the innovations are and what of a sample to believe, so that the covariance is that of the real error;
* ``ppsd.bank``: Kalman filters with different wanders, weighed by likelihood;
* ``ppsd.frames`` recognises stamps of a polled line, which then only say in which frame the second lies;
* ``ppsd.wander`` learns from failed forecasts what holdover costs.

Guards against the filter's own mistakes:

* a scout that follows whatever the crystal does shows a mixture that lags behind: how far it is away goes into the bound;
* a state made within a burst, or from an outlier, is made anew once the samples that follow lie on a line;
* a run of ``RUN`` refused samples that lie on one straight line replaces the state (a phase jump is real); a burst, which lies on no line,
  never does; jumps that keep coming back without a grid are an unknown sawtooth: they raise the scale and stay in the bound whole;
* after a (re)start the range of the samples that it was made from stays in the bound, fading as others confirm.

The bound: see ``estimate``, and ARCHITECTURE.md. Pure; one of these for each channel of each source. Times are raw ns in, floats relative
to the first sample inside.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from ppsd.discipline.kalman import Bank, Mixture
from ppsd.discipline.noise import CAUTION, COMMON, GATE, QUANTILES, Noise
from ppsd.discipline.polled import Frames
from ppsd.discipline.wander import EVERY_S, Wander
from refclock.robust import median, robust_line
from refclock.sample import NS

SEED_SAMPLES = 5
SEED_APART_S = 0.2
"""Samples of a fast source that come sooner tell nothing new of the frequency."""
EARLY = 4.0
"""Ranges of five residuals of a line: by luck they lie within a fifth of what their noise is (seen with Laplace noise)."""
USUAL_RANGE = 6.0
"""Scales: five residuals of the noise that an earlier run knew have a range of 2.3 +- 0.9; beyond, it is not taken to be the same."""
TOO_CAUTIOUS, SETTLED = 30.0, 300
"""Within so many samples: when the last ``RUN`` of them lie on a line so much better than the state is known (a start within a burst, an
outlier of milliseconds among the first five), the state is made anew from them. Carried on, it would come near at the pace of a noise
that is over, its own error would be taken for noise, and one outlier would be believed whole."""
RUN = 20
"""Refused samples in a row on one line that make it the new truth."""
COVER = 5.3
"""Sigmas of a bound on a polled line: a day has some 10 000 independent errors, and P is an estimate itself."""
MISSES = 2e-3
"""A day: how often a bound may be passed, were P exact and its errors Gaussian."""
DAY_S = 86_400.0
COVER_RATE = 3.3
"""Sigmas of frequency and wander in its growth: a holdover is one draw, not 10 000."""
STRAYED = 10.0
"""Scales of noise by which the second may have moved in a holdover before a single sample, an outlier perhaps, is no guide any more."""
FEW = (6.0, 100.0)
"""n samples: sigma counts 1 + 6/n + 100/n^2 times, as Student's t with n - 2 degrees of freedom beside a Gaussian at 1e-6 (within 7 % from
n = 10 on; below, the range of the first samples is in the bound as well). What so few do not show, a second latency, may be there."""
ASTRAY_CLEAR, ASTRAY_HOLD_S = 3.0, 50.0
"""A distance of so many standard deviations is no chance, and when it vanishes because the mixture has gone to the scout, not the other way
round, the scout may have been the one that was wrong (a run of the rarer of two latencies): it fades over so many seconds."""
SHAPE = 1.5
"""Robust sigmas from the middle of the noise to its early edge, where the second is when the source's mean was not stated: a one-sided
exponential has 1.40, a uniform latency 1.35."""
ASTRAY_CHANCE, ASTRAY_COVER = 0.67, 3.0
"""Of the distance between mixture and scout what is beyond so many of its standard deviations goes into the bound, that many times. Chance
takes it there half of the time, which leaves the median bound alone."""
MAX_FREQUENCY = 500_000.0
"""ns/s: 500 ppm, the kernel's own limit for a crystal (adjtimex(2))."""
JUMP_HOLD_S = 300.0
"""A jump that samples forced on us stays inside the bound this long."""
JUMPS_REPEAT_S = 1000.0
"""Two jumps within this are a sawtooth: 1 ms USB frames beat with a crystal 1 ppm off in 1000 s."""
UNIFORM = 0.29
"""Standard deviation of a uniform distribution over its width: 1/sqrt(12)."""
FRAME_EDGE = 3.5
"""Jitters that a frame's edge may be passed by: once in 4000 samples."""
FRAME_JITTER_NS = 25_000.0
"""Blur of a frame's edges: transfer and driver (hw-sim: 20 us; of measured order)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The state at one instant: TAI = tai_ns + (1 + rate)(raw - mono_ns), and how its bound grows (native/record.h)."""

    mono_ns: int
    tai_ns: int
    rate: float
    bound_ns: float
    bound_rate: float
    bound_wander_ns: float
    jitter_ns: float
    skew: float
    samples: int
    phase_sigma_ns: float = 0.0


@dataclass(frozen=True, slots=True)
class Learned:
    """What a run found out of a channel and the next one starts with: ``Noise.quantiles`` (ns), wander (ns/s per sqrt(s)) and how long it
    was watched (s)."""

    noise: tuple[float, ...]
    wander: float
    watched_s: float

    def text(self) -> str:
        """As one value of the saved state (``ppsd/state.py`` has room for 256 characters)."""
        return " ".join(f"{value:.3g}" for value in (self.wander, self.watched_s, *self.noise))


def learned_from(text: object) -> Learned | None:
    """What ``Learned.text`` gave; None for anything else."""
    try:
        wander, watched_s, *noise = (float(word) for word in str(text).split())
    except ValueError:
        return None
    usable = len(noise) == QUANTILES and noise == sorted(noise) and 0.0 < wander < MAX_FREQUENCY and watched_s >= 0.0
    return Learned(tuple(noise), wander, watched_s) if usable and math.isfinite(watched_s + sum(noise)) else None


class Estimator:
    """See the module's text. ``floor_ns``: no noise scale is believed below it; ``bias_ns``: stated systematic allowance of the source;
    ``polled``: the samples may come off a polled line (``ppsd.frames``); ``centred``: the bias was stated of the **mean** of the samples,
    so the second is that near to it; else it may be anywhere in the noise."""

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
        self.centred = centred
        self.accepted = 0
        self.refused = 0
        self.restarts = 0
        self._prior = None if rate is None else (rate * 1e9, rate_sigma * 1e9)
        self._base: tuple[int, int] | None = None
        self._t = self._t_used = 0.0  # of the last sample, and of the last that was used
        self._bank: Bank | None = None
        self._floor_ns = floor_ns
        self._learned = learned
        self._noise = Noise(floor_ns, learned.noise if learned else ())
        self._frames = Frames(polled)
        self._wander = Wander((learned.wander, learned.watched_s) if learned else None)
        self._seed: deque[tuple[float, float]] = deque(maxlen=SEED_SAMPLES + 2)
        self._run: list[tuple[float, float]] = []
        self._recent: deque[tuple[float, float]] = deque(maxlen=RUN)  # that the state was made from, and since
        self._astray = (0.0, 0.0)  # the last clear distance from the scout (ns), and when (s)
        self._jump = (0.0, -math.inf)
        self._sigma = self._started = 0.0  # of the phase, shrinking no faster than it should (ns); when the state was made (s)
        self._repeating = 0.0  # scale of jumps that keep coming back, ns
        self._seed_range = 0.0
        self._fade, self._since_seed = SEED_SAMPLES, 0

    def learned(self) -> Learned | None:
        """For the next start; None while there is too little, and of a polled line, which is known by its stamps."""
        noise = self._noise.quantiles()
        if self._bank is None or not noise or self._frames.frame_ns or self._repeating:
            return None
        return Learned(tuple(noise), self._wander.expected(self._bank.wander()), self._wander.watched_s)

    def cut_to(self, grain_ns: float) -> None:
        """The stamps are whole multiples of this: nothing is learned of a noise much smaller than a grain, for it does not show."""
        self._noise.floor_ns = max(self._floor_ns, UNIFORM * grain_ns, self._repeating)

    @property
    def ready(self) -> bool:
        """A state exists."""
        return self._bank is not None

    def add(self, mono_ns: int, tai_ns: int) -> bool:
        """One sample: at raw ``mono_ns`` it was TAI ``tai_ns``. True when it was used. Samples must not go back in time (ignored)."""
        if self._base is None:
            self._base = (mono_ns, tai_ns)
        t = (mono_ns - self._base[0]) / NS
        z = float((tai_ns - self._base[1]) - (mono_ns - self._base[0]))
        bank = self._bank
        if bank is None:
            self._frames.add(mono_ns, t, z)
            return self._try_seed(t, z)
        if t <= self._t:
            return False
        news = self._frames.add(mono_ns, t, z)
        if news and self._seed_from_frames():
            self._t_used = t
            return True
        dt, self._t = t - self._t, t
        bank.predict(dt)
        if dt > EVERY_S and self._held_over(bank, dt):
            return self._try_seed(t, z)
        before = bank.mixture()
        nu = z - before.x
        if self._frames.frame_ns:
            if abs(nu) > self._frames.frame_ns / 2 + 6 * math.sqrt(before.pxx + FRAME_JITTER_NS**2):
                return self._refuse(t, z)
            bank.frame(z, self._frames.frame_ns, FRAME_JITTER_NS)
        else:
            self._noise.add(nu)
            self._recent.append((t, z))
            if self._too_cautious(before.pxx) and self._seed_from(list(self._recent)):
                return True
            if abs(nu) > self._noise.gate * math.sqrt(before.pxx + self._noise.scale_ns**2):
                return self._refuse(t, z)
            bank.sample(z, self._noise, self._repeating > 0)
        self._run.clear()
        self._t_used = t
        self.accepted += 1
        self._since_seed += 1
        now = bank.mixture()
        if not self._frames.frame_ns:
            distance, chance = bank.astray()
            if distance > ASTRAY_CLEAR * chance:
                self._astray = (max(distance, self._lag_held(t)), t)
            self._sigma = max(math.sqrt(bank.doubted().pxx), self._sigma * math.exp(-dt / min(ASTRAY_HOLD_S, t - self._started)))
        if self._wander.due(t):
            self._wander.add(t, now.x, now.y, now.pyy, bank.wander())
        return True

    def _lag_held(self, t: float) -> float:
        """What is left of the last clear distance between mixture and scout (ns)."""
        distance, since = self._astray
        return distance * max(0.0, 1.0 - (t - since) / ASTRAY_HOLD_S)

    def _held_over(self, bank: Bank, dt: float) -> bool:
        """What the bound of ``dt`` seconds allowed for may have come, and the members' wanders know nothing of it. True when one sample
        must not decide where the second is now: the state is to be made anew, its frequency being known that well."""
        stray = COVER_RATE * self._wander.expected(bank.wander())
        phase, rate = stray * dt**1.5 / math.sqrt(3), stray * math.sqrt(dt)
        if self._frames.frame_ns or phase < STRAYED * self._noise.scale_ns:
            bank.widen(phase, rate)
            return False
        self._prior, self._bank = (bank.mixture().y, rate), None
        self._seed.clear()
        return True

    def _try_seed(self, t: float, z: float) -> bool:
        if self._seed and t - self._seed[-1][0] < SEED_APART_S:
            return False
        self._seed.append((t, z))
        if len(self._seed) < SEED_SAMPLES or self._seed[-1][0] - self._seed[0][0] < 1.0:
            return False
        return self._seed_from(list(self._seed))

    def _seed_from(self, points: list[tuple[float, float]]) -> bool:
        """Start the bank from the robust line through ``points``; False when no crystal can run like that."""
        level, slope, sigma = robust_line(points)
        if abs(slope) > MAX_FREQUENCY:
            return False
        t = points[-1][0]
        span = t - points[0][0]
        n = len(points)
        residuals = [z - level - slope * tt for tt, z in points]
        near = [r for r in residuals if abs(r) <= GATE * max(sigma, self._noise.floor_ns)]
        enough = n >= RUN and len(near) >= COMMON * n  # then the middle of them says how wide they are, and which are outliers
        if enough:
            residuals = near
        self._seed_range = max(residuals) - min(residuals)
        usual = self._noise.known and self._seed_range < USUAL_RANGE * self._noise.scale_ns
        if usual:
            self._seed_range /= EARLY
        else:
            self._noise.start(residuals, max(sigma * (1 + CAUTION / n), 0.0 if enough else self._seed_range / 2))
        scale = self._noise.scale_ns
        self._fade, self._since_seed = SEED_SAMPLES, 0
        slope_sigma = 4 * scale / (span * math.sqrt(n / 3))
        y, pyy = slope, slope_sigma**2
        if self._prior is not None and abs(self._prior[0] - slope) < 4 * (self._prior[1] + slope_sigma):
            gain = pyy / (pyy + self._prior[1] ** 2)
            y += gain * (self._prior[0] - slope)
            pyy *= 1 - gain
        middle = median([p[0] for p in points])
        x = level + slope * middle + y * (t - middle)
        pxx = (2 * scale) ** 2 / n + pyy * (t - middle) ** 2
        bank = Bank(x, y, pxx, pyy * (t - middle), pyy)
        if usual and self._learned is not None:
            bank.expect(self._learned.wander)
        self._start(bank, t)
        self._recent.extend(points)
        self.accepted += n
        return True

    def _too_cautious(self, pxx: float) -> bool:
        """The first samples gave a wrong idea of the noise."""
        if self._since_seed > SETTLED or self._since_seed % (RUN // 4) or len(self._recent) < RUN:
            return False
        _, _, sigma = robust_line(list(self._recent))
        return max(sigma, self._noise.floor_ns) * TOO_CAUTIOUS < math.sqrt(pxx)

    def _seed_from_frames(self) -> bool:
        """The samples so far turn out to be frames of a polled line: start from what they leave possible."""
        left = self._frames.feasible(FRAME_EDGE * FRAME_JITTER_NS)
        t = self._frames.history[-1][0]
        if left is None:  # some samples are late on top: as wide as it gets
            self._t = t
            return False
        x, half, y, half_rate = left
        frame = float(self._frames.frame_ns)
        self._seed_range, self._fade, self._since_seed = half, SEED_SAMPLES, 0
        self._repeating = 0.0
        self._noise = Noise(self._floor_ns)
        self._noise.start([], UNIFORM * frame)
        self._start(Bank(x, y, (half**2) / 3, 0.0, (half_rate**2) / 3), t)
        self.accepted += 1
        return True

    def _start(self, bank: Bank, t: float) -> None:
        self._bank, self._t, self._t_used = bank, t, t
        self._run.clear()
        self._recent.clear()
        self._astray = (0.0, t)
        self._sigma, self._started = 0.0, t
        self._wander.restart()

    def _refuse(self, t: float, z: float) -> bool:
        self.refused += 1
        self._run.append((t, z))
        if len(self._run) < RUN:
            return False
        if self._frames.frame_ns:
            self.restarts += 1
            self._frames.forget(RUN)
            return self._seed_from_frames()
        points = self._run[-RUN:]
        level, slope, sigma = robust_line(points)
        if sigma > 3 * self._noise.scale_ns or abs(slope) > MAX_FREQUENCY:
            del self._run[: RUN // 2]
            return False
        assert self._bank is not None
        self.restarts += 1
        size = abs(level + slope * t - self._bank.mixture().x)
        if t - self._jump[1] < JUMPS_REPEAT_S:
            self._repeating = max(self._repeating, UNIFORM * min(size, self._jump[0]))
            self._noise.widen(self._repeating)
        self._jump = (size, t)
        return self._seed_from(points)

    def estimate(self, mono_ns: int) -> Estimate:
        """The state carried to raw ``mono_ns`` (not before the last sample). Needs ``ready``.

        Bound at the last sample = bias + place + early + jump + lag + doubt + cover sqrt(Pxx). ``place``: where in the noise the second is:
        at its mean, where the estimate is, when the bias was stated of the mean; else up to the early edge.
        """
        assert self._base is not None
        assert self._bank is not None
        now = self._bank.mixture() if self._frames.frame_ns else self._bank.doubted()
        noise = self._noise
        t = (mono_ns - self._base[0]) / NS
        dt = max(0.0, t - self._t)
        doubt, doubt_rate = self._frames.doubt(self._base[0] + round(self._t * NS))
        doubt += doubt_rate * (self._t - self._t_used)
        jump = self._jump[0] if t - self._jump[1] < JUMP_HOLD_S else 0.0
        early = EARLY * self._seed_range * (self._fade / (self._fade + self._since_seed)) ** 2
        place = 0.0 if self.centred or self._frames.frame_ns else SHAPE * noise.scale_ns
        place += self._repeating / UNIFORM
        distance, chance = (0.0, 0.0) if self._frames.frame_ns else self._bank.astray()
        lag = max(ASTRAY_COVER * max(0.0, distance - ASTRAY_CHANCE * chance), self._lag_held(t))
        sigma = math.sqrt(now.pxx)
        if not self._frames.frame_ns:
            n = self._fade + self._since_seed
            few = 1.0 if noise.known else 1.0 + FEW[0] / n + FEW[1] / (n * n)
            sigma = few * math.sqrt(max(now.pxx, self._sigma**2) + noise.centre_variance)
        bound = self.bias_ns + jump + early + place + lag + doubt + self._cover(now) * sigma
        rate_bound = COVER_RATE * math.sqrt(now.pyy) + doubt_rate
        wander = COVER_RATE * self._wander.expected(self._bank.wander()) / math.sqrt(3)
        return Estimate(
            mono_ns=mono_ns,
            tai_ns=self._base[1] + (mono_ns - self._base[0]) + round(now.x + now.y * dt),
            rate=now.y / NS,
            bound_ns=bound + rate_bound * dt + wander * dt**1.5,
            bound_rate=rate_bound / NS,
            bound_wander_ns=wander,
            jitter_ns=noise.scale_ns,
            skew=math.sqrt(now.pyy) / NS,
            samples=self.accepted,
            phase_sigma_ns=sigma,
        )

    def _cover(self, now: Mixture) -> float:
        """Sigmas of phase that the bound allows for: errors farther apart than the filter's memory, sqrt(Pxx / Pyy), are independent, so a
        slow filter has few of them a day: 4.2 for messages, 5.2 for pulses."""
        if self._frames.frame_ns:
            return COVER
        independent = max(1.0, DAY_S / math.sqrt(now.pxx / now.pyy))
        return math.sqrt(2 * math.log(independent / MISSES))

    def shift(self, delta_ns: int) -> None:
        """The TAI scale itself was redefined by ``delta_ns`` (a corrected leap second table)."""
        if self._base is not None:
            self._base = (self._base[0], self._base[1] + delta_ns)
