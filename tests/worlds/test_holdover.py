"""A disciplined oscillator without a fix: its pulse is believed for as long as its owner says, within a bound that grows."""

from __future__ import annotations

import pytest
from refclock_sim.models.pulse import PulseError
from refclock_sim.worlds.scenario import Fault, PulseModel, ReceiverModel, Scenario
from refclock_sim.worlds.world import World

from refclock.config import ReceiverSource
from refclock.sample import NS, Edge, EdgeKind, Instant, Sample
from refclock.timing.pairing import Present
from refclock.timing.pulse_time import Context
from refclock.timing.receiver_time import ReceiverTime

LOST_S, FOUND_S = 600, 1800


class Strayed(PulseError):
    """A pulse that strays by ``ppb`` without a fix, and is steered back within ``back_s`` after it (0: stepped back)."""

    def __init__(self, ppb: float, back_s: int) -> None:
        self.ppb, self.back_s = ppb, back_s

    def late_ns(self, true_s: int, raw_ns: int) -> float:
        if true_s < FOUND_S:
            return max(0, true_s - LOST_S) * self.ppb
        share = (true_s - FOUND_S) / self.back_s if self.back_s else 1.0
        return (FOUND_S - LOST_S) * self.ppb * max(0.0, 1.0 - share)


@pytest.mark.parametrize(
    ("ppb", "back_s", "config"),
    [(450.0, 0, {}), (-450.0, 300, {}), (9.0, 0, {"holdover_ppb": 10.0}), (0.0, 0, {"holdover_ppb": 1.0})],
    ids=["tcxo-stepped-back", "tcxo-steered-back", "ocxo", "rubidium"],
)
def test_the_bound_covers_what_the_oscillator_may_have_strayed(ppb: float, back_s: int, config: dict[str, float]) -> None:
    """Twenty minutes without a fix, and the return: LOCKED all the while, no packet beyond its bound, stated stability or default."""
    scenario = Scenario(
        name="strayed",
        claim="",
        duration_s=2500,
        pulse=PulseModel("pi", 4.0),
        receiver=ReceiverModel("nmea"),
        config={"pulse_without_fix_s": 86_400.0, **config},
        faults=(Fault("no-fix", LOST_S, FOUND_S),),
    )
    world = World(scenario, 1)
    assert world._pulse is not None
    world._pulse += Strayed(ppb, back_s)
    world.advance(FOUND_S - 1)
    assert world.snapshot().verdict == "LOCKED"
    bound_us = (world.snapshot().bound_ns or 0) / 1e3
    grown_us = config.get("holdover_ppb", 500.0) * 1e-3 * (FOUND_S - LOST_S)
    assert grown_us < bound_us < 1.3 * grown_us + 40
    outcome = world.run()
    assert (outcome.violations, outcome.wrong_seconds, outcome.final) == (0, 0, "LOCKED")


def test_a_glimpse_of_the_sky_brings_no_oscillator_back() -> None:
    """No fix but for five seconds in ten minutes: it strays on from where it was, and the bound covers it all the while."""
    times, every_s = 4, 600
    glimpses = [Fault("no-fix", LOST_S + k * every_s, LOST_S + (k + 1) * every_s - 5) for k in range(times)]
    end_s = LOST_S + times * every_s
    scenario = Scenario(
        name="glimpses",
        claim="",
        duration_s=end_s,
        pulse=PulseModel("pi", 4.0),
        receiver=ReceiverModel("nmea"),
        config={"pulse_without_fix_s": 86_400.0, "holdover_ppb": 100.0},
        faults=tuple(glimpses),
    )

    class Straying(PulseError):
        def late_ns(self, true_s: int, raw_ns: int) -> float:
            return max(0, true_s - LOST_S) * 98.0

    world = World(scenario, 1)
    assert world._pulse is not None
    world._pulse += Straying()
    outcome = world.run()
    assert (outcome.violations, outcome.wrong_seconds, outcome.final) == (0, 0, "LOCKED")


def test_a_restart_without_a_fix_forgets_no_straying() -> None:
    """The daemon is started anew while its oscillator has had no fix for hours: what it may have strayed stays in the bound."""
    config = ReceiverSource(device="/dev/ttyS0", pps="/dev/pps0", pulse_without_fix_s=86_400.0, holdover_ppb=1000.0)
    time = ReceiverTime(config, 0)
    mono_ns, samples = 5 * NS, list[Sample]()
    for k in range(40):
        present = Present(mono_ns, mono_ns, 0.0, 43_000_000.0)
        edge = Edge(Instant(mono_ns + k * NS, mono_ns + k * NS), EdgeKind.ASSERT, k)
        samples += time.pulse(edge, Context(present=present))
    assert samples
    assert all(42_900_000 <= sample.bias_ns < 43_100_000 for sample in samples)


def test_pulses_without_a_fix_end_when_the_owner_said() -> None:
    """Beyond ``pulse_without_fix_s`` the daemon holds over by its own crystal, and says why."""
    scenario = Scenario(
        name="ended",
        claim="",
        duration_s=400,
        pulse=PulseModel("pi", 4.0),
        receiver=ReceiverModel("nmea"),
        config={"pulse_without_fix_s": 120.0},
        faults=(Fault("no-fix", 200),),
    )
    world = World(scenario, 1)
    world.advance(315)
    assert world.snapshot().verdict == "LOCKED"
    outcome = world.run()
    assert (outcome.violations, outcome.final) == (0, "HOLDOVER")
