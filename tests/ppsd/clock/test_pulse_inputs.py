"""devices.PulseInputs: pulse devices come, fail and come again, and what is told of it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import ppsd.clock.pulses
from ppsd.clock.pulses import PulseInputs
from ppsd.discipline.events import Pulsed, PulseFound
from refclock.config import ReceiverSource, SockSource
from refclock.devices.pps import BY_KERNEL, EdgeQueue
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.sample import NS, Edge, EdgeKind


class Wire(EdgeQueue):
    """A pulse device in the machine's place."""

    def __init__(self) -> None:
        super().__init__()
        self.error = ""
        self.stamping = BY_KERNEL
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


def test_a_pulse_device_comes_fails_and_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing: told once, tried again after a pause. There: how it stamps is an event, and so is each edge. Gone: told, tried again."""
    said: list[tuple[str, str]] = []
    wires: list[Wire | OSError] = [OSError(errno.ENOENT, "there is no such device"), Wire(), Wire()]
    clock = LocalClock()

    def opened(path: str, *_: object) -> Wire:
        assert path == "/dev/pps3"
        wire = wires.pop(0)
        if isinstance(wire, OSError):
            raise wire
        return wire

    monkeypatch.setattr(ppsd.clock.pulses, "open_pulse", opened)
    sources = (ReceiverSource(name="roof", device="/dev/x", pps="/dev/pps3"), SockSource(name="lab", path="/run/x"))
    inputs = PulseInputs(sources, clock, lambda: None, lambda what, why: said.append((what, why)), host=Host(tmp_path))
    now = clock.now().mono_ns
    assert inputs.open_due(now) == []
    assert said == [("pulse of roof", "there is no such device")]
    assert inputs.open_due(now) == []  # not due yet
    (due,) = inputs.due_ns()
    assert now < due <= now + 2 * NS
    second = wires[0]
    assert isinstance(second, Wire)
    (found,) = inputs.open_due(due)
    assert isinstance(found, PulseFound)
    assert (found.source, found.bias_us, found.how) == ("roof", 15.0, "by the kernel")
    assert inputs.due_ns() == []
    second.put(Edge(clock.now(), EdgeKind.ASSERT, 1))
    (pulsed,) = inputs.take()
    assert isinstance(pulsed, Pulsed)
    assert inputs.take() == []
    second.error = "the device vanished"
    assert inputs.take() == []
    assert said[-1] == ("pulse of roof", "the device vanished")
    third = wires[0]
    assert isinstance(third, Wire)
    assert len(inputs.open_due(inputs.due_ns()[0])) == 1
    inputs.stop()
    assert third.stopped
