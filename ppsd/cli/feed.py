"""``refclock feed``: prints the lines by which chronyd, ntpd or ntpd-rs takes refclock's samples, and checks that it does."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from typing import Final

from ppsd.cli.daemon import clock_snapshot, run_directory
from ppsd.config.file import load
from ppsd.faces.text import plain_ns
from ppsd.process.control import alive
from ppsd.process.exit_codes import FAILED, GOOD
from refclock.config import PULSED_PROMISE_US, Feed, ShmFeed, SockFeed, Source, promise_us
from refclock.sample import FeedStatus

CHRONY_SOCKET = "/run/chrony/refclock.sock"
"""Socket in the directory that chronyd owns on Debian and Fedora."""
RS_SOCKET = "/run/ntpd-rs/refclock.sock"
"""Socket in the directory that systemd makes for ntpd-rs."""
SOCKETS: Final = {"chrony": CHRONY_SOCKET, "ntpd-rs": RS_SOCKET}
PRECISION_S: Final = {True: 1e-6, False: 1e-2}
"""s; what ntpd-rs is told of the scatter of samples that come from pulses, and of others: the standard deviation (ntp.toml(5))."""
SHM_UNIT = 2
"""Shared memory unit; units 0 and 1 are for root only (ntpd's driver 28)."""
WAIT_S: Final = 1.5
"""s between two readings of a feed's counter: samples go out once a second."""


def run(args: argparse.Namespace) -> int:
    """Print the lines; with a running daemon, check that its samples are taken."""
    config = load(args.config)
    print("\n".join(feed_lines(args.program, config.feeds, config.sources)), flush=True)
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
    if after.bound_ns is not None:
        for feed in config.feeds:
            better = tighter_us(after.bound_ns, promise_us(feed, config.sources))
            if better:
                words = (
                    f"the error bound is {plain_ns(after.bound_ns)} now: max_bound_us = {better:g} promises more, then take the line anew"
                )
                print(f"# {feed.name}: {words}", file=sys.stderr)
    return code


def tighter_us(bound_ns: int, promised_us: float) -> float:
    """A bound (us) that may be promised instead: twice the present one, rounded up to 1, 2 or 5; 0 when that is no better."""
    twice_us = max(2 * bound_ns / 1e3, 1.0)
    power = 10.0 ** math.floor(math.log10(twice_us))
    found = next(step * power for step in (1, 2, 5, 10) if step * power >= twice_us)
    return found if found < promised_us else 0.0


def _feed_line(program: str, feed: Feed, sources: Sequence[Source]) -> str:
    """The line for one feed. chronyd and its clients add half of ``delay`` to the error that they allow for (chrony.conf(5)); ntpd takes
    the bound from the segment's precision."""
    promised_us = promise_us(feed, sources)
    if program == "ntpd-rs":
        return _rs_source(feed, PRECISION_S[promised_us <= PULSED_PROMISE_US])
    options = f"refid GPS poll 3 precision {'1e-7' if promised_us <= PULSED_PROMISE_US else '1e-3'} delay {2 * promised_us / 1e6:g}"
    if isinstance(feed, SockFeed):
        if program == "chrony":
            return f"refclock SOCK {feed.path} {options}"
        return f"# {feed.path}: only chronyd and ntpd-rs take samples from a socket; for {program} use a feed of type shm"
    if program == "chrony":
        return f"refclock SHM {feed.unit} {options}"
    if program == "ntpsec":
        return f"refclock shm unit {feed.unit} refid GPS minpoll 4 maxpoll 4"
    return f"server 127.127.28.{feed.unit} minpoll 4 maxpoll 4\nfudge 127.127.28.{feed.unit} refid GPS"


def _rs_source(feed: Feed, precision_s: float) -> str:
    if not isinstance(feed, SockFeed):
        return f"# unit {feed.unit}: ntpd-rs reads no shared memory; for it use a feed of type sock"
    older = f"# ntpd-rs 1.4, which Debian 13 has, knows no precision; there write: measurement_noise_estimate = {precision_s**2:g}"
    return f'[[source]]\nmode = "sock"\npath = "{feed.path}"\nprecision = {precision_s:g}\n{older}'


def feed_lines(program: str, feeds: Sequence[Feed], sources: Sequence[Source] = ()) -> list[str]:
    """Lines for the configuration of ``program`` (chrony, ntpd, ntpsec, ntpd-rs) for each feed; without feeds, also those for
    refclock.toml."""
    if feeds:
        return [_feed_line(program, feed, sources) for feed in feeds]
    if program in SOCKETS:
        ours = f'[[feed]]\ntype = "sock"\npath = "{SOCKETS[program]}"'
        line = _feed_line(program, SockFeed(path=SOCKETS[program]), sources)
    else:
        ours = f'[[feed]]\ntype = "shm"\nunit = {SHM_UNIT}'
        line = _feed_line(program, ShmFeed(unit=SHM_UNIT), sources)
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
