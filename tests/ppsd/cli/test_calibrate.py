"""`refclock calibrate pps`: the lateness of stamps, measured against another source and by an echo, and what is written of it."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from refclock_sim.ports.device import PULSE, TTY, preload_environment
from refclock_sim.ports.pty import Pty
from refclock_sim.ports.pulse_file import PulseFile

from ppsd.cli.calibrate import Bias, CannotTell, calibrate, echo, judged, pulse_of, versus
from ppsd.config.edit import with_bias
from ppsd.config.file import parse
from ppsd.config.tables import Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Pulsed, SourceFound
from ppsd.discipline.saved import Saved
from ppsd.process.exit_codes import Refused
from ppsd.snapshot import Snapshot
from refclock.config import DEFAULT_SOURCE, ReceiverSource
from refclock.devices.modem_lines import OutputLine
from refclock.devices.pps import BY_KERNEL
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.sample import NS, Edge, EdgeKind, Instant, SourceId

pytestmark = [pytest.mark.device, pytest.mark.realtime]

CONFIG = '[clock]\nsteer = "none"\n\n[[source]]  # roof\ntype = "receiver"\nname = "roof"\ndevice = "/dev/ttyS0"\npps = "/dev/pps-sim0"\n'


def pair() -> Snapshot:
    """Of a daemon with two receivers: roof has a pulse, lab has none."""
    sources = (ReceiverSource(name="roof", device="/dev/ttyS0", pps="/dev/pps0"), ReceiverSource(name="lab", device="/dev/ttyS1", pps=""))
    engine = Engine(Config(sources=sources), Saved(), Instant(0, 0), simulated=False, version="test", pid=0)
    for source in sources:
        engine.handle(SourceFound(SourceId(source.name), source.device, Instant(0, 0)))
    for s in range(5):
        at = Instant(s * NS, s * NS)
        engine.handle(Pulsed(SourceId("roof"), Edge(at, EdgeKind.ASSERT, s), at))
    return engine.snapshot(Instant(5 * NS, 5 * NS))


PAIR = pair()


class Daemon:
    """Snapshots of a daemon whose pulse is stamped ``late_us`` late, beside one that is right, good to ``bound_us``. ``share``: of the
    pulses that come."""

    def __init__(self, late_us: float, bound_us: float, *, moving: bool = True, share: float = 1.0) -> None:
        self.late_us, self.bound_us, self.moving, self.share = late_us, bound_us, moving, share
        self.random, self.seconds = Random(7), 0.0

    def pause(self, seconds: float) -> None:
        self.seconds += seconds

    def ask(self) -> Snapshot:
        n = int(self.seconds * self.share) if self.moving else 0
        served_us = 40.0  # what is served is nobody's truth
        offsets = (served_us - self.late_us + self.random.gauss(0, 2), served_us + self.random.gauss(0, 1))
        sources = [
            replace(status, samples=n, offset_ns=round(us * 1e3), bound_ns=round(self.bound_us * 1e3))
            for us, status in zip(offsets, PAIR.sources, strict=True)
        ]
        return replace(PAIR, sources=tuple(sources), uptime_s=self.seconds)


def test_a_pulse_is_compared_with_another_source() -> None:
    """94 µs late against a source good to ±5 µs: that figure, within what chance leaves, and an allowance that covers both."""
    daemon = Daemon(94.0, 5.0)
    bias = versus(daemon.ask, daemon.pause, "", "", 60.0)
    assert bias.source == "roof"
    assert bias.late_us == pytest.approx(94.0, abs=bias.uncertainty_us + 0.5)
    assert bias.uncertainty_us < 3
    assert 94 + 5 <= bias.pps_bias_us <= 94 + 5 + 6
    assert "against lab" in bias.how


@pytest.mark.parametrize(
    ("daemon", "names", "words"),
    [
        (Daemon(5, 5, moving=False), ("", ""), "roof gave 0 samples in 60 s, 20 are needed: waiting for the receiver's first valid second"),
        (Daemon(5, 5, share=0.5), ("", ""), "30 of 60 pulses were lost"),
        (Daemon(5, 5), ("attic", ""), "there is no source attic; there are roof, lab"),
        (Daemon(5, 5), ("roof", "roof"), "cannot be compared with itself"),
    ],
)
def test_what_cannot_be_measured_says_why(daemon: Daemon, names: tuple[str, str], words: str) -> None:
    """Unknown names, the same one twice, silence: a reason, no figure."""
    with pytest.raises(CannotTell, match=re.escape(words)):
        versus(daemon.ask, daemon.pause, *names, 60.0)


def test_a_poor_reference_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A source good to ±2 ms says nothing of 20 µs: exit 1, and the configuration stays."""
    file = tmp_path / "refclock.toml"
    file.write_text(CONFIG, encoding="utf-8")
    daemon = Daemon(20.0, 2000.0)
    assert calibrate(lambda: versus(daemon.ask, daemon.pause, "", "", 60.0), parse(CONFIG), file, False, io.StringIO()) == 1
    assert "good to ±2e+03 µs only" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == CONFIG


