"""``refclock receiver show|configure|reset``: a receiver that nobody else holds is asked what it is, set up for timing, or made as it came.

The running daemon does the same by itself (``[[source]] configure``); this is for a look, for keeping the set-up beyond a loss of power
(``--save``), and for undoing it.
"""

from __future__ import annotations

import json
import select
import sys
import time
from dataclasses import asdict
from typing import Final, TextIO

from ppsd.config import Config
from ppsd.tools import listen, not_before_s
from refclock.configure import Family, Intent, family, pmtk
from refclock.detect import Verdict
from refclock.host import Host
from refclock.kernel import LocalClock
from refclock.ports import Port, serial_ports
from refclock.receiver import Receiver
from refclock.serial_port import SerialPort
from refclock.ubx import encode
from refclock.upkeep import News, Upkeep

LOOK_S: Final = 13.0
PATIENCE_S: Final = 40.0
"""For the whole set-up: some twenty items, an answer each, at 9600 baud."""
TICK_S: Final = 0.2
FACTORY: Final = encode(0x06, 0x09, bytes.fromhex("ffff0000 00000000 ffff0000 17"))
"""UBX-CFG-CFG: clear and load everything, in RAM, battery-backed RAM, flash and EEPROM (u-blox 8 protocol specification)."""


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


def _set_up(port: SerialPort, clock: LocalClock, intent: Intent, not_before: int) -> News | None:
    """Drive the configuration to its end; None when the receiver never said what it is."""
    receiver, upkeep, end = Receiver(not_before), Upkeep(intent), time.monotonic() + PATIENCE_S
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
    """0 done, 1 not all of it, 74 no receiver to be had. OSError: the line failed."""
    found = _find(device, config)
    if isinstance(found, str):
        print(f"refclock receiver: {found}", file=sys.stderr)
        return 74
    place, verdict = found
    kind = family(verdict.identity)
    if action == "show":
        told = {"device": place.path, "configurable_as": kind.value if kind else "", **asdict(verdict)}
        text = "\n".join(f"{name.replace('_', ' '):<16} {value}" for name, value in told.items() if value not in ("", None))
        print(json.dumps(told) if as_json else text, file=out)
        return 0
    clock = LocalClock()
    port = SerialPort(place.path, verdict.baud, clock)
    try:
        if action == "reset":
            if kind is None:
                print(f"{place.path}: {verdict.identity or verdict.protocol}: how to reset it is not known here", file=out)
                return 1
            port.write(pmtk("PMTK104") if kind is Family.MTK else FACTORY)
            print(f"{place.path}: told to be as it came from the factory, at its factory speed", file=out)
            return 0
        news = _set_up(port, clock, Intent(save=save, usb=port.byte_ns == 0), not_before_s(config))
    finally:
        port.close()
    if news is None:
        print(f"{place.path}: it did not say what it is; it was left as it is", file=out)
        return 1
    if as_json:
        print(json.dumps({"device": place.path, **asdict(news)}), file=out)
    else:
        print(f"{place.path}: {news.identity or verdict.protocol}: {news.what}", file=out)
        for result, names in news.results.items():
            print(f"  {result.replace('_', ' ')}: {names}", file=out)
        print(f"kept {'beyond a loss of power' if save else 'until the next loss of power (--save keeps it for good)'}", file=out)
    return 0 if news.complete else 1
