"""Samples from other programs: a socket of our own that takes chrony SOCK datagrams, and NTP shared memory that others write.

Flow: gpsd, satpulse, an NTP client, ... -> **intake** -> RawSample -> (shell: LocalClock and the table of leap seconds) -> Sampled event.
What arrives is checked for form only; whether it is right is for selection to find out. Nothing that arrives raises.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import stat
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from refclock.feed import SOCK_32, SOCK_64, SOCK_MAGIC
from refclock.kernel import ShmSegment
from refclock.sample import NS, Leap

DATAGRAMS: Final = 64
"""Read in one call at most, so that a flood cannot hold the caller; the rest stays in the socket's queue."""
SILENT_READS: Final = 10
"""Reads without a sample after which the segment may have been replaced: two seconds of five looks each."""
EARLIEST_S: Final = 315_964_800
"""1980-01-06, the start of GPS time (IS-GPS-200): no reference says less."""
LATEST_S: Final = 9_214_646_400
"""2262-01-01: int64 ns end in April of that year (the shared memory and timescale records hold int64)."""
SOCKET_MODE: Final = 0o660
"""Owner and group may send: who can write here can move the clock."""

_BIND_HINTS: Final = {errno.ENOENT: "; create its directory", errno.EACCES: "; give this user write access to its directory"}


class Reject(StrEnum):
    """Why a datagram or segment gave no sample."""

    SIZE = "size"  # neither 40 nor 32 bytes
    MAGIC = "magic"
    STAMP = "stamp"  # microseconds out of range
    NOT_FINITE = "not-finite"
    RANGE = "range"  # names a time before GPS or after 2262, or a pulse off by more than half a second
    LEAP = "leap"
    NONSENSE = "nonsense"  # shared memory with impossible fields
    CLASH = "clash"  # shared memory was written while we read


@dataclass(frozen=True, slots=True)
class RawSample:
    """At CLOCK_REALTIME ``real_ns`` reference - local was ``offset_ns``; with ``pulse`` only modulo one second. ``uncertainty_ns``: what
    the writer says, 0 = nothing. ``leap`` UNSYNCHRONISED: the writer itself does not believe it."""

    real_ns: int
    offset_ns: int
    leap: Leap
    pulse: bool = False
    uncertainty_ns: int = 0


def parse_sock(data: bytes) -> RawSample | Reject:
    """One chrony SOCK datagram, with 64-bit (40 bytes) or 32-bit time_t (32 bytes)."""
    layout = {SOCK_64.size: SOCK_64, SOCK_32.size: SOCK_32}.get(len(data))
    if layout is None:
        return Reject.SIZE
    seconds, us, offset_s, pulse, leap, _, magic = layout.unpack(data)
    if magic != SOCK_MAGIC:
        return Reject.MAGIC
    if not (0 <= us < 1_000_000 and 0 <= seconds < LATEST_S):
        return Reject.STAMP
    if not math.isfinite(offset_s):
        return Reject.NOT_FINITE
    if not (abs(offset_s) <= 0.5 if pulse else EARLIEST_S <= seconds + offset_s < LATEST_S):
        return Reject.RANGE
    if not Leap.NORMAL <= leap <= Leap.UNSYNCHRONISED:
        return Reject.LEAP
    return RawSample(seconds * NS + us * 1000, round(offset_s * NS), Leap(leap), bool(pulse))


class SockIntake:
    """The socket ``path``, made here as chronyd makes its own. A socket that nobody listens on is replaced. OSError: EADDRINUSE another
    program listens there, EEXIST the path is something else, and what bind(2) says."""

    def __init__(self, path: str, mode: int = SOCKET_MODE) -> None:
        self.path = path
        self.received = 0
        self.rejected: Counter[str] = Counter()
        _remove_stale(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(path)
            Path(path).chmod(mode)
        except OSError as e:
            self._socket.close()
            hint = _BIND_HINTS.get(e.errno or 0, "")
            raise OSError(e.errno, f"making the socket {path}: {e.strerror}{hint}") from e
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
            if isinstance(sample, Reject):
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


def _remove_stale(path: str) -> None:
    """Make way for a socket at ``path``: remove one that nobody listens on, and nothing else."""
    try:
        kind = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError(errno.EEXIST, f"{path} is not a socket, so it is left alone; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        # A listener of another type (EPROTOTYPE) or one that we may not talk to (EACCES) lives as well: only "refused" proves it dead.
        result = probe.connect_ex(path)
    if result == errno.ECONNREFUSED:
        Path(path).unlink(missing_ok=True)
    elif result != errno.ENOENT:
        hint = "another program listens there" if result in (0, errno.EPROTOTYPE) else os.strerror(result)
        raise OSError(errno.EADDRINUSE, f"{path} is in use: {hint}; stop that program or choose another path")


class ShmIntake:
    """NTP shared memory segment ``unit`` that another program writes. Poll it: it cannot wake anybody.

    It stays attached while samples come; after ``SILENT_READS`` without one it is looked for again, so it may come, go and be made anew.
    ``why``: the reason when it cannot be read, else empty.
    """

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self.why = ""
        self.received = 0
        self.rejected: Counter[str] = Counter()
        self._segment: ShmSegment | None = None
        self._silent = 0

    def read(self) -> list[RawSample]:
        """The sample there is, if it is new and whole; an absent segment gives none."""
        self._silent += 1
        if self._silent > SILENT_READS:
            self.close()
        try:
            segment = self.open()
            clashes = segment.clashes
            sample = segment.read()
        except OSError as e:
            self.close()
            self.why = e.strerror or str(e)
            if e.errno == errno.EPROTO:
                self.rejected[Reject.NONSENSE] += 1
            return []
        self.why = ""
        if segment.clashes > clashes:
            self.rejected[Reject.CLASH] += segment.clashes - clashes
        if sample is None:
            return []
        self._silent = 0
        if not EARLIEST_S * NS <= sample.clock_ns < LATEST_S * NS:
            self.rejected[Reject.RANGE] += 1
            return []
        self.received += 1
        uncertainty_ns = round(math.ldexp(NS, max(-63, min(10, sample.precision))))
        return [RawSample(sample.receive_ns, sample.clock_ns - sample.receive_ns, sample.leap, False, uncertainty_ns)]

    def open(self) -> ShmSegment:
        """Attach it, if it is not. OSError: absent, or no such segment."""
        if self._segment is None:
            self._segment, self._silent = ShmSegment(self.unit), 0
        return self._segment

    def close(self) -> None:
        """Let the segment go; the next read looks for it again."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
