"""Input and result of the doctor's examinations: Patient and Finding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ppsd.config.tables import Config
from ppsd.snapshot import Snapshot, SourceStatus
from refclock.config import AUTO, ReceiverSource
from refclock.kernel.host import Host

if TYPE_CHECKING:
    from ppsd.serve.ntp_server import Authenticator

OK, WARN, FAIL, SKIP = "ok", "warn", "fail", "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """``what``: one sentence with the evidence. ``do``: the remedy, a command where there is one. ``writes``: (file, text) of the safe
    remedy that ``--fix`` carries out."""

    check: str
    state: str
    what: str
    do: str = ""
    writes: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Patient:
    """The machine to examine. ``clock``: snapshot of the running daemon, None without one. ``pause``: sleeps for seconds (time.sleep).
    ``now_s``: system time (POSIX). ``servers``: NTP servers to compare with, authenticated with ``key``."""

    host: Host
    config: Config
    clock: Snapshot | None = None
    pause: Callable[[float], None] = time.sleep
    now_s: Callable[[], float] = time.time
    servers: Sequence[str] = ()
    key: Authenticator | None = None

    @property
    def sources(self) -> list[SourceStatus]:
        """The snapshot's sources with a receiver or its pulse: own lines, gpsd, pulses without a line."""
        return [s for s in self.clock.sources if s.kind in ("receiver", "gpsd", "pps")] if self.clock else []

    @property
    def devices(self) -> list[str]:
        """Serial devices: those configured by name, else all that may have a receiver."""
        told = [source.device for source in self.config.sources if isinstance(source, ReceiverSource) and source.device != AUTO]
        return told or [n for p in ("ttyACM*", "ttyUSB*", "gnss*", "ttyAMA0", "serial0") for n in self.host.names(f"/dev/{p}")]

    @property
    def pulse_devices(self) -> list[str]:
        """Pulse devices: those that are configured and exist, else all that exist."""
        told = [str(getattr(source, "pps", "")) for source in self.config.sources]
        there = [name for name in told if name and self.host.path(name).exists()]
        return there or [f"/dev/{name.rpartition('/')[2]}" for name in self.host.names("/sys/class/pps/pps*")]
