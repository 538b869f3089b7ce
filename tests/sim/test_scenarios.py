"""Every scenario file is a claim; five seeds of each, against the limits in the file and the bound in every packet."""

from __future__ import annotations

from pathlib import Path

import pytest
from refclock_sim.scenario import load_scenario
from refclock_sim.world import World

SCENARIOS = sorted((Path(__file__).parents[2] / "hw-sim" / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda p: p.stem)
@pytest.mark.parametrize("seed", range(101, 106))
def test_claim_holds(path: Path, seed: int) -> None:
    """The file's claim holds, and at every packet |served - true| <= root dispersion + root delay / 2."""
    scenario = load_scenario(path)
    outcome = World(scenario, seed).run()
    assert outcome.packets == 2 * scenario.duration_s
    assert not outcome.failures(scenario), outcome.notes


def test_there_are_enough_claims() -> None:
    """The list that the product promises to hold is there."""
    assert len(SCENARIOS) >= 12
