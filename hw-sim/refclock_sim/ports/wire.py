"""A receiver's line in simulated time, read at any speed.

Flow: receiver chunks -> **wire** -> (uart) -> a probe or port under test, and its questions back. Bytes arrive tick by tick as they are
sent; how they are read depends on the reader's speed.
"""

from __future__ import annotations

from typing import Final

from refclock.sample import NS
from refclock_sim.ports.uart import heard
from refclock_sim.receiver.output import Receiver

TICK_NS: Final = NS // 50
"""ns: period at which a busy reader reads."""


class Wire:
    """``receiver`` None: nothing at the other end. ``tai_s``: true second at ``now`` = 0 (ns); ``now`` begins at ``begin_ns``.

    ``talks_from_ns``: the receiver is silent before. ``listens``: written bytes reach the receiver.
    """

    def __init__(self, receiver: Receiver | None, tai_s: int, *, begin_ns: int = 0, talks_from_ns: int = 0, listens: bool = True) -> None:
        self.receiver, self.now = receiver, begin_ns
        self._tai_s = tai_s
        self._talks_from, self._listens = talks_from_ns, listens
        self._sent: list[tuple[int, bytes]] = []  # (ns of the last byte, bytes), in order
        self._second = begin_ns // NS - 1
        self.read(0)  # what was sent before the beginning is lost
        self.now = begin_ns

    def read(self, baud: int) -> bytes:
        """Advance by a tick; the bytes that a reader at this speed reads in it."""
        self.now += TICK_NS
        receiver = self.receiver
        if receiver is None:
            return b""
        while self._second * NS < self.now:
            chunks = receiver.cycle(self._tai_s + self._second)
            if self._second * NS >= self._talks_from:
                self._sent += [(self._second * NS + chunk.offset_ns, chunk.data) for chunk in chunks]
            self._second += 1
        came, rest = b"", []
        for end, data in sorted(self._sent):
            first = end - len(data) * receiver.byte_ns
            here = len(data) if end <= self.now else max(0, (self.now - first) // receiver.byte_ns) if receiver.byte_ns else 0
            came += data[:here]
            if here < len(data):
                rest.append((end, data[here:]))
        self._sent = rest
        return heard(came, receiver.bits, receiver.baud, baud) if receiver.baud and baud else came

    def say(self, data: bytes) -> None:
        """Send bytes ahead of the receiver's."""
        self._sent.append((self.now + len(data) * (self.receiver.byte_ns if self.receiver else 0), data))

    def write(self, data: bytes, baud: int) -> None:
        """Write to the receiver, which hears it when the speeds agree."""
        if data and self._listens and self.receiver is not None and self.receiver.baud in (0, baud) and self.now >= self._talks_from:
            self._sent += [(end - self._tai_s * NS, answer) for end, answer in self.receiver.hear(data, self._tai_s * NS + self.now)]
