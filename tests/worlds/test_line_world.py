"""Lines written by hand (line_world.py): the tool with which a strange receiver is tried."""

from __future__ import annotations

from line_world import case, gga, rmc, s


def test_a_healthy_line_locks() -> None:
    """RMC and GGA a tenth of a second after a pulse of a Raspberry Pi: LOCKED within a minute, every packet within its bound."""
    world = case("healthy", lambda utc, k: [(0.12, s(rmc(utc)) + s(gga(utc)))], want="locked", duration=120, kept_ms=5)
    assert world.outcome.final == "LOCKED"
    assert world.outcome.violations == 0
    assert world.outcome.locked_after_s is not None
    assert world.outcome.locked_after_s < 60


def test_a_line_that_is_never_valid_is_never_served() -> None:
    """RMC with status V says the time and that it may be wrong: no packet is synchronised."""
    world = case("void", lambda utc, k: [(0.12, s(rmc(utc, status="V", mode="N")))], want="never-wrong", duration=60)
    assert world.outcome.synchronised == 0
