"""Spans: what was measured in a second, a minute or an hour, as values. A longer span is merged from shorter ones. Pure.

A mean weighs each second alike. What is worst is kept as well: the extremes of offsets, the largest bound, the fewest satellites. Times are
UTC in s since 1970, by the served time; before it is known, by the system clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ppsd.snapshot import Snapshot, SourceStatus, UpstreamStatus

Value = float | str | None
"""A value of a row, as SQLite and JSON have it."""
_SPREAD: Final = ("offsets", "offset_mean_ns", "offset_deviation_ns", "offset_low_ns", "offset_high_ns")
COLUMNS: Final = (
    *("at", "seconds", "locked", "stratum", "refid", "leap"),
    *_SPREAD,
    *("jitter_ns", "bound_ns", "frequency_ppm", "skew_ppm", "system_ns", "celsius", "satellites", "requests", "drops"),
)
SOURCE_COLUMNS: Final = ("name", "tally", "selected", *_SPREAD, "jitter_ns", "bound_ns")
"""What the values of a row are: of a span, and of each source in it."""
LONGEST_GAP: Final = 3600
"""Steps; a longer gap begins a new series."""
MOST_SOURCES: Final = 8
"""Sources of a span that are kept, receivers first; a machine with more has its first ones in the history. An NTP server is in the seconds
in which it answered, and in those in which it is followed."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Offsets in ns: how many, mean, standard deviation about the mean, smallest and largest."""

    count: int
    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def of(cls, row: Sequence[Any]) -> Spread | None:
        """From five values of a row."""
        return None if row[0] is None else cls(*row)

    def row(self) -> tuple[Value, ...]:
        """As five values of a row."""
        return self.count, self.mean, self.deviation, self.low, self.high

    @classmethod
    def merged(cls, parts: Sequence[Spread]) -> Spread | None:
        """Of all their offsets together; None of no parts."""
        count = sum(part.count for part in parts)
        if not count:
            return None
        mean = sum(part.count * part.mean for part in parts) / count
        square = sum(part.count * (part.deviation**2 + (part.mean - mean) ** 2) for part in parts) / count
        return cls(count, mean, math.sqrt(square), min(part.low for part in parts), max(part.high for part in parts))


@dataclass(frozen=True, slots=True)
class SourceSpan:
    """One source in a span. ``offsets``: its samples minus the served time. ``jitter_ns``, ``bound_ns``: mean and largest. ``tally``: at
    its end; ``selected``: seconds for which its time was served."""

    name: str
    tally: str
    selected: int
    offsets: Spread | None
    jitter_ns: float | None
    bound_ns: float | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> SourceSpan:
        """From the values of ``SOURCE_COLUMNS``."""
        name, tally, selected, *offsets, jitter_ns, bound_ns = row
        return cls(name, tally, selected, Spread.of(offsets), jitter_ns, bound_ns)

    def row(self) -> tuple[Value, ...]:
        """As the values of ``SOURCE_COLUMNS``."""
        return self.name, self.tally, self.selected, *_spread_row(self.offsets), self.jitter_ns, self.bound_ns


@dataclass(frozen=True, slots=True)
class Span:
    """The clock in the span that begins at ``at``. ``seconds``: how many of its seconds are known; ``locked``: in how many it was locked.
    ``offsets``: of the selected source. ``bound_ns``: the largest; ``satellites``: the fewest; ``requests`` and ``drops``: in all; the
    others: means. ``stratum``, ``refid``, ``leap``: at its end, as in a Snapshot."""

    at: int
    seconds: int
    locked: int
    stratum: int
    refid: str
    leap: str
    offsets: Spread | None
    jitter_ns: float | None
    bound_ns: float | None
    frequency_ppm: float | None
    skew_ppm: float | None
    system_ns: float | None
    celsius: float | None
    satellites: float | None
    requests: int | None
    drops: int | None
    sources: tuple[SourceSpan, ...] = ()

    @classmethod
    def of(cls, row: Sequence[Any], sources: Iterable[Sequence[Any]]) -> Span:
        """From the values of ``COLUMNS``, and a row for each source. ValueError: they are others, of another version."""
        if len(row) != len(COLUMNS):
            raise ValueError(f"a span of {len(row)} values, not {len(COLUMNS)}: the daemon is of another version")
        values = (*row[:6], Spread.of(row[6:11]), *row[11:], tuple(SourceSpan.of(one) for one in sources))
        return cls(*values)

    def row(self) -> tuple[Value, ...]:
        """As the values of ``COLUMNS``."""
        return (
            *(self.at, self.seconds, self.locked, self.stratum, self.refid, self.leap, *_spread_row(self.offsets), self.jitter_ns),
            *(self.bound_ns, self.frequency_ppm, self.skew_ppm, self.system_ns, self.celsius, self.satellites, self.requests, self.drops),
        )


