"""Does a source drag the time away faster than a crystal can change? One source's estimates against their own forecasts.

Flow: estimate.Estimate, about once a second -> **pull** -> the engine, which refuses the source and holds over from before it began.

A spoofer that has taken over a receiver shifts its time by some ns/s. Seen from here that is a crystal that has changed its frequency, so
one source alone tells nothing but what no crystal does: its frequency follows its temperature, and quartz on a board does not warm within
a second. ``SWIFTEST`` is the fastest change believed. The raw clock itself can change faster: a kernel that gives up a counter for another
one, a processor that is throttled and loses ticks, a virtual machine that has moved. One source cannot tell that from forged signals. So
the bound of the time held over covers the source's claim as well (``engine``), and after ``LEARN_S`` without a further change the new rate
is taken for the clock's. People are told either way. A pull that sets in at once is seen when it is faster than that allows within the age
of the oldest forecast (about 1 ppm, 1 us/s, with pulses). A slower one, or one that sets in gently, is **not** seen in one source: it looks
like a warm room. With a second source it is: both are on the same crystal, and their bounds part (``selection``).

A source that pulls is refused until its claim lies again where the forecast from before, with its growing bound, allows it to be, or until
it has run steadily at its new rate for ``LEARN_S``.

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


LEARN_S: Final = 300.0
"""Seconds of a steady new rate after which it is taken for the clock's. Counters and throttled processors settle at once, a board in a
minute or two. Meanwhile somebody may look at the status or a second source be heard. No time would exclude a patient forger."""
TOLD_S: Final = 86_400.0
"""Seconds for which people are told of a rate that was taken up: until somebody who looks once a day has seen it."""


class PullChange(Enum):
    """What a claim changed. ``LEARNED``: the new rate has been steady and is believed."""

    BEGAN = "began"
    ENDED = "ended"
    LEARNED = "learned"


class Pull:
    """One source's. ``before``: while the source is refused, the last estimate from before it began to pull. ``rate``: by how much it
    pulls, s/s; positive: its time runs ahead."""

    def __init__(self) -> None:
        self.before: Estimate | None = None
        self.rate = 0.0
        self._past: deque[Estimate] = deque(maxlen=16)
        self._looks = 0
        self._steady_ns = 0  # while it is refused: raw instant since which the new rate has not changed
        self._learned_ns: int | None = None  # raw instant at which a new rate was believed

    def judge(self, claim: Estimate, others: Iterable[Estimate], steady: bool) -> PullChange | None:
        """The source's claim now, and those of the other sources at the same instant; claims in order of time. ``steady``: it is made of
        samples whose forecasts mean something: pulses, not messages. Returns what it changed."""
        was = self.before is not None
        others = list(others)
        if steady:
            disputed = any(abs(claim.tai_ns - other.tai_ns) > claim.bound_ns + other.bound_ns for other in others)
            self._look(claim, disputed=disputed)
        if any(self._seen_by(claim, other) for other in others):
            self.acquit()
        if was == (self.before is not None):
            return None
        if not was:
            return PullChange.BEGAN
        return PullChange.LEARNED if self._learned_ns == claim.mono_ns else PullChange.ENDED

    def acquit(self) -> None:
        """It is believed again."""
        self.before = None
        self._past.clear()

    def _look(self, e: Estimate, *, disputed: bool) -> None:
        """Compare the claim with the forecasts made before, and keep it as the next one. ``disputed``: another source does not agree."""
        if self.before is not None and abs(_ahead(e, self.before)) <= self.before.bound_at(e.mono_ns):
            self.acquit()
            return
        if self._past and e.mono_ns - self._past[-1].mono_ns < FORECAST_EVERY_NS:
            return
        while self._past and e.mono_ns - self._past[0].mono_ns > OLDEST_S * NS:
            self._past.popleft()
        asked = [old for old in self._past if e.mono_ns - old.mono_ns >= YOUNGEST_S * NS and old.samples >= SETTLED_SAMPLES]
        changes = any(_pulled(e, old) for old in asked)
        if self.before is not None:
            self._past.append(e)
            self._wait(e, self.before, changes or disputed)
            return
        self._looks = self._looks + 1 if changes else 0
        if self._looks < LOOKS:
            self._past.append(e)
            return
        # The oldest forecast is the one that the pull can have touched least.
        self.before = self._past[0]
        self.rate = e.rate - self.before.rate
        self._looks, self._steady_ns = 0, e.mono_ns
        self._past.clear()

    def _wait(self, e: Estimate, before: Estimate, doubtful: bool) -> None:
        """The source is refused: has it run at its new rate for long enough? ``doubtful``: the rate changes still, or another source goes
        on without it."""
        self.rate = e.rate - before.rate
        if doubtful:
            self._steady_ns = e.mono_ns
            self._past.clear()
        elif e.mono_ns - self._steady_ns >= LEARN_S * NS:
            self.acquit()
            self._learned_ns = e.mono_ns

    def _seen_by(self, claim: Estimate, other: Estimate) -> bool:
        """Whether ``other``, of the same instant, sees it too: then it is the crystal that both are measured with."""
        if self.before is None:
            return False
        forecast = claim.tai_ns - _ahead(claim, self.before)
        return abs(forecast - other.tai_ns) > other.bound_ns and abs(claim.tai_ns - other.tai_ns) <= other.bound_ns

    @property
    def condition(self) -> Condition | None:
        """Why it is not used; None when nothing is the matter."""
        if self.before is None:
            return None
        words = (
            f"its time runs away by {self.rate * 1e6:+.1f} ppm against this computer's clock, which no crystal does so suddenly: the clock "
            "has changed its rate (another clocksource, a throttled processor, a moved virtual machine), or its signals are forged; the "
            f"bound covers both, and the new rate is taken up once it has been steady for {LEARN_S / 60:.0f} minutes"
        )
        return obstacle(Code.TIME_RUNS_AWAY, words)

    def learned(self, now_ns: int) -> Condition | None:
        """That a new rate was taken up within the last day; None when none was."""
        if self._learned_ns is None or now_ns - self._learned_ns > TOLD_S * NS:
            return None
        words = (
            f"its time runs by {self.rate * 1e6:+.1f} ppm against what this computer's clock did before: the clock has changed its rate, "
            "or its signals are forged; see the kernel's log, and confirm it with a second source"
        )
        return Condition(Code.RAW_CLOCK_CHANGED, words)


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
