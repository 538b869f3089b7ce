"""Snapshot: what the daemon says of itself, as typed values that go to JSON and come back.

The engine makes a Snapshot on request, the clock process adds what only it knows (feeds, steering) and sends it over the control socket.
The NTP server sends a ServerReport. Everything that people or programs are told comes from these two: CLI, doctor, dashboard, metrics,
alerts and the chronyc and ntpq faces. They ask a condition for its code, never its words for a substring.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from refclock.condition import Code, Condition
from refclock.sample import Authentication, FeedStatus, PulseReport, Satellite, ServerPackets


class Mode(StrEnum):
    """What the engine is doing (one place knows, everybody reads it here)."""

    ACQUIRE = "acquire"  # which second is it?
    CONVERGE = "converge"  # the second is known, the frequency is being learned
    TRACK = "track"  # pulses are rounded by the timescale, labels only check it
    HOLDOVER = "holdover"  # no usable measurement; the bound grows
    FALLBACK = "fallback"  # no receiver can be used; NTP servers are followed


class Verdict(StrEnum):
    """The state a person sees; the value is the word shown."""

    LOCKED = "LOCKED"
    ACQUIRING = "ACQUIRING"
    HOLDOVER = "HOLDOVER"
    FALLBACK = "FALLBACK"
    NO_TIME = "NO TIME"


HEALTH: Final = (Code.TIME_RUNS_AWAY, Code.SPOOFING, Code.POSITION_JUMPED, Code.ANTENNA_FAULT, Code.JAMMING, Code.FIX_2D)
"""Conditions of antenna, sky and signals: what is the matter with the receiver itself."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source of time as it stands."""

    name: str
    kind: str  # receiver, gpsd, sock, shm
    what: str  # the devices, in words
    present: bool
    tally: str  # as in chronyc sources: * selected, + agrees, x falseticker, ~ too variable, ? unusable
    why: str  # one sentence: why it is not selected, or what it contributes
    reach: int  # one bit for each of the last eight seconds... as chronyc prints it, octal 377 = all
    last_sample_s: float | None  # seconds since the last sample
    offset_ns: int | None  # last sample minus the served timescale (+: the source says it is later)
    jitter_ns: int | None  # robust standard deviation of the samples
    bound_ns: int | None  # what we think this source alone would allow
    frequency_ppm: float | None  # error of the local oscillator against it (+: fast)
    skew_ppm: float | None
    samples: int
    pulses: int
    labels: int
    fix: str  # none, 2D, 3D, time-only, unknown
    satellites_used: int | None
    satellites_seen: int | None
    message_delay_ms: float | None
    message_spread_ms: float | None
    rejected: Mapping[str, int] = field(default_factory=dict)  # statements and samples that were refused, by reason
    junk_bytes: int = 0  # octets of its line that belong to no sentence or message
    message: str = ""  # "NMEA arrives 143 ms ± 4 after the pulse"; empty while not measured
    satellites: tuple[Satellite, ...] = ()
    conditions: tuple[Condition, ...] = ()  # what is the matter with it; the first that blocks is why it is not used
    bias_us: float | None = None  # how late its pulses may be stamped: part of the bound
    bias_how: str = ""  # by what they are stamped; "as configured"
    pulse: PulseReport | None = None  # rate, width, jitter and verdict of its pulses; None before the first edge
    timing: str = ""  # survey-in and timing mode of a timing receiver, in words
    cable: str = ""  # who takes off the antenna cable's delay; empty when none is configured
    bound_terms_ns: Mapping[str, float] = field(default_factory=dict)  # what bound_ns is the sum of (ppsd/discipline/THE_BOUND.md)
    span_s: float | None = None  # from the first sample that was used to the last
    prefer: bool = False  # as configured
    trust: bool = False
    noselect: bool = False

    def has(self, *codes: Code) -> Condition | None:
        """Its first condition of these; None when it has none."""
        return _first(self.conditions, codes)

    @property
    def health(self) -> tuple[str, ...]:
        """What is the matter with the receiver itself, a sentence each."""
        return tuple(c.words for c in self.conditions if c.code in HEALTH)


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    """One NTP server as it stands. ``tally``: as in chronyc sources: * followed, - not, x contradicts what is served, ? unusable.
    ``stratum``, ``refid``: its own. ``poll``: log2 s. ``offset_ns``: last sample minus the served timescale (+: it says it is later).
    ``delay_ns``: round trip; ``root_delay_ns``, ``dispersion_ns``: from it to its reference clock. ``bound_ns``: how far its time may be
    off now."""

    name: str
    host: str
    address: str
    tally: str
    why: str
    stratum: int
    refid: int
    poll: int
    reach: int
    last_sample_s: float | None
    span_s: float | None
    offset_ns: int | None
    delay_ns: int
    root_delay_ns: int
    dispersion_ns: int
    jitter_ns: int | None
    bound_ns: int | None
    frequency_ppm: float | None
    skew_ppm: float | None
    samples: int
    prefer: bool = False
    trust: bool = False
    noselect: bool = False
    conditions: tuple[Condition, ...] = ()
    packets: ServerPackets = field(default_factory=ServerPackets)
    authentication: Authentication = field(default_factory=Authentication)


