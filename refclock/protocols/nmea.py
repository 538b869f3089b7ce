"""NMEA 0183 sentences to labels, leap seconds, sky views and health (pynmea2 behind this door).

Which sentence may say what:

* RMC with status A and a mode that is a fix by satellites (``fixes``) names a second, unless another sentence says that the position is
  estimated, simulated or typed in. So does ZDA while a fix stated elsewhere is fresh.
* GGA, GNS, GSA, GLL and VTG only state the fix; none of them carries a date. GLL's time is not used at all (some receivers compute it for
  another instant than the rest of the cycle). GSV and GSA list the satellites.
* ZDA alone is time too, when no sentence says anything of a fix: its labels are in doubt (``LabelDoubt.FIX_UNSTATED``).
* A talker is judged by what it says itself. Another talker's sentences count too, unless both send the same kind of timed sentence: then
  they are two devices.
* TXT and some makers' own sentences (``$P...``) state the antenna and the leap count (``makers``).
* A label is stamped with the first byte of the GGA or GNS that states the same time of day, if one came before, however late the label's
  own sentence comes (GGA first, many GSV, RMC last on a slow line). Not with RMC or ZDA: the first of them to name a second is its label,
  and two that name different seconds (one a second ahead of the other) must not pass for one late cycle.
* Anything without a valid checksum is dropped. A receiver that has never sent one (HP 58534A), or none in sentences of this kind, is read
  all the same, and counted.

pynmea2 splits and names the fields. Times and dates are read here: its ``timestamp`` cannot hold second 60 and truncates fractions, its
``datestamp`` accepts one-digit days and guesses the century.

Flow: framing -> **nmea** -> labels.LabelGate, timing.health.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pynmea2

from refclock.protocols.fixes import FixWorth, by_mode, by_quality
from refclock.protocols.framing import Frame
from refclock.protocols.labels import BURST_NS, DISPUTE_NS, STATEMENT_FRESH_NS, Decoded, Epochs, Reject
from refclock.protocols.makers import antenna, leap_text, notice
from refclock.sample import (
    NS,
    FixMode,
    HealthReport,
    Instant,
    LabelDoubt,
    LeapNotice,
    ReceiverValue,
    Satellite,
    SecondLabel,
    SkyView,
)
from refclock.timescales import DAY_S, ROLLOVER_S, civil_s, window

SKY_NS: Final = 30 * NS
"""ns; satellites that were not reported for this long are gone. Slow receivers list them every 5 s or so."""
TEXTS_MAX: Final = 16
"""Different TXT sentences that are kept: a receiver's banner has about ten."""
ENOUGH_3D: Final = 4
"""Satellites in use; from here on a fix of unknown kind is taken for one in three dimensions."""
UNDATED: Final = frozenset(("GGA", "GNS"))
TIMED: Final = UNDATED | {"RMC", "ZDA"}
"""Sentences that begin with the cycle's time of day, and those of them that have no date."""
CYCLE_NS: Final = 800_000_000
"""ns; a sentence of another talker that came up to this much earlier with the same time of day may be of the same cycle. A clock that is a
whole second ahead stated that time a second before."""
GSA_SYSTEMS: Final = {"1": "GPS", "2": "GLONASS", "3": "Galileo", "4": "BeiDou", "5": "QZSS", "6": "NavIC"}
"""GNSS system id, last field of GSA (NMEA 4.11)."""
TALKERS: Final = {
    "GP": "GPS", "GL": "GLONASS", "GA": "Galileo", "GB": "BeiDou", "BD": "BeiDou", "GQ": "QZSS", "QZ": "QZSS", "GI": "NavIC",
}  # fmt: skip
NUMBER_RANGES: Final = (
    (1, 32, "GPS"),
    (33, 64, "SBAS"),
    (65, 96, "GLONASS"),
    (120, 158, "SBAS"),
    (193, 202, "QZSS"),
    (301, 336, "Galileo"),
)
"""Satellite numbers under a talker that says GPS or mixed (u-blox protocol specification, satellite numbering)."""
_TIME = re.compile(r"(\d\d)(\d\d)(\d\d)(?:\.(\d{0,9}))?")
_PLACE = re.compile(r"(\d{0,3})(\d\d(?:\.\d{0,9})?)")
_DATE = re.compile(r"(\d\d)(\d\d)(\d\d)")

