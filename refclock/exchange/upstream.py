"""Samples of NTP servers on their way to the clock process: chrony's SOCK sample, and behind it what that format has no room for.

A SOCK sample has an offset and no error. Of a receiver the error is stated once, in the configuration; of a server it is another one with
each answer: half of the round trip, for nobody knows how it is shared between both ways, and what the server says of itself. Selection
needs it, and whoever serves this time must hand it on (RFC 5905 section 11.2). So a datagram is a SOCK sample, which ``sock.parse_sock``
reads as everybody's, and a tail: strata, delays and dispersion, the register of answers, which server it is, and what people are told of
its packets. When a request brought no sample, the datagram tells the rest all the same, with a sample that is marked as unsynchronised,
which is what SOCK has for that.

Flow: ``ppsd.serve.upstream`` -> **pack** -> a socket in the run directory -> **UpstreamIntake** -> ``ppsd.clock.upstream``.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from pathlib import Path
from typing import Final

from refclock.exchange.samples import RawSample, SampleReject
from refclock.exchange.sock import DATAGRAMS, SOCK_64, SOCK_MAGIC, SOCKET_MODE, parse_sock
from refclock.kernel.names import Name
from refclock.kernel.unix_socket import bound
from refclock.sample import NS, Authentication, Leap, ServerPackets, UpstreamServer, refid_of

TAIL: Final = struct.Struct("=BBbBIQQQ")
"""Stratum, reach, poll, ended, reference identifier, round trip, root delay, dispersion (ns)."""
PACKETS: Final = struct.Struct("=HBBBbbQQqqQQ??IIII")
"""ServerPackets, all but ``local``."""
AUTHENTICATION: Final = struct.Struct("=BIHHIIIHH")
"""Authentication; UNKNOWN for an age of None. The texts follow: name, address, why, local address."""
MODES: Final = ("", "key", "nts")
"""Of Authentication, by their numbers."""
UNKNOWN: Final = 0xFFFFFFFF
"""s; an age that is not known."""
LARGEST: Final = 0xFFFFFFFF
"""The largest count; a larger one is told as this."""
TEXT_BYTES: Final = 255
"""Octets of a text at most; its length is one octet in front of it."""
NO_SAMPLE: Final = SOCK_64.pack(0, 0, 1e9, 0, Leap.UNSYNCHRONISED, 0, SOCK_MAGIC)
"""In place of a sample: a form that is right, and a sample that nobody uses."""
TEXTS: Final = 4
"""Texts of a datagram."""
LONGEST: Final = SOCK_64.size + TAIL.size + PACKETS.size + AUTHENTICATION.size + TEXTS * (TEXT_BYTES + 1)
"""Octets of the longest datagram."""
FARTHEST_NS: Final = 1 << 40
"""ns; delays and dispersions are smaller: 18 minutes. NTP's own fields end at 18 hours; nobody uses such a server."""
FILE: Final = "upstream.sock"
"""The name of the socket in the run directory."""


