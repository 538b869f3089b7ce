"""NTP mode 6, read-only: what ``ntpq`` and the plugins that speak its protocol ask, answered from a Snapshot. Pure.

Flow: NTP server (a packet of mode 6 from this machine itself) -> ``ppsd.serve.mode6`` -> **answer** -> packets back. A request has a header
of 12 octets and text; a reply goes in fragments of at most 468 octets of text. Replies are longer than requests, so the caller sees to it
that only this machine asks.

Answered are READSTAT, READVAR, READCLOCK, REQ_NONCE and READ_MRU. Whatever writes, or needs a key, is refused. Source of numbers and names:
RFC 9327, RFC 1305 appendix B, and for READ_MRU ntp_control.c of ntpsec 1.2.2, whose ntpq reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from ppsd.snapshot import Client, Snapshot, SourceStatus
from refclock.sample import NS
from refclock.timescales import ntp64

HEADER: Final = struct.Struct(">BBHHHHH")
"""Leap, version and mode; response, error, more and operation; sequence, status, association, offset, count."""
MODE: Final = 6
READSTAT, READVAR, READCLOCK, READ_MRU, REQ_NONCE = 1, 2, 4, 10, 12
WRITES: Final = (3, 5, 8, 9, 11)
"""WRITEVAR, WRITECLOCK, CONFIGURE, SAVECONFIG and the lists that need a key."""
RESPONSE, ERROR, MORE = 0x80, 0x40, 0x20
PERMISSION, BAD_FORMAT, BAD_OPERATION, BAD_ASSOCIATION, UNKNOWN_VARIABLE, BAD_VALUE = 1, 2, 3, 4, 5, 6
"""Error codes."""
FRAGMENT: Final = 468
"""Octets of text in a packet."""
FRAGMENTS: Final = 32
"""Packets that ntpq puts together."""
NONCE_S: Final = 16
"""s for which a nonce is good, as in ntpd."""
CONFIGURED, REACHED = 0x80, 0x10
"""Bits of the peer status word."""
EVENT_REACHABLE, EVENT_UNREACHABLE, EVENT_SYSTEM_PEER = 4, 3, 10
EVENT_CLOCK_SYNC, EVENT_RESTART = 5, 6
LEAPS: Final = {"normal": 0, "insert": 1, "delete": 2, "unsynchronised": 3}
DRIVERS: Final = {"receiver": 20, "gpsd": 46, "shm": 28, "sock": 28}
"""ntpd's drivers for such sources: NMEA, gpsd, shared memory."""
NAME_MAX: Final = 15
"""Characters of a name in ntpq's billboard."""
REJECTED, FALSETICKER, OUTLIER, CANDIDATE, SYSTEM_PEER, PPS_PEER = 0, 1, 3, 4, 6, 7
KINDS: Final = {"receiver": "GPS", "gpsd": "GPSD", "sock": "SOCK", "shm": "SHM"}
"""Reference identifiers of sources that are not selected."""
PRECISION: Final = -23
"""log2 s, about 0.1 us: what the clock of this machine resolves, as in the server's packets."""


@dataclass(frozen=True, slots=True)
class Told:
    """What replies are made from. ``clock`` and ``clients``, the latest first, are called when a request needs them. ``utc_ns``: now.
    ``secret``: of nonces, 16 octets."""

    clock: Callable[[], Snapshot | None]
    clients: Callable[[], Sequence[Client]]
    utc_ns: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Peer:
    """One source as ntpd tells it. ``kind``: as in SourceStatus. ``selection``: 0 to 7. ``when_s``: since its last sample. Milliseconds:
    ``offset_ms``, ``jitter_ms``, ``dispersion_ms``."""

    association: int
    kind: str
    name: str
    refid: str
    selection: int
    when_s: float | None
    reach: int
    offset_ms: float
    jitter_ms: float
    dispersion_ms: float


def _selection(s: SourceStatus, refid: str) -> int:
    if s.tally == "*":
        return PPS_PEER if refid == "PPS" else SYSTEM_PEER
    return {"+": CANDIDATE, "-": OUTLIER, "x": FALSETICKER}.get(s.tally, REJECTED)


