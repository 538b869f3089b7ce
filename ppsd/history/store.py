"""The history on disk: minutes and hours in an SQLite file. The only importer of sqlite3.

The file is in WAL mode: a power cut leaves it whole, with all that was written before. Writes are few and small, for SD cards: what came
together is appended to the log at once, and SQLite takes it over into the file about once a day. Its size is bounded: minutes are kept for
``MINUTES_KEPT_S`` and hours for ``HOURS_KEPT_S``, and the oldest minutes go earlier when the file is full.

The tables can be read with sqlite3(1): ``minute`` and ``hour`` have a row for each span of the clock, ``minute_source`` and ``hour_source``
one for each source in it. Columns are named as in ``ppsd.history.spans``; ``at`` is UTC in s since 1970.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from ppsd.history.spans import COLUMNS, SOURCE_COLUMNS, Span, merged

FILE_NAME: Final = "history.db"
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
MINUTES_KEPT_S: Final = 60 * DAY_S
HOURS_KEPT_S: Final = 3653 * DAY_S
"""s: two months by the minute and ten years by the hour, which is what people look back for."""
PAGE_BYTES: Final = 4096
"""Octets of a page of the file: of a file system's block, and of what an SD card writes at least."""
AT_ONCE: Final = 60
"""Minutes in one transaction: with eight sources each, 50 kB, which is less than what is kept free of the smallest file."""
SPARE: Final = 0.9
"""Share of the largest size at which old minutes are given up."""
AHEAD_S: Final = DAY_S
"""s; what lies further ahead of the newest span was written under a wrong clock, and goes."""
LATEST: Final = 1 << 40
"""s since 1970; no span is as late as that."""
TABLES: Final = {MINUTE_S: "minute", HOUR_S: "hour"}
_FORMAT: Final = 1
"""PRAGMA user_version: another one is a file of another version, which begins anew."""


class Damaged(Exception):
    """The file is no history, or not whole."""


