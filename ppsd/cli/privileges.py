"""What a configuration needs of systemd beyond refclock-clock.service: `refclock setup` and the appliance write it as a drop-in."""

from __future__ import annotations

import re
from typing import Final

from ppsd.config.tables import Config
from refclock.config import GpsdSource, PulsedSource, ReceiverSource, ShmFeed

MADE: Final = "# Written by refclock setup."


def lines_used(config: Config) -> list[str]:
    """The serial devices that the sources name."""
    if not config.sources:
        return []
    from refclock.devices.ports import control_line  # noqa: PLC0415 (the box at each boot has mostly no use for it, and waits)

    named = [source.device for source in config.sources if isinstance(source, ReceiverSource)]
    pulses = [control_line(source.pps) for source in config.sources if isinstance(source, PulsedSource)]
    return [name for name in (*named, *(line[0] for line in pulses if line)) if name.startswith("/")]


def privileges(config: Config) -> str:
    """The drop-in that gives refclock-clock.service what ``config`` needs beyond the unit; "" when the unit does."""
    lines: list[str] = []
    if config.clock.steer == "kernel":
        lines += ['# clock.steer = "kernel": it sets the clock, and looks for other programs that do.']
        lines += ["CapabilityBoundingSet=CAP_SYS_TIME", "AmbientCapabilities=CAP_SYS_TIME", "ProtectProc=default"]
    if any(isinstance(source, GpsdSource) for source in config.sources):
        lines += ["# A source is gpsd, which talks TCP on this machine."]
        lines += ["PrivateNetwork=no", "RestrictAddressFamilies=AF_INET AF_INET6", "IPAddressAllow=localhost"]
    if any(isinstance(feed, ShmFeed) for feed in config.feeds):
        lines += ["# Its shared memory outlives a restart: ntpd has it open.", "RemoveIPC=no"]
    used = lines_used(config)
    kinds = {found[1] for name in used if (found := re.fullmatch(r"/dev/(tty[A-Za-z]+)\d+", name))}
    if kinds:
        from refclock.devices.ports import SERIAL_PATTERNS  # noqa: PLC0415

        if others := sorted(kinds - {pattern.rstrip("*") for pattern in SERIAL_PATTERNS}):
            lines += ["# A source names a port of this kind.", *(f"DeviceAllow=char-{kind} rw" for kind in others)]
    return "\n".join([MADE, "[Service]", *lines, ""]) if lines else ""
