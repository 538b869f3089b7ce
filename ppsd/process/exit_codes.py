"""Exit codes of every command and process, and how an error that ends one is told.

They follow sysexits.h so that systemd can tell what is worth a restart: 0 good, 1 degraded, 2 not serving, 3 no daemon, 64 usage,
74 input/output, 77 permission, 78 configuration.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from refclock.errors import explain

if TYPE_CHECKING:
    from refclock.schema import ConfigError

USAGE, IO_ERROR, NO_PERMISSION, BAD_CONFIG = 64, 74, 77, 78
NO_DAEMON = 3


def complain(error: ConfigError) -> int:
    """Print every problem of a configuration; exit code 78."""
    for problem in error.problems:
        print(problem, file=sys.stderr)
    return BAD_CONFIG


def io_failure(error: OSError) -> int:
    """Print an operating system's refusal and what to do about it; exit code 74 or 77."""
    print(f"refclock: {explain(error)}", file=sys.stderr)
    return NO_PERMISSION if isinstance(error, PermissionError) else IO_ERROR
