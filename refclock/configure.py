"""What a receiver should be set to, the frames that set it, and the dialogue that sends them: one at a time, each until it is answered.

Flow: identity (MON-VER, PMTK705) + Intent -> ``plan`` -> Items -> ``Configurator`` <-> the line (``refclock.upkeep``). Nothing here has a
clock: the present comes in with each call. Layouts and keys: u-blox 8/M8 protocol specification (CFG-MSG, CFG-RATE, CFG-TP5, CFG-NAV5,
CFG-CFG, ACK), u-blox F9 and M10 interface descriptions (CFG-VALSET and its keys), GlobalTop PMTK command packet (314, 220, 001).

What an ``Intent`` leaves open (None) stays as the receiver's owner has it: of the pulse, which edge it is and how long the cable is.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from refclock.framing import Frame, FrameKind, nmea_checksum
from refclock.sample import NS
from refclock.ubx import NAV_PVT, NAV_SAT, NAV_SOL, NAV_TIMEGPS, NAV_TIMELS, NAV_TIMEUTC, TIM_TP, encode

ANSWER_NS: Final = NS
"""How long an answer is waited for: at 9600 baud it may stand behind a second's burst."""
TRIES: Final = 2

ACK: Final = 0x05
CFG_MSG: Final = (0x06, 0x01)
CFG_RATE: Final = (0x06, 0x08)
CFG_CFG: Final = (0x06, 0x09)
CFG_NAV5: Final = (0x06, 0x24)
CFG_TP5: Final = (0x06, 0x31)
CFG_VALSET: Final = (0x06, 0x8A)

MESSAGES: Final[Mapping[str, tuple[int, int]]] = {
    "NAV-SOL": NAV_SOL, "NAV-PVT": NAV_PVT, "NAV-TIMEGPS": NAV_TIMEGPS, "NAV-TIMEUTC": NAV_TIMEUTC, "NAV-TIMELS": NAV_TIMELS,
    "NAV-SAT": NAV_SAT, "NAV-EOE": (0x01, 0x61), "TIM-TP": TIM_TP, "MON-HW": (0x0A, 0x09), "MON-RF": (0x0A, 0x38), "SEC-SIG": (0x27, 0x09),
    "GGA": (0xF0, 0x00), "GLL": (0xF0, 0x01), "GSA": (0xF0, 0x02), "GSV": (0xF0, 0x03), "RMC": (0xF0, 0x04), "VTG": (0xF0, 0x05),
    "ZDA": (0xF0, 0x08),
}  # fmt: skip
"""Class and id, as CFG-MSG names them."""
OUTPUT_KEYS: Final[Mapping[str, int]] = {
    "NAV-PVT": 0x20910006, "NAV-SAT": 0x20910015, "NAV-TIMEGPS": 0x20910047, "NAV-TIMEUTC": 0x2091005B, "NAV-TIMELS": 0x20910060,
    "NAV-EOE": 0x2091015F, "TIM-TP": 0x2091017D, "MON-HW": 0x209101B4, "MON-RF": 0x20910359, "SEC-SIG": 0x20910634,
    "GGA": 0x209100BA, "GLL": 0x209100C9, "GSA": 0x209100BF, "GSV": 0x209100C4, "RMC": 0x209100AB, "VTG": 0x209100B0, "ZDA": 0x209100D8,
}  # fmt: skip
"""CFG-MSGOUT-..._I2C; the other ports follow it."""
UART1, USB = 1, 3
SENTENCES: Final = ("GLL", "VTG", "GSV", "GSA", "GGA", "ZDA", "RMC")
RATE_MEAS, RATE_NAV, RATE_TIMEREF = 0x30210001, 0x30210002, 0x20210003
DYNMODEL: Final = 0x20110021
TP_PULSE_DEF, TP_LENGTH_DEF, TP_CABLE = 0x20050023, 0x20050030, 0x30050001
TP_PERIOD, TP_PERIOD_LOCK, TP_LEN, TP_LEN_LOCK = 0x40050002, 0x40050003, 0x40050004, 0x40050005
TP_ENA, TP_SYNC_GNSS, TP_USE_LOCKED, TP_ALIGN, TP_POLARITY, TP_GRID = (
    0x10050007, 0x10050008, 0x10050009, 0x1005000A, 0x1005000B, 0x2005000C,
)  # fmt: skip
STATIONARY: Final = 2
"""Dynamic platform model of CFG-NAV5 and CFG-NAVSPG-DYNMODEL."""

