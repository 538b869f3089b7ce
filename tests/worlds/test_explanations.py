"""The reason told is the fault that was put in: one fault a case, sixty seconds after a healthy start beside no other witness."""

from __future__ import annotations

from datetime import datetime

import pytest
from line_world import Say, gga, rmc, run_case, s, timedelta

BEGIN_S, DURATION_S = 60, 120


def after(fault: Say) -> Say:
    """A healthy line, and ``fault`` from BEGIN_S on."""
    return lambda utc, k: [(0.12, s(rmc(utc)) + s(gga(utc)))] if k < BEGIN_S else fault(utc, k)


def off(**by: int) -> Say:
    """All seconds are off."""
    return lambda utc, k: [(0.12, s(rmc(utc + timedelta(**by))) + s(gga(utc + timedelta(**by))))]


def fixed(mode: str, quality: int, status: str = "A") -> Say:
    """Another kind of fix."""
    return lambda utc, k: [(0.12, s(rmc(utc, status, mode=mode)) + s(gga(utc, quality)))]


def late(by_s: float) -> Say:
    """Messages come late."""
    return lambda utc, k: [(by_s, s(rmc(utc)) + s(gga(utc)))]


def frozen(utc: datetime, k: int) -> list[tuple[float, bytes]]:
    """The same second again and again."""
    stands = utc - timedelta(seconds=k - BEGIN_S)
    return [(0.12, s(rmc(stands)) + s(gga(stands)))]


def rival(utc: datetime, _k: int) -> list[tuple[float, bytes]]:
    """A second talker, 3 s ahead."""
    ahead = utc + timedelta(seconds=3)
    return [(0.12, s(rmc(utc)) + s(gga(utc))), (0.4, s(rmc(ahead, talker="GL")))]


def complains(utc: datetime, _k: int) -> list[tuple[float, bytes]]:
    """The receiver reports that its input is shut."""
    return [(0.12, s(rmc(utc)) + s(gga(utc)) + s("GPTXT,01,01,00,More than 100 frame errors, UART RX was disabled"))]


def crowded(utc: datetime, _k: int) -> list[tuple[float, bytes]]:
    """More sentences than 9600 baud carry in a second."""
    return [(0.02, s(rmc(utc)) + s(gga(utc)) + 14 * s("GPGSV,3,1,12,01,40,083,46,02,17,308,41,12,07,344,39,14,22,228,45"))]


def damaged(utc: datetime, _k: int) -> list[tuple[float, bytes]]:
    """Every sentence arrives with a wrong character."""
    return [(0.12, (s(rmc(utc)) + s(gga(utc))).replace(b"4717", b"4711"))]


FAULTS = {
    "late by no whole second": (late(1.0), "its line or its firmware delays them"),
    "one second ahead": (off(seconds=1), "its leap count is not the present one"),
    "one second behind": (off(seconds=-1), "it delays them by whole seconds, or its leap count is too large"),
    "local time": (off(hours=2), "it sends local time"),
    "another time of day": (off(minutes=20), "clock had stood still or jumped"),
    "another day": (off(days=-137), "its date is wrong"),
    "estimated fix": (fixed("E", 6), "estimated"),
    "typed-in position": (fixed("M", 7), "typed in"),
    "simulator": (fixed("S", 8), "simulat"),
    "void": (fixed("N", 0, "V"), "its time is not valid (status V)"),
    "frozen": (frozen, "its clock stands still"),
    "two talkers": (rival, "two talkers on its line name different seconds"),
    "its input is shut": (complains, "its input is shut"),
    "the line is full": (crowded, "its line carries"),
    "damaged bytes": (damaged, "checksum"),
    "silence": (lambda utc, k: [], "no valid second from the receiver"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_reason_told_is_the_fault(name: str) -> None:
    """At the end people read, of the source or of the daemon, what is the matter, and no packet is beyond its bound."""
    fault, words = FAULTS[name]
    world = run_case(name, after(fault), duration=DURATION_S)
    told = [c.words for c in (*world.last.conditions, *world.last.sources[0].conditions)]
    assert any(words in sentence for sentence in told), told
    assert not world.outcome.violations
