"""What is plugged in is found by what it says: simulated receivers behind pseudo-terminals that garble what is read at a wrong speed."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import sys
import threading
import time
import tty
from dataclasses import replace
from pathlib import Path

import pytest
from peers import Processes, wait_for
from refclock_sim.receiver.gnss import Gnss
from refclock_sim.receiver.output import MODELS, Receiver

from ppsd.cli.config import apply, load_to_write
from ppsd.cli.detect import Plan, Wanted, blocks, detect, listen, planned
from ppsd.cli.receiver import receiver_command
from ppsd.cli.watch import watch_line
from ppsd.config.file import parse, read
from ppsd.config.tables import Config
from refclock.config import DEFAULT_SOURCE, ReceiverSource
from refclock.devices.ports import Port
from refclock.devices.scan import Found
from refclock.kernel.host import Host
from refclock.receiver.autobaud import Identification
from refclock.timescales import LeapTable

PATIENCE_S = 30.0
NOT_BEFORE_S = 1_700_000_000


def plugged(processes: Processes, directory: Path, kind: str, baud: int) -> Port:
    """A receiver of that kind, talking."""
    directory.mkdir()
    words = ["--directory", str(directory), "--receiver", kind, "--baud", str(baud), "--strict-baud"]
    processes.start(directory.name, [sys.executable, "-m", "refclock_sim", *words])
    wait_for("the simulated line", (directory / "ttySIM0").exists, 15)
    return Port(str(directory / "ttySIM0"), str(directory / "ttySIM0"))


def test_every_receiver_is_found_at_its_speed_side_by_side(processes: Processes, tmp_path: Path) -> None:
    """NMEA and UBX at seven speeds, all probed at once: protocol and speed of each."""
    kinds = [("nmea", 4800), ("nmea", 9600), ("ublox8", 19200), ("ublox8-nmea", 38400), ("nmea", 57600), ("timing", 115200)]
    kinds.append(("ublox8", 230400))
    ports = [plugged(processes, tmp_path / f"r{i}", kind, baud) for i, (kind, baud) in enumerate(kinds)]
    found = listen(Host(tmp_path / "nowhere"), ports, NOT_BEFORE_S, PATIENCE_S)
    assert [f.problem for f in found] == [""] * len(kinds)
    heard = [(kind, f.verdict) for f, (kind, _) in zip(found, kinds, strict=True) if f.verdict]
    assert [verdict.baud for _, verdict in heard] == [baud for _, baud in kinds]
    # Asked who it is, a u-blox answers in UBX; on a busy machine the simulated one may answer when nobody listens any more.
    assert all(verdict.protocol == "NMEA" for kind, verdict in heard if kind == "nmea")
    assert all("u-blox" in verdict.identity for _, verdict in heard if "UBX" in verdict.protocol)
    assert any("UBX" in verdict.protocol for _, verdict in heard)


def test_silence_and_noise_are_told_apart(tmp_path: Path) -> None:
    """Nothing at all is a wire or power; bytes without sense are something else than a receiver."""
    masters = [os.openpty(), os.openpty()]
    ports = [Port(os.ttyname(slave), "") for _, slave in masters]
    for _, slave in masters:
        os.close(slave)
    over = threading.Event()

    def chatter() -> None:
        while not over.wait(0.1):
            os.write(masters[1][0], bytes(range(128, 256)))

    talker = threading.Thread(target=chatter)
    talker.start()
    silent, noise = listen(Host(tmp_path), ports, NOT_BEFORE_S, 6.0)
    over.set()
    talker.join()
    assert silent.verdict is not None
    assert noise.verdict is not None
    assert (silent.verdict.protocol, noise.verdict.protocol) == ("silent", "noise")
    assert "powered" in silent.verdict.advice
    assert "levels" in noise.verdict.advice
    for master, _ in masters:
        os.close(master)


@pytest.mark.parametrize("after_s", [0.0, 0.4, 1.5])
def test_a_line_that_gives_back_what_is_sent_is_no_receiver(tmp_path: Path, after_s: float) -> None:
    """A loop-back plug, or a modem with echo, at once or late: no source is written for it, and the reason is told."""
    master, slave = os.openpty()
    path = os.ttyname(slave)
    tty.setraw(slave)
    os.set_blocking(master, False)
    over = threading.Event()

    def echo() -> None:
        due: list[tuple[float, bytes]] = []
        while not over.wait(0.02):
            with contextlib.suppress(BlockingIOError):
                due.append((time.monotonic() + after_s, os.read(master, 4096)))
            while due and due[0][0] <= time.monotonic():
                os.write(master, due.pop(0)[1])

    class OnePort(Host):
        def names(self, pattern: str) -> list[str]:
            return [path] if pattern == "/dev/ttyUSB*" else []

    plug = threading.Thread(target=echo)
    plug.start()
    config, out = tmp_path / "refclock.toml", io.StringIO()
    detect(Config(), Wanted(9.0, file=config, apply=True), out, host=OnePort(tmp_path))
    over.set()
    plug.join()
    os.close(master)
    os.close(slave)
    assert not config.exists()
    assert "only what is sent to it comes back" in out.getvalue()


def test_a_receiver_of_the_kernels_gnss_class_is_found(tmp_path: Path) -> None:
    """/dev/gnss0 has no terminal calls and no speed (a FIFO stands for it): its receiver is found, and no speed is claimed."""
    path = tmp_path / "gnss0"
    os.mkfifo(path)
    receiver = Receiver(MODELS["nmea"], Gnss(7, 1_900_000_000, LeapTable(), fix_s=0), 7)
    over = threading.Event()

    def speak() -> None:
        second = 1_900_000_000
        with path.open("r+b", buffering=0) as line:
            while not over.wait(1.0):
                line.write(b"".join(chunk.data for chunk in receiver.cycle(second)))
                second += 1

    class OnePort(Host):
        def names(self, pattern: str) -> list[str]:
            return [str(path)] if pattern == "/dev/gnss*" else []

    talker = threading.Thread(target=speak)
    talker.start()
    config, out = tmp_path / "refclock.toml", io.StringIO()
    detect(Config(), Wanted(15.0, pin=True, file=config, apply=True), out, host=OnePort(tmp_path / "nowhere"))
    over.set()
    talker.join()
    assert f"{path} NMEA, says " in " ".join(out.getvalue().split())
    (source,) = read(config).sources
    assert isinstance(source, ReceiverSource)
    assert (source.device, source.baud) == (str(path), 0)


def test_a_held_port_is_not_touched() -> None:
    """Who has it and how to get it is told; it is never opened (this one does not even exist)."""
    port = Port("/dev/ttyNONE", "/dev/ttyNONE", ("gpsd (pid 412)",))
    (found,) = listen(Host(), [port], NOT_BEFORE_S, 1.0)
    assert found.verdict is None
    assert "left to gpsd (pid 412)" in found.problem
    assert 'type = "gpsd"' in found.problem


def test_apply_keeps_what_was_configured(processes: Processes, tmp_path: Path) -> None:
    """The receiver is added with "auto", so that it may change its port; the old file stays beside it. A second time there is nothing to
    write. --pin writes down device and speed of the same source."""
    port = plugged(processes, tmp_path / "r", "nmea", 9600)
    machine = tmp_path / "machine"
    (machine / "dev").mkdir(parents=True)
    (machine / "dev/ttyUSB0").symlink_to(port.path)
    config = tmp_path / "refclock.toml"
    config.write_text("# mine\n[server]\nthreads = 3\n", encoding="utf-8")
    host = _only(port, machine)

    def applied(*, pin: bool = False) -> str:
        out = io.StringIO()
        assert detect(read(config), Wanted(PATIENCE_S, pin=pin, file=config, apply=True), out, host=host) == 0
        return out.getvalue()

    applied()
    written = read(config)
    assert (written.server.threads, written.sources) == (3, (DEFAULT_SOURCE,))
    assert config.read_text(encoding="utf-8").startswith("# mine\n")
    assert config.with_name("refclock.toml.bak").read_text(encoding="utf-8") == "# mine\n[server]\nthreads = 3\n"
    before = config.read_text(encoding="utf-8")
    assert "nothing to write" in applied()
    assert config.read_text(encoding="utf-8") == before
    applied(pin=True)
    assert read(config).sources == (replace(DEFAULT_SOURCE, device=port.identity, baud=9600),)
    assert "nothing to write" in applied(pin=True)
    told = io.StringIO()
    assert detect(Config(), Wanted(PATIENCE_S, as_json=True, file=config), told, host=host) == 0
    assert json.loads(told.getvalue())["ports"][0]["verdict"]["baud"] == 9600


def test_what_is_written_of_several_receivers(tmp_path: Path) -> None:
    """Sources that name their device keep it, one with "auto" stands for the next receiver, the rest get sources of their own; a file that
    is not there is made, folder and all. What somebody stated stays."""
    found = [Found(Port(f"/dev/ttyUSB{n}", f"/dev/serial/by-id/r{n}"), Identification("NMEA", 9600), f"/dev/pps{n}") for n in range(3)]
    found.append(Found(Port("/dev/ttyS0", "/dev/ttyS0"), Identification("silent", 0)))
    host = Host(tmp_path)
    assert planned(Config(), host, found, (), False).more.count('device = "auto"') == 3
    half = parse(
        '[[source]]\ntype = "receiver"\npps = "/dev/pps7"\n[[source]]\ntype = "receiver"\ndevice = "/dev/ttyUSB0"\npps = ""\n', "f"
    )
    assert planned(half, host, found, (), False) == Plan({}, blocks(found[2:3]))
    plan = planned(half, host, found, (), True)
    assert plan.keys == {0: {"device": "/dev/serial/by-id/r1", "baud": 9600}}
    assert 'device = "/dev/serial/by-id/r2"\nbaud = 9600\npps = "/dev/pps2"' in plan.more
    file = tmp_path / "etc" / "refclock" / "refclock.toml"
    assert load_to_write(file) == Config()
    assert apply(file, planned(Config(), host, found, (), True).carried_out, "detect", io.StringIO()) == 0
    assert [source.name for source in read(file).sources] == ["gps0", "gps1", "gps2"]


def test_progress_fits_the_terminal(processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it listens one line is rewritten, about the port that changed, and fits 40 columns; at the end it is gone."""
    port = plugged(processes, tmp_path / "r", "nmea", 38400)
    monkeypatch.setenv("COLUMNS", "40")
    progress = io.StringIO()
    listen(Host(tmp_path), [port, Port("/dev/ttyNONE", "", ("gpsd (pid 4)",))], NOT_BEFORE_S, PATIENCE_S, progress)
    *lines, last = progress.getvalue().split("\r\x1b[K")[1:]
    assert last == ""
    assert lines
    assert max(map(len, lines)) < 40
    assert all(a != b for a, b in itertools.pairwise(lines))


