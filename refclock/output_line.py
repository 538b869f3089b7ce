"""A line that we set ourselves, wired back to a pulse input: how late are edges stamped that were made at a known instant?

``/dev/ttyS0:rts`` and ``:dtr`` are outputs of a serial port, ``/dev/gpiochip0:23`` is a pin of the GPIO character device (ABI v2, Linux
5.10: include/uapi/linux/gpio.h; struct sizes and request numbers are the same on all machines). For ``refclock calibrate pps`` only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import termios
from typing import Final

LINES: Final = {"rts": termios.TIOCM_RTS, "dtr": termios.TIOCM_DTR}
_REQUEST: Final = struct.Struct("=64I32sQI20s240sII20si")
"""struct gpio_v2_line_request: offsets, consumer, config (flags, num_attrs, padding, attributes), num_lines, buffer, padding, fd."""
_GET_LINE: Final = 0xC250B407
"""_IOWR(0xB4, 0x07, struct gpio_v2_line_request)."""
_SET_VALUES: Final = 0xC010B40F
"""_IOWR(0xB4, 0x0F, struct gpio_v2_line_values): bits, mask."""
_OUTPUT: Final = 1 << 3
"""GPIO_V2_LINE_FLAG_OUTPUT."""


class OutputLine:
    """A line that ``set`` moves; low at first. OSError, with a sentence for people, when it cannot be had."""

    def __init__(self, path: str) -> None:
        device, _, name = path.rpartition(":")
        self.path = path
        self._mask = LINES.get(name, 0)
        if not self._mask and not (re.fullmatch(r"\d{1,3}", name) and "gpiochip" in device):
            what = f"{path} is no line that can be set; name one like /dev/ttyS0:rts, /dev/ttyS0:dtr or /dev/gpiochip0:23"
            raise OSError(errno.EINVAL, what)
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not self._mask:
                    self._take_pin(int(name))
                self.set(False)
            except OSError:
                os.close(self._fd)
                raise
        except OSError as e:
            busy = "; something else has it" if e.errno == errno.EBUSY else ""
            raise OSError(e.errno, f"{path}: {os.strerror(e.errno or 0)}{busy}") from e

    def _take_pin(self, offset: int) -> None:
        """Exchange the chip's descriptor for that of one of its pins, as an output."""
        none = [0] * 63
        request = bytearray(_REQUEST.pack(offset, *none, b"refclock calibrate", _OUTPUT, 0, bytes(20), bytes(240), 1, 0, bytes(20), -1))
        fcntl.ioctl(self._fd, _GET_LINE, request)
        os.close(self._fd)
        self._fd = _REQUEST.unpack(request)[-1]

    def set(self, high: bool) -> None:
        """Move it; the electrical edge is there when this returns, or (USB) soon after."""
        if self._mask:
            fcntl.ioctl(self._fd, termios.TIOCMBIS if high else termios.TIOCMBIC, struct.pack("i", self._mask))
        else:
            fcntl.ioctl(self._fd, _SET_VALUES, struct.pack("=QQ", int(high), 1))

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)
