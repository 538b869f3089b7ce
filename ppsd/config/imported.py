"""The configuration of another program as one of this program: what was taken over, what was not, and why, as text with comments.

``import_chrony``, ``import_ntp`` and ``import_receivers`` read the files and fill a Draft. Its text is always a valid
configuration: what the tables refuse (``ppsd.config.file``) is left out, and told. Nothing of the other file is dropped in silence: each
line ends up in a setting or in a Remark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from ppsd.config.access import ACTIONS
from ppsd.config.directives import Fate
from ppsd.config.file import as_value, parse
from ppsd.config.tables import TABLES
from refclock.config import plain_name
from refclock.errors import printable
from refclock.schema import ConfigError

Value = str | int | float | bool
LIMIT_BYTES: Final = 1 << 17
"""Octets of a file that is imported. Such files have a few kB; with what is told of each line the result stays below the limit of ours."""
REMARKS: Final = 500
"""Remarks that are told one by one."""
SHOWN: Final = 100
"""Characters that are shown of a line of the other file."""
SOURCES: Final = 128
"""Sources of the other program that are looked at: twice as many as a configuration may have."""
UPSTREAMS: Final = 64
"""NTP servers that are taken over: as many as are listened to."""
MAPPED: Final = ip_network("::ffff:0:0/96")
"""IPv4 addresses inside IPv6 (RFC 4291 section 2.5.5.2). Here they are the IPv4 addresses themselves, elsewhere mostly not."""


@dataclass(frozen=True, slots=True)
class Line:
    """A directive where it stands. ``number``: 0 for what the other program does without being told. ``file``: "" for the file that is
    imported, else one that it includes."""

    number: int
    words: tuple[str, ...]
    file: str = ""

    @property
    def place(self) -> str:
        """ "line 12", or "conf.d/gps.conf line 3"."""
        return f"{printable(self.file)} line {self.number}".lstrip() if self.number else "by default"

    def __str__(self) -> str:
        text = printable(" ".join(self.words))
        return f"{self.place}: {text if len(text) <= SHOWN else text[: SHOWN - 4] + ' ...'}"


@dataclass(frozen=True, slots=True)
class Remark:
    """What became of a directive that is no setting here, or only in part."""

    line: Line
    fate: Fate
    what: str


@dataclass(frozen=True, slots=True)
class Directive:
    """A directive of another program. ``take``: takes it over; None: ``what`` says why it is not needed, or what is missing."""

    fate: Fate
    what: str
    take: Callable[[Draft, Line], None] | None = None


def directives(table: Mapping[tuple[Fate, str], str], taken: Mapping[str, Callable[[Draft, Line], None]]) -> dict[str, Directive]:
    """A table of directives. ``table``: (fate, why) -> words that have them; ``taken``: what takes a directive over."""
    found = {word: Directive(fate, what) for (fate, what), words in table.items() for word in words.split()}
    return found | {word: Directive(Fate.TAKEN, "", take) for word, take in taken.items()}


@dataclass(slots=True)
class Settings:
    """A ``[[source]]``, ``[[upstream]]`` or ``[[feed]]`` that is being made."""

    kind: str
    line: Line
    keys: dict[str, Value]


@dataclass(slots=True)
class Draft:
    """A configuration that is being made. ``lines``: all directives of the other program's files."""

    origin: str
    values: dict[tuple[str, str], tuple[Value | tuple[str, ...], Line]] = field(default_factory=dict)
    rules: dict[IPv4Network | IPv6Network, tuple[str, Line]] = field(default_factory=dict)
    sources: list[Settings] = field(default_factory=list)
    upstreams: list[Settings] = field(default_factory=list)
    feeds: list[Settings] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def put(self, table: str, key: str, value: Value | tuple[str, ...], line: Line) -> None:
        """Set a key; the last setting counts."""
        self.values[table, key] = (value, line)

    def tell(self, line: Line, fate: Fate, what: str) -> None:
        """Say what became of a line, or of a part of it."""
        self.remarks.append(Remark(line, fate, printable(what)))

    def source(self, kind: str, line: Line, name: str = "", **keys: Value) -> Settings:
        """Add a source; ``name`` when it can be one and nobody has it."""
        found = Settings(kind, line, keys)
        if len(self.sources) >= SOURCES:
            self.tell(line, Fate.REFUSED, f"there are more than {SOURCES} sources")
            return found
        if name and plain_name(name) is None and all(other.keys.get("name") != name for other in self.sources):
            found.keys["name"] = name
        self.sources.append(found)
        return found

    def upstream(self, kind: str, line: Line, **keys: Value) -> Settings | None:
        """Add an NTP server or a pool; None when there are too many."""
        if len(self.upstreams) >= UPSTREAMS:
            self.tell(line, Fate.REFUSED, f"there are more than {UPSTREAMS} servers")
            return None
        self.upstreams.append(Settings(kind, line, keys))
        return self.upstreams[-1]

    def carry_out(self, table: Mapping[str, Directive], line: Line) -> None:
        """Do with a line what the table says of its first word, which may be written in any case."""
        directive = table.get(line.words[0].lower())
        if directive is None:
            self.tell(line, Fate.WRONG, "no such directive is known")
        elif directive.take is not None:
            directive.take(self, line)
        else:
            self.tell(line, directive.fate, directive.what)

    # ---- the text ---------------------------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The configuration as TOML with comments."""
        self._join_pulses()
        sources, feeds = self._accepted("source", self.sources, ""), self._accepted("feed", self.feeds, "")
        tables = self._tables(sources, feeds)
        text = "\n\n".join(filter(None, (*_shown(tables), sources, feeds)))
        servers = self._accepted("upstream", self.upstreams, text).removeprefix(text).strip()
        if self.upstreams:
            tables["clock"]["upstreams"] = f'upstreams = "{"fallback" if self.sources else "only"}"  # {self.upstreams[0].line}'
        text = "\n\n".join(filter(None, (*_shown(tables), self._with_noselect(sources), servers, feeds)))
        return "\n\n".join(filter(None, (f"# Taken over from {printable(self.origin)} by refclock import.", text, self._told()))) + "\n"

    def _join_pulses(self) -> None:
        """Give a pulse without a line to the only receiver or gpsd that has none of its own: then it is numbered by what that says."""
        labelled = [s for s in self.sources if s.kind in ("receiver", "gpsd") and not str(s.keys.get("pps", "")).startswith("/")]
        pulses = [s for s in self.sources if s.kind == "pps" and not s.keys.get("noselect")]
        if len(labelled) == len(pulses) == 1:
            owner, pulse = labelled[0], pulses[0]
            self.sources.remove(pulse)
            kept = {"pps", "edge", "prefer", "trust"} | ({"cable_delay_ns"} if owner.kind == "receiver" else set())
            own = {key: value for key, value in pulse.keys.items() if key in kept}
            owner.keys |= own
            if owner.kind == "gpsd" and "cable_delay_ns" in pulse.keys:
                self.tell(pulse.line, Fate.MISSING, "a pulse beside gpsd has no cable delay: let refclock read the receiver for that")
            self.tell(pulse.line, Fate.TAKEN, f"as pps of the {owner.kind} source, which numbers its pulses")

    def _block(self, table: str, settings: Settings, keys: Mapping[str, Value]) -> str:
        lines = "".join(f"{key} = {as_value(value)}\n" for key, value in {"type": settings.kind, **keys}.items())
        return f"# {settings.line}\n[[{table}]]\n{lines}".rstrip()

    def _accepted(self, table: str, wanted: Iterable[Settings], text: str) -> str:
        """``text`` and the blocks that are valid beside it and one another, sources without ``noselect``; the others are told, and leave
        the list of their kind."""
        left_out = ("noselect",) if table == "source" else ()
        wanted, good = list(wanted), list[Settings]()
        for settings in wanted:
            more = self._block(table, settings, {key: value for key, value in settings.keys.items() if key not in left_out})
            if self._is_valid(f"{text}\n\n{more}", settings.line):
                text, good = f"{text}\n\n{more}".strip(), [*good, settings]
        {"source": self.sources, "upstream": self.upstreams, "feed": self.feeds}[table][:] = good
        return text

    def _with_noselect(self, text: str) -> str:
        """The sources' blocks with ``noselect`` where it was stated, unless nothing would be left to give the time."""
        unused = [settings for settings in self.sources if settings.keys.get("noselect")]
        if unused and len(unused) == len(self.sources) and not self.upstreams:
            for settings in unused:
                self.tell(settings.line, Fate.MISSING, "noselect is left out: there is no other source")
        elif unused:
            text = "\n\n".join(self._block("source", settings, settings.keys) for settings in self.sources)
        return text

    def _is_valid(self, text: str, line: Line) -> bool:
        try:
            parse(text)
        except ConfigError as error:
            problem = error.problems[-1]
            self.remarks[:] = [remark for remark in self.remarks if remark.line is not line or remark.fate != Fate.TAKEN]
            self.tell(line, Fate.REFUSED, f"{problem.key}: {problem.what}"[:300])
            return False
        return True

    def _tables(self, *blocks: str) -> dict[str, dict[str, str]]:
        """The lines of the tables, each key that is valid beside the sources and feeds (``blocks``) and the keys before it."""
        beside = "\n\n".join(filter(None, blocks))
        good: dict[str, dict[str, str]] = {table: {} for table in TABLES}

        for (table, key), (value, line) in [*self._access(), *self.values.items()]:
            good[table][key] = f"{key} = {as_value(value)}  # {line}"
            if table == "access" and isinstance(value, tuple):
                elements = "".join(f"    {as_value(str(net))},  # {self.rules[net][1]}\n" for net in map(ip_network, value))
                good[table][key] = f"{key} = [\n{elements}]"
            if not self._is_valid("\n\n".join([*_shown(good), beside]), line):
                del good[table][key]
        return good

    def _access(self) -> Iterator[tuple[tuple[str, str], tuple[tuple[str, ...], Line]]]:
        """The rules as the lists of ``[access]``. Here an IPv6 network that contains MAPPED takes in IPv4 addresses, elsewhere it does not:
        what is said of IPv4 is said in full then."""
        everybody = ip_network("0.0.0.0/0")
        six = [net for net in self.rules if isinstance(net, IPv6Network)]
        wide = next((net for net in six if MAPPED.subnet_of(net)), None)  # type: ignore[arg-type]  # both are of version 6
        if wide is not None and everybody not in self.rules:
            self.rules[everybody] = ("deny", self.rules[wide][1])
        for action in ACTIONS:
            listed = tuple(str(net) for net, (which, _) in self.rules.items() if which == action)
            if listed or (action == "allow" and self.rules):
                first = self.rules[ip_network(listed[0])][1] if listed else next(iter(self.rules.values()))[1]
                yield ("access", action), (listed, first)

    def _told(self) -> str:
        """The remarks as comments, those of one kind together. A line in none of these says no more than others."""
        shown = [remark.line for remark in self.remarks] + [settings.line for settings in (*self.sources, *self.upstreams, *self.feeds)]
        shown += [line for _, line in (*self.values.values(), *self.rules.values())]
        known = {id(line) for line in shown}
        for line in self.lines:
            if id(line) not in known:
                self.tell(line, Fate.TAKEN, "it is so by default, or a later line says more")
        groups: dict[tuple[str, Fate, str], list[Line]] = {}
        for remark in sorted(self.remarks, key=lambda remark: (remark.line.file, remark.line.number)):
            groups.setdefault((remark.line.words[0].lower(), remark.fate, remark.what), []).append(remark.line)
        lines = []
        for (_, fate, what), where in list(groups.items())[:REMARKS]:
            others = ", ".join([line.place for line in where[1:40]] + (["..."] if len(where) > 40 else []))
            also = f" (and {others})" if others else ""
            lines.append(f"# {where[0]}{also}: {fate}{f': {what}' if what else ''}")
        if len(groups) > REMARKS:
            lines.append(f"# ... and {len(groups) - REMARKS} more")
        return "\n".join(["# What is no setting here, or not all of it:", *lines]) if lines else ""


