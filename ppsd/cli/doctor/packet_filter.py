"""The kernel's packet filters, as ``nft -j list ruleset`` and ``iptables-save`` print them: is a request let in? Pure.

Rules are walked as the kernel walks them (nft(8), iptables(8)), with one difference: what a rule asks may be unknown here, such as a mark
or the members of an ipset. Such a rule may hit and may not, and both ways are followed. So the answer is yes, no, or "it depends".
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network, summarize_address_range
from typing import Final

Net = IPv4Network | IPv6Network
DEEPEST: Final = 16
"""Jumps into one another that are followed; the kernel refuses more (NFT_JUMP_STACK_SIZE)."""
IPTABLES: Final = ("filter", "nat", "mangle", "raw", "security")
"""Tables of iptables(8)."""


class Way(StrEnum):
    """What becomes of a packet in a chain. FALL: it leaves the chain at its end."""

    ACCEPT = "accept"
    DROP = "drop"
    FALL = "fall"


UNKNOWN_WAYS: Final = frozenset(Way)


@dataclass(frozen=True, slots=True)
class Request:
    """A packet that opens a connection by ``protocol`` (udp, tcp), to ``port`` of ``own``; it comes in at ``interface`` ("": any but
    loopback) from some machine of ``source``. ``tracked``: whether the kernel keeps track of its connection."""

    source: Net
    own: IPv4Address | IPv6Address
    interface: str
    port: int
    tracked: bool = True
    protocol: str = "udp"

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.own.version


PROTOCOLS: Final = {"udp": 17, "tcp": 6}
"""Protocol of a request -> its number (IANA, Assigned Internet Protocol Numbers)."""
Test = Callable[[Request], bool | None]
"""Whether a rule's condition holds; None: that cannot be told."""


@dataclass(frozen=True, slots=True)
class FilterRule:
    """``way``: where it ends; None: it goes on. ``into``: the chain that is walked, with ``back`` the rules after this one are next.
    ``notrack``: the connection is not tracked."""

    tests: tuple[Test, ...]
    ways: frozenset[Way] | None = None
    into: str = ""
    back: bool = True
    notrack: bool = False

    def hits(self, request: Request) -> bool | None:
        """Whether all tests hold; None: that cannot be told."""
        found = [test(request) for test in self.tests]
        return False if False in found else None if None in found else True


@dataclass(slots=True)
class Chain:
    """A chain of rules. ``hook``: where the kernel enters it, "" for one that others jump to. ``policy``: of its end."""

    table: str
    name: str
    hook: str = ""
    policy: Way = Way.ACCEPT
    rules: list[FilterRule] = field(default_factory=list)


@dataclass(slots=True)
class Filter:
    """Chains by table and name. A table's name begins with its family: "inet filter", "ip filter" (also of iptables), "ip6 filter"."""

    chains: dict[tuple[str, str], Chain] = field(default_factory=dict)

    def base_chains(self, version: int) -> Iterator[Chain]:
        """Those that the kernel enters with a packet of this machine's own, of IP ``version``."""
        families = ("inet ", "ip ") if version == 4 else ("inet ", "ip6 ")
        yield from (c for c in self.chains.values() if c.hook in ("prerouting", "input") and c.table.startswith(families))

    def keeps_track(self, request: Request) -> bool:
        """Whether no rule exempts the request from connection tracking."""
        rules = (
            rule
            for c in self.chains.values()
            if c.hook == "prerouting"
            for rule in self._reached(c)
            if c in [*self.base_chains(request.version)]
        )
        return not any(rule.notrack and rule.hits(request) for rule in rules)

    def _reached(self, chain: Chain, depth: int = 0) -> Iterator[FilterRule]:
        for rule in chain.rules:
            yield rule
            if rule.into and depth < DEEPEST and (target := self.chains.get((chain.table, rule.into))) is not None:
                yield from self._reached(target, depth + 1)

    def lets_in(self, request: Request) -> tuple[bool | None, Chain | None]:
        """Whether the request comes through (None: it depends), and the base chain that keeps it out."""
        depends = False
        for chain in self.base_chains(request.version):
            ways = self._walk(chain, request, 0)
            ends = {chain.policy if way is Way.FALL else way for way in ways}
            if ends == {Way.DROP}:
                return False, chain
            depends |= Way.DROP in ends
        return (None if depends else True), None

    def _walk(self, chain: Chain, request: Request, depth: int) -> frozenset[Way]:
        """The ways that are possible in a chain."""
        possible: set[Way] = set()
        if depth > DEEPEST:
            return UNKNOWN_WAYS
        for rule in chain.rules:
            hit = rule.hits(request)
            if hit is False or not (rule.into or rule.ways):
                continue
            ways = rule.ways or frozenset()
            if rule.into:
                target = self.chains.get((chain.table, rule.into))
                ways = UNKNOWN_WAYS if target is None else self._walk(target, request, depth + 1)
                possible |= ways - {Way.FALL} if rule.back else ways
            else:
                possible |= ways
            if hit and not (rule.into and rule.back and Way.FALL in ways):
                return frozenset(possible)
        return frozenset(possible | {Way.FALL})


