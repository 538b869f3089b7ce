"""Steering of the system clock: the only module that moves CLOCK_REALTIME, on the effect Steer.

Steer says what REALTIME should read: it is an affine map from CLOCK_MONOTONIC_RAW to UTC. Once a second REALTIME is compared with the map.
Its frequency is set to the map's rate plus a share of the phase error, so that the error decays with the time constant ``TAU_S``.

Signs: phase error = UTC - REALTIME (positive: the clock is behind). A positive correction_ppm makes REALTIME run faster than RAW, as in
adjtimex(2). The map's ``rate`` = d(UTC)/d(raw) - 1 has the same sign. REALTIME may differ from RAW even at correction 0, for example by a
tick that another program set, or by rounding of the clocksource. This own rate is measured from readings of both clocks and subtracted.

Served time does not depend on this module. A clock that follows badly affects local programs, not NTP clients. Without a new Steer the
phase correction ends after ``PHASE_LIFE_NS``, and when the process ends. After SIGKILL it stays in force until the next start.
"""

from __future__ import annotations

import errno
from typing import Final, Protocol

from ppsd.discipline.events import Note, Steer
from refclock.condition import Code, Condition
from refclock.kernel.clocks import STA_UNSYNC, Adjtimex
from refclock.kernel.host import Host
from refclock.kernel.rivals import rivals, suspects
from refclock.sample import MAX_FREQUENCY_PPM, NS, Instant, Leap

FAR_NS: Final = 100_000_000
"""Nanoseconds; a larger phase error is reported, for slewing it away takes minutes."""
TAU_S: Final = 2.5
"""Seconds; time constant with which a phase error decays. Measured in a clock simulator that replaces libc, with a TCXO in a room that
warms and cools and with a quiet Pi crystal: the clock follows the estimate 2 % better than with 4 s. Its frequency noise equals chronyd's
at poll 4 (25 ppb; 20 ppb with 4 s, 29 ppb with 2 s). The loop gain of 0.4 a second is far from oscillation."""
PHASE_LIFE_NS: Final = 2 * NS
"""Nanoseconds from the last Steer to the end of its phase correction: two missed Steers."""
OWN_RATE_GAIN: Final = 0.125
"""Weight of a new measurement of the own rate. Two clock readings agree to about 50 ns (order measured), which is 0.05 ppm over 1 s;
averaging brings it to about 0.01 ppm."""
FOREIGN_PPM: Final = 1e-3
"""ppm; a correction that differs more from ours was set by another program (the kernel's resolution is 2^-16 ppm: adjtimex(2))."""
LOOK_NS: Final = 60 * NS
"""Nanoseconds between two looks at the machine's processes while another program interferes: a look takes some milliseconds."""
FIGHT_TIMES: Final = 3
"""Foreign changes within FIGHT_NS that make a rival: one or two may be a person's."""
FIGHT_NS: Final = 60 * NS
"""Nanoseconds for which a foreign change is remembered. Most programs that keep a clock set it every second to every minute."""


class ClockControl(Protocol):
    """The calls that steering needs; the module ``refclock.kernel.clocks`` provides them."""

    def read_adjtimex(self) -> Adjtimex: ...
    def adjust_frequency(self, ppm: float) -> None: ...
    def step(self, offset_ns: int) -> None: ...
    def set_status(self, leap: Leap, est_error_ns: int, max_error_ns: int, tai_offset_s: int | None = None) -> None: ...


class Clock(Protocol):
    """Carries out Steer. ``trouble``: why the clock could not follow the last Steer at once; None when it could."""

    @property
    def trouble(self) -> Condition | None: ...

    def apply(self, steer: Steer, now: Instant) -> list[Note]:
        """Follow ``steer``. ``now``: the clocks, read just before the call."""
        ...

    def expire(self, now: Instant) -> None:
        """Called about once a second: end a phase correction that no Steer has renewed."""
        ...

    def kept_error_ns(self) -> int | None:
        """The error bound within which another program keeps the clock, as the kernel reports it; None when no other program does."""
        ...

    def close(self) -> None:
        """Leave the clock running at its best known rate."""
        ...


