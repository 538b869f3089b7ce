"""Leap seconds: whose word is believed, and until when the count is certain."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Effect, LeapFileRead, Publish, Sampled, Ticked
from ppsd.discipline.leap import LeapKeeper
from ppsd.discipline.saved import Saved
from ppsd.snapshot import Mode, Snapshot
from refclock.condition import Code, Condition
from refclock.config import ShmSource
from refclock.record import Record
from refclock.sample import NS, ForeignSample, Instant, Leap, LeapNotice, SourceId
from refclock.timescales import DAY_S, LeapTable
from refclock.timing.pairing import Present

A, B, C = SourceId("a"), SourceId("b"), SourceId("c")
NEW_YEAR = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())
OCTOBER = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp())
BEFORE = NEW_YEAR - 20 * DAY_S
TAI_0 = (NEW_YEAR + 37) * NS
"""TAI at which 2027 begins when no leap second comes before it."""
VALID = LeapTable(expires_s=NEW_YEAR + DAY_S)


def announced(step_s: int, at_utc_s: int | None = NEW_YEAR, count_s: int | None = 37) -> LeapNotice:
    return LeapNotice(count_s, step_s, at_utc_s, Instant(0, 0))


# ---- announcements -----------------------------------------------------------------------------------------------------------------


def test_leap_file_is_authoritative_until_it_expires() -> None:
    """A receiver's announcement that the valid table does not know is refused; past the table's end it is believed."""
    keeper = LeapKeeper()
    notice = LeapNotice(37, 1, NEW_YEAR, Instant(0, 0))
    before = NEW_YEAR - 20 * DAY_S
    keeper.read(LeapTable(expires_s=NEW_YEAR + DAY_S), "file")
    keeper.notice(A, notice, before)
    assert keeper.pending((before + 37) * NS) == "none"
    keeper.read(LeapTable(expires_s=NEW_YEAR - 30 * DAY_S), "file")
    keeper.notice(A, notice, before)
    assert keeper.pending((before + 37) * NS) == "+1 s at the end of 2026-12-31"
    assert keeper.schedule((before + 37) * NS) == ((NEW_YEAR + 37) * NS, 1, 37)
    assert keeper.schedule((NEW_YEAR + 38) * NS) == (0, 0, 38)


def test_odd_announcements_are_refused_and_withdrawn_ones_forgotten() -> None:
    """Not the end of a month, or years ahead: refused. Withdrawn: gone."""
    keeper = LeapKeeper()
    before = NEW_YEAR - 20 * DAY_S
    for at in (NEW_YEAR + 3 * DAY_S, NEW_YEAR + 1, NEW_YEAR + 10 * 365 * DAY_S):
        keeper.notice(A, LeapNotice(37, 1, at, Instant(0, 0)), before)
        assert keeper.pending((before + 37) * NS) == "none"
        assert keeper.refused
    keeper.notice(A, LeapNotice(37, 1, NEW_YEAR, Instant(0, 0)), before)
    keeper.notice(B, LeapNotice(37, -1, NEW_YEAR, Instant(0, 0)), before)
    assert keeper.pending((before + 37) * NS) == "none", "two receivers that contradict each other are not believed"
    keeper.notice(B, LeapNotice(37, 0, None, Instant(0, 0)), before)
    assert keeper.pending((before + 37) * NS) != "none"
    keeper.notice(A, LeapNotice(37, 0, None, Instant(0, 0)), before)
    assert keeper.pending((before + 37) * NS) == "none"


def test_the_sky_knows_better_than_ntp_servers() -> None:
    """What most servers announce is believed, unless a receiver that knows TAI-UTC announces nothing: that is told."""
    keeper, tai_ns = LeapKeeper(), (BEFORE + 37) * NS
    keeper.agreed(Leap.INSERT, BEFORE)
    assert keeper.pending(tai_ns) == "+1 s at the end of 2026-12-31"
    keeper.notice(A, announced(0, None), BEFORE)
    keeper.agreed(Leap.INSERT, BEFORE)
    assert keeper.pending(tai_ns) == "none"
    assert keeper.refused is not None
    assert "most NTP servers announce a leap second that a, which has the count from the sky, does not" in keeper.refused.words
    keeper.notice(A, announced(1), BEFORE)
    keeper.agreed(Leap.INSERT, BEFORE)
    assert (keeper.pending(tai_ns), keeper.refused) == ("+1 s at the end of 2026-12-31", None)
    keeper.notice(A, announced(0, None), BEFORE)
    keeper.agreed(Leap.NORMAL, BEFORE)
    assert (keeper.pending(tai_ns), keeper.refused) == ("none", None)


def test_servers_decide_only_where_no_receiver_names_a_second() -> None:
    """Labels after the midnight come first; of two servers both must show the count; one that smears has no vote."""
    before, after = TAI_0 - 60 * NS, TAI_0 + 60 * NS
    for show, settled in (((A, 0), (B, 0)), True), (((A, 1), (B, 0)), False), (((A, 0),), False), (((A, 0), (C, 0)), False):
        keeper = LeapKeeper()
        keeper.watch(before)
        keeper.told(A, NEW_YEAR * NS - 60 * NS, before, frozenset((A, B)))
        for server, step_s in show:
            assert keeper.told(server, (NEW_YEAR + 60 - step_s) * NS, after, frozenset()) == 37 + step_s
        keeper.told(B, (NEW_YEAR + 60) * NS - NS // 2, after, frozenset())
        keeper.watch(after)
        assert (keeper.unsettled(after) is None) == settled, show


def test_only_the_table_may_say_that_a_leap_second_comes_in_september() -> None:
    """A receiver that announces one for 30 September (Z3801A, 2016) is refused, and told; the table's own is kept."""
    keeper = LeapKeeper()
    keeper.notice(A, announced(1, OCTOBER), OCTOBER - 600)
    assert keeper.pending((OCTOBER - 600 + 37) * NS) == "none"
    assert keeper.refused is not None
    assert "2026-09-30" in keeper.refused.words
    keeper.notice(A, announced(0, None), OCTOBER - 500)
    assert keeper.refused is None, "withdrawn"
    keeper.read(LeapTable().with_leap(OCTOBER, 1), "file")
    assert keeper.pending((OCTOBER - 600 + 37) * NS) == "+1 s at the end of 2026-09-30"


