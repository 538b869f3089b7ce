"""NMEA: which sentence names which second, and why the others do not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refclock.protocols.framing import Frame, FrameKind
from refclock.protocols.labels import Reject
from refclock.protocols.nmea import NmeaDecoder, gnss_of, time_ns
from refclock.sample import NS, FixMode, Instant, LabelDoubt, SecondLabel, SkyView


def posix(*civil: int) -> int:
    return int(datetime(*civil, tzinfo=UTC).timestamp())  # type: ignore[arg-type, misc]


NOT_BEFORE = posix(2015, 1, 1)
POSITION = "4153.85990,N,08738.63638,W"


def decoder(not_before_s: int = NOT_BEFORE) -> NmeaDecoder:
    return NmeaDecoder(not_before_s)


def say(nmea: NmeaDecoder, body: str, at_s: float = 100.0, checksum: bool | None = True) -> list[SecondLabel]:
    at = Instant(0, round(at_s * NS))
    return [v for v in nmea.decode(Frame(FrameKind.NMEA, body.encode(), at, checksum)).values if isinstance(v, SecondLabel)]


def refused(nmea: NmeaDecoder, body: str, at_s: float = 100.0, checksum: bool | None = True) -> Reject | None:
    decoded = nmea.decode(Frame(FrameKind.NMEA, body.encode(), Instant(0, round(at_s * NS)), checksum))
    assert not any(isinstance(v, SecondLabel) for v in decoded.values)
    return decoded.reject


def rmc(time: str, day: str, status: str = "A", tail: str = ",,A") -> str:
    return f"GPRMC,{time},{status},{POSITION},0.0,0.0,{day},{tail}"


def test_rmc_with_a_fix_names_the_second() -> None:
    """Status A with a date: UTC to the nanosecond, stamped with the sentence."""
    (label,) = say(decoder(), rmc("131519.25", "030216"))
    assert label == SecondLabel(posix(2016, 2, 3, 13, 15, 19) * NS + 250_000_000, Instant(0, 100 * NS), "RMC", talker="GP")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("GPRMC,,V,,,,,,,,,,N", Reject.VOID),
        (rmc("131519", "030216", "V"), Reject.VOID),
        (rmc("131519", "030216", "A", ",,N"), Reject.NO_FIX),
        (rmc("131519", "030216", "A", ",,S"), Reject.MANUAL_OR_SIMULATED),
        (rmc("", "030216"), Reject.EMPTY),
        (rmc("131519", ""), Reject.EMPTY),
        (rmc("131519", "2208-1"), Reject.BAD_DATE),
        (rmc("131519", "310216"), Reject.BAD_DATE),
        (rmc("131519", "30216"), Reject.BAD_DATE),
        (rmc("246119", "030216"), Reject.BAD_TIME),
        (rmc("131560", "030216"), Reject.BAD_TIME),
        (rmc("13151", "030216"), Reject.BAD_TIME),
        ("GPRMCH,131519,A", Reject.UNKNOWN),
        ("PQRMC,131519,A", Reject.UNKNOWN),
        ("GPGST,1,T", Reject.UNKNOWN),
        ("GPZDA,,,,,00,00", Reject.EMPTY),
        ("GPGSV,9,x", Reject.BAD_FIELDS),
    ],
)
def test_what_names_no_second_is_refused_with_its_reason(body: str, reason: Reject) -> None:
    """Everything that names no second says why."""
    assert refused(decoder(), body) is reason


def test_zda_needs_a_fresh_fix_that_nothing_contradicts() -> None:
    """ZDA alone is a battery clock; with a fix of the last seconds it names the second; with a stale one it does so in doubt; contradicted
    it does not."""
    nmea = decoder()
    zda = "GPZDA,131519.00,03,02,2016,00,00"
    say(nmea, f"GPGGA,131519.00,{POSITION},1,08,1.0,10,M,0,M,,", 100)
    assert len(say(nmea, zda, 100.1)) == 1
    assert [label.doubt for label in say(nmea, zda, 106)] == [LabelDoubt.FIX_UNSTATED]
    say(nmea, "GPGSA,A,3,01,02,03,,,,,,,,,,1,1,1", 110)
    assert len(say(nmea, zda, 110.1)) == 1
    say(nmea, rmc("131519", "030216", "V"), 111)
    assert say(nmea, zda, 111.1) == []


def test_zda_without_any_word_of_a_fix_is_time_in_doubt() -> None:
    """A receiver that sends ZDA alone names seconds from its sixth on, each marked as in doubt; none once a sentence denies a fix."""
    nmea = decoder()
    for s in range(5):
        assert refused(nmea, f"GPZDA,1315{s:02}.00,03,02,2016,00,00", 100 + s) is None
    for s in range(5, 9):
        (label,) = say(nmea, f"GPZDA,1315{s:02}.00,03,02,2016,00,00", 100 + s)
        assert label.doubt is LabelDoubt.FIX_UNSTATED
    say(nmea, rmc("131508", "030216", "V"), 108.1)
    assert refused(nmea, "GPZDA,131509.00,03,02,2016,00,00", 109) is Reject.NO_FIX
    say(nmea, rmc("131509", "030216"), 109.5)
    assert say(nmea, "GPZDA,131510.00,03,02,2016,00,00", 110)[0].doubt is None


def test_a_line_that_speaks_again_has_stated_no_fix_yet() -> None:
    """After a silence, ZDA that comes before RMC is no label until it is clear that nothing states the fix."""
    nmea = decoder()
    say(nmea, rmc("131500", "030216"), 100)
    assert refused(nmea, "GPZDA,131700.00,03,02,2016,00,00", 220) is None


def test_label_is_stamped_with_its_cycles_first_sentence() -> None:
    """GGA and RMC with the same time of day are one cycle; GLL's time is none of its business."""
    nmea = decoder()
    say(nmea, f"GPGLL,{POSITION},131518.00,A,A", 99.9)
    say(nmea, f"GPGGA,131519.00,{POSITION},1,08,1.0,10,M,0,M,,", 100)
    (label,) = say(nmea, rmc("131519.0", "030216"), 100.3)
    assert label.at.mono_ns == 100 * NS
    (late,) = say(nmea, rmc("131519.00", "030216"), 101)
    assert late.at.mono_ns == 101 * NS


