"""Where chronyc and other monitors of chronyd are answered: sockets around ``ppsd.faces.cmdmon``.

Flow: datagram -> **chronyc** -> ``cmdmon.answer`` -> reply. What replies are made from: the NTP server's own counters and clients, and the
clock process's snapshot.

Each address is opened when it can be. One that another program holds, as chronyd does with its port, is left to that one, and told once.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from ppsd.config.tables import ChronycConfig, endpoint_text, parse_endpoint
from ppsd.faces import cmdmon
from ppsd.process.control import Asked
from ppsd.process.log import Log
from ppsd.serve.ntp_server import NtpServer
from ppsd.snapshot import Client, NtsReport, Snapshot, Unserved
from refclock.kernel.host import Host
from refclock.kernel.names import Name
from refclock.kernel.unix_socket import bound

CLIENTS_KEPT_S: Final = 1.0
"""s between two looks through the table of clients at most: the largest takes some time."""
CLIENTS_TOLD: Final = 4096
"""Clients that are told at most, the latest: chronyc asks for eight at a time."""
AT_ONCE: Final = 64
"""Datagrams of one socket that are read before others get their turn."""
RECEIVE_BYTES: Final = cmdmon.LONGEST + 1
PORT: Final = 323
"""UDP port of chronyd's command protocol (chrony.conf(5), cmdport). No NTP is answered there, so a socket that is handed over with it is
chronyc's, whether it is wanted or not."""
_HINTS: Final = {
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE or socket activation; chronyc.listen may name another one",
    errno.EADDRINUSE: "another program has it",
    errno.EADDRNOTAVAIL: "no interface has this address",
    errno.EAFNOSUPPORT: "this kernel does not have that kind of address",
}
_HARMLESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class Bucket:
    """A token bucket: ``rate`` requests/s, ``burst`` of them at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at_s = burst, 0.0

    def take(self, now_s: float) -> bool:
        """Whether one more may pass."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Facts:
    """What replies are made from (``cmdmon.Daemon``). ``nts``: what the NTS-KE process says of itself. ``serves``: whether the NTP server
    answers an address."""

    def __init__(self, clock: Asked[Snapshot], nts: Asked[NtsReport], server: NtpServer, serves: Callable[[str], bool]) -> None:
        self._clock, self._nts, self._server, self._serves = clock, nts, server, serves
        self.access = ChronycConfig().hears()
        self.received = self.dropped = 0
        self._look_s = 0.0
        self._clients: Sequence[Client] = ()

    def clock(self) -> Snapshot | None:
        """The clock process's snapshot."""
        return self._clock.last()

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """The NTP server's, now, the requests of chronyc ("command"), and the sessions of the NTS-KE process ("nts-ke") when it runs."""
        counters = self._server.counters() | {"command": {"received": self.received, "dropped": self.dropped}}
        established = self._nts.last()
        return counters if established is None else counters | {"nts-ke": dict(established.sessions)}

    def clients(self, anew: bool) -> Sequence[Client]:
        """The latest ones."""
        if anew and time.monotonic() >= self._look_s:
            self._clients, _ = self._server.clients(CLIENTS_TOLD)
            self._look_s = time.monotonic() + CLIENTS_KEPT_S
        return self._clients

    def serves(self, address: str) -> bool:
        """By the access rules in force."""
        return self._serves(address)

    def hears(self, address: str) -> bool:
        """By ``chronyc.allow``."""
        return self.access.decide(address).action == "allow"


@dataclass(slots=True, eq=False)
class _Door:
    """One address, or the unix socket. ``sock`` None: it is not open; ``why``: the reason, ``failed`` its errno. ``name``: of a unix
    socket. ``inherited``: handed over by systemd, else -1."""

    text: str
    inherited: int = -1
    sock: socket.socket | None = None
    why: str = ""
    failed: int = 0
    name: Name | None = None

    @property
    def is_path(self) -> bool:
        return self.text.startswith("/")

    def open(self) -> socket.socket:
        if self.is_path:
            self.name = None
            sock = bound(Path(self.text), socket.SOCK_DGRAM, 0o666)  # chronyc may have become another user, and nobody changes anything
            with contextlib.suppress(OSError):  # its directory is closed to this user: nobody can see whether the name is still there
                self.name = Name(Path(self.text))
            return sock
        if self.inherited >= 0:
            sock = socket.fromfd(self.inherited, *_kind(self.text))
        else:
            family, kind = _kind(self.text)
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
            endpoint = parse_endpoint(self.text)
            assert endpoint is not None
            try:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(endpoint)
            except OSError:
                sock.close()
                raise
        sock.setblocking(False)
        return sock

    def is_missing(self) -> bool:
        """Whether the name of a unix socket has been removed."""
        try:
            return self.name is not None and self.name.missing()
        except OSError:
            return False

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


def _kind(text: str) -> tuple[socket.AddressFamily, socket.SocketKind]:
    return (socket.AF_INET6 if text.startswith("[") else socket.AF_INET), socket.SOCK_DGRAM


