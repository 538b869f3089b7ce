"""What receivers say besides time and fix, each maker in its own way: leap counts, the antenna, and complaints.

* Leap counts: the sentences of ``COUNTS``, $PUBX,04, and the ``LS=`` texts of CASIC. A count is known when the sentence says that it came
  from satellites: a firmware's own may be years old, one that was stored as well.
* Complaints: texts of the levels error and warning in TXT and UBX-INF. What the receiver answers to a command is none, and the antenna's
  state is told as such.

Flow: nmea, stream -> **makers** -> LeapNotice, HealthReport; complaints to people (``LineStatus.complaints``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from refclock.protocols.framing import Frame, FrameKind
from refclock.sample import NS, Antenna, HealthReport, Instant, LeapNotice
from refclock.timescales import DAY_S, TAI_GPS_S, civil_s

GPS_LEAPS: Final = range(13, 60)
"""s; counts of GPS - UTC that are believed: 13 from 1999, 18 from 2017; beyond 59 it is garbage."""
GPS_BEIDOU_S: Final = 14
"""s; GPS time minus BeiDou time, whose epoch is 2006-01-01 (BDS-SIS-ICD section 3.3)."""


class _Count(NamedTuple):
    """Where a sentence has its leap count (GPS - UTC in s): its field, the field of its provenance, and the values there that mean "from
    satellites"."""

    place: int
    provenance: int
    sky: frozenset[str]


COUNTS: Final[Mapping[str, _Count]] = {
    "PMTKLSC": _Count(1, 2, frozenset("1")),  # MediaTek: 1 when the present count was received
    "PSTMUTC": _Count(4, 5, frozenset("2")),  # STMicroelectronics: 0 not valid, 1 stored, 2 valid (gnss_utc_delta_time_validity_t)
    "PERDCRW,TPS1": _Count(5, 3, frozenset("2")),  # Furuno GT-87: 0 battery clock, 1 GPS or default leap second, 2 confirmed
    "PQTMLS": _Count(5, 3, frozenset("134")),  # Quectel LC29H: 0 no source, 1 GPS, 3 Galileo, 4 BeiDou
    "PGRMF": _Count(5, 11, frozenset("12")),  # Garmin: 0 no fix, 1 2D, 2 3D
}
"""Beginning of a sentence -> its leap count. Sources: the makers' protocol specifications."""
_STATED = re.compile(r"\+?(\d{1,2})")
_PUBX_COUNT = re.compile(r"(\d{1,2})(D?)")
_LEAP_TEXT = re.compile(r"LS=([01]),([0-3]),(\d{0,2}),(\d{0,2}),(?:[^,]*,){6}(-?\d*),(\d{0,6})")
_ANTENNA = re.compile(r"ANT(?:ENNA|STATUS)?[ =:_]*(OK|OPEN|SHORT)\b", re.IGNORECASE)
_ANTENNAS: Final[dict[str, tuple[int, dict[str, Antenna]]]] = {
    "PGTOP,11": (2, {"1": Antenna.SHORT, "2": Antenna.OK, "3": Antenna.OK}),  # shorted, internal, external
    "PCD,11": (2, {"1": Antenna.SHORT, "2": Antenna.OK, "3": Antenna.OK}),
    "PSTMANTENNASTATUS": (1, {"0": Antenna.OK, "1": Antenna.OPEN, "2": Antenna.SHORT}),
    "PQTMANTENNASTATUS": (2, {"1": Antenna.OK, "2": Antenna.OPEN, "3": Antenna.SHORT}),
}
"""Sentence: (field of the antenna's state, what it means)."""


def notice(body: str, at: Instant) -> LeapNotice | HealthReport | None:
    """What a maker's own sentence (the text between ``$`` and ``*``) says; None when nothing that concerns time."""
    fields = body.split(",")
    kind = fields[0] if fields[0] in COUNTS or fields[0] in _ANTENNAS else ",".join(fields[:2])
    if kind == "PUBX,04" and len(fields) > 6:
        match = _PUBX_COUNT.fullmatch(fields[6])  # D: the firmware's own, which may be years old
        return _leap(match[1], not match[2], at) if match else None
    if (count := COUNTS.get(kind)) is not None and len(fields) > max(count.place, count.provenance):
        match = _STATED.fullmatch(fields[count.place])
        return _leap(match[1], fields[count.provenance] in count.sky, at) if match else None
    if (antennas := _ANTENNAS.get(kind)) is not None and len(fields) > antennas[0]:
        return HealthReport(at, antenna=antennas[1].get(fields[antennas[0]], Antenna.UNKNOWN))
    return None


def _leap(count: str, known: bool, at: Instant) -> LeapNotice | None:
    return LeapNotice(int(count) + TAI_GPS_S if known else None, 0, None, at) if int(count) in GPS_LEAPS else None


def antenna(text: str) -> Antenna | None:
    """The antenna's state as a TXT sentence tells it."""
    match = _ANTENNA.search(text)
    return Antenna(match[1].lower()) if match else None


