"""The log: one line per event on standard error, as text (``key=value``) or JSON, stamped in UTC.

The only importer of structlog. A log line must never hold up the clock or the server: before each write the sink is asked whether it
has room, and a line that does not fit is dropped and counted; the count is told in the first line that fits again. A pipe that polls
writable takes PIPE_BUF (4096) octets at once (pipe(7)), so lines are cut there.
"""

from __future__ import annotations

import os
import select
import sys
from typing import cast

import structlog
from structlog.typing import FilteringBoundLogger, WrappedLogger

LINE_BYTES = 4096
"""PIPE_BUF of linux/limits.h: written whole or not at all."""


class Sink:
    """Standard error as something that may be full. ``dropped`` counts the lines lost so far."""

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
        except OSError:  # the reader has gone, the disk is full
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
    """A logger (debug, info, warning, error): ``log.info("event", key=value)``. ``form``: text or json. ``fd``: default standard error."""
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
