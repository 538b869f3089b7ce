"""Pulses: the phase error between the true second and the kernel's stamp of its edge.

Unit and sign: ns as float, positive = stamped late. The stamp is the local clock's reading at (true second + error). A model is asked once
per pulse, in order of time; models are added with ``+``. The receiver causes part of the error (Sawtooth; Offset: antenna cable), the host
the rest (interrupt latency, USB frames, load). A seed repeats its history. Cost: below 5 µs a call, also of a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

MS = 1_000_000.0


class PulseError:
    """A model. ``true_s``: the pulse's second, counted from any start; ``raw_ns``: the host's CLOCK_MONOTONIC_RAW at that true second, for
    errors that follow the host's own time grid."""

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """Error in ns, positive = late."""
        raise NotImplementedError

    def __add__(self, other: PulseError) -> Sum:
        return Sum(self, other)


class Sum(PulseError):
    """Several errors that add up."""

    def __init__(self, *parts: PulseError) -> None:
        self._parts: list[PulseError] = []
        for part in parts:
            self._parts += part._parts if isinstance(part, Sum) else [part]

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """The sum of the parts."""
        total = 0.0
        for part in self._parts:
            total += part.late_ns(true_s, raw_ns)
        return total


class Offset(PulseError):
    """Always ``ns`` late: a cable (5 ns/m), a constant interrupt latency."""

    def __init__(self, ns: float) -> None:
        self._ns = ns

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """The constant."""
        return self._ns


class Gaussian(PulseError):
    """Zero mean, standard deviation ``sigma_ns``: a hardware stamp, or a good receiver's own jitter."""

    def __init__(self, seed: int, sigma_ns: float) -> None:
        self._gauss = Random(f"gaussian {seed}").gauss
        self._sigma = sigma_ns

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """One draw."""
        return self._gauss(0.0, self._sigma)


class PiLatency(PulseError):
    """Interrupt latency of a small computer's GPIO: N(0, 0.5 µs) + Exp(1 µs) + [2 %] Exp(20 µs), mean 1.4 µs, standard deviation 4.2 µs.

    ``base_ns`` is added (Raspberry Pi 5: about 11 µs, published measurements). Errors below zero become zero: nothing is stamped before it
    happens. ``mean_removed``: the mixture less its mean, not limited to positive errors.
    """

    MEAN_NS = 1_400.0

    def __init__(self, seed: int, base_ns: float = 0.0, mean_removed: bool = False) -> None:
        self._random = Random(f"pi {seed}")
        self._base = base_ns - self.MEAN_NS if mean_removed else base_ns
        self._floor = -math.inf if mean_removed else 0.0

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """One draw."""
        random = self._random
        late = self._base + random.gauss(0.0, 500.0) + random.expovariate(1e-3)
        if random.random() < 0.02:
            late += random.expovariate(1 / 20_000)
        return max(self._floor, late)


class UsbFrames(PulseError):
    """A modem line polled over USB: a change is seen at the next frame of the host controller.

    Frames are 1 ms apart at full speed, 125 µs at high speed (USB 2.0 section 8.4.3). They follow the host's own crystal, so the delay is a
    sawtooth in its raw time. ``jitter_ns``: of the transfer.
    """

    def __init__(self, seed: int, frame_ns: float = MS, jitter_ns: float = 20_000.0) -> None:
        self._random = Random(f"usb frames {seed}")
        self._phase = self._random.random() * frame_ns
        self._frame = frame_ns
        self._span = int(1000 * frame_ns)  # whole frames: keeps the float small
        self._jitter = jitter_ns

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """From the (jittered) edge to the next frame."""
        jitter = self._random.gauss(0.0, self._jitter)
        return self._frame - (raw_ns % self._span + jitter + self._phase) % self._frame + jitter


class UsbPolling(PulseError):
    """Independent delays of a polled USB line: U(0, 1 ms) + N(0, 20 µs), never below zero."""

    def __init__(self, seed: int, frame_ns: float = MS, jitter_ns: float = 20_000.0) -> None:
        self._random = Random(f"usb polling {seed}")
        self._frame = frame_ns
        self._jitter = jitter_ns

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """One draw."""
        return max(0.0, self._random.random() * self._frame + self._random.gauss(0.0, self._jitter))


class Outliers(PulseError):
    """Masked interrupts: a ``share`` of the pulses is late by ``shortest_ns`` to ``longest_ns``, log-uniform."""

    def __init__(self, seed: int, share: float = 0.05, shortest_ns: float = MS, longest_ns: float = 20 * MS) -> None:
        self._random = Random(f"outliers {seed}").random
        self._share = share
        self._shortest = shortest_ns
        self._ratio = longest_ns / shortest_ns

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """Mostly 0."""
        if self._random() >= self._share:
            return 0.0
        return float(self._shortest * self._ratio ** self._random())


class LoadBursts(PulseError):
    """A busy host: for ``length_s`` of every ``period_s``, from ``first_s`` on, a ``share`` of the pulses is late by 0.5 to 4 ms."""

    def __init__(self, seed: int, length_s: int = 20, period_s: int = 600, share: float = 0.8, first_s: int = 0) -> None:
        self._late = Outliers(seed, share, 0.5 * MS, 4 * MS)
        self._length = length_s
        self._period = period_s
        self._first = first_s

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        """0 outside the bursts."""
        if true_s < self._first or (true_s - self._first) % self._period >= self._length:
            return 0.0
        return self._late.late_ns(true_s, raw_ns)


class Sawtooth(PulseError):
    """Quantisation: the receiver puts the edge on a tick of its own clock, late by -step/2 to step/2, and knows that (UBX-TIM-TP).

    ``step_ns``: 1/48 MHz (u-blox 8). ``drift_ns``: movement of the ticks against the second, per second; near a multiple of the step the
    error hardly changes for minutes (a hanging bridge). The error depends on the second alone, so receiver and pulse agree on it.
    """

    def __init__(self, seed: int, step_ns: float = 1e9 / 48e6, drift_ns: float = 7.3) -> None:
        self._step = step_ns
        self._drift = drift_ns
        self._phase = Random(f"sawtooth {seed}").random() * step_ns

    def late_ns(self, true_s: int, raw_ns: int = 0) -> float:
        """Error of the pulse of ``true_s``; receiver and pulse must use the same count."""
        return (self._phase + self._drift * (true_s % 86_400)) % self._step - self._step / 2


PRESETS: dict[str, Callable[[int], PulseError]] = {
    "perfect": lambda _seed: Offset(0.0),
    "clean": lambda seed: Gaussian(seed, 200.0),
    "pi": PiLatency,
    "usb": UsbFrames,
    "usb-iid": UsbPolling,
    "outliers": lambda seed: Gaussian(seed, 1_000.0) + Outliers(seed),
    "bursts": lambda seed: Gaussian(seed, 1_000.0) + LoadBursts(seed),
}
"""Name to a maker of models from a seed. The receiver's sawtooth is not part of them."""
