"""Dates: what a receiver may say of the day, against all other witnesses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from refclock.condition import Code
from refclock.config import ReceiverSource
from refclock.kernel.clocks import read_adjtimex
from refclock.kernel.host import Host, battery_witness_s
from refclock.sample import NS, Instant, Leap, SecondLabel
from refclock.timescales import window
from refclock.timing.dates import floor_s, impossible
from refclock.timing.pulse_time import Context
from refclock.timing.receiver_time import ReceiverTime

WEEKS = 1024 * 604_800


def posix(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


BUILD = posix("2026-11-01")


def verdict(stated: str, clock: str, saved: str = "") -> str:
    """The receiver says ``stated``, the system clock ``clock``; an earlier run knew ``saved``."""
    saved_s = posix(saved) if saved else None
    placed = window(posix(stated), floor_s(BUILD, saved_s))
    assert placed is not None
    found = impossible(SecondLabel(placed[0] * NS, Instant(posix(clock) * NS, 0), "RMC", weeks_repaired=placed[1]), BUILD, saved_s)
    return "" if found is None else f"{found.code}: {found.words}"


@pytest.mark.parametrize(
    ("stated", "clock", "saved"),
    [
        ("2026-11-21", "2026-11-21", ""),
        ("2026-11-21", "1970-01-01", ""),  # a host without RTC, first start
        ("2026-11-21", "2026-11-02", "2026-11-02"),  # a host that was off for weeks: its clock stopped
        ("2033-05-05", "2026-11-02", "2026-11-02"),  # for years
        ("2026-11-21", "2027-03-01", ""),  # a clock set wrongly, within the period: trust waits for the leap count, no more
        ("2007-04-07", "2026-11-21", ""),  # one period back, repaired
        ("1987-08-22", "2026-11-21", ""),  # two
        ("2026-11-20T12:00", "2026-11-21", "2026-11-21"),  # a little before what was saved
        ("2046-08-01", "2046-08-01", ""),  # this release, twenty years old, on a host that knows the date
        ("2026-12-16", "2046-08-01", "2046-07-31"),  # and a receiver that rolled over then
    ],
)
def test_possible_dates_are_believed(stated: str, clock: str, saved: str) -> None:
    """No witness speaks against these dates."""
    assert verdict(stated, clock, saved) == ""


@pytest.mark.parametrize(
    ("stated", "clock", "saved", "words"),
    [
        ("2026-11-21", "2046-07-07", "", "says 2026-11-21, the system clock 2046-07-07: one of them is wrong by a week rollover"),
        ("2046-07-07", "2026-11-21", "", "the receiver says 2046-07-07, the system clock 2026-11-21: one of them is wrong"),
        ("2017-06-01", "2026-11-21", "", "says 2017-06-01, which would be 2037-01-15 after 1024 weeks, the system clock 2026-11-21"),
        ("2046-07-07", "1970-01-01", "", "more than 1024 weeks after this release, and nothing confirms it"),
        ("2026-11-10", "1970-01-01", "2027-06-01", "says 2026-11-10, but 2027-06-01 was already known here: time does not go back"),
        ("2026-11-10", "2027-06-01", "2027-06-01", "the receiver says 2026-11-10, which would be"),
    ],
)
def test_impossible_dates_are_refused_and_said(stated: str, clock: str, saved: str, words: str) -> None:
    """A contradiction is refused, with both dates and what to do."""
    told = verdict(stated, clock, saved)
    codes = {"wrong": "week-rollover", "would be": "week-rollover", "more than": "date-unconfirmed", "go back": "time-goes-back"}
    assert told.startswith(next(code for part, code in codes.items() if part in words))
    assert words in told
    assert "set the system clock" in told


@pytest.mark.parametrize(
    ("stated", "clock", "battery", "words"),
    [
        ("2026-11-21", "1970-01-01", "2026-11-21", ""),
        ("2046-07-07", "1970-01-01", "2046-07-07", ""),  # twenty years old: the battery clock is the witness
        ("2026-11-21", "1970-01-01", "1999-12-31", ""),  # a battery that was empty says nothing
        ("2026-11-21", "2026-11-20", "2027-03-01", ""),  # within the period: trust's matter
        ("2026-11-21", "1970-01-01", "2046-07-07", "says 2026-11-21, the battery clock (RTC) 2046-07-07: one of them is wrong by a week"),
        ("2026-11-21", "2026-11-21", "2046-07-07", "the battery clock (RTC) 2046-07-07"),  # refused although the system clock agrees
    ],
)
def test_battery_clock_is_a_witness(stated: str, clock: str, battery: str, words: str) -> None:
    """While nobody keeps the system clock the RTC names the 1024-week period, goes on counting with the oscillator, and a contradiction is
    refused and said, with what to do."""
    source = ReceiverTime(ReceiverSource(name="gps0", device="/dev/x", pps=""), BUILD, battery_ns=(posix(battery) - 5_000) * NS)
    hour_s = 3600
    at = Instant((posix(clock) + hour_s) * NS, (5_000 + hour_s) * NS)
    source.label(SecondLabel((posix(stated) + hour_s) * NS, at, "RMC"), 0, Context())
    assert words in source.belief.why
    assert ("week rollover" in source.belief.why) is bool(words)
    assert ("set the battery clock" in source.belief.why) is bool(words)


def test_battery_clock_is_asked_only_when_nobody_keeps_the_clock(tmp_path: Path) -> None:
    """A kernel that says it is synchronised needs no such witness; a board without RTC has none."""
    kernel = read_adjtimex()
    assert battery_witness_s(Host(tmp_path), replace(kernel, leap=Leap.UNSYNCHRONISED)) is None
    rtc = tmp_path / "sys/class/rtc/rtc0"
    rtc.mkdir(parents=True)
    (rtc / "since_epoch").write_text("1800000000\n")
    assert battery_witness_s(Host(tmp_path), replace(kernel, leap=Leap.UNSYNCHRONISED)) == 1_800_000_000
    assert battery_witness_s(Host(tmp_path), replace(kernel, leap=Leap.NORMAL)) is None
    for broken in ("-1", "99999999999999999999", "nonsense"):
        (rtc / "since_epoch").write_text(broken)
        assert battery_witness_s(Host(tmp_path), replace(kernel, leap=Leap.UNSYNCHRONISED)) is None


def test_an_impossible_date_is_shown_while_the_pulses_go_on() -> None:
    """One label of the wrong rollover among right ones is no reason to stop, and it is told for ten seconds."""
    time = ReceiverTime(ReceiverSource(device="/dev/ttyS0", pps="/dev/pps0"), BUILD)
    right_s = posix("2026-11-21")

    def label(second: int, off_s: int = 0) -> None:
        at = Instant((right_s + second) * NS, (100 + second) * NS)
        time.label(SecondLabel((right_s + second + off_s) * NS, at, "RMC"), 0, Context())

    label(0)
    label(1, WEEKS)
    label(2)
    codes = {second: [(c.code, c.blocks) for c in time.conditions((100 + second) * NS)] for second in (2, 20)}
    assert (Code.WEEK_ROLLOVER, False) in codes[2]
    assert (Code.WEEK_ROLLOVER, False) not in codes[20]
