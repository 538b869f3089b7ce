"""Modem control lines of serial ports (tty_ioctl(4)): pulses that come in on them, and lines that are moved for a test.

``/dev/ttyS0:dcd`` (or cts, dsr, ri) names a pulse. DCD becomes a kernel source (line discipline N_PPS) where the kernel permits it.
Otherwise a thread waits for the change and reads the clock in C, before the interpreter runs (native/line.h), with real-time priority where
that is permitted. Its stamp is late by the wake-up of a thread: 20 to 200 us on an idle machine, more on a busy one without that priority,
and over USB by up to another millisecond of polling. Adapters that cannot wait (CP210x) are polled each millisecond. The ``Stamping``s say
what the bound allows for that, unless the configuration states what was measured.

Which line has a pulse is found by the kernel's own counters of changes (``Changes``): nothing waits, and nothing is polled.

``OutputLine`` is the other direction, for ``refclock calibrate``: a line (rts, dtr, or a pin of a gpiochip) whose edges come back as
pulses.

Flow: control line -> **modem_lines** -> Edge -> ``ppsd.clock.pulses``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from refclock.devices.ports import LINES, control_line, over_usb, polled, pulses
from refclock.devices.pps import BY_KERNEL, JOIN_S, EdgeQueue, PpsThread, Stamping
from refclock.errors import explain
from refclock.kernel.clocks import LocalClock, Reading
from refclock.kernel.host import Host
from refclock.kernel.pps import line_level, look_at_line, wait_for_line
from refclock.sample import NS, Edge, EdgeKind

BY_THREAD: Final = Stamping("by a thread that waits for a control line", 200.0)
BY_THREAD_USB: Final = Stamping("by a thread that waits for a control line over USB", 2000.0)
BY_DISCIPLINE: Final = Stamping("by the kernel, on a serial port's line", 120.0)
BY_KERNEL_USB: Final = Stamping("by the kernel, over USB", 1000.0)
"""Published measurements: 94 us late on a motherboard's DCD whose processor sleeps in between, 215 us behind an FT232H. An adapter at full
speed is polled each millisecond (USB 2.0 section 8.4.3)."""
N_PPS: Final = 18
"""The line discipline that stamps DCD in the kernel (include/uapi/linux/tty.h)."""
ATTACH_S: Final = 0.5
"""s to wait for udev to make the new node."""
LINE_POLL_S: Final = 0.001
"""s between two looks at a line that cannot be waited for."""
STOP_CHECK_S: Final = 0.2
"""s of such looks before the thread checks whether it is to stop."""
THREAD_PRIORITY: Final = 50
"""Of SCHED_FIFO: that of the kernel's own interrupt threads (sched_set_fifo in kernel/sched), which wake the waiting thread."""
PULSE_CHANGES: Final = 4
"""Changes of a line, those of two pulses, that are no accident: opening a port causes a few."""
MAX_CHANGES_HZ: Final = 21
"""Changes a second; a line with more carries hum or data, not pulses (at most ten a second, ``timing.pulses``)."""
QUIET_NS: Final = 1_200_000_000
"""ns without a second change after which a line has no pulse a second."""
DECIDE_NS: Final = 3 * NS
"""ns that a line with changes is given to reach PULSE_CHANGES."""
WINDOW_NS: Final = 6 * NS
"""ns after which the changes are counted from nothing."""
COUNTERS: Final = struct.Struct("=4i64x")
"""struct serial_icounter_struct (linux/serial.h): cts, dsr, rng, dcd, and 16 more integers."""
_CANNOT_WAIT: Final = (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP, 515)
"""Errors of drivers without TIOCMIWAIT; 515 is the kernel's ENOIOCTLCMD, which some return."""


class Changes:
    """Which control line of an open serial port has a pulse, by its changes from ``now_ns`` (raw time) on."""

    def __init__(self, fd: int, now_ns: int) -> None:
        self._fd = fd
        self._first, self._since_ns = self._count(), now_ns

    def _count(self) -> dict[str, int]:
        try:
            cts, dsr, ri, dcd = COUNTERS.unpack(fcntl.ioctl(self._fd, termios.TIOCGICOUNT, bytes(COUNTERS.size)))
        except OSError:  # this driver does not count; whoever reads the line finds out when it is gone
            return {}
        return {"dcd": dcd, "cts": cts, "dsr": dsr, "ri": ri}

    def pulse(self, now_ns: int) -> str | None:
        """The line (of ``LINES``) that changes as often as a pulse; "": none; None: too soon to tell."""
        past_s = (now_ns - self._since_ns) / NS
        now = self._count()
        changed = {line: now.get(line, 0) - first for line, first in self._first.items()}
        found = next((line for line in LINES if past_s >= 1.0 and PULSE_CHANGES <= changed.get(line, 0) <= MAX_CHANGES_HZ * past_s), None)
        if found is None and changed and past_s * NS < (DECIDE_NS if max(changed.values()) > 1 else QUIET_NS):
            return None
        if now_ns - self._since_ns > WINDOW_NS:
            self._first, self._since_ns = now, now_ns
        return found or ""


