"""How well the clock is held and how honest its bound is: `make bench-clock`. Prints a table, writes tests/bench/clock.json and clock.md.

Every scenario of refclock_sim.worlds.noise_scenarios runs through the real engine. Figures over all seeds after the scenario's warm-up:

* rms: of served - true, less its mean over all seeds (a constant is a matter of calibration; it is printed beside), f: at the end;
* max: of |served - true|, nothing taken off; freq: RMS of the served clock's frequency error;
* covered: share of all instants since the first served one at which |served - true| <= bound, twice a second;
* bound/err: median bound over the RMS error with its mean left in, as a client sees it; bound/rms: the same with the mean taken off.

Beside them what others reach on the same models (simulated elsewhere on their own draws, chronyd at mlichvar/chrony 8f2db83): the limit
filter, which is told the noise density, and the best of 15 settings of chronyd for each scenario, its default (poll 4), their maxima.

    python tests/bench/clock.py [--seeds 5] [--first-seed 5000] [--only a,b-quiet] [--keep]

A night's run: make bench-clock SEEDS="--seeds 50 --first-seed 6000". One that was broken off goes on after its last whole scenario.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import sys
import time
from pathlib import Path

import refclock_sim
from refclock_sim.worlds.noise_scenarios import SCENARIOS, Course, run

import ppsd
import refclock

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# limit RMS, best chrony RMS, chrony poll 4 RMS, chrony poll 4 max (us)
OTHERS: dict[str, tuple[float, float, float, float]] = {
    "a": (0.035, 0.047, 0.068, 0.333),
    "b-quiet": (0.190, 0.32, 0.404, 2.18),
    "b-ramp": (0.223, 0.36, 0.454, 2.65),
    "b-step": (0.364, 0.40, 1.17, 23.7),
    "b-wander": (0.354, 0.73, 1.79, 7.56),
    "c-iid": (7.18, 30.0, 36.5, 204.0),
    "c-beat": (10.9, 17.0, 74.3, 577.0),
    "d": (477.0, 572.0, 2678.0, 26_478.0),
    "e": (0.223, 0.51, 0.713, 5.13),
    "f": (138.0, 82.5, 147.0, 233.0),
    "g": (0.190, 0.32, 0.378, 2.36),
    "h": (0.163, 0.26, 0.463, 1.89),
    "i": (0.215, 1.4, 6.03, 182.0),
}


def figures(name: str, courses: list[Course]) -> dict[str, float]:
    """One scenario's."""
    last = -1 if name == "f" else 0
    errors = [e for c in courses for e in c.errors[last:]]
    bounds = [b for c in courses for b in c.bounds[last:]]
    mean = 0.0 if name == "f" else math.fsum(errors) / len(errors)
    rms = math.sqrt(math.fsum((e - mean) ** 2 for e in errors) / len(errors))
    seen = math.hypot(rms, mean)
    bound = statistics.median(bounds)
    return {
        "rms_us": rms,
        "mean_us": mean,
        "max_us": max(abs(e) for c in courses for e in c.errors),
        "freq_ppb": math.sqrt(sum(c.frequency_ppb**2 for c in courses) / len(courses)),
        "covered": 1.0 - sum(c.uncovered for c in courses) / sum(c.judged for c in courses),
        "uncovered": sum(c.uncovered for c in courses),
        "worst_error_over_bound": max(c.worst for c in courses),
        "bound_us": bound,
        "bound_over_error": bound / seen,
        "bound_over_rms": bound / rms,
        "below_10us_after_s": max(c.above_10us_s for c in courses),
    }


def row(name: str, f: dict[str, float]) -> str:
    """As Markdown."""
    o = OTHERS.get(name)
    others = ("{:.3g} | {:.3g} | {:.3g} | {:.3g}".format(*o)) if o else "- | - | - | -"
    return (
        f"| {name} | {f['rms_us']:.3g} | {f['mean_us']:+.3g} | {f['max_us']:.3g} | {f['freq_ppb']:.3g} | {100 * f['covered']:.4f} % "
        f"| {f['bound_us']:.3g} | {f['bound_over_error']:.1f} | {f['bound_over_rms']:.1f} | {others} |"
    )


