"""The NTP client: sockets, names and stamps around ``ppsd.ntp.association`` and ``ppsd.ntp.pool``.

Flow: ``due_s`` -> a new socket for each request, and so a random source port (RFC 9109) -> server -> kernel's stamp of the answer ->
Measurement -> datagram (``refclock.exchange.upstream``) -> clock process, which judges servers beside receivers. Nothing is decided here:
what a compromised server, or this process, can do with the time is what the clock process lets an upstream do.

T1 is read just before the request is sent and T4 is the kernel's (SO_TIMESTAMPNS). The time between them is taken from the raw clock, so
that neither a step nor a slew of the system clock lies in the delay; an exchange during which that clock was stepped is thrown away.
With NTS a request leaves once there are keys for the server (``ppsd.serve.nts_keyring``), and goes to where the key server says.
Names are resolved by a thread, one after the other: getaddrinfo(3) may block for a minute, and knows every way in which a system has names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import secrets
import select
import socket
import struct
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ppsd.config.keys import SymmetricKey
from ppsd.config.tables import PoolUpstream, Upstream
from ppsd.ntp.association import SETTLED, Association, Measurement, Polling
from ppsd.ntp.nts_association import Secured
from ppsd.ntp.nts_client import NONCE_BYTES, UNIQUE_BYTES, Verdict
from ppsd.ntp.nts_errands import Keys, NoKeys
from ppsd.ntp.pool import Change, Pool, outvoted
from ppsd.process.log import Log
from ppsd.serve.ntp_server import Authenticator, Sealer
from ppsd.serve.nts_keyring import Kept, Keyring
from ppsd.snapshot import Snapshot
from refclock.errors import explain
from refclock.exchange.samples import RawSample
from refclock.exchange.upstream import pack
from refclock.kernel.clocks import LocalClock
from refclock.sample import NS, Authentication, Instant, ServerPackets, UpstreamServer, refid_of
from refclock.timescales import utc_of_ntp64

SO_TIMESTAMPNS: Final = 64
"""SO_TIMESTAMPNS_NEW of asm-generic/socket.h: stamps with 64-bit seconds on every machine; Linux 5.1 and later."""
STAMP: Final = struct.Struct("=qq")
"""struct __kernel_timespec: s, ns."""
SOON_NS: Final = 2 * NS
"""ns until the process that gets keys of NTS is asked again, when it is not there."""
PATIENCE_NS: Final = 15 * NS
"""ns for which it may be away: both start at the same time, and TLS takes a small board some seconds to load."""
REPLY_BYTES: Final = 2048
"""Octets read of a datagram: a header, extension fields and a MAC have fewer."""
KEY_TYPES: Final = {"MD5": 1, "SHA1": 2, "SHA256": 3, "AES128": 13, "AES256": 14}
"""chronyd's numbers of the types of keys (hash.h, cmac.h)."""
AT_ONCE: Final = 16
"""Datagrams of one socket that are read before others get their turn."""


