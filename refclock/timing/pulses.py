"""Pulses as they are: their rhythm, which edge begins them, how wide and steady they are, and which edges are no pulses.

Flow: Edge -> **pulses** -> the edges that are pulses (to pairing), PulseReport and Condition (to the snapshot). ``refclock pps`` uses it
too.

A source of pulses is trusted only while its edges keep a rhythm that can mark seconds: one to ten pulses a second, or one every two to five
seconds. The rhythm is found from the edges and found again when it changes. Edges beside it (ringing, coupling, hum) are counted and
refused.

``Train`` holds the edges of one kind. It knows its rhythm when a whole period lies between each of the last few edges, and few other edges
lie among them. Many other edges are allowed when three times as many keep the rhythm and the others keep no place in it. From then on an
edge is a pulse when it comes a whole number of periods after the last pulse.

``Rhythm`` holds the trains of both kinds and decides which edge marks seconds. The edge that begins the *shorter* part of the period leads,
whatever inverts the wiring. Of a square wave it is assert, and of a single kind of edge that kind. A pulse longer than half its period
begins with its rise, and only where its width is stated and comes: reversed, a pulse of 900 ms is one of 100 ms.

Which *second* a pulse marks, and which of several pulses within a second, is decided in ``refclock.timing.pairing``. Pure. An edge in
rhythm costs 4 µs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise

from refclock.condition import Code, Condition, obstacle
from refclock.config import PulsedSource
from refclock.robust import median, robust_line
from refclock.sample import NS, Edge, EdgeKind, PulseReport

PERIODS_NS = (*(NS // n for n in range(10, 0, -1)), *(n * NS for n in (2, 3, 4, 5)))
"""Periods that can mark seconds, shortest first: edges that fit a period fit every multiple of it too."""
FEW = 3
"""Edges on a rhythm before it is believed, when the other edge keeps the same rhythm. A fast one must last a second longer."""
ALONE = 4
"""The same when no other edge confirms it."""
PURE = 4
"""Edges of a new rhythm for each stray allowed among them: hum and noise fit any rhythm, but with many more strays."""
LONG = 3
"""Times as many edges that a rhythm needs among many strays, which must keep no place in it."""
FITS_NS = 5_000_000
"""Nanoseconds by which the first edges may miss the rhythm: a busy host stamps 4 ms late (load bursts of the scenarios); the periods of 9
and 10 Hz differ by 11 ms."""
FOLLOWS_NS = 40_000_000
"""Nanoseconds by which a later edge may miss it: stamps that are 20 ms late are outliers, not strays."""
FOLLOWS = 0.08
"""The same as a share of the period, for fast rhythms."""
BOUNCE_NS = 20_000_000
"""Nanoseconds after an edge within which another of its kind is a bounce or junk: the fastest rhythm has 100 ms."""
FASTEST = 20
"""Edges a second beyond which no rhythm is looked for: twice the rate of any pulse."""
LOST = 12
"""Edges of which a third must be on the rhythm; below it the rhythm is given up."""
OUTAGE = 10
"""Missing periods beyond which the pulses were off; fewer count as missing one by one."""
OFF_RATE = 1e-3
"""Relative error of the period beyond which it is not that rhythm: crystals are within 500 ppm (adjtimex(2)), receivers' pulses exact."""
MEASURED = 16
"""Pulses between two measurements of the exact rate."""
KEPT = 64
"""Edges of a kind that are remembered: nine a second apart among as many strays, or three seconds of ten a second among some."""
EARLY_S = 3.0
"""Seconds before edges that look like a rhythm are refused: it takes two seconds to be believed."""
SQUARE = 0.05
"""Distance of a duty cycle from one half within which it does not tell which edge leads."""
SQUARE_OFF = 5
"""Pulses of a square wave at the half second of the served time; then its other edge is taken for the second."""
WIDTH_TELLS_NS = 20_000_000
"""Nanoseconds by which the two parts of the period must differ before a stated width tells them apart: each of the two edges may miss by
FITS_NS, and what one part gains the other loses."""
VOTES = 3
"""Pulses in a row that must agree before another edge is chosen."""
GOOD_JITTER_NS = 100_000.0
"""Nanoseconds of jitter beyond which pulses are no better than those of a USB line."""
GOOD_SHARE, DOUBTFUL_SHARE = 0.01, 0.1
"""Missing or stray edges for each pulse: up to the first a line is good, beyond the second it is doubtful."""
SOME = 4
"""Missing or stray edges below which nothing is doubted."""


