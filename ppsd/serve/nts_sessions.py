"""Sessions of NTS key establishment: TLS 1.3 for many clients at once, bounded in number, time and octets.

Flow: TCP -> TLS (OpenSSL over memory) -> ``ppsd.ntp.nts`` -> TLS -> TCP. Nothing waits for a client. One that is slow has its session ended
after SESSION_S; with more than SESSIONS, the oldest session of the client that has the most is ended. So a thousand clients that never
finish cost some megabytes, and one that is honest still has its turn: it needs two or three round trips.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from OpenSSL import SSL, crypto

from ppsd.ntp import nts
from ppsd.ntp.nts import Agreement, Fault, Flaw
from ppsd.process.listeners import Listener, Listeners
from ppsd.process.log import Log
from ppsd.serve.certificates import Credentials

SESSIONS: Final = 100
"""Sessions at once; each takes about 60 kB. As many as chronyd's (maxntsconnections, chrony.conf(5))."""
CLIENT_SESSIONS: Final = 16
"""Sessions at once of one client: an IPv4 address, or an IPv6 /64."""
SESSION_S: Final = 5.0
"""s from a connection to its end."""
WIRE_BYTES: Final = 16384
"""Octets that a client may send, TLS's own included; a session takes about 500."""
TURN_BYTES: Final = 4096
"""Octets read at once from a client: others have their turn."""
TURN_CLIENTS: Final = 16
"""Connections accepted at once, for the same reason."""

Counts = Mapping[str, int]


class _NoProtocol(Exception):
    """Raised inside OpenSSL: the client does not speak ntske/1, and is told with an alert (RFC 7301 section 3.2)."""


def _chosen(_: SSL.Connection, offered: list[bytes]) -> bytes:
    if nts.ALPN not in offered:
        raise _NoProtocol
    return nts.ALPN


def tls_context(credentials: Credentials) -> SSL.Context:
    """How a server with these credentials speaks TLS: 1.3 alone (RFC 8915 section 3), and no resumption. ValueError: OpenSSL refuses them,
    for a key is too short for example."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_alpn_select_callback(_chosen)
    try:
        _give(context, credentials)
        context.check_privatekey()
    except SSL.Error as error:
        raise ValueError(f"OpenSSL refuses it ({reason(error)})") from None
    return context


def _give(context: SSL.Context, credentials: Credentials) -> None:
    first, *between = credentials.chain
    try:
        context.use_certificate(first)
        for certificate in between:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(credentials.key)
    except TypeError:  # pyOpenSSL before 24.3 takes its own types alone
        context.use_certificate(crypto.X509.from_cryptography(first))
        for certificate in between:
            context.add_extra_chain_cert(crypto.X509.from_cryptography(certificate))
        context.use_privatekey(crypto.PKey.from_cryptography_key(credentials.key))


def sealed_cookie(key: bytes, period: int, keys: bytes, nonce: bytes) -> bytes:
    """A cookie: the key's period, the nonce (16 octets), and under the key of that period the two ``keys`` of a client."""
    return period.to_bytes(4) + nonce + AESSIV(key).encrypt(keys, [nonce])


def reason(error: SSL.Error) -> str:
    """What OpenSSL says of an error."""
    return "; ".join(str(part[-1]) for part in (error.args[0] if error.args else ()) if part) or "no reason given"


@dataclass(slots=True, eq=False)
class _Session:
    """One client. ``received``: octets so far. ``asked``: of its request. ``unsent``: what TLS has for it. ``answered``: nothing more is
    read but the end."""

    sock: socket.socket
    client: str
    tls: SSL.Connection
    until_s: float
    received: int = 0
    asked: bytes = b""
    unsent: bytes = b""
    shaken: bool = False
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """What clients get: ``tls`` as server, cookies of ``cookies`` (made of the two keys of a client), and where they ask for the time."""

    tls: SSL.Context
    cookies: Callable[[bytes], Sequence[bytes]]
    server: str = ""
    port: int | None = None


@dataclass(slots=True)
class Tally:
    """Sessions since the start. ``accepted``: begun. ``served``: ended with cookies. ``refused``: ended with an error or without a common
    cipher. ``failed``: no TLS 1.3 or no ntske/1, or the client gave up. ``slow``: cut off by time, number or length. ``denied``: not let
    in, and not among those begun."""

    accepted: int = 0
    served: int = 0
    refused: int = 0
    failed: int = 0
    slow: int = 0
    denied: int = 0


