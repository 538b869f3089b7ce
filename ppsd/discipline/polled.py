"""Whether samples come off a polled line: stamps that lie on a grid of the host's own clock.

Theory. A modem line read over USB is seen at the next frame of the host controller, whose frames (1 ms at full speed, 125 us at high speed;
USB 2.0 section 8.4.3) tick on the host's own crystal. The stamps then lie on a grid of raw time: they stand still while the true second
drifts past, then jump by a frame. A filter that takes them for noisy samples follows the sawtooth; what such a stamp really says is that
the second lies somewhere in the frame, and where it lies is told by the jumps.

A grid is believed when ``SEEN`` stamps share one phase and some of them lie a frame apart. Stamps that share a phase and have not jumped
yet may be polled, or the crystal may be that good: until they have moved, or ``PATIENCE_S`` have passed, the frame stays in the bound.

Pure. Times are raw ns.
"""

from __future__ import annotations

from collections import deque
from typing import Final

FRAMES_NS: Final = (1_000_000, 125_000)
"""USB full and high speed."""
BLUR: Final = 0.04
"""Stamps of one phase lie within this part of a frame on either side (the time stamp's own interrupt latency: a few us of 125)."""
SEEN: Final = 24
JUMPS: Final = 2
LOST: Final = 8
"""Stamps off the grid (less those on it since) that give it up: outliers come one by one or in bursts, and on the grid."""
HISTORY: Final = 512
"""Samples kept to start from once a grid is known: ten beats of a crystal 20 ppm off."""
AGAIN: Final = 32
"""Samples of a known grid after which what they leave possible is looked at anew, until the history is full."""
TURNS: Final = 40
"""Halvings in a search: 2^-40 of 1000 ppm is nothing."""
FASTEST: Final = 500_000.0
"""ns/s: 500 ppm, the kernel's own limit for a crystal (adjtimex(2))."""
DOUBT: Final = 0.7
"""Of a frame: half of it, and what jitter (20 us) and a crystal (50 ppm, for some seconds) add before a sample is refused."""
PATIENCE_S: Final = 1000.0
"""A crystal 1 ppm off passes a frame of 1 ms in 1000 s."""


class Grid:
    """Phases of the stamps against frames of ``frame_ns``."""

    def __init__(self, frame_ns: int) -> None:
        self.frame_ns = frame_ns
        self.possible = True
        """Every stamp so far could lie on it."""
        self.away = 0
        """Stamps off it, of late."""
        self._phase = 0.0
        self._last_ns = 0
        self._run = 0
        self._jumps = 0

    def add(self, mono_ns: int) -> None:
        """One stamp. One off the grid starts the count anew."""
        half = self.frame_ns / 2
        away = (mono_ns % self.frame_ns - self._phase + half) % self.frame_ns - half
        if self._run == 0 or abs(away) > BLUR * self.frame_ns:
            self.possible = self.possible and self._run == 0
            self.away += 1
            if not self.sure or self.away >= LOST:
                self._phase, self._run, self._jumps, self.away = float(mono_ns % self.frame_ns), 1, 0, 0
        else:
            # Not followed: a grid does not drift, and a pulse that does must leave it.
            self._run += 1
            self.away = max(0, self.away - 1)
            beside = (mono_ns - self._last_ns + 500_000_000) % 1_000_000_000 - 500_000_000
            self._jumps += abs(beside) > half
        self._last_ns = mono_ns

    @property
    def sure(self) -> bool:
        """The stamps lie on it, and have jumped."""
        return self._run >= SEEN and self._jumps >= JUMPS


class Frames:
    """See the module's text. ``maybe``: the line may be polled; else there is no doubt to allow for."""

    def __init__(self, maybe: bool = True) -> None:
        self.history: deque[tuple[float, float]] = deque(maxlen=HISTORY)
        self.frame_ns = 0
        """Of the grid that the stamps lie on, 0 while none is known."""
        self._grids = [Grid(f) for f in FRAMES_NS]
        self._open = maybe
        self._since = 0
        self._first_ns: int | None = None

    def add(self, mono_ns: int, t: float, z: float) -> bool:
        """One stamp (and the sample as the estimator has it, kept to start over from). True when the state should be
        made from ``feasible``."""
        self.history.append((t, z))
        if self._first_ns is None:
            self._first_ns = mono_ns
        for grid in self._grids:
            grid.add(mono_ns)
        sure = next((g.frame_ns for g in self._grids if g.sure), 0)
        self._since = self._since + 1 if sure else 0
        news = sure not in (0, self.frame_ns) or (0 < self._since < HISTORY and self._since % AGAIN == 0)
        self.frame_ns = sure
        if not any(g.possible for g in self._grids) or mono_ns - self._first_ns > PATIENCE_S * 1e9:
            self._open = False
        return news

    def forget(self, keep: int) -> None:
        """Only the last ``keep`` samples still hold."""
        while len(self.history) > keep:
            self.history.popleft()
        self._since = 1

    def feasible(self, blur_ns: float) -> tuple[float, float, float, float] | None:
        """What the history leaves possible when every sample lies within half a frame (and ``blur_ns``) of the second.

        (x now, +-, y, +-) in ns and ns/s; None when no straight line passes through all frames. The lines that do are a convex set: the
        least width of the strip around the samples is found by ternary search over the slope, its ends by bisection.
        """
        t1 = self.history[-1][0]
        points = [(t - t1, z) for t, z in self.history]
        room = self.frame_ns + 2 * blur_ns

        def strip(y: float) -> tuple[float, float]:
            rest = [z - y * t for t, z in points]
            return min(rest), max(rest)

        def width(y: float) -> float:
            low, high = strip(y)
            return high - low

        low, high = -FASTEST, FASTEST
        for _ in range(TURNS):
            a, b = low + (high - low) / 3, high - (high - low) / 3
            low, high = (low, b) if width(a) < width(b) else (a, high)
        best = (low + high) / 2
        if width(best) > room:
            return None
        ends = []
        for limit in (-FASTEST, FASTEST):
            inside, outside = best, limit
            for _ in range(TURNS):
                middle = (inside + outside) / 2
                inside, outside = (middle, outside) if width(middle) <= room else (inside, middle)
            ends.append(inside)
        lows, highs = zip(*(strip(y) for y in (ends[0], best, ends[1])), strict=True)
        half = room / 2
        low, high = min(h - half for h in highs), max(b + half for b in lows)
        return (low + high) / 2, (high - low) / 2, (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2

    def doubt(self, mono_ns: int) -> tuple[float, float]:
        """While it cannot be told whether there is a frame: how far it may have taken phase (ns) and frequency (ns/s) from the truth."""
        if not self._open or self.frame_ns or self._first_ns is None:
            return 0.0, 0.0
        watched_s = max(1.0, (mono_ns - self._first_ns) / 1e9)
        return DOUBT * FRAMES_NS[0], 2 * DOUBT * FRAMES_NS[0] / watched_s
