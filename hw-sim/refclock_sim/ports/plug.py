"""A machine whose serial devices come and go in simulated time: receivers are plugged into a directory that stands for /dev.

Flow: receivers -> wire -> pty -> the code under test, which lists devices with ``Machine``. Names are links to pseudo-terminals, so a real
tty is opened; pulling a plug hangs it up. Time passes by ``pass_tick`` only.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.sample import NS, Instant
from refclock_sim.ports.pty import Pty
from refclock_sim.ports.wire import TICK_NS, Wire
from refclock_sim.receiver.output import Receiver

DELIVERY_S: Final = 1.0
"""s: longest wait for the kernel to deliver bytes, which takes microseconds on an idle machine."""
FULL: Final = 3000
"""Bytes of the 4096 that a tty keeps; beyond it nobody reads, and delivery is not awaited."""


class SimulatedClock(LocalClock):
    """A clock whose reading is set by hand (ns)."""

    def __init__(self, ns: int) -> None:
        super().__init__()
        self.ns = ns

    def now(self) -> Instant:
        """The instant that was set; this clock never steps."""
        return Instant(self.ns, self.ns)

    def instant_of(self, real_ns: int) -> Instant | None:
        """A stamp of this clock."""
        return Instant(real_ns, real_ns)


def _deliver(pty: Pty, data: bytes) -> None:
    """Send, and wait for the kernel's delivery: without waiting it might take half a second of simulated time."""
    slave = os.open(pty.slave, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        wanted = _waiting(slave) + len(data)
        pty.send(data, 0)
        end = time.monotonic() + DELIVERY_S
        while _waiting(slave) < min(wanted, FULL) and time.monotonic() < end:
            time.sleep(0)
    finally:
        os.close(slave)


def _waiting(slave: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(slave, termios.FIONREAD, bytes(4)))[0])


@dataclass(slots=True)
class _Plug:
    pty: Pty
    wire: Wire
    by_id: Path | None
    pulse: Path | None
    stuck: bool = False


@dataclass(slots=True)
class Machine(Host):
    """``directory``: stands for /dev. ``tai_s``: true second at 0 of ``clock``."""

    directory: Path
    tai_s: int
    clock: SimulatedClock = field(default_factory=lambda: SimulatedClock(10 * NS))
    _plugs: dict[str, _Plug] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Host.__init__(self)
        (self.directory / "serial/by-id").mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """As Host; of the /sys of the machine that this runs on nothing is seen."""
        return self.directory / "no-sys" / name.lstrip("/") if name.startswith("/sys/") else Host.path(self, name)

    def names(self, pattern: str) -> list[str]:
        """As Host, with the directory in place of /dev, and the pulses that are plugged in."""
        if pattern.startswith("/dev/"):
            return sorted(str(path) for path in self.directory.glob(pattern.removeprefix("/dev/")))
        if pattern == "/sys/class/pps/pps*":
            return sorted(f"/sys/class/pps/{plug.pulse.name}" for plug in self._plugs.values() if plug.pulse is not None)
        return Host.names(self, pattern)

    def text(self, name: str) -> str | None:
        """As Host; the driver of a pulse names its line."""
        for plug in self._plugs.values():
            if plug.pulse is not None and name == f"/sys/class/pps/{plug.pulse.name}/path":
                return str(plug.pty.link)
        return Host.text(self, name)

    def plug(self, name: str, receiver: Receiver | None, by_id: str = "", *, pulse: str = "", talks_from_ns: int = 0) -> str:
        """Plug a receiver (None: a silent device) in as ``name``, with a pulse device called ``pulse``; return its path."""
        pty = Pty(self.directory / name)
        link = self.directory / "serial/by-id" / by_id if by_id else None
        if link is not None:
            link.symlink_to(pty.link)
        wire = Wire(receiver, self.tai_s, begin_ns=self.clock.ns, talks_from_ns=talks_from_ns)
        node = self.directory / pulse if pulse else None
        if node is not None:
            node.touch()
        self._plugs[name] = _Plug(pty, wire, link, node)
        return str(pty.link)

    def pull(self, name: str) -> None:
        """Unplug: remove its names and hang up its reader."""
        plug = self._plugs.pop(name)
        if plug.by_id is not None:
            plug.by_id.unlink()
        if plug.pulse is not None:
            plug.pulse.unlink()
        plug.pty.close()

    def stick(self, name: str) -> None:
        """Its driver delivers nothing any more until the program that has it open has closed it."""
        self._plugs[name].stuck = True

    def listening(self, name: str) -> bool:
        """Whether a program has it open."""
        return self._plugs[name].pty.listening()

    def pass_tick(self) -> Instant:
        """Advance by a tick: receivers hear what was written, and what they sent is in the ttys."""
        self.clock.ns += TICK_NS
        for plug in self._plugs.values():
            baud = plug.pty.baud() or 0
            plug.wire.write(plug.pty.receive(), baud)
            plug.stuck = plug.stuck and plug.pty.listening()
            if (data := plug.wire.read(baud)) and plug.pty.listening() and not plug.stuck:
                _deliver(plug.pty, data)
        return self.clock.now()