# ---- what is compared -----------------------------------------------------------------------------------------------------------------


def _any_of(found: Sequence[bool | None]) -> bool | None:
    return True if True in found else None if None in found else False


def _not(found: bool | None) -> bool | None:
    return None if found is None else not found


def _source_in(source: Net, net: Net) -> bool | None:
    """Whether every machine of ``source`` is in ``net``; None: some are."""
    if source.version != net.version or not source.overlaps(net):
        return False
    inside = source.subnet_of(net) if isinstance(source, IPv4Network) and isinstance(net, IPv4Network) else None
    if isinstance(source, IPv6Network) and isinstance(net, IPv6Network):
        inside = source.subnet_of(net)
    return True if inside else None


def _named(wanted: str, name: str) -> bool | None:
    """Whether an interface has the ``wanted`` name; "*" or "+" at its end stands for anything."""
    if wanted == "lo":
        return name == "lo"
    if not name:
        return True if wanted in ("*", "+") else None
    return name.startswith(wanted[:-1]) if wanted[-1:] in ("*", "+") else name == wanted


def _nets(first: str, last: str = "") -> list[Net]:
    """A prefix, or a range of addresses; none for what is neither, such as a name."""
    try:
        if last:
            low, high = ip_address(first), ip_address(last)
            if isinstance(low, IPv4Address) and isinstance(high, IPv4Address):
                return list(summarize_address_range(low, high))
            if isinstance(low, IPv6Address) and isinstance(high, IPv6Address):
                return list(summarize_address_range(low, high))
        return [ip_network(first, strict=False)]
    except ValueError:
        return []


# ---- nft ------------------------------------------------------------------------------------------------------------------------------

Json = object
_ENDS: Final = {
    "accept": frozenset({Way.ACCEPT}),
    "drop": frozenset({Way.DROP}),
    "reject": frozenset({Way.DROP}),
    "return": frozenset({Way.FALL}),
    "queue": UNKNOWN_WAYS,
}
_SERVICES: Final = {"ntp": 123, "domain": 53, "bootpc": 68, "bootps": 67, "dhcpv6-client": 546, "mdns": 5353}
"""Ports by the names that nft may print (services(5))."""


def read_nft(text: str, beside: Filter | None = None) -> Filter:
    """What ``nft -j list ruleset`` printed, beside the chains that another reader found: iptables-nft's own tables are better read from
    iptables-save, for nft does not tell what their matches are. ValueError: it is no such text."""
    found, sets, owned = Filter(), dict[tuple[str, str], Json](), set[str]()
    if beside is not None:
        found.chains |= beside.chains
        owned = {table for table, _ in beside.chains}
    told = json.loads(text)
    items = _dicts(told.get("nftables") if isinstance(told, dict) else None)
    for kind, body in ((kind, body) for item in items for kind, body in item.items() if isinstance(body, dict)):
        table = f"{body.get('family')} {body.get('table')}"
        if table in owned:
            continue
        name = str(body.get("name"))
        if kind == "chain":
            policy = Way.DROP if body.get("policy") == "drop" else Way.ACCEPT
            found.chains[table, name] = Chain(table, name, str(body.get("hook", "")), policy)
        elif kind in ("set", "map"):
            sets[table, f"@{name}"] = body.get("elem", [])
        elif kind == "rule":
            chain = found.chains.setdefault((table, str(body.get("chain"))), Chain(table, str(body.get("chain"))))
            chain.rules += _Nft({at: elements for (of, at), elements in sets.items() if of == table}).rules(_dicts(body.get("expr")))
    return found


