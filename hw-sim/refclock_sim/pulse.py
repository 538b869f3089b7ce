"""Pulses: how late the kernel stamps each one, ns. A phase error; positive = late. Seeded.

The Raspberry Pi's latency is 4 us and the mixture N(0, 0.5 us) + Exp(1 us) + [2 %] Exp(20 us): a real latency has a mean, and a server
that does not know it must cover it with its bound.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Model = Callable[[Random, float], float]
"""(random, host raw time of the true second in s) -> ns late."""


def _clean(random: Random, _: float) -> float:
    return random.gauss(200.0, 200.0)


def _pi(random: Random, _: float) -> float:
    late = 4_000.0 + random.gauss(0.0, 500.0) + random.expovariate(1e-3)
    return late + random.expovariate(1 / 20_000) if random.random() < 0.02 else late


def _micro(random: Random, _: float) -> float:
    return random.gauss(0.0, 1000.0)


def _usb(random: Random, _: float) -> float:
    return random.random() * 1e6 + abs(random.gauss(0.0, 20_000.0))


def _usb_beat(random: Random, raw_s: float) -> float:
    """Full-speed USB polls each millisecond of the host's own crystal: late by the time to its next frame."""
    jitter = random.gauss(0.0, 20e-6)
    return (1e-3 - (raw_s + jitter + 0.37e-3) % 1e-3) * 1e9


MODELS: dict[str, Model] = {"clean": _clean, "pi": _pi, "micro": _micro, "usb": _usb, "usb-beat": _usb_beat}


class Pulse:
    """One of MODELS, with late outliers (``outliers``: share of pulses late by 1..20 ms, log-uniform) and load bursts.

    ``burst_s`` of every ``burst_every_s``, from the start on, 80 % of the pulses are late by 0.5..4 ms.
    """

    def __init__(self, model: str, seed: int, outliers: float = 0.0, burst_every_s: float = 0.0, burst_s: float = 20.0) -> None:
        self._model = MODELS[model]
        self._random = Random(seed)
        self._outliers = outliers
        self._burst = (burst_every_s, burst_s)

    def error_ns(self, t: float, raw_s: float = 0.0) -> float:
        """How late the pulse ``t`` s after the start is stamped; ``raw_s``: what the host's oscillator counts at that second."""
        random = self._random
        late = self._model(random, raw_s)
        if self._outliers and random.random() < self._outliers:
            late += 1e6 * 20 ** random.random()
        every, span = self._burst
        if every and t % every < span and random.random() < 0.8:
            late += 0.5e6 * 8 ** random.random()
        return late