def test_leap_indicator_of_another_program_is_of_the_month() -> None:
    """SOCK and SHM carry the leap indicator only: in December it means the last day of December; in November nothing comes of it; cleared
    again, it is withdrawn."""
    keeper = LeapKeeper()
    keeper.indicated(A, Leap.INSERT, BEFORE)
    assert keeper.pending(BEFORE * NS) == "+1 s at the end of 2026-12-31"
    keeper.indicated(A, Leap.NORMAL, BEFORE + 1)
    assert keeper.pending(BEFORE * NS) == "none"
    keeper.indicated(A, Leap.DELETE, BEFORE - 30 * DAY_S)
    assert keeper.pending(BEFORE * NS) == "none"
    assert keeper.refused is not None


# ---- labels around a midnight ------------------------------------------------------------------------------------------------------


class Sky:
    """Receivers' labels against a perfect timescale. ``step_s``: the leap second that really ends 2026."""

    def __init__(self, step_s: int, table: LeapTable | None = None) -> None:
        self.keeper, self.step_s = LeapKeeper(), step_s
        if table is not None:
            self.keeper.read(table, "file")
        self.truth = LeapTable().with_leap(NEW_YEAR, step_s) if step_s else LeapTable()

    def named(self, second: int, step_s: int) -> int:
        """What is named ``second`` seconds after ``TAI_0`` by a receiver that takes a leap second of ``step_s``: 23:59:60 as 23:59:59."""
        table = LeapTable().with_leap(NEW_YEAR, step_s) if step_s else LeapTable()
        return table.tai_to_utc_ns(TAI_0 + second * NS)

    def heard(self, source: SourceId, second: int, utc_ns: int, late_ns: int = 120_000_000) -> int | None:
        tai_ns = TAI_0 + second * NS + late_ns
        self.keeper.watch(tai_ns)
        return self.keeper.heard(source, utc_ns, Instant(0, tai_ns), Present(0, 0, 0.0, 20_000.0), own=True)

    def run(self, first: int, last: int, step_s: int, *sources: SourceId, late_ns: int = 120_000_000) -> None:
        """Labels of the seconds from ``first`` to before ``last``, of receivers that take ``step_s``."""
        for second in range(first, last):
            for source in sources or (A,):
                self.heard(source, second, self.named(second, step_s), late_ns)

    def unsettled(self, second: float) -> bool:
        tai_ns = TAI_0 + round(second * NS)
        self.keeper.watch(tai_ns)
        return self.keeper.unsettled(tai_ns) is not None


