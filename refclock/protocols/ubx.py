"""u-blox UBX messages to labels, leap seconds, quantisation errors, sky views and health; and payloads to frames.

Field layouts: u-blox 8/M8, F9 and M10 protocol specifications, a section for each message. All integers are little-endian. Framing has
verified the checksums. Two messages name a second, and a third replaces them:

* NAV-PVT with validDate, validTime, fullyResolved ("no seconds uncertainty", so the leap count is in it) and a fix that is worth something
  for time (``fixes``);
* NAV-TIMEUTC with all its valid bits, while another message states a fix; without such a message while its own accuracy estimate is below
  ``ACCURATE_NS``;
* NAV-TIMEGPS with all of its (leap seconds valid) on the same condition, while neither of the two comes.

NAV-TIMELS says where the leap count comes from. While it says that it comes from anywhere but satellites, no label's count is known: the
flags of the others (fullyResolved, validUTC) may rest on a count that was configured or came with the firmware.

A label is stamped with the first byte of the first navigation message of its epoch (same iTOW).

Flow: framing -> **ubx** -> labels.LabelGate, timing.health; ``encode``: receiver (commands) -> **ubx** -> the line.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Final

from refclock.errors import printable
from refclock.protocols.checksums import ubx_checksum
from refclock.protocols.fixes import UBX_MODES, FixWorth, by_ubx
from refclock.protocols.framing import Frame
from refclock.protocols.labels import STATEMENT_FRESH_NS, Decoded, Epochs, Reject
from refclock.protocols.makers import GPS_LEAPS
from refclock.sample import (
    NS,
    SAWTOOTH_LIMIT_NS,
    Antenna,
    FixMode,
    HealthReport,
    Instant,
    LabelProtocol,
    LeapNotice,
    ReceiverValue,
    Satellite,
    Sawtooth,
    SecondLabel,
    SkyView,
    Survey,
)
from refclock.timescales import DAY_S, GPS_EPOCH_S, TAI_GPS_S, WEEK_S, civil_s, window

Message = tuple[int, int]
"""Class and id."""
NAV: Final = 0x01
NAV_STATUS: Final = (NAV, 0x03)
NAV_SOL: Final = (NAV, 0x06)
NAV_PVT: Final = (NAV, 0x07)
NAV_TIMEGPS: Final = (NAV, 0x20)
NAV_TIMEUTC: Final = (NAV, 0x21)
NAV_TIMELS: Final = (NAV, 0x26)
NAV_SVINFO: Final = (NAV, 0x30)
NAV_SAT: Final = (NAV, 0x35)
NAV_SVIN: Final = (NAV, 0x3B)
NAV_EOE: Final = (NAV, 0x61)
MON_VER: Final = (0x0A, 0x04)
MON_HW: Final = (0x0A, 0x09)
MON_RF: Final = (0x0A, 0x38)
TIM_TP: Final = (0x0D, 0x01)
TIM_SVIN: Final = (0x0D, 0x04)
SEC_SIG: Final = (0x27, 0x09)
EPOCH_IDS: Final = frozenset(bytes.fromhex("01 02 03 04 06 07 11 12 20 21 22 23 24 25 26 30 32 35 43"))
"""Ids of the NAV messages that begin with iTOW and are sent within the epoch that it names."""

ACCURATE_NS: Final = 10_000
"""ns; above it a receiver's own accuracy estimate says that it has no fix. The estimate grows: a 0.5 ppm TCXO passes this after 20 s."""
LEAP_SKY: Final = frozenset((1, 2, 3, 4, 5, 8))
"""srcOfCurrLs of NAV-TIMELS for a count from satellites: GLONASS (difference to GPS), GPS, SBAS, BeiDou, Galileo, NavIC. Not: 0 firmware, 6
aided, 7 configured, 255 unknown."""
LEAP_UNKNOWN: Final = 255
LEAP_UNNAMED: Final = frozenset((0, LEAP_UNKNOWN))
"""srcOfCurrLs of a receiver that has not heard the count yet: the firmware's own, unknown."""
PS_PER_NS: Final = 1000

