"""`refclock pps` on a pretended device: what it prints and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from refclock_sim.ports.device import PULSE, TTY, preload_environment
from refclock_sim.ports.pty import Pty
from refclock_sim.ports.pulse_file import PulseFile

from refclock.sample import NS, EdgeKind

pytestmark = [pytest.mark.device, pytest.mark.realtime]

DEVICE = "/dev/pps-sim0"


@contextmanager
def pulsing(directory: Path, period_ns: int, width_ns: int) -> Iterator[None]:
    """A line that pulses on this machine's clock, stamped to the nanosecond."""
    ending = threading.Event()
    with PulseFile(directory / PULSE) as line:

        def pulse() -> None:
            at = (time.time_ns() // period_ns + 1) * period_ns
            while True:
                for kind, edge in ((EdgeKind.ASSERT, at), (EdgeKind.CLEAR, at + width_ns)):
                    if ending.wait(max(0, edge - time.time_ns()) / NS):
                        return
                    line.edge(kind, edge)
                at += period_ns

        thread = threading.Thread(target=pulse)
        thread.start()
        yield
        ending.set()
        thread.join()


def pps(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ppsd", "pps", *arguments]
    environment = os.environ | preload_environment(directory)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_pulses_are_shown_and_judged(tmp_path: Path) -> None:
    """Lines as ppstest's, then rate, jitter and width with a verdict; exit 0 for a good pulse, 1 for a rate that timing does not want."""
    with pulsing(tmp_path, NS, 100_000_000):
        good = pps(tmp_path, DEVICE, "--test", "10")
    assert good.returncode == 0, good.stdout + good.stderr
    *lines, verdict = good.stdout.splitlines()
    assert len(lines) == 10
    assert all(line.startswith("source 0 - assert ") and " - clear  " in line and line.count("sequence: ") == 2 for line in lines)
    assert verdict.startswith("one pulse a second, jitter ")
    assert verdict.endswith("100.0 ms wide: good")
    with pulsing(tmp_path, NS // 5, 20_000_000):
        fast = pps(tmp_path, DEVICE, "--test", "30")
    assert fast.returncode == 1
    assert "5 pulses a second" in fast.stdout


def test_a_control_line_is_shown_too(tmp_path: Path) -> None:
    """What `pps` in the configuration may name, this command can show; one that is not there says so."""
    with pulsing(tmp_path, NS, 100_000_000), Pty(tmp_path / TTY):
        shown = pps(tmp_path, f"{tmp_path / TTY}:dcd", "--test", "9")
    assert "one pulse a second, jitter " in shown.stdout
    assert " ms wide" in shown.stdout
    missing = pps(tmp_path, "/dev/pps77", "--test", "1")
    assert missing.returncode != 0
    assert "there is no such device" in missing.stderr


def test_silence_is_told(tmp_path: Path) -> None:
    """No edge: said every three seconds, and given up with what to look at."""
    with PulseFile(tmp_path / PULSE):
        silent = pps(tmp_path, DEVICE, "--test", "3")
    assert silent.returncode == 1
    assert silent.stdout.splitlines()[-1] == "no edge at all: is there a fix, and is the wire on the right pin?"


@pytest.mark.parametrize("hz", [60])
def test_hum_is_told_with_its_rate(tmp_path: Path, hz: int) -> None:
    """The mains on the pin."""
    with pulsing(tmp_path, NS // hz, NS // hz // 2):
        hum = pps(tmp_path, DEVICE, "--test", "100")
    assert hum.returncode == 1
    assert "times a second" in hum.stdout
