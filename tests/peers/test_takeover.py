"""A machine whose clock chronyd or ntpd keeps moves to refclock and back, on a system clock that may be set (hw-sim/fake_clock.c)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import clock_witness
import pytest
import takeover_steps
from packet_net import NO_CLOCK, chronyc, chronyd
from peers import PYTHON, Processes, wait_for
from refclock_sim.ports.device import PPS_DEVICE, clock_environment, stepped_ns
from test_gpsd_feeds import directory, environment, start_gpsd, start_simulator

from refclock.sample import NS

__all__ = ["directory"]

DECEMBER = 1_796_083_200 * NS
"""2026-12-01."""
AHEAD_NS = NS // 2
"""What the clock is off when the program starts: ntpd slews 128 ms and less, for which it takes minutes, and steps more."""
UNIT = 5
"""Of shared memory; not one of gpsd's."""


class Kept(NamedTuple):
    """A program that keeps the clock. ``unit``, ``file``, ``text``: its service and configuration. ``within_ns``: what the clock may be off
    throughout. ``drift``: its drift file for a crystal that is slow by 1 ppm. ``says``: its log, once it keeps the clock."""

    unit: str
    file: str
    text: str
    within_ns: int
    drift: float
    says: str


KEPT = {
    "chronyd": Kept(
        "chrony",
        "etc/chrony/chrony.conf",
        "refclock SHM {unit} refid REF poll 0 dpoll -1 delay 0.000004\nmakestep 0.1 3\nrtcsync\ndriftfile {root}/drift/file\n"
        "pidfile {root}/chronyd.pid\nbindcmdaddress {root}/chronyd.sock\ncmdport 0\nport 0\n",
        50_000,  # some reading errors of a busy machine: each sample of shared memory has one
        -1.0,
        "Selected source REF",
    ),
    "ntpd": Kept(
        "ntpsec",
        "etc/ntpsec/ntp.conf",
        "refclock shm unit {unit} refid REF minpoll 0 maxpoll 0\ndriftfile {root}/drift/file\ninterface ignore wildcard\n",
        500_000,  # what its loop has left over of the first step
        1.0,
        "",
    ),
}