class _OnePort(Host):
    """A machine whose only serial device is a given one."""

    def __init__(self, root: Path, path: str) -> None:
        super().__init__(root)
        self._path = path

    def names(self, pattern: str) -> list[str]:
        return [self._path] if pattern == "/dev/ttyUSB*" else []


def _only(port: Port, root: Path) -> Host:
    return _OnePort(root, port.path)


def test_the_stream_is_shown_with_reasons(processes: Processes, tmp_path: Path) -> None:
    """Each sentence with the second it names or why it names none; the speed is found first."""
    port = plugged(processes, tmp_path / "r", "nmea", 38400)
    out = io.StringIO()
    assert watch_line(port.path, 0, Config(), 3.0, out) == 0
    text = out.getvalue()
    assert "NMEA at 38400 baud" in text
    assert "names " in text
    assert "$GPGSV" in text or "$GNGSV" in text


@pytest.mark.parametrize(
    ("kind", "baud", "name"), [("ublox8-nmea", 9600, "NEO-M8N"), ("ublox9", 38400, "ZED-F9T"), ("mtk", 9600, "PMTK705")]
)
def test_a_receiver_is_set_up_from_the_command_line(processes: Processes, tmp_path: Path, kind: str, baud: int, name: str) -> None:
    """It says what it is, every setting is acknowledged, and how long it lasts is told."""
    port = plugged(processes, tmp_path / "r", kind, baud)
    for _ in range(2):  # on a busy machine the simulated one may answer too late
        out = io.StringIO()
        if receiver_command("configure", port.path, Config(), save=False, as_json=False, out=out) == 0:
            break
    assert name in out.getvalue()
    assert "receiver configured" in out.getvalue()
    assert "until the next loss of power" in out.getvalue()
    shown = io.StringIO()
    assert receiver_command("show", port.path, Config(), save=False, as_json=True, out=shown) == 0
    assert json.loads(shown.getvalue())["baud"] == baud
