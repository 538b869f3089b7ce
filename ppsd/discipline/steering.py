"""What is asked of the system clock: when it may be stepped, how far it may be corrected, what the kernel is to tell others.

Flow: the engine asks once a second and after steps; effect ``Steer`` -> ``ppsd/clock/system_clock.py``. Steering is an output: nothing
served depends on it. Pure.
"""

from __future__ import annotations

from ppsd.config.tables import ClockConfig
from ppsd.discipline.events import Steer
from ppsd.discipline.leap import LeapKeeper
from ppsd.discipline.timescale import Timescale
from refclock.sample import NS

FIRST_STEP_NS = 100_000
"""First corrections of a boot are steps when larger: slewing it away would take 20 s."""
LATER_STEP_NS = 100_000_000
"""Later corrections (after a restart, or when configured) are steps when larger: slewing takes 200 s; chrony.conf(5) has 0.1 to 1 s."""
FIRST_ENDS_NS = 1_000_000
"""Bound of the timescale below which a correction is the last of the first ones: messages come before pulses, and after them the clock may
still be off by 0.3 s."""


class Steering:
    """Decides on each correction. ``synchronised``: an earlier run of this boot had the clock right."""

    def __init__(self, config: ClockConfig, synchronised: bool) -> None:
        self._config = config
        self._synchronised = synchronised
        self._step_above_ns: int | None = LATER_STEP_NS if synchronised else FIRST_STEP_NS

    def anew(self) -> None:
        """Somebody else stepped the clock, or the second is to be named anew: the next correction is a first one again."""
        self._step_above_ns = FIRST_STEP_NS

    def steer(self, mono_ns: int, timescale: Timescale, leaps: LeapKeeper, allowance_ns: float) -> Steer:
        """The correction at raw ``mono_ns``; ``timescale`` has an estimate.

        An error within the bound is never stepped away: it may be our own. ``allowance_ns``, the part of the bound that allows for the
        program whose samples are followed, does not count. No later sample tells more about it, so the clock would only be led to the same
        place more slowly.
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
