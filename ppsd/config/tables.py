"""The tables of refclock.toml: keys, ranges and defaults. ``refclock.config`` has those of sources and feeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import date
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, ClassVar, Final

from ppsd.config.access import LOOPBACK, OWN, AccessList, Rule, access_complaint, prefix_complaint
from refclock import BUILD_DATE
from refclock.config import DEFAULT_SOURCE, Feed, Source, absolute_path, login, plain_name, run_directory, socket_path, thermometer
from refclock.schema import key


def parse_endpoint(text: str) -> tuple[str, int] | None:
    """``IPv4:PORT`` or ``[IPv6]:PORT`` to (address, port); None when it is neither, or the port is not in 1..65535."""
    match = re.fullmatch(r"(?:\[([^\[\]\s]+)\]|([0-9.]+)):([0-9]{1,5})", text, re.ASCII)
    if match is None or not 1 <= int(match[3]) <= 65535:
        return None
    try:
        _ = IPv6Address(match[1]) if match[1] else IPv4Address(match[2])
    except ValueError:
        return None
    return match[1] or match[2], int(match[3])


def endpoint_text(host: str, port: int) -> str:
    """An address and a port as ``parse_endpoint`` reads them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def covering(endpoint: tuple[str, int], among: Iterable[tuple[str, int]]) -> tuple[str, int] | None:
    """The endpoint among others that takes in ``endpoint``: the wildcard address of its family, with its port. None: there is none."""
    host, port = endpoint
    wildcard = ip_address("::" if ":" in host else "0.0.0.0")

    def is_wide(other: str) -> bool:
        return ip_address(other.partition("%")[0]) == wildcard

    return None if is_wide(host) else next(((other, p) for other, p in among if p == port and is_wide(other)), None)


def _endpoint(text: str) -> str | None:
    return None if parse_endpoint(text) else 'must be an address and port like "0.0.0.0:123" or "[::]:123"'


def _host(text: str) -> str | None:
    """Complaint about a name or an address by which clients call a server (RFC 1123 section 2.1)."""
    try:
        _ = ip_address(text)
    except ValueError:
        named = len(text) <= 253 and re.fullmatch(
            r"(?=.*[A-Za-z])(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.|\Z))+", text, re.ASCII
        )
        return None if named else "is neither a host's name nor an address"
    return None


def _group(text: str) -> str | None:
    return None if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,9}", text) else "is not a group's name or number"


def _interface(text: str) -> str | None:
    return None if re.fullmatch(r"[^\s/:]{1,15}", text) else "is not an interface name; ip link lists them"


