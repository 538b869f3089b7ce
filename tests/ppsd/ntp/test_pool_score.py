"""The pool's score: the marks of its monitors, and how soon a server is handed out."""

from __future__ import annotations

import pytest

from ppsd.ntp.pool_score import HIGHEST, Mark, PoolReply, checks_until, mark_of


def reply(offset_s: float, stratum: int = 1, kiss: str = "") -> PoolReply:
    return PoolReply(offset_s, 0.01, stratum, kiss)


@pytest.mark.parametrize(
    ("replies", "mark"),
    [
        ((None, None, None), Mark(-5.0)),
        ((reply(0, 0, "RATE"),), Mark(-3.5)),
        ((reply(0, 0, "DENY"),), Mark(-10.0, -50.0)),
        ((reply(0, 0, "RSTR"),), Mark(-10.0, -50.0)),
        ((reply(0, 0, "INIT"),), Mark(-2.0, 5.0)),
        ((reply(0, 16),), Mark(-2.0, 5.0)),
        ((reply(4.0),), Mark(-4.0, -20.0)),
        ((reply(0.0, 9),), Mark(-4.0)),
        ((reply(-0.8),), Mark(-2.0)),
        ((reply(0.025),), Mark(1.0)),
        ((reply(0.0), None, None), Mark(1.0)),
    ],
)
def test_marks(replies: tuple[PoolReply | None, ...], mark: Mark) -> None:
    """Each outcome of a check has the mark that the monitors' code gives it."""
    assert mark_of(replies) == mark


def test_marks_between() -> None:
    """Between 25 and 750 ms the mark falls with the offset, by the monitors' two lines; the reply with the least delay counts."""
    assert mark_of([reply(0.05)]).step == pytest.approx(1.167 - 6.667 * 0.05)
    assert mark_of([reply(0.5)]).step == pytest.approx(0.731 - 2.308 * 0.5)
    assert mark_of([PoolReply(0.5, 0.2, 1), PoolReply(0.001, 0.01, 1)]) == Mark(1.0)
    assert mark_of([reply(0.0), reply(0.0, 0, "RATE")]) == Mark(-3.5)


def test_from_nothing_into_the_pool() -> None:
    """A server whose every check is good is in after 14 of them and never above 20; one that is 0.5 s off never is."""
    assert checks_until(Mark(1.0)) == 14
    score = 0.0
    for _ in range(1000):
        score = Mark(1.0).after(score)
    assert score == pytest.approx(HIGHEST)
    assert checks_until(mark_of([reply(0.5)])) is None
    assert checks_until(Mark(0.4)) is None
