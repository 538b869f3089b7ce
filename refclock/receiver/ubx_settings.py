"""What u-blox receivers can be set to, in one vocabulary: the keys of u-blox 9 and later, and where older receivers have the same thing.

Keys and units: u-blox F9 and M10 interface descriptions, configuration interface; layouts: u-blox 8/M8 protocol specification, a section
for each CFG message. Both agree with pyubx2's tables. All integers are little-endian.

Flow: configure (wanted: key -> value), readback (found: key -> value) <-> **ubx_settings** <-> payloads.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from refclock.protocols.ubx import (
    MON_HW,
    MON_RF,
    NAV_EOE,
    NAV_PVT,
    NAV_SAT,
    NAV_SOL,
    NAV_STATUS,
    NAV_SVIN,
    NAV_SVINFO,
    NAV_TIMEGPS,
    NAV_TIMELS,
    NAV_TIMEUTC,
    SEC_SIG,
    TIM_SVIN,
    TIM_TP,
)

CFG: Final = 0x06
CFG_MSG: Final = (CFG, 0x01)
CFG_RATE: Final = (CFG, 0x08)
CFG_CFG: Final = (CFG, 0x09)
CFG_NAV5: Final = (CFG, 0x24)
CFG_TP5: Final = (CFG, 0x31)
CFG_ITFM: Final = (CFG, 0x39)
CFG_TMODE2: Final = (CFG, 0x3D)
CFG_TMODE3: Final = (CFG, 0x71)
CFG_VALSET: Final = (CFG, 0x8A)
CFG_VALGET: Final = (CFG, 0x8B)

MESSAGES: Final[Mapping[str, tuple[int, int]]] = {
    "NAV-SOL": NAV_SOL, "NAV-PVT": NAV_PVT, "NAV-TIMEGPS": NAV_TIMEGPS, "NAV-TIMEUTC": NAV_TIMEUTC, "NAV-TIMELS": NAV_TIMELS,
    "NAV-SAT": NAV_SAT, "NAV-SVINFO": NAV_SVINFO, "NAV-STATUS": NAV_STATUS, "NAV-SVIN": NAV_SVIN, "NAV-EOE": NAV_EOE,
    "TIM-TP": TIM_TP, "TIM-SVIN": TIM_SVIN, "MON-HW": MON_HW, "MON-RF": MON_RF, "SEC-SIG": SEC_SIG,
    "GGA": (0xF0, 0x00), "GLL": (0xF0, 0x01), "GSA": (0xF0, 0x02), "GSV": (0xF0, 0x03), "RMC": (0xF0, 0x04), "VTG": (0xF0, 0x05),
    "ZDA": (0xF0, 0x08),
}  # fmt: skip
"""Class and id, as CFG-MSG names them."""
OUTPUT_KEYS: Final[Mapping[str, int]] = {
    "NAV-PVT": 0x20910006, "NAV-SAT": 0x20910015, "NAV-STATUS": 0x2091001A, "NAV-TIMEGPS": 0x20910047, "NAV-TIMEUTC": 0x2091005B,
    "NAV-TIMELS": 0x20910060, "NAV-SVIN": 0x20910088, "NAV-EOE": 0x2091015F, "TIM-TP": 0x2091017D, "TIM-SVIN": 0x20910097,
    "MON-HW": 0x209101B4, "MON-RF": 0x20910359, "SEC-SIG": 0x20910634,
    "GGA": 0x209100BA, "GLL": 0x209100C9, "GSA": 0x209100BF, "GSV": 0x209100C4, "RMC": 0x209100AB, "VTG": 0x209100B0, "ZDA": 0x209100D8,
}  # fmt: skip
"""CFG-MSGOUT-..._I2C; the other ports follow it."""
UART1, USB = 1, 3
"""Ports: their place in CFG-MSG's list of rates, and what is added to a key of OUTPUT_KEYS."""

