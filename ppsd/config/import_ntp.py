"""ntp.conf to a Draft: every directive of ntpsec 1.2.5 and of ntp.org's ntpd 4.2.8 (their ntp.conf(5) and keyword lists)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from ppsd.config.directives import NTP_TOLD, Fate
from ppsd.config.import_chrony import DEEPEST
from ppsd.config.import_servers import asked_server, decide_role
from ppsd.config.imported import (
    Draft,
    Line,
    Look,
    Settings,
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

EVERYBODY: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))
"""What the default entry of each kind is for."""

# ---- who may ask ----------------------------------------------------------------------------------------------------------------------


def _networks(words: list[str]) -> tuple[tuple[IPv4Network | IPv6Network, ...], list[str]] | str:
    """The networks that ``restrict`` names, and the flags behind; or why there is none. ``words``: behind the directive."""
    kinds = {"-4": (EVERYBODY[0],), "-6": (EVERYBODY[1],)}
    stated = kinds.get(words[0]) if words else None
    words = words[stated is not None :]
    if not words:
        return "an address is expected"
    where, rest = words[0].lower(), words[1:]
    if where == "default":
        return stated or EVERYBODY, rest
    if where == "source":
        return "is for servers that are asked: they are heard, and may ask no more than others"
    if rest[:1] == ["mask"] and len(rest) > 1 and "/" not in where:
        where, rest = f"{where}/{rest[1]}", rest[2:]
    try:
        host, _, mask = where.partition("/")
        if ":" in mask:
            bits = int(IPv6Address(mask))
            length = bits.bit_count()
            if bits != (1 << 128) - (1 << 128 - length):
                raise ValueError
            where = f"{host}/{length}"
        elif "." in mask and IPv4Network(f"0.0.0.0/{mask}").netmask != IPv4Address(mask):
            raise ValueError  # a host mask, which ntpd does not know
        return (ip_network(where, strict=False),), rest
    except ValueError:
        return "names and masks with gaps are not looked up: write the network into access.allow, access.deny or access.ignore"


_HARMLESS: Final = {
    "nomodify": "nothing can be changed over the network",
    "noquery": "the daemon answers no queries of its state to the network",
    "nomrulist": "the daemon answers no queries of its state to the network",
    "notrap": "there are no traps",
    "lowpriotrap": "there are no traps",
    "nopeer": "nobody becomes a peer by asking",
    "noepeer": "nobody becomes a peer by asking",
    "kod": "kiss-o'-death packets are sent, limited for all clients together: limits.kod_rate",
    "limited": "the requests of each client are limited: limits.rate, limits.burst",
    "limit": "the requests of each client are limited: limits.rate, limits.burst",
    "version": "versions 1 to 4 are answered, others are not",
}
_STRANGE: Final = {
    "ntpport": "rules do not look at the client's port, so it holds for every port",
    "non-ntpport": "rules do not look at the client's port, so it holds for every port",
    "flake": "no request is dropped by chance",
    "mssntp": "signing for Samba",
    "ippeerlimit": "nobody becomes a peer by asking",
}


class _Restrictions:
    """The table of restrictions: the flags of each network, which add up; the longest prefix decides."""

    def __init__(self, line: Line) -> None:
        self.flags: dict[IPv4Network | IPv6Network, tuple[set[str], Line]] = {net: (set(), line) for net in EVERYBODY}

    def restrict(self, draft: Draft, line: Line) -> None:
        """``restrict`` and its flags."""
        found = _networks(list(line.words[1:]))
        if isinstance(found, str):
            draft.tell(line, Fate.NOT_NEEDED if found.startswith("is for") else Fate.MISSING, found)
            return
        nets, flags = found
        for net in nets:
            known, first = self.flags.get(net, (set(), line))
            self.flags[net] = (known | {flag.lower() for flag in flags}, line if net not in EVERYBODY or known == set() else first)
        for flag in map(str.lower, flags):
            if flag in _STRANGE:
                draft.tell(line, Fate.MISSING, f"{flag}: {_STRANGE[flag]}")
            elif flag not in _HARMLESS and flag not in ("ignore", "noserve", "notrust") and whole(flag) is None:
                draft.tell(line, Fate.WRONG, "a flag of it is not known")
        told = [f"{flag}: {_HARMLESS[flag]}" for flag in map(str.lower, flags) if flag in _HARMLESS]
        if told:
            draft.tell(line, Fate.NOT_NEEDED, "; ".join(dict.fromkeys(told)))

    def unrestrict(self, draft: Draft, line: Line) -> None:
        """``unrestrict`` and ``delrestrict``: take flags away, or the entry."""
        found = _networks(list(line.words[1:]))
        if isinstance(found, str):
            draft.tell(line, Fate.MISSING, found)
            return
        nets, flags = found
        for net in nets:
            known, first = self.flags.get(net, (set(), line))
            if flags or net in EVERYBODY:
                self.flags[net] = (known - {flag.lower() for flag in flags}, first)
            else:
                self.flags.pop(net, None)
        draft.tell(line, Fate.TAKEN, "")

    def carry_out(self, draft: Draft) -> None:
        """The rules that come of it."""
        told = False
        for net, (flags, line) in self.flags.items():
            action = next(
                (action for flag, action in (("ignore", "ignore"), ("noserve", "deny"), ("notrust", "authenticated")) if flag in flags),
                "allow",
            )
            draft.rules[net] = (action, line)
            told = told or (action == "deny" and "kod" in flags)
            if action == "deny":
                draft.put("access", "denied", "kod" if told else "silence", line)


# ---- sources --------------------------------------------------------------------------------------------------------------------------

_DRIVERS: Final = {
    "local": 1,
    "spectracom": 4,
    "truetime": 5,
    "generic": 8,
    "arbiter": 11,
    "modem": 18,
    "nmea": 20,
    "pps": 22,
    "hpgps": 26,
    "shm": 28,
    "trimble": 29,
    "oncore": 30,
    "jjy": 40,
    "zyfer": 42,
    "gpsd": 46,
}
"""Numbers of the drivers by the names that ntpsec gives them (refclock_conf.c)."""
_LOCAL, _NMEA, _PPS, _SHM, _GPSD = 1, 20, 22, 28, 46
_NMEA_BAUD: Final = (4800, 9600, 19200, 38400, 57600, 115200)
"""Baud by bits 4 to 6 of an NMEA clock's mode (refclock_nmea.c)."""
_FLAGS: Final = ("prefer", "noselect", "true", "iburst", "burst", "preempt", "xleave", "autokey", "nts", "-4", "-6")
_USED: Final = ("unit", "path", "ppspath", "mode", "baud", "refid", "time1", "time2", "flag2", "prefer", "noselect", "true")
"""Options of a clock that are taken over, or told of by its driver."""


