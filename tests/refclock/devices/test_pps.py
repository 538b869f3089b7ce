"""The pulse thread, with a scripted device in the kernel's place."""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import refclock.devices.pps
from refclock.devices.pps import PpsThread, failure, refusal
from refclock.kernel.clocks import LocalClock
from refclock.kernel.pps import PpsEvent
from refclock.sample import NS, EdgeKind

pytestmark = [pytest.mark.device, pytest.mark.realtime]

START = PpsEvent(41, 1, 7, 1)
"""What the device has captured before we open it."""


class ScriptedDevice:
    """A PpsDevice whose fetches a test answers: an event, None (time-out) or an OSError."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.can_wait = True
        self.closed = threading.Event()
        self.script: queue.Queue[PpsEvent | OSError | None] = queue.Queue()
        self.latest = START

    def fetch(self, timeout_s: float | None) -> PpsEvent | None:
        if timeout_s == 0 and self.script.empty():
            return self.latest
        try:
            answer = self.script.get(timeout=0.02)
        except queue.Empty:
            return None
        if isinstance(answer, OSError):
            raise answer
        if answer is not None:
            self.latest = answer
        return answer

    def close(self) -> None:
        self.closed.set()


class Bench:
    """A thread on a scripted device, and a count of its wakes."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wakes = threading.Semaphore(0)
        self.devices: list[ScriptedDevice] = []
        monkeypatch.setattr(refclock.devices.pps, "PpsDevice", self._open)
        self.clock = LocalClock()
        self.thread = PpsThread(str(path), self.clock, self.wakes.release)
        self.device = self.devices[0]

    def _open(self, path: str) -> ScriptedDevice:
        self.devices.append(ScriptedDevice(path))
        return self.devices[-1]

    def woken(self) -> bool:
        return self.wakes.acquire(timeout=10)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path / "pps0", monkeypatch)
    yield made
    made.thread.stop()
    assert made.device.closed.is_set()


def test_new_edges_become_instants_in_order_of_time(bench: Bench) -> None:
    """Each new sequence of either kind is one edge, stamped as the kernel did; what was captured before the start is nobody's."""
    time.sleep(0.01)  # stamps from before the clock's first reading cannot be placed
    clear = bench.clock.now().real_ns - 1_000_000
    edge = clear - 1_000_000
    bench.device.script.put(replace(START, assert_sequence=42, assert_real_ns=edge, clear_sequence=8, clear_real_ns=clear))
    assert bench.woken()
    first, second = bench.thread.take()
    assert (first.kind, first.sequence, first.at.real_ns) == (EdgeKind.ASSERT, 42, edge)
    assert (second.kind, second.sequence, second.at.real_ns) == (EdgeKind.CLEAR, 8, clear)
    assert second.at.mono_ns - first.at.mono_ns == pytest.approx(1_000_000, abs=100_000)
    bench.device.script.put(None)
    later = bench.clock.now().real_ns
    bench.device.script.put(replace(bench.device.latest, clear_sequence=9, clear_real_ns=later))
    assert bench.woken()
    assert [(e.kind, e.sequence) for e in bench.thread.take()] == [(EdgeKind.CLEAR, 9)]
    assert bench.thread.take() == []
    assert bench.thread.error == ""


def test_a_stamp_that_cannot_be_placed_is_counted(bench: Bench) -> None:
    """An edge an hour away (the clock was stepped) gives no Instant and is not lost in silence."""
    stamp = bench.clock.now().real_ns + 3600 * NS
    bench.device.script.put(replace(START, assert_sequence=42, assert_real_ns=stamp))
    assert bench.woken()
    assert bench.thread.take() == []
    assert bench.thread.unplaced == 1


def test_a_device_that_cannot_wait_is_polled(bench: Bench) -> None:
    """Without PPS_CANWAIT fetches do not block, and an edge is found all the same, once."""
    bench.device.can_wait = False
    stamp = bench.clock.now().real_ns
    bench.device.script.put(replace(START, assert_sequence=42, assert_real_ns=stamp))
    assert bench.woken()
    assert len(bench.thread.take()) == 1
    time.sleep(0.2)
    assert bench.thread.take() == []


def test_a_failure_ends_the_thread_with_a_sentence(bench: Bench) -> None:
    """The shell is woken and told what to do; the device is closed."""
    bench.device.script.put(OSError(errno.ENODEV, "gone"))
    assert bench.woken()
    assert "plug the receiver in" in bench.thread.error
    assert bench.device.closed.wait(10)


def test_a_device_node_that_vanishes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel lets an orphaned source fall silent; the missing node tells."""
    node = tmp_path / "pps0"
    node.touch()
    bench = Bench(node, monkeypatch)
    node.unlink()
    assert bench.woken()
    assert "device is gone" in bench.thread.error
    bench.thread.stop()


@pytest.mark.parametrize(("name", "word"), [("ktimer", "own timer"), ("ptp0", "network card"), ("serial0", ""), ("pps@12.-1", "")])
def test_sources_that_are_no_receiver_are_refused_by_name(tmp_path: Path, name: str, word: str) -> None:
    """ktimer ticks with the system clock and ptp is a network card; a receiver's source, and one without a name, may be used."""
    (tmp_path / "pps3").mkdir()
    (tmp_path / "pps3" / "name").write_text(name + "\n")
    reason = refusal("/dev/pps3", tmp_path)
    assert (word in reason) if word else (reason == "")
    assert refusal("/dev/pps-sim0", tmp_path) == ""


def test_an_absent_device_is_told_with_the_missing_line() -> None:
    """Opening a device that is not there says which line of the boot configuration makes one."""
    with pytest.raises(OSError, match="dtoverlay=pps-gpio") as caught:
        PpsThread("/dev/pps-none", LocalClock(), lambda: None)
    assert caught.value.errno == errno.ENOENT
    assert 'SUBSYSTEM=="pps"' in str(failure("/dev/pps0", OSError(errno.EACCES, "denied")))
    assert "CAP_SYS_TIME" in str(failure("/dev/pps0", OSError(errno.EPERM, "not permitted")))