@dataclass(frozen=True, slots=True)
class TemperatureStatus:
    """The thermometer beside the crystal."""

    sensor: str  # where it is read
    celsius: float | None  # None: not read now
    explains_ppm: float | None  # range of the frequency that it explains, of the last hour; None while nothing is learned
    in_use: bool  # whether estimates and holdover follow it
    why: str  # why not, one sentence; "" when in use
    score: float  # independent forecasts that it made better, less those that it made worse
    lag_s: float  # of the low-pass between it and the crystal
    ppm_per_kelvin: float  # slope at the present temperature (+: faster when warmer)
    words: str  # all this in one sentence


@dataclass(frozen=True, slots=True)
class KernelStatus:
    """The kernel's clock as adjtimex(2) tells it. ``frequency_ppm``: made to run faster by it; ``offset_ns``: still to be slewed;
    ``status``: its STA_* bits."""

    frequency_ppm: float
    offset_ns: int
    max_error_ns: int
    est_error_ns: int
    status: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The clock process at one instant."""

    version: str
    pid: int
    simulated: bool
    uptime_s: float
    utc: str  # ISO 8601, ns, of the served timescale; of the system clock before the first lock
    mode: Mode
    verdict: Verdict
    why: str  # the words of the condition that keeps it from being LOCKED, or locked to pulses; "" when there is none
    stages: tuple[tuple[str, bool], ...]  # source found, second known, pulses numbered, locked
    stratum: int
    refid: str
    leap: str  # normal, insert, delete, unsynchronised
    leap_pending: str  # "none" or "+1 s at 2026-12-31"
    tai_offset_s: int
    bound_ns: int | None  # |served - true| is claimed to be below it
    frequency_ppm: float | None
    skew_ppm: float | None
    system_offset_ns: int | None  # served UTC minus CLOCK_REALTIME
    holdover_s: float | None
    holdover_left_s: float | None
    steering: str  # none, kernel
    clock_steps: int  # foreign steps of CLOCK_REALTIME seen
    sources: tuple[SourceStatus, ...]
    upstreams: tuple[UpstreamStatus, ...] = ()  # NTP servers; what they may do: clock.upstreams
    root_delay_ns: int = 0  # to the reference clock, by way of the upstream that is followed
    temperature: TemperatureStatus | None = None  # None: no thermometer is read
    conditions: tuple[Condition, ...] = ()  # of the whole daemon; a source's own are with it
    feeds: tuple[FeedStatus, ...] = ()
    listen: tuple[str, ...] = ()  # addresses that the configuration wants served; empty: no NTP server
    kernel: KernelStatus | None = None  # None: it may not even be read

    @property
    def selected(self) -> SourceStatus | None:
        """The source whose time is served; None while there is none."""
        return next((s for s in self.sources if s.tally == "*"), None)

    @property
    def followed(self) -> UpstreamStatus | None:
        """The NTP server whose time is served; None while a receiver's is, or nothing."""
        return next((u for u in self.upstreams if u.tally == "*"), None)

    def asymmetry_ns(self, upstream: UpstreamStatus) -> tuple[int, int] | None:
        """What only a receiver beside a server can tell: how much longer the way there takes than the way back, if the server is right, and
        within what; None without a receiver's time."""
        if self.selected is None or self.bound_ns is None or upstream.offset_ns is None:
            return None
        error_ns = self.bound_ns + upstream.dispersion_ns + upstream.root_delay_ns // 2
        return 2 * upstream.offset_ns, 2 * error_ns

    @property
    def synchronised(self) -> bool:
        """Whether time is served."""
        return self.stratum > 0 and self.leap != "unsynchronised"

    @property
    def reference_utc_ns(self) -> int:
        """UTC of the last measurement that went into the served time, ns since 1970. A leap second has the number of the one before."""
        selected = self.selected or self.followed
        age_s = (selected.last_sample_s or 0.0) if selected is not None else self.holdover_s or 0.0
        return self.utc_ns - round(age_s * 1e9)

    @property
    def utc_ns(self) -> int:
        """``utc`` in ns since 1970. A leap second has the number of the one before."""
        date, _, fraction = self.utc.removesuffix("Z").replace(":60", ":59").partition(".")
        whole_s = round(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp())
        return whole_s * 1_000_000_000 + int(fraction.ljust(9, "0"))

    def has(self, *codes: Code) -> Condition | None:
        """The first of these among the daemon's own conditions; None when it has none."""
        return _first(self.conditions, codes)

    def to_json(self) -> dict[str, Any]:
        """For json.dumps. Keys are the fields' names; each source also has ``health``, in sentences."""
        told = asdict(self)
        for source, status in zip(told["sources"], self.sources, strict=True):
            source["health"] = list(status.health)
        return told

    @classmethod
    def from_json(cls, told: object) -> Snapshot:
        """What json.loads made of a daemon's answer. Unknown keys and codes are ignored, for its version may be another. ValueError: says
        what is missing or nonsense."""
        return _record(cls, told, "")


