"""``refclock receiver show|configure|reset``: shows a receiver's settings, sets it up for timing, or resets it to factory settings.

The running daemon configures receivers by itself (``[[source]] configure``). This command shows the settings, through the daemon while that
reads the line; keeps them beyond a loss of power (``--save``), and undoes them. For those two no other program may hold the line.
"""

from __future__ import annotations

import argparse
import errno
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, TextIO

from ppsd.cli.daemon import configuration, read_line, run_directory
from ppsd.cli.detect import listen, not_before_s
from ppsd.config.file import load
from ppsd.config.tables import Config
from ppsd.process.control import ask
from ppsd.process.exit_codes import FAILED, GOOD, IO_ERROR
from ppsd.snapshot import LineReport, LineSettings
from refclock.config import ReceiverSource
from refclock.devices.ports import Port, serial_ports
from refclock.devices.receiver_line import ReceiverLine
from refclock.devices.serial_port import open_port
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.receiver.autobaud import Identification
from refclock.receiver.commands import CommandQueue, Item, Result, pmtk, setting
from refclock.receiver.configurator import News
from refclock.receiver.configure import MEANINGS, Family, family
from refclock.receiver.profile import TimingProfile, timing_profile
from refclock.receiver.readback import Setting, findings, questions
from refclock.receiver.session import Dialogue, ReceiverSession
from refclock.receiver.ubx_settings import CFG_CFG

LOOK_S: Final = 13.0
"""s to search each line for a receiver."""
PATIENCE_S: Final = 90.0
"""s for the whole set-up: some thirty items with an answer each, some of them behind a second's burst at 4800 baud."""
FACTORY: Final = bytes.fromhex("ffff0000 00000000 ffff0000 17")
"""Payload of UBX-CFG-CFG: clear and load everything, in RAM, battery-backed RAM, flash and EEPROM (u-blox 8 protocol specification)."""


def run(args: argparse.Namespace) -> int:
    """Execute show, configure or reset."""
    directory = run_directory(args.run_dir)
    config = load(configuration(directory, args.config))
    line = read_line(directory, args.device, Host())
    if line is not None and args.action != "show":
        do = "save = true in [[source]] keeps its settings for good" if args.action == "configure" else "end the daemon to reset it"
        print(
            f"refclock receiver: {line.device} is read by the daemon ({line.source}), which keeps it set up by itself; {do}",
            file=sys.stderr,
        )
        return IO_ERROR
    if line is not None:
        served = _Served(directory / "clock.sock", line)
        return _show(served, _wanted(served, config, args.save), args.json, sys.stdout)
    return receiver_command(args.action, args.device, config, save=args.save, as_json=args.json, out=sys.stdout)


def _find(device: str | None, config: Config) -> tuple[Port, Identification] | str:
    """The receiver at ``device``, or the first one found; else the reason, in words."""
    host = Host()
    ports = serial_ports(host) if device is None else [Port(device, device, tuple(host.holders(device)))]
    found = listen(host, ports, not_before_s(config), LOOK_S)
    for f in found:
        if f.verdict is not None and f.verdict.usable:
            return f.port, f.verdict
    if device is None and not any(f.problem for f in found):
        return "no receiver found; refclock detect tells what is there"
    told = next(f for f in found if f.problem or f.verdict)
    return f"{told.port.path}: {told.problem or (told.verdict.advice if told.verdict else '')}"


class _Receiver:
    """A receiver on an open port that no other program holds: its identification, and dialogues with it."""

    def __init__(self, path: str, found: Identification, not_before_s: int) -> None:
        self.path, self.found, self.source = path, found, ""
        self._not_before_s = not_before_s
        self._clock = LocalClock()
        self.port = open_port(path, found.baud, self._clock)

    @property
    def line_baud(self) -> int:
        """The line's speed; 0 for native USB and other devices that have none."""
        return self.port.baud if self.port.byte_ns else 0

    def talk(self, *items: Item) -> CommandQueue:
        """Send ``items``; the queue with the answers, once all came or PATIENCE_S passed."""
        queue = CommandQueue(items, self.line_baud)
        session = Dialogue(self._not_before_s, self.found.baud, queue)
        ReceiverLine(self.port, session, self._clock).run(lambda: queue.finished, PATIENCE_S)
        return queue

    def settings(self, wanted: TimingProfile) -> dict[str, bytes]:
        """The receiver's answers to questions for its settings, by the name of the question."""
        return self.talk(*questions(self.found.identity, wanted)).told

    def set_up(self, profile: TimingProfile) -> News | None:
        """Configure the receiver by ``profile``; None when it did not answer every item in time."""
        session = ReceiverSession(self._clock.now().mono_ns, self._not_before_s, baud=self.found.baud, profile=lambda _: profile)
        told: list[News] = []

        def done() -> bool:
            told.extend(session.news())
            return bool(told)

        ReceiverLine(self.port, session, self._clock).run(done, PATIENCE_S)
        return told[0] if told else None

    def name(self) -> None:
        """Ask a MediaTek receiver for its model: it does not state it by itself."""
        if family(self.found.identity) is None:
            told = self.talk(Item("identity", pmtk("PMTK605"), 605, lambda _: b"", 705)).told
            if "identity" in told:
                self.found = replace(self.found, identity=f"PMTK705,{told['identity'].decode('ascii', 'replace')}")


