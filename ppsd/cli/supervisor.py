"""The foreground supervisor: keeps a few processes alive, and ends them together.

On the appliance systemd does this. ``refclock run`` does it on a laptop, in a container or in a simulation. It is one loop without threads.
It waits in poll for signals, for its children's output and reports, and for questions on its control socket.

A child that ends is started again: at once the first time, then after growing pauses (``PAUSES_S``). So a crash costs less than two seconds
of service, and a crash loop hardly any CPU. Until everything has been up once, the exit codes for a wrong command line, a missing
permission and a wrong configuration (``FINAL_CODES``) end the whole run. The daemon's processes report that they are alive
(``ppsd.process.lifecycle``); one that falls silent is killed and started again. Each child holds the reading end of a pipe whose writing
end closes with the supervisor (``die_with_parent``), so children end even when the supervisor is killed by SIGKILL.

What the children write passes through here, and nothing here waits for a reader (``ppsd.process.log.Sink``). A supervisor that systemd
started hands its sockets on and reports for all its children.

SIGHUP: the hang-up of the terminal ends the run. Any other makes it read the configuration again (``reload``).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import shutil
import signal
import site
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, TextIO

from ppsd.process.control import TELL, ControlServer, Reloaded, Reloads
from ppsd.process.exit_codes import BAD_CONFIG, NO_PERMISSION, USAGE
from ppsd.process.lifecycle import FIRST_FD, INHERITED, PARENT_FD, Terminal, notify
from ppsd.process.log import Log, Repeats, Sink, Telling
from refclock.errors import explain, printable

FINAL_CODES = frozenset({USAGE, NO_PERMISSION, BAD_CONFIG})
"""Exit codes after which a new start would fail as well."""
PAUSES_S = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)
"""s before the n-th consecutive start of a child that does not stay up; the last pause repeats."""
STAYED_UP_S = 10.0
"""s; a child that ran longer starts again without a pause."""
KILL_AFTER_S = 0.7
"""s from SIGTERM to SIGKILL: 0.3 s remain of the promised second for kernel and supervisor."""
REPEAT_S = 60.0
"""s; without a terminal the status is printed at least once in this time."""
SILENT_S: Final = 10.0
"""s without a report after which a child is taken for dead. It reports once a second to once in half this time, and a machine that swaps
may hold it up for seconds."""
START_S: Final = 90.0
"""s within which a child must have reported first: DefaultTimeoutStartSec of systemd. A small board imports for up to ten."""
TICK_S: Final = 1.0
"""s between two looks at the children and at the status."""
LINE_BYTES: Final = 8192
"""Octets kept of a child's unfinished line."""
REPORT_BYTES: Final = 4096
"""Octets kept of a child's report."""

_COLOURS = {"LOCKED": "32", "HOLDOVER": "33", "FALLBACK": "33", "ACQUIRING": "36", "NO TIME": "31"}  # SGR codes of ECMA-48


@dataclass(frozen=True, slots=True)
class Program:
    """A child to keep alive. ``awaits``: start it only once this path exists (made by another child). ``reports``: it is one of the
    daemon's: it reports that it is alive, and reads its configuration again on SIGHUP. ``sockets``: how many of the sockets that were
    handed to the supervisor it gets."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    awaits: Path | None = None
    reports: bool = False
    sockets: int = 0


@dataclass(slots=True)
class _Child:
    """``ends``: closes this side of its lifeline and of its reports. ``reported_s``: when it was last heard of. ``ready``: it has reported
    that it is up. ``stale``: the configuration has changed, which it is told when it is ready: before that, SIGHUP would end it.
    ``kill_s``: when it will be killed if it has not ended by then. ``wanted``: it is started again when it ends."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    started_s: float = 0.0
    reported_s: float = 0.0
    ready: bool = False
    stale: bool = False
    failures: int = 0
    due_s: float = 0.0
    kill_s: float = math.inf
    wanted: bool = True
    unfinished: bytes = b""


def _tell(child: _Child) -> None:
    """Make a child that is ready read the changed configuration."""
    if child.stale and child.ready and child.process is not None:
        child.stale = False
        child.process.send_signal(signal.SIGHUP)


