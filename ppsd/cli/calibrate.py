"""``refclock calibrate pps``: how late are the pulse's stamps? Measured where it can be.

* **Against another source** of the running daemon: both are compared with the served time second by second, so what is left is how much
  later the one's seconds come than the other's. It is worth as much as the other is good: its bound is part of the answer.
* **By an echo**: an output line wired to the pulse's input is set at instants that we read from the clock; the stamp that comes back is as
  late as the receiver's pulses are, except that the receiver's own error (cable, quantisation) is not in it. The time of the system call
  that sets the line counts as lateness, so the figure is rather too large than too small.

The answer is an allowance, ``pps_bias_us``: it goes into the promised bound, and is not subtracted.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final, TextIO

from ppsd.cli.config import apply, file_of
from ppsd.cli.daemon import clock_snapshot, run_directory
from ppsd.config.edit import with_bias
from ppsd.config.file import load
from ppsd.config.tables import Config
from ppsd.config.toml_text import locate
from ppsd.process.exit_codes import FAILED, GOOD, USAGE, Refused
from ppsd.snapshot import Snapshot
from refclock.config import PulsedSource
from refclock.devices.modem_lines import OutputLine, open_pulse
from refclock.kernel.clocks import LocalClock
from refclock.robust import median, spread

ECHO_WAIT_S: Final = 0.5
"""A stamp that is later than this is none."""
PAUSE_S: Final = 0.1
"""Between two edges at least: processors fall asleep again within milliseconds. Up to twice that, so that nothing beats with a poll."""
GOLDEN: Final = 0.618034
"""Multiples of it fill an interval evenly (Weyl)."""
WARM_UP: Final = 4
ENOUGH: Final = 20
"""Measurements below which nothing is claimed."""
CHANCE: Final = 4.0
"""Standard errors of a median allowed for; a median has 1.25 times the error of a mean."""
POLL_S: Final = 0.5


def run(args: argparse.Namespace) -> int:
    """``calibrate pps``, against another source or by an echo."""
    config = load(args.config)
    pulses = {
        s.name: s.pps for s in config.sources if isinstance(s, PulsedSource) and s.pps.startswith("/") and args.source in ("", s.name)
    }
    if args.echo and len(pulses) != 1:
        known = ", ".join(pulses) or "none"
        why = f"whose pulse is it? --source NAME; the configuration names one for: {known}"
        raise Refused(USAGE, f"refclock calibrate pps: {why}")
    directory = run_directory(args.run_dir)
    if not args.echo:
        clock_snapshot(directory)  # refused at once where there is no daemon

    def measure() -> Bias:
        if args.echo:
            ((name, pulse),) = pulses.items()
            return echo(name, pulse, args.echo, args.count)
        return versus(partial(clock_snapshot, directory), time.sleep, args.source, args.against, args.seconds)

    return calibrate(measure, config, file_of(config, args.config) if args.apply else None, args.json, sys.stdout)


@dataclass(frozen=True, slots=True)
class Bias:
    """How late stamps are: ``late_us`` ± ``uncertainty_us`` (chance), good to ``known_us`` (what it was measured by). ``pps_bias_us``: the
    allowance that covers all of it, whole microseconds."""

    source: str
    how: str
    late_us: float
    uncertainty_us: float
    known_us: float
    samples: int
    lost: int
    low_us: float
    high_us: float
    pps_bias_us: int

    @property
    def lines(self) -> str:
        """What to write into the configuration."""
        return f"pps_bias_us = {self.pps_bias_us}"


class CannotTell(ValueError):
    """Nothing can be measured; the text says why and what would help."""


def judged(source: str, how: str, late_ns: list[float], lost: int, known_us: float) -> Bias:
    """The figures of many measured latenesses."""
    if len(late_ns) < ENOUGH:
        raise CannotTell(f"only {len(late_ns)} measurements, {lost} without answer: at least {ENOUGH} are needed")
    ordered = sorted(late_ns)
    middle = median(ordered)
    chance = CHANCE * 1.25 * spread(ordered, middle) / math.sqrt(len(ordered))
    low, high = ordered[0], ordered[int(0.95 * (len(ordered) - 1))]
    allowance = math.ceil((abs(middle) + chance) / 1e3 + known_us)
    return Bias(source, how, middle / 1e3, chance / 1e3, known_us, len(ordered), lost, low / 1e3, high / 1e3, allowance)


# ---- against another source ---------------------------------------------------------------------------------------------------------


def versus(look: Callable[[], Snapshot], pause: Callable[[float], None], wanted: str, against: str, seconds: float) -> Bias:
    """Compare two sources of the running daemon for ``seconds``. ``wanted``, ``against``: names, "" for the only one that can be meant."""
    first = {s.name: s for s in look().sources}
    wanted = _chosen(wanted, [n for n, s in first.items() if s.pulse is not None], first, "--source", "a source with a pulse")
    against = _chosen(against, [n for n in first if n != wanted], first, "--against", "another source to compare it with")
    if against == wanted:
        raise CannotTell(f"{wanted} cannot be compared with itself; name another source with --against")
    offsets: dict[str, list[float]] = {wanted: [], against: []}
    counted = {name: first[name].samples for name in offsets}
    bound_ns: float | None = None
    for _ in range(max(1, round(seconds / POLL_S))):
        pause(POLL_S)
        now = {s.name: s for s in look().sources}
        for name, seen in offsets.items():
            status = now.get(name)
            if status is not None and status.samples != counted[name] and status.offset_ns is not None:
                counted[name] = status.samples
                seen.append(float(status.offset_ns))
        bound_ns = now[against].bound_ns if against in now else None
    for name, seen in offsets.items():
        if len(seen) < ENOUGH:
            why = next((s.why for s in look().sources if s.name == name), "it is gone")
            raise CannotTell(
                f"{name} gave {len(seen)} samples in {seconds:.0f} s, {ENOUGH} are needed: {why or 'measure longer, --seconds'}"
            )
    if bound_ns is None:
        raise CannotTell(f"{against} does not say how good it is yet; try again in a minute")
    reference = median(offsets[against])
    late = [reference - offset for offset in offsets[wanted]]  # a stamp that is late puts the second too early
    known_us = (bound_ns + CHANCE * 1.25 * spread(offsets[against]) / math.sqrt(len(offsets[against]))) / 1e3
    return judged(wanted, f"against {against}, itself good to ±{known_us:.3g} µs", late, 0, known_us)


def _chosen(name: str, fit: list[str], known: Collection[str], option: str, what: str) -> str:
    if name and name not in known:
        raise CannotTell(f"there is no source {name}; there {'are' if len(known) != 1 else 'is'} {', '.join(known) or 'none'}")
    if not name and len(fit) != 1:
        many = f"; choose with {option}: {', '.join(fit)}" if fit else ""
        other = "" if fit or option == "--source" else "; or wire an output line to the pulse's input and name it: --echo /dev/ttyS0:rts"
        raise CannotTell(f"there is {'more than one' if fit else 'no'} {what.removeprefix('a ')}{many}{other}")
    return name or fit[0]


# ---- by an echo ---------------------------------------------------------------------------------------------------------------------


def echo(source: str, pulse: str, output: str, count: int) -> Bias:
    """Set ``output``, wired to the input of ``pulse``, ``count`` times. OSError: one of them cannot be opened."""
    clock, came, pause = LocalClock(), threading.Event(), threading.Event()
    line = OutputLine(output)
    try:
        device = open_pulse(pulse, clock, came.set)
        try:
            late: list[float] = []
            lost = 0
            for turn in range(count + WARM_UP):
                pause.wait(PAUSE_S * (1 + turn * GOLDEN % 1))
                device.take()
                came.clear()
                before = clock.now()
                line.set(turn % 2 == 0)
                came.wait(ECHO_WAIT_S)
                edge = next((e for e in device.take() if e.at.mono_ns >= before.mono_ns), None)
                if device.error:
                    raise CannotTell(device.error)
                if turn < WARM_UP:
                    continue
                if edge is None:
                    lost += 1
                else:
                    late.append(float(edge.at.mono_ns - before.mono_ns))
        finally:
            device.stop()
    finally:
        line.close()
    if lost > len(late):
        raise CannotTell(
            f"{len(late)} of {count} edges came back: is {output} wired to the input of {pulse}, and the receiver's pulse off it?"
        )
    return judged(source, f"by an echo from {output} to {pulse}, {device.stamping.how}", late, lost, 0.0)


def report(bias: Bias, as_json: bool, useful: bool, out: TextIO) -> None:
    """The figures, and what to write when they are ``useful``."""
    if as_json:
        print(json.dumps(asdict(bias) | {"useful": useful, "lines": bias.lines}), file=out)
        return
    when = "late" if bias.late_us >= 0 else "early"
    print(f"{bias.source}: stamped {abs(bias.late_us):.1f} µs {when} ± {bias.uncertainty_us:.1f}, {bias.how}", file=out)
    lost = f", {bias.lost} lost" if bias.lost else ""
    print(f"{bias.samples} measurements{lost}: from {bias.low_us:.1f} µs, 19 of 20 below {bias.high_us:.1f} µs", file=out)
    if useful:
        print(f"to be written into its [[source]] (--apply does it):\n{bias.lines}", file=out)


def calibrate(measure: Callable[[], Bias], config: Config, apply_to: Path | None, as_json: bool, out: TextIO) -> int:
    """Measure, tell, and write if asked to; FAILED when nothing can be told."""
    try:
        bias = measure()
    except CannotTell as why:
        print(f"refclock calibrate pps: {why}", file=sys.stderr)
        return FAILED
    allowed = next((s.pps_bias_us for s in config.sources if s.name == bias.source and isinstance(s, PulsedSource)), None)
    useful = bias.known_us <= max(abs(bias.late_us), allowed or 0.0)
    report(bias, as_json, useful, out)
    if not useful:
        what = f"that is worth little: what it was measured by is good to ±{bias.known_us:.3g} µs only; use a better source, or an echo"
        print(f"refclock calibrate pps: {what}", file=sys.stderr)
        return FAILED
    if apply_to is None:
        return GOOD
    index = next((i for i, s in enumerate(config.sources) if s.name == bias.source), None)
    text = apply_to.read_text(encoding="utf-8") if apply_to.exists() else ""
    if index is None or ("source", index) not in locate(text):
        print(f"refclock calibrate pps: {apply_to} has no [[source]] {bias.source}; nothing was written", file=sys.stderr)
        return FAILED
    change = partial(with_bias, index=index, value=bias.pps_bias_us)
    return apply(apply_to, change, "calibrate pps", sys.stderr if as_json else out)
