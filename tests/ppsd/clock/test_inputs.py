"""Receivers that are to be found: found by the daemon's own inputs on real ttys, remembered, and found again wherever they come back."""

from __future__ import annotations

import gc
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from refclock_sim.ports.plug import Machine
from refclock_sim.receiver.gnss import Gnss
from refclock_sim.receiver.output import MODELS, Receiver

import ppsd.clock.pulses
import refclock.devices.pps
from ppsd.clock.discovery import FILE_NAME
from ppsd.clock.inputs import Inputs
from ppsd.config.tables import Config, RunConfig
from ppsd.discipline import source as discipline
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Event, SourceFound, SourceLost
from ppsd.discipline.saved import Saved
from refclock.config import ReceiverSource
from refclock.devices.pps import BY_KERNEL, EdgeQueue, PpsThread
from refclock.kernel.pps import PpsEvent
from refclock.sample import NS, Edge, EdgeKind, Instant, SourceId
from refclock.timescales import LeapTable

pytestmark = pytest.mark.device

TAI_S = 1_900_000_000
GPS0, GPS1 = SourceId("gps0"), SourceId("gps1")


def receiver(kind: str = "nmea", baud: int = 9600) -> Receiver:
    """One that has a fix."""
    return Receiver(MODELS[kind], Gnss(7, TAI_S - 100, LeapTable(), fix_s=0), 7, baud)


class Daemon:
    """The clock process's inputs and engine, in a loop whose time is simulated."""

    def __init__(self, machine: Machine, state: Path, *sources: ReceiverSource) -> None:
        self.machine = machine
        config = Config(sources=sources or (ReceiverSource(name="gps0"),), run=RunConfig(state=str(state)))
        self.engine = Engine(config, Saved(), machine.clock.now(), simulated=True, version="test", pid=1)
        self.seen: list[Event] = []
        self.told: dict[str, str] = {}
        self._poll, self._readers = select.poll(), dict[int, Callable[[], None]]()
        self._ticked_s = 0
        self.inputs = Inputs(config, machine.clock, self.engine.not_before_s, self, machine)

    def configure(self, *sources: ReceiverSource) -> None:
        """Go on with these sources, as the clock process does on SIGHUP."""
        self.engine.configure(Config(sources=sources, run=self.engine.config.run))
        self.inputs.configure(sources)

    def listen(self, fd: int, reader: Callable[[], None]) -> None:
        self._readers[fd] = reader
        self._poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._readers[fd]

    def handle(self, event: Event) -> None:
        self.engine.handle(event)
        if isinstance(event, SourceFound | SourceLost):
            self.seen.append(event)

    def tell(self, what: str, why: str) -> None:
        self.told[what] = why

    def nudge(self) -> None:
        return

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """Simulated seconds until it was so; fails when it never was."""
        began = self.machine.clock.ns
        while self.machine.clock.ns - began < seconds * NS:
            self.step(self.machine.pass_tick())
            if until():
                return (self.machine.clock.ns - began) / NS
        return seconds

    def step(self, now: Instant) -> None:
        for fd, _ in self._poll.poll(0):
            if fd in self._readers:
                self._readers[fd]()
        if now.mono_ns // NS != self._ticked_s:
            self._ticked_s = now.mono_ns // NS
            self.inputs.tick(now)
        self.inputs.work(now)

    def source(self, name: SourceId = GPS0) -> discipline.ReceiverSource:
        source = self.engine.sources[name]
        assert isinstance(source, discipline.ReceiverSource)
        return source

    def labels(self, name: SourceId = GPS0) -> int:
        return self.source(name).time.labels

    def hears(self, name: SourceId = GPS0) -> Callable[[], bool]:
        """Whether it has named a second since now."""
        so_far = self.labels(name)
        return lambda: self.labels(name) > so_far

    def what(self, name: SourceId = GPS0) -> str:
        source = self.engine.sources[name]
        return source.what if source.present else f"lost: {source.lost_why}"

    def close(self) -> None:
        self.inputs.close(for_good=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "dev", TAI_S)


