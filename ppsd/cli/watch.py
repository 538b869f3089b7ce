"""``refclock nmea``, ``pps`` and ``sats``: show a receiver's messages, its pulses and its satellites live."""

from __future__ import annotations

import argparse
import errno
import json
import math
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from ppsd.cli.daemon import clock_snapshot, configuration, read_line, run_directory
from ppsd.cli.detect import described, listen, not_before_s
from ppsd.config.file import load
from ppsd.config.tables import Config
from ppsd.process.control import ask
from ppsd.process.exit_codes import FAILED, GOOD, Refused
from ppsd.snapshot import LineReport, Reading, Snapshot
from refclock.devices.modem_lines import open_pulse
from refclock.devices.ports import Port
from refclock.devices.receiver_line import ReceiverLine
from refclock.devices.serial_port import open_port
from refclock.errors import explain
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.protocols.framing import Frame, FrameKind, Framer
from refclock.protocols.makers import complaint, in_words
from refclock.protocols.nmea import NmeaDecoder
from refclock.protocols.ubx import UbxDecoder
from refclock.receiver.autobaud import LineRequest
from refclock.sample import NS, EdgeKind, Instant, ReceiverValue, Satellite, SecondLabel
from refclock.timing.pulses import Rhythm

SKY_WIDTH, SKY_HEIGHT = 49, 23
"""Characters of the sky plot: half a terminal, twice as many columns as rows because characters are not square."""


def run(args: argparse.Namespace) -> int:
    """Execute one of the three commands."""
    if args.command == "nmea":
        directory = run_directory(args.run_dir)
        config = load(configuration(directory, args.config))
        line = read_line(directory, args.device, Host())
        if line is not None:
            return follow_line(directory / "clock.sock", line, config, args.duration, sys.stdout)
        if args.device is None:
            raise Refused(FAILED, "refclock nmea: no daemon reads a receiver; name a serial device, refclock detect lists them")
        return watch_line(args.device, args.baud, config, args.duration, sys.stdout)
    if args.command == "pps":
        return watch_pulses(args.device, args.test, sys.stdout)
    return print_satellites(clock_snapshot(run_directory(args.run_dir)), args.json, sys.stdout)


# ---- nmea ---------------------------------------------------------------------------------------------------------------------------


class _FramePrinter:
    """A session (``receiver.session``) that prints each frame with its result and sends nothing. ``frames``: number of frames printed."""

    def __init__(self, not_before: int, baud: int, out: TextIO) -> None:
        self.baud = baud
        self.frames = 0
        self._framer, self._nmea, self._ubx = Framer(), NmeaDecoder(not_before), UbxDecoder(not_before)
        self._junk = 0
        self._out = out

    def feed(self, data: bytes, at: Instant, byte_ns: int) -> list[ReceiverValue]:
        """Print the frames of one read."""
        values: list[ReceiverValue] = []
        for frame in self._framer.feed(data, at, byte_ns):
            self.frames += 1
            values += self._frame(frame, at)
        junk = self._framer.counts["junk-bytes"]
        if junk > self._junk:
            self._print(at, f"{junk - self._junk} bytes that are no sentence")
            self._junk = junk
        return values

    def due(self, now_ns: int) -> LineRequest:
        """Request nothing of the line."""
        del now_ns
        return LineRequest()

    def _frame(self, frame: Frame, at: Instant) -> list[ReceiverValue]:
        nmea = frame.kind is FrameKind.NMEA
        values, reject = self._nmea.decode(frame) if nmea else self._ubx.decode(frame)
        label = next((v for v in values if isinstance(v, SecondLabel)), None)
        what = f"names {datetime.fromtimestamp(label.utc_ns / NS, UTC):%H:%M:%S}" if label else reject or "-"
        text = f"${frame.data.decode('ascii', 'replace')}" if nmea else f"UBX {frame.data[:2].hex(' ')}"
        self._print(at, f"{what:<20} {text[:100]}")
        if (complained := complaint(frame)) is not None:
            self._print(at, in_words(complained))
        return values

    def _print(self, at: Instant, words: str) -> None:
        print(f"{at.real_ns / NS % 60:7.3f}  {words}", file=self._out, flush=True)


def follow_line(control: Path, line: LineReport, config: Config, duration_s: float | None, out: TextIO) -> int:
    """Print each frame of a line that the daemon reads, as it tells them at its socket ``control``. Results as ``watch_line``."""
    print(
        f"# {line.device}: read by the daemon ({line.source}), {line.protocol or 'nothing intelligible yet'} at {line.baud} baud", file=out
    )
    session, number = _FramePrinter(not_before_s(config), line.baud, out), line.heard
    end_s = math.inf if duration_s is None else time.monotonic() + duration_s
    while time.monotonic() < end_s:
        try:
            told = Reading.from_json(ask(control, f"heard {line.source} {number}"))
        except (OSError, ValueError) as error:
            why = explain(error) if isinstance(error, OSError) else str(error)
            print(f"refclock nmea: the daemon tells no more: {why}", file=sys.stderr)
            return FAILED
        if told.after < number:  # the line was opened again, and its reads are numbered anew
            number = 0
            continue
        for real_ns, mono_ns, data in told.reads:
            session.feed(bytes.fromhex(data), Instant(real_ns, mono_ns), line.byte_ns)
        number = told.after
        if not told.reads:
            time.sleep(LOOK_S)
    return GOOD if session.frames else FAILED


LOOK_S: Final = 0.2
"""s between two questions to the daemon when nothing has come."""


