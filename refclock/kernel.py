"""The machine's clocks, pulses and shared memory: the only importer of the C extension ``refclock._kernel`` (native/*.h).

Pulses and packets are stamped by the kernel on CLOCK_REALTIME, which anybody may step and steer; everything is estimated on
CLOCK_MONOTONIC_RAW. ``LocalClock`` carries stamps from the one to the other by readings of both clocks at once: before and after the stamp,
interpolated. A step of REALTIME shows as a change of REALTIME - MONOTONIC, which slewing never changes; it starts a new era, and a stamp
from across it is given up.

Errors are OSError with what failed and what to do; the callers turn them into events.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from refclock._kernel import ffi, lib
from refclock.record import Record, TimescaleReading
from refclock.sample import NS, Instant, Leap

if TYPE_CHECKING:
    from refclock._kernel import ClkReading, Shm, Tsc, TscParams

_Handle = TypeVar("_Handle")

STEP_NS: Final = 50_000
"""REALTIME - MONOTONIC that changes by more is a step. The kernel moves both at one rate, so this only has to exceed the reading error
(which is added: readings may be interrupted); a step below it spoils no more than the one stamp taken across it, and by less than this."""
STAMP_AGE_NS: Final = 10 * NS
"""Older stamps are not converted: they waited somewhere, and nobody wants them any more."""
READING_GAP_NS: Final = 20_000_000
"""Readings kept for interpolation are at least this far apart: 512 of them span more than STAMP_AGE_NS."""
READINGS: Final = 512


def _checked(result: int, doing: str, hints: dict[int, str] | None = None) -> int:
    """``result`` when it is no error, else OSError: what failed, why, and what to do about it."""
    if result >= 0:
        return result
    hint = (hints or {}).get(-result)
    raise OSError(-result, f"{doing}: {os.strerror(-result)}{'; ' + hint if hint else ''}")


def _live(handle: _Handle | None, what: str) -> _Handle:
    if handle is None:
        raise ValueError(f"{what} is closed")
    return handle


# ---- clocks -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """REALTIME, MONOTONIC and MONOTONIC_RAW at one instant, ns; REALTIME and RAW are paired within ``uncertainty_ns``."""

    real_ns: int
    mono_ns: int
    raw_ns: int
    uncertainty_ns: int


def read_clocks() -> Reading:
    """The narrowest of eight readings of the three clocks (about 2 us)."""
    c = ffi.new("struct clk_reading *")
    _checked(lib.clk_read(0, c), "reading the clocks")
    return _reading(c)


def _reading(c: ClkReading) -> Reading:
    return Reading(c.real_ns, c.mono_ns, c.raw_ns, c.uncertainty_ns)


class LocalClock:
    """REALTIME and RAW as Instants. Threads may share it."""

    def __init__(self, read: Callable[[], Reading] = read_clocks) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._latest = read()
        self._kept: deque[Reading] = deque([self._latest], maxlen=READINGS)
        self.era = 0
        """Steps of REALTIME seen."""
        self.last_step_ns = 0
        """What the last of them was; positive: moved forward."""
        self.uncertainty_ns = self._latest.uncertainty_ns
        """Half width of the worse reading behind the last Instant handed out."""

    def now(self) -> Instant:
        """This instant."""
        with self._lock:
            reading = self._look()
            self.uncertainty_ns = reading.uncertainty_ns
            return Instant(reading.real_ns, reading.raw_ns, self.era)

    def placed(self, reading: Reading) -> Instant | None:
        """The instant of a reading that was made a moment ago elsewhere (any thread); None when REALTIME was stepped since."""
        with self._lock:
            now = self._look()
            step = (now.real_ns - now.mono_ns) - (reading.real_ns - reading.mono_ns)
            same = abs(step) <= STEP_NS + reading.uncertainty_ns + now.uncertainty_ns
            return Instant(reading.real_ns, reading.raw_ns, self.era) if same else None

    def instant_of(self, real_ns: int) -> Instant | None:
        """The instant at which the kernel stamped ``real_ns`` (REALTIME, at most 10 s ago). None when it lies before a step or the first
        reading, in the future, or too far back. A stamp from before a backward step must be converted before REALTIME passes it again."""
        with self._lock:
            after = self._look()
            if not 0 <= after.real_ns - real_ns <= STAMP_AGE_NS:
                return None
            for before in reversed(self._kept):
                if before.real_ns <= real_ns:
                    break
                after = before
            else:
                return None
            self.uncertainty_ns = max(before.uncertainty_ns, after.uncertainty_ns)
            raw_ns = before.raw_ns
            if after.real_ns > before.real_ns:
                raw_ns += (real_ns - before.real_ns) * (after.raw_ns - before.raw_ns) // (after.real_ns - before.real_ns)
            return Instant(real_ns, raw_ns, self.era)

    def _look(self) -> Reading:
        reading = self._read()
        step = (reading.real_ns - reading.mono_ns) - (self._latest.real_ns - self._latest.mono_ns)
        if abs(step) > STEP_NS + reading.uncertainty_ns + self._latest.uncertainty_ns:
            self.era += 1
            self.last_step_ns = step
            self._kept.clear()
        if not self._kept or reading.raw_ns - self._kept[-1].raw_ns >= READING_GAP_NS:
            self._kept.append(reading)
        self._latest = reading
        return reading


class StepWatch:
    """Readable (select, asyncio) when somebody set CLOCK_REALTIME, a leap second was applied or the machine woke up."""

    def __init__(self) -> None:
        fd = ffi.new("int *")
        _checked(lib.clk_watch_open(fd), "watching the system clock for steps")
        self._fd = fd[0]

    def fileno(self) -> int:
        """The descriptor to wait on; -1 when closed."""
        return self._fd

    def stepped(self) -> bool:
        """Whether that happened since the last call; never blocks."""
        return _checked(lib.clk_watch_stepped(self._fd), "watching the system clock for steps") == 1

    def close(self) -> None:
        """Stop watching."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


