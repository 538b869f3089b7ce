"""u-blox UBX messages to labels, leap notices, sawtooth and sky views; and payloads to frames.

Flow: framing (which verifies the checksum) -> **ubx** -> labels.LabelGate. Field layouts: u-blox 8/M8 and F9 protocol specifications,
one section per message. All integers are little-endian.

What names a second:

* NAV-PVT with validDate, validTime, fullyResolved ("no seconds uncertainty", so the leap count is in it), gnssFixOK and a fix type of
  2D, 3D, combined or time-only (a surveyed-in timing receiver);
* NAV-TIMEUTC with all its valid bits, NAV-TIMEGPS with all of its (leap seconds valid), while another message states a fix; without such a
  message while its own accuracy estimate is below ``ACCURATE_NS``.

A label is stamped with the first byte of the first navigation message of its epoch (same iTOW).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from typing import Final

from refclock.framing import Frame, ubx_checksum
from refclock.labels import FRESH_NS, Reject, civil_s, window
from refclock.proprietary import TAI_GPS_S
from refclock.sample import NS, FixMode, HealthReport, Instant, LeapNotice, Satellite, Sawtooth, SecondLabel, SkyView
from refclock.timescales import DAY_S, WEEK_S
from refclock.ubx_health import MESSAGES as HEALTH_MESSAGES

UbxValue = SecondLabel | LeapNotice | Sawtooth | SkyView | HealthReport
UbxAnswer = UbxValue | Reject | None

GPS_EPOCH_S = 315_964_800
"""1980-01-06 (IS-GPS-200 section 3.3.4)."""
ACCURATE_NS = 10_000
"""A receiver that loses its fix lets its accuracy estimate grow; a 0.5 ppm TCXO passes this after 20 s."""
CYCLE_NS = 800_000_000
SAWTOOTH_MAX_PS = 1_000_000
"""Beyond one microsecond it is no quantisation error: a period of the slowest u-blox time base is 48 ns."""

NAV: Final = 0x01
TIM_TP: Final = (0x0D, 0x01)
MON_VER: Final = (0x0A, 0x04)
NAV_STATUS: Final = (NAV, 0x03)
NAV_SOL: Final = (NAV, 0x06)
NAV_PVT: Final = (NAV, 0x07)
NAV_TIMEGPS: Final = (NAV, 0x20)
NAV_TIMEUTC: Final = (NAV, 0x21)
NAV_TIMELS: Final = (NAV, 0x26)
NAV_SVINFO: Final = (NAV, 0x30)
NAV_SAT: Final = (NAV, 0x35)
EPOCH_MESSAGES = frozenset(bytes.fromhex("01 02 03 04 06 07 11 12 20 21 22 23 24 25 26 30 32 35 43"))
"""NAV messages that begin with iTOW and are sent within the epoch that it names."""

_TIME_ONLY = 5
_FIXES = {2: FixMode.FIX_2D, 3: FixMode.FIX_3D, 4: FixMode.FIX_3D, _TIME_ONLY: FixMode.TIME_ONLY}
"""gpsFix and fixType: 0 none, 1 dead reckoning only, 4 GNSS and dead reckoning combined, 5 time only."""
_GNSS = {0: "GPS", 1: "SBAS", 2: "Galileo", 3: "BeiDou", 5: "QZSS", 6: "GLONASS", 7: "NavIC"}
_PVT = struct.Struct("<IHBBBBBBIiBBBB")
_TIMEUTC = struct.Struct("<IIiHBBBBBB")
_TIMEGPS = struct.Struct("<IihbBI")
_TIMELS = struct.Struct("<IB3xBbBbiHH3xB")
_TIM_TP = struct.Struct("<IIiHBB")
_SAT = struct.Struct("<BBBbhhI")
_SVINFO = struct.Struct("<BBBBBbh")
_NUMBERED = ((1, 32, "GPS", 0), (33, 64, "BeiDou", 27), (65, 96, "GLONASS", 64), (120, 158, "SBAS", 0), (159, 163, "BeiDou", 158))
"""From, to, system, what is taken off: satellite numbers of NAV-SVINFO (u-blox 8 protocol specification, satellite numbering)."""


def encode(message_class: int, message_id: int, payload: bytes = b"") -> bytes:
    """A complete UBX frame (u-blox protocol specification, UBX frame structure); an empty payload polls."""
    body = struct.pack("<BBH", message_class, message_id, len(payload)) + payload
    return b"\xb5\x62" + body + ubx_checksum(body)


class UbxDecoder:
    """One receiver's messages. ``rejected`` counts by reason; ``identity`` is what MON-VER says, "" before."""

    def __init__(self, not_before_s: int) -> None:
        self.not_before_s = not_before_s
        self.rejected: Counter[str] = Counter()
        self.identity = ""
        self._mode = FixMode.NONE
        self._mode_at: int | None = None
        self._epoch: int | None = None
        self._epoch_at: Instant | None = None
        self._utc_at: int | None = None  # when a message last gave UTC itself
        self._insertion: tuple[int, int] | None = None  # (POSIX midnight, GPS leap count before it) of an announced 23:59:60
        self._handlers: dict[tuple[int, int], tuple[int, Callable[[bytes, Instant], UbxAnswer]]] = {
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

    def decode(self, frame: Frame) -> list[UbxValue]:
        """What the message says: a value of time, the receiver's health, both or nothing. Never raises."""
        message, payload = (frame.data[0], frame.data[1]), frame.data[2:]
        if message[0] == NAV and message[1] in EPOCH_MESSAGES and len(payload) >= 4:
            epoch = int.from_bytes(payload[:4], "little")
            if epoch != self._epoch:
                self._epoch, self._epoch_at = epoch, frame.at
        values: list[UbxValue] = []
        examine = HEALTH_MESSAGES.get(message)
        if examine is not None and (report := examine(payload, frame.at)) is not None:
            values.append(report)
        known = self._handlers.get(message)
        if known is None:
            return values
        shortest, handler = known
        if len(payload) < shortest:
            if payload:  # an empty one is a poll that somebody echoed
                self.rejected[Reject.BAD_FIELDS] += 1
            return values
        value = handler(payload, frame.at)
        if isinstance(value, Reject):
            self.rejected[value] += 1
        elif value is not None:
            values.append(value)
        return values

    def _stamp(self, at: Instant) -> Instant:
        epoch_at = self._epoch_at
        return epoch_at if epoch_at is not None and 0 <= at.mono_ns - epoch_at.mono_ns <= CYCLE_NS else at

    def _fix(self, mode: FixMode, at: Instant) -> None:
        self._mode, self._mode_at = mode, at.mono_ns

    def _doubtful(self, accuracy_ns: int, at: Instant) -> bool:
        """No fix is stated, or none is stated at all and the receiver's own estimate is poor."""
        if self._mode_at is not None and at.mono_ns - self._mode_at < FRESH_NS:
            return self._mode is FixMode.NONE
        return accuracy_ns > ACCURATE_NS

    # ---- messages ----------------------------------------------------------------------------------------------------------------

    def _pvt(self, payload: bytes, at: Instant) -> UbxAnswer:
        _tow, year, month, day, hour, minute, second, valid, _accuracy, nano, fix, flags, _flags2, _used = _PVT.unpack_from(payload)
        mode = _FIXES.get(fix, FixMode.NONE) if flags & 1 else FixMode.NONE
        self._fix(mode, at)
        if valid & 7 != 7:  # validDate, validTime, fullyResolved
            return Reject.UNRESOLVED
        if mode is FixMode.NONE:
            return Reject.NO_FIX
        self._utc_at = at.mono_ns
        return self._label("NAV-PVT", civil_s(year, month, day), (hour, minute, second), nano, at)

    def _timeutc(self, payload: bytes, at: Instant) -> UbxAnswer:
        _tow, accuracy, nano, year, month, day, hour, minute, second, valid = _TIMEUTC.unpack_from(payload)
        if valid & 7 != 7:  # validTOW, validWKN, validUTC
            return Reject.UNRESOLVED
        if self._doubtful(accuracy, at):
            return Reject.NO_FIX
        self._utc_at = at.mono_ns
        return self._label("NAV-TIMEUTC", civil_s(year, month, day), (hour, minute, second), nano, at)

    def _timegps(self, payload: bytes, at: Instant) -> UbxAnswer:
        tow_ms, sub_ns, week, leap_s, valid, accuracy = _TIMEGPS.unpack_from(payload)
        if self._utc_at is not None and at.mono_ns - self._utc_at < FRESH_NS:
            return None
        if valid & 7 != 7:  # towValid, weekValid, leapSValid
            return Reject.UNRESOLVED
        if self._doubtful(accuracy, at):
            return Reject.NO_FIX
        ns = tow_ms * 1_000_000 + sub_ns + NS * (GPS_EPOCH_S + week * WEEK_S - leap_s)
        # Until the receiver's count changes, a second 23:59:60 looks like the midnight that it delays.
        second_60 = self._insertion == (ns // NS, leap_s)
        return self._placed("NAV-TIMEGPS", ns - NS * second_60, second_60, at)

    def _label(self, kind: str, midnight_s: int | None, clock: tuple[int, int, int], nano: int, at: Instant) -> UbxAnswer:
        """``clock``: hour, minute, second; ``nano``: -1e9..1e9, for the fields are rounded to the nearest second."""
        hour, minute, second = clock
        if midnight_s is None:
            return Reject.BAD_DATE
        if hour > 23 or minute > 59 or second > 60 or abs(nano) > NS:
            return Reject.BAD_TIME
        second_60 = second == 60
        return self._placed(kind, (midnight_s + hour * 3600 + minute * 60 + second - second_60) * NS + nano, second_60, at)

    def _placed(self, kind: str, utc_ns: int, second_60: bool, at: Instant) -> UbxAnswer:
        placed = window(utc_ns // NS, self.not_before_s)
        if placed is None:
            return Reject.DATE_WINDOW
        return SecondLabel(placed[0] * NS + utc_ns % NS, self._stamp(at), kind, second_60, True, placed[1])

    def _timels(self, payload: bytes, at: Instant) -> UbxAnswer:
        """NAV-TIMELS. Source 0 is the firmware's built-in count, which may be years old; 255 unknown."""
        _tow, _version, source, current, _change_source, change, to_event, week, day, valid = _TIMELS.unpack_from(payload)
        known = bool(valid & 1) and source not in (0, 255)
        step, midnight = 0, None
        if valid & 2 and to_event > 0 and change in (1, -1) and 1 <= day <= 7:
            # The leap second ends that day: day 1 is Sunday, the week's first.
            placed = window(GPS_EPOCH_S + week * WEEK_S + day * DAY_S, self.not_before_s)
            if placed is not None:
                step, midnight = change, placed[0]
                self._insertion = (midnight, current) if step > 0 else None
        return LeapNotice(current + TAI_GPS_S if known else None, step, midnight, at)

    def _tim_tp(self, payload: bytes, at: Instant) -> UbxAnswer:
        """TIM-TP: of the *next* pulse. qErr is what has to be **added** to the pulse's time to get the true second (F9T against a
        reference clock: anderswallin.net 2019/10 "ublox-f9t-qerr-correction"), so ours, "pulse late by", is minus qErr."""
        tow_ms, sub_ms, error_ps, week, flags, _info = _TIM_TP.unpack_from(payload)
        known = not flags & 0x10 and abs(error_ps) <= SAWTOOTH_MAX_PS  # qErrInvalid
        utc_ns = None
        if flags & 3 == 3:  # time base UTC, UTC available
            tow_ns = tow_ms * 1_000_000 + (sub_ms * 1_000_000 >> 32)
            placed = window(GPS_EPOCH_S + week * WEEK_S, self.not_before_s)
            utc_ns = placed[0] * NS + tow_ns if placed else None
        return Sawtooth(-error_ps / 1000 if known else 0.0, utc_ns, at) if known or utc_ns is not None else None

    def _status(self, payload: bytes, at: Instant) -> UbxAnswer:
        self._fix(_FIXES.get(payload[4], FixMode.NONE) if payload[5] & 1 else FixMode.NONE, at)
        return None

    def _sol(self, payload: bytes, at: Instant) -> UbxAnswer:
        self._fix(_FIXES.get(payload[10], FixMode.NONE) if payload[11] & 1 else FixMode.NONE, at)
        return None

    def _sat(self, payload: bytes, at: Instant) -> UbxAnswer:
        count = payload[5]
        if len(payload) < 8 + 12 * count:
            return Reject.BAD_FIELDS
        satellites = []
        for i in range(count):
            gnss, number, snr, elevation, azimuth, _residual, flags = _SAT.unpack_from(payload, 8 + 12 * i)
            placed = -90 <= elevation <= 90 and flags >> 8 & 7  # orbit source 0: no elevation and azimuth
            if not placed:
                elevation = azimuth = None
            satellites.append(Satellite(_GNSS.get(gnss, str(gnss)), number, elevation, azimuth, snr or None, bool(flags & 8)))
        return self._sky(satellites, at)

    def _sky(self, satellites: list[Satellite], at: Instant) -> SkyView:
        fresh = self._mode_at is not None and at.mono_ns - self._mode_at < FRESH_NS
        return SkyView(self._mode if fresh else FixMode.NONE, sum(s.used for s in satellites), tuple(satellites), at)

    def _svinfo(self, payload: bytes, at: Instant) -> UbxAnswer:
        """NAV-SVINFO, the NAV-SAT of u-blox 6 and 7; bit 0 of the flags: used."""
        count = payload[4]
        if len(payload) < 8 + 12 * count:
            return Reject.BAD_FIELDS
        satellites = []
        for i in range(count):
            _channel, number, flags, _quality, snr, elevation, azimuth = _SVINFO.unpack_from(payload, 8 + 12 * i)
            system, offset = next(((n, less) for low, high, n, less in _NUMBERED if low <= number <= high), ("", 0))
            placed = -90 <= elevation <= 90 and flags & 4  # orbit information available
            satellites.append(
                Satellite(
                    system or str(number),
                    number - offset,
                    elevation if placed else None,
                    azimuth if placed else None,
                    snr or None,
                    bool(flags & 1),
                )
            )
        return self._sky(satellites, at)

    def _mon_ver(self, payload: bytes, _at: Instant) -> UbxAnswer:
        parts = [payload[0:30], payload[30:40]] + [payload[i : i + 30] for i in range(40, len(payload), 30)]
        texts = [part.partition(b"\0")[0].decode("ascii", "replace").strip() for part in parts]
        model = [text[4:] for text in texts if text.startswith("MOD=")]
        self.identity = " ".join(filter(None, ["u-blox", *model, texts[0], f"hardware {texts[1]}" if texts[1] else ""]))
        return None
