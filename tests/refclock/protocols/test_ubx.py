"""UBX: payloads to labels, leap notices, sawtooth and sky."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest

from refclock.protocols.framing import Frame, FrameKind, Framer
from refclock.protocols.labels import Reject
from refclock.protocols.ubx import UbxDecoder, encode
from refclock.sample import NS, FixMode, Instant, LabelProtocol, LeapNotice, ReceiverValue, Sawtooth, SecondLabel, SkyView

NOT_BEFORE = int(datetime(2016, 1, 1, tzinfo=UTC).timestamp())
LEAP = int(datetime(2017, 1, 1, tzinfo=UTC).timestamp())


def say(ubx: UbxDecoder, message: tuple[int, int], payload: bytes, at_s: float = 100.0) -> list[ReceiverValue]:
    at = Instant(0, round(at_s * NS))
    return [value for frame in Framer().feed(encode(*message, payload), at, 0) for value in ubx.decode(frame).values]


def refused(ubx: UbxDecoder, message: tuple[int, int], payload: bytes) -> Reject | None:
    decoded = ubx.decode(Frame(FrameKind.UBX, bytes(message) + payload, Instant(0, 100 * NS), True))
    assert not decoded.values
    return decoded.reject


def pvt(*, second: int = 1, valid: int = 7, fix: int = 3, flags: int = 1, nano: int = 0, tow: int = 1000) -> bytes:
    return struct.pack("<IHBBBBBBIiBBBB", tow, 2016, 12, 31, 23, 59, second, valid, 20, nano, fix, flags, 0, 9).ljust(92, b"\0")


def timeutc(valid: int = 7, accuracy: int = 30, tow: int = 1000) -> bytes:
    return struct.pack("<IIiHBBBBBB", tow, accuracy, -5, 2016, 12, 31, 23, 59, 2, valid)


def timels(source: int = 2, to_event: int = 3600, change: int = 1, valid: int = 3) -> bytes:
    return struct.pack("<IB3xBbBbiHH3xB", 1000, 0, source, 17, 2, change, to_event, 1929, 7, valid)


@pytest.mark.parametrize("fix", [2, 3, 4, 5])
def test_pvt_names_the_second(fix: int) -> None:
    """Date, time and leap count resolved and a fix, a surveyed-in time-only one included: a label that knows its leap count."""
    (label,) = say(UbxDecoder(NOT_BEFORE), (1, 7), pvt(nano=-250, fix=fix))
    assert label == SecondLabel((LEAP - 59) * NS - 250, Instant(0, 100 * NS), "NAV-PVT", leap_known=True, protocol=LabelProtocol.UBX)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (pvt(valid=3), Reject.UNRESOLVED),
        (pvt(flags=0), Reject.NO_FIX),
        (pvt(fix=0), Reject.NO_FIX),
        (pvt(fix=1), Reject.ESTIMATED),
        (pvt(second=61), Reject.BAD_TIME),
        (pvt()[:20], Reject.BAD_FIELDS),
        (pvt()[:6] + b"\x0d" + pvt()[7:], Reject.BAD_DATE),
    ],
)
def test_pvt_refused_with_its_reason(payload: bytes, reason: Reject) -> None:
    """Anything less gives no label, and says why."""
    assert refused(UbxDecoder(NOT_BEFORE), (1, 7), payload) is reason


def test_second_60_of_pvt_has_the_number_of_59() -> None:
    """The leap second has the number of 23:59:59."""
    (label,) = say(UbxDecoder(NOT_BEFORE), (1, 7), pvt(second=60))
    assert isinstance(label, SecondLabel)
    assert label.second_60
    assert label.utc_ns == (LEAP - 1) * NS


def test_timeutc_needs_a_fix_or_a_good_estimate() -> None:
    """All valid bits, and a fix stated elsewhere; without such a message its own accuracy decides."""
    ubx = UbxDecoder(NOT_BEFORE)
    assert len(say(ubx, (1, 0x21), timeutc())) == 1
    assert refused(ubx, (1, 0x21), timeutc(accuracy=20_000)) is Reject.NO_FIX
    say(ubx, (1, 3), struct.pack("<IBB10x", 1000, 0, 0))
    assert refused(ubx, (1, 0x21), timeutc()) is Reject.NO_FIX
    say(ubx, (1, 3), struct.pack("<IBB10x", 1000, 3, 0xDD))
    assert len(say(ubx, (1, 0x21), timeutc(accuracy=20_000))) == 1
    assert refused(ubx, (1, 0x21), timeutc(valid=3)) is Reject.UNRESOLVED


def test_timegps_stands_in_where_no_message_gives_utc() -> None:
    """GPS week and time of week minus the leap count; through an announced leap second it does not run ahead."""
    ubx = UbxDecoder(NOT_BEFORE)

    def at(tow_ms: int, week: int, leap_s: int) -> SecondLabel:
        (label,) = say(ubx, (1, 0x20), struct.pack("<IihbBI", tow_ms, 0, week, leap_s, 7, 30), tow_ms / 1000)
        assert isinstance(label, SecondLabel)
        return label

    say(ubx, (1, 0x26), timels())
    labels = [at(16_000, 1930, 17), at(17_000, 1930, 17), at(18_000, 1930, 18)]
    assert [label.utc_ns // NS - LEAP for label in labels] == [-1, -1, 0]
    assert [label.second_60 for label in labels] == [False, True, False]
    assert all(label.leap_known for label in labels)


def test_label_is_stamped_with_its_epochs_first_message() -> None:
    """NAV messages of one iTOW arrive in a row: the first one's first byte counts."""
    ubx = UbxDecoder(NOT_BEFORE)
    say(ubx, (1, 1), struct.pack("<I16x", 1000), 100.0)
    (label,) = say(ubx, (1, 7), pvt(tow=1000), 100.2)
    assert label.at.mono_ns == 100 * NS
    (label,) = say(ubx, (1, 7), pvt(tow=2000), 101.2)
    assert label.at.mono_ns == round(101.2 * NS)


