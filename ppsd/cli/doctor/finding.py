"""Input and result of the doctor's examinations: Patient and Finding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final

from ppsd.cli.doctor.probes import Space, answers, arrivals_stamped, mdns_addresses, output_of, space_at
from ppsd.cli.query import Try, ask_once
from ppsd.config.tables import Config
from ppsd.snapshot import Client, NtsReport, ServerReport, Snapshot, SourceStatus
from refclock.config import AUTO, PulsedSource, ReceiverSource, Source
from refclock.kernel.host import Host
from refclock.kernel.interfaces import Address, has_address

if TYPE_CHECKING:
    from ppsd.serve.ntp_server import Authenticator

OK, WARN, FAIL, SKIP = "ok", "warn", "fail", "skip"
WORST: Final = (FAIL, WARN, SKIP, OK)
"""States, the one to be shown first."""
NO_DAEMON: Final = "no daemon is running to tell (refclock run)"


@dataclass(frozen=True, slots=True)
class Finding:
    """``what``: one sentence with the evidence. ``do``: the remedy, a command where there is one. ``writes``: (file, text) of the safe
    remedy that ``--fix`` carries out."""

    check: str
    state: str
    what: str
    do: str = ""
    writes: tuple[tuple[str, str], ...] = field(default=())


def worst(findings: Iterable[Finding], good: Finding) -> Finding:
    """The worst of the findings, the first of its kind; ``good`` when there is none."""
    return min(findings, key=lambda finding: WORST.index(finding.state), default=good)


@dataclass(frozen=True, slots=True)
class Patient:
    """The machine to examine. ``clock``: snapshot of the running daemon, None without one. ``pause``: sleeps for seconds (time.sleep).
    ``now_s``: system time (POSIX). ``servers``: NTP servers to compare with, authenticated with ``key``. ``server``: report of the serve
    process, or a few words why there is none; ``clients``: the latest ones that it knows. ``problems``: of the configuration file, which is
    then not in force, and ``config`` the defaults. ``nts``: report of the NTS-KE process. ``addresses``: of this machine, without loopback
    and link-local ones. What is tried: ``ask`` an NTP server (``ppsd.cli.query``); the rest is ``ppsd.cli.doctor.probes``."""

    host: Host
    config: Config
    clock: Snapshot | None = None
    pause: Callable[[float], None] = time.sleep
    now_s: Callable[[], float] = time.time
    servers: Sequence[str] = ()
    key: Authenticator | None = None
    server: ServerReport | str = "not running"
    ask: Callable[[tuple[object, ...], int], Try] = ask_once
    output: Callable[[Sequence[str]], str | None] = output_of
    clients: Sequence[Client] = ()
    problems: Sequence[str] = ()
    addresses: Sequence[Address] = ()
    answers: Callable[[Sequence[tuple[str, int, bytes]]], Sequence[bool | None]] = answers
    stamped: Callable[[], bool | None] = arrivals_stamped
    named: Callable[[str, Sequence[IPv4Address]], Sequence[str]] = mdns_addresses
    space: Callable[[str], Space | None] = space_at
    has: Callable[[str], bool] = has_address
    nts: NtsReport | None = None

    @property
    def settings(self) -> tuple[Source, ...]:
        """The sources that the daemon reads or looks for."""
        return self.config.heard

    @property
    def sources(self) -> list[SourceStatus]:
        """The snapshot's sources with a receiver or its pulse: own lines, gpsd, pulses without a line."""
        return [s for s in self.clock.sources if s.kind in ("receiver", "gpsd", "pps")] if self.clock else []

    @property
    def receivers(self) -> list[SourceStatus]:
        """Those with a receiver: own lines and gpsd."""
        return [s for s in self.sources if s.kind != "pps"]

    @property
    def devices(self) -> list[str]:
        """Serial devices: those configured by name, else all that may have a receiver; none when no receiver's line is configured."""
        lines = [source.device for source in self.settings if isinstance(source, ReceiverSource)]
        if AUTO not in lines:
            return lines
        return [n for p in ("ttyACM*", "ttyUSB*", "gnss*", "ttyAMA0", "serial0") for n in self.host.names(f"/dev/{p}")]

    @property
    def pulses(self) -> list[str]:
        """What is configured as pulses: devices, control lines, "auto"; empty when no source of the configuration has any."""
        return [pps for source in self.settings if isinstance(source, PulsedSource) and (pps := source.pps)]

    @property
    def pulse_devices(self) -> list[str]:
        """Pulse devices: those that are configured and exist, else all that exist."""
        there = [name for name in self.pulses if name != AUTO and self.host.path(name).exists()]
        return there or [f"/dev/{name.rpartition('/')[2]}" for name in self.host.names("/sys/class/pps/pps*")]

    @property
    def steers(self) -> bool:
        """Whether the system clock is to be steered: by the running daemon, else by the configuration."""
        return (self.clock.steering if self.clock is not None else self.config.clock.steer) == "kernel"

    @property
    def listen(self) -> tuple[str, ...]:
        """The addresses that are to be served: the running daemon's, else the configuration's; empty without an NTP server."""
        if self.clock is not None:
            return self.clock.listen
        return self.config.server.listen if self.config.server.enabled else ()
