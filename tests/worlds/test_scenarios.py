"""Every scenario file is a claim, held against the limits in the file and the bound in every packet, with several seeds.

Five for the short ones, three for those longer than a quarter of an hour (more: `refclock sim FILE --seeds N`). The files with a
thermometer are the longest: two seeds here, five by `make bench-temperature`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from refclock_sim.worlds.scenario import load_scenario
from refclock_sim.worlds.world import World

SCENARIOS = sorted((Path(__file__).parents[2] / "hw-sim" / "scenarios").glob("*.toml"))


def seeds(path: Path) -> range:
    """The seeds of a scenario file."""
    if path.stem.startswith("temperature"):
        return range(101, 103)
    return range(101, 104 if load_scenario(path).duration_s > 900 else 106)


RUNS = [(path, seed) for path in SCENARIOS for seed in seeds(path)]


@pytest.mark.parametrize(("path", "seed"), RUNS, ids=lambda value: getattr(value, "stem", value))
def test_claim_holds(path: Path, seed: int) -> None:
    """The file's claim holds, and at every packet |served - true| <= root dispersion + root delay / 2."""
    scenario = load_scenario(path)
    outcome = World(scenario, seed).run()
    assert outcome.packets == 2 * scenario.duration_s
    assert not outcome.failures(scenario), outcome.notes


def test_there_are_enough_claims() -> None:
    """The list that the product promises to hold is there."""
    assert len(SCENARIOS) >= 12


def test_command_says_what_held(tmp_path: Path) -> None:
    """`refclock sim FILE --seeds 2` prints a line a seed and exits 0; a claim that does not hold exits 1 and says which limit; a file that
    cannot be run exits 64 with what is allowed."""

    def sim(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "ppsd", "sim", str(path), "--seeds", "2"], capture_output=True, text=True, check=False)

    good = tmp_path / "good.toml"
    good.write_text('claim = "it locks"\nduration_s = 60\n[limits]\nlocked_within_s = 30\n', encoding="utf-8")
    held = sim(good)
    assert held.returncode == 0, held.stderr
    assert held.stdout.count("held") == 2
    good.write_text('claim = "it is perfect"\nduration_s = 60\n[limits]\nmax_error_us = 0.0001\n', encoding="utf-8")
    failed = sim(good)
    assert failed.returncode == 1
    assert "limit 0.0001 us" in failed.stdout
    good.write_text('claim = "x"\nduration_s = 60\n[pulse]\nmodel = "sundial"\n', encoding="utf-8")
    refused = sim(good)
    assert refused.returncode == 64
    assert "allowed: none, perfect, clean" in refused.stdout + refused.stderr
