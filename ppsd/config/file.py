"""The configuration file: TOML text to one frozen Config; all mistakes are reported at once, each with its line.

Every key is optional. The fields of the tables hold the rules for single values (``refclock.schema.Rule``). This module checks what needs
the whole file: syntax errors after the first, the line of each key, names, duplicates and contradictions. A file has at most 1 MB of UTF-8;
a byte order mark is accepted. ``as_toml`` writes a Config that reads back equal; ``config show`` prints it, and ``run --sim`` hands it to
its children.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ppsd.config.access import ACTIONS, contradictions, is_private, prefix_complaint
from ppsd.config.contents import contents
from ppsd.config.tables import TABLES, Config, covering, endpoint_text, parse_endpoint
from ppsd.config.toml_text import counterpart, line_of, locate, meant, written
from refclock.config import (
    FEEDS,
    SOURCES,
    Feed,
    GpsdSource,
    PpsSource,
    PulsedSource,
    ReceiverSource,
    ShmFeed,
    ShmSource,
    SockFeed,
    SockSource,
    Source,
)
from refclock.kernel.files import Opener
from refclock.schema import ConfigError, Key, Problem, read_table, report_unknown, suggestion

DEFAULT_FILE = "/etc/refclock/refclock.toml"
LIMIT_BYTES = 1 << 20
"""Octets; a larger file is refused. Files written by hand have a few kB."""
SYNTAX_ERRORS = 20
"""Syntax errors after which reading stops: the file is probably not TOML."""
TOLD = 200
"""Characters of a syntax error that are told: it may contain a key of any length."""
KEY_DEPTH = 64
"""Dots outside strings in one line; a line with more is refused. tomllib's time grows with the square of a key's parts (0.6 s for 8000;
measured on x86-64)."""
ELEMENTS = 64
"""Sources, and feeds, that one file may have: more than any machine has ports for."""
_NAME_PREFIX = {"receiver": "gps", "gpsd": "gpsd", "pps": "pps", "shm": "shm", "sock": "sock"}

_NO_KEY = re.compile(r""""(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|\#.*""")
"""What is no key: strings and comments. A string that does not end goes to the end of its line, so no text is looked at twice."""


# ---- reading ----------------------------------------------------------------------------------------------------------------------


def _syntax(text: str, file: str) -> tuple[dict[str, Any], str, list[Problem]]:
    """Parse ``text``. A faulty line is reported and removed, a faulty header with its whole table, and the rest is parsed again. Returns
    the decoded file, the text that it was decoded from, and the problems."""
    problems: list[Problem] = []
    for number, line in enumerate(_NO_KEY.sub("", text).split("\n"), 1):
        if line.count(".") > KEY_DEPTH:
            return {}, "", [Problem(file, number, "", "the key has too many parts")]
    while True:
        try:
            return tomllib.loads(text), text, problems
        except RecursionError:
            return {}, "", [*problems, Problem(file, 0, "", "lists or tables are nested too deeply")]
        except ValueError as error:  # TOMLDecodeError, or int() on thousands of digits
            what, _, place = str(error).rpartition(" (at line ")
            match = re.fullmatch(r"(\d+), column \d+\)", place)
            lines = text.split("\n")
            number = int(match[1]) if match else 0
            what = what if match else str(error).removesuffix(" (at end of document)")
            if not number and "end of document" in str(error):
                problems.append(Problem(file, len(lines), "", f"not TOML: {what} at the end of the file{meant(lines[-1])}"))
                return {}, "", problems
            remedy = meant(lines[number - 1]) if number else ""
            problems.append(Problem(file, number, "", f"not TOML: {what[:TOLD]}{remedy}"))
            if not number or not lines[number - 1].strip() or len(problems) == SYNTAX_ERRORS or len(text) > 1 << 16:
                return {}, "", problems
            last = number
            if lines[number - 1].lstrip().startswith("["):
                while last < len(lines) and not lines[last].startswith("["):
                    last += 1
            text = "\n".join([*lines[: number - 1], *[""] * (last - number + 1), *lines[last:]])