def gga(time: str, quality: str = "1", used: str = "08", talker: str = "GP") -> str:
    return f"{talker}GGA,{time},{POSITION},{quality},{used},1.0,10,M,0,M,,"


@given(st.floats(0.0, 3.0), st.lists(st.sampled_from(["GGA", "GNS"]), min_size=1, max_size=3, unique=True), st.integers(0, 3))
def test_a_late_dated_sentence_has_the_stamp_of_its_second(late_s: float, kinds: list[str], lost: int) -> None:
    """RMC comes up to 3 s after the first sentence that states its time of day, mixed with those of the next seconds, some of which are
    lost: it is stamped with that first sentence."""
    nmea, happenings = decoder(), list[tuple[float, int, str]]()
    for k in range(12):
        time = f"1315{k + 10}.00"
        happenings += [(100.0 + k + 0.01 * i, k, f"GP{kind},{time},{POSITION},1,08") for i, kind in enumerate(kinds) if (k, i) != (lost, 1)]
        happenings.append((100.0 + k + 0.05 + late_s, k, rmc(time, "030216")))
    for at_s, k, body in sorted(happenings):
        for label in say(nmea, body, at_s):
            assert label.utc_ns == posix(2016, 2, 3, 13, 15, 10 + k) * NS
            assert label.at.mono_ns == (100 + k) * NS


def test_a_frozen_time_is_stamped_with_its_own_cycle() -> None:
    """GGA and RMC that state the same time of day for ever are never stamped earlier than the sentences of the same burst."""
    nmea = decoder()
    for k in range(10):
        say(nmea, gga("131519.00"), 100 + k)
        (label,) = say(nmea, rmc("131519.00", "030216"), 100.3 + k)
        assert label.at.mono_ns == (100 + k) * NS


def test_a_step_back_is_not_stamped_with_the_seconds_before_it() -> None:
    """A receiver that learns its leap count states 3 s again: they are stamped with the sentences that state them now."""
    nmea = decoder()
    for k, second in enumerate([10, 11, 12, 13, 11, 12, 13, 14, 15]):
        time = f"1315{second}"
        say(nmea, gga(time), 100 + k)
        if k != 1:  # lost
            (label,) = say(nmea, rmc(time, "030216"), 100.2 + k)
            assert label.at.mono_ns == (100 + k) * NS


@pytest.mark.parametrize("mode", "ADPRF")
@pytest.mark.parametrize("status", ["", ",S", ",C", ",U", ",V"])
def test_modes_of_a_fix_by_satellites_are_taken(mode: str, status: str) -> None:
    """Autonomous, differential, precise, RTK fixed and float are fixes, whatever the navigational status of NMEA 4.1 says: receivers that
    do not provide it always send V."""
    assert len(say(decoder(), rmc("131519", "030216", "A", f",,{mode}{status}"))) == 1


