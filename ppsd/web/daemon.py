"""What the clock and the serve process said last: asked on their control sockets, at most once a second each.

A process that is well answers within milliseconds. One that does not is waited for ``PATIENCE_S``, and then left alone for ``SULKED_S``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ppsd.faces.prometheus import Reports
from ppsd.process.control import ask
from ppsd.snapshot import ServerReport, Snapshot

PATIENCE_S: Final = 1.0
"""s to wait for an answer."""
KEPT_S: Final = 0.9
"""s for which a report is told again: its rates are those of a second."""
SULKED_S: Final = 2.0
"""s without asking a process that did not answer."""
COUNTED_S: Final = 60.0
"""s between two counts of the server's clients: it looks through its whole table for that."""


class Daemon:
    """The daemon in ``run_dir``."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._clock: Snapshot | None = None
        self._server: ServerReport | None = None
        self._clients: int | None = None
        self._ask_clock_s = self._ask_server_s = self._count_s = 0.0

    def clock(self, now: bool = False) -> Snapshot | None:
        """The clock process's snapshot; None while it does not answer. ``now``: that of this moment."""
        if (now and self._clock is not None) or time.monotonic() >= self._ask_clock_s:
            try:
                self._clock = Snapshot.from_json(ask(self._run_dir / "clock.sock", "snapshot", PATIENCE_S))
            except (OSError, ValueError):
                self._clock = None
            self._ask_clock_s = time.monotonic() + (SULKED_S if self._clock is None else KEPT_S)
        return self._clock

    def server(self) -> ServerReport | None:
        """The serve process's report; None while it does not answer, or none is configured."""
        if time.monotonic() >= self._ask_server_s:
            try:
                self._server = ServerReport.from_json(ask(self._run_dir / "serve.sock", "snapshot", PATIENCE_S))
            except (OSError, ValueError):
                self._server = None
            self._ask_server_s = time.monotonic() + (SULKED_S if self._server is None else KEPT_S)
        return self._server

    def reports(self, deviations: Mapping[int, float]) -> Reports:
        """Everything that metrics are made from."""
        return Reports(self.clock(), self.server(), self._clients, deviations)

    def count(self) -> None:
        """Count the server's clients anew when it is time."""
        if self._server is None or time.monotonic() < self._count_s:
            return
        self._count_s = time.monotonic() + COUNTED_S
        try:
            known = ask(self._run_dir / "serve.sock", "clients 0", PATIENCE_S).get("known")
        except OSError:
            known = None
        self._clients = known if isinstance(known, int) else None