# ---- the kernel's clock control ------------------------------------------------------------------------------------------------------

_CONTROL_HINTS: Final = {
    errno.EPERM: "needs CAP_SYS_TIME (AmbientCapabilities=CAP_SYS_TIME in the unit), or set steer = false",
    errno.ERANGE: "the kernel corrects at most 500 ppm",
}


@dataclass(frozen=True, slots=True)
class Adjtimex:
    """The kernel's clock. ``frequency_ppm`` positive: made to run faster. ``status``: STA_*, ``state``: TIME_* of adjtimex(2)."""

    frequency_ppm: float
    offset_ns: int
    max_error_ns: int
    est_error_ns: int
    tai_offset_s: int
    status: int
    state: int
    leap: Leap


def read_adjtimex() -> Adjtimex:
    """The kernel's clock as it stands; changes nothing."""
    c = ffi.new("struct clk_state *")
    _checked(lib.clk_state(c), "reading the kernel clock")
    return Adjtimex(c.frequency_ppm, c.offset_ns, c.max_error_ns, c.est_error_ns, c.tai_offset_s, c.status, c.state, Leap(c.leap))


def adjust_frequency(ppm: float) -> None:
    """Make CLOCK_REALTIME (and MONOTONIC) run ``ppm`` faster than the oscillator says; |ppm| <= 500."""
    _checked(lib.clk_set_frequency(ppm), f"setting the clock's frequency to {ppm:+.3f} ppm", _CONTROL_HINTS)


def step(offset_ns: int) -> None:
    """Move CLOCK_REALTIME forward by ``offset_ns`` (negative: back) at once."""
    _checked(lib.clk_step(offset_ns), f"stepping the clock by {offset_ns} ns", _CONTROL_HINTS)


def set_status(leap: Leap, est_error_ns: int, max_error_ns: int, tai_offset_s: int | None = None) -> None:
    """Tell the kernel the leap state, the errors (rounded up to us) and, when given, TAI-UTC. Ends every loop of the kernel's own."""
    tai = -1 if tai_offset_s is None else tai_offset_s
    _checked(lib.clk_report(leap.value, est_error_ns, max_error_ns, tai), "reporting to the kernel clock", _CONTROL_HINTS)


# ---- pulses -----------------------------------------------------------------------------------------------------------------------

_PPS_HINTS: Final = {
    errno.ENOENT: "is the receiver plugged in, pps-gpio in the device tree, or pps_ldisc loaded?",
    errno.EACCES: "give this user access (udev: a group and mode 0660 for pps[0-9]*)",
    errno.EPERM: "needs CAP_SYS_TIME once, to switch the capture on",
    errno.ENOTTY: "this is no PPS device",
    errno.ENODEV: "the device is gone; waiting for it to come back is all one can do",
    errno.EOPNOTSUPP: "this source cannot wait for pulses; fetch with timeout 0",
}


@dataclass(frozen=True, slots=True)
class PpsEvent:
    """The last edges of a pulse line: kernel sequence numbers (modulo 2^32; 0 = never seen) and CLOCK_REALTIME stamps."""

    assert_sequence: int
    assert_real_ns: int
    clear_sequence: int
    clear_real_ns: int


