"""Protocols from which no time is taken: recognised by name, so that a person is told what the receiver speaks and how to change it.

Flow: framing asks here about bytes that begin neither a sentence nor a UBX frame. Two kinds:

* ``span`` and ``correct``: protocols with a length and at least 15 bits of checksum or end marks. Framing takes such a frame whole, so a
  ``$`` inside is no sentence. Layouts: SiRF binary protocol reference (A0 A2), SkyTraq binary message specification (A0 A1), CASIC
  protocol (BA CE), RTCM 10403.3 section 4 (D3), Allystar binary protocol (F1 D9), NovAtel OEM7 and Unicore N4 references (AA 44),
  Zodiac serial data interface (FF 81).
* ``Hearer``: protocols without a length in front (TSIP, Garmin, Motorola Oncore, GREIS, SBF, gpsd's own JSON). They are only counted, and
  those with a weak checksum only when two frames follow each other without a gap.
"""

from __future__ import annotations

import re
from binascii import crc32, crc_hqx
from collections import Counter
from enum import Enum
from struct import unpack_from
from typing import Final, NamedTuple

LEADS: Final = rb"\xa0(?:[\xa1\xa2]|\Z)|\xba(?:\xce|\Z)|\xd3(?:[\0-\3]|\Z)|\xf1(?:\xd9|\Z)|\xaa(?:\x44|\Z)|\xff(?:\x81|\Z)"
"""First two bytes of what ``span`` knows, as a regular expression; the first alone at the end of what has arrived."""
LONGEST: Final = 4096
"""Longest frame taken: NovAtel range logs reach 3 kB, SiRF and RTCM 1 kB; a longer claim is a chance pair of bytes."""
HEARD_MAX: Final = 1024
"""Bytes of an unfinished frame that ``Hearer`` keeps: TSIP and Garmin packets have at most 255 data bytes, doubled DLEs included 520."""

SWITCH: Final = {
    "SiRF": "message 129 (gpsctl -n, SiRFDemo)",
    "SkyTraq": "message 09, type 1 (GNSS Viewer)",
    "CASIC": "the command $PCAS03",
    "Allystar": "message CFG-MSG (Satrack)",
    "NovAtel": "the commands LOG GPRMC ONTIME 1 and LOG GPZDA ONTIME 1",
    "Unicore": "the commands GPRMC 1 and GPZDA 1",
    "Zodiac": "pin 7 (NMEA select) or message 1331",
    "TSIP": "packet 7A and 8E-26 (gpsctl -n, Trimble Studio)",
    "Garmin": "its menu: Interface, NMEA",
    "Oncore": "the command @@Ci (gpsctl -n, WinOncore)",
    "EverMore": "its configuration program",
    "GREIS": "the commands em,,/msg/nmea/RMC:1 and em,,/msg/nmea/ZDA:1",
    "SBF": "the command setNMEAOutput, Stream1, COM1, RMC+ZDA, sec1",
}
"""How each one is brought to speak NMEA (the makers' manuals named above)."""
INSTEAD: Final = {
    "RTCM3": "these are corrections for other receivers: switch on NMEA on this port, or use another one of the receiver's",
    "gpsd": "this is gpsd's own report, not a receiver's: configure a source of type gpsd",
    "AIS": "this is a ship's radio: use the line of the receiver",
}
"""What to do about those that are not a receiver's own protocol."""


def advice(name: str) -> str:
    """What to do about a line that speaks ``name``."""
    return f"recognised {name}: time is not taken from it; " + (INSTEAD.get(name) or f"switch it to NMEA by {SWITCH[name]}")


class Span(NamedTuple):
    """What a header claims: ``name`` of the protocol, ``length`` of the whole frame in bytes."""

    name: str
    length: int


class Doubt(Enum):
    """Why there is no Span."""

    MORE = "more"  # bytes of the header are missing
    NONE = "none"  # no header


