"""Where receivers and pulses are on this machine: serial devices, pulse devices, and which belong together.

Nothing is opened here. A serial device is a candidate when receivers appear under its name; a device and the links to it (serial0, by-id)
count once. A pulse device belongs to the tty that its driver names (sysfs ``path``: N_PPS on a serial line); others (pps-gpio) are assigned
in order. A device that has ticked goes before one that never has: a USB port may have one whose wire no receiver drives. The kernel's own
timer and the clocks of network cards are no receiver's pulses.

Flow: /dev, /sys -> **ports** -> ``devices.scan``, ``ppsd.clock.discovery``, ``refclock detect``.
"""

from __future__ import annotations

import re
import termios
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from refclock.devices.pps import refusal
from refclock.kernel.host import Host

SERIAL_PATTERNS: Final = ("serial0", "gnss*", "ttyACM*", "ttyUSB*", "ttyAMA*", "ttyS*")
"""Where receivers appear under /dev: the Pi's alias of its header UART, the kernel's GNSS class, USB, the Pi's and PCs' UARTs."""
LINES: Final = {"dcd": termios.TIOCM_CAR, "cts": termios.TIOCM_CTS, "dsr": termios.TIOCM_DSR, "ri": termios.TIOCM_RI}
"""Control lines that a pulse may be wired to, most usual first."""


@dataclass(frozen=True, slots=True)
class Port:
    """A serial device. ``identity``: the name that it keeps when it is plugged in again (its by-id name, else the path). ``holders``:
    "gpsd (pid 412)", programs that have it open."""

    path: str
    identity: str
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PulseNode:
    """A pulse device, /dev/ppsN. ``tty``: the serial device whose line it is, "" for a pin. ``refused``: why it is no receiver's pulse.
    ``edges``: how many edges of the kind that came more often the kernel has counted; None where it does not tell."""

    path: str
    driver: str
    tty: str
    refused: str = ""
    edges: int | None = None

    def belongs(self, host: Host, tty: str) -> bool:
        """Whether its driver names ``tty``, or what that links to, as its line."""
        names = (tty, host.target(tty))
        return self.tty != "" and (self.tty in names or f"/dev/{self.tty}" in names)


def _real_uart(host: Host, name: str) -> bool:
    """Whether a ttyS has a UART behind it: PCs announce four of them in any case (type 0 is PORT_UNKNOWN, linux/serial.h)."""
    return not re.fullmatch(r"ttyS\d+", name) or host.number(f"/sys/class/tty/{name}/type") not in (None, 0)


def serial_devices(host: Host) -> dict[str, str]:
    """Candidates, each device once: its path without links -> the name that people know."""
    found: dict[str, str] = {}
    for pattern in SERIAL_PATTERNS:
        for path in host.names(f"/dev/{pattern}"):
            target = host.target(path)
            if target not in found and _real_uart(host, target.rpartition("/")[2]):
                found[target] = path
    return found


def serial_ports(host: Host) -> list[Port]:
    """Candidates, with their lasting names and the programs that have them open."""
    devices, identities = serial_devices(host), {host.target(link): link for link in host.names("/dev/serial/by-id/*")}
    held = host.open_files(devices)
    return [Port(path, identities.get(target, path), tuple(held.get(target, ()))) for target, path in devices.items()]


def pulses(host: Host) -> list[PulseNode]:
    """Every pulse device, the refused ones too."""
    found = []
    for entry in host.names("/sys/class/pps/pps*"):
        number = entry.rpartition("/")[2]
        tty = host.text(f"{entry}/path") or ""
        path = f"/dev/{number}"
        found.append(
            PulseNode(path, host.text(f"{entry}/name") or "", tty, refusal(path, host.path("/sys/class/pps")), _edges(host, entry))
        )
    known = {pulse.path for pulse in found}
    return found + [PulseNode(path, "", "") for path in host.names("/dev/pps*") if path not in known]  # where /sys is hidden


def _edges(host: Host, entry: str) -> int | None:
    """The greater of the kernel's counts of a source's two edges, which read "seconds.nanoseconds#count" (Linux ABI, sysfs-pps)."""
    counts = [(host.text(f"{entry}/{edge}") or "").partition("#")[2] for edge in ("assert", "clear")]
    return max((int(count) for count in counts if count.isdecimal()), default=None)


def pair(host: Host, paths: Iterable[str], some: Iterable[PulseNode]) -> dict[str, str]:
    """The pulse device of each serial device; "" for those without one. Its own one, unless that has never ticked and a free one has."""
    paths, usable = list(paths), sorted((pulse for pulse in some if not pulse.refused), key=lambda pulse: pulse.edges == 0)
    own = {path: next((pulse for pulse in usable if pulse.belongs(host, path)), None) for path in paths}
    found = {path: pulse.path for path, pulse in own.items() if pulse is not None and pulse.edges != 0}
    free = [pulse for pulse in usable if not pulse.tty]
    for path in sorted((path for path in paths if path not in found), key=lambda path: own[path] is not None):
        silent = own[path]
        if free and (silent is None or free[0].edges):
            found[path] = free.pop(0).path
        else:
            found[path] = silent.path if silent is not None else ""
    return found


def control_line(path: str) -> tuple[str, str] | None:
    """``/dev/ttyS0:dcd`` to ("/dev/ttyS0", "dcd"); None when ``path`` names a device."""
    tty, separator, line = path.rpartition(":")
    return (tty, line) if separator and line in LINES else None


def over_usb(host: Host, path: str) -> bool | None:
    """Whether the line of the pulse device ``path`` is polled over USB; None when its driver does not say what it is."""
    if (parts := control_line(path)) is not None:
        return polled(host.target(parts[0]))
    for pulse in pulses(host):
        if host.target(path) == pulse.path and (pulse.driver or pulse.tty):
            return "usb" in pulse.driver.lower() or polled(pulse.tty)
    return None


def polled(tty: str) -> bool:
    """Whether the lines of the serial device ``tty`` (not a link to it) are polled over USB."""
    return "ttyUSB" in tty or "ttyACM" in tty
