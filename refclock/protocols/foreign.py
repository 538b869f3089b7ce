"""Protocols from which no time is taken: recognised by name, so that a person is told what the receiver speaks and how to change it.

Flow: framing asks here about bytes that begin neither a sentence nor a UBX frame. Two kinds:

* ``span`` and ``correct``: protocols with a length and at least 15 bits of checksum or end marks. Framing takes such a frame whole, so a
  ``$`` inside is no sentence. Layouts: SiRF binary protocol reference (A0 A2), SkyTraq binary message specification (A0 A1), CASIC
  protocol (BA CE), RTCM 10403.3 section 4 (D3), Allystar binary protocol (F1 D9), NovAtel OEM7 and Unicore N4 references (AA 44),
  Zodiac serial data interface (FF 81); GeoStar (PSGG), NavCom (02 99 66) and SuperStar II (01, id, its complement) as recorded receivers
  send them (gpsd's test/daemon).
* ``Hearer``: protocols without a length in front (TSIP, Garmin, Motorola Oncore, GREIS, SBF, iTalk, RTCM 2, NovAtel's and Unicore's lines
  of text, gpsd's own JSON). They are only counted, and those with a weak checksum only when two frames follow each other without a gap.
"""

from __future__ import annotations

import re
from binascii import crc32, crc_hqx
from collections import Counter
from enum import Enum
from struct import unpack_from
from typing import Final, NamedTuple

_SUPERSTAR = b"|".join(re.escape(bytes((number, 0xFF ^ number))) for number in range(128))
LEADS: Final = (
    rb"\xa0(?:[\xa1\xa2]|\Z)|\xba(?:\xce|\Z)|\xd3(?:[\0-\3]|\Z)|\xf1(?:\xd9|\Z)|\xaa(?:\x44|\Z)|\xff(?:\x81|\Z)"
    rb"|P(?:SGG|SG?\Z|\Z)|\x02(?:\x99|\Z)|\x01(?:[\0-\x7f]?\Z|" + _SUPERSTAR + rb")"
)
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
    "GeoStar": "its configuration program (GeoSDemo)",
    "NavCom": "its configuration program (StarUtil)",
    "SuperStar": "its configuration program (StarView)",
    "iTalk": "its configuration program (GPS Workbench)",
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
    "RTCM2": "these are corrections for other receivers: switch on NMEA on this port, or use another one of the receiver's",
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


class NoSpan(Enum):
    """Why there is no Span."""

    MORE = "more"  # bytes of the header are missing
    NONE = "none"  # no header


def span(buffer: bytes, start: int) -> Span | NoSpan:
    """The frame that begins at ``start`` by its header."""
    head = buffer[start : start + 12]
    if len(head) < 2:
        return NoSpan.MORE
    lead = head[0], head[1]
    if lead == (0xD3, lead[1]) and lead[1] < 4:
        return NoSpan.MORE if len(head) < 3 else _bounded("RTCM3", (lead[1] << 8 | head[2]) + 6, 8)
    if lead == (0xAA, 0x44):
        return _novatel(head)
    if lead[0] == 0x01:
        return NoSpan.MORE if len(head) < 4 else _bounded("SuperStar", head[3] + 6, 6)
    needed, name, at, order, overhead = _LENGTHS.get(lead, (0, "", 0, ">H", 0))
    if not needed:
        return NoSpan.NONE
    if len(head) < needed:
        return NoSpan.MORE
    length = unpack_from(order, head, at)[0]
    if name == "GeoStar":
        return _bounded(name, 4 * length + overhead, overhead) if head.startswith(b"PSGG") else NoSpan.NONE
    if name == "NavCom" and head[2] != 0x66:
        return NoSpan.NONE
    if name == "Zodiac":
        if sum(unpack_from("<5H", head)) & 0xFFFF:  # the header has a checksum of its own
            return NoSpan.NONE
        length = 2 * length + (2 if length else 0)
    return _bounded(name, length + overhead, overhead)


_LENGTHS: Final[dict[tuple[int, int], tuple[int, str, int, str, int]]] = {
    (0xA0, 0xA2): (4, "SiRF", 2, ">H", 8),
    (0xA0, 0xA1): (4, "SkyTraq", 2, ">H", 7),
    (0xBA, 0xCE): (4, "CASIC", 2, "<H", 10),
    (0xF1, 0xD9): (6, "Allystar", 4, "<H", 8),
    (0xFF, 0x81): (10, "Zodiac", 4, "<H", 10),
    (0x50, 0x53): (8, "GeoStar", 6, "<H", 12),
    (0x02, 0x99): (6, "NavCom", 4, "<H", 4),
}
"""First two bytes: (bytes of header needed, name, place and form of the length, bytes besides the payload)."""


def _bounded(name: str, length: int, least: int) -> Span | NoSpan:
    return Span(name, length) if least <= length <= LONGEST else NoSpan.NONE


