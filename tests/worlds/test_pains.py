"""What users suffer from, by name: each ends in "works", or in the exact words that tell what to do (tests/golden/pains.txt)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from refclock_sim.worlds.scenario import Outcome, load_scenario
from refclock_sim.worlds.world import World

PAINS = sorted((Path(__file__).parents[2] / "hw-sim" / "scenarios" / "pains").glob("*.toml"))


@cache
def outcome(path: Path) -> Outcome:
    return World(load_scenario(path), 101).run()


@pytest.mark.parametrize("path", PAINS, ids=lambda p: p.stem)
def test_pain_is_gone_or_explained(path: Path) -> None:
    """The file's claim holds, its sentences were said, and at every packet the error is within the bound that it carries."""
    assert not outcome(path).failures(load_scenario(path)), (outcome(path).notes, outcome(path).said)


def test_messages_are_the_golden_ones(golden: Callable[[str, str], None]) -> None:
    """All that a person could read during each of them, to the letter."""
    told = []
    for path in PAINS:
        told += [f"== {path.stem}", load_scenario(path).claim, *outcome(path).said.values(), ""]
    golden("pains.txt", "\n".join(told))