class Sessions:
    """The sessions of one process. ``admits``: whether a client's address is answered. ``inherited``: sockets handed over."""

    def __init__(self, log: Log, admits: Callable[[str], bool], inherited: Sequence[int] = ()) -> None:
        self._admits = admits
        self._epoll = select.epoll()
        self._listeners = Listeners("NTS key establishment", log, self._epoll, SESSIONS, inherited)
        self._sessions: dict[int, _Session] = {}
        self.offer: Offer | None = None
        self.tally = Tally()

    def listen(self, addresses: Mapping[str, tuple[str, int]]) -> None:
        """Answer at these addresses, and at no others."""
        self._listeners.listen(addresses)

    @property
    def served(self) -> tuple[str, ...]:
        """Where keys are established now."""
        return self._listeners.served

    @property
    def unserved(self) -> tuple[Listener, ...]:
        """Where they should be and are not."""
        return self._listeners.unserved

    @property
    def open(self) -> int:
        """How many sessions there are now."""
        return len(self._sessions)

    def fileno(self) -> int:
        """The descriptor to poll: readable when ``handle_ready`` has work."""
        return self._epoll.fileno()

    def handle_ready(self) -> None:
        """Go on with every client that is ready; never waits."""
        doors = self._listeners.doors
        for fd, _ in self._epoll.poll(0):
            if fd in doors:
                self._accept(doors[fd])
            elif fd in self._sessions:
                self._go_on(self._sessions[fd])

    def review(self) -> None:
        """Open addresses that have come, and end sessions whose time is over. A client that has sent no whole request is told so (RFC 8915
        section 4.1.3)."""
        self._listeners.review()
        now_s = time.monotonic()
        for one in [one for one in self._sessions.values() if one.until_s <= now_s]:
            if one.shaken and not one.answered:
                self._refuse(one, Fault.BAD_REQUEST)
                self._flush(one)
            elif not one.answered:
                self.tally.slow += 1
            self._drop(one)

    def close(self) -> None:
        """End all sessions and listen nowhere."""
        for one in list(self._sessions.values()):
            self._drop(one)
        self._listeners.close()
        self._epoll.close()

    # ---- one client ------------------------------------------------------------------------------------------------------------------

    def _accept(self, door: socket.socket) -> None:
        for _ in range(TURN_CLIENTS):
            try:
                sock, address = door.accept()
            except BlockingIOError:
                return
            except OSError:  # the client has gone; or descriptors ran out, and then the oldest session is given up
                self._make_room("")
                return
            host = str(address[0])
            if self.offer is None or not self._admits(host):
                self.tally.denied += 1
                sock.close()
                continue
            client = _client(host)
            self._make_room(client)
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = SSL.Connection(self.offer.tls)
            tls.set_accept_state()
            self.tally.accepted += 1
            self._sessions[sock.fileno()] = _Session(sock, client, tls, time.monotonic() + SESSION_S)
            self._epoll.register(sock, select.EPOLLIN)

    def _make_room(self, client: str) -> None:
        """End a session when there are too many, or too many of ``client``."""
        own = [one for one in self._sessions.values() if one.client == client]
        if len(own) < CLIENT_SESSIONS and len(self._sessions) < SESSIONS and client:
            return
        if len(own) < CLIENT_SESSIONS and self._sessions:
            most = Counter(one.client for one in self._sessions.values()).most_common(1)[0][0]
            own = [one for one in self._sessions.values() if one.client == most]
        if own:
            self.tally.slow += 1
            self._drop(own[0])  # a dict keeps their order

    def _drop(self, one: _Session) -> None:
        del self._sessions[one.sock.fileno()]
        one.sock.close()  # epoll forgets it

    def _go_on(self, one: _Session) -> None:
        try:
            data = one.sock.recv(TURN_BYTES)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        if data is not None:
            one.received += len(data)
            if not data or one.received > WIRE_BYTES:
                if data:
                    self.tally.slow += 1
                elif not one.answered:
                    self.tally.failed += 1
                self._drop(one)
                return
            if not one.answered and not self._take(one, data):
                self._flush(one)
                self._drop(one)
                return
        if not self._flush(one):
            self._drop(one)
            return
        if one.answered and not one.unsent:  # what it still sends is read and forgotten: closing with unread octets would undo the reply
            with contextlib.suppress(OSError):
                one.sock.shutdown(socket.SHUT_WR)
        self._epoll.modify(one.sock, select.EPOLLIN | (select.EPOLLOUT if one.unsent else 0))

    def _take(self, one: _Session, data: bytes) -> bool:
        """Give what has come to TLS, and the request to whoever answers it. False: this is no client of ours."""
        one.tls.bio_write(data)
        try:
            if not one.shaken:
                one.tls.do_handshake()
                one.shaken = True
                if one.tls.get_alpn_proto_negotiated() != nts.ALPN:
                    raise _NoProtocol
            while not one.answered:
                one.asked += one.tls.recv(TURN_BYTES)
                self._answer(one)
        except SSL.WantReadError:
            pass
        except (SSL.Error, _NoProtocol):
            self.tally.failed += 1
            return False
        return True

    def _answer(self, one: _Session) -> None:
        request = nts.records(one.asked)
        if request is Flaw.UNFINISHED:
            return
        agreement = Fault.BAD_REQUEST if isinstance(request, Flaw) else nts.agreed(request)
        if isinstance(agreement, Fault):
            self._refuse(one, agreement)
            return
        self._send(one, self._granted(one, agreement))
        if agreement.complete:
            self.tally.served += 1
        else:
            self.tally.refused += 1

    def _granted(self, one: _Session, agreement: Agreement) -> bytes:
        if agreement.aead is None or agreement.exported_as is None or self.offer is None:
            return nts.reply(agreement)
        contexts = [nts.exporter_context(agreement.exported_as, to_server) for to_server in (True, False)]
        length = nts.AEAD_KEYS[agreement.aead]
        keys = b"".join(one.tls.export_keying_material(nts.EXPORTER, length, context) for context in contexts)
        return nts.reply(agreement, self.offer.cookies(keys), self.offer.server, self.offer.port)

    def _refuse(self, one: _Session, fault: Fault) -> None:
        self.tally.refused += 1
        self._send(one, nts.refusal(fault))

    def _send(self, one: _Session, reply: bytes) -> None:
        one.answered = True
        with contextlib.suppress(SSL.Error):
            one.tls.sendall(reply)
            one.tls.shutdown()

    def _flush(self, one: _Session) -> bool:
        """Send what TLS has for the client, as far as it takes it. False: it has gone."""
        with contextlib.suppress(SSL.Error):
            while True:
                one.unsent += one.tls.bio_read(1 << 16)
        try:
            if one.unsent:
                one.unsent = one.unsent[one.sock.send(one.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


def _client(host: str) -> str:
    """Whose sessions are counted together."""
    address = ip_address(host.partition("%")[0])
    return str(IPv6Address(int(address) >> 64 << 64)) if address.version == 6 else host
