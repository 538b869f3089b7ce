"""Everything that is open to be read: the device and the pulse of each source, tried again while they are missing, and found again.

Flow: config, finder -> **inputs** -> devices, control_line (opened) -> events -> engine. What is missing is opened again with growing
pauses (``PAUSES_NS``) and reported on change only. A source that is to be found is opened where the finder says; a pulse that is to be
found, when its receiver is there. Everything that is open is read as soon as it has something, whether it is believed or not: an adapter
whose bytes nobody takes loses pulses as well (FT232R).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from ppsd import events
from ppsd.config import Config
from ppsd.devices import Device, Line, open_device, pulse_found
from ppsd.engine import Engine
from ppsd.events import Event
from ppsd.finder import Finder
from refclock.config import AUTO, Pulse, ReceiverSource
from refclock.control_line import PulseDevice, open_pulse
from refclock.host import Host
from refclock.kernel import LocalClock
from refclock.sample import NS, Instant, SourceId

PAUSES_NS: Final = (1 * NS, 2 * NS, 5 * NS)
"""Before the n-th attempt in a row to open a device; the last one repeats. A plugged-in receiver is noticed within five seconds."""
POLL_NS: Final = NS // 5
"""Between two looks at shared memory: its writers leave a sample a second, and the stamp in it is theirs."""
QUIET_NS: Final = 12 * NS
"""Nothing intelligible for so long: a receiver that is to be found is looked for elsewhere too. All speeds have been tried by then."""
MUTE_NS: Final = 3 * NS
"""... and for so long where it was remembered to be, but has not spoken yet: the device's number may be another's now."""
PULSE_WAIT_NS: Final = 2 * NS
"""A pulse that is to be found is looked for so long after its line: plugged in together, its own device comes a moment later."""


@dataclass(slots=True)
class Retry:
    """When to try again, and what was said of it last."""

    due_ns: int = 0
    failures: int = 0
    why: str = ""

    def failed(self, now_ns: int, why: str) -> bool:
        """Put it off; whether ``why`` is news."""
        self.due_ns = now_ns + PAUSES_NS[min(self.failures, len(PAUSES_NS) - 1)]
        self.failures += 1
        news, self.why = why != self.why, why
        return news

    def worked(self) -> None:
        """Start from the shortest pause again."""
        self.failures, self.why = 0, ""


class Loop(Protocol):
    """What inputs need of the loop that waits for them."""

    def listen(self, fd: int, reader: Callable[[], None]) -> None:
        """Call ``reader`` whenever ``fd`` is readable."""
        ...

    def forget(self, fd: int) -> None:
        """``fd`` is about to be closed."""
        ...

    def handle(self, event: Event) -> None:
        """Something has happened."""
        ...

    def tell(self, what: str, why: str) -> None:
        """``what`` has a trouble; "": it has none any more."""
        ...

    def nudge(self) -> None:
        """End the loop's wait; called by threads."""
        ...


