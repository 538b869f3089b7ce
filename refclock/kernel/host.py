"""Facts about the machine: processes, files under /proc and /sys, who holds a device. Read only; tests pass a root of their own.

Nothing here raises when a file is missing or not readable: the answer is then None or empty.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from refclock.errors import printable
from refclock.kernel.clocks import Adjtimex
from refclock.sample import Leap


class Host:
    """The machine whose files are below ``root``; paths are those of the machine ("/proc/cmdline")."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Where ``name`` is below the root."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """The file's text without the white space around it (at most 64 kB); None when it cannot be read."""
        try:
            with self.path(name).open("rb") as stream:
                return stream.read(1 << 16).decode("utf-8", "replace").strip()
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """The file's whole number, decimal or 0x...; None when there is none."""
        try:
            return int(self.text(name) or "", 0)
        except ValueError:
            return None

    def names(self, pattern: str) -> list[str]:
        """The machine's paths that match a shell pattern, sorted."""
        try:
            return sorted(f"/{path.relative_to(self.root)}" for path in self.root.glob(pattern.lstrip("/")))
        except OSError:
            return []

    def target(self, name: str) -> str:
        """The end of a chain of at most eight links, as a path of the machine; ``name`` itself when it is no link."""
        path = self.path(name)
        for _ in range(8):
            try:
                link = str(path.readlink())
            except OSError:
                break
            path = self.path(link) if link.startswith("/") else Path(os.path.normpath(path.parent / link))
        try:
            return f"/{path.relative_to(self.root)}"
        except ValueError:
            return str(path)

    def battery_clock_s(self) -> int | None:
        """POSIX second of the first RTC (Linux ABI, sysfs-class-rtc since_epoch); None without one."""
        return self.number("/sys/class/rtc/rtc0/since_epoch")

    def processes(self) -> Iterator[tuple[int, str]]:
        """(pid, name) of every visible process; the name has at most 15 characters (proc(5), comm)."""
        for entry in self.names("/proc/[0-9]*"):
            name = self.text(f"{entry}/comm")
            if name:
                yield int(entry.rpartition("/")[2]), printable(name)

    def open_files(self, wanted: Collection[str]) -> dict[str, list[str]]:
        """Who has each of these files open ("gpsd (pid 412)"), by one pass over all processes. Only root sees other users' files.

        ``wanted``: names as /proc/*/fd shows them (proc(5)): devices with links resolved, "socket:[4711]".
        """
        found: dict[str, list[str]] = {}
        for pid, name in self.processes() if wanted else ():
            for fd in self.names(f"/proc/{pid}/fd/*"):
                try:
                    held = str(self.path(fd).readlink())
                except OSError:
                    continue
                who = f"{name} (pid {pid})"
                if held in wanted and who not in found.setdefault(held, []):
                    found[held].append(who)
        return found

    def holders(self, device: str) -> list[str]:
        """Who has ``device``, or what its link points to, open."""
        target = self.target(device)
        return self.open_files({target}).get(target, [])

    def port_holders(self, addresses: Iterable[tuple[str, int]]) -> list[str]:
        """Who is bound to these UDP addresses; empty when that is not visible (another user's, another network namespace)."""
        ports = {(":" in address, port) for address, port in addresses}
        inodes: set[str] = set()
        for v6 in (False, True):
            for row in (self.text(f"/proc/net/udp{'6' if v6 else ''}") or "").splitlines()[1:]:
                words = row.split()  # "sl local_address rem_address ... inode": proc(5), /proc/net/udp
                if len(words) > 9 and (v6, int(words[1].rpartition(":")[2], 16)) in ports:
                    inodes.add(f"socket:[{words[9]}]")
        return sorted({who for some in self.open_files(inodes).values() for who in some})


def battery_witness_s(host: Host, kernel: Adjtimex) -> int | None:
    """POSIX second of the battery clock, as evidence of the date while the system clock is unsynchronised; else None, as without one."""
    return host.battery_clock_s() if kernel.leap is Leap.UNSYNCHRONISED else None


# ---- who else sets the clock ------------------------------------------------------------------------------------------------------


class Rival(NamedTuple):
    """A process that sets CLOCK_REALTIME. ``name``: as proc(5) has it (comm). ``unit``: the systemd unit that usually runs it."""

    name: str
    pid: int
    unit: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


