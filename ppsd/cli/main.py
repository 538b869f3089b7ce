"""The ``refclock`` command: what each subcommand calls, and exit codes; all else is imported by the subcommand that needs it.

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
from typing import TYPE_CHECKING, Any

from ppsd import version
from ppsd.cli.arguments import build_parser
from ppsd.process.exit_codes import IO_ERROR, NO_DAEMON, NO_PERMISSION, USAGE, complain, io_failure

if TYPE_CHECKING:
    from ppsd.config.tables import Config
VERDICT_CODES = {"LOCKED": 0, "HOLDOVER": 1}
"""What ``status`` exits with; every other verdict: 2."""
FEED_WAIT_S = 1.5
"""Between two looks at a feed's counter: samples go out once a second."""


def _find_run_dir(given: Path | None) -> Path:
    """--run-dir, else $REFCLOCK_RUN_DIR, else the simulation's when it is alive and the system's is not, else the system's."""
    if given is not None:
        return given
    named = os.environ.get("REFCLOCK_RUN_DIR", "")
    if named:
        return Path(named)
    from ppsd.cli.run import sim_directory
    from ppsd.process.control import alive

    system, sim = Path(_system_run_dir()), sim_directory()
    if not alive(sim / "clock.sock"):
        return system
    if alive(system / "clock.sock"):
        print(f"refclock: two daemons are alive; this is {system}, the other: --run-dir {sim}", file=sys.stderr)
        return system
    return sim


def _system_run_dir() -> str:
    """The run directory of the default configuration; a broken file falls back to the default."""
    from ppsd.config.file import load
    from ppsd.config.tables import Config
    from refclock.schema import ConfigError

    try:
        return load(None).run.directory
    except ConfigError:
        return Config().run.directory


def _snapshot(directory: Path) -> dict[str, Any] | int:
    """The clock process's snapshot, or the exit code after saying why there is none."""
    from ppsd.process.control import ask

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
    from ppsd.cli.run import Run, run_foreground
    from ppsd.config.tables import parse_endpoint
    from refclock.schema import ConfigError

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
    from ppsd.faces import text as reports
    from ppsd.process.control import ask

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

    from ppsd.faces import text as reports

    clock = _snapshot(_find_run_dir(args.run_dir))
    if isinstance(clock, int):
        return clock
    if args.command == "sources":
        print(json.dumps(clock["sources"]) if args.json else reports.sources(clock))
    else:
        print(json.dumps({k: v for k, v in clock.items() if k != "sources"}) if args.json else reports.tracking(clock))
    return 0


def _clients(args: argparse.Namespace) -> int:
    from ppsd.cli.clients import print_clients

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
    from ppsd.cli.clients import list_access, test_access
    from ppsd.config.file import load
    from refclock.schema import ConfigError

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


def _detect(args: argparse.Namespace) -> int:
    from ppsd.cli.detect import detect
    from ppsd.config.file import DEFAULT_FILE, load
    from refclock.schema import ConfigError

    try:
        config = load(args.config)
    except ConfigError as error:
        return complain(error)
    file = args.config or Path(config.file or DEFAULT_FILE)
    return detect(config, args.wait, args.json, file if args.apply else None, sys.stdout)


def _nmea(args: argparse.Namespace) -> int:
    from ppsd.cli.watch import watch_line
    from ppsd.config.file import load
    from refclock.schema import ConfigError

    try:
        return watch_line(args.device, args.baud, load(args.config), args.duration, sys.stdout)
    except ConfigError as error:
        return complain(error)
    except OSError as error:
        return io_failure(error)


def _receiver(args: argparse.Namespace) -> int:
    from ppsd.cli.receiver import receiver_command
    from ppsd.config.file import load
    from refclock.schema import ConfigError

    try:
        return receiver_command(args.action, args.device, load(args.config), save=args.save, as_json=args.json, out=sys.stdout)
    except ConfigError as error:
        return complain(error)
    except OSError as error:
        return io_failure(error)


