"""Trust: when a receiver's seconds may be believed."""

from __future__ import annotations

from refclock.condition import Code, obstacle
from refclock.sample import NS, Instant, LeapNotice, SecondLabel
from refclock.timing.trust import STEADY_S, Belief, SecondTrust

UTC_S = 1_798_718_400  # 2026-12-31
MIDNIGHT = UTC_S + 86_400


def label(named_s: float, mono_s: float, real_s: float = 0.0, known: bool = False, second_60: bool = False) -> SecondLabel:
    at = Instant(round(real_s * NS), round(mono_s * NS))
    return SecondLabel(round(named_s * NS), at, "RMC", second_60, known)


def run(trust: SecondTrust, first: int, last: int, *, offset_s: int = 0, known: bool = False, clock: float | None = None) -> list[Belief]:
    """One label a second, 0.2 s late, with mono = seconds since UTC_S; ``clock``: what the system clock is ahead by."""
    real = (lambda i: 0.0) if clock is None else (lambda i: UTC_S + i + 0.2 + clock)
    return [judge(trust, label(UTC_S + i + offset_s, i + 0.2, real(i), known)) for i in range(first, last)]


def judge(trust: SecondTrust, named: SecondLabel) -> Belief:
    """With 37 s between TAI and UTC."""
    return trust.judge(named, named.utc_ns + 37 * NS)


def test_steady_fix_counts_down() -> None:
    """Without any confirmation trust comes after 780 s of steady fix, and the wait is told."""
    trust = SecondTrust(system_clock=False)
    verdicts = run(trust, 0, STEADY_S + 5)
    assert [v.trusted for v in verdicts] == [False] * STEADY_S + [True] * 5
    assert verdicts[212].doubt == obstacle(Code.LEAP_COUNT_UNKNOWN, verdicts[212].why)
    assert verdicts[212].why == "leap count not known yet: 212 of 780 s of steady fix"
    assert verdicts[212].held_s == STEADY_S - 212
    assert trust.held_s == 0


def test_receiver_states_its_leap_count() -> None:
    """UBX labels that know it are trusted at once, and so are NMEA labels on the same seconds after them."""
    trust = SecondTrust(system_clock=False)
    assert all(v.trusted for v in run(trust, 0, 3, known=True))
    assert all(v.trusted for v in run(trust, 3, 9))


def test_leap_notice_confirms_only_with_a_count() -> None:
    """A notice with TAI-UTC confirms the seconds named now, one without does not."""
    trust = SecondTrust(system_clock=False)
    run(trust, 0, 3)
    trust.notice(LeapNotice(None, 0, None, Instant(0, 3 * NS)))
    assert not run(trust, 3, 4)[0].trusted
    trust.notice(LeapNotice(37, 0, None, Instant(0, 4 * NS)))
    assert run(trust, 4, 5)[0] == Belief("receiver states its leap count")


def test_system_clock_confirms_the_right_second_only() -> None:
    """A kept clock confirms within its window; a receiver 1, 2, 3 s off is not confirmed, nor is anything by a clock nobody keeps."""
    assert run(SecondTrust(True), 0, 2, clock=0.05)[0].why == "system clock agrees within 0.25 s"
    for offset in (-3, -2, -1, 1, 2, 3):
        assert not any(v.trusted for v in run(SecondTrust(True), 0, 20, offset_s=offset, clock=0.0))
    assert not run(SecondTrust(False), 0, 2, clock=0.0)[0].trusted


def test_step_of_whole_seconds_begins_anew() -> None:
    """The leap trap: 3 s ahead with a fix, even for long; at the step trust is gone and must be earned again."""
    trust = SecondTrust(system_clock=False)
    assert run(trust, 0, 800, offset_s=3)[-1].trusted
    after = run(trust, 800, 800 + STEADY_S + 5)
    assert not any(v.trusted for v in after[:STEADY_S])
    assert "moved by -3.0 s" in after[0].why
    assert after[-1].trusted


def test_single_stray_label_is_refused_and_forgotten() -> None:
    """One label a second off (a torn burst, a stalled host) is not believed, and costs nothing."""
    trust = SecondTrust(system_clock=False)
    run(trust, 0, 800)
    assert not run(trust, 800, 801, offset_s=-1)[0].trusted
    assert run(trust, 801, 802)[0].trusted


def test_silence_then_the_same_seconds() -> None:
    """After a pause three labels in the old place restore trust; in another place, or after an hour, it is earned again."""
    for pause, offset, back in ((60, 0, True), (60, 2, False), (3600, 0, False)):
        trust = SecondTrust(system_clock=False)
        run(trust, 0, 800)
        verdicts = run(trust, 800 + pause, 810 + pause, offset_s=offset)
        assert not verdicts[0].trusted
        assert verdicts[-1].trusted is back


def test_short_gap_is_no_silence() -> None:
    """Labels missing for less than the gap change nothing."""
    trust = SecondTrust(system_clock=False)
    run(trust, 0, 800)
    assert run(trust, 809, 810)[0].trusted


def test_other_source_confirms() -> None:
    """Somebody vouches: trusted with that reason; a receiver that said nothing cannot be vouched for."""
    trust = SecondTrust(system_clock=False)
    trust.confirm("NTP server agrees")
    assert not run(trust, 0, 1)[0].trusted
    trust.confirm("NTP server agrees")
    assert run(trust, 1, 2)[0] == Belief("NTP server agrees")


def test_leap_second_is_no_step() -> None:
    """Through a leap second trust is kept, whatever the receiver does to its UTC, when its labels are read with the right TAI-UTC."""
    for step in (1, -1):
        trust = SecondTrust(system_clock=False)
        for i in range(-900, 20):
            named = label(MIDNIGHT + i - (step if i >= 0 else 0), i)
            belief = trust.judge(named, (MIDNIGHT + i + 37) * NS)
        assert belief.trusted


def test_jitter_and_a_poor_oscillator_are_no_steps() -> None:
    """Labels that wander by ±0.3 s on an oscillator 200 ppm off stay steady for hours."""
    trust = SecondTrust(system_clock=False)
    verdicts = [judge(trust, label(UTC_S + i, i * 1.0002 + (0.3 if i % 3 else -0.3))) for i in range(8000)]
    assert all(v.trusted for v in verdicts[800:])


def test_receiver_that_denies_its_count_is_taken_at_its_word() -> None:
    """A system clock that agrees counts for nothing while the receiver says that its leap count is not known."""
    trust = SecondTrust(system_clock=True)
    at = Instant(UTC_S * NS + 100_000_000, 10 * NS)
    trust.notice(LeapNotice(None, 0, None, at))
    verdict = judge(trust, SecondLabel(UTC_S * NS, at, "RMC"))
    assert not verdict.trusted
    assert "does not know" in verdict.why
    trust.notice(LeapNotice(37, 0, None, at))
    assert judge(trust, SecondLabel((UTC_S + 1) * NS, Instant((UTC_S + 1) * NS + 100_000_000, 11 * NS), "RMC")).trusted
