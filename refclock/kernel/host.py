"""Facts about the machine: processes, files under /proc and /sys, who holds a device. Read only; tests pass a root of their own.

Nothing here raises when a file is missing or not readable: the answer is then None or empty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from refclock.errors import printable
from refclock.kernel.clocks import Adjtimex
from refclock.sample import Leap

RTC_LATEST_S: Final = 7_258_118_400
"""POSIX s of 2200-01-01: no RTC chip counts farther (drivers/rtc: most have two digits for the year)."""
INTERPRETER: Final = re.compile(r"(python|perl|ruby|node|lua|tclsh)[0-9.]*")
"""Names of processes that say nothing of the program that runs in them."""


def _script(words: Sequence[str]) -> str:
    """The name of the script or of the Python module that a command line runs; "" when it names none."""
    rest = iter(words[1:])
    for word in rest:
        if word == "-m":
            return next(rest, "").partition(".")[0]
        if word.startswith("-"):
            if word in ("-c", "-e"):
                return ""
            continue
        return word.rpartition("/")[2]
    return ""


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
        """POSIX second of the first RTC (Linux ABI, sysfs-class-rtc since_epoch); None without one, or when it shows no date."""
        shown_s = self.number("/sys/class/rtc/rtc0/since_epoch")
        return shown_s if shown_s is not None and 0 <= shown_s < RTC_LATEST_S else None

    def processes(self) -> Iterator[tuple[int, str]]:
        """(pid, name) of every visible process. The name has at most 15 characters (proc(5), comm). Of a script it is the script's name,
        and of a Python module the module's: nobody knows "python3" by what it does."""
        for entry in self.names("/proc/[0-9]*"):
            name = self.text(f"{entry}/comm")
            if name:
                pid = int(entry.rpartition("/")[2])
                yield pid, printable((_script(self.words(pid)) if INTERPRETER.fullmatch(name) else "") or name)

    def words(self, pid: int) -> list[str]:
        """The command line of a process, a word each; empty for a zombie, a kernel thread, and one that is not visible."""
        line = (self.text(f"/proc/{pid}/cmdline") or "").rstrip("\0")
        return line.split("\0") if line else []

    def service(self, pid: int) -> str:
        """The systemd service that runs a process, by its control group (proc(5), systemd.slice(5)), without ".service"; "" for none."""
        found = re.search(r"/([\w.@\\-]+)\.service(?:/|$)", self.text(f"/proc/{pid}/cgroup") or "", re.MULTILINE)
        return found[1] if found is not None and not found[1].startswith("user@") else ""

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
        """Who is bound to these UDP addresses; empty when that is not visible (another user's, another network namespace). A socket of
        IPv6 that is bound to no address takes IPv4 as well (ipv6(7), IPV6_V6ONLY)."""
        ports = {(":" in address, port) for address, port in addresses}
        either = {port for v6, port in ports if not v6}
        inodes: set[str] = set()
        for v6 in (False, True):
            for row in (self.text(f"/proc/net/udp{'6' if v6 else ''}") or "").splitlines()[1:]:
                words = row.split()  # "sl local_address rem_address ... inode": proc(5), /proc/net/udp
                if len(words) <= 9:
                    continue
                bound, _, hexadecimal = words[1].rpartition(":")
                port = int(hexadecimal, 16)
                if (v6, port) in ports or (v6 and port in either and not bound.strip("0")):
                    inodes.add(f"socket:[{words[9]}]")
        return sorted({who for some in self.open_files(inodes).values() for who in some})


def battery_witness_s(host: Host, kernel: Adjtimex) -> int | None:
    """POSIX second of the battery clock, as evidence of the date while the system clock is unsynchronised; else None, as without one."""
    return host.battery_clock_s() if kernel.leap is Leap.UNSYNCHRONISED else None