def _dicts(told: Json) -> list[dict[str, Json]]:
    """The objects in what should be a list of them."""
    return [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []


class _Nft:
    """Reads the rules of one table. ``sets``: elements of its sets and maps, by "@name"."""

    def __init__(self, sets: Mapping[str, Json]) -> None:
        self._sets = sets

    def rules(self, expressions: Sequence[Mapping[str, Json]]) -> Iterator[FilterRule]:
        """One rule of nft: more than one where a verdict map decides, one for each of its elements."""
        tests: list[Test] = []
        for expression in expressions:
            for kind, body in expression.items():
                if kind == "match" and isinstance(body, dict):
                    tests.append(self._test(body))
                elif kind == "vmap" and isinstance(body, dict):
                    yield from self._mapped(tests, body)
                elif kind == "limit":
                    tests.append(_over if isinstance(body, dict) and body.get("inv") else _under)
                elif kind in ("xt", "quota", "ct count"):
                    tests.append(_unknown)
                    if kind == "xt" and isinstance(body, dict) and body.get("type") == "target":
                        yield FilterRule(tuple(tests), UNKNOWN_WAYS)
                else:
                    yield from self._verdict(tests, kind, body)

    def _verdict(self, tests: Sequence[Test], kind: str, body: Json) -> Iterator[FilterRule]:
        if kind in _ENDS:
            yield FilterRule(tuple(tests), _ENDS[kind])
        elif kind in ("jump", "goto") and isinstance(body, dict):
            yield FilterRule(tuple(tests), into=str(body.get("target")), back=kind == "jump")
        elif kind == "notrack":
            yield FilterRule(tuple(tests), notrack=True)

    def _mapped(self, tests: Sequence[Test], body: Mapping[str, Json]) -> Iterator[FilterRule]:
        data = body.get("data")
        pairs = self._sets.get(data, []) if isinstance(data, str) else data.get("set", []) if isinstance(data, dict) else []
        for pair in pairs if isinstance(pairs, list) else ():
            if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict):
                here = (*tests, self._test({"op": "==", "left": body.get("key"), "right": pair[0]}))
                for kind, target in pair[1].items():
                    yield from self._verdict(here, kind, target)

    def _test(self, match: Mapping[str, Json]) -> Test:
        left, right, inverted = match.get("left"), match.get("right"), match.get("op") == "!="
        if match.get("op") not in ("==", "!=", "in"):
            return _unknown

        def holds(request: Request) -> bool | None:
            if _foreign(left, request):
                return False
            found = self._equal(left, right, request)
            return _not(found) if inverted else found

        return holds

    def _equal(self, left: Json, right: Json, request: Request) -> bool | None:
        """Whether what ``left`` names is among ``right``."""
        if isinstance(right, str) and right.startswith("@"):
            right = {"set": self._sets[right]} if right in self._sets else None
        if isinstance(right, dict) and "set" in right:
            right = right["set"]
        if isinstance(right, list):
            return _any_of([self._equal(left, each, request) for each in right])
        if isinstance(right, dict) and isinstance(right.get("elem"), dict):
            return self._equal(left, right["elem"].get("val"), request)
        if isinstance(left, dict) and isinstance(left.get("concat"), list):
            parts = right.get("concat") if isinstance(right, dict) else None
            if not isinstance(parts, list) or len(parts) != len(left["concat"]):
                return None
            found = [self._equal(one, other, request) for one, other in zip(left["concat"], parts, strict=True)]
            return _not(_any_of([_not(each) for each in found]))
        return _value_is(left, right, request) if isinstance(left, dict) else None


def _payload(left: Json) -> tuple[str, str]:
    """(protocol, field) of a header's field; "" without one."""
    body = left.get("payload") if isinstance(left, dict) else None
    return (str(body.get("protocol", "")), str(body.get("field", ""))) if isinstance(body, dict) else ("", "")


