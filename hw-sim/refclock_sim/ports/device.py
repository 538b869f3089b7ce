"""The simulated receiver as a process: a tty and a pulse in real time, for unmodified programs.

Flow: CLOCK_REALTIME + offset = true time -> gnss, receiver, pulse -> pty and pulse file -> (fake_pps.c) -> programs. The true time stays in
this module. Stamps are computed, not taken: on a busy host an edge is *noticed* late, but its stamp stays right. One thread with one poll()
sleeps between bytes and edges and needs less than one per cent of a core.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from refclock.sample import NS, EdgeKind
from refclock.timescales import LeapTable
from refclock_sim.models.pulse import PulseError, Sawtooth
from refclock_sim.ports.pty import Pty
from refclock_sim.ports.pulse_file import PulseFile
from refclock_sim.receiver.output import Receiver

TTY = "ttySIM0"
PULSE = "pps0.shm"
PPS_DEVICE = "/dev/pps-sim0"
"""The path that programs open as a kernel PPS device; it exists under the preload only."""
PIECE_BYTES = 16
"""Bytes that a UART delivers at once: the FIFO of a 16550."""
LATE_WAKE_NS = 20_000
"""ns from an edge's stamp until it is shown: a kernel does not stamp the future."""
CATCH_UP_NS = 2 * NS
"""ns: after a longer sleep (suspend, a step of the host's clock) the seconds in between are skipped."""


def preload_library(name: str) -> Path:
    """Path of the built ``fake_pps`` or ``fake_clock``. FileNotFoundError when the package was not built."""
    path = Path(__file__).parents[1] / f"{name}.abi3.so"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not built: run python setup.py build_ext --inplace")
    return path


def preloadable(library: Path, directory: Path) -> str:
    """A path of ``library`` for LD_PRELOAD. The loader splits at spaces and colons (ld.so(8)), so such a path is replaced by a link that is
    made in ``directory``. ValueError: the path of ``directory`` cannot be written there either."""

    def splits(path: Path) -> bool:
        return any(c == ":" or c.isspace() for c in str(path))

    if not splits(library):
        return str(library)
    link = directory.absolute() / f"{library.name.partition('.')[0]}.so"
    if splits(link):
        raise ValueError(f"{directory}: refclock is in {library.parent}; of both paths one must be without a space or ':'")
    link.unlink(missing_ok=True)
    link.symlink_to(library)
    return str(link)


def clock_environment(state: Path, utc_ns: int) -> dict[str, str]:
    """Environment variables under which programs share a system clock that they may set and steer (fake_clock.c).

    ``state``: the clock's file, made by the first program; ``utc_ns``: its first reading, ns since 1970.
    """
    return {
        "LD_PRELOAD": preloadable(preload_library("fake_clock"), state.parent),
        "REFCLOCK_FAKE_CLOCK": str(state.absolute()),
        "REFCLOCK_FAKE_CLOCK_START": str(utc_ns),
    }


def stepped_ns(state: Path) -> int:
    """ns; the sum of all steps, either way, of the clock whose file is ``state``. The kernel's leap seconds are none."""
    return int.from_bytes(state.read_bytes()[-8:], sys.byteorder)


def preload_environment(directory: Path, pps_device: str = PPS_DEVICE) -> dict[str, str]:
    """Environment variables under which a child takes the tty and pulse of ``directory`` for real devices.

    The child opens ``directory``/ttySIM0 and ``pps_device``. ValueError: a path cannot be written there. FileNotFoundError: fake_pps is not
    built. OSError: ``directory`` cannot be written. A library that is already preloaded stays first.
    """
    pulse, line = str((directory / PULSE).absolute()), str((directory / TTY).absolute())
    for path in (pulse, line, pps_device):
        if ":" in path or "=" in path:
            raise ValueError(f"{path}: a path with ':' or '=' cannot be simulated")
    others = os.environ.get("LD_PRELOAD", "")
    return {
        "LD_PRELOAD": f"{others} {preloadable(preload_library('fake_pps'), directory)}".strip(),
        "REFCLOCK_FAKE_PPS": f"{pps_device}={pulse}",
        "REFCLOCK_FAKE_TTY": f"{line}={pulse}",
    }


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """``offset_ns``: true time minus this host's CLOCK_REALTIME (positive: the host is behind). ``width_ns``: from rising to falling edge.
    ``pulse``: None for a receiver without a pulse. ``strict_baud``: a reader at another bit rate reads noise."""

    directory: Path
    offset_ns: int = 0
    width_ns: int = 100_000_000
    pulse: PulseError | None = None
    strict_baud: bool = False


