"""What a receiver's line brought is kept for onlookers, within bounds."""

from __future__ import annotations

from refclock.devices.receiver_line import TAPE_BYTES, Tape
from refclock.sample import Instant


def at(n: int) -> Instant:
    return Instant(n, n)


def test_an_onlooker_gets_every_read_once_and_in_order() -> None:
    """From the number that the last reply gave; too old a number means from the oldest that is kept, a number ahead means nothing yet."""
    tape = Tape()
    for n in range(5):
        tape.add(at(n), bytes([n]))
    first, after = tape.since(0, 3)
    rest, end = tape.since(after, 3)
    assert [data[0] for _, data in first + rest] == [0, 1, 2, 3, 4]
    assert (after, end, tape.since(end, 3)) == (3, 5, ([], 5))
    assert tape.since(99, 3) == ([], 5)


def test_a_line_that_is_never_looked_at_takes_bounded_memory() -> None:
    """The oldest reads go; numbers go on, and an onlooker that was away gets what is left."""
    tape = Tape()
    for n in range(1000):
        tape.add(at(n), bytes(1000))
    found, after = tape.since(0, 10_000)
    assert sum(len(data) for _, data in found) <= TAPE_BYTES
    assert (after, found[-1][0]) == (1000, at(999))
    tape.add(at(1000), bytes(2 * TAPE_BYTES))
    assert tape.since(0, 10) == ([], 1001)
