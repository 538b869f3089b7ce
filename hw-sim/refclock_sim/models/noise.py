"""Shapes of noise for the noise scenarios: independent draws, latencies that switch or remember, a crystal's flicker.

Unit and sign as in ``pulse``: ns, positive = late. Everything is a function of its seed. A mean that a user would state as ``bias_us`` is
removed, so that the bound has only the shape to cover.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from refclock_sim.models.oscillator import Term
from refclock_sim.models.pulse import PulseError

Draw = Callable[[Random], float]
"""One error in ns, positive = late."""


class Drawn(PulseError):
    """Independent errors, each from ``draw``."""

    def __init__(self, seed: int, draw: Draw) -> None:
        self._random = Random(f"drawn {seed}")
        self._draw = draw

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """One draw."""
        return self._draw(self._random)


def drawn(draw: Draw) -> Callable[[int], PulseError]:
    """A maker of ``Drawn``: from a seed to independent errors."""
    return lambda seed: Drawn(seed, draw)


def gaussian(sigma_ns: float) -> Callable[[int], PulseError]:
    """N(0, sigma)."""
    return drawn(lambda r: r.gauss(0.0, sigma_ns))


def laplace(scale_ns: float) -> Draw:
    """Double exponential."""
    return lambda r: r.expovariate(1 / scale_ns) - r.expovariate(1 / scale_ns)


def lognormal(random: Random) -> float:
    """One-sided with a long tail: median 5 us, mean 5.66 us, mean removed."""
    return 5e3 * (random.lognormvariate(0.0, 0.5) - math.exp(0.125))


def bimodal(random: Random) -> float:
    """Two code paths 10 us apart: 70 % and 30 %, mean removed."""
    return random.gauss(-3e3 if random.random() < 0.7 else 7e3, 500.0)


def student2(scale_ns: float) -> Draw:
    """Student's t with two degrees of freedom, whose variance is infinite: N(0, 1) / sqrt(Exp(1))."""
    return lambda r: scale_ns * r.gauss(0.0, 1.0) / math.sqrt(r.expovariate(1.0))


def one_sided(mean_ns: float) -> Draw:
    """Exponential latency of a thread that is woken to stamp, mean removed."""
    return lambda r: r.expovariate(1 / mean_ns) - mean_ns


class Switching(PulseError):
    """Two latencies, ``apart_ns`` apart, that take turns every ``period_s``; the mean of both is 0."""

    def __init__(self, seed: int, apart_ns: float, period_s: int, sigma_ns: float) -> None:
        self._random = Random(f"switching {seed}")
        self._half, self._period, self._sigma = apart_ns / 2, period_s, sigma_ns
        self._first = self._random.randrange(period_s)

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """The present latency and one draw of N(0, sigma)."""
        side = 1 if (true_s + self._first) // self._period % 2 else -1
        return side * self._half + self._random.gauss(0.0, self._sigma)


class Quantised(PulseError):
    """A latency N(0, sigma), then the stamp is cut to whole steps of the host's clock. The mean, half a step early, is removed."""

    def __init__(self, seed: int, step_ns: int, sigma_ns: float) -> None:
        self._random = Random(f"quantised {seed}")
        self._step, self._sigma = step_ns, sigma_ns

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """The error of the cut stamp."""
        latency = round(self._random.gauss(0.0, self._sigma))
        return latency - (raw_ns + latency) % self._step + self._step / 2


class Busy(PulseError):
    """Hours of load: ``latency`` is twice as long from ``start_s`` to ``end_s``."""

    def __init__(self, latency: PulseError, start_s: int, end_s: int) -> None:
        self._latency, self._start, self._end = latency, start_s, end_s

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """The latency, or twice the latency."""
        return self._latency.late_ns(true_s, raw_ns) * (2.0 if self._start <= true_s < self._end else 1.0)


class Correlated(PulseError):
    """A correlated latency: AR(1) of standard deviation ``sigma_ns`` and time constant ``memory_s``."""

    def __init__(self, seed: int, sigma_ns: float, memory_s: float) -> None:
        self._gauss = Random(f"correlated {seed}").gauss
        self._keep = math.exp(-1 / memory_s)
        self._fresh = sigma_ns * math.sqrt(1 - self._keep**2)
        self._value = self._gauss(0.0, sigma_ns)

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """The next value."""
        self._value = self._keep * self._value + self._gauss(0.0, self._fresh)
        return self._value


def flicker(level: float) -> Callable[[int], Term]:
    """Flicker FM of about ``level`` Allan deviation from 10 s to a day: equal relaxations, their time constants a factor 3 apart.

    The spectrum of one relaxation of time constant T turns from flat to 1/f^2 at 1/T; the sum over logarithmic steps of T is 1/f. Call the
    term once a second, in order.
    """
    times = [3.0 * 3.0**i for i in range(10)]

    def made(seed: int) -> Term:
        gauss = Random(f"flicker {seed}").gauss
        values = [gauss(0.0, level) for _ in times]

        def term(t_s: float) -> float:
            for i, time in enumerate(times):
                keep = math.exp(-1 / time)
                values[i] = keep * values[i] + gauss(0.0, level * math.sqrt(1 - keep * keep))
            return sum(values)

        return term

    return made
