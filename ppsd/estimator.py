"""Offset and frequency of the local oscillator from noisy samples, and how wrong they may be.

Theory. On CLOCK_MONOTONIC_RAW nothing but the crystal moves: with x = TAI - raw (ns) and y = dx/dt (ns/s),

    x' = y,   y' = white noise of strength w^2        (random-walk frequency: ADEV = w sqrt(tau/3))

and a sample measures x with an error whose scale and shape are unknown, skewed and heavy-tailed. A bank of Kalman filters, one for each
of a few values of the wander w, runs on the same samples; forgotten likelihoods weigh them, so a quiet crystal gets a long memory and a
crystal in a draught a short one. Each sample enters with a Huber weight against the scale that the recent innovations show (median
absolute deviation), and beyond ``GATE`` of it not at all. Guards against the filter's own mistakes:

* a lagging mean of clipped innovations widens the covariance (a frequency step is followed);
* a run of ``RUN`` refused samples that lie on one straight line replaces the state (a phase jump is real); a burst, which lies on no
  line, never does; jumps that keep coming back are the sawtooth of a polled line: they raise the scale, stay in the bound whole, and
  only the calmest members of the bank are asked, because a sawtooth imitates wander;
* a bank member that has become hopeless is restarted from the mixture;
* after a (re)start the range of the samples that it was made from stays in the bound, fading as others confirm.

The bound adds what the covariance cannot know: the estimator settles somewhere inside the noise (its median, roughly), the true second
may be anywhere inside: ``SHAPE`` robust sigmas cover a one-sided exponential (1.40) and a uniform latency (1.35).

Pure; one of these for each channel of each source. Times are raw ns in, floats relative to the first sample inside.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from refclock.filter import MAD_TO_SIGMA, median, robust_line
from refclock.sample import NS

WANDERS = (0.1, 1.0, 6.0, 40.0)
"""Bank of w, ns/s per sqrt(s): TCXO, quiet crystal, crystal in a room, crystal in a draught (1e-10 .. 1e-8 cover a Pi; one beyond)."""
SEED_SAMPLES = 5
SEED_APART_S = 0.2
"""Samples of a fast source that come sooner tell nothing new of the frequency."""
HUBER = 1.5
GATE = 8.0
"""Robust sigmas: beyond, a sample is an outlier whatever the shape."""
RUN = 20
"""Refused samples in a row on one line that make it the new truth."""
MEMORY = 64
"""Innovations from which the scale is taken."""
COVER = 4.0
"""Sigmas of the covariance that go into the bound."""
SHAPE = 1.5
DRIFT_ALPHA, DRIFT_TRIP = 0.1, 1.1
"""Lagging mean of innovations clipped at 1.5 sigma, and where it says that the model has left the data."""
FORGET = 0.99
MAX_FREQUENCY = 500_000.0
"""ns/s: 500 ppm, the kernel's own limit for a crystal (adjtimex(2))."""
ASSUMED_WANDER = 10.0
"""ns/s per sqrt(s): wander below this is never assumed for the future, whatever the past was like: room temperature changes."""
JUMP_HOLD_S = 300.0
"""A jump that samples forced on us stays inside the bound this long."""
JUMPS_REPEAT_S = 1000.0
"""Two jumps within this are a sawtooth: 1 ms USB frames beat with a crystal 1 ppm off in 1000 s."""
UNIFORM = 0.29
"""Standard deviation of a uniform distribution over its width: 1/sqrt(12)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The state at one instant: TAI = tai_ns + (1 + rate)(raw - mono_ns), and how its bound grows (native/timescale.h)."""

    mono_ns: int
    tai_ns: int
    rate: float
    bound_ns: float
    bound_rate: float
    bound_wander_ns: float
    jitter_ns: float
    skew: float
    samples: int


@dataclass(slots=True)
class _Filter:
    """One Kalman filter of the bank: x, y and their covariance; ``q`` = w^2."""

    q: float
    x: float
    y: float
    pxx: float
    pxy: float
    pyy: float
    log_weight: float = 0.0

    def predict(self, dt: float) -> None:
        self.x += self.y * dt
        self.pxx += dt * (2 * self.pxy + dt * (self.pyy + self.q * dt / 3))
        self.pxy += dt * (self.pyy + self.q * dt / 2)
        self.pyy += self.q * dt

    def update(self, z: float, r: float) -> None:
        s = self.pxx + r
        nu = z - self.x
        kx, ky = self.pxx / s, self.pxy / s
        self.x += kx * nu
        self.y += ky * nu
        self.pyy -= ky * self.pxy
        self.pxy -= kx * self.pxy
        self.pxx -= kx * self.pxx


