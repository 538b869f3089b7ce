"""``refclock slots``: RAUC's boot loader backend (RAUC's documentation, "Custom"). RAUC calls it while it installs an update."""

from __future__ import annotations

import argparse

from ppsd.appliance.boot import Command, command
from ppsd.appliance.loader import Slots
from ppsd.appliance.slots import Choice, Slot
from ppsd.process.exit_codes import GOOD, USAGE, Refused
from refclock.kernel.host import Host


def run(args: argparse.Namespace) -> int:
    """Answer RAUC."""
    print(end=backend(Host(), command, args.action, args.slot, args.state))
    return GOOD


def backend(host: Host, run: Command, action: str, name: str | None, state: str | None) -> str:
    """What RAUC is told. Refused: not the words that RAUC uses."""
    slots = Slots(host, run)
    if action == "get-current":
        return f"{slots.running}\n"
    if action == "get-primary":
        choice = slots.choice()
        return f"{choice.trial or choice.usual}\n"
    if name is None or (action == "set-state" and state is None):
        raise Refused(
            USAGE, f"refclock slots {action}: which slot, and which state? RAUC calls this; people use `refclock update --status`"
        )
    slot, choice, known = Slot(name), slots.choice(), slots.known()
    if action == "get-state":
        return "good\n" if slot in known.good or slot is choice.usual else "bad\n"
    if action == "set-primary":
        slots.attempt(slot)
    else:
        slots.remember(known.with_good(slot, state == "good"))
        if state == "bad" and choice.trial is slot:
            slots.choose(Choice(choice.usual))
    return ""