def test_the_figure_is_written_where_it_belongs(tmp_path: Path) -> None:
    """--apply sets pps_bias_us of that source and of no other, keeps the file as it was beside it, and what is written reads back."""
    two = CONFIG + '\n[[source]]\ntype = "receiver"\ndevice = "/dev/ttyS1"\npps = "/dev/pps1"\npps_bias_us = 7 # by guess\n'
    assert [s.pps_bias_us for s in parse(with_bias(two, 0, 31)).sources] == [31.0, 7.0]  # type: ignore[union-attr]
    assert [s.pps_bias_us for s in parse(with_bias(two, 1, 31)).sources] == [None, 31.0]  # type: ignore[union-attr]
    file = tmp_path / "refclock.toml"
    file.write_text(two, encoding="utf-8")
    bias = judged("roof", "by an echo", [20_000.0 + i for i in range(50)], 1, 0.0)
    out = io.StringIO()
    assert calibrate(lambda: bias, parse(two), file, False, out) == 0
    assert "pps_bias_us = 21\n" in file.read_text(encoding="utf-8")
    assert (tmp_path / "refclock.toml.bak").read_text(encoding="utf-8") == two
    assert "roof: stamped 20.0 µs late" in out.getvalue()
    assert "pps_bias_us = 21" in out.getvalue()


@pytest.mark.parametrize("pulse", ["/dev/pps-sim0", "TTY:dcd"])
def test_an_echo_measures_the_lateness_of_stamps(tmp_path: Path, pulse: str) -> None:
    """RTS wired to DCD, stamps 300 µs late: the command says so, and writes an allowance that covers it. The kernel's stamp is exact; a
    thread that waits for the line is later by its waking."""
    tty = str(tmp_path / TTY)
    file = tmp_path / "refclock.toml"
    file.write_text(CONFIG.replace("/dev/pps-sim0", pulse.replace("TTY", tty)), encoding="utf-8")
    command = [sys.executable, "-m", "ppsd", "calibrate", "pps", "--echo", f"{tty}:rts", "--count", "30", "--json", "--apply"]
    environment = os.environ | preload_environment(tmp_path) | {"REFCLOCK_FAKE_ECHO_NS": "300000"}
    with PulseFile(tmp_path / PULSE), Pty(tmp_path / TTY):
        done = subprocess.run([*command, "--config", str(file)], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["samples"] + said["lost"] == 30
    assert said["low_us"] >= 300
    assert said["late_us"] >= 300
    assert said["pps_bias_us"] >= said["late_us"]
    assert said["lines"] in file.read_text(encoding="utf-8")


def test_an_output_that_is_not_wired_says_so(tmp_path: Path) -> None:
    """No edge comes back: what to look at, exit 1."""
    tty, file = tmp_path / TTY, tmp_path / "refclock.toml"
    file.write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "ppsd", "calibrate", "pps", "--echo", f"{tty}:dtr", "--count", "1", "--config", str(file)]
    with PulseFile(tmp_path / PULSE), Pty(tty):
        environment = os.environ | preload_environment(tmp_path)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"is {tty}:dtr wired to the input of /dev/pps-sim0" in done.stderr


class Loose:
    """A wire with a bad contact: of the edges that go in, every second comes out."""

    stamping = BY_KERNEL
    error = ""

    def __init__(self) -> None:
        self.clock, self.moves, self.edges = LocalClock(), 0, list[Edge]()

    def set(self, high: bool) -> None:
        self.moves += 1
        if self.moves % 2:
            self.edges.append(Edge(self.clock.now(), EdgeKind.ASSERT, self.moves))

    def take(self) -> list[Edge]:
        taken, self.edges = self.edges, []
        return taken

    def stop(self) -> None:
        pass

    close = stop


