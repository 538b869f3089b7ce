"""The connection to gpsd: a TCP client that never blocks, never gives up, and keeps its failures to itself.

Its owner waits until ``fileno`` is readable (while ``connecting``: writable) or ``deadline_ns`` has come, then calls ``pump``.

Flow: gpsd -> **gpsd** -> (bytes, Instant) -> ``protocols.gpsd.GpsdStream``.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from typing import Any, Final

from refclock.errors import explain
from refclock.kernel.clocks import LocalClock
from refclock.protocols.gpsd import WATCH
from refclock.sample import NS, Instant

FIRST_RETRY_NS: Final = NS
LAST_RETRY_NS: Final = 30 * NS
"""ns to wait after a failure, doubled from the first to the last: gpsd may be back within a second, or be absent for days."""
CONNECT_NS: Final = 10 * NS
"""ns after which an attempt to connect is given up: three SYNs (at 1, 3 and 7 s; tcp(7))."""
LOOKUP_S: Final = 0.02
"""s to wait for the address of a name: the hosts file answers at once, a resolver is not waited for."""
READ_BYTES: Final = 16_384
READS: Final = 2
"""Reads in one call at most, so that a flood does not hold the caller. gpsd sends 2 to 10 kB a second."""
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""s, s, probes: a peer that is gone (power, cable) is noticed after 25 s (tcp(7))."""


_lookups: dict[tuple[str, int], tuple[threading.Thread, list[Any]]] = {}
"""Look-ups of names that are under way, or whose answers were not fetched yet; they outlive the connection that began them."""


def _address(host: str, port: int) -> Any:
    """The first address of ``host``, as getaddrinfo(3) gives it. Never blocks longer than LOOKUP_S. OSError: EBUSY while the resolver is
    busy; else how the look-up failed."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
    except socket.gaierror:
        pass  # a name
    key = host, port
    if key not in _lookups:
        answer: list[Any] = []
        _lookups[key] = threading.Thread(target=_look_up, args=(host, port, answer), name="gpsd-lookup", daemon=True), answer
        _lookups[key][0].start()
    thread, answer = _lookups[key]
    thread.join(LOOKUP_S)
    if thread.is_alive():
        raise OSError(errno.EBUSY, "its name is being looked up")
    del _lookups[key]
    if isinstance(answer[0], OSError):
        raise answer[0]
    return answer[0]


def _look_up(host: str, port: int, answer: list[Any]) -> None:
    try:
        answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0])
    except OSError as error:
        answer.append(error)
    except UnicodeError as error:
        answer.append(OSError(errno.EINVAL, f"not a host name ({error})"))


class GpsdSocket:
    """gpsd at ``host``:``port``. ``connections``: made so far. ``why``: the state for people; "" while connected. A name is looked up in a
    thread (``_address``): an attempt that finds no answer yet fails, a later one finds it."""

    def __init__(self, host: str, port: int, clock: LocalClock) -> None:
        self.host = host
        self.port = port
        self.connected = False
        self.connecting = False
        self.connections = 0
        self.why = f"not yet connected to gpsd at {host}:{port}"
        self.deadline_ns: int | None = clock.now().mono_ns
        """Raw time at which to ``pump`` although nothing is readable; None: not at all."""
        self._clock = clock
        self._socket: socket.socket | None = None
        self._retry_ns = FIRST_RETRY_NS

    def fileno(self) -> int:
        """The descriptor to wait on; it changes with each attempt, and is -1 between two."""
        return -1 if self._socket is None else self._socket.fileno()

    def pump(self) -> tuple[bytes, Instant]:
        """Do what can be done now: connect, ask, read. (What arrived, b"" for nothing; when the read ended.) When ``connections`` has
        grown, a new stream begins with these bytes."""
        now = self._clock.now()
        if self._socket is None and self.deadline_ns is not None and now.mono_ns >= self.deadline_ns:
            self._begin(now.mono_ns)
        elif self.connecting:
            self._finish(now.mono_ns)
        if self._socket is None or not self.connected:
            return b"", now
        return self._read(self._socket)

    def close(self) -> None:
        """Hang up; a later ``pump`` does nothing."""
        self._drop()
        self.deadline_ns = None

    def _begin(self, mono_ns: int) -> None:
        try:
            family, kind, protocol, _, address = _address(self.host, self.port)
            self._socket = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE:
                self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
            self._socket.connect(address)
        except BlockingIOError:
            self.connecting = True
            self.deadline_ns = mono_ns + CONNECT_NS
        except UnicodeError as e:
            self._failed(OSError(errno.EINVAL, f"not a host name ({e})"), mono_ns)
        except OSError as e:
            self._failed(e, mono_ns)
        else:
            self._ask(mono_ns)

    def _finish(self, mono_ns: int) -> None:
        assert self._socket is not None
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._failed(OSError(error, os.strerror(error)), mono_ns)
            return
        try:
            self._socket.getpeername()
        except OSError:
            if self.deadline_ns is not None and mono_ns >= self.deadline_ns:
                self._failed(OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)), mono_ns)
            return
        self._ask(mono_ns)

    def _ask(self, mono_ns: int) -> None:
        """Connected: ask for the reports. A fresh connection's buffer always holds the command."""
        assert self._socket is not None
        self.connecting = False
        try:
            self._socket.send(WATCH, socket.MSG_NOSIGNAL)
        except OSError as e:
            self._failed(e, mono_ns)
            return
        self.connected = True
        self.connections += 1
        self.why = ""
        self.deadline_ns = None

    def _read(self, connection: socket.socket) -> tuple[bytes, Instant]:
        chunks: list[bytes] = []
        failure: OSError | None = None
        for _ in range(READS):
            try:
                chunk = connection.recv(READ_BYTES)
            except BlockingIOError:
                break
            except OSError as e:
                failure = e
                break
            if not chunk:
                failure = OSError(errno.ECONNRESET, "gpsd closed the connection")
                break
            chunks.append(chunk)
        at = self._clock.now()
        if chunks:
            self._retry_ns = FIRST_RETRY_NS  # it spoke; one that only accepts and closes is tried less and less often
        if failure is not None:
            self._failed(failure, at.mono_ns)
        return b"".join(chunks), at

    def _failed(self, error: OSError, mono_ns: int) -> None:
        self._drop()
        hint = "is gpsd running, and listening there?" if error.errno == errno.ECONNREFUSED else "waiting for it"
        self.why = f"{explain(error, f'gpsd at {self.host}:{self.port}')}; {hint}"
        self.deadline_ns = mono_ns + self._retry_ns
        self._retry_ns = min(LAST_RETRY_NS, 2 * self._retry_ns)

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self.connected = self.connecting = False
