"""What a receiver knows: fix, time, date, leap count and sky as a function of true TAI.

Flow: true TAI second -> **gnss** -> Knowledge -> receiver (bytes) and device (pulse or none). After power-on the fix comes in stages; it
can be lost and return. Leap count and announcements come later than the fix. Labels can be wrong on purpose.

Satellites and faults are random. Everything is a function of seed and second: a second call returns the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from random import Random
from typing import NamedTuple

from refclock.sample import NS, FixMode, Satellite
from refclock.timescales import DAY_S, ROLLOVER_S, WEEK_S, LeapTable

TAI_GPS_S = 19
"""s: TAI - GPS, constant (IS-GPS-200 section 3.3.4)."""
GPS_EPOCH_TAI_S = 315_964_800 + TAI_GPS_S
"""TAI second of 1980-01-06, GPS week 0."""
ANNOUNCE_S = 60 * DAY_S
"""s: GPS announces a leap second about two months ahead (its week number field allows 127 weeks: IS-GPS-200 section 20.3.3.5.2.4)."""
FIRMWARE_UTC_S = 1_445_126_400
"""2015-10-18: before a u-blox 8 has heard a satellite it counts from a date of its firmware and marks it invalid."""
SKY_STEP_S = 15
"""s: the sky is computed this often; within it the fastest satellite moves by 0.1 degree."""


TROUBLES = ("antenna-open", "antenna-short", "jamming", "spoofing", "moved", "flat")
"""What a receiver may report: its antenna, interference, forged signals, another place (3 km north), a 2D fix."""


class Stage(IntEnum):
    """How far the receiver has come, in this order."""

    DARK = 0  # no time
    TIME = 1  # a time from the first satellite, no date, status void
    FIX_2D = 2
    FIX_3D = 3


_MODE = {Stage.DARK: FixMode.NONE, Stage.TIME: FixMode.NONE, Stage.FIX_2D: FixMode.FIX_2D, Stage.FIX_3D: FixMode.FIX_3D}
_USED = {Stage.DARK: 0, Stage.TIME: 1, Stage.FIX_2D: 3, Stage.FIX_3D: 64}


@dataclass(frozen=True, slots=True)
class LabelFault:
    """Wrong labels from ``start_s`` to ``end_s`` after power-on.

    ``shift_s``: added to the named second (negative: the label is late), or with ``either_way`` subtracted by chance. ``delay_ns``: further
    delay of the message. ``probability``: of a fault in a cycle.
    """

    start_s: int
    end_s: int
    shift_s: int = 0
    delay_ns: int = 0
    probability: float = 1.0
    either_way: bool = False


class Label(NamedTuple):
    """UTC as the receiver states it. ``utc_s``: POSIX second (of 23:59:59 while ``second_60``)."""

    utc_s: int
    second_60: bool


class Knowledge(NamedTuple):
    """What the receiver knows at one true second.

    ``label``: the UTC that it states, with faults, wrong leap count and rollover. ``tai_offset_s``: TAI-UTC that it uses; ``leap_known``:
    received from the sky. ``leap``: announced (POSIX midnight, +1 or -1), or None. ``date_known``: it had a 2D fix since power-on.
    ``delay_ns``: further delay of the message. ``gps_s``: seconds since 1980-01-06, rollover included. ``troubles``: of TROUBLES.
    """

    stage: Stage
    mode: FixMode
    label: Label
    date_known: bool
    leap_known: bool
    tai_offset_s: int
    leap: tuple[int, int] | None
    delay_ns: int
    gps_s: int
    troubles: frozenset[str] = frozenset()

    @property
    def fixed(self) -> bool:
        """2D or 3D: labels are stated as valid, and there is a pulse."""
        return self.stage >= Stage.FIX_2D


class Gnss:
    """One receiver's sky and state since power-on at TAI second ``power_on_tai_s``.

    ``fix_s``: seconds to the 3D fix (time after a third of it, 2D after two thirds; 0: warm from the first second).
    ``leap_known_s``: seconds until the leap count is received, 0: with the first fix (a cold start takes up to 750 s: 25 pages of 30 s,
    IS-GPS-200 section 20.3.3.5.1). ``firmware_tai_offset_s``: TAI-UTC used before that (34 in an LEA-6T of 2009), None: the true one.
    ``losses``: (from, to) seconds after power-on without a fix; its clock runs on, status void. ``troubles``: (what, from, to) seconds
    after power-on. ``rollovers``: multiples of 1024 weeks by which its dates are behind. ``visible``: mean number of satellites in view.
    """

    def __init__(
        self,
        seed: int,
        power_on_tai_s: int,
        table: LeapTable,
        *,
        fix_s: int = 2,
        leap_known_s: int = 0,
        firmware_tai_offset_s: int | None = None,
        losses: Sequence[tuple[int, int]] = (),
        faults: Sequence[LabelFault] = (),
        troubles: Sequence[tuple[str, int, int]] = (),
        rollovers: int = 0,
        visible: int = 14,
    ) -> None:
        self.power_on_tai_s = power_on_tai_s
        self.table = table
        self.fix_s = fix_s
        self.leap_known_s = leap_known_s
        self.firmware_tai_offset_s = firmware_tai_offset_s
        self.losses = list(losses)
        self.faults = list(faults)
        self.troubles = list(troubles)
        self.rollovers = rollovers
        self._seed = seed
        self._orbits = _orbits(seed, visible)
        self._sky: tuple[tuple[int, Stage], tuple[Satellite, ...]] | None = None

    def stage(self, age_s: int) -> Stage:
        """The stage ``age_s`` seconds after power-on."""
        if any(begin <= age_s < end for begin, end in self.losses):
            return Stage.TIME if age_s >= self.fix_s / 3 else Stage.DARK
        if age_s >= self.fix_s:
            return Stage.FIX_3D
        return Stage(int(3 * age_s / self.fix_s)) if age_s >= 0 else Stage.DARK

    def at(self, tai_s: int) -> Knowledge:
        """Knowledge at the true second ``tai_s`` (TAI). Cost: 3 µs."""
        age = tai_s - self.power_on_tai_s
        stage = self.stage(age)
        true_ns = self.table.tai_to_utc_ns(tai_s * NS)
        utc_s = true_ns // NS
        offset = self.table.tai_offset_s(utc_s)
        second_60 = tai_s - utc_s != offset
        date_known = 3 * age >= 2 * self.fix_s
        leap_known = date_known and age >= self.leap_known_s
        if not leap_known and self.firmware_tai_offset_s is not None:
            offset, second_60 = self.firmware_tai_offset_s, False
            utc_s = tai_s - offset
        leap = None
        if leap_known:
            following = self.table.next_leap(utc_s)
            if following is not None and following[0] - utc_s <= ANNOUNCE_S:
                leap = following
        shift, delay = self._fault(age) if self.faults else (0, 0)
        if shift:
            second_60 = False
        behind = self.rollovers * ROLLOVER_S
        if stage is Stage.DARK:
            utc_s, second_60 = FIRMWARE_UTC_S + age, False
        label = Label(utc_s + shift - behind, second_60)
        troubles = frozenset(what for what, begin, end in self.troubles if begin <= age < end)
        if "flat" in troubles:
            stage = min(stage, Stage.FIX_2D)
        gps_s = tai_s - GPS_EPOCH_TAI_S - behind
        return Knowledge(stage, _MODE[stage], label, date_known, leap_known, offset, leap, delay, gps_s, troubles)

    def _fault(self, age: int) -> tuple[int, int]:
        shift = delay = 0
        for i, fault in enumerate(self.faults):
            if fault.start_s <= age < fault.end_s:
                chance = Random(f"fault {self._seed} {i} {age}")
                if chance.random() < fault.probability:
                    shift += -fault.shift_s if fault.either_way and chance.random() < 0.5 else fault.shift_s
                    delay += fault.delay_ns
        return shift, delay

    def sky(self, tai_s: int, stage: Stage) -> tuple[Satellite, ...]:
        """The satellites in view; the strongest ones are used. While DARK they are searched for and have no SNR."""
        key = (tai_s // SKY_STEP_S, stage)
        if self._sky is None or self._sky[0] != key:
            self._sky = (key, tuple(self._look(tai_s // SKY_STEP_S * SKY_STEP_S, stage)))
        return self._sky[1]

    def _look(self, tai_s: int, stage: Stage) -> list[Satellite]:
        found = [orbit.seen(tai_s) for orbit in self._orbits]
        seen = sorted((s for s in found if s is not None), key=lambda s: (s.gnss, s.number))
        usable = sorted((s for s in seen if s.snr is not None and s.snr >= 20), key=lambda s: -(s.snr or 0))[: _USED[stage]]
        used = {(s.gnss, s.number) for s in usable}
        dim = stage is Stage.DARK
        return [Satellite(s.gnss, s.number, s.elevation, s.azimuth, None if dim else s.snr, (s.gnss, s.number) in used) for s in seen]


@dataclass(frozen=True, slots=True)
class _Orbit:
    """A satellite's path across the sky as seen from one place: plausible to the eye, no orbital mechanics."""

    gnss: str
    number: int
    period_s: float
    phase: float
    azimuth: float
    height: float

    def seen(self, tai_s: int) -> Satellite | None:
        angle = 2 * math.pi * (tai_s % WEEK_S) / self.period_s + self.phase
        elevation = self.height * math.sin(angle) + 25.0
        if elevation < 3.0:
            return None
        azimuth = (self.azimuth + 60.0 * math.cos(angle) + 360.0) % 360.0
        flicker = (self.number * 7 + tai_s // SKY_STEP_S * 5) % 4
        return Satellite(self.gnss, self.number, int(elevation), int(azimuth), 18 + int(0.34 * elevation) + flicker, False)


def _orbits(seed: int, visible: int) -> list[_Orbit]:
    """Satellites of which about ``visible`` are above the horizon at a time."""
    random = Random(f"sky {seed}")
    orbits = []
    pools = {"GPS": list(range(1, 33)), "GLONASS": list(range(65, 89)), "Galileo": list(range(1, 37))}
    periods = {"GPS": 43_082.0, "GLONASS": 40_544.0, "Galileo": 50_685.0}  # half a sidereal day; 8/17 and 10/17 of one
    for i in range(round(visible * 1.6)):
        gnss = ("GPS", "GLONASS", "GPS", "Galileo")[i % 4]
        number = pools[gnss].pop(random.randrange(len(pools[gnss])))
        orbits.append(_Orbit(gnss, number, periods[gnss], random.uniform(0, 2 * math.pi), random.uniform(0, 360), random.uniform(30, 60)))
    return orbits
