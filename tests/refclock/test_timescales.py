"""The table of leap seconds: what is believed of a file, and TAI from UTC and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leap_list import leap_list

from refclock.condition import Code, Condition
from refclock.sample import NS
from refclock.timescales import DAY_S, NTP_UNIX_S, LeapTable, next_midnight, parse_leap_seconds_list

NEW_YEAR = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())
TZDATA = (Path(__file__).parents[1] / "data" / "leap-seconds.list").read_text(encoding="ascii")
"""That of tzdata 2025b."""
LINES = [(int(line.split()[0]), int(line.split()[1])) for line in TZDATA.splitlines() if line[:1].isdigit()][:28]
"""NTP second and TAI-UTC, 1972 to 2017."""
NIST_2017_HASH = "5101445a 69948b51 9153e2b 2086e3d8 d54561a3"
"""Hash of NIST's file that expired on 2018-06-28, its third word without a leading zero."""


def refused(text: str) -> bool:
    found = parse_leap_seconds_list(text)
    return isinstance(found, Condition) and found.code is Code.LEAP_TABLE_DAMAGED and bool(found.words)


def ntp(year: int, month: int, day: int = 1) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) + NTP_UNIX_S


def test_table_of_tzdata_is_read() -> None:
    """The leap-seconds.list of tzdata (IERS): 37 s since 2017, 36 before, an expiry date, and a hash that fits."""
    table = parse_leap_seconds_list(TZDATA)
    assert isinstance(table, LeapTable)
    new_year_2017 = int(datetime(2017, 1, 1, tzinfo=UTC).timestamp())
    assert (table.tai_offset_s(new_year_2017), table.tai_offset_s(new_year_2017 - 1)) == (37, 36)
    assert table.next_leap(new_year_2017 - 1) == (new_year_2017, 1)
    assert table.hashed
    assert table.expires_s is not None


@pytest.mark.parametrize("words", [NIST_2017_HASH, NIST_2017_HASH.upper(), "5101445a69948b5109153e2b2086e3d8d54561a3"])
def test_hash_of_nist_passes_however_it_is_leap_list(words: str) -> None:
    """NIST drops leading zeros of the five words; others write them in capitals or without spaces."""
    table = parse_leap_seconds_list(leap_list(LINES, hashed=words))
    assert isinstance(table, LeapTable)
    assert table.hashed


def test_table_without_a_hash_passes_by_its_plausibility_and_settles_nothing() -> None:
    """It serves for the past. For a coming leap second it is no better than its weakest digit."""
    found = [parse_leap_seconds_list(leap_list(LINES, expiry=NEW_YEAR + NTP_UNIX_S + DAY_S, hashed=hashed)) for hashed in ("", "right")]
    for table, hashed in zip(found, (False, True), strict=True):
        assert isinstance(table, LeapTable)
        assert table.tai_offset_s(NEW_YEAR) == 37
        assert (table.hashed, table.settles(NEW_YEAR)) == (hashed, hashed)


def test_half_years_begin_in_january_and_july() -> None:
    """The midnights at which leap seconds come."""
    assert next_midnight(NEW_YEAR - 1) == NEW_YEAR
    assert next_midnight(NEW_YEAR) == NEW_YEAR + 181 * DAY_S


def test_coming_leap_second_is_read() -> None:
    """A right file may list a leap second that is yet to come, inserted or deleted, at the ends of quarters too."""
    for second, offset in ((ntp(2027, 1), 38), (ntp(2027, 7), 36), (ntp(2027, 4), 38)):
        table = parse_leap_seconds_list(leap_list([*LINES, (second, offset)]))
        assert isinstance(table, LeapTable)
        assert table.settles(second - NTP_UNIX_S)


@pytest.mark.parametrize("hashed", ["right", ""])
@pytest.mark.parametrize(
    "lines",
    [
        [],
        LINES[:-1],
        LINES[:-9],
        [*LINES[:-1], (LINES[-1][0], 47)],
        [*LINES[:-1], (LINES[-1][0], 38)],
        [*LINES[:5], *LINES[6:]],
        [*LINES, LINES[-1]],
        [*LINES, LINES[-2]],
        [*LINES, (ntp(2019, 7), 38)],
        [*LINES, (ntp(2027, 1), 39)],
        [*LINES, (ntp(2027, 1), 37)],
        [*LINES, (ntp(2027, 3), 38)],
        [*LINES, (ntp(2027, 1, 2), 38)],
        [*LINES, (ntp(2027, 1) + 1, 38)],
        [(s, o + 1) for s, o in LINES],
        LINES[::-1],
    ],
)
def test_implausible_table_is_refused_whatever_its_hash(lines: list[tuple[int, int]], hashed: str) -> None:
    """Cut short, ending before 2017, a digit changed, a line too many, steps of other than a second, odd dates, out of order."""
    assert refused(leap_list(lines, hashed=hashed))


@given(st.data())
def test_any_changed_digit_is_seen_by_the_hash(data: st.DataObject) -> None:
    """One digit of any line that counts, its hash included, changed in tzdata's file: refused."""
    counts = [m.start() for m in re.finditer(r"(?m)^(?:\d+\s+\d+|#[$@]\s+\d+|#h.*)", TZDATA)]
    at = data.draw(st.sampled_from(counts))
    digits = [at + m.start() for m in re.finditer(r"\d", TZDATA[at:].splitlines()[0].split("# ")[0])]
    place = data.draw(st.sampled_from(digits))
    other = data.draw(st.sampled_from([d for d in "0123456789" if d != TZDATA[place]]))
    assert refused(TZDATA[:place] + other + TZDATA[place + 1 :])


@given(st.data())
def test_any_lost_line_is_seen(data: st.DataObject) -> None:
    """Cut anywhere, or without one of its lines that count: refused, unless the hash alone is gone, and then it settles nothing."""
    lines = TZDATA.splitlines(keepends=True)
    counting = [i for i, line in enumerate(lines) if line[:1].isdigit() or line.startswith(("#$", "#@"))]
    lost = data.draw(st.sampled_from(counting))
    assert refused("".join(lines[:lost] + lines[lost + 1 :]))
    found = parse_leap_seconds_list(TZDATA[: data.draw(st.integers(0, len(TZDATA) - 2))])
    assert isinstance(found, Condition) or not found.hashed


@given(st.one_of(st.text(), st.binary().map(lambda b: b.decode("ascii", "replace")), st.text("0123456789 #@$h\n\t²٣", max_size=300)))
def test_junk_is_refused_and_never_raises(text: str) -> None:
    """Binary junk, other files, an empty file."""
    assert refused(text)


@given(st.integers(-200, 200), st.sampled_from([1, -1]))
def test_utc_and_tai_round_trip_through_a_leap(second: int, step: int) -> None:
    """TAI -> UTC -> TAI is exact on both sides of an inserted and of a deleted second."""
    table = LeapTable().with_leap(NEW_YEAR, step)
    tai_ns = (NEW_YEAR + 37 + second) * NS
    utc_ns = table.tai_to_utc_ns(tai_ns)
    inside = step > 0 and tai_ns // NS == NEW_YEAR + 37
    assert table.utc_to_tai_ns(utc_ns, second_60=inside) == tai_ns
    if inside:
        assert utc_ns // NS == NEW_YEAR - 1, "23:59:60 has the number of 23:59:59"
