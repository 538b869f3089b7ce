"""The web process: metrics over HTTP and the history, made from what the clock and the serve process say on their control sockets.

Flow: ``clock.sock``, ``serve.sock`` -> ``ppsd.web.daemon`` -> ``ppsd.faces.prometheus`` -> HTTP (``ppsd.web.http``); and once a second
-> ``ppsd.history.recorder``, which ``refclock history`` asks on ``web.sock``. It has no device, no
privilege and no part in serving time: when it fails, nothing but the view is lost. Started by root, it becomes ``run.user`` before the
first request.

SIGTERM, SIGINT: the process ends with exit code 0. SIGHUP: the configuration is read again; a bad one is refused and the old one stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ppsd.config.file import load
from ppsd.config.tables import Config, changed, without_waiting
from ppsd.faces.prometheus import OPENMETRICS, TEXT, compatible, native, page, wants_openmetrics
from ppsd.history.recorder import Recorder
from ppsd.history.store import LATEST, TABLES, Damaged
from ppsd.process.control import JUDGE, TELL, ControlServer, Reloaded, Reloads, judgement
from ppsd.process.exit_codes import GOOD
from ppsd.process.lifecycle import Signals, make_run_directory, notify, watchdog_s
from ppsd.process.log import open_log
from ppsd.web.daemon import Daemon
from ppsd.web.http import HttpServer, Request, Response
from refclock.errors import explain
from refclock.kernel.sandbox import SERVE, Account, Helper, account, confine, give, lend, refused, to_drop
from refclock.schema import ConfigError

OWN_KEYS: Final = ("metrics.", "history.", "log.")
"""How the names of the keys begin that concern this process (``ppsd.config.tables``)."""
LOOK_S: Final = 1.0
"""s between two looks at addresses, connections and files."""
SERVER_S: Final = 10.0
"""s between two counts of requests for the history."""
STABILITY_S: Final = 60.0
"""s between two computations of Allan deviations: they take some 10 ms."""
MOST_SPANS: Final = 300
"""Spans in one answer: with eight sources each, 0.6 MB of the 1 MB that an answer may have (``ppsd.process.control``)."""
HISTORY: Final = "history"
"""The directory in ``run.state``."""
METRICS: Final = "/metrics"
GREETING: Final = f"refclock. {METRICS}: for Prometheus; {METRICS}?compat=chrony: under the names of chrony_exporter.\n"
COMPATIBLE: Final = "chrony"
"""The value of ``compat`` for the names of chrony_exporter."""


class Web:
    """One run of the process. OSError: its control socket cannot be made."""

    def __init__(self, config: Config, run_dir: Path, helper: Helper, place: Path) -> None:
        self.config, self._helper, self._reloads = config, helper, Reloads()
        self.log = open_log(config.log.format, config.log.level, "web")
        self._control = ControlServer(run_dir / "web.sock", self._answer, group=config.run.group)
        self._daemon = Daemon(run_dir)
        self._place = place
        self._recorder: Recorder | None = None
        self._deviations: Mapping[int, float] = {}
        self._count_s = self._compute_s = 0.0
        self._trouble = ""
        self._http = HttpServer(self._respond, self.log)
        self._http.listen(config.metrics.listen)

    def _recorded(self) -> Recorder | None:
        return Recorder(self._place, self.config.history.size_mib << 20) if self.config.history.enabled else None

    def confine(self, to: Account, also: int) -> None:
        """Give up, before the first request, what this process does not need: root's user, all rights, system calls of others."""
        if to_drop(to):
            with contextlib.suppress(OSError):  # where files may not be given away, the next start replaces it
                os.chown(self._control.path, to.user, -1)
        for what in confine(SERVE, [], to, also):
            self.log.warning("not given up", what=what)

    def _respond(self, request: Request) -> Response:
        if request.path == "/":
            return Response(GREETING)
        if request.path != METRICS:
            return Response(f"there is only {METRICS} here\n", status=404)
        compat = request.query.get("compat", "")
        if compat not in ("", COMPATIBLE):
            return Response(f"compat={compat!r} is not known; {METRICS}?compat={COMPATIBLE} is\n", status=400)
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        families = (compatible if compat else native)(self._daemon.reports(self._deviations))
        return Response(page(families, openmetrics), OPENMETRICS if openmetrics else TEXT)

    def _answer(self, line: str) -> str:
        if line == JUDGE:
            return judgement(self._read()[1])
        if line == TELL:
            return self._reloads.answer()
        if line.startswith("history "):
            return self._told(line)
        if line == "snapshot":
            unserved = [one.address for one in self._http.unserved]
            return json.dumps({"pid": os.getpid(), "metrics": self._http.served, "unserved": unserved})
        return json.dumps({"error": f"unknown verb {line[:32]!r}; known: snapshot, history, {JUDGE}, {TELL}"})

    def _told(self, line: str) -> str:
        """The reply to "history STEP SINCE MOST": spans of STEP seconds, the earliest first."""
        try:
            step_s, since, most = (int(word) for word in line.split()[1:])
        except ValueError:
            return json.dumps({"error": "history needs three whole numbers: the length of a span, since when, how many"})
        if self._recorder is None:
            return json.dumps({"error": "no history is kept: history.enabled is false"})
        if step_s not in (1, *TABLES):
            return json.dumps({"error": f"there are no spans of {step_s} s"})
        try:
            found = list(self._recorder.read(step_s, max(0, min(since, LATEST)), LATEST, max(0, min(most, MOST_SPANS))))
        except (OSError, Damaged) as error:
            return json.dumps({"error": f"the history cannot be read: {error}"})
        return json.dumps({"spans": [(span.row(), [source.row() for source in span.sources]) for span in found]})

    def _read(self) -> tuple[Config, list[str]]:
        """The configuration as it is now on disk, and what stands against it."""
        try:
            return load(Path(self.config.file) if self.config.file else None, self._helper.open), []
        except ConfigError as error:
            return self.config, [str(problem) for problem in error.problems]
        except OSError as error:
            return self.config, [explain(error)]

    def reload(self) -> None:
        """Put the configuration on disk in force, or keep the old one when that is bad."""
        found, problems = self._read()
        if problems:
            for problem in problems:
                self.log.answer("error", "configuration refused, the old one stays", problem=problem)
            self._reloads.happened(Reloaded(False, (*problems, "the web process keeps its configuration")))
            return
        found = without_waiting(self.config, found)
        names = [name for name in changed(self.config, found) if name.startswith(OWN_KEYS)]
        before, self.config = self.config, found
        if before.history != found.history:
            if self._recorder is not None:
                self._recorder.close()
            self._recorder = self._recorded()
        self.log.speak(found.log.format, found.log.level)
        self._http.listen(found.metrics.listen)
        told = f"the web process has taken up: {', '.join(names)}" if names else "the web process: nothing has changed"
        self._reloads.happened(Reloaded(True, (told,)))

    def run(self, signals: Signals, until_s: float | None) -> None:
        """Answer until told to stop, or until ``until_s`` (time.monotonic)."""
        poll = select.poll()
        for one in (self._http, self._control, signals.wake):
            poll.register(one, select.POLLIN)
        self._recorder = self._recorded()  # not before: the file is that of the user that this process has become
        look_s, pause_s = time.monotonic(), watchdog_s(LOOK_S)
        notify("READY=1\nSTATUS=metrics on " + (", ".join(self._http.served) or "no address"))
        while not signals.stop and (until_s is None or time.monotonic() < until_s):
            ready = {fd for fd, _ in poll.poll(max(0.0, min(pause_s, look_s - time.monotonic())) * 1000)}
            if self._http.fileno() in ready:
                self._http.handle_ready()
            if self._control.fileno() in ready:
                self._control.handle_ready()
            if signals.wake in ready:
                signals.drain()
            if signals.reload:
                signals.reload = False
                self.reload()
            if (now_s := time.monotonic()) >= look_s:
                look_s = max(look_s, now_s - LOOK_S) + LOOK_S
                self._look()
            notify("WATCHDOG=1")

    def _look(self) -> None:
        """Look after what others may take away or bring."""
        try:
            self._helper.enter()
        except BrokenPipeError:  # it would never find the others again; started anew, it is root for a while
            raise
        except OSError:  # the next look tries again
            pass
        if self._control.renew():
            self.log.warning("the control socket was removed by somebody and is made anew", path=str(self._control.path))
        self._http.review()
        self._daemon.count()
        self._record(time.monotonic())
        self.log.settle()
        for call in refused():
            self.log.error("system call refused: this process does not make it", call=call)

    def _record(self, now_s: float) -> None:
        """Remember this second."""
        if self._recorder is None:
            return
        clock, packets = self._daemon.clock.last(now=True), None
        if now_s >= self._count_s:
            self._count_s = now_s + SERVER_S
            server = self._daemon.server.last()
            packets = None if server is None else server.counters
        if clock is not None:
            self._recorder.take(clock, packets)
        if now_s >= self._compute_s:
            self._compute_s = now_s + STABILITY_S
            self._deviations = self._recorder.deviations()
        if self._recorder.trouble != self._trouble:
            self._trouble = self._recorder.trouble
            self.log.warning("history", problem=self._trouble or "it is kept again")

    def close(self) -> None:
        """Write what was measured, and close the sockets."""
        if self._recorder is not None:
            self._recorder.close()
        self._http.close()
        self._control.close()


def main(config: Config, run_dir: Path, simulated: bool, duration_s: float | None) -> int:
    """Answer until a signal, or for ``duration_s``. Returns 0. OSError: see Web.

    ``simulated`` has no effect: the clock process says so itself.
    """
    del simulated
    until_s = None if duration_s is None else time.monotonic() + duration_s
    signals = Signals()
    make_run_directory(run_dir, user=config.run.user)
    to = account(config.run.user, config.run.group)
    helper = Helper(to, run_dir, lambda: {config.file})
    place = give(Path(config.run.state), HISTORY, 0o750, to)  # a failure there is none of the metrics'
    run_dir, group = lend(run_dir, to)
    web = Web(config, run_dir, helper, place)
    web.confine(to, group)
    try:
        web.run(signals, until_s)
    finally:
        notify("STOPPING=1")
        web.close()
    return GOOD
