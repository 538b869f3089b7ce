"""The contents of a file that a person or another program wrote: bounded, and never waited for.

A pipe in place of a file would hold its reader for ever, and a file without end would fill its memory. Both are refused with a sentence.
Nothing is cut off: a file is taken as a whole or not at all.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from pathlib import Path

from refclock.kernel.files import Opener, check_owner


def contents(path: Path, limit: int, *, private: Collection[int] = (), opener: Opener = os.open) -> bytes:
    """What the file at ``path`` holds, at most ``limit`` octets (whole mebibytes). OSError: it cannot be read, is larger, or is no file.
    ``private``: it must belong to one of these users, and not every user may read or change it. ``opener``: in place of os.open."""
    try:
        fd = opener(str(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError as error:  # a NUL in the name, or a character that no file name can have
        raise OSError(errno.EINVAL, f"is not a file name: {error}") from None
    with os.fdopen(fd, "rb") as stream:
        found = os.fstat(fd)
        mode = found.st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):  # /dev/null is an empty file
            kind = "a pipe" if stat.S_ISFIFO(mode) else "a directory" if stat.S_ISDIR(mode) else "no file"
            raise OSError(errno.EINVAL, f"is {kind}; a regular file is needed")
        if private:
            check_owner(path, found, private)
        if private and mode & (stat.S_IROTH | stat.S_IWOTH):
            raise OSError(errno.EPERM, f"every user may read or change it; run: chmod 640 {path}")
        data = stream.read(limit + 1) or b""
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit >> 20} MB")
    return data
