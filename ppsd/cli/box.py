"""``refclock box``: what the appliance does besides time: the owner's settings at each boot, its light, its state in words."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppsd.process.exit_codes import FAILED, GOOD, NO_PERMISSION, Refused
from refclock.errors import printable

if TYPE_CHECKING:
    from ppsd.appliance.box import Applied, Box
    from refclock.kernel.host import Host

ROOT = Path("/")
RUN_DIRECTORY = Path("/run/refclock")
"""The services' own; their units name it."""


def run(args: argparse.Namespace) -> int:
    """Execute one of the actions. A boot waits for ``apply``, and ``led`` runs for ever: each loads only what it needs."""
    if args.action == "led":
        return _led(RUN_DIRECTORY)
    from ppsd.appliance.boot import slot_of  # noqa: PLC0415
    from ppsd.appliance.made import Machine, remembered  # noqa: PLC0415

    machine = Machine(ROOT, _command)
    if not slot_of(machine.text("/proc/cmdline")):
        raise Refused(FAILED, "refclock box: this machine does not run the refclock image")
    if os.geteuid() != 0:
        raise Refused(NO_PERMISSION, f"refclock box: only root may; run: sudo refclock box {args.action}")
    if args.action == "status":
        return _status(args.write)
    if (made := remembered(ROOT)) is None:
        return _apply()
    reboot = machine.carry_out(made)
    for trouble in machine.troubles:
        print(f"refclock box: {trouble}", file=sys.stderr)
    return _end(reboot)


def _command(words: Sequence[str]) -> int:
    from ppsd.appliance.boot import command  # noqa: PLC0415

    return command(words)


def _end(reboot: bool) -> int:
    if reboot:
        print("refclock box: restarting once, so that the firmware reads the new pins", file=sys.stderr)
        # Not unit by unit: at a start most are only coming up. Processes still get SIGTERM, and file systems are unmounted (systemctl(1)).
        _command(["systemctl", "--no-block", "--force", "reboot"])
    return GOOD


# ---- settings ---------------------------------------------------------------------------------------------------------------------------


def _box() -> Box:
    from ppsd.appliance.box import Box  # noqa: PLC0415
    from ppsd.cli.privileges import privileges  # noqa: PLC0415
    from ppsd.config.keys import read_keys  # noqa: PLC0415

    return Box(ROOT, _command, privileges, read_keys)


def _apply() -> int:
    """Read the owner's files and bring them into force. Mistakes are told, in the log and on the card, and are no failure: the box comes
    up."""
    box = _box()
    applied = box.apply()
    for words in (*applied.words, *map(str, applied.problems)):
        print(f"refclock box: {printable(words)}", file=sys.stderr)
    if applied.problems:  # else refclock-status.service writes it, when the addresses are known
        try:
            box.write_status(_text(applied))
        except OSError as error:
            print(f"refclock box: STATUS.txt: {error.strerror or error}", file=sys.stderr)
    return _end(applied.reboot)


def _status(write: bool) -> int:
    """The box in plain words, printed or onto the card."""
    box = _box()
    applied = box.look()
    if write:
        box.write_status(_text(applied))
        return GOOD
    print(_text(applied), end="")
    return FAILED if applied.problems else GOOD


def _text(applied: Applied) -> str:
    from ppsd import version  # noqa: PLC0415 (as above)
    from ppsd.appliance.boot import booted_slot  # noqa: PLC0415
    from ppsd.appliance.loader import lines  # noqa: PLC0415
    from ppsd.appliance.status import status_text  # noqa: PLC0415
    from refclock.kernel.host import Host  # noqa: PLC0415
    from refclock.kernel.interfaces import addresses  # noqa: PLC0415

    host = Host(ROOT)
    try:
        own = addresses()
    except OSError:
        own = ()
    model = (host.text("/proc/device-tree/model") or "").rstrip("\0") or host.text("/sys/class/dmi/id/product_name") or "unknown machine"
    about = f"refclock {version()}, slot {booted_slot(host).upper()}, on: {model}"
    return status_text(applied, about, own, lines(host, _command, version()))


# ---- the light --------------------------------------------------------------------------------------------------------------------------


def _led(directory: Path) -> int:
    """Show the state by a light of the board, until the end. A machine without one has nothing to do."""
    from ppsd.appliance.led import MISTAKES, WANTED, Light, blinks, light  # noqa: PLC0415
    from refclock.kernel.host import Host  # noqa: PLC0415

    host = Host(ROOT)
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
    from ppsd.appliance.led import NO_TIME  # noqa: PLC0415
    from ppsd.process.control import ask  # noqa: PLC0415

    try:
        verdict = str(ask(directory / "clock.sock", "snapshot").get("verdict"))
        ask(directory / "serve.sock", "snapshot")
    except OSError:
        return NO_TIME
    return verdict
