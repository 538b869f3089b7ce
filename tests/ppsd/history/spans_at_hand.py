"""Seconds and minutes for the tests of the history."""

from __future__ import annotations

from dataclasses import replace

from known_daemon import GPS, LOCKED

from ppsd.history.spans import Span, merged, second
from ppsd.snapshot import Snapshot, TemperatureStatus

NOON = 1_795_262_400
"""2026-11-21T12:00:00Z, where ``LOCKED`` is."""
WARM = TemperatureStatus("cpu", 48.5, None, True, "", 0.0, 30.0, 0.01, "")


def snapshot(at: int, offset_ns: int = -214, bound_ns: int = 18_100) -> Snapshot:
    """The daemon at a second after NOON."""
    minutes, seconds = divmod(at, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(12 + hours, 24)
    source = replace(GPS, offset_ns=offset_ns, last_sample_s=0.4, bound_ns=bound_ns)
    utc = f"2026-11-{21 + days:02d}T{hours:02d}:{minutes:02d}:{seconds:02d}.400000000Z"
    return replace(LOCKED, utc=utc, bound_ns=bound_ns, sources=(source, LOCKED.sources[1]), temperature=WARM)


def minute(number: int, offset_ns: int = -214) -> Span:
    """The minute of that number after NOON."""
    return merged(NOON + 60 * number, [replace(second(snapshot(0, offset_ns), 3, 1), at=NOON + 60 * number + n) for n in range(60)])
