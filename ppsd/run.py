"""The shell of the clock process: devices to events, effects to devices, in one poll loop around the engine.

Where receiver data enters the daemon. The loop sleeps in poll(2) until a device, the control socket, a signal, the step watch or the
engine's deadline has something; it reads, makes events with the instant of the reading, and carries out what the engine answers. Devices
that are missing are opened again with growing pauses (``PAUSES_NS``) and reported on change only. There is no thread unless a pulse device
is configured (one each, ``refclock.pps``).

What moves from run to run: the record in ``run_dir/timescale`` (same boot: the engine resumes from it, so a restart costs no
synchronisation) and the state file. SIGTERM, SIGINT: state saved, 0, nothing published, so the server goes on with the last record.
SIGHUP: the configuration is read again; a bad one is refused and the old one stays, another one closes everything and starts anew inside
the process from the record in force. A suspended machine stops CLOCK_MONOTONIC_RAW: when BOOTTIME ran ahead of MONOTONIC nothing that was
known holds any more, an unsynchronised record is published and everything starts anew without it.
"""

from __future__ import annotations

import os
import signal
from enum import Enum
from types import FrameType
from typing import Final

from refclock.sample import NS

PAUSES_NS: Final = (1 * NS, 2 * NS, 5 * NS)
"""Before the n-th attempt in a row to open a device; the last one repeats. A plugged-in receiver is noticed within five seconds."""
SUSPENDED_NS: Final = 100_000_000
"""BOOTTIME - MONOTONIC that grows by more: the machine slept. Readings of the two are microseconds apart; no suspend is so short."""
LEAP_FILE_LIMIT: Final = 1 << 20
"""Octets of leap-seconds.list: the real one has 5 kB (tzdata 2024b)."""
STATUS_NS: Final = 10 * NS
"""Between two status lines for systemctl status."""


class End(Enum):
    """Why a run ended."""

    STOP = "stop"
    RELOAD = "reload"
    SUSPENDED = "suspended"


class Signals:
    """Which signals came, and a descriptor that tells. SIGHUP only sets ``reload``."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self.wake, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._came)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def _came(self, number: int, _: FrameType | None) -> None:
        self.reload = self.reload or number == signal.SIGHUP
        self.stop = self.stop or number != signal.SIGHUP

    def nudge(self) -> None:
        """Wake the loop (any thread)."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self._write, b"\0")

    def drain(self) -> None:
        """Take note of the wake-ups so far."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.wake, 512)) == 512:
                pass
