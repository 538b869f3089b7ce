"""Time scales in integer nanoseconds: POSIX UTC, TAI, the NTP era, GPS weeks, and the table of leap seconds.

TAI here counts SI seconds since the label 1970-01-01 00:00:00 TAI: TAI = UTC + (TAI-UTC). It is continuous through leap seconds, so all
computation between receiver and server uses it. UTC appears only at the two ends. Pure.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Final

from refclock.condition import Code, Condition
from refclock.sample import NS

NTP_UNIX_S = 2_208_988_800
"""Seconds from 1900-01-01 to 1970-01-01 (RFC 5905 figure 4)."""
DAY_S = 86_400
WEEK_S = 604_800
GPS_EPOCH_S = 315_964_800
"""POSIX second at which GPS time begins, 1980-01-06 (IS-GPS-200 section 3.3.4)."""
TAI_GPS_S = 19
"""TAI - GPS, constant: GPS time was UTC in 1980, when TAI-UTC was 19 s (IS-GPS-200 section 3.3.4)."""
ROLLOVER_S = 1024 * WEEK_S
"""s after which the week number of the GPS legacy message, 10 bits, begins again (IS-GPS-200 section 20.3.3.3.1.1)."""
TAI_OFFSET_2017_S = 37
"""TAI-UTC since 2017-01-01 (IERS Bulletin C 52); used when no table can be read."""
START_2017_S: Final = 1_483_228_800
"""POSIX second of 2017-01-01, the last leap second that is known here."""
KNOWN_UNTIL_S: Final = 1_782_604_800
"""POSIX second of 2026-06-28, up to which no further leap second is known to have come (IERS Bulletin C 70)."""
HALF_YEAR: Final = (1, 7)
"""Months with whose first midnight every leap second so far has ended: the first preference of ITU-R TF.460-6 section 2.1."""
QUARTER: Final = (1, 4, 7, 10)
"""The same with its second preference."""
TABLE_REMEDY: Final = "update tzdata, or set leap.file"
"""What brings a good table."""


@dataclass(frozen=True, slots=True)
class LeapTable:
    """TAI-UTC by date. ``starts_s[i]``: POSIX second from which ``offsets_s[i]`` holds. ``expires_s``: end of validity, None if unknown.
    ``hashed``: False when it comes from a file without a hash, in which a changed digit would not show."""

    starts_s: tuple[int, ...] = (START_2017_S,)
    offsets_s: tuple[int, ...] = (TAI_OFFSET_2017_S,)
    expires_s: int | None = None
    hashed: bool = True

    def tai_offset_s(self, utc_s: int) -> int:
        """TAI-UTC at the POSIX second ``utc_s`` (before the table: its first value)."""
        return self.offsets_s[max(0, bisect_right(self.starts_s, utc_s) - 1)]

    def utc_to_tai_ns(self, utc_ns: int, second_60: bool = False) -> int:
        """POSIX UTC to TAI. ``second_60``: the instant is 23:59:60, which has the same number as 23:59:59."""
        return utc_ns + (self.tai_offset_s(utc_ns // NS) + second_60) * NS

    def leap_tai_ns(self, i: int) -> int:
        """TAI instant at which ``offsets_s[i]`` takes effect: the start of 23:59:60 (insertion) or of the missing 23:59:59 (deletion)."""
        return (self.starts_s[i] + min(self.offsets_s[i - 1], self.offsets_s[i])) * NS

    def tai_to_utc_ns(self, tai_ns: int) -> int:
        """TAI to POSIX UTC; 23:59:60 repeats the number of 23:59:59, as Linux and NTP count."""
        for i in range(len(self.starts_s) - 1, 0, -1):
            if tai_ns >= self.leap_tai_ns(i):
                return tai_ns - self.offsets_s[i] * NS
        return tai_ns - self.offsets_s[0] * NS

    def next_leap(self, utc_s: int) -> tuple[int, int] | None:
        """(POSIX midnight that ends the day, step of TAI-UTC) of the first leap second after ``utc_s``, or None."""
        i = bisect_right(self.starts_s, utc_s)
        if i == 0 or i == len(self.starts_s):
            return None
        return self.starts_s[i], self.offsets_s[i] - self.offsets_s[i - 1]

    def with_leap(self, at_utc_s: int, step_s: int) -> LeapTable:
        """This table with one more leap second at its end (announced by receivers before the file has it)."""
        if at_utc_s <= self.starts_s[-1]:
            return self
        return replace(self, starts_s=(*self.starts_s, at_utc_s), offsets_s=(*self.offsets_s, self.offsets_s[-1] + step_s))

    def step_s(self, midnight_s: int) -> int:
        """The leap second that ends at the POSIX ``midnight_s``: +1, -1, or 0 for none."""
        return self.tai_offset_s(midnight_s) - self.tai_offset_s(midnight_s - 1)

    def settles(self, midnight_s: int) -> bool:
        """Whether it can be relied upon to say if a leap second ends at the POSIX ``midnight_s``."""
        return self.hashed and (midnight_s in self.starts_s or (self.expires_s is not None and midnight_s < self.expires_s))

    def certain_s(self, utc_s: int) -> int | None:
        """TAI-UTC where the table settles it; None elsewhere, and within a minute of a leap second, which receivers take early or late."""
        before, after = self.tai_offset_s(utc_s - 60), self.tai_offset_s(utc_s + 60)
        return after if self.settles(utc_s) and before == after else None

    def expired(self, path: str, utc_s: int) -> Condition | None:
        """That the table read from ``path`` has expired at ``utc_s``; None while it has not, or when it states no expiry."""
        if self.expires_s is None or utc_s < self.expires_s:
            return None
        ago = f"{(utc_s - self.expires_s) // DAY_S} days ago"
        words = f"{path} expired on {day_of(self.expires_s)}, {ago}: it may lack a leap second; {TABLE_REMEDY}"
        return Condition(Code.LEAP_TABLE_EXPIRED, words)


def parse_leap_seconds_list(text: str) -> LeapTable | Condition:
    """The table in the leap-seconds.list of IERS, NIST or tzdata, or why it is refused.

    Lines: ``<NTP second> <TAI-UTC> # comment``; ``#$ <NTP second>``: last update; ``#@ <NTP second>``: expiry; ``#h``: the SHA-1 over the
    digits of all these in their order, as five hexadecimal words, which NIST writes without leading zeros. A file without a hash is judged
    by its plausibility alone.
    """
    starts: list[int] = []
    offsets: list[int] = []
    expires: int | None = None
    stated: list[str] | None = None
    digest = hashlib.sha1(usedforsecurity=False)
    for number, line in enumerate(text.splitlines(), 1):
        mark = line[:2] if line.startswith(("#$", "#@", "#h")) else ""
        words = line[2:].split() if mark else line.split("#")[0].split()
        if not words and not mark:
            continue
        if mark == "#h":
            stated = words
            continue
        wanted = 1 if mark else 2
        figures = words[:wanted] if mark else words
        if len(figures) != wanted or not all(w.isascii() and w.isdigit() and len(w) <= NTP_DIGITS for w in figures):
            return _damaged(f"its line {number} is no leap second")
        digest.update("".join(figures).encode("ascii"))
        if not mark:
            starts.append(int(figures[0]) - NTP_UNIX_S)
            offsets.append(int(figures[1]))
        elif mark == "#@":
            if expires is not None:
                return _damaged("it states two dates of expiry")
            expires = int(figures[0]) - NTP_UNIX_S
    if stated is not None and not _same_hash(stated, digest.hexdigest()):
        return _damaged("its hash (#h) does not fit its lines: something was changed or left out")
    table = LeapTable(tuple(starts), tuple(offsets), expires, stated is not None)
    why = _implausible(table)
    return _damaged(why) if why else table


NTP_DIGITS: Final = 10
"""Digits of an NTP second until the year 2216."""
HASH_WORDS: Final = 5
"""32-bit words of a SHA-1 (FIPS 180-4)."""


def _damaged(what: str) -> Condition:
    return Condition(Code.LEAP_TABLE_DAMAGED, what)


def _same_hash(stated: list[str], computed: str) -> bool:
    """Whether the words of a #h line are the hash ``computed`` (hexadecimal), with or without their leading zeros."""
    words = [word.lower().rjust(8, "0") for word in stated] if len(stated) == HASH_WORDS else stated
    return "".join(words).lower() == computed


