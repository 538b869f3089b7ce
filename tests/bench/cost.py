"""What a sample and a second of a receiver's messages cost in processor time, beside another checkout: `make bench-cost AGAINST=DIR`.

Both checkouts run the same work in turn, each with its own interpreter and this file of its own, so that whatever else the machine does
hits both. Printed are the smallest times of all rounds and their ratio; below 1 this checkout is cheaper.

* sample: one sample through engine, estimator and timescale (noise scenario b-quiet, 6000 of them);
* message: one second of a u-blox receiver's NMEA at 9600 baud through framing, decoder, gate and source.

    python tests/bench/cost.py [--against CHECKOUT] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLES, SECONDS = 6000, 2000
UTC0 = 1_800_000_000


def per_sample_us() -> float:
    """us of processor time for a sample."""
    from refclock_sim.worlds.noise_scenarios import SCENARIOS, run  # noqa: PLC0415 (another checkout's file of this name imports others)

    began = time.process_time()
    run(SCENARIOS["b-quiet"], 7000, SAMPLES)
    return (time.process_time() - began) / SAMPLES * 1e6


def per_second_us() -> float:
    """us of processor time for a second of messages."""
    import decoding  # noqa: PLC0415 (beside this file)

    return decoding.percent("ublox8-nmea")[0] / decoding.RATE * 1e4


def measured(checkout: Path) -> dict[str, float]:
    """The figures of ``checkout``, by its own interpreter and its own copy of this file."""
    command = [str(checkout / ".venv/bin/python"), str(checkout / "tests/bench/cost.py"), "--once"]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> int:
    """Print the figures, and the ratio to ``--against``."""
    parser = argparse.ArgumentParser(description="processor time of a sample and of a second of messages")
    parser.add_argument("--against", type=Path, help="another checkout, set up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        print(json.dumps({"sample": per_sample_us(), "message": per_second_us()}))
        return 0
    checkouts = [ROOT] if args.against is None else [ROOT, args.against]
    best: list[dict[str, float]] = [{} for _ in checkouts]
    for _ in range(args.rounds):
        for figures, checkout in zip(best, checkouts, strict=True):
            for name, us in measured(checkout).items():
                figures[name] = min(us, figures.get(name, us))
    for name, us in best[0].items():
        beside = "" if args.against is None else f", {us / best[1][name]:.2f} times {args.against.name}"
        print(f"{name:8} {us:7.1f} us{beside}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
