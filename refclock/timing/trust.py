"""May this receiver's labels be used for time yet? Their dates and their leap seconds.

Flow: SecondLabel -> **trust** -> Belief (to the source, which hands trusted labels on to pairing, and to the snapshot).

A date is impossible when it and a kept clock lie a rollover of the week count (1024 weeks) apart, when it lies before a date that was known
here, or when it is far ahead and nothing confirms it.

A GPS receiver after a cold start counts UTC with the leap seconds of its firmware until the almanac page with the present count has come,
up to 12.5 minutes later (IS-GPS-200: 25 pages of 30 s). Until then it can show a valid 3D fix and be whole seconds wrong; then it steps. A
label says nothing of this, so a receiver's labels are believed only when

* it states itself that its leap count is known (UBX), also for its NMEA labels while they name the same seconds; or
* the system clock, where the host keeps it by other means, names the same second; or
* another source confirms (``confirm``); or
* a fix has been steady, without a step, for longer than that page can take.

The *place* of a label is the TAI that it names minus its arrival on the oscillator. It is constant but for the message delay. When it moves
by whole seconds, the receiver was wrong before or is wrong now: trust begins anew. It begins anew after a silence too, unless the labels
come back at the same place. Leap seconds do not move it: what the receiver does to its UTC then is in the TAI already.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from refclock.condition import Code, Condition, obstacle
from refclock.sample import NS, LeapNotice, SecondLabel
from refclock.timescales import DAY_S, ROLLOVER_S

NEAREST_S: Final = ROLLOVER_S // 2
"""Seconds between date and clock beyond which the date lies nearer to the clock in another rollover period."""
SLACK_S: Final = DAY_S
"""Seconds by which a date may lie before the saved time: the clock that saved it had an error."""


def floor_s(not_before_s: int, saved_s: int | None) -> int:
    """The earliest POSIX second that can be now: start of the window into which rollovers are repaired."""
    return not_before_s if saved_s is None else max(not_before_s, saved_s - SLACK_S)


def impossible(label: SecondLabel, not_before_s: int, saved_s: int | None, battery_s: int | None = None) -> Condition | None:
    """Why the label's date cannot be believed; None when nothing speaks against it. ``battery_s``: POSIX second that the battery clock
    (RTC) showed at the label's instant, None without one."""
    utc_s, clock_s = label.utc_ns // NS, label.at.real_ns // NS
    floor = floor_s(not_before_s, saved_s)
    kept = clock_s >= floor  # a clock that shows less was never set
    stated = _day(utc_s - label.weeks_repaired * ROLLOVER_S)
    repaired = f", which would be {_day(utc_s)} after {1024 * label.weeks_repaired} weeks" if label.weeks_repaired else ""
    if kept and abs(utc_s - clock_s) > NEAREST_S:
        return obstacle(
            Code.WEEK_ROLLOVER,
            f"the receiver says {stated}{repaired}, the system clock {_day(clock_s)}: one of them is wrong by a week rollover; "
            "set the system clock, or clock.not_before in the configuration",
        )
    if battery_s is not None and battery_s >= floor:
        if abs(utc_s - battery_s) > NEAREST_S:
            return obstacle(
                Code.WEEK_ROLLOVER,
                f"the receiver says {stated}{repaired}, the battery clock (RTC) {_day(battery_s)}: one of them is wrong by a week "
                "rollover; set the battery clock (hwclock), or clock.not_before in the configuration",
            )
        kept = True
    if not kept and saved_s is not None and floor > not_before_s and label.weeks_repaired and utc_s >= floor + NEAREST_S:
        return obstacle(
            Code.TIME_GOES_BACK,
            f"the receiver says {stated}, but {_day(saved_s)} was already known here: time does not go back; set the system clock",
        )
    if not kept and utc_s >= not_before_s + ROLLOVER_S:
        return obstacle(
            Code.DATE_UNCONFIRMED,
            f"the receiver says {stated}, more than 1024 weeks after this release, and nothing confirms it; set the system clock",
        )
    return None


def _day(utc_s: int) -> str:
    return f"{datetime.fromtimestamp(utc_s, UTC):%Y-%m-%d}"


STEADY_S = 780
"""Seconds of fix after which a leap count must have come: 12.5 minutes for all pages of the navigation message (IS-GPS-200 section
20.3.3.5.1), and half a minute."""
GAP_S = 10.0
"""Seconds without a label after which trust begins anew."""
RETURN_S = 1800
"""Seconds of silence after which the place proves nothing: an oscillator that is 100 ppm off has moved it by 0.18 s."""
STEP_NS = 700_000_000
"""Nanoseconds that make a step. Labels of one receiver jitter by less (SiRF: 0.17 s; a slow line with a changing burst: 0.4 s); a wrong
leap count is a whole second."""
CLOCK_EARLY_NS = -300_000_000
CLOCK_LATE_NS = 700_000_000
"""Arrival by a right system clock minus named second, ns. The window is one second wide, so a label that is a whole second off never fits
as well. It is set towards late because messages take 0.05 to 0.6 s, and a kept clock is off by little."""
RETURNED = 3
"""Labels at the old place that restore trust after a silence: one or two may be strays."""


