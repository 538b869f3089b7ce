"""Pulse devices: opens them, opens them again after a loss, changes to another one that ticks, and turns their edges into events.

A source that has nothing but a pulse is found and lost with it; of any other the pulse's trouble is only told.

Flow: /dev/ppsN, modem control lines (``refclock.devices``) -> **pulses** -> PulseFound, Pulsed, SourceFound, SourceLost -> engine.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ppsd.discipline.events import Event, Pulsed, PulseFound, SourceFound, SourceLost
from refclock.config import AUTO, PpsSource, PulsedSource, Source
from refclock.devices.modem_lines import PulseDevice, open_pulse
from refclock.devices.ports import PulseNode, over_usb
from refclock.errors import explain
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.sample import NS, SourceId

PAUSES_NS: Final = (1 * NS, 2 * NS, 5 * NS)
"""Nanoseconds before the n-th new attempt to open a device; the last value repeats. A device that is plugged in is opened within five
seconds."""
SILENT_NS: Final = 5 * NS
"""Nanoseconds without an edge after which an open device is silent: twice the period of most pulses that are slower than one a second."""
SILENT_GAPS: Final = 2.5
"""The same in gaps between its last edges, for a slower pulse (one every 5 s at most: ``refclock.timing.pulses``)."""
GAPS: Final = 4
"""Gaps between edges that are remembered: two pulses of both edges, and the pauses between them."""
TICKS: Final = 5
"""Edges of one kind that another device must count while the open one is silent: plugging a wire in makes a few."""
TICKS_HZ: Final = 11
"""Edges of one kind a second beyond which it is hum: pulses come at most ten times a second."""


@dataclass(slots=True)
class Retry:
    """When to try a device again (raw), and why the last attempt failed."""

    due_ns: int = 0
    failures: int = 0
    why: str = ""

    def failed(self, now_ns: int, why: str) -> bool:
        """Set the time of the next attempt. Returns whether ``why`` differs from the last reason."""
        self.due_ns = now_ns + PAUSES_NS[min(self.failures, len(PAUSES_NS) - 1)]
        self.failures += 1
        news, self.why = why != self.why, why
        return news

    def worked(self) -> None:
        """Forget the failures: the next pause is the shortest."""
        self.failures, self.why = 0, ""


class Ticking:
    """Which pulse devices tick, by the kernel's counts of their edges, from one look to the next."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, int]] = {}  # path -> count and raw instant of the first look

    def look(self, nodes: Sequence[PulseNode], now_ns: int) -> list[PulseNode]:
        """Those of ``nodes`` that have ticked often enough since they were first looked at, and no faster than pulses."""
        found = []
        for node in nodes:
            edges, since_ns = self._first.setdefault(node.path, (node.edges or 0, now_ns))
            ticks = (node.edges or 0) - edges
            if ticks < 0 or ticks > TICKS_HZ * (now_ns - since_ns) / NS + 1:  # counted anew, or hum
                self._first[node.path] = node.edges or 0, now_ns
            elif ticks >= TICKS:
                found.append(node)
        return found


class _Open:
    """An open device, and when its edges came (raw)."""

    def __init__(self, path: str, device: PulseDevice, now_ns: int) -> None:
        self.path, self.device = path, device
        self._last_ns = now_ns
        self._gaps: deque[int] = deque(maxlen=GAPS)

    def ticked(self, at_ns: int) -> None:
        """An edge came."""
        self._gaps.append(at_ns - self._last_ns)
        self._last_ns = at_ns

    def silent(self, now_ns: int) -> bool:
        """Whether no edge has come for longer than its pulses' rhythm explains."""
        longest = max(self._gaps) if len(self._gaps) == GAPS else 0
        return now_ns - self._last_ns > max(SILENT_NS, SILENT_GAPS * min(longest, SILENT_NS))