def _clock_address(text: str) -> tuple[int, int] | None:
    """(driver, unit) of 127.127.DRIVER.UNIT; None: an address of a server."""
    match = re.fullmatch(r"127\.127\.(\d{1,3})\.(\d{1,3})", text, re.ASCII)
    return (int(match[1]), int(match[2])) if match else None


class _Clocks:
    """Reference clocks: the lines that make each and those that adjust it, together."""

    def __init__(self) -> None:
        self.stated: dict[tuple[int, int], tuple[Line, dict[str, str]]] = {}

    def server(self, draft: Draft, line: Line) -> None:
        """``server``, ``peer``, ``pool``: a clock when the address is one of 127.127."""
        clock = _clock_address(" ".join(line.words[1:2]))
        if clock is None:
            asked_server(draft, line)
        else:
            self._add(clock, line)

    def refclock(self, draft: Draft, line: Line) -> None:
        """``refclock DRIVER [unit N] options``, as ntpsec writes it."""
        driver = _DRIVERS.get(" ".join(line.words[1:2]).lower())
        if driver is None:
            draft.tell(line, Fate.WRONG, "no such driver is known")
            return
        unit = whole(dict(options(line.words[2:], _FLAGS)).get("unit", "0")) or 0
        self._add((driver, unit), line)

    def fudge(self, draft: Draft, line: Line) -> None:
        """``fudge``: adjusts the clock of that address."""
        clock = _clock_address(" ".join(line.words[1:2]))
        if clock is None:
            draft.tell(line, Fate.WRONG, "an address 127.127.DRIVER.UNIT is expected")
        elif clock not in self.stated:
            draft.tell(line, Fate.WRONG, "there is no clock of that address above it")
        else:
            draft.tell(line, Fate.TAKEN, "with the clock of that address")
            self._add(clock, line)

    def _add(self, clock: tuple[int, int], line: Line) -> None:
        first, known = self.stated.get(clock, (line, {}))
        self.stated[clock] = (first, known | dict(options(line.words[2:], _FLAGS)))

    def carry_out(self, draft: Draft) -> None:
        """The sources that come of them."""
        for (driver, unit), (line, stated) in self.stated.items():
            found = self._source(draft, driver, unit, line, stated)
            if found is None:
                continue
            for option in ("prefer", "noselect"):
                if option in stated:
                    found.keys[option] = True
            rest = [option for option in stated if option not in _USED]
            if rest:
                draft.tell(line, Fate.NOT_NEEDED, f"{', '.join(rest)}: samples are measured without tuning")
            if "true" in stated:
                found.keys["trust"] = True

    def _source(self, draft: Draft, driver: int, unit: int, line: Line, stated: dict[str, str]) -> Settings | None:
        time1_s, name = number(stated.get("time1", "0")) or 0.0, stated.get("refid", "")
        edge = "clear" if stated.get("flag2") == "1" else "assert"
        if driver == _NMEA:
            found = draft.source("receiver", line, name, device=stated.get("path", f"/dev/gps{unit}"))
            index = (whole(stated.get("mode", "0")) or 0) >> 4 & 7
            baud = whole(stated.get("baud", "")) or (_NMEA_BAUD[index] if "mode" in stated and index < len(_NMEA_BAUD) else 0)
            if baud:
                found.keys["baud"] = baud
            if "ppspath" in stated:
                found.keys |= {"pps": stated["ppspath"], "edge": edge}
            delayed(draft, line, found, time1_s)
            draft.tell(line, Fate.TAKEN, "the delay of its sentences (time2) is learned, and its pulse is looked for unless it is named")
            return found
        if driver == _PPS:
            found = draft.source("pps", line, name, pps=stated.get("ppspath", stated.get("path", f"/dev/pps{unit}")), edge=edge)
            delayed(draft, line, found, time1_s)
            return found
        if driver == _SHM:
            if unit < 4:
                beside_gpsd(draft, line)
            found = draft.source("shm", line, name, unit=unit)
            measured(draft, line, found, time1_s, 0.0)
            return found
        if driver == _GPSD:
            device = stated.get("path", "")
            found = draft.source("gpsd", line, name, **({"device": device} if device else {}))
            draft.tell(line, Fate.TAKEN, "its times are learned (time1, time2)")
            return found
        if driver == _LOCAL:
            what = "a time that nobody knows is not served: clients are told so, and in holdover how far it may be off"
            draft.tell(line, Fate.NOT_NEEDED, what)
        else:
            draft.tell(line, Fate.MISSING, f"there is no driver for clocks of type {driver}: receivers that speak NMEA or UBX are read")
        return None


