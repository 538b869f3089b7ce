"""The control socket: a unix stream socket in the run directory, on which a process answers questions about its state.

A request is one line: a verb in UTF-8 of at most ``LINE_BYTES`` octets. The reply is one line of JSON. A client may send any number of
requests on one connection. The server is one object for the process's poll loop: its descriptor is an epoll instance that holds the
listener and all clients. The server never blocks. A reply that a client does not read waits in a buffer, and the client's next request is
not read until the buffer is empty. When the table of clients is full, the oldest client is dropped. The permissions of the socket and of
its directory decide who may ask: its owner, and a group (``run.group``).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from refclock.kernel.files import group_number
from refclock.kernel.names import Name
from refclock.kernel.unix_socket import bound

CLIENTS = 8
"""Connections; the oldest is dropped for one more. Enough for the dashboard, metrics and some shells."""
LINE_BYTES = 256
"""Octets; a client that sends a longer request is dropped."""
PATIENCE_S = 1.0
"""Seconds to wait for a reply by default: a process that is well answers within milliseconds."""
SULKED_S: Final = 2.0
"""Seconds for which a process that did not answer is not asked again."""
REPLY_BYTES = 1 << 20
"""Octets; a client refuses a longer reply. A snapshot has a few kB."""


@dataclass(slots=True)
class _Client:
    sock: socket.socket
    unread: bytes = b""
    unsent: bytes = b""


class ControlServer:
    """Listens on ``path``; ``answer`` turns a request line into a reply line (without newline) and must not raise.

    OSError from the constructor: see ``refclock.kernel.unix_socket.bound``. ``mode``: permission bits of the socket. ``group``: name or
    number of the group that may ask as well; "": this process's own. ``complaint``: why that group may not, "" when it may.
    """

    def __init__(self, path: Path, answer: Callable[[str], str], mode: int = 0o660, group: str = "") -> None:
        self.path = path
        self._answer = answer
        self._clients: dict[int, _Client] = {}
        self._mode, self._group = mode, group
        self._listener = self._listen()
        self._name = Name(path)
        try:
            self._epoll = select.epoll()
        except OSError:
            self._listener.close()
            raise
        self._wakes = select.EPOLLIN
        self._epoll.register(self._listener, self._wakes)

    def _listen(self) -> socket.socket:
        listener = bound(self.path, socket.SOCK_STREAM, self._mode)
        try:
            listener.listen(16 * CLIENTS)  # a burst waits; a full backlog would refuse at once (EAGAIN)
        except OSError:
            listener.close()
            raise
        self.complaint = shared(self.path, self._group) if self._group else ""
        return listener

    def renew(self) -> bool:
        """Make the socket anew when its name has been removed, as by a cleaner of directories. Returns whether it was; False also while
        that fails."""
        try:
            if not self._name.missing():
                return False
            self._name.make_directory()
            listener = self._listen()
        except OSError:  # the directory cannot be made or written: the next look tries again
            return False
        self._epoll.unregister(self._listener)
        self._listener.close()
        self._listener, self._name = listener, Name(self.path)
        self._wakes = select.EPOLLIN
        self._epoll.register(listener, self._wakes)
        return True

    def fileno(self) -> int:
        """The descriptor to poll: readable when ``handle_ready`` has work."""
        return self._epoll.fileno()

    def handle_ready(self) -> None:
        """Serve every client that is ready; never waits."""
        for fd, _ in self._epoll.poll(0):
            if fd == self._listener.fileno():
                self._accept()
            elif fd in self._clients:
                self._serve(self._clients[fd])

    def close(self) -> None:
        """Drop the clients and remove the socket."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._epoll.close()
        self._listener.close()
        with contextlib.suppress(OSError):  # removed by somebody, or in a directory that is not ours: the next start replaces it
            self.path.unlink()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # the client has gone; or descriptors ran out, and then the oldest client is dropped
            if self._clients:
                self._drop(next(iter(self._clients.values())))
            else:  # nothing can be given up: wake for the next client, not again and again for this one
                self._wake_on(select.EPOLLIN | select.EPOLLET)
            return
        self._wake_on(select.EPOLLIN)
        if len(self._clients) == CLIENTS:
            self._drop(next(iter(self._clients.values())))
        sock.setblocking(False)
        self._clients[sock.fileno()] = _Client(sock)
        self._epoll.register(sock, select.EPOLLIN)

    def _wake_on(self, events: int) -> None:
        """Be woken by the listener on these ``events`` from now on."""
        if events != self._wakes:
            self._wakes = events
            self._epoll.modify(self._listener, events)

    def _drop(self, client: _Client) -> None:
        fd = client.sock.fileno()
        self._epoll.unregister(fd)
        del self._clients[fd]
        client.sock.close()

    def _serve(self, client: _Client) -> None:
        try:
            if not client.unsent:
                data = client.sock.recv(LINE_BYTES)
                if not data:
                    self._drop(client)
                    return
                client.unread += data
                if b"\n" not in client.unread and len(client.unread) > LINE_BYTES:
                    self._drop(client)
                    return
            while True:
                if client.unsent:
                    client.unsent = client.unsent[client.sock.send(client.unsent) :]
                if client.unsent or b"\n" not in client.unread:
                    break
                line, _, client.unread = client.unread.partition(b"\n")
                client.unsent = self._answer(line.decode("utf-8", "replace").strip()).encode() + b"\n"
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        self._epoll.modify(client.sock, select.EPOLLOUT if client.unsent else select.EPOLLIN)