class Screen:
    """Prints lines and a status line, and never waits for the reader. On a terminal the status line is rewritten in place; elsewhere it is
    printed when it changes. ``form``: as log.format; in JSON every line is an object."""

    def __init__(self, out: TextIO, form: str = "text") -> None:
        self._terminal = out.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._sink = Sink(out.fileno())
        self._key = ""
        self._shown_s = -math.inf
        self._text = ""
        self._states = Repeats()
        self._log = Log(self, "plain")
        self.speak(form)

    def speak(self, form: str) -> None:
        """Print in ``form`` from now on."""
        self.live = self._terminal and form != "json"
        self._colour = self.live and "NO_COLOR" not in os.environ
        self._text = self._text if self.live else ""
        self._log.speak("json" if form == "json" else "plain", "info")

    def write(self, text: str) -> bool:
        """Write whole lines above the status line. False: there is no room."""
        return self._sink.write(f"\r\x1b[K{text}{self._text}" if self.live else text)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._log.say(text)

    def fault(self, text: str) -> None:
        """Print what does not work; when it goes on and on, it is counted."""
        self._log.error(text)

    def passed_on(self, line: str, program: str, counted: bool) -> None:
        """Print a line of a child. ``counted``: as in ``ppsd.process.log.Log.passed_on``."""
        self._log.passed_on(line, program, counted)

    def settle(self) -> None:
        """Print the counts of what went on. To be called now and then."""
        self._log.settle()

    def status(self, key: str, text: str) -> None:
        """Show the status ``text``. Without a terminal it is printed when ``key`` changes; one that comes and goes is told less often."""
        text = printable(text)
        if self.live:
            cut = text[: max(10, shutil.get_terminal_size().columns - 1)]
            for word, code in _COLOURS.items():
                if self._colour and word in cut:
                    cut = cut.replace(word, f"\x1b[1;{code}m{word}\x1b[0m", 1)
                    break
            self._text = cut
            self.write("")
            return
        now = time.monotonic()
        news = key != self._key and self._states.admit(Telling("", key, {}), now) is not None
        self._key = key
        if news or now - self._shown_s >= REPEAT_S:
            self._shown_s = now
            self.line(text)

    def end(self) -> None:
        """Keep the status line and continue below it."""
        if self.live and self._text:
            self._text = ""
            self._sink.write("\n")