class PulseDevice(Protocol):
    """An open pulse device. ``error``: why it ended, "" while it works; ``stamping``: how its edges are stamped."""

    error: str
    stamping: Stamping

    def take(self) -> list[Edge]:
        """The edges since the last call, in order."""
        ...

    def stop(self) -> None:
        """Give it up."""
        ...


def attach(tty: str, host: Host) -> tuple[int, str]:
    """Make a kernel source of ``tty``'s DCD: (descriptor to keep open, path of the new /dev/ppsN). OSError: it is not permitted."""
    fd = os.open(tty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, termios.TIOCSETD, struct.pack("i", N_PPS))
        end = time.monotonic() + ATTACH_S
        while True:
            mine = [p.path for p in pulses(host) if p.tty == host.target(tty) and os.access(p.path, os.R_OK | os.W_OK)]
            if mine:
                return fd, mine[-1]
            if time.monotonic() > end:
                raise OSError(errno.EACCES, f"the kernel made no pulse device of {tty} that this user may open")
            time.sleep(0.02)
    except OSError:
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, termios.TIOCSETD, struct.pack("i", 0))  # N_TTY again
        os.close(fd)
        raise


class ControlLine(EdgeQueue):
    """Changes of one control line of a serial port, stamped by a thread; errors as PpsThread. ``look``: poll the line, do not wait for it.
    ``waits``: False when it is polled.

    A thread that waits for a change that never comes ends with the process: nothing else ends TIOCMIWAIT.
    """

    def __init__(self, tty: str, line: str, clock: LocalClock, wake: Callable[[], None], look: bool = False) -> None:
        super().__init__()
        self.path = f"{tty}:{line}"
        self.error = ""
        self.waits = not look
        self.stamping = BY_THREAD_USB if polled(Path(tty).resolve().name) else BY_THREAD
        self._mask = LINES[line]
        self._clock, self._wake = clock, wake
        self._stopping = threading.Event()
        try:
            self._fd = os.open(tty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                self._level = line_level(self._fd, self._mask)
            except OSError:
                os.close(self._fd)
                raise
        except OSError as e:
            why = "has no control lines" if e.errno in _CANNOT_WAIT else os.strerror(e.errno or 0)
            raise OSError(e.errno, f"{self.path}: {why}") from e
        self._thread = threading.Thread(target=self._run, name=f"pulse {self.path}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, at the next change of the line."""
        self._stopping.set()
        self._thread.join(0 if self.waits else JOIN_S)

    def _run(self) -> None:
        sequence = 0
        with contextlib.suppress(OSError):  # not permitted: the thread keeps its priority
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(THREAD_PRIORITY))  # 0: this thread (sched_setscheduler(2))
        try:
            while not self._stopping.is_set():
                seen = self._change()
                if seen is None or self._stopping.is_set():
                    continue
                reading, level = seen
                at = self._clock.placed(reading) if level != self._level else None
                self._level = level
                if at is not None:
                    sequence += 1
                    self.put(Edge(at, EdgeKind.ASSERT if level else EdgeKind.CLEAR, sequence, reading.uncertainty_ns))
                    self._wake()
        except OSError as e:
            self.error = f"{self.path}: {os.strerror(e.errno or 0)}; plug the receiver in again"
            self._wake()
        finally:
            os.close(self._fd)

    def _change(self) -> tuple[Reading, bool] | None:
        if self.waits:
            try:
                return wait_for_line(self._fd, self._mask)
            except OSError as e:
                if e.errno not in _CANNOT_WAIT:
                    raise
                self.waits = False
        return look_at_line(self._fd, self._mask, self._level, LINE_POLL_S, STOP_CHECK_S)


class _Attached(PpsThread):
    """A kernel source that lives as long as we hold its serial port open."""

    def __init__(self, fd: int, path: str, clock: LocalClock, wake: Callable[[], None]) -> None:
        self._tty_fd = fd
        super().__init__(path, clock, wake, kernel_stamping(path, Host()))

    def stop(self) -> None:
        """As PpsThread; then the port gets its own line discipline back."""
        super().stop()
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._tty_fd, termios.TIOCSETD, struct.pack("i", 0))
        os.close(self._tty_fd)


