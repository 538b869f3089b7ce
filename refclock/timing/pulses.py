"""Pulses as they really are: their rhythm, which edge begins them, how wide and steady they are, and which edges are no pulses.

Sits between the pulse device and pairing, in the daemon and in ``refclock pps`` alike. A source of pulses is trusted only while its edges
keep a rhythm that can mark seconds: a whole number of pulses a second up to ten, or one every two to five seconds. The rhythm is found by
itself and found again when it changes; edges beside it (ringing, coupling, hum) are counted and go no further.

``Train`` holds the edges of one kind. Its rhythm is known when each of its last few edges has its fellow at every whole period before it,
and few others lie between (or many that keep no place in it, when three times as many bear it out); from then on an edge belongs to it
when it comes a whole number of periods after the last one that did. ``Rhythm`` has the trains of both kinds and says which of them marks
seconds: the edge that starts the *shorter* part of the period leads, whatever the wiring inverts; a square wave's is assert; of a single
kind it is that one. Which *second* a pulse marks, and which of several within one, is not decided here (``refclock.pairing``). Pure; cost
of an edge in rhythm: 4 µs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from refclock.robust import median, robust_line
from refclock.sample import NS, Edge, EdgeKind

PERIODS_NS = (*(NS // n for n in range(10, 0, -1)), *(n * NS for n in (2, 3, 4, 5)))
"""Rhythms that can mark seconds, fastest first: a train fits every whole multiple of its own period too."""
FEW = 3
"""Edges on a rhythm before it is believed; ``ALONE`` where the other edge does not bear it out. A fast one must last a second longer."""
ALONE = 4
PURE = 4
"""Edges of a new rhythm for each stray that may lie between: hum and noise fit any rhythm, with many more beside it."""
LONG = 3
"""So many times as many edges bear a rhythm out among as many strays, when these keep no place in it."""
FITS_NS = 5_000_000
"""How exactly the first edges must fit: a busy host stamps 4 ms late (load bursts of the scenarios), 9 and 10 Hz lie 11 ms apart."""
FOLLOWS_NS = 40_000_000
FOLLOWS = 0.08
"""How far an edge may be from where it should be, in ns and of the period: late stamps of 20 ms are outliers, not strays."""
BOUNCE_NS = 20_000_000
"""An edge sooner after another of its kind is the same one bouncing, or junk: the fastest rhythm has 100 ms."""
FASTEST = 20
"""Edges a second beyond which no rhythm is looked for: twice what any pulse has."""
LOST = 12
"""Edges of which less than a third are on the rhythm: it is no more."""
OUTAGE = 10
"""Missing periods beyond which pulses are not missing one by one, they were off."""
OFF_RATE = 1e-3
"""A rhythm this far from its nominal one is not it: crystals are within 500 ppm (adjtimex(2)), receivers' pulses exact."""
MEASURED = 16
"""Pulses between two looks at the exact rate."""
KEPT = 64
"""Edges of a kind remembered: nine a second apart among as many strays, or three seconds of ten a second among some."""
EARLY_S = 3.0
"""What looks like a rhythm is not refused sooner: it takes two seconds to be believed."""
SQUARE = 0.05
"""Duty cycles this near to one half (fraction of the period) do not tell which edge leads."""
SQUARE_OFF = 5
"""Pulses of a square wave near the half second of the served time that make its other edge the second."""
VOTES = 3
"""Pulses in a row that must say so before the choice of the edge changes."""
GOOD_JITTER_NS = 100_000.0
"""Beyond it pulses are no better than a USB line's."""
GOOD_SHARE, DOUBTFUL_SHARE, SOME = 0.01, 0.1, 4
"""Missing and stray edges for each pulse: what a good line may have had, and what is told as doubtful,
from so many on."""


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
        """Whether the edges up to ``at`` keep a rhythm, which then is the train's; the fastest that fits."""
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
        """Whether edges beside a rhythm keep one place in it: then it is not the whole rhythm."""
        places = [(at - other) % period for other in others]
        if not places:
            return False
        middle = median(places)
        return sum(abs(place - middle) < SQUARE * period for place in places) > len(places) // 2

    def follow(self, period: int) -> None:
        """Take up the rhythm that the other edge of the pulse keeps, where strays among its own edges hid it."""
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
        """A rhythm near a nominal one is found out by its exact rate."""
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

    def refusal(self) -> str:
        """Why it has no rhythm, in words; "" while it is too early to say."""
        instants = list(self._all)[-MEASURED:]
        if self.period_ns or len(instants) < 2 * FEW:
            return ""
        gaps = [b - a for a, b in pairwise(instants)]
        middle = median(gaps)
        span_s = (instants[-1] - instants[0]) / NS
        steady = middle > 0 and sum(abs(gap - middle) < 0.1 * middle for gap in gaps) >= 0.7 * len(gaps)
        if steady and span_s < EARLY_S and any(abs(middle / period - 1) < FOLLOWS for period in PERIODS_NS):
            return ""
        if steady:
            rate = f"{NS / middle:.4g} times a second"
        else:
            rate = f"{(len(instants) - 1) / span_s:.2g} times a second, unevenly" if span_s else "in one burst"
        return (
            f"edges come {rate}: no pulses that mark seconds (0.2 to 10 a second); "
            "is the wire on the right pin, with its ground? Set the receiver's pulse to 1 Hz"
        )