class Estimator:
    """See the module's text. ``floor_ns``: no noise scale is believed below it; ``bias_ns``: stated systematic allowance of the source."""

    def __init__(self, floor_ns: float, bias_ns: float, rate: float | None = None, rate_sigma: float = 1e-4) -> None:
        self.floor_ns = floor_ns
        self.bias_ns = bias_ns
        self.accepted = 0
        self.refused = 0
        self.restarts = 0
        self._prior = None if rate is None else (rate * 1e9, rate_sigma * 1e9)
        self._base: tuple[int, int] | None = None
        self._t = 0.0
        self._bank: list[_Filter] = []
        self._seed: deque[tuple[float, float]] = deque(maxlen=SEED_SAMPLES + 2)
        self._innovations: deque[float] = deque(maxlen=MEMORY)
        self._run: list[tuple[float, float]] = []
        self._scale = floor_ns
        self._drift = 0.0
        self._jump = (0.0, -math.inf)
        self._repeating = 0.0  # scale of jumps that keep coming back, ns
        self._seed_range = 0.0
        self._since_seed = 0

    @property
    def ready(self) -> bool:
        """A state exists."""
        return bool(self._bank)

    def add(self, mono_ns: int, tai_ns: int) -> bool:
        """One sample: at raw ``mono_ns`` it was TAI ``tai_ns``. True when it was used. Samples must not go back in time (ignored)."""
        if self._base is None:
            self._base = (mono_ns, tai_ns)
        t = (mono_ns - self._base[0]) / NS
        z = float((tai_ns - self._base[1]) - (mono_ns - self._base[0]))
        if not self._bank:
            return self._try_seed(t, z)
        if t <= self._t:
            return False
        dt, self._t = t - self._t, t
        for f in self._bank:
            f.predict(dt)
        x, _, pxx, _ = self._mixture()
        nu = z - x
        self._innovations.append(nu)
        if self.accepted % 4 == 0 or len(self._innovations) < 16:
            self._rescale()
        sigma = math.sqrt(pxx + self._scale * self._scale)
        size = abs(nu) / sigma
        if size > GATE:
            return self._refuse(t, z)
        self._run.clear()
        self.accepted += 1
        self._since_seed += 1
        self._weigh(z, size)
        r = self._scale * self._scale * max(1.0, size / HUBER)
        for f in self._bank:
            f.update(z, r)
        self._watch(nu)
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
        self._scale = max(self.floor_ns, self._repeating, sigma * (1 + 4 / n))
        residuals = [z - level - slope * tt for tt, z in points]
        self._seed_range = max(residuals) - min(residuals)
        self._since_seed = 0
        slope_sigma = 4 * self._scale / (span * math.sqrt(n / 3))
        y, pyy = slope, slope_sigma**2
        if self._prior is not None and abs(self._prior[0] - slope) < 4 * (self._prior[1] + slope_sigma):
            gain = pyy / (pyy + self._prior[1] ** 2)
            y += gain * (self._prior[0] - slope)
            pyy *= 1 - gain
        middle = median([p[0] for p in points])
        x = level + slope * middle + y * (t - middle)
        pxx = (2 * self._scale) ** 2 / n + pyy * (t - middle) ** 2
        self._bank = [_Filter(w * w, x, y, pxx, pyy * (t - middle), pyy) for w in WANDERS]
        self._t = t
        self._innovations.clear()
        self._innovations.extend(residuals)
        self._drift = 0.0
        self.accepted += n
        return True

    def _mixture(self) -> tuple[float, float, float, float]:
        """(x, y, Pxx, Pyy) of the weighted bank, spread between its members included."""
        top = max(f.log_weight for f in self._bank)
        total = x = y = 0.0
        weights = []
        for f in self._bank:
            w = math.exp(f.log_weight - top)
            weights.append(w)
            total += w
            x += w * f.x
            y += w * f.y
        x /= total
        y /= total
        pxx = pyy = 0.0
        for w, f in zip(weights, self._bank, strict=True):
            pxx += w * (f.pxx + (f.x - x) ** 2)
            pyy += w * (f.pyy + (f.y - y) ** 2)
        return x, y, pxx / total, pyy / total

    def _rescale(self) -> None:
        """Noise scale from the recent innovations, cautious while they are few."""
        n = len(self._innovations)
        if n >= SEED_SAMPLES:
            ordered = sorted(self._innovations)
            middle = ordered[n // 2]
            deviation = sorted([abs(v - middle) for v in ordered])[n // 2]
            self._scale = max(self.floor_ns, self._repeating, MAD_TO_SIGMA * deviation * (1 + 4 / n))

    def _weigh(self, z: float, size: float) -> None:
        """Let the members' likelihoods of this sample (clipped: an outlier judges nobody) move their weights."""
        r = self._scale * self._scale
        clip = max(1.0, size / HUBER)
        best = -math.inf
        for f in self._bank:
            s = f.pxx + r
            f.log_weight = FORGET * f.log_weight - 0.5 * (min((z - f.x) ** 2 / s, 25.0) / clip + math.log(s))
            if self._repeating and f.q > 1.0:
                f.log_weight = -math.inf
            best = max(best, f.log_weight)
        mixed: tuple[float, float, float, float] | None = None
        for f in self._bank:
            f.log_weight -= best
            if f.log_weight < -12.0:
                mixed = mixed or self._mixture()
                f.x, f.y = mixed[0], mixed[1]
                f.pxx, f.pyy = mixed[2], mixed[3]
                f.pxy = 0.0
                f.log_weight = -10.0

    def _watch(self, nu: float) -> None:
        """Notice that the state lags behind the data, and open the covariance."""
        if self._repeating:
            return
        unit = max(-1.5, min(1.5, nu / self._scale))
        self._drift += DRIFT_ALPHA * (unit - self._drift)
        if abs(self._drift) > DRIFT_TRIP:
            for f in self._bank:
                f.pxx += (3 * self._scale) ** 2
                f.pyy += (0.3 * self._scale) ** 2
            self._drift = 0.0

    def _refuse(self, t: float, z: float) -> bool:
        self.refused += 1
        self._run.append((t, z))
        if len(self._run) < RUN:
            return False
        points = self._run[-RUN:]
        level, slope, sigma = robust_line(points)
        if sigma > 3 * self._scale or abs(slope) > MAX_FREQUENCY:
            del self._run[: RUN // 2]
            return False
        x, *_ = self._mixture()
        self._run.clear()
        self.restarts += 1
        size = abs(level + slope * t - x)
        if t - self._jump[1] < JUMPS_REPEAT_S:
            self._repeating = max(self._repeating, UNIFORM * min(size, self._jump[0]))
        self._jump = (size, t)
        return self._seed_from(points)

    def estimate(self, mono_ns: int) -> Estimate:
        """The state carried to raw ``mono_ns`` (not before the last sample). Needs ``ready``."""
        assert self._base is not None
        x, y, pxx, pyy = self._mixture()
        t = (mono_ns - self._base[0]) / NS
        dt = max(0.0, t - self._t)
        jump = self._jump[0] if t - self._jump[1] < JUMP_HOLD_S else 0.0
        early = self._seed_range * SEED_SAMPLES / (SEED_SAMPLES + self._since_seed)
        shape = SHAPE * self._scale * (1 + abs(self._drift)) + self._repeating / UNIFORM
        bound = self.bias_ns + jump + early + shape + COVER * math.sqrt(pxx)
        rate_bound = COVER * math.sqrt(pyy)
        wander = COVER * ASSUMED_WANDER / math.sqrt(3)
        x += y * dt
        return Estimate(
            mono_ns=mono_ns,
            tai_ns=self._base[1] + (mono_ns - self._base[0]) + round(x),
            rate=y / NS,
            bound_ns=bound + rate_bound * dt + wander * dt**1.5,
            bound_rate=rate_bound / NS,
            bound_wander_ns=wander,
            jitter_ns=self._scale,
            skew=math.sqrt(pyy) / NS,
            samples=self.accepted,
        )

    def shift(self, delta_ns: int) -> None:
        """The TAI scale itself was redefined by ``delta_ns`` (a corrected leap second table)."""
        if self._base is not None:
            self._base = (self._base[0], self._base[1] + delta_ns)
