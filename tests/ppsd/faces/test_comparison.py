"""Two clocks against the same pulses: what people are told of which is better, and by how much."""

from __future__ import annotations

from dataclasses import replace

from ppsd.faces.comparison import ENOUGH, UNKNOWN_NS, Comparison, Look

GOOD = [Look(2000 + 400 * (n % 5), 300 * (n % 3 - 1), 12_000, 1_500_000 + 500_000 * (n % 4)) for n in range(60)]
"""chronyd 2 to 3.6 us ahead, and told the kernel 1.5 ms, which grows until it tells again; refclock within 0.3 us, promising 12 us."""


def compared(looks: list[Look], pulsed: bool = True) -> Comparison:
    found = Comparison.of("chronyd", pulsed, looks)
    assert found is not None
    return found


def test_the_better_clock_is_told_with_how_much() -> None:
    """A row for each figure, both clocks beside each other, and the conclusion in two sentences."""
    text = compared(GOOD).text()
    assert text.splitlines() == [
        "                     chronyd    refclock",
        "from the pulse        2.8 µs      300 ns   half of the pulses were nearer",
        "                      3.9 µs      300 ns   19 of 20 were nearer",
        "promises              1.5 ms       12 µs   never to be further off",
        "",
        "chronyd's clock is 2.8 µs ahead of refclock's, as both promises allow.",
        "refclock is 13 times nearer to the pulse, and its promise is 125 times narrower.",
    ]
    assert compared(GOOD).good


def test_a_promise_is_the_one_of_now() -> None:
    """Refclock's bound narrows while both are watched: the last one is told, and a factor beyond reason is not counted out."""
    narrowing = compared([replace(look, ours_ns=800_000 - 13_000 * n, theirs_ns=8_000_000_000) for n, look in enumerate(GOOD)])
    assert narrowing.ours.bound_ns == 33_000
    assert "its promise is more than 1000 times narrower" in narrowing.text()


def test_two_promises_that_exclude_each_other() -> None:
    """One of the clocks is wrong, nobody guesses which, and that is no ground for a switch."""
    found = compared([replace(look, apart_ns=-40_000_000) for look in GOOD])
    assert "40 ms behind refclock's: more than both promise together, so one of them is wrong" in found.text()
    assert not found.good


def test_the_other_may_be_better() -> None:
    """It is said in the same words, and nothing is recommended; where they hardly differ, neither is called better."""
    worse = compared([replace(look, apart_ns=look.pulse_ns, pulse_ns=10 * look.pulse_ns) for look in GOOD])
    assert "refclock is 1.1 times" not in worse.text()
    assert not compared([replace(look, apart_ns=look.pulse_ns * 9, pulse_ns=10 * look.pulse_ns) for look in GOOD]).good
    assert "as near to the message as chronyd" in compared([replace(look, apart_ns=0) for look in GOOD], pulsed=False).text()


def test_what_is_not_known_is_not_told() -> None:
    """A program that has told the kernel no error promises nothing, and of a few pulses nothing is said."""
    silent = compared([replace(look, theirs_ns=UNKNOWN_NS) for look in GOOD])
    assert silent.theirs.bound_ns is None
    assert "promises             nothing" in silent.text()
    assert silent.agree
    assert Comparison.of("ntpd", True, GOOD[: ENOUGH - 1]) is None
