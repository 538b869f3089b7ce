"""The reason shown is the reason: what was dropped most among the last statements of time."""

from __future__ import annotations

import pytest

from refclock.protocols.labels import Reject
from refclock.protocols.reasons import LAST, REASONS, Unlabelled, words
from refclock.sample import NS, LabelDoubt


def test_every_reason_has_words_and_a_remedy() -> None:
    """No reason is told by its code name alone, and each says what to do."""
    assert set(REASONS) == {*Reject, LabelDoubt.FIX_UNSTATED}
    for what, remedy in REASONS.values():
        assert what
        assert remedy
        assert not remedy.endswith(".")


@pytest.mark.parametrize("reason", [r for r in REASONS if r is not Reject.REDUNDANT])
def test_what_is_dropped_is_told(reason: Reject | LabelDoubt) -> None:
    """Whatever keeps every statement from being a label is told, with its remedy, after a few of them."""
    line = Unlabelled()
    told = []
    for i in range(5):
        line.stated(reason, i * NS)
        told.append(line.why(i * NS))
    assert told == ["", "", *[words(reason)] * 3]


def test_the_reason_of_most_of_the_last_statements_is_told() -> None:
    """A reason that has passed is forgotten: after a few seconds of another one, that is told. Two in turn do not alternate."""
    line = Unlabelled()
    for i in range(100):
        line.stated(Reject.VOID, i * NS)
    for i in range(100, 100 + LAST // 2 + 1):
        line.stated(Reject.BAD_DATE, i * NS)
    assert "1980" in line.why(110 * NS)
    told = set()
    for i in range(200, 240):
        line.stated((Reject.VOID, Reject.NO_FIX)[i % 2], i * NS)
        told.add(line.why(i * NS))
    assert len(told - {words(Reject.BAD_DATE)}) == 1


def test_nothing_is_told_while_labels_come() -> None:
    """One label a second is enough, whatever else is dropped beside it; five seconds after the last one the reason is told."""
    line = Unlabelled()
    for i in range(20):
        for _ in range(4):
            line.stated(Reject.VOID, i * NS)
        line.stated(None, i * NS)
        line.stated(Reject.REDUNDANT, i * NS)
        assert line.why(i * NS) == ""
    for i in range(20, 30):
        line.stated(Reject.VOID, i * NS)
    assert "status V" in line.why(29 * NS)


def test_a_line_without_any_date_names_what_it_sends() -> None:
    """GGA and GLL only: people read that nothing states the date, and what to switch on. A silent line is told nothing."""
    line = Unlabelled()
    for i in range(12):
        line.spoke("GGA", i * NS)
        line.spoke("GLL", i * NS)
    assert line.why(9 * NS) == ""
    assert line.why(11 * NS).startswith("it sends only GGA and GLL, ")
    assert "RMC" in line.why(11 * NS)
    assert line.why(60 * NS) == ""
