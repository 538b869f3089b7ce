"""Can this date be? The receiver's date against everything else that knows one.

Flow: label (window already applied: labels.window) -> **dates** -> trust. A receiver counts weeks modulo 1024 and may be off by whole
periods of 19.6 years; its firmware may date itself wrongly before it knows better. Four witnesses, none of them sure:

* the release: no date before it is right, and one more than 1024 weeks after it needs another witness;
* the time that an earlier run of ours knew: time does not go back;
* the system clock (set from an RTC, or from the time of the last shutdown): it names the period. When another 1024-week period lies nearer
  to it than the label does, one of the two is wrong, and we cannot know which;
* the battery clock (RTC) itself, while nobody keeps the system clock: it was running when the machine was not.

A contradiction is refused and said, with what to do; a host whose clock is merely behind, however far within the period, is normal.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from refclock.sample import NS, SecondLabel
from refclock.timescales import DAY_S, ROLLOVER_S

NEAREST_S: Final = ROLLOVER_S // 2
"""Farther from the clock than this another period is nearer to it."""
SLACK_S: Final = DAY_S
"""The saved time may be a little ahead: it was written by a clock with a bound, and labels name local midnights in no receiver we know."""


def floor_s(not_before_s: int, saved_s: int | None) -> int:
    """The earliest POSIX second that can be now: start of the window into which rollovers are repaired."""
    return not_before_s if saved_s is None else max(not_before_s, saved_s - SLACK_S)


def impossible(label: SecondLabel, not_before_s: int, saved_s: int | None, battery_s: int | None = None) -> str:
    """Why the label's date cannot be believed, in plain words; "" when nothing speaks against it. ``battery_s``: POSIX second by the RTC
    at the label's instant, None without one."""
    utc_s, clock_s = label.utc_ns // NS, label.at.real_ns // NS
    floor = floor_s(not_before_s, saved_s)
    kept = clock_s >= floor  # a clock before that says nothing
    stated = _day(utc_s - label.weeks_repaired * ROLLOVER_S)
    repaired = f", which would be {_day(utc_s)} after {1024 * label.weeks_repaired} weeks" if label.weeks_repaired else ""
    if kept and abs(utc_s - clock_s) > NEAREST_S:
        return (
            f"the receiver says {stated}{repaired}, the system clock {_day(clock_s)}: one of them is wrong by a week rollover; "
            "set the system clock, or clock.not_before in the configuration"
        )
    if battery_s is not None and battery_s >= floor:
        if abs(utc_s - battery_s) > NEAREST_S:
            return (
                f"the receiver says {stated}{repaired}, the battery clock (RTC) {_day(battery_s)}: one of them is wrong by a week "
                "rollover; set the battery clock (hwclock), or clock.not_before in the configuration"
            )
        kept = True
    if not kept and saved_s is not None and floor > not_before_s and label.weeks_repaired and utc_s >= floor + NEAREST_S:
        return f"the receiver says {stated}, but {_day(saved_s)} was already known here: time does not go back; set the system clock"
    if not kept and utc_s >= not_before_s + ROLLOVER_S:
        return f"the receiver says {stated}, more than 1024 weeks after this release, and nothing confirms it; set the system clock"
    return ""


def _day(utc_s: int) -> str:
    return f"{datetime.fromtimestamp(utc_s, UTC):%Y-%m-%d}"