Options = Mapping[str, Sequence[str]]
"""The options of a command line: letter -> its values; "" -> long options and arguments."""


def _chronyd(host: Host, options: Options) -> bool:
    """Steers unless told to leave the clock alone (-x) or to measure only (-Q): chronyd(8)."""
    del host
    return not options.keys() & {"x", "Q"}


def _busybox(host: Host, options: Options) -> bool:
    """Its ntpd steers, unless it only measures (-w)."""
    del host
    return "ntpd" in options[""] and "w" not in options


def _phc2sys(host: Host, options: Options) -> bool:
    """Steers when CLOCK_REALTIME is the sink (-c, the default; with -a only by -r) and a servo follows: phc2sys(8)."""
    del host
    if set(options.get("E", ())) & {"ntpshm", "refclock_sock"}:  # hands samples to another program
        return False
    return "r" in options if "a" in options else "CLOCK_REALTIME" in options.get("c", ("CLOCK_REALTIME",))


def _ptp4l(host: Host, options: Options) -> bool:
    """Steers with software time stamping only; with hardware time stamping it steers the network card's clock: ptp4l(8)."""
    if "S" in options or "--time_stamping=software" in options[""]:
        return True
    lines = (line for file in options.get("f", ()) for line in (host.text(file) or "").splitlines())
    return any(line.split() == ["time_stamping", "software"] for line in lines)


def _always(host: Host, options: Options) -> bool:
    del host, options
    return True


class _Program(NamedTuple):
    """A program that may steer: its systemd ``unit``, whether it ``steers`` with given options, ``taking``: letters that take a value."""

    unit: str
    steers: Callable[[Host, Options], bool] = _always
    taking: str = ""


_PROGRAMS: Final = {
    "chronyd": _Program("chrony", _chronyd, "fFlLPtu"),
    "ntpd": _Program("ntpsec"),  # also ntp's and OpenNTPD's
    "openntpd": _Program("openntpd"),
    "ntp-daemon": _Program("ntpd-rs"),
    "ntpd-rs": _Program("ntpd-rs"),
    "systemd-timesyn": _Program("systemd-timesyncd"),
    "busybox": _Program("ntpd", _busybox, "ISkp"),
    "phc2sys": _Program("phc2sys", _phc2sys, "cdsEPISFRNOLMiunzltf"),
    "ptp4l": _Program("ptp4l", _ptp4l, "fipl"),
    "ptpd": _Program("ptpd"),
    "ptpd2": _Program("ptpd"),
    "clockspeed": _Program("clockspeed"),
}
"""Programs that steer CLOCK_REALTIME, by their names in /proc/*/comm (at most 15 characters: proc(5))."""


def rivals(host: Host) -> list[Rival]:
    """The other processes that set the system clock of ``host``.

    A preloaded library may give a program a simulated clock. A process with one is no rival, and this process has none when it has one.
    """
    if _preloaded(host, "self"):
        return []
    found: list[Rival] = []
    for pid, name in host.processes():
        program = _PROGRAMS.get(name)
        words = (host.text(f"/proc/{pid}/cmdline") or "").rstrip("\0").split("\0")
        if program is None or words == [""] or _preloaded(host, str(pid)):  # an empty command line: a zombie or a kernel thread
            continue
        if program.steers(host, _options(words[1:], program.taking)):
            found.append(Rival(name, pid, program.unit))
    return sorted(found)


def _options(words: Iterable[str], taking: str) -> Options:
    """Parse ``words`` as getopt(3) does; ``taking``: letters that take a value."""
    found: dict[str, list[str]] = {"": []}
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word.startswith("--"):
            found[""].append(word)
            continue
        for end, letter in enumerate(word[1:], 2):
            values = found.setdefault(letter, [])
            if letter in taking:
                values.append(word[end:] or next(rest, ""))
                break
    return found


def _preloaded(host: Host, process: str) -> bool:
    """Whether a process was started with LD_PRELOAD (ld.so(8)); False when its environment is not readable."""
    return any(word.startswith("LD_PRELOAD=") for word in (host.text(f"/proc/{process}/environ") or "").split("\0"))
