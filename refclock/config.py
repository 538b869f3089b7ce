"""Configured sources and feeds, and the rules that every table of the file is read by.

A table is a frozen dataclass; what each key accepts stands in its field's metadata as a ``Rule``, so the reader (``read_table``), the
error text and the printed configuration come from one statement. Reading never stops at the first error: problems are collected with
their lines, and a value that was refused is replaced by the default so that the rest can still be judged.

Flow: TOML text -> ``ppsd.config`` (syntax, lines, cross checks) -> ``read_table`` here -> frozen structs -> the clock process.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import date, datetime
from typing import Any, ClassVar, TypeVar, get_type_hints

T = TypeVar("T")
Key = tuple[str | int, ...]
"""Where a value stands: ("server", "threads"), ("source", 0, "baud")."""

SOCKET_PATH_BYTES = 107
"""Longest AF_UNIX path: sun_path[108] with its NUL (unix(7))."""
TEXT_LENGTH = 4096
"""Longest text value: PATH_MAX of linux/limits.h."""
BAUDS = (4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)
"""Speeds that receivers are shipped with (receivers' manuals; 0 = look for it)."""
DATE_YEARS = (1980, 2200)
"""From the first GPS week (1980-01-06) to well before 2**63 ns after 1970 (year 2262)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration. ``line`` counts from 1; 0 when it concerns the whole file. ``key`` as the user writes it."""

    file: str
    line: int
    key: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.what}" if self.key else f"{place}: {self.what}"