class _Served:
    """A receiver whose line the daemon reads; the daemon asks it."""

    def __init__(self, control: Path, line: LineReport) -> None:
        self.path, self.source, self.line_baud = line.device, line.source, line.baud if line.byte_ns else 0
        self.found = Identification(line.protocol, line.baud, line.identity, line.named_s, bits=line.bits)
        self._control = control

    def settings(self, wanted: TimingProfile) -> dict[str, bytes]:
        """The receiver's answers, by the name of the question. OSError: the daemon gave none within PATIENCE_S."""
        del wanted  # the daemon asks for what it wants itself
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            told = LineSettings.from_json(ask(self._control, f"settings {self.source}"))
            if told.why:
                print(f"# {told.why}", file=sys.stderr)
            if told.finished:
                return {name: bytes.fromhex(payload) for name, payload in told.told.items()}
            time.sleep(0.2)
        raise TimeoutError(errno.ETIMEDOUT, "the receiver did not answer the daemon's questions in time", self.path)


def _wanted(receiver: _Receiver | _Served, config: Config, save: bool) -> TimingProfile:
    """The profile by the configuration; by the defaults when the configuration does not name the receiver."""
    path, name = receiver.path, receiver.source
    sources = (s for s in config.sources if isinstance(s, ReceiverSource) and (s.device == path or s.name == name))
    wanted = timing_profile(next(sources, ReceiverSource(device=path)), receiver.line_baud)
    return replace(wanted, save=True) if save else wanted


def receiver_command(action: str, device: str | None, config: Config, *, save: bool, as_json: bool, out: TextIO) -> int:
    """Execute ``action``; 0 done, 1 incomplete or not as wanted, 74 no receiver available. OSError: the line failed."""
    found = _find(device, config)
    if isinstance(found, str):
        print(f"refclock receiver: {found}", file=sys.stderr)
        return IO_ERROR
    place, identification = found
    receiver = _Receiver(place.path, identification, not_before_s(config))
    try:
        receiver.name()
        wanted = _wanted(receiver, config, save)
        if action == "show":
            return _show(receiver, wanted, as_json, out)
        if action == "reset":
            return _reset(receiver, as_json, out)
        news = receiver.set_up(wanted)
    finally:
        receiver.port.close()
    if news is None:
        print(f"{place.path}: it did not answer to all within {PATIENCE_S:.0f} s; refclock receiver show tells how it is now", file=out)
        return FAILED
    if as_json:
        told = {"what": news.what, "identity": news.identity, "results": {how: ", ".join(names) for how, names in news.by_result().items()}}
        print(json.dumps({"device": place.path, **told}), file=out)
        return GOOD if news.complete else FAILED
    print(f"{place.path}: {news.identity or receiver.found.protocol}: {news.what}", file=out)
    for result, names in news.by_result().items():
        print(f"  {result.replace('_', ' ')}: {', '.join(names)}", file=out)
    for name, ended in news.results.items():
        if ended is Result.REFUSED and name in MEANINGS:
            print(f"  without {name}: {MEANINGS[name]}", file=out)
    kept = wanted.save and family(news.identity) is not Family.MTK
    if news.results:
        hint = "" if wanted.save else " (--save keeps it for good)"
        print(f"kept {'beyond a loss of power' if kept else f'until the next loss of power{hint}'}", file=out)
    return GOOD if news.complete else FAILED


def _show(receiver: _Receiver | _Served, wanted: TimingProfile, as_json: bool, out: TextIO) -> int:
    """Print the receiver's identity and its settings beside the wanted ones; FAILED when one differs."""
    path, verdict = receiver.path, receiver.found
    kind = family(verdict.identity)
    found = findings(verdict.identity, wanted, receiver.settings(wanted))
    told = {"device": path, "configurable_as": kind.value if kind else "", **asdict(verdict)}
    otherwise = [f for f in found if f.agrees is False]
    if as_json:
        print(json.dumps({**told, "settings": [asdict(f) for f in found], "as_wanted": not otherwise if found else None}), file=out)
        return FAILED if otherwise else GOOD
    print("\n".join(f"{name.replace('_', ' '):<16} {value}" for name, value in told.items() if value not in ("", None)), file=out)
    if not found:
        return GOOD
    print("\n" + "\n".join(_line(f) for f in found), file=out)
    if otherwise:
        how = f"set them with: refclock receiver configure {path}"
        print(f"\nnot as wanted: {len(otherwise)} of {len(found)} settings; {how}", file=out)
    else:
        print("\nall as wanted, as far as it tells", file=out)
    return FAILED if otherwise else GOOD


def _line(f: Setting) -> str:
    mark = {True: " ", False: "!", None: "?"}[f.agrees]
    return f"{mark} {f.name:<20} {f.found}" + (f"; wanted: {f.wanted}" if f.wanted and f.wanted != f.found else "")


def _reset(receiver: _Receiver, as_json: bool, out: TextIO) -> int:
    """Reset to factory settings. The receiver may change its speed before it answers, so a missing answer is no failure."""
    path, verdict = receiver.path, receiver.found
    kind = family(verdict.identity)
    if kind is None:
        told, result = f"{verdict.identity or verdict.protocol}: how to reset it is not known here", Result.LEFT_OUT
    elif kind is Family.MTK:
        receiver.port.write(pmtk("PMTK104"))
        told, result = "told to start anew as it came from the factory, at its factory speed", Result.DONE
    else:
        result = receiver.talk(setting("reset", CFG_CFG, FACTORY)).results.get("reset", Result.NO_ANSWER)
        told = {
            Result.DONE: "is as it came from the factory, at its factory speed",
            Result.REFUSED: "refused to be reset; take its power away, battery included",
        }.get(result, "told to be as it came from the factory; it gave no answer, as one that changed its speed does")
    print(json.dumps({"device": path, "result": result.value, "what": told}) if as_json else f"{path}: {told}", file=out)
    return FAILED if result in (Result.REFUSED, Result.LEFT_OUT) else GOOD