def _shown(tables: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The tables as TOML, one block each."""
    return [f"[{table}]\n" + "\n".join(keys.values()) for table, keys in tables.items() if keys]


# ---- what the readers have in common --------------------------------------------------------------------------------------------------

Look = Callable[[str], Sequence[tuple[str, str]]]
"""Finds the files that a pattern names, and returns (name, text) of each: how included files are read."""


def nothing_included(_: str) -> Sequence[tuple[str, str]]:
    """A Look that finds nothing: the text alone is imported."""
    return ()


def number(text: str) -> float | None:
    """A number as these files write them; None: it is none, or no finite one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e15 else None  # NaN compares false


def whole(text: str) -> int | None:
    """A whole number; None: it is none, or beyond 64 bits."""
    sign, digits = text[:1] in ("+", "-"), text.lstrip("+-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 19 and len(text) - len(digits) == sign else None


def options(words: Sequence[str], flags: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(option, its value) of ``key value key value flag``; "" as the value of the ``flags`` and of an option at the end."""
    bare, at = set(flags), 0
    while at < len(words):
        option = words[at].lower()
        has_value = option not in bare and at + 1 < len(words)
        yield option, words[at + 1] if has_value else ""
        at += 1 + has_value


GPSD_BIAS_US: Final = 2000.0
"""us; how late gpsd's pulses may be stamped: 1 to 2 ms where a modem line wakes it (image/examples/behind-gpsd.toml)."""
MOST_BIAS_US: Final = 1e6
"""us; the largest allowance that a source may have."""
CABLE_NS: Final = 32_767
"""ns; the longest delay that a source takes for a cable's."""


def measured(draft: Draft, line: Line, source: Settings, offset_s: float, delay_s: float) -> None:
    """How far the samples of another program may be off, which are taken as they are: by ``offset_s``, which the other daemon would add,
    and half of ``delay_s``. Without either: what gpsd's pulses need; the arrival of its messages (units 0 and 2) keeps the default."""
    bias_us = (abs(offset_s) + delay_s / 2) * 1e6
    if bias_us > MOST_BIAS_US:
        source.keys["noselect"] = True
        draft.tell(line, Fate.MISSING, f"samples cannot be corrected by {offset_s:g} s, so they are watched and not used")
    elif bias_us:
        source.keys["bias_us"] = max(1.0, round(bias_us, 3))
        if offset_s:
            draft.tell(line, Fate.MISSING, f"samples cannot be corrected by {offset_s:g} s: the bound allows for it (bias_us)")
    elif source.keys.get("unit") not in (0, 2):
        source.keys["bias_us"] = GPSD_BIAS_US


def delayed(draft: Draft, line: Line, source: Settings, offset_s: float) -> None:
    """A pulse to whose time the other daemon adds ``offset_s``: a cable's delay when it can be one."""
    delay_ns = round(offset_s * 1e9)
    if 0 < abs(delay_ns) <= CABLE_NS:
        source.keys["cable_delay_ns"] = delay_ns
    elif delay_ns:
        source.keys["noselect"] = True
        draft.tell(line, Fate.MISSING, f"{offset_s:g} s is no cable's delay (at most 32 us): state which edge marks the second")


def listen_on(draft: Draft, line: Line, table: str = "server", *, port: int = 0, host: str = "") -> None:
    """Listen on another port, or on one address of its kind; the other kind of address stays as it is. ``table``: one with ``listen``."""
    before = draft.values.get((table, "listen"))
    texts = before[0] if before is not None and isinstance(before[0], tuple) else TABLES[table]().listen
    four, six = (text.rpartition(":") for text in texts)
    hosts = (host if host and ":" not in host else four[0], f"[{host}]" if ":" in host else six[0])
    draft.put(table, "listen", tuple(f"{each}:{port or four[2]}" for each in hosts), line)


def key_file(draft: Draft, line: Line) -> None:
    """The file of symmetric keys."""
    draft.put("keys", "file", " ".join(line.words[1:2]), line)
    draft.tell(line, Fate.TAKEN, "the file is read as it is")


def leap_file(draft: Draft, line: Line) -> None:
    """The table of leap seconds."""
    draft.put("leap", "file", " ".join(line.words[1:2]), line)


def dscp(draft: Draft, line: Line) -> None:
    """The DSCP of packets."""
    value = whole(" ".join(line.words[1:2]))
    draft.put("server", "dscp", -1 if value is None else value, line)


def beside_gpsd(draft: Draft, line: Line) -> None:
    """gpsd itself as the source: its samples elsewhere are copies of what its JSON says, which needs no offset."""
    if not any(settings.kind == "gpsd" for settings in draft.sources):
        draft.sources.insert(0, Settings("gpsd", line, {}))
        why = "gpsd writes such samples, and its JSON names the seconds without an offset; when another program does, leave out type gpsd"
        draft.tell(line, Fate.TAKEN, why)
