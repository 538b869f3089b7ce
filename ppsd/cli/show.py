"""The reports: ``refclock status`` and ``sats`` in our own words, the others as chronyc and ntpq print them.

Each is printed once, or again every few seconds (``--watch``), as text, as JSON or in the columns of ``chronyc -c``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ppsd.cli.daemon import UNSEEN, clock_snapshot, holders, run_directory, server_report
from ppsd.faces import text
from ppsd.process.exit_codes import BAD, DEGRADED, FAILED, GOOD, NO_DAEMON, NO_PERMISSION, USAGE, Refused
from ppsd.snapshot import ServerReport, Snapshot, Verdict

if TYPE_CHECKING:
    from ppsd.faces.chronyc import Report

VERDICT_CODES: Final = {Verdict.LOCKED: GOOD, Verdict.HOLDOVER: DEGRADED, Verdict.FALLBACK: DEGRADED}
"""Exit code of ``status`` for each verdict; BAD for every other one, and when the time does not reach those whom it is for."""
CLEAR: Final = "\x1b[H\x1b[2J"
"""Puts the cursor into the upper left corner of an empty screen (ECMA-48: CUP, ED)."""


def run(args: argparse.Namespace) -> int:
    """Print the report, again and again when it is to be watched."""
    if args.json and args.csv:
        raise Refused(USAGE, f"refclock {args.command}: --json and --csv are two forms; give one of them")
    directory = run_directory(args.run_dir)
    while True:
        started_s = time.monotonic()
        if args.watch and sys.stdout.isatty():
            print(end=CLEAR)
        code = _print(directory, args)
        if not args.watch:
            return code
        sys.stdout.flush()
        time.sleep(max(0.0, started_s + args.watch - time.monotonic()))


def _print(directory: Path, args: argparse.Namespace) -> int:
    if args.command == "status":
        return _status(directory, clock_snapshot(directory), args)
    report = _report(directory, args)
    if args.json:
        print(json.dumps(report.told))
    elif args.csv:
        print("".join(f"{row}\n" for row in report.rows), end="")
    elif args.command == "clients" and args.verbose:
        from ppsd.cli.clients import table  # noqa: PLC0415 (status starts fast)

        print(table(report.told))
    else:
        print((report.legend if args.verbose else "") + report.text)
    return FAILED if args.command == "sats" and not report.told else GOOD


def _report(directory: Path, args: argparse.Namespace) -> Report:
    from ppsd.faces import chronyc, ntpq, sky  # noqa: PLC0415 (status starts fast)

    if args.command == "clients":
        from ppsd.cli.clients import told_clients  # noqa: PLC0415

        return chronyc.clients(told_clients(directory, args.count))
    if args.command == "serverstats":
        server = server_report(directory)
        if isinstance(server, str):
            raise Refused(NO_PERMISSION if server == UNSEEN else NO_DAEMON, f"refclock: the server in {directory} is {server}")
        return chronyc.serverstats(server)
    clock = clock_snapshot(directory)
    if args.command in ("ntpdata", "authdata") and not clock.upstreams and not args.json and not args.csv:
        print("no source is an NTP server, so there are no packets to tell of; refclock sources lists what there is", file=sys.stderr)
    of_the_clock: dict[str, Callable[[Snapshot], Report]] = {
        "sources": chronyc.sources,
        "sourcestats": chronyc.sourcestats,
        "selectdata": chronyc.selectdata,
        "authdata": chronyc.authdata,
        "ntpdata": chronyc.ntpdata,
        "activity": chronyc.activity,
        "tracking": chronyc.tracking,
        "peers": ntpq.peers,
        "sats": sky.satellites,
    }
    return of_the_clock[args.command](clock)


def why_undelivered(clock: Snapshot, server: ServerReport | str) -> str:
    """Why the time does not reach those whom it is for; "" while it does, or when this user may not know."""
    return "" if server == UNSEEN else text.undelivered(clock, server, holders(clock.listen, server))


def _status(directory: Path, clock: Snapshot, args: argparse.Namespace) -> int:
    server: ServerReport | str = server_report(directory)
    failed = why_undelivered(clock, server)
    if args.json:
        print(text.status_json(clock, server, failed))
    else:
        print(text.status_row(clock, failed) if args.csv else text.status(clock, server, failed))
    if failed:
        return BAD
    lacking = not isinstance(server, str) and any(not one.harmless for one in server.unserved)
    return max(VERDICT_CODES.get(clock.verdict, BAD), DEGRADED if lacking else GOOD)
