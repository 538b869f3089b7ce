"""Open sources: one class for each kind of source, which turns what it reads into events.

Flow: serial lines, gpsd, SOCK and SHM (``refclock``) -> **sources** -> Reported, LineSeen, Configured, Pulsed, Sampled -> engine.
``inputs`` opens a source, waits for its descriptor, closes it when it fails and opens it again. A source never retries by itself.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from ppsd.discipline.events import Configured, LineSeen, Pulsed, Report, Reported, Sampled
from refclock import config
from refclock.config import AUTO, GpsdSource, ReceiverSource, ShmSource, SockSource
from refclock.devices.modem_lines import Changes
from refclock.devices.receiver_line import ReceiverLine
from refclock.devices.serial_port import open_port
from refclock.exchange.gpsd import GpsdSocket
from refclock.exchange.samples import FeedWriter, RawSample
from refclock.exchange.shm import ShmFeedWriter, ShmIntake
from refclock.exchange.sock import SockFeedWriter, SockIntake
from refclock.kernel.clocks import LocalClock
from refclock.protocols.gpsd import GpsdPulse, GpsdStream
from refclock.receiver.autobaud import SILENT_ADVICE
from refclock.receiver.commands import CommandQueue
from refclock.receiver.profile import timing_profile
from refclock.receiver.session import ReceiverSession
from refclock.sample import NS, Edge, EdgeKind, ForeignSample, Instant, Leap, LineStatus, SecondLabel, SkyView, SourceId

MUTE_NS: Final = 12 * NS
"""Nanoseconds without a byte after which nothing is said to come. Receivers speak at least every 10 s."""


def open_feed(feed: config.Feed, sources: Sequence[config.Source] = ()) -> FeedWriter:
    """The writer for one ``[[feed]]`` from ``sources``. The program that reads the feed need not be running."""
    limit_ns = config.promise_us(feed, sources) * 1e3
    if isinstance(feed, config.SockFeed):
        return SockFeedWriter(feed.path, feed.name, limit_ns)
    return ShmFeedWriter(feed.unit, feed.name, limit_ns)


class Device(Protocol):
    """An open source. Each method raises OSError when the source is lost."""

    @property
    def what(self) -> str:
        """A description for people; "" until the source has answered."""
        ...

    def fileno(self) -> int:
        """The descriptor to wait on; it never changes. -1: there is none, and ``read`` must be called at intervals."""
        ...

    def read(self) -> list[Report]:
        """The reports that have arrived, in order. Never blocks."""
        ...

    def tick(self, now: Instant) -> list[Report]:
        """Called about once a second; any further reports."""
        ...

    def close(self) -> None:
        """Close the source."""
        ...


class Line:
    """A receiver's serial line and its session. ``device``: the line's path. ``opened_ns``: when it was opened (raw). ``mute``: whether
    nothing came until it was closed and opened again; that is told on until a byte comes."""

    def __init__(self, config: ReceiverSource, clock: LocalClock, earliest_s: int, first_baud: int = 0, mute: bool = False) -> None:
        self._id = SourceId(config.name)
        self.device = config.device
        self.opened_ns = clock.now().mono_ns
        self.came_ns = self.opened_ns
        """Raw instant of the last byte; before the first, of the opening."""
        self._mute = mute
        port = open_port(config.device, config.baud or first_baud, clock)
        timed = port.byte_ns > 0
        session = ReceiverSession(
            self.opened_ns,
            earliest_s,
            baud=config.baud,
            first=first_baud,
            profile=(lambda baud: timing_profile(config, baud if timed else 0)) if config.configure else None,
        )
        self._line = ReceiverLine(port, session, clock)
        self._session = session
        self._changes = Changes(self._line.fileno(), self.opened_ns)
        self.named_s: int | None = None
        """The last second that it named (POSIX)."""
        self._name = config.device + (f" + {config.pps}" if config.pps not in ("", AUTO) else "")
        self._searched = not config.baud
        self._seen: LineStatus | None = None

    @property
    def what(self) -> str:
        """The device's path, with the speed once it has been found."""
        if not self._searched:
            return f"{self._name}, {self._session.bits}" if self._session.bits else self._name
        how = f" at {self.baud} baud {self._session.bits}".rstrip()
        return self._name if self._session.searching or not self.baud else self._name + how

    @property
    def baud(self) -> int:
        """The line's present speed; 0 for a device without one."""
        return self._line.baud

    @property
    def speaks(self) -> bool:
        """Whether an intelligible frame has arrived at the present speed."""
        return self._session.speaks

    @property
    def heard_ns(self) -> int:
        """Raw instant of the last intelligible frame; before the first frame, of the opening."""
        return self._session.heard_ns

    @property
    def byte_ns(self) -> int:
        """Line time of one byte, ns; 0 for USB."""
        return self._line.byte_ns

    @property
    def bits(self) -> str:
        """Format of the line when it is not eight data bits."""
        return self._session.bits

    @property
    def protocol(self) -> str:
        """What it speaks."""
        return self._session.stream.protocol

    @property
    def heard_count(self) -> int:
        """Number of the next read."""
        return self._line.tape.count

    def heard(self, number: int, most: int) -> tuple[list[tuple[Instant, bytes]], int]:
        """Reads from ``number`` on, as ``refclock.devices.receiver_line.Tape.since``."""
        return self._line.tape.since(number, most)

    @property
    def writes(self) -> bool:
        """Whether the receiver is asked and told anything at all."""
        return self._session.writes

    def settings(self) -> CommandQueue | None:
        """As ``refclock.receiver.session.ReceiverSession.settings``."""
        return self._session.settings()

    @property
    def identity(self) -> str:
        """The receiver's own identity; "" when it has sent none."""
        return self._session.stream.identity

    def own_pulse(self, now_ns: int) -> str:
        """The modem control line of this port that carries a pulse, as "path:LINE"; "" while none is known to."""
        line = self._changes.pulse(now_ns)
        return f"{self.device}:{line}" if line else ""

    def fileno(self) -> int:
        """The line's descriptor."""
        return self._line.fileno()

    def read(self) -> list[Report]:
        """The values decoded from the bytes that arrived, and news of the receiver's configuration."""
        data, values, at = self._line.read()
        if data:
            self.came_ns, self._mute = at.mono_ns, False
        for value in values:
            if isinstance(value, SecondLabel):
                self.named_s = value.utc_ns // NS
        events: list[Report] = [Reported(self._id, tuple(values), at, self._line.byte_ns)] if data else []
        return events + self._news(at)

    def tick(self, now: Instant) -> list[Report]:
        """Continue the search for the speed and the receiver's configuration; report the line's status when it has changed."""
        self._line.attend(now)
        events = self._news(now)
        self._mute = self._mute or now.mono_ns - self.came_ns > MUTE_NS
        seen = replace(self._session.status(), silent=SILENT_ADVICE if self._mute else "")
        if seen != self._seen:
            self._seen = seen
            events.append(LineSeen(self._id, seen, now))
        return events

    def _news(self, at: Instant) -> list[Report]:
        return [Configured(self._id, n.what, n.complete, n.identity, n.by_result(), at, n.pulse_set) for n in self._session.news()]

    def close(self) -> None:
        """Close the line."""
        self._line.close()


