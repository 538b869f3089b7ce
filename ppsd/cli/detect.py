"""``refclock detect``: finds receivers and pulses, and the programs that hold their devices.

It opens devices that no other program holds, and closes them at the end. It changes nothing, except that ``--apply`` adds the receivers to
the configuration.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from ppsd.cli.config import apply, file_of
from ppsd.config.file import load
from ppsd.config.tables import Config
from ppsd.process.exit_codes import FAILED, GOOD
from refclock.config import AUTO
from refclock.devices.ports import Port, PulseNode, control_line, pair, pulses, serial_ports
from refclock.devices.receiver_line import SILENT_TICK_NS
from refclock.devices.scan import Found, Search
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.sample import NS
from refclock.timescales import DAY_S


def run(args: argparse.Namespace) -> int:
    """Search, and with ``--apply`` write the result."""
    config = load(args.config)
    return detect(config, args.wait, args.json, file_of(config, args.config) if args.apply else None, sys.stdout)


def not_before_s(config: Config) -> int:
    """POSIX second before which no true date lies."""
    return (config.clock.not_before.toordinal() - 719_163) * DAY_S  # ordinal of 1970-01-01


def listen(host: Host, ports: Sequence[Port], not_before_s: int, patience_s: float, progress: TextIO | None = None) -> list[Found]:
    """Probe all free ``ports`` in parallel, each until it is identified or ``patience_s`` is over; in the order of ``ports``."""
    search, found = Search(LocalClock(), not_before_s, patience_s, ask=True), dict[str, Found]()
    for port in ports:
        search.add(port)
    poll = select.poll()
    poll.register(search, select.POLLIN)
    while len(found) < len(ports):
        poll.poll(SILENT_TICK_NS * 1000 // NS)
        found |= {f.port.path: f for f in search.step()}
        if progress is not None and search.listening:
            tried = ", ".join(f"{path} at {baud}" for path, baud in search.listening.items())
            progress.write(f"\rlistening: {tried}"[:118].ljust(118))
            progress.flush()
    search.close()
    if progress is not None:
        progress.write("\r" + " " * 118 + "\r")
    return [_advised(host, found[port.path]) for port in ports]


def _advised(host: Host, f: Found) -> Found:
    """``f``, with the way to free its port when another program holds it."""
    if not f.port.holders:
        return f
    name = f.port.holders[0].partition(" (pid")[0]
    return replace(f, problem=f"{f.problem}; {release(name, host.target(f.port.path))[0]}")


def _paired(host: Host, found: Sequence[Found], some: Sequence[PulseNode]) -> list[Found]:
    usable = [f.port.path for f in found if f.verdict is not None and f.verdict.usable]
    pulse_of = pair(host, usable, some)
    return [replace(f, pulse=pulse_of.get(f.port.path) or f.pulse) for f in found]


def blocks(found: Sequence[Found], some: Sequence[PulseNode] = ()) -> str:
    """The ``[[source]]`` tables of the receivers found. A pulse that belongs to the line (of ``some``, or a control line) needs no name."""
    own = {"", *(pulse.path for pulse in some if pulse.tty), *(f.pulse for f in found if control_line(f.pulse))}
    return "\n".join(
        f'[[source]]\ntype = "receiver"\ndevice = "{f.port.identity}"\nbaud = {f.verdict.baud if f.has_speed else 0}\n'
        f'pps = "{AUTO if f.pulse in own else f.pulse}"\n'
        for f in found
        if f.verdict is not None and f.verdict.usable
    )


def described(f: Found) -> str:
    if f.verdict is None:
        return f.problem
    v = f.verdict
    if not v.usable:
        return f"{v.protocol} at {v.baud} baud: {v.advice}" if v.baud and f.has_speed else f"{v.protocol} for {f.after_s:.0f} s: {v.advice}"
    how = f"{v.protocol} at {v.baud} baud{f' {v.bits}' if v.bits else ''}" if f.has_speed else v.protocol
    words = [how, *([v.identity] if v.identity else [])]
    if v.utc_s is None:
        words.append("names no second yet (no fix?)")
    else:
        words.append(f"says {datetime.fromtimestamp(v.utc_s, UTC):%Y-%m-%d %H:%M:%S} UTC")
    if v.satellites is not None:
        words.append(f"{v.satellites} satellites used")
    return ", ".join([*words, f"pulse {f.pulse}" if f.pulse else "no pulse"])


def detect(config: Config, patience_s: float, as_json: bool, apply_to: Path | None, out: TextIO, *, host: Host | None = None) -> int:
    """Look for receivers and pulses; GOOD when a receiver was found, else FAILED. ``apply_to``: add them to that configuration."""
    host = host or Host()
    some = pulses(host)
    progress = sys.stderr if sys.stderr.isatty() and not as_json else None
    found = _paired(host, listen(host, serial_ports(host), not_before_s(config), patience_s, progress), some)
    good = blocks(found, some)
    if as_json:
        report = [asdict(f) | {"usable": f.verdict is not None and f.verdict.usable} for f in found]
        print(json.dumps({"ports": report, "pulses": [asdict(pulse) for pulse in some]}), file=out)
    else:
        for f in found:
            print(f"{f.port.path:<16} {described(f)}", file=out)
        for pulse in some:
            print(f"{pulse.path:<16} {pulse.refused or 'pulse' + (f' of {pulse.tty}' if pulse.tty else f' ({pulse.driver})')}", file=out)
        if not found:
            print("no serial device that could be a receiver; plug one in, or enable the UART (enable_uart=1 in config.txt)", file=out)
        if good:
            print(f"\n{good}", file=out)
    if apply_to is not None and good:
        return apply(apply_to, lambda text: f"{text.rstrip()}\n\n# found by refclock detect\n{good}".lstrip(), "detect", out)
    if good and not as_json:
        print("refclock detect --apply writes that into the configuration", file=out)
    return GOOD if good else FAILED


RULE_FILE: Final = "/etc/udev/rules.d/77-refclock.rules"


def release(name: str, device: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """How to make a program release a device: (what to do, files to write)."""
    if name == "gpsd":
        return 'take the time from gpsd: [[source]] type = "gpsd"; or: sudo systemctl disable --now gpsd.socket gpsd', ()
    if name.startswith("ModemManager"):
        kernel_name = re.sub(r"\d+$", "*", device.rpartition("/")[2])
        head = "# made by refclock doctor: ModemManager leaves these ports alone\n"
        rule = head + f'KERNEL=="{kernel_name}", ENV{{ID_MM_DEVICE_IGNORE}}="1"\n'
        return "sudo systemctl disable --now ModemManager", ((RULE_FILE, rule),)
    if "getty" in name or name == "login":
        return f"sudo systemctl disable --now serial-getty@{device.rpartition('/')[2]}", ()
    return f"end {name}, or give it another port", ()
