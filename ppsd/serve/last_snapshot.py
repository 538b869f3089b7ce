"""What the clock process said last, for those who ask this process about it: chronyc and ntpq.

The clock process is asked over its control socket. That may take ``PATIENCE_S``, at most once in ``KEPT_S`` or, after a failure, in
``SULKED_S``. Only this process's poll loop waits then: NTP is served by threads that have nothing to do with it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from ppsd.process.control import ask
from ppsd.snapshot import Snapshot

PATIENCE_S: Final = 1.0
"""s to wait for the clock process, which is well when it answers within milliseconds."""
KEPT_S: Final = 0.2
"""s for which a snapshot is told to everybody: chronyc and ntpq ask once for each source."""
SULKED_S: Final = 2.0
"""s without asking a clock process that did not answer."""


class LastSnapshot:
    """The clock process's snapshot, at most ``KEPT_S`` old."""

    def __init__(self, clock_socket: Path) -> None:
        self._clock_socket = clock_socket
        self._last: Snapshot | None = None
        self._ask_s = 0.0

    def read(self) -> Snapshot | None:
        """The snapshot; None while the clock process does not answer."""
        if time.monotonic() >= self._ask_s:
            try:
                self._last = Snapshot.from_json(ask(self._clock_socket, "snapshot", PATIENCE_S))
            except (OSError, ValueError):
                self._last = None
            self._ask_s = time.monotonic() + (SULKED_S if self._last is None else KEPT_S)
        return self._last
