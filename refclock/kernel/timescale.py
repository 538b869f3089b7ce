"""The timescale record's file: one writer, any number of readers (native/record.h)."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from refclock.kernel._kernel import ffi, lib
from refclock.kernel.errors import checked, live
from refclock.kernel.names import Name
from refclock.record import Record, TimescaleReading, fill, record_of
from refclock.sample import NS, Leap

if TYPE_CHECKING:
    from refclock.kernel._kernel import Rec


# ---- the timescale record --------------------------------------------------------------------------------------------------------------

_RECORD_HINTS: Final = {
    errno.ENOENT: "the clock process has not started yet, or the run directory is missing",
    errno.EACCES: "the run directory must be writable for the clock process and readable for all others",
    errno.EPERM: "another user made it or may write it, so it is not believed; remove it",
    errno.EPROTO: "this file is no timescale record; check the run directory",
    errno.ELOOP: "a symbolic link is not followed here; remove it",
    errno.ENODATA: "it is just being made",
    errno.ESTALE: "it is of an earlier boot or another version; the clock process will replace it",
}


class _TimescaleFile:
    def __init__(self, path: str | Path, writable: bool) -> None:
        self.path = str(path)
        self._rec: Rec | None = self._open(writable)
        self._params = ffi.new("struct rec_params *")

    def _open(self, writable: bool) -> Rec:
        cell = ffi.new("struct rec **")
        checked(lib.rec_open(os.fsencode(self.path), int(writable), cell), f"opening the timescale {self.path}", _RECORD_HINTS)
        return cell[0]

    def close(self) -> None:
        """Unmap the file; a writer's last record stays in force."""
        if self._rec is not None:
            lib.rec_close(self._rec)
            self._rec = None


class TimescaleWriter(_TimescaleFile):
    """The record file as its one writer has it. Created when absent; replaced when it is of an earlier boot or another version."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, writable=True)
        self._name = Name(Path(path))

    def renew(self) -> bool:
        """Make the file anew when its name has been removed. Returns whether it was: readers need the record again. OSError: it cannot be
        made."""
        if not self._name.missing():
            return False
        self._name.make_directory()
        renewed = self._open(writable=True)
        self.close()
        self._rec, self._name = renewed, Name(Path(self.path))
        return True

    def publish(self, record: Record) -> None:
        """Make ``record`` the served timescale."""
        fill(self._params, record)
        lib.rec_publish(live(self._rec, self.path), self._params)


class TimescaleReader(_TimescaleFile):
    """The record file as any process may read it. A record is read as unsynchronised once this machine has slept since its publication."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, writable=False)
        self._reading = ffi.new("struct rec_reading *")
        self._clocks = ffi.new("struct clk_reading *")

    def read(self) -> TimescaleReading | None:
        """The record in force evaluated now; None before the first publication."""
        return self.at(lib.clk_raw_ns())

    def at(self, raw_ns: int) -> TimescaleReading | None:
        """The record in force evaluated at ``raw_ns``; None before the first publication."""
        r = self._reading
        if not self._read():
            return None
        lib.rec_at(self._params, raw_ns, r)
        times = r.utc_ns, r.tai_ns, r.bound_ns, r.root_delay_ns, r.reference_utc_ns
        return TimescaleReading(*times, r.refid, r.precision, r.stratum, Leap(r.leap), bool(r.simulated))

    def record(self) -> Record | None:
        """The record in force as it was published; None before the first publication."""
        return record_of(self._params) if self._read() else None

    def _read(self) -> bool:
        rec, c = live(self._rec, self.path), self._clocks
        checked(lib.clk_read(0, c), "reading the clocks")
        return lib.rec_read_now(rec, c.raw_ns, c.real_ns - c.mono_ns, self._params) == 0


def utc_second(record: str | Path) -> int:
    """The second of UTC (POSIX count) now: by the record file while it tells the time, else by the system clock."""
    served = served_second(record)
    return int(time.time()) if served is None else served


def served_second(record: str | Path) -> int | None:
    """The second of UTC (POSIX count) now by the record file; None while that does not tell the time."""
    with contextlib.suppress(OSError), contextlib.closing(TimescaleReader(record)) as reader:
        reading = reader.read()
        if reading is not None and reading.leap is not Leap.UNSYNCHRONISED:
            return reading.utc_ns // NS
    return None
