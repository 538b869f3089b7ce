"""Files on disk replaced whole or not at all, and changes to the configuration that keep what else is in it.

The new content goes to a file beside the old one, is forced to the disk, and takes the old one's place by rename(2). A power cut or a full
disk leaves the old file or the new one, never half of one. ``edit`` is the one way by which a command changes the configuration;
``replace_file`` is also how the clock process saves its state.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from ppsd.config.file import parse
from ppsd.config.toml_text import locate


def replace_file(path: Path, data: bytes, mode: int | None = None) -> None:
    """Make ``data`` the content of ``path``. OSError: the old file stands as it was, and nothing is left beside it.

    ``mode`` None: somebody's file. It keeps its mode and its owner, and a link is followed to the file that it points to. Otherwise it is a
    file of our own with these permission bits, and it takes the place of a link.
    """
    if mode is not None:
        _put(path, data, None, mode)
        return
    path = _real(path)
    _put(path, data, path.stat() if path.exists() else None)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _put(path: Path, data: bytes, like: os.stat_result | None, mode: int | None = None) -> None:
    """``like``: whose mode and owner the file gets. Without it: ``mode``, or what the umask leaves."""
    partial = path.with_name(f".{path.name}.new")
    try:
        partial.unlink(missing_ok=True)  # of a run that was killed
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
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # the rename itself; not every file system can
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def edit(path: Path, change: Callable[[str], str]) -> Path | None:
    """Change the text of the configuration ("" when there is no file yet). Returns where the text before is kept; None: there was none.

    ConfigError: what would come out is no good configuration. OSError: it cannot be written. Either leaves the file as it was.
    """
    before = path.read_text(encoding="utf-8") if path.exists() else ""
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


def with_bias(text: str, index: int, value: int) -> str:
    """A configuration's ``text`` with ``pps_bias_us`` (µs) of its ``index``-th source set."""
    lines, at = text.split("\n"), locate(text)
    told = f"pps_bias_us = {value}  # measured by refclock calibrate pps"
    stands = at.get(("source", index, "pps_bias_us"))
    if stands is not None:
        lines[stands - 1] = re.sub(r"^(\s*)pps_bias_us\b.*", rf"\g<1>{told}", lines[stands - 1])
    else:
        lines.insert(at["source", index], told)
    return "\n".join(lines)
