"""``refclock takeover`` on a machine of files below a directory, whose services are real programs. Run as a program, under fake_clock.

``python takeover_steps.py ROOT (start UNIT | shadow SECONDS | commit SECONDS | rollback | end)``: does that step and prints what it says.
After ``shadow`` the last line is the comparison as JSON. ``end`` ends all services.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from packet_net import ntpsec_programs
from peers import REFCLOCK

from ppsd.cli.setup import OURS
from ppsd.cli.takeover import Takeover, other_of
from refclock.kernel.host import Host

LEAPS = "leap-seconds.list"


class Services:
    """Stands in for systemctl: services are processes, known by files below ``root``/units."""

    def __init__(self, root: Path) -> None:
        self.root, self.units = root, root / "units"
        self.units.mkdir(exist_ok=True)
        run = ["--config", str(root / "etc/refclock/refclock.toml"), "--run-dir", str(root / "run/refclock")]
        self.commands = {
            "chrony": ["chronyd", "-d", "-u", "root", "-f", str(root / "etc/chrony/chrony.conf")],
            "ntpsec": ["ntpd", "-n", "-N", "-c", str(root / "etc/ntpsec/ntp.conf")],
            "refclock.target": [*REFCLOCK, "clock", *run],
        }

    def __call__(self, verb: str, *words: str) -> int:
        units = [word for word in words if not word.startswith("--")]
        if verb == "is-active":
            return int(self.pid(units[0]) is None)
        if verb == "is-enabled":
            return int(not (self.units / f"{units[0]}.enabled").exists())
        for unit in units:
            if unit not in self.commands:
                continue
            if verb == "enable":
                (self.units / f"{unit}.enabled").touch()
            if verb == "disable":
                (self.units / f"{unit}.enabled").unlink(missing_ok=True)
            if verb in ("stop", "restart") or (verb == "disable" and "--now" in words):
                self.stop(unit)
            if verb in ("start", "restart"):
                self.start(unit)
        return 0

    def pid(self, unit: str) -> int | None:
        file = self.units / f"{unit}.pid"
        return int(file.read_text()) if file.exists() else None

    def start(self, unit: str) -> None:
        if self.pid(unit) is not None:
            return
        with (self.root / f"{unit}.log").open("ab") as log:
            words = self.commands[unit]
            words = [ntpsec_programs()[0] if words[0] == "ntpd" else words[0], *words[1:]]
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        (self.units / f"{unit}.pid").write_text(str(process.pid))

    def stop(self, unit: str) -> None:
        pid = self.pid(unit)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
            os.kill(pid, signal.SIGTERM)
            select.select([process], [], [], 20)  # readable when it has ended (pidfd_open(2))
            os.close(process)
        (self.units / f"{unit}.pid").unlink()


def main(root: Path, step: str, words: list[str]) -> int:
    services = Services(root)
    if step == "start":
        return services("enable", *words) + services("start", *words)
    if step == "end":
        return services("stop", *services.commands)
    assert "refclock.target" in OURS
    takeover = Takeover(Host(root), services, sys.stdout)
    if step == "rollback":
        return takeover.rollback()
    other = other_of(Host(root), "ntpd" if (root / "etc/ntpsec").exists() else "chronyd", 0)
    other = replace(other, text=f'{other.text}\n[leap]\nfile = "{root / LEAPS}"\n[run]\nstate = "{root / "state"}"\n')
    seconds = float(words[0])
    if step == "commit":
        return takeover.commit(other, seconds, 60.0, lambda: None)
    comparison = takeover.shadow(other, seconds, 60.0)
    print(comparison.text())
    print(json.dumps(comparison.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
