"""Does a source drag the time away faster than a crystal can change? One source's estimates against their own forecasts.

Flow: estimator.Estimate, about once a second -> **pull** -> the engine, which refuses the source and holds over from before it began.

A spoofer that has taken over a receiver shifts its time by some ns/s. Seen from here that is a crystal that has changed its frequency, so
one source alone tells nothing but what no crystal does: its frequency follows its temperature, and quartz on a board does not warm within
a second. ``SWIFT`` is the fastest change believed. A pull that sets in at once is seen when it is faster than that allows in
``AFTER_S`` seconds (about 1 ppm, 1 us/s, with pulses); a slower one, or one that sets in gently, is **not** seen in one source: it
looks like a warm room. With a second source it is: both are on the same crystal, and their bounds part (``ppsd.selection``).

A source that pulls is refused until its claim lies again where the forecast from before, with its growing bound, allows it to be.

Pure; ns, s.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ppsd.discipline.estimate import Estimate
from refclock.sample import NS

SWIFT: Final = 40.0
"""ns/s per s: 1 ppm in 25 s, a bare crystal under a finger. On a board in a fan's draught it is 17 (1 ppm, lag 60 s: scenario b-step)."""
EVERY_NS: Final = 4 * NS
AFTER_S: Final = (12.0, 52.0)
"""Age of the forecasts that are asked: younger ones lie within the noise, older ones allow any warming. A pull so fast that its samples are
refused as outliers is taken up after 20 s."""
SURE: Final = 3
"""Looks in a row that must find the same."""
SETTLED: Final = 64
"""Samples before a forecast is believed."""


class Pull:
    """One source's."""

    def __init__(self) -> None:
        self.before: Estimate | None = None
        """While the source is refused: the last estimate from before it began to pull."""
        self.rate = 0.0
        """By how much it pulls, s/s, positive: its time runs ahead."""
        self._past: deque[Estimate] = deque(maxlen=16)
        self._looks = 0

    def add(self, e: Estimate) -> None:
        """The source's claim now; events in order of time."""
        if self.before is not None:
            if abs(_ahead(e, self.before)) <= _bound(self.before, e.mono_ns):
                self.acquit()
            return
        if self._past and e.mono_ns - self._past[-1].mono_ns < EVERY_NS:
            return
        while self._past and e.mono_ns - self._past[0].mono_ns > AFTER_S[1] * NS:
            self._past.popleft()
        asked = [old for old in self._past if e.mono_ns - old.mono_ns >= AFTER_S[0] * NS and old.samples >= SETTLED]
        pulled = [old for old in asked if _pulled(e, old)]
        self._looks = self._looks + 1 if pulled else 0
        if self._looks >= SURE:
            self.before = self._past[0]
            self.rate = e.rate - self.before.rate
            self._looks = 0
            return
        self._past.append(e)

    def acquit(self) -> None:
        """It is believed again."""
        self.before = None
        self._past.clear()

    def seen_by(self, claim: Estimate, other: Estimate) -> bool:
        """Whether ``other``, of the same instant, sees it too: then it is the crystal that both are measured with."""
        if self.before is None:
            return False
        forecast = claim.tai_ns - _ahead(claim, self.before)
        return abs(forecast - other.tai_ns) > other.bound_ns and abs(claim.tai_ns - other.tai_ns) <= other.bound_ns

    @property
    def words(self) -> str:
        """What is the matter and what that means; "" when nothing is."""
        if self.before is None:
            return ""
        return f"its time runs away by {self.rate * 1e6:+.1f} ppm, which no crystal does so suddenly: forged signals? its time is not used"


def _ahead(e: Estimate, old: Estimate) -> float:
    """ns by which the claim is ahead of the forecast."""
    elapsed = e.mono_ns - old.mono_ns
    return e.tai_ns - (old.tai_ns + elapsed) - elapsed * old.rate


def _bound(old: Estimate, mono_ns: int) -> float:
    elapsed = mono_ns - old.mono_ns
    return old.bound_ns + old.bound_rate * elapsed + old.bound_wander_ns * float((elapsed / NS) ** 1.5)


def _pulled(e: Estimate, old: Estimate) -> bool:
    """Phase and frequency both moved, to the same side (a jump of phase alone is no pull), and the phase by more than the forecast and the
    swiftest warming allow."""
    elapsed_s = (e.mono_ns - old.mono_ns) / NS
    ahead, faster = _ahead(e, old), (e.rate - old.rate) * NS
    return (
        ahead * faster > 0 and abs(ahead) > _bound(old, e.mono_ns) + SWIFT * elapsed_s**2 / 2 and abs(faster) * elapsed_s > abs(ahead) / 2
    )
