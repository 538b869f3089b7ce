"""``refclock detect``: finds receivers and pulses, and the programs that hold their devices.

It opens devices that no other program holds, and closes them at the end. It changes nothing, except that ``--apply`` adds to the
configuration the receivers that it has no source for. Such a source finds its receiver itself (``device = "auto"``), so that it is found
again on another port; ``--pin`` writes down device, speed and pulse instead.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from ppsd.cli.config import apply, file_of, load_to_write
from ppsd.cli.daemon import read_lines, run_directory
from ppsd.config.edit import with_keys
from ppsd.config.file import DEFAULT_FILE, as_value, load
from ppsd.config.tables import Config
from ppsd.process.exit_codes import FAILED, GOOD
from ppsd.snapshot import LineReport
from refclock.config import AUTO, ReceiverSource
from refclock.devices.ports import Port, PulseNode, control_line, pair, pulses, serial_ports
from refclock.devices.receiver_line import SILENT_TICK_NS
from refclock.devices.scan import Found, Search
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import INTERPRETER, Host
from refclock.receiver.autobaud import Identification
from refclock.sample import NS
from refclock.timescales import DAY_S


def run(args: argparse.Namespace) -> int:
    """Search, and with ``--apply`` write the result."""
    config = load_to_write(args.config) if args.apply else load(args.config)
    found_by = Wanted(args.wait, args.json, args.pin, file_of(config, args.config), args.apply)
    return detect(config, found_by, sys.stdout, lines=read_lines(run_directory(args.run_dir)))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What ``detect`` is to do: listen to a port for ``patience_s``; write the result into ``file`` (``apply``), with the devices as they
    are found instead of "auto" (``pin``)."""

    patience_s: float
    as_json: bool = False
    pin: bool = False
    file: Path = Path(DEFAULT_FILE)
    apply: bool = False


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
    shown = dict[str, int]()
    while len(found) < len(ports):
        poll.poll(SILENT_TICK_NS * 1000 // NS)
        found |= {f.port.path: f for f in search.step()}
        for path, baud in search.listening.items() if progress is not None else ():
            if shown.get(path) != baud:
                shown[path] = baud
                _show(progress, f"listening{f' at {baud} baud' if baud else ''}: {path}")
    search.close()
    if progress is not None:
        _show(progress, "")
    return [_advised(host, found[port.path]) for port in ports]


def _show(progress: TextIO | None, line: str) -> None:
    """Rewrite the progress line, cut to the terminal's width: a longer one could not be rewritten."""
    if progress is not None:
        progress.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
        progress.flush()


def _advised(host: Host, f: Found) -> Found:
    """``f``, with the way to free its port when another program holds it."""
    if not f.port.holders:
        return f
    return replace(f, problem=f"{f.problem}; {release(f.port.holders[0], host.target(f.port.path))[0]}")


def _read_by_daemon(host: Host, line: LineReport, ports: Sequence[Port]) -> Found:
    """What the daemon says of the line that it reads, one of ``ports`` or a simulated one."""
    target = host.target(line.device)
    port = next((port for port in ports if host.target(port.path) == target), Port(line.device, line.device))
    verdict = Identification(line.protocol or "silent", line.baud, line.identity, line.named_s, bits=line.bits)
    return Found(port, verdict, line.pulse, f"read by the daemon ({line.source})", has_speed=line.byte_ns > 0)


def _paired(host: Host, found: Sequence[Found], some: Sequence[PulseNode]) -> list[Found]:
    usable = [f.port.path for f in found if f.verdict is not None and f.verdict.usable]
    pulse_of = pair(host, usable, some)
    return [replace(f, pulse=pulse_of.get(f.port.path) or f.pulse) for f in found]


def settings(f: Found, some: Sequence[PulseNode], pin: bool) -> dict[str, str | int]:
    """The keys of the ``[[source]]`` of a receiver found. ``pin``: those that hold for this device alone. A pulse that belongs to the line
    (of ``some``, or a control line) needs no name."""
    if not pin:
        return {"device": AUTO, "pps": AUTO}
    own = f.pulse == "" or control_line(f.pulse) is not None or any(pulse.path == f.pulse and pulse.tty for pulse in some)
    baud = f.verdict.baud if f.verdict is not None and f.has_speed else 0
    return {"device": f.port.identity, "baud": baud, "pps": AUTO if own else f.pulse}


def blocks(found: Sequence[Found], some: Sequence[PulseNode] = (), *, pin: bool = False) -> str:
    """The ``[[source]]`` tables of these receivers."""
    return "\n".join(
        f"[[source]]  # found on {f.port.path}\n"
        + "".join(f"{name} = {as_value(value)}\n" for name, value in {"type": "receiver", **settings(f, some, pin)}.items())
        for f in found
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written: ``keys`` of the sources that the file has, by number, and ``more`` of them."""

    keys: Mapping[int, Mapping[str, str | int]]
    more: str

    def __bool__(self) -> bool:
        return bool(self.keys or self.more)

    def __str__(self) -> str:
        lines = [f"source {index + 1}: {name} = {as_value(value)}" for index, new in self.keys.items() for name, value in new.items()]
        return "\n".join(filter(None, ("\n".join(lines), self.more)))

    def carried_out(self, text: str) -> str:
        """The configuration ``text`` with it."""
        for index, new in self.keys.items():
            text = with_keys(text, index, new)
        return f"{text.rstrip()}\n\n# found by refclock detect\n{self.more}".lstrip() if self.more else text


def planned(config: Config, host: Host, found: Sequence[Found], some: Sequence[PulseNode], pin: bool) -> Plan:
    """What is missing in ``config`` of the receivers that were found. A source whose device is "auto" takes one that no other names;
    ``pin`` writes down which."""
    receivers = [(index, source) for index, source in enumerate(config.sources) if isinstance(source, ReceiverSource)]
    named = {host.target(source.device) for _, source in receivers}
    left = [f for f in found if f.verdict is not None and f.verdict.usable and host.target(f.port.path) not in named]
    keys: dict[int, dict[str, str | int]] = {}
    for index, source in receivers:
        if source.device == AUTO and left:
            new = settings(left.pop(0), some, pin)
            free = {"device": True, "baud": source.baud == 0, "pps": source.pps == AUTO}
            keys[index] = {name: value for name, value in new.items() if free[name] and value != getattr(source, name)}
    return Plan({index: new for index, new in keys.items() if new}, blocks(left, some, pin=pin))


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
    return ", ".join([*words, f"pulse {f.pulse}" if f.pulse else "no pulse", *([f.problem] if f.problem else [])])


def detect(config: Config, wanted: Wanted, out: TextIO, *, host: Host | None = None, lines: Sequence[LineReport] = ()) -> int:
    """Look for receivers and pulses; GOOD when a receiver was found, else FAILED. ``lines``: those that the running daemon reads."""
    host = host or Host()
    some = pulses(host)
    progress = sys.stderr if sys.stderr.isatty() and not wanted.as_json else None
    ports = serial_ports(host)
    read = {host.target(line.device): _read_by_daemon(host, line, ports) for line in lines}
    free = [port for port in ports if host.target(port.path) not in read]
    found = [*read.values(), *_paired(host, listen(host, free, not_before_s(config), wanted.patience_s, progress), some)]
    good = any(f.verdict is not None and f.verdict.usable for f in found)
    plan = planned(config, host, [f for f in found if f.port in ports], some, wanted.pin)  # a simulated line is no port
    if wanted.as_json:
        report = [asdict(f) | {"usable": f.verdict is not None and f.verdict.usable} for f in found]
        print(json.dumps({"ports": report, "pulses": [asdict(pulse) for pulse in some]}), file=out)
    else:
        for f in found:
            print(f"{f.port.path:<16} {described(f)}", file=out)
        for pulse in some:
            print(f"{pulse.path:<16} {pulse.refused or 'pulse' + (f' of {pulse.tty}' if pulse.tty else f' ({pulse.driver})')}", file=out)
        if not found:
            print("no serial device that could be a receiver; plug one in, or enable the UART (enable_uart=1 in config.txt)", file=out)
        if plan:
            print(f"\n{plan}", file=out)
    told = sys.stderr if wanted.as_json else out
    if not good:
        return FAILED
    if not plan and not any(f.port in ports for f in found):  # a simulated receiver alone
        return GOOD
    if not plan:
        print(f"{wanted.file} has a source for each receiver that was found: nothing to write", file=told)
        return GOOD
    if wanted.apply:
        return apply(wanted.file, plan.carried_out, "detect", told)
    print(f"refclock detect --apply{' --pin' if wanted.pin else ''} writes that into {wanted.file}", file=told)
    return GOOD


RULE_FILE: Final = "/etc/udev/rules.d/77-refclock.rules"


def release(who: str, device: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """How to make a program release a device: (what to do, files to write). ``who``: "gpsd (pid 412)"."""
    name, _, pid = who.removesuffix(")").partition(" (pid ")
    if name in ("ppsd", "refclock"):
        return "that is refclock itself: refclock nmea, sats and receiver show work through its daemon, as a user who may ask it", ()
    if name == "gpsd":
        return 'take the time from gpsd: [[source]] type = "gpsd"; or: sudo systemctl disable --now gpsd.socket gpsd', ()
    if name.startswith("ModemManager"):
        kernel_name = re.sub(r"\d+$", "*", device.rpartition("/")[2])
        head = "# made by refclock doctor: ModemManager leaves these ports alone\n"
        rule = head + f'KERNEL=="{kernel_name}", ENV{{ID_MM_DEVICE_IGNORE}}="1"\n'
        return "sudo systemctl disable --now ModemManager", ((RULE_FILE, rule),)
    if "getty" in name or name == "login":
        return f"sudo systemctl disable --now serial-getty@{device.rpartition('/')[2]}", ()
    if INTERPRETER.fullmatch(name):
        return f"ps -fp {pid} tells what runs there: end that program, or give it another port", ()
    return f"end {name}, or give it another port", ()
