"""The client's half of NTS (RFC 8915): what it asks of a key server, and requests and replies that are sealed with its keys. Sans-IO.

Flow: ``asked`` -> key server -> ``granted`` -> Grant -> **Seal**: header -> ``request`` -> NTP server -> ``reply`` -> Verdict.

Each cookie is sent once, so that nobody can tell by it that two requests come from one machine (section 5.7). Each request asks for as many
new ones as are lacking. A reply counts when its authenticator is right; what is outside of that is not looked at. A NAK is no proof: the
old keys are used on until new ones are there, and new ones are wanted when no sealed reply has come by the next request (section 5.7).

Nothing here raises, whatever a server sends. The cipher comes with the keys.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final, Protocol

from ppsd.ntp.nts import AES_128_GCM_SIV, AES_SIV_CMAC_256, COOKIES, NTPV4, Agreement, Fault, KeRecord, Kind, message
from ppsd.ntp.packet import HEADER

REPLY_BYTES: Final = 65536
"""Octets of the longest answer of a key server that is read (section 4)."""
COOKIE_BYTES: Final = 512
"""Octets of the longest cookie that is kept; those of servers of today have 60 to 200."""
PACKET_BYTES: Final = 1200
"""Octets of the longest request: with the headers of UDP and IPv6 it passes any path undivided (RFC 8200 section 5). A reply is no longer
than its request (section 5.7)."""
UNIQUE_BYTES: Final = 32
"""Octets of a unique identifier: the fewest that are allowed (section 5.3)."""
NONCES: Final = {AES_SIV_CMAC_256: 16, AES_128_GCM_SIV: 12}
"""Cipher -> octets of a nonce: as many as it takes, and no more than 16 (section 5.6)."""
NONCE_BYTES: Final = max(NONCES.values())
"""Octets of the longest."""
TAG_BYTES: Final = 16
"""Octets by which a sealed text is longer."""
HOST_BYTES: Final = 255
"""Octets of the longest name of a server (RFC 1035 section 2.3.4)."""
NAK: Final = b"NTSN"
"""Kiss code of a server that cannot open the cookie (section 5.7)."""

_FIELD: Final = struct.Struct("!HH")
_NUMBER: Final = struct.Struct("!H")
_STRATUM: Final = 1
_REFID: Final = slice(12, 16)
_ORIGIN: Final = slice(24, 32)
_TRANSMIT: Final = slice(40, 48)


class Extension(IntEnum):
    """Types of extension fields (section 7.5)."""

    UNIQUE = 0x0104
    COOKIE = 0x0204
    PLACEHOLDER = 0x0304
    AUTHENTICATOR = 0x0404


class Aead(Protocol):
    """A cipher with its key."""

    def seal(self, data: bytes, nonce: bytes, text: bytes) -> bytes:
        """The sealed text, bound to ``data`` and ``nonce``."""

    def open(self, data: bytes, nonce: bytes, sealed: bytes) -> bytes | None:
        """The text; None when it is not genuine."""


# ---- the key server ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terms:
    """What a key server grants: the cipher, the first cookies, and where the time is asked for: "" and None: at the key server's address,
    and at the usual port. ``compliant``: as of Agreement."""

    aead: int
    cookies: tuple[bytes, ...] = field(repr=False)
    server: str = ""
    port: int | None = None
    compliant: bool = False

    @property
    def exported_as(self) -> int:
        """The number of the AEAD under which keys are exported."""
        return Agreement(True, self.aead, self.compliant).exported_as or self.aead


_FAULTS: Final = {
    Fault.UNKNOWN_CRITICAL: "the key server does not understand the request",
    Fault.BAD_REQUEST: "the key server calls the request bad",
    Fault.INTERNAL: "the key server has a fault of its own; it is asked again later",
}


def asked(aeads: Sequence[int]) -> bytes:
    """The request: NTPv4, sealed by one of these ciphers, the best first."""
    ciphers = b"".join(map(_NUMBER.pack, aeads))
    compliant = [KeRecord(Kind.COMPLIANT_EXPORT)] if AES_128_GCM_SIV in aeads else []
    return message([KeRecord(Kind.PROTOCOLS, _NUMBER.pack(NTPV4), critical=True), KeRecord(Kind.AEADS, ciphers, critical=True), *compliant])


def granted(answer: Sequence[KeRecord], aeads: Sequence[int]) -> Terms | str:
    """What the answer to ``asked`` grants (sections 4.1.1 to 4.1.8), or why it is of no use."""
    by_kind = {kind: [record.body for record in answer if record.kind == kind] for kind in Kind}
    if by_kind[Kind.ERROR]:
        return _fault(by_kind[Kind.ERROR][0])
    if by_kind[Kind.WARNING]:
        return "the key server warns of something that is not known here"
    if any(record.critical and record.kind not in by_kind for record in answer):
        return "the key server demands something that is not known here"
    protocols, ciphers, servers, ports = (by_kind[kind] for kind in (Kind.PROTOCOLS, Kind.AEADS, Kind.SERVER, Kind.PORT))
    if protocols == [b""]:
        return "the key server has no keys for NTPv4"
    if ciphers == [b""]:
        return "the key server has no cipher in common with this machine"
    if protocols != [_NUMBER.pack(NTPV4)] or len(ciphers) != 1 or ciphers[0] not in map(_NUMBER.pack, aeads):
        return "the key server's answer is malformed: it names other protocols or ciphers than were asked for"
    cookies = tuple(cookie for cookie in by_kind[Kind.COOKIE] if 0 < len(cookie) <= COOKIE_BYTES)[:COOKIES]
    if not cookies:
        return "the key server gives no cookies"
    host = servers[0].decode("ascii", "replace") if servers else ""
    port = int.from_bytes(ports[0]) if ports else None
    sound = len(servers) < 2 and len(ports) < 2 and all(len(body) == _NUMBER.size for body in ports) and port != 0
    if not sound or (servers and not _is_host(host)):
        return "the key server's answer is malformed: it names no server that could be asked"
    return Terms(int.from_bytes(ciphers[0]), cookies, host, port, b"" in by_kind[Kind.COMPLIANT_EXPORT])


def _fault(body: bytes) -> str:
    code = int.from_bytes(body)
    return _FAULTS[Fault(code)] if code in _FAULTS else f"the key server refuses, for a reason that is not known here ({code})"


def _is_host(text: str) -> bool:
    return 0 < len(text) <= HOST_BYTES and all(letter.isascii() and (letter.isalnum() or letter in "-.:_") for letter in text)


# ---- packets -----------------------------------------------------------------------------------------------------------------------------


class Verdict(Enum):
    """What a datagram is: sealed with our keys; a NAK to the last request; or something else, which anybody may have sent."""

    GENUINE = "sealed"
    NAK = "the server does not know the keys any more"
    STRANGE = "not sealed with the keys"


class Seal:
    """Keys of one server, and the cookies by which it knows them. ``cipher``: number of the AEAD. ``naked``: a NAK has come, and no sealed
    reply since."""

    def __init__(self, cipher: int, to_server: Aead, to_client: Aead, cookies: Sequence[bytes]) -> None:
        self.cipher = cipher
        self._to_server, self._to_client = to_server, to_client
        self._cookies = deque(cookies, maxlen=COOKIES)
        self._unique = b""
        self._transmit = b""
        self.naked = False
        self.naks = 0

    @property
    def cookies(self) -> tuple[bytes, ...]:
        """Those that are left, in the order in which they are sent."""
        return tuple(self._cookies)

    def request(self, header: bytes, unique: bytes, nonce: bytes) -> bytes:
        """``header`` sealed with the next cookie, which there must be. ``unique``, ``nonce``: random, of UNIQUE_BYTES and NONCE_BYTES."""
        cookie, nonce = self._cookies.popleft(), nonce[: NONCES[self.cipher]]
        self._unique, self._transmit = unique, header[_TRANSMIT]
        packet = header + _extension(Extension.UNIQUE, unique) + _extension(Extension.COOKIE, cookie)
        empty = _extension(Extension.PLACEHOLDER, bytes(len(cookie)))
        end = 2 * _FIELD.size + len(nonce) + TAG_BYTES
        room = (PACKET_BYTES - len(packet) - end) // len(empty)
        packet += empty * max(0, min(COOKIES - 1 - len(self._cookies), room))
        sealed = self._to_server.seal(packet, nonce, b"")
        return packet + _extension(Extension.AUTHENTICATOR, _FIELD.pack(len(nonce), len(sealed)) + nonce + sealed)

    def reply(self, data: bytes) -> Verdict:
        """What a datagram is that came after ``request``. The cookies of one that is genuine are kept."""
        uniques = 0
        for kind, at, body in _extensions(data, HEADER.size):
            if kind == Extension.UNIQUE:
                uniques += 1
                if body != self._unique or uniques > 1:
                    return Verdict.STRANGE
            if kind == Extension.AUTHENTICATOR:
                return self._opened(data[:at], body) if uniques == 1 and self._unique else Verdict.STRANGE
        is_nak = uniques == 1 and data[_STRATUM] == 0 and data[_REFID] == NAK and data[_ORIGIN] == self._transmit
        if not is_nak or not self._unique:
            return Verdict.STRANGE
        self.naks += not self.naked
        self.naked = True
        return Verdict.NAK

    def _opened(self, packet: bytes, body: bytes) -> Verdict:
        """``packet``: what is in front of the authenticator, whose ``body`` this is (section 5.6)."""
        if len(body) < _FIELD.size:
            return Verdict.STRANGE
        nonce_bytes, sealed_bytes = _FIELD.unpack_from(body)
        begin = _FIELD.size + nonce_bytes + -nonce_bytes % 4
        if not nonce_bytes or sealed_bytes < TAG_BYTES or begin + sealed_bytes > len(body):
            return Verdict.STRANGE
        text = self._to_client.open(packet, body[_FIELD.size : _FIELD.size + nonce_bytes], body[begin : begin + sealed_bytes])
        if text is None:
            return Verdict.STRANGE
        self._unique, self.naked = b"", False
        self._cookies += [inner for kind, _, inner in _extensions(text, 0) if kind == Extension.COOKIE and 0 < len(inner) <= COOKIE_BYTES]
        return Verdict.GENUINE


def _extension(kind: int, body: bytes) -> bytes:
    """An extension field (RFC 7822 section 7.5)."""
    padding = bytes(-len(body) % 4)
    return _FIELD.pack(kind, _FIELD.size + len(body) + len(padding)) + body + padding


def _extensions(data: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """(type, place, body) of each extension field from ``at`` on, up to the first that is none."""
    while at + _FIELD.size <= len(data):
        kind, length = _FIELD.unpack_from(data, at)
        if length < _FIELD.size or length % 4 or at + length > len(data):
            return
        yield kind, at, data[at + _FIELD.size : at + length]
        at += length
