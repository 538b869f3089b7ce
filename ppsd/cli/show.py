"""``refclock status``, ``sources`` and ``tracking``: print the state of the running daemon."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

from ppsd.cli.daemon import UNSEEN, clock_snapshot, holders, run_directory, server_report
from ppsd.faces import text
from ppsd.process.exit_codes import BAD, DEGRADED, GOOD
from ppsd.snapshot import Snapshot, Verdict

VERDICT_CODES: Final = {Verdict.LOCKED: GOOD, Verdict.HOLDOVER: DEGRADED}
"""Exit code of ``status`` for each verdict; BAD for every other one, and when the time does not reach those whom it is for."""


def run(args: argparse.Namespace) -> int:
    """Execute one of the three commands."""
    directory = run_directory(args.run_dir)
    clock = clock_snapshot(directory)
    if args.command == "status":
        return _status(directory, clock, args.json)
    if args.command == "sources":
        print(json.dumps(clock.to_json()["sources"]) if args.json else text.sources(clock))
    else:
        print(json.dumps({k: v for k, v in clock.to_json().items() if k != "sources"}) if args.json else text.tracking(clock))
    return GOOD


def _status(directory: Path, clock: Snapshot, as_json: bool) -> int:
    server = server_report(directory)
    failed = "" if server == UNSEEN else text.undelivered(clock, server, holders(clock.listen, server))
    print(text.status_json(clock, server, failed) if as_json else text.status(clock, server, failed))
    if failed:
        return BAD
    lacking = not isinstance(server, str) and any(not one.harmless for one in server.unserved)
    return max(VERDICT_CODES.get(clock.verdict, BAD), DEGRADED if lacking else GOOD)
