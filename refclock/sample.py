"""The values that pass between modules: instants, pulse edges, second labels, samples.

Signs and units, stated once for the whole project:

* **offset = reference - local** (positive: the local clock is behind), as in chrony's SOCK samples and RFC 5905.
* ``*_ns`` are integers, nanoseconds. Absolute time is never a float.
* ``real_ns`` counts CLOCK_REALTIME (POSIX: no leap seconds, any privileged program may step or steer it).
* ``mono_ns`` counts CLOCK_MONOTONIC_RAW: the oscillator itself. Nothing steers or steps it, so everything is estimated on it.
* ``utc_ns`` counts POSIX UTC (23:59:60 has the number of the 23:59:59 before it); ``tai_ns`` = UTC + (TAI-UTC), continuous.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from ipaddress import ip_address
from typing import Final, NewType

NS = 1_000_000_000
MAX_FREQUENCY_PPM: Final = 500.0
"""ppm; the largest frequency error of an oscillator that the kernel corrects: MAXFREQ of linux/timex.h. No working crystal comes near."""

SourceId = NewType("SourceId", str)


class EraMismatch(ValueError):
    """Two REALTIME readings on different sides of a clock step were compared."""


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment read on both local clocks at once.

    ``era`` counts the steps of CLOCK_REALTIME seen so far. ``real_ns`` can be compared within one era, ``mono_ns`` always.
    """

    real_ns: int
    mono_ns: int
    era: int = 0

    def real_since(self, other: Instant) -> int:
        """REALTIME ns from ``other`` to here; raises EraMismatch when a step lies between."""
        if self.era != other.era:
            raise EraMismatch(f"era {self.era} compared with era {other.era}")
        return self.real_ns - other.real_ns

    def shifted(self, delta_ns: int) -> Instant:
        """The same clocks ``delta_ns`` later (negative: earlier). Valid for short spans, over which their rates agree."""
        return Instant(self.real_ns + delta_ns, self.mono_ns + delta_ns, self.era)


class EdgeKind(Enum):
    """Direction of the pulse line's change (RFC 2783: assert is the rising edge)."""

    ASSERT = "assert"
    CLEAR = "clear"


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge of a pulse, stamped by the kernel. ``uncertainty_ns``: half width of the REALTIME to RAW conversion."""

    at: Instant
    kind: EdgeKind
    sequence: int
    uncertainty_ns: int = 0


class Leap(IntEnum):
    """NTP leap indicator (RFC 5905 figure 9)."""

    NORMAL = 0
    INSERT = 1
    DELETE = 2
    UNSYNCHRONISED = 3


class FixMode(IntEnum):
    """The kind of solution that the receiver reports."""

    NONE = 1
    FIX_2D = 2
    FIX_3D = 3
    TIME_ONLY = 4


class LabelProtocol(StrEnum):
    """The protocol in which a second was named; the value is shown to users."""

    NMEA = "NMEA"
    UBX = "UBX"
    GPSD = "gpsd"


class LabelDoubt(Enum):
    """Why a label counts only where another witness names the same second."""

    CYCLE_UNCLEAR = "its first sentence came so long before that it may belong to another cycle"
    FIX_UNSTATED = "no message of the receiver states a fix"
    RIVAL_TALKER = "another talker on the line names another second"
    RIVAL_SENTENCE = "another sentence of the receiver names another second"


@dataclass(frozen=True, slots=True)
class SecondLabel:
    """A receiver's statement of UTC, checked for fix, syntax and date window.

    ``sentence``: the sentence or message that stated it ("RMC", "NAV-PVT", "TPV"), in ``protocol``.
    ``utc_ns``: the instant that it names, fraction included; nearly every receiver names whole seconds.
    ``second_60``: the sentence named 23:59:60; ``utc_ns`` then has the number of 23:59:59 (POSIX).
    ``at``: arrival of the first byte of the cycle's first sentence, later than the true instant by the message delay.
    ``leap_known``: the receiver states that its UTC includes the current leap count (UBX; gpsd with one device).
    ``weeks_repaired``: multiples of 1024 weeks that the date window added to the receiver's date.
    ``talker``: who spoke on an NMEA line ("GP", "GN"); "" in other protocols. ``doubt``: why it is no witness of its own; None when it is.
    """

    utc_ns: int
    at: Instant
    sentence: str
    second_60: bool = False
    leap_known: bool = False
    weeks_repaired: int = 0
    protocol: LabelProtocol = LabelProtocol.NMEA
    talker: str = ""
    doubt: LabelDoubt | None = None


@dataclass(frozen=True, slots=True)
class LeapNotice:
    """A receiver's leap second information (UBX-NAV-TIMELS and the like).

    ``tai_offset_s``: TAI-UTC now, None when unknown. ``step_s``: +1 insertion, -1 deletion, 0 none announced.
    ``at_utc_s``: POSIX second of the midnight that ends the day of the leap, None without announcement.
    """

    tai_offset_s: int | None
    step_s: int
    at_utc_s: int | None
    at: Instant


SAWTOOTH_LIMIT_NS: Final = 1000.0
"""ns; a larger quantisation error is impossible and ignored: the slowest u-blox time base has a period of 48 ns."""


@dataclass(frozen=True, slots=True)
class Sawtooth:
    """Quantisation error of the *next* pulse (UBX-TIM-TP qErr).

    ``error_ns`` positive: the pulse leaves the receiver **after** the true second, so it is subtracted from the measured edge.
    ``utc_ns``: the second of that pulse, None when the receiver states it on another time scale.
    """

    error_ns: float
    utc_ns: int | None
    at: Instant


@dataclass(frozen=True, slots=True)
class Satellite:
    """One satellite in view; ``elevation`` and ``azimuth`` in degrees, ``snr`` in dB-Hz; None when not reported."""

    gnss: str
    number: int
    elevation: int | None
    azimuth: int | None
    snr: int | None
    used: bool


@dataclass(frozen=True, slots=True)
class SkyView:
    """Fix and satellites of the last complete report."""

    mode: FixMode
    used: int
    satellites: tuple[Satellite, ...]
    at: Instant


class Antenna(Enum):
    """State of the antenna as the receiver's supervisor reports it."""

    UNKNOWN = "unknown"
    OK = "ok"
    OPEN = "open"
    SHORT = "short"