class PulseInputs:
    """The pulse devices of all sources. ``tell``: takes a subject and why it fails, or "" when it works. ``where``: returns the path of a
    source's pulse, "" while there is none."""

    def __init__(
        self,
        sources: Sequence[Source],
        clock: LocalClock,
        wake: Callable[[], None],
        tell: Callable[[str, str], None],
        *,
        host: Host,
        where: Callable[[PulsedSource], str] = lambda source: source.pps,
    ) -> None:
        self._clock, self._wake, self._tell, self._host, self._where = clock, wake, tell, host, where
        self._sources = _with_pulses(sources)
        self._retries = {name: Retry() for name in self._sources}
        self._open: dict[SourceId, _Open] = {}

    @property
    def in_use(self) -> set[str]:
        """The paths of the open devices, and of those that the configuration names."""
        named = {source.pps for source in self._sources.values() if source.pps != AUTO}
        return named | {pulse.path for pulse in self._open.values()}

    @property
    def paths(self) -> dict[SourceId, str]:
        """The paths of the open devices."""
        return {name: pulse.path for name, pulse in self._open.items()}

    def silent(self, name: SourceId, now_ns: int) -> str:
        """The path of the open device of ``name`` when it has fallen silent; "" while it ticks, or when none is open."""
        pulse = self._open.get(name)
        return pulse.path if pulse is not None and pulse.silent(now_ns) else ""

    def configure(self, sources: Sequence[Source]) -> None:
        """Have the pulses of ``sources`` from now on. Devices of sources that are configured as before stay open."""
        wanted = _with_pulses(sources)
        for name in [name for name, source in self._sources.items() if wanted.get(name) != source]:
            del self._retries[name]
            if (pulse := self._open.pop(name, None)) is not None:
                _end(pulse)
        self._sources = wanted
        self._retries = {name: self._retries.get(name) or Retry() for name in wanted}

    def due_ns(self) -> list[int]:
        """Raw instants of the next attempts to open missing devices."""
        return [retry.due_ns for name, retry in self._retries.items() if name not in self._open]

    def open_due(self, now_ns: int) -> list[Event]:
        """Open the missing devices that are due; an event for each one opened."""
        found: list[Event] = []
        for name, source in self._sources.items():
            if name in self._open or now_ns < self._retries[name].due_ns:
                continue
            path = self._where(source)
            if not path:
                self._retries[name].failed(now_ns, "")
                continue
            try:
                found += self._opened(name, path)
            except OSError as error:
                found += self._failed(name, explain(error))
        return found

    def _opened(self, name: SourceId, path: str) -> list[Event]:
        """Open ``path`` for ``name``. OSError: it cannot be."""
        device, source, now = open_pulse(path, self._clock, self._wake), self._sources[name], self._clock.now()
        self._open[name] = _Open(path, device, now.mono_ns)
        self._tell(f"pulse of {name}", "")
        usb = over_usb(self._host, path) if source.pps_over_usb is None else source.pps_over_usb
        found: list[Event] = [SourceFound(name, path, now)] if isinstance(source, PpsSource) else []
        return [*found, PulseFound(name, path, usb, device.stamping.bias_us, device.stamping.how, now)]

    def change(self, name: SourceId, path: str) -> list[Event]:
        """Leave the open device of ``name`` for the one at ``path``, if that can be opened."""
        silent = self._open[name]
        try:
            found = self._opened(name, path)
        except OSError as error:
            self._tell(f"pulse of {name}", explain(error))
            return []
        _end(silent)
        return found

    def take(self) -> list[Event]:
        """The edges since the last call. A device that failed is dropped, to be opened again later."""
        events: list[Event] = []
        for name, pulse in list(self._open.items()):
            for edge in pulse.device.take():
                self._retries[name].worked()
                pulse.ticked(edge.at.mono_ns)
                events.append(Pulsed(name, edge, self._clock.now()))
            if pulse.device.error:  # its thread has ended
                del self._open[name]
                events += self._failed(name, pulse.device.error)
        return events

    def _failed(self, name: SourceId, why: str) -> list[Event]:
        """Note why the pulse of ``name`` cannot be had, and when to try again."""
        now = self._clock.now()
        news = self._retries[name].failed(now.mono_ns, why)
        if isinstance(self._sources[name], PpsSource):
            return [SourceLost(name, why, now)] if news else []
        self._tell(f"pulse of {name}", why)
        return []

    def stop(self) -> None:
        """Stop every device."""
        for pulse in self._open.values():
            pulse.device.stop()


def _with_pulses(sources: Sequence[Source]) -> dict[SourceId, PulsedSource]:
    return {SourceId(source.name): source for source in sources if isinstance(source, PulsedSource) and source.pps}


def _end(pulse: _Open) -> None:
    """Stop a device. A thread in the kernel notices its end only after a while, and the loop must not wait for it."""
    threading.Thread(target=pulse.device.stop, name=f"end of pulse {pulse.path}", daemon=True).start()
