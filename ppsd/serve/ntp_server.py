"""The NTP server: the only importer of the C extension ``ppsd.serve._server`` (native/server.h, native/packet.h).

``NtpServer`` starts C threads that answer from the timescale record without the GIL. Python sets them up and reads their counters.
``PacketPath`` calls the same C function, ``pkt_respond``, on bytes and instants. The simulator and the property tests therefore run the
code that answers the network.
"""

from __future__ import annotations

import errno
import os
import socket
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heappush, heapreplace
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ppsd.config.access import MAPPED
from ppsd.config.keys import KINDS, SymmetricKey
from ppsd.ntp.nts_keys import CookieKeys
from ppsd.serve._server import ffi, lib
from ppsd.snapshot import Client
from refclock.kernel.errors import checked
from refclock.record import Record, fill

if TYPE_CHECKING:
    from ppsd.serve._server import AclRangeArray, CliClient, MacKeys, NtsKeys, Srv

ACTIONS: Final = tuple(ffi.string(lib.pkt_action_name(i)).decode() for i in range(lib.PKT_ACTIONS))
REASONS: Final = tuple(ffi.string(lib.pkt_reason_name(i)).decode() for i in range(lib.PKT_REASONS))
"""The words of enum pkt_action and enum pkt_reason, in order."""

_HINTS: Final = {
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE or socket activation",
    errno.EADDRINUSE: "another NTP server has it (ss -ulnp says which); stop that one, or use another port",
    errno.EADDRNOTAVAIL: "no interface has this address yet",
    errno.EAFNOSUPPORT: "this kernel has no IPv6 (ipv6.disable=1)",
    errno.EOPNOTSUPP: "this is a broadcast or multicast address; give one of this machine, or 0.0.0.0 or [::] for all",
    errno.EINVAL: "give a numeric IPv4 or IPv6 address, 0.0.0.0 and :: for all",
    errno.ENOSPC: "too many addresses",
    errno.EPROTOTYPE: "the descriptor handed over is no UDP socket",
    errno.ENODEV: "there is no such interface; ip link lists them",
    errno.ENOKEY: "no key of that number is in the key file",
    errno.EAGAIN: "not synchronised",
}
_OWN_COUNTS: Final = (
    "authenticated",
    "nts",
    "unstamped",
    "stepped",
    "receive_errors",
    "departures",
    "kernel_drops",
    "filters",
    "blocked",
    "let_through",
    "receive_buffer",
)
"""The counters of struct srv_counts (native/server.h) besides ``packets``."""
_COPY: Final = 4096
"""Clients copied by one call; each takes 64 octets."""


@dataclass(frozen=True, slots=True)
class ServerRules:
    """struct srv_rules (native/server.h): who is answered, and how. ``ranges``: from ``AccessList.ranges``. Rates are per second."""

    ranges: tuple[tuple[int, int], ...]
    keys: tuple[SymmetricKey, ...] = ()
    nts: CookieKeys | None = None
    rate: float = 0.0
    burst: int = 1
    leak: int = 0
    kod_rate: float = 0.0
    cpu_limit: float = 1.0
    tell_denied: bool = False
    symmetric: bool = True
    dscp: int | None = None
    smear: bool = False


def _client(c: CliClient, now_ns: int) -> Client:
    if c.kind == lib.ACL_IPV4:
        address = str(IPv4Address(c.network & 0xFFFFFFFF))
    elif c.kind == lib.ACL_LOCAL:
        address = f"{str(IPv6Address(c.network)).removeprefix('::')} (local)"
    else:
        address = str(IPv6Network((c.network << 64, 64)))
    interval = c.interval_ms / 1e3 if c.packets > 1 else None
    last_s, first_s = max(0, now_ns - c.last_ns) / 1e9, max(0.0, now_ns / 1e9 - c.first_s)
    authenticated, interleaved, nts = (bool(c.flags & flag) for flag in (lib.CLI_AUTHENTICATED, lib.CLI_INTERLEAVED, lib.CLI_NTS))
    return Client(address, c.packets, c.drops, interval, last_s, first_s, c.version, authenticated, interleaved, nts)


def _ranges(ranges: Sequence[tuple[int, int]]) -> AclRangeArray:
    array = ffi.new("struct acl_range[]", len(ranges))
    for i, (first, action) in enumerate(ranges):
        array[i].first.high, array[i].first.low, array[i].action = first >> 64, first & (1 << 64) - 1, action
    return array


