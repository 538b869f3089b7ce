"""Intake: samples of other programs, whatever they send."""

from __future__ import annotations

import ctypes
import errno
import math
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refclock.exchange import shm
from refclock.exchange.samples import RawSample, SampleReject
from refclock.exchange.shm import SILENT_READS, ShmFeedWriter, ShmIntake, ShmSegment
from refclock.exchange.sock import DATAGRAMS, SOCK_32, SOCK_64, SOCK_MAGIC, SockFeedWriter, SockIntake, parse_sock
from refclock.kernel._kernel import lib
from refclock.sample import NS, Instant, Leap

pytestmark = pytest.mark.device

SECOND = 1_795_237_841
AT = Instant(SECOND * NS + 123_456_000, 5 * NS)


def datagram(
    layout: struct.Struct = SOCK_64,
    *,
    us: int = 0,
    offset: float = 0.0,
    pulse: int = 0,
    leap: int = 0,
    magic: int = SOCK_MAGIC,
    seconds: int = SECOND,
) -> bytes:
    return layout.pack(seconds, us, offset, pulse, leap, 0, magic)


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[SockIntake]:
    made = SockIntake(str(tmp_path / "in.sock"))
    yield made
    made.close()


@pytest.mark.parametrize("wide", [True, False])
def test_what_the_feed_writes_the_intake_reads(intake: SockIntake, wide: bool) -> None:
    """Both layouts arrive with stamp, offset, sign and leap intact."""
    writer = SockFeedWriter(intake.path, wide=wide)
    writer.send(AT, -250_000_001, 0, Leap.DELETE)
    writer.close()
    assert intake.read() == [RawSample(AT.real_ns, -250_000_001, Leap.DELETE)]
    assert intake.read() == []
    assert intake.received == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", SampleReject.SIZE),
        (datagram() + b"x", SampleReject.SIZE),
        (datagram(magic=1), SampleReject.MAGIC),
        (datagram(us=1_000_000), SampleReject.STAMP),
        (datagram(us=-1), SampleReject.STAMP),
        (datagram(seconds=-1), SampleReject.STAMP),
        (datagram(seconds=1 << 62), SampleReject.STAMP),
        (datagram(offset=math.nan), SampleReject.NOT_FINITE),
        (datagram(offset=-math.inf), SampleReject.NOT_FINITE),
        (datagram(offset=1e300), SampleReject.RANGE),
        (datagram(offset=-float(SECOND)), SampleReject.RANGE),
        (datagram(offset=0.6, pulse=1), SampleReject.RANGE),
        (datagram(leap=4), SampleReject.LEAP),
        (datagram(SOCK_32, leap=-1), SampleReject.LEAP),
    ],
)
def test_nonsense_is_counted_by_reason(intake: SockIntake, data: bytes, reason: SampleReject) -> None:
    """Each kind of bad datagram has its reason, and a good one after it is read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, intake.path)
        sender.sendto(datagram(offset=0.25, pulse=1), intake.path)
    assert intake.read() == [RawSample(SECOND * NS, NS // 4, Leap.NORMAL, pulse=True)]
    assert intake.rejected == {reason: 1}


@given(st.one_of(st.binary(max_size=64), st.binary(min_size=36, max_size=36).map(lambda b: b + struct.pack("=i", SOCK_MAGIC))))
def test_no_datagram_raises(data: bytes) -> None:
    """Any bytes give a sample within bounds or a reason."""
    found = parse_sock(data)
    if isinstance(found, RawSample):
        assert 0 <= found.real_ns < 1 << 63
        assert abs(found.offset_ns) < 1 << 63


def test_a_host_that_starts_in_1970_is_told_the_time() -> None:
    """An offset of decades is good when it leads to a possible time."""
    found = parse_sock(datagram(seconds=100, offset=float(SECOND)))
    assert found == RawSample(100 * NS, SECOND * NS, Leap.NORMAL)


def test_a_flood_is_read_in_parts(intake: SockIntake) -> None:
    """One call reads a bounded number of datagrams; the next goes on."""
    sent = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        try:
            while sent < DATAGRAMS + 5:
                sender.sendto(datagram(), intake.path)
                sent += 1
        except BlockingIOError:
            pass  # the kernel's queue (net.unix.max_dgram_qlen) may be shorter
    first = len(intake.read())
    assert first == min(sent, DATAGRAMS)
    assert first + len(intake.read()) == sent


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    """After a crash the name is taken over; the mode lets owner and group send."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    intake = SockIntake(str(path))
    assert path.stat().st_mode & 0o777 == 0o660
    intake.close()
    assert not path.exists()


def test_what_is_alive_or_no_socket_is_left_alone(tmp_path: Path) -> None:
    """Another listener, a file, a link and a missing directory are refused in words, and nothing is removed."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as alive:
        alive.bind(str(path))
        with pytest.raises(OSError, match="in use") as caught:
            SockIntake(str(path))
        assert caught.value.errno == errno.EADDRINUSE
        (tmp_path / "link").symlink_to(path)
        with pytest.raises(OSError, match="not a socket"):
            SockIntake(str(tmp_path / "link"))
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match="not a socket"):
        SockIntake(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(OSError, match="create its directory"):
        SockIntake(str(tmp_path / "none" / "s"))


def test_a_name_that_another_took_is_not_removed(tmp_path: Path) -> None:
    """Closing leaves a successor's socket alone."""
    first = SockIntake(str(tmp_path / "s"))
    (tmp_path / "s").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as successor:
        successor.bind(str(tmp_path / "s"))
        first.close()
        assert (tmp_path / "s").exists()


