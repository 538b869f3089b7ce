"""NTP mode 6, read-only: what ``ntpq`` and the plugins that speak its protocol ask, answered from a Snapshot. Pure.

Flow: NTP server (a packet of mode 6 from this machine itself) -> ``ppsd.serve.mode6`` -> **answer** -> packets back. A request has a header
of 12 octets and text; a reply goes in fragments of at most 468 octets of text. Replies are longer than requests, so the caller sees to it
that only this machine asks.

Answered are READSTAT, READVAR, READCLOCK, REQ_NONCE and READ_MRU. Whatever writes, or needs a key, is refused. Source of numbers and names:
RFC 9327, RFC 1305 appendix B, and for READ_MRU ntp_control.c of ntpsec 1.2.2, whose ntpq reads it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Final

from ppsd.faces.chronyc import root
from ppsd.ntp.packet import refid_text
from ppsd.snapshot import Client, ServerReport, Snapshot, SourceStatus, UpstreamStatus
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


@dataclass(frozen=True)
class Clients:
    """A look at the server's clients, the latest first. ``known``: how many it knows. ``utc_ns``: when it was."""

    latest: Sequence[Client]
    known: int
    utc_ns: int

    @cached_property
    def told(self) -> list[tuple[Client, list[str]]]:
        """The clients in the order in which they are told, the oldest first, with what is told of each. It is asked for again and again."""
        return [(client, _client(client, self.utc_ns)) for client in reversed(self.latest)]

    @cached_property
    def places(self) -> dict[tuple[str, str], int]:
        """Address and last request of each, and its place among ``told``."""
        return {(values[0], values[1]): i for i, (_, values) in enumerate(self.told)}


@dataclass(frozen=True, slots=True)
class Told:
    """What replies are made from; what a request needs is called. ``clients(anew)``: they stay as they are until somebody wants them anew,
    for they are told in parts. ``utc_ns``: now. ``secret``: of nonces, 16 octets."""

    clock: Callable[[], Snapshot | None]
    server: Callable[[], ServerReport]
    clients: Callable[[bool], Clients]
    utc_ns: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Peer:
    """One source as ntpd tells it. ``kind``: as in SourceStatus, "" of an NTP server. ``selection``: 0 to 7. ``when_s``: since its last
    sample. Milliseconds: ``offset_ms``, ``jitter_ms``, ``dispersion_ms``. ``server``: the NTP server; None: a reference clock."""

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
    server: UpstreamStatus | None = None

    @property
    def kind_letter(self) -> str:
        """Of ntpq's column t: local or unicast."""
        return "l" if self.server is None else "u"

    @property
    def stratum(self) -> int:
        """Its own."""
        return 0 if self.server is None else self.server.stratum

    @property
    def delay_ms(self) -> float:
        """Of the round trip."""
        return 0.0 if self.server is None else self.server.delay_ns / 1e6


def _selection(s: SourceStatus | UpstreamStatus, refid: str) -> int:
    if s.tally == "*":
        return PPS_PEER if refid == "PPS" else SYSTEM_PEER
    return {"+": CANDIDATE, "-": OUTLIER, "x": FALSETICKER}.get(s.tally, REJECTED)