def _key_set(keys: Sequence[SymmetricKey]) -> MacKeys:
    """The keys as a C object, which the caller must hand over or destroy. ``keys``: sorted by number, each secret of the length that its
    kind needs (``ppsd.config.keys`` checks both)."""
    cell = ffi.new("struct mac_keys **")
    checked(lib.mac_create(len(keys), cell), "making room for keys", _HINTS)
    spec = ffi.new("struct mac_spec *")
    for key in keys:
        secret, ranges = ffi.from_buffer("uint8_t[]", key.secret), _ranges(key.ranges())
        spec.id, spec.type, spec.secret, spec.length = key.key_id, KINDS.index(key.kind), secret, len(key.secret)
        spec.ranges, spec.range_count = ranges, len(key.ranges())
        result = lib.mac_add(cell[0], spec)
        if result < 0:
            lib.mac_destroy(cell[0])
            checked(result, f"taking key {key.key_id}", _HINTS)
    return cell[0]


def _cookie_keys(keys: CookieKeys) -> NtsKeys:
    """The keys as a C object, which the caller must hand over or destroy."""
    cell = ffi.new("struct nts_keys **")
    octets = b"".join(keys.keys)
    checked(lib.nts_create(keys.first, len(keys.keys), octets, keys.present, cell), "taking the keys of NTS cookies", _HINTS)
    return cell[0]


class Authenticator:
    """Makes and checks the MACs of one key, as the server does (native/mac.h)."""

    def __init__(self, key: SymmetricKey) -> None:
        self.key_id: Final = key.key_id
        keys = _key_set([replace(key, prefixes=())])
        self._key = lib.mac_find(keys, key.key_id)
        weakref.finalize(self, lib.mac_destroy, keys)

    def sign(self, packet: bytes) -> bytes:
        """``packet`` with a MAC behind it."""
        length = lib.mac_length(self._key, packet[0] >> 3 & 7)
        code = ffi.new("uint8_t[]", length)
        lib.mac_make(self._key, packet, len(packet), code, length)
        return packet + self.key_id.to_bytes(lib.MAC_ID, "big") + ffi.buffer(code)[:length]

    def accepts(self, packet: bytes) -> bool:
        """Whether ``packet`` ends in a right MAC of this key."""
        version = packet[0] >> 3 & 7 if packet else 0
        end = len(packet) - lib.mac_length(self._key, version)
        begin = end - lib.MAC_ID
        if begin < lib.PKT_HEADER or int.from_bytes(packet[begin:end], "big") != self.key_id:
            return False
        return bool(lib.mac_check(self._key, version, packet, begin, packet[end:], len(packet) - end))


class Sealer:
    """One key of a cipher of NTS, by which packets are sealed and opened (native/aead.h; ``ppsd.ntp.nts_client.Aead``). ValueError: no such
    cipher, or a key that is none of it."""

    def __init__(self, cipher: int, secret: bytes) -> None:
        cell = ffi.new("struct aed_key **")
        if lib.aed_create(cipher, secret, len(secret), cell) < 0:
            raise ValueError(f"no cipher {cipher} with a key of {len(secret)} octets")
        self._key = cell[0]
        weakref.finalize(self, lib.aed_destroy, self._key)

    def seal(self, data: bytes, nonce: bytes, text: bytes) -> bytes:
        """The sealed text, bound to ``data`` and ``nonce``."""
        out = ffi.new("uint8_t[]", lib.AED_TAG + len(text))
        lib.aed_seal(self._key, data, len(data), nonce, len(nonce), text, len(text), out)
        return ffi.buffer(out)[:]

    def open(self, data: bytes, nonce: bytes, sealed: bytes) -> bytes | None:
        """The text; None when it is not genuine."""
        out = ffi.new("uint8_t[]", max(1, len(sealed)))
        if not lib.aed_open(self._key, data, len(data), nonce, len(nonce), sealed, len(sealed), out):
            return None
        return ffi.buffer(out)[: len(sealed) - lib.AED_TAG]