@dataclass(frozen=True, slots=True)
class ClockConfig:
    """The time and the system clock.

    ``steer``: what sets CLOCK_REALTIME; "none": this daemon leaves it alone. ``step``: when it may be stepped; "start": with the first
    corrections of a boot, and after another program's step. ``panic_s``: once the clock was right in this boot, a larger error is taken for
    a mistake, not for drift, and the clock is left alone (as in ntpd). ``holdover_limit_s``: longest holdover. ``max_bound_ms``: a larger
    error bound is served as leap indicator 3. ``temperature``: the thermometer nearest to the crystal; readings are used only while they
    improve the estimate. ``cpu_latency_us``: see ``ppsd.clock.cpu_latency``. ``not_before``: no true date is before it. ``upstreams``: what
    the NTP servers of ``[[upstream]]`` do; "off": they are not asked; "witness": they contradict or confirm the receivers, and are never
    served; "fallback": besides, they are followed, at their stratum plus one, when no receiver can be used; "only": they are followed, and
    no receiver is wanted."""

    steer: str = key("none", "who sets the system clock", choices=("none", "kernel"))
    step: str = key("start", "when the system clock may be stepped", choices=("start", "always", "never"))
    panic_s: float = key(1000.0, "seconds", low=1, high=1e9)
    holdover_limit_s: float = key(86400.0, "seconds", low=0, high=31_536_000)
    max_bound_ms: float = key(1000.0, "milliseconds", low=0.001, high=16_000)
    temperature: str = key("auto", '"auto", "off" or a thermometer\'s file', check=thermometer)
    cpu_latency_us: int | None = key(None, "longest wake-up latency of a processor in microseconds; not set: no limit", low=0, high=10_000)
    not_before: date = key(date.fromisoformat(BUILD_DATE), "a date like 2026-11-21, without quotes")  # noqa: RUF009 (key() makes a field)
    upstreams: str = key("witness", "what [[upstream]] servers do", choices=("off", "witness", "fallback", "only"))


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The NTP server.

    ``threads`` None: one per core, at most 4. ``interface``: the only interface served; "": all. ``client_table_mib``: memory for the table
    of clients. ``symmetric``: answer symmetric active requests (mode 1), in mode 2 and without an association. ``dscp``: of replies (RFC
    2474); None: that of the request. ``leap_smear``: spread a leap second over 24 h instead of announcing it. ``smear_public``: confirms a
    smear although clients may also ask servers that do not smear. ``broadcast``: addresses to which the time is sent every
    2**``broadcast_poll`` s, authenticated with key ``broadcast_key``."""

    enabled: bool = key(True, "true or false")
    listen: tuple[str, ...] = key(("0.0.0.0:123", "[::]:123"), 'a list like ["0.0.0.0:123", "[::]:123"]', check=_endpoint)
    threads: int | None = key(None, "a whole number", low=1, high=64)
    interface: str = key("", 'a network interface such as "eth0", or "" for all', empty=True, check=_interface)
    client_table_mib: int = key(16, "mebibytes", low=1, high=4096)
    symmetric: bool = key(True, "true or false")
    dscp: int | None = key(None, "the DSCP of replies; not set: that of the request", low=0, high=63)
    leap_smear: bool = key(False, "true or false")
    smear_public: bool = key(False, "true or false")
    broadcast: tuple[str, ...] = key((), 'a list like ["192.168.1.255:123"]', check=_endpoint)
    broadcast_key: int = key(0, "the number of a key, 0 for none", low=0, high=2**32 - 1)
    broadcast_poll: int = key(6, "log2 of seconds", low=3, high=17)


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """Who may ask. The longest prefix decides; an address without one is denied. The word "own": private networks, and those that the
    interfaces are in. ``authenticated``: answered only with a valid key. ``ignore``: never answered. ``denied``: the reply to denied
    clients: a rate-limited KoD DENY, or none."""

    allow: tuple[str, ...] = key((OWN,), 'a list like ["own", "2001:db8::/32"]', check=access_complaint)
    authenticated: tuple[str, ...] = key((), 'a list like ["203.0.113.0/24"]', check=access_complaint)
    deny: tuple[str, ...] = key((), 'a list like ["192.168.9.0/24"]', check=access_complaint)
    ignore: tuple[str, ...] = key((), 'a list like ["192.168.9.7"]', check=access_complaint)
    denied: str = key("kod", "the reply to denied clients", choices=("kod", "silence"))

    def rules(self, own: Iterable[tuple[str, str]] = ()) -> AccessList:
        """The rules of this table, ready to decide. ``own``: (prefix, interface) of the networks that the interfaces are in."""
        return AccessList.of({action: getattr(self, action) for action in ("allow", "authenticated", "deny", "ignore")}, own)


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """How much one client may ask.

    ``rate``: sustained requests/s; 0: no limit. ``burst``: requests at once. ``leak``: of the requests above the limit, one in ``leak`` is
    answered; 0: none. A client whose address a flood forges is thus still served. ``kod_rate``: kiss-o'-death packets/s to all clients.
    ``cpu_limit``: share of a core per thread above which unknown clients are dropped before known ones."""

    rate: float = key(8.0, "requests a second", low=0, high=1e9)
    burst: int = key(32, "requests", low=1, high=1_000_000_000)
    leak: int = key(16, "one in this many requests", low=0, high=1_000_000)
    kod_rate: float = key(4.0, "a second", low=0, high=1e6)
    cpu_limit: float = key(1.0, "a share", low=0.01, high=1)


@dataclass(frozen=True, slots=True)
class KeysConfig:
    """Symmetric keys, in the format of chrony or ntp. ``weak``: accept the types MD5 and SHA1."""

    file: str = key("", 'an absolute path, or "" for no keys', empty=True, check=absolute_path)
    weak: bool = key(False, "true or false")


@dataclass(frozen=True, slots=True)
class NtsConfig:
    """Network time security (RFC 8915): key establishment, and requests that it authenticates.

    ``listen``: where keys are established, over TLS. ``certificate``, ``key``: PEM files; neither: the box's own authority makes them, for
    ``names``, by default the names and addresses of this machine. ``secret``: the file that a fleet shares, so that each of its boxes takes
    the cookies of the others; "": one of this box's own. ``server``, ``port``: where clients are sent with their cookies; not set: to where
    they came, port 123."""

    enabled: bool = key(False, "true or false")
    listen: tuple[str, ...] = key(("0.0.0.0:4460", "[::]:4460"), 'a list like ["0.0.0.0:4460", "[::]:4460"]', check=_endpoint)
    certificate: str = key("", 'an absolute path, or "" for the box\'s own', empty=True, check=absolute_path)
    names: tuple[str, ...] = key((), 'a list like ["time.example.net", "192.0.2.7"]', check=_host)
    secret: str = key("", 'an absolute path, or "" for this box\'s own', empty=True, check=absolute_path)
    server: str = key("", 'a name or an address, or ""', empty=True, check=_host)
    port: int | None = key(None, "a port; not set: 123", low=1, high=65535)
    key: str = key("", 'an absolute path, or "" for the box\'s own', empty=True, check=absolute_path)


@dataclass(frozen=True, slots=True)
class ChronycConfig:
    """Where chronyc and other monitors of chronyd are answered, by its command protocol. They can change nothing. ``listen``: addresses; a
    port that another program holds is left to it. ``socket``: a unix socket as well. ``allow``: networks that are answered besides this
    machine itself."""

    listen: tuple[str, ...] = key(("127.0.0.1:323", "[::1]:323"), 'a list like ["127.0.0.1:323"], or [] for none', check=_endpoint)
    socket: str = key("", 'an absolute path, or "" for none', empty=True, check=socket_path)
    allow: tuple[str, ...] = key((), 'a list like ["192.168.1.0/24"]', check=prefix_complaint)

    def hears(self) -> AccessList:
        """Who is answered."""
        return AccessList(Rule(prefix, "allow", "chronyc.allow") for prefix in (*LOOPBACK, *self.allow))


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Where Prometheus and its kind are answered over HTTP. ``listen``: addresses; everybody who reaches one is answered, so others than
    this machine need a firewall. A port that another program holds is left to it."""

    listen: tuple[str, ...] = key(("127.0.0.1:9124", "[::1]:9124"), 'a list like ["127.0.0.1:9124"], or [] for none', check=_endpoint)


