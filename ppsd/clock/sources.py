"""Sources as open devices: what each kind reads, turned into events.

Flow: serial_port, gpsd_socket, intake (bytes and raw samples) -> **devices** -> Received, Labelled, SkySeen, Sampled -> engine. The shell
(``ppsd.run``) opens a device, waits for its descriptor and closes it when it fails; a device never tries again by itself.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Configured, Event, Labelled, Pulsed, PulseFound, Received, Report, Sampled, SkySeen
from refclock import config
from refclock.config import AUTO, GpsdSource, Pulse, ReceiverSource, ShmSource, SockSource, Source
from refclock.devices.modem_lines import Changes, PulseDevice, open_pulse
from refclock.devices.ports import over_usb
from refclock.devices.serial_port import SerialPort
from refclock.errors import explain
from refclock.exchange.gpsd import GpsdSocket
from refclock.exchange.samples import RawSample
from refclock.exchange.shm import ShmFeedWriter, ShmIntake
from refclock.exchange.sock import SockFeedWriter, SockIntake
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.protocols.gpsd import GpsdPulse, GpsdStream
from refclock.receiver.autobaud import BaudSearch
from refclock.receiver.configurator import Upkeep
from refclock.receiver.profile import intent
from refclock.sample import NS, Edge, EdgeKind, Instant, Leap, Sample, SecondLabel, SkyView, SourceId


def open_feed(feed: config.Feed) -> SockFeedWriter | ShmFeedWriter:
    """The writer for one ``[[feed]]``; its peer need not be there."""
    if isinstance(feed, config.SockFeed):
        return SockFeedWriter(feed.path, feed.name)
    return ShmFeedWriter(feed.unit, feed.name)


PULSE_NAMED_NS: Final = 100_000_000
"""A bound below this names the second of a sample that is known modulo a second (as for pulses: refclock.pairing)."""


PAUSES_NS: Final = (1 * NS, 2 * NS, 5 * NS)
"""Before the n-th attempt in a row to open a device; the last one repeats. A plugged-in receiver is noticed within five seconds."""


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


class Device(Protocol):
    """An open source. ``what`` names it for people, "" while it is not known to be there. Each method raises OSError when it is lost."""

    what: str

    def fileno(self) -> int:
        """The descriptor to wait on, the same for life; -1 when there is none and ``read`` must be called now and then."""
        ...

    def read(self) -> list[Report]:
        """What has arrived, in order; never blocks."""
        ...

    def tick(self, now: Instant) -> None:
        """Called about once a second."""
        ...

    def close(self) -> None:
        """Give it up."""
        ...


class Line:
    """A receiver's serial line, its speed looked for when the configuration leaves it open, and the receiver set up when it may be.

    ``device``: its path; ``opened_ns``: when (mono_ns); ``heard_ns``: when something intelligible came last, or it was opened. The engine
    decodes what ``read`` brings, so its answers are looked at when the next bytes come, or a second later.
    """

    def __init__(self, config: ReceiverSource, clock: LocalClock, engine: Engine, first_baud: int = 0) -> None:
        self._id, self._config = SourceId(config.name), config
        self.device = config.device
        self._source = engine.sources[self._id]
        self._recognised = 0
        self.opened_ns = self.heard_ns = clock.now().mono_ns
        self._search = None if config.baud else BaudSearch(self.heard_ns, first=first_baud)
        self._port = SerialPort(config.device, self._search.baud if self._search else config.baud, clock)
        self._changes = Changes(self._port.fileno(), self.opened_ns)
        self._name = config.device + (f" + {config.pps}" if config.pps not in ("", AUTO) else "")
        self.what = self._name
        self._upkeep = Upkeep(intent(config, self._port)) if config.configure else None

    @property
    def baud(self) -> int:
        """The speed as set now."""
        return self._port.baud

    @property
    def speaks(self) -> bool:
        """Whether something intelligible has come at the present speed."""
        return self._recognised > 0 and (self._search is None or self._search.found)

    @property
    def identity(self) -> str:
        """What the receiver calls itself, "" when it did not say."""
        return self._source.receiver.identity

    def own_pulse(self, now_ns: int) -> str:
        """The control line of this port that has a pulse; "" while none is known to have one."""
        line = self._changes.pulse(now_ns)
        return f"{self.device}:{line}" if line else ""

    def fileno(self) -> int:
        """The line's descriptor."""
        return self._port.fileno()

    def read(self) -> list[Report]:
        """What the line brought."""
        data, at = self._port.read()
        self._attend(at)
        self._look(at)
        events: list[Report] = [Received(self._id, data, at, self._port.byte_ns)] if data else []
        news = self._upkeep.news() if self._upkeep is not None else []
        events += [Configured(self._id, n.what, n.complete, n.identity, n.results, at, n.pulse_set) for n in news]
        return events

    def _attend(self, now: Instant) -> None:
        """Write what the receiver has to be told; a piece that the driver does not take is as lost on the line: it is sent again."""
        heard = self._search is None or self._search.found
        if self._upkeep is not None and heard and (wish := self._upkeep.step(self._source.receiver, now.mono_ns)):
            self._port.write(wish)

    def tick(self, now: Instant) -> None:
        """Go on looking for the speed, and after the receiver."""
        self._attend(now)
        self._look(now)

    def _look(self, now: Instant) -> None:
        """Change the speed when this one makes no sense."""
        tally = self._source.receiver.framer.tally
        if tally.recognised > self._recognised:
            self._recognised, self.heard_ns = tally.recognised, now.mono_ns
        if self._search is None:
            self.what = f"{self._name}, {tally.bits}" if tally.bits else self._name
            return
        baud = self._search.heard(tally, now.mono_ns)
        if baud is not None:
            self._port.set_baud(baud)
            if self._upkeep is not None:  # nothing is written before the speed is found
                self._upkeep = Upkeep(intent(self._config, self._port))
        how = f" at {self._port.baud} baud {tally.bits}".rstrip()
        self.what = self._name + (how if self._search.found else "")

    def close(self) -> None:
        """Close the line."""
        self._port.close()