class GpsdLine:
    """A connection to gpsd. If ``pps`` names a pulse device, the pulses come from that device. Otherwise the PPS objects of a gpsd on this
    host are the pulses, with an allowance for their delay (``refclock.timing.receiver_time.GPSD_PULSE_NS``). ``what`` says which."""

    def __init__(self, config: GpsdSource, clock: LocalClock, earliest_s: int) -> None:
        self._id = SourceId(config.name)
        self._stream = GpsdStream(earliest_s, config.device)
        self._socket = GpsdSocket(config.host, config.port, clock)
        self._name = f"gpsd at {config.host}:{config.port}" + (f" + {config.pps}" if config.pps else "")
        self._clock = clock
        self._local = config.local
        self._pulses = self._local and not config.pps
        self._own_pulse = bool(config.pps)
        self._sequence = 0
        self._seen = LineStatus()
        self.what = ""
        self.read()

    def fileno(self) -> int:
        """The connection's descriptor. While the connection is being made, only a failure makes it readable; ``tick`` notices success."""
        return self._socket.fileno()

    def read(self) -> list[Report]:
        """What gpsd has reported."""
        data, at = self._socket.pump()
        if self._socket.connected:
            pulses = " with the pulses that it reports" if self._sequence else ", messages only"
            self.what = self._name + ("" if self._own_pulse else pulses)
        events: list[Report] = []
        for value in self._stream.feed(data, at):
            if isinstance(value, SecondLabel):
                events.append(Reported(self._id, (self._stamped(value),), at))
            elif isinstance(value, GpsdPulse):
                if self._pulses and (edge := self._edge(value, at)) is not None:
                    events.append(Pulsed(self._id, edge, at))
            elif isinstance(value, SkyView):
                events.append(Reported(self._id, (value,), at))
        if not self._socket.connected and not self._socket.connecting:
            why = self._socket.why
            self._socket.close()
            raise OSError(errno.ENOTCONN, why)
        return events

    def _stamped(self, label: SecondLabel) -> SecondLabel:
        """The label, stamped with the arrival of the receiver's message if gpsd reported it and shares our clock."""
        real_ns = self._stream.arrived(label) if self._local else None
        came = self._clock.instant_of(real_ns) if real_ns is not None else None
        return replace(label, at=came) if came is not None and 0 <= label.at.mono_ns - came.mono_ns < NS else label

    def _edge(self, pulse: GpsdPulse, at: Instant) -> Edge | None:
        """The pulse as an edge; None when the report is a second late or more, or its stamp lies before a step. gpsd chose the edge."""
        seen = self._clock.instant_of(pulse.clock_ns)
        if seen is None or not 0 <= at.mono_ns - seen.mono_ns < NS:
            return None
        self._sequence += 1
        return Edge(seen.shifted(round(pulse.early_ns)), EdgeKind.ASSERT, self._sequence, round(NS * 2.0**pulse.precision))

    def tick(self, now: Instant) -> list[Report]:
        """Notice that the connection was made, or that it failed; report what gave no label, when that has changed."""
        events = self.read() if self._socket.connecting else []
        seen = self._stream.status(now.mono_ns)
        if seen != self._seen:
            self._seen = seen
            events.append(LineSeen(self._id, seen, now))
        return events

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Intake:
    """Samples of other programs (SOCK, SHM). A sample is ignored if its stamp lies before a step or too far back, or if its writer marks it
    as unsynchronised."""

    def __init__(self, config: SockSource | ShmSource, clock: LocalClock) -> None:
        self._id = SourceId(config.name)
        self._clock = clock
        self._intake: SockIntake | ShmIntake
        if isinstance(config, SockSource):
            self._intake = SockIntake(config.path)
            self.what = f"samples on {config.path}"
        else:
            self._intake = ShmIntake(config.unit, config.owner, config.shared)
            self._intake.open()  # the writer must have created it
            self.what = f"shared memory unit {config.unit}"

    def fileno(self) -> int:
        """The socket's descriptor; shared memory has none."""
        return self._intake.fileno() if isinstance(self._intake, SockIntake) else -1

    def read(self) -> list[Report]:
        """The samples that have arrived."""
        raws = self._intake.read()
        if isinstance(self._intake, ShmIntake) and self._intake.why:
            raise OSError(errno.ENODEV, self._intake.why)
        samples = [sample for raw in raws if (sample := self._sample(raw)) is not None]
        return [Sampled(self._id, sample, self._clock.now()) for sample in samples]

    def _sample(self, raw: RawSample) -> ForeignSample | None:
        at = self._clock.instant_of(raw.real_ns)
        if at is None or raw.leap is Leap.UNSYNCHRONISED:
            return None
        return ForeignSample(at, raw.offset_ns, raw.uncertainty_ns, raw.leap, raw.pulse)

    def tick(self, now: Instant) -> list[Report]:
        """Look whether other programs still find the socket. OSError: somebody has removed it."""
        del now
        if isinstance(self._intake, SockIntake) and self._intake.name.missing():
            raise OSError(errno.ENOENT, "was removed by somebody, and is made anew", self._intake.path)
        return []

    def close(self) -> None:
        """Close the socket or the shared memory."""
        self._intake.close()


def open_device(
    source: ReceiverSource | GpsdSource | ShmSource | SockSource,
    clock: LocalClock,
    earliest_s: int,
    first_baud: int = 0,
    mute: bool = False,
) -> Device:
    """Open ``source``; one that has nothing but pulses is opened by ``pulses``. OSError says what is missing.

    ``earliest_s``: POSIX second before any true date. ``first_baud``: the speed at which the receiver last spoke, 0 when unknown.
    ``mute``: as ``Line``.
    """
    if isinstance(source, ReceiverSource):
        return Line(source, clock, earliest_s, first_baud, mute)
    if isinstance(source, GpsdSource):
        return GpsdLine(source, clock, earliest_s)
    return Intake(source, clock)
