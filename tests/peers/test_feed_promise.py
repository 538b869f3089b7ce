"""What chronyd promises its clients when it is fed by us: never less than we do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from peers import REFCLOCK, Processes, locked, snapshot, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="chronyd takes samples from root only")


@pytest.mark.parametrize("bound", ["", "max_bound_us = 100"])
def test_chronyd_serves_no_less_dispersion_than_we_do(network: Processes, tmp_path: Path, bound: str) -> None:
    """A real chronyd with the line that `refclock feed chrony` prints: half its root delay and its root dispersion are together never less
    than our bound at that moment, nor than its own error."""
    directory, config = tmp_path / "chrony", tmp_path / "refclock.toml"
    directory.mkdir(mode=0o750)
    config.write_text(f'[[feed]]\ntype = "sock"\npath = "{directory}/feed.sock"\n{bound}\n', encoding="utf-8")
    line = network.run([*REFCLOCK, "feed", "chrony", "--config", str(config), "--run-dir", str(tmp_path / "run")]).stdout
    assert line.startswith("refclock SOCK "), line
    (directory / "chrony.conf").write_text(
        f"port 0\ncmdport 0\nbindcmdaddress {directory}/cmd.sock\npidfile {directory}/pid\n{line}", encoding="ascii"
    )
    network.start("chronyd", ["chronyd", "-x", "-d", "-u", "root", "-f", str(directory / "chrony.conf")])
    network.start("refclock", [*REFCLOCK, "run", "--sim", "--config", str(config), "--run-dir", str(tmp_path / "run")])
    wait_for("LOCKED", lambda: locked(tmp_path / "run"), 60)

    def tracking() -> dict[str, str]:
        told = network.run(["chronyc", "-h", str(directory / "cmd.sock"), "tracking"]).stdout
        return {name.strip(): value.strip() for name, _, value in (row.partition(":") for row in told.splitlines())}

    def fed() -> bool:
        return "GPS" in tracking().get("Reference ID", "")

    wait_for("chronyd selects us", fed, 90)
    for _ in range(8):
        before, told, after = snapshot(tmp_path / "run"), tracking(), snapshot(tmp_path / "run")
        assert before is not None
        assert after is not None
        distance_ns = (float(told["Root delay"].split()[0]) / 2 + float(told["Root dispersion"].split()[0])) * 1e9
        ours_ns = min(int(str(seen["bound_ns"])) for seen in (before, after))
        assert distance_ns >= ours_ns, (told, ours_ns)
        time.sleep(1)
