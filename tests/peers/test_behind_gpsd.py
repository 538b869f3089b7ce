"""The example behind-gpsd.toml with a real gpsd: all four ways to take its time at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from peers import PYTHON, Processes, locked, snapshot, wait_for
from test_gpsd_feeds import EXAMPLE, LINE, directory, environment, start_gpsd, start_simulator

__all__ = ["directory"]


@pytest.mark.skipif(os.geteuid() != 0, reason="gpsd looks for chrony's socket in /run, where only root may make it")
def test_the_example_is_as_good_as_its_best_source(network: Processes, directory: Path) -> None:
    """With gpsd's late copies of the same pulses beside the pulse's own device, the served time is the pulse's: the error stays within
    30 µs and the bound is that of the pulse alone."""
    start_simulator(network, directory)
    text = EXAMPLE.read_text(encoding="utf-8").replace("/dev/pps0", "/dev/pps-sim0").replace("ttyAMA0", LINE)
    config, run_dir = network.directory / "refclock.toml", network.directory / "run"
    config.write_text(f'[run]\nstate = "{network.directory}/state"\n{text}', encoding="utf-8")
    words = [PYTHON, "-m", "ppsd", "clock", "--config", str(config), "--run-dir", str(run_dir)]
    network.start("clock", words, **environment(directory))
    wait_for("the socket", Path(f"/run/chrony.{LINE}.sock").exists, 10)
    start_gpsd(network, directory)
    wait_for("LOCKED", lambda: locked(run_dir), 60)
    copies = {"gpsd-shm", "gpsd-pulses"}
    told: dict[str, list[str]] = {}
    for _ in range(15):
        seen = snapshot(run_dir)
        assert seen is not None
        assert isinstance(seen["sources"], list)
        assert isinstance(seen["system_offset_ns"], int)
        told = {source["name"]: [c["code"] for c in source["conditions"]] for source in seen["sources"]}
        chosen = [source["name"] for source in seen["sources"] if source["tally"] == "*"]
        if chosen == ["gps"]:
            assert abs(seen["system_offset_ns"]) < 30_000, seen
            assert seen["bound_ns"] == pytest.approx(next(s["bound_ns"] for s in seen["sources"] if s["name"] == "gps"), rel=0.2)
        time.sleep(1)
    assert chosen == ["gps"]
    assert all("copy" in told[name] for name in copies), told