def tai_minus_real_ns(offset_ns: int, table: LeapTable) -> int:
    """True TAI minus CLOCK_REALTIME. It stays constant: the host's clock has none of the simulated leap seconds."""
    true_utc_ns = time.clock_gettime_ns(time.CLOCK_REALTIME) + offset_ns
    return offset_ns + table.tai_offset_s(true_utc_ns // NS) * NS


class Device:
    """A receiver on a tty with a pulse. ``tai_minus_real_ns``: the true time. Makes tty and pulse file in the directory; OSError."""

    def __init__(self, settings: DeviceSettings, receiver: Receiver, sawtooth: Sawtooth | None, tai_minus_real_ns: int) -> None:
        self.settings = settings
        self.receiver = receiver
        self._sawtooth = sawtooth
        self._tai_minus_real = tai_minus_real_ns
        settings.directory.mkdir(parents=True, exist_ok=True)
        self.pulse_file = PulseFile(settings.directory / PULSE)
        self.pty = Pty(settings.directory / TTY, settings.strict_baud)
        self._due: list[tuple[int, int, bytes | tuple[EdgeKind, int]]] = []
        """Heap of (CLOCK_REALTIME in ns, number, bytes to send or edge to show)."""
        self._number = 0
        self._next_tai_s = self._now_tai_ns() // NS + 1

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, which end it within a tenth of a second. Handles both signals and uses the wake-up descriptor.

        FileNotFoundError: somebody has removed the tty's name or the pulse file, so no program finds the receiver any more."""
        awake, woken = socket.socketpair()
        with awake, woken:
            awake.setblocking(False)
            woken.setblocking(False)
            before = signal.set_wakeup_fd(woken.fileno())
            handlers = {s: signal.signal(s, lambda *_: None) for s in (signal.SIGTERM, signal.SIGINT)}
            poll = select.poll()
            poll.register(awake, select.POLLIN)
            poll.register(self.pty.master, select.POLLIN)
            looked_tai_s = 0
            try:
                while True:
                    if self._next_tai_s != looked_tai_s:  # once a second
                        looked_tai_s = self._next_tai_s
                        for name in (TTY, PULSE):
                            (self.settings.directory / name).lstat()
                    self.work()
                    events = poll.poll(self.wait_ms())
                    if any(fd == awake.fileno() for fd, _ in events):
                        return
                    if any(event & select.POLLIN for fd, event in events if fd == self.pty.master):
                        self.obey()
                    elif events:  # POLLHUP, which poll() reports at once and always: nobody has the tty open
                        poll.unregister(self.pty.master)
                    if not events and self.pty.listening():
                        poll.register(self.pty.master, select.POLLIN)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(before)

    def work(self) -> None:
        """Send and show what is due; plan the seconds that begin before the next call."""
        now_tai = self._now_tai_ns()
        if not -CATCH_UP_NS < now_tai - self._next_tai_s * NS < CATCH_UP_NS:
            self._due.clear()
            self._next_tai_s = now_tai // NS + 1
        while self._next_tai_s * NS <= now_tai + NS // 2:
            self._plan(self._next_tai_s)
            self._next_tai_s += 1
        now = time.clock_gettime_ns(time.CLOCK_REALTIME)
        while self._due and self._due[0][0] <= now:
            _when, _number, what = heapq.heappop(self._due)
            if isinstance(what, bytes):
                self.pty.send(what, self.receiver.baud, self.receiver.bits)
            else:
                self.pulse_file.edge(*what)

    def obey(self) -> None:
        """Pass the host's bytes to the receiver and queue its answers."""
        for end_tai_ns, data in self.receiver.hear(self.pty.receive(), self._now_tai_ns()):
            self._write(end_tai_ns, data)

    def wait_ms(self) -> int:
        """Milliseconds until something is due, rounded up."""
        next_ns = self._next_tai_s * NS - NS // 2 - self._tai_minus_real
        if self._due:
            next_ns = min(next_ns, self._due[0][0])
        return max(0, -(-(next_ns - time.clock_gettime_ns(time.CLOCK_REALTIME)) // 1_000_000))

    def close(self) -> None:
        """Unplug: hang up the tty and remove its name. The pulse file stays, because its readers cannot notice a new one."""
        self.pty.close()
        self.pulse_file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _now_tai_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_REALTIME) + self._tai_minus_real

    def _push(self, when_ns: int, what: bytes | tuple[EdgeKind, int]) -> None:
        self._number += 1
        heapq.heappush(self._due, (when_ns, self._number, what))

    def _plan(self, tai_s: int) -> None:
        """Queue all edges and bytes of one true second."""
        second_real = tai_s * NS - self._tai_minus_real
        pulse = self.settings.pulse
        if pulse is not None and self.receiver.gnss.at(tai_s).fixed:
            # Raw time at the second, by the present difference of the clocks: far better than the host's own jitter.
            raw_ns = second_real + time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - time.clock_gettime_ns(time.CLOCK_REALTIME)
            sawtooth_ns = self._sawtooth.late_ns(tai_s) if self._sawtooth is not None else 0.0
            for kind, after_ns in ((EdgeKind.ASSERT, 0), (EdgeKind.CLEAR, self.settings.width_ns)):
                stamp = second_real + after_ns + round(sawtooth_ns + pulse.late_ns(tai_s, raw_ns + after_ns))
                self._push(stamp + LATE_WAKE_NS, (kind, stamp))
        for chunk in self.receiver.cycle(tai_s):
            self._write(tai_s * NS + chunk.offset_ns, chunk.data)

    def _write(self, end_tai_ns: int, data: bytes) -> None:
        """Queue ``data`` in pieces, each for the arrival of its last byte."""
        end_real, byte_ns = end_tai_ns - self._tai_minus_real, self.receiver.byte_ns
        for begin in range(0, len(data), PIECE_BYTES):
            piece = data[begin : begin + PIECE_BYTES]
            self._push(end_real - (len(data) - begin - len(piece)) * byte_ns, piece)
