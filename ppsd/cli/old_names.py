"""``refclock help OLD-NAME``: what the commands of other time programs are called here."""

from __future__ import annotations

from typing import Final

OLD_NAMES: Final[dict[str, tuple[str, str]]] = {
    # gpsd and its clients
    "gpsd": ("refclock run", "refclock reads the receiver itself; to leave the receiver to gpsd, give [[source]] type = \"gpsd\""),
    "cgps": ("refclock sats", "fix and satellites as a table and as the sky; refclock top shows them live, with the state"),
    "xgps": ("refclock sats", "satellites as a table and as the sky"),
    "gpsmon": ("refclock nmea", "every sentence and message of the receiver, with what became of it"),
    "gpspipe": ("refclock nmea", "every sentence and message of the receiver, with what became of it"),
    "gpsctl": ("refclock receiver", "show, configure or reset a receiver"),
    "ubxtool": ("refclock receiver", "show, configure or reset a receiver"),
    "gpsprof": ("refclock sourcestats", "deviation and frequency of each source"),
    "gpsfake": ("refclock run", "refclock run --sim has a simulated receiver; refclock replay FILE decodes a recording"),
    "ntpshmmon": ("refclock sources", "samples of SHM sources are in LastRx and Last sample; refclock feed checks those that go out"),
    "gpsinit": ("refclock setup", "sets the machine up, with the receiver and its pulse"),
    # pulses
    "ppstest": ("refclock pps", "prints every edge as ppstest does, and says whether it is a good pulse: refclock pps /dev/pps0 --test 10"),
    "ppswatch": ("refclock pps", "prints every edge of a pulse device"),
    "ppsfind": ("refclock detect", "names the pulse that belongs to each receiver"),
    "ppscheck": ("refclock pps", "give the serial line: refclock pps /dev/ttyS0:dcd"),
    "ldattach": ("refclock run", "not needed: refclock reads the control lines of the port itself"),
    # ntpd and ntpsec
    "ntpd": ("refclock run", "the server itself; it is a service where the package is installed"),
    "ntpq": ("refclock peers", "the billboard of ntpq -p; for ntpq -c rv see refclock tracking, for ntpq -c mrulist refclock clients -v"),
    "ntpmon": ("refclock top", "sources and clients live; refclock peers --watch follows the billboard alone"),
    "ntpdc": ("refclock peers", "the billboard of ntpq -p"),
    "ntpdate": ("refclock query", "asks a server as ntpdate -q does and sets nothing; [clock] steer = \"kernel\" keeps the clock right"),
    "ntpdig": ("refclock query", "asks one or more servers and sets nothing"),
    "sntp": ("refclock query", "asks one or more servers and sets nothing"),
    "ntptime": ("refclock tracking", "state and frequency of the clock"),
    "ntpwait": ("refclock waitsync", "waits until the clock is synchronised"),
    "ntptrace": ("refclock query", "this server is stratum 1: its receiver is the end of the trace"),
    "ntpstat": ("refclock status", "exit code 0 locked, 1 holdover, 2 not serving, 3 no daemon"),
    "ntpkeygen": ("refclock config", "keys are lines such as \"10 AES128 HEX:...\" in the file that keys.file names"),
    "ntpviz": ("refclock history", "refclock history export --loopstats and --peerstats write the files that ntpviz reads"),
    "mrulist": ("refclock clients", "who asks, the latest first; -v with version, age and key"),
    "monlist": ("refclock clients", "who asks, the latest first"),
    "lpeers": ("refclock peers", "the billboard of ntpq -p"),
    "apeers": ("refclock peers", "the billboard of ntpq -p"),
    "pe": ("refclock peers", "the billboard of ntpq -p"),
    "rv": ("refclock tracking", "state and frequency of the clock; with every value: refclock status --json"),
    "readvar": ("refclock tracking", "state and frequency of the clock; with every value: refclock status --json"),
    "sysinfo": ("refclock tracking", "state and frequency of the clock"),
    "sysstats": ("refclock serverstats", "packets by what became of them"),
    "monstats": ("refclock clients", "who asks; the last line says how many are not shown"),
    "ifstats": ("refclock status", "refclock status --json has the addresses that are served"),
    "associations": ("refclock sources", "the sources and their states"),
    "as": ("refclock sources", "the sources and their states"),
    "restrict": ("refclock access", "rules are [access] allow, deny, ignore; refclock access test ADDRESS tries one"),
    # chrony
    "chronyd": ("refclock run", "the server itself; chronyd -Q is refclock query, chronyd -p is refclock config"),
    "chronyc": ("refclock sources", "its reports have the same names here: sources, sourcestats, tracking, serverstats, clients, activity"),
    "accheck": ("refclock access", "refclock access test ADDRESS"),
    "allow": ("refclock access", "write [access] allow in the configuration, then refclock reload"),
    "deny": ("refclock access", "write [access] deny in the configuration, then refclock reload"),
    "rtcdata": ("refclock doctor", "RC23 examines the battery clock"),
    "makestep": ("refclock config", "[clock] step says when the clock may be stepped"),
    "burst": ("refclock query", "asks a server several times: refclock query HOST -n 8"),
    "online": ("refclock sources", "a receiver is used as soon as it speaks: nothing is to be switched"),
    "offline": ("refclock sources", "a receiver is used as soon as it speaks: nothing is to be switched"),
    "dump": ("refclock status", "what is learned is saved by itself"),
    "cyclelogs": ("refclock status", "the log goes to standard error, and whoever keeps it rotates it"),
    "rekey": ("refclock reload", "reads configuration and keys again"),
    "shutdown": ("refclock status", "stop the service (systemctl stop), or end refclock run with ^C"),
    # systemd, ntpd-rs, satpulse and others
    "timedatectl": ("refclock status", "timedatectl set-ntp off leaves the clock to refclock; refclock doctor says who else sets it"),
    "systemd-timesyncd": ("refclock doctor", "RC20 says whether it sets the clock as well"),
    "ntp-ctl": ("refclock status", "ntp-ctl validate is refclock config check"),
    "openntpd": ("refclock status", "ntpctl -s all is refclock status"),
    "ntpctl": ("refclock status", "ntpctl -s all is refclock status"),
    "satpulsetool": ("refclock receiver", "show, configure or reset a receiver; refclock replay FILE decodes a recording"),
    "phc2sys": ("refclock run", "[clock] steer = \"kernel\" keeps the system clock"),
    "ptp4l": ("refclock run", "PTP is not served"),
    "w32tm": ("refclock query", "w32tm /stripchart is refclock query HOST -n 8"),
    "check_ntp_time": ("refclock status", "its exit code is the check; of another server: refclock query HOST"),
    "check_ntp_peer": ("refclock status", "its exit code is the check"),
    "dmesg": ("refclock detect", "finds receivers and pulses, and who holds their devices"),
    "minicom": ("refclock nmea", "shows what a receiver sends; the speed is found"),
    "chrony_exporter": ("refclock metrics", "the same names are told at http://127.0.0.1:9124/metrics?compat=chrony"),
    "node_exporter": ("refclock metrics", "refclock metrics --output FILE writes for its textfile collector"),
    "adjtimex": ("refclock doctor", "RC20 to RC29 examine the machine's clocks"),
}  # fmt: skip
"""Name of a program, or of a command of one, to our command and a sentence."""


def here(name: str) -> str:
    """What ``name`` is called here, in two lines."""
    command, words = OLD_NAMES[name]
    return f"{name}: here it is  {command}\n{words}"
