"""Bytes from a receiver's line to frames: NMEA sentences, UBX frames, and junk that is only counted.

Nothing is interpreted here beyond what delimits a frame, and its checksum. The stream may begin anywhere, carry several protocols at once,
lose bytes, and have sentences written into the middle of others. Therefore

* a frame is looked for at every ``$`` and every ``B5 62``; frames of protocols that give no time are recognised and counted by name
  (``foreign``), ``!`` sentences as AIS; what lies between frames is junk (noise, comments);
* a sentence ends at ``*hh`` (the line end may be missing), or without checksum at CR or LF if it begins with an address. What a receiver
  always writes otherwise is taken all the same (``habits``). A ``$`` or an unprintable byte inside tears it, and the search goes on behind
  its ``$``: a sentence written into another one is found, the outer one is lost;
* a UBX or foreign header claims a span. When the span's checksum is wrong, or while a complete correct frame lies inside it, the header was
  a chance pair of bytes and the search goes on behind it: it swallows no good frame.

A frame that the host itself wrote, and that comes back on the line, is dropped and counted (``echo``).

A line whose port is set to eight data bits, but whose receiver sends seven and a parity bit, is read all the same: ``SevenBits`` takes the
eighth bit away once a run of text has shown what it is.

What is found depends on the bytes alone, never on how reads cut them up. The buffer is bounded by the longest frame, and the work by the
number of bytes: once wrong claims have used up what a line is worth (``checksums.Effort``), headers are passed over unread for a while.

Flow: tty bytes + Instant -> **framing** -> nmea | ubx -> labels.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from enum import Enum
from typing import Final, NamedTuple

from refclock.protocols.checksums import Effort, nmea_checksum, ubx_checksum
from refclock.protocols.echo import Echo
from refclock.protocols.foreign import LEADS, Hearer, NoSpan, span
from refclock.protocols.habits import ChecksumHabits
from refclock.sample import Instant

SENTENCE_MAX: Final = 1024
"""Bytes from ``$`` to the checksum; a longer sentence is torn. NMEA 0183 allows 82, makers' own sentences reach several hundred."""
UBX_PAYLOAD_MAX: Final = 8192
"""Bytes; a longer payload is no UBX frame: the largest of the interface descriptions (RXM-RAWX, NAV-SAT, MON-SPAN) stay below 4 kB."""
UBX_OVERHEAD: Final = 8
"""Bytes of a frame besides its payload: sync 2, class, id, length 2, checksum 2 (u-blox protocol specification, UBX frame structure)."""

_SYNC = re.compile(rb"[$!\xb5]|" + LEADS)
_BODY = re.compile(rb"[$!][\x20-\x23\x25-\x29\x2b-\x7e]{0,%d}" % SENTENCE_MAX)  # printable, without $ and *
_SHIP = re.compile(rb"!(?:[A-Z]{5},|[A-Z]{0,5}\Z)")
_EMBEDDED = re.compile(rb"\$([A-Z][\x20-\x23\x25-\x29\x2b-\x7e]{5,1015})\*([0-9A-Fa-f]{2})")
_PLAIN = re.compile(rb"[A-Z]{2}[A-Z]{3},")
_ADDRESS = re.compile(rb"[A-Z][A-Z0-9]{2}")  # in a binary stream every 3000th byte is a $ before a line end
_HEX = re.compile(rb"[0-9A-Fa-f]{2}")
_SHORT = re.compile(rb" [0-9A-Fa-f]|[0-9A-Fa-f](?=[\r\n ])")


class FrameKind(Enum):
    """Which decoder a frame is for."""

    NMEA = "NMEA"
    UBX = "UBX"


class Frame(NamedTuple):
    """One frame. ``at``: arrival of its **first** byte.

    ``data``: NMEA: the text between ``$`` and ``*``; UBX: class, id, payload. ``checksum``: None when a sentence carries none; a UBX frame
    with a wrong one is not a frame. ``bare``: this receiver gives this kind of sentence none (``habits``).
    """

    kind: FrameKind
    data: bytes
    at: Instant
    checksum: bool | None
    bare: bool = False


class Tally(NamedTuple):
    """What a line has brought so far. ``received`` and ``junk`` in bytes, ``received`` without frames of the host's own that came back;
    ``recognised``: frames of any protocol, ours if ``Framer.sure``; ``bits``: see SevenBits."""

    received: int
    junk: int
    recognised: int
    bits: str = ""


