"""Does a source drag the time away faster than a crystal can change? One source's estimates against their own forecasts.

Flow: estimate.Estimate, about once a second -> **pull** -> the engine, which refuses the source and holds over from before it began.

A spoofer that has taken over a receiver shifts its time by some ns/s. Seen from here that is a crystal that has changed its frequency, so
one source alone tells nothing but what no crystal does: its frequency follows its temperature, and quartz on a board does not warm within
a second. ``SWIFTEST`` is the fastest change believed. A pull that sets in at once is seen when it is faster than that allows within the age
of the oldest forecast (about 1 ppm, 1 us/s, with pulses). A slower one, or one that sets in gently, is **not** seen in one source: it looks
like a warm room. With a second source it is: both are on the same crystal, and their bounds part (``selection``).

A source that pulls is refused until its claim lies again where the forecast from before, with its growing bound, allows it to be.

Pure; ns, s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Final

from ppsd.discipline.estimate import Estimate
from refclock.condition import Code, Condition, obstacle
from refclock.sample import NS

SWIFTEST: Final = 40.0
"""ns/s per s: 1 ppm in 25 s, a bare crystal under a finger. On a board in a fan's draught it is 17 (1 ppm, lag 60 s: scenario b-step)."""
FORECAST_EVERY_NS: Final = 4 * NS
"""Between two forecasts kept: some ten of the ages below."""
YOUNGEST_S, OLDEST_S = 12.0, 52.0
"""Age of the forecasts that are asked: younger ones lie within the noise, older ones allow any warming. A pull so fast that its samples are
refused as outliers is taken up after 20 s."""
LOOKS: Final = 3
"""Looks in a row that must find the same."""
SETTLED_SAMPLES: Final = 64
"""Samples in an estimate before its forecast is believed: with fewer its frequency still moves."""


class PullChange(Enum):
    """What a claim changed."""

    BEGAN = "began"
    ENDED = "ended"


class Pull:
    """One source's. ``before``: while the source is refused, the last estimate from before it began to pull. ``rate``: by how much it
    pulls, s/s; positive: its time runs ahead."""

    def __init__(self) -> None:
        self.before: Estimate | None = None
        self.rate = 0.0
        self._past: deque[Estimate] = deque(maxlen=16)
        self._looks = 0

    def judge(self, claim: Estimate, others: Iterable[Estimate], steady: bool) -> PullChange | None:
        """The source's claim now, and those of the other sources at the same instant; claims in order of time. ``steady``: it is made of
        samples whose forecasts mean something: pulses, not messages. Returns what it changed."""
        was = self.before is not None
        if steady:
            self._look(claim)
        if any(self._seen_by(claim, other) for other in others):
            self.acquit()
        if was == (self.before is not None):
            return None
        return PullChange.ENDED if was else PullChange.BEGAN

    def acquit(self) -> None:
        """It is believed again."""
        self.before = None
        self._past.clear()

    def _look(self, e: Estimate) -> None:
        """Compare the claim with the forecasts made before, and keep it as the next one."""
        if self.before is not None:
            if abs(_ahead(e, self.before)) <= self.before.bound_at(e.mono_ns):
                self.acquit()
            return
        if self._past and e.mono_ns - self._past[-1].mono_ns < FORECAST_EVERY_NS:
            return
        while self._past and e.mono_ns - self._past[0].mono_ns > OLDEST_S * NS:
            self._past.popleft()
        asked = [old for old in self._past if e.mono_ns - old.mono_ns >= YOUNGEST_S * NS and old.samples >= SETTLED_SAMPLES]
        self._looks = self._looks + 1 if any(_pulled(e, old) for old in asked) else 0
        if self._looks < LOOKS:
            self._past.append(e)
            return
        # The oldest forecast is the one that the pull can have touched least.
        self.before = self._past[0]
        self.rate = e.rate - self.before.rate
        self._looks = 0

    def _seen_by(self, claim: Estimate, other: Estimate) -> bool:
        """Whether ``other``, of the same instant, sees it too: then it is the crystal that both are measured with."""
        if self.before is None:
            return False
        forecast = claim.tai_ns - _ahead(claim, self.before)
        return abs(forecast - other.tai_ns) > other.bound_ns and abs(claim.tai_ns - other.tai_ns) <= other.bound_ns

    @property
    def condition(self) -> Condition | None:
        """What is the matter and what that means; None when nothing is."""
        if self.before is None:
            return None
        ppm = f"{self.rate * 1e6:+.1f} ppm"
        words = f"its time runs away by {ppm}, which no crystal does so suddenly: forged signals? its time is not used"
        return obstacle(Code.TIME_RUNS_AWAY, words)


def _ahead(e: Estimate, old: Estimate) -> float:
    """ns by which the claim is ahead of the forecast."""
    elapsed = e.mono_ns - old.mono_ns
    return e.tai_ns - (old.tai_ns + elapsed) - elapsed * old.rate


def _pulled(e: Estimate, old: Estimate) -> bool:
    """Phase and frequency both moved, to the same side (a jump of phase alone is no pull), and the phase by more than the forecast and the
    swiftest warming allow."""
    elapsed_s = (e.mono_ns - old.mono_ns) / NS
    ahead, faster = _ahead(e, old), (e.rate - old.rate) * NS
    allowed = old.bound_at(e.mono_ns) + SWIFTEST * elapsed_s**2 / 2
    return ahead * faster > 0 and abs(ahead) > allowed and abs(faster) * elapsed_s > abs(ahead) / 2
