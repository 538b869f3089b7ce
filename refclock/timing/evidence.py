"""Which second is it? What each witness can prove, and which may overrule which.

A pulse says exactly when a second begins and nothing of which one. A label says which one, and that it has begun: it comes at its second or
later, by anything from nothing to seconds (line speed, load, firmware), and it may be made with a wrong leap count. So two things are asked
of a receiver's labels: are they made with the right TAI-UTC, and how late do they come?

Three laws:

1. **Rank, not persistence.** A witness of lower rank never overrules one of higher rank, however long it goes on. Time may fill a void.
2. **A standing contradiction is served.** While a witness that could be right contradicts the served second, that second is withheld.
3. **Explain before refusing.** The cheapest fault that makes exactly this pattern decides who is in doubt, and it is what people are told.

The witnesses, in the order of their worth (``Rank``):

==============  ================================================================  ==========================================================
witness         what it proves                                                    what it can never prove
==============  ================================================================  ==========================================================
KEPT            a clock that another program keeps, as the kernel says, or        -
                several sources that agree: the second, within their error
COUNT           labels of a receiver that has the leap count from the sky: the    that a clock is ahead: a label may be late
                second has begun
AGREEMENT       labels, and a clock that nobody keeps names the same second: two  anything against the two above
                accounts that know nothing of each other
STEADINESS      labels that tell one story for 13 minutes with a fix: a receiver  anything against a standing witness; that a firmware is
                that began with nothing has read the almanac's leap page          right; that a label is not late
==============  ================================================================  ==========================================================

The served timescale is a witness of the rank of the best evidence that it was named by or has agreed with since. While it stands:

* A label that comes within its usual delay names the served second. It confirms it.
* A label that comes later than usual, by no whole number of seconds, is late. It proves nothing, and the pulses hold the second.
* A label that is whole seconds off from one second to the next, while the pulses have not moved, is made with another leap count, or it is
  late. If the leap count is known to be from the sky and the timescale rests on less, the second is given up. If the timescale rests on
  steadiness alone, either may be right, and it is withheld. Otherwise the labels are in doubt, for ever if need be.

Without a timescale a clock that is kept names the second. A label within ``EARLIEST_NS`` and ``LATEST_NS`` of it is explained by its delay,
whatever that is. Any other contradicts it, and nothing is served. Without a kept clock labels are believed as the table says.

The *place* of a label is the TAI that it names minus its arrival on the oscillator: constant but for the message delay, also through a leap
second that is known. When it moves by whole seconds, the receiver was wrong before or is wrong now, and its trust begins anew. So it does
after a silence, unless the labels come back at the same place.

Flow: SecondLabel (possible by ``dates``) -> **evidence** -> Belief (to ``receiver_time``, which hands trusted labels on to pairing). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from refclock.condition import Code, Condition, obstacle
from refclock.sample import NS, LabelDoubt, LeapNotice, SecondLabel
from refclock.timescales import DAY_S

STEADY_S: Final = 780
"""Seconds of fix after which a leap count must have come: 12.5 minutes for all pages of the navigation message (IS-GPS-200 section
20.3.3.5.1), and half a minute."""
GAP_S: Final = 10.0
"""Seconds without a label after which trust begins anew: as long as pulses are believed without a fix (``pairing.FIX_TIMEOUT_NS``)."""
RETURN_S: Final = 1800
"""Seconds of silence after which the place proves nothing: an oscillator that is 100 ppm off has moved it by 0.18 s."""
RETURNED: Final = 3
"""Labels at the old place that restore trust after a silence: one or two may be strays."""
STEP_NS: Final = 700_000_000
"""ns; the least that makes a step of whole seconds. Labels of one receiver jitter by less (SiRF: 0.17 s; a slow line with a changing burst:
0.4 s)."""
WHOLE_NS: Final = 300_000_000
"""ns; a move this close to whole seconds may be one: a label's jitter before it and after it, 0.15 s each."""
EXACT_NS: Final = 120_000_000
"""ns; the same for the median of several labels against the usual delay."""
STANDING: Final = 3
"""Labels in a row that make a contradiction: one or two may be strays of a stalled host or a torn burst."""
OVERRULING: Final = 5
"""Labels in a row of a higher rank that overrule the served second: as many as name one (``pairing.AGREEING``)."""
IN_TIME_NS: Final = (-350_000_000, 825_000_000)
"""ns; arrival minus named second between which a label names the served second, whatever its usual delay: messages take 0.05 to 0.65 s, and
jitter 0.15 s. The window is 1.175 s wide, and a label one second off is outside it unless its delay is near an end."""
USUAL_NS: Final = 350_000_000
"""ns; the same about the delay that was measured or stated: half a second less 0.15 s of jitter."""
CLOCK_NS: Final = (-300_000_000, 700_000_000)
"""ns; the same against a clock. It is one second wide, so a label that is a whole second off never fits as well."""
EARLIEST_NS: Final = -1_000_000_000
"""ns; a receiver may name a second this long before it begins: some send the next pulse's second, right after the pulse before it."""
LATEST_NS: Final = 3_000_000_000
"""ns; a label that comes later than this is not explained by a slow line: its buffer of 1 to 4 kB takes 1 to 4 s at 9600 baud, and the
line then drops messages."""
CLOCK_ERROR_NS: Final = 50_000_000
"""ns; a kept clock is never believed more closely: the kernel's maximum error may leave out the asymmetry of the network."""
NAMES_NS: Final = 350_000_000
"""ns; a witness with a larger error does not name one second: half a second less 0.15 s of jitter."""
COUNTS_S: Final = 30
"""Seconds; a leap count is wrong by less: TAI-UTC has grown by 27 s since 1972."""
LOCAL_S: Final = 900
"""Seconds; local times differ from UTC by multiples of a quarter of an hour."""


