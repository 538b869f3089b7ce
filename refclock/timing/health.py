"""May the receiver's time be used although it calls it valid? Antenna, jamming, spoofing, position and 2D fix; and its survey.

Flow: HealthReport, SkyView -> **health** -> Condition (to the source, which refuses pulses and labels while one blocks, and to the
snapshot).

* **Antenna.** When a good antenna turns open or shorted, its cable was cut or crushed: the receiver goes on for 20 s and more on its own
  oscillator and still claims a fix. Its time is refused at once. An antenna that never was good is only told: splitters and passive
  antennas draw no current. A receiver that has had a fix from ``FIX_SATELLITES`` satellites for ``COASTING_S`` cannot be coasting: only
  told as well.
* **Jamming and spoofing.** "Critical" jamming and any suspected spoofing are refused. The refusal ends when the receiver has reported
  nothing worse than a warning for ``CALM_S``, or has said nothing about it for ``SILENT_S``. A jamming warning is only told.
* **Position.** A fixed antenna does not move. After ``STILL_S`` at one place, a position more than ``JUMP_M`` away means forged signals or
  a broken solution. It is refused until the antenna is back, or has stood still at the new place for ``STILL_S`` (it was carried there with
  the power on). A vehicle that drives off does not jump.
* **2D fix.** It has no height, and the pulse is wrong by the error of the height that the receiver assumes. ``FLAT_NS`` is added to the
  bound.

Pure. Times are the reports' CLOCK_MONOTONIC_RAW, ns.
"""

from __future__ import annotations

import math
from typing import Final

from refclock.condition import Code, Condition, blocking
from refclock.sample import NS, Antenna, FixMode, HealthReport, SkyView, Survey

COASTING_S: Final = 60
"""Seconds with a fix after which a bad antenna is harmless. Receivers coast for 20 s and more without satellites (an Orolia timing card
sends 20 s of bad pulses after "open"); three times that."""
FIX_SATELLITES: Final = 4
"""Satellites of a full fix: three coordinates and the clock."""
CALM_S: Final = 60
"""Seconds of calm that end an alarm: one calm report among alarms does not."""
SILENT_S: Final = 120
"""Seconds without any report that end an alarm. Receivers report jamming and spoofing every second to every minute."""
ALARM: Final = 2
"""State from which jamming or spoofing is an alarm (HealthReport: 1 is none, 2 a warning)."""
STILL_S: Final = 600
"""Seconds at one place after which an antenna counts as fixed: longer than a halt in traffic."""
JUMP_M: Final = 500.0
"""Metres between two positions that make a jump. Solutions behind a window wander by 100 m; forged ones are mostly kilometres away."""
WANDER_M: Final = 150.0
"""Metres from its mean place within which an antenna stands still."""
NEXT_S: Final = 30
"""Seconds; positions farther apart are not compared, for a receiver may have been in a tunnel or a garage."""
FLAT_NS: Final = 1000.0
"""Nanoseconds added to the bound with a 2D fix: the light time of a height that is 300 m wrong."""
EARTH_M: Final = 111_195.0
"""Metres of one degree of a great circle (mean radius 6371 km)."""