def _first(conditions: Iterable[Condition], codes: Collection[Code]) -> Condition | None:
    return next((c for c in conditions if c.code in codes), None)


@dataclass(frozen=True, slots=True)
class Stamping:
    """What time stamps the driver of a network interface gives. ``arrivals``, ``departures``: "kernel", "kernel (card could)" or "none".
    ``clock``: the card's, such as ptp0, or ""."""

    name: str
    arrivals: str
    departures: str
    clock: str


@dataclass(frozen=True, slots=True)
class Unserved:
    """An address that the server should serve and cannot. ``why``: the reason and the remedy. ``harmless``: nothing is missing, for this
    machine has no addresses of that kind. ``taken``: another program has it; else it has still to come, with its interface."""

    address: str
    why: str
    harmless: bool = False
    taken: bool = False


@dataclass(frozen=True, slots=True)
class ServerReport:
    """The NTP server at one instant. ``counters``: action (reply, kod, drop, server; command: of chronyc; nts-ke: sessions) -> reason ->
    number. ``unserved``: configured addresses that are not served now. ``commands``: addresses where chronyc is answered; ``uncommanded``:
    where it should be and is not. ``keys``: how many symmetric keys there are."""

    pid: int
    uptime_s: float
    addresses: tuple[str, ...]
    socket_activated: bool
    counters: Mapping[str, Mapping[str, int]]
    interfaces: tuple[Stamping, ...] = ()
    unserved: tuple[Unserved, ...] = ()
    commands: tuple[str, ...] = ()
    uncommanded: tuple[Unserved, ...] = ()
    keys: int = 0

    def to_json(self) -> dict[str, Any]:
        """For json.dumps; keys are the fields' names."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: object) -> ServerReport:
        """As of Snapshot."""
        return _record(cls, told, "")


@dataclass(frozen=True, slots=True)
class NtsReport:
    """Key establishment as it stands. ``own``: the certificate is this machine's own; ``names``: whom it is for. ``until_s``,
    ``authority_until_s``: POSIX seconds at which it and that of the own authority end; None: there is none. ``problem``: why there is none,
    or why the one in force was not replaced. ``sessions``: counts since the start (``ppsd.serve.nts_sessions.Tally``)."""

    pid: int
    uptime_s: float
    addresses: tuple[str, ...]
    unserved: tuple[Unserved, ...]
    own: bool
    names: tuple[str, ...]
    until_s: int | None
    authority_until_s: int | None
    problem: str
    open: int
    sessions: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """For the control socket."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: object) -> NtsReport:
        """From the control socket; ValueError when it is not a report of this version."""
        return _record(cls, told, "NTS report")


@dataclass(frozen=True, slots=True)
class Client:
    """One client of the server's table. ``address``: an address, or the /64 network that the entry stands for; of a link-local address its
    second half, and "(local)". ``interval_s``: mean interval between requests, None before the second one. ``last_s``, ``first_s``: seconds
    since the last and the first request. ``authenticated``: by a key or by NTS, and ``nts`` says by which."""

    address: str
    packets: int
    drops: int
    interval_s: float | None
    last_s: float
    first_s: float
    version: int
    authenticated: bool
    interleaved: bool
    nts: bool = False

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """The address, or the first one of the network."""
        half = self.address.removesuffix(" (local)")
        return ip_interface(half).ip if half == self.address else IPv6Address(f"fe80::{half}")

    @classmethod
    def many(cls, told: Mapping[str, Any]) -> tuple[Client, ...]:
        """The reply to the verb "clients". ValueError as of Snapshot."""
        return tuple(_record(cls, client, "clients") for client in told.get("clients", ()))


