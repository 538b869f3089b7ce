"""The score that the monitors of the NTP pool give a server, by their own rules (ntppool/monitor: scorer and client).

A check asks up to three times, two seconds apart, and takes the reply with the least delay; a reply without the time counts at once. Its
mark is added to 0.95 of the score before, which is at most 20. A server is in the pool from score 10 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SAMPLES: Final = 3
"""Requests of one check."""
PAUSE_S: Final = 2.0
"""s between two requests of one check."""
KEPT: Final = 0.95
"""Share of the score that is kept from check to check."""
HIGHEST: Final = 20.0
"""The best score: 1 / (1 - KEPT)."""
IN_POOL: Final = 10.0
"""Score from which on a server is handed out to clients."""
_NEAR_S, _OFF_S, _FAR_S, _WRONG_S = 0.025, 0.1, 0.75, 3.0
"""s; offsets at which the marks change."""
_MOST_STRATUM: Final = 8
"""Stratum from which on a server is marked down."""


@dataclass(frozen=True, slots=True)
class PoolReply:
    """A reply as a monitor sees it. ``kiss``: the kiss code of a reply without the time, "" for none."""

    offset_s: float
    delay_s: float
    stratum: int
    kiss: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """What one check adds to the score; ``cap``: the score is at most that afterwards."""

    step: float
    cap: float = HIGHEST

    def after(self, score: float) -> float:
        """The score after this check."""
        return min(KEPT * score + self.step, self.cap, HIGHEST)


def mark_of(replies: Sequence[PoolReply | None]) -> Mark:
    """The mark of a check; None stands for a request without a reply."""
    heard = [reply for reply in replies if reply is not None]
    if not heard:
        return Mark(-5.0)
    empty = next((reply for reply in heard if reply.stratum in (0, 16)), None)
    if empty is not None:
        kisses = {"RATE": Mark(-3.5), "DENY": Mark(-10.0, -50.0), "RSTR": Mark(-10.0, -50.0)}
        return kisses.get(empty.kiss, Mark(-2.0, 5.0))
    best = min(heard, key=lambda reply: reply.delay_s)
    off_s = abs(best.offset_s)
    if off_s > _WRONG_S or best.stratum >= _MOST_STRATUM:
        return Mark(-4.0, -20.0 if off_s > _WRONG_S else HIGHEST)
    if off_s > _FAR_S:
        return Mark(-2.0)
    if off_s > _OFF_S:
        return Mark(0.731 - 2.308 * off_s)
    return Mark(1.0 if off_s <= _NEAR_S else 1.167 - 6.667 * off_s)


def checks_until(mark: Mark, score: float = 0.0, goal: float = IN_POOL) -> int | None:
    """Checks with that mark until the score reaches ``goal``; None: it never does."""
    checks = 0
    while score < goal:
        better = mark.after(score)
        if better <= score:
            return None
        score, checks = better, checks + 1
        if checks > 1000:
            return None
    return checks
