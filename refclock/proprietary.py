"""Sentences of the makers' own (``$P...``) and notices in plain text that tell leap count or antenna: fields to values.

Flow: framing -> nmea -> **proprietary** -> LeapNotice, HealthReport. Sources, one each: u-blox 8 protocol specification (PUBX,04; TXT),
Quectel L70 protocol specification (PMTKLSC), GlobalTop PMTK manual (PGTOP,11, later PCD,11), ST UM2229 (PSTMANTENNASTATUS), Quectel LC29H
protocol specification (PQTMANTENNASTATUS), CASIC protocol (TXT "ANTENNA OK").
"""

from __future__ import annotations

import re
from typing import Final

from refclock.sample import Antenna, HealthReport, Instant, LeapNotice

TAI_GPS_S: Final = 19
"""TAI - GPS, constant (IS-GPS-200: GPS time was UTC in 1980, when TAI-UTC was 19 s)."""
GPS_LEAPS: Final = range(13, 60)
"""UTC counts that any receiver still running can state: 13 from 1999, 18 from 2017; beyond 59 it is garbage."""
_ANTENNA = re.compile(r"ANT(?:ENNA|STATUS)?[ =:_]*(OK|OPEN|SHORT)\b", re.IGNORECASE)
_LEAPS = re.compile(r"(\d{1,2})(D?)")
_STATES: Final[dict[str, tuple[int, dict[str, Antenna]]]] = {
    "PGTOP,11": (2, {"1": Antenna.SHORT, "2": Antenna.OK, "3": Antenna.OK}),  # shorted, internal, external
    "PCD,11": (2, {"1": Antenna.SHORT, "2": Antenna.OK, "3": Antenna.OK}),
    "PSTMANTENNASTATUS": (1, {"0": Antenna.OK, "1": Antenna.OPEN, "2": Antenna.SHORT}),
    "PQTMANTENNASTATUS": (2, {"1": Antenna.OK, "2": Antenna.OPEN, "3": Antenna.SHORT}),
}
"""Sentence: (field of the antenna's state, what it means)."""


def notice(body: str, at: Instant) -> LeapNotice | HealthReport | None:
    """What a ``$P`` sentence (between dollar and checksum) says; None when nothing that concerns time."""
    fields = body.split(",")
    if body.startswith("PUBX,04,") and len(fields) > 6:
        match = _LEAPS.fullmatch(fields[6])  # D: the firmware's own, which may be years old
        return _leap(match[1], not match[2], at) if match else None
    if body.startswith("PMTKLSC,") and len(fields) > 2:
        return _leap(fields[1], fields[2] == "1", at) if fields[1].isdecimal() and len(fields[1]) < 3 else None
    known = _STATES.get(fields[0]) or _STATES.get(",".join(fields[:2]))
    if known is None or len(fields) <= known[0]:
        return None
    return HealthReport(at, antenna=known[1].get(fields[known[0]], Antenna.UNKNOWN))


def _leap(count: str, known: bool, at: Instant) -> LeapNotice | None:
    if int(count) not in GPS_LEAPS:
        return None
    return LeapNotice(int(count) + TAI_GPS_S if known else None, 0, None, at)


def antenna(text: str) -> Antenna | None:
    """The antenna's state as a TXT sentence tells it."""
    match = _ANTENNA.search(text)
    return Antenna(match[1].lower()) if match else None
