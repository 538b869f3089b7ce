"""The log: one line per event on standard error, as text (``key=value``) or JSON, stamped in UTC.

The only importer of structlog. Logging must never block the clock or the server. Before each write the sink polls standard error; a line
that cannot be written is dropped and counted, and the next line that can be written is preceded by the count. A pipe that polls writable
accepts PIPE_BUF (4096) octets at once (pipe(7)), so longer lines are cut.
"""

from __future__ import annotations

import os
import select
import sys
from typing import cast

import structlog
from structlog.typing import FilteringBoundLogger, WrappedLogger

LINE_BYTES = 4096
"""Octets; a longer line is cut. PIPE_BUF of linux/limits.h: a pipe takes a write up to this size whole or not at all."""


class Sink:
    """A descriptor that may be full, written without blocking. ``dropped``: lines lost so far."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.dropped = 0
        self._untold = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def _write(self, line: str) -> bool:
        data = line.encode("utf-8", "backslashreplace")[: LINE_BYTES - 1] + b"\n"
        try:
            ready = self._poll.poll(0)
            return bool(ready) and bool(ready[0][1] & select.POLLOUT) and os.write(self.fd, data) == len(data)
        except OSError:  # the reader has gone, or the disk is full
            return False

    def msg(self, message: str) -> None:
        """Write one line or drop it; never waits, never raises."""
        if self._untold and self._write(f"log lines dropped: {self._untold}"):
            self._untold = 0
        if not self._write(message):
            self.dropped += 1
            self._untold += 1

    debug = info = warning = error = msg


def open_log(form: str = "text", level: str = "info", program: str = "refclock", fd: int | None = None) -> FilteringBoundLogger:
    """A logger with the methods debug, info, warning, error: ``log.info("event", key=value)``. ``form``: text or json. ``fd``: where to
    write; None means standard error."""
    sink = Sink(sys.stderr.fileno() if fd is None else fd)
    renderer: structlog.typing.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "program", "event"], bool_as_flag=False)
    logger = structlog.wrap_logger(
        cast(WrappedLogger, sink),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger({"debug": 10, "info": 20, "warning": 30, "error": 40}[level]),
        program=program,
    )
    return cast(FilteringBoundLogger, logger.bind())
