"""The commands that look at the hardware themselves: ``refclock detect, nmea, pps, sats``.

They open devices that nobody else holds, for as long as they look, and change nothing; only ``detect --apply`` writes, into the
configuration, keeping what was there.
"""

from __future__ import annotations

import errno
import json
import math
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from ppsd.config import Config, parse
from ppsd.doctor_hardware import release
from refclock.config import AUTO, ConfigError
from refclock.control_line import open_pulse
from refclock.framing import FrameKind, Framer
from refclock.host import Host
from refclock.kernel import LocalClock
from refclock.nmea import NmeaDecoder
from refclock.ports import Port, Pulse, control_line, pair, pulses, serial_ports
from refclock.rhythm import Rhythm
from refclock.sample import NS, EdgeKind, SecondLabel
from refclock.search import TICK_NS, Found, Search
from refclock.serial_port import SerialPort
from refclock.timescales import DAY_S
from refclock.ubx import UbxDecoder

TICK_S: Final = 0.2
"""Between two looks at the time while lines are silent."""
SKY_WIDTH, SKY_HEIGHT = 49, 23
"""Characters of the sky: a terminal's half, twice as wide as high because characters are not square."""


def not_before_s(config: Config) -> int:
    """POSIX second before which no date is believed."""
    return (config.clock.not_before.toordinal() - 719_163) * DAY_S  # ordinal of 1970-01-01


def listen(host: Host, ports: Sequence[Port], not_before_s: int, patience_s: float, progress: TextIO | None = None) -> list[Found]:
    """Probe all free ``ports`` side by side, each until its verdict is clear or ``patience_s`` is over; in the order given."""
    search, found = Search(LocalClock(), not_before_s, patience_s, ask=True), dict[str, Found]()
    for port in ports:
        search.add(port)
    while len(found) < len(ports):
        select.select([search], [], [], TICK_NS / NS)
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
    """With how to get a port that somebody holds."""
    if not f.port.holders:
        return f
    name = f.port.holders[0].partition(" (pid")[0]
    return replace(f, problem=f"{f.problem}; {release(name, host.target(f.port.path))[0]}")


def _paired(host: Host, found: Sequence[Found], some: Sequence[Pulse]) -> list[Found]:
    usable = [f.port.path for f in found if f.verdict is not None and f.verdict.usable]
    pulse_of = pair(host, usable, some)
    return [replace(f, pulse=pulse_of.get(f.port.path) or f.pulse) for f in found]


def blocks(found: Sequence[Found], some: Sequence[Pulse] = ()) -> str:
    """The ``[[source]]`` tables of the receivers found. A pulse that is the line's own (of ``some``, or a control line) needs no name."""
    own = {"", *(pulse.path for pulse in some if pulse.tty), *(f.pulse for f in found if control_line(f.pulse))}
    return "\n".join(
        f'[[source]]\ntype = "receiver"\ndevice = "{f.port.identity}"\nbaud = {f.verdict.baud}\n'
        f'pps = "{AUTO if f.pulse in own else f.pulse}"\n'
        for f in found
        if f.verdict is not None and f.verdict.usable
    )


def _described(f: Found) -> str:
    if f.verdict is None:
        return f.problem
    v = f.verdict
    if not v.usable:
        return f"{v.protocol} at {v.baud} baud: {v.advice}" if v.baud else f"{v.protocol} for {f.after_s:.0f} s: {v.advice}"
    words = [f"{v.protocol} at {v.baud} baud{f' {v.bits}' if v.bits else ''}", *([v.identity] if v.identity else [])]
    if v.utc_s is None:
        words.append("names no second yet (no fix?)")
    else:
        words.append(f"says {datetime.fromtimestamp(v.utc_s, UTC):%Y-%m-%d %H:%M:%S} UTC")
    if v.satellites is not None:
        words.append(f"{v.satellites} satellites used")
    return ", ".join([*words, f"pulse {f.pulse}" if f.pulse else "no pulse"])


