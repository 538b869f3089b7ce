"""A process from its start to its end: the parent it dies with, what it tells systemd, and the signals that its poll loop waits for.

The same for the clock and the serve process, and for the simulator that runs beside them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
from types import FrameType

PARENT_FD = "REFCLOCK_PARENT_FD"
"""Environment variable that hands a child its end of the pipe."""


def notify(state: str) -> bool:
    """Tell systemd (sd_notify(3): "READY=1", "WATCHDOG=1", "STATUS=..."); False when nobody listens. Never waits, never raises."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False
    address = "\0" + name[1:] if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(address)
            sock.send(state.encode())
    except OSError:
        return False
    return True


def die_with_parent() -> None:
    """In a supervisor's child: ask for SIGTERM when the supervisor's end of the pipe closes (O_ASYNC, F_SETSIG: fcntl(2)); end at once when
    it has closed. A process that no supervisor started lives on."""
    text = os.environ.pop(PARENT_FD, "")
    if not text.isdigit():
        return
    fd = int(text)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    os.set_inheritable(fd, False)
    if select.select([fd], [], [], 0)[0]:
        raise SystemExit(0)


STOPS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Which signals came, and a descriptor that tells. SIGHUP only sets ``reload``."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self.wake, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (*STOPS, signal.SIGHUP):
            signal.signal(number, self._came)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def _came(self, number: int, _: FrameType | None) -> None:
        self.reload = self.reload or number == signal.SIGHUP
        self.stop = self.stop or number != signal.SIGHUP

    def nudge(self) -> None:
        """Wake the loop (any thread)."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self._write, b"\0")

    def drain(self) -> bool:
        """Take note of the wake-ups so far; False when there were none, though the descriptor was called readable."""
        try:
            return bool(os.read(self.wake, 4096))
        except BlockingIOError:
            return False

    def let_go(self) -> None:
        """SIGTERM and SIGINT end the process by themselves from now on."""
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
