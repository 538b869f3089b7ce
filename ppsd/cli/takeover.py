"""``refclock takeover``: moves a machine whose clock chronyd, ntpd or another program keeps to refclock, in steps, and back.

* ``--shadow`` (the default) runs the clock process beside the other program, in a directory of its own, and sets nothing. What the other
  program alone can read is left to it (``beside``). Then it tells which of the two clocks is better, by how much.
* ``--commit`` looks for a minute, then does what ``refclock setup --as appliance`` does. The record of the clock process that ran beside is
  put where the service finds it. So the service serves from its first second, and its first correction is no step. The kernel keeps the
  frequency that the other program has set.
* ``--rollback`` is ``refclock setup --undo``, with the kernel's frequency in the other program's drift file before that program starts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from ppsd.cli.daemon import clock_snapshot
from ppsd.cli.import_config import imported
from ppsd.cli.setup import APPLIANCE, OURS, Setup, Systemctl, confirmed, systemctl
from ppsd.cli.supervisor import python
from ppsd.config.directives import Fate
from ppsd.config.file import DEFAULT_FILE, as_toml, parse
from ppsd.config.tables import ChronycConfig, ClockConfig, Config, KeysConfig
from ppsd.faces.comparison import Comparison, Look, look_at
from ppsd.faces.text import plain_duration, plain_ns
from ppsd.process.control import alive
from ppsd.process.exit_codes import FAILED, GOOD, NO_DAEMON, NO_PERMISSION, Refused
from ppsd.snapshot import Snapshot, Verdict
from refclock.config import GpsdSource, PpsSource, ReceiverSource, ShmSource, SockSource, Source
from refclock.kernel.clocks import Adjtimex, read_adjtimex
from refclock.kernel.files import UserFile, owners, replace_file
from refclock.kernel.host import Host
from refclock.kernel.rivals import rivals

WATCH_S: Final = 300.0
"""s for which both clocks are watched: long enough for chronyd to correct its clock a dozen times at its slowest usual pace (poll 4)."""
COMMIT_S: Final = 60.0
"""s for which they are watched before a switch."""
LOCK_S: Final = 1200.0
"""s for which refclock may take to lock: a cold receiver does not know the leap seconds before 13 minutes."""
POLL_S: Final = 0.5
"""s between two looks: sources give one sample a second."""
START_S: Final = 30.0
"""s within which the clock process answers: a small board imports for up to ten."""
END_S: Final = 10.0
"""s from SIGTERM to SIGKILL."""
SKEW_PPM: Final = 1.0
"""ppm; how far the frequency in a drift file may be off, as chronyd is told. Between two programs it is ten times better, but the
temperature may change meanwhile."""
GPSD_UNITS: Final = 4
"""Units 0 to 3 of shared memory are gpsd's (gpsd(8))."""


class Program(NamedTuple):
    """A program whose configuration names receivers. ``files``: where it is. ``option``: names another on the command line. ``kind``: what
    reads it (``ppsd.cli.import_config``). ``units``: the services that run it. ``drift``: its drift file's text for a frequency by which
    the kernel makes the clock faster."""

    files: tuple[str, ...]
    option: str
    kind: str
    units: tuple[str, ...]
    drift: Callable[[float], str]


PROGRAMS: Final = {
    "chronyd": Program(
        ("/etc/chrony/chrony.conf", "/etc/chrony.conf"),
        "-f",
        "chrony",
        ("chrony", "chronyd"),
        lambda ppm: f"{-ppm:20.6f} {SKEW_PPM:20.6f}\n",  # how much the clock gains by itself (chronyd, reference.c)
    ),
    "ntpd": Program(
        ("/etc/ntpsec/ntp.conf", "/etc/ntp.conf"),
        "-c",
        "ntp",
        ("ntpsec", "ntp", "ntpd"),
        lambda ppm: f"{ppm:.6f}\n",  # the kernel's frequency itself (ntpd, ntp_util.c and ntp_loopfilter.c)
    ),
}


@dataclass(frozen=True, slots=True)
class Other:
    """Who keeps the clock now. ``who``: with its number. ``file``: its configuration; "": none is known of it. ``text``: the same as
    refclock.toml; "" without a file."""

    name: str
    who: str
    file: str = ""
    text: str = ""