def pack(server: UpstreamServer, sample: RawSample | None) -> bytes:
    """The datagram. Texts that are too long are cut."""
    head = NO_SAMPLE
    if sample is not None:
        seconds, ns = divmod(sample.real_ns, NS)
        head = SOCK_64.pack(seconds, ns // 1000, sample.offset_ns / NS, 0, sample.leap, 0, SOCK_MAGIC)
    s = server
    tail = TAIL.pack(s.stratum, s.reach, s.poll, s.ended, s.refid, s.delay_ns, s.root_delay_ns, s.dispersion_ns)
    texts = (text.encode("utf-8", "replace")[:TEXT_BYTES] for text in (s.name, s.address, s.why, s.packets.local))
    return head + tail + _packets(s.packets) + _authentication(s.authentication) + b"".join(bytes((len(text),)) + text for text in texts)


def _packets(p: ServerPackets) -> bytes:
    counts = (min(count, LARGEST) for count in (p.sent, p.received, p.valid, p.good))
    stated = (p.port, p.leap, p.version, p.stratum, p.poll, p.precision, p.root_delay_ns, p.root_dispersion_ns, p.reference_utc_ns)
    return PACKETS.pack(*stated, p.offset_ns, p.reading_ns, p.turn_ns, p.interleaved, p.stamped, *counts)


def _authentication(a: Authentication) -> bytes:
    age = UNKNOWN if a.ke_age_s is None else min(a.ke_age_s, UNKNOWN - 1)
    mode = MODES.index(a.mode)
    return AUTHENTICATION.pack(mode, a.key_id, a.key_type, a.key_bits, a.ke_attempts, age, a.naks, a.cookies, a.cookie_bytes)


def parse(data: bytes) -> tuple[UpstreamServer, RawSample | None] | SampleReject:
    """The inverse; whatever comes. The sample's uncertainty is the distance of the server."""
    sample = parse_sock(data[: SOCK_64.size])
    if isinstance(sample, SampleReject):
        return sample
    rest, texts = data[SOCK_64.size :], []
    if len(rest) < TAIL.size + PACKETS.size + AUTHENTICATION.size:
        return SampleReject.SIZE
    stratum, reach, poll, ended, refid, delay_ns, root_delay_ns, dispersion_ns = TAIL.unpack_from(rest)
    packets = PACKETS.unpack_from(rest, TAIL.size)
    mode, *numbers = AUTHENTICATION.unpack_from(rest, TAIL.size + PACKETS.size)
    rest = rest[TAIL.size + PACKETS.size + AUTHENTICATION.size :]
    for _ in range(TEXTS):
        if not rest or len(rest) <= rest[0]:
            return SampleReject.SIZE
        texts.append(rest[1 : 1 + rest[0]].decode("utf-8", "replace"))
        rest = rest[1 + rest[0] :]
    if rest:
        return SampleReject.SIZE
    good = (
        stratum < 16
        and ended < 2
        and mode < len(MODES)
        and max(delay_ns, root_delay_ns, dispersion_ns) < FARTHEST_NS
        and all(text.isprintable() for text in texts)
    )
    if not good or not texts[0] or sample.pulse:
        return SampleReject.NONSENSE
    name, address, why, local = texts
    try:
        refid_of(address)
        refid_of(local or address)
    except ValueError:
        return SampleReject.NONSENSE
    key_id, key_type, key_bits, attempts, age_s, *nts = numbers
    authentication = Authentication(MODES[mode], key_id, key_type, key_bits, attempts, None if age_s == UNKNOWN else age_s, *nts)
    server = UpstreamServer(
        name=name,
        address=address,
        reach=reach,
        poll=poll,
        stratum=stratum,
        refid=refid,
        delay_ns=delay_ns,
        root_delay_ns=root_delay_ns,
        dispersion_ns=dispersion_ns,
        why=why,
        ended=bool(ended),
        packets=ServerPackets(local, *packets),
        authentication=authentication,
    )
    if sample.leap is Leap.UNSYNCHRONISED:
        return server, None
    return (server, replace(sample, uncertainty_ns=server.distance_ns)) if stratum else SampleReject.NONSENSE


class UpstreamIntake:
    """The socket ``path``, to which the NTP client sends. OSError: see ``unix_socket.bound``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rejected = 0
        self._socket = bound(path, socket.SOCK_DGRAM, SOCKET_MODE)
        self.name = Name(path)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def read(self) -> list[tuple[UpstreamServer, RawSample | None]]:
        """What has arrived, at most DATAGRAMS; never blocks."""
        found = []
        for _ in range(DATAGRAMS):
            try:
                data = self._socket.recv(LONGEST + 1)
            except BlockingIOError:
                break
            heard = parse(data)
            if isinstance(heard, SampleReject):
                self.rejected += 1
            else:
                found.append(heard)
        return found

    def close(self) -> None:
        """Close the socket, and remove its name while it is still ours."""
        self._socket.close()
        if not self.name.missing():
            self.path.unlink(missing_ok=True)
