"""chronyd's command protocol, version 6: what ``chronyc`` and other monitors of chronyd ask, answered from a Snapshot. Pure.

Flow: socket (``ppsd.serve.chronyc``) -> request -> **answer** -> reply. One datagram each. A request has a header of 20 octets, then the
data of its command, then padding up to the length of the reply: so a reply is never longer than its request. Integers are in network order.
Source of numbers and layouts: candm.h, pktlength.c and addressing.h of chrony, versions 4.3 to 4.9, and the prints of chronyc.

Signs are chronyd's: an offset is local - reference (positive: the local clock is ahead), the opposite of a Snapshot's.

A receiver is told as a reference clock, with a reference identifier of four characters made from its name; an NTP server as a server, with
its address. Whatever would change something is refused.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Protocol

from ppsd.faces.chronyc import (
    LEAPS,
    MOST_POINTS,
    NO_INTERVAL,
    UNKNOWN_S,
    AnySource,
    error_s,
    leap_of,
    mark_of,
    offset_s,
    online,
    reference,
    root,
    selection,
    server_counts,
    tests,
)
from ppsd.ntp.packet import MODE_SERVER
from ppsd.snapshot import Client, Snapshot, UpstreamStatus
from refclock.sample import refid_of

VERSION: Final = 6
OLDEST_TOLD: Final = 5
"""The oldest version that is told of a mismatch (PROTO_VERSION_MISMATCH_COMPAT_SERVER); older ones get no reply."""
REQUEST, REPLY = 1, 2
"""Packet types."""
_REQUEST: Final = struct.Struct(">BBBBHHIII")
"""Version, packet type, two zeros, command, attempt, sequence, padding."""
_REPLY: Final = struct.Struct(">BBBBHHH6xI8x")
"""Version, packet type, two zeros, command, layout, status, padding, sequence, padding."""
LONGEST: Final = 1024
"""Octets; a longer request is not chronyc's: its longest, for clients, has 520."""


class Command(IntEnum):
    """The commands that chronyd 4.3 to 4.9 knows, by their numbers."""

    ONLINE = 1
    OFFLINE = 2
    BURST = 3
    MODIFY_MINPOLL = 4
    MODIFY_MAXPOLL = 5
    DUMP = 6
    MODIFY_MAXDELAY = 7
    MODIFY_MAXDELAYRATIO = 8
    MODIFY_MAXUPDATESKEW = 9
    SETTIME = 11
    MANUAL = 13
    N_SOURCES = 14
    SOURCE_DATA = 15
    REKEY = 16
    ALLOW = 17
    ALLOWALL = 18
    DENY = 19
    DENYALL = 20
    CMDALLOW = 21
    CMDALLOWALL = 22
    CMDDENY = 23
    CMDDENYALL = 24
    ACCHECK = 25
    CMDACCHECK = 26
    DEL_SOURCE = 29
    WRITERTC = 30
    DFREQ = 31
    TRACKING = 33
    SOURCESTATS = 34
    RTCREPORT = 35
    TRIMRTC = 36
    CYCLELOGS = 37
    MANUAL_LIST = 41
    MANUAL_DELETE = 42
    MAKESTEP = 43
    ACTIVITY = 44
    MODIFY_MINSTRATUM = 45
    MODIFY_POLLTARGET = 46
    MODIFY_MAXDELAYDEVRATIO = 47
    RESELECT = 48
    RESELECTDISTANCE = 49
    MODIFY_MAKESTEP = 50
    SMOOTHING = 51
    SMOOTHTIME = 52
    REFRESH = 53
    SERVER_STATS = 54
    LOCAL2 = 56
    NTP_DATA = 57
    SHUTDOWN = 62
    ONOFFLINE = 63
    ADD_SOURCE = 64
    NTP_SOURCE_NAME = 65
    RESET_SOURCES = 66
    AUTH_DATA = 67
    CLIENT_ACCESSES_BY_INDEX3 = 68
    SELECT_DATA = 69
    RELOAD_SOURCES = 70
    DOFFSET2 = 71
    MODIFY_SELECTOPTS = 72
    MODIFY_OFFSET = 73
    LOCAL3 = 74
    ADD_SOURCE2 = 75


