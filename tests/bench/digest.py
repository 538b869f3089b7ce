"""Whether a change left the behaviour alone: a digest of every simulated world and noise scenario, all digits. `make digest`.

A line each: name, seed, digest of the figures, digest of the words (notes, and what people were told). The figures are every error and
bound of a run and the counts of its packets, so a rename or a move must leave them as they are. Floating point may differ between
processors and C libraries: compare two checkouts on one machine.

    python tests/bench/digest.py > before.txt        ... change something ...        python tests/bench/digest.py --against before.txt
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

from refclock_sim.worlds.noise_scenarios import SCENARIOS, WARM, run
from refclock_sim.worlds.scenario import load_scenario
from refclock_sim.worlds.world import World

FILES = Path(__file__).parents[2] / "hw-sim" / "scenarios"
SEEDS = (101, 102)


def sha(*values: object) -> str:
    """Of their representations; a float's has all its digits."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(value).encode())
    return digest.hexdigest()[:16]


def of_world(path: Path, seed: int) -> tuple[str, str]:
    """(figures, words) of a scenario file."""
    world = World(load_scenario(path), seed)
    o = world.run()
    figures = sha(
        *(o.packets, o.synchronised, o.violations, o.wrong_seconds, o.locked_after_s, o.first_synchronised_s, o.max_error_us),
        *(o.rms_error_us, o.settled_max_error_us, o.median_bound_us, o.held_over, o.final, world._errors, world._bounds),
    )
    return figures, sha(o.worst, o.notes, list(o.said.values()))


def of_noise(name: str, seed: int) -> tuple[str, str]:
    """(figures, the state that the run left) of a noise scenario."""
    c = run({**SCENARIOS, **WARM}[name], seed)
    figures = (c.frequency_ppb, c.uncovered, c.judged, c.worst, c.worst_s, c.first_served_s, c.above_10us_s)
    return sha(list(c.errors), list(c.bounds), *figures), sha(c.state)


def line(job: tuple[str, int, bool]) -> str:
    """What is printed of one run."""
    name, seed, noise = job
    figures, words = of_noise(name, seed) if noise else of_world(FILES / name, seed)
    return f"{name} {seed} {figures} {words}"


def lines(only: str) -> Iterator[str]:
    """Of all runs whose name matches ``only``, in a fixed order."""
    files = [str(path.relative_to(FILES)) for path in sorted(FILES.rglob("*.toml"))]
    jobs = [(name, seed, False) for name in files for seed in SEEDS]
    jobs += [(name, seed, True) for name in (*SCENARIOS, *WARM) for seed in SEEDS]
    jobs = [job for job in jobs if fnmatch(job[0], only)]
    with ProcessPoolExecutor(int(os.environ.get("DIGEST_JOBS", "0")) or None) as pool:
        yield from pool.map(line, jobs)


def main() -> int:
    """0; 1 when the figures of some run differ from those of ``--against``."""
    parser = argparse.ArgumentParser(description="a digest of every simulated run")
    parser.add_argument("--against", type=Path, help="what this printed before")
    parser.add_argument("--only", default="*", help="names that match this pattern of the shell")
    args = parser.parse_args()
    before = args.against
    then = {} if before is None else {tuple(row.split()[:2]): row.split()[2:] for row in before.read_text(encoding="utf-8").splitlines()}
    changed = 0
    for text in lines(args.only):
        name, seed, figures, words = text.split()
        was = then.get((name, seed))
        note = "" if was is None or was == [figures, words] else "  the words differ" if was[0] == figures else "  THE FIGURES DIFFER"
        changed += "FIGURES" in note
        print(text + note, flush=True)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