_TP5 = struct.Struct("<BBHhhIIIIiI")
_VALUE_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I"}  # size code of a key: one bit (in a byte), 1, 2, 4 bytes
_PERIOD_US = 1_000_000
_SAVED: Final = 0x1F1E
"""Sections of CFG-CFG: all but the ports' own settings."""
_MTK_FIELDS: Final = {"GLL": 0, "RMC": 1, "VTG": 2, "GGA": 3, "GSA": 4, "GSV": 5, "ZDA": 17}
_MTK_COUNT: Final = 19
_MTK_DONE: Final = "3"


class TimeBase(Enum):
    """Whose second the pulse marks, and the measurements: UTC or the GPS system's own."""

    UTC = 0
    GNSS = 1


@dataclass(frozen=True, slots=True)
class PulseIntent:
    """A pulse once a second. ``rising``: the edge on the second; it and ``cable_delay_ns``: None leaves what the receiver has."""

    on_lock_only: bool = True
    width_ms: int = 100
    rising: bool | None = None
    cable_delay_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """What is wanted. ``messages``: (name, every so many seconds); ``keep_nmea``: the sentences of a UBX receiver are left as they are;
    ``pulse`` None, ``stationary`` False: left alone; ``save``: beyond the next loss of power; ``usb``: the line is the receiver's own USB.
    """

    messages: tuple[tuple[str, int], ...] = (("NAV-PVT", 1), ("NAV-TIMELS", 10), ("TIM-TP", 1), ("NAV-SAT", 5))
    sentences: tuple[tuple[str, int], ...] = (("RMC", 1), ("GGA", 1), ("ZDA", 1), ("GSA", 1), ("GSV", 5))
    keep_nmea: bool = False
    pulse: PulseIntent | None = field(default_factory=PulseIntent)
    stationary: bool = False
    time_base: TimeBase = TimeBase.UTC
    save: bool = False
    usb: bool = False


class Family(Enum):
    """Receivers that are configured alike."""

    UBLOX_6 = "u-blox 6"  # no NAV-PVT
    UBLOX_8 = "u-blox 7 and 8"
    UBLOX_9 = "u-blox 9 and later"
    MTK = "MediaTek"


class Result(Enum):
    """How the setting of one item ended. ``LEFT_OUT``: another item that it needs was not done."""

    DONE = "done"
    REFUSED = "refused"
    NO_ANSWER = "no answer"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class Item:
    """One setting. ``frame`` sets it, or asks for the present payload of ``command`` that ``edit`` turns into the wanted one. ``command``:
    (class, id) or the number of a PMTK sentence; ``needs``: the item that must have been done before."""

    name: str
    frame: bytes
    command: tuple[int, int] | int
    edit: Callable[[bytes], bytes] | None = None
    needs: str = ""


def family(identity: str) -> Family | None:
    """Which kind of receiver calls itself so (``Receiver.identity``); None: one that is not configured here."""
    if "PMTK705" in identity or "MediaTek" in identity:
        return Family.MTK
    match = re.search(r"\bhardware ([0-9A-Fa-f]{4})[0-9A-Fa-f]{4}\b", identity) if identity.startswith("u-blox") else None
    if match is None:
        return None
    generation = int(match[1], 16)  # 0004: u-blox 5 and 6, 0007, 0008, 000A: M10 and F10, 0019: F9 and M9
    if generation in (0x07, 0x08):
        return Family.UBLOX_8
    return Family.UBLOX_6 if generation == 0x04 else Family.UBLOX_9 if generation >= 0x0A else None


def plan(identity: str, intent: Intent) -> list[Item]:
    """The settings in order of sending: sentences are silenced only behind what takes their place. Empty for an unknown receiver."""
    match family(identity):
        case Family.MTK:
            return _mtk(intent)
        case Family.UBLOX_9:
            return _keyed(intent)
        case None:
            return []
        case old:
            return _classic(intent, old)


def pmtk(body: str) -> bytes:
    """A complete sentence."""
    return f"${body}*{nmea_checksum(body.encode('ascii')):02X}\r\n".encode("ascii")


def wanted_messages(intent: Intent, kind: Family) -> tuple[tuple[str, int], ...]:
    """``intent.messages`` as that receiver has them: NAV-SOL and NAV-TIMEUTC are the NAV-PVT of u-blox 6."""
    if kind is not Family.UBLOX_6 or not any(name == "NAV-PVT" for name, _ in intent.messages):
        return intent.messages
    return (("NAV-SOL", 1), ("NAV-TIMEUTC", 1), *(m for m in intent.messages if m[0] not in ("NAV-PVT", "NAV-SOL", "NAV-TIMEUTC")))


