"""What a receiver should be set to, and the frames that set it.

``plan`` gives the Items for ``commands.CommandQueue``: the messages that a line has room for, in order of their worth (``output``), and the
other settings (``settings``), in the vocabulary of ubx_settings. Commands: u-blox 8/M8 protocol specification, u-blox F9 and M10 interface
descriptions, GlobalTop PMTK command packet (220, 314, 386, 397, 414), Quectel L80 and Fastrax IT500 protocol manuals (285, 300, 400).

Of what MediaTek receivers offer besides, SBAS corrections (PMTK301, 313) are left alone: they move a pulse by less than its own jitter.

Flow: identity (MON-VER, PMTK705) + TimingProfile -> **configure** -> Items (configurator, readback).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from refclock.config import BITS_PER_BYTE
from refclock.protocols.ubx import encode
from refclock.receiver import ubx_settings as ubx
from refclock.receiver.commands import Item, pmtk, setting
from refclock.receiver.profile import PositionProfile, PulseProfile, TimeBase, TimingProfile

RATE_NAME, PULSE_NAME, STILL_NAME, JAMMING_NAME, TIMING_NAME, SAVE_NAME = (
    "rate", "pulse", "stationary", "jamming monitor", "timing mode", "save",
)  # fmt: skip
"""Names of the settings, as people read them."""


class Family(Enum):
    """Receivers that are configured alike."""

    UBLOX_6 = "u-blox 6"  # no NAV-PVT, no NAV-SAT
    UBLOX_7 = "u-blox 7"  # no NAV-SAT
    UBLOX_8 = "u-blox 8"
    UBLOX_9 = "u-blox 9 and later"
    MTK = "MediaTek"


def family(identity: str) -> Family | None:
    """Which kind of receiver calls itself so (``ReceiverStream.identity``); None: one that is not configured here."""
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
    """Time from a known position, as wanted of this receiver; None when it is not."""
    wanted = profile.timing
    return None if wanted is None or (wanted.named_only and not for_timing(identity)) else wanted


# ---- messages, and what a line carries of them ---------------------------------------------------------------------------------------

LINE_SHARE: Final = 0.95
"""Share of a second's bytes that messages may take: the burst begins after the second, and answers come in between."""
USB_CAPACITY: Final = 1 << 30
"""Bytes a second; a receiver's own USB carries whatever it sends."""
SKY_ROWS: Final = 44
"""Satellites in NAV-SAT of a receiver with two to four constellations (43 at most in tests/data, with those searched for)."""
SIZES: Final[Mapping[str, int]] = {
    "NAV-SOL": 60, "NAV-PVT": 100, "NAV-TIMEUTC": 28, "NAV-TIMELS": 32, "NAV-STATUS": 24, "NAV-SVIN": 48, "NAV-SAT": 16 + 12 * SKY_ROWS,
    "NAV-SVINFO": 16 + 12 * 24, "TIM-TP": 24, "TIM-SVIN": 36, "MON-HW": 76, "MON-RF": 60, "SEC-SIG": 40,
    "RMC": 80, "GGA": 84, "GLL": 55, "VTG": 45, "ZDA": 40, "GSA": 4 * 70, "GSV": 70 * (SKY_ROWS // 4 + 4),
}  # fmt: skip
"""Bytes a message takes at most: u-blox protocol specifications, with 8 of header and checksum; MON-RF with two paths, SEC-SIG version 2
with four bands; sentences of NMEA 0183 (82 at most), GSA for each of four constellations, GSV four satellites each."""


class Wish(NamedTuple):
    """A message that is wanted every ``every`` s. ``size`` in bytes replaces that of SIZES; 0: it does not."""

    name: str
    every: int
    size: int = 0

    @property
    def bytes(self) -> int:
        """Bytes on the line, at most."""
        return self.size or SIZES[self.name]


def capacity(baud: int) -> int:
    """Bytes that the messages of a second may take. ``baud`` 0: USB."""
    return int(LINE_SHARE * baud / BITS_PER_BYTE) if baud else USB_CAPACITY


def carried(wishes: Iterable[Wish], baud: int) -> tuple[list[Wish], list[Wish]]:
    """(sent, left out), in order of their worth: one that does not fit is left out, and shorter ones behind it may still be sent."""
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


MTK_FIELDS: Final = {"GLL": 0, "RMC": 1, "VTG": 2, "GGA": 3, "GSA": 4, "GSV": 5, "ZDA": 17}
"""Place of each sentence in PMTK314 and PMTK514, which have ``MTK_COUNT`` fields (GlobalTop PMTK command packet)."""
MTK_COUNT: Final = 19
MTK_MESSAGES: Final = (Wish("RMC", 1), Wish("GGA", 1), Wish("ZDA", 1), Wish("GSA", 1, 2 * 70), Wish("GSV", 5, 7 * 70))
"""For two constellations and 28 satellites at most. Every fifth fix is the rarest that PMTK314 takes."""
NAMING: Final = ("RMC", "GGA", "ZDA")
"""Sentences that state the time: switched off only when the message that replaces them is on."""
SENTENCES: Final = ("GLL", "VTG", "GSV", "GSA", "GGA", "ZDA", "RMC")
"""Sentences in the order in which they are switched off: those that name no second first."""


class Output(NamedTuple):
    """What a receiver is to send. ``first``: what names the second; ``more``: all else; ``out``: what the line has no room for; ``silent``:
    sentences that are switched off."""

    first: tuple[Wish, ...]
    more: tuple[Wish, ...]
    out: tuple[Wish, ...]
    silent: tuple[str, ...]


def output(identity: str, profile: TimingProfile) -> Output:
    """Messages in order of their worth, as many as the line carries. Antenna and jamming come each second, because pulses are refused by
    what they say."""
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


# ---- the other settings of u-blox receivers ------------------------------------------------------------------------------------------

_PERIOD_US: Final = 1_000_000


def settings(identity: str, profile: TimingProfile) -> dict[str, dict[int, int]]:
    """What is wanted of a u-blox receiver besides its messages: name of the setting -> keys and values."""
    wanted = {RATE_NAME: {ubx.RATE_MEAS: 1000, ubx.RATE_NAV: 1, ubx.RATE_TIMEREF: profile.time_base.value}}
    if profile.pulse is not None:
        wanted[PULSE_NAME] = pulse_values(profile.pulse, profile.time_base)
    if profile.stationary:
        wanted[STILL_NAME] = {ubx.DYNMODEL: ubx.STATIONARY}
    wanted[JAMMING_NAME] = {ubx.ITFM_ENABLE: 1}
    mode = timing(identity, profile)
    if mode is not None:
        wanted[TIMING_NAME] = timing_values(mode)
    return wanted


def pulse_values(pulse: PulseProfile, base: TimeBase) -> dict[int, int]:
    """Keys of the first time pulse output. A pulse of length 0, where none is wanted without a lock, is no pulse."""
    width_us = pulse.width_ms * 1000
    values = {
        ubx.TP_PULSE_DEF: 0,
        ubx.TP_LENGTH_DEF: 1,
        ubx.TP_PERIOD: _PERIOD_US,
        ubx.TP_PERIOD_LOCK: _PERIOD_US,
        ubx.TP_LEN: 0 if pulse.on_lock_only else width_us,
        ubx.TP_LEN_LOCK: width_us,
        ubx.TP_ENA: 1,
        ubx.TP_SYNC_GNSS: 1,
        ubx.TP_USE_LOCKED: 1,
        ubx.TP_ALIGN: 1,
        ubx.TP_GRID: base.value,
    }
    if pulse.rising is not None:
        values[ubx.TP_POLARITY] = int(pulse.rising)
    if pulse.cable_delay_ns is not None:
        values[ubx.TP_CABLE] = pulse.cable_delay_ns
    return values


def timing_values(mode: PositionProfile) -> dict[int, int]:
    """Keys of survey-in or of the fixed position."""
    accuracy = round(mode.accuracy_m * 10_000)
    if mode.fixed is None:
        return {ubx.TMODE: ubx.SURVEY, ubx.TMODE_SURVEY_S: mode.survey_s, ubx.TMODE_LIMIT: accuracy}
    x, y, z = mode.fixed.at
    if mode.fixed.ecef:
        where = {ubx.TMODE_TYPE: 0, ubx.TMODE_X: round(x * 100), ubx.TMODE_Y: round(y * 100), ubx.TMODE_Z: round(z * 100)}
    else:
        where = {ubx.TMODE_TYPE: 1, ubx.TMODE_LAT: round(x * 1e7), ubx.TMODE_LON: round(y * 1e7), ubx.TMODE_HEIGHT: round(z * 100)}
    return {ubx.TMODE: ubx.FIXED, **where, ubx.TMODE_ACCURACY: accuracy}


def satisfied(name: str, wanted: ubx.Values, found: ubx.Values) -> bool:
    """Whether nothing need be set. A position that the receiver's owner has fixed replaces a survey; a survey that runs or is done is not
    begun again."""
    if name == TIMING_NAME and wanted.get(ubx.TMODE) == ubx.SURVEY and found.get(ubx.TMODE) == ubx.FIXED:
        return True
    return all(found.get(key) == value for key, value in wanted.items())


def plan(identity: str, profile: TimingProfile) -> list[Item]:
    """The settings in the order of sending: sentences are switched off after what replaces them. Empty for an unknown receiver."""
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
    """Items that set the messages: (before, after) the other settings. ``rate``: (item's name, message, every, needs) -> Item."""
    wanted = output(identity, profile)
    if not wanted.first:
        return [], []
    first = [rate(w.name, w.name, w.every, "") for w in wanted.first]
    # Sentences that name no second are switched off first: a line that is full of them lets no answer through.
    empty = [rate(f"no {name}", name, 0, "") for name in wanted.silent if name not in NAMING]
    silent = [rate(f"no {name}", name, 0, first[0].name) for name in wanted.silent if name in NAMING]
    surveyed = ("NAV-SVIN", "TIM-SVIN")
    more = [rate(w.name, w.name, w.every, TIMING_NAME if w.name in surveyed else "") for w in wanted.more]
    return [*empty, *first, *silent], [*more, *(rate(f"no {w.name}", w.name, 0, "") for w in wanted.out)]


# ---- u-blox 6 to 8 --------------------------------------------------------------------------------------------------------------------


def _edited(layout: ubx.Layout, name: str, wanted: ubx.Values) -> Callable[[bytes], bytes]:
    """A function from what a CFG message says now to the frame that sets what is wanted; b"" when nothing need be set."""

    def edit(payload: bytes) -> bytes:
        return b"" if satisfied(name, wanted, layout.read(payload)) else encode(*layout.command, layout.write(payload, wanted))

    return edit


_SAVED: Final = 0x1F1E
"""Sections of CFG-CFG: all but the ports' own settings."""


def _classic(identity: str, profile: TimingProfile) -> list[Item]:
    def rate(name: str, message: str, every: int, needs: str) -> Item:
        return setting(name, ubx.CFG_MSG, bytes((*ubx.MESSAGES[message], every)), needs)  # three bytes: this port's rate

    items, more = _rates(identity, profile, rate)
    for name, values in settings(identity, profile).items():
        if name == RATE_NAME:
            items.append(setting(name, ubx.RATE.command, ubx.RATE.write(bytes(ubx.RATE.length), values)))
        elif name == STILL_NAME:
            items.append(
                setting(name, ubx.NAV5.command, ubx.NAV5.write(b"\1" + bytes(ubx.NAV5.length - 1), values))
            )  # mask: the dynamic model only
        else:
            for layout in {PULSE_NAME: (ubx.TP5,), JAMMING_NAME: (ubx.ITFM,), TIMING_NAME: (ubx.TMODE2, ubx.TMODE3)}[name]:
                frame, edit = encode(*layout.command, layout.ask), _edited(layout, name, values)
                items.append(Item(name, frame, layout.command, edit, layout.command, b"", layout.length, instead=layout is ubx.TMODE3))
    save = [setting(SAVE_NAME, ubx.CFG_CFG, bytes(4) + _SAVED.to_bytes(4, "little") + bytes(4))]  # clear nothing, save, load nothing
    return [*items, *more, *(save if profile.save else [])]


# ---- u-blox 9 and later ---------------------------------------------------------------------------------------------------------------


def _keyed(identity: str, profile: TimingProfile) -> list[Item]:
    port = ubx.UART1 if profile.baud else ubx.USB
    layers = ubx.ALL_LAYERS if profile.save else ubx.RAM

    def rate(name: str, message: str, every: int, needs: str) -> Item:
        # One frame each: a key that the receiver does not know refuses the whole frame.
        return setting(name, ubx.CFG_VALSET, ubx.value_set([(ubx.OUTPUT_KEYS[message] + port, every)], layers), needs)

    items, more = _rates(identity, profile, rate)
    for name, values in settings(identity, profile).items():
        if name == TIMING_NAME:
            items.append(_surveyed(name, values, profile.save))
        else:
            items.append(setting(name, ubx.CFG_VALSET, ubx.value_set(values.items(), layers)))
    return [*items, *more]


def _surveyed(name: str, wanted: ubx.Values, save: bool) -> Item:
    """The timing mode is asked for before it is set, because setting it begins the survey again."""

    def edit(payload: bytes) -> bytes:
        done = satisfied(name, wanted, ubx.values_told(payload))
        layers = ubx.LASTING_LAYERS if done else ubx.ALL_LAYERS
        return b"" if done and not save else encode(*ubx.CFG_VALSET, ubx.value_set(wanted.items(), layers if save else ubx.RAM))

    return Item(name, encode(*ubx.CFG_VALGET, ubx.value_get(wanted)), ubx.CFG_VALGET, edit, ubx.CFG_VALGET, b"\1\0")


# ---- MediaTek -------------------------------------------------------------------------------------------------------------------------

MTK_LOCKED, MTK_ALWAYS = 3, 4
"""PPSType of PMTK285: while there is a 2D or 3D fix; always."""
MTK_QUESTION: Final = pmtk("PMTK414")
"""Asks which sentences it sends; MTK_ANSWER, PMTK514, answers."""
MTK_ANSWER: Final = 514


def mtk_sentences(profile: TimingProfile) -> str:
    """The fields of PMTK314 and of PMTK514."""
    fields = [0] * MTK_COUNT
    for name, every, _size in carried(MTK_MESSAGES, profile.baud)[0]:
        fields[MTK_FIELDS[name]] = every
    return ",".join(map(str, fields))


def mtk_threshold(identity: str) -> int:
    """Number of the command that sets the speed below which the position is frozen: 386 since MT3339 (AXN 2), 397 before."""
    return 386 if re.search(r"AXN_[2-9]", identity) else 397


def _mtk(identity: str, profile: TimingProfile) -> list[Item]:
    def command(name: str, number: int, fields: str) -> Item:
        return Item(name, pmtk(f"PMTK{number},{fields}"), number)

    items = [
        command("sentences", 314, mtk_sentences(profile)),
        command(RATE_NAME, 220, "1000"),
        command("fix interval", 300, "1000,0,0,0,0"),
        # A frozen position hides the jump by which a forged one is known (timing.health).
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
"""What it means that a receiver refuses a setting or message."""