class Rank(IntEnum):
    """What a witness of the second is worth; see the module."""

    STEADINESS = 1
    AGREEMENT = 2
    COUNT = 3
    KEPT = 4


@dataclass(frozen=True, slots=True)
class Witness:
    """A standing witness: at a label's raw arrival TAI was ``tai_ns`` within ``error_ns``."""

    tai_ns: int
    error_ns: float
    rank: Rank = Rank.KEPT


@dataclass(frozen=True, slots=True)
class Belief:
    """Whether a label may be used for time: ``because`` it is confirmed, or not, for the reason in ``doubt``. ``held_s``: seconds of steady
    fix that would still be needed, 0 when confirmed. ``rank``: what its word is worth; None while it is worth nothing."""

    because: str = ""
    doubt: Condition | None = None
    held_s: float = 0.0
    rank: Rank | None = None

    @property
    def trusted(self) -> bool:
        """The label may be used."""
        return self.doubt is None

    @property
    def why(self) -> str:
        """The reason, either way."""
        return self.because if self.doubt is None else self.doubt.words


@dataclass(frozen=True, slots=True)
class Dispute:
    """Labels that contradict the served second. ``late_ns``: how late they come by it; negative: early. ``jumped``: they began to from one
    label to the next. ``whole``: they did so by whole seconds. ``labels``: how many in a row. ``rank``: what their word is worth."""

    late_ns: int
    jumped: bool
    whole: bool
    labels: int
    rank: Rank | None

    def overrules(self, served: Rank) -> bool:
        """Whether the served second, which rests on ``served``, must be given up."""
        return self.whole and self.labels >= OVERRULING and self.rank is not None and self.rank > served

    def unsettles(self, served: Rank) -> bool:
        """Whether either may be right."""
        return self.whole and self.labels >= STANDING and served is Rank.STEADINESS