def detect(config: Config, patience_s: float, as_json: bool, apply_to: Path | None, out: TextIO, *, host: Host | None = None) -> int:
    """Look for receivers and pulses; 0 when a receiver was found, 1 when none. ``apply_to``: add them to that configuration."""
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
            print(f"{f.port.path:<16} {_described(f)}", file=out)
        for pulse in some:
            print(f"{pulse.path:<16} {pulse.refused or 'pulse' + (f' of {pulse.tty}' if pulse.tty else f' ({pulse.driver})')}", file=out)
        if not found:
            print("no serial device that could be a receiver; plug one in, or enable the UART (enable_uart=1 in config.txt)", file=out)
        if good:
            print(f"\n{good}", file=out)
    if apply_to is not None and good:
        return _apply(apply_to, good, out)
    if good and not as_json:
        print("refclock detect --apply writes that into the configuration", file=out)
    return 0 if good else 1


def _apply(path: Path, good: str, out: TextIO) -> int:
    """Add the tables to the configuration."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    return rewrite(path, before, f"{before.rstrip()}\n\n# found by refclock detect\n{good}".lstrip(), "detect", out)


def rewrite(path: Path, before: str, after: str, command: str, out: TextIO) -> int:
    """Make ``after`` of the configuration if that is good; what was there is kept, also as FILE.bak."""
    try:
        parse(after, str(path))
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        print(f"refclock {command}: {path} was left as it is: what was found does not go with what it says", file=sys.stderr)
        return 78
    path.parent.mkdir(parents=True, exist_ok=True)
    if before:
        path.with_name(path.name + ".bak").write_text(before, encoding="utf-8")
    partial = path.with_name(path.name + ".new")
    partial.write_text(after, encoding="utf-8")
    partial.replace(path)
    print(f"written into {path}" + (f"; as it was: {path}.bak" if before else ""), file=out)
    return 0


# ---- nmea ---------------------------------------------------------------------------------------------------------------------------


def watch_line(path: str, baud: int, config: Config, duration_s: float | None, out: TextIO) -> int:
    """The stream as it comes, each frame with what became of it; ``baud`` 0: found first. 0, or 1 when nothing came."""
    if baud == 0:
        host = Host()
        holders = tuple(host.holders(path))
        found = listen(host, [Port(path, path, holders)], not_before_s(config), 12.0)[0]
        if found.verdict is None or not found.verdict.baud:
            print(f"refclock nmea: {path}: {_described(found)}", file=sys.stderr)
            return 1
        baud = found.verdict.baud
        print(f"# {path}: {_described(found).partition(',')[0]}", file=out)
    clock = LocalClock()
    port = SerialPort(path, baud, clock)
    framer, nmea, ubx = Framer(), NmeaDecoder(not_before_s(config)), UbxDecoder(not_before_s(config))
    end = math.inf if duration_s is None else time.monotonic() + duration_s
    poll, junk, frames = select.poll(), 0, 0
    poll.register(port.fileno(), select.POLLIN)
    try:
        while time.monotonic() < end:
            if not poll.poll(TICK_S * 1000):
                continue
            data, at = port.read()
            for frame in framer.feed(data, at, port.byte_ns):
                frames += 1
                decoder = nmea if frame.kind is FrameKind.NMEA else ubx
                before = Counter(decoder.rejected)
                label = next((v for v in decoder.decode(frame) if isinstance(v, SecondLabel)), None)
                reasons = decoder.rejected - before
                text = f"${frame.data.decode('ascii', 'replace')}" if frame.kind is FrameKind.NMEA else f"UBX {frame.data[:2].hex(' ')}"
                what = f"names {datetime.fromtimestamp(label.utc_ns / NS, UTC):%H:%M:%S}" if label else ", ".join(reasons) or "-"
                print(f"{at.real_ns / NS % 60:7.3f}  {what:<20} {text[:100]}", file=out, flush=True)
            if framer.counts["junk-bytes"] > junk:
                print(f"{at.real_ns / NS % 60:7.3f}  {framer.counts['junk-bytes'] - junk} bytes that are no sentence", file=out, flush=True)
                junk = framer.counts["junk-bytes"]
    finally:
        port.close()
    return 0 if frames else 1


# ---- pps ----------------------------------------------------------------------------------------------------------------------------


def watch_pulses(path: str, count: int | None, out: TextIO) -> int:
    """Edges as ppstest prints them, until ``count`` of either kind came (None: for ever), and what they are worth; 0 good, 1 not.

    ``path``: as ``pps`` in the configuration. OSError says what failed, in words.
    """
    came, rhythm, seen, silent = threading.Event(), Rhythm(), 0, 0
    last = dict.fromkeys(EdgeKind, "0.000000000, sequence: 0")
    device = open_pulse(path, LocalClock(), came.set)
    try:
        while (count is None or seen < count) and silent < 4:
            if not came.wait(3.0):
                silent += 1
                print(f"no pulse in {3 * silent} s", file=out, flush=True)
                continue
            came.clear()
            silent = 0
            for edge in device.take()[: None if count is None else count - seen]:
                seen += 1
                rhythm.accept(edge)
                last[edge.kind] = f"{edge.at.real_ns // NS}.{edge.at.real_ns % NS:09}, sequence: {edge.sequence}"
                print(f"source 0 - assert {last[EdgeKind.ASSERT]} - clear  {last[EdgeKind.CLEAR]}", file=out, flush=True)
            if device.error:
                raise OSError(errno.ENODEV, device.error)
    except KeyboardInterrupt:
        pass
    finally:
        device.stop()
    report = rhythm.report()
    if report is None:
        print("no edge at all: is there a fix, and is the wire on the right pin?", file=out)
        return 1
    for words in dict.fromkeys((report.words, *report.doubts)):
        print(words, file=out)
    return 0 if report.good else 1


# ---- sats ---------------------------------------------------------------------------------------------------------------------------


def sky(satellites: Sequence[Mapping[str, Any]]) -> str:
    """The sky as characters, north up: the horizon as dots, a used satellite as its number, one that is only heard in brackets."""
    rows = [[" "] * SKY_WIDTH for _ in range(SKY_HEIGHT)]
    middle_x, middle_y = SKY_WIDTH // 2, SKY_HEIGHT // 2
    for degree in range(0, 360, 6):
        x, y = middle_x + (middle_x - 2) * math.sin(math.radians(degree)), middle_y - middle_y * math.cos(math.radians(degree))
        rows[round(y)][round(x)] = "."
    rows[0][middle_x], rows[-1][middle_x], rows[middle_y][1], rows[middle_y][-2], rows[middle_y][middle_x] = "NSWE+"
    for s in sorted(satellites, key=lambda s: bool(s["used"])):
        if s["elevation"] is None or s["azimuth"] is None:
            continue
        distance = (90 - max(0, min(90, s["elevation"]))) / 90
        x = middle_x + (middle_x - 4) * distance * math.sin(math.radians(s["azimuth"]))
        y = middle_y - (middle_y - 1) * distance * math.cos(math.radians(s["azimuth"]))
        name = f"{s['number']}" if s["used"] else f"({s['number']})"
        for i, letter in enumerate(name):
            column = round(x) - len(name) // 2 + i
            if 0 <= column < SKY_WIDTH:
                rows[round(y)][column] = letter
    return "\n".join("".join(row).rstrip() for row in rows)


def print_satellites(clock: Mapping[str, Any], as_json: bool, out: TextIO) -> int:
    """The satellites of every receiver of the running daemon, as a table and as the sky; 0, or 1 when none is told of."""
    receivers = [s for s in clock["sources"] if s["satellites"]]
    if as_json:
        print(json.dumps({s["name"]: s["satellites"] for s in receivers}), file=out)
        return 0 if receivers else 1
    for source in receivers:
        some = sorted(source["satellites"], key=lambda s: (not s["used"], -(s["snr"] or 0)))
        used, seen = source["satellites_used"], source["satellites_seen"]
        print(f"{source['name']}: fix {source['fix']}, {used} of {seen} satellites used", file=out)
        print(f"{'system':<8} {'number':>6} {'elevation':>9} {'azimuth':>7} {'signal':>6}", file=out)
        for s in some:
            bar = "#" * max(0, ((s["snr"] or 0) - 10) // 2)
            told = [("-" if s[k] is None else str(s[k])) for k in ("elevation", "azimuth", "snr")]
            star = "*" if s["used"] else " "
            print(f"{s['gnss']:<8} {s['number']:>6} {told[0]:>9} {told[1]:>7} {told[2]:>6} {star} {bar}".rstrip(), file=out)
        print(sky(some), file=out)
    if not receivers:
        print("no receiver tells of satellites (it sends no GSV or NAV-SAT, or there is none)", file=out)
    return 0 if receivers else 1
