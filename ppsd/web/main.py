"""The web process: metrics over HTTP and the history, made from what the clock and the serve process say on their control sockets.

Flow: ``clock.sock``, ``serve.sock`` -> ``ppsd.web.daemon`` -> ``ppsd.faces.prometheus`` -> HTTP (``ppsd.web.http``); and once a second
-> ``ppsd.history.recorder``, which ``refclock history`` asks on ``web.sock``. It has no part in serving time: when it fails, nothing but
the view is lost. How it lives: ``ppsd.process.service``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ppsd.config.tables import Config
from ppsd.faces.prometheus import OPENMETRICS, TEXT, compatible, native, page, wants_openmetrics
from ppsd.history.recorder import Recorder
from ppsd.history.store import LATEST, TABLES, Damaged
from ppsd.process.service import Role, Surroundings, run
from ppsd.web.daemon import Daemon
from ppsd.web.http import HttpServer, Request, Response
from refclock.kernel.sandbox import give

SERVER_S: Final = 10.0
"""s between two counts of requests for the history."""
STABILITY_S: Final = 60.0
"""s between two computations of Allan deviations: they take some 10 ms."""
MOST_SPANS: Final = 300
"""Spans in one answer: with eight sources each, 0.6 MB of the 1 MB that an answer may have (``ppsd.process.control``)."""
ROLE: Final = Role(
    name="web",
    words="the web process",
    keys=("metrics.", "history.", "log."),
    place=lambda state, to: give(state, "history", 0o750, to),
)
METRICS: Final = "/metrics"
GREETING: Final = f"refclock. {METRICS}: for Prometheus; {METRICS}?compat=chrony: under the names of chrony_exporter.\n"
COMPATIBLE: Final = "chrony"
"""The value of ``compat`` for the names of chrony_exporter."""


class Web:
    """What the process does (``ppsd.process.service.Work``)."""

    verbs = ("snapshot", "history")
    wanted = True

    def __init__(self, config: Config, around: Surroundings) -> None:
        self._config, self._around = config, around
        self._daemon = Daemon(around.run_dir)
        self._recorder: Recorder | None = None
        self._deviations: Mapping[int, float] = {}
        self._count_s = self._compute_s = 0.0
        self._trouble = ""
        self.doors = HttpServer(self._respond, around.log)
        self.doors.listen(config.metrics.listen)

    @property
    def status(self) -> str:
        """For systemd's status line."""
        return "metrics on " + (", ".join(self.doors.served) or "no address")

    def begin(self) -> None:
        """Keep a history from now on: its file is that of the user that this process has become."""
        kept = self._config.history
        self._recorder = Recorder(self._around.place, kept.size_mib << 20) if kept.enabled else None

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

    def answer(self, line: str) -> str | None:
        """The reply to a question; None: it is not known."""
        if line.startswith("history "):
            return self._told(line)
        if line == "snapshot":
            unserved = [one.address for one in self.doors.unserved]
            return json.dumps({"pid": os.getpid(), "metrics": self.doors.served, "unserved": unserved})
        return None

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

    def judge(self, config: Config) -> None:
        """Nothing that ``config`` asks of this process can fail."""

    def take_up(self, config: Config) -> None:
        """Put it in force."""
        before, self._config = self._config, config
        if before.history != config.history:
            self.close()
            self.begin()
        self.doors.listen(config.metrics.listen)

    def look(self, now_s: float) -> None:
        """Count clients, and remember this second."""
        self._daemon.count()
        self._record(now_s)

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
            self._around.log.warning("history", problem=self._trouble or "it is kept again")

    def close(self) -> None:
        """Write what was measured."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None


def main(config: Config, run_dir: Path, simulated: bool, duration_s: float | None) -> int:
    """Answer until a signal, or for ``duration_s``. Returns 0. OSError: see ``ppsd.process.service.run``.

    ``simulated`` has no effect: the clock process says so itself.
    """
    del simulated
    return run(ROLE, config, run_dir, duration_s, Web)
