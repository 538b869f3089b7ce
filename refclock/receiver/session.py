"""One receiver's line from opening to closing, sans-IO: bytes are decoded, the speed is looked for, the receiver is set up.

A session opens nothing and has no clock: a port (``devices.receiver_line``), the simulated world and a test drive the same code. Every
session has the same two verbs, so one loop serves them all: ``feed`` what a read brought, then carry out what ``due`` wants, also when
nothing came.

Flow: bytes + Instant -> **session** -> values (to the source that they belong to) and a LineRequest (to whoever holds the port).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from refclock.protocols.stream import ReceiverStream
from refclock.receiver.autobaud import BaudSearch, LineRequest
from refclock.receiver.commands import CommandQueue
from refclock.receiver.configurator import Configurator, News
from refclock.receiver.profile import TimingProfile
from refclock.sample import Instant, LineStatus, ReceiverValue

Profile = Callable[[int], TimingProfile]
"""What is wanted of a receiver on a line of that speed (baud)."""


class Session(Protocol):
    """What drives a line."""

    @property
    def baud(self) -> int:
        """The speed to listen at."""
        ...

    def feed(self, data: bytes, at: Instant, byte_ns: int) -> list[ReceiverValue]:
        """Decode what a read brought. ``at``: when the read ended; ``byte_ns``: line time of a byte, 0 when unknown (USB)."""
        ...

    def due(self, now_ns: int) -> LineRequest:
        """What the line wants at raw time ``now_ns``. Call it after each ``feed``, and about once a second while nothing comes."""
        ...


class ReceiverSession:
    """The daemon's session.

    ``mono_ns``: now; ``not_before_s``: no true date is before it (POSIX); ``baud``: the line's speed, 0: look for it, ``first`` first.
    ``profile``: what the receiver is to be set up for; None: nothing is ever written to it.
    ``heard_ns``: raw time of the last intelligible frame, or of the opening.
    """

    def __init__(self, mono_ns: int, not_before_s: int, *, baud: int = 0, first: int = 0, profile: Profile | None = None) -> None:
        self.stream = ReceiverStream(not_before_s)
        self.heard_ns = mono_ns
        self._stated_baud = baud
        self._search = None if baud else BaudSearch(mono_ns, first=first)
        self._profile = profile
        self._configurator = None if profile is None else Configurator(profile(self.baud))
        self._recognised = 0

    @property
    def baud(self) -> int:
        """The speed to listen at."""
        return self._stated_baud if self._search is None else self._search.baud

    @property
    def searching(self) -> bool:
        """Whether the speed is still being looked for."""
        return self._search is not None and not self._search.found

    @property
    def speaks(self) -> bool:
        """Whether something intelligible has come at the present speed."""
        return self._recognised > 0 and not self.searching

    @property
    def bits(self) -> str:
        """Format of the line when it is not eight data bits: "7N2", "7E1", "7O1"."""
        return self.stream.framer.tally.bits

    def feed(self, data: bytes, at: Instant, byte_ns: int) -> list[ReceiverValue]:
        """Decode what a read brought."""
        return self.stream.feed(data, at, byte_ns)

    def due(self, now_ns: int) -> LineRequest:
        """Another speed while this one makes no sense; then what the receiver has to be told."""
        tally = self.stream.framer.tally
        if tally.recognised > self._recognised:
            self._recognised, self.heard_ns = tally.recognised, now_ns
        baud = None if self._search is None else self._search.heard(tally, now_ns)
        if baud is not None and self._profile is not None:
            self._configurator = Configurator(self._profile(baud))
        if self._configurator is None or self.searching:  # nothing is written before the speed is found
            return LineRequest(baud)
        data = self._configurator.step(self.stream, now_ns)
        self.stream.wrote(data)
        return LineRequest(baud, data)

    def news(self) -> list[News]:
        """How the set-up went, each piece of news once."""
        return [] if self._configurator is None else self._configurator.news()

    @property
    def writes(self) -> bool:
        """Whether the receiver is asked and told anything at all."""
        return self._profile is not None

    def settings(self) -> CommandQueue | None:
        """As ``receiver.configurator.Configurator.settings``; None also when nothing is ever written to it."""
        return None if self._configurator is None else self._configurator.settings()

    def status(self) -> LineStatus:
        """What the line has shown so far."""
        return self.stream.status()


class Dialogue:
    """A session that asks and tells a receiver what ``queue`` holds, on a line whose speed is known."""

    def __init__(self, not_before_s: int, baud: int, queue: CommandQueue) -> None:
        self.queue = queue
        self.baud = baud
        self._stream = ReceiverStream(not_before_s)

    def feed(self, data: bytes, at: Instant, byte_ns: int) -> list[ReceiverValue]:
        """Decode what a read brought; answers go to the queue."""
        values = self._stream.feed(data, at, byte_ns)
        for frame in self._stream.take_answers():
            self.queue.hear(frame, at.mono_ns)
        return values

    def due(self, now_ns: int) -> LineRequest:
        """The next frame, when it is its turn."""
        data = self.queue.send(now_ns)
        self._stream.wrote(data)
        return LineRequest(None, data)