def other_of(host: Host, name: str, pid: int) -> Other:
    """The program ``name``, with the configuration that it has on ``host``."""
    who, known = f"{name} (pid {pid})", PROGRAMS.get(name)
    if known is None:
        return Other(name, who)
    stated = [after for word, after in pairwise(host.words(pid)) if word == known.option]
    file = next((file for file in (*stated, *known.files) if host.path(file).exists()), "")
    return Other(name, who, file, imported(host.path(file), known.kind) if file else "")


def run(args: argparse.Namespace) -> int:
    """Carry out the step that is asked for."""
    takeover = Takeover(Host(), systemctl, sys.stderr if args.json else sys.stdout)
    if args.step != "shadow" and os.geteuid() != 0:
        raise Refused(NO_PERMISSION, f"refclock takeover: only root may change services; run: sudo refclock takeover --{args.step}")
    if args.step == "rollback":
        return takeover.rollback()
    found = rivals(Host())
    if not found:
        raise Refused(
            FAILED, "refclock takeover: no program keeps this machine's clock, so there is nothing to take over; see refclock setup"
        )
    other = other_of(Host(), found[0].name, found[0].pid)
    if args.step == "commit":
        return takeover.commit(other, args.seconds or COMMIT_S, args.wait or LOCK_S, lambda: confirmed(args.yes))
    comparison = takeover.shadow(other, args.seconds or WATCH_S, args.wait or LOCK_S)
    if args.json:
        print(json.dumps(comparison.to_json()))
    else:
        print(comparison.text())
        print("Next: sudo refclock takeover --commit" if comparison.good else "Nothing was changed.")
    return GOOD if comparison.good else FAILED


# ---- what can be read beside another program ----------------------------------------------------------------------------------------


def beside(config: Config, host: Host) -> tuple[tuple[Source, ...], list[str]]:
    """The sources of ``config`` as far as another program leaves room for a second reader, and a sentence for each that is read otherwise
    or not at all. A kernel pulse and gpsd's JSON have any number of readers. A serial line and a socket have one."""
    told: list[str] = []
    found = list(_beside(config.sources, host, told))
    return tuple(found), told


def _beside(sources: Sequence[Source], host: Host, told: list[str]) -> Iterator[Source]:
    hears_gpsd = any(isinstance(source, GpsdSource) and source.local for source in sources)
    for source in sources:
        match source:
            case SockSource():
                told.append(f"not read: the socket {source.path}, which has one reader" + (_SAME if hears_gpsd else ""))
            case ShmSource() if hears_gpsd and source.unit < GPSD_UNITS:
                told.append(f"not read: shared memory unit {source.unit}{_SAME}")
            case ShmSource():
                told.append(f"shared memory unit {source.unit}: its samples are looked at and left there")
                yield replace(source, shared=True)
            case ReceiverSource() if source.device.startswith("/") and (who := host.holders(source.device)):
                line = f"not read: {source.device}, which {' and '.join(who)} reads: a line has one reader"
                if not source.pps.startswith("/"):
                    told.append(line)
                    continue
                told.append(f"{line}; its pulse {source.pps} is, and numbered by the system clock")
                yield PpsSource(
                    name=source.name, pps=source.pps, edge=source.edge, pps_over_usb=source.pps_over_usb, pps_bias_us=source.pps_bias_us,
                    pulse_width_ms=source.pulse_width_ms, cable_delay_ns=source.cable_delay_ns,
                )  # fmt: skip
            case _:
                yield source


def _missing(text: str) -> list[str]:
    """What an imported configuration says of the lines for which there is nothing here."""
    return [f"not taken over: {line.removeprefix('# ')}" for line in text.splitlines() if re.match(rf"# .*: {Fate.MISSING}", line)]


_SAME: Final = "; gpsd's JSON says the same"


