"""Leap seconds: who says that one comes, and whether it is believed.

There are two witnesses: the table of leap-seconds.list (with an expiry date) and receivers. The table is authoritative until it expires: an
announcement that it does not know is refused, one that it knows needs no receiver. Past its expiry, or without a table, receivers are
believed for the ends of months (ITU-R TF.460-6 section 2.1) within the next half year, unless two of them contradict each other.
The server announces a leap second only in the last 24 hours (native/record.c); here it may be known for months. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from refclock.condition import Code, Condition
from refclock.sample import NS, Leap, LeapNotice, SourceId
from refclock.timescales import DAY_S, LeapTable

HORIZON_S = 190 * DAY_S
"""Bulletin C appears half a year ahead."""
NEAR_NS = 2 * NS
"""Time on either side of a leap second in which no other program is fed: REALTIME of its host may have stepped already, or not yet."""


class LeapKeeper:
    """``table`` is in force. ``refused``: why the last announcement was not believed; "" when it was."""

    def __init__(self) -> None:
        self.file = LeapTable()
        self.file_path = ""
        self.table = LeapTable()
        self.refused: Condition | None = None
        """Why the last announcement was not believed; None when it was."""
        self._notices: dict[SourceId, tuple[int, int]] = {}

    def read(self, table: LeapTable, path: str) -> bool:
        """leap-seconds.list was read. Returns whether the table in force changed."""
        self.file, self.file_path = table, path
        return self._merge()

    def notice(self, source: SourceId, notice: LeapNotice, utc_s: int) -> bool:
        """A receiver's announcement, or its withdrawal (``step_s`` 0), seen at POSIX second ``utc_s``. Returns whether the table in force
        changed."""
        if notice.step_s and notice.at_utc_s is not None and self._plausible(notice.at_utc_s, utc_s):
            self._notices[source] = (notice.at_utc_s, notice.step_s)
        elif self._notices.get(source, (0, 0))[0] > utc_s:
            del self._notices[source]
        return self._merge()

    def _plausible(self, at_utc_s: int, utc_s: int) -> bool:
        if self.file.expires_s is not None and at_utc_s < self.file.expires_s and at_utc_s not in self.file.starts_s:
            self._refuse(f"a receiver announces a leap second that {self.file_path or 'the table'} (valid) does not know")
            return False
        day = datetime.fromtimestamp(at_utc_s, UTC) if abs(at_utc_s) < 1 << 40 else None
        if day is None or day.day != 1 or at_utc_s % DAY_S or not utc_s < at_utc_s < utc_s + HORIZON_S:
            self._refuse("a receiver announces a leap second that is not at the end of a month within half a year")
            return False
        return True

    def _refuse(self, words: str) -> None:
        self.refused = Condition(Code.LEAP_REFUSED, words)

    def _merge(self) -> bool:
        """Put the table in force together from the file and what receivers announce."""
        before = self.table
        said = set(self._notices.values())
        if len(said) == 1:
            self.refused = None
            self.table = self.file.with_leap(*said.pop())
        else:
            if said:
                self._refuse("receivers announce different leap seconds")
            self.table = self.file
        return self.table != before

    def schedule(self, tai_ns: int) -> tuple[int, int, int]:
        """(leap_tai_ns, step_s, TAI-UTC before it) as of ``tai_ns``: the next leap second, or (0, 0, offset now)."""
        utc_s = self.table.tai_to_utc_ns(tai_ns) // 1_000_000_000
        for i in range(len(self.table.starts_s) - 1, 0, -1):
            if self.table.leap_tai_ns(i) <= tai_ns:
                return 0, 0, self.table.offsets_s[i]
            if i == 1 or self.table.leap_tai_ns(i - 1) <= tai_ns:
                before = self.table.offsets_s[i - 1]
                return self.table.leap_tai_ns(i), self.table.offsets_s[i] - before, before
        return 0, 0, self.table.tai_offset_s(utc_s)

    def announced(self, tai_ns: int) -> Leap:
        """What is told of the day's end, in the last 24 hours before a leap second."""
        leap_tai, step, _ = self.schedule(tai_ns)
        if not step or leap_tai - tai_ns > DAY_S * NS:
            return Leap.NORMAL
        return Leap.INSERT if step > 0 else Leap.DELETE

    def near(self, tai_ns: int) -> int:
        """The step (+1, -1) of a leap second within ``NEAR_NS``, 0 when there is none."""
        leap_tai, step, _ = self.schedule(tai_ns - NEAR_NS)
        return step if step and abs(tai_ns - leap_tai) < NEAR_NS else 0

    def pending(self, tai_ns: int) -> str:
        """For people: "none" or "+1 s at the end of 2026-12-31"."""
        leap_tai, step, offset = self.schedule(tai_ns)
        if not step:
            return "none"
        midnight = leap_tai // 1_000_000_000 - offset + (step < 0)
        day = datetime.fromtimestamp(midnight, UTC) - timedelta(days=1)
        return f"{step:+d} s at the end of {day:%Y-%m-%d}"