class Supervisor:
    """Runs ``programs`` until told to stop; see the module. ``run`` takes over the signals of the process.

    ``report``: (key, text) of the status line. ``reload``: called on SIGHUP; returns what happened and the programs to run from now on.
    ``keep``: called once a second, and before a child starts, to make files anew that somebody has removed; returns why that failed, or
    "". ``control``: where ``refclock reload`` asks what happened; None: nowhere. OSError: it cannot be made.
    """

    def __init__(
        self,
        programs: list[Program],
        screen: Screen,
        *,
        report: Callable[[], tuple[str, str]],
        reload: Callable[[], tuple[Reloaded, list[Program]]],
        keep: Callable[[], str] = lambda: "",
        control: Path | None = None,
    ) -> None:
        self._children = [_Child(program) for program in programs]
        self._screen = screen
        self._report, self._reload, self._keep = report, reload, keep
        self._reloads = Reloads()
        self._control = None if control is None else ControlServer(control, self._answer)
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._terminal = Terminal()
        self._stop_s: float | None = None
        self._hung_up = False
        self._settled = False
        self._looked_s = math.inf
        self._code = 0

    def run(self, duration_s: float | None = None) -> int:
        """Run until SIGINT, SIGTERM, the terminal's hang-up or the duration's end (returns 0), or until a child's final exit code. Ends all
        children."""
        wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = {s: signal.signal(s, self._signalled) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)}
        before[signal.SIGTTOU] = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # "stty tostop" must not stop a job in the background
        before_fd = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._listen(wake, lambda: _drained(wake))
        if self._control is not None:
            self._listen(self._control.fileno(), self._control.handle_ready)
        end_s = None if duration_s is None else time.monotonic() + duration_s
        try:
            self._loop(end_s)
        finally:
            for child in self._children:
                if child.process is not None:
                    child.process.kill()
                    child.process.wait()
                child.ends.close()
            signal.set_wakeup_fd(before_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(wake)
            os.close(wake_write)
            if self._control is not None:
                self._control.close()
            self._screen.end()
        return self._code

    def _loop(self, end_s: float | None) -> None:
        tick_s = time.monotonic()
        while True:
            now = time.monotonic()
            if end_s is not None and now >= end_s and self._stop_s is None:
                self._stop()
            self._reap(now)
            if self._hung_up:
                self._hung_up = False
                if self._stop_s is None:
                    self._read_again()
            if self._stop_s is None:
                self._start_due(now)
                if now >= tick_s:
                    tick_s = now + TICK_S
                    self._tick(now)
            elif all(child.process is None for child in self._children):
                self._wait(0.0)
                return
            for child in self._children:
                if child.process is not None and now >= child.kill_s:
                    child.process.kill()
            self._wait(self._pause_s(tick_s, end_s))

    def _pause_s(self, tick_s: float, end_s: float | None) -> float:
        """s until the next deadline. A path that a program awaits is tested every 20 ms."""
        now = time.monotonic()
        times = [child.kill_s for child in self._children if child.process is not None]
        if self._stop_s is not None:
            return max(0.01, min(0.1, min(times, default=now) - now))
        times += [tick_s, *([end_s] if end_s is not None else [])]
        times += [child.due_s if child.due_s > now else now + 0.02 for child in self._children if child.process is None]
        return max(0.0, min(times) - now)

    def _tick(self, now: float) -> None:
        """Once a second: look whether the children live, and tell how things are."""
        if now - self._looked_s > TICK_S + SILENT_S / 2:  # this process, or the machine, stood still: their reports are still to be read
            for child in self._children:
                child.reported_s = now
        self._looked_s = now
        for child in self._children:
            silent_s = now - child.reported_s
            if child.process is None or not child.program.reports or silent_s < (SILENT_S if child.ready else START_S):
                continue
            self._screen.fault(f"{child.program.name} has not reported for {silent_s:.0f} s: it is stopped or stuck, and is killed")
            child.process.kill()
            child.reported_s = now
        reporting = [child for child in self._children if child.program.reports]
        if reporting and not self._settled and all(child.ready for child in reporting):
            self._settled = True
            notify("READY=1")
        self._terminal.look()
        self._screen.settle()
        self._keep_files()
        key, text = self._report()
        self._screen.status(key, text)
        notify(f"WATCHDOG=1\nSTATUS={text}")

    def _keep_files(self) -> None:
        """Make anew what somebody has removed from the run directory."""
        if self._control is not None and self._control.renew():
            self._screen.line(f"{self._control.path} was removed by somebody and is made anew")
        failed = self._keep()
        if failed:
            self._screen.fault(f"children cannot be started again: {failed}")

    # ---- signals, reports and questions ----------------------------------------------------------------------------------------------

    def _signalled(self, number: int, _: FrameType | None) -> None:
        """Signal handler. It runs inside a wait too, so the children get SIGTERM at once."""
        if number in (signal.SIGINT, signal.SIGTERM) or (number == signal.SIGHUP and self._terminal.hung_up()):
            self._stop()
        elif number == signal.SIGHUP:
            self._hung_up = True

    def _stop(self) -> None:
        """First call: send SIGTERM to all; second call: kill at once."""
        now = time.monotonic()
        again, self._stop_s = self._stop_s is not None, now
        notify("STOPPING=1")
        for child in self._children:
            child.kill_s = now if again else min(child.kill_s, now + KILL_AFTER_S)
            if child.process is not None:
                child.process.send_signal(signal.SIGTERM)

    def _read_again(self) -> None:
        """Read the configuration again. Only what changed is touched: a program with another command line, one that is not wanted any more
        or is wanted now. The daemon's other processes are told to look for themselves."""
        what, programs = self._reload()
        self._reloads.happened(what)
        for line in what.lines:
            self._screen.line(line)
        if not what.good:
            return
        wanted = {program.name: program for program in programs}
        for child in self._children:
            program = wanted.pop(child.program.name, None)
            same = program == child.program
            child.wanted, child.program = program is not None, program or child.program
            if child.process is None:
                continue
            if not same:
                child.due_s = 0.0
                child.kill_s = time.monotonic() + KILL_AFTER_S
                child.process.send_signal(signal.SIGTERM)
            elif child.program.reports:
                child.stale = True
                _tell(child)
        self._children = [child for child in self._children if child.wanted or child.process is not None]
        self._children += [_Child(program) for program in wanted.values()]

    def _answer(self, line: str) -> str:
        if line != TELL:
            return json.dumps({"error": f"unknown verb {line[:32]!r}; known: {TELL}"})
        return self._reloads.answer()

    def _take_report(self, child: _Child, reports: socket.socket) -> None:
        report = reports.recv(REPORT_BYTES)
        if not report:
            self._forget(reports.fileno())
            return
        child.reported_s = time.monotonic()
        child.ready = child.ready or b"READY=1" in report.splitlines()
        _tell(child)

    # ---- starting and ending children ------------------------------------------------------------------------------------------------

    def _start_due(self, now: float) -> None:
        for child in self._children:
            awaits = child.program.awaits
            if child.process is None and now >= child.due_s and (awaits is None or awaits.exists()):
                self._start(child, now)
            if self._stop_s is not None:  # a signal came while it was started, and could not reach it
                if child.process is not None:
                    child.kill_s = min(child.kill_s, self._stop_s + KILL_AFTER_S)
                    child.process.send_signal(signal.SIGTERM)
                return

    def _start(self, child: _Child, now: float) -> None:
        """Start in a session of its own, so that Ctrl-C and the terminal's hang-up reach only the supervisor, and in /, where nobody else
        has left a file."""
        self._keep_files()
        child.started_s = child.reported_s = now
        child.ready, child.stale, child.unfinished, child.kill_s = False, False, b"", math.inf
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            try:
                lifeline, end = os.pipe2(os.O_CLOEXEC)
                theirs.callback(os.close, lifeline)
                ours.callback(os.close, end)
                reports, reporting = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
                theirs.enter_context(reporting)
                ours.enter_context(reports)
                child.process = subprocess.Popen(
                    child.program.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=self._environment(child.program, lifeline, reporting.fileno()),
                    cwd="/",
                    pass_fds=(lifeline, reporting.fileno(), *range(FIRST_FD, FIRST_FD + child.program.sockets)),
                    start_new_session=True,
                )
            except OSError as error:
                self._screen.fault(f"{child.program.name} cannot be started: {explain(error)}")
                self._put_off(child, now)
                return
            ours.callback(self._forget, reports.fileno())
            child.ends = ours.pop_all()
        self._listen(reports.fileno(), lambda: self._take_report(child, reports))
        output = child.process.stdout
        assert output is not None
        os.set_blocking(output.fileno(), False)
        self._listen(output.fileno(), lambda: self._read(child))

    def _environment(self, program: Program, lifeline: int, reporting: int) -> dict[str, str]:
        env = {**os.environ, **program.env, PARENT_FD: str(lifeline)}
        for name in ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            env.pop(name, None)
        if program.reports:
            env |= {"NOTIFY_SOCKET": f"{INHERITED}{reporting}", "WATCHDOG_USEC": str(round(SILENT_S * 1e6))}
        if program.sockets:
            env |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(program.sockets)}
        return env

    def _put_off(self, child: _Child, now: float) -> float:
        if now - child.started_s >= STAYED_UP_S:
            child.failures = 0
        pause = PAUSES_S[min(child.failures, len(PAUSES_S) - 1)]
        child.failures += 1
        child.due_s = now + pause
        return pause

    def _reap(self, now: float) -> None:
        for child in list(self._children):
            if child.process is None or child.process.poll() is None:
                continue
            code, output = child.process.returncode, child.process.stdout
            self._read(child)
            if output is not None and not output.closed:
                self._forget(output.fileno())
                output.close()
            child.ends.close()
            child.process = None
            asked, child.kill_s = child.kill_s < math.inf, math.inf
            if not child.wanted:
                self._children.remove(child)
            elif self._stop_s is None and not asked:
                self._came_down(child, code, now)

    def _came_down(self, child: _Child, code: int, now: float) -> None:
        """A child ended that nobody had asked to."""
        if code in FINAL_CODES and not self._settled:
            self._code = code
            self._stop()
            return
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        pause = self._put_off(child, now)
        self._screen.fault(f"{child.program.name} {how}; starting it again{f' in {pause:g} s' if pause else ''}")

    # ---- waiting ---------------------------------------------------------------------------------------------------------------------

    def _listen(self, fd: int, reader: Callable[[], None]) -> None:
        self._readers[fd] = reader
        self._poll.register(fd, select.POLLIN)

    def _forget(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _wait(self, timeout_s: float) -> None:
        """Wait for signals, lines, reports and questions, and handle them."""
        for fd, _ in self._poll.poll(math.ceil(timeout_s * 1000)):
            if fd in self._readers:
                self._readers[fd]()

    def _read(self, child: _Child) -> None:
        """Print the lines that the child has written. At most 64 kB a turn: others have their turn too."""
        output = child.process.stdout if child.process is not None else None
        if output is None or output.closed:
            return
        try:
            data = os.read(output.fileno(), 1 << 16)
        except BlockingIOError:
            return
        *lines, rest = (child.unfinished + data).split(b"\n")
        child.unfinished = rest[-LINE_BYTES:]
        if not data:
            self._forget(output.fileno())
            output.close()
            lines, child.unfinished = ([rest] if rest else []), b""
        for line in lines:
            self._screen.passed_on(line.decode("utf-8", "replace"), child.program.name, counted=child.failures > 1)


def _drained(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 4096)


def python(*words: str) -> tuple[str, ...]:
    """Command line of a Python module under the running interpreter, isolated: neither the working directory nor PYTHON* variables add
    modules (``python -I``). The user's own site directory counts only when this program itself is installed there."""
    installed = str(Path(__file__).resolve())
    ours = site.ENABLE_USER_SITE and installed.startswith(os.path.realpath(site.getusersitepackages()) + os.sep)
    return (sys.executable, "-EP" if ours else "-I", "-m", *words)
