"""The servers behind one configured name: which of its addresses are asked, and when the name is resolved again. Sans-IO.

A name may stand for one server or for a pool of many (pool.ntp.org), and its addresses may change at any time. At most ``most`` of them
are asked. One that does not answer, that refuses, or whose time is wrong for long gives its place to another address of the name, as soon
as the name has another one; until then it keeps it. A name that does not resolve, as before the network is up, is tried again at growing
intervals.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from refclock.sample import NS

FIRST_RETRY_NS: Final = 2 * NS
"""ns until a name that did not resolve is tried again for the first time; each further time twice as long."""
LONGEST_RETRY_NS: Final = 512 * NS
"""ns between two tries at most: a name that came into being, or a resolver that was mended, is noticed within ten minutes."""
REST_NS: Final = 3600 * NS
"""ns for which an address that gave its place away is not taken again."""
WRONG_NS: Final = 900 * NS
"""ns for which a server must be wrong: a path that is lopsided for a while, or a server that is being restarted, is none to lose."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a resolution changes: addresses to begin with, and those to end with."""

    begin: tuple[str, ...] = ()
    end: tuple[str, ...] = ()


def outvoted(tallies: Mapping[str, str], served: bool) -> set[str]:
    """The addresses of servers that contradict what is served (x), as long as more agree with it: else it may be what is served that is
    wrong. While nothing is ``served``, those that contradict the others: so a pool in which no majority agrees is drawn anew. ``tallies``:
    of each, as in chronyc sources."""
    wrong = {address for address, tally in tallies.items() if tally == "x"}
    return wrong if not served or len(wrong) < sum(tally in "*+-" for tally in tallies.values()) else set()


class Pool:
    """See the module. ``addresses``: those in use, in the order in which they were taken. ``due_ns``: raw instant at which the name is to
    be resolved; None: nothing is lacking, or a resolution is under way."""

    def __init__(self, most: int, now_ns: int) -> None:
        self._most = most
        self.addresses: list[str] = []
        self.due_ns: int | None = now_ns
        self._failing: set[str] = set()
        self._wrong_since: dict[str, int] = {}
        self._rest_until: dict[str, int] = {}
        self._pause_ns = FIRST_RETRY_NS

    def asked(self) -> None:
        """The name is being resolved."""
        self.due_ns = None

    def resolved(self, found: Sequence[str], now_ns: int) -> Change:
        """The name stands for these addresses now, in the resolver's order; none: it did not resolve."""
        self._rest_until = {address: until for address, until in self._rest_until.items() if until > now_ns}
        free = [a for a in dict.fromkeys(found) if a not in self.addresses and a not in self._rest_until]
        lost = [a for a in self.addresses if a in self._failing or self._is_wrong(a, now_ns)]
        ends = lost[: max(0, len(free) - (self._most - len(self.addresses)))]
        for address in ends:
            self.addresses.remove(address)
            self._rest_until[address] = now_ns + REST_NS
        begins = free[: self._most - len(self.addresses)]
        self.addresses += begins
        self._failing &= set(self.addresses)
        self._wrong_since = {address: since for address, since in self._wrong_since.items() if address in self.addresses}
        if begins:
            self._pause_ns = FIRST_RETRY_NS
        if set(lost) & set(self.addresses) or len(self.addresses) < self._most:
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

    def judged(self, wrong: Collection[str], now_ns: int) -> None:
        """The time of these addresses is wrong now, and that of the others is not."""
        self._wrong_since = {a: self._wrong_since.get(a, now_ns) for a in self.addresses if a in wrong}
        if self.due_ns is None and any(self._is_wrong(a, now_ns) for a in self._wrong_since):
            self.due_ns = now_ns

    def _is_wrong(self, address: str, now_ns: int) -> bool:
        return now_ns - self._wrong_since.get(address, now_ns) >= WRONG_NS

    def works(self, address: str) -> None:
        """It answers."""
        self._failing.discard(address)

    def wake(self, now_ns: int) -> None:
        """The network has changed: a name that is wanted is resolved at once."""
        if self.due_ns is not None:
            self.due_ns, self._pause_ns = now_ns, FIRST_RETRY_NS