class Status(IntEnum):
    """How a command ended; chronyc prints each as a number of its own, such as 501 for UNAUTHORISED."""

    SUCCESS = 0
    FAILED = 1
    UNAUTHORISED = 2
    INVALID = 3
    NO_SUCH_SOURCE = 4
    NOT_ENABLED = 6
    ACCESS_ALLOWED = 8
    ACCESS_DENIED = 9
    NO_RTC = 13
    BAD_VERSION = 18
    BAD_LENGTH = 19


class Layout(IntEnum):
    """What follows the header of a reply."""

    NOTHING = 1
    N_SOURCES = 2
    SOURCE_DATA = 3
    TRACKING = 5
    SOURCESTATS = 6
    ACTIVITY = 12
    NTP_DATA = 16  # until chrony 4.5
    MANUAL_LIST2 = 18
    NTP_SOURCE_NAME = 19
    AUTH_DATA = 20
    CLIENT_ACCESSES_BY_INDEX3 = 21
    SELECT_DATA = 23
    SERVER_STATS3 = 24  # chrony 4.3: 11 counters of 32 bits
    SERVER_STATS4 = 25  # from chrony 4.4: 17 counters of 64 bits
    NTP_DATA2 = 26  # from chrony 4.6: five words longer


_INDEX: Final = struct.Struct(">I")
_ADDRESS: Final = struct.Struct(">16sHxx")
"""An address, IPv4 in the first four octets, and its family."""
_UNSPECIFIED, _IPV4, _IPV6 = 0, 1, 2
_PAGE: Final = struct.Struct(">IIII")
"""The first index, how many clients, of at least how many packets, and whether to set their counters to zero."""
_SOURCE_DATA: Final = struct.Struct(">20shHHHHHIIII")
_TRACKING: Final = struct.Struct(">I20sHHIII9I")
_SOURCESTATS: Final = struct.Struct(">I20s3I5I")
_ACTIVITY: Final = struct.Struct(">5i")
_NAME: Final = struct.Struct(">256s")
_SELECT_DATA: Final = struct.Struct(">I20scBBxHHI3I")
_NTP_DATA: Final = struct.Struct(">20s20sH4Bbb11IHcc4I12x")
"""The last three words are reserved; of NTP_DATA2 four words of stamps come before four that are reserved."""
_NTP_DATA_2: Final = struct.Struct(">20s20sH4Bbb11IHcc8I16x")
_AUTH_DATA: Final = struct.Struct(">HHIHHIHHHxx")
_AUTH_MODES: Final = {"": 0, "key": 1, "nts": 2}
_CLIENTS: Final = struct.Struct(">III")
_CLIENT: Final = struct.Struct(">20s6I4b3I")
_STATS_3: Final = struct.Struct(">11I")
_STATS_4: Final = struct.Struct(">17Q4Q")
_STATS_ORDER: Final = (
    "NTP packets received", "NTS-KE connections accepted", "Command packets received", "NTP packets dropped", "NTS-KE connections dropped",
    "Command packets dropped", "Client log records dropped", "Authenticated NTP packets", "Interleaved NTP packets",
    "NTP timestamps held", "NTP timestamp span", "NTP daemon RX timestamps", "NTP daemon TX timestamps", "NTP kernel RX timestamps",
    "NTP kernel TX timestamps", "NTP hardware RX timestamps", "NTP hardware TX timestamps",
)  # fmt: skip
"""What both layouts have in this order; the first one ends after the span."""
_STATS_3_COUNT: Final = 11
_MANUAL_LIST: Final = struct.Struct(">I384x")
PAGE: Final = 8
"""Clients in one reply."""
_LARGEST: Final = 0xFFFFFFFF
"""The largest number of 32 bits."""
_STATES: Final = {"*": 0, "?": 1, "x": 2, "~": 3, "+": 4, "-": 5}
_SERVER, _REFERENCE_CLOCK = 0, 2
_NOSELECT, _PREFER, _TRUST = 1, 2, 4
_INTERLEAVED, _AUTHENTICATED = 0x4000, 0x8000
"""Flags of NTP_DATA, beside its tests."""

