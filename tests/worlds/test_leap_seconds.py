"""Leap seconds as receivers tell them: the right second within the first seconds of the day, or none; never one that is wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from line_world import UTC, LineWorld, Say, case, datetime, gga, rmc, s, timedelta

from refclock.protocols.ubx import encode
from refclock.timescales import DAY_S, LeapTable

GPS = datetime(1980, 1, 6, tzinfo=UTC)
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)
START = NEW_YEAR - timedelta(seconds=200)
AT = 200
"""True second in which 2027 begins when no leap second comes before it."""
MIDNIGHT_S = int(NEW_YEAR.timestamp())
VALID = LeapTable(expires_s=MIDNIGHT_S + 100 * DAY_S)
EXPIRED = LeapTable(expires_s=MIDNIGHT_S - 3 * DAY_S)
IN_QUESTION_S = 6
"""s; the longest time for which nothing may be served around the midnight."""


def counted(k: int, step_s: int, takes_at: int = AT, start: datetime = START) -> datetime:
    """What a receiver names in true second ``k`` that takes a leap second in true second ``takes_at``."""
    return start + timedelta(seconds=k - (step_s if k >= takes_at else 0))


def nmea(step_s: int = 1, takes_at: int = AT, sixty: bool = False, after_s: float = 0.12) -> Say:
    def say(_utc: datetime, k: int) -> Sequence[tuple[float, bytes]]:
        t = counted(k, step_s, takes_at)
        data = s(rmc(t)) + s(gga(t))
        if sixty and k == AT:
            data = b"".join(s(line(t).replace("235959", "235960")) for line in (rmc, gga))
        return [(after_s, data)]

    return say


def ubx(step_s: int, announced_s: int, midnight: datetime = NEW_YEAR, until: int = AT, start: datetime = START) -> Say:
    """NAV-PVT that takes ``step_s``, and NAV-TIMELS that announces ``announced_s`` for ``midnight`` until true second ``until``."""

    def say(_utc: datetime, k: int) -> Sequence[tuple[float, bytes]]:
        u = counted(k, step_s, start=start)
        sixty = step_s == 1 and k == AT
        tow = (int((start - GPS).total_seconds()) + k + 18) % 604800 * 1000
        pvt = struct.pack("<IHBBBBBBIiBBBB", tow, u.year, u.month, u.day, u.hour, u.minute, 60 if sixty else u.second, 7, 25, 0, 3, 1, 0, 9)
        pvt += struct.pack("<iiiiII", 85653000, 473512000, 408000, 361000, 1200, 2000)
        week, day = divmod((midnight - timedelta(days=1) - GPS).days, 7)
        to = AT - k
        change = announced_s if k < until else 0
        timels = struct.pack("<IB3xBbBbiHH3xB", tow, 0, 2, 18 + step_s * (k > AT), 2, change, to, week, day + 1, 3)
        return [(0.08, encode(1, 7, pvt + bytes(92 - len(pvt))) + encode(1, 0x26, timels))]

    return say


def run(
    say: Say,
    step_s: int,
    *,
    table: LeapTable | None = None,
    pulse: str = "pi",
    want: str = "locked",
    says: str = "",
    kept_ms: float | None = 5,
    duration: int = 300,
) -> LineWorld:
    """The end of 2026 with a leap second of ``step_s``; 0: none."""
    leap_at, step_s = (NEW_YEAR, step_s) if step_s else (None, 1)
    world = case(
        "leap second", say, want=want, duration=duration, utc=START, pulse=pulse, says=says, kept_ms=kept_ms,
        leap_at=leap_at, leap_step_s=step_s, table=table,
    )  # fmt: skip
    assert world.outcome.violations == 0, world.outcome.worst
    assert world.outcome.wrong_seconds == 0
    assert any(says in words for _, words in world.told)
    if want == "locked":
        assert world.outcome.final == "LOCKED"
    return world


def unserved(world: LineWorld) -> float:
    """Seconds without time after it was first served; those near a leap second are not counted by the world."""
    o = world.outcome
    assert o.first_synchronised_s is not None
    return (o.packets - o.synchronised) / 2 - o.first_synchronised_s


@pytest.mark.parametrize("table", [None, EXPIRED])
@pytest.mark.parametrize(
    ("step_s", "say"),
    [
        (1, nmea(sixty=True)),
        (1, nmea()),
        (1, nmea(takes_at=AT + 1)),
        (1, nmea(takes_at=AT - 18)),
        (1, nmea(after_s=0.6)),
        (-1, nmea(-1, AT - 1)),
        (0, nmea(0)),
        (1, ubx(1, 1)),
        (0, ubx(0, 1)),
        (0, ubx(0, -1)),
        (1, ubx(1, 0)),
        (1, ubx(1, 1, until=AT - 30)),
        (0, ubx(0, 1, until=AT - 30)),
        (0, ubx(0, 1, datetime(2026, 12, 1, tzinfo=UTC))),
    ],
    ids=[
        *("says 23:59:60", "23:59:59 twice", "00:00:00 twice", "18 s early", "late messages", "deleted", "none", "announced"),
        *("never coming", "deletion never coming", "unannounced", "withdrawn and coming", "withdrawn", "announced for the past"),
    ],
)
def test_without_a_valid_table_the_right_second_comes_within_seconds(step_s: int, say: Say, table: LeapTable | None) -> None:
    """Whatever the receiver says before and during it: a few seconds are not served, none is wrong, and people are told why."""
    world = run(say, step_s, table=table, says="leap second")
    assert unserved(world) <= IN_QUESTION_S


@pytest.mark.parametrize(
    ("step_s", "say"),
    [(1, nmea(sixty=True)), (1, nmea()), (1, nmea(takes_at=AT + 1)), (1, nmea(takes_at=AT + 20)), (-1, nmea(-1, AT - 1)), (0, nmea(0))],
    ids=["says 23:59:60", "23:59:59 twice", "00:00:00 twice", "20 s late", "deleted", "none"],
)
def test_with_a_valid_table_no_second_is_missing(step_s: int, say: Say) -> None:
    """It knows what comes, so the time is served through the midnight."""
    table = VALID.with_leap(MIDNIGHT_S, step_s) if step_s else VALID
    assert unserved(run(say, step_s, table=table)) <= (2 if step_s else 0) + 1


@pytest.mark.parametrize("say", [nmea(1), nmea(-1, AT - 1), ubx(0, 1)], ids=["inserted", "deleted", "announced"])
def test_with_a_valid_table_labels_that_contradict_it_are_in_doubt(say: Say) -> None:
    """A receiver that takes a leap second that the valid table does not have: served on by its pulses, with and without a kept clock."""
    for kept_ms in (5, None):
        assert unserved(run(say, 0, table=VALID, duration=AT + 200, kept_ms=kept_ms)) <= 1


@pytest.mark.parametrize("step_s", [-1, 0, 1])
def test_by_messages_alone(step_s: int) -> None:
    """Without a pulse the labels make the timescale, and still show what became of UTC."""
    run(nmea(step_s, AT if step_s > 0 else AT - 1), step_s, pulse="none")


@pytest.mark.parametrize("pulse", ["pi", "none"])
@pytest.mark.parametrize("step_s", [-1, 0, 1])
def test_in_holdover_nothing_is_served_until_labels_come_back(step_s: int, pulse: str) -> None:
    """Silent from a minute before until a minute after: holdover, then unsettled, then the right second. With a valid table holdover is
    served through the midnight."""
    inner = nmea(step_s, AT if step_s > 0 else AT - 1)

    def say(utc: datetime, k: int) -> Sequence[tuple[float, bytes]]:
        return [] if abs(k - AT) < 60 else inner(utc, k)

    world = run(say, step_s, pulse=pulse, says="waiting for 3 seconds", duration=400)
    assert 60 <= unserved(world) <= 60 + IN_QUESTION_S
    table = VALID.with_leap(MIDNIGHT_S, step_s) if step_s else VALID
    assert unserved(run(say, step_s, pulse=pulse, table=table, duration=400)) <= 4


def test_announced_for_the_end_of_september() -> None:
    """Only the table is believed for another month than June and December: nothing is withheld, and people are told."""
    midnight = datetime(2026, 10, 1, tzinfo=UTC)
    start = midnight - timedelta(seconds=AT)
    world = case("September", ubx(0, 1, midnight, start=start), want="locked", duration=AT + 100, utc=start, kept_ms=5)
    assert (world.outcome.violations, world.outcome.final) == (0, "LOCKED")
    assert unserved(world) <= 1
