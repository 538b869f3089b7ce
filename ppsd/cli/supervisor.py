"""The foreground supervisor: keeps a few processes alive, and ends them together.

On the appliance systemd does this. ``refclock run`` does it on a laptop, in a container or in a simulation. It is one loop without threads.
It waits in select for the wake-up pipe of signals (signal.set_wakeup_fd) and for its children's output.

A child that ends is started again: at once the first time, then after growing pauses (``PAUSES_S``). So a crash costs less than two seconds
of service, and a crash loop hardly any CPU. The exit codes for a wrong command line, a missing permission and a wrong configuration
(``FINAL_CODES``) end the whole run. Each child holds the reading end of a pipe whose writing end closes with the supervisor
(``die_with_parent``), so children end even when the supervisor is killed by SIGKILL.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import site
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TextIO

from ppsd.process.exit_codes import BAD_CONFIG, NO_PERMISSION, USAGE
from ppsd.process.lifecycle import PARENT_FD

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

_COLOURS = {"LOCKED": "32", "HOLDOVER": "33", "ACQUIRING": "36", "NO TIME": "31"}  # SGR codes of ECMA-48


@dataclass(frozen=True, slots=True)
class Program:
    """A child to keep alive. ``awaits``: start it only once this path exists (made by another child)."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    awaits: Path | None = None


@dataclass(slots=True)
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    lifeline: int = -1
    started_s: float = 0.0
    failures: int = 0
    due_s: float = 0.0


