"""What the next start wants to know (frequency, message delays, temperature; where receivers were), kept in small JSON files; the record
that was left published.

A power cut leaves either the old or the new state, never half of one (``ppsd.config.edit.replace_file``). Nothing here raises: a full disk
must not stop the clock, and a damaged file is only worth the defaults, so both are reported as a reason for the log.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from ppsd.config.edit import replace_file
from refclock.errors import explain
from refclock.kernel.timescale import TimescaleReader
from refclock.record import Record
from refclock.sample import MAX_FREQUENCY_PPM

Value = float | int | str

FILE_NAME = "state.json"
LIMIT_BYTES = 1 << 16
"""Largest file believed: some hundred values of the longest kind."""
LIMIT_TEXT = 256
"""Longest text value or name."""


def _absurd(name: str, value: object) -> str | None:
    """Why this entry cannot be ours, or None."""
    if len(name) > LIMIT_TEXT:
        return "a name is too long"
    if isinstance(value, str):
        return f"{name} is too long" if len(value) > LIMIT_TEXT else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name} is no number or text"
    if not (isinstance(value, int) or math.isfinite(value)) or abs(value) >= 1 << 63:
        return f"{name} is no usable number"
    return f"{name} = {value:g} is beyond ±{MAX_FREQUENCY_PPM:g} ppm" if name.endswith("_ppm") and abs(value) > MAX_FREQUENCY_PPM else None


def load(directory: Path, name: str = FILE_NAME) -> tuple[dict[str, Value], str | None]:
    """The saved state and None, or {} and why there is none; a file that does not exist yet is no reason to complain."""
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
    for entry, value in state.items():
        complaint = _absurd(entry, value)
        if complaint:
            return {}, f"{path}: {complaint}: ignored"
    return state, None


def save(directory: Path, state: Mapping[str, Value], name: str = FILE_NAME) -> str | None:
    """Make ``state`` the saved one (mode 0600). None, or why it was not possible: the old file then stands."""
    path = directory / name
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(path, json.dumps(dict(state), separators=(",", ":")).encode(), 0o600)
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
