"""gpsd's JSON stream to labels, sky views and pulses (gpsd-py3 behind this door).

The objects are described in gpsd_json(5). gpsd names every second several times, as its picture of the cycle grows: the gate lets the first
through. A label is stamped when its line arrived, so its delay contains gpsd's own. Where a TOFF object says when the receiver's message
arrived at gpsd, ``arrived`` has that. A PPS object is a pulse as gpsd saw it: its second, the stamp of its host's clock, and the receiver's
quantisation error.

gpsd keeps one leap count for all its receivers and tells it in the TPV of each. It is a witness for a receiver only while that is the only
one that this gpsd has had since we are connected.

gpsd-py3 reads fix and satellites out of the objects. Its connection blocks and knows no PPS objects, and its clock cannot hold second 60:
stream and time are read here.

Flow: ``exchange.gpsd`` -> **gpsd** -> SecondLabel and SkyView (to ``timing.receiver_time``), GpsdPulse (to ``ppsd.clock.sources``).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import gpsd

from refclock.protocols.labels import STATEMENT_FRESH_NS, LabelGate, Reject, named_second, second_of
from refclock.protocols.reasons import Unlabelled
from refclock.protocols.ubx import GNSS
from refclock.sample import NS, SAWTOOTH_LIMIT_NS, FixMode, Instant, LabelProtocol, LineStatus, Satellite, SecondLabel, SkyView
from refclock.timescales import civil_s, window

WATCH: Final = b'?WATCH={"enable":true,"json":true,"pps":true};\n'
"""The command that makes gpsd report everything, pulses included (gpsd_json(5))."""
LINE_BYTES: Final = 65_536
"""Bytes; a longer line is dropped. Six times gpsd's own limit for one object (GPS_JSON_RESPONSE_MAX, 10240)."""
NO_RECEIVERS: Final = ("/dev/pps", "ntrip://", "dgpsip://")
"""Beginnings of the names of devices that give gpsd no position or time of their own: pulses and corrections (gpsd(8))."""
RECEIVERS_MAX: Final = 16
"""Receivers whose names are kept. One or more is what counts."""
LAST_S: Final = 1 << 33
"""POSIX s, in 2242; a stamp of gpsd from then on is nonsense (int64 ns end in 2262)."""
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)


class Broken(StrEnum):
    """Why a line was not read at all; labels.Reject says why an object gave nothing."""

    TOO_LONG = "line-too-long"
    NOT_JSON = "not-json"  # not one JSON object with a class


@dataclass(frozen=True, slots=True)
class GpsdPulse:
    """gpsd saw the pulse of UTC ``real_ns`` when CLOCK_REALTIME of its host read ``clock_ns``. ``precision``: log2 s, as gpsd states it.
    ``early_ns``: add it to the stamp (the receiver's qErr, which gpsd reports and does not apply)."""

    real_ns: int
    clock_ns: int
    precision: int
    early_ns: float = 0.0


GpsdValue = SecondLabel | SkyView | GpsdPulse
Stamps = tuple[int, int, int]
"""POSIX UTC (ns), CLOCK_REALTIME of gpsd's host (ns), precision (log2 s)."""


