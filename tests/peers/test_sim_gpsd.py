"""The simulated receiver in the hands of gpsd: time from its bytes, and pulses from its carrier detect line."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from refclock_sim.ports.device import TTY, preload_environment

from refclock.sample import NS

if TYPE_CHECKING:
    from peers import Processes


OFFSET_S = 86_400 + 3600
"""True time is a day and an hour ahead: nobody can have it from this machine's clock."""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that gpsd can still look into after it has dropped root."""
    with tempfile.TemporaryDirectory(prefix="refclock-sim-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has at the moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start(processes: Processes, directory: Path, *words: str) -> None:
    """The simulator in ``directory``; returns when it has said that it is ready."""
    processes.start("simulator", [sys.executable, "-m", "refclock_sim", "--directory", str(directory), *words])
    end = time.monotonic() + 20
    while "SIMULATED receiver" not in processes.output("simulator"):
        assert time.monotonic() < end, processes.output("simulator")
        time.sleep(0.05)


def gpsd_reports(
    processes: Processes, directory: Path, enough: Callable[[list[dict[str, Any]]], bool], **environment: str
) -> list[dict[str, Any]]:
    """gpsd on the simulated tty, watched until ``enough`` of its JSON reports; each gets ``at``: when it came, by this machine's clock.

    It is not allowed to configure the receiver (-b): what it takes for an old u-blox it switches to NAV-SOL, which is not simulated.
    It has System V shared memory of its own where that takes no more than being root: NTP's segments of this host are left alone.
    """
    port = free_port()
    apart = ["unshare", "-i"] if os.geteuid() == 0 else []
    processes.start("gpsd", [*apart, "gpsd", "-N", "-n", "-b", "-S", str(port), str(directory / TTY)], **environment)
    end = time.monotonic() + 60
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), 1)
            break
        except OSError:
            assert time.monotonic() < end, processes.output("gpsd")
            time.sleep(0.1)
    reports: list[dict[str, Any]] = []
    with connection, connection.makefile("rb") as lines:
        connection.settimeout(20)
        connection.sendall(b'?WATCH={"enable":true,"json":true,"pps":true};\n')
        while not enough(reports):
            assert time.monotonic() < end, [report["class"] for report in reports]
            reports.append({**json.loads(lines.readline()), "at": time.time()})
    return reports


@pytest.mark.parametrize("receiver", ["ublox8", "nmea"])
def test_gpsd_gets_the_right_second(processes: Processes, directory: Path, receiver: str) -> None:
    """gpsd finds out the receiver's language by itself and reports a 3D fix whose time is the true second, in the second that it names."""
    start(processes, directory, "--receiver", receiver, "--offset", str(OFFSET_S))

    def fixes(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [report for report in reports if report["class"] == "TPV" and report["mode"] == 3 and "time" in report]

    reports = gpsd_reports(processes, directory, lambda seen: len(fixes(seen)) >= 3)
    for fix in fixes(reports)[1:]:
        named = datetime.fromisoformat(fix["time"])
        assert named.microsecond == 0
        # late by the receiver's delay, its line and this machine; a report of the wrong second would be early or later still
        assert 0 < fix["at"] + OFFSET_S - named.timestamp() < 3


def test_gpsd_sees_the_pulse(processes: Processes, directory: Path) -> None:
    """gpsd starts its pulse thread on the simulated tty, waits on the carrier detect line, and names the second of the pulses rightly."""
    start(processes, directory)
    environment = preload_environment(directory)

    def pulses(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [report for report in reports if report["class"] == "PPS"]

    reports = gpsd_reports(processes, directory, lambda seen: len(pulses(seen)) >= 2, **environment)
    for pulse in pulses(reports):
        assert pulse["real_nsec"] == 0
        # gpsd stamps when it wakes up, at the latest some schedulings after the edge; the simulated truth is this machine's clock
        assert abs(pulse["clock_sec"] * NS + pulse["clock_nsec"] - pulse["real_sec"] * NS) < NS // 4
