"""Recognises a polled line, and estimates phase and frequency from its stamps.

Theory. A modem line read over USB is seen at the next frame of the host controller, whose frames (1 ms at full speed, 125 us at high speed;
USB 2.0 section 8.4.3) tick on the host's own crystal. The stamps then lie on a grid of raw time: they stand still while the true second
drifts past, then jump by a frame. A filter that takes them for noisy samples follows the sawtooth. A stamp says only that the second lies
somewhere in the frame; the jumps show where.

A grid is recognised when ``SEEN`` stamps share one phase and some of them lie a frame apart. Stamps that share a phase without a jump may
come from a polled line or from a very accurate crystal. Until they jump, or ``DOUBTED_S`` have passed, the frame stays in the bound.

The stamps so far are kept. Once a grid is known, the straight lines that pass through all their frames make the first state. Pure.
``mono_ns`` is raw; t in seconds since the estimator's first sample, z in ns as in ``kalman``.
"""

from __future__ import annotations

import math
from collections import deque
from copy import copy
from typing import Final, Self

from ppsd.discipline.kalman import Bank
from ppsd.discipline.noise import NO_OUTLIERS
from ppsd.discipline.track import RUN, Posterior, Track
from refclock.robust import robust_line
from refclock.sample import MAX_FREQUENCY_PPM, NS

FRAMES_NS: Final = (1_000_000, 125_000)
"""ns; frames of USB at full and at high speed."""
FRAME_JITTER_NS: Final = 25_000.0
"""ns; jitter of a frame's edges by transfer and driver (20 us in hw-sim, the order that was measured)."""
FRAME_EDGE: Final = 3.5
"""Jitters by which a sample may lie beyond a frame's edge: once in 4000 samples."""
FRAME_GATE: Final = 6.0
"""Sigmas beyond the half frame at which a sample is an outlier."""
BLUR: Final = 0.04
"""Share of a frame by which stamps of one phase may differ either way: interrupt latency, 5 us of 125."""
SEEN: Final = 24
"""Stamps of one phase that make a grid: stamps of continuous noise as wide as a frame pass that for one in (2 BLUR)^23 = 1e-25."""
JUMPS_SEEN: Final = 2
"""Jumps by a frame or more that make a grid. A single one may be an outlier."""
LOST: Final = 8
"""Stamps off the grid, less those on it since, after which the grid is given up. Outliers of a polled line lie on the grid."""
HISTORY: Final = 512
"""Samples kept for the first state once a grid is known: ten frames' drift of a crystal 20 ppm off."""
REFIT: Final = 32
"""Samples after which the lines that fit a known grid are determined again, until the history is full."""
ROBUST_POINTS: Final = 32
"""Samples of the history for the robust line: its cost grows with the square of their number."""
HALVINGS: Final = 40
"""Steps of a search over the slope: to 2^-40 of 1000 ppm."""
DOUBT: Final = 0.7
"""Share of a frame; error of the phase while it is not known whether the line is polled: half a frame, and what jitter (20 us) and the
crystal (50 ppm for some seconds) add before a sample is refused."""
DOUBTED_S: Final = 1000.0
"""s without a jump after which the line is not polled: a crystal 1 ppm off drifts through a frame of 1 ms in 1000 s."""
COVER: Final = 5.3
"""Sigmas of phase in the bound: a day has some 10 000 independent errors, and P is an estimate itself."""


