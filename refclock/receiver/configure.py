"""What a receiver should be set to, and the frames that set it.

Flow: identity (MON-VER, PMTK705) + TimingProfile -> **configure**: ``settings`` (what is wanted, in ubx_settings' vocabulary) and
``plan`` (Items for commands). Commands: u-blox 8/M8 protocol specification, u-blox F9 and M10 interface descriptions, GlobalTop PMTK
command packet (220, 314, 386, 397, 414), Quectel L80 and Fastrax IT500 protocol manuals (285, 300, 400).

Of what MediaTek receivers offer besides, SBAS corrections (PMTK301, 313) are left alone: they move a pulse by less than its own jitter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from refclock.protocols.ubx import encode
from refclock.receiver.commands import Item, pmtk, setting
from refclock.receiver.profile import PositionProfile, PulseProfile, TimeBase, TimingProfile
from refclock.receiver.ubx_settings import (
    CFG_CFG,
    CFG_MSG,
    CFG_VALGET,
    CFG_VALSET,
    DYNMODEL,
    FIXED,
    ITFM,
    ITFM_ENABLE,
    KEPT,
    MESSAGES,
    NAV5,
    OUTPUT_KEYS,
    RAM,
    RAM_AND_KEPT,
    RATE,
    RATE_MEAS,
    RATE_NAV,
    RATE_TIMEREF,
    STATIONARY,
    SURVEY,
    TMODE,
    TMODE2,
    TMODE3,
    TMODE_ACCURACY,
    TMODE_HEIGHT,
    TMODE_LAT,
    TMODE_LIMIT,
    TMODE_LON,
    TMODE_SURVEY_S,
    TMODE_TYPE,
    TMODE_X,
    TMODE_Y,
    TMODE_Z,
    TP5,
    TP_ALIGN,
    TP_CABLE,
    TP_ENA,
    TP_GRID,
    TP_LEN,
    TP_LEN_LOCK,
    TP_LENGTH_DEF,
    TP_PERIOD,
    TP_PERIOD_LOCK,
    TP_POLARITY,
    TP_PULSE_DEF,
    TP_SYNC_GNSS,
    TP_USE_LOCKED,
    UART1,
    USB,
    Layout,
    Values,
    value_get,
    value_set,
    values_told,
)

USED: Final = 0.95
"""Of a second's bytes: the burst begins after the second, and answers come between."""
BITS_PER_BYTE: Final = 10
SATELLITES: Final = 44
"""NAV-SAT rows of a receiver with two to four constellations (most in the recordings of tests/data: 43, searched-for ones included)."""
SIZES: Final[Mapping[str, int]] = {
    "NAV-SOL": 60, "NAV-PVT": 100, "NAV-TIMEUTC": 28, "NAV-TIMELS": 32, "NAV-STATUS": 24, "NAV-SVIN": 48, "NAV-SAT": 16 + 12 * SATELLITES,
    "NAV-SVINFO": 16 + 12 * 24, "TIM-TP": 24, "TIM-SVIN": 36, "MON-HW": 76, "MON-RF": 60, "SEC-SIG": 40,
    "RMC": 80, "GGA": 84, "GLL": 55, "VTG": 45, "ZDA": 40, "GSA": 4 * 70, "GSV": 70 * (SATELLITES // 4 + 4),
}  # fmt: skip
"""Bytes: u-blox protocol specifications, a header and checksum of 8 included; MON-RF with two paths, SEC-SIG version 2 with four bands;
sentences of NMEA 0183 (82 at most), GSA for each of four constellations, GSV four satellites each."""


class Wish(NamedTuple):
    """A message every so many seconds. ``size`` replaces the usual one; 0: that."""

    name: str
    every: int
    size: int = 0

    @property
    def bytes(self) -> int:
        """On the line, at most."""
        return self.size or SIZES[self.name]


def capacity(baud: int) -> int:
    """Bytes that may be sent in a second. ``baud`` 0: USB."""
    return int(USED * baud / BITS_PER_BYTE) if baud else 1 << 30


def carried(wishes: Iterable[Wish], baud: int) -> tuple[list[Wish], list[Wish]]:
    """(sent, left out): the first ones first; a long one that does not fit is left out, shorter ones behind it may still go."""
    left = capacity(baud)
    sent: list[Wish] = []
    out: list[Wish] = []
    for wish in wishes:
        if wish.bytes <= left:
            left -= wish.bytes
            sent.append(wish)
        else:
            out.append(wish)
    return sent, out


RATE_NAME, PULSE_NAME, STILL_NAME, JAMMING_NAME, TIMING_NAME, SAVE_NAME = (
    "rate", "pulse", "stationary", "jamming monitor", "timing mode", "save",
)  # fmt: skip
NAMING: Final = ("RMC", "GGA", "ZDA")
SENTENCES: Final = ("GLL", "VTG", "GSV", "GSA", "GGA", "ZDA", "RMC")
_PERIOD_US: Final = 1_000_000
_SAVED: Final = 0x1F1E
"""Sections of CFG-CFG: all but the ports' own settings."""

MTK_FIELDS: Final = {"GLL": 0, "RMC": 1, "VTG": 2, "GGA": 3, "GSA": 4, "GSV": 5, "ZDA": 17}
MTK_COUNT: Final = 19
MTK_MESSAGES: Final = (Wish("RMC", 1), Wish("GGA", 1), Wish("ZDA", 1), Wish("GSA", 1, 2 * 70), Wish("GSV", 5, 7 * 70))
"""Of two constellations at most, 28 satellites; of five fixes one is the rarest."""
MTK_LOCKED, MTK_ALWAYS = 3, 4
"""PPSType: while there is a 2D or 3D fix; always."""


class Family(Enum):
    """Receivers that are configured alike."""

    UBLOX_6 = "u-blox 6"  # no NAV-PVT, no NAV-SAT
    UBLOX_7 = "u-blox 7"  # no NAV-SAT
    UBLOX_8 = "u-blox 8"
    UBLOX_9 = "u-blox 9 and later"
    MTK = "MediaTek"


def family(identity: str) -> Family | None:
    """Which kind of receiver calls itself so (``Receiver.identity``); None: one that is not configured here."""
    if "PMTK705" in identity or "MediaTek" in identity:
        return Family.MTK
    match = re.search(r"\bhardware ([0-9A-Fa-f]{4})[0-9A-Fa-f]{4}\b", identity) if identity.startswith("u-blox") else None
    if match is None:
        return None
    generation = int(match[1], 16)  # 0004: u-blox 5 and 6, 0007, 0008, 000A: M10 and F10, 0019: F9 and M9
    older = {0x04: Family.UBLOX_6, 0x07: Family.UBLOX_7, 0x08: Family.UBLOX_8}
    return older.get(generation) or (Family.UBLOX_9 if generation >= 0x0A else None)


def for_timing(identity: str) -> bool:
    """Whether its name says that it is made for timing from a fixed place: LEA-M8T, ZED-F9T, RCB-F9T-1, LEA-6T, LEA-M8F ..."""
    return bool(re.search(r"-(?:[MFX]?\d+)[TF]\b", identity))


def timing(identity: str, profile: TimingProfile) -> PositionProfile | None:
    """What is asked of this receiver, None when nothing is."""
    wanted = profile.timing
    return None if wanted is None or (wanted.named_only and not for_timing(identity)) else wanted


# ---- messages -------------------------------------------------------------------------------------------------------------------------


class Output(NamedTuple):
    """``first``: what names the second; ``more``: what else is sent; ``out``: what the line does not carry; ``silent``: sentences that
    are switched off."""

    first: tuple[Wish, ...]
    more: tuple[Wish, ...]
    out: tuple[Wish, ...]
    silent: tuple[str, ...]


def output(identity: str, profile: TimingProfile) -> Output:
    """Messages in order of their worth, as many as the line carries. Health: antenna and jamming each second, for what they say is acted
    upon within one pulse."""
    kind = family(identity)
    if kind is Family.MTK:
        sent, out = carried(MTK_MESSAGES, profile.baud)
        return Output((), tuple(sent), tuple(out), tuple(name for name in MTK_FIELDS if not any(w.name == name for w in sent)))
    survey = [Wish("NAV-SVIN" if kind is Family.UBLOX_9 else "TIM-SVIN", 10)] if timing(identity, profile) is not None else []
    first = [Wish("NAV-SOL", 1), Wish("NAV-TIMEUTC", 1)] if kind is Family.UBLOX_6 else [Wish("NAV-PVT", 1)]
    hardware = [Wish("MON-RF", 1), Wish("SEC-SIG", 5)] if kind is Family.UBLOX_9 else [Wish("MON-HW", 1)]
    forged = [] if kind in (Family.UBLOX_6, Family.UBLOX_7) else [Wish("NAV-TIMELS", 10), Wish("NAV-STATUS", 5)]
    sky = Wish("NAV-SVINFO" if kind in (Family.UBLOX_6, Family.UBLOX_7) else "NAV-SAT", 5)
    kept = [Wish("RMC", 1), Wish("GGA", 1), Wish("ZDA", 1), Wish("GSA", 1), Wish("VTG", 1), Wish("GLL", 1), Wish("GSV", 5)]
    spoken = kept if profile.keep_nmea else []
    sent, out = carried([*first, Wish("TIM-TP", 1), *hardware, *forged, *survey, *spoken[:2], sky, *spoken[2:]], profile.baud)
    n = len(first)
    silent = tuple(name for name in SENTENCES if not any(w.name == name for w in sent))
    return Output(tuple(sent[:n]), tuple(sent[n:]), tuple(w for w in out if w.name not in silent), silent)


# ---- everything else ------------------------------------------------------------------------------------------------------------------


def settings(identity: str, profile: TimingProfile) -> dict[str, dict[int, int]]:
    """What is wanted of a u-blox receiver besides its messages: name of the setting -> keys and values."""
    wanted = {RATE_NAME: {RATE_MEAS: 1000, RATE_NAV: 1, RATE_TIMEREF: profile.time_base.value}}
    if profile.pulse is not None:
        wanted[PULSE_NAME] = pulse_values(profile.pulse, profile.time_base)
    if profile.stationary:
        wanted[STILL_NAME] = {DYNMODEL: STATIONARY}
    wanted[JAMMING_NAME] = {ITFM_ENABLE: 1}
    mode = timing(identity, profile)
    if mode is not None:
        wanted[TIMING_NAME] = timing_values(mode)
    return wanted


def pulse_values(pulse: PulseProfile, base: TimeBase) -> dict[int, int]:
    """Keys of the first time pulse output. Without a lock its length is 0: no pulse."""
    width_us = pulse.width_ms * 1000
    values = {
        TP_PULSE_DEF: 0,
        TP_LENGTH_DEF: 1,
        TP_PERIOD: _PERIOD_US,
        TP_PERIOD_LOCK: _PERIOD_US,
        TP_LEN: 0 if pulse.on_lock_only else width_us,
        TP_LEN_LOCK: width_us,
        TP_ENA: 1,
        TP_SYNC_GNSS: 1,
        TP_USE_LOCKED: 1,
        TP_ALIGN: 1,
        TP_GRID: base.value,
    }
    if pulse.rising is not None:
        values[TP_POLARITY] = int(pulse.rising)
    if pulse.cable_delay_ns is not None:
        values[TP_CABLE] = pulse.cable_delay_ns
    return values


def timing_values(mode: PositionProfile) -> dict[int, int]:
    """Keys of survey-in or of the fixed position."""
    accuracy = round(mode.accuracy_m * 10_000)
    if mode.fixed is None:
        return {TMODE: SURVEY, TMODE_SURVEY_S: mode.survey_s, TMODE_LIMIT: accuracy}
    x, y, z = mode.fixed.at
    if mode.fixed.ecef:
        where = {TMODE_TYPE: 0, TMODE_X: round(x * 100), TMODE_Y: round(y * 100), TMODE_Z: round(z * 100)}
    else:
        where = {TMODE_TYPE: 1, TMODE_LAT: round(x * 1e7), TMODE_LON: round(y * 1e7), TMODE_HEIGHT: round(z * 100)}
    return {TMODE: FIXED, **where, TMODE_ACCURACY: accuracy}


def satisfied(name: str, wanted: Values, found: Values) -> bool:
    """Whether nothing need be set. A position that its owner has fixed does instead of a survey, and a survey that runs or is done is not
    begun anew."""
    if name == TIMING_NAME and wanted.get(TMODE) == SURVEY and found.get(TMODE) == FIXED:
        return True
    return all(found.get(key) == value for key, value in wanted.items())


def plan(identity: str, profile: TimingProfile) -> list[Item]:
    """The settings in order of sending: sentences are silenced only behind what takes their place. Empty for an unknown receiver."""
    match family(identity):
        case Family.MTK:
            return _mtk(identity, profile)
        case Family.UBLOX_9:
            return _keyed(identity, profile)
        case None:
            return []
        case _:
            return _classic(identity, profile)


def _rates(identity: str, profile: TimingProfile, rate: Callable[[str, str, int, str], Item]) -> tuple[list[Item], list[Item]]:
    """The items of the messages, before and behind the other settings. ``rate``: (item's name, message, every, needs) -> Item."""
    wanted = output(identity, profile)
    if not wanted.first:
        return [], []
    first = [rate(w.name, w.name, w.every, "") for w in wanted.first]
    # Those that name no second go at once: a line that is full of them lets no answer through.
    empty = [rate(f"no {name}", name, 0, "") for name in wanted.silent if name not in NAMING]
    silent = [rate(f"no {name}", name, 0, first[0].name) for name in wanted.silent if name in NAMING]
    surveyed = ("NAV-SVIN", "TIM-SVIN")
    more = [rate(w.name, w.name, w.every, TIMING_NAME if w.name in surveyed else "") for w in wanted.more]
    return [*empty, *first, *silent], [*more, *(rate(f"no {w.name}", w.name, 0, "") for w in wanted.out)]


# ---- u-blox 6 to 8 --------------------------------------------------------------------------------------------------------------------


def _edited(layout: Layout, name: str, wanted: Values) -> Callable[[bytes], bytes]:
    """From what a CFG message says to the frame that makes it as wanted."""

    def edit(payload: bytes) -> bytes:
        return b"" if satisfied(name, wanted, layout.read(payload)) else encode(*layout.command, layout.write(payload, wanted))

    return edit


def _classic(identity: str, profile: TimingProfile) -> list[Item]:
    def rate(name: str, message: str, every: int, needs: str) -> Item:
        return setting(name, CFG_MSG, bytes((*MESSAGES[message], every)), needs)  # three bytes: this port's rate

    items, more = _rates(identity, profile, rate)
    for name, values in settings(identity, profile).items():
        if name == RATE_NAME:
            items.append(setting(name, RATE.command, RATE.write(bytes(RATE.length), values)))
        elif name == STILL_NAME:
            items.append(setting(name, NAV5.command, NAV5.write(b"\1" + bytes(NAV5.length - 1), values)))  # mask: the dynamic model only
        else:
            for layout in {PULSE_NAME: (TP5,), JAMMING_NAME: (ITFM,), TIMING_NAME: (TMODE2, TMODE3)}[name]:
                frame, edit = encode(*layout.command, layout.ask), _edited(layout, name, values)
                items.append(Item(name, frame, layout.command, edit, layout.command, b"", layout.length, instead=layout is TMODE3))
    save = [setting(SAVE_NAME, CFG_CFG, bytes(4) + _SAVED.to_bytes(4, "little") + bytes(4))]  # clear nothing, save, load nothing
    return [*items, *more, *(save if profile.save else [])]


# ---- u-blox 9 and later ---------------------------------------------------------------------------------------------------------------


def _keyed(identity: str, profile: TimingProfile) -> list[Item]:
    port = UART1 if profile.baud else USB
    layers = RAM_AND_KEPT if profile.save else RAM

    def rate(name: str, message: str, every: int, needs: str) -> Item:
        # One frame each: a key that the receiver does not know refuses the whole frame.
        return setting(name, CFG_VALSET, value_set([(OUTPUT_KEYS[message] + port, every)], layers), needs)

    items, more = _rates(identity, profile, rate)
    for name, values in settings(identity, profile).items():
        if name == TIMING_NAME:
            items.append(_surveyed(name, values, profile.save))
        else:
            items.append(setting(name, CFG_VALSET, value_set(values.items(), layers)))
    return [*items, *more]


def _surveyed(name: str, wanted: Values, save: bool) -> Item:
    """Asked for first, because setting it begins the survey anew."""

    def edit(payload: bytes) -> bytes:
        done = satisfied(name, wanted, values_told(payload))
        layers = KEPT if done else RAM_AND_KEPT
        return b"" if done and not save else encode(*CFG_VALSET, value_set(wanted.items(), layers if save else RAM))

    return Item(name, encode(*CFG_VALGET, value_get(wanted)), CFG_VALGET, edit, CFG_VALGET, b"\1\0")


# ---- MediaTek -------------------------------------------------------------------------------------------------------------------------

MTK_QUESTION: Final = pmtk("PMTK414")
"""Which sentences it sends; PMTK514 answers."""
MTK_ANSWER: Final = 514


def mtk_sentences(profile: TimingProfile) -> str:
    """The fields of PMTK314 and of PMTK514."""
    fields = [0] * MTK_COUNT
    for name, every, _size in carried(MTK_MESSAGES, profile.baud)[0]:
        fields[MTK_FIELDS[name]] = every
    return ",".join(map(str, fields))


def mtk_threshold(identity: str) -> int:
    """The command of the speed below which the position is frozen: 386 since MT3339 (AXN 2), 397 before."""
    return 386 if re.search(r"AXN_[2-9]", identity) else 397


def _mtk(identity: str, profile: TimingProfile) -> list[Item]:
    def command(name: str, number: int, fields: str) -> Item:
        return Item(name, pmtk(f"PMTK{number},{fields}"), number)

    items = [
        command("sentences", 314, mtk_sentences(profile)),
        command(RATE_NAME, 220, "1000"),
        command("fix interval", 300, "1000,0,0,0,0"),
        # A frozen position hides the jump by which a forged one is known (refclock.health); the maker advises it for stationary use too.
        command("position not frozen", mtk_threshold(identity), "0"),
    ]
    if profile.pulse is not None:
        items.append(command(PULSE_NAME, 285, f"{MTK_LOCKED if profile.pulse.on_lock_only else MTK_ALWAYS},{profile.pulse.width_ms}"))
    return items


# ---- what a result means --------------------------------------------------------------------------------------------------------------

UNKEPT: Final = "MediaTek receivers keep no settings: they are made again after each loss of power"
MEANINGS: Final[Mapping[str, str]] = {
    TIMING_NAME: "this is no timing receiver: it takes neither survey-in nor a fixed position, and goes on as it was",
    JAMMING_NAME: "it has none: jamming and interference go unnoticed",
    STILL_NAME: "it has no such model and goes on as it was",
    "MON-HW": "it does not tell its antenna's state",
    "MON-RF": "it does not tell its antenna's state",
    "SEC-SIG": "its firmware does not tell forged signals by this message",
    "NAV-TIMELS": "it announces no leap seconds by this message",
    "NAV-STATUS": "it does not tell forged signals",
    PULSE_NAME: "its pulse stays as it is; check that it comes once a second and only with a fix",
}
"""What it means that a receiver refuses that."""