LOCAL_HOSTS: Final = ("localhost", "::1")
"""And 127.0.0.0/8: there gpsd stamps with our own clock."""


class GpsdLine:
    """gpsd's reports. Where ``pps`` names the pulse's own device its stamps are taken from there; otherwise, from a gpsd on this host, its
    PPS objects are the pulses, with an allowance for their way (``source.GPSD_PULSE_NS``). ``what`` says which of the two."""

    def __init__(self, config: GpsdSource, clock: LocalClock, engine: Engine) -> None:
        self._id = SourceId(config.name)
        source = engine.sources[self._id]
        self._stream = GpsdStream(source.receiver.nmea.not_before_s, config.device)
        self._socket = GpsdSocket(config.host, config.port, clock)
        self._name = f"gpsd at {config.host}:{config.port}" + (f" + {config.pps}" if config.pps else "")
        self._clock = clock
        self._local = config.host in LOCAL_HOSTS or config.host.startswith("127.")
        self._pulses = self._local and not config.pps
        self._own_pulse = bool(config.pps)
        self._sequence = 0
        self.what = ""
        self.read()

    def fileno(self) -> int:
        """The connection's descriptor. While it is being made only an error makes it readable; then ``tick`` finds it done."""
        return self._socket.fileno()

    def read(self) -> list[Report]:
        """What gpsd reported."""
        data, at = self._socket.pump()
        if self._socket.connected:
            way = " with the pulses that it reports" if self._sequence else ", messages only"
            self.what = self._name + ("" if self._own_pulse else way)
        events: list[Report] = []
        for value in self._stream.feed(data, at):
            if isinstance(value, SecondLabel):
                events.append(Labelled(self._id, self._stamped(value), at))
            elif isinstance(value, GpsdPulse):
                if self._pulses and (edge := self._edge(value, at)) is not None:
                    events.append(Pulsed(self._id, edge, at))
            elif isinstance(value, SkyView):
                events.append(SkySeen(self._id, value, at))
        if not self._socket.connected and not self._socket.connecting:
            why = self._socket.why
            self._socket.close()
            raise OSError(errno.ENOTCONN, why)
        return events

    def _stamped(self, label: SecondLabel) -> SecondLabel:
        """The label with the arrival of the receiver's message, when gpsd told it and shares our clock."""
        real_ns = self._stream.arrived(label) if self._local else None
        came = self._clock.instant_of(real_ns) if real_ns is not None else None
        return replace(label, at=came) if came is not None and 0 <= label.at.mono_ns - came.mono_ns < NS else label

    def _edge(self, pulse: GpsdPulse, at: Instant) -> Edge | None:
        """The pulse as an edge: gpsd has chosen which, and tells it within the second."""
        seen = self._clock.instant_of(pulse.clock_ns)
        if seen is None or not 0 <= at.mono_ns - seen.mono_ns < NS:
            return None
        self._sequence += 1
        return Edge(seen.shifted(round(pulse.early_ns)), EdgeKind.ASSERT, self._sequence, round(NS * 2.0**pulse.precision))

    def tick(self, now: Instant) -> None:
        """Notice that the connection was made, or never will be."""
        del now
        if self._socket.connecting:
            self.read()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Intake:
    """Samples of other programs (SOCK, SHM). A sample whose stamp lies before a step or too far back, or which its writer does not believe
    itself, gives none."""

    def __init__(self, config: SockSource | ShmSource, clock: LocalClock, engine: Engine) -> None:
        self._id = SourceId(config.name)
        self._clock, self._engine = clock, engine
        self._intake: SockIntake | ShmIntake
        if isinstance(config, SockSource):
            self._intake = SockIntake(config.path)
            self.what = f"samples on {config.path}"
        else:
            self._intake = ShmIntake(config.unit)
            self._intake.open()  # its writer must have made it
            self.what = f"shared memory unit {config.unit}"

    def fileno(self) -> int:
        """The socket's descriptor; shared memory has none."""
        return self._intake.fileno() if isinstance(self._intake, SockIntake) else -1

    def read(self) -> list[Report]:
        """What has arrived."""
        raws = self._intake.read()
        if isinstance(self._intake, ShmIntake) and self._intake.why:
            raise OSError(errno.ENODEV, self._intake.why)
        samples = [sample for raw in raws if (sample := self._sample(raw)) is not None]
        return [Sampled(self._id, sample, self._clock.now()) for sample in samples]

    def _sample(self, raw: RawSample) -> Sample | None:
        at = self._clock.instant_of(raw.real_ns)
        if at is None or raw.leap is Leap.UNSYNCHRONISED:
            return None
        tai_ns = self._engine.leaps.table.utc_to_tai_ns(raw.real_ns + raw.offset_ns)
        if raw.pulse:  # the offset is known modulo a second: the served time names the second, when it can
            present = self._engine.timescale.present(at.mono_ns)
            if present is None or present.bound_ns > PULSE_NAMED_NS:
                return None
            tai_ns += round((present.tai_at(at.mono_ns) - tai_ns) / NS) * NS
        return Sample(at, tai_ns, raw.uncertainty_ns, raw.leap)

    def tick(self, now: Instant) -> None:
        """Nothing to do."""
        del now

    def close(self) -> None:
        """Give it up."""
        self._intake.close()