# ---- all others -----------------------------------------------------------------------------------------------------------------------


def _leap_smear(draft: Draft, line: Line) -> None:
    if (whole(" ".join(line.words[1:2])) or 0) > 0:
        draft.put("server", "leap_smear", True, line)
        draft.tell(line, Fate.TAKEN, "the smear takes 24 h here, linearly, whatever its number is")


def _tinker(draft: Draft, line: Line) -> None:
    for option, text in options(line.words[1:], ()):
        value = number(text)
        if option == "panic" and value is not None:
            draft.put("clock", "panic_s", value or 1e9, line)
        elif option == "step" and value is not None:
            draft.put("clock", "step", "always" if value > 0 else "never", line)
        else:
            draft.tell(line, Fate.NOT_NEEDED, "how the clock is corrected follows from what the crystal and the samples show")


def _discard(draft: Draft, line: Line) -> None:
    """ntpd: ``average`` is log2 of seconds; ``minimum`` seconds."""
    average = whole(dict(options(line.words[1:], ())).get("average", ""))
    if average is not None and abs(average) <= 32:
        draft.put("limits", "rate", float(2.0**-average), line)
    draft.tell(line, Fate.NOT_NEEDED, "a client may send limits.burst requests at once, however close")


def _limit(draft: Draft, line: Line) -> None:
    """ntpsec: ``average`` and ``kod`` are packets a second, ``burst`` packets."""
    for option, text in options(line.words[1:], ()):
        value = number(text)
        if value is not None and option in ("average", "kod"):
            draft.put("limits", "rate" if option == "average" else "kod_rate", value, line)
        elif value is not None and option == "burst":
            draft.put("limits", "burst", int(value), line)
        else:
            draft.tell(line, Fate.WRONG, "an option of it is not known")


def _mru(draft: Draft, line: Line) -> None:
    for option, text in options(line.words[1:], ()):
        kibibytes = whole(text)
        if option == "maxmem" and kibibytes is not None:
            draft.put("server", "client_table_mib", min(4096, max(1, kibibytes >> 10)), line)
        else:
            draft.tell(line, Fate.NOT_NEEDED, "clients are counted in a table of a fixed size: server.client_table_mib")


