"""Has the raw clock stood still or jumped? Both voices of one receiver, its pulses and its labels, against the served time.

Theory. The served time runs on the raw clock. A virtual machine that is stopped, moved or restored, and a counter that loses ticks, take
time out of it or put some in. Nothing on this machine shows that, for its other clocks are made of the same counter. A receiver shows it:
from one second to the next *both* its voices lie off the served time by the same x, its labels by all of x and its pulses by x modulo their
period. No other fault does that: a wrong edge moves the pulses alone, a slow line or another leap count the labels alone.

Two patterns are the raw clock's as well, although the pulses say nothing:

* Labels that come *early*, while no pulse keeps its place. A label may be late by anything, but not early.
* Labels that are early by whole seconds, with pulses in place, while each names the second after the one before: a receiver that has
  changed its leap count leaves a second out, on a clock that stood still the seconds follow one another, too fast. Or while they are early
  by more seconds than any leap count is wrong by: then the time is withheld, and the labels have to be steady for as long as after a cold
  start, for the receiver's time of day may be wrong. What remains is a stop of one to ``COUNTS_S`` whole seconds, to 0.1 ms, in which
  messages were lost: it looks like another leap count.

One edge and one label that have moved together are a doubt (``moving``): the time is withheld. ``AGREEING`` of each are a finding
(``moved_ns``): the second is found again from the labels, which were trusted up to that moment.

Edges that have moved by less than labels can show may be another edge or the raw clock (``unclear_ns``): the bound covers both.

Flow: ``source.ReceiverSource`` (labels, edges) -> **raw_clock** -> the engine, which withholds the time or begins anew. Pure. Times are ns.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from refclock.robust import median
from refclock.sample import NS
from refclock.timing.evidence import COUNTS_S, LOCAL_S, STEADY_S, in_time
from refclock.timing.pairing import ROUNDING_BOUND_NS, WRONG_EDGE_NS, Present

AGREEING: Final = 2
"""Labels, and edges, in a row that have moved by the same: one of each may be a stray edge and a late message."""
ALONE: Final = 3
"""Labels that must agree without the pulses' consent."""
HABIT: Final = 16
"""Labels in place whose delays are remembered: a burst that repeats every five seconds is in them three times."""
KNOWN: Final = 5
"""Labels, or edges, in place before the voice is one: as many as name a second (``pairing.AGREEING``)."""
JITTER_NS: Final = 40_000_000
"""ns by which a label may leave its usual delay, at least: USB and gpsd deliver in steps of up to 20 ms."""
JITTER_SHARE: Final = 1.0
"""The same as a share of the range of the remembered delays, on either side of them."""
WIDEST_NS: Final = 250_000_000
"""ns; a wider tolerance does not tell where in the second a label lies, so labels of such a line are no voice."""
STEADY_EDGES: Final = 64
"""Edges in place whose distance from the served second is remembered: a minute of pulses."""
SCATTER_NS: Final = 100_000
"""ns by which an edge in place may be farther off than twice the farthest of those: the chance in a stop of a whole number of seconds."""
SILENT_NS: Final = 3 * NS
"""ns; a pulse that has not been in place for so long keeps no place."""
UNDECIDED_NS: Final = 60 * NS
"""ns after which a doubt that became no finding ends in one: whatever moved, the numbering no longer fits."""


