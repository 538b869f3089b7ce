"""Pulse devices: opens them, opens them again after a loss, and turns their edges into events.

Flow: /dev/ppsN, modem control lines (``refclock.devices``) -> **pulses** -> PulseFound, Pulsed -> engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ppsd.discipline.events import Event, Pulsed, PulseFound
from refclock.config import PulsedSource, Source
from refclock.devices.modem_lines import PulseDevice, open_pulse
from refclock.devices.ports import over_usb
from refclock.errors import explain
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.sample import NS, SourceId

PAUSES_NS: Final = (1 * NS, 2 * NS, 5 * NS)
"""Nanoseconds before the n-th new attempt to open a device; the last value repeats. A device that is plugged in is opened within five
seconds."""


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
        self._sources = {SourceId(s.name): s for s in sources if isinstance(s, PulsedSource) and s.pps}
        self._retries = {name: Retry() for name in self._sources}
        self._open: dict[SourceId, PulseDevice] = {}
        self._paths: dict[SourceId, str] = {}

    @property
    def in_use(self) -> set[str]:
        """The paths of the open devices."""
        return {path for name, path in self._paths.items() if name in self._open}

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
                device = open_pulse(path, self._clock, self._wake)
            except OSError as error:
                self._failed(name, explain(error))
                continue
            self._open[name], self._paths[name] = device, path
            self._tell(f"pulse of {name}", "")
            usb = over_usb(self._host, path) if source.pps_over_usb is None else source.pps_over_usb
            found.append(PulseFound(name, path, usb, device.stamping.bias_us, device.stamping.how, self._clock.now()))
        return found

    def take(self) -> list[Event]:
        """The edges since the last call. A device that failed is dropped, to be opened again later."""
        events: list[Event] = []
        for name, device in list(self._open.items()):
            for edge in device.take():
                self._retries[name].worked()
                events.append(Pulsed(name, edge, self._clock.now()))
            if device.error:  # its thread has ended
                del self._open[name]
                self._failed(name, device.error)
        return events

    def _failed(self, name: SourceId, why: str) -> None:
        self._retries[name].failed(self._clock.now().mono_ns, why)
        self._tell(f"pulse of {name}", why)

    def stop(self) -> None:
        """Stop every device."""
        for device in self._open.values():
            device.stop()
