"""The pulse line as a shared file, which fake_pps.c shows to unmodified programs as /dev/ppsN and as carrier detect.

Flow: device (or a test) -> **pulse_file** -> mmap -> fake_pps.c in ppstest, chronyd, gpsd, ppsd. One writer, any number of readers. The
writer follows the kernel's pps_event() (drivers/pps/kapi.c): an edge counts when the mode captures it, a level change always counts.

Layout: ``struct line`` of fake_pps.c, native byte order. ``change`` is a futex and a sequence lock: it is odd while fields are written. The
futex call between the steps is the memory barrier that Python lacks (FUTEX_WAKE: smp_mb(), kernel/futex/waitwake.c).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from refclock.sample import EdgeKind

SIZE = 88
MAGIC = 0x50507346
VERSION = 1
CAPTURE_ASSERT = 0x01
CAPTURE_CLEAR = 0x02
CAN_WAIT = 0x100
CAPABILITIES = 0x1133
"""CAPTUREBOTH | OFFSETASSERT | OFFSETCLEAR | CANWAIT | TSFMT_TSPEC: those of the kernel's pps_ldisc (drivers/pps/clients/pps-ldisc.c)."""
MODE = 0x33
"""The initial mode of pps_ldisc: both edges, offsets (zero) applied."""
FOREVER = 0xFFFF_FFFF
"""A count of faults that never ends."""

_WORDS = struct.Struct("=8I2q2I2q4I")
_CHANGE, _EVENTS, _TRANSITIONS, _LEVEL, _MODE, _CAPABILITIES, _OPEN_ERROR, _PARAMS_ERROR, _FETCH_ERROR = 8, 12, 24, 28, 48, 52, 72, 76, 80
_SEQUENCE = {EdgeKind.ASSERT: 16, EdgeKind.CLEAR: 20}
_STAMP = {EdgeKind.ASSERT: 32, EdgeKind.CLEAR: 40}
_CAPTURE = {EdgeKind.ASSERT: CAPTURE_ASSERT, EdgeKind.CLEAR: CAPTURE_CLEAR}

_SYS_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "i686": 240, "armv7l": 240, "armv6l": 240}
"""Number of futex(2) by machine (the kernel's system call tables). Without a number, programs notice an edge when they poll."""
_FUTEX_WAKE = 1
_EVERYBODY = 0x7FFF_FFFF


class PulseFile:
    """The writer's end.

    ``path`` is made (mode 0666: the reader may have dropped its privileges). An existing pulse file is taken over with its sequence
    numbers, so that programs that have it open continue. OSError when neither is possible.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            if os.fstat(fd).st_uid == os.geteuid():
                os.fchmod(fd, 0o666)
            os.ftruncate(fd, SIZE)
            os.posix_fallocate(fd, 0, SIZE)  # on a full tmpfs an error here instead of SIGBUS later
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        if self._word(0) != MAGIC or self._word(4) != VERSION:
            _WORDS.pack_into(self._map, 0, MAGIC, VERSION, 0, 0, 0, 0, 0, 0, 0, 0, MODE, CAPABILITIES, 0, 0, 0, 0, 0, 0)
        elif self._word(_CHANGE) & 1:  # its last writer died inside
            self._bump()
        self._anchor: ctypes.c_uint32 | None = ctypes.c_uint32.from_buffer(self._map, _CHANGE)
        self._address = ctypes.addressof(self._anchor)
        self._futex = _SYS_FUTEX.get(platform.machine())
        self._syscall = ctypes.CDLL(None).syscall

    def edge(self, kind: EdgeKind, real_ns: int) -> None:
        """The line went up (ASSERT) or down; ``real_ns`` is the kernel's stamp (CLOCK_REALTIME). Cost: 5 µs, three system calls."""
        captured = self._word(_MODE) & _CAPTURE[kind]
        self._bump()
        self._wake()
        self._put(_LEVEL, int(kind is EdgeKind.ASSERT))
        self._put(_TRANSITIONS, self._word(_TRANSITIONS) + 1)
        if captured:
            struct.pack_into("=q", self._map, _STAMP[kind], real_ns)
            self._put(_SEQUENCE[kind], self._word(_SEQUENCE[kind]) + 1)
            self._put(_EVENTS, self._word(_EVENTS) + 1)
        self._wake()
        self._bump()
        self._wake()

    def sequence(self, kind: EdgeKind) -> int:
        """Number of captured edges of this kind, modulo 2^32."""
        return self._word(_SEQUENCE[kind])

    def fail_fetch(self, error: int, times: int = FOREVER) -> None:
        """The next ``times`` PPS_FETCH, waiting ones included, fail with this errno; 0 ends it."""
        self._put(_FETCH_ERROR + 4, times if error else 0)
        self._put(_FETCH_ERROR, error)
        self._bump()
        self._bump()
        self._wake()

    def fail_open(self, error: int) -> None:
        """open() of the device fails with this errno; 0 ends it."""
        self._put(_OPEN_ERROR, error)

    def fail_set_params(self, error: int = errno.EPERM) -> None:
        """PPS_SETPARAMS fails with this errno (the kernel's: EPERM without CAP_SYS_TIME); 0 ends it."""
        self._put(_PARAMS_ERROR, error)

    def withhold(self, bits: int) -> None:
        """Remove these bits (CAN_WAIT, CAPTURE_CLEAR, ...) from PPS_GETCAP and from the mode."""
        self._put(_CAPABILITIES, CAPABILITIES & ~bits)
        self._put(_MODE, self._word(_MODE) & ~bits)

    def close(self) -> None:
        """Unmap the file, which stays."""
        self._anchor = None  # mmap.close() refuses while a pointer into it is exported
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _word(self, offset: int) -> int:
        return int.from_bytes(self._map[offset : offset + 4], sys.byteorder)

    def _put(self, offset: int, value: int) -> None:
        struct.pack_into("=I", self._map, offset, value & 0xFFFF_FFFF)

    def _bump(self) -> None:
        self._put(_CHANGE, self._word(_CHANGE) + 1)

    def _wake(self) -> None:
        if self._futex is not None:
            self._syscall(self._futex, ctypes.c_void_p(self._address), _FUTEX_WAKE, _EVERYBODY, None, None, 0)
