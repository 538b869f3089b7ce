"""The configuration file: TOML text to one frozen Config; all mistakes are reported at once, each with its line.

Every key is optional. The fields of the tables hold the rules for single values (``refclock.schema.Rule``). ``ppsd.config.reader`` reads
them. This module checks what needs the whole file: contradictions, and what two tables cannot share. A file has at most 1 MB of UTF-8;
a byte order mark is accepted. ``as_toml`` writes a Config that reads back equal; ``config show`` prints it, and ``run --sim`` hands it to
its children.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ppsd.config.access import ACTIONS, contradictions, is_private, prefix_complaint
from ppsd.config.contents import contents
from ppsd.config.reader import Reader, as_text
from ppsd.config.tables import TABLES, UPSTREAMS, AnyUpstream, Config, covering, endpoint_text, parse_endpoint
from ppsd.config.toml_text import counterpart, line_of, locate, written
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
from refclock.schema import ConfigError, Key, Problem

DEFAULT_FILE = "/etc/refclock/refclock.toml"
LIMIT_BYTES = 1 << 20
"""Octets; a larger file is refused. Files written by hand have a few kB."""
_NAME_PREFIX = {"receiver": "gps", "gpsd": "gpsd", "pps": "pps", "shm": "shm", "sock": "sock", "server": "ntp", "pool": "pool"}

# ---- reading ----------------------------------------------------------------------------------------------------------------------


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


def _judge_access(reader: Reader) -> None:
    """Report every network that the file itself lists under two actions: one of them was not meant. The default lists are no statement."""
    table = reader.raw.get("access")
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


def _judge_server(tables: Mapping[str, Any], reader: Reader) -> None:
    """Report contradictions between the tables server, access, keys and nts."""
    server, access = tables["server"], tables["access"]
    if server.enabled and not server.listen:
        reader.report(("server", "listen"), 'names no address: write one, such as "0.0.0.0:123"; to serve nobody, enabled = false')
    public = [prefix for prefix in (*access.allow, *access.authenticated) if prefix_complaint(prefix) is None and not is_private(prefix)]
    if server.leap_smear and not server.smear_public and public:
        who = f"{public[0]} is open to them"
        what = f"clients that may also ask servers that do not smear ({who}); if none does, confirm with smear_public = true"
        reader.report(("server", "leap_smear"), what)
    nts = tables["nts"]
    if nts.enabled and not nts.listen:
        reader.report(("nts", "listen"), 'names no address: write one, such as "0.0.0.0:4460"; for no NTS, enabled = false')
    if bool(nts.certificate) != bool(nts.key):
        missing, other = ("key", "certificate") if nts.certificate else ("certificate", "key")
        reader.report(("nts", missing), f"is needed beside {other}; for the box's own certificate leave out both")
    if server.broadcast and not (server.broadcast_key and tables["keys"].file):
        reader.report(("server", "broadcast"), "is only sent authenticated; set broadcast_key and keys.file")


def _judge_upstreams(upstreams: list[tuple[Key, AnyUpstream]], tables: Mapping[str, Any], reader: Reader) -> None:
    """Report upstreams that cannot be asked as they are written."""
    if upstreams and not tables["server"].enabled and tables["clock"].upstreams != "off":
        what = "nobody asks them without the server's process: set server.enabled = true (server.listen may name 127.0.0.1 alone)"
        reader.report(upstreams[0][0], what)
    for at, upstream in upstreams:
        if upstream.minpoll > upstream.maxpoll:
            reader.report((*at, "minpoll"), f"{upstream.minpoll} is more than maxpoll, which is {upstream.maxpoll}")
        if upstream.key and not tables["keys"].file:
            reader.report((*at, "key"), "needs the file that has the key: keys.file")
        if upstream.nts and upstream.key:
            reader.report((*at, "key"), "is not used beside nts = true, which authenticates by keys of its own: leave out one of the two")
        if upstream.nts and upstream.version < 4:
            reader.report((*at, "version"), "NTS is a part of version 4: leave out this line, or nts = true")
        if not upstream.nts and (upstream.ca or upstream.unchecked_dates):
            reader.report((*at, "ca" if upstream.ca else "unchecked_dates"), "is about certificates of NTS: it needs nts = true")


def parse(text: str, file: str = "configuration") -> Config:
    """TOML text to a Config. ConfigError, the only exception, holds every problem."""
    reader = Reader(file, text, _elsewhere)
    reader.unknown([*TABLES, "source", "feed", "upstream"])
    tables: dict[str, Any] = {name: reader.table(name, cls) for name, cls in TABLES.items()}
    sources, feeds = reader.array("source", SOURCES, None), reader.array("feed", FEEDS, None)
    upstreams = reader.array("upstream", UPSTREAMS, "server")
    named = reader.named([*sources, *upstreams], _NAME_PREFIX)
    named_feeds = reader.named(feeds, {"sock": "sock", "shm": "shm"})
    reader.unique(_resources([*sources, *feeds]))
    listens = [((name, "listen", i), address) for name in ("server", "chronyc") for i, address in enumerate(tables[name].listen)]
    reader.unique((at, "address", _canonical(address)) for at, address in listens)
    streams = [((name, "listen", i), address) for name in ("nts", "metrics") for i, address in enumerate(tables[name].listen)]
    reader.unique((at, "TCP address", _canonical(address)) for at, address in streams)
    followed = upstreams and tables["clock"].upstreams == "fallback"
    if sources and reader.complete and all(source.noselect for _, source in sources) and not followed:
        what = 'every source is noselect: none could ever be used; with [[upstream]] and clock.upstreams = "fallback" they may all be'
        reader.report((*sources[0][0], "noselect"), what)
    if sources and reader.complete and all(isinstance(source, PpsSource) for _, source in sources):
        by_us = 'clock.steer = "kernel"' if tables["clock"].steer == "kernel" else "[[feed]]" if feeds else ""
        if by_us:
            what = (
                f"names no second, and with {by_us} no other program keeps the system clock independently: add a receiver or another source"
            )
            reader.report((*sources[0][0], "type"), what)
    _judge_server(tables, reader)
    _judge_upstreams(upstreams, tables, reader)
    if tables["clock"].upstreams == "only" and (sources or not upstreams):
        lacks = 'wants no receiver: remove every [[source]], or write "fallback"' if sources else "names nobody to ask: add an [[upstream]]"
        reader.report(("clock", "upstreams"), f'"only" {lacks}')
    _judge_access(reader)
    reader.check()
    named_sources, named_upstreams = tuple(named[: len(sources)]), tuple(named[len(sources) :])
    return Config(**tables, sources=named_sources, feeds=tuple(named_feeds), upstreams=named_upstreams, file=file)


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
    return parse(as_text(data, file), file)


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
    arrays = (("[[source]]", config.sources), ("[[feed]]", config.feeds), ("[[upstream]]", config.upstreams))
    blocks += [(header, item, item.kind) for header, items in arrays for item in items]
    out = []
    for header, item, kind in blocks:
        lines = [header] + ([f'type = "{kind}"'] if kind else [])
        for spec in fields(item):
            value = getattr(item, spec.name)
            lines.append(f"# {spec.name} = ({spec.metadata['rule'].what})" if value is None else f"{spec.name} = {as_value(value)}")
        out.append("\n".join(lines))
    return "\n\n".join(out) + "\n"
