"""Access rules: who may ask for the time.

A rule is a prefix and an action. The longest prefix that contains an address decides, as in routing. Among rules for the same prefix, the
strongest action decides (``ACTIONS``, the weakest first), so a deny beats an allow. An address that no rule contains is denied. An IPv4
address and its IPv4-mapped IPv6 address (::ffff:a.b.c.d, RFC 4291 section 2.5.5.2) are equal; every address here is a 128-bit number.
The word ``own`` stands for the networks that are this machine's own: those that the internet does not route, and those that its interfaces
are in, which whoever reads the interfaces passes in.

``AccessList.ranges`` flattens the rules into the table that native/access.h searches. ``AccessList.decide`` names the rule that decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

ACTIONS: Final = ("allow", "authenticated", "deny", "ignore")
"""Actions, the weakest first, in the order of enum acl_action (native/access.h)."""
MAPPED: Final = 0xFFFF << 32
"""The prefix ::ffff:0:0/96 of IPv4-mapped addresses, as a number."""
PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8", "fc00::/7", "fe80::/10", "::1/128")
"""Networks that are not routed on the internet: RFC 1918, 3927, 4193, 4291."""
LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
"""This machine itself."""
OWN: Final = "own"
"""The word that stands for PRIVATE and for the networks that the interfaces are in."""
_DENY: Final = ACTIONS.index("deny")


def parse_prefix(text: str) -> IPv4Network | IPv6Network | None:
    """``192.0.2.0/24``, ``2001:db8::/32`` or a single address. None: not an address, or address bits are set beyond the prefix length."""
    try:
        return ip_network(text)
    except ValueError:
        return None


def prefix_complaint(text: str) -> str | None:
    """Why ``text`` is not a prefix, for people; None when it is one."""
    if parse_prefix(text) is not None:
        return None
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        return 'is not a network; write it like "192.168.1.0/24", "2001:db8::/32" or "192.0.2.7"'
    return f'has address bits beyond the prefix length; did you mean "{meant}"?'


def access_complaint(text: str) -> str | None:
    """Why ``text`` is neither a prefix nor OWN, for people; None when it is one of them."""
    return None if text == OWN else prefix_complaint(text)


def _span(network: IPv4Network | IPv6Network) -> tuple[int, int, int]:
    """(first address, address after the last, prefix length of 128) as numbers."""
    base, length = int(network.network_address), network.prefixlen
    if network.version == 4:
        base, length = base | MAPPED, length + 96
    return base, base + (1 << (128 - length)), length


def contradictions(lists: Mapping[str, object]) -> Iterator[tuple[str, int, str, int]]:
    """Every prefix, and OWN, that is under two actions: (action, index, earlier action, its index). ``lists``: action -> list of texts, as
    a file has them; anything else in them is passed over."""
    first: dict[str | tuple[int, int, int], tuple[str, int]] = {}
    for action, listed in lists.items():
        for index, text in enumerate(listed if isinstance(listed, list) else ()):
            network = parse_prefix(text) if isinstance(text, str) else None
            if network is not None or text == OWN:
                other, at = first.setdefault(OWN if network is None else _span(network), (action, index))
                if other != action:
                    yield action, index, other, at


def address_number(text: str) -> int | None:
    """An address as a 128-bit number, without its scope; None when ``text`` is not an address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return int(address) | (MAPPED if address.version == 4 else 0)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``source``: where it was written, for people."""

    prefix: str
    action: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The action for an address, and the rule that decides. Empty ``prefix`` and ``source``: no rule contains the address."""

    action: str
    prefix: str = ""
    source: str = ""


class AccessList:
    """A set of rules, ready to decide. ValueError: an invalid prefix or action; the configuration has excluded both."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        decided: dict[tuple[int, int, int], Rule] = {}
        for rule in rules:
            network = parse_prefix(rule.prefix)
            if network is None or rule.action not in ACTIONS:
                raise ValueError(f"not an access rule: {rule.prefix} {rule.action}")
            span = _span(network)
            known = decided.get(span)
            if known is None or ACTIONS.index(rule.action) > ACTIONS.index(known.action):
                decided[span] = rule
        self._rules = sorted(decided.items(), key=lambda item: (item[0][2], item[0][0]))

    @classmethod
    def of(cls, prefixes: Mapping[str, Iterable[str]], own: Iterable[tuple[str, str]] = ()) -> AccessList:
        """The rules of ``{"allow": [prefix, ...], "deny": ...}``. ``own``: (prefix, interface) of the networks that interfaces are in."""
        more = [(prefix, interface) for prefix, interface in own if not is_private(prefix)]

        def of_one(action: str, text: str) -> Iterator[Rule]:
            source = f"access.{action}"
            if text != OWN:
                yield Rule(text, action, source)
                return
            yield from (Rule(prefix, action, f"{source}: own") for prefix in PRIVATE)
            yield from (Rule(prefix, action, f"{source}: own, on {interface}") for prefix, interface in more)

        return cls(rule for action, listed in prefixes.items() for text in listed for rule in of_one(action, text))

    def decide(self, address: str) -> Decision:
        """The action for requests from ``address``. ValueError: not an address."""
        number = address_number(address)
        if number is None:
            raise ValueError(f"{address} is not an IPv4 or IPv6 address")
        for (first, end, _), rule in reversed(self._rules):
            if first <= number < end:
                return Decision(rule.action, rule.prefix, rule.source)
        return Decision("deny")

    def rules(self) -> tuple[Rule, ...]:
        """The rules in force, the longest prefix first."""
        return tuple(rule for _, rule in reversed(self._rules))

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """(first address, index of the action) of each range, which ends where the next begins. Sorted from 0; neighbours differ."""
        edges = sorted({0, *(edge for (first, end, _), _ in self._rules for edge in (first, end) if edge < 1 << 128)})
        found: list[tuple[int, int]] = []
        open_rules: list[tuple[int, int]] = []  # (end, action) of the prefixes that contain ``edge``, innermost last: prefixes nest
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
    """Whether every address of ``prefix`` lies in PRIVATE."""
    network = parse_prefix(prefix)
    if network is None:
        return False
    first, end, _ = _span(network)
    spans = (_span(ip_network(p)) for p in PRIVATE)
    return any(low <= first and end <= high for low, high, _ in spans)
