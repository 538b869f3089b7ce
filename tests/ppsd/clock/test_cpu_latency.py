"""wakeup.py: processors are kept awake while the process runs, and only then."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

from ppsd.clock.cpu_latency import hold


def held(device: Path) -> bool:
    return device in {fd.resolve() for fd in Path("/proc/self/fd").iterdir()}


def test_the_demand_lasts_as_long_as_the_process_lets_it(tmp_path: Path) -> None:
    """The microseconds are written as the kernel wants them (s32), the device stays open, and closing ends it."""
    device = tmp_path / "cpu_dma_latency"
    device.touch()
    with contextlib.ExitStack() as until:
        assert hold(3, until, device) == ""
        assert device.read_bytes() == struct.pack("=i", 3)
        assert held(device)
    assert not held(device)


def test_what_cannot_be_demanded_is_told(tmp_path: Path) -> None:
    """Missing device or permission: a sentence with what to do, and nothing else; not asked for, nothing is touched."""
    with contextlib.ExitStack() as until:
        said = hold(0, until, tmp_path / "nothing" / "cpu_dma_latency")
        assert "No such file or directory" in said
        assert 'KERNEL=="cpu_dma_latency"' in said
        assert hold(None, until, tmp_path / "nothing") == ""