_READS: Final[Mapping[Command, tuple[int, int]]] = {
    Command.N_SOURCES: (0, 4),
    Command.SOURCE_DATA: (4, _SOURCE_DATA.size),
    Command.ACCHECK: (_ADDRESS.size, 0),
    Command.CMDACCHECK: (_ADDRESS.size, 0),
    Command.TRACKING: (0, _TRACKING.size),
    Command.SOURCESTATS: (4, _SOURCESTATS.size),
    Command.RTCREPORT: (0, 0),
    Command.MANUAL_LIST: (0, _MANUAL_LIST.size),
    Command.ACTIVITY: (0, _ACTIVITY.size),
    Command.SMOOTHING: (0, 0),
    Command.SERVER_STATS: (0, _STATS_3.size),
    Command.NTP_DATA: (_ADDRESS.size, _NTP_DATA.size),
    Command.NTP_SOURCE_NAME: (_ADDRESS.size, _NAME.size),
    Command.AUTH_DATA: (_ADDRESS.size, _AUTH_DATA.size),
    Command.CLIENT_ACCESSES_BY_INDEX3: (_PAGE.size, _CLIENTS.size + PAGE * _CLIENT.size),
    Command.SELECT_DATA: (4, _SELECT_DATA.size),
}
"""Commands that everybody who is answered may give, and the octets of their data and of the shortest whole reply."""
_VERBS: Final[Mapping[Command, Status]] = {
    # There is nothing to do: addresses are not resolved, no log is a file, the best source is chosen anew at every sample.
    Command.REFRESH: Status.SUCCESS,
    Command.CYCLELOGS: Status.SUCCESS,
    Command.RESELECT: Status.SUCCESS,
    Command.ONOFFLINE: Status.SUCCESS,
    # No NTP source can be switched.
    Command.ONLINE: Status.NO_SUCH_SOURCE,
    Command.OFFLINE: Status.NO_SUCH_SOURCE,
    Command.BURST: Status.NO_SUCH_SOURCE,
    # The clock process alone decides on these: nobody who asks changes anything.
    Command.MAKESTEP: Status.FAILED,
    Command.RESET_SOURCES: Status.FAILED,
    Command.DUMP: Status.FAILED,
    Command.SETTIME: Status.NOT_ENABLED,
    Command.SMOOTHTIME: Status.NOT_ENABLED,
    Command.WRITERTC: Status.NO_RTC,
    Command.TRIMRTC: Status.NO_RTC,
}
"""What becomes of commands that do more than ask, over the unix socket. The others are refused there too."""


class Daemon(Protocol):
    """What replies are made from. Each is asked for only when a request needs it."""

    def clock(self) -> Snapshot | None:
        """The clock process at about this moment; None while it does not answer."""

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """Packets of the NTP server and of this protocol, as in ``ServerReport.counters``."""

    def clients(self, anew: bool) -> Sequence[Client]:
        """The NTP server's clients. They stay as they are until somebody wants them ``anew``: they are told in pages."""

    def serves(self, address: str) -> bool:
        """Whether the NTP server answers an address."""

    def hears(self, address: str) -> bool:
        """Whether requests of this protocol are answered to an address."""


def answer(request: bytes, daemon: Daemon, trusted: bool) -> bytes:
    """The reply to a datagram; b"": none. It is never longer than ``request``. ``trusted``: it came over the unix socket."""
    if not _REPLY.size <= len(request) <= LONGEST:  # even an error would be longer than a shorter request
        return b""
    version, kind, zero, also, number, _, sequence, _, _ = _REQUEST.unpack_from(request)
    if kind != REQUEST or zero or also or version < OLDEST_TOLD:
        return b""

    def reply(status: Status, layout: Layout = Layout.NOTHING, data: bytes = b"") -> bytes:
        made = _REPLY.pack(VERSION, REPLY, 0, 0, number, layout, status, sequence) + data
        return made if len(made) <= len(request) else _REPLY.pack(VERSION, REPLY, 0, 0, number, Layout.NOTHING, Status.BAD_LENGTH, sequence)

    if version != VERSION:
        return reply(Status.BAD_VERSION)
    try:
        command = Command(number)
    except ValueError:
        return reply(Status.INVALID)
    if command not in _READS:
        return reply(_VERBS.get(command, Status.UNAUTHORISED) if trusted else Status.UNAUTHORISED)
    asked, told = _READS[command]
    if len(request) < max(_REQUEST.size + asked, _REPLY.size + told):
        return reply(Status.BAD_LENGTH)
    return reply(*_read(command, request[_REQUEST.size :], len(request), daemon))


_Result = tuple[Status] | tuple[Status, Layout, bytes]


