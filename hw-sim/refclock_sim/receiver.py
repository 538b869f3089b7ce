"""A byte-level receiver: what it sends in the second that it names, chunk by chunk, at the true speed of its line.

It knows what it is told: whether it has time, a fix, its leap count. Without time sentences are empty, without a fix they are void; while
the leap count is not known UTC is ``leap_error_s`` ahead, as with real receivers after a cold start.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

BITS = 10
"""8N1: start, eight data bits, stop."""
CONSTELLATION = (
    (2, 71, 284), (5, 44, 75), (7, 12, 150), (12, 33, 310), (13, 58, 40), (15, 23, 205),
    (18, 9, 15), (20, 17, 100), (24, 63, 190), (25, 28, 250), (29, 39, 130),
)  # fmt: skip
"""GPS satellites in view: number, elevation, azimuth (degrees) at one moment of one day."""
GPS_EPOCH_S = 315_964_800
"""1980-01-06T00:00:00Z (IS-GPS-200)."""
GPS_TAI_S = 19
"""TAI - GPS time."""
LATITUDE, LONGITUDE, HEIGHT_M = 48.1372, 11.5756, 520.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of receiver. ``delay_ms``, ``jitter_ms``: first byte after the second named; ``full``: with satellites (GSA, GSV, NAV-SAT)."""

    nmea: bool = True
    ubx: bool = False
    delay_ms: float = 60.0
    jitter_ms: float = 3.0
    full: bool = True


KINDS = {
    "ublox8": Kind(ubx=True),
    "ublox-nmea": Kind(),
    "nmea": Kind(delay_ms=140.0, jitter_ms=8.0, full=False),
    "mouse": Kind(delay_ms=100.0, jitter_ms=30.0, full=False),
    "mtk": Kind(delay_ms=497.0, jitter_ms=10.0, full=False),
    "ubx": Kind(nmea=False, ubx=True, full=False),
}


@dataclass(frozen=True, slots=True)
class Knows:
    """What the receiver knows in one cycle. ``leap_at_s``: POSIX midnight of an announced leap second; ``second_60``: it is 23:59:60."""

    fix: bool = True
    time: bool = True
    leap: bool = True
    second_60: bool = False
    leap_at_s: int | None = None
    leap_step_s: int = 1


