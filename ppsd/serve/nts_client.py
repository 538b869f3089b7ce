"""NTS key establishment as a client: the serve process asks for the keys of an upstream, and this process gets them over TLS (RFC 8915 4).

Flow: serve process (``ppsd.serve.upstream``) -> ``nts-client.sock``: an Errand -> TCP, TLS 1.3, ``ppsd.ntp.nts_client`` -> key server; its
terms and the two keys go back the same way, as Keys, or why there are none. Only this user can open the socket, and it gets a server's keys
only for a configured upstream. It is done here and not in the serve process because OpenSSL has no place where packets are answered; the
NTS-KE process speaks TLS with strangers anyway, and has no right and no device either.

A certificate must be for the configured host, signed by an authority that the system or the upstream's ``ca`` names, and in force at the
served time, if there is one. Before that the system clock says which day it is, though not before this program was made. With
``unchecked_dates`` a certificate is then accepted some times that is wrong in its dates alone. Nothing waits for a server, and a session is
bounded in time and octets.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from OpenSSL import SSL, crypto

from ppsd.config.tables import Upstream
from ppsd.ntp import nts
from ppsd.ntp.nts import Flaw
from ppsd.ntp.nts_client import REPLY_BYTES, Terms, asked, granted
from ppsd.ntp.nts_errands import ASK_BYTES, FILE, Errand, Keys, NoKeys
from ppsd.process.log import Log
from ppsd.serve.nts_sessions import reason
from refclock.errors import explain
from refclock.kernel.names import Name
from refclock.kernel.unix_socket import bound
from refclock.timescales import day_of

SESSIONS: Final = 16
"""Sessions at once; each takes about 100 kB. More are asked for again later."""
SESSION_S: Final = 8.0
"""s from a connection to its end: some round trips of any path, and the server's arithmetic."""
WIRE_BYTES: Final = 131072
"""Octets that a server may send: the longest answer, and a chain of certificates."""
TURN_BYTES: Final = 16384
"""Octets read at once."""
AEADS: Final = (nts.AES_128_GCM_SIV, nts.AES_SIV_CMAC_256)
"""The ciphers that are asked for, the best first."""
SOCKET_MODE: Final = 0o600
"""This user's alone: keys go through it."""
_NOT_YET, _EXPIRED = 9, 10
_STRANGERS: Final = frozenset({2, 18, 19, 20, 21, 24})
"""Results of a verification (X509_V_ERR_ of openssl/x509_vfy.h): its dates are wrong; nobody who is believed has signed it."""
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Believed:
    """The certificates that are believed. ``authorities``: a PEM file's content; empty: the system's. ``now_s``: POSIX second at which they
    are in force. ``any_date``: whether one is also believed at another time."""

    authorities: bytes
    now_s: int
    any_date: bool = False


class _Examination:
    """What is found out about the certificate that is to be ``host``'s. ``undated``: it was accepted although its dates are wrong."""

    def __init__(self, host: str, believed: Believed) -> None:
        self._host, self._believed = host, believed
        self._number, self._dates = 0, ("", "")
        self.undated = False

    def judge(self, _: SSL.Connection, certificate: crypto.X509, number: int, depth: int, good: int) -> bool:
        """Called by OpenSSL for each certificate, and each thing that is wrong with one."""
        del depth
        if good:
            return True
        if number in (_NOT_YET, _EXPIRED) and self._believed.any_date:
            self.undated = True
            return True
        self._number = number
        self._dates = _day(certificate.get_notBefore()), _day(certificate.get_notAfter())
        return False

    def finish(self, tls: SSL.Connection) -> None:
        """The handshake is over: is it NTS, and the server that is meant? _Unusable: it is not."""
        if tls.get_alpn_proto_negotiated() != nts.ALPN:
            raise _Unusable("the server speaks TLS, but no NTS key establishment: another service has this port")
        shown = tls.get_peer_certificate()
        names = () if shown is None else _names(shown.to_cryptography())
        if not any(_matches(self._host, name) for name in names):
            told = ", ".join(map(str, names[:4])) or "nobody"
            raise _Unusable(f"the certificate is for {told}, not for {self._host}: name the server as its certificate does (host)")

    def why(self, error: SSL.Error) -> str:
        """Why TLS has ended."""
        today = day_of(self._believed.now_s)
        if self._number == _EXPIRED:
            return f"the certificate ended on {self._dates[1]}, and it is {today}: {_CLOCK}"
        if self._number == _NOT_YET:
            return f"the certificate begins on {self._dates[0]}, and it is {today}: {_CLOCK}"
        if self._number in _STRANGERS:
            known = "in the file that ca names" if self._believed.authorities else "known to this system (package ca-certificates)"
            return f"no authority {known} has signed the certificate; for a server with an authority of its own, name that: ca"
        if self._number:
            return f"the certificate is no good (verification error {self._number} of OpenSSL)"
        said = reason(error)
        if "application protocol" in said:
            return "the server speaks TLS, but no NTS key establishment: another service has this port"
        if "protocol version" in said or "unsupported protocol" in said:
            return "the server has no TLS 1.3, which NTS needs"
        return f"the server speaks no TLS that is understood here ({said})"


