"""Binds a unix socket to a path, and replaces a stale socket there.

bind(2) refuses a path that exists, and a process that dies leaves its socket behind. So a connection to the path is tried first: only
"connection refused" proves that no process listens. The sample sockets (``sock``) and the control sockets of ``ppsd`` are opened here.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from refclock.errors import explain

_BIND_HINTS: Final = {errno.ENOENT: "create its directory", errno.EACCES: "give this user write access to its directory"}


def bound(path: Path, kind: socket.SocketKind, mode: int) -> socket.socket:
    """A non-blocking socket of ``kind`` bound to ``path``, with the permission bits ``mode`` whatever the umask is.

    A socket without a listener is replaced. OSError: EADDRINUSE when another program listens there, EEXIST when the path is no socket (both
    are left alone), and the errors of bind(2).
    """
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0)
    try:
        # bind makes the file with this mode less the umask (net/unix/af_unix.c). A chmod by name could meet what another user put there.
        os.fchmod(sock.fileno(), mode)
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, explain(error, f"making the socket {path}", _BIND_HINTS)) from error
    finally:
        os.umask(before)
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket without a listener, and nothing else."""
    try:
        found = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found):
        raise FileExistsError(errno.EEXIST, "is not a socket, so it is left alone; remove it or choose another path", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        # A stream listener answers EPROTOTYPE, one without permission for us EACCES: both are alive.
        result = probe.connect_ex(str(path))
    if result == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
    elif result != errno.ENOENT:
        who = "another program listens there" if result in (0, errno.EPROTOTYPE) else os.strerror(result)
        raise OSError(errno.EADDRINUSE, f"is in use: {who}; stop that program or choose another path", str(path))
