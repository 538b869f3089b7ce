"""Downloads a file over HTTP, and goes on where an earlier download ended.

What has come so far lies beside the file as ``NAME.part``, and ``NAME.source`` says where it is from (URL and the server's own mark of the
version, RFC 9110 section 8.8), so that a rest of another version is never put behind it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ppsd.process.exit_codes import FAILED, IO_ERROR, USAGE, Refused
from refclock.errors import explain

TRIES: Final = 3
"""Connections before the download is given up for now."""
PAUSE_S: Final = 2.0
"""s between two of them."""
TIMEOUT_S: Final = 30.0
"""s of silence after which a connection counts as lost."""
PIECE: Final = 1 << 18
"""Octets between two looks at the disk and the progress."""
SPARE: Final = 16 << 20
"""Octets of the data partition that a download leaves free: state and history are written there."""
LARGEST: Final = 1 << 31
"""Octets; no update is nearly as large. A server that never ends is not listened to for longer."""

Progress = Callable[[str, int], None]
"""Told what goes on, and how much of it is done (percent)."""


def download(url: str, to: Path, progress: Progress, free: Callable[[Path], int], pause_s: float = PAUSE_S) -> Path:
    """Fetch ``url`` into the file ``to``; returns it. ``free``: octets that the disk of a directory has left. Refused: it cannot be had;
    what has come so far is kept for the next try."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise Refused(USAGE, f"refclock update: {url}: allowed is a file, http://... or https://...")
    to.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    part = _Part(url, to)
    why = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(pause_s)
        before = part.size
        try:
            if part.fetch(progress, free):
                part.file.replace(to)
                part.source.unlink(missing_ok=True)
                return to
            why = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise Refused(FAILED, f"refclock update: {url}: the server says {error.code} {error.reason}; check the address") from None
            why = f"the server says {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            why = explain(reason) if isinstance(reason, OSError) else str(reason) or "the connection ended early"
        if part.size > before:
            progress(f"{why}; going on", part.percent)
    held = f"{part.size >> 20} of {part.total >> 20} MB have come and are kept" if part.size and part.total else "nothing has come"
    raise Refused(IO_ERROR, f"refclock update: {url}: {why} ({held}). Run the same command again: it goes on from there")


class _Part:
    """A download that may have begun. ``size``: octets that are there. ``total``: octets of the whole, 0 when not known."""

    def __init__(self, url: str, to: Path) -> None:
        self._url = url
        self.file, self.source = to.with_name(f"{to.name}.part"), to.with_name(f"{to.name}.source")
        self.size, self.total, self._mark = 0, 0, ""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(self.source.read_text(encoding="utf-8"))
            if told["url"] == url and told["mark"]:
                self._mark, self.size = str(told["mark"]), self.file.stat().st_size

    @property
    def percent(self) -> int:
        """How much of it is there."""
        return 100 * self.size // self.total if self.total else 0

    def fetch(self, progress: Progress, free: Callable[[Path], int]) -> bool:
        """Fetch the rest by one connection; returns whether the file is whole. OSError, HTTPException: the connection."""
        request = urllib.request.Request(self._url, headers={"Accept-Encoding": "identity"})
        if self.size and self._mark:
            request.add_header("Range", f"bytes={self.size}-")
            request.add_header("If-Range", self._mark)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            etag = reply.headers.get("ETag", "")
            mark = (etag if not etag.startswith("W/") else "") or reply.headers.get("Last-Modified", "")
            if reply.status != http.HTTPStatus.PARTIAL_CONTENT:
                self.size = 0
            length = reply.headers.get("Content-Length", "")
            rest = int(length) if length.isdigit() else 0
            self.total, self._mark = self.size + rest if rest else 0, mark
            self._room(rest, free)
            self.source.write_text(json.dumps({"url": self._url, "mark": mark}), encoding="utf-8")
            with self.file.open("r+b" if self.size else "wb") as stream:
                stream.seek(self.size)
                stream.truncate()
                try:
                    while piece := reply.read1(PIECE):
                        self._room(len(piece), free)
                        stream.write(piece)
                        self.size += len(piece)
                        progress("downloading", self.percent)
                finally:
                    stream.flush()
                    os.fsync(stream.fileno())
        return self.size == self.total if self.total else self.size > 0

    def _room(self, more: int, free: Callable[[Path], int]) -> None:
        left = free(self.file.parent)
        if self.size + more > LARGEST:
            raise Refused(FAILED, f"refclock update: {self._url}: larger than any update; check the address")
        if more + SPARE > left:
            raise Refused(FAILED, no_room(more, left))


def no_room(more: int, left: int) -> str:
    """The sentence for a disk without room."""
    needed, remedy = more + SPARE >> 20, "use a larger card, or give the file on a USB stick or in /boot/refclock instead of an address"
    return f"refclock update: no space: {needed} MB are needed on the data partition and {left >> 20} MB are free; {remedy}"