def test_half_of_the_edges_lost_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 edges of an echo 20 come back, enough for a figure: there is none, and what to look at is told."""
    wire = Loose()
    monkeypatch.setattr("ppsd.cli.calibrate.ECHO_WAIT_S", 0.01)
    monkeypatch.setattr("ppsd.cli.calibrate.PAUSE_S", 0.001)
    monkeypatch.setattr("ppsd.cli.calibrate.OutputLine", lambda _: wire)
    monkeypatch.setattr("ppsd.cli.calibrate.open_pulse", lambda *_: wire)
    with pytest.raises(CannotTell, match="20 of 40 edges came back: is /dev/ttyS0:rts wired to the input of /dev/pps0"):
        echo("roof", "/dev/pps0", "/dev/ttyS0:rts", 40)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "is no line that can be set; name one like /dev/ttyS0:rts"),
        ("rts", "is no line that can be set; name one like /dev/ttyS0:rts"),
        ("/dev/ttyS0:cts", "is no line that can be set; name one like /dev/ttyS0:rts"),
        ("/dev/gpiochip0:\u00b2", "is no line that can be set"),
        ("/dev/gpiochip0:GPIO23", "is no line that can be set"),
        ("{tmp}/missing:rts", "No such file or directory"),
        ("{tmp}:rts", "Is a directory"),
        ("{tmp}/file:rts", "it has no such line; a serial port has rts and dtr"),
        ("{tmp}/gpiochip0:23", "it is no gpiochip"),
        ("{tmp}/a\udc80:rts", "No such file or directory"),
    ],
)
def test_a_wrong_line_is_a_sentence(tmp_path: Path, line: str, words: str) -> None:
    """Misspelled, of another kind, not there, no terminal, a name that is no text: one line that says so, exit 74, no traceback."""
    for name in ("file", "gpiochip0"):
        (tmp_path / name).touch()
    file = tmp_path / "refclock.toml"
    file.write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "ppsd", "calibrate", "pps", "--echo", line.format(tmp=tmp_path), "--config", str(file)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    said = done.stderr.decode()
    assert done.returncode == 74, said
    assert words in said
    assert len(said.splitlines()) == 1


def machine(root: Path, *found: tuple[str, str]) -> Host:
    """A machine with pulse devices: (name, the terminal that it belongs to)."""
    for name, tty in found:
        entry = root / f"sys/class/pps/{name}"
        entry.mkdir(parents=True)
        (entry / "name").write_text("pps\n", encoding="ascii")
        (entry / "path").write_text(f"{tty}\n", encoding="ascii")
    return Host(root)


def test_a_box_that_found_everything_by_itself_is_calibrated(tmp_path: Path) -> None:
    """Nothing is configured: the pulse is the machine's, and the figure goes into a [[source]] that finds its receiver as before; the file
    is made when there is none."""
    assert pulse_of((DEFAULT_SOURCE,), "", machine(tmp_path, ("pps0", ""))) == ("gps0", "/dev/pps0")
    bias = judged("gps0", "by an echo", [20_000.0 + i for i in range(50)], 1, 0.0)
    for before in ("", "[log]\nlevel = 'debug'\n"):
        file = tmp_path / "etc" / f"{len(before)}.toml"
        if before:
            file.write_text(before, encoding="utf-8")
        assert calibrate(lambda: bias, parse(before), file, False, io.StringIO()) == 0
        (source,) = parse(file.read_text(encoding="utf-8")).sources
        assert source == replace(DEFAULT_SOURCE, pps_bias_us=21.0)
        assert file.read_text(encoding="utf-8").startswith(before)


def test_whose_pulse_is_measured(tmp_path: Path) -> None:
    """Of several pulse devices that of the receiver's own line; without one, what is to be written is told."""
    host = machine(tmp_path, ("pps0", ""), ("pps1", "/dev/ttyUSB0"))
    usb, other = ReceiverSource(name="gps0", device="/dev/ttyUSB0"), ReceiverSource(name="gps1", device="/dev/ttyS0")
    assert pulse_of((usb, other), "gps0", host) == ("gps0", "/dev/pps1")
    assert pulse_of((usb, other), "gps1", host) == ("gps1", "/dev/pps0")
    for sources, name, words in (
        ((usb, other), "", "gps0, gps1"),
        ((DEFAULT_SOURCE,), "", "there is /dev/pps0, /dev/pps1"),
        ((), "", "no source"),
    ):
        with pytest.raises(Refused, match=words):
            pulse_of(sources, name, host)


class Chip:
    """The GPIO character device's ioctls, as gpio.h has them."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bytes]] = []
        self.fd = os.open(os.devnull, os.O_RDWR)

    def ioctl(self, fd: int, request: int, argument: Any) -> int:
        self.calls.append((request, bytes(argument)))
        if request == 0xC250B407:
            argument[588:592] = struct.pack("=i", self.fd)
        else:
            assert fd == self.fd
        return 0


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chip]:
    made = Chip()
    monkeypatch.setattr(fcntl, "ioctl", made.ioctl)
    return made


def test_a_pin_of_the_gpio_device_is_an_output_too(chip: Chip, tmp_path: Path) -> None:
    """/dev/gpiochipN:PIN asks for that pin as an output (struct gpio_v2_line_request, 592 octets) and sets it, low first."""
    device = tmp_path / "gpiochip0"
    device.touch()
    line = OutputLine(f"{device}:23")
    line.set(True)
    line.close()
    (request, asked), *values = chip.calls
    assert (request, len(asked)) == (0xC250B407, 592)
    assert struct.unpack_from("=I", asked, 0) == (23,)
    assert struct.unpack_from("=Q", asked, 288) == (8,)
    assert struct.unpack_from("=I", asked, 560) == (1,)
    assert [struct.unpack("=QQ", argument) for _, argument in values] == [(0, 1), (1, 1)]
    for wrong in ("/dev/ttyS0:cts", "/dev/null", f"{device}:x"):
        with pytest.raises(OSError, match="is no line that can be set"):
            OutputLine(wrong)


def test_too_few_measurements_are_none() -> None:
    """Nothing is claimed of a handful."""
    with pytest.raises(CannotTell, match="only 3 measurements"):
        judged("roof", "", [1.0, 2.0, 3.0], 0, 0.0)
    assert isinstance(judged("roof", "", [float(i) for i in range(30)], 0, 0.0), Bias)
