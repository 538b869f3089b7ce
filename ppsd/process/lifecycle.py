"""The life of a process: its run directory, its end with the parent, reports to systemd, and signals that wake the poll loop.

The clock process, the serve process and the simulator use it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import stat
from pathlib import Path
from types import FrameType

from refclock.kernel.files import judge, owners

PARENT_FD = "REFCLOCK_PARENT_FD"
"""Environment variable with the descriptor of the child's end of the supervisor's pipe."""


def make_run_directory(path: Path, private: bool = False, user: str = "") -> None:
    """Make the run directory when it is missing. ``private``: with mode 0700; an existing one must be this user's, and no link.

    OSError when it cannot be made, or when another user than root, this one and ``user`` can change or exchange it. He may have prepared
    it, under /tmp for example.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700 if private else 0o755, parents=not private)
    found = path.lstat() if private else path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", str(path))
    lent = stat.S_ISVTX | stat.S_IWGRP  # to the server's user (refclock.kernel.sandbox.lend)
    if private and (found.st_uid != os.geteuid() or (found.st_mode & 0o022 and found.st_mode & (lent | 0o002) != lent)):
        raise PermissionError(errno.EPERM, "belongs to, or can be changed by, another user", str(path))
    judge(path, owners(user))
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "may not be written by this user", str(path))


def notify(state: str) -> bool:
    """Report to systemd: "READY=1", "WATCHDOG=1", "STATUS=..." (sd_notify(3)). False when nobody listens. Never waits, never raises."""
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
    """In a supervisor's child, request SIGTERM for when the supervisor's end of the pipe closes (O_ASYNC, F_SETSIG: fcntl(2)). Exit at
    once if it is closed already. Do nothing in a process that no supervisor started."""
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
    """The signals received, and a descriptor that wakes the poll loop. SIGTERM and SIGINT set ``stop``, SIGHUP sets ``reload``."""

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
        """Wake the loop; may be called by any thread."""
        with contextlib.suppress(BlockingIOError):  # the pipe is full: the loop will wake anyway
            os.write(self._write, b"\0")

    def drain(self) -> bool:
        """Read the wake-ups so far. False: there were none, although the descriptor polled readable."""
        try:
            return bool(os.read(self.wake, 4096))
        except BlockingIOError:
            return False

    def let_go(self) -> None:
        """Restore the default action of SIGTERM and SIGINT: they end the process at once."""
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