class Screen:
    """Prints lines and a status line. On a terminal the status line is rewritten in place; elsewhere it is printed when it changes."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.live = out.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._colour = self.live and "NO_COLOR" not in os.environ
        self._key = ""
        self._shown_s = 0.0
        self._text = ""

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.out.write(("\r\x1b[K" if self.live else "") + text + "\n" + self._text)
        self.out.flush()

    def status(self, key: str, text: str) -> None:
        """Show the status ``text``. Without a terminal it is printed when ``key`` changes."""
        if self.live:
            cut = text[: max(10, shutil.get_terminal_size().columns - 1)]
            for word, code in _COLOURS.items():
                if self._colour and word in cut:
                    cut = cut.replace(word, f"\x1b[1;{code}m{word}\x1b[0m", 1)
                    break
            self._text = cut
            self.out.write(f"\r\x1b[K{cut}")
            self.out.flush()
        elif key != self._key or time.monotonic() - self._shown_s >= REPEAT_S:
            self._key, self._shown_s = key, time.monotonic()
            self.line(text)

    def end(self) -> None:
        """Keep the status line and continue below it."""
        if self.live and self._text:
            self._text = ""
            self.out.write("\n")
            self.out.flush()


class Supervisor:
    """Runs ``programs`` until told to stop; see the module. ``run`` takes over the signals of the process.

    ``report``: (key, text) of the status line. ``reload``: called on SIGHUP; True when the children shall get the signal too.
    """

    def __init__(
        self,
        programs: list[Program],
        screen: Screen,
        *,
        report: Callable[[], tuple[str, str]],
        reload: Callable[[], bool] = lambda: True,
    ) -> None:
        self._children = [_Child(program) for program in programs]
        self._screen = screen
        self._report, self._reload = report, reload
        self._logs: dict[int, bytes] = {}
        self._stop_s: float | None = None
        self._hung_up = False
        self._code = 0

    def run(self, duration_s: float | None = None) -> int:
        """Run until SIGINT, SIGTERM or the duration's end (returns 0), or until a child's final exit code. Ends all children."""
        wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = {s: signal.signal(s, self._signalled) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)}
        before_fd = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        end_s = None if duration_s is None else time.monotonic() + duration_s
        try:
            self._loop(wake, end_s)
        finally:
            for child in self._children:
                if child.process is not None:
                    child.process.kill()
                    child.process.wait()
            signal.set_wakeup_fd(before_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(wake)
            os.close(wake_write)
            self._screen.end()
        return self._code

    def _loop(self, wake: int, end_s: float | None) -> None:
        tick_s = time.monotonic()
        while True:
            now = time.monotonic()
            if end_s is not None and now >= end_s and self._stop_s is None:
                self._stop()
            self._reap(now)
            if self._hung_up:
                self._hung_up = False
                if self._stop_s is None and self._reload():
                    self._send_all(signal.SIGHUP)
            if self._stop_s is None:
                self._start_due(now)
                if now >= tick_s:
                    tick_s = now + 1.0
                    self._screen.status(*self._report())
            elif all(child.process is None for child in self._children):
                self._drain(0.0)
                return
            elif now >= self._stop_s + KILL_AFTER_S:
                self._send_all(signal.SIGKILL)
            self._drain(self._pause_s(tick_s, end_s), wake)

    def _pause_s(self, tick_s: float, end_s: float | None) -> float:
        """s until the next deadline. A path that a program awaits is tested every 20 ms."""
        now = time.monotonic()
        if self._stop_s is not None:
            return max(0.01, min(0.1, self._stop_s + KILL_AFTER_S - now))
        times = [tick_s, *([end_s] if end_s is not None else [])]
        times += [child.due_s if child.due_s > now else now + 0.02 for child in self._children if child.process is None]
        return max(0.0, min(times) - now)

    def _signalled(self, number: int, _: FrameType | None) -> None:
        """Signal handler. It runs inside a wait too, so the children get SIGTERM at once."""
        if number in (signal.SIGINT, signal.SIGTERM) or (number == signal.SIGHUP and self._screen.live):
            self._stop()
        elif number == signal.SIGHUP:
            self._hung_up = True

    def _stop(self) -> None:
        """First call: send SIGTERM to all; second call: kill at once."""
        self._stop_s = time.monotonic() if self._stop_s is None else self._stop_s - KILL_AFTER_S
        self._send_all(signal.SIGTERM)

    def _send_all(self, number: int) -> None:
        for child in self._children:
            if child.process is not None:
                child.process.send_signal(number)

    def _start_due(self, now: float) -> None:
        for child in self._children:
            awaits = child.program.awaits
            if child.process is None and now >= child.due_s and (awaits is None or awaits.exists()):
                self._start(child, now)

    def _start(self, child: _Child, now: float) -> None:
        """Start in a process group of its own, so that Ctrl-C reaches only the supervisor, and in /, where nobody else has left a file."""
        theirs, child.lifeline = os.pipe2(os.O_CLOEXEC)
        env = {**os.environ, **child.program.env, PARENT_FD: str(theirs)}
        env.pop("NOTIFY_SOCKET", None)
        try:
            child.process = subprocess.Popen(
                child.program.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._screen.live else None,
                stderr=subprocess.STDOUT if self._screen.live else None,
                env=env,
                cwd="/",
                pass_fds=(theirs,),
                process_group=0,
            )
        except OSError as error:
            os.close(child.lifeline)
            self._screen.line(f"{child.program.name}: cannot be started: {error.strerror}")
            self._put_off(child, now)
        finally:
            os.close(theirs)
        child.started_s = now
        if child.process is not None and child.process.stdout is not None:
            os.set_blocking(child.process.stdout.fileno(), False)
            self._logs[child.process.stdout.fileno()] = b""

    def _put_off(self, child: _Child, now: float) -> float:
        if now - child.started_s >= STAYED_UP_S:
            child.failures = 0
        pause = PAUSES_S[min(child.failures, len(PAUSES_S) - 1)]
        child.failures += 1
        child.due_s = now + pause
        return pause

    def _reap(self, now: float) -> None:
        for child in self._children:
            if child.process is None or child.process.poll() is None:
                continue
            code = child.process.returncode
            if child.process.stdout is not None:
                fd = child.process.stdout.fileno()
                if fd in self._logs:
                    self._read(fd)
                    self._logs.pop(fd, None)
                child.process.stdout.close()
            os.close(child.lifeline)
            child.process = None
            if self._stop_s is not None:
                continue
            if code in FINAL_CODES:
                self._code = code
                self._stop()
                continue
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            pause = self._put_off(child, now)
            self._screen.line(f"{child.program.name} {how}; starting it again{f' in {pause:g} s' if pause else ''}")

    def _drain(self, timeout_s: float, wake: int | None = None) -> None:
        """Wait for a signal or for children's log lines, and print the lines."""
        ready, _, _ = select.select([*self._logs, *([] if wake is None else [wake])], [], [], timeout_s)
        for fd in ready:
            if fd == wake:
                os.read(fd, 512)
            else:
                self._read(fd)

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        *lines, rest = (self._logs[fd] + data).split(b"\n")
        self._logs[fd] = rest[-8192:]
        for line in lines:
            self._screen.line(line.decode("utf-8", "replace"))
        if not data:
            del self._logs[fd]


def python(*words: str) -> tuple[str, ...]:
    """Command line of a Python module under the running interpreter, isolated: neither the working directory nor PYTHON* variables add
    modules (``python -I``). The user's own site directory counts only when this program itself is installed there."""
    installed = str(Path(__file__).resolve())
    ours = site.ENABLE_USER_SITE and installed.startswith(os.path.realpath(site.getusersitepackages()) + os.sep)
    return (sys.executable, "-EP" if ours else "-I", "-m", *words)
