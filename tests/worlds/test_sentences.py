"""What receivers write, through the whole daemon: late sentences, frozen and foreign ones, fixes that are none, checksums of their own."""

from __future__ import annotations

import pytest
from line_world import Fault, Say, case, datetime, gga, rmc, s


def late(gap_s: float) -> Say:
    """GGA first, RMC ``gap_s`` later (many GSV between them on a slow line)."""
    return lambda utc, k: [(0.1, s(gga(utc))), (0.1 + gap_s, s(rmc(utc)))]


@pytest.mark.parametrize("gap_s", [0.75, 0.85, 1.05, 1.8, 2.6])
def test_a_dated_sentence_may_come_late_in_its_cycle(gap_s: float) -> None:
    """RMC comes up to 2.6 s after the GGA of its cycle, among the sentences of the next: LOCKED as soon as ever, on the right second."""
    world = case(f"RMC {gap_s} s after GGA", late(gap_s), want="locked", duration=60, kept_ms=5, baud=115200)
    assert world.outcome.final == "LOCKED"
    assert world.outcome.violations == 0
    assert world.outcome.locked_after_s is not None
    assert world.outcome.locked_after_s < 8 + gap_s


def test_a_dated_sentence_that_becomes_late_moves_no_second() -> None:
    """RMC 0.7 s after GGA, then 0.9 s: still the same seconds, without a kept clock as well."""
    world = case("RMC later", lambda utc, k: late(0.7 if k < 30 else 0.9)(utc, k), want="locked", duration=90, kept_ms=5, baud=115200)
    assert world.outcome.final == "LOCKED"
    assert world.outcome.violations == 0


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
