"""Checksums as some receivers write them: taken when they always do, and what is damaged is still caught."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refclock.protocols.checksums import nmea_checksum
from refclock.protocols.habits import ChecksumHabit
from refclock.protocols.stream import ReceiverStream
from refclock.sample import NS, Instant, SecondLabel

DAY = datetime(2026, 12, 31, 12, 0, 0, tzinfo=UTC)
NOT_BEFORE = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
Writer = Callable[[bytes], bytes]
"""Body of a sentence to its bytes on the line."""


def proper(body: bytes) -> bytes:
    return b"$%s*%02X\r\n" % (body, nmea_checksum(body))


WRITERS: dict[ChecksumHabit, Writer] = {
    ChecksumHabit.ONE_DIGIT: lambda body: b"$%s*%X\r\n" % (body, nmea_checksum(body)),
    ChecksumHabit.BLANK: lambda body: b"$%s*%2X\r\n" % (body, nmea_checksum(body)),
    ChecksumHabit.DOLLAR: lambda body: b"$%s*%02X\r\n" % (body, nmea_checksum(b"$" + body)),
    ChecksumHabit.STAR: lambda body: b"$%s*%02X\r\n" % (body, nmea_checksum(body + b"*")),
    ChecksumHabit.DELIMITERS: lambda body: b"$%s*%02x\r\n" % (body, nmea_checksum(b"$" + body + b"*")),
    ChecksumHabit.BARE: lambda body: b"$%s\r\n" % body,
}


def bodies(second: int) -> list[bytes]:
    """RMC with a checksum below 10 (hexadecimal), and GGA."""
    t = DAY + timedelta(seconds=second)
    rmc = f"GPRMC,{t:%H%M%S},A,4717.1125,N,00833.9189,E,0.1,341.5,{t:%d%m%y},".encode()
    tail = next(b"%d,E,A" % n for n in range(100) if nmea_checksum(rmc + b"%d,E,A" % n) < 16)
    return [rmc + tail, f"GPGGA,{t:%H%M%S},4717.1125,N,00833.9189,E,1,08,0.9,408.2,M,34.5,M,,".encode()]


def labels(receiver: ReceiverStream, data: bytes, second: float) -> list[int]:
    """The seconds, from the first, that ``data`` names."""
    values = receiver.feed(data, Instant(0, round((100 + second) * NS)), 0)
    return [v.utc_ns // NS - int(DAY.timestamp()) for v in values if isinstance(v, SecondLabel)]


@pytest.mark.parametrize("habit", WRITERS)
@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\n", b" \r\n"])
def test_a_receiver_that_always_writes_so_is_read(habit: ChecksumHabit, end: bytes) -> None:
    """One digit, a blank, the delimiters counted in, none at all; CR LF, CR or LF alone, a blank before it: labels within three seconds,
    and people are told of the habit."""
    receiver, write = ReceiverStream(NOT_BEFORE), WRITERS[habit]
    got = []
    for k in range(15):
        got += labels(receiver, b"".join(write(body).replace(b"\r\n", end) for body in bodies(k)), k)
    assert got[-12:] == list(range(3, 15))
    assert receiver.status().habit == habit


def test_one_kind_of_sentence_without_checksum_is_read() -> None:
    """GGA carries a checksum and RMC never does: RMC is taken from the tenth on."""
    receiver, got = ReceiverStream(NOT_BEFORE), list[int]()
    for k in range(20):
        rmc, gga = bodies(k)
        got += labels(receiver, proper(gga) + b"$%s\r\n" % rmc, k)
    assert got == list(range(9, 20))


@pytest.mark.parametrize("habit", WRITERS)
def test_who_has_written_proper_checksums_is_held_to_them(habit: ChecksumHabit) -> None:
    """After a minute of proper checksums, ten seconds of sentences in any other form name nothing."""
    receiver = ReceiverStream(NOT_BEFORE)
    for k in range(60):
        labels(receiver, b"".join(proper(body) for body in bodies(k)), k)
    assert [s for k in range(60, 70) for s in labels(receiver, b"".join(WRITERS[habit](body) for body in bodies(k)), k)] == []
    assert receiver.status().habit == ""


places = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.sampled_from(["flip", "drop", "insert", "cut"]))


def damaged(data: bytes, place: float, value: int, how: str) -> bytes:
    """``data`` with one byte changed, lost or added, or cut short there."""
    at = int(place * len(data))
    match how:
        case "flip":
            return data[:at] + bytes((data[at] ^ value,)) + data[at + 1 :]
        case "drop":
            return data[:at] + data[at + 1 :]
        case "insert":
            return data[:at] + bytes((value,)) + data[at:]
    return data[:at]


@given(st.sampled_from([None, *(h for h in WRITERS if h is not ChecksumHabit.BARE)]), st.lists(places, min_size=1, max_size=30))
def test_damage_never_makes_another_second(habit: ChecksumHabit | None, damages: list[tuple[float, int, str]]) -> None:
    """A byte of every RMC is changed, lost or added, for up to 30 s, after proper checksums or with a habit that is known: no label names
    another second than the one that was sent."""
    receiver = ReceiverStream(NOT_BEFORE)
    write = proper if habit is None else WRITERS[habit]
    for k in range(10):
        labels(receiver, b"".join(write(body) for body in bodies(k)), k)
    known = receiver.framer.habits.taken
    for k, (place, value, how) in enumerate(damages, 10):
        rmc, gga = bodies(k)
        assert labels(receiver, damaged(write(rmc), place, value, how) + write(gga), k) in ([], [k])
    if habit is None:
        assert receiver.framer.habits.taken == known == 0


@given(st.lists(places, min_size=5, max_size=60))
def test_a_line_that_damages_everything_shows_no_habit(damages: list[tuple[float, int, str]]) -> None:
    """Every sentence is damaged from the start, each in another way: none is taken for the habit of its writer."""
    receiver = ReceiverStream(NOT_BEFORE)
    for k, (place, value, how) in enumerate(damages):
        for body in bodies(k):
            assert labels(receiver, damaged(proper(body), place, value, how), k) in ([], [k])