def shared(path: Path, group: str) -> str:
    """Give the socket at ``path`` to ``group``. Returns why that failed, in words."""
    number = group_number(group)
    if number is None:
        return f"there is no group {group}, so it may not ask; make it (sudo groupadd --system {group}) or correct run.group"
    try:
        os.chown(path, -1, number)
    except OSError as error:
        return f"{group} may not ask: {error.strerror}; only root, or a member of that group, can give it the socket"
    return ""


# ---- reloading -----------------------------------------------------------------------------------------------------------------------

JUDGE: Final = "judge"
"""The request to read the configuration, to try what it needs, and to say what stands against it. It changes nothing."""
TELL: Final = "reloads"
"""The request to tell how many reloads there were, and what happened at the last one."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did. ``good``: the configuration that was read is in force; else the old one still is. ``lines``: for people."""

    good: bool
    lines: tuple[str, ...]


class Reloads:
    """The reloads of this process so far."""

    def __init__(self) -> None:
        self._count = 0
        self._last = Reloaded(True, ())

    def happened(self, what: Reloaded) -> None:
        """There was one more."""
        self._count += 1
        self._last = what

    def answer(self) -> str:
        """The reply to ``TELL``."""
        return json.dumps({"pid": os.getpid(), "count": self._count, "good": self._last.good, "lines": self._last.lines})


def judgement(problems: list[str]) -> str:
    """The reply to ``JUDGE``."""
    return json.dumps({"problems": problems})


# ---- asking --------------------------------------------------------------------------------------------------------------------------


def alive(path: Path, timeout_s: float = 0.2) -> bool:
    """Whether a process listens on the socket at ``path``; True also when this user may not connect to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(str(path))
        except (TimeoutError, BlockingIOError, PermissionError):
            return path.exists()
        except OSError:
            return False
        return True


def ask(path: Path, verb: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
    """Send one verb and return the decoded reply. OSError: nobody listens, no reply in time, a malformed reply, or an unknown verb."""
    deadline = time.monotonic() + timeout_s
    reply = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(str(path))
        sock.sendall(verb.encode() + b"\n")
        while not reply.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, "no reply in time", str(path))
            sock.settimeout(left)
            data = sock.recv(1 << 16)
            if not data:
                raise OSError(errno.EPROTO, "hung up without a reply", str(path))
            reply += data
            if len(reply) > REPLY_BYTES:
                raise OSError(errno.EPROTO, "the reply is too long", str(path))
    try:
        decoded = json.loads(reply)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise OSError(errno.EPROTO, "the reply is not a JSON object", str(path))
    if isinstance(decoded.get("error"), str):
        raise OSError(errno.EPROTO, decoded["error"], str(path))
    return decoded


T = TypeVar("T")


class Asked(Generic[T]):
    """What the process at the control socket ``path`` answered last to ``verb``, as ``read`` makes a value of the reply; ``read`` raises
    ValueError for what is none. It is asked at most once in ``kept_s`` seconds; one that does not answer is waited for ``PATIENCE_S`` and
    left alone for ``SULKED_S``."""

    def __init__(self, path: Path, verb: str, read: Callable[[dict[str, Any]], T], kept_s: float) -> None:
        self._path, self._verb, self._read, self._kept_s = path, verb, read, kept_s
        self._last: T | None = None
        self._ask_s = 0.0

    def last(self, now: bool = False) -> T | None:
        """The answer; None while there is none. ``now``: that of this moment, unless it is left alone."""
        if (now and self._last is not None) or time.monotonic() >= self._ask_s:
            try:
                self._last = self._read(ask(self._path, self._verb, PATIENCE_S))
            except (OSError, ValueError):
                self._last = None
            self._ask_s = time.monotonic() + (SULKED_S if self._last is None else self._kept_s)
        return self._last
