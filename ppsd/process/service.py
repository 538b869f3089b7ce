"""A process beside the clock process: what it gives up, its control socket, its reloads, and its one loop.

Flow: a client, a question on ``NAME.sock``, SIGHUP or the second -> **run** -> Work. The clock process has a loop of its own, for it waits
for pulses; so has the serve process, whose sockets systemd may hand over and whose threads are in C.

Such a process has no device and no privilege: started by root, it becomes ``run.user`` before the first client. SIGTERM, SIGINT: it ends
with exit code 0. SIGHUP: the configuration is read again; a bad one is refused and the old one stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ppsd.config.file import load
from ppsd.config.tables import Config, changed, without_waiting
from ppsd.process.control import JUDGE, TELL, ControlServer, Reloaded, Reloads, judgement
from ppsd.process.exit_codes import GOOD
from ppsd.process.lifecycle import FIRST_FD, Signals, handed_over, make_run_directory, notify, watchdog_s
from ppsd.process.log import Log, open_log
from refclock.errors import explain
from refclock.kernel.sandbox import SERVE, Account, Helper, account, confine, lend, refused, to_drop
from refclock.schema import ConfigError

LOOK_S: Final = 1.0
"""s between two looks at addresses, connections and files, and between two watchdog messages at most."""


@dataclass(frozen=True, slots=True)
class Role:
    """Which process it is. ``name``: of its socket and in its log; ``words``: what people call it. ``keys``: how the names of those keys
    begin that concern it (``ppsd.config.tables``). ``place`` makes its directory in ``run.state``, before rights are given up. ``reads``:
    the files that it opens besides the configuration, by what is configured."""

    name: str
    words: str
    keys: tuple[str, ...]
    place: Callable[[Path, Account], Path]
    reads: Callable[[Config], Collection[str]] = lambda _: ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the process works. ``fds``: sockets that were handed over. ``helper`` opens what only root may read."""

    log: Log
    run_dir: Path
    place: Path
    helper: Helper
    fds: tuple[int, ...]


class Doors(Protocol):
    """The sockets at which the process answers."""

    def fileno(self) -> int:
        """The descriptor to poll."""

    def handle_ready(self) -> None:
        """Serve whoever is ready; never waits."""

    def review(self) -> None:
        """Once a second: open what is not open yet, and end what has lasted too long."""

    def close(self) -> None:
        """Close all."""


class Work(Protocol):
    """What the process does. All is called by its loop, and nothing may wait."""

    @property
    def doors(self) -> Doors:
        """Where it answers."""

    @property
    def verbs(self) -> tuple[str, ...]:
        """The questions that ``answer`` knows."""

    @property
    def status(self) -> str:
        """For systemd's status line."""

    @property
    def wanted(self) -> bool:
        """Whether the process goes on."""

    def begin(self) -> None:
        """The process is confined: what is made from now on is its user's."""

    def judge(self, config: Config) -> None:
        """Try what ``config`` needs. ConfigError, OSError, ValueError: it cannot be used, and why."""

    def take_up(self, config: Config) -> None:
        """Put it in force."""

    def answer(self, line: str) -> str | None:
        """The reply to a question on the control socket; None: it is not known."""

    def look(self, now_s: float) -> None:
        """Once a second (time.monotonic)."""

    def close(self) -> None:
        """Write what is to be kept."""


