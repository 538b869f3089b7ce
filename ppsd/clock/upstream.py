"""The door for NTP servers: what the NTP client of the serve process says of them becomes events.

Flow: datagram -> ``refclock.exchange.upstream`` -> **UpstreamDoor** -> UpstreamHeard -> engine. Whoever may write to the socket, its owner
and group, can say what a server of the configuration says; the engine believes no more of it than of such a server.
"""

from __future__ import annotations

from pathlib import Path

from ppsd.discipline.events import UpstreamHeard
from ppsd.process.control import shared
from refclock.exchange.samples import RawSample
from refclock.exchange.upstream import UpstreamIntake
from refclock.kernel.clocks import LocalClock
from refclock.sample import ForeignSample


class UpstreamDoor:
    """The socket at ``path``, for this process's user and for ``group`` ("": for its own). ``complaint``: why that group may not send, ""
    when it may. OSError: see ``refclock.kernel.unix_socket.bound``."""

    def __init__(self, path: Path, clock: LocalClock, group: str) -> None:
        self._clock = clock
        self._intake = UpstreamIntake(path)
        self.complaint = shared(path, group) if group else ""

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._intake.fileno()

    @property
    def missing(self) -> bool:
        """Whether somebody has removed its name."""
        return self._intake.name.missing()

    def read(self) -> list[UpstreamHeard]:
        """What has come."""
        return [UpstreamHeard(server, self._sample(raw), self._clock.now()) for server, raw in self._intake.read()]

    def _sample(self, raw: RawSample | None) -> ForeignSample | None:
        """The sample on both clocks; None when the system clock was stepped since, or it waited too long."""
        at = None if raw is None else self._clock.instant_of(raw.real_ns)
        return None if at is None or raw is None else ForeignSample(at, raw.offset_ns, raw.uncertainty_ns, raw.leap)

    def close(self) -> None:
        """Close it, and remove its name."""
        self._intake.close()