def _novatel(head: bytes) -> Span | NoSpan:
    """AA 44 12: header length in byte 3; AA 44 13: 12 bytes; AA 44 B5 (Unicore): 24 bytes. CRC of four bytes behind the payload."""
    if len(head) < 10:
        return NoSpan.MORE if len(head) < 3 or head[2] in (0x12, 0x13, 0xB5) else NoSpan.NONE
    if head[2] == 0x12:
        return _bounded("NovAtel", head[3] + unpack_from("<H", head, 8)[0] + 4, 32)
    if head[2] == 0x13:
        return _bounded("NovAtel", 12 + head[3] + 4, 16)
    return _bounded("Unicore", 24 + unpack_from("<H", head, 6)[0] + 4, 28) if head[2] == 0xB5 else NoSpan.NONE


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
        case "GeoStar":
            return _folded(frame[::4]) == _folded(frame[1::4]) == _folded(frame[2::4]) == _folded(frame[3::4]) == 0
        case "NavCom":
            return frame[-1] == 0x03 and _folded(frame[3:-2]) == frame[-2]
        case "SuperStar":
            return sum(frame[:-2]) & 0xFFFF == int.from_bytes(frame[-2:], "little")
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
        if lead == 0x23:
            return self._line(buffer, start)
        if lead == 0x3C:
            return self._italk(buffer, start)
        if lead in b"fY":
            return self._rtcm2(buffer, start)
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

    def _line(self, buffer: bytes, start: int) -> int | None:
        """``#NAME,port,...*crc`` (NovAtel OEM7 reference, ASCII), where Unicore (N4 reference) has a number in place of the port."""
        end = buffer.find(b"\r\n", start, start + HEARD_MAX)
        if end < 0:
            return None
        match = _LOG.fullmatch(buffer, start, end)
        if match is None or crc32(match[1], 0xFFFF_FFFF) ^ 0xFFFF_FFFF != int(match[3], 16):
            return start
        self.counts["Unicore" if match[2].isdigit() else "NovAtel"] += 1
        return end

    def _italk(self, buffer: bytes, start: int) -> int | None:
        """``<!``, 4 bytes, payload length in words less one, the payload, ``>``: its checksum is not published, so two that follow."""
        end = start + 2 * buffer[start + 6] + 10
        if len(buffer) < end:
            return None
        if buffer[end - 1] != 0x3E:
            return start
        return self._pair("iTalk", start, end)

    def _rtcm2(self, buffer: bytes, start: int) -> int | None:
        """Three words with the preamble and right parity (RTCM 10402.3 section 4.2): 18 bits of parity, 8 of preamble."""
        if len(buffer) < start + 15:
            return None
        words = [_word(buffer[i : i + 5]) for i in range(start, start + 15, 5)]
        before = int(buffer[start] == 0x59)  # preamble inverted: the last bit of the word before was 1
        good = any(all(_right(earlier, word) for earlier, word in zip([before | guess, *words], words, strict=False)) for guess in (0, 2))
        self.counts["RTCM2"] += good
        return start + 15 if good else start

    def _pair(self, name: str, start: int, end: int) -> int:
        """Count a frame of weak form when another one ended where it begins: one alone may be chance."""
        if name == self._last and self._behind == start:
            self.counts[name] += 1 if self.counts[name] else 2
        self._last, self._behind = name, end
        return end

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
        return self._pair(name, start, match.end())


_PARITY = (0xBB1F3480, 0x5D8F9A40, 0xAEC7CD00, 0x5763E680, 0x6BB1F340, 0x8B7A89C0)
"""Which bits, from D29* and D30* of the word before down to d24, each of the six parity bits covers (IS-GPS-200 table 20-XIV)."""


def _word(five: bytes) -> int:
    """A 30-bit word from five bytes that carry six bits each, the first one lowest."""
    word = 0
    for byte in five:
        for i in range(6):
            word = word << 1 | byte >> i & 1
    return word


def _right(before: int, word: int) -> bool:
    """Whether ``word`` has the right parity behind the word ``before``, whose last two bits go into it."""
    held = (before & 3) << 30 | word
    if held & 0x4000_0000:
        held ^= 0x3FFF_FFC0
    parity = 0
    for mask in _PARITY:
        parity = parity << 1 | (held & mask).bit_count() & 1
    return parity == word & 0x3F


_HEARD = re.compile(
    rb'\x10|\{(?:"c|"?\Z)|@(?:@[A-Z][a-z]|@[A-Z]?\Z|\Z)|~(?:~0|~?\Z)|\$(?:@|\Z)|#(?:[A-Z]{3}|[A-Z]{0,2}\Z)|<(?:!|\Z)'
    rb"|[fY](?:[\x40-\x7f]{14}|[\x40-\x7f]{0,13}\Z)"
)
_LOG = re.compile(rb"#([A-Z][A-Z0-9_]+,([^,;*]*),[^;*]*;[^*]*)\*([0-9a-fA-F]{8})")
_JSON = re.compile(rb'\{"class":"')
_GREIS = re.compile(rb"~~005")  # receiver time, the message that begins each epoch (GREIS reference, [~~])
_DLE = re.compile(rb"\x10([^\x03\x10](?:[^\x10]|\x10\x10){0,600}?)\x10\x03")
_DLE_OPEN = re.compile(rb"\x10[^\x03\x10](?:[^\x10]|\x10\x10){0,600}\x10?")
