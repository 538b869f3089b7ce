"""Decides each correction of the system clock: whether it may be stepped, how far it may be corrected, what is reported to the kernel.

Flow: engine, once a second and after steps -> **steering** -> effect ``Steer`` -> ``ppsd/clock/system_clock.py``. The served time does not
depend on it. Pure.
"""

from __future__ import annotations

from ppsd.config.tables import ClockConfig
from ppsd.discipline.events import Steer
from ppsd.discipline.leap import LeapKeeper
from ppsd.discipline.timescale import Timescale
from refclock.sample import NS

FIRST_STEP_NS = 100_000
"""ns; a larger first correction of a boot is a step: slewing would take more than 20 s."""
LATER_STEP_NS = 100_000_000
"""ns; a larger later correction (after a restart, or when configured) is a step: slewing takes 200 s; chrony.conf(5) has 0.1 to 1 s."""
FIRST_ENDS_NS = 1_000_000
"""ns; the first corrections end when the timescale's bound is smaller. Messages are served before pulses, and the clock may still be off by
0.3 s after them."""


class Steering:
    """Decides each correction. ``synchronised``: an earlier run of this boot synchronised the clock."""

    def __init__(self, config: ClockConfig, synchronised: bool) -> None:
        self._config = config
        self._synchronised = synchronised
        self._step_above_ns: int | None = LATER_STEP_NS if synchronised else FIRST_STEP_NS

    def under(self, config: ClockConfig) -> Steering:
        """The same under another table [clock]."""
        other = Steering(config, self._synchronised)
        other._step_above_ns = self._step_above_ns
        return other

    def anew(self) -> None:
        """Another program stepped the clock, or the second was wrong: treat the next correction as a first one."""
        self._step_above_ns = FIRST_STEP_NS

    def steer(self, mono_ns: int, timescale: Timescale, leaps: LeapKeeper, allowance_ns: float) -> Steer:
        """The correction at raw ``mono_ns``; ``timescale`` has an estimate.

        An error within the bound is never stepped: it may be the timescale's own. ``allowance_ns``, the part of the bound that allows for
        the systematic error of another program's samples, is left out. No later sample reduces that error, so slewing would only reach the
        same offset more slowly.
        """
        tai_ns = timescale.tai_at(mono_ns)
        estimate = timescale.estimate
        assert estimate is not None
        limit = round(self._config.panic_s * NS) if self._synchronised else None
        self._synchronised = True
        bound = round(timescale.bound_ns(mono_ns))
        doubt = bound - round(allowance_ns)
        above = self._step_above_ns
        if doubt < FIRST_ENDS_NS:
            self._step_above_ns = LATER_STEP_NS if self._config.step == "always" else None
        return Steer(
            raw_ns=mono_ns,
            utc_ns=leaps.table.tai_to_utc_ns(tai_ns),
            rate=timescale.rate,
            step_above_ns=None if above is None or self._config.step == "never" else max(above, doubt),
            panic_ns=limit,
            leap=leaps.announced(tai_ns),
            tai_offset_s=leaps.schedule(tai_ns)[2],
            est_error_ns=round(estimate.jitter_ns),
            max_error_ns=bound,
        )
