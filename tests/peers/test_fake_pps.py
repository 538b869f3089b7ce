"""The pretended /dev/ppsN, as programs see it that know nothing of it: ppstest, chronyd, and plain ioctls."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from refclock_sim.ports.device import preload_environment
from refclock_sim.ports.pulse_file import PulseFile

from refclock.sample import NS, EdgeKind

if TYPE_CHECKING:
    from conftest import Processes


LATE_NS = 200_000
WIDTH_NS = 100_000_000
DEVICE = "/dev/pps-sim0"


def wait_for(what: str, look: Callable[[], list[Any]], seconds: float) -> list[Any]:
    """What ``look`` returns as soon as it is not empty."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


@pytest.fixture
def pulses(tmp_path: Path) -> Iterator[PulseFile]:
    """A line that pulses at each second of this machine's clock, every stamp exactly LATE_NS late."""
    ending = threading.Event()
    line = PulseFile(tmp_path / "pps0.shm")

    def pulse() -> None:
        while True:
            second = time.time_ns() // NS + 1
            for kind, at in ((EdgeKind.ASSERT, second * NS + LATE_NS), (EdgeKind.CLEAR, second * NS + LATE_NS + WIDTH_NS)):
                if ending.wait(max(0, at - time.time_ns()) / NS):
                    return
                line.edge(kind, at)

    thread = threading.Thread(target=pulse)
    thread.start()
    yield line
    ending.set()
    thread.join()
    line.close()


def test_ppstest_sees_every_edge(processes: Processes, pulses: PulseFile, tmp_path: Path) -> None:
    """ppstest finds the device, and prints assert and clear with the written stamps and sequence numbers that go up by one."""
    processes.start("ppstest", ["stdbuf", "-oL", "ppstest", DEVICE], **preload_environment(tmp_path))
    line = re.compile(r"assert (\d+)\.(\d{9}), sequence: (\d+) - clear +(\d+)\.(\d{9}), sequence: (\d+)")

    def look() -> list[list[int]]:
        found = [[int(number) for number in m] for m in line.findall(processes.output("ppstest"))]
        return found if found and found[-1][2] - found[0][2] >= 2 else []

    seen = wait_for("three pulses", look, 15)
    assert "found PPS source" in processes.output("ppstest")
    for before, after in itertools.pairwise(seen):
        assert after[2] - before[2] + after[5] - before[5] >= 1
        assert after[1] == LATE_NS
        assert after[4] in (LATE_NS + WIDTH_NS, 0)


def test_chronyd_measures_the_offset(processes: Processes, pulses: PulseFile, tmp_path: Path) -> None:
    """chronyd takes a sample of each pulse, and its offset is minus the stamp's lateness, to the nanosecond."""
    config = tmp_path / "chrony.conf"
    paths = f"pidfile {tmp_path}/chronyd.pid\nbindcmdaddress /\nlogdir {tmp_path}\nlog refclocks\n"
    config.write_text(f"refclock PPS {DEVICE} refid PPS local poll 0 dpoll 0\nport 0\ncmdport 0\n{paths}")
    processes.start("chronyd", ["chronyd", "-x", "-d", "-u", "root", "-f", str(config)], **preload_environment(tmp_path))
    log = tmp_path / "refclocks.log"

    def look() -> list[float]:
        rows = [row.split() for row in log.read_text().splitlines()] if log.exists() else []
        # date, time, refid, number of the sample in this poll, leap, pulsed, raw offset, cooked offset, dispersion: chrony.conf(5)
        raw = [float(row[6]) for row in rows if len(row) == 9 and row[2] == "PPS" and row[6] != "-"]
        return raw if len(raw) >= 3 else []

    offsets = wait_for("three samples", look, 20)
    assert offsets == pytest.approx([-LATE_NS / NS] * len(offsets), abs=2e-9)


PROBE = """
import errno, fcntl, os, signal, struct, sys, threading, time
from pathlib import Path
from refclock.sample import EdgeKind
from refclock_sim.ports.pulse_file import CAN_WAIT, PulseFile

GETPARAMS, SETPARAMS, GETCAP, FETCH = 0x800870A1, 0x400870A2, 0x800870A3, 0xC00870A4  # <linux/pps.h>, 64 bit
INVALID = 1
line = PulseFile(Path(sys.argv[1]) / "pps0.shm")

def later(seconds, action, *arguments):
    threading.Timer(seconds, action, arguments).start()

def fetch(fd, seconds=0.0, flags=0):
    '''(assert sequence, clear sequence, assert ns, clear ns), or the errno's name'''
    data = bytearray(struct.pack("=48xqiI", int(seconds), int(seconds % 1 * 1e9), flags))
    try:
        fcntl.ioctl(fd, FETCH, data)
    except OSError as e:
        return errno.errorcode[e.errno]
    a, c, a_s, a_ns, c_s, c_ns = struct.unpack_from("=IIqi4xqi4x", data)
    return a, c, a_s * 10**9 + a_ns, c_s * 10**9 + c_ns

def refused(call, *arguments):
    try:
        call(*arguments)
    except OSError as e:
        return e.errno
"""