def _spread_row(spread: Spread | None) -> tuple[Value, ...]:
    return (None,) * len(_SPREAD) if spread is None else spread.row()


def second(clock: Snapshot, requests: int | None, drops: int | None) -> Span:
    """The second of a snapshot. ``requests``, ``drops``: packets since the last time that they were counted; None: not counted now."""
    selected = clock.selected or clock.followed
    counted = clock.selected or (clock.sources[0] if clock.sources else None)
    kept: list[SourceStatus | UpstreamStatus] = [*clock.sources]
    kept += (u for u in clock.upstreams if u is selected or _one(u) is not None)
    return Span(
        at=clock.utc_ns // 1_000_000_000,
        seconds=1,
        locked=int(clock.verdict == "LOCKED"),
        stratum=clock.stratum if clock.synchronised else 0,
        refid=clock.refid if clock.synchronised else "",
        leap=clock.leap,
        offsets=_one(selected),
        jitter_ns=_float(selected.jitter_ns) if selected is not None else None,
        bound_ns=_float(clock.bound_ns),
        frequency_ppm=clock.frequency_ppm,
        skew_ppm=clock.skew_ppm,
        system_ns=_float(clock.system_offset_ns),
        celsius=clock.temperature.celsius if clock.temperature is not None else None,
        satellites=_float(counted.satellites_used) if counted is not None else None,
        requests=requests,
        drops=drops,
        sources=tuple(
            SourceSpan(s.name, s.tally, int(s is selected), _one(s), _float(s.jitter_ns), _float(s.bound_ns)) for s in kept[:MOST_SOURCES]
        ),
    )


def _one(source: SourceStatus | UpstreamStatus | None) -> Spread | None:
    """The sample of this second; an older one was told before."""
    if source is None or source.offset_ns is None or source.last_sample_s is None or source.last_sample_s >= 1.5:
        return None
    return Spread(1, float(source.offset_ns), 0.0, float(source.offset_ns), float(source.offset_ns))


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def merged(at: int, spans: Sequence[Span]) -> Span:
    """The span from ``at`` on that consists of ``spans``: at least one, the earliest first."""
    last = spans[-1]
    return Span(
        at=at,
        seconds=sum(span.seconds for span in spans),
        locked=sum(span.locked for span in spans),
        stratum=last.stratum,
        refid=last.refid,
        leap=last.leap,
        offsets=Spread.merged([span.offsets for span in spans if span.offsets is not None]),
        jitter_ns=_mean((span.jitter_ns, span.seconds) for span in spans),
        bound_ns=max((span.bound_ns for span in spans if span.bound_ns is not None), default=None),
        frequency_ppm=_mean((span.frequency_ppm, span.seconds) for span in spans),
        skew_ppm=_mean((span.skew_ppm, span.seconds) for span in spans),
        system_ns=_mean((span.system_ns, span.seconds) for span in spans),
        celsius=_mean((span.celsius, span.seconds) for span in spans),
        satellites=min((span.satellites for span in spans if span.satellites is not None), default=None),
        requests=_sum(span.requests for span in spans),
        drops=_sum(span.drops for span in spans),
        sources=_merged_sources(spans),
    )


def _merged_sources(spans: Sequence[Span]) -> tuple[SourceSpan, ...]:
    parts: dict[str, list[tuple[SourceSpan, int]]] = {}
    for span in spans:
        for source in span.sources:
            parts.setdefault(source.name, []).append((source, span.seconds))
    return tuple(
        SourceSpan(
            name=name,
            tally=of[-1][0].tally,
            selected=sum(part.selected for part, _ in of),
            offsets=Spread.merged([part.offsets for part, _ in of if part.offsets is not None]),
            jitter_ns=_mean((part.jitter_ns, seconds) for part, seconds in of),
            bound_ns=max((part.bound_ns for part, _ in of if part.bound_ns is not None), default=None),
        )
        for name, of in list(parts.items())[:MOST_SOURCES]
    )


def _mean(values: Iterable[tuple[float | None, int]]) -> float | None:
    """The mean of (value, weight), of those that there are."""
    total, weights = 0.0, 0
    for value, weight in values:
        if value is not None:
            total, weights = total + value * weight, weights + weight
    return total / weights if weights else None


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def series_s(spans: Iterable[Span], step_s: int) -> list[float | None]:
    """The offsets of the selected source in s, one each ``step_s``, None where there is none: the series since the clock was last set back,
    or since the last gap that is longer than ``LONGEST_GAP`` steps."""
    found: list[float | None] = []
    next_at = 0
    for span in spans:
        offset_s = span.offsets.mean / 1e9 if span.offsets is not None else None
        missing = (span.at - next_at) // step_s if found else 0
        if missing == -1:  # the same step twice
            found[-1] = offset_s
            continue
        if 0 <= missing <= LONGEST_GAP:
            found += [None] * missing
        else:
            found = []
        found.append(offset_s)
        next_at = span.at + step_s
    return found