class Health:
    """One receiver's health. ``mode`` and ``survey`` are as last reported."""

    def __init__(self) -> None:
        self.antenna = Antenna.UNKNOWN
        self.mode: FixMode | None = None
        self.survey: Survey | None = None
        self._was_well = False
        self._broken_at: int | None = None  # when a good antenna became bad
        self._fixed_since: int | None = None  # since when at least FIX_SATELLITES have been used
        self._states: dict[str, tuple[int, int, int]] = {}  # jamming, spoofing -> (state in force, last alarm, last report)
        self._home: tuple[float, float] | None = None
        self._still_since = 0
        self._last: tuple[tuple[float, float], int] | None = None
        self._away: tuple[float, float] | None = None
        self._away_since = 0
        self._away_m = 0.0

    def report(self, report: HealthReport) -> None:
        """Take what one message says."""
        now = report.at.mono_ns
        if report.antenna is not None and report.antenna is not Antenna.UNKNOWN:
            self._antenna(report.antenna, now)
        for kind, state in (("jamming", report.jamming), ("spoofing", report.spoofing)):
            if state:
                self._state(kind, state, now)
        if report.position is not None and (report.accuracy_m is None or report.accuracy_m < WANDER_M):
            self._place(report.position, now)
        if report.survey is not None:
            self.survey = report.survey

    def sky(self, sky: SkyView) -> None:
        """Take fix and satellites."""
        self.mode = sky.mode
        if sky.used < FIX_SATELLITES or sky.mode is FixMode.NONE:
            self._fixed_since = None
        elif self._fixed_since is None:
            self._fixed_since = sky.at.mono_ns

    def _antenna(self, state: Antenna, now: int) -> None:
        if state is Antenna.OK:
            self._was_well, self._broken_at = True, None
        elif self._was_well and self.antenna is Antenna.OK:
            self._broken_at = now
        self.antenna = state

    def _state(self, kind: str, state: int, now: int) -> None:
        worst, said, _heard = self._states.get(kind, (0, 0, 0))
        if state >= ALARM and (state >= worst or now - said > CALM_S * NS):
            worst, said = state, now
        elif state >= ALARM:
            said = now
        elif now - said > CALM_S * NS:
            worst = 0
        self._states[kind] = (worst, said, now)

    def _place(self, position: tuple[float, float], now: int) -> None:
        """Take a position. Only a jump between two reports counts: a vehicle gets there step by step."""
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

    def conditions(self, mono_ns: int) -> tuple[Condition, ...]:
        """What is the matter at ``mono_ns``; what blocks comes first."""
        found = (self._spoofed(mono_ns), self._moved(), self._cut(mono_ns), self._jammed(mono_ns), self._flat(), self._surveying())
        return tuple(sorted((c for c in found if c is not None), key=lambda c: not c.blocks))

    @property
    def timing(self) -> str:
        """What a timing receiver knows of its own place, in words; "" when it does not use one."""
        survey = self.survey
        near = f", known to ±{survey.accuracy_m:.1f} m" if survey and survey.accuracy_m else ""
        if survey is not None and survey.active:
            return f"surveying in its position for {survey.duration_s} s{near}; its time is good meanwhile"
        if survey is not None and survey.valid:
            return f"time from the position that it surveyed in for {survey.duration_s} s{near}"
        return "time from the position that it was given" if self.mode is FixMode.TIME_ONLY else ""

    def blocked(self, mono_ns: int) -> Condition | None:
        """Why neither pulses nor labels may be used now; None when nothing forbids it."""
        return blocking(self.conditions(mono_ns))

    @property
    def extra_ns(self) -> float:
        """Nanoseconds that the pulse's bound needs on top of the stated bias."""
        return FLAT_NS if self.mode is FixMode.FIX_2D else 0.0

    def _in_force(self, kind: str, now: int) -> int:
        worst, _said, heard = self._states.get(kind, (0, 0, 0))
        return worst if now - heard < SILENT_S * NS else 0

    def _spoofed(self, now: int) -> Condition | None:
        state = self._in_force("spoofing", now)
        if not state:
            return None
        sure = "is sure" if state >= 3 else "suspects"
        return Condition(Code.SPOOFING, f"the receiver {sure} that its signals are forged (spoofing): its time is not used", True)

    def _jammed(self, now: int) -> Condition | None:
        state = self._in_force("jamming", now)
        if not state:
            return None
        if state >= 3:
            return Condition(
                Code.JAMMING, "critical interference (jamming): the receiver's fix is unreliable and its time is not used", True
            )
        return Condition(
            Code.JAMMING, "interference (jamming) is seen, the fix still holds: look for a transmitter or USB 3 device nearby", False
        )

    def _cut(self, now: int) -> Condition | None:
        if self.antenna not in (Antenna.OPEN, Antenna.SHORT):
            return None
        open_ = self.antenna is Antenna.OPEN
        what = "the antenna is disconnected (open)" if open_ else "the antenna or its cable is short-circuited"
        since = self._fixed_since
        coasts = since is None or self._broken_at is None or now - max(self._broken_at, since) <= COASTING_S * NS
        if self._broken_at is not None and coasts:
            return Condition(Code.ANTENNA_FAULT, f"{what}: the receiver coasts and its time is not used; check plug and cable", True)
        harmless = "; with a fix this is harmless: a splitter or passive antenna" if since is not None else "; check plug and cable"
        return Condition(Code.ANTENNA_FAULT, f"{what}, says the receiver{harmless}", False)

    def _moved(self) -> Condition | None:
        if self._away is None:
            return None
        km = f"{self._away_m / 1000:.1f} km" if self._away_m >= 1000 else f"{self._away_m:.0f} m"
        return Condition(
            Code.POSITION_JUMPED, f"the antenna stood still and now is {km} away, it says: forged or broken; its time is not used", True
        )

    def _flat(self) -> Condition | None:
        if self.mode is not FixMode.FIX_2D:
            return None
        words = f"2D fix only: without height the pulse may be off by {FLAT_NS / 1000:.0f} µs more; the antenna needs more sky"
        return Condition(Code.FIX_2D, words, False)

    def _surveying(self) -> Condition | None:
        return Condition(Code.SURVEYING, self.timing) if self.survey is not None and self.survey.active else None


def metres(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Distance of two (latitude, longitude) in degrees; for short and long ones alike (haversine)."""
    half = math.sin(math.radians(b[0] - a[0]) / 2) ** 2
    half += math.cos(math.radians(a[0])) * math.cos(math.radians(b[0])) * math.sin(math.radians(b[1] - a[1]) / 2) ** 2
    return 2 * math.degrees(math.asin(min(1.0, math.sqrt(half)))) * EARTH_M