@pytest.mark.parametrize("step_s", [-1, 0, 1])
def test_without_a_table_labels_after_midnight_settle_the_count(step_s: int) -> None:
    """Nothing is certain from 23:59:59 on, the second that a deletion leaves out; three labels after the second that may be 23:59:60 settle
    it, and the table in force follows, although nobody announced anything."""
    sky = Sky(step_s)
    sky.run(-200, -1, step_s)
    assert not sky.unsettled(-1.001)
    assert sky.unsettled(-1)
    sky.run(-1, 3, step_s)
    assert sky.unsettled(3)
    sky.run(3, 4, step_s)
    assert not sky.unsettled(3.2)
    assert sky.keeper.table == sky.truth


@pytest.mark.parametrize("step_s", [-1, 0, 1])
def test_a_valid_table_settles_it_before(step_s: int) -> None:
    """No second is withheld, whatever labels show or receivers announced; the labels are in doubt then, not the table."""
    table = LeapTable(expires_s=NEW_YEAR + DAY_S) if not step_s else LeapTable().with_leap(NEW_YEAR, step_s)
    for shown in (-1, 0, 1):
        sky = Sky(step_s, table)
        sky.keeper.notice(A, announced(1), NEW_YEAR - 900)
        for second in range(-200, 300):
            sky.run(second, second + 1, shown)
            assert not sky.unsettled(second + 0.3)
        assert sky.keeper.table == table


def test_an_expired_table_and_one_without_a_hash_settle_nothing() -> None:
    """They are as good as none for a midnight after their end."""
    for table in (LeapTable(expires_s=NEW_YEAR - DAY_S), LeapTable(expires_s=NEW_YEAR + DAY_S, hashed=False)):
        sky = Sky(0, table)
        sky.run(-200, 0, 0)
        assert sky.unsettled(0)


def test_announced_step_that_labels_refute_is_dropped() -> None:
    """It is in the table until then, so that it can be announced."""
    sky = Sky(0)
    sky.keeper.notice(A, announced(1), NEW_YEAR - 900)
    assert sky.keeper.announced(TAI_0 - 900 * NS) is Leap.INSERT
    sky.run(-200, 4, 0)
    assert not sky.unsettled(3.2)
    assert sky.keeper.table == LeapTable()
    sky.keeper.notice(A, announced(1), NEW_YEAR + 4)
    assert sky.keeper.table == LeapTable(), "it does not come back"


def test_stray_labels_settle_nothing() -> None:
    """One or two labels a second off after midnight are not enough; within the next minute they withhold the time until they are gone."""
    sky = Sky(0)
    sky.run(-200, 1, 0)
    sky.run(1, 3, 1)
    assert sky.unsettled(3)
    sky.run(3, 6, 0)
    assert not sky.unsettled(6)
    sky.run(20, 21, -1)
    assert sky.unsettled(20.5)
    sky.run(21, 24, 0)
    assert not sky.unsettled(24)
    assert sky.keeper.table == LeapTable()


def test_receiver_that_takes_it_late_withholds_the_time_then() -> None:
    """Within a minute of the midnight its step is the leap second, whenever it comes."""
    sky = Sky(1)
    sky.run(-200, 12, 0)
    sky.run(12, 13, 1)
    assert sky.unsettled(12.5)
    sky.run(13, 15, 1)
    assert not sky.unsettled(15)
    assert sky.keeper.table == sky.truth


def test_two_receivers_that_contradict_each_other_settle_nothing_and_three_do() -> None:
    """For as long as they do; people are told which says what."""
    sky = Sky(0)
    for second in range(-200, 100):
        sky.run(second, second + 1, 0, A)
        sky.run(second, second + 1, 1, B)
    told = sky.keeper.unsettled(TAI_0 + 100 * NS)
    assert told is not None
    assert "a counts none, b counts an inserted second" in told.words
    for second in range(100, 104):
        for source, step_s in ((A, 0), (B, 1), (C, 0)):
            sky.run(second, second + 1, step_s, source)
    assert not sky.unsettled(104)
    assert sky.keeper.table == LeapTable()


def test_without_labels_it_stays_unsettled_and_says_so() -> None:
    """A holdover over the midnight is not served; the first labels hours later settle it."""
    sky = Sky(1)
    sky.run(-900, -500, 1)
    assert sky.unsettled(7200)
    told = sky.keeper.unsettled(TAI_0 + 7200 * NS)
    assert told is not None
    assert (told.code, told.blocks) == (Code.LEAP_UNSETTLED, True)
    assert "waiting" in told.words
    sky.run(7200, 7203, 1)
    assert not sky.unsettled(7203)
    assert sky.keeper.table == sky.truth


