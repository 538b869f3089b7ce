"""``refclock nmea`` and ``pps``: show a receiver's messages and its pulses live."""

from __future__ import annotations

import argparse
import errno
import math
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from ppsd.cli.daemon import configuration, read_line, run_directory
from ppsd.cli.detect import described, listen, not_before_s
from ppsd.config.file import load
from ppsd.config.tables import Config
from ppsd.process.control import ask
from ppsd.process.exit_codes import FAILED, GOOD, Refused
from ppsd.snapshot import LineReport, Reading
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
from refclock.sample import NS, EdgeKind, Instant, ReceiverValue, SecondLabel
from refclock.timing.pulses import Rhythm


def run(args: argparse.Namespace) -> int:
    """Execute one of the two commands."""
    if args.command == "nmea":
        directory = run_directory(args.run_dir)
        config = load(configuration(directory, args.config))
        line = read_line(directory, args.device, Host())
        if line is not None:
            return follow_line(directory / "clock.sock", line, config, args.duration, sys.stdout)
        if args.device is None:
            raise Refused(FAILED, "refclock nmea: no daemon reads a receiver; name a serial device, refclock detect lists them")
        return watch_line(args.device, args.baud, config, args.duration, sys.stdout)
    return watch_pulses(args.device, args.test, sys.stdout)


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
