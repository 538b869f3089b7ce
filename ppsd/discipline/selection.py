"""Which source to believe: agreement by bounds.

Each source states an interval (its TAI now, plus and minus its bound). The largest group whose intervals share a point is the group of
truechimers (Marzullo's algorithm, RFC 5905 section 11.2.1); it must be a majority. Of two that contradict each other neither wins.
Sources with ``trust`` vote among themselves when there are any; the others are then only measured against them (chrony.conf(5), trust).
Within the group the tightest bound is served, with some reluctance to change, and ``prefer`` goes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ppsd.discipline.estimate import Estimate
from refclock.sample import NS, SourceId

RELUCTANCE = 0.7
"""A rival must have a bound this much tighter than the selected source."""

APART_NS: Final = 800_000_000
"""Labels of receivers that name the same second arrive 0 to 0.65 s after it (MT3339: 0.5, SiRF: 0.6); another second is a whole one off."""
CLOSE: Final = 0.25
"""Claims nearer to each other than this part of the sum of their bounds are close: independent errors of a sixth of each bound."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One source's claim at the present instant. ``reference_mono_ns``: its last accepted sample."""

    source: SourceId
    estimate: Estimate
    reference_mono_ns: int
    refid: str
    prefer: bool
    trust: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """``selected`` is None when nobody won; ``falsetickers``: source -> by how much (ns) it lies outside."""

    selected: Candidate | None
    agreeing: frozenset[SourceId]
    falsetickers: dict[SourceId, int]


def select(candidates: Sequence[Candidate], current: SourceId | None) -> Choice:
    """Judge ``candidates`` (at most one a source, all estimated at the same instant)."""
    if not candidates:
        return Choice(None, frozenset(), {})
    voters = [c for c in candidates if c.trust] or candidates
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
    """Receivers whose labels name other seconds than most do, and by how much (ns). ``places``: named UTC minus raw arrival of each. It is
    asked before the second is known, when a pulse would be given the second of whoever spoke first; of two that disagree both are."""
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
    """The most intervals that share a point; a shared point can always be some interval's low end. Of equally large groups one whose claims
    lie close (of three in a chain the odd one is that farther from the middle one), then the tighter sum of bounds."""
    groups = ([c for c in candidates if _low(c) <= _low(point) <= _high(c)] for point in candidates)
    return max(groups, key=_standing)


def _standing(group: Sequence[Candidate]) -> tuple[int, bool, float]:
    claims, bounds = [c.estimate.tai_ns for c in group], sum(c.estimate.bound_ns for c in group)
    return len(group), max(claims) - min(claims) < CLOSE * bounds, -bounds


FRESH_NS = 3 * NS
"""A source whose last accepted sample is older takes no part (three pulses)."""