@pytest.mark.parametrize("status", "AV")
@pytest.mark.parametrize(
    ("mode", "reason"), [("E", Reject.ESTIMATED), ("M", Reject.MANUAL_OR_SIMULATED), ("S", Reject.MANUAL_OR_SIMULATED)]
)
def test_estimated_simulated_and_typed_in_positions_name_no_second(mode: str, status: str, reason: Reject) -> None:
    """The receiver has no satellites: its clock coasts. It says so, and people are told."""
    assert refused(decoder(), rmc("131519", "030216", status, f",,{mode}")) is reason


@pytest.mark.parametrize(
    ("denial", "reason"),
    [
        (gga("131519", "6", "00"), Reject.ESTIMATED),
        (gga("131519", "8", "10"), Reject.MANUAL_OR_SIMULATED),
        (gga("131519", "7", "00"), Reject.MANUAL_OR_SIMULATED),
        (f"GNGNS,131519,{POSITION},EEN,00,1.0,10,0,,", Reject.ESTIMATED),
        (f"GNGNS,131519,{POSITION},AS,08,1.0,10,0,,", Reject.MANUAL_OR_SIMULATED),
        (f"GPGLL,{POSITION},131519,A,E", Reject.ESTIMATED),
        ("GPVTG,0.0,T,,M,0.0,N,0.0,K,E", Reject.ESTIMATED),
    ],
)
def test_any_sentence_of_the_device_may_deny_the_fix(denial: str, reason: Reject) -> None:
    """RMC says A, another sentence that the position is estimated, simulated or typed in: neither RMC nor ZDA names a second until 5 s
    after it was said last."""
    nmea = decoder()
    say(nmea, denial, 100)
    assert refused(nmea, rmc("131519", "030216"), 100.1) is reason
    assert refused(nmea, "GPZDA,131519.00,03,02,2016,00,00", 100.2) is reason
    assert len(say(nmea, rmc("131525", "030216"), 106)) == 1


@pytest.mark.parametrize(
    "statement",
    [
        *(gga("131519", quality) for quality in "1234579"),
        f"GNGNS,131519,{POSITION},NNA,04,1.0,10,0,,",
        f"GNGNS,131519,{POSITION},RE,04,1.0,10,0,,",
        f"GPGLL,{POSITION},131519,A,D",
    ],
)
def test_statements_of_a_fix_let_zda_name_the_second(statement: str) -> None:
    """GGA 7 with satellites in use is a base station at a known place; of GNS's letters one constellation is enough."""
    nmea = decoder()
    say(nmea, statement, 100)
    assert len(say(nmea, "GPZDA,131519.00,03,02,2016,00,00", 100.1)) == 1


def test_a_base_station_is_a_fix_for_time() -> None:
    """A receiver at a known place (GGA 7, satellites in use) shows a fix that is for time only."""
    nmea, sky = decoder(), list[SkyView]()
    for k in range(3):
        for body in (gga(f"13151{k}", "7"), rmc(f"13151{k}", "030216")):
            values = nmea.decode(Frame(FrameKind.NMEA, body.encode(), Instant(0, (100 + k) * NS), True)).values
            sky += [v for v in values if isinstance(v, SkyView)]
    assert sky[-1].mode is FixMode.TIME_ONLY


def test_two_devices_on_a_line_are_judged_apart() -> None:
    """GP coasts (GGA 6, RMC E), GN has a fix: both send RMC, so they are two devices, and GN's seconds are named. A device that sends GGA
    as GP and RMC as GN is one: its GGA counts for its RMC."""
    two = decoder()
    for k in range(3):
        say(two, gga(f"13151{k}", "6", "00"), 100 + k)
        say(two, rmc(f"13151{k}", "030216", tail=",,E"), 100.1 + k)
        got = say(two, rmc(f"13151{k}", "030216").replace("GP", "GN"), 100.2 + k)
    assert [label.talker for label in got] == ["GN"]
    one = decoder()
    say(one, gga("131519", "6", "00"), 100)
    assert refused(one, rmc("131519", "030216").replace("GP", "GN"), 100.1) is Reject.ESTIMATED


