"""The servers behind one configured name: which of its addresses are asked, and when the name is resolved again. Sans-IO.

A name may stand for one server or for a pool of many (pool.ntp.org), and its addresses may change at any time. At most ``most`` of them
are asked. One that does not answer, or that refuses, gives its place to another address of the name, as soon as the name has another one;
until then it keeps it. A name that does not resolve, as before the network is up, is tried again at growing intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from refclock.sample import NS

FIRST_RETRY_NS: Final = 2 * NS
"""ns until a name that did not resolve is tried again for the first time; each further time twice as long."""
LONGEST_RETRY_NS: Final = 512 * NS
"""ns between two tries at most: a name that came into being, or a resolver that was mended, is noticed within ten minutes."""
REST_NS: Final = 3600 * NS
"""ns for which an address that gave its place away is not taken again."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a resolution changes: addresses to begin with, and those to end with."""

    begin: tuple[str, ...] = ()
    end: tuple[str, ...] = ()


class Pool:
    """See the module. ``addresses``: those in use, in the order in which they were taken. ``due_ns``: raw instant at which the name is to
    be resolved; None: nothing is lacking, or a resolution is under way."""

    def __init__(self, most: int, now_ns: int) -> None:
        self._most = most
        self.addresses: list[str] = []
        self.due_ns: int | None = now_ns
        self._failing: set[str] = set()
        self._rest_until: dict[str, int] = {}
        self._pause_ns = FIRST_RETRY_NS

    def asked(self) -> None:
        """The name is being resolved."""
        self.due_ns = None

    def resolved(self, found: Sequence[str], now_ns: int) -> Change:
        """The name stands for these addresses now, in the resolver's order; none: it did not resolve."""
        self._rest_until = {address: until for address, until in self._rest_until.items() if until > now_ns}
        free = [a for a in dict.fromkeys(found) if a not in self.addresses and a not in self._rest_until]
        ends = [a for a in self.addresses if a in self._failing][: max(0, len(free) - (self._most - len(self.addresses)))]
        for address in ends:
            self.addresses.remove(address)
            self._rest_until[address] = now_ns + REST_NS
        begins = free[: self._most - len(self.addresses)]
        self.addresses += begins
        self._failing &= set(self.addresses)
        if begins:
            self._pause_ns = FIRST_RETRY_NS
        if self._failing or len(self.addresses) < self._most:
            self.due_ns = now_ns + self._pause_ns
            self._pause_ns = min(2 * self._pause_ns, LONGEST_RETRY_NS)
        else:
            self.due_ns = None
        return Change(tuple(begins), tuple(ends))

    def failing(self, address: str, now_ns: int) -> None:
        """The server at ``address`` does not answer, or refuses: another one is wanted."""
        if address in self.addresses and address not in self._failing:
            self._failing.add(address)
            if self.due_ns is None:
                self.due_ns = now_ns

    def works(self, address: str) -> None:
        """It answers."""
        self._failing.discard(address)

    def wake(self, now_ns: int) -> None:
        """The network has changed: a name that is wanted is resolved at once."""
        if self.due_ns is not None:
            self.due_ns, self._pause_ns = now_ns, FIRST_RETRY_NS
