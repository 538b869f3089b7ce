"""How a receiver writes its checksums, where it does not write them as NMEA 0183 wants: taken when it always does so.

NMEA 0183 (section 5.3) ends a sentence with ``*`` and two hexadecimal digits, the exclusive or of what stands between ``$`` and ``*``.
Some devices leave out the leading zero (``%X``) or print a blank instead (``%2X``, ``%-2X``), some include a delimiter, some have no
checksum in one kind of sentence or in any. If that were refused, the whole receiver would be lost. A habit is told from damage by its
constancy: damage is rare beside sentences that are right, and does not come in the same form each time. But for a missing checksum, the
sentence is checked all the same.

Flow: framing (one sentence and its ending) -> **habits** -> its verdict; ``Habits.told`` -> LineStatus (to people).
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Final

from refclock.protocols.checksums import nmea_checksum

RUN: Final = 3
"""Sentences that show a habit before it is believed. Chance shows one of them once in 85 damaged sentences, three in a row never."""
BARE_RUN: Final = 10
"""The same for sentences of one kind without checksum, which nothing checks: a sentence that lost its end may look so."""
OUTWEIGHS: Final = 100
"""Sentences by habit that outweigh one as in the standard. A damaged sentence passes for right once in 256; a receiver that writes proper
checksums sends many more than one in a hundred."""
KINDS_MAX: Final = 64
"""Kinds of sentence that are counted: receivers send about ten, garbage may look like any number."""


class ChecksumHabit(StrEnum):
    """What a receiver does to its checksums; the value is shown to users, behind "it"."""

    ONE_DIGIT = "writes checksums below 10 (hexadecimal) with one digit"
    BLANK = "writes checksums below 10 (hexadecimal) with a blank for the zero"
    DOLLAR = "counts the $ into its checksums"
    STAR = "counts the * into its checksums"
    DELIMITERS = "counts $ and * into its checksums"
    BARE = "sends sentences without a checksum, so damage on the line is not noticed"


_INCLUDED: Final = {
    ord("$"): ChecksumHabit.DOLLAR,
    ord("*"): ChecksumHabit.STAR,
    ord("$") ^ ord("*"): ChecksumHabit.DELIMITERS,
}
_SHORT: Final = (ChecksumHabit.ONE_DIGIT, ChecksumHabit.BLANK)


class ChecksumHabits:
    """One line's checksums. ``told``: the habit by which a sentence was taken last, None before; ``taken``: sentences taken by habit."""

    def __init__(self) -> None:
        self.told: ChecksumHabit | None = None
        self.taken = 0
        self._runs: Counter[ChecksumHabit] = Counter()  # right but for the habit, none wrong between them
        self._bare: Counter[bytes] = Counter()  # address -> sentences without checksum
        self._proper: Counter[bytes] = Counter()  # address -> sentences with a proper checksum
        self._zeros: Counter[bytes] = Counter()  # address -> those of them with a leading zero

    def right(self, body: bytes, digits: bytes) -> bool:
        """Whether the checksum that stands behind ``*`` is right: two hexadecimal digits, or one with or without a blank before it."""
        apart, address = nmea_checksum(body) ^ int(digits, 16), _address(body)
        short = len(digits.strip()) == 1
        if not short and not apart:
            self._count(self._proper, body)
            if digits[:1] == b"0":
                self._count(self._zeros, body)
            return True
        habit = (None if apart else _SHORT[len(digits) - 1]) if short else _INCLUDED.get(apart)
        if habit is None:  # damage ends a run that is not yet believed
            for other in _SHORT if short else _INCLUDED.values():
                if self._runs[other] < RUN:
                    self._runs[other] = 0
            return False
        self._runs[habit] += 1
        return self._take(habit, self._runs[habit], RUN, (self._zeros if short else self._proper)[address])

    def bare(self, body: bytes) -> bool:
        """Whether a sentence without checksum is of a kind that this receiver never gives one."""
        self._count(self._bare, body)
        address = _address(body)
        return self._take(ChecksumHabit.BARE, self._bare[address], BARE_RUN, self._proper[address])

    def _take(self, habit: ChecksumHabit, run: int, enough: int, against: int) -> bool:
        taken = run >= enough and run > OUTWEIGHS * against
        if taken:
            self.told = habit
            self.taken += 1
        return taken

    @staticmethod
    def _count(counter: Counter[bytes], body: bytes) -> None:
        address = _address(body)
        if address in counter or len(counter) < KINDS_MAX:
            counter[address] += 1


def _address(body: bytes) -> bytes:
    """Talker and kind of sentence."""
    return body[:5]
