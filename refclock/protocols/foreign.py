"""Protocols from which no time is taken: recognised by name, so that a person is told what the receiver speaks and how to change it.

Framing asks here about bytes that begin neither a sentence nor a UBX frame. Two kinds:

* ``FORMS``: protocols whose header states the length, with at least 15 bits of checksum or end marks. Framing takes such a frame whole, so
  a ``$`` inside is no sentence. Layouts: SiRF binary protocol reference, SkyTraq binary message specification, CASIC protocol, RTCM 10403.3
  section 4, Allystar binary protocol, NovAtel OEM7 and Unicore N4 references, Zodiac serial data interface; GeoStar, NavCom and SuperStar
  II as recorded receivers send them (gpsd's test/daemon).
* ``Hearer``: protocols without a length in front (TSIP, Garmin, EverMore, Motorola Oncore, GREIS, SBF, iTalk, RTCM 2, NovAtel's and
  Unicore's lines of text, gpsd's own JSON). They are only counted, and those with a weak checksum only when two frames follow each other
  without a gap.

Flow: framing -> **foreign** -> names and ``advice`` (stream, receiver.autobaud).
"""

from __future__ import annotations

import re
from binascii import crc32, crc_hqx
from collections import Counter
from collections.abc import Callable
from enum import Enum
from itertools import accumulate
from operator import xor
from struct import unpack_from
from typing import Final, NamedTuple

from refclock.protocols.checksums import Effort, crc24q, nmea_checksum, ubx_checksum

LONGEST: Final = 4096
"""Bytes; a longer claim is a chance pair of bytes. NovAtel range logs reach 3 kB, SiRF and RTCM 1 kB."""
RTCM2_EFFORT: Final = 64
"""Bytes of effort (``checksums.Effort``) for the parity of three words: it costs as much as an exclusive or of so many."""
HEARD_MAX: Final = 1024
"""Bytes of an unfinished frame that ``Hearer`` keeps: TSIP and Garmin packets have at most 255 data bytes, 520 with doubled DLEs."""

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


# ---- protocols with a length in front ------------------------------------------------------------------------------------------------


class Form(NamedTuple):
    """One protocol. ``sync``: the bytes allowed at each place of its beginning; ``header``: bytes that tell the length. ``length``: of the
    whole frame, from its header (0: this is none). ``least``: a shorter one is none. ``good``: whether a whole frame's checksum and end
    marks are right.
    """

    name: str
    sync: tuple[bytes, ...]
    header: int
    length: Callable[[bytes], int]
    least: int
    good: Callable[[bytes], bool]


class Span(NamedTuple):
    """What a header claims: a frame of ``form``, ``length`` bytes long."""

    form: Form
    length: int


class NoSpan(Enum):
    """Why there is no Span."""

    MORE = "more"  # bytes of the header are missing
    NONE = "none"  # no header


def _big(head: bytes, at: int) -> int:
    return int.from_bytes(head[at : at + 2], "big")


def _little(head: bytes, at: int) -> int:
    return int.from_bytes(head[at : at + 2], "little")


def _zodiac_length(head: bytes) -> int:
    """The header has a checksum of its own; one of two bytes follows the data, if there are any."""
    words = _little(head, 4)
    return 0 if sum(unpack_from("<5H", head)) & 0xFFFF else 10 + 2 * words + (2 if words else 0)


def _sirf(frame: bytes) -> bool:
    return frame[-2:] == b"\xb0\xb3" and sum(frame[4:-4]) & 0x7FFF == _big(frame, len(frame) - 4)


def _casic(frame: bytes) -> bool:
    length, kind, number = unpack_from("<HBB", frame, 2)
    if length % 4:
        return False
    total = length + (kind << 16) + (number << 24) + sum(unpack_from(f"<{length // 4}I", frame, 6))
    return bool(total & 0xFFFF_FFFF == int.from_bytes(frame[-4:], "little"))


def _crc32(frame: bytes) -> bool:
    """NovAtel's: begins with 0 and is not inverted."""
    return _novatel_crc(frame[:-4]) == int.from_bytes(frame[-4:], "little")


def _novatel_crc(body: bytes) -> int:
    return crc32(body, 0xFFFF_FFFF) ^ 0xFFFF_FFFF


