"""The satellites that receivers tell of, as a table and as the sky. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from ppsd.faces.chronyc import Report
from ppsd.snapshot import Snapshot
from refclock.sample import Satellite

SKY_WIDTH, SKY_HEIGHT = 49, 23
"""Characters of the sky plot: half a terminal, twice as many columns as rows because characters are not square."""
SYSTEMS: Final = {"GPS": "G", "GLONASS": "R", "Galileo": "E", "BeiDou": "C", "QZSS": "J", "SBAS": "S", "NavIC": "I"}
"""Letters of the satellite systems (RINEX 3.04, table 1)."""
SLOTS: Final = (
    ("GLONASS", 65, 96, 64),
    ("QZSS", 193, 202, 192),
    ("Galileo", 301, 336, 300),
    ("BeiDou", 401, 437, 400),
    ("SBAS", 120, 158, 100),
    ("SBAS", 33, 64, 13),
)
"""System, from, to, number to subtract: the numbers by which NMEA tells satellites of all systems apart (u-blox protocol specification,
satellite numbering), to those of RINEX within each system."""


def designation(s: Satellite) -> str:
    """A satellite's name, the same for every receiver: G07 is number 7 of GPS, E07 of Galileo (RINEX 3.04, section 3.5)."""
    number = next((s.number - less for system, low, high, less in SLOTS if s.gnss == system and low <= s.number <= high), s.number)
    return f"{SYSTEMS.get(s.gnss, '?')}{number:02d}"


def sky(satellites: Sequence[Satellite]) -> str:
    """The sky as text, north up. Dots are the horizon; satellites are named, in brackets when not used. A name for which there is no room
    is moved by a row or left out: the table has it."""
    rows = [[" "] * SKY_WIDTH for _ in range(SKY_HEIGHT)]
    middle_x, middle_y = SKY_WIDTH // 2, SKY_HEIGHT // 2
    for degree in range(0, 360, 6):
        x, y = middle_x + (middle_x - 2) * math.sin(math.radians(degree)), middle_y - middle_y * math.cos(math.radians(degree))
        rows[round(y)][round(x)] = "."
    rows[0][middle_x], rows[-1][middle_x], rows[middle_y][1], rows[middle_y][-2], rows[middle_y][middle_x] = "NSWE+"
    for s in sorted(satellites, key=lambda s: not s.used):
        if s.elevation is None or s.azimuth is None:
            continue
        distance = (90 - max(0, min(90, s.elevation))) / 90
        x = middle_x + (middle_x - 4) * distance * math.sin(math.radians(s.azimuth))
        y = middle_y - (middle_y - 1) * distance * math.cos(math.radians(s.azimuth))
        name = designation(s) if s.used else f"({designation(s)})"
        first = max(0, min(SKY_WIDTH - len(name), round(x) - len(name) // 2))
        for row in (round(y), round(y) - 1, round(y) + 1):
            if 0 <= row < SKY_HEIGHT and not any(c.isalnum() or c in "()" for c in rows[row][max(0, first - 1) : first + len(name) + 1]):
                rows[row][first : first + len(name)] = name
                break
    return "\n".join("".join(row).rstrip() for row in rows)


def by_signal(satellites: Sequence[Satellite]) -> list[Satellite]:
    """Those in use first, and of these the strongest."""
    return sorted(satellites, key=lambda s: (not s.used, -(s.snr or 0)))


def satellites(clock: Snapshot) -> Report:
    """The satellites of every receiver. The rows are source, satellite, system, elevation and azimuth in degrees, signal in dB-Hz, and
    whether it is used; "" for what is not known."""
    lines, rows = list[str](), list[str]()
    for source in clock.sources:
        if not source.satellites:
            continue
        some = by_signal(source.satellites)
        lines.append(f"{source.name}: fix {source.fix}, {source.satellites_used} of {source.satellites_seen} satellites used")
        lines.append("satellite  system   elevation  azimuth  signal")
        for s in some:
            bar = "#" * max(0, ((s.snr or 0) - 10) // 2)
            angles = [("-" if value is None else f"{value}°") for value in (s.elevation, s.azimuth)]
            signal = "-" if s.snr is None else f"{s.snr} dB-Hz"
            used = "used" if s.used else "not used"
            line = f"{designation(s):<9}  {s.gnss or 'unknown':<7}  {angles[0]:>9}  {angles[1]:>7}  {signal:>8}  {used:<8} {bar}"
            lines.append(line.rstrip())
            known = ("" if value is None else str(value) for value in (s.elevation, s.azimuth, s.snr))
            rows.append(",".join((source.name, designation(s), s.gnss, *known, "used" if s.used else "")))
        lines += ["", "The sky: north is up, the dots are the horizon; in brackets: seen, but not used", sky(some)]
    told = {source.name: [asdict(s) for s in source.satellites] for source in clock.sources if source.satellites}
    return Report("\n".join(lines) or "no receiver tells of satellites (it sends no GSV or NAV-SAT, or there is none)", tuple(rows), told)
