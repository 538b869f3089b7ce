"""Edits of the configuration that keep the rest of its text. Every command that changes the configuration uses ``edit``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ppsd.config.file import parse
from ppsd.config.toml_text import locate
from refclock.kernel.files import UserFile, owners


def edit(path: Path, change: Callable[[str], str]) -> Path | None:
    """Apply ``change`` to the text of the configuration ("" if there is no file). Returns the path of the backup; None: nothing to back up.

    ConfigError: the result is not a valid configuration. OSError: it cannot be written. Both leave the file unchanged.
    """
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = change(before)
    parse(after, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    file = UserFile(path, owners())
    backup = file.replace(before.encode(), ".bak") if before else None
    file.replace(after.encode())
    return backup


def with_bias(text: str, index: int, value: int) -> str:
    """The configuration ``text`` with ``pps_bias_us`` (µs) of source number ``index`` (from 0) set to ``value``."""
    lines, at = text.split("\n"), locate(text)
    setting = f"pps_bias_us = {value}  # measured by refclock calibrate pps"
    number = at.get(("source", index, "pps_bias_us"))
    if number is not None:
        lines[number - 1] = re.sub(r"^(\s*)pps_bias_us\b.*", rf"\g<1>{setting}", lines[number - 1])
    else:
        lines.insert(at["source", index], setting)
    return "\n".join(lines)