class PacketPath:
    """``pkt_respond`` on one record, about 2 µs a call. Not safe for concurrent use by several threads."""

    def __init__(self, record: Record) -> None:
        self._context = ffi.new("struct pkt_context *")
        self._outcome = ffi.new("struct pkt_outcome *")
        self._context.source.low = MAPPED | 0x7F000001
        self._reply = ffi.new("uint8_t[]", lib.PKT_REPLY_MAX)
        self._bytes = ffi.buffer(self._reply)
        self.publish(record)

    def publish(self, record: Record) -> None:
        """Answer from ``record`` from now on."""
        fill(self._context.record, record)

    def respond(self, request: bytes, rx_raw_ns: int, tx_raw_ns: int, source_port: int = 1024) -> tuple[bytes, str, str]:
        """(reply, action, reason) for a request that arrives at ``rx_raw_ns`` and whose reply leaves at ``tx_raw_ns``. An empty reply: none
        is sent."""
        context, outcome = self._context, self._outcome
        context.rx_raw_ns = rx_raw_ns
        context.tx_raw_ns = tx_raw_ns
        context.source_port = source_port
        length = lib.pkt_respond(context, request, len(request), self._reply, outcome)
        return self._bytes[:length], ACTIONS[outcome.action], REASONS[outcome.reason]


def respond(request: bytes, record: Record, rx_raw_ns: int, tx_raw_ns: int, source_port: int = 1024) -> tuple[bytes, str, str]:
    """``PacketPath.respond`` for a single packet."""
    return PacketPath(record).respond(request, rx_raw_ns, tx_raw_ns, source_port)


