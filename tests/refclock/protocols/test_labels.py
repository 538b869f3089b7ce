"""The gate: which of the statements on a line are labels, which are in doubt, and which are none."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from refclock.protocols.labels import LabelGate, Reject, second_of
from refclock.sample import NS, Instant, LabelDoubt, LabelProtocol, SecondLabel

UTC0 = 1_800_000_000
DAY = 86_400


def label(named_s: float, at_s: float, kind: str = "GPRMC") -> SecondLabel:
    """``kind``: talker and sentence, or a UBX message."""
    at = Instant(0, round((1000 + at_s) * NS))
    named = SecondLabel(round((UTC0 + named_s) * NS), at, kind[2:], talker=kind[:2])
    return replace(named, sentence=kind, talker="", protocol=LabelProtocol.UBX) if kind.startswith("NAV") else named


Said = tuple[float, float, str]
"""Seconds of the arrival, the second named, and by whom."""


def run(said: list[Said], gate: LabelGate | None = None) -> list[tuple[Said, SecondLabel | Reject]]:
    """What the gate makes of statements, in the order of their arrival; a silence of 0.2 s begins a burst."""
    gate, out, before = gate or LabelGate(), [], -9.0
    for at_s, named_s, kind in sorted(said):
        if at_s - before > 0.2:
            gate.burst(round((1000 + at_s) * NS))
        before = at_s
        one = label(named_s, at_s, kind)
        out.append(((at_s, named_s, kind), gate.offer(one, one.at.mono_ns)))
    return out


def passed(out: list[tuple[Said, SecondLabel | Reject]], kind: str = "") -> list[tuple[float, LabelDoubt | None]]:
    """(Second named, doubt) of the labels that were let through, of one ``kind`` or of all."""
    return [((said[1]), got.doubt) for said, got in out if not isinstance(got, Reject) and said[2].startswith(kind)]


def test_a_second_that_stands_still_is_one_label_at_most() -> None:
    """A frozen sentence: the first may pass, for nothing tells it yet; no other ever does."""
    out = run([(k + 0.1, 5.0, "GPRMC") for k in range(500)])
    assert passed(out) == [(5.0, None)]
    assert [got for _said, got in out[3:]] == [Reject.FROZEN] * 497


def test_a_frozen_sentence_of_the_same_kind_resets_no_vote() -> None:
    """The date has really changed, and a frozen sentence of the same talker comes between each two that say so: the third is taken."""
    moving = [(k + 0.15, float(k + (400 * DAY if k > 5 else 0)), "GPRMC") for k in range(12)]
    frozen = [(k + 0.05, -9000.0 * DAY, "GPRMC") for k in range(12)]
    named = [s - 400 * DAY for s, _doubt in passed(run([*moving, *frozen])) if s > DAY]
    assert named[0] <= 9


def test_a_sentence_that_is_repeated_for_ever_is_never_taken_again() -> None:
    """An hour old second beside the moving ones of the same talker: one stray at most, and none later."""
    out = run([said for k in range(300) for said in ((k + 0.05, -3600.0, "GPRMC"), (k + 0.15, float(k), "GPRMC"))])
    assert [s for s, _doubt in passed(out)].count(-3600.0) == 1
    assert [s for s, _doubt in passed(out) if s >= 0] == [float(k) for k in range(300)]


def test_a_frozen_sentence_ends_the_dispute_that_it_began() -> None:
    """ZDA stands still beside RMC: after two seconds RMC names every second, without a doubt."""
    out = run([said for k in range(20) for said in ((k + 0.1, float(k), "GPRMC"), (k + 0.15, 4000.0, "GPZDA"))])
    assert passed(out, "GPRMC")[-18:] == [(float(k), None) for k in range(2, 20)]


def test_two_talkers_that_agree_are_no_dispute() -> None:
    """GP and GN of one receiver: one label a second, from the first."""
    out = run([said for k in range(9) for said in ((k + 0.1, float(k), "GPZDA"), (k + 0.15, float(k), "GNRMC"))])
    assert passed(out) == [(float(k), None) for k in range(9)]


@given(
    st.sampled_from([-86_400, -3, -2, -1, 1, 2, 3, 86_400 * 7000]),
    st.floats(0.02, 0.3),
    st.floats(0.02, 0.3),
    st.sampled_from(["GNRMC", "IIZDA", "GNZDA"]),
)
def test_of_two_talkers_neither_wins_unmarked(off_s: int, right_s: float, other_s: float, other: str) -> None:
    """Two talkers within 0.3 s of each other name different seconds: from the second cycle on each has one label a second at most, and all
    are marked."""
    said: list[Said] = []
    for k in range(12):
        said += [(k + right_s, float(k), "GPRMC"), (k + right_s + 0.001, float(k), "GPZDA"), (k + other_s, float(k + off_s), other)]
    out = run(said)
    later = [(entry, got) for entry, got in out if entry[0] > 1 and not isinstance(got, Reject)]
    assert {got.doubt for _said, got in later} == {LabelDoubt.RIVAL_TALKER}
    for talker in ("GP", other[:2]):
        seconds = [second_of(got) for _said, got in later if got.talker == talker]
        assert len(seconds) == len(set(seconds)) >= 10
        assert {got.talker for _said, got in later} == {"GP", other[:2]}


def test_a_dispute_between_talkers_ends_when_one_falls_silent() -> None:
    """The other talker's last word counts for 5 s, the contradiction for 10 s more: then labels are used without a doubt."""
    said: list[Said] = [(k + 0.1, float(k), "GPRMC") for k in range(40)]
    out = run([*said, *[(k + 0.2, k + 3.0, "GNRMC") for k in range(10)]])
    doubts = [doubt for _s, doubt in passed(out, "GPRMC")]
    assert doubts[5:10] == [LabelDoubt.RIVAL_TALKER] * 5
    assert doubts[25:] == [None] * 15