GNSS: Final = {0: "GPS", 1: "SBAS", 2: "Galileo", 3: "BeiDou", 4: "IMES", 5: "QZSS", 6: "GLONASS", 7: "NavIC"}
"""gnssId of a satellite; gpsd has taken it over (gpsd_json(5))."""
_NUMBERED: Final = ((1, 32, "GPS", 0), (33, 64, "BeiDou", 27), (65, 96, "GLONASS", 64), (120, 158, "SBAS", 0), (159, 163, "BeiDou", 158))
"""From, to, system, number to subtract: satellite numbers of NAV-SVINFO (u-blox 8 protocol specification, satellite numbering)."""
_ANTENNA: Final = {2: Antenna.OK, 3: Antenna.SHORT, 4: Antenna.OPEN}
"""aStatus and antStatus; 0 initialising and 1 not known are UNKNOWN."""
_PVT = struct.Struct("<IHBBBBBBIiBBBB")
_PVT_PLACE = struct.Struct("<ii")
_TIMEUTC = struct.Struct("<IIiHBBBBBB")
_TIMEGPS = struct.Struct("<IihbBI")
_TIMELS = struct.Struct("<IB3xBbBbiHH3xB")
_TIM_TP = struct.Struct("<IIiHBB")
_SAT = struct.Struct("<BBBbhhI")
_SVINFO = struct.Struct("<BBBBBbh")
_LIST_AT, _ROW_BYTES = 8, 12
"""NAV-SAT and NAV-SVINFO: bytes before the first satellite, and of each."""
_NAV_SVIN = struct.Struct("<Iiii")
_TIM_SVIN = struct.Struct("<IiiiIIBB")


def encode(message_class: int, message_id: int, payload: bytes = b"") -> bytes:
    """A complete UBX frame (u-blox protocol specification, UBX frame structure); an empty payload polls."""
    body = struct.pack("<BBH", message_class, message_id, len(payload)) + payload
    return b"\xb5\x62" + body + ubx_checksum(body)