@pytest.fixture
def daemon(machine: Machine, tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(machine, tmp_path / "state")
    yield made
    made.close()


def test_a_receiver_is_found_among_others_and_only_it_is_held(machine: Machine, daemon: Daemon) -> None:
    """Without a word of configuration: the one that speaks is taken within 8 s, those that do not are let go."""
    silent = [machine.plug(name, None) for name in ("ttyAMA0", "ttyS0")]
    machine.plug("ttyUSB3", receiver(baud=38400))
    assert daemon.run(12, daemon.hears()) < 8
    daemon.run(2)
    assert "ttyUSB3" in daemon.what()
    assert "38400 baud" in daemon.what()
    assert machine.listening("ttyUSB3")
    assert not any(machine.listening(Path(path).name) for path in silent)


def test_nothing_there_is_told_and_a_receiver_that_comes_is_noticed(machine: Machine, daemon: Daemon) -> None:
    """First where was looked, then what each port gave; plugged in, it is found as quickly as at the start."""
    daemon.run(3)
    assert "no serial device that could be a receiver" in daemon.what()
    machine.plug("ttyAMA0", None)
    daemon.run(60)
    assert "ttyAMA0: silent, nothing comes" in daemon.what()
    lost = len(daemon.seen)
    daemon.run(120)
    assert len(daemon.seen) == lost  # it is not said again and again
    machine.plug("ttyACM0", receiver("timing", 115200))
    assert daemon.run(15, daemon.hears()) < 12
    daemon.run(2)
    assert "ttyACM0" in daemon.what()


@pytest.mark.parametrize("by_id", ["", "usb-u-blox_7-if00"])
def test_it_comes_back_under_another_number(machine: Machine, daemon: Daemon, by_id: str) -> None:
    """Unplugged and plugged in again as another ttyUSB, also at another speed: taken again without a restart, the numbering kept."""
    machine.plug("ttyUSB0", receiver(), by_id)
    daemon.run(12, daemon.hears())
    machine.pull("ttyUSB0")
    daemon.run(5)
    assert daemon.what().startswith("lost: ")
    machine.plug("ttyUSB1", receiver(baud=57600), by_id)
    machine.plug("ttyUSB0", None)  # somebody else got its number
    assert daemon.run(30, daemon.hears()) < 20
    daemon.run(2)
    assert (by_id or "ttyUSB1") in daemon.what()
    assert "57600 baud" in daemon.what()


def test_the_next_start_tries_it_first(machine: Machine, tmp_path: Path) -> None:
    """What was found is found again at once, at its speed, and no other port is opened for it."""
    machine.plug("ttyUSB0", receiver(baud=57600))
    first = Daemon(machine, tmp_path / "state")
    first.run(12, first.hears())
    first.run(2)
    first.close()
    assert (tmp_path / "state" / FILE_NAME).stat().st_mode & 0o777 == 0o600
    machine.plug("ttyS0", None)
    second = Daemon(machine, tmp_path / "state")
    assert second.run(12, lambda: machine.listening("ttyS0") or second.hears(GPS0)() or second.labels() > 0) < 2.5
    assert second.labels() > 0
    assert not machine.listening("ttyS0")
    second.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"gps0": 7}',
        b'{"gps0": {"path": 7}}',
        b'{"gps0": {"path": "/etc/passwd", "identity": "/dev/null"}}',
        b'{"gps0": {"path": "/dev/tty\\u0000", "identity": "/dev/\\ud800"}}',
        b'{"gps0": {"path": "PORT", "identity": "PORT", "baud": -1, "said": 7}}',
        b'{"gps0": {"path": "PORT", "identity": "PORT", "baud": 1e400, "said": "\\u001b[2J"}}',
        b'{"gps0": {"path": "PORT", "identity": "PORT", "baud": 12345678901234567890123}}',
    ],
)
def test_damaged_memory_does_no_harm(machine: Machine, tmp_path: Path, data: bytes) -> None:
    """Then it is looked for as on the first day; nothing that is no candidate is opened because a file says so."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / FILE_NAME).write_bytes(data.replace(b"PORT", str(machine.directory / "ttyUSB0").encode()))
    machine.plug("ttyUSB0", receiver())
    daemon = Daemon(machine, tmp_path / "state")
    assert daemon.run(12, daemon.hears()) < 8
    daemon.close()


def test_a_receiver_moves_while_its_port_stays(machine: Machine, daemon: Daemon) -> None:
    """The old port falls silent without a hang-up, and the receiver speaks elsewhere: found there within half a minute."""
    quiet = receiver()
    machine.plug("ttyAMA0", quiet)
    daemon.run(12, daemon.hears())
    quiet.settings.rates.clear()
    machine.plug("ttyUSB0", receiver())
    daemon.run(3)
    assert daemon.run(40, daemon.hears()) < 30
    daemon.run(2)
    assert "ttyUSB0" in daemon.what()
    assert not machine.listening("ttyAMA0")


def test_a_line_that_its_driver_lost_is_opened_anew(machine: Machine, daemon: Daemon) -> None:
    """A USB transfer got lost: nothing comes until the port is opened again. That happens by itself, and until then the reason is told."""
    machine.plug("ttyUSB0", receiver())
    daemon.run(12, lambda: daemon.source().present)
    machine.stick("ttyUSB0")
    daemon.run(30)
    assert "nothing comes: is it powered" in daemon.source().obstacle(machine.clock.ns).words
    assert daemon.run(60, daemon.hears()) < 45
    machine.stick("ttyUSB0")
    daemon.run(30)
    assert "no valid second" in daemon.source().obstacle(machine.clock.ns).words
    assert "nothing comes: is it powered" in daemon.source().obstacle(machine.clock.ns).words  # not: is the antenna covered?
    assert daemon.run(60, daemon.hears()) < 45
    assert not [event for event in daemon.seen if isinstance(event, SourceLost) and "no receiver" not in event.why]


def test_two_receivers_keep_their_names(machine: Machine, tmp_path: Path) -> None:
    """Each source gets back the receiver that it had, by what that calls itself, when the hub deals out other numbers."""
    sources = [ReceiverSource(name=name) for name in (GPS0, GPS1)]
    daemon = Daemon(machine, tmp_path / "state", *sources)
    machine.plug("ttyUSB0", receiver("ublox9", 38400))
    daemon.run(10, daemon.hears(GPS0))
    machine.plug("ttyUSB1", receiver("ublox8", 9600))
    daemon.run(10, daemon.hears(GPS1))
    daemon.run(12)
    assert "38400" in daemon.what(GPS0)
    assert "9600" in daemon.what(GPS1)
    machine.pull("ttyUSB0")
    machine.pull("ttyUSB1")
    daemon.run(5)
    machine.plug("ttyUSB3", receiver("ublox9", 38400))
    machine.plug("ttyUSB2", receiver("ublox8", 9600))
    both = [daemon.hears(GPS0), daemon.hears(GPS1)]
    assert daemon.run(30, lambda: all(hears() for hears in both)) < 20
    daemon.run(3)
    assert "ttyUSB3" in daemon.what(GPS0)
    assert "ttyUSB2" in daemon.what(GPS1)
    daemon.close()


def test_another_configuration_touches_only_what_is_in_it(machine: Machine, tmp_path: Path) -> None:
    """A source is added, changed and taken away while another one is heard: that one's port stays open, no label of it is lost and its
    second stays named. What was added speaks soon; what was taken away is closed."""
    ports = {machine.plug("ttyUSB0", receiver(baud=57600)), machine.plug("ttyUSB1", receiver())}
    kept = ReceiverSource(name="gps0")
    daemon = Daemon(machine, tmp_path / "state", kept)
    daemon.run(12, daemon.hears())
    daemon.run(3)
    first, source = daemon.labels(), daemon.source()
    (other,) = (port for port in ports if port not in daemon.what())
    for sources in (
        (ReceiverSource(name="gps1", device=other, baud=0), kept),
        (kept, ReceiverSource(name="gps1", device=other, noselect=True)),
        (kept,),
    ):
        daemon.configure(*sources)
        daemon.run(12)
        first += 12
        assert list(daemon.engine.sources) == [source.name for source in sources]
        assert abs(daemon.labels() - first) <= 1
        assert daemon.source() is source
        if len(sources) == 2:
            assert daemon.labels(GPS1) > 3
    assert not machine.listening(Path(other).name)
    assert [event.source for event in daemon.seen if isinstance(event, SourceLost)].count(GPS0) <= 1
    daemon.close()


def test_what_others_hold_or_name_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    """A port that a program has open, and one that another source names, are not listened to, spoken on them or not."""
    named = machine.plug("ttyUSB1", receiver())
    daemon = Daemon(machine, tmp_path / "state", ReceiverSource(name="mine", device=named, noselect=True), ReceiverSource(name="gps0"))
    held = machine.plug("ttyUSB0", receiver())
    with Path(held).open("rb", buffering=0) as line, subprocess.Popen(["sleep", "600"], stdin=line) as other:
        line.close()
        try:
            daemon.run(30)
            assert daemon.labels(SourceId("mine")) > 0
            assert daemon.labels() == 0
            assert f"{held}: left to sleep (pid {other.pid})" in daemon.what()
        finally:
            other.kill()
    assert daemon.run(30, daemon.hears()) < 20
    daemon.close()


def test_listening_only_is_listening_only(machine: Machine, tmp_path: Path) -> None:
    """Strangers are not written to: not a byte goes to a port that has said nothing intelligible."""
    daemon = Daemon(machine, tmp_path / "state", replace(ReceiverSource(name="gps0"), configure=False))
    machine.plug("ttyUSB0", None)
    machine.plug("ttyACM0", None)
    written = []
    for plug in machine._plugs.values():
        plug.wire.write = lambda data, baud: written.append(data) if data else None  # type: ignore[method-assign]
    daemon.run(60)
    assert written == []
    daemon.close()


class Pins(Machine):
    """A machine whose kernel counts pulses. ``owners``: the line of each pulse device, "" for a pin; ``ticking``: those that tick now."""

    def __init__(self, directory: Path, owners: dict[str, str]) -> None:
        super().__init__(directory, TAI_S)
        self.owners, self.ticking = owners, set[str]()
        self.counts = dict.fromkeys(owners, 0)
        self.open: list[tuple[str, Wire]] = []

    def names(self, pattern: str) -> list[str]:
        if pattern == "/dev/pps*":
            return []
        return [f"/sys/class/pps/{pps}" for pps in self.owners] if pattern == "/sys/class/pps/pps*" else super().names(pattern)

    def text(self, name: str) -> str | None:
        pps, _, what = name.removeprefix("/sys/class/pps/").partition("/")
        if pps not in self.owners:
            return super().text(name)
        return self.owners[pps] if what == "path" else f"1795818000.000003123#{self.counts[pps]}" if what == "assert" else None

    def second(self) -> None:
        """The pulses of one second."""
        for pps in self.ticking:
            self.counts[pps] += 1
        for path, wire in self.open:
            if Path(path).name in self.ticking and not wire.stopped:
                wire.put(Edge(self.clock.now(), EdgeKind.ASSERT, self.counts[Path(path).name]))


class Wire(EdgeQueue):
    """An open pulse device."""

    error, stamping, stopped = "", BY_KERNEL, False

    def stop(self) -> None:
        self.stopped = True


@pytest.mark.parametrize("named", [False, True])
def test_of_several_pulse_devices_the_one_that_ticks_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    """The USB port's own pulse device never ticks, the one on the pin does: it is used within 15 s, and left again when it stops while the
    other ticks. When both stop, the fix was lost: nothing changes. A device that the configuration names is never left."""
    machine = Pins(tmp_path / "dev", {"pps0": "", "pps1": str(tmp_path / "dev/ttyACM0")})

    def opened(path: str, *_: object) -> Wire:
        machine.open.append((path, Wire()))
        return machine.open[-1][1]

    monkeypatch.setattr(ppsd.clock.pulses, "open_pulse", opened)
    machine.plug("ttyACM0", receiver("minimal"))
    daemon = Daemon(machine, tmp_path / "state", ReceiverSource(name="gps0", device="auto", pps="/dev/pps1" if named else "auto"))

    def used_after(seconds: int) -> str:
        for _ in range(seconds):
            daemon.run(1)
            machine.second()
        return daemon.source().pulse_path

    assert used_after(12) == "/dev/pps1"
    machine.ticking = {"pps0"}
    assert used_after(4) == "/dev/pps1"  # a few edges are no pulse
    assert used_after(11) == ("/dev/pps1" if named else "/dev/pps0")
    machine.ticking = set()
    assert used_after(60) == ("/dev/pps1" if named else "/dev/pps0")
    machine.ticking = {"pps1"}
    assert used_after(15) == "/dev/pps1"
    assert len(machine.open) == (1 if named else 3)
    assert [wire.stopped for _, wire in machine.open] == [True] * (len(machine.open) - 1) + [False]
    daemon.close()


class Pulses:
    """A PpsDevice in simulated time: a rising edge each second."""

    can_wait = True

    def __init__(self, machine: Machine, path: str) -> None:
        self._clock, self._path = machine.clock, Path(path)
        self._last = PpsEvent(0, 0, 0, 0)

    def fetch(self, timeout_s: float | None) -> PpsEvent | None:
        if timeout_s:
            time.sleep(0.001)
        if not self._path.exists():  # a source whose driver went away only falls silent
            return None
        second = self._clock.ns // NS
        self._last = PpsEvent(second, second * NS, 0, 0)
        return self._last

    def close(self) -> None:
        return


@pytest.mark.parametrize("times", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_hub_is_reset(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Line and pulse vanish together and come back under other numbers: both are taken again, each time, and nothing is left open."""
    monkeypatch.setattr(refclock.devices.pps, "PpsDevice", lambda path: Pulses(machine, path))
    monkeypatch.setattr(
        ppsd.clock.pulses, "open_pulse", lambda path, clock, nudge: PpsThread(str(machine.directory / Path(path).name), clock, nudge)
    )
    daemon = Daemon(machine, tmp_path / "state")
    source = daemon.source()
    machine.plug("ttyUSB0", receiver("minimal"), pulse="pps0")

    def pulses_more(than: int) -> bool:
        time.sleep(0.0005)  # the pulse thread is real
        return source.time.pulses > than

    daemon.run(15, lambda: pulses_more(2))
    before = open_things()
    for i in range(1, times + 1):
        number, name = i % 3, f"ttyUSB{(i - 1) % 3}"
        machine.pull(name)
        daemon.run(60, lambda: not time.sleep(0.0005) and not any(t.name.startswith("pps ") for t in threading.enumerate()))
        daemon.run(0.1)  # what the thread has left is taken
        machine.plug(f"ttyUSB{number}", receiver("minimal"), pulse=f"pps{(i + 1) % 3}")
        hears, so_far = daemon.hears(), source.time.pulses
        took = daemon.run(40, lambda hears=hears, enough=so_far + 2: hears() and pulses_more(enough))  # type: ignore[misc]
        assert took < 30, (i, daemon.what(), daemon.told)
        assert f"pps{(i + 1) % 3}" in source.pulse_path
        assert f"ttyUSB{number}" in daemon.what()
    assert source.settings.pps_over_usb is True
    assert open_things() == before
    daemon.close()
    assert threading.active_count() == before[1] - 1


def open_things() -> tuple[int, int]:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


@pytest.mark.slow
@pytest.mark.parametrize("found", [True, False])
def test_a_thousand_times_unplugged(machine: Machine, tmp_path: Path, found: bool) -> None:
    """1,000 times pulled and plugged in, also under changing numbers: heard each time, no descriptor or thread left."""
    source = ReceiverSource(name="gps0") if found else ReceiverSource(name="gps0", device=str(tmp_path / "dev/ttyUSB0"), pps="")
    daemon = Daemon(machine, tmp_path / "state", source)
    machine.plug("ttyUSB0", receiver("minimal"), "usb-gps")
    daemon.run(12, daemon.hears())
    before, name = open_things(), "ttyUSB0"
    for i in range(1000):
        machine.pull(name)
        daemon.run(0.1)
        name = f"ttyUSB{i % 3}" if found else name
        machine.plug(name, receiver("minimal"), "usb-gps")
        assert daemon.run(20, daemon.hears()) < 20, i
    machine.pull(name)
    daemon.run(0.1)
    machine.plug(name, receiver("minimal"), "usb-gps")
    daemon.run(20, daemon.hears())
    assert open_things() == before
    daemon.close()
