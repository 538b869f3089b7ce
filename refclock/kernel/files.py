"""Files that no other user can exchange or write: owners and directories are judged, and files are replaced whole.

Who may write a directory may put a link, a socket or a file of his own in the place of ours. A process of root that trusts such a directory
overwrites any file, and believes what anybody wrote. So a file is believed when its owner is (``owners``), and a directory when nobody else
can change it or any directory above it (``judge``).
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

LINKS: Final = 40
"""Links followed on the way to a file, as many as the kernel follows (MAXSYMLINKS of linux/namei.h)."""


def user_number(user: str) -> int | None:
    """The number of a user, named or as a number; None when there is none of that name."""
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def group_number(group: str) -> int | None:
    """The number of a group, named or as a number; None when there is none of that name."""
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def user_name(number: int) -> str:
    """How people call the user: by name, else by number."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def owners(*users: str) -> frozenset[int]:
    """Whose files are believed: root's, those of this process's own user, and those of ``users`` (names or numbers) that exist.

    The owner of / counts as root: in a user namespace without a number for root its files show another one (user_namespaces(7)).
    """
    named = {number for user in users if (number := user_number(user)) is not None}
    return frozenset({0, os.geteuid(), Path("/").stat().st_uid} | named)


# ---- directories ---------------------------------------------------------------------------------------------------------------------


