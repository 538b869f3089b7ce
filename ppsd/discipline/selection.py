"""Selects the source to serve, by agreement of intervals.

Each source claims an interval: its TAI now, plus and minus its bound. The largest group whose intervals share a point are the truechimers
(Marzullo's algorithm, RFC 5905 section 11.2.1). The group must be a majority, so of two sources that contradict each other neither wins.
A source whose seconds others name has no vote beside one that names its own, for it would vote twice what those say. When there are sources
with ``trust``, only they vote, and the others are compared with the result (chrony.conf(5), trust). Within the group a source with
``prefer`` is selected first, then the smallest bound, with hysteresis.

Flow: candidates of all sources at one instant -> **selection** -> Choice, to the engine. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ppsd.discipline.estimate import Estimate
from refclock.sample import SourceId

RELUCTANCE = 0.7
"""Factor; another source replaces the selected one when its bound is smaller than this share of the selected one's."""

APART_NS: Final = 800_000_000
"""ns; labels that differ by more name different seconds. Labels of one second arrive 0 to 0.65 s after it (MT3339: 0.5, SiRF: 0.6)."""
CLOSE: Final = 0.25
"""Share of the sum of the bounds; claims that lie closer together are close. Independent errors are a sixth of each bound."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One source's claim at the present instant. ``reference_mono_ns``: its last accepted sample. ``votes``: it says by itself which second
    it is."""

    source: SourceId
    estimate: Estimate
    reference_mono_ns: int
    refid: str
    prefer: bool
    trust: bool = False
    votes: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """``selected``: None when no group is a majority. ``falsetickers``: source -> distance (ns) by which it lies outside."""

    selected: Candidate | None
    agreeing: frozenset[SourceId]
    falsetickers: dict[SourceId, int]


def select(candidates: Sequence[Candidate], current: SourceId | None) -> Choice:
    """Select among ``candidates``: at most one a source, all estimated at the same instant. ``current``: the selected source."""
    if not candidates:
        return Choice(None, frozenset(), {})
    voting = [c for c in candidates if c.votes] or candidates
    voters = [c for c in voting if c.trust] or voting
    group = _largest_group(voters)
    if 2 * len(group) <= len(voters) and len(voters) > 1:
        group = []
    low = max((_low(c) for c in group), default=0.0)
    high = min((_high(c) for c in group), default=0.0)
    group = [c for c in candidates if _low(c) <= high and _high(c) >= low] if group else []
    agreeing = frozenset(c.source for c in group)
    outside = {}
    for c in candidates:
        if not group:
            other = min((o for o in candidates if o is not c), key=lambda o: abs(o.estimate.tai_ns - c.estimate.tai_ns), default=c)
            outside[c.source] = c.estimate.tai_ns - other.estimate.tai_ns
        elif c.source not in agreeing:
            outside[c.source] = round(_low(c) - high if _low(c) > high else _high(c) - low)
    if not group:
        return Choice(None, frozenset(), outside)
    ranked = sorted(group, key=lambda c: (not c.prefer, c.estimate.bound_ns))
    best = ranked[0]
    for c in group:
        if c.source == current and c.prefer == best.prefer and best.estimate.bound_ns > RELUCTANCE * c.estimate.bound_ns:
            best = c
    return Choice(best, agreeing, outside)


def outvoted(places: Mapping[SourceId, int]) -> dict[SourceId, int]:
    """Receivers whose labels are outvoted, with their difference (ns). ``places``: named UTC minus raw arrival of each label.

    Used before the second is known, so that the first receiver to speak does not decide alone. Of two that disagree both are outvoted.
    """
    odd = {}
    for name, place in places.items():
        apart = [place - other for other in places.values() if abs(place - other) >= APART_NS]
        if 2 * len(apart) >= len(places):
            odd[name] = min(apart, key=abs)
    return odd


def _low(c: Candidate) -> float:
    return c.estimate.tai_ns - c.estimate.bound_ns


def _high(c: Candidate) -> float:
    return c.estimate.tai_ns + c.estimate.bound_ns


def _largest_group(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The largest group of intervals that share a point; if any point is shared, the low end of one of them is. Of equally large groups one
    whose claims lie close wins, then the one with the smaller sum of bounds. In a chain of three, the outer one farther from the middle
    one is then left out."""
    groups = ([c for c in candidates if _low(c) <= _low(point) <= _high(c)] for point in candidates)
    return max(groups, key=_standing)


def _standing(group: Sequence[Candidate]) -> tuple[int, bool, float]:
    claims, bounds = [c.estimate.tai_ns for c in group], sum(c.estimate.bound_ns for c in group)
    return len(group), max(claims) - min(claims) < CLOSE * bounds, -bounds
