"""chrony's SOCK samples, both ways: datagrams to chronyd's socket, and a socket of our own that takes them from other programs.

One format for both (chrony's refclock_sock.c). What arrives (from gpsd, satpulse, an NTP client, ...) is checked for form only; selection
finds out whether it is right. Nothing that arrives raises.

Flow: datagram -> ``SockIntake`` -> RawSample -> ``ppsd.clock.sources``; sample -> ``SockFeedWriter`` -> chronyd.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Final

from refclock.errors import explain
from refclock.exchange.samples import EARLIEST_S, LATEST_S, FeedWriter, RawSample, SampleReject
from refclock.kernel.names import Name
from refclock.kernel.unix_socket import bound
from refclock.sample import NS, Instant, Leap

SOCK_MAGIC: Final = 0x534F434B
"""SOCK_MAGIC of chrony's refclock_sock.c."""
SOCK_64: Final = struct.Struct("=qqdiiii")
"""struct sock_sample of refclock_sock.c with 64-bit time_t: tv_sec, tv_usec, offset (s), pulse, leap, padding, magic."""
SOCK_32: Final = struct.Struct("=Iidiiii")
"""The same with 32-bit time_t. Its seconds are read as unsigned, for no reference lies before 1970."""


# ---- samples for chronyd -------------------------------------------------------------------------------------------------------------


class SockFeedWriter(FeedWriter):
    """Datagrams to the socket that chronyd makes (``refclock SOCK path``). ``wide``: 40-byte samples, for programs with 64-bit time_t;
    default: what this system's libc has. From 4.4 on chrony takes both on 32-bit systems, older versions only their own."""

    kind = "sock"

    def __init__(
        self, path: str, name: str = "", limit_ns: float = math.inf, *, wide: bool = sysconfig.get_config_var("SIZEOF_TIME_T") != 4
    ) -> None:
        super().__init__(name, path, limit_ns)
        self._wide = wide
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def _write(self, at: Instant, offset_ns: int, bound_ns: int, leap: Leap) -> None:
        """As FeedWriter. The format has no field for ``bound_ns``. Its stamp is cut to us, which only concerns when the offset was
        measured: the offset keeps its ns."""
        del bound_ns
        seconds, ns = divmod(at.real_ns, NS)
        layout = SOCK_64 if self._wide else SOCK_32
        if not self._wide:
            seconds &= 0xFFFF_FFFF
        try:
            self._socket.sendto(layout.pack(seconds, ns // 1000, offset_ns / NS, 0, leap.value, 0, SOCK_MAGIC), self.target)
        except OSError as e:
            self._failed(*_not_sent(self.target, e))
        else:
            self._done()

    def close(self) -> None:
        """Close our end."""
        self._socket.close()


_SEND_HINTS: Final = dict.fromkeys((errno.EACCES, errno.EPERM), "run as root, as chronyd's user, or give this user access to the directory")


def _not_sent(path: str, error: OSError) -> tuple[str, str]:
    """(state, why) of a datagram that did not go."""
    match error.errno:
        case errno.ENOENT:
            return "absent", f"there is no {path}: chronyd is not running, or its configuration lacks the line: refclock SOCK {path}"
        case errno.ECONNREFUSED:
            return "absent", f"nobody listens on {path}; waiting for chronyd to start"
        case errno.EAGAIN | errno.ENOBUFS:
            return "stalled", f"the program behind {path} does not read its samples; restart it"
        case errno.EACCES | errno.EPERM:
            return "refused", explain(error, f"may not write to {path}", _SEND_HINTS)
        case errno.EPROTOTYPE:
            return "refused", f"{path} is a stream socket, not chronyd's; correct the path"
        case errno.ENOTSOCK:
            return "refused", f"{path} is no socket; correct the path"
    return "failed", explain(error, f"writing to {path}")


# ---- samples of other programs -------------------------------------------------------------------------------------------------------

DATAGRAMS: Final = 64
"""Datagrams read in one call at most, so that a flood does not hold the caller; the rest stays in the socket's queue."""
SOCKET_MODE: Final = 0o660
"""Owner and group may send: who can write here can move the clock."""


def parse_sock(data: bytes) -> RawSample | SampleReject:
    """One chrony SOCK datagram, with 64-bit (40 bytes) or 32-bit time_t (32 bytes)."""
    layout = {SOCK_64.size: SOCK_64, SOCK_32.size: SOCK_32}.get(len(data))
    if layout is None:
        return SampleReject.SIZE
    seconds, us, offset_s, pulse, leap, _, magic = layout.unpack(data)
    if magic != SOCK_MAGIC:
        return SampleReject.MAGIC
    if not (0 <= us < 1_000_000 and 0 <= seconds < LATEST_S):
        return SampleReject.STAMP
    if not math.isfinite(offset_s):
        return SampleReject.NOT_FINITE
    if not (abs(offset_s) <= 0.5 if pulse else EARLIEST_S <= seconds + offset_s < LATEST_S):
        return SampleReject.RANGE
    if not Leap.NORMAL <= leap <= Leap.UNSYNCHRONISED:
        return SampleReject.LEAP
    return RawSample(seconds * NS + us * 1000, round(offset_s * NS), Leap(leap), bool(pulse))


class SockIntake:
    """The socket ``path``, made here as chronyd makes its own. OSError: see ``unix_socket.bound``."""

    def __init__(self, path: str, mode: int = SOCKET_MODE) -> None:
        self.path = path
        self.received = 0
        self.rejected: Counter[str] = Counter()
        self._socket = bound(Path(path), socket.SOCK_DGRAM, mode)
        self.name = Name(Path(path))
        self._inode = Path(path).lstat().st_ino

    def fileno(self) -> int:
        """The descriptor to wait on; -1 when closed."""
        return self._socket.fileno()

    def read(self) -> list[RawSample]:
        """The samples that have arrived, at most DATAGRAMS; never blocks. ``received`` and ``rejected`` count."""
        samples = []
        for _ in range(DATAGRAMS):
            try:
                data = self._socket.recv(SOCK_64.size + 1)
            except BlockingIOError:
                break
            sample = parse_sock(data)
            if isinstance(sample, SampleReject):
                self.rejected[sample] += 1
            else:
                self.received += 1
                samples.append(sample)
        return samples

    def close(self) -> None:
        """Close the socket, and remove its name while it is still ours."""
        self._socket.close()
        try:
            if Path(self.path).lstat().st_ino == self._inode:
                Path(self.path).unlink()
        except FileNotFoundError:
            pass
