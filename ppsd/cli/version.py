"""``refclock version``."""

from __future__ import annotations

import argparse

from ppsd import version
from ppsd.process.exit_codes import GOOD


def run(args: argparse.Namespace) -> int:
    """Print the installed version."""
    del args
    print(f"refclock {version()}")
    return GOOD