class UbxDecoder:
    """One receiver's messages. ``identity`` is what MON-VER says, "" before."""

    def __init__(self, not_before_s: int) -> None:
        self.not_before_s = not_before_s
        self.identity = ""
        self._mode = FixMode.NONE
        self._mode_at: int | None = None
        self._worth = FixWorth.NONE
        self._epochs = Epochs(WEEK_S * 1000)
        self._first: Instant | None = None  # when the epoch of the last navigation message began to be stated
        self._utc_at: int | None = None  # when a message last gave UTC itself
        self._unsure = False  # NAV-TIMELS said last that the leap count is not from satellites
        self._sky_count: int | None = None  # GPS - UTC as it last came from satellites, s
        self._count_source = 0  # what it named instead
        self._insertion: tuple[int, int] | None = None  # (POSIX midnight, GPS leap count before it) of an announced 23:59:60
        self._handlers: dict[Message, tuple[int, Callable[[bytes, Instant], ReceiverValue | Reject | None]]] = {
            NAV_PVT: (84, self._pvt),  # 84 bytes before protocol version 15, 92 since
            NAV_TIMEUTC: (20, self._timeutc),
            NAV_TIMEGPS: (16, self._timegps),
            NAV_TIMELS: (24, self._timels),
            NAV_STATUS: (16, self._status),
            NAV_SOL: (52, self._sol),
            NAV_SAT: (8, self._sat),
            NAV_SVINFO: (8, self._svinfo),
            TIM_TP: (16, self._tim_tp),
            MON_VER: (40, self._mon_ver),
        }

    def decode(self, frame: Frame) -> Decoded:
        """What the message says: a value of time, the receiver's health, both or nothing. Never raises."""
        message, payload = (frame.data[0], frame.data[1]), frame.data[2:]
        if message[0] == NAV and message[1] in EPOCH_IDS and len(payload) >= 4:
            epoch = int.from_bytes(payload[:4], "little")
            self._epochs.begins(epoch, f"{message[1]:02x}", frame.at)
            self._first = next(iter(self._epochs.arrivals(epoch, frame.at).values()))
        values: list[ReceiverValue] = []
        examine = _HEALTH.get(message)
        if examine is not None and (report := examine(payload, frame.at)) is not None:
            values.append(report)
        known = self._handlers.get(message)
        if known is None:
            return Decoded(values)
        shortest, handler = known
        if len(payload) < shortest:
            return Decoded(values, Reject.BAD_FIELDS if payload else None)  # an empty one is a poll that somebody echoed
        value = handler(payload, frame.at)
        if isinstance(value, Reject):
            return Decoded(values, value)
        if value is not None:
            values.append(value)
        return Decoded(values)

    def _fix(self, fix: int, flags: int, at: Instant) -> None:
        """Take a statement of the fix: gpsFix or fixType, and the flags whose first bit says that it is one."""
        self._worth, self._mode_at = by_ubx(fix, bool(flags & 1)), at.mono_ns
        self._mode = UBX_MODES[fix] if self._worth.measured else FixMode.NONE

    def _doubtful(self, accuracy_ns: int, at: Instant) -> Reject | None:
        """Why there is no fix: none is stated, or nothing is said of it and the receiver's own estimate is poor. None when there is one."""
        if self._mode_at is not None and at.mono_ns - self._mode_at < STATEMENT_FRESH_NS:
            return None if self._worth.measured else self._worth.reject
        return Reject.NO_FIX if accuracy_ns > ACCURATE_NS else None

    # ---- messages ----------------------------------------------------------------------------------------------------------------

    def _pvt(self, payload: bytes, at: Instant) -> SecondLabel | Reject:
        _tow, year, month, day, hour, minute, second, valid, _accuracy, nano, fix, flags, _flags2, _used = _PVT.unpack_from(payload)
        self._fix(fix, flags, at)
        if valid & 7 != 7:  # validDate, validTime, fullyResolved
            return self._unresolved()
        if not self._worth.measured:
            return self._worth.reject
        self._utc_at = at.mono_ns
        return self._label("NAV-PVT", civil_s(year, month, day), (hour, minute, second), nano, at)

    def _timeutc(self, payload: bytes, at: Instant) -> SecondLabel | Reject:
        _tow, accuracy, nano, year, month, day, hour, minute, second, valid = _TIMEUTC.unpack_from(payload)
        if valid & 7 != 7:  # validTOW, validWKN, validUTC
            return self._unresolved()
        if (doubt := self._doubtful(accuracy, at)) is not None:
            return doubt
        self._utc_at = at.mono_ns
        return self._label("NAV-TIMEUTC", civil_s(year, month, day), (hour, minute, second), nano, at)

    def _timegps(self, payload: bytes, at: Instant) -> SecondLabel | Reject | None:
        tow_ms, sub_ns, week, leap_s, valid, accuracy = _TIMEGPS.unpack_from(payload)
        if self._utc_at is not None and at.mono_ns - self._utc_at < STATEMENT_FRESH_NS:
            return None
        if valid & 7 != 7:  # towValid, weekValid, leapSValid
            return self._unresolved()
        if (doubt := self._doubtful(accuracy, at)) is not None:
            return doubt
        ns = tow_ms * 1_000_000 + sub_ns + NS * (GPS_EPOCH_S + week * WEEK_S - leap_s)
        # Until the receiver's count changes, a second 23:59:60 looks like the midnight that it delays.
        second_60 = self._insertion == (ns // NS, leap_s)
        return self._placed("NAV-TIMEGPS", ns - NS * second_60, second_60, at)

    def _label(self, kind: str, midnight_s: int | None, clock: tuple[int, int, int], nano: int, at: Instant) -> SecondLabel | Reject:
        """``clock``: hour, minute, second; ``nano``: -1e9..1e9, for the fields are rounded to the nearest second."""
        hour, minute, second = clock
        if midnight_s is None:
            return Reject.BAD_DATE
        if hour > 23 or minute > 59 or second > 60 or abs(nano) > NS:
            return Reject.BAD_TIME
        second_60 = second == 60
        return self._placed(kind, (midnight_s + hour * 3600 + minute * 60 + second - second_60) * NS + nano, second_60, at)

    def _placed(self, kind: str, utc_ns: int, second_60: bool, at: Instant) -> SecondLabel | Reject:
        placed = window(utc_ns // NS, self.not_before_s)
        if placed is None:
            return Reject.DATE_WINDOW
        first = self._first or at
        return SecondLabel(placed[0] * NS + utc_ns % NS, first, kind, second_60, not self._unsure, placed[1], LabelProtocol.UBX)

    def _unresolved(self) -> Reject:
        """The receiver does not claim to know UTC yet. When it does, that is newer than a NAV-TIMELS that named no count. An aided or
        configured count stays what it is."""
        if self._count_source in LEAP_UNNAMED:
            self._unsure = False
        return Reject.UNRESOLVED

    def _timels(self, payload: bytes, at: Instant) -> LeapNotice | None:
        """NAV-TIMELS. A count that came from satellites once stays known, whatever source is named later: a M8T that had it from GLONASS
        calls the source unknown when it has heard of the next leap second (recording gpsd-u-blox-m8t-time). So an unknown source of a
        valid count proves nothing, and denies nothing either."""
        _tow, _version, source, current, _change_source, change, to_event, week, day, valid = _TIMELS.unpack_from(payload)
        if valid & 1 and source in LEAP_SKY and current in GPS_LEAPS:
            self._sky_count = current
        known = bool(valid & 1) and current == self._sky_count
        self._unsure, self._count_source = not known, source
        step, midnight = 0, None
        if valid & 2 and to_event > 0 and change in (1, -1) and 1 <= day <= 7:
            # The leap second ends that day: day 1 is Sunday, the week's first.
            placed = window(GPS_EPOCH_S + week * WEEK_S + day * DAY_S, self.not_before_s)
            if placed is not None:
                step, midnight = change, placed[0]
                self._insertion = (midnight, current) if step > 0 else None
        if source == LEAP_UNKNOWN and valid & 1 and not known and not step:
            return None
        return LeapNotice(current + TAI_GPS_S if known else None, step, midnight, at)

    def _tim_tp(self, payload: bytes, at: Instant) -> Sawtooth | None:
        """TIM-TP, about the *next* pulse. qErr is added to the pulse's time to get the true second (F9T against a reference clock:
        anderswallin.net 2019/10 "ublox-f9t-qerr-correction"). A Sawtooth states by how much the pulse is late: minus qErr."""
        tow_ms, sub_ms, error_ps, week, flags, _info = _TIM_TP.unpack_from(payload)
        known = not flags & 0x10 and abs(error_ps) < SAWTOOTH_LIMIT_NS * PS_PER_NS  # qErrInvalid
        utc_ns = None
        if flags & 3 == 3:  # time base UTC, UTC available
            tow_ns = tow_ms * 1_000_000 + (sub_ms * 1_000_000 >> 32)
            placed = window(GPS_EPOCH_S + week * WEEK_S, self.not_before_s)
            utc_ns = placed[0] * NS + tow_ns if placed else None
        return Sawtooth(-error_ps / PS_PER_NS if known else 0.0, utc_ns, at) if known or utc_ns is not None else None

    def _status(self, payload: bytes, at: Instant) -> None:
        self._fix(payload[4], payload[5], at)

    def _sol(self, payload: bytes, at: Instant) -> None:
        self._fix(payload[10], payload[11], at)

    def _sat(self, payload: bytes, at: Instant) -> SkyView | Reject:
        return self._sky(payload, payload[5], _sat_row, at)

    def _svinfo(self, payload: bytes, at: Instant) -> SkyView | Reject:
        return self._sky(payload, payload[4], _svinfo_row, at)

    def _sky(self, payload: bytes, count: int, row: Callable[[bytes, int], Satellite], at: Instant) -> SkyView | Reject:
        """A list of ``count`` satellites, each read by ``row`` (payload, where it begins)."""
        if len(payload) < _LIST_AT + _ROW_BYTES * count:
            return Reject.BAD_FIELDS
        satellites = tuple(row(payload, _LIST_AT + _ROW_BYTES * i) for i in range(count))
        fresh = self._mode_at is not None and at.mono_ns - self._mode_at < STATEMENT_FRESH_NS
        return SkyView(self._mode if fresh else FixMode.NONE, sum(s.used for s in satellites), satellites, at)

    def _mon_ver(self, payload: bytes, _at: Instant) -> None:
        parts = [payload[0:30], payload[30:40]] + [payload[i : i + 30] for i in range(40, len(payload), 30)]
        texts = [printable(part.partition(b"\0")[0].decode("ascii", "replace")).strip() for part in parts]
        model = [text[4:] for text in texts if text.startswith("MOD=")]
        self.identity = " ".join(filter(None, ["u-blox", *model, texts[0], f"hardware {texts[1]}" if texts[1] else ""]))


def _sat_row(payload: bytes, begin: int) -> Satellite:
    """NAV-SAT (u-blox 8 and later). Orbit source 0: elevation and azimuth are not known."""
    gnss, number, snr, elevation, azimuth, _residual, flags = _SAT.unpack_from(payload, begin)
    placed = -90 <= elevation <= 90 and flags >> 8 & 7
    return Satellite(
        GNSS.get(gnss, str(gnss)), number, elevation if placed else None, azimuth if placed else None, snr or None, bool(flags & 8)
    )


def _svinfo_row(payload: bytes, begin: int) -> Satellite:
    """NAV-SVINFO (u-blox 6 and 7). Flags: bit 0 used, bit 2 orbit information available."""
    _channel, number, flags, _quality, snr, elevation, azimuth = _SVINFO.unpack_from(payload, begin)
    system, offset = next(((name, less) for low, high, name, less in _NUMBERED if low <= number <= high), (str(number), 0))
    placed = -90 <= elevation <= 90 and flags & 4
    return Satellite(system, number - offset, elevation if placed else None, azimuth if placed else None, snr or None, bool(flags & 1))


# ---- the receiver's health -----------------------------------------------------------------------------------------------------------


def mon_hw(payload: bytes, at: Instant) -> HealthReport | None:
    """MON-HW: 60 bytes in u-blox 7 and 8, 68 in 6; antenna status and flags precede the part that differs."""
    if len(payload) not in (60, 68):
        return None
    return HealthReport(at, antenna=_ANTENNA.get(payload[20], Antenna.UNKNOWN), jamming=payload[22] >> 2 & 3)


def mon_rf(payload: bytes, at: Instant) -> HealthReport | None:
    """MON-RF: a block for each RF path; the worst of them counts, and a path without an antenna supervisor says nothing."""
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
    """What NAV-SVIN (``keyed``; accuracy in 0.1 mm, coordinates in cm and 0.1 mm) or TIM-SVIN (variance in mm², coordinates in cm) says;
    None when it is too short. A receiver that does no survey, or was given its position, reports a survey of 0 s."""
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


_HEALTH: Final[Mapping[Message, Callable[[bytes, Instant], HealthReport | None]]] = {
    MON_HW: mon_hw,
    MON_RF: mon_rf,
    SEC_SIG: sec_sig,
    NAV_STATUS: nav_status,
    NAV_SVIN: nav_svin,
    TIM_SVIN: tim_svin,
    NAV_PVT: nav_pvt,
}