def _entries(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every entry that the kernel looks up on the way to ``path``, links included, with its lstat(2). OSError: one is missing."""
    at, links = Path("/"), 0
    ahead = list(reversed(path.absolute().parts[1:]))
    yield at, at.lstat()
    while ahead:
        step = at / ahead.pop()
        if step.name == "..":
            at = at.parent
            continue
        found = step.lstat()
        yield step, found
        if not stat.S_ISLNK(found.st_mode):
            at = step
            continue
        links += 1
        if links > LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = step.readlink()
        at = Path("/") if target.is_absolute() else at
        ahead += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def judge(directory: Path, trusted: Collection[int]) -> None:
    """PermissionError when another user than ``trusted`` can change ``directory`` or exchange it, from a directory above or by a link.

    A directory that others may write is accepted on the way when it is sticky, as /tmp is: what is in it belongs to its owner alone. A
    group may write when it is root's or this process's own. OSError: it does not exist.
    """
    last: tuple[Path, os.stat_result] | None = None
    for step, found in _entries(directory):
        last = step, found
        if found.st_uid not in trusted:
            raise PermissionError(errno.EPERM, f"belongs to another user ({user_name(found.st_uid)}), who could exchange it", str(step))
        if stat.S_ISDIR(found.st_mode) and not found.st_mode & stat.S_ISVTX and _others_write(found):
            raise PermissionError(errno.EPERM, "can be changed by another user; run: chmod go-w", str(step))
    if last is not None and last[1].st_mode & stat.S_IWOTH and stat.S_ISDIR(last[1].st_mode):
        raise PermissionError(errno.EPERM, "can be written by another user; choose a directory of its own", str(last[0]))


def closed_directory(path: Path) -> Path | None:
    """The first directory above ``path`` that this user may not enter."""
    return next((above for above in reversed(path.absolute().parents) if not os.access(above, os.X_OK, effective_ids=True)), None)


def _others_write(found: os.stat_result) -> bool:
    group = bool(found.st_mode & stat.S_IWGRP) and found.st_gid not in (0, os.getegid())
    return group or bool(found.st_mode & stat.S_IWOTH)


# ---- reading -------------------------------------------------------------------------------------------------------------------------


def check_owner(path: Path, found: os.stat_result, trusted: Collection[int]) -> None:
    """PermissionError when what was ``found`` at ``path`` belongs to another user than ``trusted``."""
    if found.st_uid not in trusted:
        who = user_name(found.st_uid)
        raise PermissionError(errno.EPERM, f"belongs to another user ({who}), so it is not believed; remove it, or chown it", str(path))


Opener = Callable[[str, int], int]
"""Opens a path with flags, as os.open does."""


def open_trusted(path: Path, trusted: Collection[int], opener: Opener = os.open) -> int:
    """A descriptor of the regular file at ``path``, to read it. No link is followed, no pipe is waited for.

    PermissionError: it belongs to another user than ``trusted``, or others may write it. OSError: no such file, or not a regular one.
    """
    fd = opener(str(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        check_owner(path, found, trusted)
        if found.st_mode & stat.S_IWOTH:
            raise PermissionError(errno.EPERM, "every user may change it, so it is not believed; run: chmod o-w", str(path))
    except OSError:
        os.close(fd)
        raise
    return fd


# ---- replacing -----------------------------------------------------------------------------------------------------------------------


def replace_file(path: Path, data: bytes, mode: int, trusted: Collection[int]) -> None:
    """Replace the content of ``path``, a file of the daemon, by ``data``. It gets the permission bits ``mode``, and replaces a link.

    A power cut or a full disk leaves the old file or the new one, never half of one. OSError: the old file is unchanged, and no temporary
    file is left. PermissionError: the directory is not safe from other users (``judge``).
    """
    judge(path.parent, trusted)
    with _opened(path.parent) as directory:
        _put(directory, path, data, None, mode)


class UserFile:
    """A file of a user, changed in his name: it keeps its mode and owner, and links to it are followed and stay.

    ``path`` is the file itself. PermissionError: a link on the way belongs to a user who is neither ``trusted`` nor the file's owner. He
    could direct the writing elsewhere.
    """

    def __init__(self, path: Path, trusted: Collection[int]) -> None:
        self.path = Path(os.path.realpath(path))
        self._trusted = set(trusted)
        self._found = _lstat(self.path)
        if self._found is not None:
            self._trusted.add(self._found.st_uid)
            for step, found in _entries(path):
                if stat.S_ISLNK(found.st_mode) and found.st_uid not in self._trusted:
                    raise _foreign(step, found.st_uid)

    def replace(self, data: bytes, ending: str = "") -> Path:
        """Replace the content by ``data``; returns the path written. ``ending``: write a file beside it instead, with this added to its
        name, and with its mode and owner. OSError: nothing has changed. PermissionError: the directory is of a user who is not trusted."""
        written = self.path.with_name(self.path.name + ending)
        with _opened(self.path.parent) as directory:
            owner = os.fstat(directory).st_uid
            if owner not in self._trusted:
                raise _foreign(self.path.parent, owner)
            now = _lstat(self.path.name, directory)
            if now is not None and not stat.S_ISREG(now.st_mode):  # such as /dev/null: it would be gone for all programs
                raise OSError(errno.EINVAL, "is no file, and is left alone; name a file", str(self.path))
            if (now and (now.st_dev, now.st_ino)) != (self._found and (self._found.st_dev, self._found.st_ino)):
                raise OSError(errno.EBUSY, "was replaced meanwhile; try again", str(self.path))
            _put(directory, written, data, now, None)
        return written


def _lstat(name: str | Path, directory: int | None = None) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _foreign(path: Path, owner: int) -> PermissionError:
    who = user_name(owner)
    return PermissionError(
        errno.EPERM, f"belongs to another user ({who}), who could direct the writing elsewhere; do it as {who}", str(path)
    )


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """The directory as a descriptor: whatever happens to its name meanwhile, all steps are in one directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _put(directory: int, path: Path, data: bytes, like: os.stat_result | None, mode: int | None) -> None:
    """Write a new file and rename it. ``like``: it takes this mode and owner. None: it takes ``mode``, by default 0666 less the umask."""
    partial, name = f".{path.name}.new", path.name
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=directory)  # left by a run that was killed
        access = 0o600 if like is not None or mode is not None else 0o666
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(partial, flags, access, dir_fd=directory), "wb") as stream:
            fd = stream.fileno()
            made = os.fstat(fd)
            if like is not None:
                if (like.st_uid, like.st_gid) != (made.st_uid, made.st_gid):
                    os.fchown(fd, like.st_uid, like.st_gid)
                mode = like.st_mode & 0o7777
            if mode is not None and mode != made.st_mode & 0o7777:
                os.fchmod(fd, mode)
            stream.write(data)
            stream.flush()
            os.fsync(fd)
        os.replace(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(partial, dir_fd=directory)
        raise OSError(error.errno, error.strerror, str(path)) from error
    with contextlib.suppress(OSError):  # makes the rename durable; not every file system supports it
        os.fsync(directory)
