"""Evidence: when a receiver's seconds may be believed, and what may overrule what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refclock.condition import Code, obstacle
from refclock.sample import NS, Instant, LabelDoubt, LeapNotice, SecondLabel
from refclock.timescales import LeapTable
from refclock.timing.evidence import STEADY_S, Belief, Evidence, Rank, Witness, explain

UTC_S = 1_798_718_400  # 2026-12-31
MIDNIGHT = UTC_S + 86_400


def label(named_s: float, mono_s: float, real_s: float = 0.0, known: bool = False, second_60: bool = False) -> SecondLabel:
    at = Instant(round(real_s * NS), round(mono_s * NS))
    return SecondLabel(round(named_s * NS), at, "RMC", second_60, known)


def judge(evidence: Evidence, said: SecondLabel, table: LeapTable | None = None) -> Belief:
    return evidence.judge(said, (table or LeapTable()).utc_to_tai_ns(said.utc_ns, said.second_60))


def run(evidence: Evidence, first: int, last: int, *, offset_s: int = 0, known: bool = False, clock: float | None = None) -> list[Belief]:
    """One label a second, 0.2 s late, with mono = seconds since UTC_S; ``clock``: what the system clock is ahead by."""
    real = (lambda i: 0.0) if clock is None else (lambda i: UTC_S + i + 0.2 + clock)
    return [judge(evidence, label(UTC_S + i + offset_s, i + 0.2, real(i), known)) for i in range(first, last)]


def test_steady_fix_counts_down() -> None:
    """Without any confirmation trust comes after 780 s of steady fix, and the wait is told."""
    evidence = Evidence(unkept_clock=False)
    verdicts = run(evidence, 0, STEADY_S + 5)
    assert [v.trusted for v in verdicts] == [False] * STEADY_S + [True] * 5
    assert verdicts[212].doubt == obstacle(Code.LEAP_COUNT_UNKNOWN, verdicts[212].why)
    assert verdicts[212].why == "leap count not known yet: 212 of 780 s of steady fix"
    assert verdicts[212].held_s == STEADY_S - 212
    assert evidence.held_s == 0


def test_receiver_states_its_leap_count() -> None:
    """UBX labels that know it are trusted at once, and so are NMEA labels on the same seconds after them."""
    evidence = Evidence(unkept_clock=False)
    assert all(v.trusted for v in run(evidence, 0, 3, known=True))
    assert all(v.trusted for v in run(evidence, 3, 9))


def test_leap_notice_confirms_only_with_a_count() -> None:
    """A notice with TAI-UTC confirms the seconds named now, one without does not."""
    evidence = Evidence(unkept_clock=False)
    run(evidence, 0, 3)
    evidence.notice(LeapNotice(None, 0, None, Instant(0, 3 * NS)))
    assert not run(evidence, 3, 4)[0].trusted
    evidence.notice(LeapNotice(37, 0, None, Instant(0, 4 * NS)))
    assert run(evidence, 4, 5)[0] == Belief("receiver states its leap count", rank=Rank.COUNT)


def test_system_clock_confirms_the_right_second_only() -> None:
    """A kept clock confirms within its window; a receiver 1, 2, 3 s off is not confirmed, nor is anything by a clock nobody keeps."""
    assert run(Evidence(), 0, 2, clock=0.05)[0].why == "system clock agrees within 0.25 s"
    for offset in (-3, -2, -1, 1, 2, 3):
        assert not any(v.trusted for v in run(Evidence(), 0, 20, offset_s=offset, clock=0.0))
    assert not run(Evidence(unkept_clock=False), 0, 2, clock=0.0)[0].trusted


def test_step_of_whole_seconds_begins_anew() -> None:
    """The leap trap: 3 s ahead with a fix, even for long; at the step trust is gone and must be earned again."""
    evidence = Evidence(unkept_clock=False)
    assert run(evidence, 0, 800, offset_s=3)[-1].trusted
    after = run(evidence, 800, 800 + STEADY_S + 5)
    assert not any(v.trusted for v in after[:STEADY_S])
    assert "moved by -3.0 s" in after[0].why
    assert after[-1].trusted


def test_single_stray_label_is_refused_and_forgotten() -> None:
    """One label a second off (a torn burst, a stalled host) is not believed, and costs nothing."""
    evidence = Evidence(unkept_clock=False)
    run(evidence, 0, 800)
    assert not run(evidence, 800, 801, offset_s=-1)[0].trusted
    assert run(evidence, 801, 802)[0].trusted


def test_silence_then_the_same_seconds() -> None:
    """After a pause three labels in the old place restore trust; in another place, or after an hour, it is earned again."""
    for pause, offset, back in ((60, 0, True), (60, 2, False), (3600, 0, False)):
        evidence = Evidence(unkept_clock=False)
        run(evidence, 0, 800)
        verdicts = run(evidence, 800 + pause, 810 + pause, offset_s=offset)
        assert not verdicts[0].trusted
        assert verdicts[-1].trusted is back


def test_short_gap_is_no_silence() -> None:
    """Labels missing for less than the gap change nothing."""
    evidence = Evidence(unkept_clock=False)
    run(evidence, 0, 800)
    assert run(evidence, 809, 810)[0].trusted


def test_known_leap_second_is_no_step() -> None:
    """Through a leap second that the table knows, inserted or deleted, trust is kept; through one that it does not know it is lost."""
    for step, known in ((1, True), (-1, True), (1, False), (-1, False)):
        evidence = Evidence(unkept_clock=False)
        truth = LeapTable().with_leap(MIDNIGHT, step)
        table = truth if known else LeapTable()
        tai_s = truth.utc_to_tai_ns(MIDNIGHT * NS) // NS
        verdicts = []
        for i in range(-900, 20):
            utc_s = truth.tai_to_utc_ns((tai_s + i) * NS) // NS
            verdicts.append(judge(evidence, label(utc_s, i, second_60=step > 0 and i == -1), table))
        assert all(v.trusted for v in verdicts[-15:]) is known


def test_jitter_and_a_poor_oscillator_are_no_steps() -> None:
    """Labels that wander by ±0.3 s on an oscillator 200 ppm off stay steady for hours."""
    evidence = Evidence(unkept_clock=False)
    verdicts = [judge(evidence, label(UTC_S + i, i * 1.0002 + (0.3 if i % 3 else -0.3))) for i in range(8000)]
    assert all(v.trusted for v in verdicts[800:])


def test_receiver_that_denies_its_count_is_taken_at_its_word() -> None:
    """A system clock that agrees counts for nothing while the receiver says that its leap count is not known."""
    evidence = Evidence()
    at = Instant(UTC_S * NS + 100_000_000, 10 * NS)
    evidence.notice(LeapNotice(None, 0, None, at))
    verdict = judge(evidence, SecondLabel(UTC_S * NS, at, "RMC"))
    assert not verdict.trusted
    assert "does not know" in verdict.why
    evidence.notice(LeapNotice(37, 0, None, at))
    assert judge(evidence, SecondLabel((UTC_S + 1) * NS, Instant((UTC_S + 1) * NS + 100_000_000, 11 * NS), "RMC")).trusted


# ---- beside other witnesses ----------------------------------------------------------------------------------------------------------


def beside(evidence: Evidence, k: int, late_s: float, served: Rank | None, clock_s: float | None = None) -> Belief:
    """The label of second ``k`` comes ``late_s`` after it, beside a timescale of that rank and a kept clock that is ``clock_s`` ahead."""
    at_ns = round((k + late_s) * NS)
    tai_ns = LeapTable().utc_to_tai_ns(UTC_S * NS + at_ns)
    return evidence.judge(
        SecondLabel((UTC_S + k) * NS, Instant(0, at_ns), "RMC"),
        LeapTable().utc_to_tai_ns((UTC_S + k) * NS),
        kept=None if clock_s is None else Witness(tai_ns + round(clock_s * NS), 50e6),
        served=None if served is None else Witness(tai_ns, 1000.0, served),
        usual_ns=200e6,
    )


@given(st.floats(-1.0, 3.0), st.floats(-0.04, 0.04))
def test_a_kept_clock_explains_any_delay(late_s: float, clock_s: float) -> None:
    """Labels that come up to 1 s before their second or 3 s after it are explained by their delay where a kept clock says so."""
    belief = beside(Evidence(unkept_clock=False), 0, late_s, None, clock_s)
    assert belief.trusted
    assert belief.rank is Rank.KEPT


@given(st.one_of(st.floats(-5e6, -1.2), st.floats(3.2, 5e6)), st.integers(800, 3000))
def test_steadiness_never_overrules_a_kept_clock(late_s: float, until: int) -> None:
    """Labels that nothing explains are refused for ever while a kept clock contradicts them, with the reason."""
    evidence = Evidence(unkept_clock=False)
    for k in range(0, until, 5):
        belief = beside(evidence, k, late_s, None, 0.0)
        assert belief.doubt is not None
        assert belief.doubt.code is Code.CLOCK_CONTRADICTS


@pytest.mark.parametrize(
    ("late_s", "cause"),
    [(-1.9, "leap count"), (-7200.0, "local time"), (-137 * 86400.0, "date"), (86400.2, "date"), (19800.1, "local time")],
)
def test_the_cheapest_cause_is_told(late_s: float, cause: str) -> None:
    """People are told the fault that makes exactly this pattern."""
    assert cause in beside(Evidence(), 0, late_s, None, 0.0).why


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=400), st.sampled_from([Rank.AGREEMENT, Rank.COUNT, Rank.KEPT]))
def test_labels_never_end_a_founded_second(lates: list[float], rank: Rank) -> None:
    """A second that more than steadiness has named stands against labels that come anyhow, as long as their leap count is not stated."""
    evidence = Evidence(unkept_clock=False)
    for k, late_s in enumerate(lates):
        belief = beside(evidence, 5 * k, late_s, rank)
        assert belief.trusted is (evidence.dispute is None)
        if evidence.dispute is not None:
            assert not evidence.dispute.overrules(rank)
            assert not evidence.dispute.unsettles(rank)


def disputed(late_s: float, served: Rank, *, counted: bool = False, clock_s: float | None = None) -> Evidence:
    """Ten labels in time, then ten that come ``late_s`` after their second."""
    evidence = Evidence(unkept_clock=False)
    for k in range(10):
        beside(evidence, k, 0.2, served)
    if counted:
        evidence.notice(LeapNotice(37, 0, None, Instant(0, 10 * NS)))
    for k in range(10, 20):
        beside(evidence, k, late_s, served, clock_s)
    return evidence


def test_whole_seconds_unsettle_what_rests_on_steadiness_alone() -> None:
    """Either count may be right; a delay of no whole number of seconds unsettles nothing."""
    for late_s, unsettled in ((1.2, True), (-0.8, True), (-2.8, True), (1.05, False), (2.7, False), (-0.5, False)):
        dispute = disputed(late_s, Rank.STEADINESS).dispute
        assert dispute is not None
        assert dispute.unsettles(Rank.STEADINESS) is unsettled
        assert not dispute.overrules(Rank.STEADINESS)


def test_a_leap_count_from_the_sky_overrules_less_and_no_more() -> None:
    """A count that is learned after 13 minutes and more corrects what steadiness or a clock that nobody keeps had named."""
    for served, overruled in ((Rank.STEADINESS, True), (Rank.AGREEMENT, True), (Rank.COUNT, False), (Rank.KEPT, False)):
        dispute = disputed(3.2, served, counted=True).dispute
        assert dispute is not None
        assert dispute.overrules(served) is overruled


def test_labels_that_creep_behind_are_late() -> None:
    """A saturated line: labels fall behind by 10 ms a second, also past whole seconds; nothing is unsettled."""
    evidence = Evidence(unkept_clock=False)
    for k in range(400):
        beside(evidence, k, 0.2 + 0.01 * k, Rank.STEADINESS)
        assert evidence.dispute is None or not evidence.dispute.unsettles(Rank.STEADINESS)
    assert evidence.dispute is not None
    assert "raise the speed" in explain(evidence.dispute)


def test_a_doubtful_label_needs_a_witness() -> None:
    """Of two talkers the one that a kept clock or the served time confirms is used; without a witness neither is, however long."""
    codes = (Code.TWO_TALKERS, Code.LABELS_DISAGREE, Code.LABELS_REFUSED)
    for doubt, code in zip((LabelDoubt.RIVAL_TALKER, LabelDoubt.RIVAL_SENTENCE, LabelDoubt.FIX_UNSTATED), codes, strict=True):
        evidence = Evidence()
        for k in range(900):
            at = Instant((UTC_S + k) * NS + 100_000_000, k * NS + 100_000_000)
            tai_ns = LeapTable().utc_to_tai_ns((UTC_S + k) * NS)
            said = SecondLabel((UTC_S + k) * NS, at, "ZDA", talker="GP", doubt=doubt)
            belief = evidence.judge(said, tai_ns)
            assert belief.doubt is not None
            assert belief.doubt.code is code
        right = Witness(tai_ns + 100_000_000, 50e6)
        assert evidence.judge(said, tai_ns, kept=right).trusted
        assert evidence.judge(said, tai_ns, served=right).trusted
        assert not evidence.judge(said, tai_ns + NS, kept=right, served=right).trusted


def test_the_raw_clock_may_jump_under_a_trusted_receiver() -> None:
    """What was known of the receiver holds when the raw clock paused, and a step of its own after that counts again."""
    evidence = Evidence(unkept_clock=False)
    run(evidence, 0, 800)
    evidence.raw_clock_jumped(since_ns=0)
    assert run(evidence, 803, 806, offset_s=2)[-1].trusted
    assert not run(evidence, 806, 809)[-1].trusted


def test_a_count_that_a_valid_table_contradicts_confirms_nothing() -> None:
    """A receiver that counts with an old TAI-UTC is not believed, however steady; the reason names both counts."""
    evidence = Evidence()
    evidence.notice(LeapNotice(36, 0, None, Instant(0, 0)), table_s=37)
    beliefs = run(evidence, 0, STEADY_S + 5, offset_s=1, clock=1.0, known=True)
    assert not any(b.trusted for b in beliefs)
    assert "TAI-UTC = 36 s, and a valid leap second table says 37 s" in beliefs[-1].why
    evidence.notice(LeapNotice(37, 0, None, Instant(0, 0)), table_s=37)
    assert run(evidence, STEADY_S + 5, STEADY_S + 8, offset_s=1)[-1].rank is Rank.COUNT
