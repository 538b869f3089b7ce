"""Who else sets CLOCK_REALTIME: one list of programs, for the clock process, which refuses to fight over it, and for the doctor.

A process is a rival when it is a known program (by the name of its process, of its file or of its command line), runs in a way that sets
the clock, and has the right to (CAP_SYS_TIME in the first user namespace: user_namespaces(7), adjtimex(2)). Where the kernel does not tell
about the right, it is assumed.

A library that is preloaded is no alibi: it may be an allocator. Only a simulated clock is, which the environment names.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from refclock.kernel.host import Host

CAP_SYS_TIME: Final = 1 << 25
"""Bit of the right to set the clock in the masks of /proc/*/status (capabilities(7), linux/capability.h)."""
CAP_SYS_ADMIN: Final = 1 << 21
"""Bit of the right to administer the machine."""
FIRST_USERS: Final = "user:[4026531837]"
"""The first user namespace (PROC_USER_INIT_INO of include/linux/proc_ns.h). In any other CAP_SYS_TIME is no right to set the clock."""
SIMULATED_CLOCKS: Final = ("REFCLOCK_FAKE_CLOCK", "CLKNETSIM_SOCKET")
"""Variables by which a preloaded library is told which simulated clock to lend: hw-sim/fake_clock.c, clknetsim."""


class Rival(NamedTuple):
    """A process that sets CLOCK_REALTIME. ``name``: the program's. ``remedy``: what keeps it from doing so, in words or as a command."""

    name: str
    pid: int
    remedy: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


class Options(NamedTuple):
    """A command line. ``letters``: letter -> its values. ``others``: long options and arguments."""

    letters: Mapping[str, Sequence[str]]
    others: Sequence[str]

    def value(self, name: str) -> str | None:
        """The value of the long option ``name``, as "--name=value" or "--name value"; None without it."""
        for word, after in pairwise([*self.others, ""]):
            if word == f"--{name}":
                return after
            if word.startswith(f"--{name}="):
                return word.partition("=")[2]
        return None


def _always(host: Host, options: Options) -> bool:
    del host, options
    return True


def _chronyd(host: Host, options: Options) -> bool:
    """Sets the clock unless told to leave it alone (-x) or to measure only (-Q): chronyd(8)."""
    del host
    return not options.letters.keys() & {"x", "Q"}


def _busybox(host: Host, options: Options) -> bool:
    """Its ntpd sets the clock, unless it only measures (-w): busybox, networking/ntpd.c."""
    del host
    return "ntpd" in options.others and "w" not in options.letters


def _phc2sys(host: Host, options: Options) -> bool:
    """Sets the clock when CLOCK_REALTIME is the sink (-c, the default; with -a only by -r) and a servo follows: phc2sys(8)."""
    del host
    if set(options.letters.get("E", ())) & {"ntpshm", "refclock_sock"}:  # hands samples to another program
        return False
    return "r" in options.letters if "a" in options.letters else "CLOCK_REALTIME" in options.letters.get("c", ("CLOCK_REALTIME",))


def _ptp4l(host: Host, options: Options) -> bool:
    """Sets the clock with software time stamping. With hardware time stamping, the default, it sets the network card's clock: ptp4l(8)."""
    if options.value("free_running") == "1":
        return False
    if not options.letters.keys() & {"i", "f"}:  # it names no port, so what it does is not known
        return True
    if "S" in options.letters or options.value("time_stamping") == "software":
        return True
    lines = (line.split() for file in options.letters.get("f", ()) for line in (host.text(file) or "").splitlines())
    return ["time_stamping", "software"] in lines


def _ts2phc(host: Host, options: Options) -> bool:
    """Sets the clocks of network cards, which -c or sections of its file name: ts2phc(8). Where nothing names them, it is not known."""
    sinks = list(options.letters.get("c", ()))
    for file in options.letters.get("f", ()):
        sinks += [name for name in re.findall(r"^\[([^\]\s]+)\]", host.text(file) or "", re.MULTILINE) if name not in ("global", "nmea")]
    return not sinks or "CLOCK_REALTIME" in sinks


def _vmware(host: Host, options: Options) -> bool:
    """May set the clock whenever its host wants it to, unless its file says never (open-vm-tools, tools.conf)."""
    del options
    return _setting(host, "/etc/vmware-tools/tools.conf", "timesync", "disable-all") not in ("true", "1", "yes")


def _virtualbox(host: Host, options: Options) -> bool:
    """Sets the clock to its host's every ten seconds, unless told not to: VirtualBox user manual, VBoxService."""
    del host
    return "--disable-timesync" not in options.others


def _connman(host: Host, options: Options) -> bool:
    """Has an NTP client of its own, unless the user switched it off (connman, doc/clock-api.txt: TimeUpdates)."""
    del options
    return _setting(host, "/var/lib/connman/settings", "global", "timeupdates") != "manual"


def _setting(host: Host, file: str, section: str, key: str) -> str:
    """The value of a key of an INI file, in lower case; names are compared without regard to case. "" without it."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string(host.text(file) or "")
    except configparser.Error:
        return ""
    found = next((name for name in parser.sections() if name.lower() == section), None)
    return (parser.get(found, key, fallback="") or "").lower() if found is not None else ""


class _Program(NamedTuple):
    """A program that sets the clock. ``sets``: whether it does when run in a given way. ``taking``: letters that take a value. ``unit``:
    the systemd unit that usually runs it. ``instead``: how to have it leave the clock alone without ending it."""

    sets: Callable[[Host, Options], bool] = _always
    taking: str = ""
    unit: str = ""
    instead: str = ""


_VMWARE: Final = _Program(
    _vmware, unit="open-vm-tools", instead="put [timeSync] and disable-all=true into /etc/vmware-tools/tools.conf, then restart it"
)
_PTPD: Final = _Program(unit="ptpd")
PROGRAMS: Final[Mapping[str, _Program]] = {
    "chronyd": _Program(_chronyd, "fFlLPtu", "chrony", "run it with -x"),
    "ntpd": _Program(unit="ntpsec"),  # also ntp's and OpenNTPD's
    "xntpd": _Program(),
    "openntpd": _Program(unit="openntpd"),
    "ntp-daemon": _Program(unit="ntpd-rs"),
    "ntpd-rs": _Program(unit="ntpd-rs"),
    "ntimed-client": _Program(unit="ntimed"),
    "ntpclient": _Program(),
    "systemd-timesyncd": _Program(unit="systemd-timesyncd"),
    "busybox": _Program(_busybox, "ISkp", "ntpd", "run it with -w"),
    "phc2sys": _Program(_phc2sys, "cdsEPISFRNOLMiunzltf", "phc2sys", "give it another sink than CLOCK_REALTIME, or -E ntpshm"),
    "ptp4l": _Program(_ptp4l, "fipl", "ptp4l", "give it hardware time stamping (-H) or --free_running 1"),
    "ts2phc": _Program(_ts2phc, "cfls", "ts2phc", "name a network card as its sink (-c)"),
    "ptpd": _PTPD,
    "ptpd2": _PTPD,
    "statime": _Program(unit="statime"),
    "clockspeed": _Program(),
    "htpdate": _Program(unit="htpdate"),
    "tlsdated": _Program(unit="tlsdated"),
    "adjtimed": _Program(),
    "connmand": _Program(_connman, "", "connman", "put TimeUpdates=manual under [global] in /var/lib/connman/settings, then restart it"),
    "vmtoolsd": _VMWARE,
    "vmware-guestd": _VMWARE,
    "VBoxService": _Program(_virtualbox, "", "virtualbox-guest-utils", "start it with --disable-timesync"),
    "prltoolsd": _Program(unit="prltoolsd", instead="switch time synchronisation off in the virtual machine's settings"),
}
"""Programs that set CLOCK_REALTIME, by name."""
_COMM: Final = {name[:15]: name for name in PROGRAMS}
"""The same names as proc(5) has them in comm."""


def rivals(host: Host) -> list[Rival]:
    """The other programs that set the system clock of ``host``, each by the first of its processes: chronyd has a helper with the right as
    well. None when this process has a simulated clock."""
    if _simulated(host, "self"):
        return []
    found: dict[int, Rival] = {}
    for entry in host.names("/proc/[0-9]*"):
        pid = int(entry.rpartition("/")[2])
        name, words = _known(host, pid)
        if not name or not words or _simulated(host, str(pid)) or not may_set_clock(host, pid):
            continue
        program = PROGRAMS[name]
        if program.sets(host, _options(words[1:], program.taking)):
            found[pid] = Rival(name, pid, _remedy(host, pid, program))
    return sorted(rival for pid, rival in found.items() if not _helps(found.get(_parent(host, pid)), rival))


def _helps(parent: Rival | None, child: Rival) -> bool:
    return parent is not None and parent.name == child.name


def _parent(host: Host, pid: int) -> int:
    """The process that started a process; 0 when that cannot be seen."""
    found = re.search(r"^PPid:\s*(\d+)$", host.text(f"/proc/{pid}/status") or "", re.MULTILINE)
    return int(found[1]) if found else 0


def suspects(host: Host) -> list[str]:
    """Unknown processes that have the right to set the clock and not the right to administer the machine: they were given it for a
    reason. "name (pid N)" each."""
    some = [f"{name} (pid {pid})" for pid, name in host.processes() if (rights := _rights(host, pid)) and not rights & CAP_SYS_ADMIN
            and rights & CAP_SYS_TIME and _in_first_users(host, pid) and not _known(host, pid)[0]]  # fmt: skip
    return sorted(some)


def may_set_clock(host: Host, pid: int) -> bool:
    """Whether a process has the right to set the clock; True where that cannot be seen."""
    rights = _rights(host, pid)
    return (rights is None or bool(rights & CAP_SYS_TIME)) and _in_first_users(host, pid)


def _rights(host: Host, pid: int) -> int | None:
    """The mask of its effective capabilities; None when that cannot be seen."""
    found = re.search(r"^CapEff:\s*([0-9a-fA-F]+)$", host.text(f"/proc/{pid}/status") or "", re.MULTILINE)
    return int(found[1], 16) if found else None


def _in_first_users(host: Host, pid: int) -> bool:
    try:
        return str(host.path(f"/proc/{pid}/ns/user").readlink()) == FIRST_USERS
    except OSError:
        return True


def _known(host: Host, pid: int) -> tuple[str, list[str]]:
    """(name in PROGRAMS, command line) of a process, by the name of its file, of its process or of its command line; "" when it is none of
    them. BusyBox's ntpd is BusyBox with the word "ntpd"."""
    words = host.words(pid)
    title = words[0].split() if words else []
    try:
        file = host.path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
    except OSError:
        file = ""
    called = title[0].rpartition("/")[2].lstrip("-").rstrip(":") if title else ""
    if file == "busybox":
        return "busybox", words if called == file else [file, called, *words[1:]]
    comm = host.text(f"/proc/{pid}/comm") or ""
    return next((name for name in (file, _COMM.get(comm, ""), called) if name in PROGRAMS), ""), words


def _remedy(host: Host, pid: int, program: _Program) -> str:
    """What keeps the process from setting the clock: by the unit that runs it, or else by what else its control group says."""
    group = host.text(f"/proc/{pid}/cgroup")
    if unit := host.service(pid):
        end = f"sudo systemctl disable --now {unit}"
    elif re.search(r"docker|libpod|lxc|kubepods|containerd", group or ""):
        end = "stop the container in which it runs"
    elif group is None and program.unit:
        end = f"sudo systemctl disable --now {program.unit}"
    else:
        end = f"end it: sudo kill {pid}"
    return f"{program.instead}; or: {end}" if program.instead else end


def _options(words: Iterable[str], taking: str) -> Options:
    """Parse ``words`` as getopt(3) does; ``taking``: letters that take a value."""
    letters: dict[str, list[str]] = {}
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word.startswith("--"):
            others.append(word)
            continue
        for end, letter in enumerate(word[1:], 2):
            values = letters.setdefault(letter, [])
            if letter in taking:
                values.append(word[end:] or next(rest, ""))
                break
    return Options(letters, others)


def _simulated(host: Host, process: str) -> bool:
    """Whether a process was started with a simulated clock; False when its environment is not readable."""
    words = (host.text(f"/proc/{process}/environ") or "").split("\0")
    return any(word.partition("=")[0] in SIMULATED_CLOCKS for word in words) and any(word.startswith("LD_PRELOAD=") for word in words)
