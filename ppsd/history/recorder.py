"""Keeps the history of a running daemon: the last hour by the second in memory; minutes and hours are written now and then.

What is not written yet is lost in a power cut: at most ``WRITE_S``. A disk that fails costs the history alone; it is tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ppsd.history.spans import Span, merged, second, series_s
from ppsd.history.stability import deviations
from ppsd.history.store import MINUTE_S, Damaged, Store, set_aside
from ppsd.snapshot import Snapshot
from refclock.errors import explain

SECONDS_KEPT: Final = 3600
"""Seconds in memory: about 3 MB with two sources."""
WRITE_S: Final = 600
"""s between two writes. An SD card writes a page of 4 kB at least, however little there is to write."""
PENDING: Final = 1440
"""Minutes that wait in memory for a disk that fails."""


class Recorder:
    """The history in ``directory``; None: nothing is kept on disk. ``trouble``: why nothing is kept now, "" while all is well."""

    def __init__(self, directory: Path | None, most_bytes: int) -> None:
        self._directory, self._most_bytes = directory, most_bytes
        self._store: Store | None = None
        self._ring: deque[Span] = deque(maxlen=SECONDS_KEPT)
        self._minute: list[Span] = []
        self._pending: deque[Span] = deque(maxlen=PENDING)
        self._counted: tuple[int, int] | None = None
        self._written_at = 0
        self.trouble = ""
        self._open()

    def _open(self) -> None:
        if self._directory is None:
            return
        try:
            try:
                self._store = Store(self._directory, self._most_bytes)
            except Damaged as damage:
                self.trouble = f"the history was damaged ({damage}) and begins anew; the old file is {set_aside(self._directory)}"
                self._store = Store(self._directory, self._most_bytes)
        except OSError as error:
            self.trouble = f"no history is kept on disk: {explain(error)}; let this user write there, or set run.state"
        except Damaged as damage:
            self.trouble = f"no history is kept on disk: a new file is damaged at once ({damage}); check the card"

    def take(self, clock: Snapshot, packets: Mapping[str, Mapping[str, int]] | None) -> None:
        """Remember a second. ``packets``: the server's counters; None: they were not asked for."""
        requests, drops = self._since(packets)
        now = second(clock, requests, drops)
        if self._minute and now.at // MINUTE_S != self._minute[-1].at // MINUTE_S:
            self._pending.append(merged(self._minute[0].at // MINUTE_S * MINUTE_S, self._minute))
            self._minute = []
            if not 0 <= now.at - self._written_at < WRITE_S:
                self.write(now.at)
        self._ring.append(now)
        self._minute.append(now)

    def _since(self, packets: Mapping[str, Mapping[str, int]] | None) -> tuple[int | None, int | None]:
        """Requests and drops since the last count. A server that was started anew counts from zero."""
        if packets is None:
            return None, None
        drops = sum(packets.get("drop", {}).values())
        requests = drops + sum(sum(packets.get(action, {}).values()) for action in ("reply", "kod"))
        before, self._counted = self._counted, (requests, drops)
        if before is None:
            return 0, 0
        return (requests - before[0], drops - before[1]) if requests >= before[0] else (requests, drops)

    def write(self, now: int) -> None:
        """Write the minutes that wait; nothing while they cannot be written."""
        self._written_at = now
        if self._store is None:
            self._open()
        if self._store is None:
            return
        try:
            self._store.add(list(self._pending))
        except OSError as error:
            self.trouble = f"the history waits in memory: {explain(error)}"
        except Damaged as damage:
            self._store.close()
            self._store, self.trouble = None, f"the history is damaged: {damage}"
        else:
            self._pending.clear()
            self.trouble = ""

    def read(self, step_s: int, since: int, until: int, most: int) -> Iterator[Span]:
        """At most ``most`` spans of 1, 60 or 3600 s that begin in [since, until), the earliest first."""
        if step_s == 1:
            found = [span for span in self._ring if since <= span.at < until]
            yield from sorted(found, key=lambda span: span.at)[:most]  # a clock may have been set back
            return
        count = 0
        if self._store is not None:
            for span in self._store.read(step_s, since, until, most):
                yield span
                count += 1
        if step_s == MINUTE_S:
            yield from [span for span in self._pending if since <= span.at < until][: most - count]

    def deviations(self) -> Mapping[int, float]:
        """Allan deviations of the last hour's offsets, by averaging time in s."""
        return {round(tau_s): value for tau_s, value in deviations(series_s(self._ring, 1), 1.0)}

    def close(self) -> None:
        """Write what there is, the minute that has begun as well."""
        if self._minute:
            self._pending.append(merged(self._minute[0].at // MINUTE_S * MINUTE_S, self._minute))
            self._minute = []
        self.write(self._written_at)
        if self._store is not None:
            self._store.close()
            self._store = None