def _foreign(left: Json, request: Request) -> bool:
    """Whether a field belongs to another kind of packet, so that neither == nor != of it holds. A request has no extension headers."""
    protocol, _ = _payload(left)
    if isinstance(left, dict) and "exthdr" in left:
        return True
    if isinstance(left, dict) and isinstance(left.get("concat"), list):
        return any(_foreign(part, request) for part in left["concat"])
    return protocol not in ("", "th", request.protocol, "ip", "ip6", "ether", "vlan") or protocol == {4: "ip6", 6: "ip"}[request.version]


def _value_is(left: Mapping[str, Json], right: Json, request: Request) -> bool | None:
    """Whether one key of a packet has the value ``right``: a number, name, {"range": ...} or {"prefix": ...}."""
    protocol, name = _payload(left)
    meta, ct, fib = (left.get(kind) for kind in ("meta", "ct", "fib"))
    key = str(meta.get("key", "")) if isinstance(meta, dict) else ""
    if name == "dport":
        return _number_is(request.port, right)
    if name in ("saddr", "daddr") and protocol in ("ip", "ip6"):
        where = request.source if name == "saddr" else ip_network(request.own)
        return _any_of([_source_in(where, net) for net in _prefixes(right)]) if _prefixes(right) else None
    if key in ("iifname", "iif") and isinstance(right, str):
        return _named(right, request.interface)
    if key == "l4proto" or name in ("protocol", "nexthdr"):
        return right in (request.protocol, PROTOCOLS[request.protocol])
    if key == "nfproto":
        return right == f"ipv{request.version}"
    if key == "protocol":
        return right == {4: "ip", 6: "ip6"}[request.version]
    if key == "pkttype":
        return right in ("host", "unicast")
    if isinstance(ct, dict) and ct.get("key") == "state":
        return right == ("new" if request.tracked else "untracked")
    if isinstance(ct, dict) and ct.get("key") == "status":
        return False  # set once a connection is known
    if isinstance(fib, dict) and fib.get("result") in ("oif", "oifname") and right is False:
        return False  # a neighbour's request comes by the way on which it is answered
    if isinstance(fib, dict) and fib.get("result") == "type":
        return right == "local" if "daddr" in str(fib.get("flags")) else right == "unicast"
    return None


def _number_is(port: int, right: Json) -> bool | None:
    if isinstance(right, dict) and isinstance(right.get("range"), list):
        low, high = [*right["range"], None, None][:2]
        return low <= port <= high if isinstance(low, int) and isinstance(high, int) else None
    number = _SERVICES.get(right) if isinstance(right, str) else right
    return port == number if isinstance(number, int) else None


def _prefixes(right: Json) -> list[Net]:
    if isinstance(right, dict) and isinstance(right.get("prefix"), dict):
        return _nets(f"{right['prefix'].get('addr')}/{right['prefix'].get('len')}")
    if isinstance(right, dict) and isinstance(right.get("range"), list):
        return _nets(*map(str, [*right["range"], "", ""][:2]))
    return _nets(right) if isinstance(right, str) else []


def _unknown(_: Request) -> bool | None:
    return None


def _under(_: Request) -> bool | None:
    return True  # one request is below every rate


def _over(_: Request) -> bool | None:
    return False


# ---- iptables -------------------------------------------------------------------------------------------------------------------------