class Grid:
    """Phases of the stamps against frames of ``frame_ns``. ``possible``: every stamp so far could lie on the grid. ``away``: stamps off
    the grid, less those on it since."""

    def __init__(self, frame_ns: int) -> None:
        self.frame_ns = frame_ns
        self.possible = True
        self.away = 0
        self._phase = 0.0
        self._last_ns = 0
        self._run = 0
        self._jumps = 0

    def add(self, mono_ns: int) -> None:
        """One stamp. One off the grid starts the count anew, unless the grid is known."""
        half = self.frame_ns / 2
        away = (mono_ns % self.frame_ns - self._phase + half) % self.frame_ns - half
        if self._run == 0 or abs(away) > BLUR * self.frame_ns:
            self.possible = self.possible and self._run == 0
            self.away += 1
            if not self.sure or self.away >= LOST:
                self._phase, self._run, self._jumps, self.away = float(mono_ns % self.frame_ns), 1, 0, 0
        else:
            # The phase is not followed: a grid does not drift, and a pulse that does must leave it.
            self._run += 1
            self.away = max(0, self.away - 1)
            beside = (mono_ns - self._last_ns + NS // 2) % NS - NS // 2
            self._jumps += abs(beside) > half
        self._last_ns = mono_ns

    @property
    def sure(self) -> bool:
        """The stamps lie on it, and have jumped."""
        return self._run >= SEEN and self._jumps >= JUMPS_SEEN


class PolledEstimator:
    """See the module's text. ``maybe``: the line may be polled; else there is no doubt to allow for. ``frame_ns``: of the grid that the
    stamps lie on, 0 while none is known."""

    def __init__(self, maybe: bool = True) -> None:
        self.frame_ns = 0
        self._history: deque[tuple[float, float]] = deque(maxlen=HISTORY)
        self._grids = [Grid(f) for f in FRAMES_NS]
        self._in_doubt = maybe
        self._known_for = 0  # samples since the grid became known
        self._first_ns: int | None = None

    def twin(self) -> Self:
        """One in the same state that goes on by itself."""
        twin = copy(self)
        twin._history, twin._grids = self._history.copy(), [copy(grid) for grid in self._grids]
        return twin

    # ---- whether the line is polled ------------------------------------------------------------------------------------------------

    def watch(self, mono_ns: int, t: float, z: float) -> bool:
        """One stamp, and the sample that it makes. True when a state should be made from ``fitted``."""
        self._history.append((t, z))
        if self._first_ns is None:
            self._first_ns = mono_ns
        for grid in self._grids:
            grid.add(mono_ns)
        sure = next((g.frame_ns for g in self._grids if g.sure), 0)
        self._known_for = self._known_for + 1 if sure else 0
        news = sure not in (0, self.frame_ns) or (0 < self._known_for < HISTORY and self._known_for % REFIT == 0)
        self.frame_ns = sure
        if not any(g.possible for g in self._grids) or mono_ns - self._first_ns > DOUBTED_S * NS:
            self._in_doubt = False
        return news

    def doubt(self, mono_ns: int) -> tuple[float, float]:
        """While it cannot be told whether there is a frame: how far it may have taken phase (ns) and frequency (ns/s) from the truth."""
        if not self._in_doubt or self.frame_ns or self._first_ns is None:
            return 0.0, 0.0
        watched_s = max(1.0, (mono_ns - self._first_ns) / NS)
        return DOUBT * FRAMES_NS[0], 2 * DOUBT * FRAMES_NS[0] / watched_s

    # ---- a state from frames -------------------------------------------------------------------------------------------------------

    def fitted(self) -> Track | None:
        """The state that the history leaves possible; None when no line passes through the frames. Samples that are late on top, by a frame
        and more, are left out when most are not."""
        points = list(self._history)
        room = self._possible(points)
        if room is None:
            level, slope, _ = robust_line(points[:: -(-len(points) // ROBUST_POINTS)])
            punctual = [(t, z) for t, z in points if abs(z - level - slope * t) <= self.frame_ns]
            room = self._possible(punctual) if len(punctual) >= NO_OUTLIERS * len(points) else None
        if room is None:
            return None
        x, half, y, half_rate = room
        bank = Bank(x, y, (half**2) / 3, 0.0, (half_rate**2) / 3)
        return Track(bank, self._history[-1][0], half, 1, self.frame_ns)

    def _possible(self, samples: list[tuple[float, float]]) -> tuple[float, float, float, float] | None:
        """What the ``samples`` leave possible when every sample lies within half a frame, and the blur of its edges, of the second.

        (x now, +-, y, +-) in ns and ns/s; None when no straight line passes through all frames. The lines that do are a convex set: the
        least width of the strip around the samples is found by ternary search over the slope, the ends of the set by bisection.
        """
        t1 = self._history[-1][0]
        points = [(t - t1, z) for t, z in samples]
        room = self.frame_ns + 2 * FRAME_EDGE * FRAME_JITTER_NS

        def strip(y: float) -> tuple[float, float]:
            rest = [z - y * t for t, z in points]
            return min(rest), max(rest)

        def width(y: float) -> float:
            low, high = strip(y)
            return high - low

        fastest = MAX_FREQUENCY_PPM * 1e3
        low, high = -fastest, fastest
        for _ in range(HALVINGS):
            a, b = low + (high - low) / 3, high - (high - low) / 3
            low, high = (low, b) if width(a) < width(b) else (a, high)
        best = (low + high) / 2
        if width(best) > room:
            return None
        ends = []
        for limit in (-fastest, fastest):
            inside, outside = best, limit
            for _ in range(HALVINGS):
                middle = (inside + outside) / 2
                inside, outside = (middle, outside) if width(middle) <= room else (inside, middle)
            ends.append(inside)
        lows, highs = zip(*(strip(y) for y in (ends[0], best, ends[1])), strict=True)
        half = room / 2
        low, high = min(h - half for h in highs), max(b + half for b in lows)
        return (low + high) / 2, (high - low) / 2, (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2

    # ---- what LineEstimator asks for -----------------------------------------------------------------------------------------------

    def survives(self, track: Track, dt: float, stray: float) -> bool:
        """As in ``LineEstimator``. Always: a frame is a hard limit, so one sample is a guide."""
        track.bank.widen(stray * dt**1.5 / math.sqrt(3), stray * math.sqrt(dt))
        return True

    def take(self, track: Track, t: float, z: float, dt: float) -> Track | None:
        """As in ``LineEstimator``."""
        predicted = track.bank.mixture()
        if abs(z - predicted.x) > self.frame_ns / 2 + FRAME_GATE * math.sqrt(predicted.pxx + FRAME_JITTER_NS**2):
            return None
        track.bank.frame(z, self.frame_ns, FRAME_JITTER_NS)
        return track

    def replacement(self, track: Track, t: float) -> Track | None:
        """As in ``LineEstimator``: what the samples that were refused leave possible; those before them hold no longer."""
        while len(self._history) > RUN:
            self._history.popleft()
        self._known_for = 1
        return self.fitted()

    def posterior(self, track: Track, t: float) -> Posterior:
        """As in ``LineEstimator``. The second is in the middle of what the frames leave possible, so there is no place to allow for."""
        now = track.bank.mixture()
        return Posterior(mixture=now, sigma_ns=math.sqrt(now.pxx), sigmas=COVER, place_ns=0.0, lag_ns=track.lag_held(t))
