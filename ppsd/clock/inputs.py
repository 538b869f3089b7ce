"""The open devices of all sources: opens them, reads them, and opens them again after a loss.

Flow: configuration, ``discovery`` -> **inputs** -> ``sources``, ``pulses`` (open devices) -> events -> engine. A missing device is tried
again with growing pauses (``pulses.Retry``), and its state is reported only when it changes. A receiver whose device is "auto" is opened
where ``discovery`` found it. A pulse that is "auto" is opened once its receiver is open. Every open device is read as soon as it has data,
whether its source is trusted or not: a USB adapter whose bytes nobody reads loses pulses as well (FT232R).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from ppsd.clock.discovery import Finder
from ppsd.clock.pulses import PulseInputs, Retry
from ppsd.clock.sources import Device, Line, open_device
from ppsd.config.tables import Config
from ppsd.discipline import events
from ppsd.discipline.events import Event
from refclock.config import AUTO, GpsdSource, PpsSource, PulsedSource, ReceiverSource, ShmSource, SockSource, Source
from refclock.errors import explain
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.sample import NS, Instant, SourceId

POLL_NS: Final = NS // 5
"""Nanoseconds between two readings of shared memory. Its writers leave one sample a second and stamp it themselves."""
QUIET_NS: Final = 12 * NS
"""Nanoseconds without an intelligible frame, after which an "auto" receiver is searched for on other ports too. All speeds have been
tried by then."""
MUTE_NS: Final = 3 * NS
"""The same for a receiver that has not spoken since its port was opened: the device's number may now belong to another device."""
REOPEN_NS: Final = 60 * NS
"""Nanoseconds without a byte after which a line is closed and opened again: a USB driver or controller may lose a transfer, and goes on
when the port is opened anew (seen with xhci). Longer than any receiver takes to start."""
CLOSED_NS: Final = NS
"""Nanoseconds for which such a line stays closed."""
PULSE_WAIT_NS: Final = 2 * NS
"""Nanoseconds from the opening of the line to the search for its "auto" pulse: the pulse's device appears a moment after the line's."""


class Loop(Protocol):
    """The poll loop, as the inputs need it."""

    def listen(self, fd: int, reader: Callable[[], None]) -> None:
        """Call ``reader`` whenever ``fd`` is readable."""
        ...

    def forget(self, fd: int) -> None:
        """Stop waiting for ``fd``, which is about to be closed."""
        ...

    def handle(self, event: Event) -> None:
        """Hand an event to the engine."""
        ...

    def tell(self, what: str, why: str) -> None:
        """Report why ``what`` fails; ``why`` "": it works again."""
        ...

    def nudge(self) -> None:
        """End the loop's wait; may be called by any thread."""
        ...


