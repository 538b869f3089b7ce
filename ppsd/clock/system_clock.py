"""The only place that moves CLOCK_REALTIME, on the effect Steer.

The timescale says what REALTIME should read (``Steer``: an affine map from CLOCK_MONOTONIC_RAW to UTC). Once a second the clock is
compared with it; its frequency is then set to the map's rate plus a share of the phase error, so that the error decays with the time
constant ``TAU_S``. Signs: phase error = UTC - REALTIME (positive: the clock is behind); correction_ppm positive = REALTIME is made to run
faster than RAW, as in adjtimex(2); the map's ``rate`` = d(UTC)/d(raw) - 1 has the same sign. What REALTIME does by itself at correction 0
(another program's leftover tick, rounding of the clocksource) is measured from its own readings and taken off.

Nothing served depends on this: a clock that follows badly changes what local programs see, not what clients get. When no Steer comes
the share for the phase ends after ``PHASE_LIFE_NS`` (and at the process's end); after SIGKILL it stays until the next start, at most what
the last phase error called for.
"""

from __future__ import annotations

import errno
from typing import Final, Protocol

from ppsd.discipline.events import Note, Steer
from refclock.condition import Code, Condition
from refclock.kernel.clocks import STA_UNSYNC, Adjtimex
from refclock.kernel.host import Host, rivals
from refclock.sample import MAX_FREQUENCY_PPM, NS, Instant, Leap

FAR_NS: Final = 100_000_000
"""Slewing so much takes minutes: worth telling."""
TAU_S: Final = 2.5
"""Time constant of the phase. Measured in a simulator that lends the daemon libc, on a TCXO in a warming and cooling room and on a quiet Pi
crystal: the clock follows the estimate 2 % better than with 4 s, and its frequency is as quiet as chronyd's at poll 4 (25 ppb; 20 ppb with
4 s, 29 ppb with 2 s). The loop (gain 0.4 a second) is far from oscillating."""
PHASE_LIFE_NS: Final = 2 * NS
"""Two missed Steers."""
OWN_RATE_GAIN: Final = 0.125
"""Of the measured own rate: a reading of two clocks is good to some 50 ns (measured order), over 1 s that is 0.05 ppm, averaged to 0.01."""
FOREIGN_PPM: Final = 1e-3
"""A correction that differs more from what we set was set by somebody else (the kernel keeps 2^-16 ppm: adjtimex(2))."""


class ClockControl(Protocol):
    """What is needed of ``refclock.kernel`` (the module itself is one)."""

    def read_adjtimex(self) -> Adjtimex: ...
    def adjust_frequency(self, ppm: float) -> None: ...
    def step(self, offset_ns: int) -> None: ...
    def set_status(self, leap: Leap, est_error_ns: int, max_error_ns: int, tai_offset_s: int | None = None) -> None: ...


class Clock(Protocol):
    """What carries out Steer. ``trouble``: why the clock could not follow the last one at once; None when it could."""

    @property
    def trouble(self) -> Condition | None: ...

    def apply(self, steer: Steer, now: Instant) -> list[Note]:
        """Follow ``steer``; ``now``: read just before the call."""
        ...

    def expire(self, now: Instant) -> None:
        """Called about once a second: end corrections that nobody renewed."""
        ...

    def kept_error_ns(self) -> int | None:
        """Within what another program keeps the clock, as the kernel tells; None when nobody else does."""
        ...

    def close(self) -> None:
        """Leave the clock running at its best known rate."""
        ...


class FreeRunningClock:
    """Never steers (steer = "none"): needs no privilege and disturbs no other program."""

    trouble = None

    def __init__(self, control: ClockControl) -> None:
        self._control = control

    def apply(self, steer: Steer, now: Instant) -> list[Note]:
        """Nothing."""
        del steer, now
        return []

    def expire(self, now: Instant) -> None:
        """Nothing."""
        del now

    def kept_error_ns(self) -> int | None:
        """The kernel's maximum error while it calls the clock synchronised; zero is nobody's claim."""
        try:
            state = self._control.read_adjtimex()
        except OSError:
            return None
        return None if state.status & STA_UNSYNC else state.max_error_ns or None

    def close(self) -> None:
        """Nothing."""


