"""``refclock reload``: makes the running daemon read its configuration again, and prints what happened.

The processes judge the configuration first. When one of them has something against it, all keep the old one. Then each gets SIGHUP, so the
kernel decides who may do this (kill(2)); what they did is asked on their control sockets.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ppsd.cli.daemon import configuration, may_not_ask, run_directory
from ppsd.config.file import load
from ppsd.process.control import JUDGE, TELL, ask
from ppsd.process.exit_codes import BAD_CONFIG, FAILED, GOOD, NO_DAEMON, NO_PERMISSION, Refused
from refclock.errors import explain

PROCESSES: Final = ("clock", "serve", "nts-ke", "web")
PATIENCE_S: Final = 10.0
"""s to wait for each process. Pulse threads that are stopped may need two of them."""
LOOK_S: Final = 0.05
"""s between two questions whether a process has done it."""


def run(args: argparse.Namespace) -> int:
    """Reload; GOOD, or BAD_CONFIG when the old configuration stays."""
    directory = run_directory(args.run_dir)
    before = {name: told for name in ("run", *PROCESSES) if (told := _told(directory, name)) is not None}
    if not before:
        raise Refused(NO_DAEMON, f"refclock: no daemon in {directory} (start one: refclock run)")
    if "run" not in before:
        problems = [problem for name in before for problem in _asked(directory, name, JUDGE).get("problems", ())]
        if problems:
            print(*problems, "the configuration stays as it was", sep="\n", file=sys.stderr)
            return BAD_CONFIG
    first = ["run"] if "run" in before else list(before)
    for name in first:
        _hang_up(int(before[name]["pid"]))
    code = _print(directory, before, first)
    if first == ["run"] and code == GOOD:
        code = _print(directory, before, [name for name in PROCESSES if name in before])
    if "run" not in before and "nts-ke" not in before and load(configuration(directory, None)).establishes_keys:
        print("NTS is enabled; start the process that establishes its keys: sudo systemctl start refclock-nts-ke")
    return code


def _print(directory: Path, before: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> int:
    """Wait until each process has reloaded, and print what it tells of that."""
    code = GOOD
    for name in names:
        until = time.monotonic() + PATIENCE_S
        while (
            (told := _told(directory, name)) is not None and told["pid"] == before[name]["pid"] and told["count"] == before[name]["count"]
        ):
            if time.monotonic() > until:
                print(f"the {name} process has not reloaded within {PATIENCE_S:.0f} s; its log says what it does", file=sys.stderr)
                code = FAILED
                break
            time.sleep(LOOK_S)
        else:
            if told is None or told["pid"] != before[name]["pid"]:
                print(f"the {name} process has ended" if told is None else f"the {name} process was started anew")
                continue
            print(*told["lines"], sep="\n", file=sys.stdout if told["good"] else sys.stderr)
            code = code if told["good"] else BAD_CONFIG
    return code


def _told(directory: Path, name: str) -> Mapping[str, Any] | None:
    """What a process says of its last reload; None when it does not run."""
    try:
        return _asked(directory, name, TELL)
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):  # the last: it was killed with the question in hand
        return None


def _asked(directory: Path, name: str, verb: str) -> Mapping[str, Any]:
    path = directory / f"{name}.sock"
    try:
        return ask(path, verb, PATIENCE_S)
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
        raise
    except PermissionError:
        raise may_not_ask(path) from None
    except OSError as error:
        raise Refused(NO_DAEMON, f"refclock reload: {explain(error, str(path))}; nothing was changed") from None


def _hang_up(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError:
        raise Refused(NO_PERMISSION, "refclock reload: only the daemon's user and root may do that; nothing was changed") from None
    except ProcessLookupError:
        raise Refused(NO_DAEMON, "refclock reload: the daemon has just ended") from None
