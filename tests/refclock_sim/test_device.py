"""The simulated receiver's devices: the tty, the shared pulse line, and the process that works them in real time."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from refclock_sim.ports.device import PPS_DEVICE, PULSE, TTY, preload_environment, preload_library
from refclock_sim.ports.pty import Pty
from refclock_sim.ports.pulse_file import CAPTURE_CLEAR, SIZE, PulseFile

from refclock.sample import NS, EdgeKind

pytestmark = [pytest.mark.device, pytest.mark.realtime]

PATIENCE_S = 20.0


def open_tty(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


def words(path: Path) -> tuple[int, ...]:
    """assert and clear sequence, transitions, level, assert and clear stamp of a pulse file: what fake_pps.c reads at these places."""
    return struct.unpack_from("=16x4I2q", path.read_bytes())


@pytest.mark.parametrize("folder", ["a b", "a:b"])
def test_the_preload_works_from_a_folder_with_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """A checkout in "My Projects": a program opens the simulated pulse, and the loader has nothing to complain of."""
    library = preload_library("fake_pps")
    copy, directory = tmp_path / folder / library.name, tmp_path / "run"
    for path in (copy.parent, directory):
        path.mkdir()
    shutil.copy(library, copy)
    monkeypatch.setattr("refclock_sim.ports.device.preload_library", lambda _: copy)
    with PulseFile(directory / PULSE):
        opened = [sys.executable, "-c", f"import os; os.open({PPS_DEVICE!r}, os.O_RDWR)"]
        for _ in range(2):
            environment = os.environ | preload_environment(directory)
            assert subprocess.run(opened, env=environment, capture_output=True, check=True).stderr == b""


# ---- the tty --------------------------------------------------------------------------------------------------------------------------


def test_bytes_pass_unchanged_both_ways(tmp_path: Path) -> None:
    """Every byte value reaches the reader, and the receiver: nothing is translated, echoed or taken for an interrupt."""
    every = bytes(range(256))
    with Pty(tmp_path / "tty") as pty:
        reader = open_tty(tmp_path / "tty")
        pty.send(every, 9600)
        assert os.read(reader, 1000) == every
        os.write(reader, every)
        assert pty.receive() == every
        assert pty.receive() == b""
        os.close(reader)


def test_readers_come_and_go(tmp_path: Path) -> None:
    """What is sent while nobody has the tty open is lost, as on a line; the next reader gets what is sent from then on."""
    with Pty(tmp_path / "tty") as pty:
        for _ in range(3):
            assert not pty.listening()
            pty.send(b"unheard", 9600)
            reader = open_tty(tmp_path / "tty")
            assert pty.listening()
            pty.send(b"heard", 9600)
            assert os.read(reader, 1000) == b"heard"
            os.close(reader)
        assert pty.receive() == b""
        assert pty.lost == 3 * len(b"unheard")


def test_a_reader_that_does_not_read_stops_nobody(tmp_path: Path) -> None:
    """With the buffer full, more is counted as lost, and sending never waits."""
    with Pty(tmp_path / "tty") as pty:
        reader = open_tty(tmp_path / "tty")
        for _ in range(200):
            pty.send(bytes(1000), 9600)
        assert 0 < pty.lost < 200_000
        os.close(reader)


def test_unplugging_hangs_up(tmp_path: Path) -> None:
    """On close the name goes and the reader reads an end or EIO; a name that is another simulator's by then stays."""
    link = tmp_path / "tty"
    old = Pty(link)
    reader = open_tty(link)
    new = Pty(link)
    old.close()
    try:
        assert os.read(reader, 10) == b""
    except OSError as e:
        assert e.errno == errno.EIO
    os.close(reader)
    assert str(link.readlink()) == new.slave
    new.close()
    assert not link.is_symlink()


def test_the_wrong_speed_is_noise(tmp_path: Path) -> None:
    """A strict line garbles what is sent at another speed than the reader has set, and only that."""
    with Pty(tmp_path / "tty", strict=True) as pty:
        reader = open_tty(tmp_path / "tty")
        set_to = pty.baud()
        assert set_to is not None
        pty.send(b"$GPRMC", set_to)
        assert os.read(reader, 100) == b"$GPRMC"
        pty.send(b"$GPRMC", set_to * 2)
        assert os.read(reader, 100) != b"$GPRMC"
        os.close(reader)


# ---- the pulse line -------------------------------------------------------------------------------------------------------------------


def test_edges_are_counted_and_stamped(tmp_path: Path) -> None:
    """Each edge goes up by one in its own sequence, with its stamp (before 1970 too) and the line's level."""
    path = tmp_path / "pps"
    with PulseFile(path) as line:
        assert path.stat().st_size == SIZE
        assert words(path) == (0, 0, 0, 0, 0, 0)
        line.edge(EdgeKind.ASSERT, 1_800_000_000 * NS + 123)
        assert words(path) == (1, 0, 1, 1, 1_800_000_000 * NS + 123, 0)
        line.edge(EdgeKind.CLEAR, -5)
        assert words(path) == (1, 1, 2, 0, 1_800_000_000 * NS + 123, -5)
        assert (line.sequence(EdgeKind.ASSERT), line.sequence(EdgeKind.CLEAR)) == (1, 1)