@given(
    step_s=st.sampled_from([-1, 0, 1]),
    style=st.sampled_from(["59 twice", "00 twice", "18 s early", "as it is"]),
    late_ms=st.integers(-1000, 3000),
    jitter_ms=st.lists(st.integers(-120, 120), min_size=1, max_size=20),
    announced_s=st.sampled_from([-1, 0, 1]),
)
def test_any_receiver_shows_the_right_count(step_s: int, style: str, late_ms: int, jitter_ms: list[int], announced_s: int) -> None:
    """However late its messages are, whatever it does to the second and whatever was announced: settled within five seconds, rightly; and
    read with its own count, its labels always name the timescale's second."""
    sky = Sky(step_s)
    if announced_s:
        sky.keeper.notice(A, announced(announced_s), NEW_YEAR - 900)
    for second in range(-200, 30):
        utc_ns = sky.named(second, step_s)
        if style == "00 twice" and step_s == 1 and second == 0:
            utc_ns += NS
        if style == "18 s early" and -18 <= second < 0:
            utc_ns -= step_s * NS
        late_ns = (late_ms + jitter_ms[second % len(jitter_ms)]) * 1_000_000
        count_s = sky.heard(A, second, utc_ns, late_ns)
        if count_s is not None:
            assert utc_ns + count_s * NS == TAI_0 + second * NS
        if sky.keeper.unsettled(TAI_0 + second * NS + late_ns) is None and second > 1:
            assert sky.keeper.table == sky.truth
    assert not sky.unsettled(4 + max(0.0, late_ms / 1e3) + 0.13)


# ---- the table's own state ---------------------------------------------------------------------------------------------------------


def told(keeper: LeapKeeper, utc_s: int) -> dict[Code, str]:
    return {c.code: c.words for c in keeper.conditions((utc_s + 37) * NS)}


def test_refused_table_leaves_the_one_in_force() -> None:
    """The reason is told with what to do, until a good one is read."""
    keeper = LeapKeeper()
    keeper.read(VALID, "/file")
    assert not keeper.read(Condition(Code.LEAP_TABLE_DAMAGED, "its hash does not fit"), "/file")
    assert keeper.table == VALID
    words = told(keeper, BEFORE)[Code.LEAP_TABLE_DAMAGED]
    assert "/file" in words
    assert "its hash does not fit" in words
    assert "update tzdata" in words
    keeper.read(VALID, "/file")
    assert told(keeper, BEFORE) == {}


def test_expired_table_is_told_from_its_first_day() -> None:
    """With its date and what to do."""
    keeper = LeapKeeper()
    keeper.read(LeapTable(expires_s=BEFORE), "/file")
    assert told(keeper, BEFORE - 1) == {}
    words = told(keeper, BEFORE)[Code.LEAP_TABLE_EXPIRED]
    assert "2026-12-12" in words
    assert "update tzdata" in words


def test_table_is_compared_with_kernel_and_receivers() -> None:
    """A table with a right hash that contradicts them is told; one without a hash is refused."""
    keeper = LeapKeeper()
    keeper.read(VALID, "/file", BEFORE, 38)
    assert keeper.file == VALID
    assert "kernel says 38 s" in told(keeper, BEFORE)[Code.LEAP_TABLE_DAMAGED]
    keeper.read(VALID, "/file", BEFORE, 37)
    assert told(keeper, BEFORE) == {}
    keeper.read(LeapTable(hashed=False), "/other", BEFORE, 38)
    assert keeper.file_path == "/file"
    assert "not used" in told(keeper, BEFORE)[Code.LEAP_TABLE_DAMAGED]
    keeper.read(VALID, "/file", BEFORE)
    keeper.notice(A, announced(0, None, 38), BEFORE)
    assert "a says 38 s" in told(keeper, BEFORE)[Code.LEAP_TABLE_DAMAGED]
    keeper.notice(A, announced(0, None, None), BEFORE)
    assert told(keeper, BEFORE) == {}


# ---- the engine: finished samples, holdover, restart -------------------------------------------------------------------------------

RAW_0 = 50_000 * NS
"""Raw clock at ``TAI_0``."""
CONFIG = Config(clock=ClockConfig(not_before=date(2026, 1, 1), steer="kernel"), sources=(ShmSource(name="a", unit=0, bias_us=1.0),))


