"""NMEA 0183 sentences as receivers write them: Knowledge -> bytes.

Fields are empty before the time is known; before the first fix there is a time without a date; without a fix the status is void; a leap
second is second 60. Form of u-blox 8 (protocol specification section 31): two decimals of seconds, five of minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from refclock.sample import FixMode, Satellite
from refclock.timescales import DAY_S
from refclock_sim.receiver.gnss import Knowledge, Label, Stage

POSITION = (b"5132.45678,N", b"00000.12345,W")
"""Somewhere in London."""
MOVED = (b"5134.08458,N", POSITION[1])
"""3 km north of it."""
GSV_TALKERS = {"GPS": b"GP", "GLONASS": b"GL", "Galileo": b"GA"}


class Civil(NamedTuple):
    """A label's calendar fields; ``second`` is 60 in a leap second."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int


_dates: dict[int, tuple[int, int, int]] = {}


def civil(label: Label) -> Civil:
    """The calendar fields of a label. The date is computed once a day."""
    day, of_day = divmod(label.utc_s, DAY_S)
    date = _dates.get(day)
    if date is None:
        when = datetime.fromtimestamp(day * DAY_S, UTC)
        _dates.clear()
        date = _dates[day] = (when.year, when.month, when.day)
    minutes, second = divmod(of_day, 60)
    return Civil(*date, *divmod(minutes, 60), second + label.second_60)


def sentence(body: bytes) -> bytes:
    """``body`` with dollar, checksum (exclusive or of its bytes) and line end."""
    folded = int.from_bytes(body, "little")
    shift = 512 if len(body) <= 128 else 2048
    while shift >= 8:
        folded ^= folded >> shift
        shift >>= 1
    return b"$%b*%02X\r\n" % (body, folded & 0xFF)


def _time(knows: Knowledge, at: Civil) -> bytes:
    return b"%02d%02d%02d.00" % at[3:] if knows.stage > Stage.DARK else b""


def place(knows: Knowledge) -> tuple[bytes, bytes]:
    """Latitude and longitude fields."""
    return MOVED if "moved" in knows.troubles else POSITION


def antenna(talker: bytes, knows: Knowledge) -> bytes:
    """TXT: the antenna notice that CASIC modules send every second."""
    state = b"OPEN" if "antenna-open" in knows.troubles else b"SHORT" if "antenna-short" in knows.troubles else b"OK"
    return sentence(b"%bTXT,01,01,01,ANTENNA %b" % (talker, state))


def rmc(talker: bytes, knows: Knowledge, at: Civil) -> bytes:
    """RMC: time, status, position, date."""
    date = b"%02d%02d%02d" % (at.day, at.month, at.year % 100) if knows.date_known and knows.stage > Stage.DARK else b""
    if not knows.fixed:
        return sentence(b"%bRMC,%b,V,,,,,,,%b,,,N" % (talker, _time(knows, at), date))
    return sentence(b"%bRMC,%b,A,%b,%b,0.012,,%b,,,A" % (talker, _time(knows, at), *place(knows), date))


def gga(talker: bytes, knows: Knowledge, at: Civil, used: int) -> bytes:
    """GGA: time, position, quality, satellites used."""
    if not knows.fixed:
        return sentence(b"%bGGA,%b,,,,,0,%02d,99.99,,,,,," % (talker, _time(knows, at), used))
    return sentence(b"%bGGA,%b,%b,%b,1,%02d,0.92,61.7,M,45.8,M,," % (talker, _time(knows, at), *place(knows), min(used, 12)))


def zda(talker: bytes, knows: Knowledge, at: Civil) -> bytes:
    """ZDA: time and date with four digits of year, no status."""
    if knows.stage > Stage.DARK and knows.date_known:
        return sentence(b"%bZDA,%b,%02d,%02d,%04d,00,00" % (talker, _time(knows, at), at.day, at.month, at.year))
    return sentence(b"%bZDA,%b,,,,00,00" % (talker, _time(knows, at)))


def gsa(talker: bytes, knows: Knowledge, sky: Sequence[Satellite]) -> list[bytes]:
    """GSA: mode and up to twelve used satellites, a sentence for each constellation."""
    mode = {FixMode.FIX_2D: b"2", FixMode.FIX_3D: b"3"}.get(knows.mode, b"1")
    dilution = b"1.62,0.92,1.33" if knows.fixed else b"99.99,99.99,99.99"
    groups = [[s for s in sky if s.used and s.gnss == gnss] for gnss in GSV_TALKERS]
    filled = [group for group in groups if group] if knows.fixed else []
    written = []
    for group in filled or [[]]:
        numbers = [b"%02d" % s.number for s in group[:12]] + [b""] * (12 - len(group))
        written.append(sentence(b"%bGSA,A,%b,%b,%b" % (talker, mode, b",".join(numbers), dilution)))
    return written


def _place(s: Satellite) -> tuple[int, int, int, bytes]:
    return s.number, s.elevation or 0, s.azimuth or 0, b"%02d" % s.snr if s.snr else b""


def gsv(sky: Sequence[Satellite]) -> list[bytes]:
    """GSV: the satellites in view, four a sentence, a talker for each constellation; an empty sentence when there are none."""
    written = []
    for gnss, own in GSV_TALKERS.items():
        seen = [s for s in sky if s.gnss == gnss]
        if not seen and gnss != "GPS":
            continue
        pages = max(1, -(-len(seen) // 4))
        for page in range(pages):
            fields = b"".join(b",%02d,%02d,%03d,%b" % _place(s) for s in seen[4 * page : 4 * page + 4])
            written.append(sentence(b"%bGSV,%d,%d,%02d%b" % (own, pages, page + 1, len(seen), fields)))
    return written


def txt(talker: bytes, lines: Sequence[str]) -> list[bytes]:
    """TXT: the notices at power-on (type 02)."""
    return [sentence(b"%bTXT,01,01,02,%b" % (talker, line.encode("ascii"))) for line in lines]