def open_device(source: Source, clock: LocalClock, engine: Engine, first_baud: int = 0) -> Device:
    """Open what ``source`` names; ``first_baud``: the speed at which a receiver was heard last. OSError says what is missing."""
    if isinstance(source, ReceiverSource):
        return Line(source, clock, engine, first_baud)
    if isinstance(source, GpsdSource):
        return GpsdLine(source, clock, engine)
    return Intake(source, clock, engine)


class PulseInputs:
    """The pulse devices of all sources: opened when they are there and due, and their edges as events. ``tell``: (what, trouble or "") for
    people, on change. ``where``: the path of a source's pulse as configured, "" when it is not there now."""

    def __init__(
        self,
        sources: Sequence[Source],
        clock: LocalClock,
        wake: Callable[[], None],
        tell: Callable[[str, str], None],
        *,
        host: Host,
        where: Callable[[Pulse], str] = lambda source: source.pps,
    ) -> None:
        self._clock, self._wake, self._tell, self._host, self._where = clock, wake, tell, host, where
        self._sources = {SourceId(s.name): s for s in sources if isinstance(s, Pulse) and s.pps}
        self._retries = {name: Retry() for name in self._sources}
        self._open: dict[SourceId, PulseDevice] = {}
        self._paths: dict[SourceId, str] = {}

    @property
    def in_use(self) -> set[str]:
        """The paths of those that are open."""
        return {path for name, path in self._paths.items() if name in self._open}

    def due_ns(self) -> list[int]:
        """Raw instants at which those that are missing want to be tried."""
        return [retry.due_ns for name, retry in self._retries.items() if name not in self._open]

    def open_due(self, now_ns: int) -> list[Event]:
        """Open what is missing and due."""
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
        """The edges since the last call; a device that failed is given up."""
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
        """Give them all up."""
        for device in self._open.values():
            device.stop()
