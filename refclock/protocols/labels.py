"""Candidate labels to one label a second: why a statement gives no label, and the gate that every decoder's labels pass.

A receiver states the time several times a second (RMC, ZDA, NAV-PVT, ...), and the statements need not agree; two devices may share a line.
The decoders turn each valid statement into a SecondLabel. The gate keeps them apart by *voice*, that is talker and sentence, and lets
through one per UTC second. It lets none through

* that stands still: a voice that names the same second again is no witness. It contradicts nobody, and no count begins anew for it;
* while NMEA and UBX contradict each other by half a second or more, for both could be the wrong one;
* while the date has just jumped by more than half a day, until three statements of a voice in a row stand by it.

While two talkers contradict each other (or two devices that use the same talker), each has its label a second, marked as in doubt
(``LabelDoubt.RIVAL_TALKER``); so have two sentences of one talker (``RIVAL_SENTENCE``): one is a second ahead, or the other comes a second
late. Which one is right, other witnesses tell.

Steps of whole seconds pass: ``timing.evidence`` decides whether a receiver is believed, and it must see them.

Flow: nmea | ubx | gpsd -> **labels** -> stream -> ``timing.receiver_time``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from refclock.sample import NS, Instant, LabelDoubt, LabelProtocol, ReceiverValue, SecondLabel
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
RIVALS_APART_NS: Final = 7 * NS // 10
"""ns; two talkers that agree differ by less in (named minus arrival) time: sentences of one device are up to 0.6 s apart. One that is a
second off and comes within 0.3 s of the other differs by more."""
STEPPED_NS: Final = 3 * NS // 4
"""ns; one kind of statement that moved by this in (named minus arrival) time has stepped: jitter stays below, steps are whole seconds."""
STANDS_NS: Final = 3 * NS // 2
"""ns; a second that a voice still names after this is told as frozen. At a leap second some receivers name one second for two."""
SECONDS_MAX: Final = 64
"""Seconds of a voice that are remembered, so that one that is repeated every now and then is recognised."""
VOICES_MAX: Final = 32
"""Voices that are remembered: a line has two or three, garbage may look like any number."""
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
"""Labels of a voice in a row that must stand by a new date before it is passed on: one damaged date, or two, are not enough."""


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
    FROZEN = "frozen"  # the same second again: whoever says so stands still
    UNRESOLVED = "not-resolved"  # UBX: the receiver says that its date, time or leap count is not known yet
    UNKNOWN = "unknown-sentence"  # not a sentence or message that carries time, fix or satellites
    REDUNDANT = "redundant"  # nothing is wrong with it: another statement labels this second. Not counted


class Decoded(NamedTuple):
    """What came of one frame: its values, and why it gave no label or only some of its values, None when nothing was wrong with it."""

    values: list[ReceiverValue]
    reject: Reject | None = None


Second = tuple[int, bool]
"""POSIX second, and whether it is the 23:59:60 that shares the number."""


@dataclass(slots=True, eq=False)
class _Lane:
    """Labels of one voice that go on together: their place hardly moves. A second device that uses the same talker, and a receiver that
    steps, begin another.

    Of the last label: ``place``, named minus stamped time; ``named``, ns of UTC; ``at``, its stamp, and ``came``, its own arrival, raw ns.
    ``began``: the first stamp; ``count``: labels so far.
    """

    place: int
    named: int
    at: int
    came: int
    began: int
    count: int = 1


class _Voice:
    """What a talker says in one kind of sentence or message."""

    def __init__(self, talker: str, sentence: str) -> None:
        self.talker, self.sentence = talker, sentence
        self.lanes: list[_Lane] = []  # those heard lately
        self.heard = 0
        self._seconds: dict[Second, tuple[_Lane, int]] = {}  # the second named -> (its lane, when it was named first), the last one last

    def standing(self, second: Second, place: int, now: int) -> _Lane | None:
        """The lane whose second is named again: by the very next label, or by one whose lane never went on. (In a step back it did.) It is
        remembered as long as it is repeated."""
        if second not in self._seconds or self._fitting(place, now) is not None:
            return None
        lane, first = self._seconds[second]
        if next(reversed(self._seconds)) != second and lane.count > 1:
            return None
        del self._seconds[second]
        self._seconds[second] = lane, first
        return lane

    def named_at(self, second: Second) -> int:
        """Raw ns at which the lane of ``second`` named it first."""
        return self._seconds[second][1]

    def take(self, second: Second, named: int, now: int, came: int) -> _Lane:
        """The lane to which a label belongs."""
        place = named - now
        lane = self._fitting(place, now)
        self.lanes = [lane for lane in self.lanes if now - lane.at < STATEMENT_FRESH_NS]
        if lane is None:
            lane = _Lane(place, named, now, came, now)
            self.lanes.append(lane)
        elif named > lane.named:
            lane.place, lane.named, lane.at = place, named, now
            lane.count += second not in self._seconds or self._seconds[second][0] is not lane  # not by solutions within the second
        lane.came = came
        known, first = self._seconds.pop(second, (lane, now))
        self._seconds[second] = lane, first if known is lane else now
        if len(self._seconds) > SECONDS_MAX:
            del self._seconds[next(iter(self._seconds))]
        return lane

    def _fitting(self, place: int, now: int) -> _Lane | None:
        """The lane that a label at ``place`` goes on with."""
        fitting = (lane for lane in self.lanes if abs(place - lane.place) < STEPPED_NS and now - lane.at < STATEMENT_FRESH_NS)
        return min(fitting, key=lambda lane: abs(place - lane.place), default=None)


@dataclass(slots=True)
class _Dispute:
    """Two voices that contradict each other: with which lanes, when last (raw ns), and how often they have agreed in a row since."""

    lanes: tuple[_Lane, _Lane]
    at: int
    agreements: int = 0


Pair = tuple[tuple[str, str], tuple[str, str]]
"""Two voices, each as (talker, sentence), the lesser first."""


class LabelGate:
    """One line's labels. ``last`` is the last label let through that is not in doubt between talkers."""

    def __init__(self) -> None:
        self.last: SecondLabel | None = None
        self._burst_start = -BURST_NS
        self._voices: dict[tuple[str, str], _Voice] = {}  # (talker, sentence)
        self._disputes: dict[Pair, _Dispute] = {}
        self._given: dict[tuple[str, Second], int] = {}  # (talker, second let through) -> its stamp, of those just now
        self._ubx_at: int | None = None

    def burst(self, start_mono_ns: int) -> None:
        """The line spoke again after a silence: a cycle begins."""
        self._burst_start = start_mono_ns

    def offer(self, label: SecondLabel, came_ns: int) -> SecondLabel | Reject:
        """The label to use for its second: ``label``, marked while talkers contradict each other; or why it is not used. ``came_ns``: raw
        time at which its own statement came; its stamp may be earlier."""
        now, named = label.at.mono_ns, label.utc_ns + NS * label.second_60
        second = second_of(label), label.second_60
        voice = self._voice(label.talker, label.sentence, now)
        frozen = voice.standing(second, named - now, now)
        if frozen is not None:
            self._disputes = {pair: d for pair, d in self._disputes.items() if frozen not in d.lanes}
            voice.lanes = [lane for lane in voice.lanes if lane is not frozen]
            return Reject.FROZEN if now - voice.named_at(second) >= STANDS_NS else Reject.REDUNDANT
        lane = voice.take(second, named, now, came_ns)
        self._compare(voice, lane, came_ns)
        if any(a[0] != b[0] and "" in (a[0], b[0]) for a, b in self._disputes):  # UBX against NMEA
            return Reject.LABELS_DISAGREE
        if label.protocol is LabelProtocol.UBX:
            self._ubx_at = now
        elif self._ubx_at is not None and now - self._ubx_at < PREFER_UBX_NS:
            return Reject.REDUNDANT
        doubt = self._doubt(voice.talker)
        if doubt is None and self._jumped(lane):
            return Reject.DATE_JUMP
        if self._passed_over(label, second, rival=doubt is not None):
            return Reject.REDUNDANT
        self._given[voice.talker, second] = now
        if doubt is not None:
            return replace(label, doubt=doubt)
        self.last = label
        return label

    def _voice(self, talker: str, sentence: str, now: int) -> _Voice:
        key = talker, sentence
        if key not in self._voices:
            self._voices[key] = _Voice(talker, sentence)
            if len(self._voices) > VOICES_MAX:
                del self._voices[min(self._voices, key=lambda k: self._voices[k].heard if k != key else now)]
        self._voices[key].heard = now
        return self._voices[key]

    # ---- contradictions ----------------------------------------------------------------------------------------------------------

    def _compare(self, voice: _Voice, lane: _Lane, now: int) -> None:
        """Begin, renew and end the disputes that a label shows: the last of ``lane``.

        A dispute begins with a contradiction. It ends after AGREEMENTS agreements, or when it was not heard for DISPUTE_NS.
        """
        self._disputes = {pair: d for pair, d in self._disputes.items() if now - d.at <= DISPUTE_NS}
        stepped = lane.count == 1 and len(voice.lanes) > 1
        others = [other for other in self._voices.values() if other is not voice]
        # Statements of one burst name the same cycle, so they can be compared directly; else with what the others said lately.
        here = [(other, theirs) for other in others for theirs in other.lanes if self._in_burst(lane, now) and self._in_burst(theirs, now)]
        for other, theirs in here:
            self._judge(voice, other, (lane, theirs), contradiction=abs(lane.named - theirs.named) >= CONTRADICTION_NS)
        if stepped:  # the receiver stepped: what its other sentences said before proves nothing
            heard = [other for other, _theirs in here]
            for other in others:
                if other not in heard and _same_talker(voice.talker, other.talker):
                    other.lanes.clear()
        elif lane.count > 1 and not here:
            for other in others:
                fresh = [theirs for theirs in other.lanes if now - theirs.at < STATEMENT_FRESH_NS]
                if fresh:
                    theirs = max(fresh, key=lambda theirs: theirs.at)
                    apart_ns = APART_NS if _same_talker(voice.talker, other.talker) else RIVALS_APART_NS
                    self._judge(voice, other, (lane, theirs), contradiction=abs(lane.place - theirs.place) >= apart_ns)
        for theirs in voice.lanes:  # two devices that use the same talker: each goes on, and the one behind is heard after the one ahead
            if theirs.count > 1 < lane.count and lane.began < theirs.at and theirs.named - lane.named >= CONTRADICTION_NS:
                self._judge(voice, voice, (lane, theirs), contradiction=True)

    def _in_burst(self, lane: _Lane, now: int) -> bool:
        """Whether the last label of ``lane`` came in this burst."""
        return lane.came >= self._burst_start and now - self._burst_start < BURST_NS

    def _judge(self, voice: _Voice, other: _Voice, lanes: tuple[_Lane, _Lane], *, contradiction: bool) -> None:
        a, b = sorted(((voice.talker, voice.sentence), (other.talker, other.sentence)))
        dispute = self._disputes.get((a, b))
        if contradiction:
            self._disputes[a, b] = _Dispute(lanes, lanes[0].at)
        elif dispute is not None:
            dispute.agreements += 1
            if dispute.agreements >= AGREEMENTS:
                del self._disputes[a, b]

    def _doubt(self, talker: str) -> LabelDoubt | None:
        """What stands against the labels of ``talker``; None when nothing does."""
        disputes = [(a, b) for a, b in self._disputes if talker in (a[0], b[0])]
        if any(a == b or a[0] != b[0] for a, b in disputes):  # of one sentence with itself: two devices
            return LabelDoubt.RIVAL_TALKER
        return LabelDoubt.RIVAL_SENTENCE if disputes else None

    # ---- what else keeps a label back --------------------------------------------------------------------------------------------

    def _passed_over(self, label: SecondLabel, second: Second, *, rival: bool) -> bool:
        """Whether another label named this second, or a later cycle has been labelled already."""
        now = label.at.mono_ns
        self._given = {given: at for given, at in self._given.items() if abs(now - at) < STEPPED_NS}
        if (label.talker, second) in self._given:
            return True
        if rival or self.last is None:
            return False
        return second == (second_of(self.last), self.last.second_60) or now < self.last.at.mono_ns

    def _jumped(self, lane: _Lane) -> bool:
        """Whether the date is far from the last one and not yet confirmed."""
        if self.last is None:
            return False
        return abs(lane.place - (self.last.utc_ns - self.last.at.mono_ns)) >= JUMP_NS and lane.count < JUMP_LABELS


def _same_talker(one: str, other: str) -> bool:
    """Whether two talkers may be one receiver's own: what has none is."""
    return one == other or "" in (one, other)


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
