"""doctor: what is wrong with a machine is found, proved and told with a remedy; on machines built from files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppsd.cli import main as cli
from ppsd.cli.doctor import clock as doctor_clock
from ppsd.cli.doctor.doctor import doctor, examine, report
from ppsd.cli.doctor.finding import FAIL, OK, SKIP, WARN, Finding, Patient
from ppsd.config.file import parse
from refclock.kernel.clocks import Adjtimex
from refclock.kernel.host import Host
from refclock.sample import Leap

NOW_S = 1_795_000_000.0
SOURCE: dict[str, Any] = {
    "name": "gps0", "kind": "receiver", "present": True, "why": "selected", "jitter_ns": 900,
    "samples": 500, "pulses": 520, "labels": 519,
    "fix": "3D", "satellites_used": 9, "satellites_seen": 12, "message_delay_ms": 143.0, "message_spread_ms": 4.0,
    "rejected": {}, "health": (),
}  # fmt: skip
CONFIG = '[[source]]\ntype = "receiver"\ndevice = "/dev/ttyAMA0"\npps = "/dev/pps0"\n'


class Machine:
    """A root directory that looks like a Raspberry Pi with a receiver; pulses come while the doctor waits."""

    def __init__(self, root: Path) -> None:
        self.root, self.pulses, self.rate = root, 100, 1.0
        for name, text in {
            "dev/ttyAMA0": "", "dev/pps0": "", "proc/cmdline": "quiet root=/dev/mmcblk0p2\n", "proc/1/comm": "systemd\n",
            "sys/class/pps/pps0/name": "pps@12.-1\n", "sys/class/rtc/rtc0/since_epoch": f"{NOW_S:.0f}\n",
            "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        }.items():  # fmt: skip
            self.write(name, text)
        self.wait(0.0)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def wait(self, seconds: float) -> None:
        self.pulses += int(seconds * self.rate)
        self.write("sys/class/pps/pps0/assert", f"1795000000.000001200#{self.pulses}\n")
        self.write("sys/class/pps/pps0/clear", f"1795000000.100003400#{self.pulses}\n")

    def process(self, pid: int, name: str, holds: str = "") -> None:
        self.write(f"proc/{pid}/comm", name + "\n")
        self.write(f"proc/{pid}/cmdline", f"/usr/sbin/{name}\0")
        if holds:
            (self.root / f"proc/{pid}/fd").mkdir()
            (self.root / f"proc/{pid}/fd/5").symlink_to(holds)

    def examined(self, config: str = CONFIG, **changes: Any) -> dict[str, Finding]:
        source = SOURCE | changes
        clock: dict[str, Any] = {"pid": 77, "verdict": "LOCKED", "sources": [source]}
        clock |= {"simulated": changes.get("simulated", False), "clock_steps": changes.get("clock_steps", 0)}
        clock["system_offset_ns"] = changes.get("system_offset_ns")
        patient = Patient(Host(self.root), parse(config), clock, self.wait, lambda: NOW_S)
        return {finding.check: finding for finding in examine(patient)}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(doctor_clock, "read_adjtimex", lambda: Adjtimex(-12.5, 0, 16, 1, 37, 0, 0, Leap.NORMAL))
    return Machine(tmp_path)


def test_a_good_machine_is_well(machine: Machine) -> None:
    """Nothing is found where nothing is wrong; only the comparison with other servers was not asked for."""
    states = {check: finding.state for check, finding in machine.examined().items()}
    assert {check: state for check, state in states.items() if state != OK} == {"RC25": SKIP}
    assert list(states) == [f"RC{n:02}" for n in (*range(1, 13), *range(20, 26))]


def gpsd(m: Machine) -> dict[str, Any]:
    m.process(412, "gpsd", "/dev/ttyAMA0")
    return {}


def modem_manager(m: Machine) -> dict[str, Any]:
    m.process(413, "ModemManager", "/dev/ttyAMA0")
    return {}


def console(m: Machine) -> dict[str, Any]:
    m.write("proc/cmdline", "console=serial0,115200 console=tty1 root=/dev/mmcblk0p2")
    (m.root / "dev/serial0").symlink_to("ttyAMA0")
    return {}


def no_pulses(m: Machine) -> dict[str, Any]:
    m.rate = 0.0
    return {}


def fast_pulses(m: Machine) -> dict[str, Any]:
    m.rate = 10.0
    return {}


def kernel_timer(m: Machine) -> dict[str, Any]:
    m.write("sys/class/pps/pps0/name", "ktimer\n")
    return {}


def overruns(m: Machine) -> dict[str, Any]:
    m.write("proc/tty/driver/ttyAMA", "serinfo:1.0 driver revision:\n0: uart:PL011 rev3 mmio:0xFE201000 irq:23 tx:0 rx:9213 fe:2 oe:17\n")
    return {}


def undervoltage(m: Machine) -> dict[str, Any]:
    m.write("sys/devices/platform/soc/soc:firmware/get_throttled", "0x50005\n")
    return {}


def slow_clocksource(m: Machine) -> dict[str, Any]:
    m.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n")
    return {}


def no_rtc(m: Machine) -> dict[str, Any]:
    (m.root / "sys/class/rtc/rtc0/since_epoch").unlink()
    return {}


def wrong_rtc(m: Machine) -> dict[str, Any]:
    m.write("sys/class/rtc/rtc0/since_epoch", f"{NOW_S - 7200:.0f}\n")
    return {}


def chronyd_too(m: Machine) -> dict[str, Any]:
    m.process(733, "chronyd")
    return {"config": CONFIG + '[clock]\nsteer = "kernel"\n'}


def no_receiver(m: Machine) -> dict[str, Any]:
    (m.root / "dev/ttyAMA0").unlink()
    return {"config": ""}


def unplugged(m: Machine) -> dict[str, Any]:
    (m.root / "dev/ttyAMA0").unlink()
    return {}


def usb_adapter(m: Machine) -> dict[str, Any]:
    m.write("dev/ttyUSB0", "")
    m.write("sys/bus/usb-serial/devices/ttyUSB0/latency_timer", "16\n")
    return {"config": CONFIG.replace("ttyAMA0", "ttyUSB0")}


AILMENTS: dict[str, tuple[str, str, Callable[[Machine], dict[str, Any]]]] = {
    "no receiver": ("RC01", FAIL, no_receiver),
    "receiver unplugged": ("RC01", FAIL, unplugged),
    "gpsd holds the line": ("RC02", FAIL, gpsd),
    "ModemManager holds the line": ("RC02", FAIL, modem_manager),
    "overruns": ("RC03", WARN, overruns),
    "broken sentences": ("RC03", FAIL, lambda _: {"rejected": {"checksum": 90}, "labels": 40}),
    "nothing names a second": ("RC03", FAIL, lambda _: {"labels": 0, "why": "no sentence with a date yet"}),
    "no pulses": ("RC04", FAIL, no_pulses),
    "ten pulses a second": ("RC04", WARN, fast_pulses),
    "kernel's own timer": ("RC04", FAIL, kernel_timer),
    "console on the line": ("RC06", FAIL, console),
    "USB adapter holds back": ("RC07", WARN, usb_adapter),
    "no fix": ("RC08", FAIL, lambda _: {"fix": "none", "satellites_seen": 2}),
    "antenna cut": ("RC08", WARN, lambda _: {"health": ("the antenna is open: the cable is cut or unplugged",)}),
    "impossible dates": ("RC09", FAIL, lambda _: {"rejected": {"date-window": 900}, "why": "its dates are 1024 weeks back"}),
    "leap seconds unknown": ("RC10", WARN, lambda _: {"rejected": {"not-resolved": 60}, "samples": 0, "why": "waiting for its leap count"}),
    "ambiguous messages": ("RC11", FAIL, lambda _: {"message_delay_ms": 497.0, "message_spread_ms": 31.0, "samples": 0}),
    "survey": ("RC12", WARN, lambda _: {"health": ("the survey of the position is running",)}),
    "chronyd too": ("RC20", FAIL, chronyd_too),
    "slow clocksource": ("RC22", WARN, slow_clocksource),
    "undervoltage": ("RC22", FAIL, undervoltage),
    "no RTC": ("RC23", WARN, no_rtc),
    "wrong RTC": ("RC23", WARN, wrong_rtc),
    "clock set by others": ("RC24", WARN, lambda _: {"clock_steps": 3}),
}


@pytest.mark.parametrize("ailment", AILMENTS)
def test_an_ailment_is_found(machine: Machine, ailment: str) -> None:
    """Each is found by its own check, and has a remedy."""
    check, state, spoil = AILMENTS[ailment]
    finding = machine.examined(**spoil(machine))[check]
    assert finding.state == state
    assert finding.do


def test_the_words_are_the_golden_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]) -> None:
    """What users read, to the letter."""
    monkeypatch.setattr(doctor_clock, "read_adjtimex", lambda: Adjtimex(-12.5, 0, 16, 1, 37, 0, 0, Leap.NORMAL))
    told: list[str] = []
    for number, (ailment, (check, _, spoil)) in enumerate(AILMENTS.items()):
        machine = Machine(tmp_path / str(number))
        told.append(f"{ailment}\n{report([machine.examined(**spoil(machine))[check]]).rpartition(chr(10))[0]}")
    golden("doctor.txt", "\n\n".join(told) + "\n")


def test_a_clock_that_runs_away(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frequency near the kernel's limit is told."""
    monkeypatch.setattr(doctor_clock, "read_adjtimex", lambda: Adjtimex(-499.9, 0, 16, 1, 37, 0, 0, Leap.NORMAL))
    assert machine.examined()["RC21"].state == FAIL