def associations(clock: Snapshot) -> list[Peer]:
    """The sources as associations, numbered from 1; receivers first. A receiver's name ends in a number in brackets: by that ntpq knows a
    reference clock."""
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
    for u in clock.upstreams:
        found.append(
            Peer(
                association=len(found) + 1,
                kind="",
                name=u.host[:NAME_MAX],
                refid=refid_text(u.refid, u.stratum) if u.stratum else "INIT",
                selection=_selection(u, ""),
                when_s=u.last_sample_s,
                reach=u.reach,
                offset_ms=(u.offset_ns or 0) / 1e6,
                jitter_ms=(u.jitter_ns or 0) / 1e6,
                dispersion_ms=(u.bound_ns or 0) / 1e6,
                server=u,
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
        return system_status(clock), _wanted(_system(clock, peers, told.utc_ns), text, lambda: _statistics(clock, told))
    peer = next((p for p in peers if association in (p.association, 0)), None)
    if peer is None or clock is None:
        raise _RefusedError(BAD_ASSOCIATION)
    if operation == READCLOCK and peer.server is not None:  # it is no reference clock
        raise _RefusedError(BAD_ASSOCIATION)
    if operation == READCLOCK:
        return 0, _wanted(_clock(clock, peer), text)
    return peer_status(peer), _wanted(_peer(clock, peer, told.utc_ns), text, lambda: _peer_statistics(clock, peer))


def _wanted(variables: Mapping[str, str], text: str, more: Callable[[], Mapping[str, str]] = dict) -> bytes:
    """The variables that a request names, or all of them. ``more``: those that are told only to who names them. A statistic of ntpd that
    means nothing here, or is not known now, is left out, and ntpq leaves out its line; another unknown name is an error, as in ntpd."""
    names = [name.partition("=")[0].strip() for name in text.replace("\0", ",").split(",") if name.strip()]
    found = {**variables, **more()} if any(name not in variables for name in names) else variables
    if any(name not in found and not _STATISTIC.fullmatch(name) for name in names):
        raise _RefusedError(UNKNOWN_VARIABLE)
    return ", ".join(f"{name}={found[name]}" for name in names or variables if name in found).encode("ascii", "replace")


# ---- status words and variables --------------------------------------------------------------------------------------------------------


def system_status(clock: Snapshot | None) -> int:
    """The system status word: leap, where the time comes from (1: pulses, 4: radio, 6: NTP), one event."""
    if clock is None or not clock.synchronised:
        return 3 << 14 | 1 << 4 | EVENT_RESTART
    comes_from = 6 if clock.stratum > 1 else 1 if clock.refid == "PPS" else 4
    return LEAPS.get(clock.leap, 3) << 14 | comes_from << 8 | 1 << 4 | EVENT_CLOCK_SYNC


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
    delay_ms, dispersion_ms = (s * 1e3 for s in root(clock)) if clock is not None and synchronised else (0.0, 16_000.0)
    return {
        "version": f'"refclock {clock.version}"' if clock is not None else '"refclock"',
        "processor": '"-"',
        "system": '"Linux"',
        "leap": str(LEAPS.get(clock.leap, 3)) if clock is not None else "3",
        "stratum": str(clock.stratum) if clock is not None and synchronised else "16",
        "precision": str(PRECISION),
        "rootdelay": f"{delay_ms:.6f}" if delay_ms else "0.0",
        "rootdisp": f"{dispersion_ms:.6f}",
        "rootdist": f"{dispersion_ms + delay_ms / 2:.6f}",
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
    """A server's own address; of a reference clock the one that stands for it in ntpd: 127.127.DRIVER.UNIT."""
    if peer is not None and peer.server is not None:
        return peer.server.address.partition("%")[0]
    return f"127.127.{DRIVERS.get(peer.kind, 28)}.{peer.association - 1}" if peer is not None else "0.0.0.0"


def _peer(clock: Snapshot, peer: Peer, utc_ns: int) -> dict[str, str]:
    """The variables of an association."""
    heard = stamp(utc_ns - round(peer.when_s * NS)) if peer.when_s is not None else "0x00000000.00000000"
    server = peer.server
    return {
        "srcadr": _address(peer),
        "srcport": "123" if server is None else str(server.packets.port),
        "srchost": f'"{peer.name}"',
        "dstadr": "127.0.0.1" if server is None else server.packets.local.partition("%")[0] or "0.0.0.0",
        "dstport": "123",
        "leap": str(_leap(clock, peer)),
        "stratum": str(peer.stratum),
        "precision": str(PRECISION if server is None else server.packets.precision),
        "rootdelay": "0.0" if server is None else f"{server.root_delay_ns / 1e6:.6f}",
        "rootdisp": "0.0" if server is None else f"{server.dispersion_ns / 1e6:.6f}",
        "refid": peer.refid,
        "reftime": heard if server is None or not server.packets.reference_utc_ns else stamp(server.packets.reference_utc_ns),
        "rec": heard,
        "reach": f"0x{peer.reach:x}",
        "unreach": "0",
        "hmode": "3",
        "pmode": "4",
        "hpoll": "0" if server is None else str(server.poll),
        "ppoll": "0" if server is None else str(server.poll),
        "headway": "0",
        "flash": "0x0" if server is None or server.reach else "0x1000",
        "keyid": "0" if server is None or server.authentication.mode != "key" else str(server.authentication.key_id),
        "offset": f"{peer.offset_ms:.6f}",
        "delay": f"{peer.delay_ms:.6f}",
        "dispersion": f"{peer.dispersion_ms:.6f}",
        "jitter": f"{peer.jitter_ms:.6f}",
    }


def _leap(clock: Snapshot, peer: Peer) -> int:
    """The leap indicator of an association: what is served, of a receiver that counts; a server's own."""
    if peer.server is not None:
        return peer.server.packets.leap
    return LEAPS.get(clock.leap, 3) if peer.selection else 3


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


# ---- counters ---------------------------------------------------------------------------------------------------------------------------

_STATISTIC: Final = re.compile(
    r"(ss|mru|io|rbuf)_\w+|auth\w+|timer\w*|(total|free|used)_rbuf|k(offset|freq|maxerr|esterr|stflags|timeconst|precis|freqtol|pps\w+)"
    r"|sent|received|badauth|bogusorg|oldpkt|seldisp|selbroken|candidate|ntscookies"
)
"""Names of variables that ntpq asks for in sysstats, authinfo, iostats, monstats, kerninfo, timerstats and pstats (ntpsec 1.2.2)."""
_FORMAT: Final = (
    "short", "long", "version", "port_zero", "not_unicast", "mode_reserved", "mode_symmetric", "mode_server", "mode_broadcast",
    "mode_private", "extension_malformed", "mac_malformed", "nts_malformed",
)  # fmt: skip
_KEY: Final = ("unauthenticated", "unknown_key", "wrong_mac", "key_elsewhere", "nts_nak")
_FLAGS: Final = (
    "pll", "ppsfreq", "ppstime", "fll", "ins", "del", "unsync", "freqhold", "ppssignal", "ppsjitter", "ppswander", "ppserror", "clockerr",
    "nano", "mode=fll", "src=B",
)  # fmt: skip
"""The STA_* bits of adjtimex(2) from bit 0 on, in ntpd's words (libntp/statestr.c of ntpsec)."""


def _statistics(clock: Snapshot | None, told: Told) -> dict[str, str]:
    """What sysstats, authinfo, iostats, monstats and kerninfo of ntpq ask for. Errors of the kernel's clock are in ms."""
    server, clients = told.server(), told.clients(True)
    counters, own = server.counters, server.counters.get("server", {})
    replies, kods, drops = (counters.get(action, {}) for action in ("reply", "kod", "drop"))
    uptime = str(max(1, int(server.uptime_s)))  # ntpq divides by it
    control = replies.get("mode_control", 0)

    def refused(*reasons: str) -> int:
        return sum(kods.get(reason, 0) + drops.get(reason, 0) for reason in reasons)

    counts = {
        "received": sum(map(sum, (replies.values(), kods.values(), drops.values()))),
        "badformat": refused(*_FORMAT),
        "badauth": refused(*_KEY),
        "restricted": refused("denied", "ignored", "mode_control"),
        "limited": refused("rate"),
        "kodsent": sum(kods.values()),
        "processed": sum(replies.values()) - control,
    }
    found = {f"ss_{name}{suffix}": str(n) for name, n in counts.items() for suffix in ("", "_r")}
    found |= {"ss_uptime": uptime, "ss_reset": uptime, "ss_reset_r": uptime, "ss_numctlreq": str(control)}
    found |= {"authreset": uptime, "authkeys": str(server.keys), "iostats_reset": uptime, "io_received": str(counts["received"])}
    found |= {"io_sent": str(sum(replies.values()) + sum(kods.values())), "io_dropped": str(own.get("kernel_drops", 0))}
    found |= {"io_ignored": str(sum(drops.values())), "mru_enabled": "1", "mru_depth": str(clients.known)}
    if clock is not None and (kernel := clock.kernel) is not None:
        flags = " ".join(word for bit, word in enumerate(_FLAGS) if kernel.status >> bit & 1)
        found |= {"koffset": f"{kernel.offset_ns / 1e6:.6f}", "kfreq": f"{kernel.frequency_ppm:.6f}", "kstflags": f'"{flags}"'}
        found |= {"kmaxerr": f"{kernel.max_error_ns / 1e6:.6f}", "kesterr": f"{kernel.est_error_ns / 1e6:.6f}"}
    return found


def _peer_statistics(clock: Snapshot, peer: Peer) -> dict[str, str]:
    """What pstats of ntpq asks for."""
    if peer.server is None:
        found = {"received": str(clock.sources[peer.association - 1].samples)}
    else:
        p, a = peer.server.packets, peer.server.authentication
        found = {"sent": str(p.sent), "received": str(p.received), "bogusorg": str(p.received - p.valid)}
        if a.mode == "nts":
            found["ntscookies"] = str(a.cookies)
    return found if peer.when_s is None else {**found, "timerec": str(int(peer.when_s))}


# ---- the list of those who ask ---------------------------------------------------------------------------------------------------------


def nonce(source: str, told: Told, age_s: int = 0) -> str:
    """A word that only who receives packets at ``source`` knows: it is good for NONCE_S."""
    second = told.utc_ns // NS - age_s
    return f"{second:x}{blake2b(f'{source} {second}'.encode(), key=told.secret, digest_size=8).hexdigest()}"


def _is_fresh(word: str, source: str, told: Told) -> bool:
    return any(word == nonce(source, told, age_s) for age_s in range(NONCE_S + 1))


def _mru(text: str, source: str, told: Told) -> str:
    """Those who ask, oldest first, as many as ntpq puts together in one reply; the next request names some that it has, and gets those
    behind them. The end of the list is marked. Of the conditions, the local address and the restrictions are ntpq's to apply."""
    asked = {name.strip(): value.strip() for name, _, value in (pair.partition("=") for pair in text.split(","))}
    if not _is_fresh(asked.get("nonce", ""), source, told):
        raise _RefusedError(BAD_VALUE)
    number = _Conditions(asked)
    room, most = max(1, min(number("frags", FRAGMENTS), FRAGMENTS)), max(1, number("limit", 1 << 16))
    goes_on = "addr.0" in asked
    look = told.clients(not goes_on)
    rows, first = look.told, 0
    if goes_on:
        named = (look.places.get((asked.get(f"addr.{i}", ""), asked.get(f"last.{i}", ""))) for i in range(NAMED))
        found = next((i for i in named if i is not None), None)
        if found is None:  # they are all gone, or have asked again: it begins anew
            raise _RefusedError(UNKNOWN_VARIABLE)
        first = found + 1
    elif "recent" in asked:
        first = max(0, len(rows) - number("recent", 0))
    parts, used, told_rows = [f"nonce={nonce(source, told)}"], RESERVED, 0
    for client, values in rows[first:]:
        if not number.admit(client):
            continue
        used += sum(len(value) + len(", first.999=") for value in values)
        if told_rows == most or used > room * FRAGMENT:
            return ", ".join(parts)
        names = ("addr", "last", "first", "ct", "mv", "rs", "sc", "dr")
        parts += [f"{name}.{told_rows}={value}" for name, value in zip(names, values, strict=True)]
        told_rows += 1
    newest = rows[-1][1][1] if rows else "0x00000000.00000000"
    return ", ".join([*parts, f"now={stamp(look.utc_ns)}", f"last.newest={newest}"])


NAMED: Final = 16
"""Clients that a request names at most, so that the next ones are told."""
RESERVED: Final = 200
"""Octets of a reply for the nonce and for the end of the list."""


class _Conditions:
    """The numbers of a request for the list."""

    def __init__(self, asked: Mapping[str, str]) -> None:
        self._asked = asked

    def __call__(self, name: str, default: int) -> int:
        """A number; error: it is none."""
        try:
            return int(self._asked[name], 0) if name in self._asked else default
        except ValueError:
            raise _RefusedError(BAD_VALUE) from None

    def admit(self, client: Client) -> bool:
        """Whether a client is wanted: by its packets, drops, age, score and restrictions. Nobody here has a score or a restriction."""
        return (
            client.packets >= self("mincount", 0)
            and client.drops >= self("mindrop", 0)
            and self("minlstint", 0) <= client.last_s <= self("maxlstint", 1 << 40)
            and not any(self(name, 0) for name in ("resall", "resany", "minscore"))
        )


def _client(client: Client, utc_ns: int) -> list[str]:
    """addr, last, first, ct, mv, rs, sc and dr of one of them. The port is not kept; a client has mode 3."""
    address = f"[{client.ip}]:0" if client.ip.version == 6 else f"{client.ip}:0"
    last, first = (stamp(utc_ns - round(s * NS)) for s in (client.last_s, max(client.first_s, client.last_s)))
    return [address, last, first, str(client.packets), str((client.version & 7) << 3 | 3), "0x0", "0.000", str(client.drops)]
