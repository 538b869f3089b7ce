"""`refclock nmea`, `sats`, `receiver show` and `detect` while the daemon reads the receiver: through the daemon, as gpsd's clients do."""

from __future__ import annotations

import json
import re
from pathlib import Path

from peers import REFCLOCK, Processes, locked, snapshot, wait_for


def test_the_tools_work_while_the_daemon_serves(network: Processes, tmp_path: Path) -> None:
    """Each shows what it would show of a free line, without stopping the daemon or being told to end it; the daemon stays locked and goes
    on reading."""
    run_dir = tmp_path / "run"
    network.start("refclock", [*REFCLOCK, "run", "--sim", "--run-dir", str(run_dir)])
    wait_for("LOCKED", lambda: locked(run_dir), 60)
    where = ["--run-dir", str(run_dir)]
    device = str(run_dir / "ttySIM0")

    for line in ([], [device], ["gps0"]):
        heard = network.run([*REFCLOCK, "nmea", *line, "--duration", "2.5", *where])
        assert heard.returncode == 0, heard.stderr
        assert len(re.findall(r"names \d\d:\d\d:\d\d +UBX", heard.stdout)) >= 2, heard.stdout

    assert "satellites used" in network.run([*REFCLOCK, "sats", *where]).stdout

    shown = network.run([*REFCLOCK, "receiver", "show", "--json", *where], 90)
    assert shown.returncode == 0, shown.stderr
    told = json.loads(shown.stdout)
    assert (told["configurable_as"], told["as_wanted"]) == ("u-blox 8", True)
    assert len([setting for setting in told["settings"] if setting["agrees"]]) > 10

    found = network.run([*REFCLOCK, "detect", "--wait", "1", *where])
    assert re.search(rf"{device} +(NMEA\+)?UBX.* at 9600 baud, u-blox .*read by the daemon \(gps0\)", found.stdout), found.stdout

    refused = network.run([*REFCLOCK, "receiver", "reset", *where])
    assert (refused.returncode, "end the daemon to reset it" in refused.stderr) == (74, True)
    everything = shown.stderr + found.stdout + found.stderr + refused.stderr
    assert not re.search(r"end python|end ppsd", everything), everything
    seen = snapshot(run_dir)
    assert seen is not None
    assert (seen["verdict"], locked(run_dir)) == ("LOCKED", True)