class Machine:
    """Its files and services, and the witness that knows the true time."""

    def __init__(self, processes: Processes, kept: Kept) -> None:
        self.processes, self.root, self.kept = processes, processes.directory / "root", kept
        self.file = processes.directory / "clock"
        self.clock = clock_environment(self.file, DECEMBER + AHEAD_NS)
        for unit in (f"{kept.unit}.service", "refclock.target", "refclock-clock.service"):
            self.write(f"usr/lib/systemd/system/{unit}", "")
        self.write(kept.file, kept.text.format(unit=UNIT, root=self.root))
        self.write("drift/file", f"{12 * kept.drift} 1.0\n")
        self.write(takeover_steps.LEAPS, clock_witness.LEAP_SECONDS)
        (self.root / "state").mkdir(mode=0o750)
        self.root.chmod(0o750)
        again = self.root / str(self.root).lstrip("/")  # what the program's configuration names is there below the root, too
        again.parent.mkdir(parents=True)
        again.symlink_to(self.root)
        words = [PYTHON, clock_witness.__file__, str(self.root / "run/refclock/timescale"), str(DECEMBER), str(UNIT)]
        processes.start("witness", words, **self.clock)
        wait_for("the witness speaks", self.lines, 10)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def step(self, *words: str) -> str:
        """Do a step of ``takeover_steps``; what it said."""
        environment = [f"{name}={value}" for name, value in self.clock.items()]
        done = self.processes.run(["env", *environment, *NO_CLOCK, PYTHON, takeover_steps.__file__, str(self.root), *words], 300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def lines(self) -> list[dict[str, Any]]:
        """All that the witness has said so far."""
        return [json.loads(line) for line in self.processes.output("witness").splitlines(keepends=True) if line.endswith("\n")]

    def settled(self) -> bool:
        """REALTIME has been right, and kept by somebody, for five seconds."""
        last = self.lines()[-25:]
        return len(last) == 25 and all(abs(line["error_ns"]) < self.kept.within_ns and line["max_error_ns"] < NS for line in last)

    def log(self, unit: str) -> str:
        return (self.root / f"{unit}.log").read_text(encoding="utf-8")


@pytest.fixture(params=list(KEPT))
def machine(network: Processes, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """One whose clock a program has kept for some seconds."""
    made = Machine(network, KEPT[request.param])
    made.step("start", made.kept.unit)
    try:
        wait_for("the clock is kept", made.settled, 60)
        yield made
    finally:
        made.step("end")


def test_a_machine_moves_to_refclock_and_back_without_a_step(machine: Machine) -> None:
    """Beside chronyd or ntpd, whose samples are shared memory that both look at, the shadow says how both do, and that they agree. The
    switch stops that program, refclock goes on from what the shadow knew, and back again the program starts with the frequency of now.
    Nobody steps the clock by more than 1 us, and it is right all the time."""
    began, stepped = len(machine.lines()), stepped_ns(machine.file)
    told: dict[str, Any] = json.loads(machine.step("shadow", "25").splitlines()[-1])
    assert told["agree"], told
    assert told["looks"] >= 20
    assert told["ours"]["bound_ns"] < 3_000_000  # of what is allowed for samples of ntpd's configuration, 2 ms
    assert told["theirs"]["bound_ns"] is not None
    assert max(told["ours"]["nearly_ns"], told["theirs"]["nearly_ns"]) < machine.kept.within_ns
    assert "refclock.target.pid" not in {path.name for path in (machine.root / "units").iterdir()}

    machine.step("commit", "21")
    switched = machine.lines()[-1]["raw_s"]
    wait_for("refclock serves", lambda: machine.lines()[-1]["bound_ns"] is not None, 20)
    assert machine.lines()[-1]["raw_s"] < switched + 15, "it went on from what the shadow knew"
    time.sleep(10)
    assert "stepped" not in machine.log("refclock.target")
    assert machine.settled()
    config = (machine.root / "etc/refclock/refclock.toml").read_text(encoding="utf-8")
    assert f"unit = {UNIT}" in config
    assert "shared" not in config

    drift = machine.root / "drift/file"
    drift.write_text("40.0 1.0\n", encoding="ascii")
    said = machine.log(machine.kept.unit).count(machine.kept.says)
    machine.step("rollback")
    assert float(drift.read_text(encoding="ascii").split()[0]) == pytest.approx(12 * machine.kept.drift, abs=1)
    wait_for("the clock is kept", lambda: machine.log(machine.kept.unit).count(machine.kept.says) != said or not machine.kept.says, 30)
    time.sleep(10)
    lines = machine.lines()[began:]
    assert stepped_ns(machine.file) - stepped < 1000
    assert max(abs(line["error_ns"]) for line in lines) < machine.kept.within_ns


def test_beside_chronyd_and_gpsd_nobody_loses_a_sample(network: Processes, directory: Path) -> None:
    """The usual machine: gpsd has the receiver, and chronyd its shared memory and the pulse. refclock beside them locks to gpsd's JSON and
    the same pulse, and says so; what is chronyd's alone is named. chronyd goes on to hear both."""
    start_simulator(network, directory)
    start_gpsd(network, directory)
    lines = ["refclock SHM 0 refid NMEA poll 1 offset 0.1 delay 0.2 noselect", f"refclock PPS {PPS_DEVICE} lock NMEA poll 1 refid PPS"]
    root = network.directory / "root"
    (root / "etc/chrony").mkdir(parents=True)
    (root / "etc/chrony/chrony.conf").write_text("\n".join(lines), encoding="utf-8")
    (root / takeover_steps.LEAPS).write_text(clock_witness.LEAP_SECONDS, encoding="ascii")
    beside = chronyd(network, "chronyd", *lines, preload=environment(directory))
    variables = [f"{name}={value}" for name, value in environment(directory).items()]
    done = network.run(["env", *variables, PYTHON, takeover_steps.__file__, str(root), "shadow", "25"], 300)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["pulsed"]
    assert told["looks"] >= 20
    assert told["ours"]["nearly_ns"] < 30_000
    assert "(gpsd)" in done.stdout
    assert "not read: shared memory unit 0; gpsd's JSON says the same" in done.stdout
    reach = dict(re.findall(r"^#\S (\S+) +\d+ +\d+ +(\d+)", chronyc(network, beside, "sources"), re.MULTILINE))
    assert {name: int(octal, 8) & 0xF for name, octal in reach.items()} == {"NMEA": 0xF, "PPS": 0xF}, done.stdout
