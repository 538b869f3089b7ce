"""No wrong second: any mixture of faults of a receiver's labels, beside witnesses that stand and without them.

The scenario files in hw-sim/scenarios/witnesses are single faults with the words that people are told; here are mixtures, in the real
engine and packet code. Every reply is held against the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from line_world import LineWorld, Say, gga, rmc, run_case, s, timedelta, zda
from refclock_sim.worlds.scenario import PulseModel, ReceiverModel, Scenario, Start, load_scenario
from refclock_sim.worlds.world import World

FILES = sorted((Path(__file__).parents[2] / "hw-sim" / "scenarios" / "witnesses").glob("*.toml"))
DURATION_S, HEALTHY_S = 900, 60
WEEKS_S, DAY_S = 1024 * 604_800, 86_400
EVERY_WORLD = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_single_fault(path: Path) -> None:
    """The file's claim holds, its sentences were said, and at every packet the error is within the bound that it carries."""
    outcome = World(load_scenario(path), 101).run()
    assert not outcome.failures(load_scenario(path)), (outcome.notes, outcome.said)


@pytest.mark.parametrize("width_ms", [100.0, 200.0, 300.0])
@pytest.mark.parametrize("delay_ms", [10.0, 30.0, 60.0])
@pytest.mark.parametrize("kind", ["ublox8", "ublox8-timing"])
def test_a_lone_trailing_edge_is_not_the_pulse_that_is_announced(kind: str, delay_ms: float, width_ms: float) -> None:
    """The receiver announces its next pulse (TIM-TP) between the two edges of this one, and only the trailing edge reaches us: the pulse is
    refused, and the messages are used alone."""
    pulse, receiver = PulseModel("pi", width_ms=width_ms, edges="clear"), ReceiverModel(kind, delay_ms=delay_ms)
    world = World(Scenario("announced", "", 120, pulse=pulse, receiver=receiver, start=Start(clock_offset_s=0.02)), 1)
    assert world.run().violations == 0


@dataclass(frozen=True, slots=True)
class Piece:
    """What a talker does from a moment on: ``late_s`` its labels come after their second and ``creep`` s later with each second; ``off_s``
    its seconds are ahead; RMC's mode letter and GGA's quality."""

    late_s: float = 0.12
    creep: float = 0.0
    off_s: int = 0
    mode: str = "A"
    quality: int = 1


@dataclass(frozen=True, slots=True)
class Talker:
    """``pieces``: (second from which it holds, piece), in order."""

    name: str
    dated_twice: bool
    pieces: tuple[tuple[int, Piece], ...]

    def at(self, k: int) -> tuple[Piece, int]:
        """(what holds in second ``k``, since when)."""
        since, piece = max((p for p in self.pieces if p[0] <= k), key=lambda p: p[0])
        return piece, since


offs = st.one_of(st.integers(-3, 3), st.sampled_from([-WEEKS_S, -137 * DAY_S, -DAY_S, -7200, 3600]))
pieces = st.builds(
    Piece,
    late_s=st.one_of(st.sampled_from([0.12, 0.3, 1.1]), st.floats(-0.99, 3.0)),
    creep=st.sampled_from([0.0, 0.0, 0.0, 0.002, 0.02, -0.01]),
    off_s=st.one_of(st.just(0), offs),
    mode=st.sampled_from("AAAADEMSN"),
    quality=st.sampled_from([1, 1, 1, 2, 4, 6, 7, 8, 0]),
)
scripts = st.lists(st.tuples(st.integers(1, DURATION_S), pieces), max_size=3).flatmap(
    lambda later: pieces.map(lambda first: tuple(sorted([(0, first), *later], key=lambda p: p[0])))
)
talkers = st.tuples(
    st.builds(Talker, st.sampled_from(["GP", "GN"]), st.booleans(), scripts),
    st.one_of(st.none(), st.builds(Talker, st.just("GL"), st.booleans(), scripts)),
)


def line(crew: Sequence[Talker | None], begin_s: int) -> Say:
    """What the talkers say, from second ``begin_s`` on; before, a healthy receiver that states its leap count."""

    def say(utc: datetime, k: int) -> list[tuple[float, bytes]]:
        if k < begin_s:
            return [(0.12, s(rmc(utc)) + s(gga(utc)) + s(f"PUBX,04,{utc:%H%M%S}.00,{utc:%d%m%y},345600.00,2445,18,0,0.0,21"))]
        out = []
        for talker in filter(None, crew):
            piece, since = talker.at(k - begin_s)
            late_s = min(3.0, max(-0.99, piece.late_s + piece.creep * (k - begin_s - since)))
            ahead_s = 1 if late_s < 0 else 0  # what comes before its second is said within the second before
            named = utc + timedelta(seconds=piece.off_s + ahead_s)
            said = s(rmc(named, "V" if piece.mode == "N" else "A", talker=talker.name, mode=piece.mode))
            said += s(gga(named, piece.quality, talker=talker.name)) + (s(zda(named, talker.name)) if talker.dated_twice else b"")
            out.append((late_s + ahead_s, said))
        return sorted(out)

    return say


def wrong(world: LineWorld) -> str:
    """The first packet beyond its bound, with the daemon's log; "" when there was none."""
    return f"{world.outcome.worst}: {world.outcome.notes}" if world.outcome.violations else ""


@EVERY_WORLD
@given(talkers, st.floats(-0.04, 0.04), st.booleans())
@example((Talker("GP", False, ((0, Piece(1.1)), (300, Piece(0.1)))), None), 0.0, True)
@example((Talker("GP", False, ((0, Piece(-0.9)), (300, Piece(0.12, off_s=-1)))), None), 0.0, True)
def test_never_beyond_the_bound_beside_a_kept_clock(crew: tuple[Talker, Talker | None], clock_s: float, pulse: bool) -> None:
    """Any delay (-1 to 3 s; constant, stepping, creeping), leap count, date, mode letter and second talker, with pulses and without: while
    NTP keeps the system clock within 50 ms no packet is ever beyond its bound."""
    world = run_case(
        "kept", line(crew, 0), duration=DURATION_S, clock_off_s=clock_s, kept_ms=50, baud=115200, pulse="pi" if pulse else "none"
    )
    assert not wrong(world)


@EVERY_WORLD
@given(talkers, st.sampled_from([0.002, 1.5, -90000.0]))
@example((Talker("GP", False, ((0, Piece(0.12, off_s=1)),)), None), 0.002)
@example((Talker("GP", False, ((0, Piece(1.15)),)), None), -90000.0)
@example((Talker("GP", False, ((0, Piece(0.12, creep=-0.01, off_s=3)),)), None), 1.5)
def test_never_beyond_the_bound_once_the_second_was_confirmed(crew: tuple[Talker, Talker | None], clock_s: float) -> None:
    """The same without a kept clock, on a host whose clock is right or wrong, after a minute in which the receiver's leap count and its
    pulses have named the second."""
    world = run_case("confirmed", line(crew, HEALTHY_S), duration=HEALTHY_S + DURATION_S, clock_off_s=clock_s, baud=115200)
    assert not wrong(world)
    assert world.outcome.locked_after_s is not None
