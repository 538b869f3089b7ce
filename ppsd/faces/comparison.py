"""Two clocks of one machine beside each other: refclock's, and the system clock as another program keeps it. Pure.

Both are held against the same pulses (or, without one, against the same messages): how near each clock was when a pulse came. That measures
what the two do with the pulses. A fault that all pulses share, such as a wrong cable delay, is in neither figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from ppsd.faces.text import plain_ns
from ppsd.snapshot import Snapshot, SourceStatus
from refclock.robust import median

NEARLY: Final = 0.95
"""Share of the pulses that were nearer than the second figure of a clock."""
SAME: Final = 1.25
"""Two figures of one kind that differ by a smaller factor are called the same: the next five minutes would give another."""
UNKNOWN_NS: Final = 16_000_000_000
"""ns; the kernel's largest maximum error (NTP_PHASE_LIMIT in linux/timex.h): no program has told it a smaller one."""
ENOUGH: Final = 20
"""Pulses; of fewer nothing is said."""
READ_NS: Final = 100
"""ns; two programs do not read a clock better than this, so smaller distances are the same."""


@dataclass(frozen=True, slots=True)
class Look:
    """Both clocks when a pulse came. ``apart_ns``: the system clock minus the served time. ``pulse_ns``: the pulse minus the served time.
    ``ours_ns``: the bound of the served time. ``theirs_ns``: the error that the other program has told the kernel."""

    apart_ns: int
    pulse_ns: int
    ours_ns: int
    theirs_ns: int


def look_at(clock: Snapshot, source: SourceStatus, kernel_error_ns: int) -> Look | None:
    """The look of one snapshot; None while there is something that it does not say."""
    if clock.system_offset_ns is None or source.offset_ns is None or clock.bound_ns is None:
        return None
    return Look(-clock.system_offset_ns, source.offset_ns, clock.bound_ns, kernel_error_ns)


@dataclass(frozen=True, slots=True)
class Distance:
    """How near one clock was to the pulses: half of them were nearer than ``typical_ns``, and NEARLY than ``nearly_ns``. ``bound_ns``: the
    error that it promises not to exceed; None: it promises nothing."""

    typical_ns: float
    nearly_ns: float
    bound_ns: float | None


def _distance(from_pulse_ns: Iterable[float], bound_ns: float | None) -> Distance:
    ordered = sorted(map(abs, from_pulse_ns))
    return Distance(median(ordered), ordered[int(NEARLY * (len(ordered) - 1))], bound_ns)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the looks show. ``other``: the program that keeps the system clock. ``pulsed``: by pulses, not by messages. ``apart_ns``: the
    system clock minus the served time; half of the looks were above it."""

    other: str
    pulsed: bool
    looks: int
    theirs: Distance
    ours: Distance
    apart_ns: float

    @classmethod
    def of(cls, other: str, pulsed: bool, looks: Sequence[Look]) -> Comparison | None:
        """None: there are too few. Of the other's promises the least counts: the kernel's error grows between two of them. Of ours the
        last: the bound narrows for minutes after the lock."""
        if len(looks) < ENOUGH:
            return None
        told_ns = min(look.theirs_ns for look in looks)
        theirs = _distance((look.pulse_ns - look.apart_ns for look in looks), told_ns if told_ns < UNKNOWN_NS else None)
        ours = _distance((look.pulse_ns for look in looks), looks[-1].ours_ns)
        return cls(other, pulsed, len(looks), theirs, ours, median([look.apart_ns for look in looks]))

    @property
    def agree(self) -> bool:
        """Whether both promises may be true at once. So they may when one promises nothing."""
        theirs, ours = self.theirs.bound_ns, self.ours.bound_ns
        return theirs is None or ours is None or abs(self.apart_ns) <= theirs + ours

    @property
    def nearer(self) -> float:
        """How many times nearer to the pulses refclock was than the other; below 1: the other was nearer."""
        return max(self.theirs.nearly_ns, READ_NS) / max(self.ours.nearly_ns, READ_NS)

    @property
    def good(self) -> bool:
        """Nothing speaks against refclock: the promises agree, and it was as near to the pulses."""
        return self.agree and self.nearer > 1 / SAME

    def to_json(self) -> dict[str, Any]:
        """For json.dumps; keys are the names of the fields and properties."""
        return asdict(self) | {"agree": self.agree, "nearer": self.nearer, "good": self.good}

    def text(self) -> str:
        """The comparison as a table and sentences."""
        what = "pulse" if self.pulsed else "message"
        rows = [
            ("", self.other, "refclock", ""),
            (f"from the {what}", *self._pair("typical_ns"), f"half of the {what}s were nearer"),
            ("", *self._pair("nearly_ns"), "19 of 20 were nearer"),
            ("promises", *self._pair("bound_ns"), "never to be further off"),
        ]
        table = [f"{first:<16}{second:>12}{third:>12}   {note}".rstrip() for first, second, third, note in rows]
        return "\n".join([*table, "", *self._sentences(what)])

    def _pair(self, name: str) -> tuple[str, str]:
        theirs, ours = getattr(self.theirs, name), getattr(self.ours, name)
        return "nothing" if theirs is None else plain_ns(theirs), plain_ns(ours)

    def _sentences(self, what: str) -> list[str]:
        side = "ahead of" if self.apart_ns > 0 else "behind"
        apart = (
            f"{self.other}'s clock is {plain_ns(abs(self.apart_ns))} {side} refclock's"
            if round(self.apart_ns)
            else "Both clocks are the same"
        )
        if not self.agree:
            said = [
                f"{apart}: more than both promise together, so one of them is wrong. A third clock tells: refclock doctor --against HOST"
            ]
        else:
            said = [f"{apart}, as both promises allow." if self.theirs.bound_ns is not None else f"{apart}."]
        theirs, ours = self.theirs.bound_ns, self.ours.bound_ns
        promise = (
            ""
            if theirs is None or ours is None
            else _than(theirs / max(ours, 1.0), "its promise is {} narrower", "its promise is {} wider")
        )
        near = _than(self.nearer, f"is {{}} nearer to the {what}", f"is {{}} further from the {what}")
        said.append(f"refclock {near or f'is as near to the {what} as {self.other}'}" + (f", and {promise}." if promise else "."))
        return said


def _than(times: float, better: str, worse: str) -> str:
    """A factor in words; "" when it is about 1."""
    if 1 / SAME < times < SAME:
        return ""
    factor = times if times > 1 else 1 / times
    words = "more than 1000" if factor > 1000 else f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}"
    return (better if times > 1 else worse).format(f"{words} times")
