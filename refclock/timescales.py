"""Time scales in integer nanoseconds: POSIX UTC, TAI, the NTP era, GPS weeks, and the table of leap seconds.

TAI here counts SI seconds since the label 1970-01-01 00:00:00 TAI: TAI = UTC + (TAI-UTC). It is continuous through leap seconds, so all
computation between receiver and server uses it. UTC appears only at the two ends. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import date

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


@dataclass(frozen=True, slots=True)
class LeapTable:
    """TAI-UTC by date. ``starts_s[i]``: POSIX second from which ``offsets_s[i]`` holds. ``expires_s``: end of validity, None if unknown."""

    starts_s: tuple[int, ...] = (1_483_228_800,)
    offsets_s: tuple[int, ...] = (TAI_OFFSET_2017_S,)
    expires_s: int | None = None

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
        return LeapTable((*self.starts_s, at_utc_s), (*self.offsets_s, self.offsets_s[-1] + step_s), self.expires_s)


def parse_leap_seconds_list(text: str) -> LeapTable | None:
    """Read IERS/NIST leap-seconds.list (tzdata ships it); None when it holds no table.

    Lines: ``<NTP second> <TAI-UTC> # comment``; ``#@ <NTP second>`` is the expiry.
    """
    starts: list[int] = []
    offsets: list[int] = []
    expires: int | None = None
    for line in text.splitlines():
        if line.startswith("#@"):
            words = line[2:].split()
            if words and words[0].isdigit():
                expires = int(words[0]) - NTP_UNIX_S
            continue
        words = line.split("#")[0].split()
        if len(words) == 2 and all(w.isdigit() for w in words):
            starts.append(int(words[0]) - NTP_UNIX_S)
            offsets.append(int(words[1]))
    if not starts or sorted(starts) != starts:
        return None
    return LeapTable(tuple(starts), tuple(offsets), expires)


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
