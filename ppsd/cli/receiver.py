"""``refclock receiver show|configure|reset``: a receiver that nobody else holds is asked what it is, set up for timing, or made as it came.

The running daemon does the same by itself (``[[source]] configure``); this is for a look, for keeping the set-up beyond a loss of power
(``--save``), and for undoing it.
"""

from __future__ import annotations

import argparse
import json
import select
import sys
import time
from dataclasses import asdict, replace
from typing import Final, NamedTuple, TextIO

from ppsd.cli.detect import listen, not_before_s
from ppsd.config.file import load
from ppsd.config.tables import Config
from ppsd.process.exit_codes import FAILED, GOOD, IO_ERROR
from refclock.config import ReceiverSource
from refclock.devices.ports import Port, serial_ports
from refclock.devices.serial_port import SerialPort
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.protocols.stream import Receiver
from refclock.receiver.autobaud import Verdict
from refclock.receiver.commands import Configurator, Item, Result, pmtk, setting
from refclock.receiver.configurator import News, Upkeep
from refclock.receiver.configure import MEANINGS, Family, family
from refclock.receiver.profile import Intent, intent
from refclock.receiver.readback import Finding, findings, questions
from refclock.receiver.ubx_settings import CFG_CFG

LOOK_S: Final = 13.0
PATIENCE_S: Final = 90.0
"""For the whole set-up: some thirty items, an answer each, some of them behind a second's burst at 4800 baud."""
TICK_S: Final = 0.2
FACTORY: Final = bytes.fromhex("ffff0000 00000000 ffff0000 17")
"""UBX-CFG-CFG: clear and load everything, in RAM, battery-backed RAM, flash and EEPROM (u-blox 8 protocol specification)."""


def run(args: argparse.Namespace) -> int:
    """Show, configure or reset."""
    return receiver_command(args.action, args.device, load(args.config), save=args.save, as_json=args.json, out=sys.stdout)


def _find(device: str | None, config: Config) -> tuple[Port, Verdict] | str:
    """The receiver at ``device``, or the first one found; else why there is none."""
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


class _Open(NamedTuple):
    """A receiver whose line is ours for now."""

    place: Port
    verdict: Verdict
    port: SerialPort
    clock: LocalClock
    not_before: int


def _wanted(place: Port, config: Config, port: SerialPort, save: bool) -> Intent:
    """What the configuration wants of the receiver there; of one that it does not name, what it would want."""
    sources = (s for s in config.sources if isinstance(s, ReceiverSource) and s.device == place.path)
    wanted = intent(next(sources, ReceiverSource(device=place.path)), port)
    return replace(wanted, save=True) if save else wanted


def _talk(line: _Open, talk: Configurator) -> bool:
    """Drive a dialogue to its end; False when time ran out first."""
    port, clock, receiver, end = line.port, line.clock, Receiver(line.not_before), time.monotonic() + PATIENCE_S
    poll = select.poll()
    poll.register(port.fileno(), select.POLLIN)
    while time.monotonic() < end:
        now_ns = clock.now().mono_ns
        for frame in receiver.take_answers():
            talk.hear(frame, now_ns)
        if wish := talk.send(now_ns):
            port.write(wish)
        if talk.finished:
            return True
        if poll.poll(TICK_S * 1000):
            data, at = port.read()
            receiver.feed(data, at, port.byte_ns)
    return False


def _named(line: _Open) -> _Open:
    """With what a MediaTek receiver calls itself: it does not say it unasked."""
    if family(line.verdict.identity) is not None:
        return line
    talk = Configurator([Item("identity", pmtk("PMTK605"), 605, lambda _: b"", 705)], line.verdict.baud)
    _talk(line, talk)
    identity = f"PMTK705,{talk.told['identity'].decode('ascii', 'replace')}" if "identity" in talk.told else line.verdict.identity
    return line._replace(verdict=replace(line.verdict, identity=identity))


def _set_up(port: SerialPort, clock: LocalClock, wanted: Intent, not_before: int) -> News | None:
    """Drive the configuration to its end; None when the receiver never said what it is."""
    receiver, upkeep, end = Receiver(not_before), Upkeep(wanted), time.monotonic() + PATIENCE_S
    poll = select.poll()
    poll.register(port.fileno(), select.POLLIN)
    while time.monotonic() < end:
        if poll.poll(TICK_S * 1000):
            data, at = port.read()
            receiver.feed(data, at, port.byte_ns)
        wish = upkeep.step(receiver, clock.now().mono_ns)
        if wish:
            port.write(wish)
        for news in upkeep.news():
            return news
    return None


