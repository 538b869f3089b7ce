"""What comparisons in clknetsim are asked for on their command lines."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(about: str, seeds: int, kept: str) -> tuple[argparse.Namespace, Path, range]:
    """The words, the directory of the simulator, and the seeds: ``seeds`` of them by default. ``kept``: the files that --keep writes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("clknetsim", type=Path, help="the directory with clknetsim and clknetsim.so")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--first-seed", type=int, default=700)
    parser.add_argument("--only", default="", help="scenarios, separated by commas")
    parser.add_argument("--keep", action="store_true", help=f"write {kept}")
    args = parser.parse_args()
    simulator = args.clknetsim.absolute()
    if not (simulator / "clknetsim.so").exists():
        parser.error(f"no clknetsim.so in {simulator}: fetch mlichvar/clknetsim, run make there, and give that directory")
    return args, simulator, range(args.first_seed, args.first_seed + args.seeds)