class GpsdStream:
    """The bytes of one connection; a new connection needs a new stream. ``not_before_s``: as in ``timescales.window``. ``device``: the one
    of gpsd's receivers to hear; "": the one heard first, until it falls silent.

    ``version``: of gpsd; ``receivers``: the devices of all that it has named so far; ``sky``: the last view; ``rejected`` counts by reason.
    """

    def __init__(self, not_before_s: int, device: str = "") -> None:
        self.not_before_s = not_before_s
        self.gate = LabelGate()
        self.rejected: Counter[str] = Counter()
        self.version = ""
        self.receivers: tuple[str, ...] = ()
        self.sky: SkyView | None = None
        self._wanted = device
        self._unlabelled = Unlabelled()
        self._heard: tuple[str, int] | None = None  # (device, mono_ns of its last object)
        self._line = bytearray()
        self._skipping = False
        self._mode = FixMode.NONE
        self._arrival: tuple[int, int] | None = None  # (UTC named, host's CLOCK_REALTIME when the receiver's message came)

    def arrived(self, label: SecondLabel) -> int | None:
        """CLOCK_REALTIME (ns) of gpsd's host when the message with this second arrived there; None when gpsd did not say."""
        arrival = self._arrival
        return arrival[1] if arrival is not None and second_of(label) == named_second(arrival[0]) else None

    def feed(self, data: bytes, at: Instant) -> list[GpsdValue]:
        """What a read brought; ``at``: when it ended. Never raises for what gpsd sends."""
        values: list[GpsdValue] = []
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._extend(piece)
            if not self._skipping and self._line.strip():
                values += self._object(bytes(self._line), at)
            self._line.clear()
            self._skipping = False
        self._extend(rest)
        return values

    def _extend(self, piece: bytes) -> None:
        if not self._skipping and len(self._line) + len(piece) > LINE_BYTES:
            self._skipping = True
            self._line.clear()
            self.rejected[Broken.TOO_LONG] += 1
        if not self._skipping:
            self._line += piece

    def _object(self, line: bytes, at: Instant) -> list[GpsdValue]:
        try:
            found: Any = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("class"), str):
            self.rejected[Broken.NOT_JSON] += 1
            return []
        match found["class"]:
            case "TPV" | "SKY" | "PPS" | "TOFF" if not self._ours(found.get("device"), at):
                return []
            case "TPV":
                return self._tpv(found, at)
            case "SKY":
                return self._sky(found, at)
            case "PPS":
                return self._pps(found)
            case "TOFF":
                stamps = self._counted(_stamps(found, self.not_before_s)) if "real_sec" in found else None
                self._arrival = stamps[:2] if stamps is not None else None
            case "VERSION":
                self.version = _plain(found.get("release"))
            case "DEVICES":
                listed = found.get("devices")
                devices = listed if isinstance(listed, list) else []
                for device in devices:
                    self._device(device)
            case "DEVICE":
                self._device(found)
            case "WATCH" | "GST" | "ATT" | "IMU" | "OSC" | "POLL":
                pass  # nothing about time that TPV and PPS do not say better
            case _:
                self.rejected[Reject.UNKNOWN] += 1
        return []

    def _device(self, found: object) -> None:
        path = _plain(found.get("path")) if isinstance(found, dict) else ""
        if path and not path.startswith(NO_RECEIVERS) and path not in self.receivers and len(self.receivers) < RECEIVERS_MAX:
            self.receivers = (*self.receivers, path)

    def _ours(self, device: object, at: Instant) -> bool:
        name = device if isinstance(device, str) else ""
        if self._wanted:
            return name == self._wanted
        if self._heard is None or self._heard[0] == name or at.mono_ns - self._heard[1] > STATEMENT_FRESH_NS:
            self._heard = (name, at.mono_ns)
            return True
        return False

    def _tpv(self, tpv: dict[str, Any], at: Instant) -> list[GpsdValue]:
        response = _response(tpv, {})
        if response is None or type(response.mode) is not int or not 0 <= response.mode <= 3:
            self._stated(Reject.BAD_FIELDS, at)
            return []
        values: list[GpsdValue] = []
        mode = FixMode(max(1, response.mode))
        if mode is not self._mode:
            self._mode = mode
            if self.sky is not None:
                self.sky = SkyView(mode, self.sky.used, self.sky.satellites, at)
                values.append(self.sky)
        if mode is FixMode.NONE:
            self._stated(Reject.NO_FIX, at)
            return values
        leap_known = type(tpv.get("leapseconds")) is int and self.receivers == (tpv.get("device"),)
        label = self._label(response.time, leap_known, at)
        offered = label if isinstance(label, Reject) else self.gate.offer(label, at.mono_ns)
        if isinstance(offered, Reject):
            self._stated(offered, at)
        else:
            self._stated(None, at)
            values.append(offered)
        return values

    def _stated(self, reject: Reject | None, at: Instant) -> None:
        """A TPV stated the time: why it gave no label, None when it gave one."""
        self._unlabelled.stated(reject, at.mono_ns)
        if reject is not None and reject is not Reject.REDUNDANT:
            self.rejected[reject] += 1

    def status(self, now_ns: int) -> LineStatus:
        """What the connection has shown so far, at raw time ``now_ns``."""
        return LineStatus(rejected=dict(self.rejected), unlabelled=self._unlabelled.why(now_ns), fixless=self._unlabelled.fixless)

    def _counted(self, outcome: Stamps | Reject) -> Stamps | None:
        """``outcome``, or None after a Reject was counted."""
        if isinstance(outcome, Reject):
            self.rejected[outcome] += 1
            return None
        return outcome

    def _label(self, text: object, leap_known: bool, at: Instant) -> SecondLabel | Reject:
        """``text``: ISO 8601, as gpsd writes it."""
        if not text:
            return Reject.EMPTY
        found = _TIME.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            return Reject.BAD_TIME
        year, month, day, hour, minute, second = (int(g) for g in found.groups()[:6])
        midnight_s = civil_s(year, month, day)
        if midnight_s is None:
            return Reject.BAD_DATE
        second_60 = (hour, minute, second) == (23, 59, 60)
        if hour > 23 or minute > 59 or (second > 59 and not second_60):
            return Reject.BAD_TIME
        placed = window(midnight_s + hour * 3600 + minute * 60 + second - second_60, self.not_before_s)
        if placed is None:
            return Reject.DATE_WINDOW
        fraction_ns = int((found[7] or "").ljust(9, "0"))
        return SecondLabel(placed[0] * NS + fraction_ns, at, "TPV", second_60, leap_known, placed[1], LabelProtocol.GPSD)

    def _sky(self, sky: dict[str, Any], at: Instant) -> list[GpsdValue]:
        listed = sky.get("satellites")
        if listed is None:
            return []  # only the dilutions of precision
        response = _response({"mode": int(self._mode)}, sky)
        if response is None or not isinstance(listed, list):
            self.rejected[Reject.BAD_FIELDS] += 1
            return []
        satellites = tuple(_satellite(s) for s in listed)
        self.sky = SkyView(self._mode, response.sats_valid, satellites, at)
        return [self.sky]

    def _pps(self, pps: dict[str, Any]) -> list[GpsdValue]:
        stamps = self._counted(_stamps(pps, self.not_before_s))
        if stamps is None:
            return []
        error_ps = pps.get("qErr", 0)
        known = type(error_ps) is int and abs(error_ps) < SAWTOOTH_LIMIT_NS * 1000
        return [GpsdPulse(*stamps, error_ps / 1000 if known else 0.0)]


