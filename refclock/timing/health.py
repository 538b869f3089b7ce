"""Is this receiver's time to be doubted although it says that it is valid? Antenna, jamming, spoofing, position, 2D fix;
and how far a timing receiver has come with its survey.

Flow: HealthReport, SkyView -> **health** -> Doubt (to the source, which refuses pulses and labels at once, and to the snapshot, in words).

What is acted upon and what is only told:

* An antenna that was well and becomes open or shorted: the cable was cut or crushed, and what follows is a receiver coasting on its own
  oscillator while it still claims a fix (for 20 s and more). Refused at once. One that was never well is told only: splitters and passive
  antennas draw no current. After ``COASTING_S`` with a fix from ``FIX_SATELLITES`` satellites it cannot be coasting: told only.
* Jamming "critical" and spoofing "indicated" or more: refused until the receiver has said otherwise for ``CALM_S``, or is silent about it
  for ``SILENT_S``. A jamming warning is told.
* A fixed antenna does not move: after ``STILL_S`` at one place, a position ``JUMP_M`` away is a spoofer or a broken solution; refused until
  it is back, or has stood still there as long (the box was carried away with power on). Driving off is no jump.
* A 2D fix has no height: the pulse may be off by the height's error, so ``FLAT_NS`` goes into the bound.

Pure; times are CLOCK_MONOTONIC_RAW ns of the reports.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from refclock.sample import NS, Antenna, FixMode, HealthReport, SkyView, Survey

COASTING_S: Final = 60
"""Receivers coast 20 s and more without satellites (an Orolia timing card: 20 s of bad pulses after "open")."""
FIX_SATELLITES: Final = 4
CALM_S: Final = 60
SILENT_S: Final = 120
"""Receivers report jamming and spoofing every second to every minute."""
STILL_S: Final = 600
JUMP_M: Final = 500.0
"""A solution through a window wanders by 100 m; spoofed positions are kilometres away, or as near as the spoofer likes."""
WANDER_M: Final = 150.0
"""Within this of its mean an antenna counts as still."""
NEXT_S: Final = 30
"""Positions farther apart in time are not compared: a tunnel, a garage."""
FLAT_NS: Final = 1000.0
"""A height that is 300 m wrong, the half of what people live at (1 us of light)."""
EARTH_M: Final = 111_195.0
"""One degree of a great circle."""


class Doubt(NamedTuple):
    """``blocks``: pulses and labels are not used while it lasts; ``words``: what is the matter, and what that means."""

    kind: str
    words: str
    blocks: bool


class Health:
    """One receiver's health."""

    def __init__(self) -> None:
        self.antenna = Antenna.UNKNOWN
        self.mode: FixMode | None = None
        self.survey: Survey | None = None
        self._was_well = False
        self._broken_at: int | None = None  # when a good antenna became bad
        self._sky = (0, 0)  # (satellites used, since when at least FIX_SATELLITES)
        self._states: dict[str, tuple[int, int, int]] = {}  # kind -> (worst state in force, when it was last said, when last heard at all)
        self._home: tuple[float, float] | None = None
        self._still_since = 0
        self._last: tuple[tuple[float, float], int] | None = None
        self._away: tuple[float, float] | None = None
        self._away_since = 0
        self._away_m = 0.0

    def report(self, report: HealthReport) -> None:
        """What a message says."""
        now = report.at.mono_ns
        if report.antenna is not None and report.antenna is not Antenna.UNKNOWN:
            self._antenna(report.antenna, now)
        for kind, state, alarm in (("jamming", report.jamming, 2), ("spoofing", report.spoofing, 2)):
            if state:
                self._state(kind, state, alarm, now)
        if report.position is not None and (report.accuracy_m is None or report.accuracy_m < WANDER_M):
            self._place(report.position, now)
        if report.survey is not None:
            self.survey = report.survey

    def sky(self, sky: SkyView) -> None:
        """Fix and satellites."""
        self.mode = sky.mode
        enough = sky.used >= FIX_SATELLITES and sky.mode is not FixMode.NONE
        before, since = self._sky
        self._sky = (sky.used, (since if before >= FIX_SATELLITES else sky.at.mono_ns) if enough else sky.at.mono_ns)
        if not enough:
            self._sky = (0, sky.at.mono_ns)

    def _antenna(self, state: Antenna, now: int) -> None:
        if state is Antenna.OK:
            self._was_well, self._broken_at = True, None
        elif self._was_well and self.antenna is Antenna.OK:
            self._broken_at = now
        self.antenna = state

    def _state(self, kind: str, state: int, alarm: int, now: int) -> None:
        worst, said, _heard = self._states.get(kind, (0, 0, 0))
        if state >= alarm and (state >= worst or now - said > CALM_S * NS):
            worst, said = state, now
        elif state >= alarm:
            said = now
        elif now - said > CALM_S * NS:
            worst = 0
        self._states[kind] = (worst, said, now)

    def _place(self, position: tuple[float, float], now: int) -> None:
        """A position of the solution. A jump is between two reports; whoever gets there on the road is a vehicle."""
        last, self._last = self._last, (position, now)
        if self._home is None:
            self._home, self._still_since = position, now
            return
        far = metres(self._home, position)
        if self._away is not None:
            self._away_m = far
            if far < WANDER_M:
                self._away = None
            elif metres(self._away, position) > WANDER_M:
                self._away, self._away_since = position, now
            elif now - self._away_since >= STILL_S * NS:
                self._home, self._still_since, self._away = position, self._away_since, None
        elif far < WANDER_M:
            here = self._home
            self._home = (here[0] + (position[0] - here[0]) / 64, here[1] + (position[1] - here[1]) / 64)
        elif (
            now - self._still_since >= STILL_S * NS
            and last is not None
            and now - last[1] < NEXT_S * NS
            and metres(last[0], position) > JUMP_M
        ):
            self._away, self._away_since, self._away_m = position, now, far
        else:
            self._home, self._still_since = position, now

    def doubts(self, mono_ns: int) -> tuple[Doubt, ...]:
        """What is the matter at ``mono_ns``, the worst first."""
        asked = (self._spoofed(mono_ns), self._moved(), self._cut(mono_ns), self._jammed(mono_ns), self._flat())
        return tuple(sorted((d for d in asked if d is not None), key=lambda d: not d.blocks))

    @property
    def timing(self) -> str:
        """How a timing receiver stands with its own place; "" for any other, and for one that makes no use of it."""
        survey = self.survey
        near = f", known to ±{survey.accuracy_m:.1f} m" if survey and survey.accuracy_m else ""
        if survey is not None and survey.active:
            return f"surveying in its position for {survey.duration_s} s{near}; its time is good meanwhile"
        if survey is not None and survey.valid:
            return f"time from the position that it surveyed in for {survey.duration_s} s{near}"
        return "time from the position that it was given" if self.mode is FixMode.TIME_ONLY else ""

    def blocked(self, mono_ns: int) -> str:
        """Why neither pulses nor labels are to be used now; "" when nothing forbids it."""
        return next((d.words for d in self.doubts(mono_ns) if d.blocks), "")

    @property
    def extra_ns(self) -> float:
        """What goes into the pulse's bound on top of the stated bias."""
        return FLAT_NS if self.mode is FixMode.FIX_2D else 0.0

    def _in_force(self, kind: str, now: int) -> int:
        worst, _said, heard = self._states.get(kind, (0, 0, 0))
        return worst if now - heard < SILENT_S * NS else 0

    def _spoofed(self, now: int) -> Doubt | None:
        state = self._in_force("spoofing", now)
        if not state:
            return None
        sure = "is sure" if state >= 3 else "suspects"
        return Doubt("spoofing", f"the receiver {sure} that its signals are forged (spoofing): its time is not used", True)

    def _jammed(self, now: int) -> Doubt | None:
        state = self._in_force("jamming", now)
        if not state:
            return None
        if state >= 3:
            return Doubt("jamming", "critical interference (jamming): the receiver's fix is unreliable and its time is not used", True)
        return Doubt("jamming", "interference (jamming) is seen, the fix still holds: look for a transmitter or USB 3 device nearby", False)

    def _cut(self, now: int) -> Doubt | None:
        if self.antenna not in (Antenna.OPEN, Antenna.SHORT):
            return None
        open_ = self.antenna is Antenna.OPEN
        what = "the antenna is disconnected (open)" if open_ else "the antenna or its cable is short-circuited"
        used, since = self._sky
        fixed = used >= FIX_SATELLITES
        if self._broken_at is not None and not (fixed and now - max(self._broken_at, since) > COASTING_S * NS):
            return Doubt("antenna", f"{what}: the receiver coasts and its time is not used; check plug and cable", True)
        harmless = "; with a fix this is harmless: a splitter or passive antenna" if fixed else "; check plug and cable"
        return Doubt("antenna", f"{what}, says the receiver{harmless}", False)

    def _moved(self) -> Doubt | None:
        if self._away is None:
            return None
        km = f"{self._away_m / 1000:.1f} km" if self._away_m >= 1000 else f"{self._away_m:.0f} m"
        return Doubt("position", f"the antenna stood still and now is {km} away, it says: forged or broken; its time is not used", True)

    def _flat(self) -> Doubt | None:
        if self.mode is not FixMode.FIX_2D:
            return None
        words = f"2D fix only: without height the pulse may be off by {FLAT_NS / 1000:.0f} µs more; the antenna needs more sky"
        return Doubt("2D", words, False)


def metres(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Distance of two (latitude, longitude) in degrees; for short and long ones alike (haversine)."""
    half = math.sin(math.radians(b[0] - a[0]) / 2) ** 2
    half += math.cos(math.radians(a[0])) * math.cos(math.radians(b[0])) * math.sin(math.radians(b[1] - a[1]) / 2) ** 2
    return 2 * math.degrees(math.asin(min(1.0, math.sqrt(half)))) * EARTH_M
