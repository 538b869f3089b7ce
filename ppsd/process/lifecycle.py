"""The life of a process: alone in its directory, ended with its parent, watched by systemd or the supervisor, woken by signals.

The supervisor speaks to its children as systemd does to services: they report to what NOTIFY_SOCKET names (sd_notify(3)), and sockets are
handed over by LISTEN_FDS (sd_listen_fds(3)). So the clock and the serve process need not know which of the two has started them.
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
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

from refclock.errors import explain
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


INHERITED: Final = "fd:"
"""How NOTIFY_SOCKET begins in the supervisor's children; the number of a connected socket follows. It has no name by which other processes
could write to it. systemd gives a name instead."""


def notify(state: str) -> bool:
    """Report to systemd or the supervisor: "READY=1", "WATCHDOG=1", "STATUS=..." (sd_notify(3)). False when nobody listens. Never waits,
    never raises."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@", INHERITED)):
        return False
    address = "\0" + name[1:] if name.startswith("@") else name
    try:
        if name.startswith(INHERITED):
            os.write(int(name.removeprefix(INHERITED)), state.encode())
            return True
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
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if poll.poll(0):
        raise SystemExit(0)


def watchdog_s(usual_s: float, environment: Mapping[str, str] = os.environ) -> float:
    """s between two WATCHDOG=1: half of what WATCHDOG_USEC allows (sd_watchdog_enabled(3)), and at most ``usual_s``."""
    asked = environment.get("WATCHDOG_USEC", "")
    return min(usual_s, int(asked) / 2e6) if asked.isdigit() and int(asked) else usual_s


FIRST_FD: Final = 3
"""SD_LISTEN_FDS_START (sd_listen_fds(3))."""
SOCKETS: Final = 32
"""Sockets that are taken over at most: SRV_SOCKETS_MAX of native/server.h."""


def handed_over() -> int:
    """How many sockets, from FIRST_FD on, systemd or the supervisor has handed to this process. The variables are removed, so that no child
    takes them for its own. A supervisor does not know its child's number when it writes them: it states its own."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid not in (str(os.getpid()), str(os.getppid())) or not count.isdigit():
        return 0
    found = min(int(count), SOCKETS)
    for fd in range(FIRST_FD, FIRST_FD + found):
        os.set_inheritable(fd, False)
    return found


_BIND_HINTS: Final = {
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE or socket activation",
    errno.EADDRINUSE: "another program has it (ss -ulnp says which); stop that one, or use another port",
}


def refused_addresses(endpoints: Iterable[tuple[str, int]]) -> list[str]:
    """Why each of these addresses (numeric host, port) cannot be served. An address that no interface has may come later, and an address
    family that this machine does not have is none of its faults: neither is refused."""
    refused: list[str] = []
    for host, port in endpoints:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((host, port))
        except OSError as error:
            if error.errno in _BIND_HINTS:
                refused.append(explain(error, f"listening at {host} port {port}", _BIND_HINTS))
    return refused


class Alone:
    """A lock on ``directory``, for as long as this process lives: only one clock process works in it. OSError EBUSY: another one does.

    The kernel frees the lock when its holder dies, however it dies (flock(2)). systemd-tmpfiles cleans no directory that is locked
    (tmpfiles.d(5)). A file system without locks grants it to everybody."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = self._locked()

    def _locked(self) -> int:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            why = "another clock process runs there (refclock status shows it); end that one, or give this one a --run-dir of its own"
            raise OSError(errno.EBUSY, why, str(self._directory)) from None
        except OSError:  # no locks here
            pass
        return fd

    def renew(self) -> None:
        """Lock the directory again when somebody has removed it and it was made anew. OSError: as above."""
        if not os.path.samestat(os.fstat(self._fd), self._directory.stat()):
            fd = self._locked()
            os.close(self._fd)
            self._fd = fd

    def close(self) -> None:
        """Let others work there."""
        os.close(self._fd)


class Terminal:
    """The terminal that controls this process, if any: SIGHUP means that it has hung up, or that somebody wants a reload.

    After a hang-up the kernel has taken the terminal from the session before it sends the signal (__tty_hangup, drivers/tty/tty_io.c).
    A process that was started with nohup(1) outlives its terminal."""

    def __init__(self) -> None:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._had = not ignored and _controlled()
        self._missed = 0

    def hung_up(self) -> bool:
        """Whether the SIGHUP that has just come is the terminal's hang-up."""
        return self._had and not _controlled()

    def look(self) -> None:
        """Called once a second: a terminal that has been gone for some time without a signal is of no concern any more."""
        self._missed = self._missed + 1 if self._had and not _controlled() else 0
        self._had = self._had and self._missed < OUTLIVED


OUTLIVED: Final = 5
"""Looks, one a second, after which a terminal that is gone has been outlived. A shell passes the hang-up on at once."""


def _controlled() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


STOPS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """The signals received, and a descriptor that wakes the poll loop. SIGTERM, SIGINT and the terminal's hang-up set ``stop``, any other
    SIGHUP sets ``reload``."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self._terminal = Terminal()
        self.wake, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (*STOPS, signal.SIGHUP):
            signal.signal(number, self._came)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def _came(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP and not self._terminal.hung_up():
            self.reload = True
        else:
            self.stop = True

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