FORMS: Final = (
    Form("SiRF", (b"\xa0", b"\xa2"), 4, lambda h: _big(h, 2) + 8, 8, _sirf),
    Form(
        *("SkyTraq", (b"\xa0", b"\xa1"), 4, lambda h: _big(h, 2) + 7, 7),
        lambda f: f[-2:] == b"\r\n" and nmea_checksum(f[4:-3]) == f[-3],
    ),
    Form("CASIC", (b"\xba", b"\xce"), 4, lambda h: _little(h, 2) + 10, 10, _casic),
    Form(
        *("RTCM3", (b"\xd3", b"\0\1\2\3"), 3, lambda h: _big(h, 1) + 6, 8),
        lambda f: crc24q(f[:-3]) == int.from_bytes(f[-3:], "big"),
    ),
    Form("Allystar", (b"\xf1", b"\xd9"), 6, lambda h: _little(h, 4) + 8, 8, lambda f: f[-2:] == ubx_checksum(f[2:-2])),
    Form("NovAtel", (b"\xaa", b"\x44", b"\x12"), 10, lambda h: h[3] + _little(h, 8) + 4, 32, _crc32),  # byte 3: length of the header
    Form("NovAtel", (b"\xaa", b"\x44", b"\x13"), 10, lambda h: 12 + h[3] + 4, 16, _crc32),
    Form("Unicore", (b"\xaa", b"\x44", b"\xb5"), 10, lambda h: 24 + _little(h, 6) + 4, 28, _crc32),
    Form("Zodiac", (b"\xff", b"\x81"), 10, _zodiac_length, 10, lambda f: sum(unpack_from(f"<{len(f) // 2 - 5}H", f, 10)) & 0xFFFF == 0),
    Form(
        "GeoStar",
        (b"P", b"S", b"G", b"G"),
        8,
        lambda h: 4 * _little(h, 6) + 12,
        12,
        lambda f: not any(nmea_checksum(f[i::4]) for i in range(4)),
    ),
    Form(
        *("NavCom", (b"\x02", b"\x99", b"\x66"), 6, lambda h: _little(h, 4) + 4, 4),
        lambda f: f[-1] == 0x03 and nmea_checksum(f[3:-2]) == f[-2],
    ),
    Form(
        *("SuperStar", (b"\x01", bytes(range(128))), 4, lambda h: h[3] + 6 if h[2] == 0xFF ^ h[1] else 0, 6),
        lambda f: sum(f[:-2]) & 0xFFFF == _little(f, len(f) - 2),
    ),
)


def _leads(sync: tuple[bytes, ...]) -> bytes:
    """The beginning of a frame as a regular expression that is content with less where the bytes end."""
    pattern = b""
    for allowed in reversed(sync):
        anywhere = b"[" + re.escape(allowed) + b"]"
        pattern = anywhere + (b"(?:" + pattern + rb"|\Z)" if pattern else b"")
    return pattern


LEADS: Final = b"|".join(_leads(form.sync) for form in FORMS)
"""Beginnings of FORMS, as a regular expression."""


def span(buffer: bytes, start: int) -> Span | NoSpan:
    """The frame that begins at ``start`` by its header."""
    head = buffer[start : start + 10]
    for form in FORMS:
        if all(byte in allowed for byte, allowed in zip(head, form.sync, strict=False)):
            if len(head) < form.header:
                return NoSpan.MORE
            length = form.length(head)
            return Span(form, length) if form.least <= length <= LONGEST else NoSpan.NONE
    return NoSpan.NONE


# ---- protocols without a length in front ---------------------------------------------------------------------------------------------

_JSON = re.compile(rb'\{"class":"')
_GREIS = re.compile(rb"~~005")  # receiver time, the message that begins each epoch (GREIS reference, [~~])
_HEARD = re.compile(
    rb'\x10|\{(?:"c|"?\Z)|@(?:@[A-Z][a-z]|@[A-Z]?\Z|\Z)|~(?:~0|~?\Z)|\$(?:@|\Z)|#(?:[A-Z]{3}|[A-Z]{0,2}\Z)|<(?:!|\Z)'
    rb"|[fY](?:[\x40-\x7f]{14}|[\x40-\x7f]{0,13}\Z)"
)
_LOG = re.compile(rb"#([A-Z][A-Z0-9_]+,([^,;*]*),[^;*]*;[^*]*)\*([0-9a-fA-F]{8})")
_DLE = re.compile(rb"\x10([^\x03\x10](?:[^\x10]|\x10\x10){0,600}?)\x10\x03")
_DLE_OPEN = re.compile(rb"\x10[^\x03\x10](?:[^\x10]|\x10\x10){0,600}\x10?")


