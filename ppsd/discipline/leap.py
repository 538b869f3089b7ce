"""Leap seconds: which count of UTC holds, who says so, and until when that is certain.

TAI of the timescale is never in doubt at a leap second, only TAI-UTC is. These witnesses speak of it, and a lower one never overrules a
higher one:

1. the table of leap-seconds.list, checked by its hash, for every midnight before its expiry and every one that it lists;
2. the labels of receivers *after* the midnight: they count with the new TAI-UTC, or with the old one;
3. the time of NTP servers *after* the midnight, when most of those that agreed before show the same count, and no receiver names a second;
4. announcements of receivers, of other programs, and of most of several NTP servers that agree, unless a receiver that knows the count from
   the sky announces none. They are believed for the ends of June and December alone (ITU-R TF.460-6 section 2.1,
   every leap second so far), and only make the server announce the leap second in the last 24 hours (native/record.c).

Without the first the count is *unsettled* from the second that a deletion would leave out until labels, or else servers, have shown which
count holds, and nothing is served. A label's lateness against the timescale is then the usual one of its source, or differs from it by the
whole second of the step. Receivers repeat 23:59:59 or 00:00:00, say 23:59:60, or leave out 23:59:59; that makes no difference here. Within
a minute of the midnight each label is read with the count that it shows itself, so TAI goes on whatever a receiver does to its UTC. Pure.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from refclock.condition import Code, Condition, obstacle
from refclock.record import Record
from refclock.robust import median
from refclock.sample import NS, Instant, Leap, LeapNotice, SourceId
from refclock.timescales import DAY_S, HALF_YEAR, TABLE_REMEDY, LeapTable, day_of, next_midnight
from refclock.timing.pairing import AMBIGUOUS_NS, DEFAULT_DELAY_NS, FIX_TIMEOUT_NS, ROUNDING_BOUND_NS, Present

HORIZON_S: Final = 190 * DAY_S
"""s; an announcement may lie this far ahead: Bulletin C appears half a year before."""
NEAR_NS: Final = 2 * NS
"""ns on either side of a leap second in which no other program is fed: REALTIME of its host may have stepped already, or not yet."""
AROUND_NS: Final = 60 * NS
"""ns on either side of a midnight within which a receiver's own step is taken for the leap second: some count it at the midnight of GPS,
18 s early, and some when they next compute a fix."""
SHOWN: Final = 3
"""Labels of one source in a row that show the count: one or two may be strays."""
APART_NS: Final = NS // 2
"""ns; samples that follow each other faster count as one label."""
USUAL: Final = 16
"""Latenesses kept for a source's usual one."""
USUAL_LIFE_NS: Final = 600 * NS
"""ns for which a usual lateness holds however poor the timescale: a drift of 100 ppm moves it by 0.06 s."""


SERVERS: Final = SourceId("NTP servers")
"""Who announces what most servers announce."""


@dataclass(slots=True)
class _Voice:
    """One source's labels. ``late``: latenesses (ns) up to a minute before the midnight, the last of them at TAI ``late_ns``. ``step_s``:
    the leap second that its last ``run`` labels have shown, the last of them at TAI ``shown_ns``."""

    late: deque[int] = field(default_factory=lambda: deque(maxlen=USUAL))
    late_ns: int = 0
    step_s: int = 0
    run: int = 0
    shown_ns: int = 0

    def shows(self, step_s: int, tai_ns: int) -> None:
        """A label after the midnight."""
        if self.run and step_s == self.step_s and tai_ns - self.shown_ns < APART_NS:
            return
        self.run = self.run + 1 if step_s == self.step_s else 1
        self.step_s, self.shown_ns = step_s, tai_ns


