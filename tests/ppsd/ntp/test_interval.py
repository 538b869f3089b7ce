"""How often a server is asked: the interval follows path and crystal."""

from __future__ import annotations

from random import Random

from ppsd.ntp.interval import Interval
from refclock.sample import NS


def polls(noise_us: float, wander: float, answers: int = 300, highest: int = 10) -> list[int]:
    """The polls after each answer, from 6 on. ``noise_us``: exponential, on each way; ``wander``: random walk of the frequency, ns/s per
    sqrt(s)."""
    random, interval, poll, found = Random(1), Interval(), 6, []
    t, ahead, rate = 0, 0.0, 20_000.0
    for _ in range(answers):
        out, back = (random.expovariate(1) * noise_us * 1e3 for _ in range(2))
        step = interval.answered(poll, t * NS, round(ahead + (out - back) / 2), round(10_000_000 + out + back))
        if step:
            poll = max(6, min(poll + step, highest))
            interval.changed()
        found.append(poll)
        seconds = 1 << poll
        rate += random.gauss(0, wander) * seconds**0.5
        t, ahead = t + seconds, ahead + rate * seconds
    return found


def mean(found: list[int]) -> float:
    return sum(found[100:]) / len(found[100:])


def test_noise_makes_it_longer() -> None:
    """A clock as it should be: the more the path adds to each answer, the less one more answer is worth."""
    quiet, lan, wan = (mean(polls(us, 1)) for us in (1, 100, 5000))
    assert quiet == 6
    assert quiet + 1 < lan < wan
    assert wan > 9


def test_a_restless_clock_makes_it_shorter() -> None:
    """A clock that strays farther between two answers than the path's noise reaches is asked for often, whatever the noise."""
    calm, restless = mean(polls(100, 1)), mean(polls(100, 100))
    assert restless < calm - 1
    assert mean(polls(100, 1000)) < 6.5


def test_it_grows_slowly() -> None:
    """In the first quarter of an hour the clock's rate is learned: it is asked for every 64 s."""
    assert set(polls(5000, 1)[:15]) == {6}
    assert polls(5000, 1)[30] > 6