_TARGETS: Final = {
    "ACCEPT": _ENDS["accept"],
    "DROP": _ENDS["drop"],
    "REJECT": _ENDS["drop"],
    "RETURN": _ENDS["return"],
    "QUEUE": UNKNOWN_WAYS,
    "NFQUEUE": UNKNOWN_WAYS,
}
_PASSING: Final = frozenset(
    ("LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "DSCP", "TOS", "TTL", "SET", "AUDIT", "TRACE", "CLASSIFY", "CHECKSUM")
)
"""Targets after which the next rule follows."""


def read_iptables(text: str, version: int, into: Filter | None = None) -> Filter:
    """What ``iptables-save`` (``version`` 4) or ``ip6tables-save`` (6) printed, beside what ``into`` has."""
    found, table = into or Filter(), ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = f"{'ip' if version == 4 else 'ip6'} {line[1:].strip()}"
        elif line.startswith(":"):
            name, policy, *_ = [*line[1:].split(), "-"]
            hook = {"INPUT": "input", "PREROUTING": "prerouting"}.get(name, "") if policy != "-" else ""
            found.chains[table, name] = Chain(table, name, hook, Way.DROP if policy == "DROP" else Way.ACCEPT)
        elif line.startswith("-A ") and not table.endswith(" nat"):
            _, name, *words = [*_words(line), ""]
            chain = found.chains.setdefault((table, name), Chain(table, name))
            chain.rules.append(_rule([word for word in words if word]))
    return found


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a comment with a quote of its own
        return line.split()


def _rule(words: Sequence[str]) -> FilterRule:
    tests: list[Test] = []
    for option, values, inverted in _options(words):
        if option in ("-j", "--jump", "-g", "--goto"):
            target = values[0] if values else ""
            if target in _TARGETS:
                return FilterRule(tuple(tests), _TARGETS[target])
            if target in ("CT", "NOTRACK"):
                return FilterRule(tuple(tests), notrack=target == "NOTRACK" or "--notrack" in words)
            return (
                FilterRule(tuple(tests)) if target in _PASSING else FilterRule(tuple(tests), into=target, back=option in ("-j", "--jump"))
            )
        if (test := _condition(option, values)) is not None:
            tests.append(_inverted(test) if inverted else test)
    return FilterRule(tuple(tests))


def _inverted(test: Test) -> Test:
    return lambda request: _not(test(request))


def _options(words: Sequence[str]) -> Iterator[tuple[str, list[str], bool]]:
    """(option, its values, whether "!" stands before it)."""
    at, inverted = 0, False
    while at < len(words):
        if words[at] == "!":
            inverted, at = True, at + 1
            continue
        end = at + 1
        while end < len(words) and words[end] != "!" and not re.match(r"--?[a-zA-Z]", words[end]):
            end += 1
        yield words[at], list(words[at + 1 : end]), inverted
        at, inverted = end, False


def _condition(option: str, values: Sequence[str]) -> Test | None:
    """The test of one option; None for options that test nothing: names of modules, comments, and details of what another one tests."""
    value = values[0] if values else ""
    nets = _nets(value)
    match option:
        case "-m" | "--match" | "--comment" | "--limit" | "--limit-burst" | "--reject-with":
            return None
        case "-p" | "--protocol":
            return lambda request: value in (request.protocol, "all", str(PROTOCOLS[request.protocol]))
        case "-s" | "--source" if nets:
            return lambda request: _any_of([_source_in(request.source, net) for net in nets])
        case "-d" | "--destination" if nets:
            return lambda request: _any_of([_source_in(ip_network(request.own), net) for net in nets])
        case "-i" | "--in-interface":
            return lambda request: _named(value, request.interface)
        case "--dport" | "--destination-port" | "--dports":
            return lambda request: _any_of([_in_range(request.port, part) for part in value.split(",")])
        case "--ctstate" | "--state":
            return lambda request: ("NEW" if request.tracked else "UNTRACKED") in value.split(",")
        case "--dst-type":
            return lambda _: "LOCAL" in value.split(",")
        case "--pkt-type":
            return lambda _: value in ("unicast", "host")
        case "--syn":
            return lambda request: request.protocol == "tcp"
        case "--tcp-flags":
            return lambda request: None if request.protocol == "tcp" else False
        case "--icmp-type" | "--icmpv6-type" | "--rt-type" | "-f" | "--fragment":
            return lambda _: False  # a request has neither a routing header nor fragments
        case "--invert" | "--validmark":
            return lambda _: option != "--invert"  # of rpfilter: a neighbour's request comes by the way on which it is answered
        case _:
            return _unknown


def _in_range(port: int, text: str) -> bool | None:
    low, _, high = text.partition(":")
    numbers = [_SERVICES.get(each, int(each) if each.isdigit() else -1) for each in (low or "0", (high or "65535") if ":" in text else low)]
    return None if -1 in numbers else numbers[0] <= port <= numbers[1]
