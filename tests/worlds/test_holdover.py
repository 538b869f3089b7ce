"""A disciplined oscillator without a fix: its pulse is believed for as long as its owner says, within a bound that grows."""

from __future__ import annotations

import pytest
from refclock_sim.models.pulse import PulseError
from refclock_sim.worlds.scenario import Fault, PulseModel, ReceiverModel, Scenario
from refclock_sim.worlds.world import World

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
