"""What a sample, a second of a receiver's messages and a request cost, beside another checkout: `make bench-cost AGAINST=DIR`.

Both checkouts run the same work in turn, each with its own interpreter and this file of its own, so that whatever else the machine does
hits both. Printed are the smallest figures of all rounds and their ratio; below 1 this checkout is cheaper.

* sample: one sample through engine, estimator and timescale (noise scenario b-quiet, 6000 of them);
* message: one second of a u-blox receiver's NMEA at 9600 baud through framing, decoder, gate and source;
* batches, alone, interleaved, nts, nts-30: instructions of a server thread for a request (request.c under valgrind's callgrind, which
  counts alike whatever else the machine does; a difference of two runs), in full batches and alone in its batch, basic, interleaved, and
  with an NTS cookie and AEAD 15 or 30.

    python tests/bench/cost.py [--against CHECKOUT] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
SAMPLES = 6000
REQUESTS = (2000, 6000)
"""Length of the two runs. The longer one's requests all fit into a socket's receive buffer."""
UTC0 = 1_800_000_000
KINDS = ("batches", "alone", "interleaved", "nts", "nts-30")
"""Of requests, by how they come (request.c)."""


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


def per_request_instructions(program: Path, kind: str) -> float:
    """Instructions that the server's thread, the second of its process, needs for a request."""
    totals = []
    for count in REQUESTS:
        with TemporaryDirectory() as directory:
            out = Path(directory) / "callgrind"
            tool = ["valgrind", "-q", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}"]
            subprocess.run([*tool, program, f"{directory}/record", str(count), kind], check=True)
            told = re.search(r"^(?:summary|totals): (\d+)", Path(f"{out}-02").read_text(encoding="utf-8"), re.MULTILINE)
            assert told is not None
            totals.append(int(told[1]))
    return (totals[1] - totals[0]) / (REQUESTS[1] - REQUESTS[0])


def requests(kinds: Sequence[str] = KINDS) -> dict[str, float]:
    """What a request costs, by how it comes."""
    with TemporaryDirectory() as directory:
        program = Path(directory) / "request"
        sources = [str(ROOT / "tests/bench/request.c"), *map(str, sorted((ROOT / "native").glob("*.c")))]
        headers = [f"-I{ROOT / name}" for name in ("native", "tests/native")]
        subprocess.run(["cc", "-std=gnu11", "-O2", *headers, "-o", program, *sources, "-lnettle", "-lm", "-pthread"], check=True)
        return {kind: per_request_instructions(program, kind) for kind in kinds}


def measured(checkout: Path) -> dict[str, float]:
    """The figures of ``checkout``, by its own interpreter and its own copy of this file."""
    command = [str(checkout / ".venv/bin/python"), str(checkout / "tests/bench/cost.py"), "--once"]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def main() -> int:
    """Print the figures, and the ratio to ``--against``."""
    parser = argparse.ArgumentParser(description="cost of a sample, of a second of messages and of a request")
    parser.add_argument("--against", type=Path, help="another checkout, set up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        print(json.dumps({"sample": per_sample_us(), "message": per_second_us(), **requests()}))
        return 0
    checkouts = [ROOT] if args.against is None else [ROOT, args.against]
    best: list[dict[str, float]] = [{} for _ in checkouts]
    for _ in range(args.rounds):
        for figures, checkout in zip(best, checkouts, strict=True):
            for name, figure in measured(checkout).items():
                figures[name] = min(figure, figures.get(name, figure))
    for name, figure in best[0].items():
        beside = "" if args.against is None or name not in best[1] else f", {figure / best[1][name]:.3f} times {args.against.name}"
        print(f"{name:12} {figure:7.1f} {'us' if name in ('sample', 'message') else 'instructions'}{beside}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
