"""Serial lines on pseudo-terminals, the search for the speed, and what people are told when a line cannot be had."""

from __future__ import annotations

import errno
import os
import pty
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from refclock.devices.serial_port import SerialPort, failure, open_port
from refclock.kernel.clocks import LocalClock
from refclock.protocols.framing import Tally
from refclock.receiver.autobaud import DWELL_NS, SEARCH_BAUDS, SILENCE_NS, BaudSearch
from refclock.sample import NS

pytestmark = pytest.mark.device


@pytest.fixture
def line(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """(receiver's end, path of a symlink to ours)."""
    receiver, ours = pty.openpty()
    link = tmp_path / "gps0"
    link.symlink_to(os.ttyname(ours))
    os.close(ours)
    yield receiver, str(link)
    try:
        os.close(receiver)
    except OSError as e:
        assert e.errno == errno.EBADF  # the test hung up


def test_bytes_arrive_unchanged_with_a_stamp(line: tuple[int, str]) -> None:
    """All 256 values pass as they are, nothing is echoed, and the stamp lies between sending and now."""
    receiver, path = line
    clock = LocalClock()
    port = SerialPort(path, 38400, clock)
    assert (port.baud, port.byte_ns) == (38400, 260_416)
    assert port.read()[0] == b""
    before = clock.now()
    every = bytes(range(256))
    os.write(receiver, every)
    data = b""
    while len(data) < 256:
        assert select.select([port], [], [], 5)[0]
        more, at = port.read()
        data += more
    assert data == every
    assert before.mono_ns <= at.mono_ns <= clock.now().mono_ns
    assert select.select([receiver], [], [], 0)[0] == []
    assert port.write(b"\xb5\x62") == 2
    assert os.read(receiver, 10) == b"\xb5\x62"
    port.close()


def test_a_line_that_hangs_up_says_so(line: tuple[int, str]) -> None:
    """Bytes sent before are read or lost, but then a sentence comes instead of an endless silence."""
    receiver, path = line
    port = SerialPort(path, 0, LocalClock())
    os.close(receiver)
    assert select.select([port], [], [], 5)[0]
    with pytest.raises(OSError, match="plug it in"):
        port.read()
    port.close()


def test_the_speed_can_be_changed(line: tuple[int, str]) -> None:
    """The new speed gives the new byte time; an open line goes on without blocking, and a speed that does not exist is refused."""
    _, path = line
    port = SerialPort(path, 0, LocalClock())
    assert port.byte_ns == 1_041_666
    port.set_baud(115200)
    assert (port.baud, port.byte_ns) == (115200, 86_805)
    assert port.read()[0] == b""
    with pytest.raises(OSError):
        port.set_baud(-1)
    port.close()


def test_a_busy_line_names_its_holder(line: tuple[int, str]) -> None:
    """A second opening is refused and told who has it."""
    _, path = line
    first = SerialPort(path, 9600, LocalClock())
    with pytest.raises(OSError, match=rf"\(pid {os.getpid()}\) has it open") as caught:
        SerialPort(path, 9600, LocalClock())
    assert caught.value.errno in (errno.EBUSY, errno.EAGAIN)
    first.close()


def test_absent_and_wrong_devices_are_told_in_words(tmp_path: Path) -> None:
    """No such device: what was looked for; a file that is no tty: so."""
    with pytest.raises(OSError, match=r"no such device; (found instead|looked for)"):
        SerialPort(str(tmp_path / "ttyUSB9"), 9600, LocalClock())
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        SerialPort(str(tmp_path / "file"), 9600, LocalClock())


def test_denied_access_names_the_group(tmp_path: Path) -> None:
    """The group that the device belongs to is in the advice; a device that is gone by then falls back to Debian's."""
    denied = OSError(errno.EACCES, "denied")
    assert "group dialout: usermod -aG dialout" in str(failure(str(tmp_path / "gone"), denied))
    device = tmp_path / "tty"
    device.touch()
    if device.stat().st_gid == 0:
        assert "getty" in str(failure(str(device), denied))


def test_the_search_walks_all_speeds_then_slows_down() -> None:
    """Without a valid frame each speed gets 1.2 s, in the next round twice that; it comes round to the first again."""
    search = BaudSearch(0)
    now, seen = 0, [search.baud]
    while len(seen) < len(SEARCH_BAUDS) + 1:
        assert search.heard(Tally(0, 0, 0), now + DWELL_NS - 1) is None
        now += DWELL_NS
        assert search.heard(Tally(0, 0, 0), now) == search.baud
        seen.append(search.baud)
    assert seen == [*SEARCH_BAUDS, SEARCH_BAUDS[0]]
    assert search.deadline_ns == now + 2 * DWELL_NS


def test_the_search_stays_where_frames_are_valid_and_leaves_when_they_end() -> None:
    """A valid frame holds the speed; 10 s without one resume the search at the usual speeds, with the short dwell."""
    search = BaudSearch(0)
    search.heard(Tally(0, 0, 0), DWELL_NS)
    assert search.baud == 115200
    for second in range(2, 20):
        assert search.heard(Tally(0, 0, second), second * NS) is None
    assert search.found
    assert search.heard(Tally(0, 0, 19), 19 * NS + SILENCE_NS - 1) is None
    assert search.heard(Tally(0, 0, 19), 19 * NS + SILENCE_NS) == 9600
    assert search.deadline_ns == 19 * NS + SILENCE_NS + DWELL_NS


@pytest.mark.parametrize("name", ["gnss0", "receiver", "ttyUSB0"])
def test_a_device_without_terminal_calls_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    """A FIFO stands for /dev/gnss0: bytes arrive with a stamp, a silent line hangs up never, nothing comes back of what is written, and a
    speed means nothing."""
    path, clock = tmp_path / name, LocalClock()
    os.mkfifo(path)
    port = open_port(str(path), 9600, clock)
    assert (port.baud, port.byte_ns) == (0, 0)
    for data in (b"$GNRMC", bytes(range(256))):
        with path.open("wb", buffering=0) as receiver:
            before = clock.now()
            receiver.write(data)
        assert select.select([port], [], [], 5)[0]
        came, at = port.read()
        assert came == data
        assert before.mono_ns <= at.mono_ns <= clock.now().mono_ns
        port.set_baud(115200)
        assert port.write(b"\xb5\x62") == 0
        assert port.read()[0] == b""
    with pytest.raises(OSError, match=rf"\(pid {os.getpid()}\) has it open"):
        open_port(str(path), 9600, clock)
    port.close()


def test_a_character_device_is_written_where_its_driver_allows(tmp_path: Path) -> None:
    """/dev/null takes what is written, and its end of file is told as a line that hung up."""
    port = open_port("/dev/null", 9600, LocalClock())
    assert (port.baud, port.byte_ns, port.write(b"abc")) == (0, 0, 3)
    with pytest.raises(OSError, match="plug it in"):
        port.read()
    port.close()
    with pytest.raises(OSError, match="no such device"):
        open_port(str(tmp_path / "gnss0"), 9600, LocalClock())


def test_a_terminal_is_opened_as_one(line: tuple[int, str]) -> None:
    """Whatever the name that leads to it."""
    port = open_port(line[1], 38400, LocalClock())
    assert isinstance(port, SerialPort)
    assert port.baud == 38400
    port.close()
