"""``refclock config``: checks or shows the configuration. Commands with ``--apply`` write to it by ``apply``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from ppsd.config.edit import edit
from ppsd.config.file import DEFAULT_FILE, as_toml, doubts, load
from ppsd.config.keys import read_keys
from ppsd.config.tables import Config
from ppsd.process.exit_codes import BAD_CONFIG, GOOD, complain
from refclock.errors import explain
from refclock.schema import ConfigError


def run(args: argparse.Namespace) -> int:
    """``check`` or ``show``."""
    config = load(args.config)
    read_keys(config)
    if args.action == "show":
        print(as_toml(config), end="")
    elif found := doubts(config):
        raise ConfigError(found)
    else:
        print(f"{config.file or 'no file, the defaults'}: good; {len(config.sources)} sources, {len(config.feeds)} feeds")
    return GOOD


def file_of(config: Config, given: Path | None) -> Path:
    """The file of ``config``; the default file when it has none."""
    return given or Path(config.file or DEFAULT_FILE)


def apply(path: Path, change: Callable[[str], str], command: str, out: TextIO) -> int:
    """Change the configuration at ``path`` and report it; returns the exit code. OSError: it cannot be written."""
    try:
        backup = edit(path, change)
    except ConfigError as error:
        complain(error)
        print(f"refclock {command}: {path} was left as it is: with the change it would not be valid", file=sys.stderr)
        return BAD_CONFIG
    except OSError as error:
        raise OSError(error.errno, explain(error, f"{path} was left as it is")) from error
    print(f"written into {path}" + (f"; as it was: {backup}" if backup else ""), file=out)
    return GOOD
