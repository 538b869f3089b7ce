"""Access rules: who may ask for the time.

A rule is a prefix and an action; the longest prefix that holds an address decides, as in routing, and among rules for the same prefix the
last named action of ``ACTIONS`` (so a deny beats an allow). No rule at all: denied. IPv4 and IPv4-mapped IPv6 addresses (::ffff:a.b.c.d,
RFC 4291 section 2.5.5.2) are the same thing, and everything here is an IPv6 address as a number.

``AccessList.ranges`` flattens the rules into what native/access.h searches; ``AccessList.decide`` tells people which rule it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

ACTIONS: Final = ("allow", "authenticated", "deny", "ignore")
"""In the order of enum acl_action (native/access.h), the weakest first."""
MAPPED: Final = 0xFFFF << 32
"""::ffff:0:0/96."""
PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8", "fc00::/7", "fe80::/10", "::1/128")
"""Networks that are nobody's on the internet: RFC 1918, 3927, 4193, 4291."""
_DENY: Final = ACTIONS.index("deny")


def parse_prefix(text: str) -> IPv4Network | IPv6Network | None:
    """``192.0.2.0/24``, ``2001:db8::/32`` or a single address; None when it is neither, or has bits beyond its length."""
    try:
        return ip_network(text)
    except ValueError:
        return None


def prefix_complaint(text: str) -> str | None:
    """What is wrong with a prefix, in words; None when nothing is."""
    if parse_prefix(text) is not None:
        return None
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        return 'is no network; write it like "192.168.1.0/24", "2001:db8::/32" or "192.0.2.7"'
    return f'has address bits beyond its length; did you mean "{meant}"?'


def _span(network: IPv4Network | IPv6Network) -> tuple[int, int, int]:
    """First number, number after the last, and length among 128 bits."""
    base, length = int(network.network_address), network.prefixlen
    if network.version == 4:
        base, length = base | MAPPED, length + 96
    return base, base + (1 << (128 - length)), length


def address_number(text: str) -> int | None:
    """An address as a number of 128 bits (a scope is left out); None when it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return int(address) | (MAPPED if address.version == 4 else 0)


@dataclass(frozen=True, slots=True)
class Rule:
    """``source``: where it is written, for people."""

    prefix: str
    action: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of an address: the action, and the rule that decides; without prefix and source no rule matches."""

    action: str
    prefix: str = ""
    source: str = ""


class AccessList:
    """Rules made ready. ValueError for a prefix or action that does not exist (configuration has been checked before)."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        decided: dict[tuple[int, int, int], Rule] = {}
        for rule in rules:
            network = parse_prefix(rule.prefix)
            if network is None or rule.action not in ACTIONS:
                raise ValueError(f"no access rule: {rule.prefix} {rule.action}")
            span = _span(network)
            known = decided.get(span)
            if known is None or ACTIONS.index(rule.action) > ACTIONS.index(known.action):
                decided[span] = rule
        self._rules = sorted(decided.items(), key=lambda item: (item[0][2], item[0][0]))

    @classmethod
    def of(cls, prefixes: Mapping[str, Iterable[str]]) -> AccessList:
        """From ``{"allow": [prefix, ...], "deny": ...}``."""
        return cls(Rule(prefix, action, f"access.{action}") for action, some in prefixes.items() for prefix in some)

    def decide(self, address: str) -> Decision:
        """What becomes of requests from ``address``. ValueError: not an address."""
        number = address_number(address)
        if number is None:
            raise ValueError(f"{address} is not an IPv4 or IPv6 address")
        for (first, end, _), rule in reversed(self._rules):
            if first <= number < end:
                return Decision(rule.action, rule.prefix, rule.source)
        return Decision("deny")

    def rules(self) -> tuple[Rule, ...]:
        """Those that count, the longest prefix first."""
        return tuple(rule for _, rule in reversed(self._rules))

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """(first number, index of the action) of each range up to the next one's first; sorted, begins at 0, neighbours differ."""
        edges = sorted({0, *(edge for (first, end, _), _ in self._rules for edge in (first, end) if edge < 1 << 128)})
        found: list[tuple[int, int]] = []
        open_rules: list[tuple[int, int]] = []  # (end, action) of the prefixes around, innermost last: prefixes nest, they never cross
        starts = sorted(((first, end, ACTIONS.index(rule.action)) for (first, end, _), rule in self._rules), key=lambda s: (s[0], -s[1]))
        at = 0
        for edge in edges:
            while open_rules and open_rules[-1][0] <= edge:
                open_rules.pop()
            while at < len(starts) and starts[at][0] == edge:
                open_rules.append((starts[at][1], starts[at][2]))
                at += 1
            action = open_rules[-1][1] if open_rules else _DENY
            if not found or found[-1][1] != action:
                found.append((edge, action))
        return tuple(found)


def is_private(prefix: str) -> bool:
    """Whether every address of it lies in PRIVATE."""
    network = parse_prefix(prefix)
    if network is None:
        return False
    first, end, _ = _span(network)
    spans = (_span(ip_network(p)) for p in PRIVATE)
    return any(low <= first and end <= high for low, high, _ in spans)
