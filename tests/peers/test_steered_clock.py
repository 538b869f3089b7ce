"""The clock process with steer = "kernel" on a system clock that may be set (hw-sim/fake_clock.c), beside other programs that set it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import clock_witness
import pytest
from peers import PYTHON, REFCLOCK, Processes, wait_for
from refclock_sim.ports.device import clock_environment

from refclock.sample import NS

DECEMBER = 1_796_083_200 * NS
"""2026-12-01."""
CONFIG = """
[clock]
steer = "kernel"
not_before = 2026-01-01
[server]
enabled = false
[[source]]
type = "shm"
unit = {unit}
bias_us = 2.0
[leap]
file = "{directory}/leap-seconds.list"
[run]
directory = "{directory}/run"
state = "{directory}/state"
"""
WITHIN_NS = 20_000
"""REALTIME is called right below this: a few reading errors of a busy machine, far below everything done to it here."""
Line = dict[str, Any]


class Rig:
    """The clock process, the witness and whoever interferes, on one clock of their own."""

    def __init__(self, processes: Processes, utc_ns: int, ahead_ns: int) -> None:
        self.processes, directory = processes, processes.directory
        (directory / "run").mkdir(mode=0o700)
        (directory / "state").mkdir()
        (directory / "leap-seconds.list").write_text(clock_witness.LEAP_SECONDS, encoding="ascii")
        self.config = directory / "refclock.toml"
        self.config.write_text(CONFIG.format(unit=clock_witness.UNIT, directory=directory), encoding="utf-8")
        self.clock = clock_environment(directory / "clock", utc_ns + ahead_ns)
        words = [PYTHON, clock_witness.__file__, str(directory / "run" / "timescale"), str(utc_ns)]
        processes.start("witness", words, **self.clock)
        wait_for("the witness speaks", self.lines, 10)
        self.process = self.start()

    def start(self) -> Any:
        words = [*REFCLOCK, "clock", "--config", str(self.config), "--run-dir", str(self.processes.directory / "run")]
        return self.processes.start("clock", words, **self.clock)

    def lines(self) -> list[Line]:
        """All that the witness has said so far."""
        return [json.loads(line) for line in self.processes.output("witness").splitlines(keepends=True) if line.endswith("\n")]

    def since(self, raw_s: float) -> list[Line]:
        return [line for line in self.lines() if line["raw_s"] >= raw_s]

    def settled(self, seconds: float, what: str) -> Line:
        """Waits until REALTIME has been right for a second; the line at which that began."""

        def look() -> Line | None:
            lines = self.lines()
            wrong = [n for n, line in enumerate(lines) if abs(line["error_ns"]) > WITHIN_NS]
            first = wrong[-1] + 1 if wrong else 0
            return lines[first] if first < len(lines) and lines[-1]["raw_s"] - lines[first]["raw_s"] > 1 else None

        return wait_for(what, look, seconds)

    def interfere(self, python: str) -> float:
        """Another program runs this with the kernel's clock calls at hand; when it did (raw_s before it)."""
        before: float = self.lines()[-1]["raw_s"]
        done = self.processes.run(
            ["env", *(f"{k}={v}" for k, v in self.clock.items()), PYTHON, "-c", f"from refclock.kernel.clocks import *; {python}"]
        )
        assert done.returncode == 0, done.stderr
        return before

    def logged(self, words: str) -> int:
        return self.processes.output("clock").count(words)


@pytest.fixture
def processes_of_their_own(network: Processes) -> Iterator[Processes]:
    """With shared memory of their own."""
    yield network


def test_the_system_clock_follows_whatever_others_do_to_it(processes_of_their_own: Processes) -> None:
    """0.3 s off at the start: one step, then right, and the kernel says so (no STA_UNSYNC, TAI-UTC 37, errors that cover). A foreign step
    of half a second and a foreign frequency are noticed and undone, time served meanwhile never leaves its bound; SIGKILL leaves a clock
    that goes on rightly, the next start steps nothing; a step of an hour is left alone, said, and the kernel told."""
    rig = Rig(processes_of_their_own, DECEMBER, 300_000_000)
    began = rig.settled(30, "right after the start")
    assert rig.logged("system clock stepped by us") == 1
    steady = rig.since(began["raw_s"])[-1]
    assert (steady["leap"], steady["state"], steady["tai_offset_s"]) == ("NORMAL", 0, 37)
    assert abs(steady["error_ns"]) <= steady["max_error_ns"] < 2_000_000
    assert steady["frequency_ppm"] == pytest.approx(12, abs=1)

    at = rig.interfere("step(500_000_000)")
    wait_for("the step is undone", lambda: rig.logged("system clock stepped by us") == 2, 10)
    back = rig.settled(20, "right again")
    assert max(line["error_ns"] for line in rig.since(at)) > 0.4 * NS, "the step was never there"
    assert rig.since(back["raw_s"])[-1]["state"] == 0

    at = rig.interfere("adjust_frequency(read_adjtimex().frequency_ppm - 200)")
    wait_for("the frequency is named", lambda: rig.logged("frequency was changed by somebody else") == 1, 10)
    rig.settled(40, "right again")
    assert min(line["error_ns"] for line in rig.since(at)) > -2_000_000

    rig.process.send_signal(signal.SIGKILL)
    rig.process.wait(10)
    at = rig.lines()[-1]["raw_s"]
    time.sleep(3)
    steps = rig.logged("system clock stepped by us")
    rig.process = rig.start()
    wait_for("it steers again", lambda: rig.lines()[-1]["max_error_ns"] < 1_000_000 and rig.lines()[-1]["raw_s"] > at + 5, 20)
    time.sleep(3)
    assert rig.logged("system clock stepped by us") == steps
    assert max(abs(line["error_ns"]) for line in rig.since(at)) < 100_000

    rig.interfere("step(-3600_000_000_000)")
    wait_for("it is said", lambda: rig.logged("system clock is too far off, left alone") == 1, 10)
    assert rig.lines()[-1]["leap"] == "UNSYNCHRONISED"

    served = [line for line in rig.lines() if line["bound_ns"] is not None]
    assert len(served) > 50
    assert all(abs(line["served_error_ns"]) <= line["bound_ns"] for line in served)
    rig.process.terminate()
    assert rig.process.wait(10) == 0


def test_a_leap_second_is_the_kernels(processes_of_their_own: Processes) -> None:
    """On the last evening of 2026 the table's leap second is announced to the kernel (STA_INS); it inserts it, TAI-UTC becomes 38, no step
    of ours or alarm follows, REALTIME is right after it, and the served time never leaves its bound."""
    rig = Rig(processes_of_their_own, (clock_witness.NEW_YEAR - 25) * NS, 0)
    wait_for("announced", lambda: rig.lines()[-1]["leap"] == "INSERT", 20)
    stepped = rig.logged("clock stepped")
    wait_for("midnight", lambda: rig.lines()[-1]["true_s"] > clock_witness.NEW_YEAR + 8, 60)
    after = [line for line in rig.lines() if line["true_s"] > clock_witness.NEW_YEAR + 3]
    assert all(abs(line["error_ns"]) < WITHIN_NS for line in after)
    assert (after[-1]["tai_offset_s"], after[-1]["leap"]) == (38, "NORMAL")
    assert rig.logged("leap second taken by the system clock") == 1
    assert rig.logged("clock stepped") == stepped
    assert rig.logged("far off") == 0
    served = [line for line in rig.lines() if line["bound_ns"] is not None]
    assert all(abs(line["served_error_ns"]) <= line["bound_ns"] for line in served)