def test_two_devices_under_one_name_are_told_apart() -> None:
    """Two RMC of GP, 3 s apart, each going on: both are marked from the third second on."""
    out = run([said for k in range(12) for said in ((k + 0.1, float(k), "GPRMC"), (k + 0.2, k - 3.0, "GPRMC"))])
    assert {got.doubt for said, got in out if said[0] > 2 and not isinstance(got, Reject)} == {LabelDoubt.RIVAL_TALKER}
    assert len(passed(out)) >= 20


@given(st.lists(st.floats(0.0, 2.9), min_size=30, max_size=30), st.booleans())
def test_a_line_that_delays_is_no_second_talker(delays: list[float], zda: bool) -> None:
    """Labels late by 0 to 3 s, each differently, in their order: never a rival, each second once at most."""
    at_s, said = 0.0, list[Said]()
    for k, delay_s in enumerate(delays):
        at_s = max(at_s + 0.01, k + delay_s)
        said.append((at_s, float(k), "GPZDA" if zda and k % 2 else "GPRMC"))
    named = passed(run(said))
    assert len({s for s, _doubt in named}) == len(named)
    assert LabelDoubt.RIVAL_TALKER not in {doubt for _s, doubt in named}


def test_one_stray_label_is_no_second_device() -> None:
    """A single label out of place, damaged or left over in a buffer, puts none of the others in doubt."""
    out = run([*[(k + 0.1, float(k), "GPRMC") for k in range(12)], (5.5, 900.0, "GPRMC")])
    assert [entry for entry in passed(out) if entry[0] < 100] == [(float(k), None) for k in range(12)]


def test_ubx_and_nmea_that_contradict_each_other_name_nothing() -> None:
    """A UBX message has no talker: it belongs to every one, and neither is used."""
    out = run([said for k in range(9) for said in ((k + 0.1, float(k), "GPRMC"), (k + 0.15, k + 3.0, "NAV-PVT"))])
    assert len(passed(out)) == 1


@given(
    st.lists(st.tuples(st.floats(0, 30), st.floats(-5, 40), st.sampled_from(["GPRMC", "GPZDA", "GNRMC", "NAV-PVT", "XXRMC"])), max_size=60)
)
def test_whatever_is_said_no_talker_labels_a_second_twice(said: list[Said]) -> None:
    """Any statements at any time: no talker labels a second again within 0.7 s."""
    last: dict[tuple[str, int], float] = {}
    for (at_s, _named, _kind), got in run(said):
        if not isinstance(got, Reject):
            key = got.talker, second_of(got)
            assert at_s - last.get(key, -9.0) > 0.7
            last[key] = at_s
