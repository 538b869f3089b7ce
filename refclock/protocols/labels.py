"""Candidate labels to one label a second: why a statement gives no label, and the gate that every decoder's labels pass.

A receiver states the time several times a second (RMC, ZDA, NAV-PVT, ...), and the statements need not agree. The decoders turn each valid
statement into a SecondLabel; the gate lets through one per UTC second. It lets none through

* while two kinds of statement contradict each other by half a second or more, for both could be the wrong one;
* while the date has just jumped by more than half a day, until three statements in a row stand by it.

Steps of whole seconds pass: ``timing.evidence`` decides whether a receiver is believed, and it must see them.

Flow: nmea | ubx | gpsd -> **labels** -> stream -> ``timing.receiver_time``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from refclock.sample import NS, Instant, LabelProtocol, ReceiverValue, SecondLabel
from refclock.timescales import DAY_S

EPOCH_EARLY_NS: Final = 50_000_000
"""ns; an epoch up to this much before a whole second names that second: modules whose solutions wander around it state .98 or .99."""
EPOCH_NS: Final = 5 * NS
"""ns; how long the first arrival of an epoch is remembered. On a line that is too slow for what it carries, the last statement of an epoch
comes up to 3 s after the first. An epoch's number comes again after a day (time of day) or a week (iTOW)."""
EPOCHS_MAX: Final = 128
"""Epochs remembered at most: 5 s of a receiver at 20 Hz, and some that garbage states."""
CONTRADICTION_NS: Final = NS // 2
"""ns; two statements of one burst that differ by this name different cycles: errors are whole seconds, cycles of 5 Hz are 0.2 s apart."""
BURST_NS: Final = 950_000_000
"""ns; a burst that lasts longer runs into the next cycle, so its statements need not name the same second."""
APART_NS: Final = 3 * NS // 2
"""ns; two kinds of statement that agree differ by less in (named minus arrival) time: a cycle of one second and half a second of jitter."""
STEPPED_NS: Final = 3 * NS // 4
"""ns; one kind of statement that moved by this in (named minus arrival) time has stepped: jitter stays below, steps are whole seconds."""
STATEMENT_FRESH_NS: Final = 5 * NS
"""ns; how long a statement about the fix or the second holds. Receivers repeat it each second, slow ones every 4 s."""
DISPUTE_NS: Final = 10 * NS
"""ns; a contradiction that was not heard for this long is over."""
AGREEMENTS: Final = 3
"""Agreements in a row; they end a contradiction too."""
PREFER_UBX_NS: Final = 3 * NS
"""ns; while a UBX label is fresher than this, NMEA labels are only compared with it. UBX also states whether the leap count is known."""
JUMP_NS: Final = DAY_S * NS // 2
"""ns; a larger step changes the date."""
JUMP_LABELS: Final = 3
"""Labels in a row that must stand by a new date before it is passed on: one damaged date, or two, are not enough."""


class Reject(StrEnum):
    """Why a sentence or message gave no label."""

    VOID = "void"  # RMC status V
    NO_FIX = "no-fix"  # time without a valid, fresh fix
    ESTIMATED = "estimated-fix"  # dead reckoning: its clock coasts
    MANUAL_OR_SIMULATED = "manual-or-simulated"
    EMPTY = "empty"  # the time or date field is empty
    BAD_DATE = "bad-date"
    BAD_TIME = "bad-time"
    BAD_FIELDS = "bad-fields"  # not the fields that this sentence or message has
    CHECKSUM = "checksum"
    NO_CHECKSUM = "no-checksum"  # from a receiver that otherwise sends checksums
    DATE_WINDOW = "date-window"  # more than 2048 weeks after the earliest possible date
    DATE_JUMP = "date-jump"
    LABELS_DISAGREE = "labels-disagree"
    UNRESOLVED = "not-resolved"  # UBX: the receiver says that its date, time or leap count is not known yet
    UNKNOWN = "unknown-sentence"  # not a sentence or message that carries time, fix or satellites
    REDUNDANT = "redundant"  # nothing is wrong with it: another statement labels this second. Not counted


class Decoded(NamedTuple):
    """What came of one frame: its values, and why it gave no label or only some of its values, None when nothing was wrong with it."""

    values: list[ReceiverValue]
    reject: Reject | None = None


