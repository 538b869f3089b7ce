"""The control socket: a unix stream socket in the run directory on which a process tells how it is.

One line in (a verb, UTF-8, at most ``LINE_BYTES``), one line of JSON out, as often as the client likes. The server side is one object
that a select loop drives: its descriptor is an epoll instance holding the listener and all clients, readable when any of them needs
attention. It never blocks: replies that a client does not take wait in a bounded buffer, nothing more is read from it until they are
gone, and when the table of clients is full the oldest is dropped. Who may ask is decided by the socket's mode and its directory.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refclock.kernel.unix_socket import bound

CLIENTS = 8
"""Connections kept: the dashboard, metrics and some shells."""
LINE_BYTES = 256
"""Longest request."""
REPLY_BYTES = 1 << 20
"""Longest reply a client accepts: a snapshot is a few kB."""


@dataclass(slots=True)
class _Client:
    sock: socket.socket
    unread: bytes = b""
    unsent: bytes = b""


class ControlServer:
    """Listens on ``path``; ``answer`` turns a request line into a reply line (without newline) and must not raise.

    OSError from the constructor: see ``refclock.kernel.unix_socket.bound``. ``mode``: permission bits of the socket.
    """

    def __init__(self, path: Path, answer: Callable[[str], str], mode: int = 0o660) -> None:
        self.path = path
        self._answer = answer
        self._clients: dict[int, _Client] = {}
        self._listener = bound(path, socket.SOCK_STREAM, mode)
        try:
            self._listener.listen(16 * CLIENTS)  # a burst waits; a full backlog would refuse at once (EAGAIN)
            self._epoll = select.epoll()
        except OSError:
            self._listener.close()
            raise
        self._epoll.register(self._listener, select.EPOLLIN)

    def fileno(self) -> int:
        """Descriptor for the caller's select: readable when ``handle_ready`` has work."""
        return self._epoll.fileno()

    def handle_ready(self) -> None:
        """Serve whoever is ready, without waiting."""
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
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # gone again; or out of descriptors, and then the oldest client gives way
            if self._clients:
                self._drop(next(iter(self._clients.values())))
            return
        if len(self._clients) == CLIENTS:
            self._drop(next(iter(self._clients.values())))
        sock.setblocking(False)
        self._clients[sock.fileno()] = _Client(sock)
        self._epoll.register(sock, select.EPOLLIN)

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


def alive(path: Path, timeout_s: float = 0.2) -> bool:
    """Whether a process listens on the socket at ``path`` (also one that this user may not talk to)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(str(path))
        except (TimeoutError, BlockingIOError, PermissionError):
            return path.exists()
        except OSError:
            return False
        return True


def ask(path: Path, verb: str, timeout_s: float = 1.0) -> dict[str, Any]:
    """Send one verb, return the decoded reply. OSError for everything that can fail: nobody there, no time, no sense, refused verb."""
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
