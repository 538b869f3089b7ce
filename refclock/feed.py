"""Samples for the programs that keep this host's clock: chrony SOCK datagrams and NTP shared memory.

Flow: Feed effect (instant, offset, uncertainty, leap) -> **feed** -> chronyd, ntpd. Both writers find their peer anew with every sample: a
datagram is addressed by path, a segment attached by key (a few system calls a second). So there is nothing to reconnect: a peer that
restarts, comes late or removes the segment gets the next sample. A peer that is away is a state of the writer, never an exception.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import struct
import sysconfig
from typing import Final

from refclock import config
from refclock.kernel import ShmSegment
from refclock.sample import NS, Instant, Leap

SOCK_MAGIC: Final = 0x534F434B
"""SOCK_MAGIC of chrony's refclock_sock.c."""
SOCK_64: Final = struct.Struct("=qqdiiii")
"""struct sock_sample of refclock_sock.c with 64-bit time_t: tv_sec, tv_usec, offset (s), pulse, leap, padding, magic."""
SOCK_32: Final = struct.Struct("=Iidiiii")
"""The same with 32-bit time_t. Its seconds are read as unsigned: no reference lies before 1970."""
PRECISIONS: Final = (-30, 0)
"""log2 s of what is written: 1 ns, the unit of the stamps, to 1 s."""
PRECISION_UNKNOWN: Final = -20
"""1 us, what gpsd writes for a pulse (gpsd, timehint.c)."""

Status = dict[str, str | int | float | None]


class _Writer:
    """What both writers remember: how the last sample fared."""

    kind = ""

    def __init__(self, name: str, target: str) -> None:
        self.name = name or self.kind
        self.target = target
        self.state = "waiting"
        self.why = "no sample has been made yet"
        self.sent = 0
        self.lost = 0

    def _done(self) -> None:
        self.state, self.why = "sending", ""
        self.sent += 1

    def _failed(self, state: str, why: str) -> None:
        self.state, self.why = state, why
        self.lost += 1

    def status(self) -> Status:
        """``state``: waiting (nothing to send yet), sending, absent (nobody takes it), refused (we may not), stalled (its queue is full),
        failed; ``why``: what and what to do, empty while sending; ``sent`` and ``lost`` count samples."""
        return {
            "name": self.name,
            "kind": self.kind,
            "target": self.target,
            "state": self.state,
            "sent": self.sent,
            "lost": self.lost,
            "why": self.why,
        }


class SockFeedWriter(_Writer):
    """Datagrams to the socket that chronyd makes (``refclock SOCK path``). ``wide``: 40-byte samples, for programs with 64-bit time_t;
    default: what this system's libc has. chrony takes both on 32-bit systems from 4.4 on, before only its own."""

    kind = "sock"

    def __init__(self, path: str, name: str = "", wide: bool = sysconfig.get_config_var("SIZEOF_TIME_T") != 4) -> None:
        super().__init__(name, path)
        self._wide = wide
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def send(self, at: Instant, offset_ns: int, uncertainty_ns: int, leap: Leap) -> None:
        """One sample: at ``at`` (REALTIME) reference - local was ``offset_ns``. The format has no field for ``uncertainty_ns``; its stamp
        is cut to us, which only says when: the offset keeps its ns. Failure shows in ``status``."""
        del uncertainty_ns
        seconds, ns = divmod(at.real_ns, NS)
        layout = SOCK_64 if self._wide else SOCK_32
        if not self._wide:
            seconds &= 0xFFFF_FFFF
        try:
            self._socket.sendto(layout.pack(seconds, ns // 1000, offset_ns / NS, 0, leap.value, 0, SOCK_MAGIC), self.target)
        except OSError as e:
            self._failed(*_sock_trouble(self.target, e))
        else:
            self._done()

    def close(self) -> None:
        """Close our end."""
        self._socket.close()


def _sock_trouble(path: str, error: OSError) -> tuple[str, str]:
    """(state, why) of a datagram that did not go."""
    what = os.strerror(error.errno) if error.errno else str(error)
    match error.errno:
        case errno.ENOENT:
            return "absent", f"there is no {path}: chronyd is not running, or its configuration lacks the line: refclock SOCK {path}"
        case errno.ECONNREFUSED:
            return "absent", f"nobody listens on {path}; waiting for chronyd to start"
        case errno.EAGAIN | errno.ENOBUFS:
            return "stalled", f"the program behind {path} does not read its samples; restart it"
        case errno.EACCES | errno.EPERM:
            return "refused", f"may not write to {path}: {what}; run as root, as chronyd's user, or give this user access to the directory"
        case errno.EPROTOTYPE:
            return "refused", f"{path} is a stream socket, not chronyd's; correct the path"
        case errno.ENOTSOCK:
            return "refused", f"{path} is no socket; correct the path"
    return "failed", f"writing to {path}: {what}"


class ShmFeedWriter(_Writer):
    """NTP shared memory segment ``unit``, created when there is none, for chronyd (``refclock SHM unit``) or ntpd (127.127.28.unit)."""

    kind = "shm"

    def __init__(self, unit: int, name: str = "") -> None:
        super().__init__(name, str(unit))
        self.unit = unit

    def send(self, at: Instant, offset_ns: int, uncertainty_ns: int, leap: Leap) -> None:
        """One sample: at ``at`` (REALTIME) reference - local was ``offset_ns``, uncertain by ``uncertainty_ns`` (0: unknown), which is
        rounded up to a power of two s. Failure shows in ``status``."""
        try:
            segment = ShmSegment(self.unit, create=True)
            try:
                segment.write(at.real_ns + offset_ns, at.real_ns, leap, precision_of(uncertainty_ns))
            finally:
                segment.close()
        except OSError as e:
            self._failed("refused" if e.errno in (errno.EACCES, errno.EPERM) else "failed", e.strerror or str(e))
        else:
            self._done()

    def close(self) -> None:
        """Nothing is held open; the segment stays for its reader."""


def precision_of(uncertainty_ns: int) -> int:
    """log2 s, rounded up, within PRECISIONS; PRECISION_UNKNOWN for 0."""
    if uncertainty_ns <= 0:
        return PRECISION_UNKNOWN
    return max(PRECISIONS[0], min(PRECISIONS[1], math.ceil(math.log2(uncertainty_ns / NS))))


def open_feed(feed: config.Feed) -> SockFeedWriter | ShmFeedWriter:
    """The writer for one ``[[feed]]``; its peer need not be there."""
    if isinstance(feed, config.SockFeed):
        return SockFeedWriter(feed.path, feed.name)
    return ShmFeedWriter(feed.unit, feed.name)