@dataclass(frozen=True, slots=True)
class Belief:
    """Whether a label may be used for time: ``because`` it is confirmed, or not, for the reason in ``doubt``. ``held_s``: seconds of steady
    fix that would still be needed, 0 when confirmed."""

    because: str = ""
    doubt: Condition | None = None
    held_s: float = 0.0

    @property
    def trusted(self) -> bool:
        """The label may be used."""
        return self.doubt is None

    @property
    def why(self) -> str:
        """The reason, either way."""
        return self.because if self.doubt is None else self.doubt.words


class SecondTrust:
    """The trust in one receiver's labels. ``system_clock``: whether CLOCK_REALTIME is kept by other means and may confirm."""

    def __init__(self, system_clock: bool, steady_s: float = STEADY_S, gap_s: float = GAP_S) -> None:
        self.system_clock = system_clock
        self.steady_s = steady_s
        self.gap_s = gap_s
        self.confirmed: str | None = None
        self._place: int | None = None
        self._since = 0  # mono_ns of the first label of this place
        self._seen = 0  # mono_ns of the last label
        self._odd: int | None = None  # the place of a single label that fell out
        self._was: tuple[str, int] | None = None  # (confirmation, place) before a silence
        self._returned = 0
        self._denied = False  # the receiver itself says that its leap count is not known

    def notice(self, notice: LeapNotice) -> None:
        """What the receiver says of leap seconds: a stated count confirms.

        A receiver that says that it does not know its count yet is taken at its word, whatever the system clock says.
        """
        self._denied = notice.tai_offset_s is None
        if not self._denied:
            self.confirm("receiver states its leap count")

    def confirm(self, why: str) -> None:
        """Somebody vouches for the seconds that the labels name now."""
        if self._place is not None and self._odd is None:
            self.confirmed = why

    def judge(self, label: SecondLabel, tai_ns: int) -> Belief:
        """Judge a label that names ``tai_ns``; labels come in the order of their arrival."""
        now = label.at.mono_ns
        place = tai_ns - now
        silence_s = (now - self._seen) / NS
        if self._place is None:
            self._begin(place, now)
        elif silence_s > self.gap_s:
            if self.confirmed is not None:
                self._was = (self.confirmed, self._place)
            if silence_s > RETURN_S:
                self._was = None
            self._begin(place, now)
        stepped = self._step(label, place)
        self._seen = now
        if stepped is not None:
            return stepped
        self._settle(label, place, now)
        steady_s = (now - self._since) / NS
        if self.confirmed is None and steady_s >= self.steady_s and not self._denied:
            self.confirmed = f"{self.steady_s:.0f} s of steady fix: a leap count must have come"
        if self.confirmed is not None:
            return Belief(self.confirmed)
        if self._denied:
            words = "the receiver says that it does not know its leap count yet"
            return Belief(doubt=obstacle(Code.LEAP_COUNT_UNKNOWN, words), held_s=max(0.0, self.steady_s - steady_s))
        words = f"leap count not known yet: {steady_s:.0f} of {self.steady_s:.0f} s of steady fix"
        return Belief(doubt=obstacle(Code.LEAP_COUNT_UNKNOWN, words), held_s=self.steady_s - steady_s)

    @property
    def held_s(self) -> float:
        """Seconds of steady fix still wanted as of the last label, 0 when confirmed: for a countdown."""
        return 0.0 if self.confirmed is not None else max(0.0, self.steady_s - (self._seen - self._since) / NS)

    def _begin(self, place: int, now: int) -> None:
        self._place, self._since, self._odd = place, now, None
        self.confirmed = None
        self._returned = 0

    def _step(self, label: SecondLabel, place: int) -> Belief | None:
        """Compare with the place so far. A single label out of place is refused; the second that stands by it begins anew."""
        assert self._place is not None
        moved = place - self._place
        if abs(moved) < STEP_NS:
            self._odd = None
            return None
        if self._odd is not None and abs(place - self._odd) < STEP_NS:
            self._was = None
            self._begin(self._odd, label.at.mono_ns)
            return None
        self._odd = place
        words = f"named second moved by {moved / NS:+.1f} s against the labels before it"
        return Belief(doubt=obstacle(Code.SECOND_MOVED, words), held_s=self.held_s)

    def _settle(self, label: SecondLabel, place: int, now: int) -> None:
        """Look for a confirmation, and let the place follow oscillator and message delay slowly."""
        assert self._place is not None
        self._place += (place - self._place) // 16
        if label.leap_known:
            self.confirmed = "receiver states its leap count"
        if self.confirmed is not None:
            return
        if self._was is not None:
            why, was = self._was
            self._returned = self._returned + 1 if abs(place - was) < STEP_NS else 0
            if self._returned >= RETURNED:
                self.confirmed = why if why.endswith(SAME_AGAIN) else why + SAME_AGAIN
        late = label.at.real_ns - label.utc_ns
        if self.system_clock and not self._denied and CLOCK_EARLY_NS <= late <= CLOCK_LATE_NS:
            self.confirmed = f"system clock agrees within {abs(late) / NS:.2f} s"


SAME_AGAIN = "; the same seconds after a pause"
