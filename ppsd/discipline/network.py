"""The time of one NTP server, from its answers: an interval that holds the truth, and how it grows.

Theory. An answer says: at raw t TAI was within ``distance`` of z, whatever the asymmetry of the path, as long as the server is right. On
the raw clock nothing but the crystal moves, so the interval of an answer is carried to now by the crystal's rate, and grows by what is not
known of that rate. The truth lies in all of these intervals at once. So it lies in their intersection, which is never wider than the best
of them: a small delay now and then is enough. When they have no point in common the server has contradicted itself (it was stepped, or it
lies), and only its latest answer counts.

The bound averages nothing: the noise of a path is one-sided, changes with the hour, and has tails, but no answer can be earlier than its
request or later than its reply. The estimate may average: it is what ``PathFilter`` thinks likeliest, moved into the intersection.

The rate comes from the receivers, as long as they gave one: it goes stale as a crystal wanders. Or it comes of the answers themselves: of
any two the rate between them lies within the two lines that touch both intervals. Of both the narrower one holds.

Flow: answer -> **NetworkEstimator** -> Estimate -> selection. Pure.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from ppsd.discipline.estimate import Estimate
from ppsd.discipline.network_path import PathFilter
from refclock.sample import MAX_FREQUENCY_PPM, NS

KEPT: Final = 32
"""Answers kept: at 64 s half an hour, at 1024 s nine hours. An older one has grown wider than the later ones."""
RESTLESS: Final = 5 / math.sqrt(3)
"""Factor from the wander that the answers show, in ns/s per sqrt(s), to what the phase strays at most: five sigmas, each 1/sqrt(3)."""
MORE_RESTLESS: Final = 1.5
"""Factor by which the crystal must have shown more wander than a rate was found with, for that rate to be forgotten."""
LIKELY: Final = 1 / 3
"""Share of a bound that is a standard deviation: three sigmas."""
WANDER_NS: Final = 15.0
"""ns per s^1.5; how far an unknown crystal strays: its rate by 0.7 ppm in a quarter of an hour, 1.4 ppm in an hour, 7 ppm in a day. Boards
without a box do less (a Raspberry Pi in a room: 0.3 ppm in an hour; noise scenario b-ramp: 1 ppm in a warm-up)."""


@dataclass(frozen=True, slots=True)
class KnownRate:
    """d(TAI)/d(raw) - 1 was ``rate`` within ``error`` at raw ``mono_ns``, and wanders by ``wander_ns`` (ns per s^1.5: of the phase)."""

    mono_ns: int
    rate: float
    error: float
    wander_ns: float

    def error_at(self, mono_ns: int) -> float:
        """ns/ns at ``mono_ns``: 1.5 times the wander is the derivative of its t^1.5."""
        return self.error + 1.5 * self.wander_ns * math.sqrt(abs(mono_ns - self.mono_ns) / NS) / NS


UNKNOWN: Final = KnownRate(0, 0.0, MAX_FREQUENCY_PPM * 1e-6, 0.0)
"""What holds of any crystal."""


@dataclass(frozen=True, slots=True)
class _Answer:
    mono_ns: int
    tai_ns: int
    distance_ns: float


class NetworkEstimator:
    """See the module. ``restarts``: how often the server contradicted itself."""

    def __init__(self) -> None:
        self._answers: deque[_Answer] = deque(maxlen=KEPT)
        self._given = UNKNOWN
        self._found = UNKNOWN
        self._path = self._new_path()
        self._origin_ns = 0
        """TAI - raw from which the path's phases count."""
        self._last: Estimate | None = None
        """At the last answer; None until somebody wants to know it."""
        self.samples = 0
        self.restarts = 0

    @property
    def ready(self) -> bool:
        """Whether there is an answer."""
        return bool(self._answers)

    @property
    def trip_ns(self) -> int:
        """The shortest round trip of late. Needs ``ready``."""
        return round(self._path.shortest)

    def runs_at(self, rate: KnownRate) -> None:
        """The receivers' own time says so."""
        self._given, self._last = rate, None
        self._path.runs_at(rate.rate * NS, rate.error * NS * LIKELY)

    def rate_changed(self) -> None:
        """The raw clock has another rate from now on: nothing of before holds."""
        self._given = self._found = UNKNOWN
        self._answers.clear()
        self._path, self._last = self._new_path(), None

    def add(self, mono_ns: int, tai_ns: int, distance_ns: float, trip_ns: float) -> None:
        """One answer, after a round trip of ``trip_ns``; they come in order."""
        answer = _Answer(mono_ns, tai_ns, distance_ns)
        if self._answers and mono_ns <= self._answers[-1].mono_ns:
            return
        self._answers.append(answer)
        self._last = None
        self.samples += 1
        strays = self._strays_to(answer)
        self._path_add(answer, trip_ns)
        if self._found.wander_ns * MORE_RESTLESS < self._wander_ns:
            self._found = UNKNOWN
        if self._meet(mono_ns) is None:
            self._answers.clear()
            self._answers.append(answer)
            self._found = UNKNOWN
            self.restarts += 1
            if not strays:
                self._path = self._new_path()
                self._path_add(answer, trip_ns)
        self._found = self._between()

    def _strays_to(self, answer: _Answer) -> bool:
        """Whether a crystal, as the path has it, may have strayed to ``answer``."""
        course = self._path.course
        if course is None:
            return True
        far_ns = answer.distance_ns + course.stray_ns(answer.mono_ns / NS) / LIKELY
        return abs(self._likely(answer.mono_ns) - answer.tai_ns) <= far_ns

    def _path_add(self, answer: _Answer, trip_ns: float) -> None:
        if self._path.course is None:
            self._origin_ns = answer.tai_ns - answer.mono_ns
        self._path.add(answer.mono_ns / NS, float(answer.tai_ns - answer.mono_ns - self._origin_ns), trip_ns)

    @property
    def _wander_ns(self) -> float:
        """ns per s^1.5; how far the crystal may stray, from what it has shown."""
        course = self._path.course
        return WANDER_NS if course is None else max(WANDER_NS, RESTLESS * course.wander)

    def estimate(self, mono_ns: int) -> Estimate:
        """At raw ``mono_ns``, not before the last answer. Needs ``ready``."""
        e = self._last = self._last or self._estimate()
        since_s = (mono_ns - e.mono_ns) / NS
        return replace(
            e,
            mono_ns=mono_ns,
            tai_ns=e.tai_at(mono_ns),
            bound_ns=e.bound_at(mono_ns),
            bound_rate=e.bound_rate + 1.5 * e.bound_wander_ns * math.sqrt(max(0.0, since_s)) / NS,
        )

    def _estimate(self) -> Estimate:
        """At the last answer."""
        mono_ns = self._answers[-1].mono_ns
        known = self._rate(mono_ns)
        low, high = self._meet(mono_ns) or self._carried(self._answers[-1], mono_ns, known)
        base, course = self._answers[-1].tai_ns, self._path.course
        assert course is not None
        rate = min(max(course.y / NS, known.rate - known.error_at(mono_ns)), known.rate + known.error_at(mono_ns))
        at = min(max(self._likely(mono_ns) - base, low), high)
        off = [abs(self._centre(a, mono_ns, known) - at) for a in self._answers]
        return Estimate(
            mono_ns=mono_ns,
            tai_ns=base + round(at),
            rate=rate,
            bound_ns=max(high - at, at - low) + 1,
            bound_rate=known.error_at(mono_ns) + abs(rate - known.rate),
            bound_wander_ns=known.wander_ns,
            jitter_ns=sum(off) / len(off),
            skew=course.y_sigma / NS,
            samples=self.samples,
            phase_sigma_ns=course.x_sigma,
            restarts=self.restarts,
        )

    def _likely(self, mono_ns: int) -> int:
        """TAI at ``mono_ns`` as the path has it."""
        course = self._path.course
        assert course is not None
        return self._origin_ns + mono_ns + round(course.x + (mono_ns / NS - course.t) * course.y)

    def _new_path(self) -> PathFilter:
        return PathFilter(self._given.rate * NS, self._given.error * NS * LIKELY)

    # Phases are ns beyond the TAI of the last answer, as floats.

    def _centre(self, answer: _Answer, mono_ns: int, known: KnownRate) -> float:
        since = mono_ns - answer.mono_ns
        return answer.tai_ns - self._answers[-1].tai_ns + since + since * known.rate

    def _carried(self, answer: _Answer, mono_ns: int, known: KnownRate) -> tuple[float, float]:
        centre, radius = self._centre(answer, mono_ns, known), self._radius(answer, mono_ns, known)
        return centre - radius, centre + radius

    def _radius(self, answer: _Answer, mono_ns: int, known: KnownRate) -> float:
        """How far an answer reaches at ``mono_ns``: the rate may have been another one at its own time than it is then."""
        error = max(known.error_at(answer.mono_ns), known.error_at(mono_ns))
        return answer.distance_ns + error * (mono_ns - answer.mono_ns)

    def _meet(self, mono_ns: int) -> tuple[float, float] | None:
        """The intersection at ``mono_ns``; None when it is empty."""
        known = self._rate(mono_ns)
        carried = [self._carried(answer, mono_ns, known) for answer in self._answers]
        low, high = max(low for low, _ in carried), min(high for _, high in carried)
        return (low, high) if low <= high else None

    def _rate(self, mono_ns: int) -> KnownRate:
        return min(self._given, self._found, key=lambda rate: rate.error_at(mono_ns))

    def _between(self) -> KnownRate:
        """The rate that the answers themselves tell, of the pair that tells it best."""
        last, best, wander_ns = self._answers[-1], UNKNOWN, self._wander_ns
        for first in self._answers:
            span = last.mono_ns - first.mono_ns
            if not span:
                continue
            rate = (last.tai_ns - first.tai_ns - span) / span
            strays = 1.5 * wander_ns * (span / NS) ** 0.5 / NS
            error = (first.distance_ns + last.distance_ns) / span + strays
            if error < best.error:
                best = KnownRate(last.mono_ns, rate, error, wander_ns)
        return best if best.error <= self._found.error_at(last.mono_ns) else self._found