def handed(fds: Sequence[int], listen: Sequence[str]) -> dict[str, int]:
    """Those of the sockets handed over that are chronyc's, by address: bound to ``PORT``, or to an address of ``listen``."""
    wanted = {end for text in listen if (end := parse_endpoint(text)) is not None}
    found: dict[str, int] = {}
    for fd in fds:
        try:
            with socket.socket(fileno=fd) as sock:
                name, kind = sock.getsockname(), sock.type
                sock.detach()
        except OSError:  # no socket at all: the NTP server says so
            continue
        if kind == socket.SOCK_DGRAM and isinstance(name, tuple) and (name[1] == PORT or name[:2] in wanted):
            found[endpoint_text(*name[:2])] = fd
    return found


class Chronyc:
    """The sockets of one server. ``inherited``: those that systemd has handed over, by address."""

    def __init__(self, facts: Facts, log: Log, inherited: Mapping[str, int]) -> None:
        self._facts, self._log, self._inherited, self._host = facts, log, inherited, Host()
        self._epoll = select.epoll()
        self._doors: list[_Door] = []
        self._near, self._far = Bucket(500.0, 1000.0), Bucket(20.0, 100.0)  # this machine's programs, and other machines in all

    def listen(self, config: ChronycConfig) -> None:
        """Answer at these addresses, as soon as each can be opened, and at no others."""
        self._facts.access = config.hears()
        kept = {door.text: door for door in self._doors}
        wanted = (*config.listen, *([config.socket] if config.socket else []))
        self._doors = [kept.pop(text) if text in kept else _Door(text, self._inherited.get(text, -1)) for text in wanted]
        for door in kept.values():
            self._shut(door)
        self.review()

    def review(self) -> None:
        """Open what is not open yet, and make a unix socket anew whose name was removed."""
        for door in self._doors:
            if door.sock is not None and door.is_missing():
                door.close()  # epoll forgets it
            if door.sock is None:
                self._open(door)

    def _open(self, door: _Door) -> None:
        try:
            sock = door.open()
        except OSError as error:
            if error.errno != door.failed:
                door.failed = error.errno or errno.EIO
                end = parse_endpoint(door.text)
                holders = self._host.port_holders([end]) if error.errno == errno.EADDRINUSE and end is not None else []
                hint = None if door.is_path else _HINTS.get(door.failed)
                door.why = hint or error.strerror or str(error)
                door.why += f" ({', '.join(holders)})" if holders else ""
                self._log.info("chronyc is not answered", address=door.text, problem=door.why)
            return
        door.sock, door.why, door.failed = sock, "", 0
        self._epoll.register(sock, select.EPOLLIN)
        self._log.info("answering chronyc", address=door.text)

    def _shut(self, door: _Door) -> None:
        door.close()
        if door.is_path:
            with contextlib.suppress(OSError):  # in a directory that is not ours: the next start replaces it
                Path(door.text).unlink()

    @property
    def served(self) -> tuple[str, ...]:
        """Where requests are answered now."""
        return tuple(door.text for door in self._doors if door.sock is not None)

    @property
    def unserved(self) -> tuple[Unserved, ...]:
        """Where they should be and are not."""
        return tuple(
            Unserved(door.text, door.why, door.failed in _HARMLESS, door.failed == errno.EADDRINUSE)
            for door in self._doors
            if door.sock is None
        )

    def fileno(self) -> int:
        """The descriptor to poll: readable when ``handle_ready`` has work."""
        return self._epoll.fileno()

    def handle_ready(self) -> None:
        """Answer what has come, a few datagrams of each socket; never waits for anybody but the clock process."""
        ready = {fd for fd, _ in self._epoll.poll(0)}
        for door in self._doors:
            if door.sock is not None and door.sock.fileno() in ready:
                self._serve(door.sock, door.is_path)

    def _serve(self, sock: socket.socket, trusted: bool) -> None:
        for _ in range(AT_ONCE):
            try:
                request, sender = sock.recvfrom(RECEIVE_BYTES)
            except OSError:  # there is no more, or the network tells of an earlier reply
                return
            if not sender or not self._may_pass(sender, trusted):
                continue
            reply = cmdmon.answer(request, self._facts, trusted)
            if reply:
                with contextlib.suppress(OSError):  # who asked has gone, or does not read
                    sock.sendto(reply, sender)

    def _may_pass(self, sender: object, trusted: bool) -> bool:
        """Whether a request is looked at. Others get silence."""
        near = trusted
        if isinstance(sender, tuple):
            address = str(sender[0]).partition("%")[0]
            near = ip_address(address).is_loopback
            if not self._facts.hears(address):
                return False
        self._facts.received += 1
        if (self._near if near else self._far).take(time.monotonic()):
            return True
        self._facts.dropped += 1
        return False

    def close(self) -> None:
        """Close the sockets."""
        for door in self._doors:
            self._shut(door)
        self._epoll.close()
