"""What receivers say besides time and fix: leap counts and where they come from, the antenna, complaints."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refclock.protocols.framing import Frame, FrameKind
from refclock.protocols.makers import (
    COMPLAINTS_MAX,
    FORGET_NS,
    RIVAL_NS,
    TEXT_MAX,
    Complaints,
    LeapCount,
    antenna,
    complaint,
    in_words,
    leap_text,
    notice,
)
from refclock.protocols.nmea import NmeaDecoder
from refclock.sample import NS, Antenna, HealthReport, Instant, LeapNotice

AT = Instant(0, 100 * NS)
NEW_YEAR_2017 = int(datetime(2017, 1, 1, tzinfo=UTC).timestamp())


def nmea(body: bytes, checksum: bool | None = True) -> Frame:
    return Frame(FrameKind.NMEA, body, AT, checksum)


def ubx(payload: bytes) -> Frame:
    return Frame(FrameKind.UBX, payload, AT, True)


# ---- leap counts ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "tai_offset_s"),
    [
        ("PUBX,04,073731.00,091202,113851.00,1196,18,1930035,-2660.664,43,", 37),
        ("PUBX,04,073731.00,091202,113851.00,1196,15D,1930035,-2660.664,43,", None),
        ("PMTKLSC,18,1,18", 37),
        ("PMTKLSC,16,0,16", None),
        ("PSTMUTC,101517.000,28102024,1414145717,18,2", 37),
        ("PSTMUTC,101517.000,28102024,1414145717,18,1", None),
        ("PSTMUTC,101517.000,28102024,1414145717,15,0", None),
        ("PERDCRW,TPS1,20261121102000,2,00000000000000,+18,+00,2,-00000.100,+4266", 37),
        ("PERDCRW,TPS1,20261121102000,1,00000000000000,+17,+00,1,-00000.100,+4266", None),
        ("PERDCRW,TPS1,19990822000359,0,00000000000000,+17,+00,0,+00000.000,+4266", None),
        ("PQTMLS,1,195494,1,2299,18,0,1,,137,7,18", 37),
        ("PQTMLS,1,195494,0,2299,16,0,0,,,,", None),
        ("PGRMF,290,293895,160305,093802,13,5213.1439,N,02100.6511,E,A,2,0,226,2,1", 32),
        ("PGRMF,290,293895,160305,093802,13,5213.1439,N,02100.6511,E,A,0,0,226,2,1", None),
    ],
)
def test_a_count_is_known_when_it_came_from_satellites(body: str, tai_offset_s: int | None) -> None:
    """Each maker's sentence tells the leap count, and by its own flag whether it is more than the firmware's or a stored one."""
    assert notice(body, AT) == LeapNotice(tai_offset_s, 0, None, AT)


@pytest.mark.parametrize(
    "body",
    [
        *("PUBX,04,,,,,,", "PUBX,04", "PUBX,04,1,2,3,4,99,", "PMTKLSC,x,1,2", "PUBX,00,081350.00", "PSTMANTENNASTATUS", "PSTMUTC,1,2,3,18"),
        *("PERDCRW,TPS1,20261121102000,2,0,,+00,2", "PGRMF,1,2,3", "PGRMF,290,293895,160305,093802,7,5213.1,N,02100.6,E,A,2,0,226,2,1"),
        *("PERDCRX,TPS2,0,2,0,500,+000000,1", "PQTMLS,1,195494,1,2299,,0,1,,137,7,18"),
    ],
)
def test_what_states_no_count_says_nothing(body: str) -> None:
    """Empty, short and impossible counts are no statement: they neither confirm nor deny."""
    assert notice(body, AT) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("LS=0,3,18,18,61,138,7,137,0,0,0,311226,,,", LeapNotice(37, 0, None, AT)),
        ("LS=0,3,18,18,61,138,7,137,0,0,,,,,", LeapNotice(37, 0, None, AT)),
        ("LS=0,3,17,18,61,138,7,137,0,0,358,311216,,,", LeapNotice(36, 1, NEW_YEAR_2017, AT)),
        ("LS=1,3,4,4,0,61,6,61,0,0,,,,,", LeapNotice(37, 0, None, AT)),  # BeiDou's own count is 14 less
        ("LS=0,2,,,,,,,,,,,,,", LeapNotice(None, 0, None, AT)),  # not valid, and time is given by it
        ("LS=1,1,3,4,0,61,6,61,0,0,358,311216,,,", None),  # valid, but another system gives the time
        ("LS=0,0,,,,,,,,,,,,,", None),
        ("LS=0,3,99,99,61,138,7,137,0,0,,,,,", None),
        ("LS=0,3", None),
        ("ANTENNA OK", None),
    ],
)
def test_casic_texts_tell_the_count_of_the_system_that_gives_the_time(text: str, expected: LeapNotice | None) -> None:
    """CASIC's LS text: a valid count of the system in use is known, an announced leap second is told, another system's says nothing."""
    assert leap_text(text, AT) == expected
    assert NmeaDecoder(0).decode(nmea(f"GPTXT,01,01,02,{text}".encode())).values == ([expected] if expected else []) or antenna(text)


@given(st.text(alphabet="LS=0123456789,.-", max_size=60))
def test_no_text_breaks_the_reading_of_leap_counts(text: str) -> None:
    """Whatever a TXT sentence holds, reading it ends in a notice or in none."""
    for found in (leap_text(f"LS={text}", AT), notice(f"PSTMUTC,{text}", AT), notice(f"PGRMF,{text}", AT)):
        assert found is None or isinstance(found, LeapNotice)


def test_two_counts_within_a_minute_are_not_known() -> None:
    """A receiver that states 18 and 17 in turn knows neither; a minute after the last contradiction the one that stayed is known."""
    counts = LeapCount()

    def stated(tai_offset_s: int | None, at_s: float, step_s: int = 0) -> int | None:
        return counts.judged(LeapNotice(tai_offset_s, step_s, None, Instant(0, round(at_s * NS)))).tai_offset_s

    assert [stated(37, s) for s in range(3)] == [37, 37, 37]
    assert [stated(36, 3), stated(37, 3.5), stated(37, 4)] == [None, None, None]
    assert stated(37, 3.5 + RIVAL_NS / NS) == 37
    assert [stated(None, 100), stated(37, 101)] == [None, 37]  # to know nothing is no contradiction


def test_an_announced_leap_second_changes_the_count_at_once() -> None:
    """The step that the receiver itself announced is no contradiction; a step back right after it is one."""
    counts, after = LeapCount(), Instant(0, 101 * NS)
    counts.judged(LeapNotice(37, 1, NEW_YEAR_2017, AT))
    assert counts.judged(LeapNotice(38, 0, None, after)).tai_offset_s == 38
    assert counts.judged(LeapNotice(37, 0, None, after)).tai_offset_s is None


# ---- the antenna ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ("PGTOP,11,1", Antenna.SHORT),
        ("PGTOP,11,3", Antenna.OK),
        ("PSTMANTENNASTATUS,1,1,1,1", Antenna.OPEN),
        ("PQTMANTENNASTATUS,1,3,1", Antenna.SHORT),
        ("PQTMANTENNASTATUS,1,0,1", Antenna.UNKNOWN),
    ],
)
def test_makers_sentences_tell_the_antenna(body: str, state: Antenna) -> None:
    """MTK, ST and Quectel each have a sentence for the antenna."""
    assert NmeaDecoder(0).decode(nmea(body.encode())).values == [HealthReport(AT, antenna=state)]


def test_antenna_notices_are_read_and_other_texts_are_not() -> None:
    """u-blox's ANTSTATUS and CASIC's ANTENNA notices are read, other texts are not."""
    assert antenna("ANTSTATUS=SHORT") is Antenna.SHORT
    assert antenna("ANTENNA OPEN") is Antenna.OPEN
    assert antenna("ANTSTATUS=OK") is Antenna.OK
    assert antenna("ANTSUPERV=AC SD PDoS SR") is antenna("ANTSTATUS=INIT") is antenna("u-blox AG") is None


# ---- complaints ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (nmea(b"GNTXT,01,01,01,More than 100 frame errors, UART RX was disabled"), "More than 100 frame errors, UART RX was disabled"),
        (nmea(b"GNTXT,01,01,00,txbuf alloc"), "txbuf alloc"),
        (ubx(b"\x04\x00txbuf alloc"), "txbuf alloc"),
        (ubx(b"\x04\x01flash\x1b[2J  write\r\nfailed\0"), "flash [2J write failed"),
        (nmea(b"GNTXT,01,01,01," + b"word " * 60), ("word " * 60)[:TEXT_MAX].rstrip()),
    ],
)
def test_errors_and_warnings_are_complaints(frame: Frame, text: str) -> None:
    """TXT and UBX-INF of level error or warning are shown as printable text of bounded length."""
    assert complaint(frame) == text


@pytest.mark.parametrize(
    "frame",
    [
        nmea(b"GNTXT,01,01,02,u-blox AG - www.u-blox.com"),  # a notice
        nmea(b"GPTXT,01,01,01,ANTENNA OPEN"),  # told as the antenna's state
        nmea(b"GNTXT,01,01,01,PSRF inv format"),  # an answer to what another program wrote
        nmea(b"GNTXT,01,01,01,NMEA unknown msg"),
        nmea(b"GNTXT,01,01,01,0,500482,0000,80A0,80A0,-38.304,0"),  # figures of some receivers
        nmea(b"GNTXT,01,01,00,PDTINFO"),
        nmea(b"GNTXT,01,01,01,txbuf alloc", checksum=False),
        nmea(b"GNTXT,01,01"),
        nmea(b"GPRMC,00,01,01,some prose here"),
        ubx(b"\x04\x02just a notice"),
        ubx(b"\x04\x00"),
    ],
)
def test_what_is_no_trouble_is_no_complaint(frame: Frame) -> None:
    """Notices, figures, the antenna's state, answers to commands and damaged sentences are no complaints."""
    assert complaint(frame) is None


def test_known_complaints_come_with_their_remedy() -> None:
    """People read what a known text means and what to do; of an unknown one whose words it is."""
    assert in_words("More than 100 frame errors, UART RX was disabled").startswith("its input is shut: ")
    assert "raise the speed" in in_words("txbuf alloc")
    assert '"flash write failed"' in in_words("flash write failed")


def test_complaints_are_few_and_fade() -> None:
    """The newest few are kept, a repeated one once; one that was not heard for minutes is forgotten."""
    heard = Complaints()
    for i in range(COMPLAINTS_MAX + 1):
        heard.hear("the first trouble", i * NS)
        heard.hear(f"trouble number {i}", i * NS)
    standing = heard.standing(10 * NS)
    assert len(standing) == COMPLAINTS_MAX
    assert "the first trouble" in standing[0]
    assert f"number {COMPLAINTS_MAX}" in standing[-1]
    assert heard.standing(COMPLAINTS_MAX * NS + FORGET_NS) == ()