def test_safe_remedies_are_carried_out_and_others_refused(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """--fix writes what the finding says and nothing else."""
    changes = usb_adapter(machine)
    patient = Patient(Host(machine.root), parse(changes["config"]), None, machine.wait, lambda: NOW_S)
    out = io.StringIO()
    assert doctor(patient, False, "rc07", out) == 0
    assert (machine.root / "sys/bus/usb-serial/devices/ttyUSB0/latency_timer").read_text() == "1\n"
    assert doctor(patient, False, "RC07", out) == 1
    assert "nothing is wrong there" in capsys.readouterr().err
    assert doctor(patient, False, "RC99", out) == 64
    machine.process(5, "ModemManager", "/dev/ttyUSB0")
    (machine.root / "etc/udev/rules.d").mkdir(parents=True)
    assert doctor(patient, False, "RC02", out) == 0
    assert 'KERNEL=="ttyUSB*", ENV{ID_MM_DEVICE_IGNORE}="1"' in (machine.root / "etc/udev/rules.d/77-refclock.rules").read_text()


def test_json_and_exit_codes(machine: Machine) -> None:
    """0 all well, 1 something to look at, 2 something wrong; JSON has every finding."""
    out = io.StringIO()
    patient = Patient(Host(machine.root), parse(CONFIG), None, machine.wait, lambda: NOW_S)
    assert doctor(patient, True, None, out) == 0
    assert {finding["check"] for finding in json.loads(out.getvalue())} >= {"RC01", "RC25"}
    no_rtc(machine)
    assert doctor(patient, False, None, io.StringIO()) == 1
    no_pulses(machine)
    assert doctor(patient, False, None, io.StringIO()) == 2


def test_a_simulated_receiver_needs_no_device(tmp_path: Path, machine: Machine) -> None:
    """On a machine without line and pulse nothing is wrong while the receiver is simulated; without that it is."""
    (machine.root / "dev/ttyAMA0").unlink()
    assert machine.examined("")["RC01"].state == FAIL
    assert machine.examined("", simulated=True)["RC01"].state == SKIP


def test_on_this_very_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The command runs anywhere, as anybody, and says how many checks there were."""
    assert cli.main(["doctor", "--run-dir", str(tmp_path)]) in (0, 1, 2)
    assert "not examined" in capsys.readouterr().out


PULSE = {
    "rate_hz": 1.0, "edge": "assert", "width_ms": 100.0, "jitter_us": 1.2, "pulses": 500, "missing": 0, "stray": 0, "good": True,
    "words": "one pulse a second, jitter 1.2 µs (9 of 10), 100.0 ms wide: good", "doubts": [], "changed": "",
}  # fmt: skip


def test_what_the_daemon_says_of_its_pulses_is_told(machine: Machine) -> None:
    """RC05 shows the daemon's own verdict; its doubts come with their remedy; RC04 takes its word for a rate that it can use."""
    assert machine.examined(pulse=PULSE)["RC05"] == Finding("RC05", OK, f"gps0: {PULSE['words']}")
    doubt = "its pulses come 100 ms after the served seconds: by all appearance the trailing edge; turn the polarity round"
    found = machine.examined(pulse=PULSE | {"doubts": [doubt]})["RC05"]
    assert (found.state, found.do) == (WARN, "turn the polarity round")
    assert found.what.startswith("gps0: its pulses come 100 ms after")
    assert machine.examined(pulse=PULSE | {"jitter_us": 300.0})["RC05"].state == WARN
    machine.rate = 5.0
    assert machine.examined(pulse=PULSE | {"rate_hz": 5.0})["RC04"] == Finding("RC04", OK, "gps0: 5 pulses a second")


def test_a_clock_that_ntp_keeps_and_the_served_time_must_agree(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A served time 100 ms behind a system clock that is kept to 3 ms: told with the trailing edge as what it looks like; one that nobody
    keeps, or that is kept to 200 ms only, says nothing."""
    for status, error_ns, state in ((0, 3_000_000, FAIL), (0x40, 3_000_000, OK), (0, 200_000_000, OK)):
        kept = Adjtimex(-12.5, 0, error_ns, 1, 37, status, 0, Leap.NORMAL)
        monkeypatch.setattr(doctor_clock, "read_adjtimex", lambda kept=kept: kept)
        found = machine.examined(system_offset_ns=-100_000_000)["RC21"]
        assert found.state == state
        if state == FAIL:
            assert "is 100 ms ahead of the served time" in found.what
            assert "trailing edge" in found.do