BROKEN = ("torn-sentence", "ubx-checksum", "ubx-length")
"""Why a candidate was no frame but may have been one that arrived broken. (In ``ubx-bogus`` the good frame within was taken.)"""


class Framer:
    """Cuts one receiver's bytes into frames.

    ``counts``: frames by kind name, ``junk-bytes``, and why candidates were no frames: ``torn-sentence``, ``ubx-checksum``, ``ubx-length``,
    ``ubx-bogus`` (a header around a good frame), and ``echo``: frames of the host's own that came back. ``sure``: frames that no chance
    makes, and no host: with a right checksum, or sentences without any
    that look like standard ones. ``foreign``: frames of other protocols, by name. ``habits``: how the line writes its checksums.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._hearer = Hearer()
        self._bits = SevenBits()
        self.habits = ChecksumHabits()
        self._echo = Echo()
        self._effort = Effort()
        self._echoed = 0  # bytes of frames that came back
        self.sure: Counter[FrameKind] = Counter()
        self._pending = b""
        self._base = 0  # position in the stream of the first pending byte
        self._chunks: deque[tuple[int, Instant, int]] = deque()  # (end position, arrival of the last byte, ns per byte)

    @property
    def broken(self) -> Counter[str]:
        """Candidates that were no frames, by reason (``BROKEN``)."""
        return Counter({reason: self.counts[reason] for reason in BROKEN if reason in self.counts})

    @property
    def foreign(self) -> Counter[str]:
        """Frames of protocols that give no time, by name (``foreign.SWITCH``)."""
        return self._taken + self._hearer.counts

    @property
    def tally(self) -> Tally:
        """What has come so far."""
        recognised = sum(self.sure.values()) + sum(self.foreign.values())
        return Tally(self._base + len(self._pending) - self._echoed, self.counts["junk-bytes"], recognised, self._bits.bits)

    def wrote(self, data: bytes) -> None:
        """The host has written these whole frames to the line."""
        if not data:
            return
        for frame in Framer().feed(data, Instant(0, 0), 0):
            self._echo.wrote(frame.data)

    def feed(self, data: bytes, at: Instant, byte_ns: int) -> list[Frame]:
        """Frames completed by ``data``, in order. ``at``: end of the read; ``byte_ns``: line time of one byte, 0 when unknown."""
        data = self._bits.strip(data)
        self._hearer.feed(data)
        buffer = self._pending + data if self._pending else data
        self._chunks.append((self._base + len(buffer), at, byte_ns))
        frames: list[Frame] = []
        position = 0
        while True:
            # What lies before the next possible beginning is junk; line ends between sentences are not.
            sync = _SYNC.search(buffer, position)
            start = sync.start() if sync else len(buffer)
            if start != position:
                gap = buffer[position:start]
                junk = len(gap) - gap.count(b"\r") - gap.count(b"\n")
                if junk:
                    self.counts["junk-bytes"] += junk
            position = start
            if sync is None:
                break
            lead = buffer[start]
            if lead in b"$!":
                after = self._sentence(buffer, start, frames)
            else:
                after = self._ubx(buffer, start, frames) if lead == 0xB5 else self._foreign(buffer, start)
            if after is None:  # a frame may begin here, but bytes are missing
                break
            if after == start + 1:  # no frame: go on one byte behind
                self.counts["junk-bytes"] += 1
            position = after
        self._pending = buffer[position:]
        self._base += position
        while self._chunks and self._chunks[0][0] <= self._base:
            self._chunks.popleft()
        return frames

    def _stamp(self, offset: int) -> Instant:
        """Arrival of the byte at ``offset`` of the buffer; offsets only grow."""
        position = self._base + offset
        while self._chunks[0][0] <= position:
            self._chunks.popleft()
        end, at, byte_ns = self._chunks[0]
        behind_ns = (end - position - 1) * byte_ns
        return at.shifted(-behind_ns) if behind_ns else at

    def _sentence(self, buffer: bytes, start: int, frames: list[Frame]) -> int | None:
        """Take the sentence at ``start``: position behind it, ``start`` + 1 when it is none, None when bytes are missing."""
        if buffer[start] == 0x21 and not _SHIP.match(buffer, start):
            return start + 1
        match = _BODY.match(buffer, start)
        end = match.end() if match else start + 1
        if end - start > SENTENCE_MAX - 3:
            self.counts["torn-sentence"] += 1
            return start + 1
        if end == len(buffer):
            return None
        stop = buffer[end]
        if buffer[start] == 0x21:
            return self._ship(buffer, start, end)
        if stop == 0x2A:
            if len(buffer) < end + 3:
                return None
            body = buffer[start + 1 : end]
            digits = _HEX.match(buffer, end + 1) or _SHORT.match(buffer, end + 1)
            good: bool | None = digits is not None and self.habits.right(body, digits[0])
            if digits is None or (not good and not _HEX.fullmatch(digits[0])):
                self.counts["torn-sentence"] += 1
                return start + 1
            behind = digits.end()
        elif stop in b"\r\n" and _ADDRESS.match(buffer, start + 1, end):
            body, good, behind = buffer[start + 1 : end], None, end + 1
        else:
            if end > start + 1:  # of "$$" only the first is lost
                self.counts["torn-sentence"] += 1
            return start + 1
        if self._came_back(body, behind - start):
            return behind
        self.counts["NMEA"] += 1
        if (good or (good is None and _PLAIN.match(body))) and not self._echo.shows_nothing(body, whole=bool(good)):
            self.sure[FrameKind.NMEA] += 1
        bare = good is None and body[:1] != b"P" and _PLAIN.match(body) is not None and self.habits.bare(body)
        frames.append(Frame(FrameKind.NMEA, body, self._stamp(start), good, bare))
        return behind

    def _ship(self, buffer: bytes, start: int, end: int) -> int | None:
        """An encapsulated sentence (NMEA 0183 section 5.3.3: AIS); anything else that begins with ``!`` is junk."""
        if buffer[end] != 0x2A:
            return start + 1
        if len(buffer) < end + 3:
            return None
        if not _HEX.match(buffer, end + 1) or nmea_checksum(buffer[start + 1 : end]) != int(buffer[end + 1 : end + 3], 16):
            return start + 1
        self._taken["AIS"] += 1
        return end + 3

    def _foreign(self, buffer: bytes, start: int) -> int | None:
        """Take the frame of another protocol at ``start``; returns as ``_sentence``."""
        claim = span(buffer, start)
        if isinstance(claim, NoSpan):
            return None if claim is NoSpan.MORE else start + 1
        if not self._effort.allows(self._base + start, claim.length):
            return start + 1
        end = start + claim.length
        if _holds_frame(buffer, start + 2, end):
            self._effort.spend(claim.length)
            return start + 1
        if len(buffer) < end:
            return None
        if not claim.form.good(buffer[start:end]):
            self._effort.spend(claim.length)
            return start + 1
        self._taken[claim.form.name] += 1
        return end

    def _ubx(self, buffer: bytes, start: int, frames: list[Frame]) -> int | None:
        """Take the UBX frame at ``start``; returns as ``_sentence``."""
        available = len(buffer)
        if available < start + 2:
            return None
        if buffer[start + 1] != 0x62:
            return start + 1
        if available < start + 6:
            return None
        length = buffer[start + 4] | buffer[start + 5] << 8
        if length > UBX_PAYLOAD_MAX:
            self.counts["ubx-length"] += 1
            return start + 1
        end = start + UBX_OVERHEAD + length
        if not self._effort.allows(self._base + start, length):
            self.counts["ubx-checksum"] += 1
            return start + 1
        if _holds_frame(buffer, start + 2, end):
            self.counts["ubx-bogus"] += 1
            self._effort.spend(length)
            return start + 1
        if available < end:
            return None
        if ubx_checksum(buffer[start + 2 : end - 2]) != buffer[end - 2 : end]:
            self.counts["ubx-checksum"] += 1
            self._effort.spend(length)
            return start + 1
        body = buffer[start + 2 : start + 4] + buffer[start + 6 : end - 2]
        if self._came_back(body, end - start):
            return end
        self.counts["UBX"] += 1
        self.sure[FrameKind.UBX] += not self._echo.shows_nothing(body)
        frames.append(Frame(FrameKind.UBX, body, self._stamp(start), True))
        return end

    def _came_back(self, body: bytes, length: int) -> bool:
        """Whether the frame with this content and length is the host's own; if so, it is counted."""
        if not self._echo.came_back(body):
            return False
        self.counts["echo"] += 1
        self._echoed += length
        return True