class _Service:
    """One run of the process. OSError: its control socket cannot be made."""

    def __init__(self, role: Role, config: Config, around: Surroundings, work: Work) -> None:
        self._role, self._config, self._around, self._work = role, config, around, work
        self._reloads = Reloads()
        self._control = ControlServer(around.run_dir / f"{role.name}.sock", self._answer, group=config.run.group)

    def confine(self, to: Account, also: int) -> None:
        """Give up, before the first client, what this process does not need: root's user, all rights, system calls of others."""
        if to_drop(to):
            with contextlib.suppress(OSError):  # where files may not be given away, the next start replaces it
                os.chown(self._control.path, to.user, -1)
        for what in confine(SERVE, [], to, also):
            self._around.log.warning("not given up", what=what)

    def _answer(self, line: str) -> str:
        if line == JUDGE:
            return judgement(self._read()[1])
        if line == TELL:
            return self._reloads.answer()
        known = self._work.answer(line)
        if known is None:
            return json.dumps({"error": f"unknown verb {line[:32]!r}; known: {', '.join((*self._work.verbs, JUDGE, TELL))}"})
        return known

    def _read(self) -> tuple[Config, list[str]]:
        """The configuration as it is now on disk, and what stands against it."""
        try:
            found = load(Path(self._config.file) if self._config.file else None, self._around.helper.open)
            self._work.judge(found)
        except ConfigError as error:
            return self._config, [str(problem) for problem in error.problems]
        except OSError as error:
            return self._config, [explain(error)]
        except ValueError as error:
            return self._config, [str(error)]
        return found, []

    def _reload(self) -> None:
        """Put the configuration on disk in force, or keep the old one when that is bad."""
        found, problems = self._read()
        log, words = self._around.log, self._role.words
        if problems:
            for problem in problems:
                log.answer("error", "configuration refused, the old one stays", problem=problem)
            self._reloads.happened(Reloaded(False, (*problems, f"{words} keeps its configuration")))
            return
        found = without_waiting(self._config, found)
        names = [name for name in changed(self._config, found) if name.startswith(self._role.keys)]
        self._config = found
        log.speak(found.log.format, found.log.level)
        self._work.take_up(found)
        self._reloads.happened(Reloaded(True, (f"{words} has taken up: {', '.join(names)}" if names else f"{words}: nothing has changed",)))

    def run(self, signals: Signals, until_s: float | None) -> None:
        """Work until told to stop, until ``until_s`` (time.monotonic), or until it is no longer wanted."""
        work, poll = self._work, select.poll()
        for one in (work.doors, self._control, signals.wake):
            poll.register(one, select.POLLIN)
        work.begin()
        look_s, beat_s, told = time.monotonic(), watchdog_s(LOOK_S), ""
        while not signals.stop and work.wanted and (until_s is None or time.monotonic() < until_s):
            if work.status != told:
                told = work.status
                notify(f"READY=1\nSTATUS={told}")
            ready = {fd for fd, _ in poll.poll(max(0.0, min(beat_s, look_s - time.monotonic())) * 1000)}
            if work.doors.fileno() in ready:
                work.doors.handle_ready()
            if self._control.fileno() in ready:
                self._control.handle_ready()
            if signals.wake in ready:
                signals.drain()
            if signals.reload:
                signals.reload = False
                self._reload()
            if (now_s := time.monotonic()) >= look_s:
                look_s = max(look_s, now_s - LOOK_S) + LOOK_S
                self._look(now_s)
            notify("WATCHDOG=1")

    def _look(self, now_s: float) -> None:
        """Look after what others may take away or bring."""
        try:
            self._around.helper.enter()
        except BrokenPipeError:  # it would never find the others again; started anew, it is root for a while
            raise
        except OSError:  # the next look tries again
            pass
        log = self._around.log
        if self._control.renew():
            log.warning("the control socket was removed by somebody and is made anew", path=str(self._control.path))
        self._work.doors.review()
        self._work.look(now_s)
        log.settle()
        for call in refused():
            log.error("system call refused: this process does not make it", call=call)

    def close(self) -> None:
        """Close the sockets."""
        self._work.close()
        self._work.doors.close()
        self._control.close()


def run(role: Role, config: Config, run_dir: Path, duration_s: float | None, begin: Callable[[Config, Surroundings], Work]) -> int:
    """Do the work that ``begin`` makes, until a signal, for ``duration_s``, or until it is no longer wanted. Returns 0. OSError: the
    run directory or the control socket cannot be made."""
    until_s = None if duration_s is None else time.monotonic() + duration_s
    signals = Signals()
    make_run_directory(run_dir, user=config.run.user)
    to = account(config.run.user, config.run.group)
    helper = Helper(to, run_dir, lambda: _readable(role, config.file))
    fds = tuple(FIRST_FD + number for number in range(handed_over()))
    place = role.place(Path(config.run.state), to)  # a failure there shows when it is used
    run_dir, group = lend(run_dir, to)
    around = Surroundings(open_log(config.log.format, config.log.level, role.name), run_dir, place, helper, fds)
    service = _Service(role, config, around, begin(config, around))
    service.confine(to, group)
    try:
        service.run(signals, until_s)
    finally:
        notify("STOPPING=1")
        service.close()
    return GOOD


def _readable(role: Role, file: str) -> set[str]:
    """The files that are read again: the configuration ``file``, and those that it names."""
    try:
        named = role.reads(load(Path(file))) if file else ()
    except ConfigError:
        named = ()
    return {file, *named, *map(os.path.realpath, named)}
