"""A receiver's line: opened exclusively, read without blocking, each read stamped on both clocks (pyserial behind this door).

A line is used by what its device can do, whatever its name (``open_port``). UARTs, USB serial adapters, USB CDC and pseudo-terminals are
terminals, also through symlinks; ``receiver.autobaud`` decides which speed to listen at. The kernel's GNSS class (/dev/gnss0: Intel E810,
receivers on serdev), other character devices and FIFOs are not: their driver sets the speed, and nothing but read and write is asked of
them (drivers/gnss/core.c has no terminal ioctls).

Flow: device -> **serial_port** -> (bytes, Instant) -> receiver_line.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import stat
import termios
from pathlib import Path
from typing import Final

import serial

from refclock.config import BITS_PER_BYTE
from refclock.devices.ports import SERIAL_PATTERNS, serial_devices
from refclock.errors import explain
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.sample import NS, Instant

READ_BYTES: Final = 4096
"""Bytes of one read: the line discipline's buffer (N_TTY_BUF_SIZE, drivers/tty/n_tty.c)."""
READS: Final = 2
"""Reads in one call at most, so that a device that floods does not hold the caller. The worst 8 kB take 60 ms to decode (measured); a
line of 115200 baud needs 0.7 s to bring so many."""
DEFAULT_BAUD: Final = 9600
"""Baud at which a line is opened when its speed does not matter (pseudo-terminal) or is to be found."""

NO_TERMINAL: Final = (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP, 515)
"""Errors of ioctl(2) on a device without terminal calls; some drivers return EINVAL, or 515, the kernel's own
ENOIOCTLCMD."""
CANNOT_WRITE: Final = (errno.EAGAIN, errno.EBADF, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP)
"""Errors of write(2) that leave a device readable: full for now; or opened for reading only, without a write method, or refused."""


def has_line_speed(path: str) -> bool:
    """Whether the line at ``path`` has a speed: a receiver's own USB has none (CDC ACM: drivers/usb/class/cdc-acm.c)."""
    return not Path(path).resolve().name.startswith("ttyACM")


def open_port(path: str, baud: int, clock: LocalClock) -> RawPort:
    """The line at ``path``, a terminal at ``baud`` or a device without terminal calls. OSError: as RawPort."""
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISFIFO(mode):
            return RawPort(path, clock)
        if not stat.S_ISCHR(mode):
            return SerialPort(path, baud, clock)
        fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise failure(path, e) from e
    try:  # the device stays open meanwhile: a second closing and opening would move DTR, which resets some boards
        termios.tcgetattr(fd)
        return SerialPort(path, baud, clock)
    except termios.error as e:
        if e.args[0] not in NO_TERMINAL:
            raise failure(path, OSError(int(e.args[0]), os.strerror(int(e.args[0])))) from e
        return RawPort(path, clock)
    finally:
        os.close(fd)


class RawPort:
    """``path`` as a device that is only read and written. ``baud``: its speed, 0: it has none or it is unknown. ``byte_ns``: line time of
    one byte, 0 without a speed.

    OSError, here and in ``read``: ``strerror`` is the sentence for people (``failure``).
    """

    def __init__(self, path: str, clock: LocalClock) -> None:
        self.path = path
        self._clock = clock
        try:
            self._fd = self._open()
        except OSError as e:
            raise failure(path, e) from e
        self._writes = not stat.S_ISFIFO(os.fstat(self._fd).st_mode)  # what is written to a FIFO comes back to its reader

    def _open(self) -> int:
        """The descriptor. For writing as well where that is permitted; a FIFO then outlives its writers (fifo(7))."""
        flags = os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self.path, os.O_RDWR | flags)
        except OSError as e:
            if e.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL):
                raise
            fd = os.open(self.path, os.O_RDONLY | flags)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd

    @property
    def baud(self) -> int:
        """The speed as set."""
        return 0

    @property
    def byte_ns(self) -> int:
        """Line time of one byte, ns."""
        return 0

    def set_baud(self, baud: int) -> None:
        """Change the speed; what was received at the old one and not yet read is thrown away. Without a speed there is nothing to do."""
        del baud

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._fd

    def read(self) -> tuple[bytes, Instant]:
        """All that has arrived (b"": nothing) and the instant at which the reading of it ended. OSError: the line hung up or failed."""
        chunks: list[bytes] = []
        for _ in range(READS):
            try:
                chunk = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                break
            except OSError as e:
                if chunks:
                    break
                raise failure(self.path, e) from e
            if not chunk:
                if chunks:
                    break
                raise failure(self.path, OSError(errno.ENODEV, "hung up"))
            chunks.append(chunk)
        return b"".join(chunks), self._clock.now()

    def write(self, data: bytes) -> int:
        """Send ``data`` (receiver configuration); how many bytes the driver took, 0 where the device cannot be written. Never blocks."""
        if not self._writes:
            return 0
        try:
            return os.write(self._fd, data)
        except OSError as e:
            if e.errno in CANNOT_WRITE:
                self._writes = e.errno == errno.EAGAIN
                return 0
            raise failure(self.path, e) from e

    def close(self) -> None:
        """Close the line."""
        os.close(self._fd)