def watch_line(path: str, baud: int, config: Config, duration_s: float | None, out: TextIO) -> int:
    """Print each frame with its result. ``baud`` 0: find it first. GOOD, or FAILED when nothing came."""
    host = Host()
    holders = tuple(host.holders(path))
    if baud == 0 or holders:
        found = listen(host, [Port(path, path, holders)], not_before_s(config), 12.0)[0]
        if found.verdict is None or not found.verdict.baud:
            print(f"refclock nmea: {path}: {described(found)}", file=sys.stderr)
            return FAILED
        baud = found.verdict.baud
        print(f"# {path}: {described(found).partition(',')[0]}", file=out)
    clock = LocalClock()
    session = _FramePrinter(not_before_s(config), baud, out)
    line = ReceiverLine(open_port(path, baud, clock), session, clock)
    try:
        line.run(lambda: False, math.inf if duration_s is None else duration_s)
    finally:
        line.close()
    return GOOD if session.frames else FAILED


# ---- pps ----------------------------------------------------------------------------------------------------------------------------


def watch_pulses(path: str, count: int | None, out: TextIO) -> int:
    """Print edges as ppstest does, and the quality of the pulses at the end; GOOD when they are good, else FAILED.

    ``path``: as ``pps`` in the configuration. ``count``: edges of both kinds to print, None: no limit. OSError: the device failed.
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
        return FAILED
    for words in dict.fromkeys((report.words, *report.doubts)):
        print(words, file=out)
    return GOOD if report.good else FAILED


# ---- sats ---------------------------------------------------------------------------------------------------------------------------


SYSTEMS: Final = {"GPS": "G", "GLONASS": "R", "Galileo": "E", "BeiDou": "C", "QZSS": "J", "SBAS": "S", "NavIC": "I"}
"""Letters of the satellite systems (RINEX 3.04, table 1)."""
SLOTS: Final = (
    ("GLONASS", 65, 96, 64),
    ("QZSS", 193, 202, 192),
    ("Galileo", 301, 336, 300),
    ("BeiDou", 401, 437, 400),
    ("SBAS", 120, 158, 100),
    ("SBAS", 33, 64, 13),
)
"""System, from, to, number to subtract: the numbers by which NMEA tells satellites of all systems apart (u-blox protocol specification,
satellite numbering), to those of RINEX within each system."""


def designation(s: Satellite) -> str:
    """A satellite's name, the same for every receiver: G07 is number 7 of GPS, E07 of Galileo (RINEX 3.04, section 3.5)."""
    number = next((s.number - less for system, low, high, less in SLOTS if s.gnss == system and low <= s.number <= high), s.number)
    return f"{SYSTEMS.get(s.gnss, '?')}{number:02d}"


def sky(satellites: Sequence[Satellite]) -> str:
    """The sky as text, north up. Dots are the horizon; satellites are named, in brackets when not used. A name for which there is no room
    is moved by a row or left out: the table has it."""
    rows = [[" "] * SKY_WIDTH for _ in range(SKY_HEIGHT)]
    middle_x, middle_y = SKY_WIDTH // 2, SKY_HEIGHT // 2
    for degree in range(0, 360, 6):
        x, y = middle_x + (middle_x - 2) * math.sin(math.radians(degree)), middle_y - middle_y * math.cos(math.radians(degree))
        rows[round(y)][round(x)] = "."
    rows[0][middle_x], rows[-1][middle_x], rows[middle_y][1], rows[middle_y][-2], rows[middle_y][middle_x] = "NSWE+"
    for s in sorted(satellites, key=lambda s: not s.used):
        if s.elevation is None or s.azimuth is None:
            continue
        distance = (90 - max(0, min(90, s.elevation))) / 90
        x = middle_x + (middle_x - 4) * distance * math.sin(math.radians(s.azimuth))
        y = middle_y - (middle_y - 1) * distance * math.cos(math.radians(s.azimuth))
        name = designation(s) if s.used else f"({designation(s)})"
        first = max(0, min(SKY_WIDTH - len(name), round(x) - len(name) // 2))
        for row in (round(y), round(y) - 1, round(y) + 1):
            if 0 <= row < SKY_HEIGHT and not any(c.isalnum() or c in "()" for c in rows[row][max(0, first - 1) : first + len(name) + 1]):
                rows[row][first : first + len(name)] = name
                break
    return "\n".join("".join(row).rstrip() for row in rows)


def print_satellites(clock: Snapshot, as_json: bool, out: TextIO) -> int:
    """Print the satellites of every receiver of the running daemon, as a table and as the sky; FAILED when no receiver reports any."""
    receivers = [s for s in clock.sources if s.satellites]
    if as_json:
        print(json.dumps({s.name: [asdict(satellite) for satellite in s.satellites] for s in receivers}), file=out)
        return GOOD if receivers else FAILED
    for source in receivers:
        some = sorted(source.satellites, key=lambda s: (not s.used, -(s.snr or 0)))
        print(f"{source.name}: fix {source.fix}, {source.satellites_used} of {source.satellites_seen} satellites used", file=out)
        print("satellite  system   elevation  azimuth  signal", file=out)
        for s in some:
            bar = "#" * max(0, ((s.snr or 0) - 10) // 2)
            angles = [("-" if value is None else f"{value}°") for value in (s.elevation, s.azimuth)]
            signal = "-" if s.snr is None else f"{s.snr} dB-Hz"
            used = "used" if s.used else "not used"
            line = f"{designation(s):<9}  {s.gnss or 'unknown':<7}  {angles[0]:>9}  {angles[1]:>7}  {signal:>8}  {used:<8} {bar}"
            print(line.rstrip(), file=out)
        print("\nThe sky: north is up, the dots are the horizon; in brackets: seen, but not used", file=out)
        print(sky(some), file=out)
    if not receivers:
        print("no receiver tells of satellites (it sends no GSV or NAV-SAT, or there is none)", file=out)
    return GOOD if receivers else FAILED