HEAD = (
    "| scenario | rms µs | mean µs | max µs | freq ppb | covered | bound µs | bound/err | bound/rms "
    "| limit rms | best chrony rms | chrony default rms | its max |\n" + "|---" * 13 + "|"
)


class Kept:
    """Figures found so far for these seeds and this code, in build/bench: a run that was broken off goes on where it stopped."""

    def __init__(self, seeds: range) -> None:
        digest = hashlib.sha256(str(seeds).encode())
        for module in (ppsd, refclock, refclock_sim):
            for path in sorted(Path(module.__path__[0]).rglob("*.py")):
                digest.update(path.read_bytes())
        self.path = ROOT / "build" / "bench" / f"clock-{seeds.start}-{len(seeds)}-{digest.hexdigest()[:12]}.json"
        self.figures: dict[str, dict[str, float]] = {}
        if self.path.exists():
            self.figures = json.loads(self.path.read_text(encoding="utf-8"))

    def add(self, name: str, f: dict[str, float]) -> None:
        """One scenario more, on the disk before the next begins."""
        self.figures[name] = f
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".new")
        partial.write_text(json.dumps(self.figures), encoding="utf-8")
        partial.replace(self.path)


class Progress:
    """Where a long run is, on one line of a terminal; nothing when standard error is none."""

    def __init__(self, to_do_s: int) -> None:
        self._began, self._to_do_s, self._done_s = time.perf_counter(), to_do_s, 0

    def told(self, name: str, seed: int, simulated_s: int) -> None:
        """Another ``simulated_s`` are over."""
        self._done_s += simulated_s
        if sys.stderr.isatty():
            left_s = (time.perf_counter() - self._began) * (self._to_do_s / self._done_s - 1)
            share = 100 * self._done_s / self._to_do_s
            print(f"\r{share:3.0f} %, {left_s / 60:.0f} min left: {name}, seed {seed}\33[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for a line of the table."""
        if sys.stderr.isatty():
            print("\r\33[K", end="", file=sys.stderr, flush=True)


def main() -> int:
    """0; 1 when a bound did not cover the truth somewhere."""
    parser = argparse.ArgumentParser(description="how well the clock is held, and how honest its bound is")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--first-seed", type=int, default=5000, help="those below 5000 were looked at while the constants were still being changed"
    )
    parser.add_argument("--only", default="", help="scenarios, separated by commas")
    parser.add_argument("--keep", action="store_true", help="write clock.json and clock.md")
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    names = args.only.split(",") if args.only else list(SCENARIOS)
    kept = Kept(seeds)
    missing = [name for name in names if name not in kept.figures]
    progress = Progress(sum(SCENARIOS[name].length_s for name in missing) * args.seeds)
    lines = [HEAD]
    print(HEAD, flush=True)
    for name in names:
        if name in missing:
            courses, cpu_s = [], time.process_time()
            for seed in seeds:
                courses.append(run(SCENARIOS[name], seed))
                progress.told(name, seed, SCENARIOS[name].length_s)
            per_day = (time.process_time() - cpu_s) * 86_400 / (SCENARIOS[name].length_s * args.seeds)
            kept.add(name, figures(name, courses) | {"day_s": per_day})
            progress.clear()
        lines.append(row(name, kept.figures[name]))
        print(lines[-1], flush=True)
    day_s = statistics.fmean(kept.figures[name]["day_s"] for name in names)
    last = f"seeds {seeds[0]}..{seeds[-1]}; a simulated day at 1 Hz takes {day_s:.1f} s of processor time here"
    if "g" in names:
        last += f"; g stays below 10 µs {kept.figures['g']['below_10us_after_s']:.0f} s after its first sample"
    print(f"\n{last}")
    if args.keep:
        rounded = {name: {key: float(f"{value:.6g}") for key, value in kept.figures[name].items()} for name in names}
        document = {"seeds": [seeds[0], seeds[-1]], "day_s": round(day_s, 1), "scenarios": rounded}
        (HERE / "clock.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (HERE / "clock.md").write_text("\n".join([*lines, "", last, ""]), encoding="utf-8")
    return 1 if any(kept.figures[name]["uncovered"] for name in names) else 0


if __name__ == "__main__":
    sys.exit(main())
