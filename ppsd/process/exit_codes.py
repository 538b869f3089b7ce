"""Exit codes of every command and process, and how an error that ends one is told.

They follow sysexits.h, so that systemd can tell what is worth a restart.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from refclock.errors import explain

if TYPE_CHECKING:
    from refclock.schema import ConfigError

GOOD: Final = 0
FAILED: Final = 1
"""What was asked for was not found, or not done, or the answer is no."""
DEGRADED: Final = 1
"""``status``: in holdover; ``doctor``: something to look at."""
BAD: Final = 2
"""``status``: no time is served; ``doctor``: something is wrong."""
NO_DAEMON: Final = 3
USAGE: Final = 64
BAD_DATA: Final = 65
IO_ERROR: Final = 74
NO_PERMISSION: Final = 77
BAD_CONFIG: Final = 78
INTERRUPTED: Final = 130
"""As shells report SIGINT."""


class Refused(Exception):
    """A command cannot go on: the sentence for people, and the exit code."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def complain(error: ConfigError) -> int:
    """Print every problem of a configuration; the exit code."""
    for problem in error.problems:
        print(problem, file=sys.stderr)
    return BAD_CONFIG


def io_failure(error: OSError) -> int:
    """Print what failed and what to do about it; the exit code."""
    print(f"refclock: {explain(error)}", file=sys.stderr)
    return NO_PERMISSION if isinstance(error, PermissionError) else IO_ERROR