def _implausible(table: LeapTable) -> str:
    """What in the table cannot be true; "" when nothing."""
    starts, offsets = table.starts_s, table.offsets_s
    if not starts:
        return "it holds no leap seconds"
    for i, start in enumerate(starts):
        if next_midnight(start - 1, QUARTER if table.hashed and start > KNOWN_UNTIL_S else HALF_YEAR) != start:
            return f"its line for NTP second {start + NTP_UNIX_S} is not the beginning of a January or July"
        if i and (start <= starts[i - 1] or abs(offsets[i] - offsets[i - 1]) != 1):
            return f"TAI-UTC does not go on by one second from {day_of(starts[i - 1])} to {day_of(start)}"
    if START_2017_S not in starts or table.tai_offset_s(START_2017_S) != TAI_OFFSET_2017_S:
        return f"it does not contain the {TAI_OFFSET_2017_S} s that hold since {day_of(START_2017_S)}"
    for start in starts:
        if START_2017_S < start <= KNOWN_UNTIL_S:
            return f"it has a leap second before {day_of(start)}, and there was none"
    return ""


def day_of(utc_s: int) -> str:
    """The date of a POSIX second, for people."""
    return f"{datetime.fromtimestamp(utc_s, UTC):%Y-%m-%d}"


def next_midnight(utc_s: int, months: Collection[int] = HALF_YEAR) -> int:
    """POSIX second of the first midnight after ``utc_s`` that begins one of ``months``."""
    then = datetime.fromtimestamp(utc_s, UTC)
    year, month = then.year, then.month
    while True:
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        begins = civil_s(year, month, 1)
        assert begins is not None
        if month in months:
            return begins


