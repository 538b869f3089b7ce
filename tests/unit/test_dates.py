"""Dates: what a receiver may say of the day, against all other witnesses."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from refclock.dates import floor_s, impossible
from refclock.labels import window
from refclock.sample import NS, Instant, SecondLabel

WEEKS = 1024 * 604_800


def posix(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


BUILD = posix("2026-11-01")


def verdict(stated: str, clock: str, saved: str = "") -> str:
    """The receiver says ``stated``, the system clock ``clock``; an earlier run knew ``saved``."""
    saved_s = posix(saved) if saved else None
    placed = window(posix(stated), floor_s(BUILD, saved_s))
    assert placed is not None
    return impossible(SecondLabel(placed[0] * NS, Instant(posix(clock) * NS, 0), "RMC", weeks_repaired=placed[1]), BUILD, saved_s)


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
def test_believed(stated: str, clock: str, saved: str) -> None:
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
def test_refused_and_said(stated: str, clock: str, saved: str, words: str) -> None:
    """A contradiction is refused, with both dates and what to do."""
    told = verdict(stated, clock, saved)
    assert words in told
    assert "set the system clock" in told