class Fed:
    """An engine that another program feeds by shared memory. ``step_s``: the leap second that really ends 2026."""

    def __init__(self, step_s: int, *, first: int = -100, resume: Record | None = None, table: LeapTable | None = None) -> None:
        self.truth = LeapTable().with_leap(NEW_YEAR, step_s) if step_s else LeapTable()
        self.record: Record | None = resume
        self.engine = Engine(CONFIG, Saved(), self.at(first), simulated=False, version="test", pid=0, resume=resume)
        self.take(self.engine.handle(LeapFileRead(table or LeapTable(), "file", self.at(first))))

    def at(self, second: float) -> Instant:
        return Instant(TAI_0 - 37 * NS + round(second * NS), RAW_0 + round(second * NS))

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Publish):
                self.record = effect.record

    def run(self, first: int, last: int, *, fed: bool = True, leap: Leap = Leap.NORMAL) -> None:
        """Seconds from ``first`` to before ``last``: a sample and a tick in each, and what is served held against the truth."""
        for second in range(first, last):
            now = self.at(second + 0.1)
            if fed:
                offset_ns = self.truth.tai_to_utc_ns(TAI_0 + second * NS + NS // 10) - now.real_ns
                self.take(self.engine.handle(Sampled(A, ForeignSample(now, offset_ns, leap=leap), now)))
            self.take(self.engine.handle(Ticked(self.at(second + 0.5))))
            for into in (0.05, 0.15, 0.55, 0.99):
                self.check(second + into)

    def check(self, second: float) -> None:
        """What the server answers is right, or leap 3."""
        if self.served(second):
            assert self.record is not None
            passed = self.record.leap_step_s if TAI_0 + second * NS >= self.record.leap_tai_ns else 0
            tai_ns = TAI_0 + round(second * NS)
            assert tai_ns - (self.record.tai_offset_s + passed) * NS == self.truth.tai_to_utc_ns(tai_ns)

    def served(self, second: float) -> bool:
        record = self.record
        return record is not None and record.stratum > 0 and self.at(second).mono_ns <= record.valid_until_raw_ns

    def snapshot(self, second: float) -> Snapshot:
        return self.engine.snapshot(self.at(second))


@pytest.mark.parametrize("leap", [Leap.NORMAL, Leap.INSERT, Leap.DELETE])
@pytest.mark.parametrize("step_s", [-1, 0, 1])
def test_finished_samples_settle_the_count(step_s: int, leap: Leap) -> None:
    """Never a wrong second, whatever the program announced, and served again within five seconds of the midnight."""
    fed = Fed(step_s)
    fed.run(-100, -2, leap=leap)
    assert fed.engine.mode is Mode.TRACK
    assert fed.served(-1.01)
    fed.run(-2, 100)
    assert fed.engine.mode is Mode.TRACK
    assert fed.served(100)
    assert fed.snapshot(100).tai_offset_s == 37 + step_s


def test_holdover_is_not_served_over_the_midnight() -> None:
    """The record itself ends there, so the server stops although the clock process may be gone; status says why; labels settle it."""
    fed = Fed(1)
    fed.run(-100, -40)
    assert fed.served(-1.01)
    assert not fed.served(-1)
    fed.run(-40, 60, fed=False)
    assert not fed.served(60)
    assert fed.snapshot(60).has(Code.LEAP_UNSETTLED) is not None
    assert "leap second" in fed.snapshot(60).why
    fed.run(60, 100)
    assert fed.served(100)


def test_a_valid_table_keeps_it_served() -> None:
    """In holdover as well."""
    for table in (VALID, LeapTable().with_leap(NEW_YEAR, 1)):
        fed = Fed(table.step_s(NEW_YEAR), table=table)
        fed.run(-100, -40)
        fed.run(-40, 60, fed=False)
        assert fed.served(-0.5)
        assert fed.served(0.5)
        assert fed.served(60)


def test_a_count_that_labels_have_shown_outlives_a_restart() -> None:
    """The next run of this boot resumes TAI and TAI-UTC alike; an expired table does not undo it."""
    for restart in (60, 2 * DAY_S):
        fed = Fed(1)
        fed.run(-100, 20)
        fed.run(restart - 40, restart)
        again = Fed(1, first=restart, resume=fed.record, table=LeapTable(expires_s=NEW_YEAR - DAY_S))
        again.check(restart)
        again.run(restart, restart + 60)
        assert again.snapshot(restart + 60).tai_offset_s == 38
        assert again.served(restart + 60)
