"""``refclock update``: puts a new version into the slot that does not run, tells of the slots, and confirms a version that answers."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from ppsd import version
from ppsd.appliance.boot import Command, command
from ppsd.appliance.loader import BLIND_SPOT, Slots, lines
from ppsd.appliance.slots import TRIES, Loader, Slot
from ppsd.appliance.update import Bundle, Rauc, Updater, free_octets
from ppsd.cli.query import addresses_of, failures, first_answer
from ppsd.process.exit_codes import FAILED, GOOD, NO_PERMISSION, USAGE, Refused
from refclock.kernel.host import Host

PATIENCE_S: Final = 300.0
"""s in which a version on trial has to answer an NTP query after its services were started: five times what a slow board needs."""
PAUSE_S: Final = 2.0
"""s between two queries."""
STEP: Final = 5
"""Percent between two lines of progress where there is no terminal."""
FEWEST: Final = 3
"""Failed units that are named at most."""


def run(args: argparse.Namespace) -> int:
    """Install an update, or what else was asked for."""
    host = Host()
    slots = Slots(host, command)
    if args.status:
        return status(host, command, sys.stdout)
    if os.geteuid() != 0:
        raise Refused(NO_PERMISSION, "refclock update: only root may do this; run it with sudo, or log in as root by ssh")
    if args.confirm:
        return confirm(slots, version(), ask=answer, run=command, out=sys.stdout)
    if not args.source:
        raise Refused(USAGE, "refclock update: name a file or an address, or say --status")
    updater = Updater(host, slots, Rauc(), version(), progress=Progress(sys.stdout, sys.stdout.isatty()), free=free_octets)
    if args.check:
        print(described(updater.check(args.source, args.older)))
        return GOOD
    slot = updater.install(args.source, args.older)
    return restart(slots.loader, slot, args.later, command, sys.stdout)


def described(bundle: Bundle) -> str:
    """A sentence about an update that would be accepted."""
    return (
        f"{bundle.file}: version {bundle.name} for {bundle.compatible}; its signature is good and it can be installed. Nothing was changed"
    )


def status(host: Host, run: Command, out: TextIO) -> int:
    """Tell of the slots. FAILED: there are none."""
    told = lines(host, run, version())
    if not told:
        raise Refused(FAILED, "refclock update: this machine does not run the refclock image, so there are no slots to tell of")
    print(*told, sep="\n", file=out)
    return GOOD


def restart(loader: Loader, slot: Slot, later: bool, run: Command, out: TextIO) -> int:
    """Say what comes next, and restart unless that is left for ``later``."""
    tries = TRIES[loader]
    print(f"Written to slot {slot}. The next restart tries it", "once" if tries == 1 else f"up to {tries} times", end="", file=out)
    print("; when it does not answer an NTP query, the version that runs now comes back.", file=out)
    if loader is Loader.COUNTER:
        print(BLIND_SPOT, file=out)
    words = ["systemctl", "reboot"] + (["--reboot-argument=0 tryboot"] if loader is Loader.TRYBOOT else [])
    if later:
        shown = " ".join(f'"{word}"' if " " in word else word for word in words)
        print(f"Restart when it suits you: {shown}", file=out)
        return GOOD
    print("Restarting now. Afterwards `refclock update --status` tells what came of it.", file=out, flush=True)
    return GOOD if run(words) == 0 else FAILED


def answer() -> str:
    """Ask our own server once: "" when it answers, if only that it is not synchronised yet; else why not."""
    addresses = addresses_of("127.0.0.1", 123)
    if isinstance(addresses, str):
        return addresses
    tries = first_answer(addresses)
    return "" if tries[-1].header is not None else failures(tries)


def confirm(
    slots: Slots,
    running: str,
    *,
    ask: Callable[[], str],
    run: Command,
    out: TextIO,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Wait until our own server answers, and say so to the boot loader. A version on trial (``running``) that does not is left."""
    if said := slots.judge(None, running).said:
        print(said, file=out, flush=True)
    until = clock() + PATIENCE_S
    while (why := ask()) and clock() < until:
        sleep(PAUSE_S)
    silence = f"its services did not answer an NTP query in {PATIENCE_S:.0f} s ({why}{_failed_units(run)})" if why else ""
    judgement = slots.judge(silence, running)
    print(judgement.said or silence or "this version answers", file=out, flush=True)
    run(["systemctl", "--no-block", "start", "refclock-status.service"])  # STATUS.txt, on the card
    if judgement.restart:
        run(["systemctl", "reboot"])
    return FAILED if why else GOOD


def _failed_units(run: Command) -> str:
    """Which units have failed: "; failed: NAME, NAME"; "" when systemd knows none."""
    if run(["systemctl", "--quiet", "is-failed"]) != 0:
        return ""
    listed = ["systemctl", "list-units", "--failed", "--plain", "--no-legend"]
    told = subprocess.run(listed, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    names = [line.split()[0] for line in told.splitlines() if line.strip()]
    return f"; failed: {', '.join(names[:FEWEST])}" if names else ""


class Progress:
    """Tells of long work: on a terminal in one line that changes, elsewhere a line for each step."""

    def __init__(self, out: TextIO, terminal: bool) -> None:
        self._out, self._terminal = out, terminal
        self._last = ("", -STEP)

    def __call__(self, what: str, percent: int) -> None:
        """Told what goes on."""
        if self._terminal:
            print(f"\r\x1b[K{percent:3d} %  {what}", end="\n" if percent == 100 else "", file=self._out, flush=True)
        elif what != self._last[0] or percent >= self._last[1] + STEP:
            print(f"{percent:3d} %  {what}", file=self._out, flush=True)
            self._last = (what, percent)