# ---- the clock process beside -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Shadow:
    """A clock process that sets nothing, in ``directory``. ``process`` None: one that ran already."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None

    def look(self) -> Snapshot:
        """Its state. Refused: it does not answer, and why it ended when it did."""
        if self.process is not None and self.process.poll() is not None:
            said = (self.directory / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise Refused(FAILED, f"refclock takeover: the clock process ended: {said[-1] if said else 'it said nothing'}")
        return clock_snapshot(self.directory)

    def end(self) -> None:
        """End the process, if it is ours."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def shadow_of(config: Config) -> Iterator[Shadow]:
    """A clock process with the sources of ``config`` and nothing else of it that touches the machine."""
    with tempfile.TemporaryDirectory(prefix="refclock-takeover-") as made:
        directory = Path(made)
        run = replace(config.run, directory=made, state=f"{made}/state", group="")
        clock = replace(config.clock, steer=ClockConfig().steer, cpu_latency_us=None)
        server = replace(config.server, enabled=False, broadcast=())
        quiet = ChronycConfig(listen=(), socket="")
        alone = replace(config, clock=clock, server=server, chronyc=quiet, keys=KeysConfig(), feeds=(), run=run)
        file = directory / "refclock.toml"
        file.write_text(as_toml(alone), encoding="utf-8")
        with (directory / "log").open("wb") as log:
            words = python("ppsd", "clock", "--config", str(file), "--run-dir", made)
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        shadow = Shadow(directory, process)
        try:
            yield shadow
        finally:
            shadow.end()


# ---- the three steps ----------------------------------------------------------------------------------------------------------------


