"""UBX messages on the receiver's health to HealthReports: antenna, jamming, spoofing, position, survey.

Flow: ubx -> **ubx_health** -> HealthReport. Layouts: u-blox 8/M8 and F9/F10 interface descriptions, one section per message; all integers
are little-endian. A payload that is too short says nothing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Final

from refclock.sample import Antenna, HealthReport, Instant, Survey

_ANTENNA: Final = {2: Antenna.OK, 3: Antenna.SHORT, 4: Antenna.OPEN}
"""aStatus and antStatus: 0 initialising, 1 not known."""
_PVT_PLACE = struct.Struct("<ii")
_NAV_SVIN = struct.Struct("<Iiii")
_TIM_SVIN = struct.Struct("<IiiiIIBB")


def mon_hw(payload: bytes, at: Instant) -> HealthReport | None:
    """MON-HW: 60 bytes in u-blox 7 and 8, 68 in 6; antenna status and flags stand before the part that differs."""
    if len(payload) not in (60, 68):
        return None
    return HealthReport(at, antenna=_ANTENNA.get(payload[20], Antenna.UNKNOWN), jamming=payload[22] >> 2 & 3)


def mon_rf(payload: bytes, at: Instant) -> HealthReport | None:
    """MON-RF: a block for each RF path; the worst of them counts, and a path without supervisor says nothing."""
    blocks = payload[1] if len(payload) >= 4 else 0
    if not blocks or len(payload) < 4 + 24 * blocks:
        return None
    states = [_ANTENNA.get(payload[6 + 24 * i], Antenna.UNKNOWN) for i in range(blocks)]
    worst = next((s for s in (Antenna.SHORT, Antenna.OPEN, Antenna.OK) if s in states), Antenna.UNKNOWN)
    return HealthReport(at, antenna=worst, jamming=max(payload[5 + 24 * i] & 3 for i in range(blocks)))


def sec_sig(payload: bytes, at: Instant) -> HealthReport | None:
    """SEC-SIG version 1 (12 bytes) and 2: states count while their detection is switched on."""
    if len(payload) >= 12 and payload[0] == 1:
        jam, spoof = payload[4], payload[8]
        return HealthReport(at, jamming=jam >> 1 & 3 if jam & 1 else None, spoofing=min(spoof >> 1 & 7, 3) if spoof & 1 else None)
    if len(payload) >= 4 and payload[0] == 2:
        flags = payload[1]
        return HealthReport(at, jamming=flags >> 1 & 3 if flags & 1 else None, spoofing=min(flags >> 4 & 7, 3) if flags & 8 else None)
    return None


def nav_status(payload: bytes, at: Instant) -> HealthReport | None:
    """NAV-STATUS flags2: spoofing detection state."""
    state = payload[7] >> 3 & 3 if len(payload) >= 16 else 0
    return HealthReport(at, spoofing=state) if state else None


def nav_svin(payload: bytes, at: Instant) -> HealthReport | None:
    """NAV-SVIN (u-blox M8P, 9 and later)."""
    found = survey(payload, True)
    return HealthReport(at, survey=found) if found else None


def tim_svin(payload: bytes, at: Instant) -> HealthReport | None:
    """TIM-SVIN (timing receivers up to M8)."""
    found = survey(payload, False)
    return HealthReport(at, survey=found) if found else None


def survey(payload: bytes, keyed: bool) -> Survey | None:
    """What NAV-SVIN (``keyed``; accuracy in 0.1 mm, coordinates in cm and 0.1 mm) or TIM-SVIN says (variance in mm², coordinates in cm).
    A receiver that was given its position, or does no survey, tells a survey of no length."""
    if len(payload) < (40 if keyed else 28):
        return None
    if keyed:
        duration, *coarse = _NAV_SVIN.unpack_from(payload, 8)
        fine = struct.unpack_from("<bbb", payload, 24)
        accuracy = int.from_bytes(payload[28:32], "little") / 1e4
        valid, active = payload[36], payload[37]
        place = tuple((100 * cm + tenth) / 1e4 for cm, tenth in zip(coarse, fine, strict=True))
    else:
        duration, *coarse, variance, _seen, valid, active = _TIM_SVIN.unpack_from(payload)
        accuracy = math.sqrt(variance) / 1e3
        place = tuple(cm / 100 for cm in coarse)
    x, y, z = place
    return Survey(bool(active), bool(valid), duration, accuracy, (x, y, z))


def nav_pvt(payload: bytes, at: Instant) -> HealthReport | None:
    """NAV-PVT: longitude and latitude in 1e-7 degrees, horizontal accuracy in mm."""
    if len(payload) < 84 or payload[20] not in (2, 3, 4) or not payload[21] & 1:
        return None
    longitude, latitude = _PVT_PLACE.unpack_from(payload, 24)
    accuracy = int.from_bytes(payload[40:44], "little")
    if not accuracy or abs(latitude) > 900_000_000 or abs(longitude) > 1_800_000_000:
        return None
    return HealthReport(at, position=(latitude / 1e7, longitude / 1e7), accuracy_m=accuracy / 1e3)


MESSAGES: Final[dict[tuple[int, int], Callable[[bytes, Instant], HealthReport | None]]] = {
    (0x0A, 0x09): mon_hw,
    (0x0A, 0x38): mon_rf,
    (0x27, 0x09): sec_sig,
    (0x01, 0x03): nav_status,
    (0x01, 0x3B): nav_svin,
    (0x0D, 0x04): tim_svin,
    (0x01, 0x07): nav_pvt,
}