def probe(directory: Path, body: str) -> None:
    """Run ``body`` (after PROBE) as a program of its own that sees the pretended device; it fails by raising."""
    program = [sys.executable, "-c", PROBE + textwrap.dedent(body), str(directory)]
    environment = {"PYTHONPATH": ":".join(p for p in sys.path if p), **preload_environment(directory)}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_fetch_waits_for_the_next_edge(tmp_path: Path) -> None:
    """As the kernel's: timeout zero reads the last edges at once, any other waits for an edge after the call, or ends in ETIMEDOUT."""
    probe(
        tmp_path,
        """
        fd = os.open("/dev/pps-sim0", os.O_RDWR)
        assert fetch(fd) == (0, 0, 0, 0)
        line.edge(EdgeKind.ASSERT, 1_700_000_000_000_000_123)
        assert fetch(fd) == (1, 0, 1_700_000_000_000_000_123, 0)
        assert fetch(fd, 0.05) == "ETIMEDOUT"
        later(0.1, line.edge, EdgeKind.CLEAR, 1_700_000_000_100_000_456)
        assert fetch(fd, 10) == (1, 1, 1_700_000_000_000_000_123, 1_700_000_000_100_000_456)
        later(0.1, line.edge, EdgeKind.ASSERT, -1)
        assert fetch(fd, 0, INVALID)[0::2] == (2, -1)
        """,
    )


def test_every_waiting_thread_wakes(tmp_path: Path) -> None:
    """Several threads that wait on descriptors of their own, and on a shared one, all get the same edge."""
    probe(
        tmp_path,
        """
        fds = [os.open("/dev/pps-sim0", os.O_RDWR) for _ in range(3)]
        got = []
        threads = [threading.Thread(target=lambda fd=fd: got.append(fetch(fd, 10))) for fd in (*fds, fds[0])]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        line.edge(EdgeKind.ASSERT, 5)
        for thread in threads:
            thread.join()
        assert got == [(1, 0, 5, 0)] * 4, got
        """,
    )


def test_a_signal_ends_the_wait(tmp_path: Path) -> None:
    """A handled signal ends a wait for ever with EINTR: shown by the handler's exception coming through."""
    probe(
        tmp_path,
        """
        class Rang(Exception):
            pass
        def ring(*_):
            raise Rang
        signal.signal(signal.SIGALRM, ring)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            fetch(os.open("/dev/pps-sim0", os.O_RDWR), 0, INVALID)
        except Rang:
            pass
        else:
            raise AssertionError("the signal went unnoticed")
        """,
    )


def test_faults_on_demand(tmp_path: Path) -> None:
    """Errors of open, PPS_SETPARAMS and PPS_FETCH, a source that cannot wait, and one that captures a single kind of edge."""
    probe(
        tmp_path,
        """
        line.fail_open(errno.EACCES)
        assert refused(os.open, "/dev/pps-sim0", os.O_RDWR) == errno.EACCES
        line.fail_open(0)
        fd = os.open("/dev/pps-sim0", os.O_RDWR)

        line.fail_fetch(errno.EIO, 2)
        assert [fetch(fd), fetch(fd), fetch(fd)] == ["EIO", "EIO", (0, 0, 0, 0)]
        later(0.1, line.fail_fetch, errno.ENODEV, 1)
        assert fetch(fd, 10) == "ENODEV"

        params = bytearray(40)
        fcntl.ioctl(fd, GETPARAMS, params)
        assert struct.unpack_from("=i", params) == (1,)
        params[4:8] = struct.pack("=i", 0x01)
        line.fail_set_params()
        assert refused(fcntl.ioctl, fd, SETPARAMS, params) == errno.EPERM
        line.fail_set_params(0)
        fcntl.ioctl(fd, SETPARAMS, params)
        line.edge(EdgeKind.ASSERT, 7)
        line.edge(EdgeKind.CLEAR, 8)
        assert fetch(fd) == (1, 0, 7, 0)

        line.withhold(CAN_WAIT)
        capabilities = bytearray(4)
        fcntl.ioctl(fd, GETCAP, capabilities)
        assert not int.from_bytes(capabilities, sys.byteorder) & CAN_WAIT
        assert (fetch(fd, 0.1), fetch(fd)) == (errno.errorcode[errno.EOPNOTSUPP], (1, 0, 7, 0))
        """,
    )


def test_only_the_named_path_is_pretended(tmp_path: Path) -> None:
    """The device looks like one to stat and access; the shared file, other files and other descriptors are left alone."""
    probe(
        tmp_path,
        """
        import stat
        found = os.stat("/dev/pps-sim0")
        assert stat.S_ISCHR(found.st_mode) and found.st_size == 0
        assert os.access("/dev/pps-sim0", os.R_OK | os.W_OK)
        assert not os.path.exists("/dev/pps-sim1")
        other = Path(sys.argv[1]) / "other"
        other.write_text("text")
        assert stat.S_ISREG(other.stat().st_mode) and other.read_text() == "text"
        assert fetch(os.open(other, os.O_RDWR)) == "ENOTTY"
        fd = os.open("/dev/pps-sim0", os.O_RDWR)
        copy = os.dup(fd)
        os.close(fd)
        fd = os.open(other, os.O_RDWR)
        assert (fetch(fd), fetch(copy)) == ("ENOTTY", (0, 0, 0, 0))
        """,
    )