class LabelGate:
    """One receiver's labels, one per second. ``last`` is the last label let through."""

    def __init__(self) -> None:
        self.last: SecondLabel | None = None
        self._burst_start = -BURST_NS
        self._burst: dict[str, int] = {}  # kind -> second named in this burst
        self._place: dict[str, tuple[int, int]] = {}  # kind -> (named minus arrival, arrival)
        self._disputed_at: int | None = None
        self._agreements = 0
        self._ubx_at: int | None = None
        self._candidate: tuple[int, int] | None = None  # (place after a date jump, labels that stand by it)

    def burst(self, start_mono_ns: int) -> None:
        """The line spoke again after a silence: a cycle begins."""
        self._burst_start = start_mono_ns
        self._burst.clear()

    def offer(self, label: SecondLabel) -> Reject | None:
        """None: ``label`` is the one for its second. Else why it is not."""
        now = label.at.mono_ns
        named = label.utc_ns + NS * label.second_60
        if self._contradicted(label.sentence, named, now):
            return Reject.LABELS_DISAGREE
        if label.protocol is LabelProtocol.UBX:
            self._ubx_at = now
        elif self._ubx_at is not None and now - self._ubx_at < PREFER_UBX_NS:
            return Reject.REDUNDANT
        if self._jumped(named - now):
            return Reject.DATE_JUMP
        if self.last is not None and second_of(self.last) == second_of(label) and self.last.second_60 == label.second_60:
            return Reject.REDUNDANT
        self.last = label
        return None

    def _contradicted(self, kind: str, named: int, now: int) -> bool:
        """Whether the kinds of statement disagree, as far as this one shows. ``named``: ns of POSIX UTC; ``now``: its arrival, raw ns.

        A dispute begins with a contradiction. It ends after AGREEMENTS agreements, or when it was not heard for DISPUTE_NS.
        """
        place = named - now
        before = self._place.get(kind)
        contradiction = agreement = False
        if now - self._burst_start < BURST_NS:  # statements of one burst name the same cycle, so they can be compared directly
            for other, other_named in self._burst.items():
                if other != kind:
                    contradiction |= abs(named - other_named) >= CONTRADICTION_NS
                    agreement = True
            self._burst[kind] = named
        if before is not None and abs(place - before[0]) >= STEPPED_NS:
            self._place.clear()  # the receiver stepped: what the other kinds said before proves nothing
        elif not agreement and before is not None:  # nothing else in this burst: compare with what other kinds said lately
            for other, (other_place, other_at) in self._place.items():
                if other != kind and now - other_at < STATEMENT_FRESH_NS:
                    contradiction |= abs(place - other_place) >= APART_NS
                    agreement = True
        self._place[kind] = (place, now)
        if contradiction:
            self._disputed_at, self._agreements = now, 0
        elif self._disputed_at is not None:
            self._agreements += agreement
            if self._agreements >= AGREEMENTS or now - self._disputed_at > DISPUTE_NS:
                self._disputed_at = None
        return self._disputed_at is not None

    def _jumped(self, place: int) -> bool:
        """Whether the date is far from the last one and not yet confirmed. ``place``: named minus arrival time, ns."""
        if self.last is None:
            return False
        last_place = self.last.utc_ns - self.last.at.mono_ns
        if abs(place - last_place) < JUMP_NS:
            self._candidate = None
            return False
        stands = self._candidate is not None and abs(place - self._candidate[0]) < JUMP_NS
        count = self._candidate[1] + 1 if stands and self._candidate else 1
        self._candidate = (place, count)
        return count < JUMP_LABELS


def named_second(utc_ns: int) -> int:
    """The POSIX second that a statement of ``utc_ns`` means."""
    return (utc_ns + EPOCH_EARLY_NS) // NS


def second_of(label: SecondLabel) -> int:
    """The POSIX second that the label names."""
    return named_second(label.utc_ns)


class Epochs:
    """When the epochs that a receiver stated lately were stated. Epochs are numbers that come again after ``period``: time of day in NMEA,
    iTOW in UBX.

    Statements of neighbouring epochs may come mixed, but each ``kind`` of statement goes on from epoch to epoch. One that states the same
    epoch again begins it anew, so that a frozen time is not stamped ever earlier. One that goes back shows that the receiver has stepped:
    what was stated before that was stated of other seconds.
    """

    def __init__(self, period: int) -> None:
        self._period = period
        self._known: dict[int, dict[str, Instant]] = {}  # epoch -> {kind: its arrival}; the oldest epoch and the first arrival come first
        self._last: dict[str, tuple[int, int]] = {}  # kind -> (epoch, raw arrival) of its last statement that went on

    def begins(self, epoch: int, kind: str, at: Instant) -> bool:
        """Note a statement of ``epoch``; whether it is the first."""
        if kind not in self.arrivals(epoch, at):
            last, when = self._last.get(kind, (epoch, at.mono_ns))
            if (epoch - last) % self._period > self._period // 2:
                self._known = {e: known for e, known in self._known.items() if next(iter(known.values())).mono_ns > when}
            self._last[kind] = epoch, at.mono_ns
            if self.arrivals(epoch, at):
                self._known[epoch][kind] = at
                return False
        self._known.pop(epoch, None)
        self._known[epoch] = {kind: at}
        if len(self._known) > EPOCHS_MAX:
            del self._known[next(iter(self._known))]
        return True

    def arrivals(self, epoch: int, at: Instant) -> Mapping[str, Instant]:
        """The kinds that have stated ``epoch`` lately, with their arrivals, the first one first, as known at ``at``."""
        known = self._known.get(epoch, {})
        lately = known and 0 <= at.mono_ns - next(iter(known.values())).mono_ns <= EPOCH_NS
        return known if lately else {}
