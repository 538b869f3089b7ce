"""What a process gives up for good once it has opened what it needs: its user, its capabilities, and system calls (native/sandbox.h).

Whoever takes over the process that parses packets then finds neither a file to write nor a right to use. Nothing here ends a process: what
cannot be given up, on an old kernel or in a container, is returned as a sentence for the log.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import resource
import signal
import socket
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from refclock.kernel._kernel import ffi, lib
from refclock.kernel.files import group_number, judge, owners, user_number

CLOCK: Final = lib.SBX_CLOCK
SERVE: Final = lib.SBX_SERVE
"""Which of the two processes, by the system calls that it makes."""
NOBODYS: Final = 61123
"""A user's and a group's number; used where the configured user does not exist. It lies in a range that distributions leave free (60706 to
61183: systemd's list of users and groups), so that no other program runs under it."""


PATIENCE_S: Final = 5.0
"""s to wait for a helper's answer; it opens one file."""
DIRECTORY: Final = "."
"""The request for the run directory."""
PATH_BYTES: Final = 4096
"""Octets of the longest request: a number and a path, which is shorter than PATH_MAX (linux/limits.h) by more than the number."""


class Capability(IntEnum):
    """Capabilities that a process may need; numbers of linux/capability.h."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    NET_BIND_SERVICE = 10
    IPC_OWNER = 15
    SYS_PTRACE = 19
    SYS_NICE = 23
    SYS_TIME = 25


@dataclass(frozen=True, slots=True)
class Account:
    """A user to become, the group, and another group that it is in (``shared``). ``exists``: the system has such a user."""

    user: int
    group: int
    shared: int
    exists: bool


def account(user: str, shared: str = "") -> Account:
    """The account of ``user`` (name or number), else NOBODYS; also in the group ``shared`` (name or number), when there is such a group."""
    number = user_number(user)
    group, exists = NOBODYS if number is None else number, False
    if number is not None:
        with contextlib.suppress(KeyError):
            group, exists = pwd.getpwuid(number).pw_gid, True
    other = group_number(shared) if shared else None
    return Account(NOBODYS if number is None else number, group, group if other is None else other, exists)


def lend(directory: Path, to: Account) -> tuple[Path, int]:
    """Let ``to`` make files in a directory of root, and remove its own only (it becomes sticky, and its group's). This process changes into
    the directory, for ``to`` may not reach it from above. Returns the path from there, and the group that ``to`` needs.

    Root has no need of that for itself, and others than root can do nothing: the path stays as it is. Where files may not be given away, as
    in a user namespace that has no such group or without CAP_CHOWN, the directory stays root's alone.
    """
    if not to_drop(to):
        return directory, to.group
    found = directory.stat()
    group = to.group if found.st_gid == 0 else found.st_gid
    if found.st_uid == 0:
        with contextlib.suppress(OSError):
            os.chown(directory, -1, group)
            directory.chmod(stat.S_IMODE(found.st_mode) | stat.S_ISVTX | stat.S_IWGRP | stat.S_IXGRP)
    os.chdir(directory)
    return Path(), group


def give(state: Path, name: str, mode: int, to: Account) -> Path:
    """The directory ``name`` in ``state``, made when it is missing, and ``to``'s. To be called before rights are given up. Whether it can
    be used shows when it is."""
    place = state / name
    with contextlib.suppress(OSError):
        state.mkdir(mode=0o755, parents=True, exist_ok=True)
        judge(state, owners())
        place.mkdir(mode=mode, exist_ok=True)
        if to_drop(to):
            os.chown(place, to.user, to.group, follow_symlinks=False)
            if state.stat().st_uid == 0:  # it may be entered, not listed: the files of the clock process are root's alone
                state.chmod(stat.S_IMODE(state.stat().st_mode) | 0o011)
    return place


def to_drop(to: Account) -> bool:
    """Whether this process is root's and is to become somebody else."""
    return os.geteuid() == 0 and to.user != 0


def confine(process: int, keep: Collection[Capability], to: Account | None = None, also: int = 0) -> list[str]:
    """Become ``to`` with the group ``also`` (of ``lend``), when this is root. Keep of the capabilities only ``keep``, and make only the
    system calls of ``process``. Threads that were started before keep their capabilities. Returns what could not be given up, and why."""
    kept: list[str] = []
    if to is not None and to_drop(to):
        result = lib.sbx_become(to.user, to.group, to.shared, also)
        if result < 0:
            kept.append(f"stays user 0, without its rights: user {to.user} cannot be taken on ({os.strerror(-result)})")
    result = lib.sbx_keep(sum(1 << capability for capability in keep))
    if result < 0:
        kept.append(f"capabilities: {os.strerror(-result)}")
    result = lib.sbx_restrict(process)
    if result < 0:
        kept.append(f"no filter of system calls: {os.strerror(-result)}")
    return kept


def refused() -> Iterator[str]:
    """The system calls that were refused since the last look. Each is a fault of this program, or an attack."""
    while (number := lib.sbx_refused()) >= 0:
        yield f"{ffi.string(lib.sbx_call_name(number)).decode()} ({number})"


class Helper:
    """A process of root's that does for this one what it may no longer do once it is ``to``. It opens files to read: keys are root's alone.
    And it makes the run directory again, when it has been removed.

    ``allowed``: the files that it opens, asked anew each time; it trusts nothing that this process says. It is started before any socket is
    bound, parses nothing that came from the network, and ends with this process. Another user than root has none.
    """

    def __init__(self, to: Account, directory: Path, allowed: Callable[[], Collection[str]]) -> None:
        self._ask: socket.socket | None = None
        self._asked = 0
        if not to_drop(to):
            return
        self._ask, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ask.settimeout(PATIENCE_S)
        self._place = directory.absolute()
        if os.fork() == 0:
            try:
                _help(theirs, to, self._place, allowed)
            finally:
                os._exit(0)
        theirs.close()

    def open(self, path: str, flags: int) -> int:
        """As os.open; for ``open(..., opener=)``."""
        try:
            return os.open(path, flags)
        except PermissionError:
            if self._ask is None:
                raise
        return self._descriptor(path)

    def enter(self) -> None:
        """Change into the run directory again when it has been removed or exchanged since. OSError: it cannot be made. BrokenPipeError:
        nor will it ever be, for the helper has ended."""
        if self._ask is not None and self._left():
            fd = self._descriptor(DIRECTORY)
            os.fchdir(fd)
            os.close(fd)

    def _left(self) -> bool:
        """Whether this process is no longer in the directory that bears the name of the run directory."""
        here = Path().stat()
        try:
            return not os.path.samestat(here, self._place.stat())
        except FileNotFoundError:
            return True
        except PermissionError:  # a directory above is closed to this user
            return here.st_nlink == 0

    def _descriptor(self, of: str) -> int:
        assert self._ask is not None
        ended = BrokenPipeError(errno.EPIPE, "the process that opens files for this one has ended; start refclock again", of)
        self._asked += 1
        answered, fds = -1, list[int]()
        try:
            self._ask.send(b"%d %s" % (self._asked, os.fsencode(of)))
            while answered != self._asked:  # an answer that came too late belongs to an earlier request
                for fd in fds:
                    os.close(fd)
                said, fds, _, _ = socket.recv_fds(self._ask, 32, 1)
                if not said:
                    raise ended
                answered, code = map(int, said.split())
        except ConnectionError:
            raise ended from None
        if not fds:
            raise OSError(code, os.strerror(code), of)
        os.set_inheritable(fds[0], False)
        return fds[0]


def _help(theirs: socket.socket, to: Account, directory: Path, allowed: Callable[[], Collection[str]]) -> None:
    """The helper's life: one request after the other, until the asking process has ended."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wanted = theirs.detach()
    os.dup2(wanted, 0)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    confine(SERVE, [Capability.DAC_READ_SEARCH, Capability.CHOWN])
    with socket.socket(fileno=0) as asked:
        while request := asked.recv(PATH_BYTES):
            of, _, path = request.partition(b" ")
            name = os.fsdecode(path)
            try:
                if name == DIRECTORY:
                    directory.mkdir(parents=True, exist_ok=True)
                    lend(directory, to)
                    name = "."
                elif name not in allowed():
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            except OSError as error:
                asked.send(b"%s %d" % (of, error.errno or errno.EIO))
            else:
                socket.send_fds(asked, [b"%s 0" % of], [fd])
                os.close(fd)
