"""``refclock status``, ``sources`` and ``tracking``: print the state of the running daemon."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

from ppsd.cli.daemon import clock_snapshot, run_directory
from ppsd.faces import text
from ppsd.process.control import ask
from ppsd.process.exit_codes import BAD, DEGRADED, GOOD
from ppsd.snapshot import ServerReport, Snapshot, Verdict

VERDICT_CODES: Final = {Verdict.LOCKED: GOOD, Verdict.HOLDOVER: DEGRADED}
"""Exit code of ``status`` for each verdict; BAD for every other one."""


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
    server: ServerReport | str
    code = VERDICT_CODES.get(clock.verdict, BAD)
    try:
        server = ServerReport.from_json(ask(directory / "serve.sock", "snapshot"))
    except FileNotFoundError:
        server = "not running"
    except OSError as error:
        server, code = f"not answering ({error.strerror or error})", BAD
    except ValueError as error:
        server, code = f"not understood ({error})", BAD
    print(text.status_json(clock, server) if as_json else text.status(clock, server))
    return code
