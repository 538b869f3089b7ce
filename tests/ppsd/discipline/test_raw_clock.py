"""Voices: which moves of pulses and labels are the raw clock's, and which the receiver's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ppsd.discipline.raw_clock import Voices
from refclock.sample import NS
from refclock.timing.evidence import STEADY_S
from refclock.timing.pairing import Present

TAI0 = 1_800_000_000 * NS
PRESENT = Present(0, TAI0, 0.0, 20_000.0)
DELAY_S = 0.12


def heard(voices: Voices, k: int, *, labels_s: float = 0.0, pulse_s: float | None = 0.0, names: int = 0, own: bool = False) -> None:
    """Second ``k`` as the served time counts it: an edge and a label, moved by so much against it (positive: late). ``names``: seconds by
    which the named one is more than the count. ``pulse_s`` None: no edge."""
    if pulse_s is not None:
        voices.edge(round((k + pulse_s) * NS), NS, PRESENT)
    voices.label(round((k + names + labels_s + DELAY_S) * NS), TAI0 + (k + names) * NS, PRESENT, own)


def settled(**how: bool | None) -> Voices:
    voices = Voices()
    for k in range(20):
        heard(voices, k, **how)  # type: ignore[arg-type]
    return voices


@given(st.floats(0.15, 0.85), st.integers(-130, 130))
def test_both_voices_that_move_by_the_same_show_the_raw_clock(part_s: float, whole_s: int) -> None:
    """Any move that is no whole number of seconds: a doubt with the first edge and label, a finding with the second."""
    moved_s = whole_s + part_s
    voices = settled()
    for k in range(20, 23):
        assert voices.moved_ns is None or k > 21
        voices.edge(round((k + part_s) * NS), NS, PRESENT)
        voices.label(round((k + part_s + DELAY_S) * NS), TAI0 + round((k - whole_s) * NS), PRESENT, own=False)
        assert voices.moving
    assert voices.moved_ns is not None
    assert abs(voices.moved_ns - moved_s * NS) < 1000


@given(st.floats(0.1, 3.0), st.integers(1, 60))
def test_late_labels_beside_pulses_in_place_are_the_lines_fault(late_s: float, count: int) -> None:
    """A line that delays its messages by anything, for any time, says nothing of the raw clock."""
    voices = settled()
    for k in range(20, 20 + count):
        heard(voices, k, labels_s=late_s)
        assert not voices.moving


@given(st.floats(0.15, 0.85))
def test_another_edge_is_the_pulses_fault(off_s: float) -> None:
    """Pulses that move alone, labels in place: another edge, another device."""
    voices = settled()
    for k in range(20, 40):
        heard(voices, k, pulse_s=off_s)
        assert not voices.moving
    assert voices.unclear_ns == 0.0


def test_a_small_move_of_the_pulses_is_unclear() -> None:
    """30 ms are within what messages jitter by: another edge, or a short pause. The caller covers both."""
    voices = settled()
    for k in range(20, 23):
        heard(voices, k, pulse_s=0.03)
    assert round(voices.unclear_ns / 1e6) == 30
    heard(voices, 23)
    assert voices.unclear_ns == 0.0


def test_another_leap_count_leaves_a_second_out() -> None:
    """Labels that are a whole second early with pulses in place: a second left out is another leap count; one after the other, too fast, is
    a clock that stood still."""
    flipped, stood = settled(), settled()
    for k in range(20, 30):
        heard(flipped, k, labels_s=-1.0, names=1)
        assert not flipped.moving
    stood.label(round(19.6 * NS), TAI0 + 20 * NS, PRESENT, own=False)
    for k in range(20, 24):
        heard(stood, k, labels_s=-1.0, names=1)
    assert stood.moved_ns == -NS


def test_early_labels_without_pulses_show_that_the_clock_stood_still() -> None:
    """Nothing makes labels early. Whole seconds may be another leap count: then the labels are not trusted as before. Late ones prove
    nothing, however long they come."""
    for moved_s, names, trusted in ((-2.5, 0, True), (-2.0, 2, False), (2.5, 0, False)):
        voices = settled(own=True, pulse_s=None)
        for k in range(20, 22):
            heard(voices, k, labels_s=moved_s, names=names, own=True, pulse_s=None)
        assert voices.moving
        assert voices.trusted is trusted
        for k in range(22, 100):
            heard(voices, k, labels_s=moved_s, names=names, own=True, pulse_s=None)
        assert (voices.moved_ns is not None) is (moved_s < 0)


def test_one_stray_of_each_ends_as_it_came() -> None:
    """A stray edge and a late message that fit by chance: doubted for a second."""
    voices = settled()
    heard(voices, 20, labels_s=0.3, pulse_s=0.3)
    assert voices.moving
    assert voices.moved_ns is None
    heard(voices, 21)
    assert not voices.moving


def test_early_labels_against_pulses_in_place_are_doubted_and_not_followed() -> None:
    """Labels 20 minutes early while pulses keep their place to 0.1 ms: a wrong time of day, or by chance a stop of whole seconds. It is
    doubted at once, and followed only after labels have been steady for 13 minutes, and not as before."""
    voices = settled()
    for k in range(20, 22):
        heard(voices, k, labels_s=-1200.0, names=1200)
    assert voices.moving
    for k in range(22, 20 + STEADY_S):
        heard(voices, k, labels_s=-1200.0, names=1200)
        assert voices.moved_ns is None
    for k in range(20 + STEADY_S, 24 + STEADY_S):
        heard(voices, k, labels_s=-1200.0, names=1200)
    assert voices.moved_ns == -1200 * NS
    assert not voices.trusted
    heard(voices, 30 + STEADY_S)
    assert not voices.moving