class KernelClock:
    """CLOCK_REALTIME follows the timescale. Steps only where ``step_above_ns`` allows it; everything else is slewed, at most 500 ppm.

    OSError from the constructor: EBUSY when another program disciplines the clock, EPERM without CAP_SYS_TIME. From ``apply``: what the
    kernel refused.
    """

    def __init__(self, control: ClockControl, host: Host) -> None:
        others = rivals(host)
        if others:
            raise OSError(
                errno.EBUSY,
                f'clock.steer = "kernel", but {" and ".join(map(str, others))} already sets the system clock and two would fight over it; '
                'stop that one, run chronyd with -x, or set steer = "none" and feed it instead (refclock feed)',
            )
        self._control = control
        self.frequency_ppm = control.read_adjtimex().frequency_ppm
        """The correction in force."""
        control.adjust_frequency(self.frequency_ppm)  # changes nothing; says at once whether we may
        self._phase_ppm = 0.0
        self._phase_until_ns = 0
        self._own_ppm: float | None = None
        self._before: Instant | None = None
        self._leap = Leap.NORMAL
        self._leap_wait_until_ns = 0
        self.trouble: Condition | None = None

    def apply(self, steer: Steer, now: Instant) -> list[Note]:
        """See the module's text."""
        notes: list[Note] = []
        found_ppm = self._control.read_adjtimex().frequency_ppm
        if abs(found_ppm - self.frequency_ppm) > FOREIGN_PPM:
            by_ppm = round(found_ppm - self.frequency_ppm, 3)
            notes.append(Note("system clock's frequency was changed by somebody else", "warning", {"by_ppm": by_ppm}))
            self._before = None  # what it did since we looked last says nothing of what it does by itself
        self._measure(now)
        since = now.mono_ns - steer.raw_ns
        error_ns = steer.utc_ns + since + round(since * steer.rate) - now.real_ns
        if self._leaping(steer, error_ns, now):
            return notes
        if steer.panic_ns is not None and abs(error_ns) > steer.panic_ns:
            limit_s = steer.panic_ns / NS
            if not self._is(Code.CLOCK_TOO_FAR_OFF):
                notes.append(Note("system clock is too far off, left alone", "error", {"error_s": error_ns / NS, "limit_s": limit_s}))
            words = f"{_off(error_ns)}, more than clock.panic_s = {limit_s:g}: it is left alone; set it by hand, or raise clock.panic_s"
            self.trouble = Condition(Code.CLOCK_TOO_FAR_OFF, words)
            self.close()
            self._control.set_status(Leap.UNSYNCHRONISED, abs(error_ns), abs(error_ns))
            return notes
        if steer.step_above_ns is not None and abs(error_ns) > steer.step_above_ns:
            self._control.step(error_ns)
            self._before = None
            notes.append(Note("system clock stepped by us", "warning", {"by_s": error_ns / NS}))
            error_ns = 0
        rate_ppm = steer.rate * 1e6 - (self._own_ppm or 0.0)
        wanted = rate_ppm + error_ns / TAU_S / 1e3
        self._set(max(-MAX_FREQUENCY_PPM, min(MAX_FREQUENCY_PPM, wanted)))
        self._phase_ppm = self.frequency_ppm - max(-MAX_FREQUENCY_PPM, min(MAX_FREQUENCY_PPM, rate_ppm))
        self._phase_until_ns = now.mono_ns + PHASE_LIFE_NS
        # The kernel's errors are those of REALTIME: the timescale's and how far we are from it.
        est_ns, max_ns = steer.est_error_ns + abs(error_ns), steer.max_error_ns + abs(error_ns)
        self._control.set_status(steer.leap, est_ns, max_ns, steer.tai_offset_s)
        self._leap, self._leap_wait_until_ns = steer.leap, 0
        out_of_reach = abs(rate_ppm) > MAX_FREQUENCY_PPM or abs(error_ns) > FAR_NS
        fields: dict[str, str | int | float | bool | None]
        fields = {"error_s": error_ns / NS, "wanted_ppm": round(wanted, 3), "limit_ppm": MAX_FREQUENCY_PPM}
        if out_of_reach and not self._is(Code.CLOCK_SLEWING):
            notes.append(Note("system clock is far off, slewing", "warning", fields))
        elif self.trouble is not None and not out_of_reach:
            notes.append(Note("system clock caught up", "info", fields))
        words = f"{_off(error_ns)} and should follow by {wanted:+.0f} ppm; the kernel allows {MAX_FREQUENCY_PPM:.0f}"
        self.trouble = Condition(Code.CLOCK_SLEWING, words) if out_of_reach else None
        return notes

    def _is(self, code: Code) -> bool:
        return self.trouble is not None and self.trouble.code is code

    def expire(self, now: Instant) -> None:
        """End the phase correction when no Steer came for ``PHASE_LIFE_NS``."""
        if now.mono_ns >= self._phase_until_ns:
            self.close()

    def kept_error_ns(self) -> int | None:
        """None: it is we who keep it."""
        return None

    def close(self) -> None:
        """Keep the rate, end the phase correction."""
        if self._phase_ppm:
            self._set(self.frequency_ppm - self._phase_ppm)
            self._phase_ppm = 0.0
        self._before = None

    def _set(self, ppm: float) -> None:
        self._control.adjust_frequency(ppm)
        self.frequency_ppm = ppm

    def _measure(self, now: Instant) -> None:
        """Learn what REALTIME does at correction 0, from two readings between which the correction was constant."""
        before, self._before = self._before, now
        if before is None or before.era != now.era:
            return
        elapsed = now.mono_ns - before.mono_ns
        if not NS // 2 <= elapsed <= 10 * NS:
            return
        own = (now.real_since(before) - elapsed) / elapsed * 1e6 - self.frequency_ppm
        self._own_ppm = own if self._own_ppm is None else self._own_ppm + OWN_RATE_GAIN * (own - self._own_ppm)

    def _leaping(self, steer: Steer, error_ns: int, now: Instant) -> bool:
        """Whether the announced second has just passed and the kernel, which steps at its next tick, has not taken it yet."""
        if self._leap is Leap.NORMAL or steer.leap is not Leap.NORMAL or abs(abs(error_ns) - NS) > FAR_NS:
            return False
        if not self._leap_wait_until_ns:
            self._leap_wait_until_ns = now.mono_ns + PHASE_LIFE_NS
        return now.mono_ns < self._leap_wait_until_ns


def _off(error_ns: int) -> str:
    return f"the system clock is {abs(error_ns) / NS:.3g} s {'behind' if error_ns > 0 else 'ahead'}"