def span(buffer: bytes, start: int) -> Span | Doubt:
    """The frame that begins at ``start`` by its header."""
    head = buffer[start : start + 12]
    if len(head) < 2:
        return Doubt.MORE
    lead = head[0], head[1]
    if lead == (0xD3, lead[1]) and lead[1] < 4:
        return Doubt.MORE if len(head) < 3 else _bounded("RTCM3", (lead[1] << 8 | head[2]) + 6, 8)
    if lead == (0xAA, 0x44):
        return _novatel(head)
    needed, name, at, order, overhead = _LENGTHS.get(lead, (0, "", 0, ">H", 0))
    if not needed:
        return Doubt.NONE
    if len(head) < needed:
        return Doubt.MORE
    length = unpack_from(order, head, at)[0]
    if name == "Zodiac":
        if sum(unpack_from("<5H", head)) & 0xFFFF:  # the header has a checksum of its own
            return Doubt.NONE
        length = 2 * length + (2 if length else 0)
    return _bounded(name, length + overhead, overhead)


_LENGTHS: Final[dict[tuple[int, int], tuple[int, str, int, str, int]]] = {
    (0xA0, 0xA2): (4, "SiRF", 2, ">H", 8),
    (0xA0, 0xA1): (4, "SkyTraq", 2, ">H", 7),
    (0xBA, 0xCE): (4, "CASIC", 2, "<H", 10),
    (0xF1, 0xD9): (6, "Allystar", 4, "<H", 8),
    (0xFF, 0x81): (10, "Zodiac", 4, "<H", 10),
}
"""First two bytes: (bytes of header needed, name, place and form of the length, bytes besides the payload)."""


def _bounded(name: str, length: int, least: int) -> Span | Doubt:
    return Span(name, length) if least <= length <= LONGEST else Doubt.NONE


def _novatel(head: bytes) -> Span | Doubt:
    """AA 44 12: header length in byte 3; AA 44 13: 12 bytes; AA 44 B5 (Unicore): 24 bytes. CRC of four bytes behind the payload."""
    if len(head) < 10:
        return Doubt.MORE if len(head) < 3 or head[2] in (0x12, 0x13, 0xB5) else Doubt.NONE
    if head[2] == 0x12:
        return _bounded("NovAtel", head[3] + unpack_from("<H", head, 8)[0] + 4, 32)
    if head[2] == 0x13:
        return _bounded("NovAtel", 12 + head[3] + 4, 16)
    return _bounded("Unicore", 24 + unpack_from("<H", head, 6)[0] + 4, 28) if head[2] == 0xB5 else Doubt.NONE


def correct(name: str, frame: bytes) -> bool:
    """Whether checksum and end marks of a whole frame are right."""
    match name:
        case "SiRF":
            return frame[-2:] == b"\xb0\xb3" and sum(frame[4:-4]) & 0x7FFF == int.from_bytes(frame[-4:-2], "big")
        case "SkyTraq":
            return frame[-2:] == b"\r\n" and _folded(frame[4:-3]) == frame[-3]
        case "CASIC":
            length, kind, number = unpack_from("<HBB", frame, 2)
            if length % 4:
                return False
            words = unpack_from(f"<{length // 4}I", frame, 6)
            check: int = unpack_from("<I", frame, len(frame) - 4)[0]
            return bool((length + (kind << 16) + (number << 24) + sum(words)) & 0xFFFF_FFFF == check)
        case "RTCM3":
            return _crc24q(frame[:-3]) == int.from_bytes(frame[-3:], "big")
        case "Allystar":
            first = second = 0
            for byte in frame[2:-2]:
                first = first + byte & 0xFF
                second = second + first & 0xFF
            return frame[-2:] == bytes((first, second))
        case "NovAtel" | "Unicore":  # CRC-32 that begins with 0 and is not inverted
            return crc32(frame[:-4], 0xFFFF_FFFF) ^ 0xFFFF_FFFF == int.from_bytes(frame[-4:], "little")
        case "Zodiac":
            return bool(sum(unpack_from(f"<{len(frame) // 2 - 5}H", frame, 10)) & 0xFFFF == 0)
    return False


def _folded(body: bytes) -> int:
    """Exclusive or of all bytes."""
    folded = 0
    for byte in body:
        folded ^= byte
    return folded