def receiver_command(action: str, device: str | None, config: Config, *, save: bool, as_json: bool, out: TextIO) -> int:
    """0 done, 1 not all of it or not as wanted, 74 no receiver to be had. OSError: the line failed."""
    found = _find(device, config)
    if isinstance(found, str):
        print(f"refclock receiver: {found}", file=sys.stderr)
        return IO_ERROR
    place, verdict = found
    clock = LocalClock()
    port = SerialPort(place.path, verdict.baud, clock)
    line = _Open(place, verdict, port, clock, not_before_s(config))
    try:
        line = _named(line)
        wanted = _wanted(place, config, port, save)
        if action == "show":
            return _show(line, wanted, as_json, out)
        if action == "reset":
            return _reset(line, as_json, out)
        news = _set_up(port, clock, wanted, not_before_s(config))
    finally:
        port.close()
    if news is None:
        print(f"{place.path}: it did not answer to all within {PATIENCE_S:.0f} s; refclock receiver show tells how it is now", file=out)
        return FAILED
    if as_json:
        print(json.dumps({"device": place.path, **asdict(news)}), file=out)
        return GOOD if news.complete else FAILED
    print(f"{place.path}: {news.identity or verdict.protocol}: {news.what}", file=out)
    for result, names in news.results.items():
        print(f"  {result.replace('_', ' ')}: {names}", file=out)
    for name in news.results.get(Result.REFUSED.name.lower(), "").split(", "):
        if name in MEANINGS:
            print(f"  without {name}: {MEANINGS[name]}", file=out)
    kept = wanted.save and family(news.identity) is not Family.MTK
    if news.results:
        hint = "" if wanted.save else " (--save keeps it for good)"
        print(f"kept {'beyond a loss of power' if kept else f'until the next loss of power{hint}'}", file=out)
    return GOOD if news.complete else FAILED


def _show(line: _Open, wanted: Intent, as_json: bool, out: TextIO) -> int:
    """What it is and what it is set to, beside what is wanted. 1: something is otherwise."""
    place, verdict = line.place, line.verdict
    kind = family(verdict.identity)
    talk = Configurator(questions(verdict.identity, wanted), wanted.baud)
    _talk(line, talk)
    found = findings(verdict.identity, wanted, talk.told)
    told = {"device": place.path, "configurable_as": kind.value if kind else "", **asdict(verdict)}
    otherwise = [f for f in found if f.agrees is False]
    if as_json:
        print(json.dumps({**told, "settings": [asdict(f) for f in found], "as_wanted": not otherwise if found else None}), file=out)
        return FAILED if otherwise else GOOD
    print("\n".join(f"{name.replace('_', ' '):<16} {value}" for name, value in told.items() if value not in ("", None)), file=out)
    if not found:
        return GOOD
    print("\n" + "\n".join(_line(f) for f in found), file=out)
    if otherwise:
        how = f"set them with: refclock receiver configure {place.path}"
        print(f"\nnot as wanted: {len(otherwise)} of {len(found)} settings; {how}", file=out)
    else:
        print("\nall as wanted, as far as it tells", file=out)
    return FAILED if otherwise else GOOD


def _line(f: Finding) -> str:
    mark = {True: " ", False: "!", None: "?"}[f.agrees]
    return f"{mark} {f.name:<20} {f.found}" + (f"; wanted: {f.wanted}" if f.wanted and f.wanted != f.found else "")


def _reset(line: _Open, as_json: bool, out: TextIO) -> int:
    """Make it as it came. It may change its speed before it answers, so no answer is no failure."""
    place, verdict = line.place, line.verdict
    kind = family(verdict.identity)
    if kind is None:
        told, result = f"{verdict.identity or verdict.protocol}: how to reset it is not known here", Result.LEFT_OUT
    elif kind is Family.MTK:
        line.port.write(pmtk("PMTK104"))
        told, result = "told to start anew as it came from the factory, at its factory speed", Result.DONE
    else:
        talk = Configurator([setting("reset", CFG_CFG, FACTORY)])
        _talk(line, talk)
        result = talk.results.get("reset", Result.NO_ANSWER)
        told = {
            Result.DONE: "is as it came from the factory, at its factory speed",
            Result.REFUSED: "refused to be reset; take its power away, battery included",
        }.get(result, "told to be as it came from the factory; it gave no answer, as one that changed its speed does")
    print(json.dumps({"device": place.path, "result": result.value, "what": told}) if as_json else f"{place.path}: {told}", file=out)
    return FAILED if result in (Result.REFUSED, Result.LEFT_OUT) else GOOD
