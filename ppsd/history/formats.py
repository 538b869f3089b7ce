"""The history as others write it: values with commas, JSON, chrony's tracking.log, and the files that ntpd keeps and ntpviz reads. Pure.

Signs are each program's own. chrony's offsets are local - reference (positive: the local clock is ahead), ntpd's the opposite, as ours;
chrony's frequency is the oscillator's error (positive: fast), as ours, ntpd's is the correction.

Source: chrony.conf(5), "log tracking", and reference.c of chrony for widths; ntpd(8), "Monitoring Options", and ntp_util.c for ntpd's;
statfiles.py and ntplogtemp of ntpsec for the columns that ntpviz reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from ppsd.history.spans import SourceSpan, Span

MJD_1970: Final = 40_587
"""The modified Julian date of 1970-01-01."""
_COLUMNS: Final = (
    *("seconds", "locked", "stratum", "refid", "leap", "jitter_ns", "bound_ns", "frequency_ppm", "skew_ppm", "system_ns", "celsius"),
    *("satellites", "requests", "drops"),
)
_OFFSETS: Final = ("count", "mean", "deviation", "low", "high")
_RULE: Final = "=" * 135
_HEADING: Final = (
    "   Date (UTC) Time     IP Address   St   Freq ppm   Skew ppm     Offset L Co  Offset sd Rem. corr. Root delay Root disp. Max. error"
)
_LEAP: Final = {"normal": "N", "insert": "+", "delete": "-"}
_SELECTION: Final = {"*": 6, "+": 4, "-": 3, "x": 1}
"""Selection of the peer status word (RFC 9327, section 3.2)."""


def csv(spans: Iterable[Span]) -> Iterator[str]:
    """A heading, and a line for each span; what is not known is empty. Sources are in the other forms."""
    yield ",".join(("at", "utc", *(f"offset_{name}" + ("" if name == "count" else "_ns") for name in _OFFSETS), *_COLUMNS))
    for span in spans:
        offsets = (getattr(span.offsets, name, None) for name in _OFFSETS)
        values = (span.at, _utc(span.at, "T") + "Z", *offsets, *(getattr(span, name) for name in _COLUMNS))
        yield ",".join("" if value is None else _short(value) for value in values)


def as_json(spans: Iterable[Span]) -> Iterator[str]:
    """A JSON array with an object for each span and its sources in it, a line each."""
    yield "["
    before = ""
    for span in spans:
        if before:
            yield f"{before},"
        before = json.dumps(asdict(span), separators=(",", ":"))
    yield from ([before] if before else [])
    yield "]"


def tracking_log(spans: Iterable[Span]) -> Iterator[str]:
    """chrony's tracking.log. The whole error bound is root dispersion, and the largest error of the span."""
    for number, span in enumerate(spans):
        if number % 32 == 0:
            yield from (_RULE, _HEADING, _RULE)
        offset_s, deviation_s = (-span.offsets.mean / 1e9, span.offsets.deviation / 1e9) if span.offsets else (0.0, 0.0)
        bound_s, used = (span.bound_ns or 0.0) / 1e9, sum(source.tally in "*+" for source in span.sources)
        leap = _LEAP.get(span.leap, "?")
        yield (
            f"{_utc(span.at, ' ')} {span.refid[:15]:<15} {span.stratum:2d} {span.frequency_ppm or 0.0:10.3f} {span.skew_ppm or 0.0:10.3f}"
            f" {offset_s:10.3e} {leap} {used:2d} {deviation_s:10.3e} {0.0:10.3e} {0.0:10.3e} {bound_s:10.3e} {bound_s:10.3e}"
        )


def loopstats(spans: Iterable[Span]) -> Iterator[str]:
    """ntpd's loopstats: day, second, offset, frequency, jitter, wander, and log2 of the seconds between two corrections."""
    for span in spans:
        if span.offsets is not None and span.frequency_ppm is not None:
            jitter_s = (span.offsets.deviation or span.jitter_ns or 0.0) / 1e9
            yield (
                f"{_mjd(span.at)} {span.offsets.mean / 1e9:.9f} {0 - span.frequency_ppm:.6f} {jitter_s:.9f} {span.skew_ppm or 0.0:.6f} 0"
            )


def peerstats(spans: Iterable[Span]) -> Iterator[str]:
    """ntpd's peerstats: day, second, name, status, offset, delay, dispersion, jitter, for each source."""
    for span in spans:
        for source in span.sources:
            if source.offsets is not None:
                bound_s = (source.bound_ns or 0.0) / 1e9
                jitter_s = (source.offsets.deviation or source.jitter_ns or 0.0) / 1e9
                name = "_".join(source.name.split()) or "_"
                yield f"{_mjd(span.at)} {name} {_status(source):x} {source.offsets.mean / 1e9:.9f} {0.0:.9f} {bound_s:.9f} {jitter_s:.9f}"


def temps(spans: Iterable[Span]) -> Iterator[str]:
    """ntplogtemp's file: UTC, what, degrees Celsius."""
    for span in spans:
        if span.celsius is not None:
            yield f"{span.at} crystal {span.celsius:.3f}"


FORMS: Final[dict[str, Callable[[Iterable[Span]], Iterator[str]]]] = {
    "csv": csv,
    "json": as_json,
    "tracking.log": tracking_log,
    "loopstats": loopstats,
    "peerstats": peerstats,
    "temps": temps,
}
"""What ``refclock history export --NAME`` prints."""


def _status(source: SourceSpan) -> int:
    """The peer status word: configured, reached, selection; no event."""
    return (0x80 | 0x10 | _SELECTION.get(source.tally, 0)) << 8


def _mjd(at: int) -> str:
    return f"{at // 86_400 + MJD_1970} {at % 86_400}.000"


def _utc(at: int, between: str) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d{between}%H:%M:%S}"


def _short(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
