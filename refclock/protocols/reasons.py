"""Why a receiver's statements of time give no label, in words with the remedy: what was dropped most among the last ones is the reason.

Flow: labels (``Reject``) | ``LabelDoubt`` -> **reasons** -> ``LineStatus.unlabelled``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Final

from refclock.protocols.labels import STATEMENT_FRESH_NS, Reject
from refclock.sample import NS, LabelDoubt

Reason = Reject | LabelDoubt
"""Why a statement gave no label, or one that is no witness of its own."""

LAST: Final = 16
"""Statements of time that are remembered: some seconds of RMC, ZDA and NAV-PVT, so that a reason that has passed is soon forgotten."""
TOLD_FROM: Final = 3
"""Statements that must have been dropped before a reason is told: the first ones on a line that was just opened may be damaged."""
UNDATED_NS: Final = 10 * NS
"""ns without a statement of time on a line that speaks, after which it is told that none comes. Slow receivers state it every 4 s."""

KINDS_MAX: Final = 16
"""Kinds of message without time that are remembered: receivers send about ten, garbage may look like any number."""

SKY: Final = "give the antenna a wide view of the sky"
LINE: Final = "check the speed (baud), the cable and the ground wire, and let no other program read the line"
FIRMWARE: Final = "wait for the fix; if that goes on, update the receiver's firmware or replace it"

REASONS: Final[Mapping[Reason, tuple[str, str]]] = {
    Reject.VOID: ("says itself that its time is not valid (status V)", SKY),
    Reject.NO_FIX: ("states the time without a valid fix (battery clock)", SKY),
    Reject.ESTIMATED: ("says that its fix is estimated (dead reckoning), so its clock runs free", SKY),
    Reject.MANUAL_OR_SIMULATED: (
        "says that its position was typed in or is simulated",
        f"end the simulation or the manual mode, and {SKY}",
    ),
    Reject.EMPTY: ("leaves the time or the date empty", f"{SKY}; with a fix: switch on RMC or ZDA (or NAV-PVT)"),
    Reject.BAD_DATE: ("names dates before 1980 or days that do not exist", FIRMWARE),
    Reject.BAD_TIME: ("names times of day that do not exist", FIRMWARE),
    Reject.BAD_FIELDS: ("sends messages that do not have the fields of their kind", LINE),
    Reject.CHECKSUM: ("sends sentences with a wrong checksum", LINE),
    Reject.NO_CHECKSUM: ("sends sentences whose checksum is missing, beside others that have one", LINE),
    Reject.DATE_WINDOW: ("names dates that are decades ahead", FIRMWARE),
    Reject.DATE_JUMP: ("jumps from one date to another", "wait until it stands by one; update the receiver's firmware if it goes on"),
    Reject.FROZEN: (
        "names the same second again and again: its clock stands still",
        "power it off and on; update the firmware if that goes on",
    ),
    Reject.LABELS_DISAGREE: (
        "names different seconds in messages of different kinds",
        "switch off all but one of them (RMC, or NAV-PVT), or raise the speed (baud)",
    ),
    Reject.UNRESOLVED: (
        "says that it does not know date, time or leap seconds yet",
        f"{SKY} and wait: the leap seconds take up to 13 minutes after a cold start",
    ),
    Reject.UNKNOWN: ("sends messages that state neither time, fix nor satellites", "switch on RMC or ZDA (or NAV-PVT)"),
    Reject.REDUNDANT: ("repeats the same second, as if its clock stood still", "power it off and on; update the firmware if that goes on"),
    LabelDoubt.FIX_UNSTATED: (
        "sends only ZDA, which does not say whether there is a fix",
        "add RMC or GGA (they state the fix), or let NTP keep the system clock",
    ),
}
"""Reason -> what "it" does, and the remedy."""
FIXLESS: Final = frozenset((Reject.VOID, Reject.NO_FIX, Reject.EMPTY, Reject.UNRESOLVED))
"""What a receiver that has no fix says. The view of the sky tells that with figures."""


def words(reason: Reason) -> str:
    """The reason as a sentence about the receiver, with the remedy."""
    what, remedy = REASONS[reason]
    return f"it {what}: {remedy}"


class Unlabelled:
    """The last statements of time on one line. Times are raw ns."""

    def __init__(self) -> None:
        self._dropped: deque[Reason] = deque(maxlen=LAST)
        self._told: Reason | None = None
        self._labelled_ns: int | None = None
        self._stated_ns: int | None = None
        self._spoke: dict[str, int] = {}  # kind of message that states no time -> when it last came
        self._began_ns: int | None = None

    def stated(self, reason: Reason | None, mono_ns: int) -> None:
        """A statement of time came: ``reason`` why it gave no label of its own worth; None: it gave one."""
        self._stated_ns = mono_ns
        if reason is None:
            self._labelled_ns = mono_ns
            self._dropped.clear()
            self._told = None
        else:
            self._dropped.append(reason)

    def spoke(self, kind: str, mono_ns: int) -> None:
        """A message of another kind came."""
        if self._began_ns is None:
            self._began_ns = mono_ns
        if kind in self._spoke or len(self._spoke) < KINDS_MAX:
            self._spoke[kind] = mono_ns

    @property
    def fixless(self) -> bool:
        """Whether the reason told last is what a receiver without a fix says."""
        return self._told in FIXLESS

    def why(self, mono_ns: int) -> str:
        """Why no labels come, in words with the remedy; "" while they come, and while nothing comes at all."""
        since = self._began_ns if self._stated_ns is None else self._stated_ns
        if since is not None and mono_ns - since > UNDATED_NS:
            self._told = None
            kinds = sorted(kind for kind, when in self._spoke.items() if mono_ns - when < UNDATED_NS)
            listed = " and ".join(filter(None, [", ".join(kinds[:-1]), *kinds[-1:]]))
            return f"it sends only {listed}, nothing that states the date: switch on RMC or ZDA (or NAV-PVT)" if kinds else ""
        if self._labelled_ns is not None and mono_ns - self._labelled_ns < STATEMENT_FRESH_NS:
            return ""
        if len(self._dropped) < TOLD_FROM:
            return ""
        tally = Counter(self._dropped)
        if self._told is None or tally[self._told] < max(tally.values()):  # of two that come in turn, one is told
            self._told = tally.most_common(1)[0][0]
        return words(self._told)