def _read(command: Command, data: bytes, length: int, daemon: Daemon) -> _Result:
    """What a command of ``_READS`` is told. ``data``: as long as the command's at least; ``length``: octets of the whole request."""
    match command:
        case Command.SMOOTHING | Command.RTCREPORT:
            return (Status.NOT_ENABLED,)
        case Command.MANUAL_LIST:
            return Status.SUCCESS, Layout.MANUAL_LIST2, _MANUAL_LIST.pack(0)
        case Command.ACCHECK | Command.CMDACCHECK:
            address = _address_text(data)
            admits = daemon.serves if command is Command.ACCHECK else daemon.hears
            return (Status.ACCESS_ALLOWED if address is not None and admits(address) else Status.ACCESS_DENIED,)
        case Command.SERVER_STATS:
            return Status.SUCCESS, *_server_stats(daemon, length)
        case Command.CLIENT_ACCESSES_BY_INDEX3:
            return _clients(data, daemon)
        case _:
            clock = daemon.clock()
            return (Status.FAILED,) if clock is None else _of_clock(command, data, length, clock)


def _of_clock(command: Command, data: bytes, length: int, clock: Snapshot) -> _Result:
    """What a command is told from the snapshot."""
    match command:
        case Command.N_SOURCES:
            return Status.SUCCESS, Layout.N_SOURCES, _INDEX.pack(len(clock.sources) + len(clock.upstreams))
        case Command.ACTIVITY:
            return Status.SUCCESS, Layout.ACTIVITY, _ACTIVITY.pack(*online(clock), 0, 0, 0)
        case Command.TRACKING:
            return Status.SUCCESS, Layout.TRACKING, _tracking(clock)
        case Command.NTP_SOURCE_NAME:
            address = _address_text(data)
            name = next((one.source.name for one in _listed(clock) if str(one.address) == address), None)
            return (Status.NO_SUCH_SOURCE,) if name is None else (Status.SUCCESS, Layout.NTP_SOURCE_NAME, _NAME.pack(name.encode()[:255]))
        case Command.NTP_DATA | Command.AUTH_DATA:  # of NTP sources only
            address = _address_text(data)
            server = next((u for u in clock.upstreams if str(_ip(u.address)) == address), None)
            if server is None:
                return (Status.NO_SUCH_SOURCE,)
            if command is Command.AUTH_DATA:
                return Status.SUCCESS, Layout.AUTH_DATA, _auth_data(server)
            return Status.SUCCESS, *_ntp_data(server, length)
        case _:
            (index,) = _INDEX.unpack_from(data)
            listed = _listed(clock)
            if index >= len(listed):
                return (Status.NO_SUCH_SOURCE,)
            layout, tell = _OF_SOURCE[command]
            return Status.SUCCESS, layout, tell(clock, listed[index])


@dataclass(frozen=True, slots=True)
class _Listed:
    """A source as chronyd lists it: a reference clock's address is its reference identifier, a server's is its own."""

    source: AnySource
    refid: int
    address: IPv4Address | IPv6Address

    @property
    def server(self) -> UpstreamStatus | None:
        return self.source if isinstance(self.source, UpstreamStatus) else None


def _listed(clock: Snapshot) -> list[_Listed]:
    """Receivers first, then servers."""
    found = [_Listed(source, refid, IPv4Address(refid)) for source, refid in zip(clock.sources, refids(clock), strict=True)]
    return found + [_Listed(u, refid_of(u.address), _ip(u.address)) for u in clock.upstreams]


def _ip(address: str) -> IPv4Address | IPv6Address:
    """An address without its interface."""
    return ip_address(address.partition("%")[0])


def _tracking(clock: Snapshot) -> bytes:
    synchronised, selected = clock.synchronised, clock.selected or clock.followed
    reference_ns = clock.reference_utc_ns if synchronised else 0
    return _TRACKING.pack(
        reference(clock),
        _address(None if clock.followed is None else _ip(clock.followed.address)),
        clock.stratum if synchronised else 0,
        LEAPS.get(clock.leap, 3),
        *_timespec(reference_ns),
        float_bits((clock.system_offset_ns or 0) / 1e9),
        float_bits(offset_s(selected) if selected is not None else 0.0),
        float_bits((selected.jitter_ns or 0) / 1e9 if selected is not None else 0.0),
        float_bits(clock.frequency_ppm or 0.0),
        float_bits(0.0),  # the frequency is that of the source: nothing is left of it
        float_bits(clock.skew_ppm or 0.0),
        *map(float_bits, root(clock)),
        float_bits(1.0 if selected is not None else 0.0),
    )