class Evidence:
    """What speaks for one receiver's labels. ``unkept_clock``: whether a system clock that nobody keeps may confirm them."""

    def __init__(self, *, unkept_clock: bool = True, steady_s: float = STEADY_S, gap_s: float = GAP_S) -> None:
        self.unkept_clock = unkept_clock
        self.steady_s = steady_s
        self.gap_s = gap_s
        self.dispute: Dispute | None = None
        """The labels contradict the served second; None while they do not."""
        self._confirmed: tuple[str, Rank] | None = None
        self._place: int | None = None
        self._since = 0  # mono_ns of the first label of this place
        self._seen = 0  # mono_ns of the last label
        self._odd: int | None = None  # the place of a single label that fell out
        self._was: tuple[tuple[str, Rank], int] | None = None  # (confirmation, place) before a silence
        self._returned = 0
        self._late_ns: int | None = None  # how late the last label came that named the served second
        self._lates: list[int] = []  # how late the last labels came that contradict it
        self._moved = False  # the raw clock jumped since the last label
        self._denied = ""  # the receiver itself says that it does not know its leap count, in words
        self._refuted = ""  # a table says that the receiver's leap count is wrong, in words
        self._ended: tuple[tuple[str, Rank], int] | None = None  # (confirmation, raw instant at which a step or a silence ended it)
        self._counted = False  # the receiver itself says that it has its leap count from the sky
        self._stated = self._flagged = False  # it has ever said so; a label of its has ever claimed it

    def notice(self, notice: LeapNotice, table_s: int | None = None) -> None:
        """What the receiver says of its leap count. A stated one confirms. One that it does not know yet is taken at its word, whatever a
        clock that nobody keeps says. ``table_s``: TAI-UTC by a valid leap second table; None without one. A count that differs is wrong."""
        self._denied = self._refuted = ""
        if notice.tai_offset_s is None:
            self._denied = "the receiver says that it does not know its leap count yet"
        elif table_s is not None and notice.tai_offset_s != table_s:
            self._refuted = (
                f"the receiver counts with TAI-UTC = {notice.tai_offset_s} s, and a valid leap second table says {table_s} s: wait until "
                "it has read the almanac; update its firmware if that goes on"
            )
        self._counted = not (self._denied or self._refuted)
        self._stated |= self._counted
        if not self._counted and self._confirmed is not None and self._confirmed[1] is Rank.COUNT:
            self._confirmed = None
        if self._counted and self._place is not None and self._odd is None:
            self._confirm("receiver states its leap count", Rank.COUNT)

    def raw_clock_jumped(self, since_ns: int) -> None:
        """The raw clock paused or jumped, at raw ``since_ns`` or just before: the next label has a new place, and what was known of the
        receiver before that holds."""
        self._moved = True
        self.dispute, self._late_ns, self._lates = None, None, []
        if self._confirmed is None and self._ended is not None and self._ended[1] >= since_ns:
            self._confirmed = self._ended[0]

    def judge(
        self,
        label: SecondLabel,
        tai_ns: int,
        *,
        kept: Witness | None = None,
        served: Witness | None = None,
        usual_ns: float | None = None,
    ) -> Belief:
        """Judge a label; labels come in the order of their arrival. ``tai_ns``: the second that it names. ``kept``: the clock that another
        program keeps. ``served``: the timescale. ``usual_ns``: how late labels usually come, None while that is not known."""
        if label.doubt is not None and not self._vouched(label, tai_ns, kept, served):
            return Belief(doubt=_unvouched(label))
        stray = self._follow(tai_ns, label)
        counted = label.leap_known and not self._refuted
        self._flagged |= counted
        if counted:
            self._confirm("receiver states its leap count", Rank.COUNT)
        if served is not None:
            return self._beside(served, tai_ns, kept, usual_ns, counted=counted)
        self.dispute, self._late_ns = None, None
        if kept is not None:
            by_clock = _by_clock(kept, tai_ns)
            if by_clock is not None:
                return by_clock
        if stray is not None:
            return stray
        self._weigh(label)
        if self._confirmed is not None:
            return Belief(self._confirmed[0], rank=self._confirmed[1])
        steady_s = (self._seen - self._since) / NS
        words = self._refuted or self._denied or f"leap count not known yet: {steady_s:.0f} of {self.steady_s:.0f} s of steady fix"
        return Belief(doubt=obstacle(Code.LEAP_COUNT_UNKNOWN, words), held_s=self.held_s)

    def _vouched(self, label: SecondLabel, tai_ns: int, kept: Witness | None, served: Witness | None) -> bool:
        """Whether another witness names the second of a label that is none of its own."""
        if any(_fits(w, tai_ns) for w in (kept, served) if w is not None):
            return True
        if label.doubt is not LabelDoubt.CYCLE_UNCLEAR:
            return False
        if kept is not None:
            by_clock = _by_clock(kept, tai_ns)
            return by_clock is not None and by_clock.trusted
        return served is None and self._clock_agrees(label)

    def _clock_agrees(self, label: SecondLabel) -> bool:
        """Whether a system clock that nobody keeps names the label's second."""
        return self.unkept_clock and CLOCK_NS[0] <= label.at.real_ns - label.utc_ns <= CLOCK_NS[1]

    @property
    def withdrawn(self) -> bool:
        """Whether labels were believed by their own flag, and the receiver's first word on its count denies it."""
        return bool(self._denied) and self._flagged and not self._stated

    @property
    def held_s(self) -> float:
        """Seconds of steady fix still wanted as of the last label, 0 when confirmed: for a countdown."""
        return 0.0 if self._confirmed is not None else max(0.0, self.steady_s - (self._seen - self._since) / NS)

    # ---- while the timescale stands --------------------------------------------------------------------------------------------------

    def _beside(self, served: Witness, tai_ns: int, kept: Witness | None, usual_ns: float | None, *, counted: bool) -> Belief:
        """Compare a label with the served second."""
        late_ns = served.tai_ns - tai_ns
        if in_time(late_ns, usual_ns):
            if self._confirmed is None:
                self._confirm("the served time names the same second", min(served.rank, Rank.COUNT))
            self.dispute, self._late_ns, self._lates = None, late_ns, []
            assert self._confirmed is not None
            return Belief(self._confirmed[0], rank=self._confirmed[1])
        self._lates = [*self._lates, late_ns][-OVERRULING:]
        before = self.dispute
        jumped = before.jumped if before is not None else self._late_ns is None or abs(late_ns - self._late_ns) >= STEP_NS
        middle = sorted(self._lates)[len(self._lates) // 2]
        off = middle - (usual_ns if usual_ns is not None else self._late_ns or 0)
        whole = jumped and abs(off - _nearest(off)) <= EXACT_NS
        rank = None
        if kept is not None and _fits(kept, tai_ns):
            rank = Rank.KEPT
        elif counted or self._counted:
            rank = Rank.COUNT
        self.dispute = Dispute(middle, jumped, whole, 1 if before is None else before.labels + 1, rank)
        return Belief(doubt=obstacle(Code.SECOND_CONTRADICTED, explain(self.dispute)))

    # ---- the place -------------------------------------------------------------------------------------------------------------------

    def _follow(self, tai_ns: int, label: SecondLabel) -> Belief | None:
        """Follow the place of the labels. A single label out of place is refused; the second that stands by it begins anew."""
        now = label.at.mono_ns
        place = tai_ns - now
        silence_s, self._seen = (now - self._seen) / NS, now
        if self._place is None:
            self._begin(place, now)
        elif self._moved:
            self._place, self._odd = place, None
        elif silence_s > self.gap_s:
            self._was = (self._confirmed, self._place) if self._confirmed is not None else self._was
            if silence_s > RETURN_S:
                self._was = None
            self._begin(place, now)
        self._moved = False
        assert self._place is not None
        moved = place - self._place
        if abs(moved) >= STEP_NS:
            if self._odd is None or abs(place - self._odd) >= STEP_NS:
                self._odd = place
                words = f"named second moved by {moved / NS:+.1f} s against the labels before it"
                return Belief(doubt=obstacle(Code.SECOND_MOVED, words), held_s=self.held_s)
            if abs(moved - _nearest(moved)) <= WHOLE_NS:
                self._was = None
                self._begin(self._odd, now)
            else:  # later or earlier than before, and made with the same leap count
                self._place = self._odd
        self._odd = None
        self._place += (place - self._place) // 16  # the oscillator and the message delay change slowly
        return None

    def _begin(self, place: int, now: int) -> None:
        self._place, self._since, self._odd = place, now, None
        self._ended = (self._confirmed, now) if self._confirmed is not None else self._ended
        self._confirmed = None
        self._returned = 0

    def _weigh(self, label: SecondLabel) -> None:
        """Look for what confirms the labels while nothing better stands."""
        assert self._place is not None
        if self._confirmed is not None:
            return
        if self._was is not None:
            (why, rank), was = self._was
            self._returned = self._returned + 1 if abs(self._place - was) < STEP_NS else 0
            if self._returned >= RETURNED:
                self._confirm(why if why.endswith(SAME_AGAIN) else why + SAME_AGAIN, rank)
        if self._denied or self._refuted:
            return
        if self._clock_agrees(label):
            self._confirm(f"system clock agrees within {abs(label.at.real_ns - label.utc_ns) / NS:.2f} s", Rank.AGREEMENT)
        if self._seen - self._since >= self.steady_s * NS:
            self._confirm(f"{self.steady_s:.0f} s of steady fix: a leap count must have come", Rank.STEADINESS)

    def _confirm(self, why: str, rank: Rank) -> None:
        if self._confirmed is None or rank > self._confirmed[1]:
            self._confirmed = why, rank


SAME_AGAIN: Final = "; the same seconds after a pause"


def in_time(late_ns: float, usual_ns: float | None) -> bool:
    """Whether a label that came ``late_ns`` after a second names it. ``usual_ns``: how late labels usually come, None while not known."""
    return IN_TIME_NS[0] <= late_ns <= IN_TIME_NS[1] or (usual_ns is not None and abs(late_ns - usual_ns) <= USUAL_NS)


def explain(dispute: Dispute) -> str:
    """What most probably makes labels contradict the served second."""
    return f"its messages {_off(dispute.late_ns)}: {_cause(dispute.late_ns, whole=dispute.whole)}"


def _by_clock(kept: Witness, tai_ns: int) -> Belief | None:
    """What a kept clock says of a label; None when it says nothing."""
    late_ns = kept.tai_ns - tai_ns
    if not EARLIEST_NS - kept.error_ns <= late_ns <= LATEST_NS + kept.error_ns:
        words = (
            f"its messages {_off(late_ns)} by the system clock, which another program keeps within {kept.error_ns / 1e6:.0f} ms: "
            f"{_cause(late_ns, whole=True)}; or that clock is wrong: compare it with others (chronyc sources, refclock query)"
        )
        return Belief(doubt=obstacle(Code.CLOCK_CONTRADICTS, words))
    if kept.error_ns > NAMES_NS:
        return None
    return Belief(f"system clock, which another program keeps, agrees: its messages {_off(late_ns)}", rank=Rank.KEPT)


def _fits(witness: Witness, tai_ns: int) -> bool:
    """Whether a witness names the very second that a label names."""
    return witness.error_ns <= NAMES_NS and CLOCK_NS[0] <= witness.tai_ns - tai_ns <= CLOCK_NS[1]


def _unvouched(label: SecondLabel) -> Condition:
    if label.doubt is LabelDoubt.RIVAL_TALKER:
        words = (
            f"two talkers on its line name different seconds, and nothing confirms those of {label.talker}: switch the other sentences "
            "off, or let NTP keep the system clock"
        )
        return obstacle(Code.TWO_TALKERS, words)
    if label.doubt is LabelDoubt.RIVAL_SENTENCE:
        words = (
            f"its sentences of different kinds name different seconds, and nothing confirms those of {label.sentence}: switch off all but "
            "one kind (RMC), raise the speed (baud) if they lag, or let NTP keep the system clock"
        )
        return obstacle(Code.LABELS_DISAGREE, words)
    if label.doubt is LabelDoubt.CYCLE_UNCLEAR:
        words = (
            f"its {label.sentence} comes a second or more after the first sentence with the same time, and nothing confirms that "
            "both belong to one cycle: let it send RMC first, raise the speed (baud), or let NTP keep the system clock"
        )
        return obstacle(Code.LABELS_REFUSED, words)
    words = (
        f"it sends {label.sentence}, but no message that states a fix, and nothing confirms its seconds: switch on RMC or GGA, or let NTP "
        "keep the system clock"
    )
    return obstacle(Code.LABELS_REFUSED, words)


def _off(late_ns: float) -> str:
    """How far labels are off, in words."""
    s = abs(late_ns) / NS
    how_far = f"{s / DAY_S:.1f} days" if s >= DAY_S else f"{s / 3600:.1f} hours" if s >= 3600 else f"{s:.2f} s"
    return f"come {how_far} after the seconds that they name" if late_ns >= 0 else f"name seconds {how_far} before these begin"


def _cause(late_ns: float, *, whole: bool) -> str:
    """The cheapest fault that puts labels off by this."""
    s = abs(late_ns) / NS
    if s >= DAY_S:
        return "its date is wrong (a week rollover, or a frozen sentence)"
    if s > COUNTS_S and abs(s - LOCAL_S * round(s / LOCAL_S)) <= -EARLIEST_NS / NS:
        return "it sends local time: set it to UTC"
    if s > COUNTS_S:
        return "its time of day is wrong"
    if late_ns > 0 and not whole:
        return "its line or its firmware delays them: raise the speed, or let it send fewer sentences"
    if late_ns > 0:
        return "it delays them by whole seconds, or its leap count is too large"
    return "its leap count is not the present one, or it names the next second" if whole else "it names the next second"


def _nearest(ns: float) -> int:
    return round(ns / NS) * NS
