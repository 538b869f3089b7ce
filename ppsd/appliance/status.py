"""STATUS.txt, and what ``refclock box status`` prints: the box in plain words, for its owner."""

from __future__ import annotations

from collections.abc import Sequence

from ppsd.appliance.box import Applied
from ppsd.appliance.network import served_ports
from ppsd.appliance.settings import PinSettings
from refclock.errors import printable
from refclock.kernel.interfaces import Network

HEADER_PINS = (27, 28, 3, 5, 7, 29, 31, 26, 24, 21, 19, 23, 32, 33, 8, 10, 36, 11, 12, 35, 38, 40, 15, 16, 18, 22, 37, 13)
"""Of each GPIO number the pin of the 40-pin header (Raspberry Pi's documentation, GPIO)."""

LEFT_ALONE = 'is left alone; to have it follow the receiver: steer = "kernel" below [clock] in refclock.toml'
"""Told where refclock.toml does not say so: the file as it is flashed does, one that somebody wrote anew may not."""


def status_text(applied: Applied, about: str, addresses: Sequence[Network], versions: Sequence[str]) -> str:
    """The whole text. ``about``: version, slot and board. ``addresses``: the interfaces' own, each with its length. ``versions``: what
    happened to updates, a line each. There is no time in it: a boot that changes nothing leaves the file as it was."""
    settings, name = applied.settings, f"{applied.settings.system.hostname}.local"
    ports, keys = served_ports(applied.config.server), len(settings.system.ssh_keys)
    shown = [f"{a.prefix} ({a.interface})" for a in addresses] or ["none: no cable, or no answer from the network yet"]
    wifi = settings.wifi
    rows = [
        ("name", [name]),
        ("addresses", shown),
        ("serves", [f"NTP on port {', '.join(map(str, ports))}" if ports else "nobody: server.enabled is false in refclock.toml"]),
        ("own clock", ["follows the receiver" if applied.config.clock.steer == "kernel" else LEFT_ALONE]),
        ("login", [f"ssh root@{name}, with {_counted(keys, 'key')} of box.toml" if keys else "nobody: box.toml has no ssh_keys"]),
        ("wireless", [f"{wifi.ssid}, country {wifi.country}" if wifi.ssid else "off"]),
        ("pins", [_pins(settings.pins)]),
    ]
    lines = [about, *versions, ""]
    for title, values in rows:
        lines += [f"{title if not i else '':<11}{value}" for i, value in enumerate(values)]
    lines += ["", *applied.words] if applied.words else []
    if applied.problems:
        count = _counted(len(applied.problems), "mistake")
        lines += ["", f"{count}; correct and restart:", *(f"  {problem}" for problem in applied.problems)]
    else:
        lines += ["", "No mistakes in refclock.toml and box.toml."]
    return "".join(f"{printable(line)}\n" for line in lines)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _pins(pins: PinSettings) -> str:
    pulse = f"pulse on GPIO {pins.pps} (header pin {HEADER_PINS[pins.pps]})" if pins.pps else "no pulse"
    return f"{pulse}; {'receiver on header pins 8 and 10' if pins.uart else 'no receiver'} (of a Raspberry Pi)"
