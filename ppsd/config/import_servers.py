"""Servers, pools and peers of other programs as ``[[upstream]]``, and timesyncd.conf to a Draft.

Sources: chrony.conf(5) of 4.9, "Time sources"; ntp.conf(5) of ntpsec 1.2.5 and of ntp 4.2.8; timesyncd.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Final

from ppsd.config.directives import Fate
from ppsd.config.imported import Draft, Line, number, options, whole

_WHOLE: Final = {
    "port": "port",
    "key": "key",
    "minstratum": "minstratum",
    "minpoll": "minpoll",
    "maxpoll": "maxpoll",
    "version": "version",
    "maxsources": "most",
    "ntsport": "nts_port",
}
"""Options with a whole number -> key."""
_SCALED: Final = {
    "offset": ("offset_us", 1e6),
    "bias": ("offset_us", 1e6),
    "maxdelay": ("maxdelay_ms", 1e3),
    "maxdelayratio": ("maxdelayratio", 1.0),
    "maxdelaydevratio": ("maxdelaydevratio", 1.0),
}
"""Options with a number -> key, factor. ntpsec's bias is chrony's offset."""
_FLAGS: Final[Mapping[str, tuple[str, str | bool]]] = {
    "iburst": ("iburst", True),
    "burst": ("burst", True),
    "prefer": ("prefer", True),
    "noselect": ("noselect", True),
    "trust": ("trust", True),
    "xleave": ("xleave", True),
    "true": ("trust", True),
    "nts": ("nts", True),
    "ipv4": ("family", "ipv4"),
    "ipv6": ("family", "ipv6"),
    "-4": ("family", "ipv4"),
    "-6": ("family", "ipv6"),
}
"""Options without a value -> key, its value."""
_BOUNDS: Final = {"minpoll": (0, 17), "maxpoll": (0, 17), "version": (3, 4), "most": (1, 16)}
"""Least and largest value of a key; others are brought to them, and told."""
_UNSAFE: Final = {
    "autokey": "Autokey is broken (RFC 8633): use a symmetric key or NTS",
}
"""Options without which the server must not be asked, and why they are not there."""
_NOT_NEEDED: Final = {
    "samples are measured without tuning": (
        *("polltarget", "presend", "minsamples", "maxsamples", "filter", "maxdelayquant", "mindelay", "asymmetry", "mode"),
    ),
    "a server that does not answer is asked less often, and a pool's is replaced": ("maxunreach", "preempt"),
    "a server that is out of reach is asked again as soon as an interface comes up": ("auto_offline", "offline"),
    "answers are stamped by the kernel": ("extfield",),
    "what NTS authenticates with is negotiated": ("aead",),
}
"""Why -> options that are not needed."""
_MISSING: Final = {
    "require": "no server can be made a condition for the others",
    "copy": "stratum and reference are those of this machine",
}
"""Option -> why it is not there."""
_BARE: Final = (*_FLAGS, *_UNSAFE, *_MISSING, "auto_offline", "offline", "preempt")
"""Options without a value."""
_AS_A_SERVER: Final = "asked as a server: that tells as much; a peer that asks this machine is answered"
"""What becomes of a peer."""


def asked_server(draft: Draft, line: Line) -> None:
    """``server``, ``pool`` and ``peer`` of chrony.conf and ntp.conf: host, options."""
    kind, words = line.words[0].lower(), list(line.words[1:])
    first = [words.pop(0)] if words[:1] in (["-4"], ["-6"]) else []  # ntpd has the family in front
    if not words:
        draft.tell(line, Fate.WRONG, "a name or an address is expected")
        return
    stated = dict(options([*first, *words[1:]], _BARE))
    for option, why in _UNSAFE.items():
        if option in stated:
            draft.tell(line, Fate.MISSING, f"{option}: {why}")
            return
    keys, host = _keys(draft, line, stated), words[0]
    if kind != "pool":
        keys.pop("most", None)
    if "nts" in keys:
        own_port = (
            re.fullmatch(r"\[?(?P<host>[^\]]+?)\]?:(?P<port>\d{1,5})", host) if host.count(":") == 1 or host.startswith("[") else None
        )
        if own_port is not None:  # ntpsec: where keys are established
            host, keys["nts_port"] = own_port["host"], int(own_port["port"])
        if "ca" in stated:
            keys["ca"] = stated["ca"]
    if draft.upstream("pool" if kind == "pool" else "server", line, host=host, **keys) is None:
        return
    if kind == "peer":
        draft.tell(line, Fate.TAKEN, _AS_A_SERVER)
    told = {option: why for why, names in _NOT_NEEDED.items() for option in names}
    for option, why in ((option, told[option]) for option in stated if option in told):
        draft.tell(line, Fate.NOT_NEEDED, f"{option}: {why}")
    for option, why in ((option, _MISSING[option]) for option in stated if option in _MISSING):
        draft.tell(line, Fate.MISSING, f"{option}: {why}")
    known = (*_WHOLE, *_SCALED, *_BARE, *told, "ttl", "certset", "ca", "cert")
    if unknown := [option for option in stated if option not in known]:
        draft.tell(line, Fate.WRONG, f"no option {unknown[0]} is known")


def _keys(draft: Draft, line: Line, stated: Mapping[str, str]) -> dict[str, str | int | float | bool]:
    """The keys of the table that options become."""
    found: dict[str, str | int | float | bool] = {}
    for option, text in stated.items():
        if option in _FLAGS:
            key, value = _FLAGS[option]
            found[key] = value
        elif option in _WHOLE:
            given = whole(text)
            if given is None:
                draft.tell(line, Fate.WRONG, f"{option}: a whole number is expected")
                continue
            key = _WHOLE[option]
            low, high = _BOUNDS.get(key, (given, given))
            found[key] = min(max(given, low), high)
            if found[key] != given:
                draft.tell(line, Fate.TAKEN, f"{option} {given} as {found[key]}, which is the {'least' if given < low else 'most'} here")
        elif option in _SCALED:
            key, factor = _SCALED[option]
            amount = number(text)
            if amount is None:
                draft.tell(line, Fate.WRONG, f"{option}: a number is expected")
            else:
                found[key] = round(amount * factor, 6)
    _order(found)
    return found


def _order(keys: dict[str, str | int | float | bool]) -> None:
    """One of ``minpoll`` and ``maxpoll`` may be beyond the default of the other, which follows then; a least interval beyond the longest is
    both (ntp_core.c of chronyd)."""
    low, high = keys.get("minpoll"), keys.get("maxpoll")
    if isinstance(low, int) and low > (high if isinstance(high, int) else 10):
        keys["maxpoll"] = low
    elif isinstance(high, int) and low is None and high < 6:
        keys["minpoll"] = high


def decide_role(draft: Draft) -> None:
    """What is to be said and set once all servers are known. They are asked by the server's process, so that runs, and answers this machine
    alone if the other program served nobody."""
    if not draft.upstreams:
        return
    if draft.sources:
        why = "receivers come first here; servers are followed while no receiver can be used, and watch them else"
        draft.tell(Line(0, ("the servers' time counts as much as a receiver's",)), Fate.TAKEN, why)
    if draft.values.get(("server", "enabled"), (True, None))[0] is False:
        del draft.values["server", "enabled"]
        nobody = Line(0, ("it serves nobody, and who asks servers is the server's process",))
        draft.put("server", "listen", ("127.0.0.1:123", "[::1]:123"), nobody)


# ---- timesyncd.conf -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Span:
    """A key with a span of time -> key of ``[[upstream]]``. ``is_poll``: log2 of it."""

    key: str
    is_poll: bool


_SPANS: Final = {
    "rootdistancemaxsec": _Span("maxdistance_ms", False),
    "pollintervalminsec": _Span("minpoll", True),
    "pollintervalmaxsec": _Span("maxpoll", True),
}
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hr": 3600.0, "d": 86_400.0}
"""Units of systemd.time(7) -> s."""
_TIMESYNCD_TOLD: Final = {
    "connectionretrysec": "names and servers are tried again at growing intervals",
    "saveintervalsec": "what was learned is kept in the directory run.state",
}


def seconds(text: str) -> float | None:
    """A span of time of systemd.time(7) such as "1min 30s"; None: it is none."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower(), re.ASCII)
    if not parts or re.sub(r"\d+(?:\.\d+)?\s*[a-z]*\s*", "", text.lower(), flags=re.ASCII).strip():
        return None
    if any(unit not in _UNITS for _, unit in parts):
        return None
    return number(str(sum(float(amount[:18]) * _UNITS[unit] for amount, unit in parts)))