@dataclass(frozen=True, slots=True)
class PulseReport:
    """What pulses are worth. ``edge``: the one that marks seconds, "" while unknown; ``jitter_us``: nine of ten gaps are that near to the
    middle one; ``good``: what timing wants; ``words``: all of it in a sentence; ``doubts``: what is wrong, a sentence each;
    ``changed``: the last change of the rate."""

    rate_hz: float | None
    edge: str
    width_ms: float | None
    jitter_us: float | None
    pulses: int
    missing: int
    stray: int
    good: bool
    words: str
    doubts: tuple[str, ...] = ()
    changed: str = ""


class Rhythm:
    """See the module's text. ``fixed``: the edge that the configuration states. ``period_ns``: 0 while the pulses are not trusted."""

    def __init__(self, fixed: EdgeKind | None = None) -> None:
        self.fixed = fixed
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
        self._off = 0

    @property
    def period_ns(self) -> int:
        """Of the pulses that are passed on; 0 while there are none."""
        return self._passing[1] if self._passing is not None else 0

    def accept(self, edge: Edge) -> list[Edge]:
        """Take an edge. The pulses that became known by it, oldest first: itself, or none, or, with a new rhythm, the first ones of it."""
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
        """The served seconds say that the last pulse was ``off_ns`` late: half a period for some pulses, and a square wave's other edge
        marks the second."""
        self._off = self._off + 1 if self.square and abs(off_ns) > 0.4 * self.period_ns else 0
        if self._off >= SQUARE_OFF and self.chosen is not None and self.fixed is None:
            self._off = 0
            self.chosen = self._square_choice = _other(self.chosen)
            self._votes.clear()

    def _sure(self, train: Train) -> bool:
        """Whether a rhythm is believed: another edge, or enough of its own, bears it out."""
        return len(train.on) >= ALONE or all(t.period_ns == train.period_ns for t in self._trains.values())

    def _vote(self, edge: Edge, train: Train) -> None:
        """``edge`` is on its train: which kind leads, by the part of the period that ends with it?"""
        other = self._trains[_other(edge.kind)]
        at, period = edge.at.mono_ns, train.period_ns
        if other.period_ns != period and len(train.on) >= ALONE:
            other.follow(period)
        if other.period_ns == period:
            part = (at - other.on[-1].at.mono_ns) % period
            self.alone = False
            self.width_ns = min(part, period - part)
            self.square = abs(part / period - 0.5) <= SQUARE
            leading = _other(edge.kind) if part < period / 2 else edge.kind
            if self.square:
                leading = self._square_choice
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

    def contradiction(self) -> str:
        """That the stated edge starts the longer part of the period and so by all appearance ends the pulse; "" when it does not."""
        if self.fixed is None or self.square or not self._votes or self.fixed in self._votes or self.width_ns is None:
            return ""
        return (
            f'edge = "{self.fixed.value}" is stated, but the {_other(self.fixed).value} edge begins the pulse, '
            f'{self.width_ns / 1e6:.0f} ms before: its seconds would be that late; set edge = "auto" '
            "(a pulse longer than half its period: shorten it)"
        )

    def _doubts(self, train: Train, stray: int) -> list[str]:
        """What the edges themselves have against the pulses, a sentence each."""
        doubts = [self.contradiction()] if self.contradiction() else []
        if stray > max(SOME, DOUBTFUL_SHARE * train.pulses):
            doubts.append(
                f"{stray} stray edges beside {train.pulses} pulses: ringing, or another wire's signal; "
                "a ground wire beside the pulse's, a shorter wire, 100 ohm in series"
            )
        if train.missing > max(SOME, DOUBTFUL_SHARE * train.pulses):
            doubts.append(f"{train.missing} pulses missing beside {train.pulses}: a loose wire, or a receiver that loses its fix")
        return doubts

    def why(self) -> str:
        """Why no pulses are passed on, in words; "" when they are, or when it is too early to say."""
        if self._passing is not None:
            return ""
        if self.fixed is not None and not self._trains[self.fixed].heard and self._trains[_other(self.fixed)].period_ns:
            came = _other(self.fixed).value
            return f'only {came} edges come, and the configuration says edge = "{self.fixed.value}": set edge = "auto"'
        return next(filter(None, (t.refusal() for t in sorted(self._trains.values(), key=lambda t: -t.heard))), "")

    def report(self, doubt: str = "") -> PulseReport | None:
        """What the pulses are worth; None before the first edge. ``doubt``: what others have against them."""
        kind = self._passing[0] if self._passing is not None else None
        if kind is None:
            if not any(t.heard for t in self._trains.values()):
                return None
            why = self.why() or "too few pulses to judge: is there a fix, and is the wire on the right pin?"
            stray = sum(t.stray for t in self._trains.values())
            return PulseReport(None, "", None, None, 0, 0, stray, False, why, (*filter(None, [self.why(), doubt]),), self.changed)
        train = self._trains[kind]
        jitter, stray = train.jitter_ns(), sum(t.stray for t in self._trains.values())
        doubts = (*self._doubts(train, stray), *filter(None, [doubt]))
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