def _broadcast(draft: Draft, line: Line) -> None:
    stated = dict(options(line.words[2:], _FLAGS))
    key, poll = whole(stated.get("key", "")), whole(stated.get("minpoll", "6"))
    try:
        address = ip_address(" ".join(line.words[1:2]))
    except ValueError:
        address = None
    if key is None or address is None:
        draft.tell(line, Fate.MISSING, "broadcasts are only sent with a key: server.broadcast and server.broadcast_key")
        return
    host = f"[{address}]" if address.version == 6 else str(address)
    draft.put("server", "broadcast_key", key, line)
    draft.put("server", "broadcast_poll", 6 if poll is None else poll, line)
    draft.put("server", "broadcast", (f"{host}:123",), line)


def _interface(draft: Draft, line: Line) -> None:
    """``interface ACTION WHICH``: listen on one address or interface; the others stay as they are."""
    action, which = " ".join(line.words[1:2]).lower(), " ".join(line.words[2:3])
    host = which.partition("/")[0]
    try:
        is_address = bool(ip_address(host))
    except ValueError:
        is_address = False
    if action == "listen" and is_address and "/" not in which:
        listen_on(draft, line, host=host)
    elif action == "listen" and which and which not in ("all", "ipv4", "ipv6", "wildcard") and not is_address:
        draft.put("server", "interface", which, line)
    elif action in ("ignore", "drop") and which == "wildcard":
        draft.tell(line, Fate.NOT_NEEDED, "replies leave from the address that was asked, also from a wildcard socket")
    else:
        draft.tell(line, Fate.MISSING, "addresses are served by naming them: server.listen, server.interface")


def _disable(draft: Draft, line: Line) -> None:
    if line.words[0].lower() == "disable" and "ntp" in map(str.lower, line.words[1:]):
        draft.put("clock", "steer", "none", line)
    else:
        draft.tell(line, Fate.NOT_NEEDED, "authentication is by access.authenticated, and nothing else of it can be switched")


def _ignored_end(draft: Draft, line: Line) -> None:
    draft.tell(line, Fate.NOT_NEEDED, "the file ends by itself")


_TAKEN: Final = {
    "broadcast": _broadcast,
    "disable": _disable,
    "discard": _discard,
    "dscp": dscp,
    "enable": _disable,
    "end": _ignored_end,
    "interface": _interface,
    "keys": key_file,
    "leapfile": leap_file,
    "leapsmearinterval": _leap_smear,
    "limit": _limit,
    "mru": _mru,
    "nic": _interface,
    "tinker": _tinker,
}
NTP: Final = directives(NTP_TOLD, _TAKEN)
"""Every directive of ntp.conf, but for those of reference clocks, restrictions and included files (TOGETHER)."""
TOGETHER: Final = (*("server", "peer", "pool", "refclock", "fudge", "restrict", "unrestrict", "delrestrict", "includefile"),)
"""Directives that are read together with others."""


def _lines(text: str, file: str, look: Look, depth: int) -> Iterator[Line]:
    """The directives of a text and of the files that it includes, in their order."""
    for at, raw in enumerate(text.splitlines(), 1):
        words = tuple(raw.partition("#")[0].replace('"', " ").replace("=", " = ").split())
        if not words:
            continue
        line = Line(at, words, file)
        yield line
        if words[0].lower() == "includefile" and depth < DEEPEST:
            for name, more in look(" ".join(words[1:2])):
                yield from _lines(more, name, look, depth + 1)


def import_ntp(text: str, origin: str, look: Look = nothing_included) -> Draft:
    """An ntp.conf. ``look``: how the files that it includes are read."""
    draft = Draft(origin)
    draft.put("clock", "steer", "kernel", Line(0, ("ntpd keeps the system clock",)))
    draft.put("clock", "step", "always", Line(0, ("ntpd steps the clock when it is far off",)))
    restrictions, clocks = _Restrictions(Line(0, ("ntpd serves everybody without restrict",))), _Clocks()
    together = {
        **dict.fromkeys(("server", "peer", "pool"), clocks.server),
        "refclock": clocks.refclock,
        "fudge": clocks.fudge,
        "restrict": restrictions.restrict,
        **dict.fromkeys(("unrestrict", "delrestrict"), restrictions.unrestrict),
    }
    for line in _lines(text, "", look, 1):
        draft.lines.append(line)
        word = line.words[0].lower()
        if word == "includefile":
            found = look(" ".join(line.words[1:2]))
            draft.tell(line, Fate.TAKEN, "its lines follow" if found else "there is no such file, or it may not be read")
        elif word in together:
            together[word](draft, line)
        else:
            draft.carry_out(NTP, line)
    clocks.carry_out(draft)
    restrictions.carry_out(draft)
    decide_role(draft)
    return draft