def _holds_frame(buffer: bytes, start: int, end: int) -> bool:
    """Whether a frame with the right checksum lies wholly within buffer[start:end] and has arrived. UBX headers within are looked at until
    they have claimed as much as there is room for."""
    arrived = min(end, len(buffer))
    if buffer.find(b"$", start, arrived) >= 0:
        for match in _EMBEDDED.finditer(buffer, start, arrived):
            if nmea_checksum(match[1]) == int(match[2], 16):
                return True
    room, inner = end - start, buffer.find(b"\xb5\x62", start, arrived)
    while inner >= 0 and room > 0 and inner + 6 <= arrived:
        stop = inner + UBX_OVERHEAD + (buffer[inner + 4] | buffer[inner + 5] << 8)
        if stop <= end:
            room -= stop - inner
            if stop <= arrived and ubx_checksum(buffer[inner + 2 : stop - 2]) == buffer[stop - 2 : stop]:
                return True
        inner = buffer.find(b"\xb5\x62", inner + 1, arrived)
    return False


# ---- seven data bits -----------------------------------------------------------------------------------------------------------------

PARITY_RUN: Final = 48
"""Characters in a row, all of them text with the right eighth bit, that show seven data bits: by chance once in 2**48."""
PARITY_SET: Final = 8
"""Characters of such a run whose eighth bit must be set: text of eight bits may have even parity throughout ("AAAA")."""
BREACHES: Final = 4
BREACH_SPAN: Final = 4 * PARITY_RUN
"""Characters; four wrong eighth bits among them end the seven bits. A bad cable has one now and then."""