class Inputs:
    """The devices of every source, and the search for those that are "auto". ``earliest_s``: POSIX second before any true date."""

    def __init__(self, config: Config, clock: LocalClock, earliest_s: int, loop: Loop, host: Host) -> None:
        self._sources = _with_devices(config.sources)
        self._clock, self._earliest_s, self._loop, self._host = clock, earliest_s, loop, host
        self._devices: dict[SourceId, Device] = {}
        self._fds: dict[SourceId, int] = {}
        self._retries = {name: Retry() for name in self._sources}
        self._pulses = PulseInputs(config.sources, clock, loop.nudge, loop.tell, host=host, where=self._pulse_path)
        self._shared_ns = 0
        self._named: dict[SourceId, str] = {}
        self._mute: set[SourceId] = set()
        self._finder = Finder(config.sources, clock, host, earliest_s, Path(config.run.state))
        loop.tell("receivers' state", self._finder.complaint)
        self._listens = False
        self._listen_when_wanted()

    def configure(self, sources: Sequence[Source]) -> None:
        """Have ``sources`` from now on. Devices of sources that are configured as before stay open and are read on."""
        wanted = _with_devices(sources)
        for name in [name for name, source in self._sources.items() if wanted.get(name) != source]:
            self._close(name)
            del self._retries[name]
        self._sources = wanted
        self._retries = {name: self._retries.get(name) or Retry() for name in wanted}
        self._pulses.configure(sources)
        self._finder.configure(sources)
        self._listen_when_wanted()

    def _listen_when_wanted(self) -> None:
        """Wait for the lines under search once a receiver is to be found."""
        if not self._listens and any(isinstance(source, ReceiverSource) and source.device == AUTO for source in self._sources.values()):
            self._listens = True
            self._loop.listen(self._finder.fileno(), self._look)

    @property
    def lines(self) -> dict[SourceId, Line]:
        """The open lines of receivers."""
        return {name: device for name, device in self._devices.items() if isinstance(device, Line)}

    @property
    def pulses(self) -> dict[SourceId, str]:
        """The paths of the open pulses."""
        return self._pulses.paths

    def due_ns(self) -> list[int]:
        """Raw instants at which ``work`` has something to do."""
        times = [r.due_ns for name, r in self._retries.items() if name not in self._devices]
        times += self._pulses.due_ns()
        if any(device.fileno() < 0 for device in self._devices.values()):
            times.append(self._shared_ns)
        looks = self._finder.due_ns
        return times if looks is None else [*times, looks]

    def tick(self, now: Instant) -> None:
        """Do what is due once a second: the devices' own upkeep, and the search."""
        for name, device in list(self._devices.items()):
            try:
                reports = device.tick(now)
            except OSError as error:
                self._lost(name, explain(error))
                continue
            self._found(name)
            for report in reports:
                self._loop.handle(report)
            if isinstance(device, Line) and now.mono_ns - device.came_ns > REOPEN_NS:
                self._open_anew(name, device, now.mono_ns)
        self._look()
        self._leave_silent_pulses(now.mono_ns)

    def work(self, now: Instant) -> None:
        """Open missing devices that are due, collect the pulses, and read devices that have no descriptor to wait on."""
        looks = self._finder.due_ns
        if looks is not None and now.mono_ns >= looks:
            self._look()
        for name in self._sources:
            if name not in self._devices and now.mono_ns >= self._retries[name].due_ns:
                self._open(name)
        for event in (*self._pulses.open_due(now.mono_ns), *self._pulses.take()):
            self._loop.handle(event)
        if now.mono_ns >= self._shared_ns:
            self._shared_ns = now.mono_ns + POLL_NS
            for name in [name for name, device in self._devices.items() if device.fileno() < 0]:
                self._read(name)

    def close(self, for_good: bool) -> None:
        """Close everything. ``for_good``: the process is about to end, and its end stops the pulse threads."""
        if not for_good:
            self._pulses.stop()
        for device in self._devices.values():
            device.close()
        self._finder.close()

    # ---- devices ---------------------------------------------------------------------------------------------------------------------

    def _open(self, name: SourceId) -> None:
        source, baud = self._sources[name], 0
        try:
            if isinstance(source, ReceiverSource):
                source, baud = self._finder.place(source)
            device = open_device(source, self._clock, self._earliest_s, baud, name in self._mute)
        except OSError as error:
            self._lost(name, explain(error))
            return
        self._devices[name] = device
        self._mute.discard(name)
        if device.fileno() >= 0:
            self._fds[name] = device.fileno()
            self._loop.listen(device.fileno(), partial(self._read, name))
        self._found(name)

    def _read(self, name: SourceId) -> None:
        """Read a device and hand its reports to the engine."""
        try:
            arrived = self._devices[name].read()
        except OSError as error:
            self._lost(name, explain(error))
            return
        self._found(name)
        if arrived:
            self._retries[name].worked()
        for event in arrived:
            self._loop.handle(event)

    def _found(self, name: SourceId) -> None:
        """Report the device's description when it has changed."""
        what = self._devices[name].what
        if what and what != self._named.get(name, ""):
            self._loop.handle(events.SourceFound(name, what, self._clock.now()))
        self._named[name] = what

    def _close(self, name: SourceId) -> Device | None:
        """Close the device of ``name`` if it is open, and return it."""
        device = self._devices.pop(name, None)
        self._named.pop(name, None)
        fd = self._fds.pop(name, -1)
        if device is not None:
            if fd >= 0:
                self._loop.forget(fd)
            device.close()
        return device

    def _open_anew(self, name: SourceId, line: Line, now_ns: int) -> None:
        """Close a silent line, to be opened again. One whose own modem lines bring pulses stays open."""
        if not line.own_pulse(now_ns) and not self.pulses.get(name, "").startswith(f"{line.device}:"):
            self._close(name)
            self._mute.add(name)
            self._retries[name].due_ns = now_ns + CLOSED_NS

    def _lost(self, name: SourceId, why: str) -> None:
        device = self._close(name)
        now = self._clock.now()
        if self._retries[name].failed(now.mono_ns, why) or (device is not None and device.what):
            self._loop.handle(events.SourceLost(name, why, now))

    # ---- receivers and pulses that are "auto" ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Search for the receivers that are missing, and remember where the others are."""
        now_ns = self._clock.now().mono_ns
        lacking = []
        for name, source in self._sources.items():
            device = self._devices.get(name)
            if not isinstance(source, ReceiverSource) or source.device != AUTO:
                continue
            if not isinstance(device, Line):
                lacking.append(name)
                continue
            has_spoken = device.heard_ns > device.opened_ns
            if now_ns - device.heard_ns > (QUIET_NS if has_spoken else MUTE_NS):
                lacking.append(name)
            elif device.speaks:
                self._finder.settled(name, device.baud, device.identity)
        for name in self._finder.step(lacking):
            if name in self._devices:
                self._lost(name, "it sends nothing intelligible any more, and a receiver was found on another port")
            self._retries[name].due_ns = 0
        self._loop.tell("receivers' state", self._finder.complaint)

    def _pulse_path(self, source: PulsedSource) -> str:
        """The path of the pulse of ``source``; "" while it, or the receiver that it belongs to, is missing."""
        if source.pps != AUTO:
            return source.pps
        line = self._devices.get(SourceId(source.name))
        now_ns = self._clock.now().mono_ns
        if not isinstance(line, Line) or now_ns - line.opened_ns < PULSE_WAIT_NS:
            return ""
        node, line_pulse = self._finder.pulse(line.device, self._pulses.in_use), line.own_pulse(now_ns)
        return line_pulse if node is None or (line_pulse and node.edges == 0) else node.path

    def _leave_silent_pulses(self, now_ns: int) -> None:
        """Change each "auto" pulse that is silent for one that ticks. When both are silent, the fix was lost: it stays."""
        for name, source in self._sources.items():
            line = self._devices.get(name)
            if not isinstance(source, ReceiverSource) or source.pps != AUTO or not isinstance(line, Line):
                continue
            silent = self._pulses.silent(name, now_ns)
            if not silent:
                self._finder.ticks_again(line.device)
                continue
            ticking = self._finder.ticking_pulse(line.device, self._pulses.in_use, now_ns) or line.own_pulse(now_ns)
            if ticking and ticking != silent:
                for event in self._pulses.change(name, ticking):
                    self._finder.ticks_again(line.device)
                    self._loop.handle(event)


def _with_devices(sources: Sequence[Source]) -> dict[SourceId, ReceiverSource | GpsdSource | ShmSource | SockSource]:
    """Those of ``sources`` that have more than a pulse."""
    return {SourceId(source.name): source for source in sources if not isinstance(source, PpsSource)}
