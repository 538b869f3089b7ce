"""What the next start wants to know (frequency, message delays, temperature; where receivers were), kept in small JSON files; the record
that was left published.

A power cut leaves either the old or the new state, never half of one (``ppsd.config.edit.replace_file``). Nothing here raises: a full disk
must not stop the clock, and a damaged file is only worth the defaults, so both are reported as a reason for the log.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ppsd.config.edit import replace_file
from refclock.errors import explain
from refclock.kernel.timescale import TimescaleReader
from refclock.record import Record

FILE_NAME = "state.json"
LIMIT_BYTES = 1 << 16
"""Largest file believed: a source takes about a kilobyte."""


def load(directory: Path, name: str = FILE_NAME) -> tuple[Mapping[str, object], str | None]:
    """The JSON object that was saved and None, or {} and why there is none. A file that does not exist yet is no reason to complain. What
    is in the object is for its reader to judge."""
    path = directory / name
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as stream:
            data = stream.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        return {}, explain(error, f"{path} cannot be read")
    if not data:
        return {}, f"{path} is empty: ignored"
    if len(data) > LIMIT_BYTES:
        return {}, f"{path} is too large: ignored"
    try:
        state = json.loads(data)
    except (ValueError, RecursionError):  # ValueError: not JSON, not UTF-8, thousands of digits
        return {}, f"{path} is damaged: ignored"
    if not isinstance(state, dict):
        return {}, f"{path} is damaged: ignored"
    return state, None


def save(directory: Path, state: Mapping[str, object], name: str = FILE_NAME) -> str | None:
    """Make ``state``, a JSON object, the saved one (mode 0600). None, or why it was not possible: the old file then stands."""
    path = directory / name
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(path, json.dumps(state, separators=(",", ":")).encode(), 0o600)
    except OSError as error:
        return explain(error, f"{path} cannot be written")
    return None


def left_record(path: Path) -> Record | None:
    """The record that an earlier run of this boot left at ``path``; None when there is none that can be read."""
    try:
        reader = TimescaleReader(path)
    except OSError:  # absent, of an earlier boot, or no record: the writer sorts that out
        return None
    record = reader.record()
    reader.close()
    return record
