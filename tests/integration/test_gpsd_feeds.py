"""gpsd owns the receiver and feeds the clock process, by shared memory, by chrony's socket and by its JSON."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import Processes, locked, snapshot, wait_for
from refclock_sim.device import TTY, preload_environment

pytestmark = pytest.mark.peers


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that gpsd can still look into after it has dropped root."""
    with tempfile.TemporaryDirectory(prefix="refclock-gpsd-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def start_gpsd(network: Processes, directory: Path) -> None:
    """The simulated receiver, and gpsd on it with its pulse thread; -b: it leaves the receiver's configuration alone."""
    network.start("simulator", [sys.executable, "-m", "refclock_sim", "--directory", str(directory)])
    wait_for("the simulator", lambda: "SIMULATED receiver" in network.output("simulator"), 20)
    network.start("gpsd", ["gpsd", "-N", "-n", "-b", "-S", "2947", str(directory / TTY)], **preload_environment(directory))


def start_clock(network: Processes, source: str) -> Path:
    run_dir = network.directory / "run"
    config = network.directory / "refclock.toml"
    config.write_text(f'[run]\nstate = "{network.directory}/state"\n[[source]]\n{source}\n', encoding="utf-8")
    network.start("clock", [sys.executable, "-m", "ppsd", "clock", "--config", str(config), "--run-dir", str(run_dir)])
    wait_for("the clock process", lambda: snapshot(run_dir), 20)
    return run_dir


def check(run_dir: Path, what: str, bound_ns: int) -> None:
    """LOCKED, by the path named, and the served time is the simulated truth (this machine's clock) within the promised bound."""
    wait_for("LOCKED", lambda: locked(run_dir), 60)
    seen = snapshot(run_dir)
    assert seen is not None
    assert isinstance(seen["sources"], list)
    assert isinstance(seen["bound_ns"], int)
    assert isinstance(seen["system_offset_ns"], int)
    assert what in seen["sources"][0]["what"]
    assert seen["bound_ns"] < bound_ns
    assert abs(seen["system_offset_ns"]) <= seen["bound_ns"]


def test_pulses_by_shared_memory(network: Processes, directory: Path) -> None:
    """gpsd writes its pulses to NTP shared memory unit 1; the clock process is LOCKED to it."""
    start_gpsd(network, directory)
    check(start_clock(network, 'type = "shm"\nunit = 1\nbias_us = 2000'), "shared memory unit 1", 50_000_000)


def test_messages_by_shared_memory(network: Processes, directory: Path) -> None:
    """gpsd's unit 0 is the arrival of messages, later than gpsd says of it: with the bias that the example states the bound holds."""
    start_gpsd(network, directory)
    run_dir = start_clock(network, 'type = "shm"\nunit = 0\nbias_us = 300_000')
    check(run_dir, "shared memory unit 0", 1_000_000_000)
    seen = snapshot(run_dir)
    assert seen is not None
    assert isinstance(seen["bound_ns"], int)
    assert seen["bound_ns"] > 300_000_000


@pytest.mark.skipif(os.geteuid() != 0, reason="gpsd looks for chrony's socket in /run, which only root may make")
def test_pulses_by_socket(network: Processes, directory: Path) -> None:
    """gpsd sends its pulses to the socket that it takes for chrony's; the clock process made it and is LOCKED to it."""
    path = Path(f"/run/chrony.{TTY}.sock")
    run_dir = start_clock(network, f'type = "sock"\npath = "{path}"\nbias_us = 2000')
    wait_for("the socket", path.exists, 10)
    start_gpsd(network, directory)
    check(run_dir, str(path), 50_000_000)


def test_json_and_a_restart_of_gpsd(network: Processes, directory: Path) -> None:
    """gpsd's JSON gives labels; with the pulse's own device the clock is LOCKED to microseconds, and again after gpsd was restarted."""
    network.start("simulator", [sys.executable, "-m", "refclock_sim", "--directory", str(directory)])
    wait_for("the simulator", lambda: "SIMULATED receiver" in network.output("simulator"), 20)
    words = ["gpsd", "-N", "-n", "-b", "-S", "2947", str(directory / TTY)]
    gpsd = network.start("gpsd", words)
    os.environ.update(environment := preload_environment(directory))
    try:
        run_dir = start_clock(network, 'type = "gpsd"\npps = "/dev/pps-sim0"')
    finally:
        for name in environment:
            os.environ.pop(name, None)
    check(run_dir, "gpsd at 127.0.0.1:2947", 1_000_000)

    def labels() -> int:
        seen = snapshot(run_dir)
        assert seen is not None
        assert isinstance(seen["sources"], list)
        return int(seen["sources"][0]["labels"])

    gpsd.kill()
    gpsd.wait()
    network.start("gpsd", words)
    before = labels()
    wait_for("labels again", lambda: labels() > before + 3, 60)
    check(run_dir, "gpsd at 127.0.0.1:2947", 1_000_000)