def _crc24q(body: bytes) -> int:
    """Qualcomm's CRC-24, polynomial 1864CFB (RTCM 10403.3 section 4.2)."""
    crc = 0
    for byte in body:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x100_0000:
                crc ^= 0x186_4CFB
    return crc


class Hearer:
    """Counts frames of the protocols that are only heard. It gets every byte of the line; what it finds depends on the bytes alone."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._pending = b""
        self._behind = -1  # where in the pending bytes the last DLE frame ended
        self._last = ""

    def feed(self, data: bytes) -> None:
        """The line's next bytes."""
        buffer = self._pending + data if self._pending else data
        position = 0
        while True:
            found = _HEARD.search(buffer, position)
            if found is None:
                position = len(buffer)
                break
            position = found.start()
            end = self._at(buffer, position)
            if end is None and len(buffer) - position <= HEARD_MAX:
                break
            position = end if end is not None and end > position else position + 1
        self._pending = buffer[position:]
        self._behind -= position

    def _at(self, buffer: bytes, start: int) -> int | None:
        """Count the frame at ``start``: where it ends, ``start`` when there is none, None while its end has not arrived."""
        lead = buffer[start]
        if len(buffer) - start < 10:  # what each of them needs to be told
            return None
        if lead == 0x10:
            return self._dle(buffer, start)
        if lead == 0x7B:
            return self._take("gpsd", buffer, start, _JSON)
        if lead == 0x40:
            end = buffer.find(b"\r\n", start + 7)
            while 0 <= end - start <= HEARD_MAX and _folded(buffer[start + 2 : end - 1]) != buffer[end - 1]:
                end = buffer.find(b"\r\n", end + 1)
            if end < 0:
                return None
            self.counts["Oncore"] += end - start <= HEARD_MAX
            return end + 2 if end - start <= HEARD_MAX else start
        if lead == 0x7E:
            return self._take("GREIS", buffer, start, _GREIS)
        length = int.from_bytes(buffer[start + 6 : start + 8], "little")
        if not 8 <= length <= HEARD_MAX or length % 4:
            return start
        if len(buffer) < start + length:
            return None
        good = crc_hqx(buffer[start + 4 : start + length], 0) == int.from_bytes(buffer[start + 2 : start + 4], "little")
        self.counts["SBF"] += good
        return start + length if good else start

    def _take(self, name: str, buffer: bytes, start: int, form: re.Pattern[bytes]) -> int:
        match = form.match(buffer, start)
        self.counts[name] += match is not None
        return match.end() if match else start

    def _dle(self, buffer: bytes, start: int) -> int | None:
        """DLE id data DLE ETX, with each DLE of the data doubled: Trimble, Garmin and EverMore."""
        if buffer[start + 1] in b"\x03\x10":
            return start
        if buffer.find(b"\x10\x03", start + 2, start + HEARD_MAX) < 0:  # nothing that could be an end: by far the most frequent case
            return None
        match = _DLE.match(buffer, start)
        if match is None:
            return None if _DLE_OPEN.fullmatch(buffer, start) else start
        body = match[1].replace(b"\x10\x10", b"\x10")
        garmin = len(body) >= 3 and len(body) == body[1] + 3 and sum(body) & 0xFF == 0
        name = "Garmin" if garmin else "EverMore" if body[0] == 2 else "TSIP"
        if name == self._last and self._behind == start:  # one alone may be chance
            self.counts[name] += 1 if self.counts[name] else 2
        self._last, self._behind = name, match.end()
        return match.end()


_HEARD = re.compile(rb'\x10|\{(?:"c|"?\Z)|@(?:@[A-Z][a-z]|@[A-Z]?\Z|\Z)|~(?:~0|~?\Z)|\$(?:@|\Z)')
_JSON = re.compile(rb'\{"class":"')
_GREIS = re.compile(rb"~~005")  # receiver time, the message that begins each epoch (GREIS reference, [~~])
_DLE = re.compile(rb"\x10([^\x03\x10](?:[^\x10]|\x10\x10){0,600}?)\x10\x03")
_DLE_OPEN = re.compile(rb"\x10[^\x03\x10](?:[^\x10]|\x10\x10){0,600}\x10?")
