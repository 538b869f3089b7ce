"""A receiver's serial port and the session that drives it: the one loop "read, decode, ask what to write, write".

The daemon, the search for receivers, and every command that looks at one use it.

Flow: port -> bytes -> ``receiver.session`` -> values; changes of the speed and bytes to write go back to the port.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final, Generic, TypeVar

from refclock.devices.serial_port import RawPort
from refclock.kernel.clocks import LocalClock
from refclock.receiver.session import Session
from refclock.sample import NS, Instant, ReceiverValue

SILENT_TICK_NS: Final = NS // 5
"""ns after which a session is asked again what is due although nothing came; as long as the pause that ends a burst."""
TAPE_BYTES: Final = 1 << 16
"""Octets of a line that are kept for onlookers: six seconds at 115200 baud."""
S = TypeVar("S", bound=Session)


class Tape:
    """The latest reads of a line, numbered from 0, for those who look on."""

    def __init__(self) -> None:
        self.count = 0
        self._reads: deque[tuple[Instant, bytes]] = deque()
        self._bytes = 0

    def add(self, at: Instant, data: bytes) -> None:
        """Keep a read; the oldest go."""
        self._reads.append((at, data))
        self.count += 1
        self._bytes += len(data)
        while self._bytes > TAPE_BYTES:
            self._bytes -= len(self._reads.popleft()[1])

    def since(self, number: int, most: int) -> tuple[list[tuple[Instant, bytes]], int]:
        """At most ``most`` reads from ``number`` on, or from the oldest that is kept; and the number after them."""
        oldest = self.count - len(self._reads)
        first = min(max(number, oldest), self.count)
        found = list(islice(self._reads, first - oldest, first - oldest + most))
        return found, first + len(found)


class ReceiverLine(Generic[S]):
    """An open port and the ``session`` that drives it now. OSError from every method: the port is lost."""

    def __init__(self, port: RawPort, session: S, clock: LocalClock) -> None:
        self.session = session
        self.tape = Tape()
        self._clock = clock
        self._port = port

    def fileno(self) -> int:
        """The port's descriptor."""
        return self._port.fileno()

    @property
    def baud(self) -> int:
        """The speed as set now; 0 for a device without one."""
        return self._port.baud

    @property
    def byte_ns(self) -> int:
        """Line time of one byte, ns; 0 for USB, which has no line speed."""
        return self._port.byte_ns

    def read(self) -> tuple[bytes, list[ReceiverValue], Instant]:
        """What the port has: (bytes, values decoded from them, when the read ended). Never blocks. What is due is carried out."""
        data, at = self._port.read()
        values = self.session.feed(data, at, self._port.byte_ns) if data else []
        if data:
            self.tape.add(at, data)
        self.attend(at)
        return data, values, at

    def attend(self, now: Instant) -> None:
        """Change the speed and write, as the session wants. What the driver does not take is lost, as it is on the line."""
        request = self.session.due(now.mono_ns)
        if request.baud is not None:
            self._port.set_baud(request.baud)
        if request.data:
            self._port.write(request.data)

    def run(self, until: Callable[[], bool], patience_s: float) -> bool:
        """Drive the session until ``until()`` holds; False when ``patience_s`` (``math.inf``: for ever) ended first."""
        end_ns = self._clock.now().mono_ns + patience_s * NS
        poll = select.poll()
        poll.register(self, select.POLLIN)
        while not until():
            now = self._clock.now()
            if now.mono_ns >= end_ns:
                return False
            self.attend(now)
            if until():
                break
            if poll.poll(SILENT_TICK_NS * 1000 // NS):
                self.read()
        return True

    def close(self) -> None:
        """Close the port."""
        self._port.close()
