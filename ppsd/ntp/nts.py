"""NTS key establishment: records, and what a server agrees to (RFC 8915 section 4).

Flow: octets of a TLS session -> ``records`` -> ``agreed`` -> ``reply`` -> the session. What needs TLS or a cipher comes with the call: the
keys of a session are exported under EXPORTER with ``exporter_context``, and cookies are sealed by whoever has the key. Nothing here raises,
whatever a client sends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

ALPN: Final = b"ntske/1"
"""Name of the protocol inside TLS (section 4)."""
EXPORTER: Final = b"EXPORTER-network-time-security"
"""Label under which both sides export the keys of NTP from their TLS session (section 5.1)."""
NTPV4: Final = 0
"""Protocol ID of NTPv4 (section 7.7)."""
AES_SIV_CMAC_256: Final = 15
"""Number of the AEAD that every implementation must have (section 5.1; RFC 5297)."""
KEY_BYTES: Final = 32
"""Octets of a key of AES_SIV_CMAC_256."""
AES_128_GCM_SIV: Final = 30
"""Number of an AEAD whose packets are 36 octets shorter (RFC 8452); chronyd prefers it, as some networks refuse longer ones."""
AEAD_KEYS: Final = {AES_SIV_CMAC_256: KEY_BYTES, AES_128_GCM_SIV: 16}
"""The AEADs that a server speaks -> octets of a key."""
COOKIES: Final = 8
"""Cookies for a new client (section 4.1.6)."""
REQUEST_BYTES: Final = 4096
"""Octets of the longest request that is read; one of 1024 must be (section 4)."""
NTP_PORT: Final = 123
"""The port that clients ask when no record names another (section 4.1.8)."""

_HEAD: Final = struct.Struct("!HH")
_NUMBER: Final = struct.Struct("!H")
_CONTEXT: Final = struct.Struct("!HHB")
_CRITICAL: Final = 0x8000


class Kind(IntEnum):
    """Types of records (section 7.6)."""

    END = 0
    PROTOCOLS = 1
    ERROR = 2
    WARNING = 3
    AEADS = 4
    COOKIE = 5
    SERVER = 6
    PORT = 7
    COMPLIANT_EXPORT = 1024
    """Not of the RFC, empty: keys of AES_128_GCM_SIV are exported as the RFC says. chronyd 4.4 to 4.6 export them under the number of
    AES_SIV_CMAC_256; later ones send this record and look for it (chrony's nts_ke_server.c, nts_ke_client.c)."""


_KINDS: Final = frozenset(map(int, Kind))


class Fault(IntEnum):
    """What a client is told instead of cookies (section 4.1.3)."""

    UNKNOWN_CRITICAL = 0
    BAD_REQUEST = 1
    INTERNAL = 2


class Flaw(Enum):
    """Why octets are no message; the value is the text for people."""

    UNFINISHED = "its end has not come"
    TRAILING = "something follows its end"
    TOO_LONG = "longer than any message"


@dataclass(frozen=True, slots=True)
class KeRecord:
    """One record. ``kind``: of Kind, or a number that is not known here."""

    kind: int
    body: bytes = b""
    critical: bool = False

    def to_bytes(self) -> bytes:
        """As octets; a body has at most 65535."""
        return _HEAD.pack(self.kind | (_CRITICAL if self.critical else 0), len(self.body)) + self.body


@dataclass(frozen=True, slots=True)
class Agreement:
    """What client and server will speak. ``ntp``: NTPv4; ``aead``: by which cipher, None: by none that both have. ``compliant``: the client
    exports keys of AES_128_GCM_SIV as the RFC says."""

    ntp: bool
    aead: int | None
    compliant: bool = False

    @property
    def complete(self) -> bool:
        """Whether there is anything to give cookies for."""
        return self.ntp and self.aead is not None

    @property
    def exported_as(self) -> int | None:
        """The number of the AEAD under which keys are exported."""
        return AES_SIV_CMAC_256 if self.aead == AES_128_GCM_SIV and not self.compliant else self.aead


def records(data: bytes, longest: int = REQUEST_BYTES) -> tuple[KeRecord, ...] | Flaw:
    """The records of a message of at most ``longest`` octets, its end among them."""
    found: list[KeRecord] = []
    at = 0
    while at + _HEAD.size <= len(data):
        kind, length = _HEAD.unpack_from(data, at)
        after = at + _HEAD.size + length
        if after > longest:
            return Flaw.TOO_LONG
        if after > len(data):
            return Flaw.UNFINISHED
        found.append(KeRecord(kind & ~_CRITICAL, data[at + _HEAD.size : after], bool(kind & _CRITICAL)))
        at = after
        if found[-1].kind == Kind.END:
            return tuple(found) if at == len(data) else Flaw.TRAILING
    return Flaw.UNFINISHED if len(data) < longest else Flaw.TOO_LONG


def agreed(request: Sequence[KeRecord]) -> Agreement | Fault:
    """What a server agrees to (sections 4.1.1 to 4.1.8), or why it does not."""
    if any(record.critical and record.kind not in _KINDS for record in request):
        return Fault.UNKNOWN_CRITICAL
    by_kind = {kind: [record for record in request if record.kind == kind] for kind in Kind}
    if any(by_kind[kind] for kind in (Kind.ERROR, Kind.WARNING, Kind.COOKIE)):  # a server's alone
        return Fault.BAD_REQUEST
    end, protocols, aeads = by_kind[Kind.END], by_kind[Kind.PROTOCOLS], by_kind[Kind.AEADS]
    if len(end) != 1 or not end[0].critical or end[0].body or len(protocols) != 1 or not protocols[0].critical or len(aeads) > 1:
        return Fault.BAD_REQUEST
    if any(len(by_kind[kind]) > 1 for kind in (Kind.SERVER, Kind.PORT)) or any(len(port.body) != 2 for port in by_kind[Kind.PORT]):
        return Fault.BAD_REQUEST
    spoken, ciphers = _numbers(protocols[0].body), _numbers(aeads[0].body) if aeads else ()
    if not spoken or ciphers is None:
        return Fault.BAD_REQUEST
    if NTPV4 not in spoken:
        return Agreement(False, None)
    if not aeads:
        return Fault.BAD_REQUEST
    aead = next((cipher for cipher in ciphers if cipher in AEAD_KEYS), None)  # the client's order counts
    return Agreement(True, aead, aead == AES_128_GCM_SIV and any(not record.body for record in by_kind[Kind.COMPLIANT_EXPORT]))


def reply(agreement: Agreement, cookies: Iterable[bytes] = (), server: str = "", port: int | None = None) -> bytes:
    """The answer to a request. ``server``, ``port``: where the client asks for the time, where that is not this server at NTP_PORT."""
    answer = [KeRecord(Kind.PROTOCOLS, _NUMBER.pack(NTPV4) if agreement.ntp else b"", critical=True)]
    if agreement.ntp:
        answer.append(KeRecord(Kind.AEADS, b"" if agreement.aead is None else _NUMBER.pack(agreement.aead)))
    if agreement.compliant:
        answer.append(KeRecord(Kind.COMPLIANT_EXPORT))
    if agreement.complete:
        if server:
            answer.append(KeRecord(Kind.SERVER, server.encode("ascii", "replace"), critical=True))
        if port not in (None, NTP_PORT):
            answer.append(KeRecord(Kind.PORT, _NUMBER.pack(port), critical=True))
        answer += [KeRecord(Kind.COOKIE, cookie) for cookie in cookies]
    return message(answer)


def refusal(fault: Fault) -> bytes:
    """The answer to a request that is refused."""
    return message([KeRecord(Kind.ERROR, _NUMBER.pack(fault), critical=True)])


def message(parts: Iterable[KeRecord]) -> bytes:
    """A message of these records and its end."""
    return b"".join(record.to_bytes() for record in (*parts, KeRecord(Kind.END, critical=True)))


def exporter_context(aead: int, to_server: bool) -> bytes:
    """The context under which the key for packets to the server, or to the client, is exported (section 5.1)."""
    return _CONTEXT.pack(NTPV4, aead, 0 if to_server else 1)


def _numbers(body: bytes) -> tuple[int, ...] | None:
    """A list of 16-bit numbers; None when a half is left over."""
    return None if len(body) % 2 else struct.unpack(f"!{len(body) // 2}H", body)