class SerialPort(RawPort):
    """``path`` as a terminal at ``baud`` 8N1 raw. ``byte_ns`` is 0 for USB CDC, which has no line speed."""

    def __init__(self, path: str, baud: int, clock: LocalClock) -> None:
        self._wanted = baud or DEFAULT_BAUD
        self._timed = has_line_speed(path)
        super().__init__(path, clock)
        self._tune()

    def _open(self) -> int:
        try:
            self._port = serial.Serial(self.path, self._wanted, timeout=0, exclusive=True)
        except ValueError as e:
            raise OSError(errno.EINVAL, str(e)) from e
        return int(self._port.fileno())

    @property
    def baud(self) -> int:
        """As RawPort."""
        return int(self._port.baudrate)

    @property
    def byte_ns(self) -> int:
        """As RawPort."""
        return BITS_PER_BYTE * NS // self.baud if self._timed else 0

    def set_baud(self, baud: int) -> None:
        """As RawPort."""
        try:
            self._port.baudrate = baud
            self._port.reset_input_buffer()
        except (OSError, ValueError, termios.error) as e:
            refused = e if isinstance(e, OSError) else OSError(errno.EIO, f"cannot be set to {baud} baud: {e}")
            raise failure(self.path, refused) from e
        self._tune()

    def _tune(self) -> None:
        """Set VMIN to 1: with pyserial's 0 a read of a line that hung up looks like one of a silent line (termios(3))."""
        try:
            attributes = termios.tcgetattr(self._fd)
            attributes[6][termios.VMIN] = 1
            termios.tcsetattr(self._fd, termios.TCSANOW, attributes)
        except termios.error as e:
            self.close()
            raise failure(self.path, OSError(int(e.args[0]), "cannot be configured")) from e

    def close(self) -> None:
        """As RawPort."""
        self._port.close()


# ---- what went wrong ------------------------------------------------------------------------------------------------------------------


def failure(path: str, error: OSError) -> OSError:
    """``error`` with the sentence for people: what failed with this serial line, why, and what to do about it."""
    match error.errno:
        case errno.ENOENT:
            why = f"there is no such device; {_present()}; plug the receiver in or correct device"
        case errno.EACCES | errno.EPERM:
            why = f"permission denied; {_group_advice(path)}"
        case errno.EBUSY | errno.EAGAIN:
            holder = ", ".join(Host().holders(path)) or "another program"
            why = f'{holder} has it open; stop that program, or let it share the receiver (gpsd: type = "gpsd")'
        case errno.ENOTTY | errno.EISDIR | errno.ENXIO:
            why = "this is no serial line; correct device"
        case errno.ENODEV:
            why = "the line hung up: the receiver was unplugged or its driver went away; plug it in again"
        case errno.EIO:
            why = "the line is dead: there is no UART behind it, or the receiver was unplugged; correct device or plug it in"
        case _:
            why = error.strerror or str(error)
    return OSError(error.errno, explain(OSError(error.errno, why), path))


def _present() -> str:
    found = ", ".join(serial_devices(Host()).values())
    return f"found instead: {found}" if found else f"looked for {', '.join(SERIAL_PATTERNS)} in /dev: none"


def _group_advice(path: str) -> str:
    try:
        group = grp.getgrgid(Path(path).stat().st_gid).gr_name
    except (OSError, KeyError):
        group = "dialout"  # Debian's group of serial lines
    if group == "root":
        return "only root may use it; is a getty (serial console) on it? disable that, then: usermod -aG dialout <user>"
    return f"add the user that runs this to the group {group}: usermod -aG {group} <user>, then log in again or restart the service"