def pulses_a_second(period_ns: int) -> str:
    """A rhythm in words: "5 pulses a second", "one pulse every 2 s"."""
    if period_ns == NS:
        return "one pulse a second"
    return f"{round(NS / period_ns)} pulses a second" if period_ns < NS else f"one pulse every {round(period_ns / NS)} s"


class Train:
    """The edges of one kind. ``period_ns``: its rhythm, 0 while it has none. ``on``: its last pulses, oldest first."""

    def __init__(self) -> None:
        self.period_ns = 0
        self.on: deque[Edge] = deque(maxlen=32)
        self.pulses = self.missing = self.stray = 0
        self._all: deque[int] = deque(maxlen=KEPT)
        self._apart: deque[Edge] = deque(maxlen=KEPT)  # all but bounces
        self._lately: deque[bool] = deque(maxlen=LOST)
        self._unmeasured = 0
        self._near_miss_ns = 0  # a rhythm that turned out not to be exact

    @property
    def heard(self) -> int:
        """Edges of any sort that are remembered."""
        return len(self._all)

    @property
    def last_ns(self) -> int | None:
        """Raw instant of the last edge of any sort."""
        return self._all[-1] if self._all else None

    def add(self, edge: Edge) -> bool:
        """Take an edge; whether it is a pulse of the rhythm."""
        at = edge.at.mono_ns
        self._all.append(at)
        periods = self._periods_since(at)
        if not periods and self._apart and at - self._apart[-1].at.mono_ns < BOUNCE_NS:
            self.stray += bool(self.period_ns)
            return False
        self._apart.append(edge)
        if periods != 1 and self._found(at):
            self._lately.clear()
            return True
        if self.period_ns:
            self._lately.append(periods > 0)
            if 3 * sum(self._lately) < len(self._lately) == LOST:
                self.forget()
        if not periods or not self.period_ns:
            self.stray += bool(self.period_ns)
            return False
        self.missing += periods - 1 if periods <= OUTAGE else 0
        self.pulses += 1
        self.on.append(edge)
        self._measure()
        return bool(self.period_ns)

    def forget(self) -> None:
        """It has no rhythm any more."""
        self.period_ns = self._unmeasured = 0
        self.on.clear()
        self._lately.clear()

    def _periods_since(self, at: int) -> int:
        """Whole periods from the last pulse to ``at``; 0 when ``at`` is not on the rhythm."""
        if not self.period_ns:
            return 0
        gap = at - self.on[-1].at.mono_ns
        periods = round(gap / self.period_ns)
        return periods if abs(gap - periods * self.period_ns) <= min(FOLLOWS_NS, FOLLOWS * self.period_ns) else 0

    def _found(self, at: int) -> bool:
        """Look for a rhythm that the edges up to ``at`` keep, fastest first, and take it up; whether there is one."""
        if len(self._all) >= FASTEST and at - self._all[-FASTEST] < NS:
            return False
        instants = [e.at.mono_ns for e in self._apart]
        for period in PERIODS_NS:
            count = FEW + (NS // period if period < NS else 0)
            for wanted, strays in ((count, count // PURE), (LONG * count, LONG * count)):
                comb = self._comb(instants, at, period, wanted)
                if comb is None:
                    break
                others = instants[comb[0] : comb[-1]]
                if len(others) - wanted >= strays or self._misses(instants, period):
                    continue
                if wanted > count and self._regular([x for i, x in enumerate(others, comb[0]) if i not in comb], at, period):
                    continue
                self.pulses += wanted if period != self.period_ns else 1
                self._take(comb, period)
                return True
        return False

    def _take(self, comb: list[int], period: int) -> None:
        self.period_ns, self._unmeasured = period, 0
        self.on.clear()
        self.on.extend(self._apart[i] for i in comb)

    def _comb(self, instants: list[int], at: int, period: int, count: int) -> list[int] | None:
        """Indices of the ``count`` edges that lie whole periods before ``at``, itself included; None when one is not there."""
        if len(instants) < count or at - instants[0] < (count - 1) * period - FITS_NS:
            return None
        comb = [self._near(instants, at - j * period) for j in range(count - 1, -1, -1)]
        return [i for i in comb if i is not None] if None not in comb else None

    def _regular(self, others: list[int], at: int, period: int) -> bool:
        """Whether edges beside a rhythm keep one place in it: then the rhythm found is only a part of the true one."""
        places = [(at - other) % period for other in others]
        if not places:
            return False
        middle = median(places)
        return sum(abs(place - middle) < SQUARE * period for place in places) > len(places) // 2

    def follow(self, period: int) -> None:
        """Take up the rhythm of the pulse's other edge, where strays among its own edges hid it."""
        instants = [e.at.mono_ns for e in self._apart]
        count = FEW + (NS // period if period < NS else 0)
        for at in reversed(instants):
            if instants[-1] - at >= period:
                return
            comb = self._comb(instants, at, period, count)
            if comb is not None:
                self._take(comb, period)
                return

    def _misses(self, instants: list[int], period: int) -> bool:
        """Whether ``period`` was found to be inexact before, and still is."""
        if period != self._near_miss_ns or len(instants) < MEASURED:
            return False
        gap = instants[-1] - instants[-MEASURED]
        return abs(gap / (period * round(gap / period)) - 1) > OFF_RATE / 2

    def _near(self, instants: list[int], wanted: int) -> int | None:
        """Index of the edge at ``wanted``, None when there is none."""
        i = bisect_left(instants, wanted - FITS_NS)
        return i if i < len(instants) and instants[i] <= wanted + FITS_NS else None

    def _measure(self) -> None:
        """Give up a rhythm that is near a nominal one but not exact."""
        self._unmeasured += 1
        if self._unmeasured >= MEASURED and len(self.on) >= MEASURED:
            self._unmeasured = 0
            if abs(self.rate_error()[0]) > OFF_RATE:
                self._near_miss_ns = self.period_ns
                self.forget()

    def rate_error(self) -> tuple[float, float]:
        """(how much longer than nominal its period is, as a fraction; robust standard deviation of its pulses, ns). Needs two pulses."""
        first = self.on[0].at.mono_ns
        points = []
        for edge in list(self.on)[-MEASURED:]:
            periods = round((edge.at.mono_ns - first) / self.period_ns)
            points.append((float(periods), float(edge.at.mono_ns - first - periods * self.period_ns)))
        _, slope, sigma = robust_line(points)
        return slope / self.period_ns, sigma

    def jitter_ns(self) -> float | None:
        """How far from the middle gap nine of ten lie, missing pulses bridged; None while there are too few."""
        instants = [e.at.mono_ns for e in self.on]
        if len(instants) < FEW:
            return None
        gaps = [b - a for a, b in pairwise(instants)]
        single = [gap / max(1, round(gap / self.period_ns)) for gap in gaps]
        middle = median(single)
        return sorted(abs(gap - middle) for gap in single)[int(0.9 * (len(single) - 1))]

    def refusal(self) -> Condition | None:
        """Why it has no rhythm; None when it has one, or while it is too early to say."""
        instants = list(self._all)[-MEASURED:]
        if self.period_ns or len(instants) < 2 * FEW:
            return None
        gaps = [b - a for a, b in pairwise(instants)]
        middle = median(gaps)
        span_s = (instants[-1] - instants[0]) / NS
        steady = middle > 0 and sum(abs(gap - middle) < 0.1 * middle for gap in gaps) >= 0.7 * len(gaps)
        if steady and span_s < EARLY_S and any(abs(middle / period - 1) < FOLLOWS for period in PERIODS_NS):
            return None
        if steady:
            rate = f"{NS / middle:.4g} times a second"
        else:
            rate = f"{(len(instants) - 1) / span_s:.2g} times a second, unevenly" if span_s else "in one burst"
        return obstacle(
            Code.NO_RHYTHM,
            f"edges come {rate}: no pulses that mark seconds (0.2 to 10 a second); "
            "is the wire on the right pin, with its ground? Set the receiver's pulse to 1 Hz",
        )


class Rhythm:
    """The pulses of one source. ``fixed``: the edge that the configuration states; ``stated_ns``: the width that it states."""

    def __init__(self, fixed: EdgeKind | None = None, stated_ns: int | None = None) -> None:
        self.fixed = fixed
        self.stated_ns = stated_ns
        self.chosen = fixed
        self.width_ns: int | None = None
        self.square = False
        self.alone = False
        """Only one kind of edge reaches us: it may be the trailing one."""
        self.changed = ""
        """The last change of the rate, in words."""
        self._trains = {kind: Train() for kind in EdgeKind}
        self._votes: deque[EdgeKind] = deque(maxlen=VOTES)
        self._passing: tuple[EdgeKind, int] | None = None
        self._known_ns = 0
        self._passed_ns = -(1 << 62)
        self._square_choice = EdgeKind.ASSERT
        self._reversed = False  # the stated width lies between a fall and the next rise
        self._off = 0

    @classmethod
    def configured(cls, config: PulsedSource) -> Rhythm:
        """The pulses of a source, by its configuration."""
        width_ms = config.pulse_width_ms
        return cls(None if config.edge == "auto" else EdgeKind(config.edge), None if width_ms is None else width_ms * 1_000_000)

    @property
    def period_ns(self) -> int:
        """Of the pulses that are passed on; 0 while there are none."""
        return self._passing[1] if self._passing is not None else 0

    def accept(self, edge: Edge) -> list[Edge]:
        """Take an edge; returns the pulses that it makes known, oldest first: itself, none, or the first ones of a new rhythm."""
        train = self._trains[edge.kind]
        on = train.add(edge)
        if on:
            self._vote(edge, train)
        chosen = self._trains[self.chosen] if self.chosen is not None else None
        if chosen is None or not chosen.period_ns or not self._sure(chosen):
            self._passing = None
            return []
        now = self.chosen, chosen.period_ns
        if now != self._passing:
            if self._known_ns and self._known_ns != chosen.period_ns:
                self.changed = f"the pulses went from {_rate(self._known_ns)} to {_rate(chosen.period_ns)} a second"
            assert now[0] is not None
            self._passing = now[0], now[1]
            self._known_ns = chosen.period_ns
            new = [e for e in chosen.on if e.at.mono_ns > self._passed_ns]
        else:
            new = [edge] if on and edge.kind is self.chosen else []
        if new:
            self._passed_ns = new[-1].at.mono_ns
        return new

    def off_by(self, off_ns: int) -> None:
        """By the served seconds the last pulse was ``off_ns`` late. When some pulses of a square wave are half a period late, its other
        edge marks the second."""
        self._off = self._off + 1 if self.square and abs(off_ns) > 0.4 * self.period_ns else 0
        if self._off >= SQUARE_OFF and self.chosen is not None and self.fixed is None:
            self._off = 0
            self.chosen = self._square_choice = _other(self.chosen)
            self._votes.clear()

    def _sure(self, train: Train) -> bool:
        """Whether a rhythm is believed: enough of its own edges, or the other kind, confirm it."""
        return len(train.on) >= ALONE or all(t.period_ns == train.period_ns for t in self._trains.values())

    def _vote(self, edge: Edge, train: Train) -> None:
        """Note which kind leads, by the part of the period that ends with ``edge``, a pulse of ``train``."""
        other = self._trains[_other(edge.kind)]
        at, period = edge.at.mono_ns, train.period_ns
        if other.period_ns != period and len(train.on) >= ALONE:
            other.follow(period)
        if other.period_ns == period:
            part = (at - other.on[-1].at.mono_ns) % period
            self.alone = False
            led = self._led({_other(edge.kind): part, edge.kind: period - part}, period)
            if led is None:
                return
            leading, self.width_ns = led
        elif len(train.on) >= ALONE and (other.last_ns is None or at - other.last_ns > 2.5 * period):
            self.alone, self.width_ns, self.square = True, None, False
            leading = edge.kind
        elif len(train.on) >= 2 * ALONE and not other.period_ns:  # the other one is junk
            leading = edge.kind
        else:
            return
        self._votes.append(leading)
        if self.fixed is None and (self.chosen is None or (len(self._votes) == VOTES and len(set(self._votes)) == 1)):
            self.chosen = leading

    def _led(self, widths: Mapping[EdgeKind, int], period: int) -> tuple[EdgeKind, int] | None:
        """(kind of the edge that leads, width of the pulse); None when the stated width comes reversed.

        ``widths``: of the pulse, if the edge of that kind began it.
        """
        leading = min(widths, key=lambda kind: widths[kind])
        self.square, self._reversed = abs(widths[leading] / period - 0.5) <= SQUARE, False
        matching = self._as_stated(widths, period)
        if matching is not None:
            if self.fixed is None and matching is EdgeKind.CLEAR and 2 * widths[matching] > period:
                self._reversed = True
                return None
            leading, self.square = matching, False
        elif self.square:
            leading = self._square_choice
        return leading, widths[leading]

    def _as_stated(self, widths: Mapping[EdgeKind, int], period: int) -> EdgeKind | None:
        """The edge from which to the next one it takes the stated width; None when that is neither, or when it cannot be told."""
        if self.stated_ns is None or self.stated_ns >= period:
            return None
        apart = abs(period - 2 * self.stated_ns)
        allowed = min(SQUARE * period, apart / 4) if apart >= WIDTH_TELLS_NS else -1
        return next((kind for kind, width in widths.items() if abs(width - self.stated_ns) <= allowed), None)

    def contradiction(self) -> Condition | None:
        """The stated edge begins the longer part of the period, so it seems to end the pulse; None when it does not."""
        if self.fixed is None or self.square or not self._votes or self.fixed in self._votes or self.width_ns is None:
            return None
        return Condition(
            Code.WRONG_EDGE,
            f'edge = "{self.fixed.value}" is stated, but the {_other(self.fixed).value} edge begins the pulse, '
            f'{self.width_ns / 1e6:.0f} ms before: its seconds would be that late; set edge = "auto"'
            + (" (a pulse longer than half its period: state pulse_width_ms)" if self.stated_ns is None else ""),
        )

    def refusal(self) -> Condition | None:
        """Why no pulses are passed on; None when they are, or while it is too early to say."""
        if self._passing is not None:
            return None
        if self.fixed is not None and not self._trains[self.fixed].heard and self._trains[_other(self.fixed)].period_ns:
            came = _other(self.fixed).value
            return obstacle(
                Code.EDGE_NOT_COMING,
                f'only {came} edges come, and the configuration says edge = "{self.fixed.value}": set edge = "auto"',
            )
        if self._reversed and self.stated_ns is not None:
            width_ms = self.stated_ns / 1e6
            return obstacle(
                Code.WRONG_EDGE,
                f"pulse_width_ms = {width_ms:.0f} is stated, but that long the line is low: the receiver is not set to that width, or the "
                'wiring inverts the pulse; correct pulse_width_ms, or state the edge that marks the second (inverted: edge = "clear")',
            )
        loudest_first = sorted(self._trains.values(), key=lambda t: -t.heard)
        return next((found for t in loudest_first if (found := t.refusal()) is not None), None)

    def conditions(self) -> tuple[Condition, ...]:
        """What the edges themselves say against the pulses."""
        if self._passing is None:
            refused = self.refusal()
            return () if refused is None else (refused,)
        train, stray = self._trains[self._passing[0]], self._stray()
        found = [self.contradiction()]
        if stray > max(SOME, DOUBTFUL_SHARE * train.pulses):
            words = (
                f"{stray} stray edges beside {train.pulses} pulses: ringing, or another wire's signal; "
                "a ground wire beside the pulse's, a shorter wire, 100 ohm in series"
            )
            found.append(Condition(Code.STRAY_EDGES, words))
        if train.missing > max(SOME, DOUBTFUL_SHARE * train.pulses):
            words = f"{train.missing} pulses missing beside {train.pulses}: a loose wire, or a receiver that loses its fix"
            found.append(Condition(Code.PULSES_MISSING, words))
        return tuple(c for c in found if c is not None)

    def _stray(self) -> int:
        return sum(train.stray for train in self._trains.values())

    def report(self, others: Iterable[Condition] = ()) -> PulseReport | None:
        """What the pulses are worth; None before the first edge. ``others``: what pairing says against them."""
        if not any(t.heard for t in self._trains.values()):
            return None
        doubts = tuple(c.words for c in (*self.conditions(), *others))
        stray = self._stray()
        if self._passing is None:
            refused = self.refusal()
            why = refused.words if refused else "too few pulses to judge: is there a fix, and is the wire on the right pin?"
            return PulseReport(None, "", None, None, 0, 0, stray, False, why, doubts, self.changed)
        kind = self._passing[0]
        train = self._trains[kind]
        jitter = train.jitter_ns()
        words = [pulses_a_second(train.period_ns)]
        if jitter is not None:
            words.append(f"jitter {jitter / 1e3:.1f} µs (9 of 10)")
        if train.missing:
            words.append(f"{train.missing} missing")
        if stray:
            words.append(f"{stray} stray edges")
        if self.width_ns is not None:
            words.append(f"{self.width_ns / 1e6:.1f} ms wide")
        if self.square:
            words.append("half on, half off: its rise is taken unless edge says otherwise")
        if self.alone:
            words.append(f"{kind.value} edges only")
        whole = train.missing + stray <= GOOD_SHARE * train.pulses
        good = train.period_ns == NS and jitter is not None and jitter < GOOD_JITTER_NS and whole and not doubts
        return PulseReport(
            rate_hz=NS / train.period_ns,
            edge=kind.value,
            width_ms=None if self.width_ns is None else self.width_ns / 1e6,
            jitter_us=None if jitter is None else jitter / 1e3,
            pulses=train.pulses,
            missing=train.missing,
            stray=stray,
            good=good,
            words=", ".join(words) + (": good" if good else ": not what timing wants; refclock doctor tells more"),
            doubts=doubts,
            changed=self.changed,
        )


def _other(kind: EdgeKind) -> EdgeKind:
    return EdgeKind.CLEAR if kind is EdgeKind.ASSERT else EdgeKind.ASSERT


def _rate(period_ns: int) -> str:
    return f"{NS / period_ns:.3g}"
