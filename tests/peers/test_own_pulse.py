"""A receiver whose pulse is on its own serial port: found without being named, by the daemon and by detect."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from peers import Processes, snapshot, wait_for
from refclock_sim.ports.device import TTY, preload_environment

LISTEN = """
import sys
from ppsd.cli.detect import blocks, listen
from refclock.kernel.host import Host
from refclock.devices.ports import Port
found = listen(Host(), [Port(sys.argv[1], sys.argv[1])], 1_700_000_000, 30.0)
print(found[0].pulse)
print(blocks(found, pin=True))
"""


def start_simulator(processes: Processes, directory: Path) -> str:
    processes.start("simulator", [sys.executable, "-m", "refclock_sim", "--directory", str(directory)])
    wait_for("the simulated line", (directory / TTY).exists, 20)
    return str(directory / TTY)


def test_the_clock_is_set_by_a_pulse_on_carrier_detect_that_nobody_named(processes: Processes, tmp_path: Path) -> None:
    """pps = "auto", no kernel device: the control line that changes as a pulse does is taken and told; messages alone would be known
    to 0.3 s."""
    tty = start_simulator(processes, tmp_path)
    config, run_dir = tmp_path / "refclock.toml", tmp_path / "run"
    config.write_text(f'[run]\nstate = "{tmp_path}/state"\n[[source]]\ntype = "receiver"\ndevice = "{tty}"\n', encoding="utf-8")
    words = [sys.executable, "-m", "ppsd", "clock", "--config", str(config), "--run-dir", str(run_dir)]
    processes.start("clock", words, **preload_environment(tmp_path))

    def by_pulse() -> bool:
        seen = snapshot(run_dir)
        if seen is None or seen["verdict"] != "LOCKED" or seen["refid"] != "PPS":
            return False
        return isinstance(seen["bound_ns"], int) and seen["bound_ns"] < 50_000_000

    wait_for("time by the pulse", by_pulse, 60)
    assert f"{tty}:dcd" in processes.output("clock")


def test_detect_names_the_control_line(processes: Processes, tmp_path: Path) -> None:
    """The receiver's own line is shown, and needs no name in the configuration."""
    tty = start_simulator(processes, tmp_path)
    time.sleep(3)  # its pulses begin
    environment = os.environ | preload_environment(tmp_path)
    done = subprocess.run([sys.executable, "-c", LISTEN, tty], env=environment, capture_output=True, text=True, timeout=60, check=True)
    pulse, _, block = done.stdout.partition("\n")
    assert pulse == f"{tty}:dcd"
    assert 'pps = "auto"' in block