# ---- u-blox 6 to 8 --------------------------------------------------------------------------------------------------------------------


def _ubx(name: str, command: tuple[int, int], payload: bytes, needs: str = "") -> Item:
    return Item(name, encode(*command, payload), command, needs=needs)


def _classic(intent: Intent, kind: Family) -> list[Item]:
    wanted = wanted_messages(intent, kind)
    items = [_ubx(name, CFG_MSG, bytes((*MESSAGES[name], every))) for name, every in wanted]  # three bytes: this port's rate
    items.append(_ubx("rate", CFG_RATE, struct.pack("<HHH", 1000, 1, intent.time_base.value)))
    if intent.pulse is not None:
        pulse = intent.pulse
        items.append(Item("pulse", encode(*CFG_TP5, b"\0"), CFG_TP5, lambda payload: time_pulse(payload, pulse, intent.time_base)))
    if intent.stationary:
        items.append(_ubx("stationary", CFG_NAV5, struct.pack("<HB33x", 1, STATIONARY)))  # mask: the dynamic model only
    if not intent.keep_nmea and wanted:
        items += [_ubx(f"no {name}", CFG_MSG, bytes((*MESSAGES[name], 0)), wanted[0][0]) for name in SENTENCES]
    if intent.save:
        items.append(_ubx("save", CFG_CFG, struct.pack("<III", 0, _SAVED, 0)))
    return items


def time_pulse(payload: bytes, pulse: PulseIntent, base: TimeBase) -> bytes:
    """CFG-TP5 of the first output as it is to be, from what it is. Flags: 0 on, 1 follows GNSS, 2 other values when locked, 3 frequency,
    4 length, 5 aligned to the second, 6 rising, 7 to 10 grid."""
    index, version, reserved, cable, group, _p, _pl, _w, _wl, delay, flags = _TP5.unpack(payload)
    if pulse.cable_delay_ns is not None:
        cable = pulse.cable_delay_ns
    rising = bool(flags >> 6 & 1) if pulse.rising is None else pulse.rising
    flags = (flags & ~0x7FF) | 0b110111 | rising << 6 | base.value << 7
    width_us = pulse.width_ms * 1000
    unlocked_us = 0 if pulse.on_lock_only else width_us
    return _TP5.pack(index, version, reserved, cable, group, _PERIOD_US, _PERIOD_US, unlocked_us, width_us, delay, flags)


# ---- u-blox 9 and later ---------------------------------------------------------------------------------------------------------------


def value_set(pairs: Iterable[tuple[int, int]], save: bool) -> bytes:
    """The payload of CFG-VALSET, version 0; layers: RAM, with ``save`` the battery-backed RAM and flash too."""
    head = bytes((0, 7 if save else 1, 0, 0))
    return head + b"".join(struct.pack("<I" + _VALUE_FORMATS[key >> 28], key, value & _mask(key)) for key, value in pairs)


def _mask(key: int) -> int:
    return (1 << 8 * struct.calcsize("<" + _VALUE_FORMATS[key >> 28])) - 1


def _keyed(intent: Intent) -> list[Item]:
    port = USB if intent.usb else UART1

    def item(name: str, pairs: Iterable[tuple[int, int]], needs: str = "") -> Item:
        return _ubx(name, CFG_VALSET, value_set(pairs, intent.save), needs)

    # One frame each: a key that the receiver does not know refuses the whole frame.
    items = [item(name, [(OUTPUT_KEYS[name] + port, every)]) for name, every in intent.messages if name in OUTPUT_KEYS]
    wanted = items[0].name if items else ""
    items.append(item("rate", [(RATE_MEAS, 1000), (RATE_NAV, 1), (RATE_TIMEREF, intent.time_base.value)]))
    if intent.pulse is not None:
        width_us = intent.pulse.width_ms * 1000
        pairs = [
            *((TP_PULSE_DEF, 0), (TP_LENGTH_DEF, 1), (TP_PERIOD, _PERIOD_US), (TP_PERIOD_LOCK, _PERIOD_US)),
            *((TP_LEN, 0 if intent.pulse.on_lock_only else width_us), (TP_LEN_LOCK, width_us)),
            *((TP_ENA, 1), (TP_SYNC_GNSS, 1), (TP_USE_LOCKED, 1), (TP_ALIGN, 1), (TP_GRID, intent.time_base.value)),
        ]
        if intent.pulse.rising is not None:
            pairs.append((TP_POLARITY, int(intent.pulse.rising)))
        if intent.pulse.cable_delay_ns is not None:
            pairs.append((TP_CABLE, intent.pulse.cable_delay_ns))
        items.append(item("pulse", pairs))
    if intent.stationary:
        items.append(item("stationary", [(DYNMODEL, STATIONARY)]))
    if not intent.keep_nmea and wanted:
        items += [item(f"no {name}", [(OUTPUT_KEYS[name] + port, 0)], wanted) for name in SENTENCES]
    return items


