"""How fast the processors must wake while the clock process runs: ``[clock] cpu_latency_us``.

A processor that sleeps deeply wakes late, and the pulse's interrupt is stamped by as much later: 94 µs against 29 on a motherboard's DCD
line, 215 against 20 behind a fast USB adapter (published satpulse measurements). /dev/cpu_dma_latency takes a number of microseconds from
whoever holds it open and lets no processor sleep deeper than that; closing it lets them sleep again (Linux, admin-guide/pm/cpuidle.rst).

Not set by default: 0 keeps every processor awake, which costs a laptop or a server several watts, and a Raspberry Pi, whose cores have no
deep sleep, gains nothing. Worth it on a PC whose pulse comes over a serial port or USB; ``refclock calibrate pps`` shows by how much.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import Final

DEVICE: Final = Path("/dev/cpu_dma_latency")


def hold(latency_us: int | None, until: contextlib.ExitStack, device: Path = DEVICE) -> str:
    """Demand it until ``until`` closes; what failed and what to do about it, "" when nothing did or nothing was asked for."""
    if latency_us is None:
        return ""
    try:
        fd = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        return (
            f"{device}: {error.strerror}: processors sleep as deeply as they like and stamp pulses late; "
            f'give this user access by the udev line KERNEL=="{device.name}", GROUP="dialout", MODE="0660", or take cpu_latency_us out'
        )
    until.callback(os.close, fd)
    os.write(fd, struct.pack("=i", latency_us))
    return ""