class Hearer:
    """Counts frames of the protocols that are only heard. It gets every byte of the line; what it finds depends on the bytes alone.

    Each method ``_name(buffer, start)`` counts the frame at ``start``. It returns where the frame ends, ``start`` when there is none, None
    while bytes are missing.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._pending = b""
        self._effort = Effort()
        self._base = 0  # position in the stream of the first pending byte
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
        self._base += position
        self._behind -= position

    def _at(self, buffer: bytes, start: int) -> int | None:
        """Count the frame at ``start``: where it ends, ``start`` when there is none, None while its end has not arrived."""
        if len(buffer) - start < 10:  # what each of them needs to be told
            return None
        match buffer[start]:
            case 0x10:
                return self._dle(buffer, start)
            case 0x7B:
                return self._take("gpsd", buffer, start, _JSON)
            case 0x7E:
                return self._take("GREIS", buffer, start, _GREIS)
            case 0x40:
                return self._oncore(buffer, start)
            case 0x23:
                return self._line(buffer, start)
            case 0x3C:
                return self._italk(buffer, start)
            case 0x24:
                return self._sbf(buffer, start)
        return self._rtcm2(buffer, start)

    def _take(self, name: str, buffer: bytes, start: int, form: re.Pattern[bytes]) -> int:
        match = form.match(buffer, start)
        self.counts[name] += match is not None
        return match.end() if match else start

    def _oncore(self, buffer: bytes, start: int) -> int | None:
        """``@@``, two letters, data, exclusive or, CR LF (Motorola Oncore user's guide, I/O commands)."""
        last = start + HEARD_MAX
        end = buffer.find(b"\r\n", start + 7, last)
        if end < 0:
            return None
        if not self._effort.allows(self._base + start, HEARD_MAX):
            return start
        sums = list(accumulate(buffer[start + 2 : last], xor))
        while end >= 0 and sums[end - start - 3]:  # the data and their exclusive or leave nothing
            end = buffer.find(b"\r\n", end + 1, last)
        if end < 0:
            if len(buffer) <= last:
                return None
            self._effort.spend(HEARD_MAX)
            return start
        self.counts["Oncore"] += 1
        return end + 2

    def _sbf(self, buffer: bytes, start: int) -> int | None:
        """``$@``, CRC, id, length in bytes, a multiple of four (Septentrio SBF reference guide)."""
        length = _little(buffer, start + 6)
        if not 8 <= length <= HEARD_MAX or length % 4:
            return start
        if len(buffer) < start + length:
            return None
        good = crc_hqx(buffer[start + 4 : start + length], 0) == _little(buffer, start + 2)
        self.counts["SBF"] += good
        return start + length if good else start

    def _line(self, buffer: bytes, start: int) -> int | None:
        """``#NAME,port,...*crc`` (NovAtel OEM7 reference, ASCII), where Unicore (N4 reference) has a number in place of the port."""
        end = buffer.find(b"\r\n", start, start + HEARD_MAX)
        if end < 0:
            return None
        match = _LOG.fullmatch(buffer, start, end)
        if match is None or _novatel_crc(match[1]) != int(match[3], 16):
            return start
        self.counts["Unicore" if match[2].isdigit() else "NovAtel"] += 1
        return end

    def _italk(self, buffer: bytes, start: int) -> int | None:
        """``<!``, 4 bytes, length in words less one, the payload, ``>``. Its checksum is not published: two must follow each other."""
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
        if not self._effort.allows(self._base + start, RTCM2_EFFORT):
            return start
        words = [_word(buffer[i : i + 5]) for i in range(start, start + 15, 5)]
        before = int(buffer[start] == 0x59)  # preamble inverted: the last bit of the word before was 1
        good = any(all(_right(earlier, word) for earlier, word in zip([before | guess, *words], words, strict=False)) for guess in (0, 2))
        self.counts["RTCM2"] += good
        if not good:
            self._effort.spend(RTCM2_EFFORT)
        return start + 15 if good else start

    def _pair(self, name: str, start: int, end: int) -> int:
        """Count a frame of weak form when another one ended where it begins, for one alone may be chance. Where it ends."""
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
        if not self._effort.allows(self._base + start, HEARD_MAX):
            return start
        match = _DLE.match(buffer, start)
        if match is None:
            if _DLE_OPEN.fullmatch(buffer, start):
                return None
            self._effort.spend(HEARD_MAX)
            return start
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