# ---- a receiver's line, for onlookers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LineReport:
    """A receiver's line that the clock process reads. ``baud``: 0 without a speed; ``byte_ns``: line time of one byte, 0 for USB; ``bits``:
    "7N2", "" for eight data bits. ``protocol``: "" before anything intelligible came. ``named_s``: the last second that it named (POSIX).
    ``pulse``: path of its open pulse, "" without. ``heard``: number of the next read."""

    source: str
    device: str
    baud: int
    byte_ns: int
    bits: str
    protocol: str
    identity: str
    named_s: int | None
    pulse: str
    heard: int

    @classmethod
    def many(cls, told: Mapping[str, Any]) -> list[LineReport]:
        """The reply to the verb "lines". ValueError as of Snapshot."""
        return [_record(cls, line, "lines") for line in told.get("lines", ())]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a line brought: for each read REALTIME and RAW at its end (ns), and its octets in hexadecimal. ``after``: number of the next."""

    after: int
    reads: tuple[tuple[int, int, str], ...]

    @classmethod
    def from_json(cls, told: object) -> Reading:
        """As of Snapshot."""
        return _record(cls, told, "")


@dataclass(frozen=True, slots=True)
class LineSettings:
    """A receiver's answers to questions for its settings, in hexadecimal by the question's name. ``why``: why it cannot be asked."""

    why: str
    finished: bool
    told: Mapping[str, str]

    @classmethod
    def from_json(cls, told: object) -> LineSettings:
        """As of Snapshot."""
        return _record(cls, told, "")


# ---- from JSON --------------------------------------------------------------------------------------------------------------------

T = TypeVar("T")
_CODES = frozenset(code.value for code in Code)


@cache
def _types_of(cls: Any) -> Mapping[str, Any]:
    """The types of a dataclass's fields. Its annotations are text: compiling them each time took nine tenths of a snapshot's reading."""
    return get_type_hints(cls)


def _record(cls: type[T], told: object, at: str) -> T:
    """The dataclass ``cls`` from the JSON object ``told``, found at ``at``."""
    if not isinstance(told, dict):
        raise ValueError(f"{at or 'the answer'} is no JSON object")
    types_of, found = _types_of(cast(Any, cls)), dict[str, Any]()
    assert is_dataclass(cls)
    for f in fields(cls):
        where = f"{at}.{f.name}" if at else f.name
        if f.name in told:
            found[f.name] = _value(types_of[f.name], told[f.name], where)
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{where} is missing: the daemon is of another version")
    return cls(**found)


def _value(kind: Any, told: object, at: str) -> Any:
    """A value of the type ``kind``, which occurs in the dataclasses above."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):  # X | None
        return None if told is None else _value(next(k for k in inner if k is not types.NoneType), told, at)
    if origin is tuple:
        if not isinstance(told, list):
            raise ValueError(f"{at} is no list")
        if inner[-1] is not Ellipsis:
            if len(told) != len(inner):
                raise ValueError(f"{at} has {len(told)} values instead of {len(inner)}")
            return tuple(_value(k, v, f"{at}[{i}]") for i, (k, v) in enumerate(zip(inner, told, strict=True)))
        if inner[0] is Condition:
            told = [c for c in told if not isinstance(c, dict) or c.get("code") in _CODES]
        return tuple(_value(inner[0], v, f"{at}[{i}]") for i, v in enumerate(told))
    if origin is Mapping:
        if not isinstance(told, dict):
            raise ValueError(f"{at} is no JSON object")
        return {key: _value(inner[1], v, f"{at}.{key}") for key, v in told.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        return _record(kind, told, at)
    wanted = (int, float) if kind is float else str if issubclass(kind, StrEnum) else kind
    if not isinstance(told, wanted) or isinstance(told, bool) != (kind is bool):
        raise ValueError(f"{at} is {told!r:.40}, not {kind.__name__}")
    try:
        return kind(told)
    except ValueError:
        raise ValueError(f"{at} is {told!r:.40}: the daemon is of another version") from None
