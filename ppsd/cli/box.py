"""``refclock box``: what the appliance does besides time: the owner's settings at each boot, its light, its state in words."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ppsd.appliance.led import MISTAKES, NO_TIME, WANTED, Light, blinks, light
from ppsd.process.control import ask
from ppsd.process.exit_codes import FAILED, GOOD, NO_PERMISSION, Refused
from refclock.errors import explain
from refclock.kernel.host import Host

if TYPE_CHECKING:
    from ppsd.appliance.box import Applied, Box

RUN_DIRECTORY = Path("/run/refclock")
"""The services' own; their units name it."""


def run(args: argparse.Namespace) -> int:
    """Execute one of the actions. The light's program runs for ever on a small machine, so it loads nothing of the others."""
    host = Host()
    if args.action == "led":
        return _led(host, RUN_DIRECTORY)
    from ppsd.appliance.boot import booted_slot, command  # noqa: PLC0415
    from ppsd.appliance.box import Box  # noqa: PLC0415
    from ppsd.cli.setup import privileges  # noqa: PLC0415
    from ppsd.config.keys import read_keys  # noqa: PLC0415

    if not booted_slot(host):
        raise Refused(FAILED, "refclock box: this machine does not run the refclock image")
    if os.geteuid() != 0:
        raise Refused(NO_PERMISSION, f"refclock box: only root may; run: sudo refclock box {args.action}")
    box = Box(host, command, privileges, read_keys)
    if args.action == "apply":
        applied = box.apply()
        _tell(box, applied, host)
        if applied.reboot:
            print("refclock box: restarting once, so that the firmware reads the new pins", file=sys.stderr)
            command(["systemctl", "--no-block", "reboot"])
        return GOOD
    applied = box.look()
    text = _text(applied, host)
    if args.write:
        box.write_status(text)
        return GOOD
    print(text, end="")
    return FAILED if applied.problems else GOOD


# ---- settings ---------------------------------------------------------------------------------------------------------------------------


def _tell(box: Box, applied: Applied, host: Host) -> None:
    """Say what happened, in the log and on the card. Mistakes in the settings are no failure: the box comes up."""
    for words in (*applied.words, *map(str, applied.problems)):
        print(f"refclock box: {words}", file=sys.stderr)
    if applied.words or applied.problems:
        try:
            box.write_status(_text(applied, host))
        except OSError as error:
            print(f"refclock box: {explain(error)}", file=sys.stderr)


def _text(applied: Applied, host: Host) -> str:
    from ppsd import version  # noqa: PLC0415 (as above)
    from ppsd.appliance.boot import booted_slot, command  # noqa: PLC0415
    from ppsd.appliance.loader import lines  # noqa: PLC0415
    from ppsd.appliance.status import status_text  # noqa: PLC0415
    from refclock.kernel.interfaces import addresses  # noqa: PLC0415

    try:
        own = addresses()
    except OSError:
        own = ()
    model = (host.text("/proc/device-tree/model") or "").rstrip("\0") or host.text("/sys/class/dmi/id/product_name") or "unknown machine"
    about = f"refclock {version()}, slot {booted_slot(host).upper()}, on: {model}"
    return status_text(applied, about, own, lines(host, command, version()))


# ---- the light --------------------------------------------------------------------------------------------------------------------------


def _led(host: Host, directory: Path) -> int:
    """Show the state by a light of the board, until the end. A machine without one has nothing to do."""
    wanted = host.text(WANTED) or "auto"
    if not (found := light(host, wanted)):
        print(f"refclock box: no light shows the state: {_why_dark(host, wanted)}", file=sys.stderr)
        return GOOD
    shown = Light(host, found)
    while True:
        for on, seconds in blinks(_verdict(directory), bool(host.text(MISTAKES))):
            shown.turn(on)
            time.sleep(seconds)


def _why_dark(host: Host, wanted: str) -> str:
    if wanted == "off":
        return "led is off in box.toml"
    if wanted == "auto":
        return "this is no Raspberry Pi whose light is known; led of box.toml can name one of /sys/class/leds"
    names = ", ".join(path.rpartition("/")[2] for path in host.names("/sys/class/leds/*")) or "none"
    return f"there is no {wanted}, which led of box.toml names; there are: {names}"


def _verdict(directory: Path) -> str:
    """The state as the owner is to see it; NO TIME when the clock or the server does not answer."""
    try:
        verdict = str(ask(directory / "clock.sock", "snapshot").get("verdict"))
        ask(directory / "serve.sock", "snapshot")
    except OSError:
        return NO_TIME
    return verdict
