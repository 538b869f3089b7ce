"""``refclock receiver show|configure|reset``: shows a receiver's settings, sets it up for timing, or resets it to factory settings.

No other program may hold its line. The running daemon configures receivers by itself (``[[source]] configure``). This command shows the
settings, keeps them beyond a loss of power (``--save``), and undoes them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from typing import Final, TextIO

from ppsd.cli.detect import listen, not_before_s
from ppsd.config.file import load
from ppsd.config.tables import Config
from ppsd.process.exit_codes import FAILED, GOOD, IO_ERROR
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
    return receiver_command(args.action, args.device, load(args.config), save=args.save, as_json=args.json, out=sys.stdout)


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
        self.path, self.found = path, found
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


def _wanted(receiver: _Receiver, config: Config, save: bool) -> TimingProfile:
    """The profile by the configuration; by the defaults when the configuration does not name the receiver."""
    path = receiver.path
    sources = (s for s in config.sources if isinstance(s, ReceiverSource) and s.device == path)
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


def _show(receiver: _Receiver, wanted: TimingProfile, as_json: bool, out: TextIO) -> int:
    """Print the receiver's identity and its settings beside the wanted ones; FAILED when one differs."""
    path, verdict = receiver.path, receiver.found
    kind = family(verdict.identity)
    found = findings(verdict.identity, wanted, receiver.talk(*questions(verdict.identity, wanted)).told)
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