class ConfigError(ValueError):
    """A configuration that cannot be used; ``problems`` has everything that is wrong with it, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Rule:
    """What a key accepts: one of ``choices``, a number in [low, high], or what ``check`` (value -> complaint or None) lets through."""

    what: str
    choices: tuple[str | int, ...] = ()
    low: float | None = None
    high: float | None = None
    empty: bool = False
    check: Callable[[str], str | None] | None = None

    def allowed(self) -> str:
        """The accepted values in words."""
        if self.choices:
            return "allowed: " + ", ".join(_shown(c) for c in self.choices)
        if self.low is not None and self.high is not None:
            return f"allowed: {self.low:.10g} to {self.high:.10g}"
        return self.what


def key(default: Any, what: str, **rule: Any) -> Any:
    """A dataclass field with its Rule; ``default=MISSING`` makes the key required."""
    return field(default=default, metadata={"rule": Rule(what, **rule)})


def plain_name(text: str) -> str | None:
    """Complaint about a name of a source or feed (27 = the width of chronyc's column)."""
    return None if re.fullmatch(r"[A-Za-z0-9_-]{1,27}", text) else "is not a name; allowed: 1 to 27 letters, digits, - and _"


def absolute_path(text: str) -> str | None:
    """Complaint about a file name that depends on where the program was started."""
    return None if text.startswith("/") else "must be an absolute path (begin with /)"


AUTO = "auto"
"""A device or pulse that is to be found."""


def path_or_auto(text: str) -> str | None:
    """Complaint about what is neither a path nor left to be found."""
    return None if text == AUTO else absolute_path(text)


def socket_path(text: str) -> str | None:
    """Complaint about a path that cannot name a unix socket."""
    if len(text.encode("utf-8", "replace")) > SOCKET_PATH_BYTES:
        return f"longer than the {SOCKET_PATH_BYTES} bytes a unix socket's name may have"
    return absolute_path(text)


# ---- the tables -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AnySource:
    """What every ``[[source]]`` has. ``prefer``: wins among agreeing sources. ``trust``: only trusted sources decide which time is true, as
    long as one of them has one. ``noselect``: measured and shown, never used."""

    kind: ClassVar[str] = ""
    name: str = key("", "a unique name; default: made from the type", empty=True, check=plain_name)
    prefer: bool = key(False, "true or false")
    trust: bool = key(False, "true or false")
    noselect: bool = key(False, "true or false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse(AnySource):
    """Sources whose seconds may be marked by a pulse.

    ``pps_over_usb``: whether the pulse's line is polled by USB frames; while that is not known and the stamps look like it, the
    bound allows for a frame. ``pps_bias_us`` is how late the edge may be stamped: an allowance that goes into the bound; None = by how it
    is stamped (``refclock.control_line``). ``refclock calibrate pps`` measures it. ``message_delay_ms``: when the message's first
    byte arrives after the second it names; None = learned. ``pulse_without_fix_s``: how long pulses are believed after the last valid
    second.
    """

    pps: str = key("", 'a device like "/dev/pps0" or a line like "/dev/ttyS0:dcd"; "" for none', empty=True, check=absolute_path)
    edge: str = key("auto", "which edge marks the second", choices=("auto", "assert", "clear"))
    pps_over_usb: bool | None = key(None, "true or false; not set: told by the pulse's driver")
    pps_bias_us: float | None = key(None, "microseconds; not set: by how the pulse is stamped", low=0, high=10_000)
    message_delay_ms: float | None = key(None, "milliseconds", low=-100, high=2000)
    message_delay_uncertainty_ms: float | None = key(None, "milliseconds", low=0.001, high=1000)
    pulse_without_fix_s: float = key(10.0, "seconds", low=1, high=3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverSource(Pulse):
    """A receiver on a serial line. ``device`` "auto": the free one that it is found on; ``pps`` "auto": the pulse of that line's own, else
    the first that is nobody's. ``baud`` 0: find it. ``configure``: set it up, until it loses its power (``refclock.upkeep``)."""

    kind: ClassVar[str] = "receiver"
    device: str = key(AUTO, 'the serial device, such as "/dev/ttyAMA0", or "auto"', check=path_or_auto)
    baud: int = key(0, "the line's speed, 0 to find it", choices=(0, *BAUDS))
    configure: bool = key(True, "true or false")
    pps: str = key(AUTO, 'a device like "/dev/pps0", a line like "/dev/ttyS0:dcd", "auto", or "" for none', empty=True, check=path_or_auto)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpsdSource(Pulse):
    """gpsd's JSON stream. ``device``: only that one of gpsd's receivers ("" = any)."""

    kind: ClassVar[str] = "gpsd"
    host: str = key("127.0.0.1", "a host name or address")
    port: int = key(2947, "a TCP port", low=1, high=65535)
    device: str = key("", "one of gpsd's devices, or empty for any", empty=True)


UNSTATED_BIAS_US = 600_000.0
"""Allowance for another program's samples while the user has not said better: they may be the arrival of a receiver's messages, 60 to
500 ms late, and nothing in a sample tells (gpsd 3.22 states 1 µs for samples 165 ms late: tests/integration/test_gpsd_feeds.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShmSource(AnySource):
    """An NTP shared memory segment that another program writes (gpsd, ntpshm). ``bias_us``: allowance that goes into the bound."""

    kind: ClassVar[str] = "shm"
    unit: int = key(MISSING, "the segment's number", low=0, high=255)
    bias_us: float = key(UNSTATED_BIAS_US, "microseconds", low=0, high=1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class SockSource(AnySource):
    """A datagram socket that other programs send chrony SOCK samples to. ``bias_us``: allowance that goes into the bound."""

    kind: ClassVar[str] = "sock"
    path: str = key(MISSING, "where to make the socket", check=socket_path)
    bias_us: float = key(UNSTATED_BIAS_US, "microseconds", low=0, high=1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class SockFeed:
    """Samples for chronyd, which makes the socket at ``path`` (``refclock SOCK path``)."""

    kind: ClassVar[str] = "sock"
    path: str = key(MISSING, "the socket that chronyd makes", check=socket_path)
    name: str = key("", "a unique name; default: made from the type", empty=True, check=plain_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShmFeed:
    """Samples for ntpd or chronyd in NTP shared memory segment ``unit`` (units 0 and 1: root only)."""

    kind: ClassVar[str] = "shm"
    unit: int = key(MISSING, "the segment's number", low=0, high=255)
    name: str = key("", "a unique name; default: made from the type", empty=True, check=plain_name)


Source = ReceiverSource | GpsdSource | ShmSource | SockSource
Feed = SockFeed | ShmFeed
SOURCES: Mapping[str, type[Source]] = {c.kind: c for c in (ReceiverSource, GpsdSource, ShmSource, SockSource)}
FEEDS: Mapping[str, type[Feed]] = {c.kind: c for c in (SockFeed, ShmFeed)}

# ---- reading ----------------------------------------------------------------------------------------------------------------------


def _shown(value: object) -> str:
    """A value as TOML writes it, cut to a readable length (Python refuses to print integers of thousands of digits)."""
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return "a huge number"
    text = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:56] + " ..."


def suggestion(word: str, known: list[str]) -> str:
    """'; did you mean X?' when some known word is near (difflib ratio 0.6), else ''."""
    near = difflib.get_close_matches(word[:64].lower(), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _text_complaint(value: str, rule: Rule) -> str | None:
    if not value and not rule.empty:
        return f"must not be empty; {rule.what}"
    if len(value) > TEXT_LENGTH:
        return f"longer than {TEXT_LENGTH} characters"
    if not value.isprintable():
        return "contains a control character"
    if value and rule.check is not None:
        complaint = rule.check(value)
        return f"{_shown(value)} {complaint}" if complaint else None
    return None


def _number_complaint(value: int | float, rule: Rule) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a usable number; {rule.allowed()}"
    if (rule.low is not None and value < rule.low) or (rule.high is not None and value > rule.high):
        return f"{_shown(value)} is out of range; {rule.allowed()}"
    return None


def _convert(kind: object, value: object, rule: Rule) -> tuple[Any, str | None]:
    """(value of the declared type, None) or (None, complaint)."""
    name, complaint, result = "", None, value
    if kind in (bool, bool | None):
        name = "" if isinstance(value, bool) else "true or false"
    elif kind in (int, int | None):
        name = "a whole number" if isinstance(value, bool) or not isinstance(value, int) else ""
        complaint = None if name else _number_complaint(value, rule)  # type: ignore[arg-type]
    elif kind in (float, float | None):
        if isinstance(value, bool) or not isinstance(value, int | float):
            name = "a number"
        else:
            complaint = _number_complaint(value, rule)
            result = None if complaint else float(value)
    elif kind is date:
        if not isinstance(value, date) or isinstance(value, datetime):
            name = "a date"
        elif not DATE_YEARS[0] <= value.year <= DATE_YEARS[1]:
            complaint = f"{value} is out of range; allowed: years {DATE_YEARS[0]} to {DATE_YEARS[1]}"
    elif kind == tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            name = 'a list of texts like ["a", "b"]'
        else:
            complaint = next((c for c in (_text_complaint(v, rule) for v in value) if c), None)
            result = tuple(value)
    else:
        name = "" if isinstance(value, str) else "a text in quotes"
        complaint = None if name or rule.choices else _text_complaint(value, rule)  # type: ignore[arg-type]
    if name:
        return None, f"expected {name}, found {_kind_shown(value)}; {rule.allowed()}"
    if complaint is None and rule.choices and value not in rule.choices:
        hint = suggestion(value, [str(c) for c in rule.choices]) if isinstance(value, str) else ""
        complaint = f"{_shown(value)} is not known; {rule.allowed()}{hint}"
    return result, complaint


def _kind_shown(value: object) -> str:
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else _shown(value)


def read_table(
    cls: type[T],
    table: Mapping[str, Any],
    at: Key,
    report: Callable[[Key, str], None],
    *,
    also: tuple[str, ...] = (),
    elsewhere: Callable[[str], str] = lambda _: "",
    complete: bool = True,
) -> T | None:
    """One table as a ``cls``; refused or missing values are reported under their key. None when a required key has no value.

    ``also``: keys that the caller reads itself. ``elsewhere``: hint for an unknown key that another table has. ``complete``: False when
    lines were left out for their syntax, so that a missing key is no news.
    """
    specs: dict[str, Field[Any]] = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    known = [*specs, *also]
    for name in table:
        if name not in known:
            report((*at, name), f"unknown key{suggestion(name, known) or elsewhere(name)}")
    values: dict[str, Any] = {}
    whole = True
    for name, spec in specs.items():
        rule: Rule = spec.metadata["rule"]
        if name in table:
            value, complaint = _convert(hints[name], table[name], rule)
            if complaint is None:
                values[name] = value
                continue
            report((*at, name), complaint)
            whole = whole and spec.default is not MISSING
        elif spec.default is MISSING:
            whole = False
            if complete:
                report(at, f"{name} is missing; {rule.what}")
    return cls(**values) if whole else None