class Inputs:
    """See the module's text. ``engine``: whose sources they are."""

    def __init__(self, config: Config, clock: LocalClock, engine: Engine, loop: Loop, host: Host) -> None:
        self._sources = {SourceId(source.name): source for source in config.sources}
        self._clock, self._engine, self._loop, self._host = clock, engine, loop, host
        self._devices: dict[SourceId, Device] = {}
        self._fds: dict[SourceId, int] = {}
        self._pulses: dict[SourceId, PulseDevice] = {}
        self._pulse_paths: dict[SourceId, str] = {}
        self._retries = {name: Retry() for name in self._sources}
        self._pulse_retries = {name: Retry() for name, s in self._sources.items() if isinstance(s, Pulse) and s.pps}
        self._shared_ns = 0
        self._finder = Finder(config.sources, clock, host, engine.not_before_s, Path(config.run.state))
        loop.tell("receivers' state", self._finder.complaint)
        loop.listen(self._finder.fileno(), self._look)

    def due_ns(self) -> list[int]:
        """When something of this is wanted."""
        times = [r.due_ns for name, r in self._retries.items() if name not in self._devices]
        times += [r.due_ns for name, r in self._pulse_retries.items() if name not in self._pulses]
        if any(device.fileno() < 0 for device in self._devices.values()):
            times.append(self._shared_ns)
        looks = self._finder.due_ns
        return times if looks is None else [*times, looks]

    def tick(self, now: Instant) -> None:
        """Once a second."""
        for name, device in list(self._devices.items()):
            what = device.what
            try:
                device.tick(now)
            except OSError as error:
                self._lost(name, said(error))
            else:
                self._found(name, what)
        self._look()

    def work(self, now: Instant) -> None:
        """Open what is missing and due, take the pulses, read what cannot wake us."""
        looks = self._finder.due_ns
        if looks is not None and now.mono_ns >= looks:
            self._look()
        for name in self._sources:
            if name not in self._devices and now.mono_ns >= self._retries[name].due_ns:
                self._open(name)
            if name in self._pulse_retries and name not in self._pulses and now.mono_ns >= self._pulse_retries[name].due_ns:
                self._open_pulse(name, now)
        self._take_pulses()
        if now.mono_ns >= self._shared_ns:
            self._shared_ns = now.mono_ns + POLL_NS
            for name in [name for name, device in self._devices.items() if device.fileno() < 0]:
                self._read(name)

    def close(self, for_good: bool) -> None:
        """Let everything go. ``for_good``: the process's end takes the pulse threads along."""
        for thread in self._pulses.values() if not for_good else ():
            thread.stop()
        for device in self._devices.values():
            device.close()
        self._finder.close()

    # ---- devices ---------------------------------------------------------------------------------------------------------------------

    def _open(self, name: SourceId) -> None:
        source, baud = self._sources[name], 0
        try:
            if isinstance(source, ReceiverSource):
                source, baud = self._finder.place(source)
            device = open_device(source, self._clock, self._engine, baud)
        except OSError as error:
            self._lost(name, said(error))
            return
        self._devices[name] = device
        if device.fileno() >= 0:
            self._fds[name] = device.fileno()
            self._loop.listen(device.fileno(), partial(self._read, name))
        self._found(name, "")

    def _read(self, name: SourceId) -> None:
        """What a device has for us."""
        device = self._devices[name]
        what = device.what
        try:
            arrived = device.read()
        except OSError as error:
            self._lost(name, said(error))
            return
        self._found(name, what)
        if arrived:
            self._retries[name].worked()
        for event in arrived:
            self._loop.handle(event)

    def _found(self, name: SourceId, before: str) -> None:
        """Tell what the device is when that is not what it was."""
        what = self._devices[name].what
        if what and what != before:
            self._loop.handle(events.SourceFound(name, what, self._clock.now()))

    def _lost(self, name: SourceId, why: str) -> None:
        device = self._devices.pop(name, None)
        fd = self._fds.pop(name, -1)
        if device is not None:
            if fd >= 0:
                self._loop.forget(fd)
            device.close()
        now = self._clock.now()
        if self._retries[name].failed(now.mono_ns, why) or (device is not None and device.what):
            self._loop.handle(events.SourceLost(name, why, now))

    # ---- receivers that are to be found ----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look for receivers that are missing, and remember those that are not."""
        now_ns = self._clock.now().mono_ns
        lacking = []
        for name, source in self._sources.items():
            device = self._devices.get(name)
            if not isinstance(source, ReceiverSource) or source.device != AUTO:
                continue
            if not isinstance(device, Line) or now_ns - device.heard_ns > (QUIET_NS if device.heard_ns > device.opened_ns else MUTE_NS):
                lacking.append(name)
            elif device.speaks:
                self._finder.settled(name, device.baud, device.identity)
        for name in self._finder.step(lacking):
            if name in self._devices:
                self._lost(name, "nothing intelligible comes from there any more, and a receiver was found elsewhere")
            self._retries[name].due_ns = 0
        self._loop.tell("receivers' state", self._finder.complaint)

    # ---- pulses ----------------------------------------------------------------------------------------------------------------------

    def _open_pulse(self, name: SourceId, now: Instant) -> None:
        source, line = self._sources[name], self._devices.get(name)
        assert isinstance(source, Pulse)
        path = source.pps
        if path == AUTO:
            opened = isinstance(line, Line) and now.mono_ns - line.opened_ns >= PULSE_WAIT_NS
            others = {path for other, path in self._pulse_paths.items() if other != name and other in self._pulses}
            path = self._finder.pulse(line.device, others) if opened and isinstance(line, Line) else ""
        if not path:
            self._pulse_retries[name].failed(now.mono_ns, "")
            return
        try:
            self._pulses[name] = open_pulse(path, self._clock, self._loop.nudge)
        except OSError as error:
            self._pulse_retries[name].failed(now.mono_ns, said(error))
            self._loop.tell(f"pulse of {name}", said(error))
            return
        self._pulse_paths[name] = path
        self._loop.tell(f"pulse of {name}", "")
        self._loop.handle(pulse_found(source, path, self._host, self._clock.now()))

    def _take_pulses(self) -> None:
        for name, thread in list(self._pulses.items()):
            for edge in thread.take():
                self._pulse_retries[name].worked()
                self._loop.handle(events.Pulsed(name, edge, self._clock.now()))
            if thread.error:  # the thread has ended
                del self._pulses[name]
                self._pulse_retries[name].failed(self._clock.now().mono_ns, thread.error)
                self._loop.tell(f"pulse of {name}", thread.error)


def said(error: OSError) -> str:
    """What an OSError has to say, with the file when it names one."""
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text