@dataclass(frozen=True, slots=True)
class Survey:
    """A timing receiver's survey of its own position. ``active``: still running; ``valid``: finished with a position; ``accuracy_m``
    reached, 0 when not stated; ``ecef_m``: mean position, x, y, z."""

    active: bool
    valid: bool
    duration_s: int
    accuracy_m: float
    ecef_m: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The receiver's health as one message reports it; None where the message says nothing.

    ``jamming``, ``spoofing``: 0 unknown, 1 none, 2 warning or indicated, 3 critical or certain (u-blox's scale). ``position``: latitude
    and longitude in degrees. ``accuracy_m``: the position's accuracy.
    """

    at: Instant
    antenna: Antenna | None = None
    jamming: int | None = None
    spoofing: int | None = None
    position: tuple[float, float] | None = None
    accuracy_m: float | None = None
    survey: Survey | None = None


ReceiverValue = SecondLabel | LeapNotice | Sawtooth | SkyView | HealthReport
"""What a receiver's bytes are decoded to."""


@dataclass(frozen=True, slots=True)
class LineStatus:
    """What was learned of a receiver's line since it was opened.

    ``advice``: what to do about a protocol that gives no time here; "" when none is needed. ``rejected``: counts by reason of valid
    messages that gave no label and of broken ones. ``junk_bytes``: bytes outside any sentence or message. ``unlabelled``: why the last
    statements of time gave no label, with the remedy; "" while they give labels. ``complaints``: the receiver's own error texts, in words.
    ``saturated``: the line has been busy without a pause, so its messages lag. ``fixless``: a receiver without a fix says just this.
    ``habit``: how it writes its checksums, in words behind "it", when sentences are taken for that; else "".
    ``silent``: what to do about a line on which not a byte comes; "" when some come.
    """

    advice: str = ""
    rejected: Mapping[str, int] = field(default_factory=dict)
    junk_bytes: int = 0
    unlabelled: str = ""
    complaints: tuple[str, ...] = ()
    saturated: bool = False
    fixless: bool = False
    habit: str = ""
    silent: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: at local instant ``at`` the true time was ``tai_ns``.

    ``uncertainty_ns``: random error of this sample (1 sigma) as the source states it, 0 when unknown.
    ``bias_ns``: largest systematic error of samples of this kind, either sign.
    """

    at: Instant
    tai_ns: int
    uncertainty_ns: int = 0
    bias_ns: float = 0.0


@dataclass(frozen=True, slots=True)
class ForeignSample:
    """One measurement that another program made: at ``at`` reference - REALTIME was ``offset_ns``.

    ``pulse``: the offset is known modulo one second only (chrony SOCK). ``uncertainty_ns``: error stated by its writer, 0 when none is.
    ``leap``: the leap second that it announces; NORMAL when it announces none.
    """

    at: Instant
    offset_ns: int
    uncertainty_ns: int = 0
    leap: Leap = Leap.NORMAL
    pulse: bool = False


def refid_of(address: str) -> int:
    """The reference identifier by which whoever follows the server at ``address`` says so: the IPv4 address, or the first octets of the MD5
    hash of the IPv6 address (RFC 5905 section 7.3). ValueError: it is no address."""
    plain = ip_address(address.partition("%")[0])
    octets = plain.packed if plain.version == 4 else hashlib.md5(plain.packed, usedforsecurity=False).digest()
    return int.from_bytes(octets[:4], "big")


@dataclass(frozen=True, slots=True)
class ServerPackets:
    """The packets of an NTP server: what its last usable answer says, and how many there were. Sources: RFC 5905 section 7.3; chronyc(1),
    ntpdata.

    ``local``: the address of this machine that it came to, "" before the first; ``port``: the server's. ``leap``, ``version``, ``stratum``,
    ``poll`` and ``precision`` (log2 s), ``root_delay_ns``, ``root_dispersion_ns``, ``reference_utc_ns`` (0: not stated): the server's own.
    ``offset_ns``: server - local clock; ``reading_ns``: the error of reading both; ``turn_ns``: what the server took. ``interleaved``: in
    that mode; ``stamped``: its arrival was stamped by the kernel. Counts: requests ``sent``, datagrams ``received``, of these ``valid``
    answers, and ``good`` ones, which are used.
    """

    local: str = ""
    port: int = 123
    leap: int = 3
    version: int = 4
    stratum: int = 0
    poll: int = 0
    precision: int = 0
    root_delay_ns: int = 0
    root_dispersion_ns: int = 0
    reference_utc_ns: int = 0
    offset_ns: int = 0
    reading_ns: int = 0
    turn_ns: int = 0
    interleaved: bool = False
    stamped: bool = False
    sent: int = 0
    received: int = 0
    valid: int = 0
    good: int = 0


@dataclass(frozen=True, slots=True)
class Authentication:
    """How the answers of an NTP server are authenticated. Source: chronyc(1), authdata.

    ``mode``: "", "key" or "nts". ``key_id``: the number of the key; of NTS how often keys were established. ``key_type``: chronyd's number
    of the algorithm (1 MD5, 2 SHA1, 3 SHA256, 13 AES128, 14 AES256); of NTS the AEAD's. ``key_bits``: its length. Of NTS alone:
    ``ke_attempts``: tries to establish keys since the last success; ``ke_age_s``: seconds since that, None before it; ``naks``: NTS
    negative acknowledgements since then; ``cookies`` that are left, of ``cookie_bytes`` octets.
    """

    mode: str = ""
    key_id: int = 0
    key_type: int = 0
    key_bits: int = 0
    ke_attempts: int = 0
    ke_age_s: int | None = None
    naks: int = 0
    cookies: int = 0
    cookie_bytes: int = 0


@dataclass(frozen=True, slots=True)
class UpstreamServer:
    """What the NTP client knows of a server, as of its last answer that was of use.

    ``name``: of the ``[[upstream]]`` table; ``address``: of the server. ``reach``: the last eight requests, a bit each; ``poll``: log2 s
    between two. ``stratum``, ``refid``: the server's; stratum 0: it has not answered yet. ``delay_ns``: the round trip; ``root_delay_ns``
    and ``dispersion_ns``: from the server to its reference clock, and the error of both ends' clocks. ``why``: what is wrong with it now,
    "" while it answers. ``ended``: it is not asked any more. ``packets``, ``authentication``: for people alone.
    """

    name: str
    address: str
    reach: int
    poll: int
    stratum: int = 0
    refid: int = 0
    delay_ns: int = 0
    root_delay_ns: int = 0
    dispersion_ns: int = 0
    why: str = ""
    ended: bool = False
    packets: ServerPackets = ServerPackets()
    authentication: Authentication = Authentication()

    @property
    def distance_ns(self) -> int:
        """|true - (local + offset)| of its samples is smaller, whatever the asymmetry of the path: half of both delays, and the
        dispersion."""
        return (self.delay_ns + self.root_delay_ns + 1) // 2 + self.dispersion_ns


@dataclass(frozen=True, slots=True)
class PulseReport:
    """Statistics and quality of a source's pulses.

    ``edge``: the one that marks seconds, "" while unknown. ``jitter_us``: nine of ten intervals lie this close to the median. ``good``:
    the pulses are fit for timing. ``words``: the report in one sentence. ``doubts``: what is wrong, a sentence each. ``changed``: the last
    change of the rate.
    """

    rate_hz: float | None
    edge: str
    width_ms: float | None
    jitter_us: float | None
    pulses: int
    missing: int
    stray: int
    good: bool
    words: str
    doubts: tuple[str, ...] = ()
    changed: str = ""


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """State of a feed of samples to another program.

    ``kind``: sock or shm; ``target``: path or unit. ``state``: waiting (nothing to send yet), sending, absent (no program receives),
    withheld (the error bound is wider than promised), refused (no permission), stalled (its queue is full), failed. ``sent`` and ``lost``
    count samples. ``why``: cause and remedy, "" while sending.
    """

    name: str
    kind: str
    target: str
    state: str
    sent: int
    lost: int
    why: str = ""