class Resolver:
    """Resolves names in a thread. ``fileno``: readable when ``take`` has results."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[tuple[str, tuple[str, ...], str]] = queue.SimpleQueue()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread: threading.Thread | None = None

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._event

    def ask(self, host: str) -> None:
        """Resolve ``host``. An address stands for itself."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._resolve, name="names", daemon=True)
            self._thread.start()
        self._wanted.put(host)

    def take(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """(host, its addresses, why there are none) of each name that was resolved since."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        while True:
            try:
                yield self._found.get_nowait()
            except queue.Empty:
                return

    def _resolve(self) -> None:
        while True:
            host = self._wanted.get()
            if not host:
                os.close(self._event)
                return
            try:
                # As bytes: for a text Python would load its IDNA codec, from files that this user may not read.
                found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_DGRAM)
                self._found.put((host, tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)), ""))
            except OSError as error:
                self._found.put((host, (), explain(error)))
            os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """End, as soon as the name under way is resolved."""
        if self._thread is None:
            os.close(self._event)
        self._wanted.put("")


def polling(upstream: Upstream) -> Polling:
    """How a server of ``upstream`` is asked."""
    u = upstream
    return Polling(
        minpoll=u.minpoll,
        maxpoll=u.maxpoll,
        iburst=u.iburst,
        burst=u.burst,
        version=u.version,
        maxdistance_ns=round(u.maxdistance_ms * 1e6),
        maxdelay_ns=round(u.maxdelay_ms * 1e6),
        maxdelayratio=u.maxdelayratio,
        maxdelaydevratio=u.maxdelaydevratio,
        minstratum=u.minstratum,
        xleave=u.xleave,
    )


@dataclass(slots=True)
class _Member:
    """One server that is asked. ``address``: that of its name. ``at``: where the time is asked for; with NTS its key server says where, and
    ``named`` is the name that it gives, until that is resolved."""

    upstream: Upstream
    address: str
    association: Association
    key: Authenticator | None
    secured: Secured | None
    at: tuple[str, int]
    named: str = ""
    sock: socket.socket | None = None
    sent: Instant = field(default_factory=lambda: Instant(0, 0))
    ours: Collection[int] = ()
    own: str = ""
    last: Measurement | None = None
    packets: ServerPackets = field(default_factory=ServerPackets)
    authentication: Authentication = field(default_factory=Authentication)
    told: str = "not asked yet"  # as Association begins

    def status(self, ended: bool = False) -> UpstreamServer:
        """For the clock process."""
        a, m = self.association, self.last
        numbers = (m.stratum, m.refid, m.delay_ns, m.root_delay_ns, m.dispersion_ns) if m is not None else (0, 0, 0, 0, 0)
        why = a.why and ((self.secured and self.secured.why) or a.why)
        packets = replace(self.packets, port=self.at[1], sent=a.sent, received=a.received, valid=a.valid, good=a.good)
        return UpstreamServer(self.upstream.name, self.at[0], a.reach, a.poll, *numbers, why, ended, packets, self.authentication)

    def answered(self, found: Measurement, stamped: bool) -> None:
        """Keep its last answer. ``stamped``: by the kernel."""
        h, self.last = found.header, found
        self.packets = ServerPackets(
            local=self.own,
            leap=h.leap,
            version=h.version,
            stratum=h.stratum,
            poll=h.poll,
            precision=h.precision,
            root_delay_ns=h.root_delay_ns,
            root_dispersion_ns=h.root_dispersion_ns,
            reference_utc_ns=utc_of_ntp64(h.reference, found.utc_ns) if h.reference else 0,
            offset_ns=found.offset_ns,
            reading_ns=found.dispersion_ns - h.root_dispersion_ns,
            turn_ns=(h.transmit - h.receive) % 2**64 * NS >> 32,
            interleaved=found.interleaved,
            stamped=stamped,
        )


@dataclass(slots=True)
class _Name:
    """One ``[[upstream]]``."""

    upstream: Upstream
    pool: Pool
    members: dict[str, _Member] = field(default_factory=dict)
    told: str = ""


class Upstreams:
    """All servers that are asked. ``door``: the clock process's socket. ``keyring``: where keys of NTS come from; None: they are not kept.
    ``fileno``: readable when ``handle_ready`` has work."""

    def __init__(self, door: Path, log: Log, keyring: Keyring | None = None) -> None:
        self._door, self._log = door, log
        self._keyring = keyring or Keyring(door.parent, log)
        self._clock = LocalClock()
        self._out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._names: dict[str, _Name] = {}
        self._keys: Mapping[int, SymmetricKey] = {}
        self._served: Collection[int] = ()
        self._by_fd: dict[int, _Member] = {}
        self._epoll = select.epoll()
        self._resolver = Resolver()
        self._epoll.register(self._resolver.fileno(), select.EPOLLIN)
        self._epoll.register(self._keyring.fileno(), select.EPOLLIN)
        self._unheard, self._away = "", True

    def configure(self, upstreams: Iterable[Upstream], keys: Iterable[SymmetricKey], served: Iterable[int]) -> None:
        """Ask these from now on; those that are configured as before are asked on. ``served``: the ports on which this machine answers."""
        now_ns, found = self._clock.now().mono_ns, {key.key_id: key for key in keys}
        wanted = {upstream.name: upstream for upstream in upstreams}
        for name, one in list(self._names.items()):
            if wanted.get(name) != one.upstream or (one.upstream.key and found.get(one.upstream.key) != self._keys.get(one.upstream.key)):
                if name in wanted:
                    self._keep(one)
                self._end(one, list(one.members))
                del self._names[name]
        self._keys, self._served = found, frozenset(served)
        for name, upstream in wanted.items():
            if name not in self._names:
                most = upstream.most if isinstance(upstream, PoolUpstream) else 1
                self._names[name] = _Name(upstream, Pool(most, now_ns))

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._epoll.fileno()

    def due_s(self) -> float:
        """Seconds until ``work`` has something to do; infinity: never by itself."""
        dues = [one.pool.due_ns for one in self._names.values()]
        dues += [member.association.due_ns for one in self._names.values() for member in one.members.values()]
        times = [due for due in dues if due is not None]
        return max(0.0, (min(times) - self._clock.now().mono_ns) / NS) if times else float("inf")

    def wake(self) -> None:
        """Interfaces have changed: what was out of reach is tried at once."""
        now_ns = self._clock.now().mono_ns
        for one in self._names.values():
            one.pool.wake(now_ns)
            for member in one.members.values():
                member.association.wake(now_ns)
                if member.secured is not None:
                    member.secured.wake(now_ns)

    @property
    def replaceable(self) -> bool:
        """Whether a server that is wrong may give its place to another one: there is a pool."""
        return any(isinstance(one.upstream, PoolUpstream) for one in self._names.values())

    def judged(self, told: Snapshot) -> None:
        """What the clock process says of the servers."""
        wrong, now_ns = outvoted({u.address: u.tally for u in told.upstreams}, told.synchronised), self._clock.now().mono_ns
        for one in self._names.values():
            if isinstance(one.upstream, PoolUpstream):
                one.pool.judged([address for address, member in one.members.items() if member.at[0] in wrong], now_ns)

    def work(self) -> None:
        """Resolve the names and send the requests that are due."""
        now_ns = self._clock.now().mono_ns
        for one in self._names.values():
            if one.pool.due_ns is not None and now_ns >= one.pool.due_ns:
                one.pool.asked()
                self._resolver.ask(one.upstream.host)
            for member in one.members.values():
                if member.association.due_ns is not None and now_ns >= member.association.due_ns:
                    self._ask(one, member)

    def handle_ready(self) -> None:
        """Take the answers and the names that have come; never waits."""
        for fd, _ in self._epoll.poll(0):
            if fd == self._resolver.fileno():
                for host, addresses, why in self._resolver.take():
                    self._resolved(host, addresses, why)
            elif fd == self._keyring.fileno():
                for errand, answer in self._keyring.take():
                    one = self._names.get(errand.name)
                    if one is not None and errand.address in one.members:
                        self._keyed(one, one.members[errand.address], answer)
            elif fd in self._by_fd:
                self._receive(self._by_fd[fd])

    def close(self) -> None:
        """End everything."""
        for one in self._names.values():
            self._keep(one)
            self._end(one, list(one.members))
        self._keyring.close()
        self._resolver.close()
        self._out.close()
        self._epoll.close()

    # ---- names -----------------------------------------------------------------------------------------------------------------------

    def _resolved(self, host: str, addresses: Sequence[str], why: str) -> None:
        now_ns = self._clock.now().mono_ns
        for one in self._names.values():
            found = [address for address in addresses if one.upstream.family in ("any", "ipv6" if ":" in address else "ipv4")]
            for member in [member for member in one.members.values() if member.named == host and found]:
                member.named = ""
                self._move(member, (found[0], member.at[1]))
            if one.upstream.host != host or one.pool.due_ns is not None:
                continue
            self._change(one, one.pool.resolved(found, now_ns), now_ns)
            if addresses and not found:
                why = f"has no address of the family {one.upstream.family}"
            if why != one.told:
                one.told = why
                if why:
                    self._log.warning("upstream has no address", upstream=one.upstream.name, host=host, why=why)

    def _change(self, one: _Name, change: Change, now_ns: int) -> None:
        self._end(one, change.end)
        u = one.upstream
        for address in change.begin:
            symmetric = self._keys[u.key] if u.key else None
            key = Authenticator(symmetric) if symmetric is not None else None
            secured = Secured(Sealer, now_ns) if u.nts else None
            one.members[address] = member = _Member(u, address, Association(polling(u), now_ns), key, secured, (address, u.port))
            if symmetric is not None:
                member.authentication = Authentication("key", u.key, KEY_TYPES[symmetric.kind], 8 * len(symmetric.secret))
            if secured is not None:
                member.told = secured.why
            if secured is not None and (kept := self._keyring.kept(u, address)) is not None:
                secured.use(kept.keys, now_ns - max(0, self._clock.now().real_ns - kept.made_s * NS))
                self._sent_on(member, kept.keys)
            self._log.info("upstream", upstream=u.name, address=address)
            self._tell(member)

    def _end(self, one: _Name, addresses: Iterable[str]) -> None:
        for address in addresses:
            member = one.members.pop(address)
            self._hang_up(member)
            self._keyring.abandon(member.upstream, address)
            self._tell(member, ended=True)

    # ---- requests and answers --------------------------------------------------------------------------------------------------------

    def _ask(self, one: _Name, member: _Member) -> None:
        """One request, from a socket of its own; the answer to the one before is no longer waited for."""
        self._hang_up(member)
        association = member.association
        request = association.request(self._clock.now().mono_ns, secrets.randbits(64) or 1, secrets.randbits(64))
        if association.unanswered:
            self._unanswered(one, member)
        if member.secured is not None and not self._has_keys(member, member.secured):
            now_ns = self._clock.now().mono_ns
            association.unsent(now_ns, member.secured.why or f"{member.named} has no address")
            if not member.secured.attempts and not member.named:
                association.due_ns = now_ns + SOON_NS
            self._tell(member)
            return
        try:
            sock = self._connected(member)
            self._by_fd[sock.fileno()], member.sock = member, sock
            self._epoll.register(sock, select.EPOLLIN)
            packet = self._authenticated(member, request)
            member.sent = self._clock.now()
            sock.send(packet)
        except OSError as error:
            self._hang_up(member)
            association.unsent(self._clock.now().mono_ns, explain(error))
            self._tell(member)

    def _connected(self, member: _Member) -> socket.socket:
        family = socket.AF_INET6 if ":" in member.at[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # before Linux 5.1: the answer is stamped when it is read
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sock.connect(member.at)
            own = str(sock.getsockname()[0])
            if own == sock.getpeername()[0] and member.at[1] in self._served:
                raise OSError(errno.ELOOP, "is this machine itself", member.at[0])
        except OSError:
            sock.close()
            raise
        member.ours, member.own = {refid_of(own)}, own
        return sock

    def _hang_up(self, member: _Member) -> None:
        if member.sock is not None:
            del self._by_fd[member.sock.fileno()]
            self._epoll.unregister(member.sock)
            member.sock.close()
            member.sock = None

    def _receive(self, member: _Member) -> None:
        for _ in range(AT_ONCE):
            assert member.sock is not None
            try:
                data, extra, _, _ = member.sock.recvmsg(REPLY_BYTES, socket.CMSG_SPACE(STAMP.size))
            except BlockingIOError:
                return
            except OSError as error:  # "port unreachable" and its like
                member.association.undeliverable(explain(error))
                return
            came = self._came(extra)
            if came is None or came.era != member.sent.era:
                continue  # the system clock was stepped since the request left
            elapsed_ns = came.mono_ns - member.sent.mono_ns
            authentic = self._is_authentic(member, data)
            found = member.association.reply(
                data, came.real_ns - elapsed_ns, came.real_ns, authentic=authentic, ours=member.ours, raw_ns=came.mono_ns
            )
            if isinstance(found, Measurement):
                member.answered(found, stamped=bool(extra))
                self._measured(member, found)
                return
            if member.association.due_ns is None:
                self._names[member.upstream.name].pool.failing(member.address, came.mono_ns)
            if not member.association.waiting:
                self._hang_up(member)
                self._tell(member)
                return

    def _authenticated(self, member: _Member, request: bytes) -> bytes:
        """A request with what proves whose it is."""
        if member.secured is not None and member.secured.seal is not None:
            return member.secured.seal.request(request, os.urandom(UNIQUE_BYTES), os.urandom(NONCE_BYTES))
        return request if member.key is None else member.key.sign(request)

    def _is_authentic(self, member: _Member, data: bytes) -> bool:
        """Whether a reply is the server's, as far as it is agreed that this shows."""
        if member.secured is not None:
            return member.secured.replied(data) is Verdict.GENUINE
        return member.key is None or member.key.accepts(data)

    def _came(self, extra: Sequence[tuple[int, int, bytes]]) -> Instant | None:
        """The instant of a datagram's arrival; None when the system clock was stepped since."""
        for level, kind, data in extra:
            if (level, kind, len(data)) == (socket.SOL_SOCKET, SO_TIMESTAMPNS, STAMP.size):
                seconds, ns = STAMP.unpack(data)
                return self._clock.instant_of(seconds * NS + ns)
        return self._clock.now()

    def _measured(self, member: _Member, found: Measurement) -> None:
        self._hang_up(member)
        self._names[member.upstream.name].pool.works(member.address)
        offset_ns = found.offset_ns + round(member.upstream.offset_us * 1e3)
        self._tell(member, RawSample(found.utc_ns, offset_ns, found.leap))

    def _unanswered(self, one: _Name, member: _Member) -> None:
        if member.association.unanswered >= SETTLED and not member.association.reach:
            one.pool.failing(member.address, self._clock.now().mono_ns)
        self._tell(member)

    # ---- keys of NTS -----------------------------------------------------------------------------------------------------------------

    def _has_keys(self, member: _Member, secured: Secured) -> bool:
        """Whether a request can be sealed, and sent to where the key server says. Keys are asked for when they are wanted."""
        now_ns = self._clock.now().mono_ns
        if secured.wants_keys(now_ns):
            if not (why := self._keyring.ask(member.upstream, member.address)):
                secured.asked(now_ns)
            elif not secured.ready and now_ns - secured.since_ns > PATIENCE_NS:
                secured.why = why
        if member.named:
            self._resolver.ask(member.named)
        return secured.ready and not member.named

    def _keyed(self, one: _Name, member: _Member, answer: Keys | NoKeys) -> None:
        """The answer for a server has come."""
        assert member.secured is not None
        now_ns = self._clock.now().mono_ns
        member.secured.got(answer, now_ns)
        if isinstance(answer, Keys):
            self._sent_on(member, answer)
        elif not member.secured.ready:
            one.pool.failing(member.address, now_ns)
        self._tell(member)

    def _sent_on(self, member: _Member, keys: Keys) -> None:
        """Ask for the time where the key server says."""
        port = keys.terms.port or member.upstream.port
        if keys.terms.server:
            member.named = keys.terms.server
            member.at = member.at[0], port
            self._resolver.ask(member.named)
        else:
            member.named = ""
            self._move(member, (member.address, port))

    def _move(self, member: _Member, to: tuple[str, int]) -> None:
        """Ask for the time at ``to``, at once unless an answer is waited for."""
        if to[0] != member.at[0]:
            self._tell(member, ended=True)
        member.at = to
        if not member.association.waiting and member.association.due_ns is not None:
            member.association.due_ns = self._clock.now().mono_ns

    def _keep(self, one: _Name) -> None:
        """Have the keys used on by the next run, or after a reload."""
        now = self._clock.now()
        for member in one.members.values():
            if member.secured is not None and (keys := member.secured.kept()) is not None:
                made_s = (now.real_ns - (now.mono_ns - member.secured.since_ns)) // NS
                self._keyring.keep(one.upstream, member.address, Kept(keys, made_s))

    # ---- the clock process -----------------------------------------------------------------------------------------------------------

    def _tell(self, member: _Member, sample: RawSample | None = None, *, ended: bool = False) -> None:
        """Hand on what is known of a server. A clock process that was away hears of all of them first: it follows none while others may
        still answer."""
        if member.secured is not None:
            member.authentication = member.secured.authentication(self._clock.now().mono_ns)
        if self._away:
            self._away = not all(self._hand_on(one.status(), None) for name in self._names.values() for one in name.members.values())
        status = member.status(ended)
        self._away = not self._hand_on(status, sample) or self._away
        why = "" if status.reach else status.why
        if why != member.told and not ended:
            member.told = why
            if why:
                self._log.warning("upstream", address=member.address, why=why)
            else:
                self._log.info("upstream answers", address=member.address)

    def _hand_on(self, server: UpstreamServer, sample: RawSample | None) -> bool:
        """Whether the clock process took it. That it is away is no trouble of ours."""
        unheard = ""
        try:
            self._out.sendto(pack(server, sample), str(self._door))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN, errno.ENOBUFS):
                return False
            unheard = explain(error)
        if unheard != self._unheard:
            self._unheard = unheard
            if unheard:
                self._log.warning("the clock process does not hear of the upstreams", problem=unheard)
        return not unheard