_TEXT = (*range(0x20, 0x7F), 0x0D, 0x0A)
_GOOD = {
    "7N2": bytes(c | 0x80 for c in _TEXT),
    "7E1": bytes(c | (c.bit_count() & 1) << 7 for c in _TEXT),
    "7O1": bytes(c | (~c.bit_count() & 1) << 7 for c in _TEXT),
}
_RUN = {bits: re.compile(b"(?=([" + re.escape(good) + b"]{%d}))" % PARITY_RUN) for bits, good in _GOOD.items()}
_BREACH = {bits: re.compile(b"[^" + re.escape(good) + b"]") for bits, good in _GOOD.items()}
_STRIP = bytes(c & 0x7F for c in range(256))


class SevenBits:
    """The eighth bits of one line. ``bits``: "7N2", "7E1" or "7O1" while its characters have seven data bits, else ""."""

    def __init__(self) -> None:
        self.bits = ""
        self._tail = b""
        self._breaches: deque[int] = deque(maxlen=BREACHES - 1)
        self._position = 0

    def strip(self, data: bytes) -> bytes:
        """``data``, without the eighth bit from the end of the first run of PARITY_RUN characters on."""
        out, begin = b"", 0
        while begin < len(data):
            rest = data[begin:]
            strips = bool(self.bits)
            taken = self._seven_bits_in(rest) if strips else self._eight_bits_in(rest)
            out += rest[:taken].translate(_STRIP) if strips else rest[:taken]
            begin += taken
            self._position += taken
        return out

    def _eight_bits_in(self, data: bytes) -> int:
        """How many bytes of ``data`` still have eight bits; sets ``bits`` when a run ends behind them."""
        heard = self._tail + data
        if heard.isascii():  # no eighth bit is set
            self._tail = heard[-(PARITY_RUN - 1) :]
            return len(data)
        runs = ((bits, match) for bits, run in _RUN.items() for match in run.finditer(heard))
        found = [(match.end(1), bits) for bits, match in runs if sum(c >> 7 for c in match[1]) >= PARITY_SET]
        if not found:
            self._tail = heard[-(PARITY_RUN - 1) :]
            return len(data)
        end, self.bits = min(found)
        taken = end - len(self._tail)
        self._tail = b""
        self._breaches.clear()
        return taken

    def _seven_bits_in(self, data: bytes) -> int:
        """How many bytes of ``data`` have seven bits; clears ``bits`` when too many breaches end them."""
        for breach in _BREACH[self.bits].finditer(data):
            at = self._position + breach.start()
            if len(self._breaches) == BREACHES - 1 and at - self._breaches[0] < BREACH_SPAN:
                self.bits = ""
                self._breaches.clear()
                return breach.start() + 1
            self._breaches.append(at)
        return len(data)
