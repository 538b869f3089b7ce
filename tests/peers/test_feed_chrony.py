"""Feeds and the real chronyd: what we send is what it measures, and its restarts cost nothing but the time that it was away."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from refclock.exchange.shm import ShmFeedWriter, ShmSegment
from refclock.exchange.sock import SockFeedWriter
from refclock.kernel.clocks import LocalClock
from refclock.sample import Leap

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="chronyd takes samples from root only")
SOCK_OFFSET_NS = 10_000_123
SHM_OFFSET_NS = -20_000_456
PATIENCE_S = 30.0


class Chronyd:
    """chronyd without a clock to steer, a port or a command port, in a directory of its own."""

    def __init__(self, directory: Path, unit: int) -> None:
        self.socket = directory / "feed.sock"
        self.log = directory / "refclocks.log"
        self._conf = directory / "chrony.conf"
        self._conf.write_text(
            f"port 0\ncmdport 0\nbindcmdaddress {directory}/cmd.sock\npidfile {directory}/chronyd.pid\n"
            f"refclock SOCK {self.socket} refid SOCK poll 0\nrefclock SHM {unit} refid SHMF poll 0\n"
            f"logdir {directory}\nlog refclocks\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(["chronyd", "-x", "-d", "-u", "root", "-f", str(self._conf)], stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def offsets_ns(self, refid: str) -> list[int]:
        """Raw offsets of that refclock in its log (chrony.conf(5), log refclocks: fields 3 and 7)."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = [line.split() for line in lines if f" {refid} " in line]
        return [round(float(f[6]) * 1e9) for f in found if f[6] != "-"]


@pytest.fixture
def unit() -> Iterator[int]:
    """A shared memory unit that nobody has, removed afterwards."""
    for number in range(17, 256):
        try:
            ShmSegment(number).close()
        except FileNotFoundError:
            yield number
            subprocess.run(["ipcrm", "-M", hex(0x4E545030 + number)], check=False, capture_output=True)
            return
    raise AssertionError("no free shared memory unit")


@pytest.fixture
def chronyd(tmp_path: Path, unit: int) -> Iterator[Chronyd]:
    tmp_path.chmod(0o750)
    made = Chronyd(tmp_path, unit)
    yield made
    made.kill()


@pytest.mark.slow
def test_chronyd_measures_what_we_send_before_and_after_its_restart(chronyd: Chronyd, unit: int) -> None:
    """Writers that start first wait; chronyd then logs our offsets with our sign, to the last digit of its log; killed and started
    again it does so within 3 s of making its socket."""
    clock = LocalClock()
    sock, shm = SockFeedWriter(str(chronyd.socket)), ShmFeedWriter(unit)

    def feed_until_logged(refid: str, count: int) -> float:
        """Seconds from the moment the socket took our samples until ``count`` lines."""
        taken = None
        deadline = time.monotonic() + PATIENCE_S
        while len(chronyd.offsets_ns(refid)) < count:
            assert time.monotonic() < deadline, (refid, sock.status(), shm.status())
            sock.send(clock.now(), SOCK_OFFSET_NS, 0, Leap.NORMAL)
            shm.send(clock.now(), SHM_OFFSET_NS, 1000, Leap.NORMAL)
            if taken is None and sock.state == "sending":
                taken = time.monotonic()
            time.sleep(0.5)
        return time.monotonic() - (taken or 0.0)

    sock.send(clock.now(), SOCK_OFFSET_NS, 0, Leap.NORMAL)
    assert sock.state == "absent"
    chronyd.start()
    feed_until_logged("SOCK", 3)
    feed_until_logged("SHMF", 2)
    assert (sock.state, shm.state) == ("sending", "sending")

    chronyd.kill()
    before = {refid: len(chronyd.offsets_ns(refid)) for refid in ("SOCK", "SHMF")}
    sock.send(clock.now(), SOCK_OFFSET_NS, 0, Leap.NORMAL)
    assert sock.state == "absent"
    chronyd.start()
    assert feed_until_logged("SOCK", before["SOCK"] + 1) <= 3.0
    feed_until_logged("SHMF", before["SHMF"] + 2)

    assert all(abs(offset - SOCK_OFFSET_NS) <= 10 for offset in chronyd.offsets_ns("SOCK"))
    assert all(abs(offset - SHM_OFFSET_NS) <= 10 for offset in chronyd.offsets_ns("SHMF"))
    sock.close()
    shm.close()
