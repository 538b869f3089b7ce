"""Our clock process and chronyd on the same crystal and the same samples: `make bench-beside CLKNETSIM=DIRECTORY`.

Needs clknetsim (mlichvar/clknetsim, built in DIRECTORY): it lends an unmodified daemon libc's clocks, an SHM reference clock and
clock_adjtime, and knows the true error of the clock that the daemon steers. Every scenario of refclock_sim.worlds.noise_scenarios that has
figures of others is drawn once a seed and written to files; each program gets the very same ones, one after the other: `python -m ppsd
clock` with one configuration for all, and chronyd with five settings. Prints a table, writes tests/bench/beside.json and beside.md.

* rms: of the system clock's true error, less its mean over all seeds (a constant is a matter of calibration); f: at the end, nothing off;
  one number a seed is little: f is run with five times as many;
* max: of |error|, nothing taken off; best: the least RMS of chronyd's settings, picked afterwards.

    python tests/bench/beside.py DIRECTORY [--seeds 3] [--first-seed 700] [--only a,b-quiet] [--keep]
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from clknetsim import arguments
from refclock_sim.models.oscillator import Oscillator
from refclock_sim.worlds.noise_scenarios import LISTED, RAW_START_NS, SCENARIOS, NoiseScenario

from refclock.sample import NS

HERE = Path(__file__).parent
OURS = """
[clock]
steer = "kernel"
temperature = "off"
not_before = 2009-01-01
[server]
enabled = false
[[source]]
type = "shm"
unit = 0
bias_us = {bias_us}
[run]
directory = "{directory}/run"
state = "{directory}/state"
"""
CHRONY = "pidfile {directory}/pid\nbindcmdaddress /\ncmdport 0\nmakestep 1 3\nrefclock SHM 0 refid PPS {options}\n"
SETTINGS = {
    "poll 4": "the default",
    "poll 0 minsamples 64": "",
    "poll 2 minsamples 16": "",
    "poll 5": "",
    "poll 8 filter 256": "",
}
START_S = {"g": 0.1}
"""The clock's first error, else 1 ms."""
RUN_S = 600.0
LAST_ONLY = 5
"""Times as many seeds where only the last error counts."""


def draw(scenario: NoiseScenario, seed: int, directory: Path) -> None:
    """freq and noise, a line a second; a sample that never comes is not a number."""
    base = Random(f"{scenario.name} {seed}")
    oscillator = Oscillator(base.getrandbits(62), scenario.constant, scenario.wander, scenario.terms)
    noise = scenario.noise(base.getrandbits(62))
    raw, rates, lates = RAW_START_NS, [], []
    for k in range(scenario.length_s):
        late = noise.late_ns(k, raw) / NS
        rates.append(oscillator.advance())
        raw += round(NS * (1.0 + rates[-1]))
        lates.append(math.nan if scenario.silent_from_s is not None and k >= scenario.silent_from_s else late)
    (directory / "freq").write_text("".join(f"{rate:.15e}\n" for rate in rates), encoding="ascii")
    (directory / "noise").write_text("".join(f"{late:.12e}\n" for late in lates), encoding="ascii")


def simulate(scenario: NoiseScenario, simulator: Path, directory: Path, words: list[str]) -> tuple[list[float], list[float]]:
    """True errors (s) and frequency errors of the clock that ``words`` steers, a value a second."""
    (directory / "simulation").write_text(
        f"node1_offset = {START_S.get(scenario.name, 1e-3)}\n"
        f'node1_freq = (file "{directory}/freq")\nnode1_refclock = (file "{directory}/noise")\n',
        encoding="ascii",
    )
    lent = {"LD_PRELOAD": str(simulator / "clknetsim.so"), "CLKNETSIM_NODE": "1", "CLKNETSIM_SOCKET": str(directory / "socket")}
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(words, env=os.environ | lent, stdout=log, stderr=log)
        files = ["-o", str(directory / "offset"), "-f", str(directory / "frequency"), "-s", str(directory / "socket")]
        length = ["-l", str(scenario.length_s), str(directory / "simulation"), "1"]
        try:
            subprocess.run([simulator / "clknetsim", *files, *length], stdout=log, stderr=log, timeout=RUN_S, check=True)
        finally:
            daemon.kill()
            daemon.wait()
    series = [[float(line) for line in (directory / name).read_text("ascii").split()] for name in ("offset", "frequency")]
    if len(series[0]) < scenario.length_s - 2:
        raise SystemExit(f"{words[0]} did not run to the end: {(directory / 'log').read_text(errors='replace')[-2000:]}")
    return series[0], series[1]


