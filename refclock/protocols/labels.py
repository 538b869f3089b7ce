"""Candidate labels to at most one label a second: the date window and the gate that every decoder's labels pass.

A receiver states the time several times a second (RMC, ZDA, NAV-PVT, ...), and the statements need not agree. The decoders turn each
valid statement into a SecondLabel; the gate lets through one per UTC second, and none

* while two kinds of statement contradict each other by half a second or more (both could be the wrong one),
* while the date has just jumped by more than half a day (until three statements in a row stand by it).

Steps of seconds pass: whether a receiver may be believed is ``trust``'s question, and it must see them.
"""

from __future__ import annotations

from collections import Counter
from datetime import date
from enum import StrEnum

from refclock.sample import NS, SecondLabel
from refclock.timescales import DAY_S, ROLLOVER_S, window_weeks

EARLY_NS = 50_000_000
"""An epoch up to this much before a whole second names that second: modules whose solutions wander around it state .98 or .99."""
CONTRADICTION_NS = NS // 2
"""Statements of one burst that name the same cycle differ by less: errors are whole seconds, 5 Hz cycles are 0.2 s apart."""
BURST_NS = 950_000_000
"""A burst older than this runs into the next cycle: its statements need not name the same second."""
APART_NS = 3 * NS // 2
"""Two kinds that agree cannot differ by more than this in (named minus arrival) time: one second of cycle and half a second of jitter."""
SAME_PLACE_NS = 3 * NS // 4
FRESH_NS = 5 * NS
"""What a statement says of the fix or of the second holds this long; receivers state it each second, slow ones every 4 s."""
DISPUTE_NS = 10 * NS
AGREEMENTS = 3
"""A contradiction is over after this many agreements, or when it has not been heard for DISPUTE_NS."""
PREFER_UBX_NS = 3 * NS
JUMP_NS = DAY_S * NS // 2
JUMP_LABELS = 3


class Reject(StrEnum):
    """Why a sentence or message gave no label."""

    VOID = "void"  # RMC status V
    NO_FIX = "no-fix"  # time without a valid, fresh fix
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


def civil_s(year: int, month: int, day: int) -> int | None:
    """POSIX second of that midnight; None when there is no such date."""
    try:
        return (date(year, month, day).toordinal() - 719_163) * DAY_S  # ordinal of 1970-01-01
    except ValueError:
        return None


def window(utc_s: int, not_before_s: int) -> tuple[int, int] | None:
    """(POSIX second, 1024-week periods added): an earlier second is moved into [not_before, not_before + 1024 weeks).

    A later one is taken as stated, for a rollover only ever takes dates back; but None from twice as far on: no host has run that long.
    """
    periods = window_weeks(utc_s, not_before_s)
    if periods < 0:
        return (utc_s, 0) if periods == -1 else None
    return utc_s + periods * ROLLOVER_S, periods


class LabelGate:
    """One receiver's labels, one per second. ``rejected`` counts by reason; ``last`` is the last label let through."""

    def __init__(self) -> None:
        self.rejected: Counter[str] = Counter()
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

    def offer(self, label: SecondLabel) -> bool:
        """Whether ``label`` is the one for its second."""
        now = label.at.mono_ns
        named = label.utc_ns + NS * label.second_60
        if self._contradicted(label.sentence, named, now):
            self.rejected[Reject.LABELS_DISAGREE] += 1
            return False
        if label.sentence.startswith("NAV"):
            self._ubx_at = now
        elif self._ubx_at is not None and now - self._ubx_at < PREFER_UBX_NS:
            return False
        if self._jumped(named - now):
            self.rejected[Reject.DATE_JUMP] += 1
            return False
        if self.last is not None and second_of(self.last) == second_of(label) and self.last.second_60 == label.second_60:
            return False
        self.last = label
        return True

    def _contradicted(self, kind: str, named: int, now: int) -> bool:
        """Compare with what other kinds of statement said in this burst, and lately; keeps the dispute's state."""
        place = named - now
        before = self._place.get(kind)
        contradiction = agreement = False
        if now - self._burst_start < BURST_NS:
            for other, other_named in self._burst.items():
                if other != kind:
                    contradiction |= abs(named - other_named) >= CONTRADICTION_NS
                    agreement = True
            self._burst[kind] = named
        if before is not None and abs(place - before[0]) >= SAME_PLACE_NS:
            self._place.clear()  # the receiver stepped: what the other kinds said before proves nothing
        elif not agreement and before is not None:
            for other, (other_place, other_at) in self._place.items():
                if other != kind and now - other_at < FRESH_NS:
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
        """Whether the date is far from the last one and not yet confirmed."""
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


def second_of(label: SecondLabel) -> int:
    """The POSIX second that the label names."""
    return (label.utc_ns + EARLY_NS) // NS
