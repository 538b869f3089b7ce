"""The addresses that the server is to serve: each is served when it can be, whatever becomes of the others.

Flow: configuration -> **addresses** -> ``ppsd.serve.ntp_server``, which has the sockets. ``review`` is called when interfaces change and
every few seconds besides. It takes up what has come (an interface, an address, a port that another program held), and says what cannot be
served and why. Sockets of an interface that was deleted and made again are opened anew: they are bound to its number, and hear nothing.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from ppsd.config.tables import covering, endpoint_text, parse_endpoint
from ppsd.process.log import Log
from ppsd.serve.ntp_server import NtpServer
from ppsd.snapshot import Unserved
from refclock.kernel.host import Host

_LASTING: Final = frozenset({errno.EACCES, errno.EPERM, errno.EADDRINUSE})
"""Errors that somebody has to put right. Of the others an interface or an address has still to come."""


@dataclass(slots=True, eq=False)
class _Listener:
    """One configured address. ``place``: of its sockets in the server; None: it is not served. ``bound_to``: the number of its interface
    when they were opened, 0: of none. ``why``: why it is not served, or will not hear anything. ``failed``: errno of that, or 0. ``under``:
    the wildcard address whose sockets answer for this one as well. ``told``: what the log knows."""

    host: str
    port: int
    interface: str
    place: int | None = None
    bound_to: int = 0
    why: str = ""
    failed: int = 0
    under: str = ""
    told: str | None = None

    @property
    def text(self) -> str:
        return endpoint_text(self.host, self.port)


class Addresses:
    """The addresses of one server. ``fds``: sockets handed over by systemd; there are then no others."""

    def __init__(self, server: NtpServer, log: Log, fds: Sequence[int]) -> None:
        self._server, self._log, self._host = server, log, Host()
        self._listeners: list[_Listener] = []
        self._inherited: list[str] = []
        self._refused: list[Unserved] = []
        self.activated: Final = bool(fds)
        for fd in fds:
            try:
                self._inherited.append(endpoint_text(*server.address(server.adopt(fd))))
            except OSError as error:
                self._refused.append(Unserved(f"socket {fd}", error.strerror or str(error)))
                log.warning("not served", address=f"inherited socket {fd}", problem=error.strerror)

    def serve(self, listen: Sequence[str], interface: str) -> None:
        """Serve these addresses from now on, and no others. OSError: none of them can be served, and either somebody has to put that right
        or others are served so far; those still are. Sockets handed over are served instead, whatever ``listen`` says."""
        if self.activated:
            if not self._inherited:
                raise OSError(errno.EPROTOTYPE, self._refused[0].why)
            return
        before, served = self._listeners, bool(self.served)
        wanted = [_Listener(*endpoint, interface) for text in listen if (endpoint := parse_endpoint(text)) is not None]
        kept = {(one.host, one.port, one.interface): one for one in before}
        self._listeners = [kept.pop((one.host, one.port, one.interface), one) for one in wanted]
        for one in kept.values():
            self._leave(one)
        self.review()
        in_vain = next((one for one in self._listeners if one.why and (served or one.failed in _LASTING)), None)
        if in_vain is not None and not self.served:
            for one in self._listeners:
                if one not in before:
                    self._leave(one)
            self._listeners = before
            self.review()
            raise OSError(in_vain.failed, in_vain.why)

    def review(self) -> bool:
        """Bring the sockets up to date. Returns whether what is served, or why not, has changed."""
        endpoints = [(one.host, one.port) for one in self._listeners]
        for one in self._listeners:
            wide = covering((one.host, one.port), endpoints)
            one.under = endpoint_text(*wide) if wide is not None else ""
            if one.under:
                self._leave(one)
        for one in self._listeners:
            self._review(one)
        changed = [one for one in self._listeners if one.told != one.why + one.under]
        for one in changed:
            one.told = one.why + one.under
            if one.under:
                self._log.info("served by a wider address", address=one.text, by=one.under)
            elif not one.why:
                self._log.info("serving", address=one.text)
            elif one.failed == errno.EAFNOSUPPORT:
                self._log.info("not served", address=one.text, problem=one.why)
            else:
                self._log.warning("not served", address=one.text, problem=one.why)
        return bool(changed)

    @property
    def served(self) -> tuple[str, ...]:
        """The addresses that are served now."""
        return (*self._inherited, *(one.text for one in self._listeners if one.place is not None and not one.why))

    @property
    def unserved(self) -> tuple[Unserved, ...]:
        """The addresses that should be served and are not, with the reason and the remedy."""
        waiting = (
            Unserved(one.text, one.why, one.failed == errno.EAFNOSUPPORT, one.failed == errno.EADDRINUSE)
            for one in self._listeners
            if one.why
        )
        return (*self._refused, *waiting)

    def _review(self, one: _Listener) -> None:
        if one.under:
            one.why, one.failed = "", 0
            return
        name = one.interface or one.host.partition("%")[2]
        number = _interface_number(name)
        if one.place is not None and number != one.bound_to:
            self._leave(one)
        if number is None:
            one.why, one.failed = (
                f"listening at {one.host} port {one.port}: there is no interface {name} yet; ip link lists them",
                errno.ENODEV,
            )
        elif one.place is None:
            self._open(one, number)
        elif not _is_ours(one.host):
            one.why, one.failed = f"no interface has the address {one.host} now", errno.EADDRNOTAVAIL
        else:
            one.why, one.failed = "", 0

    def _open(self, one: _Listener, number: int) -> None:
        try:
            one.place = self._server.listen(one.host, one.port, one.interface)
        except OSError as error:
            if error.errno != one.failed:  # else nothing is new, and whoever holds the port need not be looked for again
                one.why, one.failed = error.strerror or str(error), error.errno or errno.EIO
                holders = self._host.port_holders([(one.host, one.port)]) if error.errno == errno.EADDRINUSE else []
                one.why += f"; held by {', '.join(holders)}" if holders else ""
            return
        one.bound_to, one.why, one.failed = number, "", 0

    def _leave(self, one: _Listener) -> None:
        if one.place is not None:
            self._server.leave(one.place)
            one.place = None


def _interface_number(name: str) -> int | None:
    """The number of an interface by name or number; 0 for no interface at all, None when it does not exist."""
    if not name:
        return 0
    try:
        if name.isdecimal() and socket.if_indextoname(int(name)):
            return int(name)
        return socket.if_nametoindex(name)
    except (OSError, OverflowError):
        return None


def _is_ours(host: str) -> bool:
    """Whether some interface has the address ``host`` now."""
    bare, _, scope = host.partition("%")
    family = socket.AF_INET6 if ip_address(bare).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as trial:
            trial.bind((bare, 0, 0, _interface_number(scope) or 0) if family == socket.AF_INET6 else (bare, 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True