@pytest.mark.parametrize(
    ("not_before", "day", "expected", "weeks"),
    [
        ((2019, 1, 1), "220899", (2019, 4, 7), 1),
        ((2026, 11, 1), "220899", (2038, 11, 21), 2),
        ((2019, 1, 1), "010119", (2019, 1, 1), 0),
        ((2019, 1, 1), "311218", (2038, 8, 16), 1),
        ((2000, 1, 1), "181223", (2023, 12, 18), 0),  # later than the window is no rollover
        ((1999, 1, 1), "220899", (1999, 8, 22), 0),
        ((2090, 1, 1), "010105", (2105, 1, 1), 0),
    ],
)
def test_dates_before_the_window_are_rollovers(not_before: tuple[int, ...], day: str, expected: tuple[int, ...], weeks: int) -> None:
    """A date earlier than possible is moved on by whole multiples of 1024 weeks, and says so."""
    (label,) = say(decoder(posix(*not_before)), rmc("000231.42", day))
    assert label.utc_ns == posix(*expected) * NS + 151 * NS + 420_000_000
    assert label.weeks_repaired == weeks


def test_far_future_is_refused() -> None:
    """Forty years after the earliest possible date no receiver is right."""
    nmea = decoder()
    say(nmea, "GPGSA,A,3,01,02,03,,,,,,,,,,1,1,1")
    assert refused(nmea, "GPZDA,131519.00,03,02,2090,00,00") is Reject.DATE_WINDOW


def test_second_60_has_the_number_of_59() -> None:
    """23:59:60 is POSIX 23:59:59 with a flag; the library's own parser cannot hold it."""
    (label,) = say(decoder(), rmc("235960.00", "311216"))
    assert label.second_60
    assert label.utc_ns == posix(2016, 12, 31, 23, 59, 59) * NS


def test_checksum_may_be_missing_only_if_it_always_was() -> None:
    """A receiver that never sends checksums is read; one that does is held to it; a wrong one is always refused."""
    nmea = decoder()
    assert len(say(nmea, rmc("131519", "030216"), 100, None)) == 1
    assert nmea.without_checksum == 1
    assert refused(nmea, rmc("131520", "030216"), 101, False) is Reject.CHECKSUM
    assert len(say(nmea, rmc("131521", "030216"), 102, True)) == 1
    assert refused(nmea, rmc("131522", "030216"), 103, None) is Reject.NO_CHECKSUM


def test_gsv_and_gsa_of_a_cycle_tell_the_sky() -> None:
    """Satellites in view from complete GSV lists, those in use from GSA, the fix from both; reported when the next cycle begins."""
    nmea = decoder()
    at = Instant(0, 100 * NS)

    def put(body: str) -> list[SkyView]:
        return [v for v in nmea.decode(Frame(FrameKind.NMEA, body.encode(), at, True)).values if isinstance(v, SkyView)]

    put(rmc("131519", "030216"))
    put("GNGSA,A,3,05,13,,,,,,,,,,,1.6,0.9,1.3,1")
    put("GNGSA,A,3,72,,,,,,,,,,,,1.6,0.9,1.3,2")
    put("GPGSV,2,1,05,02,11,115,37,05,34,060,48,07,00,023,,13,56,090,49")
    put("GPGSV,2,2,05,46,38,194,45")
    put("GLGSV,1,1,01,72,20,100,33,1")
    put("GAGSV,2,1,05,01,11,115,37")  # its second half is lost
    (sky,) = put(rmc("131520", "030216"))
    assert sky.mode is FixMode.FIX_3D
    assert sky.used == 3
    assert {(s.gnss, s.number, s.used) for s in sky.satellites} == {
        ("GPS", 2, False),
        ("GPS", 5, True),
        ("GPS", 7, False),
        ("GPS", 13, True),
        ("SBAS", 46, False),
        ("GLONASS", 72, True),
    }
    five = next(s for s in sky.satellites if s.number == 5)
    assert (five.elevation, five.azimuth, five.snr) == (34, 60, 48)


def test_time_of_day_is_read_exactly() -> None:
    """Fractions are decimal, not binary; what is no time is None."""
    assert time_ns("000000.001") == 1_000_000
    assert time_ns("235959.999999999") == 86_400 * NS - 1
    assert time_ns("120000.") == time_ns("120000") == 43_200 * NS
    assert [time_ns(t) for t in ("", "1200", "240000", "126000", "-10000", "1 0000", "120000.5.5")] == [None] * 7


def test_constellations_are_told_apart_by_talker_and_number() -> None:
    """Mixed talkers are told apart by number range."""
    assert [gnss_of("GN", n) for n in (5, 40, 70, 195, 301, 999)] == ["GPS", "SBAS", "GLONASS", "QZSS", "Galileo", ""]
    assert gnss_of("BD", 5) == gnss_of("GB", 5) == "BeiDou"
