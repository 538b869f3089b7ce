"""Parses the command line of ``refclock`` by a table of commands.

A wrong command line ends with the exit code of sysexits.h. The commands themselves are in the modules that the table names.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from ppsd.process.exit_codes import GOOD, USAGE, Refused

CLIENTS: Final = 50
"""Clients that are listed by default."""
MOST: Final = 2000
"""Largest count in an argument: one reply of the control socket, 1 MiB, holds this many clients of some 300 bytes."""


class Option(NamedTuple):
    """An argument of a command: its names and settings, as ``argparse.ArgumentParser.add_argument`` takes them."""

    names: tuple[str, ...]
    settings: Mapping[str, Any]


def option(*names: str, **settings: Any) -> Option:
    """An Option, written as a call of ``add_argument``."""
    return Option(names, settings)


class Command(NamedTuple):
    """A subcommand. ``module``: in ``ppsd.cli``; its ``run(args) -> int`` executes the command and returns the exit code. ``appliance``: it
    is of use on the image alone, and elsewhere the list of commands leaves it out."""

    name: str
    module: str
    help: str
    example: str
    options: tuple[Option, ...] = ()
    appliance: bool = False


def seconds(text: str) -> float:
    """Convert an argument that is a duration in seconds."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < 1e9:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds; allowed: more than 0, less than 1e9")


def count(text: str) -> int:
    """Convert an argument that is a count."""
    with contextlib.suppress(ValueError):
        if 1 <= (value := int(text)) <= MOST:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a count; allowed: 1 to {MOST}")


def limit(text: str) -> float:
    """Convert an argument that is a limit or a number of tries."""
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) < 1e9:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number; allowed: 0 to less than 1e9")


CONFIG: Final = option("--config", metavar="FILE", type=Path, help="configuration (default: /etc/refclock/refclock.toml if it exists)")
RUN_DIR: Final = option("--run-dir", metavar="DIR", type=Path, help="the daemon's run directory (default: the one that is alive)")
JSON: Final = option("--json", action="store_true", help="one JSON object instead of text")
CSV: Final = option("-c", "--csv", action="store_true", help="values separated by commas, in the columns of chronyc -c")
NUMERIC: Final = option("-n", "--numeric", action="store_true", help="as in chronyc -n and ntpq -n: addresses are never looked up anyway")
WATCH: Final = option("-w", "--watch", metavar="S", nargs="?", type=seconds, const=1.0, help="again every S seconds (default 1), until ^C")
VERBOSE: Final = option("-v", "--verbose", action="store_true", help="with the meaning of the columns")
REPORT: Final = (VERBOSE, CSV, JSON, NUMERIC, WATCH, RUN_DIR)
"""The options of every report."""

KEY: Final = option("--key", metavar="N", type=int, help="authenticate with key N")
KEYS: Final = option("--keys", metavar="FILE", type=Path, help="key file for --key (default: keys.file of the configuration)")


EPILOG: Final = """\
Nothing at hand?  refclock run --sim   needs no receiver and no root, and does not touch the clock.
Used to ntpq, chronyc, cgps, ppstest ...?  refclock help NAME   tells what it is called here.
Exit codes: 0 done, or yes; 1 no, or degraded; 2 bad; 3 no daemon; 64 wrong command line; 65 bad data; 74 input or output
failed; 77 not allowed; 78 wrong configuration; 130 interrupted.
"""


def is_appliance() -> bool:
    """Whether this machine runs the image: its boot loader names a slot (``ppsd.appliance.boot.booted_slot``)."""
    try:
        return " refclock.slot=" in f" {Path('/proc/cmdline').read_text(encoding='utf-8', errors='replace')}"
    except OSError:
        return False


def chooser(choices: Sequence[str]) -> Callable[[str], str]:
    """Converts an argument that is one of ``choices``; for another it suggests the nearest."""

    def chosen(text: str) -> str:
        if text in choices:
            return text
        from refclock.schema import suggestion  # noqa: PLC0415 (a right word needs no guess)

        known = f"; there are {', '.join(choices)}"
        raise argparse.ArgumentTypeError(f"there is no {text!r}{suggestion(text, choices) or known}")

    return chosen


@cache
def _columns() -> int:
    """Columns of the terminal that help is printed on, as argparse finds them; but ``shutil``, with which it does, takes 10 ms to load."""
    with contextlib.suppress(ValueError):
        if (told := int(os.environ.get("COLUMNS", "0"))) > 0:
            return told
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:  # standard output is no terminal
        return 80


class _Wrapped(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class _AsWritten(_Wrapped, argparse.RawDescriptionHelpFormatter):
    """Leaves the lines of description and epilogue alone."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def parse(commands: Mapping[str, Command], words: Sequence[str]) -> argparse.Namespace:
    """The command line ``words``; ``command`` in the result is the name of the chosen command. A wrong one ends with USAGE. ``help
    [COMMAND]`` is read as ``[COMMAND] --help``, and ``--version`` as ``version``. ``help`` with the name of another program's command ends
    as well, with ours."""
    first = words[0] if words else ""
    if first == "help":
        words = [*_helped(commands, words[1:]), "--help"]
    elif first in ("--version", "-V"):
        words = ["version"]
    name = words[0] if words else ""
    if name and not name.startswith("-") and name not in commands:
        from ppsd.cli.old_names import OLD_NAMES, here  # noqa: PLC0415 (a right command needs neither of these)
        from refclock.schema import suggestion  # noqa: PLC0415

        if name in OLD_NAMES:
            raise Refused(USAGE, f"refclock: there is no command {here(name)}")
        known = ", ".join(commands)
        raise Refused(USAGE, f"refclock: there is no command {name}{suggestion(name, list(commands)) or f'; there are {known}'}")
    return _parser(commands.values(), words).parse_args(words)


def _helped(commands: Mapping[str, Command], words: Sequence[str]) -> list[str]:
    """The command that ``refclock help`` is asked about, as in "chronyc sources" or "ntpq -p"; none, when about all of them."""
    names = [name for word in words for name in word.split() if not name.startswith("-")]
    if not names or names[-1] in commands:
        return names[-1:]
    from ppsd.cli.old_names import OLD_NAMES, here  # noqa: PLC0415 (our own commands do not need it)

    found = next((name for name in reversed(names) if name in OLD_NAMES), None)
    if found is None:
        return names[:1]
    print(here(found))
    raise SystemExit(GOOD)


def _parser(commands: Iterable[Command], words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command line ``words``. It has all commands, but the options of those alone that are named: a command starts
    sooner."""
    parser = _Parser(
        prog="refclock",
        description="A GPS receiver and a Linux box become an honest stratum-1 time server.",
        epilog=EPILOG,
        formatter_class=_AsWritten,
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version and end")
    on_appliance = is_appliance()
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for c in commands:
        what = f"{c.help[0].upper()}{c.help[1:]}."
        listed: dict[str, Any] = {"help": c.help} if on_appliance or not c.appliance else {}
        example, named = f"Example:  refclock {c.example}", c.name in words
        subparser = subparsers.add_parser(c.name, **listed, description=what, epilog=example, add_help=named, formatter_class=_Wrapped)
        for o in c.options if named else ():
            settings = dict(o.settings)
            if "choices" in settings:
                settings["type"] = chooser(settings["choices"])
            subparser.add_argument(*o.names, **settings)
    return parser