def test_epochs_may_come_mixed() -> None:
    """NAV-SOL of the next epoch before NAV-PVT of this one: each label has the stamp of its own epoch, also when it comes 2 s late."""
    ubx = UbxDecoder(NOT_BEFORE)
    say(ubx, (1, 6), b"\xe8\x03\0\0".ljust(52, b"\0"), 100.0)
    say(ubx, (1, 6), b"\xd0\x07\0\0".ljust(52, b"\0"), 101.0)
    stamps = [
        value.at.mono_ns / NS
        for tow, at_s in ((1000, 102.0), (2000, 102.1))
        for value in say(ubx, (1, 7), pvt(tow=tow), at_s)
        if isinstance(value, SecondLabel)
    ]
    assert stamps == [100.0, 101.0]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (timels(), (36, 1, LEAP)),
        (timels(change=-1), (36, -1, LEAP)),
        (timels(to_event=-5), (36, 0, None)),  # it is over
        (timels(valid=1), (36, 0, None)),
        (timels(source=0), (None, 1, LEAP)),  # the firmware's own count may be years old
        (timels(source=255, valid=0), (None, 0, None)),
        (timels(change=0), (36, 0, None)),
    ],
)
def test_timels_tells_the_leap_count_and_the_announced_step(payload: bytes, expected: tuple[int | None, int, int | None]) -> None:
    """TAI-UTC and the announced step with its midnight: week 1929 day 7 ends with 2016-12-31."""
    (notice,) = say(UbxDecoder(NOT_BEFORE), (1, 0x26), payload)
    assert isinstance(notice, LeapNotice)
    assert (notice.tai_offset_s, notice.step_s, notice.at_utc_s) == expected


@pytest.mark.parametrize(("source", "known"), [(s, True) for s in (1, 2, 3, 4, 5, 8)] + [(s, False) for s in (0, 6, 7, 9, 255)])
def test_a_count_that_is_not_from_the_sky_makes_no_label_known(source: int, known: bool) -> None:
    """Once NAV-TIMELS has said that the count is aided, configured, the firmware's or unknown, NAV-PVT's "fully resolved" proves nothing,
    until it says otherwise. Without any NAV-TIMELS it counts."""
    ubx = UbxDecoder(NOT_BEFORE)
    say(ubx, (1, 0x26), timels(source), 100)
    for message, payload, at_s in (((1, 7), pvt(), 100.1), ((1, 0x21), timeutc(), 130), ((1, 7), pvt(second=2), 1000.1)):
        (label,) = (v for v in say(ubx, message, payload, at_s) if isinstance(v, SecondLabel))
        assert label.leap_known is known
    (label,) = (v for v in say(UbxDecoder(NOT_BEFORE), (1, 7), pvt(), 100) if isinstance(v, SecondLabel))
    assert label.leap_known


@pytest.mark.parametrize(("source", "said"), [(2, [36]), (0, [None]), (6, [None]), (7, [None]), (255, [])])
def test_an_unknown_source_of_a_valid_count_denies_nothing(source: int, said: list[int | None]) -> None:
    """A receiver that has forgotten where its count came from claims nothing: another witness may confirm it. The others deny it."""
    values = say(UbxDecoder(NOT_BEFORE), (1, 0x26), timels(source, change=0), 100)
    assert [v.tai_offset_s for v in values if isinstance(v, LeapNotice)] == said


@pytest.mark.parametrize("source", [255, 7])
def test_a_count_that_came_from_the_sky_once_stays_known(source: int) -> None:
    """A M8T calls the source of its count unknown after it had the same count from GLONASS: it is known, another one is not."""
    ubx = UbxDecoder(NOT_BEFORE)
    say(ubx, (1, 0x26), timels(1), 100)
    (notice,) = say(ubx, (1, 0x26), timels(source), 101)
    assert isinstance(notice, LeapNotice)
    assert notice.tai_offset_s == 36
    (other,) = say(ubx, (1, 0x26), timels(source)[:9] + bytes([18]) + timels(source)[10:], 102)
    assert isinstance(other, LeapNotice)
    assert other.tai_offset_s is None


