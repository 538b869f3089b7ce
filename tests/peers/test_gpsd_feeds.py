"""gpsd owns the receiver and feeds the clock process, by shared memory, by chrony's socket and by its JSON."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import Processes, locked, snapshot, wait_for
from refclock_sim.ports.device import TTY, preload_environment

from refclock.config import UNSTATED_BIAS_US

EXAMPLE = Path(__file__).parents[2] / "image" / "examples" / "behind-gpsd.toml"
LINE = f"ttySIM{os.getpid()}"
"""What gpsd calls the receiver: its socket in /run, which no namespace hides, is this test run's own."""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that gpsd can still look into after it has dropped root."""
    with tempfile.TemporaryDirectory(prefix="refclock-gpsd-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def environment(directory: Path) -> dict[str, str]:
    """The preload, with the tty under the name of this run."""
    found = preload_environment(directory)
    return found | {"REFCLOCK_FAKE_TTY": found["REFCLOCK_FAKE_TTY"].replace(f"/{TTY}=", f"/{LINE}=")}


def start_simulator(network: Processes, directory: Path) -> None:
    network.start("simulator", [sys.executable, "-m", "refclock_sim", "--directory", str(directory)])
    wait_for("the simulator", lambda: "SIMULATED receiver" in network.output("simulator"), 20)
    (directory / LINE).symlink_to(directory / TTY)


def start_gpsd(network: Processes, directory: Path, *, pulses: bool = True) -> subprocess.Popen[bytes]:
    """gpsd on the simulated line; -b: it leaves the receiver's configuration alone. ``pulses``: it sees the carrier detect line."""
    words = ["gpsd", "-N", "-n", "-b", "-S", "2947", str(directory / LINE)]
    return network.start("gpsd", words, **(environment(directory) if pulses else {}))


def start_clock(network: Processes, source: str, **variables: str) -> Path:
    run_dir = network.directory / "run"
    config = network.directory / "refclock.toml"
    config.write_text(f'[run]\nstate = "{network.directory}/state"\n[[source]]\n{source}\n', encoding="utf-8")
    network.start("clock", [sys.executable, "-m", "ppsd", "clock", "--config", str(config), "--run-dir", str(run_dir)], **variables)
    wait_for("the clock process", lambda: snapshot(run_dir), 20)
    return run_dir


def bias_us(name: str) -> int:
    """What the example states for the source ``name``."""
    sources = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))["source"]
    return int(next(source["bias_us"] for source in sources if source["name"] == name))


def source_of(run_dir: Path) -> dict[str, Any]:
    seen = snapshot(run_dir)
    assert seen is not None
    assert isinstance(seen["sources"], list)
    source = seen["sources"][0]
    assert isinstance(source, dict)
    return source


def check(run_dir: Path, what: str, limit_ns: int, seconds: int = 10) -> int:
    """LOCKED, by the path named, with a bound that gets below ``limit_ns``; then for some seconds the served time is the simulated truth
    (this machine's clock) within the bound. The last error, served - true in ns."""

    def narrow() -> bool:
        seen = snapshot(run_dir)
        return seen is not None and isinstance(seen["bound_ns"], int) and seen["bound_ns"] < limit_ns

    wait_for("LOCKED", lambda: locked(run_dir), 60)
    assert what in source_of(run_dir)["what"]
    wait_for(f"a bound below {limit_ns} ns", narrow, 60)
    error = 0
    for _ in range(seconds):
        seen = snapshot(run_dir)
        assert seen is not None
        bound, error_seen = seen["bound_ns"], seen["system_offset_ns"]
        assert isinstance(bound, int)
        assert isinstance(error_seen, int)
        assert abs(error_seen) <= bound, seen
        error = error_seen
        time.sleep(1)
    return error


def check_restart(
    network: Processes, directory: Path, gpsd: subprocess.Popen[bytes], run_dir: Path, count: str, *, pulses: bool = True
) -> None:
    """gpsd killed and started anew: ``count`` goes on growing, in the same clock process."""
    first = snapshot(run_dir)
    gpsd.kill()
    gpsd.wait()
    before = int(source_of(run_dir)[count])
    start_gpsd(network, directory, pulses=pulses)
    wait_for(f"{count} again", lambda: int(source_of(run_dir)[count]) > before + 3, 60)
    after = snapshot(run_dir)
    assert first is not None
    assert after is not None
    assert after["pid"] == first["pid"]


def test_pulses_by_shared_memory(network: Processes, directory: Path) -> None:
    """gpsd writes its pulses to NTP shared memory unit 1; the clock process is LOCKED to it, within the bound, and again after gpsd was
    restarted."""
    start_simulator(network, directory)
    gpsd = start_gpsd(network, directory)
    run_dir = start_clock(network, f'type = "shm"\nunit = 1\nbias_us = {bias_us("gpsd-shm")}')
    check(run_dir, "shared memory unit 1", 50_000_000)
    check_restart(network, directory, gpsd, run_dir, "samples")
    check(run_dir, "shared memory unit 1", 50_000_000, seconds=3)


def test_messages_by_shared_memory(network: Processes, directory: Path) -> None:
    """gpsd's unit 0 is the arrival of messages, late by more than gpsd says: the default allowance keeps the bound true."""
    start_simulator(network, directory)
    start_gpsd(network, directory)
    run_dir = start_clock(network, 'type = "shm"\nunit = 0')
    error = check(run_dir, "shared memory unit 0", 1_000_000_000)
    seen = snapshot(run_dir)
    assert seen is not None
    assert isinstance(seen["bound_ns"], int)
    assert abs(error) > seen["bound_ns"] - UNSTATED_BIAS_US * 1000, "it would hold without the allowance"


@pytest.mark.skipif(os.geteuid() != 0, reason="gpsd looks for chrony's socket in /run, where only root may make it")
def test_pulses_by_socket(network: Processes, directory: Path) -> None:
    """gpsd sends its pulses to the socket that it takes for chrony's; the clock process made it and is LOCKED to it, within the bound, and
    again after gpsd was restarted."""
    path = Path(f"/run/chrony.{LINE}.sock")
    run_dir = start_clock(network, f'type = "sock"\npath = "{path}"\nbias_us = {bias_us("gpsd-pulses")}')
    wait_for("the socket", path.exists, 10)
    start_simulator(network, directory)
    gpsd = start_gpsd(network, directory)
    check(run_dir, str(path), 50_000_000)
    check_restart(network, directory, gpsd, run_dir, "samples")
    check(run_dir, str(path), 50_000_000, seconds=3)


def test_json_and_a_restart_of_gpsd(network: Processes, directory: Path) -> None:
    """gpsd's JSON gives labels; with the pulse's own device the clock is LOCKED to microseconds, and again after gpsd was restarted."""
    start_simulator(network, directory)
    gpsd = start_gpsd(network, directory, pulses=False)
    run_dir = start_clock(network, 'type = "gpsd"\npps = "/dev/pps-sim0"', **environment(directory))
    check(run_dir, "gpsd at 127.0.0.1:2947", 1_000_000)
    check_restart(network, directory, gpsd, run_dir, "labels", pulses=False)
    check(run_dir, "gpsd at 127.0.0.1:2947", 1_000_000, seconds=3)
