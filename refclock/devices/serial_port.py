"""A receiver's serial line: opened exclusively, read without blocking, each read stamped on both clocks (pyserial behind this door).

It works on UARTs, USB serial adapters, USB CDC and pseudo-terminals, also through symlinks. ``receiver.autobaud`` decides which speed to
listen at.

Flow: tty -> **serial_port** -> (bytes, Instant) -> receiver_line.
"""

from __future__ import annotations

import errno
import grp
import os
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
READS: Final = 16
"""Reads in one call at most, so that a device that floods does not hold the caller."""
DEFAULT_BAUD: Final = 9600
"""Baud at which a line is opened when its speed does not matter (pseudo-terminal) or is to be found."""


def has_line_speed(path: str) -> bool:
    """Whether the line at ``path`` has a speed: a receiver's own USB has none (CDC ACM: drivers/usb/class/cdc-acm.c)."""
    return not Path(path).resolve().name.startswith("ttyACM")


class SerialPort:
    """``path`` at ``baud`` 8N1 raw. ``byte_ns``: line time of one byte, 0 for USB CDC, which has none.

    OSError, here and in ``read``: ``strerror`` is the sentence for people (``failure``).
    """

    def __init__(self, path: str, baud: int, clock: LocalClock) -> None:
        self.path = path
        self._clock = clock
        self._timed = has_line_speed(path)
        try:
            self._port = serial.Serial(path, baud or DEFAULT_BAUD, timeout=0, exclusive=True)
        except (OSError, ValueError) as e:
            raise failure(path, e if isinstance(e, OSError) else OSError(errno.EINVAL, str(e))) from e
        self._tune()

    @property
    def baud(self) -> int:
        """The speed as set."""
        return int(self._port.baudrate)

    @property
    def byte_ns(self) -> int:
        """Line time of one byte, ns."""
        return BITS_PER_BYTE * NS // self.baud if self._timed else 0

    def set_baud(self, baud: int) -> None:
        """Change the speed; what was received at the old one and not yet read is thrown away."""
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
            attributes = termios.tcgetattr(self._port.fileno())
            attributes[6][termios.VMIN] = 1
            termios.tcsetattr(self._port.fileno(), termios.TCSANOW, attributes)
        except termios.error as e:
            self._port.close()
            raise failure(self.path, OSError(int(e.args[0]), "cannot be configured")) from e

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return int(self._port.fileno())

    def read(self) -> tuple[bytes, Instant]:
        """All that has arrived (b"": nothing) and the instant at which the reading of it ended. OSError: the line hung up or failed."""
        chunks: list[bytes] = []
        for _ in range(READS):
            try:
                chunk = os.read(self._port.fileno(), READ_BYTES)
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
        """Send ``data`` (receiver configuration); how many bytes the driver took. Never blocks."""
        try:
            return os.write(self._port.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as e:
            raise failure(self.path, e) from e

    def close(self) -> None:
        """Close the line."""
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
