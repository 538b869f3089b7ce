"""``refclock box``: what the appliance does besides time: the owner's settings at each boot, its light, its state in words."""

from __future__ import annotations

import argparse
import os
import sys

from ppsd import version
from ppsd.appliance.boot import booted_slot, command
from ppsd.appliance.box import Applied, Box
from ppsd.appliance.loader import lines
from ppsd.appliance.status import status_text
from ppsd.cli.setup import privileges
from ppsd.config.keys import read_keys
from ppsd.process.exit_codes import FAILED, GOOD, NO_PERMISSION, Refused
from refclock.errors import explain
from refclock.kernel.host import Host
from refclock.kernel.interfaces import Network, addresses


def run(args: argparse.Namespace) -> int:
    """Execute one of the actions."""
    host = Host()
    if not booted_slot(host):
        raise Refused(FAILED, "refclock box: this machine does not run the refclock image")
    if os.geteuid() != 0:
        raise Refused(NO_PERMISSION, f"refclock box: only root may; run: sudo refclock box {args.action}")
    box = Box(host, command, privileges, read_keys)
    if args.action == "apply":
        return _apply(box, host)
    applied = box.look()
    text = _text(applied, host)
    if args.write:
        box.write_status(text)
    else:
        print(text, end="")
    return FAILED if applied.problems else GOOD


def _apply(box: Box, host: Host) -> int:
    """Bring the settings into force. Mistakes in them are told, and are no failure: the box comes up."""
    applied = box.apply()
    for words in (*applied.words, *map(str, applied.problems)):
        print(f"refclock box: {words}", file=sys.stderr)
    if applied.words or applied.problems:
        try:
            box.write_status(_text(applied, host))
        except OSError as error:
            print(f"refclock box: {explain(error)}", file=sys.stderr)
    if applied.reboot:
        print("refclock box: restarting once, so that the firmware reads the new pins", file=sys.stderr)
        command(["systemctl", "--no-block", "reboot"])
    return GOOD


def _text(applied: Applied, host: Host) -> str:
    model = (host.text("/proc/device-tree/model") or "").rstrip("\0") or host.text("/sys/class/dmi/id/product_name") or "unknown machine"
    about = f"refclock {version()}, slot {booted_slot(host).upper()}, on: {model}"
    return status_text(applied, about, _addresses(), lines(host, command, version()))


def _addresses() -> tuple[Network, ...]:
    try:
        return addresses()
    except OSError:
        return ()
