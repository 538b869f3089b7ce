"""State that survives a restart: small JSON files in the state directory, and the record that the last run published.

The files hold the frequency, message delays, the temperature model and the places of receivers. A power cut leaves the old file or the new
one, never half of one, and no file of another user is believed (``refclock.kernel.files``). Nothing here raises. A full disk must not stop
the clock, and a damaged file is replaced by the defaults; both are returned as a reason for the log.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from refclock.errors import explain
from refclock.kernel.files import judge, open_trusted, owners, replace_file
from refclock.kernel.timescale import TimescaleReader
from refclock.record import Record

FILE_NAME = "state.json"
LIMIT_BYTES = 1 << 16
"""Octets; a larger file is ignored. A source takes about a kilobyte."""


def load(directory: Path, name: str = FILE_NAME) -> tuple[Mapping[str, object], str | None]:
    """The saved JSON object and None, or {} and why it could not be read. A missing file gives ({}, None). The caller checks the object's
    content."""
    path = directory / name
    try:
        judge(directory, owners())
        with os.fdopen(open_trusted(path, owners()), "rb") as stream:
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
    """Save ``state`` as a JSON object with mode 0600. Returns None, or why it could not be saved; the old file is then unchanged."""
    path = directory / name
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(path, json.dumps(state, separators=(",", ":")).encode(), 0o600, owners())
    except OSError as error:
        return explain(error, f"{path} cannot be written")
    return None


def left_record(path: Path) -> Record | None:
    """The record that an earlier run of this boot published at ``path``; None when there is none. It is unsynchronised when the machine has
    slept since."""
    try:
        reader = TimescaleReader(path)
    except OSError:  # absent, of an earlier boot, or not a record: the writer replaces it
        return None
    record = reader.record()
    reader.close()
    return record
