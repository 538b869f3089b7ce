"""Configuration of sources and feeds: a frozen dataclass for each table, with a rule for each key (``schema.key``).

Flow: TOML text -> ``ppsd.config`` (syntax, lines, cross checks) -> ``schema.read_table`` -> **config** -> the clock process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import ClassVar, Final

from refclock.schema import key

ANTENNA_RADIUS_M: Final = (6_340_000.0, 6_400_000.0)
"""m; distances from the Earth's centre at which an antenna may stand: WGS 84's poles (6 356 752 m) less 16 km, its equator plus 22 km."""
HEIGHT_M: Final = (-1000.0, 20_000.0)
"""m above the ellipsoid at which an antenna may stand: from below the Dead Sea's shore (-430 m) to above all aircraft."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where the antenna stands: ``ecef`` x, y, z in m, or else latitude and longitude in degrees, height above the ellipsoid in m."""

    ecef: bool
    at: tuple[float, float, float]


def position(text: str) -> Position | None:
    """ "47.28512 8.56531 408.3" (latitude, longitude, height above the ellipsoid) or "ecef 4278000.1 645000.2 4672000.3"; else None."""
    words = re.split(r"[\s,]+", text.strip().lower())
    ecef = words[0] == "ecef"
    try:
        numbers = [float(word) for word in words[ecef:]]
    except ValueError:
        return None
    if len(numbers) != 3 or not all(math.isfinite(n) for n in numbers):
        return None
    x, y, z = numbers
    if ecef:
        possible = ANTENNA_RADIUS_M[0] <= math.hypot(x, y, z) <= ANTENNA_RADIUS_M[1]
    else:
        possible = abs(x) <= 90 and abs(y) <= 180 and HEIGHT_M[0] <= z <= HEIGHT_M[1]
    return Position(ecef, (x, y, z)) if possible else None


SOCKET_PATH_BYTES = 107
"""Bytes of the longest AF_UNIX path: sun_path[108] with its NUL (unix(7))."""
BAUDS = (4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)
"""Baud: speeds that receivers are shipped with (receivers' manuals)."""
BITS_PER_BYTE: Final = 10
"""Bits that a byte takes on the line, 8N1: start, 8 data, stop."""


def plain_name(text: str) -> str | None:
    """Complaint about a name of a source or feed (27 = the width of chronyc's column)."""
    return None if re.fullmatch(r"[A-Za-z0-9_-]{1,27}", text) else "is not a name; allowed: 1 to 27 letters, digits, - and _"


def login(text: str) -> str | None:
    """Complaint about what is neither the name of a user (useradd(8)) nor a number."""
    return None if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,9}", text) else "is no user; allowed: a user's name or number"


def absolute_path(text: str) -> str | None:
    """Complaint about a relative path: its meaning would depend on the working directory."""
    return None if text.startswith("/") else "must be an absolute path (begin with /)"


AUTO = "auto"
"""The program finds the device or pulse itself."""


def path_or_auto(text: str) -> str | None:
    """Complaint about a text that is neither an absolute path nor "auto"."""
    return None if text == AUTO else absolute_path(text)


def thermometer(text: str) -> str | None:
    """Complaint about a text that is neither an absolute path nor "auto" nor "off"."""
    return None if text in ("auto", "off") or text.startswith("/") else 'must be "auto", "off" or an absolute path (begin with /)'


def socket_path(text: str) -> str | None:
    """Complaint about a path that cannot name a unix socket."""
    if len(text.encode("utf-8", "replace")) > SOCKET_PATH_BYTES:
        return f"longer than the {SOCKET_PATH_BYTES} bytes a unix socket's name may have"
    return absolute_path(text)


PLACES = 'a place: "47.28512 8.56531 408.3" (degrees, metres above the ellipsoid) or "ecef 4278000.1 645000.2 4672000.3" (metres)'


def known_place(text: str) -> str | None:
    """Complaint about a text that names no place at which an antenna can stand."""
    return None if position(text) else f"is no place at which an antenna can stand; {PLACES}"


def run_directory(text: str) -> str | None:
    """Complaint about a directory that cannot hold unix sockets."""
    longest = SOCKET_PATH_BYTES - len("/clock.sock")
    return f"longer than {longest} bytes (it holds unix sockets)" if len(text.encode()) > longest else absolute_path(text)


# ---- the tables -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AnySource:
    """Keys of every ``[[source]]``. ``prefer``: it is selected first among agreeing sources. ``trust``: while any trusted source gives
    time, only trusted sources decide which time is true. ``noselect``: it is measured and shown, never used."""

    kind: ClassVar[str] = ""
    name: str = key("", "a unique name; default: made from the type", empty=True, check=plain_name)
    prefer: bool = key(False, "true or false")
    trust: bool = key(False, "true or false")
    noselect: bool = key(False, "true or false")


