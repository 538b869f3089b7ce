"""chrony.conf to a Draft: every directive of chrony 4.9, and those that it no longer has (chrony.conf(5); conf.c of chronyd)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from ppsd.config.directives import CHRONY_TOLD, Fate
from ppsd.config.import_servers import asked_server, decide_role
from ppsd.config.imported import (
    MAPPED,
    Draft,
    Line,
    Look,
    beside_gpsd,
    delayed,
    directives,
    dscp,
    key_file,
    leap_file,
    listen_on,
    measured,
    nothing_included,
    number,
    options,
    whole,
)

DEEPEST: Final = 10
"""Files that include one another: chronyd's own limit (MAX_INCLUDE_LEVEL)."""

# ---- clients --------------------------------------------------------------------------------------------------------------------------


def network(text: str) -> IPv4Network | IPv6Network | None:
    """ "192.0.2.0/24", "2001:db8::/32", an address, or the short "192.168"; bits beyond the length do not count. None: none of these."""
    short = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?(?:/(\d{1,2}))?", text, re.ASCII)
    if short is not None:
        parts = [part for part in short.group(1, 2, 3) if part is not None]
        text = f"{'.'.join([*parts, '0', '0', '0'][:4])}/{short[4] or 8 * len(parts)}"
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _within(net: IPv4Network | IPv6Network) -> Iterator[IPv4Network | IPv6Network]:
    """The parts of ``net`` on which a later directive for all of it overrules earlier ones: chronyd keeps its table by 4 bits, and writes a
    network of another length into all entries of 4 bits that it has (addrfilt.c)."""
    for length in range(net.prefixlen + 1, -(-net.prefixlen // 4) * 4 + 1):
        yield from net.subnets(new_prefix=length)


def _admit(draft: Draft, line: Line, action: str) -> None:
    """``allow`` and ``deny``: [all] [network]."""
    words = list(line.words[1:])
    everything = bool(words) and words[0].lower() == "all"
    words = words[everything:]
    if len(words) > 1:
        draft.tell(line, Fate.WRONG, "one network is expected")
        return
    nets = [network(words[0])] if words else [ip_network("0.0.0.0/0"), ip_network("::/0")]
    for net in nets:
        if net is None:
            draft.tell(line, Fate.MISSING, "names are not looked up: write the address into access.allow or access.deny")
            return
        if isinstance(net, IPv6Network) and net.subnet_of(MAPPED):  # type: ignore[arg-type]  # both are of version 6
            draft.tell(line, Fate.NOT_NEEDED, "no client has such an address: IPv4 clients have their own")
            continue
        hidden = [old for old in draft.rules if old.version == net.version and old.subnet_of(net)] if everything else _within(net)  # type: ignore[arg-type]
        for old in hidden:
            draft.rules.pop(old, None)
        draft.rules.pop(net, None)
        draft.rules[net] = (action, line)
    draft.put("access", "denied", "silence", line)


def _allow(draft: Draft, line: Line) -> None:
    _admit(draft, line, "allow")


def _deny(draft: Draft, line: Line) -> None:
    _admit(draft, line, "deny")


def _ratelimit(draft: Draft, line: Line) -> None:
    """interval: log2 of seconds between requests; leak: log2 of the requests of which one is answered."""
    stated = {key: value for key, text in options(line.words[1:], ()) if (value := whole(text)) is not None}
    interval, leak = (max(-32, min(stated.get(key, default), 32)) for key, default in (("interval", 3), ("leak", 2)))
    draft.put("limits", "rate", 2.0**-interval, line)
    draft.put("limits", "burst", max(1, stated.get("burst", 8)), line)
    draft.put("limits", "leak", min(2 ** max(0, leak), 1_000_000), line)
    if stated.get("kod"):
        draft.tell(line, Fate.TAKEN, "without kod: kiss-o'-death packets go out at limits.kod_rate to all clients together")


def _clientloglimit(draft: Draft, line: Line) -> None:
    octets = number(" ".join(line.words[1:2]))
    if octets is None:
        draft.tell(line, Fate.WRONG, "a number of bytes is expected")
    else:
        draft.put("server", "client_table_mib", min(4096, max(1, int(octets) >> 20)), line)


# ---- the server -----------------------------------------------------------------------------------------------------------------------


def _port(draft: Draft, line: Line) -> None:
    port = whole(" ".join(line.words[1:2]))
    if port == 0:
        draft.put("server", "enabled", False, line)
    elif port is None or not 0 < port < 65536:
        draft.tell(line, Fate.WRONG, "a port is expected")
    elif port != 123:
        listen_on(draft, line, port=port)


def _bindaddress(draft: Draft, line: Line) -> None:
    """One address of each kind; the other kind stays open to all, as in chronyd."""
    address = network(" ".join(line.words[1:2]))
    if address is None or address.num_addresses != 1:
        draft.tell(line, Fate.WRONG, "an address is expected")
    else:
        listen_on(draft, line, host=str(address.network_address))


def _binddevice(draft: Draft, line: Line) -> None:
    draft.put("server", "interface", " ".join(line.words[1:2]), line)


def _smoothtime(draft: Draft, line: Line) -> None:
    if "leaponly" in map(str.lower, line.words):
        draft.put("server", "leap_smear", True, line)
        draft.tell(line, Fate.TAKEN, "the smear takes 24 h here, linearly, whatever its numbers are")
    else:
        draft.tell(line, Fate.NOT_NEEDED, "the served time is never stepped, so there is nothing to smooth")


# ---- chronyc --------------------------------------------------------------------------------------------------------------------------


def _cmdport(draft: Draft, line: Line) -> None:
    port = whole(" ".join(line.words[1:2]))
    if port is None or not 0 <= port < 65536:
        draft.tell(line, Fate.WRONG, "a port is expected")
    elif port == 0:
        draft.put("chronyc", "listen", (), line)
    else:
        listen_on(draft, line, "chronyc", port=port)


def _bindcmdaddress(draft: Draft, line: Line) -> None:
    """An address, or the path of the unix socket; "/" for none."""
    text = " ".join(line.words[1:2])
    address = network(text)
    if text.startswith("/"):
        draft.put("chronyc", "socket", text if text != "/" else "", line)
    elif address is None or address.num_addresses != 1:
        draft.tell(line, Fate.WRONG, "an address or a path is expected")
    elif draft.values.get(("chronyc", "listen"), (None, line))[0] != ():  # cmdport 0 holds for every address
        listen_on(draft, line, "chronyc", host=str(address.network_address))


def _asking(draft: Draft, line: Line, allowed: bool) -> None:
    """``cmdallow`` and ``cmddeny``: [all] [network]. There are only networks that may ask."""
    words = list(line.words[1:])
    words = words[bool(words) and words[0].lower() == "all" :]
    nets = [network(words[0])] if words else [ip_network("0.0.0.0/0"), ip_network("::/0")]
    before = draft.values.get(("chronyc", "allow"))
    told = before[0] if before is not None and isinstance(before[0], tuple) else ()
    for net in nets:
        if net is None:
            draft.tell(line, Fate.MISSING, "names are not looked up: write the address into chronyc.allow")
            return
        known = [ip_network(text) for text in told]
        told = tuple(str(old) for old in known if not (old.version == net.version and old.subnet_of(net)))  # type: ignore[arg-type]
        wider = next((old for old in known if old.version == net.version and old != net and net.subnet_of(old)), None)  # type: ignore[arg-type]
        if allowed and wider is None:
            told = (*told, str(net))
        elif not allowed and wider is not None:
            draft.tell(line, Fate.MISSING, f"a part of {wider} cannot be left out: write its other parts into chronyc.allow")
    draft.put("chronyc", "allow", told, line)


def _cmdallow(draft: Draft, line: Line) -> None:
    _asking(draft, line, allowed=True)


def _cmddeny(draft: Draft, line: Line) -> None:
    _asking(draft, line, allowed=False)


# ---- this machine's clock -------------------------------------------------------------------------------------------------------------


def _makestep(draft: Draft, line: Line) -> None:
    limit = whole(" ".join(line.words[2:3]))
    if number(" ".join(line.words[1:2])) is None or limit is None:
        draft.tell(line, Fate.WRONG, "a threshold and a limit are expected")
        return
    draft.put("clock", "step", "always" if limit < 0 else "never" if limit == 0 else "start", line)
    draft.tell(line, Fate.TAKEN, "the threshold of a step is not set here: steps are made at the start, slewing does the rest")


def _maxchange(draft: Draft, line: Line) -> None:
    most = number(" ".join(line.words[1:2]))
    draft.put("clock", "panic_s", most if most is not None else -1.0, line)
    draft.tell(line, Fate.TAKEN, "an error beyond it leaves the clock alone, from the first correction of a boot on; the daemon goes on")


# ---- sources --------------------------------------------------------------------------------------------------------------------------

_REFCLOCK_FLAGS: Final = ("local", "pps", "tai", "noselect", "prefer", "trust", "require", "optional")
_LEFT_OUT: Final = {
    "tai": "its samples are in TAI, 37 s off, and no source takes that",
    "local": "it only follows the local clock's frequency",
    "pps": "its samples are pulses without a second, which sock and shm sources do not take",
}
_TUNING: Final = (
    *("poll", "dpoll", "filter", "rate", "minsamples", "maxsamples", "maxunreach", "maxdispersion", "maxlockage", "precision", "stratum"),
    *("lock", "width", "optional"),
)


def _refclock(draft: Draft, line: Line) -> None:
    """driver, parameter[:options], options."""
    driver, parameter = "".join(line.words[1:2]).upper(), "".join(line.words[2:3])
    stated = dict(options(line.words[3:], _REFCLOCK_FLAGS))
    device, *details = parameter.split(":")
    for flag, why in _LEFT_OUT.items():
        if flag in stated and driver in ("SHM", "SOCK"):
            draft.tell(line, Fate.MISSING, why)
            return
    offset_s, delay_s = number(stated.get("offset", "0")) or 0.0, abs(number(stated.get("delay", "0")) or 0.0)
    name = stated.get("refid", "")
    if driver == "SHM" and whole(device) is not None:
        unit = whole(device) or 0
        if unit < 4:
            beside_gpsd(draft, line)
        found = draft.source("shm", line, name, unit=unit)
        measured(draft, line, found, offset_s, delay_s)
    elif driver == "SOCK":
        if re.search(r"chrony\.[^/]+\.sock$", parameter):
            beside_gpsd(draft, line)
        found = draft.source("sock", line, name, path=parameter)
        measured(draft, line, found, offset_s, delay_s)
    elif driver == "PPS":
        found = draft.source("pps", line, name, pps=device, edge="clear" if "clear" in details else "assert")
        delayed(draft, line, found, offset_s)
    else:
        known = {"PHC": "a PTP hardware clock is no source so far", "RTC": "a real-time clock is no source"}
        draft.tell(line, Fate.MISSING if driver in known else Fate.WRONG, known.get(driver, "no such driver is known"))
        return
    for option in ("prefer", "trust", "noselect"):
        if option in stated:
            found.keys[option] = True
    if "require" in stated:
        draft.tell(line, Fate.MISSING, "require: no source can be made a condition for the others")
    tuning = [word for word in stated if word in _TUNING]
    if tuning:
        draft.tell(
            line, Fate.NOT_NEEDED, f"{', '.join(tuning)}: samples are measured without tuning, and pulses numbered by what is served"
        )
    unknown = [word for word in stated if word not in (*_TUNING, *_REFCLOCK_FLAGS, "offset", "delay", "refid")]
    if unknown:
        draft.tell(line, Fate.WRONG, f"no option {unknown[0]} is known")


def _for_all_servers(draft: Draft) -> None:
    """``maxdistance`` holds for every server; ``ntstrustedcerts`` and ``nocerttimecheck`` for those with NTS."""
    by_nts = [settings for settings in draft.upstreams if settings.keys.get("nts")]
    for line in draft.lines:
        word, text = line.words[0].lower(), line.words[-1]
        if word == "maxdistance" and (limit_s := number(text)) is not None and limit_s > 0:
            for settings in draft.upstreams:
                settings.keys["maxdistance_ms"] = min(round(limit_s * 1e3, 3), 16_000.0)
        elif word == "ntstrustedcerts" and text.startswith("/"):
            for settings in by_nts:
                settings.keys["ca"] = text
        elif word == "nocerttimecheck" and (times := whole(text)) is not None:
            for settings in by_nts:
                settings.keys["unchecked_dates"] = min(max(times, 0), 16)


def _with_the_servers(draft: Draft, line: Line) -> None:
    draft.tell(line, Fate.TAKEN, "with each server for which it holds")


def _broadcast(draft: Draft, line: Line) -> None:
    draft.tell(line, Fate.MISSING, "broadcasts are only sent with a key: server.broadcast and server.broadcast_key")


_TAKEN: Final = {
    "allow": _allow,
    "binddevice": _binddevice,
    "bindaddress": _bindaddress,
    "bindcmdaddress": _bindcmdaddress,
    "broadcast": _broadcast,
    "clientloglimit": _clientloglimit,
    "cmdallow": _cmdallow,
    "cmddeny": _cmddeny,
    "cmdport": _cmdport,
    "deny": _deny,
    "dscp": dscp,
    "keyfile": key_file,
    "leapseclist": leap_file,
    "maxdistance": _with_the_servers,
    "nocerttimecheck": _with_the_servers,
    "ntstrustedcerts": _with_the_servers,
    "makestep": _makestep,
    "maxchange": _maxchange,
    "peer": asked_server,
    "pool": asked_server,
    "port": _port,
    "ratelimit": _ratelimit,
    "refclock": _refclock,
    "server": asked_server,
    "smoothtime": _smoothtime,
}
CHRONY: Final = directives(CHRONY_TOLD, _TAKEN)
"""Every directive of chrony.conf, but for those that include files."""
INCLUDES: Final = {"include": "", "confdir": "/*.conf", "sourcedir": "/*.sources"}
"""Directives that name other files, and the pattern of those in a directory."""


def _lines(text: str, file: str, look: Look, depth: int) -> Iterator[Line]:
    """The directives of a text and of the files that it includes, in their order."""
    for at, raw in enumerate(text.splitlines(), 1):
        words = tuple(raw.split())
        if not words or words[0][0] in "!;#%":
            continue
        line = Line(at, words, file)
        yield line
        pattern = INCLUDES.get(words[0].lower())
        if pattern is not None and depth < DEEPEST:
            for where in words[1:]:
                for name, more in look(f"{where}{pattern}"):
                    yield from _lines(more, name, look, depth + 1)


def import_chrony(text: str, origin: str, look: Look = nothing_included) -> Draft:
    """A chrony.conf. ``look``: how the files that it includes are read."""
    draft = Draft(origin)
    draft.put("clock", "steer", "kernel", Line(0, ("chronyd keeps the system clock",)))
    draft.put("clock", "step", "never", Line(0, ("chronyd steps no clock without makestep",)))
    for line in _lines(text, "", look, 1):
        draft.lines.append(line)
        if line.words[0].lower() in INCLUDES:
            found = any(look(f"{where}{INCLUDES[line.words[0].lower()]}") for where in line.words[1:])
            draft.tell(line, Fate.TAKEN, "its files follow" if found else "there is no such file, or it may not be read")
        else:
            draft.carry_out(CHRONY, line)
    if not any(action == "allow" for action, _ in draft.rules.values()):
        draft.rules.clear()
        draft.values.pop(("access", "denied"), None)
        draft.put("server", "enabled", False, Line(0, ("chronyd serves nobody without allow",)))
        what = "listen" if draft.upstreams else "enabled = false"
        why = f"it serves nobody, for there is no allow; leave out {what} to serve the own networks"
        draft.tell(Line(0, ("chronyd",)), Fate.TAKEN, why)
    _for_all_servers(draft)
    decide_role(draft)
    return draft
