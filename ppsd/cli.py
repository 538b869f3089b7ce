"""The ``refclock`` command: argument parsing and exit codes; everything else is imported by the subcommand that needs it.

Exit codes follow sysexits.h so that systemd can tell what is worth a restart: 0 good, 1 degraded, 2 not serving, 3 no daemon,
64 usage, 74 input/output, 77 permission, 78 configuration.
"""
# ruff: noqa: PLC0415 (imports stand where they are needed: --help and status must not pay for what they do not use)

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ppsd.config import Config
    from refclock.config import ConfigError

USAGE, IO_ERROR, NO_PERMISSION, BAD_CONFIG = 64, 74, 77, 78
NO_DAEMON = 3
VERDICT_CODES = {"LOCKED": 0, "HOLDOVER": 1}
"""What ``status`` exits with; every other verdict: 2."""
FEED_WAIT_S = 1.5
"""Between two looks at a feed's counter: samples go out once a second."""


class _Parser(argparse.ArgumentParser):
    """argparse with the exit code of sysexits.h for a wrong command line."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise ValueError(text)
    return value


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


def version() -> str:
    """The installed package's version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("refclock")
    except PackageNotFoundError:
        return "0 (not installed)"


# ---- what commands share ----------------------------------------------------------------------------------------------------------


def complain(error: ConfigError) -> int:
    """Print every problem of a configuration; exit code 78."""
    for problem in error.problems:
        print(problem, file=sys.stderr)
    return BAD_CONFIG


def io_failure(error: OSError) -> int:
    """Print an operating system's refusal and what to do about it; exit code 74 or 77."""
    what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
    print(f"refclock: {what}", file=sys.stderr)
    return NO_PERMISSION if isinstance(error, PermissionError) else IO_ERROR


def _find_run_dir(given: Path | None) -> Path:
    """--run-dir, else $REFCLOCK_RUN_DIR, else the simulation's when it is alive and the system's is not, else the system's."""
    if given is not None:
        return given
    named = os.environ.get("REFCLOCK_RUN_DIR", "")
    if named:
        return Path(named)
    from ppsd.control import alive
    from ppsd.foreground import sim_directory

    system, sim = Path(_system_run_dir()), sim_directory()
    if not alive(sim / "clock.sock"):
        return system
    if alive(system / "clock.sock"):
        print(f"refclock: two daemons are alive; this is {system}, the other: --run-dir {sim}", file=sys.stderr)
        return system
    return sim


def _system_run_dir() -> str:
    """The run directory of the default configuration; a broken file falls back to the default."""
    from ppsd.config import Config, load
    from refclock.config import ConfigError

    try:
        return load(None).run.directory
    except ConfigError:
        return Config().run.directory


def _snapshot(directory: Path) -> dict[str, Any] | int:
    """The clock process's snapshot, or the exit code after saying why there is none."""
    from ppsd.control import ask

    try:
        return ask(directory / "clock.sock", "snapshot")
    except PermissionError:
        print(f"refclock: {directory}/clock.sock: not allowed; try as the daemon's user or root", file=sys.stderr)
        return NO_PERMISSION
    except (FileNotFoundError, ConnectionRefusedError):
        print(f"refclock: no daemon in {directory} (start one: refclock run, or without a receiver: refclock run --sim)", file=sys.stderr)
    except OSError as error:
        print(f"refclock: {directory}/clock.sock: {error.strerror or error}", file=sys.stderr)
    return NO_DAEMON


# ---- commands ---------------------------------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    from ppsd.config import parse_endpoint
    from ppsd.foreground import Run, run_foreground
    from refclock.config import ConfigError

    if args.ntp is not None and parse_endpoint(args.ntp) is None:
        print(f"refclock run: --ntp {args.ntp}: must be an address and port like 127.0.0.1:11123 or [::1]:11123", file=sys.stderr)
        return USAGE
    run = Run(args.config, args.sim, args.ntp, args.run_dir)
    try:
        run.prepare()
        return run_foreground(run, args.duration, sys.stdout)
    except ConfigError as error:
        return complain(error)
    except OSError as error:
        code = io_failure(error)
        if code == NO_PERMISSION and not args.sim:
            print("refclock: be root or the daemon's user, give a --run-dir of your own, or try: refclock run --sim", file=sys.stderr)
        return code


def _status(args: argparse.Namespace) -> int:
    from ppsd import reports
    from ppsd.control import ask

    directory = _find_run_dir(args.run_dir)
    clock = _snapshot(directory)
    if isinstance(clock, int):
        return clock
    server: dict[str, Any] | str
    code = VERDICT_CODES.get(clock["verdict"], 2)
    try:
        server = ask(directory / "serve.sock", "snapshot")
    except FileNotFoundError:
        server = "not running"
    except OSError as error:
        server, code = f"not answering ({error.strerror or error})", 2
    print(reports.status_json(clock, server) if args.json else reports.status(clock, server))
    return code


def _table(args: argparse.Namespace) -> int:
    """sources and tracking."""
    import json

    from ppsd import reports

    clock = _snapshot(_find_run_dir(args.run_dir))
    if isinstance(clock, int):
        return clock
    if args.command == "sources":
        print(json.dumps(clock["sources"]) if args.json else reports.sources(clock))
    else:
        print(json.dumps({k: v for k, v in clock.items() if k != "sources"}) if args.json else reports.tracking(clock))
    return 0