class PpsDevice:
    """A kernel PPS source, /dev/ppsN. Opening it captures every edge that it can; without privilege, what it already captures."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        fd = ffi.new("int *")
        _checked(lib.pps_open(os.fsencode(path), fd), f"opening {self.path}", _PPS_HINTS)
        self._fd = fd[0]
        try:
            self._switch_on()
        except OSError:
            self.close()
            raise

    def _switch_on(self) -> None:
        mode = ffi.new("int *")
        _checked(lib.pps_capabilities(self._fd, mode), f"asking what {self.path} can do", _PPS_HINTS)
        self.can_assert = bool(mode[0] & lib.PPS_MODE_ASSERT)
        self.can_clear = bool(mode[0] & lib.PPS_MODE_CLEAR)
        self.can_wait = bool(mode[0] & lib.PPS_MODE_CAN_WAIT)
        result = lib.pps_capture_all(self._fd)
        _checked(lib.pps_get_mode(self._fd, mode), f"asking what {self.path} captures", _PPS_HINTS)
        if not (result == -errno.EPERM and mode[0] & (lib.PPS_MODE_ASSERT | lib.PPS_MODE_CLEAR)):
            _checked(result, f"switching on the capture of {self.path}", _PPS_HINTS)
        self.captures_assert = bool(mode[0] & lib.PPS_MODE_ASSERT)
        self.captures_clear = bool(mode[0] & lib.PPS_MODE_CLEAR)

    def fetch(self, timeout_s: float | None) -> PpsEvent | None:
        """The last edges, after waiting for a new one of either kind (None: for ever; 0: as they are). None on timeout or signal.
        A clear edge ends the wait too: compare the sequence numbers."""
        event = ffi.new("struct pps_event *")
        timeout_ns = -1 if timeout_s is None else max(0, round(timeout_s * NS))
        result = lib.pps_fetch(self._fd, timeout_ns, event)
        if result in (-errno.ETIMEDOUT, -errno.EINTR):
            return None
        _checked(result, f"fetching pulses from {self.path}", _PPS_HINTS)
        return PpsEvent(event.assert_sequence, event.assert_ns, event.clear_sequence, event.clear_ns)

    def close(self) -> None:
        """Close it; not while another thread is in ``fetch``."""
        if self._fd >= 0:
            lib.pps_close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


# ---- control lines of serial ports ---------------------------------------------------------------------------------------------------


def line_level(fd: int, mask: int) -> bool:
    """Whether a control line (TIOCM_*) of the serial port ``fd`` is on. OSError ENOTTY: it has none."""
    return _checked(lib.lin_level(fd, mask), "reading control lines") == 1


def wait_for_line(fd: int, mask: int) -> tuple[Reading, bool] | None:
    """The clocks right after the line changed, and its level then; None on a signal. Waits for ever, outside the GIL, and reads the clocks
    before it has it again. OSError EINVAL, ENOTTY, EOPNOTSUPP or 515: this driver cannot wait."""
    c = ffi.new("struct clk_reading *")
    result = lib.lin_wait(fd, mask, c)
    return None if result == -errno.EINTR else (_reading(c), _checked(result, "waiting for control lines") == 1)


def look_at_line(fd: int, mask: int, level: bool, every_s: float, timeout_s: float) -> tuple[Reading, bool] | None:
    """As ``wait_for_line`` for drivers that cannot: looks each ``every_s`` until the line is not at ``level``; None after ``timeout_s``."""
    c = ffi.new("struct clk_reading *")
    result = lib.lin_look(fd, mask, int(level), round(every_s * NS), round(timeout_s * NS), c)
    return None if result in (-errno.ETIMEDOUT, -errno.EINTR) else (_reading(c), _checked(result, "looking at control lines") == 1)


# ---- NTP shared memory ---------------------------------------------------------------------------------------------------------------

_SHM_HINTS: Final = {
    errno.ENOENT: "its writer has not created it yet",
    errno.EACCES: "units 0 and 1 are for root only; use unit 2 or higher, or run both programs as one user",
    errno.EPERM: "another user owns it; remove it (ipcrm -M 0x4e5450NN) or use another unit",
    errno.EPROTO: "neither the 96-byte nor the 80-byte layout, or nonsense in it: another program uses this key",
    errno.ENOSPC: "kernel.shmmni is used up",
}


@dataclass(frozen=True, slots=True)
class ShmSample:
    """At CLOCK_REALTIME ``receive_ns`` the reference said ``clock_ns`` (UTC). ``precision``: log2 s."""

    clock_ns: int
    receive_ns: int
    leap: Leap
    precision: int


class ShmSegment:
    """NTP shared memory unit ``unit`` (0..255): written (``create``) or read, in whichever layout it has."""

    def __init__(self, unit: int, create: bool = False, permissions: int | None = None) -> None:
        self.unit = unit
        self._what = f"shared memory unit {unit} (key {0x4E545030 + unit:#x})"
        cell = ffi.new("struct shm **")
        perm = -1 if permissions is None else permissions
        _checked(lib.shm_attach(unit, int(create), perm, cell), f"attaching {self._what}", _SHM_HINTS)
        self._shm: Shm | None = cell[0]
        self._sample = ffi.new("struct shm_sample *")
        self.clashes = 0
        """Samples lost because the writer was at work while we read."""

    def write(self, clock_ns: int, receive_ns: int, leap: Leap = Leap.NORMAL, precision: int = -20) -> None:
        """Leave one sample: UTC of the reference and CLOCK_REALTIME at that instant. OSError ERANGE: a 32-bit layout ends in 2106."""
        self._sample.clock_ns, self._sample.receive_ns = clock_ns, receive_ns
        self._sample.leap, self._sample.precision = leap.value, precision
        _checked(lib.shm_write(_live(self._shm, self._what), self._sample), f"writing {self._what}", _SHM_HINTS)

    def read(self) -> ShmSample | None:
        """Take the sample there is; None when there is none that is new and whole. OSError EPROTO: nonsense in it."""
        result = lib.shm_read(_live(self._shm, self._what), self._sample)
        if result == -errno.EAGAIN:
            self.clashes += 1
            return None
        if _checked(result, f"reading {self._what}", _SHM_HINTS) == 0:
            return None
        s = self._sample
        return ShmSample(s.clock_ns, s.receive_ns, Leap(s.leap), s.precision)

    def close(self) -> None:
        """Detach; the segment stays, as its other users expect."""
        if self._shm is not None:
            lib.shm_detach(self._shm)
            self._shm = None


# ---- the timescale record --------------------------------------------------------------------------------------------------------------

_TIMESCALE_HINTS: Final = {
    errno.ENOENT: "the clock process has not started yet, or the run directory is missing",
    errno.EACCES: "the run directory must be writable for the clock process and readable for all others",
    errno.EPROTO: "this file is no timescale record; check the run directory",
    errno.ELOOP: "a symbolic link is not followed here; remove it",
    errno.ENODATA: "it is just being made",
    errno.ESTALE: "it is of an earlier boot or another version; the clock process will replace it",
}


class _TimescaleFile:
    def __init__(self, path: str | Path, writable: bool) -> None:
        self.path = str(path)
        cell = ffi.new("struct tsc **")
        _checked(lib.tsc_open(os.fsencode(path), int(writable), cell), f"opening the timescale {self.path}", _TIMESCALE_HINTS)
        self._tsc: Tsc | None = cell[0]
        self._params = ffi.new("struct tsc_params *")

    def close(self) -> None:
        """Unmap it; a writer's last record stays in force."""
        if self._tsc is not None:
            lib.tsc_close(self._tsc)
            self._tsc = None