def civil_s(year: int, month: int, day: int) -> int | None:
    """POSIX second at which the date begins; None when there is no such date."""
    try:
        return (date(year, month, day).toordinal() - 719_163) * DAY_S  # ordinal of 1970-01-01
    except ValueError:
        return None


def window_weeks(utc_s: int, not_before_s: int) -> int:
    """Multiples of 1024 weeks to add so that ``utc_s`` lies in [not_before, + 1024 weeks); negative when it is past."""
    return -((utc_s - not_before_s) // ROLLOVER_S)


def window(utc_s: int, not_before_s: int) -> tuple[int, int] | None:
    """The second that a receiver means by ``utc_s``: (POSIX second, 1024-week periods added).

    A second before ``not_before_s`` is moved into [not_before, not_before + 1024 weeks). A later one is taken as stated, because a rollover
    only takes dates back; None from 2048 weeks on: no host has run for that long.
    """
    periods = window_weeks(utc_s, not_before_s)
    if periods < 0:
        return (utc_s, 0) if periods == -1 else None
    return utc_s + periods * ROLLOVER_S, periods


def ntp64(utc_ns: int) -> int:
    """POSIX UTC ns to a 64-bit NTP timestamp, modulo the era (RFC 5905 section 6)."""
    return ((utc_ns + NTP_UNIX_S * NS) * (1 << 32) // NS) & 0xFFFF_FFFF_FFFF_FFFF


def utc_of_ntp64(stamp: int, near_utc_ns: int) -> int:
    """NTP timestamp to POSIX UTC ns in the era that puts it nearest to ``near_utc_ns`` (RFC 5905 section 6)."""
    near = (near_utc_ns + NTP_UNIX_S * NS) * (1 << 32) // NS
    difference = (stamp - near) & 0xFFFF_FFFF_FFFF_FFFF
    if difference >= 1 << 63:
        difference -= 1 << 64
    return ((near + difference) * NS + (1 << 31)) // (1 << 32) - NTP_UNIX_S * NS
