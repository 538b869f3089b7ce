"""Exit codes of every command and process, and the message of an error that ends one.

Codes from 64 to 78 are those of sysexits(3), so that systemd can tell which failures are worth a restart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from refclock.errors import explain

if TYPE_CHECKING:
    from refclock.schema import ConfigError

GOOD: Final = 0
FAILED: Final = 1
"""The command found nothing, did not succeed, or answers no."""
DEGRADED: Final = 1
"""``status``: in holdover. ``doctor``: at least one warning."""
BAD: Final = 2
"""``status``: no time is served. ``doctor``: at least one failure."""
NO_DAEMON: Final = 3
USAGE: Final = 64
BAD_DATA: Final = 65
IO_ERROR: Final = 74
NO_PERMISSION: Final = 77
BAD_CONFIG: Final = 78
INTERRUPTED: Final = 130
"""Ended by SIGINT, in the shell's convention: 128 + the signal's number."""


class Refused(Exception):
    """A command cannot continue. ``why``: a sentence for people. ``code``: the exit code."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def _to_standard_error(words: str) -> None:
    print(words, file=sys.stderr)


def complain(error: ConfigError, say: Callable[[str], None] = _to_standard_error) -> int:
    """Tell every problem of a configuration; returns the exit code."""
    for problem in error.problems:
        say(str(problem))
    return BAD_CONFIG


def io_failure(error: OSError, say: Callable[[str], None] = _to_standard_error) -> int:
    """Tell what failed and the remedy; returns the exit code."""
    say(f"refclock: {explain(error)}")
    return NO_PERMISSION if isinstance(error, PermissionError) else IO_ERROR