class TimescaleWriter(_TimescaleFile):
    """The record file, created when absent and replaced when it is of an earlier boot or another version. One writer only."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, writable=True)

    def publish(self, record: Record) -> None:
        """Make ``record`` the served timescale."""
        p = self._params
        p.raw_ns, p.tai_ns, p.rate = record.raw_ns, record.tai_ns, record.rate
        p.bound_ns, p.bound_rate, p.bound_wander_ns = record.bound_ns, record.bound_rate, record.bound_wander_ns
        p.root_delay_ns, p.reference_raw_ns = record.root_delay_ns, record.reference_raw_ns
        p.valid_until_raw_ns = record.valid_until_raw_ns
        p.leap_tai_ns, p.leap_step_s, p.tai_offset_s = record.leap_tai_ns, record.leap_step_s, record.tai_offset_s
        p.refid, p.precision, p.stratum, p.simulated = record.refid, record.precision, record.stratum, int(record.simulated)
        lib.tsc_publish(_live(self._tsc, self.path), p)


class TimescaleReader(_TimescaleFile):
    """The record file as any process may read it."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, writable=False)
        self._reading = ffi.new("struct tsc_reading *")

    def read(self) -> TimescaleReading | None:
        """What time it is now, None before the first publication."""
        return self.at(lib.clk_raw_ns())

    def at(self, raw_ns: int) -> TimescaleReading | None:
        """The record in force evaluated at ``raw_ns``, None before the first."""
        p, r = self.params(), self._reading
        if p is None:
            return None
        lib.tsc_at(p, raw_ns, r)
        times = r.utc_ns, r.tai_ns, r.bound_ns, r.root_delay_ns, r.reference_utc_ns
        return TimescaleReading(*times, r.refid, r.precision, r.stratum, Leap(r.leap), bool(r.simulated))

    def params(self) -> TscParams | None:
        """The record in force as it was published (a struct that the next call reuses), None before the first."""
        return self._params if lib.tsc_read(_live(self._tsc, self.path), self._params) == 0 else None