def _source_data(clock: Snapshot, listed: _Listed) -> bytes:
    del clock
    source, server = listed.source, listed.server
    offset = float_bits(offset_s(source))
    return _SOURCE_DATA.pack(
        _address(listed.address),
        0 if server is None else server.poll,
        0 if server is None else server.stratum,
        _STATES.get(source.tally, _STATES["?"]),
        _REFERENCE_CLOCK if server is None else _SERVER,
        0,
        source.reach & 0xFFFF,
        _whole(source.last_sample_s),
        offset,
        offset,
        float_bits(error_s(source)),
    )


def _sourcestats(clock: Snapshot, listed: _Listed) -> bytes:
    source = listed.source
    both = source.frequency_ppm is not None and clock.frequency_ppm is not None
    residual = (source.frequency_ppm or 0.0) - (clock.frequency_ppm or 0.0) if both else 0.0
    return _SOURCESTATS.pack(
        listed.refid,
        _address(None if listed.server is None else listed.address),
        min(source.samples, MOST_POINTS),
        0,
        _whole(source.span_s or 0.0),
        float_bits((source.jitter_ns or 0) / 1e9),
        float_bits(residual),
        float_bits(source.skew_ppm or 0.0),
        float_bits(offset_s(source)),
        float_bits((source.bound_ns or 0) / 1e9),
    )


def _select_data(clock: Snapshot, listed: _Listed) -> bytes:
    source = listed.source
    ahead_s, bound_s = offset_s(source), (source.bound_ns or 0) / 1e9
    options = _NOSELECT * source.noselect | _PREFER * source.prefer | _TRUST * source.trust
    return _SELECT_DATA.pack(
        listed.refid,
        _address(None if listed.server is None else listed.address),
        selection(source).encode(),
        mark_of(source) == "Y",
        leap_of(clock, source),
        options,
        options,
        _whole(source.last_sample_s),
        float_bits(1.0),
        float_bits(ahead_s - bound_s),
        float_bits(ahead_s + bound_s),
    )


_OF_SOURCE: Final[Mapping[Command, tuple[Layout, Callable[[Snapshot, _Listed], bytes]]]] = {
    Command.SOURCE_DATA: (Layout.SOURCE_DATA, _source_data),
    Command.SOURCESTATS: (Layout.SOURCESTATS, _sourcestats),
    Command.SELECT_DATA: (Layout.SELECT_DATA, _select_data),
}


def _ntp_data(u: UpstreamStatus, length: int) -> tuple[Layout, bytes]:
    """chronyc pads its request to the length of the layout that it understands, as of the server's statistics."""
    p = u.packets
    times = (p.root_delay_ns, p.root_dispersion_ns)
    measured = (p.offset_ns, u.delay_ns, p.reading_ns, p.turn_ns, 0)
    flags = tests(u) | _INTERLEAVED * p.interleaved | _AUTHENTICATED * bool(u.authentication.mode)
    counts = [min(count, _LARGEST) for count in (p.sent, p.received, p.valid, p.good)]
    told = (
        *(_address(_ip(u.address)), _address(_ip(p.local) if p.local else None), p.port, p.leap, p.version, MODE_SERVER, p.stratum),
        *(p.poll, p.precision, *(float_bits(ns / 1e9) for ns in times), u.refid, *_timespec(p.reference_utc_ns)),
        *(*(float_bits(ns / 1e9) for ns in measured), flags, b"D", b"K" if p.stamped else b"D"),
    )
    if length < _REPLY.size + _NTP_DATA_2.size:
        return Layout.NTP_DATA, _NTP_DATA.pack(*told, *counts)
    return Layout.NTP_DATA2, _NTP_DATA_2.pack(*told, *counts, 0, counts[2] * p.stamped, 0, 0)


def _auth_data(u: UpstreamStatus) -> bytes:
    a = u.authentication
    return _AUTH_DATA.pack(
        *(_AUTH_MODES[a.mode], a.key_type, a.key_id, a.key_bits, min(a.ke_attempts, 0xFFFF), _whole(a.ke_age_s)),
        *(a.cookies, a.cookie_bytes, min(a.naks, 0xFFFF)),
    )


def _server_stats(daemon: Daemon, length: int) -> tuple[Layout, bytes]:
    """chronyc 4.3 pads its request to the length of its layout, later ones to that of theirs: that tells which one is understood."""
    counts = server_counts(daemon.counters())
    if length < _REPLY.size + _STATS_4.size:
        return Layout.SERVER_STATS3, _STATS_3.pack(*(counts[label] & _LARGEST for label in _STATS_ORDER[:_STATS_3_COUNT]))
    return Layout.SERVER_STATS4, _STATS_4.pack(*(counts[label] for label in _STATS_ORDER), *(0xFFFFFFFFFFFFFFFF,) * 4)