def _clients(args: argparse.Namespace) -> int:
    from ppsd.clients import print_clients

    directory = _find_run_dir(args.run_dir)
    try:
        return print_clients(directory, args.count, args.json)
    except PermissionError:
        print(f"refclock: {directory}/serve.sock: not allowed; try as the daemon's user or root", file=sys.stderr)
        return NO_PERMISSION
    except OSError as error:
        print(f"refclock: no server in {directory} ({error.strerror or error}); start one: refclock run", file=sys.stderr)
        return NO_DAEMON


def _access(args: argparse.Namespace) -> int:
    from ppsd.clients import list_access, test_access
    from ppsd.config import load
    from refclock.config import ConfigError

    if (args.action == "test") != (args.address is not None):
        print("refclock access: test needs an address, list takes none", file=sys.stderr)
        return USAGE
    try:
        config = load(args.config)
    except ConfigError as error:
        return complain(error)
    if args.action == "list":
        return list_access(config, args.json)
    return test_access(config, _find_run_dir(args.run_dir), args.address, args.json)


def _doctor(args: argparse.Namespace) -> int:
    from ppsd.config import load
    from ppsd.control import ask
    from ppsd.doctor import doctor
    from ppsd.examination import Patient
    from ppsd.host import Host
    from refclock.config import ConfigError

    try:
        config = load(args.config)
    except ConfigError as error:
        return complain(error)
    try:
        clock = ask(_find_run_dir(args.run_dir) / "clock.sock", "snapshot")
    except OSError:
        clock = None
    return doctor(Patient(Host(), config, clock, servers=args.against), args.json, args.fix, sys.stdout)


def _query(args: argparse.Namespace) -> int:
    from ppsd.query import query

    host, separator, port = args.server.rpartition(":")
    if not separator or (":" in host and not args.server.startswith("[")) or args.server.endswith("]"):
        host, port = args.server, "123"
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        print(f"refclock query: {args.server}: the port must be 1 to 65535", file=sys.stderr)
        return USAGE
    return query(host.removeprefix("[").removesuffix("]"), int(port), args.count, args.json)


def _feed(args: argparse.Namespace) -> int:
    from ppsd.config import load
    from ppsd.reports import feed_lines, feed_problems
    from refclock.config import ConfigError

    try:
        config = load(args.config)
    except ConfigError as error:
        return complain(error)
    print("\n".join(feed_lines(args.program, config.feeds)), flush=True)
    if not config.feeds:
        return 0
    return _check_feeds(args.run_dir, feed_problems)


def _check_feeds(given: Path | None, problems: Any) -> int:
    """With a running daemon: two looks at its counters."""
    import time

    from ppsd.control import alive

    directory = _find_run_dir(given)
    if not alive(directory / "clock.sock"):
        print(f"# no daemon in {directory}: whether samples are taken was not checked", file=sys.stderr)
        return 0
    before = _snapshot(directory)
    time.sleep(FEED_WAIT_S)
    after = _snapshot(directory)
    if isinstance(before, int) or isinstance(after, int):
        return NO_DAEMON
    code = 0
    for good, text in problems(before.get("feeds", []), after.get("feeds", [])):
        print(f"# {text}", file=sys.stderr)
        code = code if good else 1
    return code


def _replay(args: argparse.Namespace) -> int:
    from datetime import date

    from ppsd.replay import replay

    try:
        not_before = date.fromisoformat(args.not_before) if args.not_before else None
    except ValueError:
        print(f"refclock replay: --not-before {args.not_before}: must be a date like 2026-11-21", file=sys.stderr)
        return USAGE
    return replay(args.file, not_before, args.json, sys.stdout)


def _config(args: argparse.Namespace) -> int:
    from ppsd.config import as_toml, load
    from ppsd.serve import read_keys
    from refclock.config import ConfigError

    try:
        config: Config = load(args.config)
        read_keys(config)
    except ConfigError as error:
        return complain(error)
    if args.action == "show":
        print(as_toml(config), end="")
    else:
        print(f"{config.file or 'no file, the defaults'}: good; {len(config.sources)} sources, {len(config.feeds)} feeds")
    return 0


def _sim(args: argparse.Namespace) -> int:
    from refclock_sim.world import run_scenario_file

    try:
        return run_scenario_file(args.scenario, range(1, args.seeds + 1), sys.stdout)
    except OSError as error:
        return io_failure(error)


def _version(_: argparse.Namespace) -> int:
    print(f"refclock {version()}")
    return 0


COMMANDS = {
    "run": _run, "status": _status, "sources": _table, "tracking": _table, "clients": _clients, "access": _access, "doctor": _doctor,
    "query": _query, "feed": _feed,
    "replay": _replay, "config": _config, "sim": _sim, "version": _version,
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code. ``refclock ... | head`` ends quietly."""
    try:
        args = build_parser().parse_args(argv)
        code = COMMANDS[args.command](args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130  # as shells report SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno == errno.ENOSPC:  # standard output
            print(f"refclock: {error.strerror}", file=sys.stderr)
            return IO_ERROR
        raise