def test_a_successor_goes_on_counting(tmp_path: Path) -> None:
    """A simulator that was killed and started again continues the sequence: programs that hold the file open notice nothing."""
    path = tmp_path / "pps"
    for count in (1, 2, 3):
        with PulseFile(path) as line:
            inode = path.stat().st_ino
            line.edge(EdgeKind.ASSERT, count)
            assert words(path)[0] == count
    assert path.stat().st_ino == inode


def test_an_edge_that_is_not_captured_is_no_event(tmp_path: Path) -> None:
    """Without CAPTURECLEAR the falling edge changes the level and nothing else, as in the kernel."""
    path = tmp_path / "pps"
    with PulseFile(path) as line:
        line.withhold(CAPTURE_CLEAR)
        line.edge(EdgeKind.ASSERT, 1)
        line.edge(EdgeKind.CLEAR, 2)
        assert words(path) == (1, 0, 2, 0, 1, 0)


# ---- the process ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A receiver that is a quarter of a second ahead of this machine's clock, with an errorless pulse; it has said that it is ready."""
    command = [sys.executable, "-m", "refclock_sim", "--directory", str(tmp_path), "--receiver", "minimal", "--baud", "38400"]
    command += ["--offset", "0.25", "--pulse", "perfect", "--cold", "0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("SIMULATED receiver")
    assert str(tmp_path / TTY) in line
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_sentences_name_the_true_second(simulator: subprocess.Popen[str], tmp_path: Path) -> None:
    """A valid RMC names the second of true time (this clock plus the offset) in which it is sent."""
    reader = open_tty(tmp_path / TTY)
    heard, end = b"", time.monotonic() + PATIENCE_S
    while b",A," not in heard or not heard.endswith(b"\n"):
        assert time.monotonic() < end, heard
        time.sleep(0.01)
        if simulator.poll() is None:
            try:
                heard += os.read(reader, 4096)
            except BlockingIOError:
                continue
    os.close(reader)
    rmc = next(line for line in heard.splitlines() if b"RMC" in line and b",A," in line)
    named = rmc.split(b",")[1]
    true_s = (time.time_ns() + NS // 4) // NS
    recently = [time.strftime("%H%M%S", time.gmtime(true_s - ago)).encode() for ago in range(10)]
    assert named[:6] in recently
    assert named[6:] in (b"", b".00", b".000")


def test_pulses_stand_at_true_seconds(simulator: subprocess.Popen[str], tmp_path: Path) -> None:
    """Stamps are this clock's readings at the true second and 0.1 s after it, exactly, once there is a fix; one of each a second."""
    end = time.monotonic() + PATIENCE_S
    while words(tmp_path / PULSE)[1] < 2:
        assert time.monotonic() < end
        assert simulator.poll() is None
        time.sleep(0.05)
    asserts, clears, transitions, _, rise, fall = words(tmp_path / PULSE)
    assert rise % NS == NS * 3 // 4
    assert fall % NS == NS * 17 // 20
    assert transitions == asserts + clears
    assert rise <= time.time_ns()  # a kernel stamps nothing before it happens


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told(simulator: subprocess.Popen[str], tmp_path: Path, number: signal.Signals) -> None:
    """A signal ends it with exit code 0; the tty is gone, the pulse file stays for those who have it mapped."""
    end = time.monotonic() + PATIENCE_S
    while not words(tmp_path / PULSE)[0]:  # it says that it is ready a moment before it listens to signals
        assert time.monotonic() < end
        time.sleep(0.05)
    simulator.send_signal(number)
    assert simulator.wait(PATIENCE_S) == 0
    assert not (tmp_path / TTY).is_symlink()
    assert (tmp_path / PULSE).exists()


def test_the_environment_names_both_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library exists, the paths are absolute, what was preloaded before stays in front; a path with a separator is refused."""
    monkeypatch.setenv("LD_PRELOAD", "libfirst.so")
    environment = preload_environment(tmp_path)
    first, library = environment["LD_PRELOAD"].split()
    assert first == "libfirst.so"
    assert Path(library).is_file()
    assert environment["REFCLOCK_FAKE_PPS"] == f"/dev/pps-sim0={tmp_path / PULSE}"
    assert environment["REFCLOCK_FAKE_TTY"] == f"{tmp_path / TTY}={tmp_path / PULSE}"
    with pytest.raises(ValueError, match="cannot be simulated"):
        preload_environment(tmp_path / "a:b")
