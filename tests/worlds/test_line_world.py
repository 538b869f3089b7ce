"""Lines written by hand (line_world.py): the tool with which a strange receiver is tried."""

from __future__ import annotations

from datetime import datetime

from line_world import LineWorld, case, gga, rmc, s, zda

from refclock.condition import Code


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


def told(world: LineWorld) -> str:
    return "\n".join(words for _, words in world.told)


def test_what_is_dropped_is_the_reason_that_is_shown() -> None:
    """ZDA alone on a host whose clock is wrong, and dates before 1980: people read what is missing and what to do."""
    only_zda = case("ZDA only", lambda utc, k: [(0.12, s(zda(utc)))], want="never-wrong", duration=40, clock_off_s=-90_000.0)
    assert "it sends only ZDA" in told(only_zda)
    assert "add RMC or GGA" in told(only_zda)
    assert only_zda.outcome.synchronised == 0
    old = case(
        "dates before 1980",
        lambda utc, k: [(0.12, s(gga(utc)) + s(zda(utc.replace(year=1970))))],
        want="never-wrong",
        duration=40,
    )
    assert "it names dates before 1980" in told(old)


def test_a_line_without_time_to_spare_is_told() -> None:
    """A receiver that sends 960 bytes a second at 9600 baud: people read that the line is never idle, and to raise the speed."""
    filler = b"".join(s(f"GPGSV,4,{i},16,01,40,083,46,02,17,308,41,12,07,344,39,14,22,228,45") for i in range(1, 5)) * 4

    def say(utc: datetime, k: int) -> list[tuple[float, bytes]]:
        burst = s(rmc(utc)) + s(gga(utc)) + filler
        return [(0.05, burst[:960])]

    world = case("never idle", say, want="never-wrong", duration=60, baud=9600)
    (source,) = world.last.sources
    (found,) = (c for c in source.conditions if c.code is Code.LINE_SATURATED)
    assert found.words.startswith("its line carries 960 bytes a second and is never idle")
    assert not found.blocks