def associations(clock: Snapshot) -> list[Peer]:
    """The sources as associations, numbered from 1. A name ends in a number in brackets: by that ntpq knows a reference clock."""
    found = []
    for i, s in enumerate(clock.sources):
        refid = clock.refid if s.tally == "*" else KINDS.get(s.kind, s.kind.upper()[:4])
        found.append(
            Peer(
                association=i + 1,
                kind=s.kind,
                name=f"{s.name[: NAME_MAX - 3]}({i})",
                refid=refid,
                selection=_selection(s, refid),
                when_s=s.last_sample_s,
                reach=s.reach,
                offset_ms=(s.offset_ns or 0) / 1e6,
                jitter_ms=(s.jitter_ns or 0) / 1e6,
                dispersion_ms=(s.bound_ns or 0) / 1e6,
            )
        )
    return found


class _RefusedError(Exception):
    """A request is answered with an error code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def answer(request: bytes, source: str, told: Told) -> list[bytes]:
    """The packets of the reply to a packet from the address ``source``; none for what is no request of mode 6."""
    if len(request) < HEADER.size:
        return []
    first, operation, sequence, _, association, offset, count = HEADER.unpack_from(request)
    version = first >> 3 & 7
    if first & 7 != MODE or not 1 <= version <= 4 or operation & (RESPONSE | ERROR | MORE):
        return []
    head = (first & 0x3F, operation, sequence, association)
    if offset or len(request) < HEADER.size + count:
        return [_error(head, BAD_FORMAT)]
    text = request[HEADER.size : HEADER.size + count].decode("ascii", "replace")
    try:
        status, data = _read(operation, association, text, source, told)
    except _RefusedError as refused:
        return [_error(head, refused.code)]
    return list(_packets(head, status, data))


_Head = tuple[int, int, int, int]


def _error(head: _Head, code: int) -> bytes:
    first, operation, sequence, association = head
    return HEADER.pack(first, RESPONSE | ERROR | operation, sequence, code << 8, association, 0, 0)


def _packets(head: _Head, status: int, data: bytes) -> Iterator[bytes]:
    """The fragments of a reply, each padded to whole words."""
    first, operation, sequence, association = head
    for offset in range(0, max(1, len(data)), FRAGMENT):
        part, more = data[offset : offset + FRAGMENT], MORE if offset + FRAGMENT < len(data) else 0
        packed = HEADER.pack(first, RESPONSE | more | operation, sequence, status, association, offset, len(part))
        yield packed + part + bytes(-len(part) % 4)


def _read(operation: int, association: int, text: str, source: str, told: Told) -> tuple[int, bytes]:
    """Status and data of a reply."""
    if operation in WRITES:
        raise _RefusedError(PERMISSION)
    if operation not in (READSTAT, READVAR, READCLOCK, READ_MRU, REQ_NONCE):
        raise _RefusedError(BAD_OPERATION)
    if operation == REQ_NONCE:
        return 0, f"nonce={nonce(source, told)}".encode()
    if operation == READ_MRU:
        return 0, _mru(text, source, told).encode()
    clock = told.clock()
    peers = associations(clock) if clock is not None else []
    if association == 0 and operation == READSTAT:
        return system_status(clock), b"".join(struct.pack(">HH", p.association, peer_status(p)) for p in peers)
    if association == 0 and operation == READVAR:
        return system_status(clock), _wanted(_system(clock, peers, told.utc_ns), text)
    peer = next((p for p in peers if association in (p.association, 0)), None)
    if peer is None or clock is None:
        raise _RefusedError(BAD_ASSOCIATION)
    if operation == READCLOCK:
        return 0, _wanted(_clock(clock, peer), text)
    return peer_status(peer), _wanted(_peer(clock, peer, told.utc_ns), text)


def _wanted(variables: Mapping[str, str], text: str) -> bytes:
    """The variables that a request names, or all of them. An unknown name is an error, as in ntpd."""
    names = [name.partition("=")[0].strip() for name in text.replace("\0", ",").split(",") if name.strip()]
    if any(name not in variables for name in names):
        raise _RefusedError(UNKNOWN_VARIABLE)
    return ", ".join(f"{name}={variables[name]}" for name in names or variables).encode("ascii", "replace")


# ---- status words and variables --------------------------------------------------------------------------------------------------------


def system_status(clock: Snapshot | None) -> int:
    """The system status word: leap, where the time comes from (1: pulses, 4: radio), one event."""
    if clock is None or not clock.synchronised:
        return 3 << 14 | 1 << 4 | EVENT_RESTART
    return LEAPS.get(clock.leap, 3) << 14 | (1 if clock.refid == "PPS" else 4) << 8 | 1 << 4 | EVENT_CLOCK_SYNC


def peer_status(peer: Peer) -> int:
    """The peer status word: configured, reached, selection, one event."""
    event = EVENT_SYSTEM_PEER if peer.selection >= 6 else EVENT_REACHABLE if peer.reach else EVENT_UNREACHABLE
    return (CONFIGURED | (REACHED if peer.reach else 0) | peer.selection) << 8 | 1 << 4 | event


def stamp(utc_ns: int) -> str:
    """An NTP timestamp as ntpd writes it: 0xeb123456.80000000."""
    value = ntp64(utc_ns)
    return f"0x{value >> 32:08x}.{value & 0xFFFFFFFF:08x}"


def _system(clock: Snapshot | None, peers: Sequence[Peer], utc_ns: int) -> dict[str, str]:
    """The system variables. ntpd's frequency is the correction, the opposite of the oscillator's error."""
    synchronised = clock is not None and clock.synchronised
    chosen = next((p for p in peers if p.selection >= 6), None)
    dispersion_ms = (clock.bound_ns or 0) / 1e6 if clock is not None and synchronised else 16_000.0
    return {
        "version": f'"refclock {clock.version}"' if clock is not None else '"refclock"',
        "processor": '"-"',
        "system": '"Linux"',
        "leap": str(LEAPS.get(clock.leap, 3)) if clock is not None else "3",
        "stratum": str(clock.stratum) if clock is not None and synchronised else "16",
        "precision": str(PRECISION),
        "rootdelay": "0.0",
        "rootdisp": f"{dispersion_ms:.6f}",
        "rootdist": f"{dispersion_ms:.6f}",
        "refid": clock.refid if clock is not None and synchronised else "INIT",
        "reftime": stamp(clock.reference_utc_ns) if clock is not None and synchronised else "0x00000000.00000000",
        "clock": stamp(utc_ns),
        "peer": str(chosen.association if chosen is not None else 0),
        "peeradr": _address(chosen),
        "peermode": "3" if chosen is not None else "0",
        "tc": "0",
        "mintc": "0",
        "offset": f"{chosen.offset_ms if chosen is not None else 0.0:.6f}",
        "frequency": f"{0 - (clock.frequency_ppm or 0.0) if clock is not None else 0.0:.6f}",
        "sys_jitter": f"{chosen.jitter_ms if chosen is not None else 0.0:.6f}",
        "clk_jitter": f"{chosen.jitter_ms if chosen is not None else 0.0:.6f}",
        "clk_wander": f"{(clock.skew_ppm or 0.0) if clock is not None else 0.0:.6f}",
        "tai": str(clock.tai_offset_s) if clock is not None else "0",
    }


def _address(peer: Peer | None) -> str:
    """The address that stands for a reference clock in ntpd: 127.127.DRIVER.UNIT."""
    return f"127.127.{DRIVERS.get(peer.kind, 28)}.{peer.association - 1}" if peer is not None else "0.0.0.0"


def _peer(clock: Snapshot, peer: Peer, utc_ns: int) -> dict[str, str]:
    """The variables of an association."""
    heard = stamp(utc_ns - round(peer.when_s * NS)) if peer.when_s is not None else "0x00000000.00000000"
    return {
        "srcadr": _address(peer),
        "srcport": "123",
        "srchost": f'"{peer.name}"',
        "dstadr": "127.0.0.1",
        "dstport": "123",
        "leap": str(LEAPS.get(clock.leap, 3) if peer.selection else 3),
        "stratum": "0",
        "precision": str(PRECISION),
        "rootdelay": "0.0",
        "rootdisp": "0.0",
        "refid": peer.refid,
        "reftime": heard,
        "rec": heard,
        "reach": f"0x{peer.reach:x}",
        "unreach": "0",
        "hmode": "3",
        "pmode": "4",
        "hpoll": "0",
        "ppoll": "0",
        "headway": "0",
        "flash": "0x0",
        "keyid": "0",
        "offset": f"{peer.offset_ms:.6f}",
        "delay": "0.000000",
        "dispersion": f"{peer.dispersion_ms:.6f}",
        "jitter": f"{peer.jitter_ms:.6f}",
    }


def _clock(clock: Snapshot, peer: Peer) -> dict[str, str]:
    """The variables of a reference clock."""
    source = clock.sources[peer.association - 1]
    return {
        "name": f'"{source.kind}"',
        "timecode": f'"{source.message[:64]}"',
        "poll": str(source.samples),
        "noreply": "0",
        "badformat": str(source.junk_bytes),
        "baddata": str(sum(source.rejected.values())),
        "stratum": "0",
        "refid": peer.refid,
        "flags": "0",
        "device": f'"{source.what[:64]}"',
    }


# ---- the list of those who ask ---------------------------------------------------------------------------------------------------------


def nonce(source: str, told: Told, age_s: int = 0) -> str:
    """A word that only who receives packets at ``source`` knows: it is good for NONCE_S."""
    second = told.utc_ns // NS - age_s
    return f"{second:x}{blake2b(f'{source} {second}'.encode(), key=told.secret, digest_size=8).hexdigest()}"


def _is_fresh(word: str, source: str, told: Told) -> bool:
    return any(word == nonce(source, told, age_s) for age_s in range(NONCE_S + 1))


def _mru(text: str, source: str, told: Told) -> str:
    """The latest of those who ask, as many as ntpq puts together in one reply, oldest first, and the end of the list. Conditions but the
    number of packets and of rows are for ntpq to apply."""
    asked = {name.strip(): value.strip() for name, _, value in (pair.partition("=") for pair in text.split(","))}
    if not _is_fresh(asked.get("nonce", ""), source, told):
        raise _RefusedError(BAD_VALUE)
    try:
        room = max(1, min(int(asked.get("frags", str(FRAGMENTS)), 0), FRAGMENTS))
        most = int(asked["limit"], 0) if "limit" in asked else 1 << 16
        least = int(asked.get("mincount", "0"), 0)
    except ValueError:
        raise _RefusedError(BAD_VALUE) from None
    chosen, used = list[list[str]](), 200  # octets: the nonce and the end
    for client in told.clients():
        if client.packets < least or len(chosen) == most:
            continue
        values = _client(client, told.utc_ns)
        used += sum(len(value) + len(", first.999=") for value in values)
        if used > room * FRAGMENT:
            break
        chosen.append(values)
    parts = [f"nonce={nonce(source, told)}"]
    for i, values in enumerate(reversed(chosen)):
        parts += [
            f"{name}.{i}={value}" for name, value in zip(("addr", "last", "first", "ct", "mv", "rs", "sc", "dr"), values, strict=True)
        ]
    newest = chosen[0][1] if chosen else "0x00000000.00000000"
    return ", ".join([*parts, f"now={stamp(told.utc_ns)}", f"last.newest={newest}"])


def _client(client: Client, utc_ns: int) -> list[str]:
    """addr, last, first, ct, mv, rs, sc and dr of one of them. The port is not kept; a client has mode 3."""
    address = f"[{client.ip}]:0" if client.ip.version == 6 else f"{client.ip}:0"
    last, first = (stamp(utc_ns - round(s * NS)) for s in (client.last_s, max(client.first_s, client.last_s)))
    return [address, last, first, str(client.packets), str((client.version & 7) << 3 | 3), "0x0", "0.000", str(client.drops)]
