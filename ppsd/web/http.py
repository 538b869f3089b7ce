"""A small HTTP server in the process's own poll loop: GET and HEAD, one answer at a time on a connection (RFC 9110, RFC 9112).

Flow: connection -> ``parsed`` -> ``respond``, the process's function from Request to Response -> connection. Nothing waits for a client: a
connection that does not send its request, or does not read its answer, is dropped after some seconds, and the oldest when there are too
many. A request has no body here. Each address is opened when it can be; one that another program holds is told once and tried again.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from ppsd.config.tables import parse_endpoint
from ppsd.process.listeners import Listeners
from ppsd.process.log import Log
from ppsd.snapshot import Unserved

CONNECTIONS: Final = 16
"""Connections; the one that was heard of first is dropped for one more. Each monitor keeps one open."""
HEAD_BYTES: Final = 8192
"""Octets of a request's head; a longer one is refused."""
REQUEST_S: Final = 5.0
"""s for a request to come whole, or an answer to be read."""
IDLE_S: Final = 300.0
"""s that a connection may stay open between two requests: monitors ask once a minute or more often."""
REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 431: "Request Header Fields Too Large"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``headers``: names in lower case. ``last``: the connection ends with its answer."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    last: bool


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request."""

    body: str
    kind: str = "text/plain; charset=utf-8"
    status: int = 200

    def to_bytes(self, head_only: bool, last: bool) -> bytes:
        """As octets for the connection."""
        body = self.body.encode("utf-8", "replace")  # a path may hold octets that are no text
        lines = [
            f"HTTP/1.1 {self.status} {REASONS[self.status]}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            *(["Allow: GET, HEAD"] if self.status == 405 else []),
            *(["Connection: close"] if last else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if head_only else body)


def parsed(head: bytes) -> Request | int:
    """The request with that head, which ends before the empty line; the status of its refusal when it is none."""
    first, *rest = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])", first)
    if match is None:
        return 400
    headers: dict[str, str] = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            return 400
        headers[name.lower()] = value.strip()
    if match[3] == "1" and "host" not in headers:
        return 400
    if match[1] not in ("GET", "HEAD"):
        return 405
    try:
        split = urlsplit(match[2])
        query = dict(parse_qsl(split.query, max_num_fields=16))
    except ValueError:
        return 400
    body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    wished = headers.get("connection", "").lower()
    last = body or "close" in wished or (match[3] == "0" and "keep-alive" not in wished)
    return Request(match[1], unquote(split.path), query, headers, last)


@dataclass(slots=True)
class _Connection:
    sock: socket.socket
    until_s: float
    unread: bytes = b""
    unsent: bytes = b""
    last: bool = False


class HttpServer:
    """Answers by ``respond``, which must not raise. What it does is told to ``log``."""

    def __init__(self, respond: Callable[[Request], Response], log: Log) -> None:
        self._respond = respond
        self._connections: dict[int, _Connection] = {}
        self._epoll = select.epoll()
        self._listeners = Listeners("HTTP", log, self._epoll, CONNECTIONS)

    def listen(self, addresses: Sequence[str]) -> None:
        """Answer at these addresses, as soon as each can be opened, and at no others."""
        self._listeners.listen({text: endpoint for text in addresses if (endpoint := parse_endpoint(text)) is not None})

    def review(self) -> None:
        """Open what is not open yet, and drop connections that have been silent for too long."""
        self._listeners.review()
        now_s = time.monotonic()
        for connection in [c for c in self._connections.values() if c.until_s <= now_s]:
            self._drop(connection)

    @property
    def served(self) -> tuple[str, ...]:
        """Where requests are answered now."""
        return self._listeners.served

    @property
    def unserved(self) -> tuple[Unserved, ...]:
        """Where they should be and are not."""
        return tuple(Unserved(one.text, one.why, one.harmless, one.taken) for one in self._listeners.unserved)

    def fileno(self) -> int:
        """The descriptor to poll: readable when ``handle_ready`` has work."""
        return self._epoll.fileno()

    def handle_ready(self) -> None:
        """Serve every connection that is ready; never waits."""
        doors = self._listeners.doors
        for fd, _ in self._epoll.poll(0):
            if fd in doors:
                self._accept(doors[fd])
            elif fd in self._connections:
                self._serve(self._connections[fd])

    def _accept(self, door: socket.socket) -> None:
        try:
            sock, _ = door.accept()
        except OSError:  # the client has gone; or descriptors ran out, and then the oldest connection is given up
            self._drop_oldest()
            return
        if len(self._connections) >= CONNECTIONS:
            self._drop_oldest()
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[sock.fileno()] = _Connection(sock, time.monotonic() + REQUEST_S)
        self._epoll.register(sock, select.EPOLLIN)

    def _drop_oldest(self) -> None:
        if self._connections:
            self._drop(min(self._connections.values(), key=lambda c: c.until_s))

    def _drop(self, connection: _Connection) -> None:
        del self._connections[connection.sock.fileno()]
        connection.sock.close()  # epoll forgets it

    def _serve(self, connection: _Connection) -> None:
        try:
            if not connection.unsent:
                data = connection.sock.recv(HEAD_BYTES)
                if not data:
                    self._drop(connection)
                    return
                if not connection.unread:
                    connection.until_s = time.monotonic() + REQUEST_S
                connection.unread += data
                self._answer(connection)
            if connection.unsent:
                connection.unsent = connection.unsent[connection.sock.send(connection.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
            return
        if connection.last and not connection.unsent:
            with contextlib.suppress(OSError):  # octets that nobody has read make the kernel take back the answer (tcp(7), RST)
                connection.sock.recv(1 << 16)
            self._drop(connection)
            return
        if not connection.unsent and not connection.unread:
            connection.until_s = time.monotonic() + IDLE_S
        self._epoll.modify(connection.sock, select.EPOLLOUT if connection.unsent else select.EPOLLIN)

    def _answer(self, connection: _Connection) -> None:
        """Put the answer to a request that has come whole into ``unsent``. Requests that came with it are not answered: no monitor sends
        one before it has the answer to the last."""
        head, end, _ = connection.unread.partition(b"\r\n\r\n")
        if not end and len(head) < HEAD_BYTES:
            return
        request = parsed(head) if end and len(head) < HEAD_BYTES else 431
        connection.unread, connection.until_s = b"", time.monotonic() + REQUEST_S
        if isinstance(request, int):
            connection.last = True
            connection.unsent = Response(f"{REASONS[request]}\n", status=request).to_bytes(False, True)
            return
        connection.last = request.last
        connection.unsent = self._respond(request).to_bytes(request.method == "HEAD", request.last)

    def close(self) -> None:
        """Close addresses and connections."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._listeners.close()
        self._epoll.close()