HOLDOVER_PPB: Final = 500.0
"""ppb; frequency error of a receiver's oscillator without a fix, when none is stated: that of the TCXOs which receivers are built with,
over their range of temperature (0.5 ppm: their makers' data sheets). An oven-controlled one keeps 1 to 10 ppb."""
DAYS_S: Final = 604_800
"""s; the longest time that pulses may be believed without a fix: a week, in which an oscillator of 1 ppb gains 0.6 ms."""
PULSE_WIDTH_MS: Final = 100
"""ms; width of the pulse that receivers are set to, when none is stated: the default of u-blox and MediaTek receivers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PulsedSource(AnySource):
    """Keys of sources that may have a pulse.

    ``pps_over_usb``: whether the pulse's line is polled over USB. None: unknown; the bound allows for a USB frame when the stamps look
    polled. ``pps_bias_us``: the most by which an edge may be stamped late, part of the bound; None: the figure for the way of stamping
    (``devices.pps.Stamping``). ``refclock calibrate pps`` measures it. ``pulse_width_ms``: how long the pulse is; None: shorter than half
    its period. A longer one must be stated, or its trailing edge would be taken. A receiver that can be set up is set to it.
    """

    pps: str = key("", 'a device like "/dev/pps0" or a line like "/dev/ttyS0:dcd"; "" for none', empty=True, check=absolute_path)
    edge: str = key("auto", "which edge marks the second", choices=("auto", "assert", "clear"))
    pps_over_usb: bool | None = key(None, "true or false; not set: told by the pulse's driver")
    pps_bias_us: float | None = key(None, "microseconds; not set: by how the pulse is stamped", low=0, high=10_000)
    pulse_width_ms: int | None = key(None, "milliseconds, shorter than the second between two pulses", low=1, high=999)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSource(PulsedSource):
    """Keys of sources that name seconds, and may have a pulse.

    ``message_delay_ms``: from the second to the first byte of the message that names it; None: learned. ``pulse_without_fix_s``: how long
    pulses are believed after the last valid second. ``holdover_ppb``: the frequency error of the receiver's oscillator during that time,
    by which the bound grows; None: HOLDOVER_PPB where pulses are believed for longer than by default.
    """

    message_delay_ms: float | None = key(None, "milliseconds", low=-1000, high=1500)
    message_delay_uncertainty_ms: float | None = key(None, "milliseconds", low=0.001, high=1000)
    pulse_without_fix_s: float = key(10.0, "seconds", low=1, high=DAYS_S)
    holdover_ppb: float | None = key(None, "parts in 1e9; not set: those of a TCXO", low=0, high=100_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverSource(LabelledSource):
    """A receiver on a serial line.

    ``device`` "auto": the first free line on which a receiver is found. ``pps`` "auto": the pulse of that line, else the first that belongs
    to no other source. ``baud`` 0: find it. ``configure``: set the receiver up and keep it configured (``receiver.configurator``) by the
    keys that follow. ``cable_delay_ns``: delay of the signal in the antenna's cable, and so of the pulse (5 ns a metre). It is subtracted
    here when the receiver cannot do it. ``survey_in``, ``fixed_position``: for timing receivers.
    """

    kind: ClassVar[str] = "receiver"
    device: str = key(AUTO, 'the serial device, such as "/dev/ttyAMA0", or "auto"', check=path_or_auto)
    baud: int = key(0, "the line's speed, 0 to find it", choices=(0, *BAUDS))
    configure: bool = key(True, "true or false")
    cable_delay_ns: int | None = key(None, "nanoseconds", low=-32_768, high=32_767)
    stationary: bool = key(True, "true or false")
    survey_in: bool | None = key(None, "true or false; not set: of receivers that are named as made for timing")
    survey_in_s: int = key(3600, "seconds", low=60, high=864_000)
    fixed_position: str = key("", PLACES, empty=True, check=known_place)
    position_accuracy_m: float = key(10.0, "metres", low=0.01, high=1000)
    time_base: str = key("utc", "whose second the pulse marks", choices=("utc", "gnss"))
    keep_nmea: bool = key(False, "true or false")
    save: bool = key(False, "true or false")
    pps: str = key(AUTO, 'a device like "/dev/pps0", a line like "/dev/ttyS0:dcd", "auto", or "" for none', empty=True, check=path_or_auto)


DEFAULT_SOURCE: Final = ReceiverSource(name="gps0")
"""The source when none is configured: one receiver on any port, and its pulse. A ``[[source]]`` with nothing but its type is the same."""


LOCAL_HOSTS: Final = ("localhost", "::1")
"""Names of this host, besides 127.0.0.0/8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpsdSource(LabelledSource):
    """gpsd's JSON stream. ``device``: only that one of gpsd's receivers ("" = any)."""

    kind: ClassVar[str] = "gpsd"
    host: str = key("127.0.0.1", "a host name or address")
    port: int = key(2947, "a TCP port", low=1, high=65535)
    device: str = key("", "one of gpsd's devices, or empty for any", empty=True)

    @property
    def local(self) -> bool:
        """Whether that gpsd runs on this host: it stamps with our own clock, and other programs' samples may be its copies."""
        return self.host in LOCAL_HOSTS or self.host.startswith("127.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PpsSource(PulsedSource):
    """A pulse without a receiver's line. It names no second: the served time of another source does, or a system clock that another program
    keeps. ``cable_delay_ns``: as of a receiver, subtracted here."""

    kind: ClassVar[str] = "pps"
    pps: str = key(MISSING, 'a device like "/dev/pps0" or a line like "/dev/ttyS0:dcd"', check=absolute_path)
    cable_delay_ns: int | None = key(None, "nanoseconds", low=-32_768, high=32_767)


UNSTATED_BIAS_US = 600_000.0
"""us; allowance for another program's samples while the user states none. Such samples may be arrival times of messages, 60 to 500 ms late,
and nothing in a sample shows it (gpsd 3.22 states 1 us for samples 165 ms late: tests/peers/test_gpsd_feeds.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShmSource(AnySource):
    """An NTP shared memory segment that another program writes (gpsd, ntpshm). ``bias_us``: allowance that goes into the bound. ``owner``:
    the user, by name or number, to whom the segment may belong; it always may belong to root or to the daemon's own user. ``shared``: the
    samples are left there, for chronyd or ntpd takes them; a segment has one reader only."""

    kind: ClassVar[str] = "shm"
    unit: int = key(MISSING, "the segment's number", low=0, high=255)
    owner: str = key("", "the user whose program makes it; empty: root, or this daemon's own", empty=True, check=login)
    shared: bool = key(False, "true or false")
    bias_us: float = key(UNSTATED_BIAS_US, "microseconds", low=0, high=1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class SockSource(AnySource):
    """A datagram socket to which other programs send chrony SOCK samples. ``bias_us``: allowance that goes into the bound."""

    kind: ClassVar[str] = "sock"
    path: str = key(MISSING, "where to make the socket", check=socket_path)
    bias_us: float = key(UNSTATED_BIAS_US, "microseconds", low=0, high=1_000_000)


PULSED_PROMISE_US: Final = 1000.0
"""us; the bound that is promised of pulses when none is stated. It holds however they are stamped: on a USB line it is 0.7 ms."""
MESSAGES_PROMISE_US: Final = 1_000_000.0
"""us; the same without pulses: messages and unstated samples of other programs are good to 0.6 s, and take a while to be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyFeed:
    """Keys of every ``[[feed]]``. ``max_bound_us``: samples go out only while the error bound is below it. The line that ``refclock feed``
    prints tells the other program to allow for it; None: see ``promise_us``."""

    name: str = key("", "a unique name; default: made from the type", empty=True, check=plain_name)
    max_bound_us: float | None = key(None, "microseconds; not set: 1000, without pulses 1 s", low=1, high=MESSAGES_PROMISE_US)


@dataclass(frozen=True, slots=True, kw_only=True)
class SockFeed(AnyFeed):
    """Samples for chronyd, which makes the socket at ``path`` (chrony.conf: ``refclock SOCK path``)."""

    kind: ClassVar[str] = "sock"
    path: str = key(MISSING, "the socket that chronyd makes", check=socket_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShmFeed(AnyFeed):
    """Samples for ntpd or chronyd in NTP shared memory segment ``unit`` (units 0 and 1: root only)."""

    kind: ClassVar[str] = "shm"
    unit: int = key(MISSING, "the segment's number", low=0, high=255)


Source = ReceiverSource | GpsdSource | PpsSource | ShmSource | SockSource
Feed = SockFeed | ShmFeed


def promise_us(feed: Feed, sources: Sequence[Source]) -> float:
    """The error bound (us) that the fed program is promised. Without a stated one it is that of the kind of ``sources``, any of which may
    be served. No sources: a receiver is looked for, with its pulse."""
    if feed.max_bound_us is not None:
        return feed.max_bound_us
    pulsed = all(isinstance(source, PulsedSource) and source.pps for source in sources if not source.noselect)
    return PULSED_PROMISE_US if pulsed else MESSAGES_PROMISE_US


SOURCES: Mapping[str, type[Source]] = {c.kind: c for c in (ReceiverSource, GpsdSource, PpsSource, ShmSource, SockSource)}
FEEDS: Mapping[str, type[Feed]] = {c.kind: c for c in (SockFeed, ShmFeed)}
