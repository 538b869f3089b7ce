"""Words of chrony.conf and ntp.conf that people write into refclock.toml, and what is written here instead.

Sources: chrony.conf(5); ntp.conf(5) of ntpd and of ntpsec.
"""

from __future__ import annotations

from typing import Final

_SOURCES: Final = 'sources are [[source]] tables with type = "receiver", "gpsd", "pps", "shm" or "sock"'
_SERVERS: Final = (
    "time is taken from receivers; to use NTP servers as well, let chronyd or ntpd keep the clock, and feed it (refclock feed)"
)
_LISTEN: Final = 'address and port stand together in listen of [server]: listen = ["0.0.0.0:123", "[::]:123"]'
_ACCESS: Final = 'rules are lists in [access]: allow = ["192.168.0.0/16"], deny = [...]'
_LIMITS: Final = "limits are rate, burst and leak of [limits]"
_STEP: Final = "when the system clock may be stepped is step of [clock]; how far off is too far is panic_s"
_STATE: Final = "not needed: refclock keeps its state in the directory state of [run]"
_KEYS: Final = 'keys are in a file: file = "/etc/refclock/keys" of [keys]'
_LEAP: Final = "the table of leap seconds is file of [leap]"
_LOG: Final = "the log is described by [log], and goes to standard error"
_NOTHING: Final = "not needed here: leave it out"
_WORDS: Final = {
    _SOURCES: ("refclock", "fudge"),
    _SERVERS: ("server", "pool", "peer", "iburst", "initstepslew", "sourcedir"),
    _LISTEN: ("port", "bindaddress", "listen-address"),
    "the interface is interface of [server]": ("binddevice", "nic"),
    _ACCESS: ("allow", "deny", "restrict"),
    _LIMITS: ("ratelimit", "discard"),
    "memory for clients is client_table_mib of [server]": ("clientloglimit", "noclientlog", "mru"),
    "broadcasts are broadcast and broadcast_key of [server]": ("broadcast",),
    _STEP: ("makestep", "tinker", "maxchange", "maxupdateskew", "maxslewrate"),
    _STATE: ("driftfile", "dumpdir", "dumponexit", "rtcfile", "rtcsync", "rtconutc", "rtcautotrim", "pidfile"),
    _KEYS: ("keyfile", "keys", "trustedkey", "requestkey", "controlkey", "keysdir", "authselectmode"),
    _LEAP: ("leapsectz", "leapseclist", "leapfile"),
    "a smeared leap second is leap_smear of [server]": ("leapsecmode", "smoothtime"),
    "the thermometer is temperature of [clock]": ("tempcomp",),
    _LOG: ("log", "logdir", "logbanner", "logchange", "logconfig", "logfile", "statsdir", "statistics", "filegen"),
    _NOTHING: (
        *("acquisitionport", "allowcmd", "bindacqaddress", "bindcmdaddress", "cmdallow", "cmddeny", "cmdport", "cmdratelimit"),
        *("combinelimit", "confdir", "corrtimeratio", "crypto", "disable", "enable", "hwtimestamp", "include", "includefile", "local"),
        *("lock_all", "mailonchange", "manual", "maxclockerror", "maxdistance", "maxjitter", "minsources", "minsamples", "maxsamples"),
        *("mlockall", "opencommands", "orphan", "reselectdist", "sched_priority", "stratumweight", "tos", "user", "fallbackdrift"),
    ),
}
COUNTERPARTS: Final = {word: what for what, words in _WORDS.items() for word in words}
"""Word: what is written here instead."""


def counterpart(word: str) -> str:
    """What is written here instead of ``word``; "" when it is no word of those files. They take it in any case (chrony.conf(5))."""
    return COUNTERPARTS.get(word.lower(), "")
