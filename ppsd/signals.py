"""Signals as something a poll loop can wait for: the same three for the clock and the serve process."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Which signals came, and a descriptor that tells. SIGHUP only sets ``reload``."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self.wake, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (*STOPS, signal.SIGHUP):
            signal.signal(number, self._came)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def _came(self, number: int, _: FrameType | None) -> None:
        self.reload = self.reload or number == signal.SIGHUP
        self.stop = self.stop or number != signal.SIGHUP

    def nudge(self) -> None:
        """Wake the loop (any thread)."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self._write, b"\0")

    def drain(self) -> bool:
        """Take note of the wake-ups so far; False when there were none, though the descriptor was called readable."""
        try:
            return bool(os.read(self.wake, 4096))
        except BlockingIOError:
            return False

    def let_go(self) -> None:
        """SIGTERM and SIGINT end the process by themselves from now on."""
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