RATE_MEAS, RATE_NAV, RATE_TIMEREF = 0x30210001, 0x30210002, 0x20210003
DYNMODEL: Final = 0x20110021
TP_PULSE_DEF, TP_LENGTH_DEF, TP_CABLE = 0x20050023, 0x20050030, 0x30050001
TP_PERIOD, TP_PERIOD_LOCK, TP_LEN, TP_LEN_LOCK = 0x40050002, 0x40050003, 0x40050004, 0x40050005
TP_ENA, TP_SYNC_GNSS, TP_USE_LOCKED, TP_ALIGN, TP_POLARITY, TP_GRID = (
    0x10050007, 0x10050008, 0x10050009, 0x1005000A, 0x1005000B, 0x2005000C,
)  # fmt: skip
ITFM_ENABLE: Final = 0x1041000D
TMODE, TMODE_TYPE = 0x20030001, 0x20030002
TMODE_X, TMODE_Y, TMODE_Z, TMODE_LAT, TMODE_LON, TMODE_HEIGHT = 0x40030003, 0x40030004, 0x40030005, 0x40030009, 0x4003000A, 0x4003000B
TMODE_ACCURACY, TMODE_SURVEY_S, TMODE_LIMIT = 0x4003000F, 0x40030010, 0x40030011
"""Metres: X, Y, Z and height in cm; degrees in 1e-7; accuracy and limit in 0.1 mm."""
FREE, SURVEY, FIXED = 0, 1, 2
"""Values of TMODE."""
STATIONARY: Final = 2
"""Value of DYNMODEL."""

_SIGNED: Final = frozenset((TP_CABLE, TMODE_X, TMODE_Y, TMODE_Z, TMODE_LAT, TMODE_LON, TMODE_HEIGHT))
_FORMATS: Final = {1: "B", 2: "B", 3: "H", 4: "I", 5: "Q"}  # size code of a key: one bit (in a byte), 1, 2, 4, 8 bytes

Values = Mapping[int, int]


# ---- u-blox 9 and later ---------------------------------------------------------------------------------------------------------------

RAM, ALL_LAYERS, LASTING_LAYERS = 1, 7, 6
"""Layers of CFG-VALSET: bit 0 RAM, bits 1 (battery-backed RAM) and 2 (flash) outlast a loss of power."""


def _size(key: int) -> int:
    return struct.calcsize("<" + _FORMATS[key >> 28 & 7]) if key >> 28 & 7 in _FORMATS else 0


def value_set(pairs: Iterable[tuple[int, int]], layers: int) -> bytes:
    """The payload of CFG-VALSET, version 0."""
    values = (struct.pack("<I" + _FORMATS[key >> 28], key, value & (1 << 8 * _size(key)) - 1) for key, value in pairs)
    return bytes((0, layers, 0, 0)) + b"".join(values)


def value_get(keys: Iterable[int]) -> bytes:
    """The payload of CFG-VALGET, version 0, for what is in force (RAM)."""
    return bytes(4) + b"".join(struct.pack("<I", key) for key in keys)


def values_told(payload: bytes) -> dict[int, int]:
    """Keys and values of an answer to CFG-VALGET, up to the first that is cut off."""
    values, at = {}, 4
    while at + 4 < len(payload):
        key = int.from_bytes(payload[at : at + 4], "little")
        size = _size(key)
        if not size or at + 4 + size > len(payload):
            break
        values[key] = int.from_bytes(payload[at + 4 : at + 4 + size], "little", signed=key in _SIGNED)
        at += 4 + size
    return values


# ---- u-blox 6 to 8 --------------------------------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """Where an older message has a key's value: ``bits`` of the ``size`` bytes at ``at``, from bit ``shift`` on, in units of ``scale``."""

    key: int
    at: int
    size: int
    shift: int = 0
    bits: int = 0
    scale: int = 1


