"""What the machine says of itself: processes, files under /sys, who holds a device. Read only; tests build a root of their own.

Nothing here raises for what is missing or not ours to see: a question that has no answer is answered with None or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from refclock.kernel.clocks import Adjtimex
from refclock.sample import Leap


class Host:
    """The machine below ``root``; paths are given as on the machine ("/proc/cmdline")."""

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
        """What a chain of links ends at, as a path of the machine; ``name`` itself when it is no link."""
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
        """POSIX second by the first RTC (Linux ABI, sysfs-class-rtc since_epoch); None without one."""
        return self.number("/sys/class/rtc/rtc0/since_epoch")

    def processes(self) -> Iterator[tuple[int, str]]:
        """(pid, name) of every process to be seen; the name has at most 15 characters (proc(5), comm)."""
        for entry in self.names("/proc/[0-9]*"):
            name = self.text(f"{entry}/comm")
            if name:
                yield int(entry.rpartition("/")[2]), name

    def open_files(self, wanted: Collection[str]) -> dict[str, list[str]]:
        """Who has each of these open ("gpsd (pid 412)"), by one pass over all processes; of other users' only root can see it.

        Wanted are names as /proc/*/fd shows them (proc(5)): devices without links on the way, "socket:[4711]".
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
        """Who has these UDP addresses; nothing when it is not to be seen (another user's, another network namespace)."""
        ports = {(":" in address, port) for address, port in addresses}
        inodes: set[str] = set()
        for v6 in (False, True):
            for row in (self.text(f"/proc/net/udp{'6' if v6 else ''}") or "").splitlines()[1:]:
                words = row.split()  # "sl local_address rem_address ... inode": proc(5), /proc/net/udp
                if len(words) > 9 and (v6, int(words[1].rpartition(":")[2], 16)) in ports:
                    inodes.add(f"socket:[{words[9]}]")
        return sorted({who for some in self.open_files(inodes).values() for who in some})


def battery_witness_s(host: Host, kernel: Adjtimex) -> int | None:
    """POSIX second by the battery clock, a witness of the date while nobody keeps the system clock; None when it is kept, or without."""
    return host.battery_clock_s() if kernel.leap is Leap.UNSYNCHRONISED else None


RIVALS: Final = frozenset({"chronyd", "ntpd", "ntpsec", "systemd-timesyn", "ptp4l", "phc2sys"})
"""Programs that set CLOCK_REALTIME, as /proc/*/comm cuts them (15 characters: proc(5))."""


def rival_disciplines(proc: Path) -> list[str]:
    """Programs running under ``proc`` (/proc) that set the system clock, as "name (pid N)". chronyd -x only watches and is no rival.

    A preloaded library may lend a program a clock of its own (a clock simulator does): one that has any is no rival, and has none.
    """
    found: list[str] = []
    if _preloaded(proc / "self"):
        return found
    for directory in proc.glob("[0-9]*"):
        try:
            name = (directory / "comm").read_text(encoding="utf-8", errors="replace").strip()
            if name not in RIVALS:
                continue
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended while we looked
            continue
        only_watches = name == "chronyd" and any(w[:1] == b"-" and w[1:2] != b"-" and b"x" in w[1:] for w in words[1:])
        if words != [b""] and not only_watches and not _preloaded(directory):  # an empty command line: a zombie or a kernel thread
            found.append(f"{name} (pid {directory.name})")
    return sorted(found)


def _preloaded(process: Path) -> bool:
    """Whether a process was started with LD_PRELOAD (ld.so(8))."""
    try:
        return any(word.startswith(b"LD_PRELOAD=") for word in (process / "environ").read_bytes().split(b"\0"))
    except OSError:  # ended, or not ours to see
        return False
