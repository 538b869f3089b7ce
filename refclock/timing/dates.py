"""Can a label's date be? A receiver's date against what else is known of the day.

A date is impossible when it and a clock that was set lie a rollover of the week count (1024 weeks) apart, when it lies before a date that
was known here, or when it is far ahead and nothing confirms it. Which *second* of the day it is, is ``evidence``'s matter.

A date that was known here is no more than a hint: it comes from a file, and whoever wrote it may have been wrong. It repairs a rollover and
refuses an earlier date, until the receiver and a second witness contradict it (``witness``).

Flow: SecondLabel -> **dates** -> Condition, None when nothing speaks against it (to ``receiver_time``). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from refclock.condition import Code, Condition, obstacle
from refclock.sample import NS, SecondLabel
from refclock.timescales import DAY_S, ROLLOVER_S, window_weeks
from refclock.timing.evidence import COUNTS_S

NEAREST_S: Final = ROLLOVER_S // 2
"""Seconds between date and clock beyond which the date lies nearer to the clock in another rollover period."""
SLACK_S: Final = DAY_S
"""Seconds by which a date may lie before the saved time: the clock that saved it had an error. Also how far a clock may be off and still
name the same date."""
NEARER: Final = 30
"""Factor; a clock speaks for one of two dates when it lies nearer to it by that much. A clock that nobody keeps strays by seconds a day."""


def floor_s(not_before_s: int, saved_s: int | None) -> int:
    """The earliest POSIX second that can be now: start of the window into which rollovers are repaired."""
    return not_before_s if saved_s is None else max(not_before_s, saved_s - SLACK_S)


def witness(utc_s: float, against_s: float, clocks: Mapping[str, float]) -> str:
    """The name of a clock (POSIX seconds by name) that speaks for ``utc_s`` and against ``against_s``; "" when none does, or when the two
    lie no farther apart than a leap count explains."""
    apart_s = abs(utc_s - against_s)
    near_s = min(SLACK_S, apart_s / NEARER) if apart_s > COUNTS_S else -1.0
    return next((name for name, clock_s in clocks.items() if abs(clock_s - utc_s) <= near_s), "")


def repaired(label: SecondLabel, floor: int) -> SecondLabel:
    """The label with its date moved by whole 1024-week periods to the first one that is not before ``floor`` (POSIX seconds)."""
    weeks = max(0, window_weeks(label.utc_ns // NS, floor))
    return replace(label, utc_ns=label.utc_ns + weeks * ROLLOVER_S * NS, weeks_repaired=label.weeks_repaired + weeks) if weeks else label


def impossible(label: SecondLabel, not_before_s: int, saved_s: int | None, battery_s: int | None = None) -> Condition | None:
    """Why the label's date cannot be believed; None when nothing speaks against it. ``battery_s``: POSIX second that the battery clock
    (RTC) showed at the label's instant, None without one."""
    utc_s, clock_s = label.utc_ns // NS, label.at.real_ns // NS
    floor = floor_s(not_before_s, saved_s)
    was_set = clock_s >= floor
    stated = _day(utc_s - label.weeks_repaired * ROLLOVER_S)
    would_be = f", which would be {_day(utc_s)} after {1024 * label.weeks_repaired} weeks" if label.weeks_repaired else ""
    if was_set and abs(utc_s - clock_s) > NEAREST_S:
        return obstacle(
            Code.WEEK_ROLLOVER,
            f"the receiver says {stated}{would_be}, the system clock {_day(clock_s)}: one of them is wrong by a week rollover; "
            "set the system clock, or clock.not_before in the configuration",
        )
    if battery_s is not None and battery_s >= floor:
        if abs(utc_s - battery_s) > NEAREST_S:
            return obstacle(
                Code.WEEK_ROLLOVER,
                f"the receiver says {stated}{would_be}, the battery clock (RTC) {_day(battery_s)}: one of them is wrong by a week "
                "rollover; set the battery clock (hwclock), or clock.not_before in the configuration",
            )
        was_set = True
    if not was_set and saved_s is not None and floor > not_before_s and label.weeks_repaired and utc_s >= floor + NEAREST_S:
        return obstacle(
            Code.TIME_GOES_BACK,
            f"the receiver says {stated}, but {_day(saved_s)} was already known here: time does not go back; set the system clock, "
            "and the date that it confirms is believed",
        )
    if not was_set and utc_s >= not_before_s + ROLLOVER_S:
        return obstacle(
            Code.DATE_UNCONFIRMED,
            f"the receiver says {stated}, more than 1024 weeks after this release, and nothing confirms it; set the system clock",
        )
    return None


def _day(utc_s: int) -> str:
    return f"{datetime.fromtimestamp(utc_s, UTC):%Y-%m-%d}"
