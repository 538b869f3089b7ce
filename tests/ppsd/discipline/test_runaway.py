"""What one source's claims say of themselves: a pull is told once when it begins and once when it ends."""

from __future__ import annotations

from ppsd.discipline.estimate import Estimate
from ppsd.discipline.runaway import Pull, PullChange
from refclock.sample import NS

RAW0, TAI0 = 10**13, 1_800_000_037 * NS
BOUND_NS = 3000.0


def claim(second: int, ahead_ns: float = 0.0, rate_ns_s: float = 0.0, samples: int = 1000) -> Estimate:
    return Estimate(
        RAW0 + second * NS, TAI0 + second * NS + round(ahead_ns), rate_ns_s / NS, BOUND_NS, 1e-9, 3.0, 1e3, 1e-9, samples, restarts=0
    )


def pulled(
    pull: Pull, first: int, last: int, rate_ns_s: float, *, others: bool = False, samples: int = 1000
) -> list[tuple[int, PullChange]]:
    """Changes while the time runs ahead by ``rate_ns_s`` from second ``first`` on; ``others``: another source sees the same."""
    seen = []
    for k in range(first, last):
        now = claim(k, (k - first) * rate_ns_s, rate_ns_s, samples)
        change = pull.judge(now, [now] if others else [], steady=True)
        if change is not None:
            seen.append((k - first, change))
    return seen


def test_a_pull_is_told_once_and_its_end_once() -> None:
    """2 ppm at once: told within a minute, with by how much and what was known before; not again; when the claim is back, that it has
    ended."""
    pull = Pull()
    assert pulled(pull, 0, 100, 0.0) == []
    began = pulled(pull, 100, 200, 2000.0)
    assert [change for _, change in began] == [PullChange.BEGAN]
    assert began[0][0] < 60
    assert pull.before is not None
    assert pull.before.rate == 0.0
    assert pull.condition is not None
    assert "+2.0 ppm" in pull.condition.words
    assert pulled(pull, 200, 210, 0.0) == [(0, PullChange.ENDED)]
    assert pull.condition is None


def test_what_another_source_sees_too_is_the_crystal() -> None:
    """The same change in a second source on the same crystal is no pull: nothing is told."""
    pull = Pull()
    assert pulled(pull, 0, 100, 0.0, others=True) == []
    assert pulled(pull, 100, 200, 2000.0, others=True) == []
    assert pull.before is None


def test_a_young_estimate_accuses_nobody() -> None:
    """Forecasts of fewer than 64 samples are not believed: nothing is told."""
    pull = Pull()
    assert pulled(pull, 0, 40, 0.0, samples=20) == []
    assert pulled(pull, 40, 60, 2000.0, samples=40) == []