Said = SecondLabel | LeapNotice | HealthReport | Reject | None
"""What came of one sentence besides the sky."""


class NmeaDecoder:
    """One receiver's sentences. ``without_checksum`` counts those taken although they carry none; ``texts``: what TXT sentences said."""

    def __init__(self, not_before_s: int) -> None:
        self.not_before_s = not_before_s
        self.without_checksum = 0
        self.texts: list[str] = []
        self._checksummed = False
        self._fixes: dict[tuple[str, str], tuple[FixWorth, int]] = {}  # (talker, sentence) -> (the fix that it states, when)
        self._spoken: dict[str, set[str]] = {}  # talker -> timed sentences that it has sent
        self._epochs = Epochs(DAY_S * NS)
        self._untimed: set[str] = set()  # sentences of this cycle whose time of day is empty
        self._began_ns = self._heard_ns = -DISPUTE_NS - 1  # when sentences began to come, after a silence anew; when the last one came
        self._sky = _Sky()
        self._handlers: dict[bytes, Callable[[str, pynmea2.NMEASentence, Frame], Said]] = {
            b"RMC": self._rmc,
            b"ZDA": self._zda,
            b"GGA": self._gga,
            b"GNS": self._gns,
            b"GLL": self._gll,
            b"VTG": self._vtg,
            b"GSA": self._gsa,
            b"GSV": self._gsv,
            b"TXT": self._txt,
        }

    def decode(self, frame: Frame) -> Decoded:
        """What the sentence says: a label, the sky as of the cycle that it ends, the leap count, health. Never raises."""
        body = frame.data
        if frame.at.mono_ns - self._heard_ns > DISPUTE_NS:
            self._began_ns = frame.at.mono_ns
        self._heard_ns = frame.at.mono_ns
        if frame.checksum is False:
            return Decoded([], Reject.CHECKSUM)
        if frame.checksum:
            self._checksummed = True
        if body[:1] == b"P" and frame.checksum and (value := notice(body.decode("ascii", "replace"), frame.at)) is not None:
            return Decoded([value])
        handler = self._handlers.get(body[2:5]) if body[5:6] == b"," and body[:1] != b"P" and body[:2].isalpha() else None
        if handler is None:
            return Decoded([], Reject.UNKNOWN)
        if frame.checksum is None:
            if self._checksummed and not frame.bare:
                return Decoded([], Reject.NO_CHECKSUM)
            self.without_checksum += 1
        try:
            sentence = pynmea2.NMEASentence.parse(body.decode("ascii"))
        except ValueError:  # pynmea2.ParseError, UnicodeDecodeError
            return Decoded([], Reject.BAD_FIELDS)
        values: list[ReceiverValue] = []
        kind = sentence.sentence_type
        if kind in TIMED:
            sky = self._begin(sentence.talker, kind, time_ns(sentence.data[0]), frame.at)
            if sky is not None:
                values.append(sky)
        answer = handler(sentence.talker, sentence, frame)
        if isinstance(answer, Reject):
            return Decoded(values, answer)
        if answer is not None:
            values.append(answer)
        return Decoded(values)

    def _begin(self, talker: str, kind: str, time: int | None, at: Instant) -> SkyView | None:
        """Note a timed sentence; when it begins a new cycle, the sky of the one before."""
        self._spoken.setdefault(talker, set()).add(kind)
        if time is not None:
            if not self._epochs.begins(time, talker + kind, at):
                return None
            self._untimed.clear()
        elif talker + kind not in self._untimed:
            self._untimed.add(talker + kind)
            if len(self._untimed) > 1:
                return None
        else:
            self._untimed = {talker + kind}
        stated = any(self._stated(spoken, at.mono_ns) for spoken in self._spoken)
        return self._sky.view(self._mode(at.mono_ns), at) if stated else None

    def _stamp(self, talker: str, time: int, at: Instant) -> Instant:
        """Arrival of a label that came ``at`` and states ``time``: that of the first GGA or GNS with the same time."""
        arrivals = self._epochs.arrivals(time, at)
        own = [arrivals[talker + kind] for kind in UNDATED if talker + kind in arrivals]
        near = (when for kind, when in arrivals.items() if kind[2:] in UNDATED and at.mono_ns - when.mono_ns <= CYCLE_NS)
        return min(own or near, key=lambda when: when.mono_ns, default=at)

    def _states(self, talker: str, kind: str, worth: FixWorth, at: Instant) -> None:
        """Note what a sentence says of the fix."""
        self._fixes[talker, kind] = worth, at.mono_ns

    def _stated(self, talker: str, mono_ns: int) -> list[FixWorth]:
        """What was said lately of the fix of ``talker``, by itself or by another talker of the same device."""
        own = self._spoken.get(talker, set())
        return [
            worth
            for (other, _kind), (worth, when) in self._fixes.items()
            if mono_ns - when < STATEMENT_FRESH_NS and (other == talker or own.isdisjoint(self._spoken.get(other, ())))
        ]

    def _fix(self, talker: str, mono_ns: int) -> FixWorth:
        """The fix that is stated, and that nothing as fresh denies."""
        stated = self._stated(talker, mono_ns)
        denied = next((worth for worth in stated if not worth.measured), None)
        return denied or max(stated, key=list(FixWorth).index, default=FixWorth.NONE)

    def _mode(self, mono_ns: int) -> FixMode:
        worth = {self._fix(talker, mono_ns) for talker in self._spoken}
        if FixWorth.KNOWN_PLACE in worth:
            return FixMode.TIME_ONLY
        if FixWorth.SATELLITES not in worth:
            return FixMode.NONE
        return self._sky.mode or (FixMode.FIX_3D if self._sky.counted >= ENOUGH_3D else FixMode.FIX_2D)

    # ---- sentences ---------------------------------------------------------------------------------------------------------------

    def _rmc(self, talker: str, rmc: pynmea2.NMEASentence, frame: Frame) -> SecondLabel | Reject | None:
        mode, valid = field(rmc, "mode_indicator"), field(rmc, "status") == "A"
        worth = by_mode(mode) if mode else FixWorth.SATELLITES
        if not valid and not worth.coasting:
            worth = FixWorth.NONE
        self._states(talker, "RMC", worth, frame.at)
        if not worth.measured:
            return worth.reject if valid or worth.coasting else Reject.VOID
        for other in self._stated(talker, frame.at.mono_ns):
            if other.coasting:
                return other.reject
        day = field(rmc, "datestamp")
        if not day or not rmc.data[0]:
            return Reject.EMPTY
        match = _DATE.fullmatch(day)
        midnight = self._two_digit_year(int(match[3]), int(match[2]), int(match[1])) if match else None
        return self._label(talker, "RMC", midnight, rmc.data[0], frame)

    def _zda(self, talker: str, zda: pynmea2.NMEASentence, frame: Frame) -> SecondLabel | Reject | None:
        numbers = [field(zda, name) for name in ("year", "month", "day")]
        if not all(numbers) or not zda.data[0]:
            return Reject.EMPTY
        now, doubt = frame.at.mono_ns, None
        if not self._stated(talker, now):
            if now - self._began_ns < STATEMENT_FRESH_NS:
                return None  # a sentence that states the fix may still come
            doubt = LabelDoubt.FIX_UNSTATED
        elif not (worth := self._fix(talker, now)).measured:
            return worth.reject
        year, month, day = (int(n) if n.isdecimal() and len(n) <= 4 else 0 for n in numbers)
        label = self._label(talker, "ZDA", civil_s(year, month, day) if year >= 1980 else None, zda.data[0], frame)
        return label if isinstance(label, Reject) else replace(label, doubt=doubt or label.doubt)

    def _gga(self, talker: str, gga: pynmea2.NMEASentence, frame: Frame) -> HealthReport | None:
        quality, used = field(gga, "gps_qual"), field(gga, "num_sats")
        worth = by_quality(quality, number_of(used) or 0)
        if quality:
            self._states(talker, "GGA", worth, frame.at)
        self._sky.count(used)
        position = place(gga.data[1:5]) if worth.measured else None
        return HealthReport(frame.at, position=position) if position is not None else None

    def _gns(self, talker: str, gns: pynmea2.NMEASentence, frame: Frame) -> Reject | None:
        modes = field(gns, "mode_indicator")
        if modes:
            self._states(talker, "GNS", by_mode(modes), frame.at)
        self._sky.count(field(gns, "num_sats"))
        return None

    def _gll(self, talker: str, gll: pynmea2.NMEASentence, frame: Frame) -> Reject | None:
        status, mode = field(gll, "status"), field(gll, "faa_mode")
        worth = by_mode(mode) if mode else FixWorth.SATELLITES
        if status:
            self._states(talker, "GLL", worth if status == "A" or worth.coasting else FixWorth.NONE, frame.at)
        return None

    def _vtg(self, talker: str, vtg: pynmea2.NMEASentence, frame: Frame) -> Reject | None:
        worth = by_mode(field(vtg, "faa_mode"))
        if worth.coasting:  # a receiver at rest may say N of its course and have a fix
            self._states(talker, "VTG", worth, frame.at)
        return None

    def _gsa(self, talker: str, gsa: pynmea2.NMEASentence, frame: Frame) -> Reject | None:
        fix = field(gsa, "mode_fix_type")
        if fix in ("2", "3"):  # 1 may be said of one constellation only
            self._states(talker, "GSA", FixWorth.SATELLITES, frame.at)
        self._sky.in_use(talker, gsa.data, FixMode.FIX_3D if fix == "3" else FixMode.FIX_2D if fix == "2" else None)
        return None

    def _gsv(self, talker: str, gsv: pynmea2.NMEASentence, frame: Frame) -> Reject | None:
        return None if self._sky.in_view(talker, gsv.data, frame.at.mono_ns) else Reject.BAD_FIELDS

    def _txt(self, _talker: str, txt: pynmea2.NMEASentence, frame: Frame) -> LeapNotice | HealthReport | None:
        text = ",".join(txt.data[3:]).strip()
        if (leaps := leap_text(text, frame.at)) is not None:
            return leaps
        if text and text not in self.texts and len(self.texts) < TEXTS_MAX:
            self.texts.append(text)
        state = antenna(text)
        return HealthReport(frame.at, antenna=state) if state is not None else None

    # ---- time --------------------------------------------------------------------------------------------------------------------

    def _two_digit_year(self, year: int, month: int, day: int) -> int | None:
        """POSIX second of the midnight: the century that puts it into the date window, else 1980..2079 (GPS began in 1980)."""
        for century in (1900, 2000, 2100):
            midnight = civil_s(century + year, month, day)
            if midnight is not None and self.not_before_s - DAY_S < midnight < self.not_before_s + ROLLOVER_S:
                return midnight
        return civil_s(year + (1900 if year >= 80 else 2000), month, day)

    def _label(self, talker: str, kind: str, midnight_s: int | None, time: str, frame: Frame) -> SecondLabel | Reject:
        if midnight_s is None:
            return Reject.BAD_DATE
        of_day = time_ns(time)
        if of_day is None:
            return Reject.BAD_TIME
        second_60 = of_day >= DAY_S * NS
        placed = window(midnight_s + of_day // NS - second_60, self.not_before_s)
        if placed is None:
            return Reject.DATE_WINDOW
        utc_s, periods = placed
        at = self._stamp(talker, of_day, frame.at)
        # Of two cycles that overlap, a GGA one second ahead and a GGA of the same cycle look alike.
        doubt = LabelDoubt.CYCLE_UNCLEAR if frame.at.mono_ns - at.mono_ns >= BURST_NS else None
        return SecondLabel(utc_s * NS + of_day % NS, at, kind, second_60, weeks_repaired=periods, talker=talker, doubt=doubt)


def field(sentence: pynmea2.NMEASentence, name: str) -> str:
    """The field's text, "" when the sentence ends before it."""
    index: int = sentence.name_to_idx[name]
    data: list[str] = sentence.data
    return data[index] if index < len(data) else ""


def time_ns(text: str) -> int | None:
    """``hhmmss[.f]`` to ns of the day; 23:59:60 gives 86400 s and more; None when it is no time of day."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    hour, minute, second = int(match[1]), int(match[2]), int(match[3])
    if hour > 23 or minute > 59 or second > (60 if (hour, minute) == (23, 59) else 59):
        return None
    fraction = match[4]
    return (hour * 3600 + minute * 60 + second) * NS + (int(fraction.ljust(9, "0")) if fraction else 0)


def place(fields: list[str]) -> tuple[float, float] | None:
    """Latitude ddmm.m, N or S, longitude dddmm.m, E or W to degrees; None when it is no place."""
    if len(fields) < 4:
        return None
    latitude, longitude = _PLACE.fullmatch(fields[0]), _PLACE.fullmatch(fields[2])
    if latitude is None or longitude is None or fields[1] not in ("N", "S") or fields[3] not in ("E", "W"):
        return None
    north, east = (int(m[1] or 0) + float(m[2]) / 60 for m in (latitude, longitude))
    if north > 90 or east > 180:
        return None
    return (north if fields[1] == "N" else -north, east if fields[3] == "E" else -east)


def number_of(text: str) -> int | None:
    """A short decimal integer or None; fractions are cut (some receivers write an elevation as 12.5)."""
    whole = text.partition(".")[0]
    return int(whole) if whole.isdecimal() and len(whole) <= 4 else None


def gnss_of(talker: str, number: int) -> str:
    """The constellation of a satellite number under that talker; "" when neither tells."""
    gnss = TALKERS.get(talker, "")
    if gnss in ("", "GPS"):
        for low, high, name in NUMBER_RANGES:
            if low <= number <= high:
                return name
    return gnss


class _Sky:
    """What GGA, GSA and GSV say of the satellites, gathered over a cycle."""

    def __init__(self) -> None:
        self.mode: FixMode | None = None
        self.counted = 0
        self._used: set[tuple[str, int]] = set()
        self._partial: dict[tuple[str, str], list[list[str]]] = {}  # (talker, signal) -> GSV sentences so far
        self._listed: dict[tuple[str, str], tuple[int, list[tuple[str, int, int | None, int | None, int | None]]]] = {}
        self._news = False

    def count(self, text: str) -> None:
        self.counted = number_of(text) or 0
        self._news = True

    def in_use(self, talker: str, data: list[str], mode: FixMode | None) -> None:
        self._news = True
        if mode is not None:
            self.mode = mode
        system = GSA_SYSTEMS.get(data[17]) if len(data) > 17 else None
        for text in data[2:14]:
            if text:
                number = number_of(text)
                if number is not None:
                    self._used.add((system or gnss_of(talker, number), number))

    def in_view(self, talker: str, data: list[str], mono_ns: int) -> bool:
        """One GSV sentence; the list counts when its last sentence has come and none was lost. False when it is malformed."""
        total, index = (number_of(text) for text in (*data[:2], "", "")[:2])
        if not total or not index or index > total:
            return False
        key = (talker, data[-1] if len(data) % 4 == 0 else "")
        if index == 1:
            self._partial[key] = []
        parts = self._partial.get(key)
        if parts is None or len(parts) != index - 1:
            self._partial.pop(key, None)
            return True
        parts.append(data)
        if index == total:
            del self._partial[key]
            self._listed[key] = (mono_ns, [satellite for part in parts for satellite in _satellites(talker, part)])
            self._news = True
        return True

    def view(self, mode: FixMode, at: Instant) -> SkyView | None:
        """The sky as reported, None when nothing was said since the last time; begins a new cycle."""
        if not self._news:
            return None
        merged: dict[tuple[str, int], Satellite] = {}
        for key, (when, satellites) in list(self._listed.items()):
            if at.mono_ns - when > SKY_NS:
                del self._listed[key]
                continue
            for gnss, number, elevation, azimuth, snr in satellites:
                known = merged.get((gnss, number))
                if known is None or (snr or 0) > (known.snr or 0):
                    merged[gnss, number] = Satellite(gnss, number, elevation, azimuth, snr, (gnss, number) in self._used)
        sky = SkyView(mode, self.counted or len(self._used), tuple(merged.values()), at)
        self.mode, self._news = None, False
        self._used.clear()
        return sky


def _satellites(talker: str, data: list[str]) -> list[tuple[str, int, int | None, int | None, int | None]]:
    """(constellation, number, elevation, azimuth, C/N0) of the up to four satellites of one GSV sentence."""
    found = []
    for i in range(3, len(data) - 3, 4):
        number = number_of(data[i])
        if number is not None:
            found.append((gnss_of(talker, number), number, number_of(data[i + 1]), number_of(data[i + 2]), number_of(data[i + 3])))
    return found
