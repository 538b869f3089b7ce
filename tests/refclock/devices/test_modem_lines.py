"""control_line.py: pulses on the control lines of serial ports (the simulated one of the preload)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from refclock_sim.ports.device import PULSE, TTY, preload_environment
from refclock_sim.ports.pty import Pty
from refclock_sim.ports.pulse_file import PulseFile

from refclock.devices.modem_lines import BY_DISCIPLINE, BY_KERNEL_USB, COUNTERS, Changes, attach, kernel_stamping, open_pulse
from refclock.devices.ports import control_line, over_usb
from refclock.devices.pps import BY_KERNEL
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.sample import NS, EdgeKind

pytestmark = [pytest.mark.device, pytest.mark.realtime]


def test_names_of_control_lines() -> None:
    """Only a known line behind the last colon is one: device names have colons in them."""
    assert control_line("/dev/ttyS0:dcd") == ("/dev/ttyS0", "dcd")
    assert control_line("/dev/serial/by-path/pci-0000:00:14.0") is None
    assert control_line("/dev/pps0") is None


def test_a_line_without_control_lines_says_so(tmp_path: Path) -> None:
    """A pseudo-terminal has none, and no pulse device can be made of it; nothing stays open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Pty(tmp_path / "ttyUSB0"):
        with pytest.raises(OSError, match="has no control lines"):
            open_pulse(f"{tmp_path}/ttyUSB0:dcd", LocalClock(), lambda: None)
        with pytest.raises(OSError, match=r"Invalid|no pulse device|permitted|No such"):
            attach(f"{tmp_path}/ttyUSB0", Host())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_bound_allows_for_how_the_pulse_is_stamped(tmp_path: Path) -> None:
    """How late a kernel device's stamps may be follows from what its driver tells: a pin, a serial port's line, an adapter on USB."""
    for number, (name, tty) in enumerate((("pps@12.-1", ""), ("serial0", "/dev/ttyS0"), ("usbserial0", "/dev/ttyUSB0"))):
        directory = tmp_path / f"sys/class/pps/pps{number}"
        directory.mkdir(parents=True)
        (directory / "name").write_text(name)
        (directory / "path").write_text(tty)
    stampings = [kernel_stamping(f"/dev/pps{number}", Host(tmp_path)) for number in range(4)]
    assert stampings == [BY_KERNEL, BY_DISCIPLINE, BY_KERNEL_USB, BY_KERNEL]
    assert [s.bias_us for s in stampings] == [15.0, 120.0, 1000.0, 15.0]


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [
        ({"dcd": 2.0}, "dcd"),
        ({"cts": 2.0}, "cts"),
        ({"ri": 20.0}, "ri"),
        ({"cts": 40.0, "dsr": 2.0}, "dsr"),
        ({}, ""),
        ({"dcd": 120.0}, ""),
    ],
)
def test_the_line_that_has_the_pulse_is_found_by_the_kernels_counters(
    monkeypatch: pytest.MonkeyPatch, rates: dict[str, float], verdict: str
) -> None:
    """One to ten pulses a second are named within 2.2 s, whichever line has them; none, hum and data are none."""
    now_ns = 0

    def counters(fd: int, request: int, data: bytes) -> bytes:
        del fd, request, data
        return COUNTERS.pack(*(7 + int(rates.get(line, 0.0) * now_ns / NS) for line in ("cts", "dsr", "ri", "dcd")))

    monkeypatch.setattr("refclock.devices.modem_lines.fcntl.ioctl", counters)
    changes = Changes(3, 0)
    told: list[str | None] = []
    for tenth in range(70):
        now_ns = tenth * NS // 10
        told.append(changes.pulse(now_ns))
    assert next((said for said in told[:23] if said), "") == verdict
    assert told[0] is None
    assert next(said for said in told if said is not None) == verdict
    assert told[13] == "" or rates


def test_a_line_that_moves_once_is_no_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a port raises other lines; a driver that does not count has none."""
    counts = [(0, 0, 0, 0), *[(1, 1, 0, 1)] * 100]
    monkeypatch.setattr("refclock.devices.modem_lines.fcntl.ioctl", lambda *_: COUNTERS.pack(*counts.pop(0)))
    changes = Changes(3, 0)
    told = [changes.pulse(k * NS) for k in range(20)]
    assert told[:3] == [None, None, ""]
    assert set(told) == {None, ""}

    def refuse(*_: object) -> bytes:
        raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr("refclock.devices.modem_lines.fcntl.ioctl", refuse)
    assert Changes(3, 0).pulse(0) == ""


CHILD = """
import sys, threading, time
from refclock.kernel.clocks import LocalClock
from refclock.devices.modem_lines import ControlLine, open_pulse
clock = LocalClock()
look = sys.argv[2] == "look"
line = ControlLine(sys.argv[1], "dcd", clock, lambda: None, look) if look else open_pulse(sys.argv[1] + ":dcd", clock, lambda: None)
if "busy" in sys.argv:
    sys.setswitchinterval(0.4)
    threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
print("ready", flush=True)
seen = []
while len(seen) < (2 if "busy" in sys.argv else 4):
    time.sleep(0.01)
    for edge in line.take():
        seen.append(edge)
        print(edge.kind.value, edge.at.real_ns, flush=True)
"""


@pytest.mark.parametrize("how", ["wait", "look"])
def test_changes_of_carrier_detect_become_edges(tmp_path: Path, how: str) -> None:
    """Each change of the line is one edge of its kind, stamped after it happened and soon, whether the driver can wait or not."""
    with PulseFile(tmp_path / PULSE) as line, Pty(tmp_path / TTY):
        environment = os.environ | preload_environment(tmp_path)
        command = [sys.executable, "-c", CHILD, str(tmp_path / TTY), how]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.2)
            for kind in (EdgeKind.ASSERT, EdgeKind.CLEAR) * 2:
                before = time.time_ns()
                line.edge(kind, before)
                said, stamp = process.stdout.readline().split()
                assert said == kind.value
                assert before <= int(stamp) <= time.time_ns()
            assert process.wait(20) == 0


@pytest.mark.parametrize("how", ["wait", "look"])
def test_a_stamp_does_not_wait_for_the_interpreter(tmp_path: Path, how: str) -> None:
    """While another thread keeps the interpreter for 0.4 s at a time, a change is stamped when it happens all the same."""
    with PulseFile(tmp_path / PULSE) as line, Pty(tmp_path / TTY):
        command = [sys.executable, "-c", CHILD, str(tmp_path / TTY), how, "busy"]
        environment = os.environ | preload_environment(tmp_path)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            late = []
            for kind in (EdgeKind.ASSERT, EdgeKind.CLEAR):
                time.sleep(1.0)
                before = time.time_ns()
                line.edge(kind, before)
                late.append((int(process.stdout.readline().split()[1]) - before) / 1e9)
            process.kill()
        assert 0.0 <= min(late) < 0.1


def test_a_link_to_an_adapter_is_an_adapter(tmp_path: Path) -> None:
    """Named by its by-id link a line over USB is polled all the same; a UART's is not; of a kernel device without a name nobody knows."""
    (tmp_path / "dev").mkdir()
    for name in ("ttyUSB0", "ttyS0"):
        (tmp_path / "dev" / name).touch()
        (tmp_path / f"link-{name}").symlink_to(tmp_path / "dev" / name)
    host = Host()
    assert over_usb(host, f"{tmp_path}/link-ttyUSB0:dcd") is True
    assert over_usb(host, f"{tmp_path}/link-ttyS0:cts") is False
    assert over_usb(Host(tmp_path), "/dev/pps7") is None
