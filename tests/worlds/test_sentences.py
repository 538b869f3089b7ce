"""What receivers write, through the whole daemon: late sentences, frozen and foreign ones, fixes that are none, checksums of their own."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from line_world import Fault, Say, case, datetime, gga, rmc, s, timedelta, zda

from refclock.condition import Code
from refclock.protocols.ubx import NAV_PVT, NAV_TIMELS, encode


def late(gap_s: float) -> Say:
    """GGA first, RMC ``gap_s`` later (many GSV between them on a slow line)."""
    return lambda utc, k: [(0.1, s(gga(utc))), (0.1 + gap_s, s(rmc(utc)))]


def ubx_pvt(utc: datetime) -> bytes:
    """NAV-PVT with a 3D fix and a resolved UTC."""
    day = (utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second)
    tow_ms = int(((utc - datetime(1980, 1, 6, tzinfo=utc.tzinfo)).total_seconds() + 18) % 604_800 * 1000)
    pvt = struct.pack("<IHBBBBBBIiBBBB", tow_ms, *day, 7, 25, 0, 3, 1, 0, 9)
    pvt += struct.pack("<iiiiII", 85653000, 473512000, 408000, 361000, 1200, 2000)
    return encode(*NAV_PVT, pvt + bytes(92 - len(pvt)))


def ubx_timels(source: int) -> bytes:
    """NAV-TIMELS: 18 s, valid, from ``source``."""
    return encode(*NAV_TIMELS, struct.pack("<IB3xBbBbiHH3xB", 0, 0, source, 18, 0, 0, 0, 0, 0, 1))


@pytest.mark.parametrize("gap_s", [0.75, 0.85, 1.05, 1.8, 2.6])
def test_a_dated_sentence_may_come_late_in_its_cycle(gap_s: float) -> None:
    """RMC comes up to 2.6 s after the GGA of its cycle, among the sentences of the next: LOCKED as soon as ever, on the right second."""
    world = case(f"RMC {gap_s} s after GGA", late(gap_s), want="locked", duration=60, kept_ms=5, baud=115200)
    assert world.outcome.final == "LOCKED"
    assert world.outcome.violations == 0
    assert world.outcome.locked_after_s is not None
    assert world.outcome.locked_after_s < 8 + gap_s


@pytest.mark.parametrize("kept_ms", [5, None])
def test_a_dated_sentence_that_becomes_late_moves_no_second(kept_ms: float | None) -> None:
    """RMC 0.7 s after GGA, then 0.9 s: still the same seconds, without a kept clock as well."""
    world = case("RMC later", lambda utc, k: late(0.7 if k < 30 else 0.9)(utc, k), want="locked", duration=90, kept_ms=kept_ms, baud=115200)
    assert world.outcome.final == "LOCKED"
    assert world.outcome.violations == 0


@pytest.mark.parametrize(("kept_ms", "clock_s"), [(5, 0.002), (None, 0.002), (None, -90000.0)])
def test_a_gga_a_second_ahead_of_its_rmc_moves_no_second(kept_ms: float | None, clock_s: float) -> None:
    """On the wire it looks like an RMC that comes a second after the GGA of its cycle: used where a clock says which, never wrong."""

    def say(utc: datetime, k: int) -> list[tuple[float, bytes]]:
        del k
        return [(0.1, s(gga(utc + timedelta(seconds=1))) + s(rmc(utc)))]

    world = case("GGA ahead", say, want="never-wrong", duration=900, kept_ms=kept_ms, clock_off_s=clock_s, baud=115200)
    assert world.outcome.violations == 0
    assert (world.outcome.locked_after_s is not None) is (kept_ms is not None)


@pytest.mark.parametrize("clock_s", [0.002, -90000.0])
def test_an_rmc_a_second_after_its_gga_needs_a_clock_that_agrees(clock_s: float) -> None:
    """The same on the wire: a system clock that agrees tells, also one that nobody keeps; without one nothing is named, and why is said."""
    world = case("RMC late", late(1.05), want="never-wrong", duration=900, clock_off_s=clock_s, baud=115200)
    assert world.outcome.violations == 0
    assert (world.outcome.locked_after_s is not None) is (clock_s > 0)
    assert clock_s > 0 or "let it send RMC first" in world.last.why


@pytest.mark.parametrize("source", [0, 6, 7])
def test_a_count_that_is_denied_after_the_lock_gives_the_second_up(source: int) -> None:
    """NAV-PVT a second wrong claims its leap count; NAV-TIMELS, which comes 9 s later, says that it is no count from the sky: the second is
    given up at once, and not named again."""

    def say(utc: datetime, k: int) -> list[tuple[float, bytes]]:
        return [(0.08, ubx_pvt(utc + timedelta(seconds=1)) + (ubx_timels(source) if k >= 9 else b""))]

    world = case("denied", say, want="never-wrong", duration=120, clock_off_s=3.0, baud=115200)
    assert world.outcome.final == "ACQUIRING"
    assert world.outcome.synchronised < 12


@pytest.mark.parametrize("ppm", [0.1, 1.0])
def test_an_estimated_fix_is_no_fix(ppm: float) -> None:
    """The antenna is gone: RMC A with mode E, GGA quality 6, while the pulse runs away with the receiver's own oscillator. Held over within
    the bound."""

    def say(utc: datetime, k: int) -> list[tuple[float, bytes]]:
        fix = k < 120
        return [(0.12, s(rmc(utc, mode="A" if fix else "E")) + s(gga(utc, *((1, 9) if fix else (6, 0)))))]

    drift = [Fault("pulse-offset", 120 + 20 * i, 140 + 20 * i, value=20e-6 * ppm * (i + 1)) for i in range(30)]
    world = case(f"estimated, {ppm} ppm", say, want="never-wrong", duration=720, faults=drift)
    assert world.outcome.locked_after_s is not None
    assert world.outcome.final == "HOLDOVER"
    assert world.outcome.violations == 0


def test_a_base_station_locks() -> None:
    """GGA 7 with satellites in use: a receiver at a place that it was told keeps the best time there is."""
    world = case("base", lambda utc, k: [(0.12, s(gga(utc, 7, 20)) + s(rmc(utc, mode="R")))], want="locked", duration=60, kept_ms=5)
    assert world.outcome.final == "LOCKED"
    assert world.outcome.violations == 0


@pytest.mark.parametrize(("quality", "mode"), [(8, "S"), (7, "M"), (8, "A"), (1, "S")])
def test_a_simulator_is_never_served(quality: int, mode: str) -> None:
    """One sentence that says simulator, or typed in without satellites, is enough: no packet is synchronised."""
    used = 0 if quality == 7 else 10
    say = lambda utc, k: [(0.12, s(gga(utc, quality, used)) + s(rmc(utc, mode=mode)))]  # noqa: E731
    world = case("simulator", say, want="never-wrong", duration=40, kept_ms=5)
    assert world.outcome.synchronised == 0


FROZEN = s("GPRMC,000000.00,A,0.000,N,0.000,E,0.0,0.0,050505,0.0,E")
NO_FIX = s("GPRMC,,V,,,,,,,,,,N")


def test_a_frozen_sentence_before_the_right_one_hinders_nobody() -> None:
    """A gateway repeats a valid RMC of 2005 each second while its receiver has no fix, and goes on when it has one."""
    say = lambda utc, k: [(0.05, FROZEN), (0.15, s(rmc(utc)) if k > 30 else NO_FIX)]  # noqa: E731
    world = case("frozen first", say, want="locked", duration=100, kept_ms=5)
    assert world.outcome.final == "LOCKED"
    assert world.outcome.violations == 0
    assert world.outcome.locked_after_s is not None
    assert world.outcome.locked_after_s < 31 + 12


@pytest.mark.parametrize("frozen", ["GPZDA", "GPRMC", "IIZDA", "IIRMC"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("since", [0, 40])
def test_what_stands_still_contradicts_nobody(frozen: str, first: bool, since: int) -> None:
    """ZDA or RMC, of the same talker or another, stands still from the start or from some second on, before or after the sentence that
    moves: LOCKED, and it stays so."""
    stuck: dict[str, bytes] = {}

    def say(utc: datetime, k: int) -> list[tuple[float, bytes]]:
        if k >= since:
            stuck.setdefault("at", s(zda(utc, frozen[:2]) if frozen.endswith("ZDA") else rmc(utc, talker=frozen[:2])))
        still = [] if k < since else [(0.05 if first else 0.25, stuck["at"])]
        return sorted([(0.15, s(gga(utc)) + s(rmc(utc))), *still])

    world = case(f"{frozen} frozen", say, want="locked", duration=90, kept_ms=5)
    assert world.outcome.final == "LOCKED"
    assert world.outcome.violations == 0
    assert world.outcome.locked_after_s is not None
    assert world.outcome.locked_after_s < 20


def test_a_line_that_stands_still_is_never_served() -> None:
    """One valid second, repeated for ever: no packet is synchronised, and people are told that it stands still."""
    world = case("frozen alone", lambda utc, k: [(0.1, FROZEN)], want="never-wrong", duration=40, kept_ms=5)
    assert world.outcome.synchronised == 0
    assert world.last.sources[0].rejected["frozen"] > 30


@pytest.mark.parametrize("off_s", [-3, -1, 1, 3, -86_400])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("talker", ["GN", "GP"])
@pytest.mark.parametrize("kept_ms", [5, None])
def test_of_two_talkers_the_one_that_a_kept_clock_confirms_is_used(off_s: int, first: bool, talker: str, kept_ms: float | None) -> None:
    """A gateway's own clock is a second talker on the line, whole seconds or a day off, before or after the right one, even under the same
    name. Beside a kept clock: LOCKED on the right second. Without one: never a wrong second."""

    def say(utc: datetime, k: int) -> list[tuple[float, bytes]]:
        other = utc + timedelta(seconds=off_s)
        return sorted(
            [(0.15, s(gga(utc)) + s(rmc(utc))), (0.02 if first else 0.35, s(gga(other, talker=talker)) + s(rmc(other, talker=talker)))]
        )

    want = "locked" if kept_ms else "never-wrong"
    world = case(f"{talker} {off_s} s off", say, want=want, duration=60, kept_ms=kept_ms)
    assert world.outcome.violations == 0
    if kept_ms:
        assert world.outcome.final == "LOCKED"
    elif talker == "GN" or abs(off_s) > 1:  # under one name, a second behind cannot be told from a sentence that is sent twice
        assert world.outcome.synchronised == 0


def test_a_checksum_of_one_digit_locks_and_is_told() -> None:
    """A device prints its checksums without the leading zero: LOCKED, with a condition that says so."""

    def say(utc: datetime, k: int) -> list[tuple[float, bytes]]:
        text, check = s(f"GPRMC,{utc:%H%M%S},A,4717.1125,N,00833.9189,E,0.1,341.5,{utc:%d%m%y},5,E,A").split(b"*")
        return [(0.12, b"%s*%X\r\n" % (text, int(check, 16)) + s(gga(utc)))]

    world = case("one digit", say, want="locked", duration=60, kept_ms=5)
    assert world.outcome.final == "LOCKED"
    assert world.outcome.violations == 0
    assert Code.CHECKSUM_HABIT in {c.code for c in world.last.sources[0].conditions}


@pytest.mark.parametrize("gap_s", [0.85, 1.05])
@pytest.mark.parametrize("late_one", [rmc, zda])
@pytest.mark.parametrize("kept_ms", [5, None])
def test_of_two_dated_sentences_one_may_come_late(gap_s: float, late_one: Callable[[datetime], str], kept_ms: float | None) -> None:
    """RMC and ZDA of one cycle, the second of them so late that the next cycle has begun: on the wire it may as well be a second behind, or
    the other a second ahead. A kept clock tells: LOCKED. Without one it is not guessed."""
    first = zda if late_one is rmc else rmc
    say = lambda utc, k: [(0.1, s(gga(utc)) + s(first(utc))), (0.1 + gap_s, s(late_one(utc)))]  # noqa: E731
    world = case("one late", say, want="locked" if kept_ms else "never-wrong", duration=60, kept_ms=kept_ms, baud=115200)
    assert world.outcome.violations == 0
    assert world.outcome.final == ("LOCKED" if kept_ms else "ACQUIRING")


@pytest.mark.parametrize("off_s", [-2, -1, 1, 2])
@pytest.mark.parametrize("odd", [rmc, zda])
def test_of_two_sentences_of_one_cycle_the_confirmed_one_is_used(off_s: int, odd: Callable[[datetime], str]) -> None:
    """RMC and ZDA of one burst are a second or two apart: beside a kept clock the right one is used, whichever it is. One that is ahead is
    told; one that is behind states what GGA stated a second or two before, as a late sentence does."""

    def say(utc: datetime, k: int) -> list[tuple[float, bytes]]:
        stated = [s(kind(utc + timedelta(seconds=off_s if kind is odd else 0))) for kind in (rmc, zda)]
        return [(0.12, s(gga(utc)) + b"".join(stated))]

    world = case("apart", say, want="locked", duration=60, kept_ms=5)
    assert world.outcome.final == "LOCKED"
    assert world.outcome.violations == 0
    assert off_s < 0 or Code.LABELS_DISAGREE in {c.code for c in world.last.sources[0].conditions}
