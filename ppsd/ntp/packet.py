"""NTP packets in Python: the codec of the 48-octet header, and a client's checks of a reply.

The server's replies are built in C (native/packet.c); this codec is for the query client and for tests. Timestamps come in as arguments.
Sources: RFC 5905 sections 6 and 7.3 (layout and formats), 7.4 (kiss codes) and 8 (checks of a reply).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

from refclock.sample import NS, Leap
from refclock.timescales import utc_of_ntp64

HEADER = struct.Struct("!BBbbIIIQQQQ")
"""LI/VN/mode, stratum, poll, precision, root delay, root dispersion, reference ID, four timestamps (RFC 5905 figure 8)."""
MODE_CLIENT = 3
MODE_SERVER = 4
VERSION = 4
MAX_STRATUM = 16
RATES = 1000
"""One part of the round trip in this many by which two clocks may measure it differently: both run up to 500 ppm wrong (adjtimex(2))."""
COARSEST = -6
"""log2 s; the coarsest clock that is believed: that of Windows, 16 ms."""
STAMPS_NS = 20_000
"""ns by which a server may stamp a departure later than it is: stamps that are foretold are up to 7 us late (tests/bench/server.md)."""


class Reason(Enum):
    """Why a reply is rejected; the value is the text for people."""

    SHORT = "shorter than an NTP header"
    MODE = "not a server's reply"
    VERSION = "a protocol version that does not exist"
    ORIGIN = "does not echo our request (spoofed, late or duplicate)"
    KISS = "the server refuses to serve (kiss-o'-death)"
    UNSYNCHRONISED = "the server says that it is not synchronised"
    ZERO = "a timestamp is missing"
    BACKWARDS = "transmitted before it was received"
    TURNAROUND = "the server says that it took longer to answer than the answer took to come: its clock was stepped, or it lies"
    DISTANT = "its root distance is too large"
    DELAYED = "its round trip took longer than maxdelay, maxdelayratio or maxdelaydevratio allows"
    UNAUTHENTIC = "not authenticated with the key: the server has no such key, or another secret"
    LOOP = "the server gets its time from this machine"


@dataclass(frozen=True, slots=True)
class Header:
    """One packet's header. Timestamps are 64-bit NTP (2**-32 s, modulo the era); root delay and dispersion 16.16 fixed point (2**-16 s)."""

    leap: Leap = Leap.NORMAL
    version: int = VERSION
    mode: int = MODE_CLIENT
    stratum: int = 0
    poll: int = 0
    precision: int = 0
    root_delay: int = 0
    root_dispersion: int = 0
    refid: int = 0
    reference: int = 0
    origin: int = 0
    receive: int = 0
    transmit: int = 0

    def pack(self) -> bytes:
        """The 48 octets. struct.error: a field does not fit, which is a mistake of the caller."""
        first = self.leap << 6 | self.version << 3 | self.mode
        return HEADER.pack(
            first, self.stratum, self.poll, self.precision, self.root_delay, self.root_dispersion, self.refid,
            self.reference, self.origin, self.receive, self.transmit,
        )  # fmt: skip

    @property
    def root_delay_ns(self) -> int:
        """Root delay in ns, rounded up."""
        return -(-self.root_delay * NS >> 16)

    @property
    def root_dispersion_ns(self) -> int:
        """Root dispersion in ns, rounded up."""
        return -(-self.root_dispersion * NS >> 16)


def parse(data: bytes) -> Header | None:
    """The header of a datagram (extension fields and MAC after it are ignored); None when it is too short."""
    if len(data) < HEADER.size:
        return None
    first, *rest = HEADER.unpack_from(data)
    return Header(Leap(first >> 6), first >> 3 & 7, first & 7, *rest)


def refid_text(refid: int, stratum: int) -> str:
    """The reference ID as text. At stratum 0 (kiss code) and 1 (source) it is ASCII. Above, it is an IPv4 address or a hash of an IPv6
    address, written as a dotted quad (RFC 5905 figures 12 and 13)."""
    octets = refid.to_bytes(4, "big")
    if stratum > 1:
        return ".".join(str(o) for o in octets)
    return "".join(chr(o) if 32 < o < 127 else "?" for o in octets.rstrip(b"\0"))


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its reply. ``offset_ns``: server - local (positive: the local clock is behind). ``delay_ns``: round trip, without the
    server's processing. ``local_utc_ns``: local UTC when the request left."""

    header: Header
    offset_ns: int
    delay_ns: int
    local_utc_ns: int

    @property
    def root_distance_ns(self) -> int:
        """A bound on |true time - (local + offset)|, from the server's root delay and dispersion and the delay of this exchange."""
        return self.header.root_dispersion_ns + (self.header.root_delay_ns + self.delay_ns + 1) // 2


def judge(request_transmit: int, data: bytes, sent_utc_ns: int, received_utc_ns: int) -> Exchange | Reason:
    """The exchange that a datagram completes, or why it is rejected.

    ``sent_utc_ns``, ``received_utc_ns``: local UTC before and after the exchange (T1 and T4, RFC 5905 section 8).
    ``request_transmit``: the request's transmit field, a random number instead of T1; an equal origin proves that the reply answers this
    request. The origin is checked before stratum and leap, so an off-path attacker cannot send a kiss (CVE-2015-7704).
    """
    header = parse(data)
    if header is None:
        return Reason.SHORT
    if header.mode != MODE_SERVER:
        return Reason.MODE
    if not 1 <= header.version <= VERSION:  # old servers answer in their own, 3
        return Reason.VERSION
    if header.origin != request_transmit:
        return Reason.ORIGIN
    if header.leap == Leap.UNSYNCHRONISED or header.stratum >= MAX_STRATUM:
        return Reason.KISS if header.stratum == 0 and refid_text(header.refid, 0) in KISSES else Reason.UNSYNCHRONISED
    if header.stratum == 0:
        return Reason.KISS
    if not header.transmit or not header.receive:
        return Reason.ZERO
    receive = utc_of_ntp64(header.receive, sent_utc_ns)
    transmit = utc_of_ntp64(header.transmit, sent_utc_ns)
    grain = round(NS * 2.0 ** min(header.precision, COARSEST))
    if transmit < receive - 2 * grain:  # chronyd draws the bits below its precision, of each stamp
        return Reason.BACKWARDS
    offset = ((receive - sent_utc_ns) + (transmit - received_utc_ns)) // 2
    trip = received_utc_ns - sent_utc_ns
    if transmit - receive > trip + trip // RATES + 2 * grain + STAMPS_NS:
        return Reason.TURNAROUND
    delay = max(0, trip - (transmit - receive))
    exchange = Exchange(header, offset, delay, sent_utc_ns)
    return Reason.DISTANT if exchange.root_distance_ns >= MAX_STRATUM * NS else exchange


KISSES = frozenset({"DENY", "RSTR", "RATE"})
"""Kiss codes with which a server refuses a client (RFC 5905 section 7.4). The others, as INIT and STEP, only say that it is not
synchronised."""