_CLOCK: Final = "its operator must renew it, or this clock is wrong; at boot, unchecked_dates accepts it some times"


@dataclass(slots=True, eq=False)
class _Establishment:
    """One key server. ``unsent``: what TLS has for it. ``received``: octets so far. ``shaken``: its certificate has been accepted."""

    asker: socket.socket
    upstream: Upstream
    sock: socket.socket
    tls: SSL.Connection
    examination: _Examination
    until_s: float
    unsent: bytes = b""
    received: int = 0
    answer: bytes = b""
    shaken: bool = False


class _Unusable(Exception):
    """A session brings no keys; why."""


class KeyClient:
    """The sessions with key servers. ``served_s``: POSIX second by the served time, None while there is none; ``earliest_s``: no true date
    is before it. ``read``: what a file of authorities holds."""

    def __init__(
        self,
        run_dir: Path,
        log: Log,
        served_s: Callable[[], int | None],
        read: Callable[[str], bytes],
        earliest_s: Callable[[], int] = lambda: 0,
    ) -> None:
        self._path, self._log = run_dir / FILE, log
        self._served_s, self._read, self._earliest_s = served_s, read, earliest_s
        self._epoll = select.epoll()
        self._door: socket.socket | None = None
        self._name: Name | None = None
        self._upstreams: Mapping[str, Upstream] = {}
        self._askers: dict[int, socket.socket] = {}
        self._sessions: dict[int, _Establishment] = {}
        self._unchecked: Counter[str] = Counter()
        self._problem = ""
        self._told: dict[str, str] = {}

    def configure(self, upstreams: Iterable[Upstream]) -> None:
        """Get keys of these upstreams, and of no others."""
        self._upstreams = {upstream.name: upstream for upstream in upstreams if upstream.nts}

    def fileno(self) -> int:
        """The descriptor to poll: readable when ``handle_ready`` has work."""
        return self._epoll.fileno()

    def handle_ready(self) -> None:
        """Go on with whoever is ready; never waits."""
        for fd, _ in self._epoll.poll(0):
            if self._door is not None and fd == self._door.fileno():
                self._accept(self._door)
            elif fd in self._askers:
                self._heard(self._askers[fd])
            elif fd in self._sessions:
                self._go_on(self._sessions[fd])

    def review(self) -> None:
        """Open the socket when keys are wanted, and end sessions whose time is over."""
        if self._door is not None and (not self._upstreams or (self._name is not None and self._name.missing())):
            self._shut()
        if self._upstreams and self._door is None:
            self._open()
        now_s = time.monotonic()
        for one in [one for one in self._sessions.values() if one.until_s <= now_s]:
            self._end(one, f"the key server does not answer within {SESSION_S:.0f} s (TCP port {one.upstream.nts_port})")

    def close(self) -> None:
        """End all sessions, and listen no more."""
        for one in list(self._sessions.values()):
            self._end(one, "the NTS-KE process ends")
        for asker in list(self._askers.values()):
            self._forget(asker)
        self._shut()
        self._epoll.close()

    # ---- the serve process -----------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._door = bound(self._path, socket.SOCK_SEQPACKET, SOCKET_MODE)
            self._door.listen(SESSIONS)
            self._name, why = Name(self._path), ""
            self._epoll.register(self._door, select.EPOLLIN)
        except OSError as error:
            self._shut()
            why = explain(error)
        if why and why != self._problem:
            self._log.error("upstreams get no keys of NTS", problem=why)
        self._problem = why

    def _shut(self) -> None:
        if self._door is not None:
            self._door.close()  # epoll forgets it
            self._door = None
            with contextlib.suppress(OSError):
                if self._name is not None and not self._name.missing():
                    self._path.unlink()

    def _accept(self, door: socket.socket) -> None:
        try:
            asker, _ = door.accept()
        except OSError:  # it has gone
            return
        asker.setblocking(False)
        self._askers[asker.fileno()] = asker
        self._epoll.register(asker, select.EPOLLIN)

    def _heard(self, asker: socket.socket) -> None:
        """A question has come, or the asker has gone."""
        try:
            wanted = Errand.from_bytes(asker.recv(ASK_BYTES))
        except (OSError, ValueError):
            wanted = None
        under_way = [one for one in self._sessions.values() if one.asker is asker]
        if wanted is None or under_way:
            for one in under_way:
                self._drop(one)
            self._forget(asker)
            return
        upstream = self._upstreams.get(wanted.name)
        try:
            if upstream is None or (upstream.host, upstream.nts_port, upstream.ca) != (wanted.host, wanted.port, wanted.ca):
                raise _Unusable("the NTS-KE process has not read its configuration yet")
            if len(self._sessions) >= SESSIONS:
                raise _Unusable("keys of many servers are being established; this one has its turn later")
            self._begin(asker, upstream, wanted.address)
        except _Unusable as why:
            self._reply(asker, NoKeys(str(why)))
        except OSError as error:
            self._reply(asker, NoKeys(f"{error.filename}: {explain(error)}" if error.filename else explain(error)))

    def _reply(self, asker: socket.socket, answer: Keys | NoKeys) -> None:
        with contextlib.suppress(OSError):  # it has gone
            asker.send(answer.to_bytes())
        self._forget(asker)

    def _forget(self, asker: socket.socket) -> None:
        del self._askers[asker.fileno()]
        asker.close()

    # ---- one session -----------------------------------------------------------------------------------------------------------------

    def _begin(self, asker: socket.socket, upstream: Upstream, address: str) -> None:
        """OSError: the network, or the file of authorities."""
        served_s = self._served_s()
        now_s = max(int(time.time()), self._earliest_s()) if served_s is None else served_s
        any_date = served_s is None and self._unchecked[upstream.name] < upstream.unchecked_dates
        believed = Believed(self._read(upstream.ca) if upstream.ca else b"", now_s, any_date)
        examination = _Examination(upstream.host, believed)
        tls = SSL.Connection(_context(believed, examination))
        tls.set_connect_state()
        if not _is_address(upstream.host):
            tls.set_tlsext_host_name(upstream.host.rstrip(".").encode("ascii"))
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            result = sock.connect_ex((address, upstream.nts_port))
            if result not in (0, errno.EINPROGRESS):
                raise OSError(result, os.strerror(result))
        except OSError:
            sock.close()
            raise
        one = _Establishment(asker, upstream, sock, tls, examination, time.monotonic() + SESSION_S)
        self._sessions[sock.fileno()] = one
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)

    def _go_on(self, one: _Establishment) -> None:
        try:
            self._turn(one)
        except _Unusable as why:
            self._end(one, str(why))
        except OSError as error:
            self._end(one, f"{explain(error)} (TCP port {one.upstream.nts_port})")

    def _turn(self, one: _Establishment) -> None:
        """Read, have TLS work, write."""
        if failed := one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(failed, os.strerror(failed))
        ended = False
        with contextlib.suppress(BlockingIOError):
            data = one.sock.recv(TURN_BYTES)
            ended = not data
            one.received += len(data)
            if one.received > WIRE_BYTES:
                raise _Unusable("the key server's answer has no end")
            one.tls.bio_write(data)
        keys = self._talk(one)
        with contextlib.suppress(SSL.Error):
            while True:
                one.unsent += one.tls.bio_read(TURN_BYTES)
        with contextlib.suppress(BlockingIOError):
            if one.unsent:
                one.unsent = one.unsent[one.sock.send(one.unsent) :]
        if keys is not None:
            self._granted(one, keys)
        elif ended:
            raise _Unusable("the key server closes the connection before its answer is complete")
        else:
            self._epoll.modify(one.sock, select.EPOLLIN | (select.EPOLLOUT if one.unsent else 0))

    def _talk(self, one: _Establishment) -> Keys | None:
        """What TLS makes of it; None: more has to come."""
        try:
            if not one.shaken:
                one.tls.do_handshake()
                one.shaken = True
                one.examination.finish(one.tls)
                one.tls.sendall(asked(AEADS))
            while True:
                one.answer += one.tls.recv(TURN_BYTES)
                found = nts.records(one.answer, REPLY_BYTES)
                if isinstance(found, tuple):
                    return _keys(one, found)
                if found is not Flaw.UNFINISHED:
                    raise _Unusable(f"the key server's answer is malformed: {found.value}")
        except SSL.WantReadError:
            return None
        except SSL.ZeroReturnError:
            raise _Unusable("the key server ends the session before its answer is complete") from None
        except SSL.SysCallError:
            raise _Unusable("the key server breaks off") from None
        except SSL.Error as error:
            raise _Unusable(one.examination.why(error)) from None

    def _granted(self, one: _Establishment, keys: Keys) -> None:
        name = one.upstream.name
        if one.examination.undated:
            self._unchecked[name] += 1
            left = one.upstream.unchecked_dates - self._unchecked[name]
            self._log.warning("certificate accepted although its dates are wrong: no time is known", upstream=name, more_times=left)
        self._told.pop(name, None)
        self._log.info("keys of NTS established", upstream=name, cookies=len(keys.terms.cookies))
        self._drop(one)
        self._reply(one.asker, keys)

    def _end(self, one: _Establishment, why: str) -> None:
        if self._told.get(one.upstream.name) != why:
            self._told[one.upstream.name] = why
            self._log.warning("no keys of NTS", upstream=one.upstream.name, why=why)
        self._drop(one)
        self._reply(one.asker, NoKeys(why))

    def _drop(self, one: _Establishment) -> None:
        del self._sessions[one.sock.fileno()]
        one.sock.close()  # epoll forgets it