def _stamps(found: dict[str, Any], not_before_s: int) -> Stamps | Reject:
    """The stamps of a PPS or TOFF object."""
    fields: list[Any] = [found.get(key) for key in ("real_sec", "real_nsec", "clock_sec", "clock_nsec")]
    fields.append(found.get("precision", 0))
    if any(type(f) is not int for f in fields):
        return Reject.BAD_FIELDS
    real_s, real_nsec, clock_s, clock_nsec, precision = fields
    if not (0 <= real_nsec < NS and 0 <= clock_nsec < NS and 0 <= clock_s < LAST_S and -32 <= precision <= 0):
        return Reject.BAD_FIELDS
    placed = window(real_s, not_before_s) if 0 <= real_s < LAST_S else None
    if placed is None:
        return Reject.DATE_WINDOW
    return placed[0] * NS + real_nsec, clock_s * NS + clock_nsec, precision


def _response(tpv: dict[str, Any], sky: dict[str, Any]) -> Any:
    """gpsd-py3's reading of the two objects; None when they lack what it needs or hold something of another kind."""
    try:
        return gpsd.GpsResponse.from_json({"active": 1, "tpv": [tpv], "sky": [sky]})
    except (KeyError, TypeError, AttributeError):
        return None


def _plain(text: object) -> str:
    """A text of gpsd's that people will be shown: printable ASCII, at most 80 characters."""
    return "".join(c for c in text[:80] if c.isascii() and c.isprintable()) if isinstance(text, str) else ""


def _satellite(sat: dict[str, Any]) -> Satellite:
    system, number = sat.get("gnssid"), sat.get("svid", sat.get("PRN"))
    return Satellite(
        GNSS.get(system, "?") if type(system) is int else "GPS",
        number if type(number) is int else 0,
        _whole(sat.get("el")),
        _whole(sat.get("az")),
        _whole(sat.get("ss")),
        sat["used"] is True,
    )


def _whole(value: object) -> int | None:
    """A number of degrees or dB-Hz rounded; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return round(value)
