"""How long to wait between two requests to a server: as long as waiting costs little.

Over a short interval the path's noise is larger than what the crystal can have strayed, over a long one it is smaller; the best interval is
where both are alike (the Allan intercept of RFC 5905 section 12). The noise is taken from the round trips, for those do not depend on this
clock. How far the crystal strays is guessed (``CRYSTAL``), and seen: each answer is foretold from the two before it. As long as the path's
noise alone explains by how much that fails the interval may grow; when it does not the interval shrinks.

Pure. Times are ns.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from refclock.sample import NS

SHORTER: Final = 8
"""Answers after which the interval may shrink or grow back, and of which noise and foretelling are judged: the reach register's."""
LONGER: Final = 16
"""Answers after which it may grow: the first hours tell most of the crystal's rate. At 64 s a quarter of an hour."""
CRYSTAL: Final = 1e-7
"""By how much a crystal's frequency strays between two requests: 0.1 ppm, that of a room's temperature over some minutes."""
CALM: Final = 0.7
"""Median of |foretold - answered| over the noise below which the interval may grow. Noise alone makes 0.5 when it is exponential and the
same on both ways, and 0.7 when the crystal strays as far."""
RESTLESS: Final = 1.2
"""The same median above which the interval shrinks."""
READING_NS: Final = 1000.0
"""ns; noise of stamps, on a path that has none."""


class Interval:
    """See the module. ``trips``: the last round trips, ns."""

    def __init__(self) -> None:
        self.trips: deque[int] = deque(maxlen=SHORTER)
        self._offsets: deque[tuple[int, int]] = deque(maxlen=2)
        self._misses: deque[float] = deque(maxlen=SHORTER)
        self._answers = 0

    def changed(self) -> None:
        """The interval is another one from now on."""
        self._answers = 0

    def answered(self, poll: int, utc_ns: int, offset_ns: int, trip_ns: int) -> int:
        """An answer, asked for every 2**``poll`` s: by how much ``poll`` should change. It says that at local UTC ``utc_ns`` the server was
        ``offset_ns`` ahead, after a round trip of ``trip_ns``."""
        self.trips.append(trip_ns)
        noise_ns = (sum(self.trips) / len(self.trips) - min(self.trips)) / 2
        self._foretell(utc_ns, offset_ns, noise_ns + READING_NS)
        self._answers += 1
        if self._answers < SHORTER:
            return 0
        best, misses = int(noise_ns / NS / CRYSTAL).bit_length() - 1, sorted(self._misses) or [0.0]
        miss = misses[len(misses) // 2]  # statistics.median would bring decimal and random into the server's memory
        if best < poll or miss > RESTLESS:
            return -1
        return int(best > poll and miss < CALM and self._answers >= LONGER)

    def _foretell(self, utc_ns: int, offset_ns: int, noise_ns: float) -> None:
        if len(self._offsets) == 2:
            (t0, o0), (t1, o1) = self._offsets
            if t0 < t1 < utc_ns:
                ratio = (utc_ns - t1) / (t1 - t0)
                miss_ns = offset_ns - o1 - (o1 - o0) * ratio
                self._misses.append(abs(miss_ns) / noise_ns / math.sqrt(1 + (1 + ratio) ** 2 + ratio**2))
        self._offsets.append((utc_ns, offset_ns))
