"""What a thermometer is worth: `make bench-temperature`. Prints a table, writes tests/bench/temperature.md.

The kinds with heat of refclock_sim.worlds.noise_scenarios run through the real engine, without (clock.temperature = "off") and with the
simulated thermometer, on the same draws. Columns as in tests/bench/clock.py; of t-holdover the figure is the error at the end of an hour
without pulses. CPU: of the whole engine, a simulated second at 1 Hz, on the machine that ran it.

    python tests/bench/temperature.py [--seeds 5] [--first-seed 800] [--only t-room,t-load] [--keep]
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

from refclock_sim.worlds.noise_scenarios import WARM, Course, run

HERE = Path(__file__).parent
HEAD = (
    "| kind | what | rms µs without | with | max µs without | with | freq ppb without | with | bound µs without | with "
    "| covered without | with | CPU µs/s without | with |\n" + "|---" * 14 + "|"
)


def figures(name: str, courses: list[Course], cpu_s: float) -> dict[str, float]:
    """Of one kind over all seeds."""
    last = -1 if name == "t-holdover" else 0
    errors = [e for c in courses for e in c.errors[last:]]
    mean = 0.0 if last else math.fsum(errors) / len(errors)
    return {
        "rms_us": math.sqrt(math.fsum((e - mean) ** 2 for e in errors) / len(errors)),
        "max_us": max(abs(e) for c in courses for e in c.errors),
        "freq_ppb": math.sqrt(sum(c.frequency_ppb**2 for c in courses) / len(courses)),
        "bound_us": statistics.median(b for c in courses for b in c.bounds[last:]),
        "covered": 1.0 - sum(c.uncovered for c in courses) / sum(c.judged for c in courses),
        "cpu_us": cpu_s * 1e6 / (len(courses) * WARM[name].length_s),
    }


def row(name: str, off: dict[str, float], on: dict[str, float]) -> str:
    """As Markdown."""
    pairs = [f"{off[key]:.3g} | {on[key]:.3g}" for key in ("rms_us", "max_us", "freq_ppb", "bound_us")]
    pairs += [f"{100 * off['covered']:.4f} % | {100 * on['covered']:.4f} %", f"{off['cpu_us']:.0f} | {on['cpu_us']:.0f}"]
    return f"| {name} | {WARM[name].what} | " + " | ".join(pairs) + " |"


def main() -> int:
    """0; 1 when a bound did not cover the truth with the thermometer."""
    parser = argparse.ArgumentParser(description="what a thermometer is worth")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=800)
    parser.add_argument("--only", default="", help="kinds, separated by commas")
    parser.add_argument("--keep", action="store_true", help="write temperature.md")
    args = parser.parse_args()
    kept: dict[str, dict[str, dict[str, float]]] = {}
    lines = [HEAD]
    print(HEAD, flush=True)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    for name in args.only.split(",") if args.only else WARM:
        kept[name] = {}
        for choice in ("off", "auto"):
            began = time.process_time()
            courses = [run(WARM[name], seed, temperature=choice) for seed in seeds]
            kept[name][choice] = figures(name, courses, time.process_time() - began)
        lines.append(row(name, kept[name]["off"], kept[name]["auto"]))
        print(lines[-1], flush=True)
    last = f"seeds {seeds[0]}..{seeds[-1]}"
    print(f"\n{last}")
    if args.keep:
        (HERE / "temperature.md").write_text("\n".join([*lines, "", last, ""]), encoding="utf-8")
    return 1 if any(pair["auto"]["covered"] < 1.0 for pair in kept.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
