"""UBX messages as a u-blox receiver sends them: Knowledge -> bytes. Layouts: u-blox 8/M8 protocol specification, a section each."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate

from refclock.sample import FixMode, Satellite
from refclock.timescales import DAY_S, WEEK_S
from refclock_sim.receiver.gnss import GPS_EPOCH_TAI_S, TAI_GPS_S, Knowledge, Stage
from refclock_sim.receiver.nmea import Civil

GPS_EPOCH_S = GPS_EPOCH_TAI_S - TAI_GPS_S

NAV_STATUS = (0x01, 0x03)
NAV_SOL = (0x01, 0x06)
NAV_PVT = (0x01, 0x07)
NAV_TIMEGPS = (0x01, 0x20)
NAV_TIMEUTC = (0x01, 0x21)
NAV_TIMELS = (0x01, 0x26)
NAV_SAT = (0x01, 0x35)
NAV_SVIN = (0x01, 0x3B)
NAV_EOE = (0x01, 0x61)
TIM_TP = (0x0D, 0x01)
TIM_SVIN = (0x0D, 0x04)
ACK_NAK = (0x05, 0x00)
ACK_ACK = (0x05, 0x01)
CFG_MSG = (0x06, 0x01)
CFG_RATE = (0x06, 0x08)
CFG_CFG = (0x06, 0x09)
CFG_NAV5 = (0x06, 0x24)
CFG_TP5 = (0x06, 0x31)
CFG_ITFM = (0x06, 0x39)
CFG_TMODE2 = (0x06, 0x3D)
CFG_VALSET = (0x06, 0x8A)
CFG_VALGET = (0x06, 0x8B)
MON_VER = (0x0A, 0x04)
MON_HW = (0x0A, 0x09)
MON_RF = (0x0A, 0x38)
SEC_SIG = (0x27, 0x09)

_PVT = struct.Struct("<IHBBBBBBIiBBBBiiiiIIiiiiiIIHHIihH")
_SOL = struct.Struct("<IiHBBiiiIiiiIHBBI")
_TIMEGPS = struct.Struct("<IiHbBI")
_TIMEUTC = struct.Struct("<IIiHBBBBBB")
_TIMELS = struct.Struct("<IB3xBbBbiHH3xB")
_SAT = struct.Struct("<BBBbhhI")
_TIM_TP = struct.Struct("<IIiHBB")
_GNSS_ID = {"GPS": 0, "Galileo": 2, "GLONASS": 6}
_FIX = {FixMode.FIX_2D: 2, FixMode.FIX_3D: 3, FixMode.TIME_ONLY: 5}
_ECEF_CM = (397_514_912, -14_275, 497_128_130)
"""cm: nmea.POSITION, 107.5 m above the ellipsoid of WGS 84."""
_FROM_SKY, _FROM_FIRMWARE = 2, 0  # NAV-TIMELS srcOfCurrLs: GPS; firmware default


def frame(message: tuple[int, int], payload: bytes = b"") -> bytes:
    """Sync, class, id, length, payload and the 8-bit Fletcher checksum (UBX checksum section)."""
    body = struct.pack("<BBH", *message, len(payload)) + payload
    sums = list(accumulate(body))
    return b"\xb5\x62" + body + bytes((sums[-1] & 0xFF, sum(sums) & 0xFF))


def _tow_ms(knows: Knowledge) -> int:
    return knows.gps_s % WEEK_S * 1000


def nav_pvt(knows: Knowledge, at: Civil, used: int) -> bytes:
    """NAV-PVT. ``valid``: date, time, fully resolved (leap count received)."""
    time_known = knows.stage > Stage.DARK
    valid = (knows.date_known and time_known) | time_known << 1 | (knows.leap_known and time_known) << 2
    accuracy_ns = 25 if knows.fixed else 4_000_000_000 if not knows.date_known else 1_000_000
    where = (-12345, 515_409_463 + 269_800 * ("moved" in knows.troubles), 107_500, 61_700) if knows.fixed else (0, 0, 0, 0)
    near = (1_500, 2_300) if knows.fixed else (0xFFFF_FFFF, 0xFFFF_FFFF)
    payload = _PVT.pack(
        *(_tow_ms(knows), *at, valid, accuracy_ns, 0, _FIX.get(knows.mode, 0), int(knows.fixed), 0xE0 if knows.date_known else 0x20, used),
        *(*where, *near, 0, 0, 0, 6, 0, 80, 18_000_000, 162 if knows.fixed else 9999, 0, 0, 0, 0, 0),
    )
    return frame(NAV_PVT, payload)


def nav_sol(knows: Knowledge, used: int) -> bytes:
    """NAV-SOL: position and GPS time of older receivers, no UTC. ``flags``: fix OK, week known, time of week known."""
    flags = knows.fixed | (knows.date_known << 2) | ((knows.stage > Stage.DARK) << 3)
    where = _ECEF_CM if knows.fixed else (0, 0, 0)
    near_cm = 230 if knows.fixed else 0xFFFF_FFFF
    week = knows.gps_s // WEEK_S
    rest = (*where, near_cm, 0, 0, 0, 8, 162 if knows.fixed else 9999, 0, used, 0)
    return frame(NAV_SOL, _SOL.pack(_tow_ms(knows), 0, week, _FIX.get(knows.mode, 0), flags, *rest))


def nav_timegps(knows: Knowledge) -> bytes:
    """NAV-TIMEGPS: week, time of week and leap count; ``valid``: time of week, week, leap count."""
    time_known = knows.stage > Stage.DARK
    valid = time_known | (knows.date_known and time_known) << 1 | (knows.leap_known and time_known) << 2
    count = knows.tai_offset_s - TAI_GPS_S
    return frame(NAV_TIMEGPS, _TIMEGPS.pack(_tow_ms(knows), 0, knows.gps_s // WEEK_S, count, valid, 25 if knows.fixed else 1_000_000))


def nav_timeutc(knows: Knowledge, at: Civil) -> bytes:
    """NAV-TIMEUTC. Bit 2 of ``valid``: leap count known; its upper half: the standard (3: USNO)."""
    time_known = knows.stage > Stage.DARK
    valid = time_known | (knows.date_known and time_known) << 1 | (knows.leap_known and time_known) << 2 | (0x30 if knows.leap_known else 0)
    return frame(NAV_TIMEUTC, _TIMEUTC.pack(_tow_ms(knows), 25 if knows.fixed else 1_000_000, 0, *at, valid))


def nav_timels(knows: Knowledge) -> bytes:
    """NAV-TIMELS: leap count and its source, and the announced leap second with the GPS week and day (1 = Sunday) that it ends."""
    count = knows.tai_offset_s - TAI_GPS_S
    source = _FROM_SKY if knows.leap_known else _FROM_FIRMWARE
    if knows.leap is None:
        return frame(NAV_TIMELS, _TIMELS.pack(_tow_ms(knows), 0, source, count, source, 0, 0, 0, 0, int(knows.leap_known)))
    midnight, change = knows.leap
    last_day = midnight - GPS_EPOCH_S - DAY_S
    to_event = midnight - knows.label.utc_s + (change > 0 and not knows.label.second_60)
    return frame(
        NAV_TIMELS,
        _TIMELS.pack(_tow_ms(knows), 0, source, count, source, change, to_event, last_day // WEEK_S, last_day % WEEK_S // DAY_S + 1, 3),
    )


def nav_sat(knows: Knowledge, sky: Sequence[Satellite]) -> bytes:
    """NAV-SAT: quality 4 (code locked) or 1 (searching), used, orbit source ephemeris."""
    rows = [
        _SAT.pack(
            _GNSS_ID[s.gnss],
            s.number - 64 if s.gnss == "GLONASS" else s.number,  # NMEA counts GLONASS from 65, UBX from 1
            *(s.snr or 0, s.elevation or 0, s.azimuth or 0, 0),
            (4 if s.snr else 1) | s.used << 3 | 1 << 4 | 1 << 8,
        )
        for s in sky
    ]
    return frame(NAV_SAT, struct.pack("<IBBH", _tow_ms(knows), 1, len(rows), 0) + b"".join(rows))


def nav_eoe(knows: Knowledge) -> bytes:
    """NAV-EOE: end of the epoch."""
    return frame(NAV_EOE, struct.pack("<I", _tow_ms(knows)))


def tim_tp(next_pulse: Knowledge, late_ns: float | None) -> bytes:
    """TIM-TP: UTC of the next pulse, and its quantisation error: minus ``late_ns``, for it is to be **added** to the pulse's time.

    None: no error is stated (flag qErrInvalid).
    """
    utc = next_pulse.leap_known
    seconds = next_pulse.label.utc_s - GPS_EPOCH_S if utc else next_pulse.gps_s
    flags = (3 if utc else 0) | (0x10 if late_ns is None else 0)
    error_ps = 0 if late_ns is None else round(-1000 * late_ns)
    return frame(TIM_TP, _TIM_TP.pack(seconds % WEEK_S * 1000, 0, error_ps, seconds // WEEK_S, flags, 0))


def mon_hw(knows: Knowledge) -> bytes:
    """MON-HW: antenna status (2 OK, 3 short, 4 open) and jamming state (1 OK, 3 critical) in bits 2 and 3 of the flags."""
    status = 4 if "antenna-open" in knows.troubles else 3 if "antenna-short" in knows.troubles else 2
    jamming = 3 if "jamming" in knows.troubles else 1
    return frame(MON_HW, bytes(20) + bytes((status, 1, jamming << 2)) + bytes(37))


def mon_rf(knows: Knowledge) -> bytes:
    """MON-RF: one RF path, its jamming state and antenna status."""
    status = 4 if "antenna-open" in knows.troubles else 3 if "antenna-short" in knows.troubles else 2
    jamming = 3 if "jamming" in knows.troubles else 1
    return frame(MON_RF, bytes((0, 1, 0, 0, 0, jamming, status, 1)) + bytes(20))


def nav_status(knows: Knowledge) -> bytes:
    """NAV-STATUS: fix, its flags, and the spoofing state (1 none, 2 indicated)."""
    spoofing = 2 if "spoofing" in knows.troubles else 1
    head = struct.pack("<IBBBB", _tow_ms(knows), _FIX.get(knows.mode, 0), knows.fixed | knows.date_known << 2 | 8, 0, spoofing << 3)
    return frame(NAV_STATUS, head + bytes(8))


def nav_svin(survey: tuple[int, float, bool, bool]) -> bytes:
    """NAV-SVIN: duration, mean position, accuracy, valid, active."""
    duration, accuracy_m, active, valid = survey
    payload = struct.pack("<8xIiii4xII??2x", duration, *_ECEF_CM, round(accuracy_m * 1e4), duration, valid, active)
    return frame(NAV_SVIN, payload)


def tim_svin(survey: tuple[int, float, bool, bool]) -> bytes:
    """TIM-SVIN: duration, mean position, variance, observations, valid, active."""
    duration, accuracy_m, active, valid = survey
    variance = min(1 << 31, round(accuracy_m**2 * 1e6))
    return frame(TIM_SVIN, struct.pack("<IiiiII??2x", duration, *_ECEF_CM, variance, duration, valid, active))


def sec_sig(knows: Knowledge) -> bytes:
    """SEC-SIG version 1: jamming and spoofing detection, both switched on (1 none, 2 indicated)."""
    jamming, spoofing = (2 if what in knows.troubles else 1 for what in ("jamming", "spoofing"))
    return frame(SEC_SIG, bytes((1, 0, 0, 0, 1 | jamming << 1, 0, 0, 0, 1 | spoofing << 1, 0, 0, 0)))


def mon_ver(software: str, hardware: str, extensions: Sequence[str]) -> bytes:
    """MON-VER: zero-terminated texts of 30, 10 and 30 bytes each."""
    parts = [software.encode().ljust(30, b"\0"), hardware.encode().ljust(10, b"\0"), *(e.encode().ljust(30, b"\0") for e in extensions)]
    return frame(MON_VER, b"".join(parts))
