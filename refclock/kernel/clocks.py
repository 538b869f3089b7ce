"""Reads and steers the machine's clocks (native/clock.h).

The kernel stamps pulses and packets on CLOCK_REALTIME, which any privileged program may step or steer. Estimation uses CLOCK_MONOTONIC_RAW.
``LocalClock`` converts stamps from the one to the other: it reads both clocks before and after the stamp and interpolates. A step of
REALTIME changes REALTIME - MONOTONIC; slewing does not. A step starts a new era, and a stamp from before it is not converted.

Errors are OSError with cause and remedy; the callers turn them into events.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from refclock.kernel._kernel import ffi, lib
from refclock.kernel.errors import checked
from refclock.sample import NS, Instant, Leap

if TYPE_CHECKING:
    from refclock.kernel._kernel import ClkReading

STEP_NS: Final = 50_000
"""ns; a larger change of REALTIME - MONOTONIC is a step. The kernel runs both at one rate, so only the reading error has to be exceeded;
the uncertainty of the two readings is added. A smaller step spoils the one stamp that is taken across it, by less than this."""
STAMP_AGE_NS: Final = 10 * NS
"""ns; older stamps are not converted: they waited in a queue and are of no use."""
READING_GAP_NS: Final = 20_000_000
"""ns between readings that are kept for interpolation, at least."""
READINGS: Final = 512
"""Readings kept: at READING_GAP_NS they span more than STAMP_AGE_NS."""


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
    checked(lib.clk_read(0, c), "reading the clocks")
    return reading_of(c)


def reading_of(c: ClkReading) -> Reading:
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
        """ns of the last step; positive: REALTIME moved forward."""
        self.uncertainty_ns = self._latest.uncertainty_ns
        """ns; half width of the worse reading behind the last Instant that was returned."""

    def now(self) -> Instant:
        """This instant."""
        with self._lock:
            reading = self._look()
            self.uncertainty_ns = reading.uncertainty_ns
            return Instant(reading.real_ns, reading.raw_ns, self.era)

    def placed(self, reading: Reading) -> Instant | None:
        """The instant of a recent reading by any thread; None when REALTIME was stepped since."""
        with self._lock:
            now = self._look()
            step = (now.real_ns - now.mono_ns) - (reading.real_ns - reading.mono_ns)
            same = abs(step) <= STEP_NS + reading.uncertainty_ns + now.uncertainty_ns
            return Instant(reading.real_ns, reading.raw_ns, self.era) if same else None

    def instant_of(self, real_ns: int) -> Instant | None:
        """The instant at which the kernel stamped ``real_ns`` (REALTIME, at most 10 s ago). None when the stamp lies before a step or the
        first reading, in the future, or too far back. Convert a stamp from before a backward step before REALTIME reaches it again."""
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
    """A descriptor that is readable once CLOCK_REALTIME was set, a leap second was applied or the machine woke up (timerfd_create(2))."""

    def __init__(self) -> None:
        fd = ffi.new("int *")
        checked(lib.clk_watch_open(fd), "watching the system clock for steps")
        self._fd = fd[0]

    def fileno(self) -> int:
        """The descriptor to wait on; -1 when closed."""
        return self._fd

    def stepped(self) -> bool:
        """Whether any of these happened since the last call; never blocks."""
        return checked(lib.clk_watch_stepped(self._fd), "watching the system clock for steps") == 1

    def close(self) -> None:
        """Stop watching."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


# ---- the kernel's clock control ------------------------------------------------------------------------------------------------------

_CONTROL_HINTS: Final = {
    errno.EPERM: 'needs CAP_SYS_TIME (AmbientCapabilities=CAP_SYS_TIME in the unit), or set steer = "none"',
    errno.ERANGE: "the kernel corrects at most 500 ppm",
}


@dataclass(frozen=True, slots=True)
class Adjtimex:
    """State of the kernel's clock. ``frequency_ppm`` positive: made to run faster. ``status``: STA_*, ``state``: TIME_* (adjtimex(2))."""

    frequency_ppm: float
    offset_ns: int
    max_error_ns: int
    est_error_ns: int
    tai_offset_s: int
    status: int
    state: int
    leap: Leap


def read_adjtimex() -> Adjtimex:
    """Read the state of the kernel's clock; change nothing."""
    c = ffi.new("struct clk_state *")
    checked(
        lib.clk_state(c), "reading the kernel clock", {errno.EPERM: "a sandbox refuses adjtimex(2): systemd's ProtectClock, or seccomp"}
    )
    return Adjtimex(c.frequency_ppm, c.offset_ns, c.max_error_ns, c.est_error_ns, c.tai_offset_s, c.status, c.state, Leap(c.leap))


def adjust_frequency(ppm: float) -> None:
    """Make CLOCK_REALTIME (and MONOTONIC) run ``ppm`` faster than the oscillator; |ppm| <= 500."""
    checked(lib.clk_set_frequency(ppm), f"setting the clock's frequency to {ppm:+.3f} ppm", _CONTROL_HINTS)


def step(offset_ns: int) -> None:
    """Move CLOCK_REALTIME forward by ``offset_ns`` (negative: back) at once."""
    checked(lib.clk_step(offset_ns), f"stepping the clock by {offset_ns} ns", _CONTROL_HINTS)


def set_status(leap: Leap, est_error_ns: int, max_error_ns: int, tai_offset_s: int | None = None) -> None:
    """Tell the kernel the leap state, the errors (rounded up to us) and, when given, TAI-UTC. Switches the kernel's own PLL and FLL off."""
    tai = -1 if tai_offset_s is None else tai_offset_s
    checked(lib.clk_report(leap.value, est_error_ns, max_error_ns, tai), "reporting to the kernel clock", _CONTROL_HINTS)


STA_UNSYNC: Final = 0x40
"""Status bit of adjtimex(2): the clock is not synchronised (sys/timex.h)."""
