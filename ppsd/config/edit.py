"""Edits of the configuration that keep the rest of its text. Every command that changes the configuration uses ``edit``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ppsd.config.contents import contents
from ppsd.config.file import LIMIT_BYTES, as_value, parse
from ppsd.config.toml_text import locate
from refclock.kernel.files import UserFile, owners


def edit(path: Path, change: Callable[[str], str]) -> Path | None:
    """Apply ``change`` to the text of the configuration ("" if there is no file). Returns the path of the backup; None: nothing to back up.

    ConfigError: the result is not a valid configuration. OSError: it cannot be written. Both leave the file unchanged.
    """
    before = contents(path, LIMIT_BYTES).decode("utf-8") if path.exists() else ""
    after = change(before)
    parse(after, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    file = UserFile(path, owners())
    backup = file.replace(before.encode(), ".bak") if before else None
    file.replace(after.encode())
    return backup


def with_keys(text: str, index: int, settings: Mapping[str, str | int]) -> str:
    """The configuration ``text`` with these keys of source number ``index`` (from 0). A comment behind a value that is replaced is lost."""
    lines = text.split("\n")
    for name, value in settings.items():
        at, setting = locate("\n".join(lines)), f"{name} = {as_value(value)}"
        number = at.get(("source", index, name))
        if number is not None:
            found = re.match(rf"(\s*){name}\b", lines[number - 1])
            if found is not None:
                lines[number - 1] = found[1] + setting
        else:
            lines.insert(at["source", index], setting)
    return "\n".join(lines)


def with_bias(text: str, index: int, value: int) -> str:
    """The configuration ``text`` with ``pps_bias_us`` (µs) of source number ``index`` (from 0) set to ``value``. A text without sources
    gets one, which finds its receiver and pulse as before (``refclock.config.DEFAULT_SOURCE``)."""
    if ("source", 0) not in locate(text):
        text, index = f'{text.rstrip()}\n\n[[source]]\ntype = "receiver"\n'.lstrip(), 0
    return with_keys(text, index, {"pps_bias_us": value})


def with_setting(text: str, table: str, name: str, value: str | bool) -> str:
    """The configuration ``text`` with the key ``name`` of ``table`` set to ``value``. A comment behind a value that is replaced is lost."""
    at, setting = locate(text), f"{name} = {as_value(value)}"
    lines = text.split("\n")
    if (number := at.get((table, name))) is not None:
        lines[number - 1] = setting
    elif (number := at.get((table,))) is not None:
        lines.insert(number, setting)
    else:
        return f"{text.rstrip()}\n\n[{table}]\n{setting}\n".lstrip()
    return "\n".join(lines)
