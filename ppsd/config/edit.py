"""Atomic replacement of files, and edits of the configuration that keep the rest of its text.

The new content is written to a file beside the old one, synchronised to disk, and moved into place with rename(2). A power cut or a full
disk leaves the old file or the new one, never half of one. Every command that changes the configuration uses ``edit``. The clock process
saves its state with ``replace_file``.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ppsd.config.contents import contents
from ppsd.config.file import LIMIT_BYTES, as_value, parse
from ppsd.config.toml_text import locate


def replace_file(path: Path, data: bytes, mode: int | None = None) -> None:
    """Replace the content of ``path`` by ``data``. OSError: the old file is unchanged, and no temporary file is left.

    ``mode`` None: a user's file. It keeps its mode and owner, and a symbolic link is followed. Otherwise: a file of the daemon, created
    with these permission bits; it replaces a symbolic link.
    """
    if mode is not None:
        _put(path, data, None, mode)
        return
    path = _real(path)
    _put(path, data, path.stat() if path.exists() else None)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _put(path: Path, data: bytes, like: os.stat_result | None, mode: int | None = None) -> None:
    """Write and rename. ``like``: the file takes this mode and owner. None: it takes ``mode``, or by default 0666 less the umask."""
    partial = path.with_name(f".{path.name}.new")
    try:
        partial.unlink(missing_ok=True)  # left by a run that was killed
        access = 0o600 if like is not None or mode is not None else 0o666
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, access)
        with os.fdopen(fd, "wb") as stream:
            made = os.fstat(fd)
            if like is not None:
                if (like.st_uid, like.st_gid) != (made.st_uid, made.st_gid):
                    os.fchown(fd, like.st_uid, like.st_gid)
                mode = like.st_mode & 0o7777
            if mode is not None and mode != made.st_mode & 0o7777:
                os.fchmod(fd, mode)
            stream.write(data)
            stream.flush()
            os.fsync(fd)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # write(2) names no file
    with contextlib.suppress(OSError):  # makes the rename durable; not every file system supports it
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def edit(path: Path, change: Callable[[str], str]) -> Path | None:
    """Apply ``change`` to the text of the configuration ("" if there is no file). Returns the path of the backup; None: nothing to back up.

    ConfigError: the result is not a valid configuration. OSError: it cannot be written. Both leave the file unchanged.
    """
    before = contents(path, LIMIT_BYTES).decode("utf-8") if path.exists() else ""
    after = change(before)
    parse(after, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    backup = None
    if before:
        real = _real(path)
        backup = real.with_name(real.name + ".bak")
        _put(backup, before.encode(), real.stat())
    replace_file(path, after.encode())
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