def _clients(data: bytes, daemon: Daemon) -> _Result:
    first, wanted, least, reset = _PAGE.unpack_from(data)
    if reset:
        return (Status.UNAUTHORISED,)
    clients = daemon.clients(anew=first == 0)
    index, rows = first, list[bytes]()
    while index < len(clients) and len(rows) < min(wanted, PAGE):
        if clients[index].packets >= least:
            rows.append(_client(clients[index]))
        index += 1
    told = _CLIENTS.pack(len(clients), index, len(rows)) + b"".join(rows)
    return Status.SUCCESS, Layout.CLIENT_ACCESSES_BY_INDEX3, told.ljust(_CLIENTS.size + PAGE * _CLIENT.size, b"\0")


def _client(client: Client) -> bytes:
    interval = NO_INTERVAL
    if client.interval_s is not None:
        interval = max(-126, min(126, round(math.log2(max(client.interval_s, 1e-9)))))
    counts = (min(client.packets, _LARGEST), 0, 0, min(client.drops, _LARGEST), 0, 0)
    return _CLIENT.pack(_address(client.ip), *counts, interval, *(NO_INTERVAL,) * 3, _whole(client.last_s), UNKNOWN_S, UNKNOWN_S)


def refids(clock: Snapshot) -> tuple[int, ...]:
    """The reference identifiers that stand for the sources, in their order: the name's first characters, and a figure at the end where two
    would be the same."""
    found: list[int] = []
    for source in clock.sources:
        shapes = _shapes(source.name)
        found.append(next(refid for refid in shapes if refid not in found))
    return tuple(found)


def _shapes(name: str) -> Iterator[int]:
    """Identifiers for a source: the name's own, then others like it."""
    yield _refid(name)
    for number in range(10_000):
        yield _refid(name[: 4 - len(str(number))] + str(number))


def _refid(text: str) -> int:
    """Up to four characters as a reference identifier."""
    return int.from_bytes(text.encode("ascii", "replace")[:4].ljust(4, b"\0"), "big")


def _whole(seconds: float | None) -> int:
    """Whole seconds; UNKNOWN_S for None."""
    return UNKNOWN_S if seconds is None else max(0, min(int(seconds), UNKNOWN_S - 1))


def _timespec(ns: int) -> tuple[int, int, int]:
    """Seconds, high and low, and nanoseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return seconds >> 32 & _LARGEST, seconds & _LARGEST, rest


def _address(ip: IPv4Address | IPv6Address | None) -> bytes:
    """An address; None: unspecified."""
    if ip is None:
        return _ADDRESS.pack(b"", _UNSPECIFIED)
    return _ADDRESS.pack(ip.packed, _IPV4 if ip.version == 4 else _IPV6)


def _address_text(data: bytes) -> str | None:
    """The address that ``data`` begins with; None when it is of no family that is known here."""
    packed, family = _ADDRESS.unpack_from(data)
    if family not in (_IPV4, _IPV6):
        return None
    return str(IPv4Address(packed[:4]) if family == _IPV4 else IPv6Address(packed))


_EXPONENTS: Final = (-64, 63)
_COEFFICIENT_BITS: Final = 25


def float_bits(value: float) -> int:
    """A number in chronyd's 32 bits: a signed exponent of 7 bits and a signed coefficient of 25 bits without a hidden one; the value is
    coefficient * 2**(exponent - 25). Numbers beyond the range become the largest, those that are none become 0. The error is at most
    2**-24 of the value, or 2**-90."""
    least, most = _EXPONENTS
    largest = (1 << _COEFFICIENT_BITS - 1) - 1
    if math.isnan(value):
        return 0
    if math.isinf(value):
        exponent, coefficient = most + 1, 0
    else:
        exponent = max(least, math.frexp(value)[1] + 1)
        coefficient = round(math.ldexp(value, _COEFFICIENT_BITS - exponent))
        if not -largest - 1 <= coefficient <= largest:
            exponent, coefficient = exponent + 1, coefficient // 2
    if exponent > most:
        exponent, coefficient = most, largest if value > 0 else -largest - 1
    return exponent % 128 << _COEFFICIENT_BITS | coefficient % (1 << _COEFFICIENT_BITS)
