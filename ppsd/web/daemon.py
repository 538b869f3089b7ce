"""What the clock and the serve process said last: asked on their control sockets, at most once a second each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ppsd.faces.prometheus import Reports
from ppsd.process.control import Asked, ask
from ppsd.snapshot import ServerReport, Snapshot

KEPT_S: Final = 0.9
"""s for which a report is told again: its rates are those of a second."""
COUNTED_S: Final = 60.0
"""s between two counts of the server's clients: it looks through its whole table for that."""


class Daemon:
    """The daemon in ``run_dir``. ``clock``: the clock process's snapshot; ``server``: the serve process's report, None too when none is
    configured."""

    def __init__(self, run_dir: Path) -> None:
        self.clock = Asked(run_dir / "clock.sock", "snapshot", Snapshot.from_json, KEPT_S)
        self.server = Asked(run_dir / "serve.sock", "snapshot", ServerReport.from_json, KEPT_S)
        self._serve_socket = run_dir / "serve.sock"
        self._clients: int | None = None
        self._count_s = 0.0

    def reports(self, deviations: Mapping[int, float]) -> Reports:
        """Everything that metrics are made from."""
        return Reports(self.clock.last(), self.server.last(), self._clients, deviations)

    def count(self) -> None:
        """Count the server's clients anew when it is time."""
        if time.monotonic() < self._count_s:
            return
        self._count_s = time.monotonic() + COUNTED_S
        try:
            known = ask(self._serve_socket, "clients 0").get("known") if self.server.last() is not None else None
        except OSError:
            known = None
        self._clients = known if isinstance(known, int) else None
