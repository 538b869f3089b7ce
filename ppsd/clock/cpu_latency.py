"""A limit on the processors' wake-up latency while the clock process runs: ``[clock] cpu_latency_us``.

A processor in a deep idle state wakes late and stamps the pulse's interrupt late: by 94 µs instead of 29 on a motherboard's DCD line, by
215 instead of 20 behind a fast USB adapter (published satpulse measurements). A process opens /dev/cpu_dma_latency and writes the longest
latency that it accepts, in microseconds. The kernel then avoids deeper idle states until the process closes the file (Linux,
admin-guide/pm/cpuidle.rst).

The limit is off by default. 0 keeps every processor awake, which costs a laptop or a server several watts. A Raspberry Pi gains nothing:
its cores have no deep idle state. A PC whose pulse arrives over a serial port or USB gains; ``refclock calibrate pps`` shows how much.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import Final

DEVICE: Final = Path("/dev/cpu_dma_latency")


def hold(latency_us: int | None, until: contextlib.ExitStack, device: Path = DEVICE) -> str:
    """Hold the latency at or below ``latency_us`` until ``until`` closes. None: no limit. Returns what failed and the remedy, or ""."""
    if latency_us is None:
        return ""
    try:
        fd = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        return (
            f"{device}: {error.strerror}: processors may enter deep idle states and stamp pulses late; "
            f'give this user access with the udev rule KERNEL=="{device.name}", GROUP="refclock", MODE="0660", or remove cpu_latency_us'
        )
    until.callback(os.close, fd)
    try:
        os.write(fd, struct.pack("=i", latency_us))
    except OSError as error:
        return f"{device}: {error.strerror}: the kernel takes no limit of {latency_us} us; remove cpu_latency_us"
    return ""
