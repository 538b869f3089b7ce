"""The ``refclock`` command: the table of its subcommands, and their execution.

``COMMANDS`` describes the whole command line; the parser is made from it. The module of a command is imported when that command runs, so
``--help`` and ``status`` start fast. A command's ``run`` returns its exit code. Errors arrive here as exceptions: Refused, ConfigError or
OSError.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from ppsd.cli.arguments import (
    CLIENTS,
    CONFIG,
    CSV,
    JSON,
    KEY,
    KEYS,
    NUMERIC,
    REPORT,
    RUN_DIR,
    WATCH,
    Command,
    count,
    limit,
    option,
    parse,
    seconds,
)
from ppsd.process.encoding import print_anywhere
from ppsd.process.exit_codes import GOOD, INTERRUPTED, Refused, complain, io_failure

COMMANDS = {
    command.name: command
    for command in (
        Command(
            "run",
            "run",
            "run everything in the foreground",
            "run --sim",
            (
                CONFIG,
                option("--sim", action="store_true", help="with a simulated receiver: no hardware, no root, clock untouched"),
                option("--ntp", metavar="HOST:PORT", help="serve NTP there instead (simulation: 127.0.0.1:11123)"),
                option("--run-dir", metavar="DIR", type=Path, help="keep sockets and records there"),
                option("--duration", metavar="SECONDS", type=seconds, help="end after that time"),
            ),
        ),
        Command(
            "status",
            "show",
            "show the daemon's state: 0 locked, 1 holdover, 2 not serving, 3 no daemon",
            "status --json | jq .bound_ns",
            (CSV, JSON, NUMERIC, WATCH, RUN_DIR),
        ),
        Command("sources", "show", "list the sources as chronyc does", "sources -v", REPORT),
        Command("sourcestats", "show", "show frequency, skew and deviation of each source as chronyc does", "sourcestats", REPORT),
        Command("selectdata", "show", "show why each source is selected or not, as chronyc does", "selectdata -v", REPORT),
        Command("tracking", "show", "show the clock's state as chronyc does", "tracking --csv", REPORT),
        Command("peers", "show", "list the sources as ntpq -p does", "peers --watch", REPORT),
        Command("authdata", "show", "show how NTP sources are authenticated, as chronyc does", "authdata", REPORT),
        Command("ntpdata", "show", "show the packets of NTP sources as chronyc does", "ntpdata", REPORT),
        Command("activity", "show", "count the sources that are there as chronyc does", "activity", REPORT),
        Command("serverstats", "show", "show the server's counters as chronyc does", "serverstats --json", REPORT),
        Command(
            "clients",
            "show",
            "list who asks for the time, the latest first, as chronyc does; -v: in detail",
            "clients -n 20",
            (
                option(
                    "-n",
                    dest="count",
                    metavar="N",
                    nargs="?",
                    type=count,
                    const=CLIENTS,
                    default=CLIENTS,
                    help=f"at most N (default {CLIENTS}); without N as in chronyc -n: addresses are never looked up",
                ),
                *(o for o in REPORT if o is not NUMERIC),
            ),
        ),
        Command(
            "top",
            "top",
            "show the state live on a whole screen: offset and bound, satellites, sources, clients; h: keys",
            "top",
            (NUMERIC, WATCH, RUN_DIR),
        ),
        Command(
            "metrics",
            "metrics",
            "print the metrics that Prometheus gets over HTTP, or write them to a file for node_exporter",
            "metrics --output /var/lib/prometheus/node-exporter/refclock.prom",
            (
                option("--compat", choices=("chrony",), help="under the names of chrony_exporter"),
                option("--output", metavar="FILE", type=Path, help="replace FILE at once, as a textfile collector needs it; *.prom"),
                RUN_DIR,
            ),
        ),
        Command(
            "history",
            "history",
            "tell what was measured in the last hour, day and month, or export it",
            "history export --csv --every hour",
            (
                option(
                    "action",
                    nargs="?",
                    choices=("show", "export"),
                    default="show",
                    help="show (default): course, percentiles and stability; export: every span of time",
                ),
                *(
                    option(f"--{form}", dest="form", action="store_const", const=form, help=words)
                    for form, words in (
                        ("csv", "export values separated by commas (default)"),
                        ("json", "one JSON value instead of text"),
                        ("tracking.log", "export as chronyd's log"),
                        ("loopstats", "export as ntpd's, for ntpviz"),
                        ("peerstats", "export as ntpd's, for ntpviz"),
                        ("temps", "export as ntplogtemp's, for ntpviz"),
                    )
                ),
                option("--every", choices=("second", "minute", "hour"), default="minute", help="length of a span (default minute)"),
                option("--since", metavar="SECONDS", type=seconds, help="export the last SECONDS (default: all that is kept)"),
                RUN_DIR,
            ),
        ),
        Command(
            "waitsync",
            "waitsync",
            "wait until the clock is synchronised: 0 it is, 1 it is not",
            "waitsync 60 0.001",
            (
                option("tries", metavar="TRIES", nargs="?", type=limit, default=0.0, help="at most so many looks; 0: no end (default)"),
                option("correction", metavar="MAX-CORRECTION", nargs="?", type=limit, default=0.0, help="wait for less, in s; 0: any"),
                option("skew", metavar="MAX-SKEW", nargs="?", type=limit, default=0.0, help="wait for less, in ppm; 0: any"),
                option("interval", metavar="INTERVAL", nargs="?", type=limit, default=10.0, help="s between two looks (default 10)"),
                CSV,
                RUN_DIR,
            ),
        ),
        Command(
            "access",
            "clients",
            "tell which rule decides about an address: 0 may ask, 1 may not",
            "access test 192.168.1.7",
            (
                option("action", choices=("test", "list"), help="test: one address; list: every rule, in the order they decide"),
                option("address", metavar="ADDRESS", nargs="?", help="IPv4 or IPv6"),
                JSON,
                CONFIG,
                RUN_DIR,
            ),
        ),
        Command(
            "doctor",
            "doctor.doctor",
            "examine this machine as a time server: 0 well, 1 look at it, 2 wrong",
            "doctor --against pool.ntp.org",
            (
                option("--fix", metavar="CHECK", help="carry out that check's safe remedy"),
                option(
                    "--report",
                    metavar="FILE",
                    type=Path,
                    help="write one file for a bug report, without keys, names, places and public addresses",
                ),
                option("--board", action="store_true", help="examine the board instead: firmware, pins, pulses, power, card; for a report"),
                option("--against", metavar="HOST", action="append", default=[], help="compare with that NTP server (may be repeated)"),
                KEY,
                KEYS,
                JSON,
                CONFIG,
                RUN_DIR,
            ),
        ),
        Command(
            "query",
            "query",
            "ask NTP servers what time it is: 0 one of them told, 1 none did",
            "query 127.0.0.1:11123 pool.ntp.org -n 4",
            (
                option("server", metavar="HOST[:PORT]", nargs="+", help="name or address; IPv6 with a port: [ADDRESS]:PORT"),
                option("-n", dest="count", metavar="N", type=count, default=1, help="ask each N times (default 1)"),
                KEY,
                KEYS,
                JSON,
                CONFIG,
            ),
        ),
        Command(
            "feed",
            "feed",
            "print the lines by which chronyd, ntpd or ntpd-rs takes our samples, and check that it does",
            "feed ntpd",
            (
                option(
                    "program",
                    nargs="?",
                    choices=("chrony", "ntpd", "ntpsec", "ntpd-rs"),
                    default="chrony",
                    help="whose lines (default chrony)",
                ),
                CONFIG,
                RUN_DIR,
            ),
        ),
        Command(
            "client-config",
            "client_config",
            "print what a client of this server writes into its configuration, and how that is verified",
            "client-config chrony",
            (
                option(
                    "client", metavar="CLIENT", nargs="?", help="chrony, ntpd, windows, dnsmasq ...; without it: the list of what there is"
                ),
                option(
                    "--server",
                    metavar="NAME",
                    action="append",
                    default=[],
                    help="call the server so (default: the address of the interface to everybody; may be repeated for several servers)",
                ),
                option("--key", metavar="N", type=int, help="with key N; 0: with none (default: the first of keys.file)"),
                CONFIG,
                RUN_DIR,
            ),
        ),
        Command(
            "nts",
            "nts",
            "tell how NTS stands, or print the certificate of this machine's own authority with what clients write",
            "nts ca --out refclock-ca.pem",
            (
                option(
                    "action",
                    nargs="?",
                    choices=("show", "ca"),
                    default="show",
                    help="show (default): addresses, certificate, sessions; ca: the authority's certificate, which clients need once",
                ),
                option("--out", metavar="FILE", type=Path, help="write the authority's certificate into FILE instead"),
                JSON,
                CONFIG,
                RUN_DIR,
            ),
        ),
        Command(
            "pool-check",
            "pool_check",
            "tell whether this server may join the NTP pool: 0 go, 1 no-go",
            "pool-check",
            (JSON, CONFIG, RUN_DIR),
        ),
        Command(
            "detect",
            "detect",
            "look for receivers and pulses: device, protocol and speed of each",
            "detect --apply",
            (
                option("--apply", action="store_true", help="add what was found to the configuration; the file is made when it is missing"),
                option("--pin", action="store_true", help='name device, speed and pulse instead of "auto"'),
                option("--wait", metavar="SECONDS", type=seconds, default=13.0, help="listen for at most SECONDS (default 13)"),
                JSON,
                CONFIG,
                RUN_DIR,
            ),
        ),
        Command(
            "nmea",
            "watch",
            "show what a receiver sends, and the result of each sentence",
            "nmea /dev/ttyAMA0",
            (
                option(
                    "device", metavar="DEVICE", nargs="?", help="serial device, or a source of the running daemon (default: its first line)"
                ),
                option("--baud", type=int, default=0, help="the line's speed (default: find it)"),
                option("--duration", metavar="SECONDS", type=seconds, help="end after that time"),
                CONFIG,
                RUN_DIR,
            ),
        ),
        Command(
            "receiver",
            "receiver",
            "show a receiver, set it up for timing, or undo that",
            "receiver configure --save",
            (
                option(
                    "action", choices=("show", "configure", "reset"), help="show works while the daemon runs, which configures by itself"
                ),
                option("device", metavar="DEVICE", nargs="?", help="serial device (default: the first receiver found)"),
                option("--save", action="store_true", help="keep the set-up beyond a loss of power"),
                JSON,
                CONFIG,
                RUN_DIR,
            ),
        ),
        Command(
            "pps",
            "watch",
            "show the edges of a pulse device, and their quality",
            "pps /dev/pps0 --test 10",
            (
                option("device", metavar="DEVICE", nargs="?", default="/dev/pps0", help="default /dev/pps0"),
                option("--test", metavar="N", type=count, help="end after N edges with a verdict: exit 0 good, 1 not"),
            ),
        ),
        Command(
            "calibrate",
            "calibrate",
            "measure how late pulses are stamped: 0 measured, 1 not",
            "calibrate pps --echo /dev/ttyS0:rts",
            (
                option("what", choices=("pps",), help="against another source of the running daemon, or by an echo"),
                option("--source", metavar="NAME", default="", help="whose pulse (default: the only one)"),
                option(
                    "--against", metavar="NAME", default="", help="compare with that source of the running daemon (default: the only other)"
                ),
                option("--echo", metavar="LINE", help="an output wired to the pulse's input: TTY:rts, TTY:dtr, /dev/gpiochipN:PIN"),
                option("--seconds", metavar="S", type=seconds, default=60.0, help="compare for S seconds (default 60)"),
                option("--count", metavar="N", type=count, default=100, help="measure N edges of an echo (default 100)"),
                option("--apply", action="store_true", help="write the figure into the configuration"),
                JSON,
                CONFIG,
                RUN_DIR,
            ),
        ),
        Command("sats", "show", "show the satellites as a table and as the sky", "sats --watch", REPORT),
        Command(
            "replay",
            "replay",
            "decode a receiver's recorded output and say what it would have done",
            "replay session.nmea --json",
            (
                option("file", type=Path, help="bytes as the receiver sent them"),
                option("--not-before", metavar="DATE", help="no true date is before it (YYYY-MM-DD; default: the release's)"),
                JSON,
            ),
        ),
        Command(
            "config",
            "config",
            "check or show the configuration",
            "config check --config new.toml",
            (
                option("action", choices=("check", "show"), help="check: all errors, exit 78; show: every key with its value"),
                CONFIG,
            ),
        ),
        Command(
            "import",
            "import_config",
            "print the configuration of chronyd, ntpd, timesyncd, gpsd or satpulse as refclock.toml, with what becomes of each line",
            "import /etc/chrony/chrony.conf",
            (
                option("file", metavar="FILE", type=Path, help="chrony.conf, ntp.conf, timesyncd.conf, /etc/default/gpsd or satpulse.toml"),
                option(
                    "--from",
                    dest="kind",
                    choices=("chrony", "ntp", "gpsd", "satpulse", "timesyncd"),
                    help="whose file it is (default: told by it)",
                ),
                option("--apply", action="store_true", help="write it in place of the configuration, which is kept as .bak"),
                CONFIG,
            ),
        ),
        Command(
            "reload",
            "reload",
            "make the daemon read its configuration again: 0 taken, 78 the old one stays",
            "reload",
            (RUN_DIR,),
        ),
        Command(
            "setup",
            "setup",
            "make this machine a time server, or the source of the one that is there, or take that back",
            "setup --as appliance",
            (
                option(
                    "--as",
                    dest="choice",
                    choices=("appliance", "feeder"),
                    help="appliance: refclock sets the clock and serves; feeder: chronyd, ntpd or ntpd-rs does, with refclock's samples",
                ),
                option("--yes", action="store_true", help="do not ask"),
                option("--undo", action="store_true", help="put everything back as it was"),
                option(
                    "--renew", action="store_true", help="write the drop-ins of an earlier setup anew, as an upgrade of the package does"
                ),
            ),
        ),
        Command(
            "takeover",
            "takeover",
            "move from chronyd or ntpd to refclock: look beside it, switch, go back: 0 nothing speaks against it, 1 something does",
            "takeover --seconds 60",
            (
                option(
                    "--shadow",
                    dest="step",
                    action="store_const",
                    const="shadow",
                    default="shadow",
                    help="run beside it, set nothing, and tell which clock is better (the default)",
                ),
                option(
                    "--commit", dest="step", action="store_const", const="commit", help="look for a minute, then switch, without a step"
                ),
                option("--rollback", dest="step", action="store_const", const="rollback", help="put everything back, without a step"),
                option("--seconds", metavar="S", type=seconds, help="watch both clocks for so long (default 300, before a switch 60)"),
                option("--wait", metavar="S", type=seconds, help="wait so long for refclock to lock (default 1200)"),
                option("--yes", action="store_true", help="do not ask before the switch"),
                JSON,
            ),
        ),
        Command(
            "backup",
            "backup",
            "write configuration, settings and what was learned into one file",
            "backup server.backup",
            (
                option("file", metavar="FILE", type=Path, help="the file that is written, for root alone"),
                option("--with-secrets", action="store_true", help="keys, the Wi-Fi passphrase and ssh host keys as well"),
            ),
        ),
        Command(
            "restore",
            "backup",
            "put back what a backup holds",
            "restore server.backup",
            (option("file", metavar="FILE", type=Path, help="a file that `refclock backup` wrote"),),
        ),
        Command(
            "update",
            "update",
            "put a new version on the appliance, or tell of its slots",
            "update refclock-0.2.0-arm64.raucb",
            (
                option(
                    "source", metavar="FILE|URL", nargs="?", help="a file (also one on the FAT partition, by its name) or http(s)://..."
                ),
                option("--check", action="store_true", help="tell what it is and whether it could be installed; change nothing"),
                option("--older", action="store_true", help="also take a version that is older than the one that runs"),
                option("--later", action="store_true", help="do not restart now; the next restart tries it"),
                option("--status", action="store_true", help="which slot runs, which is good, what was tried last and what came of it"),
                option(
                    "--confirm",
                    action="store_true",
                    help="wait until our own NTP query is answered, then keep this version (a service does)",
                ),
            ),
            appliance=True,
        ),
        Command(
            "slots",
            "slots",
            "answer RAUC about the slots",
            "slots get-primary",
            (
                option("action", choices=("get-primary", "set-primary", "get-state", "set-state", "get-current"), help="what RAUC asks"),
                option("slot", nargs="?", choices=("a", "b"), help="the slot's name"),
                option("state", nargs="?", choices=("good", "bad"), help="for set-state"),
            ),
            appliance=True,
        ),
        Command(
            "box",
            "box",
            "what the appliance does besides time: its settings at a boot, its light, its state",
            "box status",
            (
                option(
                    "action",
                    choices=("apply", "led", "status"),
                    help="apply: bring the card's files into force; led: show the state by a light of the board; status: the box in"
                    " plain words, 1 when those files have mistakes",
                ),
                option("--write", action="store_true", help="status: into STATUS.txt on the card"),
            ),
            appliance=True,
        ),
        Command(
            "sim",
            "sim",
            "run a scenario in simulated time",
            "sim hw-sim/scenarios/leap-second.toml --seeds 5",
            (
                option("scenario", type=Path, help="a scenario file (TOML)"),
                option("--seeds", metavar="N", type=count, default=1, help="with N different random seeds (default 1)"),
            ),
        ),
        Command("version", "version", "print the version", "version"),
    )
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. A closed pipe (``refclock ... | head``) is no error."""
    print_anywhere((sys.stdout, sys.stderr))
    try:
        code = _carry_out(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD
    except OSError as error:
        return io_failure(error)


def _carry_out(words: Sequence[str]) -> int:
    try:
        args = parse(COMMANDS, words)
        run: Callable[[argparse.Namespace], int] = import_module(f"ppsd.cli.{COMMANDS[args.command].module}").run
        return run(args)
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return refusal.code
    except ValueError as error:
        from refclock.schema import ConfigError  # noqa: PLC0415 (20 ms, and --help and status need no configuration)

        if not isinstance(error, ConfigError):
            raise
        return complain(error)
