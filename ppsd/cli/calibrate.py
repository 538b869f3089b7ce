"""``refclock calibrate pps``: measures how late pulses are stamped.

* **Against another source** of the running daemon. Both are compared with the served time, second by second. The difference of their
  offsets is the lateness. The other source's bound limits the accuracy and is part of the result.
* **By an echo**. An output line is wired to the pulse's input and set at known instants. The stamp of the edge is as late as those of the
  receiver's pulses; the receiver's own errors (cable, quantisation) are not in it. The system call that sets the line takes part of the
  time, so the result errs on the large side.

The result is an allowance, ``pps_bias_us``. It is added to the bound and not subtracted from the stamps.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final, TextIO

from ppsd.cli.config import apply, file_of, load_to_write
from ppsd.cli.daemon import clock_snapshot, run_directory
from ppsd.config.edit import with_bias
from ppsd.config.file import load
from ppsd.config.tables import Config
from ppsd.config.toml_text import locate
from ppsd.process.exit_codes import FAILED, GOOD, USAGE, Refused
from ppsd.snapshot import Snapshot
from refclock.config import AUTO, DEFAULT_SOURCE, PulsedSource, ReceiverSource, Source
from refclock.devices.modem_lines import OutputLine, open_pulse
from refclock.devices.ports import pulses
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.robust import median, spread

ECHO_WAIT_S: Final = 0.5
"""s to wait for an echo; a later stamp counts as lost."""
PAUSE_S: Final = 0.1
"""s between two edges, at least: processors go idle again within milliseconds. Up to twice this, varying, so that no poll beats with it."""
GOLDEN: Final = 0.618034
"""Multiples of it modulo 1 fill the interval evenly (Weyl)."""
WARM_UP: Final = 4
"""Edges of an echo that are not counted: caches are cold."""
ENOUGH: Final = 20
"""Measurements; with fewer there is no result."""
LOST: Final = 0.25
"""Share of the measurements that may be missing. A wire or a receiver loses none; where many are lost, those that came need not be like the
others (the late ones may be missing), or come from elsewhere."""
CHANCE: Final = 4.0
"""Standard errors of a median in the uncertainty; a median has 1.25 times the standard error of a mean."""
POLL_S: Final = 0.5
"""s between two snapshots of the daemon: sources give one sample a second."""


def run(args: argparse.Namespace) -> int:
    """``calibrate pps``, against another source or by an echo."""
    config = load_to_write(args.config) if args.apply else load(args.config)
    if args.echo is not None:
        name, pulse = pulse_of(config.sources or (DEFAULT_SOURCE,), args.source, Host())
        measure = partial(echo, name, pulse, args.echo, args.count)
    else:
        look = partial(clock_snapshot, run_directory(args.run_dir))
        look()  # refuse at once without a daemon
        measure = partial(versus, look, time.sleep, args.source, args.against, args.seconds)
    return calibrate(measure, config, file_of(config, args.config) if args.apply else None, args.json, sys.stdout)


def pulse_of(sources: Sequence[Source], wanted: str, host: Host) -> tuple[str, str]:
    """(source, its pulse device). ``wanted``: the source's name, "" for the only one with a pulse. A pulse that is found automatically is
    the one of its receiver's line, else the only one that no other source names. Refused: it cannot be told."""
    pulsed = [s for s in sources if isinstance(s, PulsedSource) and s.pps and wanted in ("", s.name)]
    if len(pulsed) != 1:
        known = ", ".join(s.name for s in sources if isinstance(s, PulsedSource) and s.pps) or "no source has one"
        raise Refused(USAGE, f"refclock calibrate pps: whose pulse is it? Choose with --source NAME: {known}")
    (source,) = pulsed
    if source.pps != AUTO:
        return source.name, source.pps
    named = {s.pps for s in sources if isinstance(s, PulsedSource)}
    free = [node for node in pulses(host) if not node.refused and node.path not in named]
    device = source.device if isinstance(source, ReceiverSource) else AUTO
    own = [node for node in free if device != AUTO and node.belongs(host, device)]
    found = own or [node for node in free if device == AUTO or not node.tty]
    if len(found) != 1:
        there = ", ".join(node.path for node in found) or "no pulse device"
        why = f'there is {there}; write the pulse of {source.name} into its [[source]], such as pps = "/dev/pps0" or pps = "/dev/ttyS0:dcd"'
        raise Refused(USAGE, f"refclock calibrate pps: {why}")
    return source.name, found[0].path