@dataclass(frozen=True, slots=True)
class HistoryConfig:
    """What was measured, for ``refclock history``: an hour by the second in memory, minutes and hours in ``run.state``. ``size_mib``: the
    file's largest size; the oldest minutes make room."""

    enabled: bool = key(True, "true or false")
    size_mib: int = key(64, "mebibytes", low=1, high=4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyUpstream:
    """Keys of every ``[[upstream]]``: NTP servers that this machine asks for the time. ``host``: its name or address. ``key``: number of a
    key in ``keys.file``. ``minpoll``, ``maxpoll``: log2 s between two requests. ``iburst``: four requests in a row at the beginning;
    ``burst``: each time. ``offset_us``: what is added to its time, for a known asymmetry of the path. ``prefer``, ``trust``, ``noselect``:
    as of a source, among the upstreams. What upstreams may do: ``clock.upstreams``. ``family``: the kind of addresses that its name may
    stand for. ``maxdistance_ms``, ``maxdelay_ms``, ``maxdelayratio``, ``maxdelaydevratio``, ``minstratum``: which answers are used, as
    chrony.conf(5) defines them; see ``ppsd.ntp.association``. ``xleave``: interleaved mode (RFC 9769), where the server has it: an answer
    tells the exact departure of the one before.

    ``nts``: its answers are authenticated by network time security (RFC 8915); its keys come from ``nts_port``, and its certificate must be
    for ``host``. ``ca``: a PEM file of the authorities that are believed for it, in place of the system's. ``unchecked_dates``: how many
    times a certificate is accepted that is wrong in its dates alone, while this machine does not know the time; each time lets in whoever
    holds the key of an old certificate."""

    kind: ClassVar[str] = ""
    name: str = key("", "a unique name; default: made from the type", empty=True, check=plain_name)
    host: str = key(MISSING, "a host name or address", check=_host)
    port: int = key(123, "a UDP port", low=1, high=65535)
    version: int = key(4, "the version of NTP", choices=(3, 4))
    minpoll: int = key(6, "log2 of seconds", low=0, high=17)
    maxpoll: int = key(10, "log2 of seconds", low=0, high=17)
    iburst: bool = key(True, "true or false")
    burst: bool = key(False, "true or false")
    offset_us: float = key(0.0, "microseconds", low=-1e9, high=1e9)
    prefer: bool = key(False, "true or false")
    trust: bool = key(False, "true or false")
    noselect: bool = key(False, "true or false")
    nts: bool = key(False, "true or false")
    nts_port: int = key(4460, "a TCP port", low=1, high=65535)
    ca: str = key("", 'an absolute path, or "" for the system\'s authorities', empty=True, check=absolute_path)
    unchecked_dates: int = key(0, "a number of times, 0 for never", low=0, high=16)
    family: str = key("any", "the kind of addresses", choices=("any", "ipv4", "ipv6"))
    maxdistance_ms: float = key(3000.0, "milliseconds", low=0.001, high=16_000)
    maxdelay_ms: float = key(3000.0, "milliseconds", low=0.001, high=16_000)
    maxdelayratio: float = key(0.0, "a factor of 1 or more, 0 for no limit", low=0, high=1e6)
    maxdelaydevratio: float = key(0.0, "a factor, 0 for no limit", low=0, high=1e6)
    minstratum: int = key(0, "a stratum", low=0, high=15)
    xleave: bool = key(False, "true or false")
    key: int = key(0, "the number of a key, 0 for none", low=0, high=2**32 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUpstream(AnyUpstream):
    """One server. Of a name with several addresses one is asked at a time."""

    kind: ClassVar[str] = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUpstream(AnyUpstream):
    """A name with many servers, such as pool.ntp.org. ``most``: how many of them are asked; one that does not answer is replaced."""

    kind: ClassVar[str] = "pool"
    most: int = key(4, "servers", low=1, high=16)


Upstream = ServerUpstream | PoolUpstream
UPSTREAMS: Mapping[str, type[Upstream]] = {c.kind: c for c in (ServerUpstream, PoolUpstream)}


SERVER_USER: Final = "refclock"
"""A user's name; who serves the network, when root starts the daemon and nothing else is configured."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Directories and users. ``directory``: control sockets and the timescale record. ``state``: files that survive a reboot. ``user``: who
    serves the network when the daemon is started by root; without a user of the default name, a number that nobody has. ``group``: who,
    besides the daemon's user and root, may ask the daemon about its state (refclock status, clients, nmea ...)."""

    directory: str = key("/run/refclock", "an absolute path", check=run_directory)
    state: str = key("/var/lib/refclock", "an absolute path", check=absolute_path)
    user: str = key(SERVER_USER, "a user's name or number", check=login)
    group: str = key("", 'a group of this machine, or "" for none', empty=True, check=_group)


@dataclass(frozen=True, slots=True)
class LeapConfig:
    """The table of leap seconds (IERS format; tzdata ships it)."""

    file: str = key("/usr/share/zoneinfo/leap-seconds.list", "an absolute path", check=absolute_path)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log goes to standard error."""

    format: str = key("text", "the form of a line", choices=("text", "json"))
    level: str = key("info", "the least important level shown", choices=("debug", "info", "warning", "error"))


SIMULATED: Final = (
    *("ublox8", "ublox8-nmea", "ublox9", "ublox8-timing", "timing", "watched"),
    *("casic", "nmea", "minimal", "slow", "mtk"),
)
"""Receivers that the simulator can play."""


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """The simulation of ``run --sim``. ``pulse``: whether the receiver has a pulse output. ``offset_s``: true time minus this machine's
    clock at the start."""

    receiver: str = key("ublox8", "the simulated receiver", choices=SIMULATED)
    baud: int = key(9600, "the simulated line's speed", low=4800, high=921600)
    pulse: bool = key(True, "true or false")
    offset_s: float = key(0.0, "seconds", low=-1e9, high=1e9)
    seed: int = key(1, "a whole number", low=0, high=2**63 - 1)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. ``file``: the path that it was read from, "" for the defaults; comparisons ignore it."""

    clock: ClockConfig = field(default_factory=ClockConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    keys: KeysConfig = field(default_factory=KeysConfig)
    nts: NtsConfig = field(default_factory=NtsConfig)
    chronyc: ChronycConfig = field(default_factory=ChronycConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    run: RunConfig = field(default_factory=RunConfig)
    leap: LeapConfig = field(default_factory=LeapConfig)
    log: LogConfig = field(default_factory=LogConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    sources: tuple[Source, ...] = ()
    feeds: tuple[Feed, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    file: str = field(default="", compare=False)

    @property
    def asked(self) -> tuple[Upstream, ...]:
        """The upstreams that are asked."""
        return () if self.clock.upstreams == "off" else self.upstreams

    @property
    def upstreams_alone(self) -> bool:
        """Whether no receiver is wanted."""
        return self.clock.upstreams == "only"

    @property
    def heard(self) -> tuple[Source, ...]:
        """The sources that are read: without a configured one, a receiver is looked for, if any is wanted."""
        return self.sources or (() if self.upstreams_alone else (DEFAULT_SOURCE,))

    @property
    def establishes_keys(self) -> bool:
        """Whether keys of NTS are given to clients, or got from upstreams."""
        return self.nts.enabled or any(upstream.nts for upstream in self.asked)


TABLES: Mapping[str, type[Any]] = {
    "clock": ClockConfig,
    "server": ServerConfig,
    "access": AccessConfig,
    "limits": LimitsConfig,
    "keys": KeysConfig,
    "nts": NtsConfig,
    "chronyc": ChronycConfig,
    "metrics": MetricsConfig,
    "history": HistoryConfig,
    "run": RunConfig,
    "leap": LeapConfig,
    "log": LogConfig,
    "simulation": SimulationConfig,
}


# ---- what differs between two configurations ------------------------------------------------------------------------------------------

AT_START = ("run", "simulation")
"""Tables that take effect when refclock is started: directories that are in use, and the receiver that is simulated."""


def changed(old: Config, new: Config) -> tuple[str, ...]:
    """The names of what differs: "clock.steer", "source gps0", "feed shm0", "upstream ntp0"."""
    items = (("source", old.sources, new.sources), ("feed", old.feeds, new.feeds), ("upstream", old.upstreams, new.upstreams))
    return (*_keys(old, new), *(name for what, before, after in items for name in _items(what, before, after)))


def _keys(old: Config, new: Config) -> Iterator[str]:
    for table in TABLES:
        before, after = getattr(old, table), getattr(new, table)
        yield from (f"{table}.{spec.name}" for spec in fields(before) if getattr(before, spec.name) != getattr(after, spec.name))


def _items(what: str, old: Sequence[Source | Feed | Upstream], new: Sequence[Source | Feed | Upstream]) -> Iterator[str]:
    before, after = {item.name: item for item in old}, {item.name: item for item in new}
    yield from (f"{what} {name}" for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name))


def waiting(old: Config, new: Config) -> tuple[str, ...]:
    """The names of the changed keys that take effect at the next start."""
    return tuple(name for name in _keys(old, new) if name.partition(".")[0] in AT_START)


def without_waiting(old: Config, new: Config) -> Config:
    """``new`` as far as it can take effect without a new start."""
    return replace(new, **{table: getattr(old, table) for table in AT_START})