class Layout(NamedTuple):
    """One CFG message. ``ask``: the payload that asks for it."""

    command: tuple[int, int]
    length: int
    fields: tuple[Field, ...]
    ask: bytes = b""

    def read(self, payload: bytes) -> dict[int, int]:
        """Its values; none of a payload that is too short."""
        if len(payload) < self.length:
            return {}
        values = {}
        for key, at, size, shift, bits, scale in self.fields:
            signed = key in _SIGNED
            raw = int.from_bytes(payload[at : at + size], "little", signed=signed)
            values[key] = ((raw >> shift) & (1 << bits) - 1 if bits else raw) * scale
        if TMODE_TYPE in values:  # the same bytes hold either kind of coordinates
            for key in (TMODE_X, TMODE_Y, TMODE_Z) if values[TMODE_TYPE] else (TMODE_LAT, TMODE_LON, TMODE_HEIGHT):
                del values[key]
        return values

    def write(self, payload: bytes, values: Values) -> bytes:
        """``payload`` with the ``values`` that this message has; all else as it was."""
        out = bytearray(payload)
        for key, at, size, shift, bits, scale in self.fields:
            if key in values:
                value = values[key] // scale
                if bits:
                    mask = (1 << bits) - 1 << shift
                    value = int.from_bytes(out[at : at + size], "little") & ~mask | value << shift & mask
                out[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        return bytes(out)


def _tmode(at: int, accuracy: int, unit: int) -> tuple[Field, ...]:
    """Three coordinates, accuracy, survey's time and limit."""
    x = tuple(Field(key, at + 4 * i, 4) for i, key in enumerate((TMODE_X, TMODE_Y, TMODE_Z)))
    lat = tuple(Field(key, at + 4 * i, 4) for i, key in enumerate((TMODE_LAT, TMODE_LON, TMODE_HEIGHT)))
    rest = (
        Field(TMODE_ACCURACY, accuracy, 4, 0, 0, unit),
        Field(TMODE_SURVEY_S, accuracy + 4, 4),
        Field(TMODE_LIMIT, accuracy + 8, 4, 0, 0, unit),
    )
    return x + lat + rest


RATE: Final = Layout(CFG_RATE, 6, (Field(RATE_MEAS, 0, 2), Field(RATE_NAV, 2, 2), Field(RATE_TIMEREF, 4, 2)))
NAV5: Final = Layout(CFG_NAV5, 36, (Field(DYNMODEL, 2, 1),))
ITFM: Final = Layout(CFG_ITFM, 8, (Field(ITFM_ENABLE, 0, 4, 31, 1),))
TP5: Final = Layout(
    CFG_TP5,
    32,
    (
        *(Field(TP_CABLE, 4, 2), Field(TP_PERIOD, 8, 4), Field(TP_PERIOD_LOCK, 12, 4), Field(TP_LEN, 16, 4), Field(TP_LEN_LOCK, 20, 4)),
        *(Field(TP_ENA, 28, 4, 0, 1), Field(TP_SYNC_GNSS, 28, 4, 1, 1), Field(TP_USE_LOCKED, 28, 4, 2, 1)),
        *(Field(TP_PULSE_DEF, 28, 4, 3, 1), Field(TP_LENGTH_DEF, 28, 4, 4, 1), Field(TP_ALIGN, 28, 4, 5, 1)),
        *(Field(TP_POLARITY, 28, 4, 6, 1), Field(TP_GRID, 28, 4, 7, 4)),
    ),
    b"\0",
)
TMODE2: Final = Layout(CFG_TMODE2, 28, (Field(TMODE, 0, 1), Field(TMODE_TYPE, 2, 2, 0, 1), *_tmode(4, 16, 10)))
TMODE3: Final = Layout(CFG_TMODE3, 40, (Field(TMODE, 2, 1), Field(TMODE_TYPE, 2, 2, 8, 1), *_tmode(4, 20, 1)))