def run(scenario: NoiseScenario, seeds: range, simulator: Path) -> dict[str, dict[str, float]]:
    """Figures of every program, by name."""
    courses: dict[str, list[tuple[list[float], list[float]]]] = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            draw(scenario, seed, directory)
            (directory / "ours").write_text(OURS.format(directory=directory, bias_us=scenario.bias_us), encoding="ascii")
            ours = [sys.executable, "-m", "ppsd", "clock", "--config", str(directory / "ours"), "--run-dir", str(directory / "run")]
            courses.setdefault("refclock", []).append(simulate(scenario, simulator, directory, ours))
            for options in SETTINGS:
                (directory / "chrony").write_text(CHRONY.format(directory=directory, options=options), encoding="ascii")
                words = ["chronyd", "-d", "-f", str(directory / "chrony")]
                courses.setdefault(options, []).append(simulate(scenario, simulator, directory, words))
    return {name: figures(scenario, some) for name, some in courses.items()}


def figures(scenario: NoiseScenario, courses: list[tuple[list[float], list[float]]]) -> dict[str, float]:
    """In us, ppb and s, over all seeds."""
    last = -1 if scenario.name == "f" else scenario.warm_s
    errors = [error * 1e6 for offsets, _ in courses for error in offsets[last:]]
    mean = 0.0 if scenario.name == "f" else math.fsum(errors) / len(errors)
    rates = [rate * 1e9 for _, some in courses for rate in some[scenario.warm_s :]]
    return {
        "rms_us": math.sqrt(math.fsum((e - mean) ** 2 for e in errors) / len(errors)),
        "mean_us": mean,
        "max_us": max(abs(error) for offsets, _ in courses for error in offsets[scenario.warm_s :]) * 1e6,
        "freq_ppb": math.sqrt(math.fsum(rate**2 for rate in rates) / len(rates)),
        "below_10us_after_s": max(max((k + 1 for k, e in enumerate(o) if abs(e) > 1e-5), default=0) for o, _ in courses),
    }


HEAD = (
    "| scenario | rms µs | max µs | freq ppb | chrony poll 4 rms | its max | its freq | best chrony rms | with | to poll 4 | to best |\n"
    + "|---" * 11
    + "|"
)


def row(name: str, found: dict[str, dict[str, float]]) -> str:
    """As Markdown."""
    ours, default = found["refclock"], found["poll 4"]
    best = min(SETTINGS, key=lambda options: found[options]["rms_us"])
    cells = [*(f"{f[key]:.3g}" for f in (ours, default) for key in ("rms_us", "max_us", "freq_ppb")), f"{found[best]['rms_us']:.3g}", best]
    cells += [f"{ours['rms_us'] / f['rms_us']:.2f}" for f in (default, found[best])]
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> int:
    """0."""
    args, simulator, seeds = arguments("our clock process and chronyd on the same crystal and samples", 3, "beside.json and beside.md")
    kept, lines = {}, [HEAD]
    print(HEAD, flush=True)
    for name in args.only.split(",") if args.only else list(SCENARIOS)[:LISTED]:
        some = range(seeds.start, seeds.start + LAST_ONLY * len(seeds)) if name == "f" else seeds
        kept[name] = run(SCENARIOS[name], some, simulator)
        lines.append(row(name, kept[name]))
        print(lines[-1], flush=True)
    told = subprocess.run(["chronyd", "--version"], capture_output=True, text=True, check=True).stdout.split()[3]
    notes = [f"seeds {seeds[0]}..{seeds[-1]} (f: {LAST_ONLY} times as many), chrony {told}"]
    if "g" in kept:
        after = {name: f["below_10us_after_s"] for name, f in kept["g"].items()}
        notes.append("g stays below 10 µs from second " + ", ".join(f"{s:.0f} ({name})" for name, s in after.items()) + " on")
    print("\n" + "; ".join(notes))
    if args.keep:
        rounded = {
            name: {who: {key: float(f"{value:.6g}") for key, value in f.items()} for who, f in found.items()}
            for name, found in kept.items()
        }
        (HERE / "beside.json").write_text(json.dumps({"notes": notes, "scenarios": rounded}, indent=1) + "\n", encoding="utf-8")
        (HERE / "beside.md").write_text("\n".join([*lines, "", "; ".join(notes), ""]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