class SimReceiver:
    """One receiver on a line of ``baud``. ``leap_error_s``: how far its UTC is ahead while it does not know the leap count."""

    def __init__(self, kind: str = "ublox8", baud: int = 9600, seed: int = 1, tai_offset_s: int = 37, leap_error_s: int = 3) -> None:
        self.kind = KINDS[kind]
        self.byte_ns = BITS * 1_000_000_000 // baud
        self.tai_offset_s = tai_offset_s
        self.leap_error_s = leap_error_s
        self._random = Random(seed)
        self._cycles = 0

    def cycle(self, utc_s: int, knows: Knows, extra_delay_ns: int = 0) -> list[tuple[int, bytes]]:
        """The output of the cycle that names POSIX second ``utc_s``: (arrival of the chunk's last byte, ns after that second; bytes)."""
        stated = utc_s if knows.leap else utc_s + self.leap_error_s
        chunks: list[bytes] = []
        if self.kind.ubx:
            chunks.append(self._ubx(stated, knows))
        if self.kind.nmea:
            chunks += self._nmea(stated, knows)
        if self._cycles == 0 and self.kind.nmea:
            chunks.insert(0, sentence("GPTXT,01,01,02,HW UBX-SIM 00080000") + sentence("GPTXT,01,01,02,ANTSTATUS=OK"))
        self._cycles += 1
        delay = self.kind.delay_ms + (self._random.gauss(0.0, self.kind.jitter_ms) if self.kind.jitter_ms else 0.0)
        at = max(0, round(delay * 1e6)) + extra_delay_ns
        out = []
        for chunk in chunks:
            at += len(chunk) * self.byte_ns
            out.append((at, chunk))
        return out

    # ---- NMEA 0183 ---------------------------------------------------------------------------------------------------------------

    def _nmea(self, utc_s: int, knows: Knows) -> list[bytes]:
        day = datetime.fromtimestamp(utc_s, UTC)
        clock = f"{day:%H%M}60.00" if knows.second_60 else f"{day:%H%M%S}.00"
        if not knows.time:
            return [sentence("GPRMC,,V,,,,,,,,,,N") + sentence("GPGGA,,,,,,0,00,99.99,,,,,,") + sentence("GPZDA,,,,,00,00")]
        date = f"{day:%d%m%y}"
        zda = sentence(f"GPZDA,{clock},{day:%d,%m,%Y},00,00")
        if not knows.fix:
            void = sentence(f"GPRMC,{clock},V,,,,,,,{date},,,N") + sentence(f"GPGGA,{clock},,,,,0,03,99.99,,,,,,")
            return [void + zda]
        where = "4808.2320,N,01134.5360,E"
        used = [n for n, elevation, _ in CONSTELLATION if elevation >= 10]
        out = [
            sentence(f"GPRMC,{clock},A,{where},0.010,,{date},,,A")
            + sentence(f"GPGGA,{clock},{where},1,{len(used):02d},0.92,{HEIGHT_M:.1f},M,46.5,M,,")
        ]
        if self.kind.full:
            numbers = ",".join([f"{n:02d}" for n in used] + [""] * (12 - len(used)))
            out.append(sentence(f"GPGSA,A,3,{numbers},1.60,0.92,1.31") + self._gsv())
        out.append(zda)
        return out

    def _gsv(self) -> bytes:
        total = (len(CONSTELLATION) + 3) // 4
        out = b""
        for i in range(total):
            four = CONSTELLATION[4 * i : 4 * i + 4]
            seen = ",".join(f"{n:02d},{elevation:02d},{azimuth:03d},{25 + elevation // 4:02d}" for n, elevation, azimuth in four)
            out += sentence(f"GPGSV,{total},{i + 1},{len(CONSTELLATION):02d},{seen}")
        return out

    # ---- UBX (u-blox 8 protocol specification, messages 0x01 0x07, 0x21, 0x26) -----------------------------------------------------

    def _ubx(self, utc_s: int, knows: Knows) -> bytes:
        gps_s = utc_s + self.tai_offset_s - GPS_TAI_S - GPS_EPOCH_S + knows.second_60
        itow = gps_s % 604_800 * 1000
        day = datetime.fromtimestamp(utc_s, UTC)
        second = 60 if knows.second_60 else day.second
        valid = (0x03 | 0x04 * knows.leap) if knows.time else 0
        civil = struct.pack("<HBBBBB", day.year, day.month, day.day, day.hour, day.minute, second)
        used = 10 if knows.fix else 2
        fix = 3 if knows.fix else 0
        pvt = struct.pack("<I7sBIiBBBB", itow, civil, valid, 25, 0, fix, int(knows.fix), 0, used)
        pvt += struct.pack("<iiii", round(LONGITUDE * 1e7), round(LATITUDE * 1e7), round(HEIGHT_M * 1e3), round(HEIGHT_M * 1e3))
        out = frame(0x01, 0x07, pvt.ljust(92, b"\0"))
        if self._cycles % 4 == 0:
            change, until, week, weekday = 0, 0, 0, 0
            if knows.leap_at_s is not None:
                change, until = knows.leap_step_s, knows.leap_at_s - utc_s
                days = (knows.leap_at_s - GPS_EPOCH_S) // 86_400  # the leap second ends day 1 (Sunday) to 7 of a GPS week
                week, weekday = (days - 1) // 7, (days - 1) % 7 + 1
            flags = (0x01 if knows.leap else 0) | (0x02 if knows.leap_at_s is not None else 0)
            source = 2 if knows.leap else 0
            leap = self.tai_offset_s - GPS_TAI_S - (0 if knows.leap else self.leap_error_s)
            announced = (2 if knows.leap_at_s else 0, change, until, week, weekday, flags)
            out += frame(0x01, 0x26, struct.pack("<IB3xBbBbiHH3xB", itow, 0, source, leap, *announced))
        return out


def sentence(body: str) -> bytes:
    """An NMEA sentence with its checksum."""
    check = 0
    for byte in body.encode("ascii"):
        check ^= byte
    return f"${body}*{check:02X}\r\n".encode("ascii")


def frame(cls: int, identity: int, payload: bytes) -> bytes:
    """A UBX frame with its Fletcher checksum."""
    body = struct.pack("<BBH", cls, identity, len(payload)) + payload
    a = b = 0
    for byte in body:
        a = (a + byte) & 0xFF
        b = (b + a) & 0xFF
    return b"\xb5\x62" + body + bytes((a, b))
