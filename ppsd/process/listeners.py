"""TCP addresses at which a process answers: each is opened when it can be, whatever becomes of the others.

An address that another program holds, or that no interface has yet, is told once and tried again at each ``review``. Sockets that systemd
has handed over (``ppsd.process.lifecycle``) take the place of all addresses.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ppsd.config.tables import endpoint_text
from ppsd.process.log import Log

_HINTS: Final = {
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE; name a higher one",
    errno.EADDRINUSE: "another program has it (ss -tlnp says which)",
    errno.EADDRNOTAVAIL: "no interface has this address",
    errno.EAFNOSUPPORT: "this kernel does not have that kind of address",
}


@dataclass(slots=True)
class Listener:
    """An address, for people and for the kernel. ``sock`` None: it is not open, for the reason ``why`` (errno ``failed``)."""

    text: str
    endpoint: tuple[str, int]
    sock: socket.socket | None = None
    why: str = ""
    failed: int = 0

    @property
    def harmless(self) -> bool:
        """Whether it is no fault: the address or its kind has yet to come."""
        return self.failed in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

    @property
    def taken(self) -> bool:
        """Whether another program has it."""
        return self.failed == errno.EADDRINUSE


class Listeners:
    """The addresses at which ``what`` is answered, registered with ``epoll``. ``backlog``: connections that wait to be accepted."""

    def __init__(self, what: str, log: Log, epoll: select.epoll, backlog: int, inherited: Sequence[int] = ()) -> None:
        self._what, self._log, self._epoll, self._backlog = what, log, epoll, backlog
        self._listeners: list[Listener] = []
        self._activated = bool(inherited)
        for fd in inherited:
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            host, port = sock.getsockname()[:2]
            self._opened(Listener(endpoint_text(host, port), (host, port)), sock)

    def _opened(self, one: Listener, sock: socket.socket) -> None:
        one.sock, one.why, one.failed = sock, "", 0
        if one not in self._listeners:
            self._listeners.append(one)
        self._epoll.register(sock, select.EPOLLIN)
        self._log.info(f"answering {self._what}", address=one.text)

    def listen(self, addresses: Mapping[str, tuple[str, int]]) -> None:
        """Answer at these addresses (as people write them: numeric host, port), as soon as each can be opened, and at no others."""
        if self._activated:
            return
        kept = {one.text: one for one in self._listeners}
        self._listeners = [kept.pop(text) if text in kept else Listener(text, endpoint) for text, endpoint in addresses.items()]
        for one in kept.values():
            if one.sock is not None:
                one.sock.close()
        self.review()

    def review(self) -> None:
        """Open what is not open yet."""
        for one in self._listeners:
            if one.sock is None:
                self._open(one)

    def _open(self, one: Listener) -> None:
        family = socket.AF_INET6 if ":" in one.endpoint[0] else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._refused(one, error)
            return
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(one.endpoint)
            sock.listen(self._backlog)
        except OSError as error:
            sock.close()
            self._refused(one, error)
            return
        self._opened(one, sock)

    def _refused(self, one: Listener, error: OSError) -> None:
        if error.errno != one.failed:
            one.failed = error.errno or errno.EIO
            one.why = _HINTS.get(one.failed) or error.strerror or str(error)
            self._log.info(f"{self._what} is not answered", address=one.text, problem=one.why)

    @property
    def doors(self) -> dict[int, socket.socket]:
        """The open sockets by their descriptors."""
        return {one.sock.fileno(): one.sock for one in self._listeners if one.sock is not None}

    @property
    def served(self) -> tuple[str, ...]:
        """Where requests are answered now."""
        return tuple(one.text for one in self._listeners if one.sock is not None)

    @property
    def unserved(self) -> tuple[Listener, ...]:
        """Where they should be and are not."""
        return tuple(one for one in self._listeners if one.sock is None)

    def close(self) -> None:
        """Answer nowhere any more."""
        for one in self._listeners:
            if one.sock is not None:
                one.sock.close()
        self._listeners = []
