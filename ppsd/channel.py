"""One stream of samples of a source, its pulses or its labels: their estimator, and what people want to see of it."""

from __future__ import annotations

from dataclasses import dataclass

from ppsd.estimator import Estimator
from refclock.sample import NS, Sample


@dataclass(slots=True)
class Channel:
    """An estimator and what people want to see of it."""

    estimator: Estimator
    last_mono_ns: int = -(1 << 62)
    last_offset_ns: int | None = None
    reach: int = 0
    reach_mono_ns: int = 0
    every_ns: int = NS

    def add(self, sample: Sample, served_tai_ns: int | None) -> bool:
        """One sample; ``served_tai_ns``: what we served at that instant."""
        self.tick(sample.at.mono_ns)
        if served_tai_ns is not None:
            self.last_offset_ns = sample.tai_ns - served_tai_ns
        used = self.estimator.add(sample.at.mono_ns, sample.tai_ns)
        if used:
            self.last_mono_ns = sample.at.mono_ns
            self.reach |= 1
        return used

    def tick(self, mono_ns: int) -> None:
        """Shift the reach register once a second, or as often as pulses come."""
        if mono_ns - self.reach_mono_ns >= self.every_ns * 3 // 4:
            missed = min(8, max(1, round((mono_ns - self.reach_mono_ns) / self.every_ns))) if self.reach_mono_ns else 1
            self.reach = (self.reach << missed) & 0xFF
            self.reach_mono_ns = mono_ns
