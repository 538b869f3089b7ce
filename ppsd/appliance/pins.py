"""The pins of a Raspberry Pi's header: what the firmware reads at its start, before Linux (config.txt and user.txt).

config.txt of each boot partition includes user.txt. What stands there acts at the next start, so a change needs one reboot.
"""

from __future__ import annotations

from typing import Final

from ppsd.appliance.settings import PinSettings

_OLDER: Final = ("pi02", "pi3", "pi4")
"""Sections of config.txt for the boards whose pins and UARTs are the processor's: Zero 2 W, 3, 4 with 400 and CM4."""
_NEWER: Final = ("pi5",)
"""Those whose pins are RP1's: 5 with 500 and CM5."""


def user_text(pins: PinSettings) -> str:
    """The content of user.txt."""
    lines = ["# Written by refclock box from [pins] of box.toml. The firmware reads it.", "[all]", f"enable_uart={int(pins.uart)}"]
    for section in _OLDER:
        lines.append(f"[{section}]")
        lines += [f"dtoverlay=pps-gpio,gpiopin={pins.pps}"] if pins.pps else []
        lines += ["dtoverlay=disable-bt"] if pins.uart else []
    for section in _NEWER:
        lines.append(f"[{section}]")
        lines += [f"dtoverlay=pps-gpio-pi5,gpiopin={pins.pps}"] if pins.pps else []
    return "\n".join([*lines, "[all]", ""])