class Takeover:
    """The steps on ``host``; what is said on the way goes to ``out``. Refused: a step cannot be done, and nothing was changed."""

    def __init__(
        self, host: Host, systemctl: Systemctl, out: TextIO, kernel: Callable[[], Adjtimex] = read_adjtimex,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._host, self._systemctl, self._out, self._kernel, self._pause = host, systemctl, out, kernel, pause

    def shadow(self, other: Other, seconds: float, wait_s: float) -> Comparison:
        """Watch both clocks for ``seconds`` once refclock is locked, for which it has ``wait_s``."""
        with self._beside(other) as shadow:
            return self._compare(other, shadow, seconds, wait_s)

    def commit(self, other: Other, seconds: float, wait_s: float, confirm: Callable[[], None]) -> int:
        """Switch, when nothing speaks against it and ``confirm`` does not raise."""
        setup, record = Setup(self._host, self._systemctl, self._out), b""
        text = self._own_text() or other.text
        setup.tell_owners()
        plan = setup.plan(APPLIANCE, text)
        config = parse(text, DEFAULT_FILE)
        if config.sources and not beside(config, self._host)[0]:
            self._say(f"Nothing of it can be read while {other.name} runs, so nothing was compared. The first correction may be a step.")
            confirm()
        else:
            with self._beside(other) as shadow:
                comparison = self._compare(other, shadow, seconds, wait_s)
                self._say(comparison.text())
                if not comparison.agree:
                    raise Refused(FAILED, "refclock takeover: the two clocks contradict each other, so nothing was changed")
                confirm()
                shadow.end()
                record = (shadow.directory / "timescale").read_bytes() if shadow.process is not None else b""
        if record:
            directory = self._host.path(config.run.directory)
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace_file(directory / "timescale", record, 0o644, owners(config.run.user))
        code = setup.carry_out(plan)
        if not config.server.enabled:
            self._say(f"It serves nobody, as {other.name} did not: server.enabled in {DEFAULT_FILE}")
        if code == GOOD:
            self._say("Back, with the frequency: sudo refclock takeover --rollback")
        return code

    def rollback(self) -> int:
        """Put everything back as it was, and let the other program start with the frequency of now."""
        setup = Setup(self._host, self._systemctl, self._out)
        before = setup.before()
        if before is None:
            raise Refused(FAILED, "refclock takeover: there is nothing to take back")
        self._systemctl("stop", *OURS)
        ppm = self._kernel().frequency_ppm
        for program in PROGRAMS.values():
            if set(program.units) & {*before.active, *before.enabled, *before.restarted}:
                self._hand_back(program, ppm)
        return setup.undo()

    def _hand_back(self, program: Program, ppm: float) -> None:
        for file in program.files:
            lines = [line.split() for line in (self._host.text(file) or "").splitlines()]
            drift = next((words[1] for words in reversed(lines) if len(words) > 1 and words[0].lower() == "driftfile"), "")
            if not drift:
                continue
            path = self._host.path(drift)
            with contextlib.suppress(FileNotFoundError):  # no such directory: that program would not find it either
                UserFile(path, {*owners(), path.parent.stat().st_uid}).replace(program.drift(ppm).encode())
                self._say(f"{drift}: the clock's frequency, {ppm:+.3f} ppm")

    # ---- parts ----------------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _beside(self, other: Other) -> Iterator[Shadow]:
        """What is compared with ``other``: the daemon that runs already, else a shadow."""
        own = self._own_text()
        directory = self._host.path(parse(own, DEFAULT_FILE).run.directory)
        if alive(directory / "clock.sock"):
            if clock_snapshot(directory).steering != ClockConfig().steer:
                raise Refused(FAILED, "refclock takeover: refclock keeps this machine's clock already (refclock status)")
            self._say(f"refclock runs already ({directory}), and sets nothing. It is compared with {other.who}.")
            yield Shadow(directory)
            return
        sources, told = beside(parse(own or other.text, DEFAULT_FILE), self._host)
        self._say(f"{other.who} keeps the clock, and goes on. refclock runs beside it and sets nothing.")
        named = DEFAULT_FILE if own else other.file
        words = ", ".join(f"{source.name} ({source.kind})" for source in sources)
        self._say(
            f"sources, by {named}: {words}" if sources else "sources: none is named that can be read, so free receivers are looked for"
        )
        for sentence in [*told, *([] if own else _missing(other.text))]:
            self._say(f"  {sentence}")
        with shadow_of(replace(parse(own or other.text, DEFAULT_FILE), sources=sources)) as shadow:
            yield shadow

    def _compare(self, other: Other, shadow: Shadow, seconds: float, wait_s: float) -> Comparison:
        clock = self._locked(shadow, wait_s)
        self._say(f"LOCKED within ±{plain_ns(clock.bound_ns or 0)}; both are watched for {plain_duration(seconds)}")
        selected, looks, counted, lost = clock.selected, list[Look](), 0, 0
        for _ in range(max(1, round(seconds / POLL_S))):
            self._pause(POLL_S)
            clock = shadow.look()
            selected = clock.selected
            if clock.verdict is not Verdict.LOCKED or selected is None:
                lost += 1
            elif selected.samples != counted and (look := look_at(clock, selected, self._kernel().max_error_ns)) is not None:
                counted = selected.samples
                looks.append(look)
        comparison = Comparison.of(other.name, selected is not None and selected.pulse is not None, looks)
        if comparison is None:
            why = f": {clock.why}" if clock.why else "; watch longer: --seconds"
            raise Refused(
                FAILED, f"refclock takeover: {len(looks)} samples in {plain_duration(seconds)} are too few{why}. Nothing was changed"
            )
        if lost:
            self._say(f"refclock was not LOCKED at {lost} of {round(seconds / POLL_S)} looks")
        return comparison

    def _locked(self, shadow: Shadow, wait_s: float) -> Snapshot:
        """The first state that is LOCKED."""
        stages, why = tuple[tuple[str, bool], ...](), "it does not answer"
        for turn in range(max(1, round(wait_s / POLL_S))):
            try:
                clock = shadow.look()
            except Refused as refusal:
                if refusal.code != NO_DAEMON or turn > START_S / POLL_S:
                    raise
                self._pause(POLL_S)
                continue
            if clock.verdict is Verdict.LOCKED and clock.selected is not None:
                return clock
            why = clock.why or clock.verdict
            if clock.stages != stages and any(done for _, done in clock.stages):
                stages = clock.stages
                self._say("  ".join(f"[{'x' if done else ' '}] {stage}" for stage, done in stages))
            self._pause(POLL_S)
        raise Refused(FAILED, f"refclock takeover: not LOCKED within {plain_duration(wait_s)}: {why}. Nothing was changed")

    def _own_text(self) -> str:
        """The configuration of refclock's own, when it names sources: its owner has decided then."""
        text = self._host.path(DEFAULT_FILE)
        own = text.read_text(encoding="utf-8") if text.exists() else ""
        return own if own and parse(own, DEFAULT_FILE).sources else ""

    def _say(self, words: str) -> None:
        print(words, file=self._out, flush=True)