def import_timesyncd(text: str, origin: str) -> Draft:
    """A timesyncd.conf."""
    draft = Draft(origin)
    draft.put("clock", "steer", "kernel", Line(0, ("systemd-timesyncd keeps the system clock",)))
    draft.put("clock", "step", "always", Line(0, ("systemd-timesyncd steps the clock when it is far off",)))
    draft.put("server", "enabled", False, Line(0, ("systemd-timesyncd serves nobody",)))
    servers: dict[str, list[tuple[str, Line]]] = {"ntp": [], "fallbackntp": []}
    keys: dict[str, str | int | float | bool] = {}
    for at, raw in enumerate(text.splitlines(), 1):
        words = tuple(raw.replace("=", " = ", 1).split())
        if not words or words[0][0] in "#;":
            continue
        line = Line(at, words)
        draft.lines.append(line)
        name, value = words[0].lower(), " ".join(words[2:])
        if words[0].startswith("["):
            draft.tell(line, Fate.NOT_NEEDED, "tables have their own names here")
        elif name in servers:
            servers[name] = [*servers[name], *((host, line) for host in words[2:])] if len(words) > 2 else []
        elif name in _SPANS:
            _span(draft, line, keys, _SPANS[name], seconds(value))
        elif name in _TIMESYNCD_TOLD:
            draft.tell(line, Fate.NOT_NEEDED, _TIMESYNCD_TOLD[name])
        else:
            draft.tell(line, Fate.WRONG, "no such key is known")
    _order(keys)
    for host, line in servers["ntp"] or servers["fallbackntp"]:
        draft.upstream("server", line, host=host, **keys)
    if servers["ntp"]:
        for line in dict.fromkeys(line for _, line in servers["fallbackntp"]):
            draft.tell(line, Fate.NOT_NEEDED, "servers are named by NTP=, so these were not asked")
    elif not servers["fallbackntp"]:
        draft.tell(Line(0, ("NTP=",)), Fate.MISSING, "it names no server: those are built into systemd-timesyncd, or come by DHCP")
    decide_role(draft)
    return draft


def _span(draft: Draft, line: Line, keys: dict[str, str | int | float | bool], span: _Span, given_s: float | None) -> None:
    if given_s is None or given_s <= 0:
        draft.tell(line, Fate.WRONG, "a span of time is expected")
        return
    if span.is_poll:
        keys[span.key] = min(max(round(log2(given_s)), 0), 17)
    else:
        keys[span.key] = min(max(given_s * 1e3, 0.001), 16_000.0)
    draft.tell(line, Fate.TAKEN, f"as {span.key} of its servers")