class Store:
    """The file in ``directory``, which exists. ``most_bytes``: its largest size, without the log beside it. Damaged: it cannot be used;
    ``set_aside`` makes room for another. OSError: it cannot be opened or written."""

    def __init__(self, directory: Path, most_bytes: int, *, read_only: bool = False) -> None:
        self.path = directory / FILE_NAME
        where = f"file:{self.path}?mode={'ro' if read_only else 'rwc'}"
        try:
            self._base = sqlite3.connect(where, uri=True, isolation_level=None, timeout=5.0)
            self._base.execute("PRAGMA query_only = ON" if read_only else "PRAGMA journal_mode = WAL")
            if not read_only:
                self._prepare(most_bytes)
        except sqlite3.OperationalError as error:
            raise _as_os_error(error, self.path) from None
        except sqlite3.DatabaseError as error:
            raise Damaged(str(error)) from None

    def _prepare(self, most_bytes: int) -> None:
        run = self._base.execute
        run("PRAGMA synchronous = FULL")
        (version,) = run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and version != _FORMAT:
            raise Damaged(f"it is of format {version}, and this is {_FORMAT}")
        if not tables:
            columns, of_source = ", ".join((f"{COLUMNS[0]} INTEGER PRIMARY KEY", *COLUMNS[1:])), ", ".join(("at", *SOURCE_COLUMNS))
            run("BEGIN")
            for table in TABLES.values():
                run(f"CREATE TABLE {table} ({columns})")
                run(f"CREATE TABLE {table}_source ({of_source}, PRIMARY KEY (at, name)) WITHOUT ROWID")
            run(f"PRAGMA user_version = {_FORMAT}")
            run("COMMIT")
        elif (found := run("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise Damaged(found)
        run(f"PRAGMA max_page_count = {max(64, most_bytes // PAGE_BYTES)}")

    # ---- writing -------------------------------------------------------------------------------------------------------------------------

    def add(self, minutes: Sequence[Span]) -> None:
        """Write minutes, the earliest first, and the hours that they are in; give up what is too old. OSError: it failed, and only the
        first of them may have been written. Damaged: as above."""
        for first in range(0, len(minutes), AT_ONCE):
            try:
                self._add(minutes[first : first + AT_ONCE])
            except sqlite3.OperationalError as error:
                raise _as_os_error(error, self.path) from None
            except sqlite3.DatabaseError as error:
                raise Damaged(str(error)) from None

    def _add(self, minutes: Sequence[Span]) -> None:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            self._give_up(minutes[-1])
            self._insert(MINUTE_S, map(self._joined, minutes))
            for at in sorted({minute.at // HOUR_S * HOUR_S for minute in minutes}):
                self._insert(HOUR_S, [merged(at, list(self.read(MINUTE_S, at, at + HOUR_S)))])
            self._base.execute("COMMIT")
        finally:
            if self._base.in_transaction:  # something has failed; SQLite itself takes back what a full disk has cut short
                self._base.execute("ROLLBACK")

    def _joined(self, minute: Span) -> Span:
        """The minute together with what an earlier run has written of it."""
        before = next(self.read(MINUTE_S, minute.at, minute.at + 1), None)
        return minute if before is None or before.seconds + minute.seconds > MINUTE_S else merged(minute.at, [before, minute])

    def _insert(self, step_s: int, spans: Iterable[Span]) -> None:
        """Write spans; one that begins at the same second replaces the old one, which was of a clock that has been set back."""
        table = TABLES[step_s]
        for span in spans:
            self._base.execute(f"INSERT OR REPLACE INTO {table} VALUES ({_marks(COLUMNS)})", span.row())
            rows = [(span.at, *source.row()) for source in span.sources]
            self._base.executemany(f"INSERT OR REPLACE INTO {table}_source VALUES (?, {_marks(SOURCE_COLUMNS)})", rows)

    def _give_up(self, last: Span) -> None:
        """Delete what is too old, a day of it at once: that touches fewer pages. Only a clock that is synchronised knows what is old: after
        a start without a battery it may be any year."""
        now = last.at
        for step_s, kept_s in ((MINUTE_S, MINUTES_KEPT_S), (HOUR_S, HOURS_KEPT_S)) if last.stratum else ():
            (oldest,) = self._base.execute(f"SELECT min(at) FROM {TABLES[step_s]}").fetchone()
            if oldest is not None and oldest < now - kept_s - DAY_S:
                self._delete(step_s, "at < ?", now - kept_s)
            self._delete(step_s, "at > ?", now + AHEAD_S)
        if self._fullness() > SPARE:
            (oldest,) = self._base.execute("SELECT min(at) FROM minute").fetchone()
            if oldest is not None:
                self._delete(MINUTE_S, "at < ?", oldest + DAY_S)

    def _fullness(self) -> float:
        (pages,), (free,), (most,) = (
            self._base.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "max_page_count")
        )
        return float((pages - free) / most)

    def _delete(self, step_s: int, which: str, limit: int) -> None:
        for table in (TABLES[step_s], f"{TABLES[step_s]}_source"):
            self._base.execute(f"DELETE FROM {table} WHERE {which}", (limit,))

    # ---- reading -------------------------------------------------------------------------------------------------------------------------

    def read(self, step_s: int, since: int, until: int, most: int = -1) -> Iterator[Span]:
        """The spans of ``step_s`` that begin in [since, until), the earliest first; at most ``most``, -1: all. OSError, Damaged: that
        failed."""
        table = TABLES[step_s]
        of = f"SELECT {', '.join(SOURCE_COLUMNS)} FROM {table}_source WHERE at = ?"
        spans = f"SELECT {', '.join(COLUMNS)} FROM {table} WHERE at >= ? AND at < ? ORDER BY at LIMIT ?"
        try:
            for row in self._base.execute(spans, (since, until, most)):
                yield Span.of(row, self._base.execute(of, row[:1]))
        except sqlite3.OperationalError as error:
            raise _as_os_error(error, self.path) from None
        except (sqlite3.DatabaseError, TypeError, ValueError) as error:
            raise Damaged(str(error)) from None

    def close(self) -> None:
        """Close the file. What is in its log is taken over."""
        self._base.close()


def _marks(columns: Sequence[str]) -> str:
    return ", ".join("?" * len(columns))


def _as_os_error(error: sqlite3.OperationalError, path: Path) -> OSError:
    return OSError(5, str(error), str(path))


def set_aside(directory: Path) -> Path:
    """Rename a damaged file, so that another one can be begun; an older damaged one is lost. OSError: as of rename(2)."""
    path = directory / FILE_NAME
    aside = path.with_name(f"{FILE_NAME}.damaged")
    path.replace(aside)
    for end in ("-wal", "-shm"):
        path.with_name(f"{FILE_NAME}{end}").unlink(missing_ok=True)
    return aside