@dataclass(frozen=True, slots=True)
class Bias:
    """The lateness of stamps: ``late_us`` ± ``uncertainty_us`` (random), ± ``known_us`` (bound of the reference). ``pps_bias_us``: the
    allowance that covers all three, whole microseconds."""

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
    """There is no result; the text gives cause and remedy."""


def judged(source: str, how: str, late_ns: list[float], lost: int, known_us: float) -> Bias:
    """The result of single latenesses (ns)."""
    if lost > LOST * (len(late_ns) + lost):
        raise CannotTell(
            f"{lost} of {len(late_ns) + lost} pulses were lost; what is left says little: see to the wiring, or to the reception"
        )
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
    """Compare two sources of the running daemon for ``seconds``. ``wanted``, ``against``: names, "" for the only candidate."""
    before = last = look()
    first = {s.name: s for s in before.sources}
    wanted = _chosen(wanted, [n for n, s in first.items() if s.pulse is not None], first, "--source", "source with a pulse")
    against = _chosen(against, [n for n in first if n != wanted], first, "--against", "other source to compare it with")
    if against == wanted:
        raise CannotTell(f"{wanted} cannot be compared with itself; name another source with --against")
    offsets: dict[str, list[float]] = {wanted: [], against: []}
    counted = {name: first[name].samples for name in offsets}
    bound_ns: float | None = None
    for _ in range(max(1, round(seconds / POLL_S))):
        pause(POLL_S)
        last = look()
        now = {s.name: s for s in last.sources}
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
    late = [reference - offset for offset in offsets[wanted]]  # a late stamp makes the offset too small
    lost = max(0, int(last.uptime_s - before.uptime_s) - len(offsets[wanted]))
    known_us = (bound_ns + CHANCE * 1.25 * spread(offsets[against]) / math.sqrt(len(offsets[against]))) / 1e3
    return judged(wanted, f"against {against}, itself good to ±{known_us:.3g} µs", late, lost, known_us)


def _chosen(name: str, fit: list[str], known: Collection[str], option: str, what: str) -> str:
    if name and name not in known:
        raise CannotTell(f"there is no source {name}; there {'are' if len(known) != 1 else 'is'} {', '.join(known) or 'none'}")
    if not name and len(fit) != 1:
        many = f"; choose with {option}: {', '.join(fit)}" if fit else ""
        other = "" if fit or option == "--source" else "; or wire an output line to the pulse's input and name it: --echo /dev/ttyS0:rts"
        raise CannotTell(f"there is {'more than one' if fit else 'no'} {what}{many}{other}")
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
    if lost > LOST * count:
        raise CannotTell(
            f"{len(late)} of {count} edges came back: is {output} wired to the input of {pulse}, and the receiver's pulse off it?"
        )
    return judged(source, f"by an echo from {output} to {pulse}, {device.stamping.how}", late, lost, 0.0)


def report(bias: Bias, as_json: bool, useful: bool, out: TextIO) -> None:
    """Print the result, and the lines to write when it is ``useful``."""
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
    """Measure, print the result, and write it to ``apply_to`` unless None; FAILED without a useful result."""
    try:
        bias = measure()
    except CannotTell as why:
        print(f"refclock calibrate pps: {why}", file=sys.stderr)
        return FAILED
    sources = config.sources or (DEFAULT_SOURCE,)
    allowed = next((s.pps_bias_us for s in sources if s.name == bias.source and isinstance(s, PulsedSource)), None)
    useful = bias.known_us <= max(abs(bias.late_us), allowed or 0.0)
    report(bias, as_json, useful, out)
    if not useful:
        what = f"that is worth little: what it was measured by is good to ±{bias.known_us:.3g} µs only; use a better source, or an echo"
        print(f"refclock calibrate pps: {what}", file=sys.stderr)
        return FAILED
    if apply_to is None:
        return GOOD
    index = next((i for i, s in enumerate(sources) if s.name == bias.source), None)
    text = apply_to.read_text(encoding="utf-8") if apply_to.exists() else ""
    if index is None or (config.sources and ("source", index) not in locate(text)):
        print(f"refclock calibrate pps: {apply_to} has no [[source]] {bias.source}; nothing was written", file=sys.stderr)
        return FAILED
    change = partial(with_bias, index=index, value=bias.pps_bias_us)
    return apply(apply_to, change, "calibrate pps", sys.stderr if as_json else out)
