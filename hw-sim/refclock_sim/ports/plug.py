"""A machine whose serial devices come and go: simulated receivers plugged into a directory that stands for /dev, in simulated time.

Flow: receivers -> wire -> pty -> the programs under test, which ask ``Machine`` for what there is. Names are links to pseudo-terminals, so
what is opened is a real tty; pulling a plug hangs it up. Time passes only by ``pass_tick``.
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
"""The kernel needs microseconds; a busy machine a little longer."""
FULL: Final = 3000
"""Of the 4096 bytes that a tty keeps: nobody reads it."""


class SimulatedClock(LocalClock):
    """Reads what it is set to (ns)."""

    def __init__(self, ns: int) -> None:
        super().__init__()
        self.ns = ns

    def now(self) -> Instant:
        """The instant that it was set to; no step ever."""
        return Instant(self.ns, self.ns)

    def instant_of(self, real_ns: int) -> Instant | None:
        """A stamp of this clock."""
        return Instant(real_ns, real_ns)


def _deliver(pty: Pty, data: bytes) -> None:
    """Send, and wait until the tty has it: the kernel hands it over in its own time, which in simulated time might be half a second."""
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

    def names(self, pattern: str) -> list[str]:
        """As Host, with the directory in place of /dev, and the pulses that are plugged in."""
        if pattern.startswith("/dev/"):
            return sorted(str(path) for path in self.directory.glob(pattern.removeprefix("/dev/")))
        if pattern == "/sys/class/pps/pps*":
            return sorted(f"/sys/class/pps/{plug.pulse.name}" for plug in self._plugs.values() if plug.pulse is not None)
        return Host.names(self, pattern)

    def text(self, name: str) -> str | None:
        """As Host; a pulse's driver names the line that it came with."""
        for plug in self._plugs.values():
            if plug.pulse is not None and name == f"/sys/class/pps/{plug.pulse.name}/path":
                return str(plug.pty.link)
        return Host.text(self, name)

    def plug(self, name: str, receiver: Receiver | None, by_id: str = "", *, pulse: str = "", talks_from_ns: int = 0) -> str:
        """Plug a receiver (None: something silent) in as ``name``, with the pulse device of that name ("" without); its path."""
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
        """Unplug it: its names go and its reader is hung up on."""
        plug = self._plugs.pop(name)
        if plug.by_id is not None:
            plug.by_id.unlink()
        if plug.pulse is not None:
            plug.pulse.unlink()
        plug.pty.close()

    def listening(self, name: str) -> bool:
        """Whether somebody has it open."""
        return self._plugs[name].pty.listening()

    def pass_tick(self) -> Instant:
        """Let a tick pass: what was sent meanwhile waits in the ttys, what was written has been heard."""
        self.clock.ns += TICK_NS
        for plug in self._plugs.values():
            baud = plug.pty.baud() or 0
            plug.wire.write(plug.pty.receive(), baud)
            if (data := plug.wire.read(baud)) and plug.pty.listening():
                _deliver(plug.pty, data)
        return self.clock.now()
