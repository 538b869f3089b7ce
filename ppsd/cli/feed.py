"""``refclock feed``: prints the configuration lines by which chronyd or ntpd takes refclock's samples, and checks that it does."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from ppsd.cli.daemon import clock_snapshot, run_directory
from ppsd.config.file import load
from ppsd.process.control import alive
from ppsd.process.exit_codes import FAILED, GOOD
from refclock.sample import FeedStatus

CHRONY_SOCKET = "/run/chrony/refclock.sock"
"""Socket in the directory that chronyd owns on Debian and Fedora."""
SHM_UNIT = 2
"""Shared memory unit; units 0 and 1 are for root only (ntpd's driver 28)."""
WAIT_S: Final = 1.5
"""s between two readings of a feed's counter: samples go out once a second."""


def run(args: argparse.Namespace) -> int:
    """Print the lines; with a running daemon, check that its samples are taken."""
    config = load(args.config)
    print("\n".join(feed_lines(args.program, config.feeds)), flush=True)
    if not config.feeds:
        return GOOD
    directory = run_directory(args.run_dir)
    if not alive(directory / "clock.sock"):
        print(f"# no daemon in {directory}: whether samples are taken was not checked", file=sys.stderr)
        return GOOD
    before = clock_snapshot(directory)
    time.sleep(WAIT_S)
    after = clock_snapshot(directory)
    code = GOOD
    for good, text in feed_problems(before.feeds, after.feeds):
        print(f"# {text}", file=sys.stderr)
        code = code if good else FAILED
    return code


def _feed_line(program: str, kind: str, target: str | int) -> str:
    if kind == "sock":
        if program == "chrony":
            return f"refclock SOCK {target} refid GPS poll 3 precision 1e-7"
        return f"# {target}: only chronyd takes samples from a socket; for {program} use a feed of type shm"
    if program == "chrony":
        return f"refclock SHM {target} refid GPS poll 3 precision 1e-7"
    if program == "ntpsec":
        return f"refclock shm unit {target} refid GPS minpoll 4 maxpoll 4"
    return f"server 127.127.28.{target} minpoll 4 maxpoll 4\nfudge 127.127.28.{target} refid GPS"


def feed_lines(program: str, feeds: tuple[Any, ...]) -> list[str]:
    """Lines for the configuration of ``program`` (chrony, ntpd, ntpsec), one a feed; without feeds, also those for refclock.toml."""
    if feeds:
        return [_feed_line(program, f.kind, f.path if f.kind == "sock" else f.unit) for f in feeds]
    if program == "chrony":
        ours = f'[[feed]]\ntype = "sock"\npath = "{CHRONY_SOCKET}"'
        line = _feed_line(program, "sock", CHRONY_SOCKET)
    else:
        ours = f'[[feed]]\ntype = "shm"\nunit = {SHM_UNIT}'
        line = _feed_line(program, "shm", SHM_UNIT)
    return [line, "# and in refclock.toml:", *("# " + text for text in ours.split("\n"))]


def feed_problems(before: Sequence[FeedStatus], after: Sequence[FeedStatus]) -> list[tuple[bool, str]]:
    """(whether its samples are taken, a sentence) for each feed, from two readings of the daemon's counters."""
    sent = {f.name: f.sent for f in before}
    told = []
    for f in after:
        good = f.sent > sent.get(f.name, f.sent)
        why = f" ({f.why})" if f.why else ""
        now = "" if good else ", none just now"
        told.append((good, f"{f.name}: {f.kind} {f.target}: {f.state}{why}, {f.sent} samples taken{now}"))
    return told or [(False, "the daemon has no feeds: its configuration is another one, or was not reloaded")]
