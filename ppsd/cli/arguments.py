"""The command line of ``refclock``: its subcommands, their arguments and help. Nothing is carried out here."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any, NoReturn

from ppsd.process.exit_codes import USAGE

MOST = 2000
"""Largest count: so many clients fit into one reply of the control socket (some 300 bytes each of 1 MiB)."""


class _Parser(argparse.ArgumentParser):
    """argparse with the exit code of sysexits.h for a wrong command line."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < 1e9:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds; allowed: more than 0, less than 1e9")


def _count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 1 <= (value := int(text)) <= MOST:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a count; allowed: 1 to {MOST}")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="refclock",
        description="A GPS receiver and a Linux box become an honest stratum-1 time server.",
        epilog="Nothing at hand?  refclock run --sim   needs no receiver and no root, and does not touch the clock.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, what: str, example: str, **options: Any) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".", epilog=f"Example:  {example}", **options)

    def config_option(p: argparse.ArgumentParser) -> None:
        p.add_argument("--config", metavar="FILE", type=Path, help="configuration (default: /etc/refclock/refclock.toml if it exists)")

    def run_dir_option(p: argparse.ArgumentParser) -> None:
        p.add_argument("--run-dir", metavar="DIR", type=Path, help="the daemon's run directory (default: the one that is alive)")

    def json_option(p: argparse.ArgumentParser) -> None:
        p.add_argument("--json", action="store_true", help="one JSON object instead of text")

    p = command("run", "run everything in the foreground", "refclock run --sim")
    config_option(p)
    p.add_argument("--sim", action="store_true", help="with a simulated receiver: no hardware, no root, clock untouched")
    p.add_argument("--ntp", metavar="HOST:PORT", help="serve NTP there instead (simulation: 127.0.0.1:11123)")
    p.add_argument("--run-dir", metavar="DIR", type=Path, help="keep sockets and records there")
    p.add_argument("--duration", metavar="SECONDS", type=_positive, help="end after that time")

    p = command("status", "say how we are: 0 locked, 1 holdover, 2 not serving, 3 no daemon", "refclock status --json | jq .bound_ns")
    json_option(p)
    run_dir_option(p)
    p = command("sources", "list the sources as chronyc does", "refclock sources")
    json_option(p)
    run_dir_option(p)
    p = command("tracking", "show the clock's state as chronyc does", "refclock tracking")
    json_option(p)
    run_dir_option(p)

    p = command("clients", "list who asks for the time, the latest first", "refclock clients -n 20")
    p.add_argument("-n", dest="count", metavar="N", type=_count, default=50, help="at most N (default 50)")
    json_option(p)
    run_dir_option(p)
    p = command("access", "tell which rule decides about an address: 0 may ask, 1 may not", "refclock access test 192.168.1.7")
    p.add_argument("action", choices=("test", "list"), help="test: one address; list: every rule, in the order they decide")
    p.add_argument("address", metavar="ADDRESS", nargs="?", help="IPv4 or IPv6")
    json_option(p)
    config_option(p)
    run_dir_option(p)

    p = command("doctor", "examine this machine as a time server: 0 well, 1 look at it, 2 wrong", "refclock doctor --against pool.ntp.org")
    p.add_argument("--fix", metavar="CHECK", help="carry out that check's safe remedy")
    p.add_argument("--against", metavar="HOST", action="append", default=[], help="compare with that NTP server (may be repeated)")
    json_option(p)
    config_option(p)
    run_dir_option(p)

    p = command("query", "ask an NTP server what time it is", "refclock query 127.0.0.1:11123 -n 4")
    p.add_argument("server", metavar="HOST[:PORT]", help="name or address; IPv6 with a port: [ADDRESS]:PORT")
    p.add_argument("-n", dest="count", metavar="N", type=_count, default=1, help="ask N times (default 1)")
    json_option(p)

    p = command("feed", "print the lines by which chronyd or ntpd takes our samples, and check that it does", "refclock feed ntpd")
    p.add_argument("program", nargs="?", choices=("chrony", "ntpd", "ntpsec"), default="chrony", help="whose lines (default chrony)")
    config_option(p)
    run_dir_option(p)

    p = command("detect", "look for receivers and pulses: what speaks where, at which speed", "refclock detect --apply")
    p.add_argument("--apply", action="store_true", help="add what was found to the configuration")
    p.add_argument("--wait", metavar="SECONDS", type=_positive, default=13.0, help="listen that long at most (default 13)")
    json_option(p)
    config_option(p)
    p = command("nmea", "show what a receiver sends, and what becomes of it", "refclock nmea /dev/ttyAMA0")
    p.add_argument("device", metavar="DEVICE", help="serial device that nobody else reads")
    p.add_argument("--baud", type=int, default=0, help="the line's speed (default: find it)")
    p.add_argument("--duration", metavar="SECONDS", type=_positive, help="end after that time")
    config_option(p)
    p = command("receiver", "show a receiver, set it up for timing, or undo that", "refclock receiver configure --save")
    p.add_argument("action", choices=("show", "configure", "reset"), help="the daemon configures by itself; it must not hold the line")
    p.add_argument("device", metavar="DEVICE", nargs="?", help="serial device (default: the first receiver found)")
    p.add_argument("--save", action="store_true", help="keep the set-up beyond a loss of power")
    json_option(p)
    config_option(p)
    p = command("pps", "show the edges of a pulse device, and what they are worth", "refclock pps /dev/pps0 --test 10")
    p.add_argument("device", metavar="DEVICE", nargs="?", default="/dev/pps0", help="default /dev/pps0")
    p.add_argument("--test", metavar="N", type=_count, help="end after N edges with a verdict: exit 0 good, 1 not")
    p = command("calibrate", "measure how late pulses are stamped: 0 measured, 1 not", "refclock calibrate pps --echo /dev/ttyS0:rts")
    p.add_argument("what", choices=("pps",), help="against another source of the running daemon, or by an echo")
    p.add_argument("--source", metavar="NAME", default="", help="whose pulse (default: the only one)")
    p.add_argument("--against", metavar="NAME", default="", help="compare with that source of the running daemon (default: the only other)")
    p.add_argument("--echo", metavar="LINE", default="", help="an output wired to the pulse's input: TTY:rts, TTY:dtr, /dev/gpiochipN:PIN")
    p.add_argument("--seconds", metavar="S", type=_positive, default=60.0, help="compare that long (default 60)")
    p.add_argument("--count", metavar="N", type=_count, default=100, help="so many edges of an echo (default 100)")
    p.add_argument("--apply", action="store_true", help="write the figure into the configuration")
    json_option(p)
    config_option(p)
    run_dir_option(p)
    p = command("sats", "show the satellites as a table and as the sky", "refclock sats")
    json_option(p)
    run_dir_option(p)

    p = command("replay", "decode a receiver's recorded output and say what it would have done", "refclock replay session.nmea --json")
    p.add_argument("file", type=Path, help="bytes as the receiver sent them")
    p.add_argument("--not-before", metavar="DATE", help="no true date is before it (YYYY-MM-DD; default: the release's)")
    json_option(p)

    p = command("config", "check or show the configuration", "refclock config check --config new.toml")
    p.add_argument("action", choices=("check", "show"), help="check: all errors, exit 78; show: every key with its value")
    config_option(p)

    p = command("sim", "run a scenario in simulated time", "refclock sim hw-sim/scenarios/leap-second.toml --seeds 5")
    p.add_argument("scenario", type=Path, help="a scenario file (TOML)")
    p.add_argument("--seeds", metavar="N", type=_count, default=1, help="with N different random seeds (default 1)")

    command("version", "print the version", "refclock version")
    return parser