@pytest.fixture
def unit() -> Iterator[int]:
    """A shared memory unit that nobody has, removed afterwards."""
    for number in range(100 + os.getpid() % 100, 256):
        try:
            ShmSegment(number).close()
        except FileNotFoundError:
            break
    else:
        raise AssertionError("no free shared memory unit")
    yield number
    remove(number)


def remove(unit: int) -> None:
    subprocess.run(["ipcrm", "-M", hex(0x4E545030 + unit)], check=False, capture_output=True)


def test_shared_memory_may_come_go_and_come_back(unit: int) -> None:
    """Absent: nothing, with the reason. Written: one sample, once, with the precision as uncertainty. Removed and made anew: the next,
    within the reads that may be silent."""
    intake, writer = ShmIntake(unit), ShmFeedWriter(unit)
    assert intake.read() == []
    assert "not created" in intake.why
    for _ in range(2):
        writer.send(AT, 12_345, 900, Leap.INSERT)
        assert next(filter(None, (intake.read() for _ in range(SILENT_READS + 2)))) == [
            RawSample(AT.real_ns, 12_345, Leap.INSERT, False, 954)
        ]
        assert (intake.read(), intake.why) == ([], "")
        remove(unit)
        assert intake.read() == []
    writer.send(Instant(100 * NS, 0), 0, 0, Leap.NORMAL)
    assert not any(intake.read() for _ in range(SILENT_READS + 2))
    assert intake.rejected == {SampleReject.RANGE: 1}
    assert (intake.received, writer.status().sent) == (2, 3)


def test_a_segment_can_be_looked_at_while_another_program_reads_it(unit: int) -> None:
    """Shared with chronyd: each sample comes once, whether chronyd took it before or will take it after, and chronyd gets every one. What
    is half written is no sample: only what two looks have seen."""
    writer, chronyd = ShmFeedWriter(unit), ShmIntake(unit)
    writer.send(AT, 11, 900, Leap.NORMAL)
    beside = ShmIntake(unit, shared=True)
    assert beside.read() == []
    assert [sample.offset_ns for sample in beside.read()] == [11]
    assert [sample.offset_ns for sample in chronyd.read()] == [11]
    assert beside.read() == []
    writer.send(AT, 12, 900, Leap.NORMAL)
    assert [sample.offset_ns for sample in chronyd.read()] == [12]
    assert [[sample.offset_ns for sample in beside.read()] for _ in range(3)] == [[], [12], []]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a segment away")
@pytest.mark.parametrize("maker", ["by another user", "by root, and given away"])
def test_a_segment_of_another_user_is_not_believed(unit: int, maker: str) -> None:
    """Any user can make a segment of that number and name an hour of his own: it is refused, with his name's remedy, unless he is named."""
    child = os.fork()
    if child == 0:
        if maker == "by another user":
            os.setuid(12345)
        ShmFeedWriter(unit).send(AT, 3600 * NS, 900, Leap.NORMAL)
        os._exit(0)
    os.waitpid(child, 0)
    if maker != "by another user":
        _give_away(unit, 12345)
    intake = ShmIntake(unit)
    assert [intake.read() for _ in range(3)] == [[], [], []]
    assert "another user owns it" in intake.why
    assert "owner = " in intake.why
    assert [sample.offset_ns for sample in ShmIntake(unit, owner="12345").read()] == [3600 * NS]
    assert ShmIntake(unit, owner="54321").read() == []


def _give_away(unit: int, owner: int) -> None:
    """shmctl(IPC_SET) on the segment's struct shmid_ds, whose first fields are key, uid and gid (sys/shm.h)."""
    libc = ctypes.CDLL(None, use_errno=True)
    number, room = libc.shmget(0x4E545030 + unit, 0, 0), ctypes.create_string_buffer(256)
    assert libc.shmctl(number, 2, room) == 0  # IPC_STAT
    struct.pack_into("=I", room, 4, owner)
    assert libc.shmctl(number, 1, room) == 0  # IPC_SET


def test_a_sample_lost_to_a_clash_is_counted_and_the_next_one_comes(unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read while the writer writes gives no sample, is counted as a clash, and leaves the segment attached for the next."""
    intake, writer = ShmIntake(unit), ShmFeedWriter(unit)
    writer.send(AT, 12_345, 900, Leap.NORMAL)
    with monkeypatch.context() as busy:
        busy.setattr(shm, "lib", SimpleNamespace(shm_attach=lib.shm_attach, shm_read=lambda *_: -errno.EAGAIN))
        assert intake.read() == []
    assert (intake.rejected, intake.why) == ({SampleReject.CLASH: 1}, "")
    assert [sample.offset_ns for sample in intake.read()] == [12_345]
    intake.close()