class NtpServer:
    """The NTP server threads and their sockets. ``addresses``: (numeric host, port); port 0 picks a free one; IPv4 and IPv6 need one entry
    each. ``fds``: bound UDP sockets of socket activation; the caller keeps them open. ``timescale_path``: the record; until it exists,
    replies carry leap indicator 3. ``table_bytes``: memory for the table of clients. Addresses may come and go later, also while it serves.

    OSError: an address cannot be bound; the text names it and the remedy.
    """

    def __init__(
        self,
        timescale_path: str | Path,
        addresses: Sequence[tuple[str, int]],
        rules: ServerRules,
        *,
        threads: int = 1,
        fds: Sequence[int] = (),
        table_bytes: int = 1 << 20,
    ) -> None:
        cell = ffi.new("struct srv **")
        made = lib.srv_create(os.fsencode(timescale_path), threads, table_bytes, cell)
        checked(made, f"making an NTP server of {threads} threads", _HINTS)
        self._handle: Srv | None = cell[0]
        self._controls: tuple[socket.socket, socket.socket] | None = None
        try:
            self.configure(rules)
            places = [self.listen(host, port) for host, port in addresses] + [self.adopt(fd) for fd in fds]
        except OSError:
            self.close()
            raise
        self.bound_addresses: Final = tuple(self.address(place) for place in places)
        """(host, port) of ``addresses`` and ``fds``, in the order given."""

    @property
    def _srv(self) -> Srv:
        if self._handle is None:
            raise ValueError("the NTP server is closed")
        return self._handle

    def listen(self, host: str, port: int, interface: str = "") -> int:
        """Serve one more address, on ``interface`` alone unless it is "". Returns its place. OSError: it cannot be bound."""
        where = f"listening at {host} port {port}" + (f" on {interface}" if interface else "")
        return checked(lib.srv_listen(self._srv, host.encode(), port, interface.encode()), where, _HINTS)

    def adopt(self, fd: int) -> int:
        """Serve a bound UDP socket, which stays the caller's. Returns its place. OSError: it is something else."""
        return checked(lib.srv_adopt(self._srv, fd), f"serving the inherited socket {fd}", _HINTS)

    def leave(self, place: int) -> None:
        """Serve the address of a place no longer; requests that wait there are lost."""
        checked(lib.srv_leave(self._srv, place), f"leaving the address of place {place}", _HINTS)

    def address(self, place: int) -> tuple[str, int]:
        """(host, port) that is served at a place. OSError: nothing is."""
        host, port = ffi.new("char[]", lib.SRV_HOST_MAX), ffi.new("uint16_t *")
        checked(lib.srv_bound(self._srv, place, host, port), f"looking up place {place}", _HINTS)
        return ffi.string(host).decode(), port[0]

    def configure(self, rules: ServerRules) -> None:
        """Put rules in force, also while serving; no request is lost. OSError (EINVAL): they contradict each other; the old ones stay."""
        own = ffi.new("struct srv_rules *")
        ranges = _ranges(rules.ranges)
        own.ranges, own.range_count = ranges, len(rules.ranges)
        own.rate, own.burst, own.leak = rules.rate, rules.burst, rules.leak
        own.kod_rate, own.cpu_limit, own.tell_denied = rules.kod_rate, rules.cpu_limit, int(rules.tell_denied)
        own.symmetric, own.smear = int(rules.symmetric), int(rules.smear)
        own.dscp = -1 if rules.dscp is None else rules.dscp
        if rules.nts is not None:
            own.nts = _cookie_keys(rules.nts)
        if rules.keys:
            own.keys = _key_set(rules.keys)
        checked(lib.srv_configure(self._srv, own), "putting the rules in force", _HINTS)

    def clients(self, most: int) -> tuple[list[Client], int]:
        """(the ``most`` clients that asked last, the latest first; how many there are in all). Takes about 0.2 µs for each client in the
        table, and memory only for those returned; serving goes on meanwhile."""
        place, some = ffi.new("size_t *"), ffi.new("struct cli_client[]", _COPY)
        latest: list[tuple[int, int, Client]] = []  # a heap: (last request, which, client)
        known = 0
        while copied := lib.srv_clients(self._srv, place, some, _COPY):
            now_ns = lib.srv_now()
            for i in range(copied):
                last_ns = some[i].last_ns
                if len(latest) < most:
                    heappush(latest, (last_ns, known + i, _client(some[i], now_ns)))
                elif most and last_ns > latest[0][0]:
                    heapreplace(latest, (last_ns, known + i, _client(some[i], now_ns)))
            known += copied
        return [client for _, _, client in sorted(latest, reverse=True)], known

    def broadcast(self, host: str, port: int, key_id: int, poll: int) -> bool:
        """Send one broadcast, authenticated with key ``key_id``; ``poll`` in log2 s. False: not synchronised, nothing was sent. OSError:
        the network failed, or there is no such key."""
        result = lib.srv_broadcast(self._srv, host.encode(), port, key_id, poll)
        if result == -errno.EAGAIN:
            return False
        checked(result, f"sending a broadcast to {host} port {port} with key {key_id}", _HINTS)
        return True

    def hand_over(self) -> int:
        """Hand control packets (mode 6) from this machine itself over, see ``control``. Before ``start``. Returns the descriptor that is
        readable when there are some."""
        if self._controls is None:
            self._controls = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for end in self._controls:
                end.setblocking(False)
            lib.srv_hand_over(self._srv, self._controls[1].fileno())
        return self._controls[0].fileno()

    def control(self) -> tuple[bytes, bytes] | None:
        """The next control packet, as (where the reply goes, packet). None: there is none now."""
        if self._controls is None:
            return None
        try:
            handed = self._controls[0].recv(lib.SRV_RETURN + lib.PKT_REQUEST_MAX)
        except BlockingIOError:
            return None
        return handed[: lib.SRV_RETURN], handed[lib.SRV_RETURN :]

    def reply(self, where: bytes, packet: bytes) -> None:
        """Send the reply to a control packet, or a part of it. OSError: the network failed, or the address is not served any more."""
        checked(lib.srv_control_reply(self._srv, where, packet, len(packet)), "replying to a control packet", _HINTS)

    def start(self) -> None:
        """Start answering."""
        checked(lib.srv_start(self._srv), "starting the NTP server threads", _HINTS)

    def stop(self) -> None:
        """Stop answering. The sockets stay bound and queue requests; ``start`` resumes."""
        lib.srv_stop(self._srv)

    def close(self) -> None:
        """Stop the threads and close the sockets."""
        if self._handle is not None:
            lib.srv_destroy(self._handle)
            self._handle = None
            for end in self._controls or ():
                end.close()
            self._controls = None

    def counters(self) -> dict[str, dict[str, int]]:
        """Packets since construction by action and reason, without zeros; each packet counts once. ``"server"``: the other counters of
        struct srv_counts (native/server.h)."""
        counts = ffi.new("struct srv_counts *")
        lib.srv_count(self._srv, counts)
        by_action = {
            action: {reason: row[j] for j, reason in enumerate(REASONS) if row[j]}
            for action, row in zip(ACTIONS, (counts.packets[i] for i in range(len(ACTIONS))), strict=True)
        }
        own = {name: getattr(counts, name) for name in _OWN_COUNTS}
        return by_action | {"server": own}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