def _pps(args: argparse.Namespace) -> int:
    from ppsd.cli.watch import watch_pulses

    try:
        return watch_pulses(args.device, args.test, sys.stdout)
    except OSError as error:
        print(f"refclock: {error.strerror}", file=sys.stderr)
        return NO_PERMISSION if isinstance(error, PermissionError) else IO_ERROR


def _calibrate(args: argparse.Namespace) -> int:
    import time

    from ppsd.cli.calibrate import Bias, calibrate, echo, versus
    from ppsd.config.file import DEFAULT_FILE, load
    from ppsd.process.control import ask
    from refclock.config import Pulse
    from refclock.schema import ConfigError

    try:
        config = load(args.config)
    except ConfigError as error:
        return complain(error)
    pulses = {s.name: s.pps for s in config.sources if isinstance(s, Pulse) and s.pps.startswith("/") and args.source in ("", s.name)}
    if args.echo and len(pulses) != 1:
        known = ", ".join(pulses) or "none"
        print(f"refclock calibrate pps: whose pulse is it? --source NAME; the configuration names one for: {known}", file=sys.stderr)
        return USAGE
    directory = _find_run_dir(args.run_dir)
    if not args.echo and isinstance(code := _snapshot(directory), int):
        return code

    def measure() -> Bias:
        if args.echo:
            ((name, pulse),) = pulses.items()
            return echo(name, pulse, args.echo, args.count)
        return versus(lambda: ask(directory / "clock.sock", "snapshot"), time.sleep, args.source, args.against, args.seconds)

    file = args.config or Path(config.file or DEFAULT_FILE)
    return calibrate(measure, config, file if args.apply else None, args.json, sys.stdout)


def _sats(args: argparse.Namespace) -> int:
    from ppsd.cli.watch import print_satellites

    clock = _snapshot(_find_run_dir(args.run_dir))
    return clock if isinstance(clock, int) else print_satellites(clock, args.json, sys.stdout)


def _doctor(args: argparse.Namespace) -> int:
    from ppsd.cli.doctor.doctor import doctor
    from ppsd.cli.doctor.finding import Patient
    from ppsd.config.file import load
    from ppsd.process.control import ask
    from refclock.kernel.host import Host
    from refclock.schema import ConfigError

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
    from ppsd.cli.query import query

    host, separator, port = args.server.rpartition(":")
    if not separator or (":" in host and not args.server.startswith("[")) or args.server.endswith("]"):
        host, port = args.server, "123"
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        print(f"refclock query: {args.server}: the port must be 1 to 65535", file=sys.stderr)
        return USAGE
    return query(host.removeprefix("[").removesuffix("]"), int(port), args.count, args.json)


def _feed(args: argparse.Namespace) -> int:
    from ppsd.cli.feed import feed_lines, feed_problems
    from ppsd.config.file import load
    from refclock.schema import ConfigError

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

    from ppsd.process.control import alive

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

    from ppsd.cli.replay import replay

    try:
        not_before = date.fromisoformat(args.not_before) if args.not_before else None
    except ValueError:
        print(f"refclock replay: --not-before {args.not_before}: must be a date like 2026-11-21", file=sys.stderr)
        return USAGE
    return replay(args.file, not_before, args.json, sys.stdout)


def _config(args: argparse.Namespace) -> int:
    from ppsd.config.file import as_toml, load
    from ppsd.config.keys import read_keys
    from refclock.schema import ConfigError

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
    from refclock_sim.worlds.world import run_scenario_file

    try:
        return run_scenario_file(args.scenario, range(1, args.seeds + 1), sys.stdout)
    except OSError as error:
        return io_failure(error)


def _version(_: argparse.Namespace) -> int:
    print(f"refclock {version()}")
    return 0


COMMANDS = {
    "run": _run, "status": _status, "sources": _table, "tracking": _table, "clients": _clients, "access": _access, "doctor": _doctor,
    "detect": _detect, "nmea": _nmea, "receiver": _receiver, "pps": _pps, "calibrate": _calibrate, "sats": _sats,
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
