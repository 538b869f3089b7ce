"""What an estimator tells: where TAI is on the raw clock, how fast the oscillator is, and term by term how wrong that may be.

Values only: the estimators make them, selection, timescale and status read them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from refclock.sample import NS


@dataclass(frozen=True, slots=True)
class Bound:
    """Error bound of an estimate at its last sample, term by term, and how it grows. All terms are >= 0. They are added, not their squares:
    they are no independent draws.

    Terms in ns; ``rate`` in ns/s, ``wander`` in ns per s^1.5.
    """

    bias_ns: float
    """Systematic error of the source. One source cannot measure it, so it is stated."""
    jump_ns: float
    """Last jump of phase that samples forced, for as long as it may have been wrong to follow it."""
    early_ns: float
    """Range of the samples that the state was made from, fading as others confirm it."""
    place_ns: float
    """Where in the noise the second is: at its mean, unless nothing is stated of the mean. Scale of a sawtooth in the samples."""
    lag_ns: float
    """How far the filters lag behind a crystal that changes as it never did before."""
    doubt_ns: float
    """While the line may be polled and does not show it: how far off its frames may have taken the phase."""
    refused_ns: float
    """How far away samples lie that were just refused, several in a row on one side: they may be right, and the raw clock has moved."""
    chance_ns: float
    """Standard deviation of the phase, times the number of sigmas that chance passes rarely enough."""
    rate: float
    """Growth by the doubt in the frequency, ns/s."""
    wander: float
    """Growth by what the crystal may do next, ns per s^1.5."""
    apart_ns: float = 0.0
    """Of an estimate with temperature: how much farther it is from the plain one than chance takes it."""

    @property
    def total_ns(self) -> float:
        """Bound at the last sample."""
        return (
            self.bias_ns
            + self.jump_ns
            + self.early_ns
            + self.place_ns
            + self.lag_ns
            + self.doubt_ns
            + self.refused_ns
            + self.chance_ns
            + self.apart_ns
        )

    def shown(self, bound_ns: float) -> dict[str, float]:
        """The terms (ns, to 0.1 ns) whose sum is ``bound_ns``, a bound after the last sample: ``growth`` is what has grown since."""
        named = {f.name.removesuffix("_ns"): getattr(self, f.name) for f in fields(self) if f.name.endswith("_ns")}
        return {name: round(ns, 1) for name, ns in (named | {"growth": bound_ns - self.total_ns}).items()}

    def after(self, dt: float) -> float:
        """Bound ``dt`` seconds after the last sample, ns."""
        return self.total_ns + self.rate * dt + self.wander * float(dt**1.5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The state at one instant: TAI = tai_ns + (1 + rate)(raw - mono_ns), and how its bound grows (native/record.h).

    ``bound_rate`` in ns/ns, ``bound_wander_ns`` in ns per s^1.5. ``jitter_ns``: robust standard deviation of the samples. ``skew``:
    standard deviation of ``rate``. ``phase_sigma_ns``: of ``tai_ns``.
    """

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
    restarts: int = 0
    """Times that samples refused by the estimator replaced its state: the phase goes on while it stays the same."""
    terms: Bound | None = None
    """What ``bound_ns`` is made of; None when it was resumed from a record, which holds the sum alone."""
    plain: Estimate | None = None
    """The estimate of the same instant that knows nothing of the temperature, when this one does."""

    def tai_at(self, mono_ns: int) -> int:
        """TAI (ns) at raw ``mono_ns``."""
        return self.tai_ns + (mono_ns - self.mono_ns) + round((mono_ns - self.mono_ns) * self.rate)

    def bound_at(self, mono_ns: int) -> float:
        """Bound (ns) at raw ``mono_ns`` if no further sample comes; before the estimate's own instant it is not smaller."""
        dt = max(0, mono_ns - self.mono_ns)
        return self.bound_ns + self.bound_rate * dt + self.bound_wander_ns * float((dt / NS) ** 1.5)
