"""Directives of chrony.conf and ntp.conf that are no setting here, each with the reason, and what is written here instead of the others.

The words are those of chrony 4.9 (conf.c), ntpsec 1.2.5 and ntp 4.2.8 (ntp_parser.y, keyword-gen.c). ``import_chrony`` and ``import_ntp``
take the other directives over. ``toml_text`` tells both kinds to a person who writes one into refclock.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Fate(StrEnum):
    """What becomes of a directive; the value is what people are told."""

    TAKEN = "taken over"
    NOT_NEEDED = "not needed"
    MISSING = "not there yet"
    WRONG = "not understood"
    REFUSED = "left out"


OTHERWISE: Final = "other servers are asked one by one, as [[upstream]] tables name them: there is no broadcast client"
"""Why other ways to hear of servers are not taken over."""

CHRONY_TOLD: Final = {
    (Fate.MISSING, "requests leave by the interface that the routes say, from its address"): "bindacqaddress bindacqdevice",
    (Fate.MISSING, "one server is a witness, and two that agree may contradict a receiver; no other number is set"): "minsources",
    (Fate.MISSING, "servers with and without a key have the same vote: trust = true for those that alone shall vote"): "authselectmode",
    (Fate.NOT_NEEDED, "every request leaves from a port of its own (RFC 9109)"): "acquisitionport",
    (Fate.NOT_NEEDED, "a name is resolved again when a server behind it no longer answers"): "refresh",
    (Fate.NOT_NEEDED, "the first corrections may step the clock: clock.step; its servers are [[upstream]] tables"): "initstepslew",
    (Fate.MISSING, "NTS of the server is written by hand: [nts] enabled = true, certificate and key or the box's own, server"): (
        "ntsntpserver ntsport ntsservercert ntsserverkey"
    ),
    (Fate.NOT_NEEDED, "sessions, keys and their age are limited without tuning, and kept in the directory run.state"): (
        "ntsaeads ntscachedir ntsdumpdir ntsprocesses ntsrefresh ntsrotate ntsratelimit maxntsconnections"
    ),
    (Fate.NOT_NEEDED, "with ca of a server the system's authorities are not believed for it"): "nosystemcert",
    (Fate.MISSING, "stamps of the network card; packets are stamped by the kernel"): "hwtimestamp hwtstimeout maxtxbuffers",
    (Fate.MISSING, "NTP over PTP"): "ptpport ptpdomain",
    (Fate.MISSING, "logs of measurements; refclock status --json has what they would hold"): "log logdir logbanner",
    (Fate.MISSING, "mail; the log tells it, and refclock status --json names what is the matter"): "mailonchange logchange",
    (Fate.MISSING, "signing for Samba"): "ntpsigndsocket",
    (Fate.MISSING, "a time that is typed in; it comes from receivers"): "manual",
    (Fate.NOT_NEEDED, "a time that nobody knows is not served: clients are told so, and in holdover how far it may be off"): "local",
    (Fate.NOT_NEEDED, "what was learned is kept in the directory run.state"): "driftfile dumpdir dumponexit",
    (Fate.NOT_NEEDED, "the real-time clock is kept by the kernel while the system clock is synchronised"): (
        "rtcautotrim rtcdevice rtcfile rtconutc rtcsync hwclockfile"
    ),
    (Fate.NOT_NEEDED, "sources are chosen by agreement of their intervals, and measured without tuning"): (
        "combinelimit reselectdist stratumweight maxjitter minsamples maxsamples minstratum maxstratum"
    ),
    (Fate.NOT_NEEDED, "how fast and how far the clock is corrected follows from what the crystal and the samples show"): (
        "corrtimeratio maxclockerror maxdrift maxslewrate maxupdateskew clockprecision fallbackdrift"
    ),
    (Fate.NOT_NEEDED, "the thermometer is found and learned: clock.temperature"): "tempcomp",
    (Fate.NOT_NEEDED, "the table of leap seconds is leap.file; tzdata ships it"): "leapsectz",
    (Fate.NOT_NEEDED, "UTC is served through a leap second; the system clock's own is announced to the kernel"): "leapsecmode",
    (Fate.NOT_NEEDED, "chronyc is answered wherever chronyc.listen says, and cannot change anything"): "bindcmddevice opencommands",
    (Fate.NOT_NEEDED, "answers to chronyc are limited for all other machines together"): "cmdratelimit",
    (Fate.NOT_NEEDED, "clients are counted in a table of a fixed size: server.client_table_mib"): "noclientlog",
    (Fate.NOT_NEEDED, "no file holds the process's number"): "pidfile",
    (Fate.NOT_NEEDED, "the server gives up root before the first packet: run.user"): "user",
    (Fate.NOT_NEEDED, "the threads that answer never wait for Python, and memory is touched once"): "lock_all sched_priority",
    (Fate.NOT_NEEDED, "chronyd itself no longer has it"): "commandkey generatecommandkey linux_freq_scale linux_hz",
}
"""(What becomes of it, why) -> directives of chrony.conf that are no setting here."""

NTP_TOLD: Final = {
    (Fate.MISSING, OTHERWISE): "manycastclient broadcastclient multicastclient broadcastdelay unpeer unconfig pollskewlist mdnstries ttl",
    (Fate.MISSING, "nobody is served by manycast: clients ask the address"): "manycastserver",
    (Fate.MISSING, "NTS of the server is written by hand: [nts] enabled = true; of servers: nts and ca in [[upstream]]"): (
        "nts aead cert ca cookie mintls maxtls tlsciphersuites tlsecdhcurves tlscipherserverpreference"
    ),
    (Fate.MISSING, "Autokey is broken (RFC 8633) and not there; symmetric keys are (keys.file)"): "crypto keysdir revoke automax ident",
    (Fate.MISSING, "signing for Samba"): "ntpsigndsocket",
    (Fate.MISSING, "logs of measurements; refclock status --json has what they would hold"): ("statsdir statistics filegen"),
    (Fate.MISSING, "there are no traps, no simulation of this kind and no telephone"): "trap simulate phone",
    (Fate.MISSING, "a clock's devices are named in its [[source]]"): "device",
    (Fate.NOT_NEEDED, "every key of keys.file is trusted; take out those that shall not be"): "trustedkey",
    (Fate.NOT_NEEDED, "nothing can be changed over the network"): "controlkey requestkey saveconfigdir setvar extra",
    (Fate.NOT_NEEDED, "what was learned is kept in the directory run.state"): "driftfile nonvolatile",
    (Fate.NOT_NEEDED, "sources are chosen by agreement of their intervals; a time that nobody knows is not served"): "tos",
    (Fate.NOT_NEEDED, "the log goes to standard error, so to the journal: log.level, log.format"): "logfile logconfig",
    (Fate.NOT_NEEDED, "no file holds the process's number"): "pidfile",
    (Fate.NOT_NEEDED, "the threads that answer never wait for Python"): "rlimit",
    (Fate.NOT_NEEDED, "counters begin with the process"): "reset",
    (Fate.NOT_NEEDED, "the kernel's tick stays as it is"): "tick",
}
"""The same of ntp.conf."""

_SOURCES: Final = 'sources are [[source]] tables with type = "receiver", "gpsd", "pps", "shm" or "sock"'
_SERVERS: Final = "NTP servers are [[upstream]] tables with a host; clock.upstreams says what they may do"
_HERE: Final = {
    _SOURCES: "refclock fudge",
    _SERVERS: "server pool peer iburst initstepslew sourcedir",
    'address and port stand together in listen of [server]: listen = ["0.0.0.0:123", "[::]:123"]': "port bindaddress listen-address",
    "the interface is interface of [server]": "binddevice nic interface",
    'rules are lists in [access]: allow = ["192.168.0.0/16"], deny = [...]': "allow deny restrict unrestrict delrestrict",
    "limits are rate, burst and leak of [limits]": "ratelimit discard limit",
    "who asks with chronyc, and where, is allow, listen and socket of [chronyc]": "allowcmd bindcmdaddress cmdallow cmddeny cmdport",
    "memory for clients is client_table_mib of [server]": "clientloglimit mru",
    "broadcasts are broadcast and broadcast_key of [server]": "broadcast",
    "DSCP is dscp of [server]": "dscp",
    "when the system clock may be stepped is step of [clock]; how far off is too far is panic_s": "makestep tinker maxchange",
    'keys are in a file: file = "/etc/refclock/keys" of [keys]': "keyfile keys",
    "the table of leap seconds is file of [leap]": "leapseclist leapfile",
    "a smeared leap second is leap_smear of [server]": "smoothtime leapsmearinterval",
    'what sets the system clock is steer of [clock]: "none" or "kernel"': "disable enable",
    "there is one file: leave it out, and write what it names into this one": "include includefile confdir end",
    "not needed here: leave it out": "orphan mlockall",
}
"""What is written here instead -> words of these programs."""


def _told(table: Mapping[tuple[Fate, str], str]) -> dict[str, str]:
    return {word: f"{fate}: {why}" for (fate, why), words in table.items() for word in words.split()}


COUNTERPARTS: Final = _told(NTP_TOLD) | _told(CHRONY_TOLD) | {word: what for what, words in _HERE.items() for word in words.split()}
"""Word: what is written here instead, or why there is nothing."""