class FreeRunningClock:
    """A clock that is never steered (steer = "none"): it needs no privilege and disturbs no other program."""

    trouble = None

    def __init__(self, control: ClockControl) -> None:
        self._control = control

    def apply(self, steer: Steer, now: Instant) -> list[Note]:
        """Do nothing."""
        del steer, now
        return []

    def expire(self, now: Instant) -> None:
        """Do nothing."""
        del now

    def kept_error_ns(self) -> int | None:
        """The kernel's maximum error while the kernel calls the clock synchronised. Zero means that no program has set it."""
        try:
            state = self._control.read_adjtimex()
        except OSError:
            return None
        return None if state.status & STA_UNSYNC else state.max_error_ns or None

    def close(self) -> None:
        """Do nothing."""


class KernelClock:
    """CLOCK_REALTIME as a follower of the timescale. It is stepped only above ``step_above_ns`` and slewed otherwise, by at most 500 ppm.

    While a known rival (``refclock.kernel.rivals``) runs that was started later, the clock is left to it: two would only spoil it.

    OSError from the constructor: EBUSY when another program disciplines the clock, EPERM without CAP_SYS_TIME. OSError from ``apply``: the
    kernel refused a call.
    """

    def __init__(self, control: ClockControl, host: Host) -> None:
        others = rivals(host)
        if others:
            others_do = "; ".join(dict.fromkeys(rival.remedy for rival in others))
            raise OSError(
                errno.EBUSY,
                f'clock.steer = "kernel", but {" and ".join(map(str, others))} already sets the system clock and two would fight over it; '
                f'either: {others_do}; or set steer = "none" (refclock feed gives an NTP daemon our time)',
            )
        self._host = host
        self._look_ns = 0
        self._left_to = ""
        self._suspects: list[str] = []
        self._foreign: list[int] = []  # raw instants of the latest foreign changes
        self._control = control
        self.frequency_ppm = control.read_adjtimex().frequency_ppm
        """The correction in force, in ppm."""
        control.adjust_frequency(self.frequency_ppm)  # changes nothing; fails at once without permission
        self._phase_ppm = 0.0
        self._phase_until_ns = 0
        self._own_ppm: float | None = None
        self._before: Instant | None = None
        self._leap = Leap.NORMAL
        self._leap_wait_until_ns = 0
        self.trouble: Condition | None = None

    def apply(self, steer: Steer, now: Instant) -> list[Note]:
        """Compare the clock with the map and set its frequency, or step it; see the module's head. Returns what is worth a log line."""
        notes: list[Note] = []
        found_ppm = self._control.read_adjtimex().frequency_ppm
        changed = abs(found_ppm - self.frequency_ppm) > FOREIGN_PPM
        if changed:
            if not self._foreign:
                by_ppm = round(found_ppm - self.frequency_ppm, 3)
                notes.append(Note("system clock's frequency was changed by somebody else", "warning", {"by_ppm": by_ppm}))
            self._before = None  # the change spoils the measurement of the clock's own rate
        interference = self._interference(changed, now, notes)
        if self._left_to:
            self.frequency_ppm, self._phase_ppm, self._before = found_ppm, 0.0, None
            self.trouble = interference
            return notes
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
        # The kernel's error fields are those of REALTIME: the timescale's errors plus the phase error.
        est_ns, max_ns = steer.est_error_ns + abs(error_ns), steer.max_error_ns + abs(error_ns)
        self._control.set_status(steer.leap, est_ns, max_ns, steer.tai_offset_s)
        self._leap, self._leap_wait_until_ns = steer.leap, 0
        out_of_reach = abs(rate_ppm) > MAX_FREQUENCY_PPM or abs(error_ns) > FAR_NS
        fields: dict[str, str | int | float | bool | None]
        fields = {"error_s": error_ns / NS, "wanted_ppm": round(wanted, 3), "limit_ppm": MAX_FREQUENCY_PPM}
        if out_of_reach and not self._is(Code.CLOCK_SLEWING):
            notes.append(Note("system clock is far off, slewing", "warning", fields))
        elif (self._is(Code.CLOCK_SLEWING) or self._is(Code.CLOCK_TOO_FAR_OFF)) and not out_of_reach:
            notes.append(Note("system clock caught up", "info", fields))
        words = f"{_off(error_ns)} and should follow by {wanted:+.0f} ppm; the kernel allows {MAX_FREQUENCY_PPM:.0f}"
        self.trouble = interference or (Condition(Code.CLOCK_SLEWING, words) if out_of_reach else None)
        return notes

    def _interference(self, changed: bool, now: Instant, notes: list[Note]) -> Condition | None:
        """Who else sets the clock. ``changed``: its frequency is another than we set. A known rival gets the clock, until it is gone."""
        self._foreign = [at_ns for at_ns in self._foreign if now.mono_ns - at_ns < FIGHT_NS]
        if changed:
            self._foreign.append(now.mono_ns)
        if (self._foreign or self._left_to) and now.mono_ns >= self._look_ns:
            self._look_ns = now.mono_ns + LOOK_NS
            was, found = self._left_to, rivals(self._host)
            self._suspects = suspects(self._host)
            names = " and ".join(map(str, found))
            self._left_to = f"{names} sets the system clock too, so it is left alone; {found[0].remedy}" if found else ""
            if names and not was:
                notes.append(Note("system clock left to another program", "error", {"who": names}))
            elif was and not names:
                notes.append(Note("system clock taken up again", "info", {}))
        if self._left_to:
            return Condition(Code.CLOCK_SHARED, self._left_to)
        if len(self._foreign) < FIGHT_TIMES:
            return None
        who = f"perhaps {' or '.join(self._suspects)}" if self._suspects else "a container's or a virtual machine's tools, perhaps"
        words = f"another program has set the system clock's frequency {len(self._foreign)} times in a minute; find it and end it: {who}"
        return Condition(Code.CLOCK_SHARED, words)

    def _is(self, code: Code) -> bool:
        return self.trouble is not None and self.trouble.code is code

    def expire(self, now: Instant) -> None:
        """End the phase correction when no Steer came for ``PHASE_LIFE_NS``."""
        if now.mono_ns >= self._phase_until_ns:
            self.close()

    def kept_error_ns(self) -> int | None:
        """None: no other program keeps the clock while we steer it."""
        return None

    def close(self) -> None:
        """End the phase correction and keep the rate."""
        if self._phase_ppm:
            self._set(self.frequency_ppm - self._phase_ppm)
            self._phase_ppm = 0.0
        self._before = None

    def _set(self, ppm: float) -> None:
        self._control.adjust_frequency(ppm)
        self.frequency_ppm = ppm

    def _measure(self, now: Instant) -> None:
        """Measure the rate of REALTIME at correction 0, from two readings between which the correction was constant."""
        before, self._before = self._before, now
        if before is None or before.era != now.era:
            return
        elapsed = now.mono_ns - before.mono_ns
        if not NS // 2 <= elapsed <= 10 * NS:
            return
        own = (now.real_since(before) - elapsed) / elapsed * 1e6 - self.frequency_ppm
        self._own_ppm = own if self._own_ppm is None else self._own_ppm + OWN_RATE_GAIN * (own - self._own_ppm)

    def _leaping(self, steer: Steer, error_ns: int, now: Instant) -> bool:
        """Whether an announced leap second has just passed in UTC while the kernel has not applied it yet: it does so at its next tick."""
        due_ns = {Leap.INSERT: -NS, Leap.DELETE: NS}.get(self._leap)  # the other way, the kernel has applied one that did not come
        if due_ns is None or steer.leap is not Leap.NORMAL or abs(error_ns - due_ns) > FAR_NS:
            return False
        if not self._leap_wait_until_ns:
            self._leap_wait_until_ns = now.mono_ns + PHASE_LIFE_NS
        return now.mono_ns < self._leap_wait_until_ns


def _off(error_ns: int) -> str:
    return f"the system clock is {abs(error_ns) / NS:.3g} s {'behind' if error_ns > 0 else 'ahead'}"
