"""``refclock sim``: starts the simulator, a program of its own. Also gets its environment for ``refclock run --sim``."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence

from ppsd.cli.supervisor import python
from ppsd.process.exit_codes import IO_ERROR, Refused


def run(args: argparse.Namespace) -> int:
    """Run a scenario; returns the simulator's exit code."""
    return subprocess.call(python("refclock_sim", "world", str(args.scenario), "--seeds", str(args.seeds)))


def preload_environment(words: Sequence[str]) -> dict[str, str]:
    """Environment in which a program sees the devices of the simulator that ``words`` start. Refused: the simulator's reason."""
    told = subprocess.run(python("refclock_sim", *words, "--environment"), capture_output=True, text=True, check=False)
    if told.returncode:
        raise Refused(IO_ERROR, told.stderr.strip().rpartition("\n")[2])
    return dict(line.split("=", 1) for line in told.stdout.splitlines())
