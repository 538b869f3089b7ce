"""A pseudo-terminal as a serial port: a stable name outside /dev/pts, and a reader who comes and goes.

Flow: receiver chunks -> device -> **pty** -> the program under test, and its commands back. A pty has no bit rate, modem lines or line
errors. The writer paces the bytes, and fake_pps.c gives the carrier. With ``strict``, bytes sent at another rate or in another format than
the reader has set arrive as a UART would read them.

The slave is not held open. On its last close the kernel raises POLLHUP on the master (drivers/tty/pty.c); bytes sent while nobody listens
are lost, as on a line, instead of waiting for the next reader.
"""

from __future__ import annotations

import os
import select
import termios
import tty
from pathlib import Path
from types import TracebackType
from typing import Self

from refclock_sim.ports.uart import heard

READ_MAX = 4096
"""Bytes of the line discipline's buffer (N_TTY_BUF_SIZE, drivers/tty/n_tty.c)."""
_SPEEDS = {getattr(termios, f"B{baud}"): baud for baud in (4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)}


class Pty:
    """``link`` becomes a symbolic link to the slave and replaces an earlier one. OSError when it cannot be made."""

    def __init__(self, link: Path, strict: bool = False) -> None:
        self.link = link
        self.strict = strict
        self.lost = 0
        """Bytes sent while nobody listened, or into a full buffer."""
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self.slave = os.ttyname(slave)
        os.fchmod(slave, 0o666)  # the reader may have dropped its privileges
        os.close(slave)
        os.set_blocking(self.master, False)
        self._poll = select.poll()
        self._poll.register(self.master, select.POLLIN)
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self.slave)
        fresh.replace(link)

    def listening(self) -> bool:
        """Whether a program has the port open."""
        return not any(event & select.POLLHUP for _fd, event in self._poll.poll(0))

    def baud(self) -> int | None:
        """The bit rate that the reader has set; None for an unusual one."""
        return _SPEEDS.get(termios.tcgetattr(self.master)[5])

    def send(self, data: bytes, baud: int, bits: str = "8N1") -> None:
        """Bytes whose last one arrives now, sent at ``baud`` (0: USB) in the format ``bits``. Never blocks."""
        if not self.listening():
            self.lost += len(data)
            return
        if self.strict and baud:
            data = heard(data, bits, baud, self.baud() or baud)
        try:
            written = os.write(self.master, data)
        except BlockingIOError:
            written = 0
        self.lost += len(data) - written

    def receive(self) -> bytes:
        """Bytes that the reader has written, maybe none. Never blocks."""
        try:
            return os.read(self.master, READ_MAX)
        except OSError:  # EAGAIN: nothing; EIO: nobody has it open
            return b""

    def close(self) -> None:
        """Hang up and remove the name: the reader gets an end of file or EIO, as when unplugged."""
        if self.link.is_symlink() and str(self.link.readlink()) == self.slave:
            self.link.unlink()
        os.close(self.master)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