def _elsewhere(here: str) -> Callable[[str], str]:
    """Makes hints for unknown keys of table ``here``: the table that has the key."""

    def hint(name: str) -> str:
        if here == "server" and (instead := counterpart(name)):
            return f"; {instead}"
        for table, cls in (*TABLES.items(), *(("[source]", c) for c in SOURCES.values())):
            if here not in (table, "[source]") and name in {f.name for f in fields(cls)}:
                return f"; did you mean {name} of [{table}]?"
        if instead := counterpart(name):
            return f"; {instead}"
        kinds = [kind for kind, cls in SOURCES.items() if here == "[source]" and name in {f.name for f in fields(cls)}]
        if len(kinds) > 1:
            return f" here; only types {', '.join(kinds[:-1])} and {kinds[-1]} have it"
        return f" here; only type {kinds[0]} has it" if kinds else ""

    return hint


class _Reader:
    """Turns the decoded file into tables, and collects problems. ``complete``: no faulty line was removed, so a missing key is an error."""

    def __init__(self, file: str, lines: Mapping[Key, int], problems: list[Problem]) -> None:
        self.file, self.lines, self.problems = file, lines, problems
        self.complete = not problems

    def report(self, at: Key, what: str) -> None:
        self.problems.append(Problem(self.file, line_of(self.lines, at), written(at), what))

    def table(self, name: str, cls: type[Any], raw: Mapping[str, Any]) -> Any:
        value = raw.get(name, {})
        if not isinstance(value, dict):
            self.report((name,), f"expected a table, written [{name}]")
            return cls()
        return read_table(cls, value, (name,), self.report, elsewhere=_elsewhere(name), complete=self.complete)

    def array(self, name: str, kinds: Mapping[str, type[Any]], raw: Mapping[str, Any], default: str | None) -> list[tuple[Key, Any]]:
        """The valid elements of ``[[name]]``, each with its key. ``default``: the type if an element has none; None: it must have one."""
        found: list[tuple[Key, Any]] = []
        value = raw.get(name, [])
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            self.report((name,), f"expected tables, each written [[{name}]]")
            return found
        if len(value) > ELEMENTS:
            self.report((name, ELEMENTS), f"more than {ELEMENTS} [[{name}]] tables")
        allowed = "allowed: " + ", ".join(f'"{k}"' for k in kinds)
        for i, table in enumerate(value[:ELEMENTS]):
            at: Key = (name, i)
            kind = table.get("type", default)
            if kind is None:
                if self.complete:
                    self.report(at, f"type is missing; {allowed}")
            elif not isinstance(kind, str) or kind not in kinds:
                hint = suggestion(kind, list(kinds)) if isinstance(kind, str) else ""
                self.report((*at, "type"), f"is not known; {allowed}{hint}")
            else:
                hints = _elsewhere(f"[{name}]")
                item = read_table(kinds[kind], table, at, self.report, also=("type",), elsewhere=hints, complete=self.complete)
                if item is not None:
                    found.append((at, item))
        return found

    def named(self, items: list[tuple[Key, Any]], prefix: Mapping[str, str]) -> list[Any]:
        """The items with unique names: duplicates are reported, missing names are generated (gps0, gps1, shm0)."""
        taken: dict[str, Key] = {}
        for at, item in items:
            if item.name in taken:
                self.report((*at, "name"), f'"{item.name}" is taken on line {line_of(self.lines, (*taken[item.name], "name"))}')
            elif item.name:
                taken[item.name] = at
        result = []
        for at, item in items:
            name, n = item.name, 0
            while not name:
                candidate = f"{prefix[item.kind]}{n}"
                name, n = ("" if candidate in taken else candidate), n + 1
                taken.setdefault(candidate, at)
            result.append(replace(item, name=name))
        return result

    def unique(self, items: Iterable[tuple[Key, str, object]]) -> None:
        """Report every resource that two keys name. Items: (key, kind of resource, which one)."""
        seen: dict[tuple[str, object], Key] = {}
        for at, what, which in items:
            first = seen.setdefault((what, which), at)
            if first != at:
                self.report(at, f"{what} {which} is already used on line {line_of(self.lines, first)}")