# ---- MediaTek -------------------------------------------------------------------------------------------------------------------------


def _mtk(intent: Intent) -> list[Item]:
    fields = [0] * _MTK_COUNT
    for name, every in intent.sentences:
        if name in _MTK_FIELDS:
            fields[_MTK_FIELDS[name]] = min(every, 5)  # of five fixes one is the rarest
    return [
        Item("sentences", pmtk("PMTK314," + ",".join(map(str, fields))), 314),
        Item("rate", pmtk("PMTK220,1000"), 220),
    ]


# ---- the dialogue ---------------------------------------------------------------------------------------------------------------------


class Configurator:
    """Sends a plan. ``results``: item's name to how it ended, filled as the answers come.

    A frame without an answer is sent once more. Answers carry no number, so behind an item that was sent twice a late first answer is let
    pass before the next one is sent.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._left = list(items)
        self.results: dict[str, Result] = {}
        self._tries = 0  # of the frame on the line; 0: none is
        self._due_ns = 0  # when to give up waiting, or not to send before
        self._frame = b""
        self._asked = False  # the frame on the line asks what an ``edit`` needs
        self._told: bytes | None = None  # what it was told

    @property
    def finished(self) -> bool:
        """Every item has its result."""
        return not self._left

    def hear(self, frame: Frame, now_ns: int) -> None:
        """What the receiver said; anything that answers nothing is ignored."""
        if not self._tries:
            return
        item = self._left[0]
        if isinstance(item.command, int):
            fields = frame.data.decode("ascii", "replace").split(",")
            if frame.kind is FrameKind.NMEA and frame.checksum and fields[:2] == ["PMTK001", str(item.command)] and len(fields) > 2:
                self._answered(fields[2] == _MTK_DONE, now_ns)
            return
        if frame.kind is not FrameKind.UBX:
            return
        if tuple(frame.data[:2]) == item.command:
            if self._asked and len(frame.data) == 2 + _TP5.size:
                self._told = frame.data[2:]
        elif frame.data[0] == ACK and frame.data[1] in (0, 1) and tuple(frame.data[2:4]) == item.command:
            self._answered(frame.data[1] == 1, now_ns)

    def send(self, now_ns: int) -> bytes:
        """What to write to the line now; b"" while an answer is awaited and when all is done. Call it after each ``hear`` and once a
        second."""
        if self._tries and now_ns >= self._due_ns:
            if self._told is not None:  # told, though not acknowledged
                self._answered(True, now_ns)
            elif self._tries < TRIES:
                return self._sent(now_ns)
            else:
                self._end(Result.NO_ANSWER)
        while not self._tries and self._left and now_ns >= self._due_ns:
            item = self._left[0]
            if item.needs and self.results.get(item.needs) is not Result.DONE:
                self._end(Result.LEFT_OUT)
                continue
            if self._told is not None and item.edit is not None:
                wanted = item.edit(self._told)
                if wanted == self._told:
                    self._end(Result.DONE)
                    continue
                assert not isinstance(item.command, int)
                self._frame, self._asked = encode(*item.command, wanted), False
                self._told = None
            else:
                self._frame, self._asked = item.frame, item.edit is not None
            return self._sent(now_ns)
        return b""

    def _sent(self, now_ns: int) -> bytes:
        self._tries += 1
        self._due_ns = now_ns + ANSWER_NS
        return self._frame

    def _answered(self, done: bool, now_ns: int) -> None:
        self._due_ns = now_ns + ANSWER_NS if self._tries > 1 else now_ns
        if not done:
            self._end(Result.REFUSED)
        elif not self._asked:
            self._end(Result.DONE)
        elif self._told is not None:
            self._tries = 0  # and now the edited frame

    def _end(self, result: Result) -> None:
        self.results[self._left.pop(0).name] = result
        self._tries, self._told, self._asked = 0, None, False