class Voices:
    """One receiver's. The caller says where the served time has its pulses and labels; without a served time nothing is compared."""

    def __init__(self) -> None:
        self._delays: deque[float] = deque(maxlen=HABIT)
        self._named: tuple[int, int] | None = None  # (raw, TAI named) of the last label
        self._labels: deque[tuple[int, float]] = deque(maxlen=ALONE)  # (raw, ns moved) of the last labels out of place, in a row
        self._since_ns = 0  # when they began
        self._one_by_one = self._by_whole = self._own = False
        self._edges: deque[tuple[int, float, int]] = deque(maxlen=STEADY_EDGES + 1)  # (raw, ns off, period) of edges out of place, in a row
        self._offs: deque[float] = deque(maxlen=STEADY_EDGES)  # of edges in place
        self._in_place_ns = -(1 << 62)
        self._period = NS

    def label(self, mono_ns: int, named_tai_ns: int, present: Present, own: bool) -> None:
        """A label that arrived at raw ``mono_ns``. ``own``: the served time was made of these labels, and there is no pulse."""
        before, self._named, self._own = self._named, (mono_ns, named_tai_ns), own
        if present.bound_ns >= ROUNDING_BOUND_NS and not own and not self._labels:
            return
        delay = float(present.tai_at(mono_ns) - named_tai_ns)
        if len(self._delays) < KNOWN:
            self._delays.append(delay)
            return
        moved = delay - median(self._delays)
        if abs(moved) <= self._tolerance + present.bound_ns:
            self._delays.append(delay)
            self._labels.clear()
            return
        follows = before is not None and named_tai_ns - before[1] == NS
        first = not self._labels
        self._since_ns = mono_ns if first else self._since_ns
        self._one_by_one = follows and (self._one_by_one or first)
        # The first may have come while the clock stood still. Labels that creep past whole seconds are no jump.
        self._by_whole = first or (self._by_whole and self._whole(moved))
        self._labels.append((mono_ns, moved))
        if not own and mono_ns - self._since_ns > UNDECIDED_NS and not self.moving:  # that is their place now
            self._delays.clear()
            self._labels.clear()

    def edge(self, mono_ns: int, period_ns: int, present: Present) -> None:
        """A leading edge at raw ``mono_ns`` of pulses with that period."""
        self._period = period = min(period_ns, NS)
        off = (present.tai_at(mono_ns) + period // 2) % period - period // 2
        known = len(self._offs) >= KNOWN
        usual = 2 * max(self._offs) + SCATTER_NS if known else WRONG_EDGE_NS + present.bound_ns
        if abs(off) <= min(usual, 0.2 * period):
            self._edges.clear()
            self._offs.append(abs(off))
            self._in_place_ns = mono_ns
        elif known:
            self._edges.append((mono_ns, off, period))
            if len(self._edges) > STEADY_EDGES and not self._labels:  # that is their place now
                self._edges.clear()
                self._offs.clear()

    @property
    def _tolerance(self) -> float:
        """ns by which a label may leave its usual delay."""
        return JITTER_NS + JITTER_SHARE * (max(self._delays) - min(self._delays) if self._delays else 0.0)

    @property
    def astray(self) -> bool:
        """Whether the last label was out of place."""
        return bool(self._labels)

    @property
    def since_ns(self) -> int:
        """Raw instant since which labels are out of place. Needs one."""
        return self._since_ns

    @property
    def moving(self) -> bool:
        """Whether the raw clock may have moved."""
        if not self._labels or self._tolerance >= WIDEST_NS:
            return False
        # An edge that is a little off may be a late interrupt, and a label that is whole seconds late at the same moment is not unusual.
        far = bool(self._edges) and abs(self._edges[-1][1]) > WRONG_EDGE_NS
        return self._together(1 if far else AGREEING) or self._labels_tell(AGREEING)

    @property
    def moved_ns(self) -> int | None:
        """By how much the raw clock has moved, positive: it has jumped ahead; None while that is not known."""
        if not self.moving or not self._in_time:
            return None
        if self._own and self._labels[-1][1] > 0:  # late labels alone prove nothing, however long they come
            return None
        moved = [by for _, by in self._labels]
        steady = [abs(by - moved[-1]) <= self._tolerance for by in moved]
        if self._together(AGREEING) and len(moved) >= AGREEING and all(steady[-AGREEING:]):
            return round(moved[-1])
        if self._labels_tell(ALONE) and len(moved) >= ALONE and all(steady) and not self._against_pulses:
            return round(moved[-1])
        patience_ns = STEADY_S * NS if self._against_pulses else UNDECIDED_NS
        undecided = self._labels[-1][0] - self.since_ns > patience_ns
        return round(moved[-1]) if undecided else None

    @property
    def trusted(self) -> bool:
        """Whether the labels are as good for the second as before. Not when another leap count, a slow line, or a wrong time of day may be
        what moved them: without pulses that moved as well nobody can tell."""
        return self._early_alone if self._own else not self._against_pulses

    @property
    def _in_time(self) -> bool:
        """Whether labels in place name the served second."""
        return self._own or in_time(median(self._delays), None)

    def _together(self, count: int) -> bool:
        """Whether the last edges, ``count`` of them, and the last label have moved by the same."""
        if len(self._edges) < count or self._labels[-1][0] - self._edges[-1][0] > SILENT_NS:
            return False
        return all(self._fits(off, period) for _, off, period in self._last_edges(count))

    def _last_edges(self, count: int) -> list[tuple[int, float, int]]:
        return list(self._edges)[-count:]

    def _fits(self, off: float, period: int) -> bool:
        """Whether an edge that is ``off`` has moved as the last label has."""
        apart = (off - self._labels[-1][1] + period / 2) % period - period / 2
        return abs(apart) <= self._tolerance <= period / 4

    @property
    def _early_alone(self) -> bool:
        """Whether the last label is early, and by no other leap count."""
        by = self._labels[-1][1]
        return by < 0 and (self._one_by_one or not self._whole(by))

    def _labels_tell(self, count: int) -> bool:
        """Whether labels alone, the last ``count`` of them, show that the raw clock has stood still. When the served time is made of
        nothing else, labels that come late are a doubt too."""
        last = [by for _, by in self._labels][-count:]
        if len(last) < count:
            return False
        if self._own:
            return count == AGREEING or self._early_alone
        if max(last) > -self._tolerance or not self._in_time:
            return False
        if not self._pulses_stand:
            return True
        if self._period < NS and not any(self._whole(by) for by in last):
            return True  # in place is every pulse of the second, and a label of another leap count is whole seconds off
        early_s = -round(last[-1] / NS)
        return self._by_whole and (self._one_by_one or (early_s > COUNTS_S and early_s % LOCAL_S != 0))

    @property
    def _pulses_stand(self) -> bool:
        """Whether pulses have kept their place up to the last label."""
        return self._labels[-1][0] - self._in_place_ns <= SILENT_NS

    @property
    def _against_pulses(self) -> bool:
        """Whether labels alone say that whole seconds are missing, which are not those of a leap count. A stop leaves pulses in place by
        chance once in 5000 times. The receiver's time of day may as well be wrong."""
        return not self._own and not self._edges and self._pulses_stand and self._by_whole and not self._one_by_one

    def _whole(self, by: float) -> bool:
        """Whether a label has moved by whole seconds."""
        return abs(by - round(by / NS) * NS) <= self._tolerance

    @property
    def unclear_ns(self) -> float:
        """How far the last edges lie off the served second, when they agree and labels cannot tell whether they have moved too; else 0."""
        offs = [off for _, off, _ in self._last_edges(AGREEING)]
        if len(offs) < AGREEING or max(offs) - min(offs) > WRONG_EDGE_NS:
            return 0.0
        off = max(map(abs, offs))
        return off if self._labels or off <= self._tolerance else 0.0