def _resources(items: Iterable[tuple[Key, Source | Feed]]) -> Iterator[tuple[Key, str, object]]:
    """The resources of which each source and feed needs exclusive use, as ``unique`` takes them."""
    for at, item in items:
        match item:
            case ReceiverSource() if item.device.startswith("/"):
                yield (*at, "device"), "device", item.device
            case GpsdSource():
                yield (*at, "host"), "gpsd", f"{item.host}:{item.port} {item.device}".rstrip()
            case ShmSource() | ShmFeed():
                yield (*at, "unit"), "shared memory unit", item.unit
            case SockSource() | SockFeed():
                yield (*at, "path"), "socket", item.path
        if isinstance(item, PulsedSource) and item.pps.startswith("/"):
            yield (*at, "pps"), "pulse device", item.pps


def _judge_access(raw: Mapping[str, Any], reader: _Reader) -> None:
    """Report every network that the file itself lists under two actions: one of them was not meant. The default lists are no statement."""
    table = raw.get("access")
    lists: dict[str, Any] = {action: table.get(action) for action in ACTIONS} if isinstance(table, dict) else {}
    for action, index, other, at in contradictions(lists):
        where = line_of(reader.lines, ("access", other, at))
        what = f"{lists[action][index]} is also under {other}, on line {where}: leave it in one of the two"
        reader.report(("access", action, index), what)


def _canonical(listen: str) -> str:
    """An address and port in one spelling: [0::0]:123 is [::]:123."""
    endpoint = parse_endpoint(listen)
    return endpoint_text(str(ip_address(endpoint[0])), endpoint[1]) if endpoint is not None else listen


def doubts(config: Config) -> list[Problem]:
    """What is valid and cannot be meant: single addresses beside the wildcard address that takes them in. They are served all the same."""
    lines = locate(contents(Path(config.file), LIMIT_BYTES).decode()) if config.file else {}
    endpoints = [endpoint for text in config.server.listen if (endpoint := parse_endpoint(text)) is not None]
    found = []
    for i, endpoint in enumerate(endpoints):
        wide = covering(endpoint, endpoints)
        if wide is not None:
            what = (
                f"{endpoint_text(*endpoint)} is superfluous beside {endpoint_text(*wide)}, which is every address: leave out one of the two"
            )
            at: Key = ("server", "listen", i)
            found.append(Problem(config.file, line_of(lines, at), written(at), what))
    return found


def _judge_server(tables: Mapping[str, Any], reader: _Reader) -> None:
    """Report contradictions between the tables server, access and keys."""
    server, access = tables["server"], tables["access"]
    if server.enabled and not server.listen:
        reader.report(("server", "listen"), 'names no address: write one, such as "0.0.0.0:123"; to serve nobody, enabled = false')
    public = [prefix for prefix in (*access.allow, *access.authenticated) if prefix_complaint(prefix) is None and not is_private(prefix)]
    if server.leap_smear and not server.smear_public and public:
        who = f"{public[0]} is open to them"
        what = f"clients that may also ask servers that do not smear ({who}); if none does, confirm with smear_public = true"
        reader.report(("server", "leap_smear"), what)
    if server.broadcast and not (server.broadcast_key and tables["keys"].file):
        reader.report(("server", "broadcast"), "is only sent authenticated; set broadcast_key and keys.file")