def leap_text(text: str, at: Instant) -> LeapNotice | None:
    """The leap count as a TXT sentence of a CASIC receiver (AT6558, ATGM336H) tells it; None when it tells none.

    ``LS=system,valid,now,then,tow,wnt,dn,wnf,a0,a1,seconds until then,ddmmyy,...``. System: 0 GPS, 1 BeiDou. Valid: 0 no, 1 yes, but the
    system is not the one that gives the time, 2 no, and it is, 3 yes, and it is. (CASIC multi-mode satellite navigation receiver protocol
    specification, LPS.) A system that does not give the time says nothing of the seconds that the receiver names.
    """
    match = _LEAP_TEXT.match(text)
    if match is None or match[2] not in "23":
        return None
    if match[2] == "2" or not match[3]:
        return LeapNotice(None, 0, None, at)
    now = int(match[3]) + (GPS_BEIDOU_S if match[1] == "1" else 0)
    if now not in GPS_LEAPS:
        return None
    step = int(match[4]) - int(match[3]) if match[4] else 0
    ahead = match[5].isdecimal() and int(match[5]) > 0
    day = match[6]
    midnight = civil_s(2000 + int(day[4:]), int(day[2:4]), int(day[:2])) if step in (1, -1) and ahead and len(day) == 6 else None
    if midnight is None:
        return LeapNotice(now + TAI_GPS_S, 0, None, at)
    return LeapNotice(now + TAI_GPS_S, step, midnight + DAY_S, at)


RIVAL_NS: Final = 60 * NS
"""ns for which a leap count that contradicts the one before must stand alone before it is believed. Receivers state it each second to each
minute."""


class LeapCount:
    """The leap count of one receiver, whichever of its messages state it: two that differ within a short time are not known."""

    def __init__(self) -> None:
        self._stated: tuple[int, int] | None = None  # (TAI-UTC, raw ns when it was last stated)
        self._rivalled_ns: int | None = None
        self._announced = 0  # step of the last announcement, until it was taken

    def rivalled(self, now_ns: int) -> bool:
        """Whether two counts have contradicted each other lately."""
        return self._rivalled_ns is not None and now_ns - self._rivalled_ns < RIVAL_NS

    def judged(self, notice: LeapNotice) -> LeapNotice:
        """``notice``, without its count while that contradicts what the receiver itself said lately. The change by an announced leap second
        is no contradiction."""
        now, count = notice.at.mono_ns, notice.tai_offset_s
        if count is not None:
            if self._stated is not None and count != self._stated[0]:
                if count - self._stated[0] != self._announced and now - self._stated[1] < RIVAL_NS:
                    self._rivalled_ns = now
                self._announced = 0
            self._stated = count, now
        self._announced = notice.step_s or self._announced
        if not self.rivalled(now):
            return notice
        return LeapNotice(None, notice.step_s, notice.at_utc_s, notice.at)


# ---- complaints ----------------------------------------------------------------------------------------------------------------------

COMPLAINTS_MAX: Final = 4
"""Different complaints that are kept at a time."""
TEXT_MAX: Final = 80
"""Characters of a complaint that are kept: NMEA 0183 allows a sentence of 82."""
FORGET_NS: Final = 300 * NS
"""ns after which a complaint that was not repeated is forgotten: receivers repeat a lasting one each second to each minute."""
_LEVELS: Final = frozenset(("00", "01"))
"""TXT: text identifier of an error and of a warning (u-blox protocol specifications, TXT; others follow them)."""
_INF: Final = (b"\x04\x00", b"\x04\x01")
"""UBX-INF-ERROR and UBX-INF-WARNING."""
_PROSE = re.compile(r"[A-Za-z]{2,}[^A-Za-z0-9]+[A-Za-z]{2,}|[a-z]{4,}")  # other texts are figures and names
_ANSWER = re.compile(r"\binv(alid)? format|\bunknown (msg|message|cmd|command)", re.IGNORECASE)  # to a command that it does not have
_KNOWN: Final = (
    (
        re.compile("UART RX was disabled|frame errors", re.IGNORECASE),
        "its input is shut",
        "its RX wire carries noise or another speed: end an echo, login or console on the port, set the right baud, check the wire",
    ),
    (
        re.compile("txbuf", re.IGNORECASE),
        "its output overflows and messages are lost",
        "raise the speed (baud), or let it send fewer messages: refclock receiver configure",
    ),
)
"""A text that is known: its meaning, and the remedy."""


def complaint(frame: Frame) -> str | None:
    """The receiver's own text in ``frame`` if it is an error or a warning, cleaned; None otherwise."""
    if frame.kind is FrameKind.UBX:
        raw = frame.data[2:] if frame.data[:2] in _INF else b""
    else:
        fields = frame.data.split(b",", 4)
        texts = len(fields) == 5 and fields[0][2:] == b"TXT" and frame.checksum is not False
        raw = fields[4] if texts and fields[3].decode("ascii", "replace") in _LEVELS else b""
    text = "".join(c if c.isprintable() else " " for c in raw.decode("ascii", "ignore"))
    text = " ".join(text.split())[:TEXT_MAX].rstrip()
    return text if _PROSE.search(text) and not _ANSWER.search(text) and antenna(text) is None else None


def in_words(text: str) -> str:
    """A complaint as a sentence, with the remedy where it is known."""
    known = next((k for k in _KNOWN if k[0].search(text)), None)
    if known is None:
        return f'it complains: "{text}"; its maker\'s manual tells what that means'
    return f'{known[1]}: "{text}"; {known[2]}'


class Complaints:
    """What one receiver complains of."""

    def __init__(self) -> None:
        self._heard: dict[str, int] = {}  # in words -> raw ns when it last came

    def hear(self, text: str, mono_ns: int) -> None:
        """A complaint came."""
        said = in_words(text)
        if said not in self._heard and len(self._heard) >= COMPLAINTS_MAX:
            del self._heard[min(self._heard, key=lambda old: self._heard[old])]
        self._heard[said] = mono_ns

    def standing(self, mono_ns: int) -> tuple[str, ...]:
        """The complaints of the last minutes, in words, in the order of their coming."""
        return tuple(said for said, when in self._heard.items() if mono_ns - when < FORGET_NS)