@pytest.mark.parametrize(("source", "known"), [(0, True), (255, True), (6, False), (7, False)])
def test_a_count_that_came_after_timels_is_known_at_once(source: int, known: bool) -> None:
    """A cold receiver said "the firmware's count" and "not resolved": once it resolves UTC, that is news and no label waits for the next
    NAV-TIMELS. An aided or configured count is none the better for it."""
    ubx = UbxDecoder(NOT_BEFORE)
    say(ubx, (1, 0x26), timels(source), 100)
    assert refused(ubx, (1, 7), pvt(valid=3)) is Reject.UNRESOLVED
    (label,) = (v for v in say(ubx, (1, 7), pvt(), 102) if isinstance(v, SecondLabel))
    assert label.leap_known is known


def test_qerr_is_added_to_the_pulses_time() -> None:
    """qErr has to be added to the pulse's time, so a pulse with qErr = -7 ns leaves 7 ns after its second."""
    ubx = UbxDecoder(NOT_BEFORE)
    (late,) = say(ubx, (0x0D, 1), struct.pack("<IIiHBB", 17_000, 0, -7_000, 1930, 3, 0))
    assert late == Sawtooth(7.0, (LEAP + 17) * NS, Instant(0, 100 * NS))
    (gps,) = say(ubx, (0x0D, 1), struct.pack("<IIiHBB", 17_000, 0, 4_000, 1930, 0, 0))
    assert isinstance(gps, Sawtooth)
    assert (gps.error_ns, gps.utc_ns) == (-4.0, None)
    assert say(ubx, (0x0D, 1), struct.pack("<IIiHBB", 17_000, 0, 4_000, 1930, 0x10, 0)) == []


def test_nav_sat_tells_the_sky() -> None:
    """Constellation, number, C/N0 and use of each satellite; elevation only when an orbit is known."""
    ubx = UbxDecoder(NOT_BEFORE)
    say(ubx, (1, 7), pvt(fix=5))
    payload = struct.pack("<IBBH", 1000, 1, 2, 0)
    payload += struct.pack("<BBBbhhI", 0, 12, 44, 60, 120, 0, 0x1 << 8 | 8) + struct.pack("<BBBbhhI", 6, 3, 0, -91, 0, 0, 0)
    (sky,) = say(ubx, (1, 0x35), payload)
    assert isinstance(sky, SkyView)
    assert (sky.mode, sky.used) == (FixMode.TIME_ONLY, 1)
    assert [(s.gnss, s.number, s.elevation, s.snr, s.used) for s in sky.satellites] == [
        ("GPS", 12, 60, 44, True),
        ("GLONASS", 3, None, None, False),
    ]
    assert say(ubx, (1, 0x35), payload[:-1]) == []


def test_mon_ver_tells_who_the_receiver_is() -> None:
    """Module, firmware and hardware as the receiver names them."""
    ubx = UbxDecoder(NOT_BEFORE)
    say(ubx, (0x0A, 4), b"EXT CORE 3.01 (107900)".ljust(30, b"\0") + b"00080000".ljust(10, b"\0") + b"MOD=NEO-M8T-0".ljust(30, b"\0"))
    assert ubx.identity == "u-blox NEO-M8T-0 EXT CORE 3.01 (107900) hardware 00080000"


def test_what_a_receiver_calls_itself_steers_no_terminal() -> None:
    """Control characters in MON-VER, which status and the log show, come out as their escapes."""
    ubx = UbxDecoder(NOT_BEFORE)
    say(ubx, (0x0A, 4), b"\x1b]0;owned\x07\x1b[2J".ljust(30, b"\0") + b"\x9b1m".ljust(10, b"\0"))
    assert ubx.identity.isprintable()
    assert ubx.identity.startswith("u-blox \\x1b]0;owned\\x07\\x1b[2J")


def test_nav_svinfo_tells_the_sky_of_ublox_6_and_7() -> None:
    """NAV-SVINFO: systems by number, used or not, and no place in the sky for those whose orbit is not known."""
    rows = [(0, 5, 0x0D, 7, 40, 30, 120), (1, 70, 0x04, 4, 25, 10, 200), (2, 131, 0x00, 1, 0, 0, 0)]
    payload = struct.pack("<IBBH", 0, len(rows), 0, 0) + b"".join(struct.pack("<BBBBBbhi", *row, 0) for row in rows)
    (sky,) = say(UbxDecoder(0), (1, 0x30), payload)
    assert isinstance(sky, SkyView)
    found = [(s.gnss, s.number, s.elevation, s.azimuth, s.snr, s.used) for s in sky.satellites]
    assert found == [("GPS", 5, 30, 120, 40, True), ("GLONASS", 6, 10, 200, 25, False), ("SBAS", 131, None, None, None, False)]
    assert refused(UbxDecoder(0), (1, 0x30), payload[:-1]) is Reject.BAD_FIELDS