def parse(text: str, file: str = "configuration") -> Config:
    """TOML text to a Config. ConfigError, the only exception, holds every problem."""
    raw, text, problems = _syntax(text.removeprefix("\ufeff").replace("\r\n", "\n"), file)
    reader = _Reader(file, locate(text), problems)
    known = [*TABLES, "source", "feed"]
    report_unknown("table or key", raw, (), known, reader.report, _elsewhere(""))
    tables = {name: reader.table(name, cls, raw) for name, cls in TABLES.items()}
    sources, feeds = reader.array("source", SOURCES, raw, None), reader.array("feed", FEEDS, raw, None)
    named_sources = reader.named(sources, _NAME_PREFIX)
    named_feeds = reader.named(feeds, {"sock": "sock", "shm": "shm"})
    reader.unique(_resources([*sources, *feeds]))
    reader.unique((("server", "listen", i), "address", _canonical(address)) for i, address in enumerate(tables["server"].listen))
    if sources and reader.complete and all(source.noselect for _, source in sources):
        reader.report((*sources[0][0], "noselect"), "every source is noselect: none could ever be used")
    if sources and reader.complete and all(isinstance(source, PpsSource) for _, source in sources):
        by_us = 'clock.steer = "kernel"' if tables["clock"].steer == "kernel" else "[[feed]]" if feeds else ""
        if by_us:
            what = (
                f"names no second, and with {by_us} no other program keeps the system clock independently: add a receiver or another source"
            )
            reader.report((*sources[0][0], "type"), what)
    _judge_server(tables, reader)
    _judge_access(raw, reader)
    if problems:
        raise ConfigError(sorted(problems, key=lambda p: p.line))
    return Config(**tables, sources=tuple(named_sources), feeds=tuple(named_feeds), file=file)


def read(path: Path, opener: Opener = os.open) -> Config:
    """The file at ``path`` as a Config. ConfigError: the file is invalid, cannot be read, or exceeds ``LIMIT_BYTES``."""
    file = str(path)

    def refused(what: str) -> ConfigError:
        return ConfigError([Problem(file, 0, "", what)])

    try:
        data = contents(path, LIMIT_BYTES, opener=opener)
    except FileNotFoundError:
        raise refused("does not exist") from None
    except PermissionError:
        raise refused("may not be read by this user") from None
    except OSError as error:
        why = error.strerror or str(error)
        raise refused(why if why.startswith("is ") else f"cannot be read: {why}") from None
    return parse_bytes(data, file)


def parse_bytes(data: bytes, file: str) -> Config:
    """UTF-8 bytes to a Config. ConfigError: as ``parse``, or the line of the first byte that is not UTF-8."""
    try:
        return parse(data.decode("utf-8"), file)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, "", f"byte 0x{data[error.start]:02x} is not UTF-8 text")]) from None


def load(path: Path | None, opener: Opener = os.open) -> Config:
    """The file at ``path``; for None, the default file if it exists, else the defaults. ``opener``: opens files in place of os.open."""
    if path is None:
        path = Path(DEFAULT_FILE)
        if not path.exists():
            return Config()
    return read(path, opener)


# ---- writing ----------------------------------------------------------------------------------------------------------------------


def as_value(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return "[" + ", ".join(as_value(v) for v in value) + "]"
    return value.isoformat() if isinstance(value, date) else repr(value)


def as_toml(config: Config) -> str:
    """The configuration, defaults included, as TOML that reads back equal. Keys without a value become comments."""
    blocks = [(f"[{name}]", getattr(config, name), "") for name in TABLES]
    blocks += [("[[source]]", item, item.kind) for item in config.sources] + [("[[feed]]", item, item.kind) for item in config.feeds]
    out = []
    for header, item, kind in blocks:
        lines = [header] + ([f'type = "{kind}"'] if kind else [])
        for spec in fields(item):
            value = getattr(item, spec.name)
            lines.append(f"# {spec.name} = ({spec.metadata['rule'].what})" if value is None else f"{spec.name} = {as_value(value)}")
        out.append("\n".join(lines))
    return "\n\n".join(out) + "\n"