def kernel_stamping(path: str, host: Host) -> Stamping:
    """How a kernel pulse device stamps, as its driver's name tells."""
    if over_usb(host, path):
        return BY_KERNEL_USB
    return BY_DISCIPLINE if any(p.tty for p in pulses(host) if p.path == host.target(path)) else BY_KERNEL


def open_pulse(path: str, clock: LocalClock, wake: Callable[[], None]) -> PulseDevice:
    """Open the pulse that a configuration names, a /dev/ppsN or a control line. OSError as PpsThread."""
    parts = control_line(path)
    if parts is None:
        return PpsThread(path, clock, wake, kernel_stamping(path, Host()))
    tty, line = parts
    if line == "dcd":
        fd = -1
        try:
            fd, device = attach(tty, Host())
            return _Attached(fd, device, clock, wake)
        except OSError:
            if fd >= 0:
                os.close(fd)
    return ControlLine(tty, line, clock, wake)


# ---- lines that are moved ------------------------------------------------------------------------------------------------------------

OUTPUTS: Final = {"rts": termios.TIOCM_RTS, "dtr": termios.TIOCM_DTR}
_REQUEST: Final = struct.Struct("=64I32sQI20s240sII20si")
"""struct gpio_v2_line_request: offsets, consumer, config (flags, num_attrs, padding, attributes), num_lines, buffer, padding, fd."""
_GET_LINE: Final = 0xC250B407
"""_IOWR(0xB4, 0x07, struct gpio_v2_line_request)."""
_SET_VALUES: Final = 0xC010B40F
"""_IOWR(0xB4, 0x0F, struct gpio_v2_line_values): bits, mask."""
_OUTPUT: Final = 1 << 3
"""GPIO_V2_LINE_FLAG_OUTPUT."""


class OutputLine:
    """A line that ``set`` moves, low at first. OSError: it cannot be opened; ``strerror`` is the sentence for people."""

    def __init__(self, path: str) -> None:
        device, _, name = path.rpartition(":")
        self.path = path
        self._mask = OUTPUTS.get(name, 0)
        if not device or (not self._mask and not (re.fullmatch(r"\d{1,3}", name) and "gpiochip" in device)):
            what = f"{path} is no line that can be set; name one like /dev/ttyS0:rts, /dev/ttyS0:dtr or /dev/gpiochip0:23"
            raise OSError(errno.EINVAL, what)
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not self._mask:
                    self._take_pin(int(name))
            except OSError:
                os.close(self._fd)
                raise
        except OSError as e:
            hints = {errno.EBUSY: "something else has it", errno.EINVAL: "the chip has no such pin", errno.ENOTTY: "it is no gpiochip"}
            raise OSError(e.errno, explain(OSError(e.errno, e.strerror), path, hints)) from e
        try:
            self.set(False)
        except OSError:
            self.close()
            raise

    def _take_pin(self, offset: int) -> None:
        """Replace the chip's descriptor by that of one of its pins, as an output (linux/gpio.h)."""
        none = [0] * 63
        request = bytearray(_REQUEST.pack(offset, *none, b"refclock calibrate", _OUTPUT, 0, bytes(20), bytes(240), 1, 0, bytes(20), -1))
        fcntl.ioctl(self._fd, _GET_LINE, request)
        os.close(self._fd)
        self._fd = _REQUEST.unpack(request)[-1]

    def set(self, high: bool) -> None:
        """Move it; the electrical edge has happened when this returns, or (USB) follows within milliseconds. OSError: it is gone."""
        try:
            if self._mask:
                fcntl.ioctl(self._fd, termios.TIOCMBIS if high else termios.TIOCMBIC, struct.pack("i", self._mask))
            else:
                fcntl.ioctl(self._fd, _SET_VALUES, struct.pack("=QQ", int(high), 1))
        except OSError as e:
            hints = {errno.ENOTTY: "it has no such line; a serial port has rts and dtr, a gpiochip numbered pins"}
            raise OSError(e.errno, explain(e, self.path, hints)) from e

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)
