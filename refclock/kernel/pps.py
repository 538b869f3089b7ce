"""Pulses as the kernel stamps them: /dev/ppsN (RFC 2783, Linux PPS) and the control lines of serial ports."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from refclock.kernel._kernel import ffi, lib
from refclock.kernel.clocks import Reading, reading_of
from refclock.kernel.errors import checked
from refclock.sample import NS

# ---- pulses -----------------------------------------------------------------------------------------------------------------------

_PPS_HINTS: Final = {
    errno.ENOENT: "is the receiver plugged in, pps-gpio in the device tree, or pps_ldisc loaded?",
    errno.EACCES: "give this user access (udev: a group and mode 0660 for pps[0-9]*)",
    errno.EPERM: "needs CAP_SYS_TIME once, to switch the capture on",
    errno.ENOTTY: "this is no PPS device",
    errno.ENODEV: "the device is gone; waiting for it to come back is all one can do",
    errno.EOPNOTSUPP: "this source cannot wait for pulses; fetch with timeout 0",
}


@dataclass(frozen=True, slots=True)
class PpsEvent:
    """The last edges of a pulse line: kernel sequence numbers (modulo 2^32; 0: none yet) and CLOCK_REALTIME stamps."""

    assert_sequence: int
    assert_real_ns: int
    clear_sequence: int
    clear_real_ns: int


class PpsDevice:
    """A kernel PPS source, /dev/ppsN. Opening it switches on every edge that it can capture; without privilege nothing changes."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        fd = ffi.new("int *")
        checked(lib.pps_open(os.fsencode(path), fd), f"opening {self.path}", _PPS_HINTS)
        self._fd = fd[0]
        try:
            self._switch_on()
        except OSError:
            self.close()
            raise

    def _switch_on(self) -> None:
        mode = ffi.new("int *")
        checked(lib.pps_capabilities(self._fd, mode), f"asking what {self.path} can do", _PPS_HINTS)
        self.can_assert = bool(mode[0] & lib.PPS_MODE_ASSERT)
        self.can_clear = bool(mode[0] & lib.PPS_MODE_CLEAR)
        self.can_wait = bool(mode[0] & lib.PPS_MODE_CAN_WAIT)
        result = lib.pps_capture_all(self._fd)
        checked(lib.pps_get_mode(self._fd, mode), f"asking what {self.path} captures", _PPS_HINTS)
        if not (result == -errno.EPERM and mode[0] & (lib.PPS_MODE_ASSERT | lib.PPS_MODE_CLEAR)):
            checked(result, f"switching on the capture of {self.path}", _PPS_HINTS)
        self.captures_assert = bool(mode[0] & lib.PPS_MODE_ASSERT)
        self.captures_clear = bool(mode[0] & lib.PPS_MODE_CLEAR)

    def fetch(self, timeout_s: float | None) -> PpsEvent | None:
        """Wait for an edge of either kind and return the last ones; None on timeout or signal. ``timeout_s`` None: wait for ever; 0: do not
        wait. The sequence numbers tell which edge is new."""
        event = ffi.new("struct pps_event *")
        timeout_ns = -1 if timeout_s is None else max(0, round(timeout_s * NS))
        result = lib.pps_fetch(self._fd, timeout_ns, event)
        if result in (-errno.ETIMEDOUT, -errno.EINTR):
            return None
        checked(result, f"fetching pulses from {self.path}", _PPS_HINTS)
        return PpsEvent(event.assert_sequence, event.assert_ns, event.clear_sequence, event.clear_ns)

    def close(self) -> None:
        """Close the device; not while another thread is in ``fetch``."""
        if self._fd >= 0:
            lib.pps_close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


# ---- control lines of serial ports ---------------------------------------------------------------------------------------------------


def line_level(fd: int, mask: int) -> bool:
    """Whether a control line (TIOCM_*) of the serial port ``fd`` is on. OSError ENOTTY: the port has no control lines."""
    return checked(lib.lin_level(fd, mask), "reading control lines") == 1


def wait_for_line(fd: int, mask: int) -> tuple[Reading, bool] | None:
    """Wait for the line to change; the clocks right after it, and the new level. None on a signal. Waits for ever without the GIL, and
    reads the clocks before it takes the GIL again. OSError EINVAL, ENOTTY, EOPNOTSUPP or 515 (ENOIOCTLCMD): the driver cannot wait."""
    c = ffi.new("struct clk_reading *")
    result = lib.lin_wait(fd, mask, c)
    return None if result == -errno.EINTR else (reading_of(c), checked(result, "waiting for control lines") == 1)


def look_at_line(fd: int, mask: int, level: bool, every_s: float, timeout_s: float) -> tuple[Reading, bool] | None:
    """As ``wait_for_line``, by polling: reads the line each ``every_s`` until it is not at ``level``; None after ``timeout_s``."""
    c = ffi.new("struct clk_reading *")
    result = lib.lin_look(fd, mask, int(level), round(every_s * NS), round(timeout_s * NS), c)
    return None if result in (-errno.ETIMEDOUT, -errno.EINTR) else (reading_of(c), checked(result, "looking at control lines") == 1)