class LeapKeeper:
    """The leap seconds. ``file``: the table that was read last and not refused, from ``file_path``. ``table``: in force; it has in addition
    what labels have shown and what is announced. ``damage``: why the last table that was read is refused or doubted."""

    def __init__(self) -> None:
        self.file = LeapTable()
        self.file_path = ""
        self.table = LeapTable()
        self.damage: Condition | None = None
        self._notices: dict[SourceId, tuple[int, int]] = {}
        self._refusals: dict[SourceId, str] = {}
        self._counts: dict[SourceId, int] = {}  # TAI-UTC as receivers state it
        self._shown: dict[int, int] = {}  # TAI-UTC since a midnight, as labels have shown it
        self._midnight_s: int | None = None  # the next that may end a leap second, or the last one until a minute after it is settled
        self._verdict_s: int | None = None  # the step there, once labels have shown it
        self._voices: dict[SourceId, _Voice] = {}
        self._jury = frozenset[SourceId]()  # NTP servers that agreed before the midnight
        self._votes: dict[SourceId, int] = {}  # the step that each has shown since

    # ---- the table -----------------------------------------------------------------------------------------------------------------

    def read(self, table: LeapTable | Condition, path: str, utc_s: int = 0, kernel_s: int = 0) -> bool:
        """leap-seconds.list was read at POSIX second ``utc_s``, or is refused for the reason in ``table``: then the one in force stays.
        ``kernel_s``: TAI-UTC that the kernel has, 0 for none. Returns whether the table in force changed."""
        if isinstance(table, Condition):
            self.damage = Condition(table.code, f"{path} is not used: {table.words}; {TABLE_REMEDY}")
            return False
        self.damage = None
        if kernel_s and table.tai_offset_s(utc_s) != kernel_s:
            says = f"it says that TAI-UTC is {table.tai_offset_s(utc_s)} s, the kernel says {kernel_s} s"
            if not table.hashed:
                return self.read(Condition(Code.LEAP_TABLE_DAMAGED, f"it has no hash (#h), and {says}"), path)
            words = f"{path} is used, but {says}: {TABLE_REMEDY}, or see what sets the kernel's (refclock doctor, RC20)"
            self.damage = Condition(Code.LEAP_TABLE_DAMAGED, words)
        elif not table.hashed:
            words = f"{path} has no hash (#h), so damage may not show: it is not relied upon for coming leap seconds; {TABLE_REMEDY}"
            self.damage = Condition(Code.LEAP_TABLE_DAMAGED, words)
        self.file, self.file_path = table, path
        return self._merge()

    def resume(self, record: Record) -> None:
        """An earlier run of this boot left ``record``, and its timescale goes on: so does its TAI-UTC, which labels may have shown it."""
        count_s, before_s = record.tai_offset_s, record.tai_ns // NS - record.tai_offset_s
        if record.leap_step_s and record.tai_ns >= record.leap_tai_ns:
            before_s = record.leap_tai_ns // NS - count_s + (record.leap_step_s < 0)
            self._shown[before_s] = count_s + record.leap_step_s
        midnight_s = next_midnight(before_s - HORIZON_S)
        while (later_s := next_midnight(midnight_s)) < before_s:
            midnight_s = later_s
        self._shown[midnight_s] = count_s
        self._merge()

    def notice(self, source: SourceId, notice: LeapNotice, utc_s: int) -> bool:
        """What a source says of leap seconds at POSIX second ``utc_s``: TAI-UTC, and an announcement or its withdrawal (``step_s`` 0).
        Returns whether the table in force changed."""
        if notice.tai_offset_s is None:
            self._counts.pop(source, None)
        else:
            self._counts[source] = notice.tai_offset_s
        return self._announce(source, notice.at_utc_s or 0, notice.step_s, utc_s)

    def indicated(self, source: SourceId, leap: Leap, utc_s: int) -> bool:
        """The leap indicator of a finished sample: it speaks of the end of the month (RFC 5905 section 7.3). Returns as ``notice``."""
        step_s = {Leap.INSERT: 1, Leap.DELETE: -1}.get(leap, 0)
        return self._announce(source, next_midnight(utc_s, range(1, 13)) if step_s else 0, step_s, utc_s)

    def agreed(self, leap: Leap, utc_s: int) -> bool:
        """What most of several NTP servers that agree indicate. Returns as ``notice``."""
        knowing = next((source for source in self._counts if source not in self._notices), None)
        if leap is Leap.NORMAL or knowing is None:
            return self.indicated(SERVERS, leap, utc_s)
        self._notices.pop(SERVERS, None)
        self._refusals[SERVERS] = (
            f"most {SERVERS} announce a leap second that {knowing}, which has the count from the sky, does not announce"
        )
        return self._merge()

    def _announce(self, source: SourceId, at_utc_s: int, step_s: int, utc_s: int) -> bool:
        self._refusals.pop(source, None)
        if self._notices.get(source, (0, 0))[0] > utc_s:
            del self._notices[source]
        if step_s and at_utc_s > utc_s:
            if why := self._unbelievable(at_utc_s, utc_s):
                self._refusals[source] = f"{source} announces a leap second {why}"
            else:
                self._notices[source] = (at_utc_s, step_s)
        return self._merge()

    def _unbelievable(self, at_utc_s: int, utc_s: int) -> str:
        """Why nobody's word is enough for a leap second at the POSIX midnight ``at_utc_s``; "" when it is."""
        if at_utc_s - utc_s > HORIZON_S:
            return "years ahead: it is not believed"
        day = _end_of_day(at_utc_s)
        if self.file.settles(at_utc_s) and at_utc_s not in self.file.starts_s:
            return f"for the end of {day} that {self.file_path or 'the table'} (valid) does not know: it is not believed"
        if next_midnight(at_utc_s - 1, HALF_YEAR) != at_utc_s:
            return f"for {day}: only the table is believed for another day than the last of June or December"
        return ""

    def _merge(self) -> bool:
        """Put the table in force together from the file, what labels have shown and what is announced."""
        before, table = self.table, self.file
        for midnight_s, count_s in sorted(self._shown.items()):
            if count_s != table.offsets_s[-1] and not self.file.settles(midnight_s):
                table = table.with_leap(midnight_s, count_s - table.offsets_s[-1])
        said = set(self._notices.values())
        if len(said) == 1:
            table = table.with_leap(*said.pop())
        self.table = table
        return table != before

    # ---- labels around a midnight --------------------------------------------------------------------------------------------------

    def watch(self, tai_ns: int | None) -> None:
        """The timescale is at ``tai_ns``; None when there is none, so that none is carried over a midnight."""
        if tai_ns is None:
            self._close()
            self._voices.clear()
            return
        if self._midnight_s is not None and self._settled_s() is not None and tai_ns > self._begins_ns(self._midnight_s) + AROUND_NS:
            self._notices = {source: said for source, said in self._notices.items() if said[0] != self._midnight_s}
            self._close()
        if self._midnight_s is None:
            # A timescale that begins within the seconds in question may have been named before them.
            utc_s = self.table.tai_to_utc_ns(tai_ns - SHOWN * NS) // NS
            self._midnight_s = min([next_midnight(utc_s), *(start for start in self.file.starts_s if start > utc_s)])

    def _close(self) -> None:
        self._midnight_s = self._verdict_s = None
        self._jury = frozenset()
        self._votes.clear()
        for voice in self._voices.values():
            voice.run = 0

    def _begins_ns(self, midnight_s: int) -> int:
        """TAI of the second before ``midnight_s`` by the count before it: the first at which two counts may differ."""
        return (midnight_s - 1 + self.table.tai_offset_s(midnight_s - 1)) * NS

    def _settled_s(self) -> int | None:
        """The step at the midnight in question; None while nobody can say."""
        assert self._midnight_s is not None
        return self.file.step_s(self._midnight_s) if self.file.settles(self._midnight_s) else self._verdict_s

    def heard(self, source: SourceId, utc_ns: int, at: Instant, present: Present, *, own: bool, trusted: bool = True) -> int | None:
        """A label of ``source`` that arrived ``at`` names ``utc_ns`` (23:59:60 has the number of 23:59:59). ``present``: the timescale.
        ``own``: that is made from this source's labels. ``trusted``: they were trusted before this one.

        Returns TAI-UTC (s) with which the label counts while a leap second may move that, else None: the table in force holds.
        """
        if self._midnight_s is None:
            return None
        voice, tai_ns = self._voices.setdefault(source, _Voice()), present.tai_at(at.mono_ns)
        begins_ns = self._begins_ns(self._midnight_s)
        count_s = self.table.tai_offset_s(self._midnight_s - 1)
        late_ns, since_ns = tai_ns - utc_ns - count_s * NS, tai_ns - begins_ns
        if since_ns < -AROUND_NS:
            if trusted:
                voice.late.append(late_ns)
                voice.late_ns = tai_ns
            return None
        if since_ns > AROUND_NS and self._settled_s() is not None:
            return None
        fresh = bool(voice.late) and tai_ns - voice.late_ns < USUAL_LIFE_NS
        if not (voice.late or trusted) or not (fresh or own or present.bound_ns < ROUNDING_BOUND_NS):
            return None
        usual_ns = round(median(voice.late)) if voice.late else DEFAULT_DELAY_NS
        step_s = (late_ns - usual_ns + NS // 2) // NS
        if abs(step_s) > 1 or abs(late_ns - usual_ns - step_s * NS) > AMBIGUOUS_NS:
            voice.run = 0
            return None
        # The second that may be 23:59:60 proves nothing: there are receivers that say 00:00:00 twice.
        if since_ns - usual_ns > 2 * NS - AMBIGUOUS_NS and not self.file.settles(self._midnight_s):
            voice.shows(step_s, tai_ns)
            self._judge(tai_ns)
        return count_s + step_s

    def told(self, server: SourceId, utc_ns: int, tai_ns: int, agreeing: frozenset[SourceId]) -> int | None:
        """An NTP server says that it is ``utc_ns`` when the timescale is at ``tai_ns``. ``agreeing``: the servers that agree. Returns as
        ``heard``."""
        if self._midnight_s is None or self._settled_s() is not None:
            return None
        since_ns = tai_ns - self._begins_ns(self._midnight_s)
        if since_ns < 0:
            self._jury = agreeing
            return None
        count_s = self.table.tai_offset_s(self._midnight_s - 1)
        late_ns = tai_ns - utc_ns - count_s * NS
        step_s = (late_ns + NS // 2) // NS
        if abs(step_s) > 1 or abs(late_ns - step_s * NS) > AMBIGUOUS_NS:  # it smears the leap second, or is wrong
            return None
        self._votes[server] = step_s
        votes = [self._votes[juror] for juror in self._jury if juror in self._votes]
        most, count = Counter(votes).most_common(1)[0] if votes else (0, 0)
        if 2 * count > len(self._jury) and count >= min(2, len(self._jury)) and not any(v.run for v in self._voices.values()):
            self._settle(most)
        return count_s + step_s

    def between(self, tai_ns: int) -> bool:
        """Whether a leap second is, or may be, so near that clocks of others have it already, or not yet."""
        if self.near(tai_ns):
            return True
        return self.certain_until_ns is not None and abs(tai_ns - self.certain_until_ns - NS) < NEAR_NS

    def _settle(self, step_s: int) -> None:
        """The midnight in question has this step."""
        assert self._midnight_s is not None
        self._verdict_s = step_s
        self._shown[self._midnight_s] = self.table.tai_offset_s(self._midnight_s - 1) + step_s
        self._notices = {source: said for source, said in self._notices.items() if said[0] != self._midnight_s}
        self._merge()

    def _judge(self, tai_ns: int) -> None:
        """Most of the sources that speak, one of them for long enough, show the step; it is open again when most do not."""
        assert self._midnight_s is not None
        voices = [v for v in self._voices.values() if v.run and tai_ns - v.shown_ns < FIX_TIMEOUT_NS]
        step_s, votes = Counter(v.step_s for v in voices).most_common(1)[0]
        most = 2 * votes > len(voices)
        if most and any(v.run >= SHOWN and v.step_s == step_s for v in voices):
            self._settle(step_s)
        elif not most or step_s != self._verdict_s:
            self._verdict_s = None

    # ---- what is known, and what is told -------------------------------------------------------------------------------------------

    @property
    def certain_until_ns(self) -> int | None:
        """TAI until which TAI-UTC is certain; None: for longer than any holdover."""
        if self._midnight_s is None or self._settled_s() is not None:
            return None
        return self._begins_ns(self._midnight_s)

    def open(self, tai_ns: int) -> bool:
        """Whether others may count another second than the table in force: within a minute of a midnight, and until it is settled."""
        return self._midnight_s is not None and tai_ns >= self._begins_ns(self._midnight_s) - AROUND_NS

    def unsettled(self, tai_ns: int) -> Condition | None:
        """Why UTC is not known at ``tai_ns``; None when it is."""
        until_ns = self.certain_until_ns
        if until_ns is None or tai_ns < until_ns or self._midnight_s is None:
            return None
        shown = {source: voice for source, voice in self._voices.items() if voice.run}
        if len({voice.step_s for voice in shown.values()}) > 1:
            heard = ", ".join(f"{source} counts {_spoken(voice.step_s)}" for source, voice in shown.items())
        elif shown:
            heard = "the receiver's next seconds will show it"
        else:
            heard = f"waiting for {SHOWN} seconds that a receiver names after it"
            if self._jury:
                heard += f", or for most of the {len(self._jury)} NTP servers that agreed before it"
        day = _end_of_day(self._midnight_s)
        words = f"whether {day} ended with a leap second is not known: {heard}; a valid leap-seconds.list avoids this: {TABLE_REMEDY}"
        return obstacle(Code.LEAP_UNSETTLED, words)

    @property
    def refused(self) -> Condition | None:
        """Why an announcement is not believed; None when none is refused."""
        if len(set(self._notices.values())) > 1:
            return Condition(Code.LEAP_REFUSED, "receivers announce different leap seconds: none is believed")
        words = next(iter(self._refusals.values()), None)
        return None if words is None else Condition(Code.LEAP_REFUSED, f"{words}; update tzdata (leap-seconds.list) to be sure")

    def conditions(self, tai_ns: int) -> Iterator[Condition]:
        """What is the matter with announcements and table at ``tai_ns``, in the order of ``Code``."""
        if self.refused is not None:
            yield self.refused
        if self.damage is not None:
            yield self.damage
        if (contradicted := self._contradicted(tai_ns)) is not None:
            yield contradicted
        if (expired := self.file.expired(self.file_path, self.table.tai_to_utc_ns(tai_ns) // NS)) is not None:
            yield expired

    def _contradicted(self, tai_ns: int) -> Condition | None:
        """A receiver that states another TAI-UTC than the table in force."""
        if self.open(tai_ns):
            return None
        ours_s = self.schedule(tai_ns)[2]
        for source, count_s in self._counts.items():
            if count_s != ours_s:
                known = f"{self.file_path or 'the built-in table'} says that TAI-UTC is {ours_s} s"
                words = f"{known}, {source} says {count_s} s: one of them is wrong; {TABLE_REMEDY}, or see to the receiver's firmware"
                return Condition(Code.LEAP_TABLE_DAMAGED, words)
        return None

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
        return f"{step:+d} s at the end of {_end_of_day(leap_tai // NS - offset + (step < 0))}"


def _end_of_day(midnight_s: int) -> str:
    return day_of(midnight_s - DAY_S)


def _spoken(step_s: int) -> str:
    return {1: "an inserted second", -1: "a deleted second"}.get(step_s, "none")