def _keys(one: _Establishment, answer: tuple[nts.KeRecord, ...]) -> Keys:
    terms = granted(answer, AEADS)
    if not isinstance(terms, Terms):
        raise _Unusable(terms)
    contexts = [nts.exporter_context(terms.exported_as, to_server) for to_server in (True, False)]
    length = nts.AEAD_KEYS[terms.aead]
    to_server, to_client = (one.tls.export_keying_material(nts.EXPORTER, length, context) for context in contexts)
    return Keys(terms, to_server, to_client, one.examination.undated)


# ---- certificates ------------------------------------------------------------------------------------------------------------------------


def _context(believed: Believed, examination: _Examination) -> SSL.Context:
    """TLS 1.3 alone (RFC 8915 section 3). _Unusable: no authority can be read."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_alpn_protos([nts.ALPN])
    context.set_verify(SSL.VERIFY_PEER, examination.judge)
    store = context.get_cert_store()
    assert store is not None
    store.set_time(datetime.datetime.fromtimestamp(believed.now_s, datetime.UTC))
    if not believed.authorities:
        context.set_default_verify_paths()
        return context
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)  # a certificate in the file is believed, whether an authority's or the server's
    try:
        found = [crypto.load_certificate(crypto.FILETYPE_PEM, text) for text in _PEM.findall(believed.authorities)]
    except crypto.Error:
        raise _Unusable("a certificate in the file that ca names cannot be read") from None
    if not found:
        raise _Unusable("the file that ca names has no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    for certificate in found:
        store.add_cert(certificate)
    return context


def _names(certificate: x509.Certificate) -> tuple[str | IPv4Address | IPv6Address, ...]:
    """The names and addresses that a certificate is for (RFC 6125 section 6.4: those of the extension alone)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return ()
    addresses = [address for address in found.get_values_for_type(x509.IPAddress) if isinstance(address, IPv4Address | IPv6Address)]
    return (*found.get_values_for_type(x509.DNSName), *addresses)


def _matches(host: str, name: str | IPv4Address | IPv6Address) -> bool:
    """Whether a certificate's name is that of ``host``. A wildcard stands for its first label (RFC 6125 section 6.4.3)."""
    if _is_address(host) or not isinstance(name, str):
        return _is_address(host) and name == ip_address(host)
    own, shown = host.rstrip(".").lower(), name.rstrip(".").lower()
    if shown.startswith("*."):
        first, _, rest = own.partition(".")
        return bool(first) and "." in rest and rest == shown[2:]
    return own == shown


def _is_address(host: str) -> bool:
    try:
        _ = ip_address(host)
    except ValueError:
        return False
    return True


def _day(told: bytes | None) -> str:
    """ "2026-11-29" of "20261129120000Z"."""
    text = (told or b"").decode("ascii", "replace")
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}"
