"""A pulse device and nothing else: the daemon opens it, follows its pulses, and names no second by itself."""

from __future__ import annotations

import sys
from pathlib import Path

from peers import Processes, snapshot, wait_for
from refclock_sim.ports.device import PULSE, preload_environment


def test_a_pulse_device_alone_is_followed_and_waits_for_its_second(processes: Processes, tmp_path: Path) -> None:
    """Absent at first, which is told with what to do; then its pulses are counted. They wait for somebody who names their seconds, unless
    NTP keeps the clock of the machine that runs this test."""
    processes.start("simulator", [sys.executable, "-m", "refclock_sim", "--directory", str(tmp_path)])
    wait_for("the simulated pulse", (tmp_path / PULSE).exists, 20)
    config, absent_dir, run_dir = tmp_path / "refclock.toml", tmp_path / "absent", tmp_path / "run"
    config.write_text(f'[run]\nstate = "{tmp_path}/state"\n[[source]]\ntype = "pps"\npps = "/dev/pps0"\n', encoding="utf-8")
    words = [sys.executable, "-m", "ppsd", "clock", "--config", str(config), "--run-dir"]

    def told(directory: Path, *parts: str) -> bool:
        seen = snapshot(directory)
        return seen is not None and any(part in f"{seen['verdict']} {seen['why']}" for part in parts)

    processes.start("clock without a pulse", [*words, str(absent_dir), "--duration", "20"])
    processes.start("clock", [*words, str(run_dir)], **preload_environment(tmp_path, "/dev/pps0"))
    wait_for("the absent device told", lambda: told(absent_dir, "there is no such device"), 20)
    wait_for("its pulses", lambda: told(run_dir, "nobody names their seconds", "LOCKED"), 60)
    seen = snapshot(run_dir)
    assert seen is not None
    (source,) = seen["sources"]  # type: ignore[misc, attr-defined]
    assert (source["kind"], source["what"], source["present"]) == ("pps", "/dev/pps0", True)
    assert "one pulse a second" in source["pulse"]["words"]
