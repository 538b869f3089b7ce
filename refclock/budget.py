"""What a line carries: messages in order of their worth, as many as its speed allows in one second.

Flow: wishes + baud -> **budget** -> those that are sent and those that are left out (refclock.configure).

Receivers count a message's rate in epochs, so all of them fall on the same second again and again. That second must fit: what does not
runs into the next one and delays its labels. So the sum of all counts, not the mean. Sizes are whole frames with as many satellites as
that kind of receiver shows under an open sky.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

USED: Final = 0.95
"""Of a second's bytes: the burst begins after the second, and answers come between."""
BITS_PER_BYTE: Final = 10
SATELLITES: Final = 44
"""NAV-SAT rows of a receiver with two to four constellations (most in the recordings of tests/data: 43, searched-for ones included)."""
SIZES: Final[Mapping[str, int]] = {
    "NAV-SOL": 60, "NAV-PVT": 100, "NAV-TIMEUTC": 28, "NAV-TIMELS": 32, "NAV-STATUS": 24, "NAV-SVIN": 48, "NAV-SAT": 16 + 12 * SATELLITES,
    "NAV-SVINFO": 16 + 12 * 24, "TIM-TP": 24, "TIM-SVIN": 36, "MON-HW": 76, "MON-RF": 60, "SEC-SIG": 40,
    "RMC": 80, "GGA": 84, "GLL": 55, "VTG": 45, "ZDA": 40, "GSA": 4 * 70, "GSV": 70 * (SATELLITES // 4 + 4),
}  # fmt: skip
"""Bytes: u-blox protocol specifications, a header and checksum of 8 included; MON-RF with two paths, SEC-SIG version 2 with four bands;
sentences of NMEA 0183 (82 at most), GSA for each of four constellations, GSV four satellites each."""


class Wish(NamedTuple):
    """A message every so many seconds. ``size`` replaces the usual one; 0: that."""

    name: str
    every: int
    size: int = 0

    @property
    def bytes(self) -> int:
        """On the line, at most."""
        return self.size or SIZES[self.name]


def capacity(baud: int) -> int:
    """Bytes that may be sent in a second. ``baud`` 0: USB."""
    return int(USED * baud / BITS_PER_BYTE) if baud else 1 << 30


def carried(wishes: Iterable[Wish], baud: int) -> tuple[list[Wish], list[Wish]]:
    """(sent, left out): the first ones first; a long one that does not fit is left out, shorter ones behind it may still go."""
    left = capacity(baud)
    sent: list[Wish] = []
    out: list[Wish] = []
    for wish in wishes:
        if wish.bytes <= left:
            left -= wish.bytes
            sent.append(wish)
        else:
            out.append(wish)
    return sent, out
