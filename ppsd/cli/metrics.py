"""``refclock metrics``: prints what Prometheus is told, or writes it for node_exporter's textfile collector.

The web process tells the same over HTTP. A file suits machines that have a node_exporter anyway: a timer writes it, once a minute say.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from ppsd.cli.daemon import clock_snapshot, run_directory, server_report
from ppsd.faces.prometheus import Reports, compatible, native, page
from ppsd.process.control import ask
from ppsd.process.exit_codes import GOOD, NO_PERMISSION, USAGE, Refused
from refclock.kernel.files import owners, replace_file

COLLECTOR: Final = "prometheus"
"""Debian's user of Prometheus, to whom the directory above the textfile collector's belongs."""
SUFFIX: Final = ".prom"
"""How the names of the files end that node_exporter reads (its textfile collector)."""


def run(args: argparse.Namespace) -> int:
    """Print or write the metrics; NO_DAEMON, and metrics that say so, when the clock process does not answer."""
    if args.output is not None and args.output.suffix != SUFFIX:
        raise Refused(USAGE, f"refclock metrics: --output {args.output}: node_exporter reads only names that end in {SUFFIX}")
    directory = run_directory(args.run_dir)
    code, clock = GOOD, None
    try:
        clock = clock_snapshot(directory)
    except Refused as refusal:
        if refusal.code == NO_PERMISSION:
            raise
        code = refusal.code
        print(refusal, file=sys.stderr)
    server = server_report(directory)
    reports = Reports(clock, None if isinstance(server, str) else server, _clients(directory))
    text = page((compatible if args.compat else native)(reports))
    if args.output is None:
        print(text, end="")
    else:
        replace_file(args.output.absolute(), text.encode("utf-8", "replace"), 0o644, owners(COLLECTOR))
    return code


def _clients(directory: Path) -> int | None:
    """How many clients the server knows; None while it does not answer."""
    try:
        known = ask(directory / "serve.sock", "clients 0").get("known")
    except OSError:
        return None
    return known if isinstance(known, int) else None
