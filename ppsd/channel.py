"""A channel of a source: its estimators, when it last heard something, and how fine the stamps are that it is given.

One estimator knows nothing of the temperature; while that is in use, another beside it does (``ppsd.compensated``). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from ppsd.compensated import Compensated
from ppsd.estimator import Estimate, Estimator
from ppsd.temperature import Temperature
from refclock.sample import NS, Sample

COARSEST_GRAIN_NS, CUT_STAMPS = 1_000, 4
"""Programs with a struct timeval stamp whole microseconds: four stamps on such a grid are no chance (1e-9).
Half a grain of bias then: a crystal near a whole number of ppm has stamps that stand still for minutes."""


@dataclass(slots=True)
class Channel:
    """An estimator and what people want to see of it."""

    estimator: Estimator
    last_mono_ns: int = -(1 << 62)
    last_offset_ns: int | None = None
    reach: int = 0
    reach_mono_ns: int = 0
    every_ns: int = NS
    compensated: Compensated | None = None
    _grain_ns: int = COARSEST_GRAIN_NS
    _first_real_ns: int | None = None
    _stamps: int = 0

    def add(self, sample: Sample, served_tai_ns: int | None) -> bool:
        """One sample; ``served_tai_ns``: what we served at that instant."""
        self.tick(sample.at.mono_ns)
        if served_tai_ns is not None:
            self.last_offset_ns = sample.tai_ns - served_tai_ns
        if self.compensated is not None:
            self.compensated.add(sample.at.mono_ns, sample.tai_ns)
        used = self.estimator.add(sample.at.mono_ns, sample.tai_ns)
        if used:
            self.last_mono_ns = sample.at.mono_ns
            self.reach |= 1
        return used

    def follow(self, temperature: Temperature | None, plain: Estimate) -> Estimate | None:
        """The estimate with the temperature, while that is in use, beside the ``plain`` one."""
        if self.compensated is not None and self.compensated.worse and temperature is not None:
            temperature.distrust("the samples fit worse with it than without")
        if temperature is None or not temperature.in_use:
            self.compensated = None
        elif self.compensated is None:
            self.compensated = Compensated(self.estimator, temperature, plain.mono_ns)
        return None if self.compensated is None or not self.compensated.ready else self.compensated.estimate(plain)

    def tick(self, mono_ns: int) -> None:
        """Shift the reach register once a second, or as often as pulses come."""
        if mono_ns - self.reach_mono_ns >= self.every_ns * 3 // 4:
            missed = min(8, max(1, round((mono_ns - self.reach_mono_ns) / self.every_ns))) if self.reach_mono_ns else 1
            self.reach = (self.reach << missed) & 0xFF
            self.reach_mono_ns = mono_ns

    def grain(self, real_ns: int) -> int:
        """The grain of which the stamps of another program are whole multiples, this one included (ns); its estimator is told."""
        self._stamps += 1
        if self._first_real_ns is None:
            self._first_real_ns = real_ns
        while self._grain_ns > 1 and (real_ns - self._first_real_ns) % self._grain_ns:
            self._grain_ns //= 10
        grain_ns = self._grain_ns if self._stamps >= CUT_STAMPS else 1
        self.estimator.cut_to(grain_ns)
        return grain_ns
