"""The kernel's packet filters are read as the kernel walks them: recorded rules of real firewalls, and single rules."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.cli.doctor.packet_filter import Filter, Request, read_iptables, read_nft

FIREWALLS = Path(__file__).parents[2] / "data" / "firewalls"
REQUEST = Request(ip_network("192.168.7.0/24"), ip_address("192.168.7.1"), "eth7", 123)
REQUEST6 = Request(ip_network("fd77::/64"), ip_address("fd77::1"), "eth7", 123)


def firewalld(*more: dict[str, object]) -> Filter:
    """firewalld 1.3 as its package sets it up: zone public, with ssh and dhcpv6-client, and port 9123 opened."""
    told = json.loads((FIREWALLS / "firewalld-1.3.json").read_text(encoding="utf-8"))
    told["nftables"] += more
    return read_nft(json.dumps(told))


def test_firewalld() -> None:
    """What its zone opens comes in, by IPv4 and IPv6, and NTP, which it does not open, does not; the chain that refuses is named."""
    for request in (REQUEST, REQUEST6):
        way, by = firewalld().lets_in(request)
        assert way is False
        assert by is not None
        assert (by.table, by.name) == ("inet firewalld", "filter_INPUT")
        assert firewalld().lets_in(replace(request, port=9123)) == (True, None)
    accept = {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 123}}, {"accept": None}
    opened = {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_IN_public_allow", "expr": accept}}
    assert firewalld(opened).lets_in(REQUEST)[0]


SHUT = """*filter
:INPUT DROP [0:0]
:own - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{}
COMMIT
"""


@pytest.mark.parametrize(
    ("rules", "way"),
    [
        ("", False),
        ("-A INPUT -p udp -m udp --dport 123 -j ACCEPT", True),
        ('-A INPUT -p udp -m udp --dport 123 -m comment --comment "it\'s \\"NTP\\" -j DROP" -j ACCEPT', True),
        ("-A INPUT -p tcp -m tcp --dport 123 -j ACCEPT", False),
        ("-A INPUT -p udp -m multiport --dports 53,100:200 -j ACCEPT", True),
        ("-A INPUT -p udp -m udp ! --dport 53 -j ACCEPT", True),
        ("-A INPUT ! -p tcp -j ACCEPT", True),
        ("-A INPUT -s 192.168.0.0/16 -p udp -j ACCEPT", True),
        ("-A INPUT ! -s 192.168.0.0/16 -j ACCEPT", False),
        ("-A INPUT -s 192.168.7.128/25 -p udp -j ACCEPT", None),
        ("-A INPUT -d 192.168.7.1/32 -j ACCEPT", True),
        ("-A INPUT -i eth+ -j ACCEPT", True),
        ("-A INPUT -i wlan0 -j ACCEPT", False),
        ("-A INPUT -p udp -m udp --dport 123 -m conntrack --ctstate NEW -j ACCEPT", True),
        ("-A INPUT -p udp -m udp --dport 123 -m limit --limit 5/sec -j ACCEPT", True),
        ("-A INPUT -m set --match-set trusted src -j ACCEPT", None),
        ("-A INPUT -m mark --mark 0x1 -j ACCEPT", None),
        ("-A INPUT -p udp -j own\n-A own -p udp -m udp --dport 53 -j RETURN\n-A own -p udp -m udp --dport 123 -j ACCEPT", True),
        ("-A INPUT -p udp -j own\n-A own -j RETURN\n-A own -j ACCEPT", False),
        ("-A INPUT -g own\n-A INPUT -j ACCEPT\n-A own -p tcp -j ACCEPT", False),
        ("-A INPUT -j LOG --log-prefix x\n-A INPUT -j ACCEPT", True),
        ("-A INPUT -p udp -m udp --dport 123 -j REJECT --reject-with icmp-port-unreachable\n-A INPUT -p udp -j ACCEPT", False),
        ("-A INPUT -m addrtype --dst-type BROADCAST -j DROP\n-A INPUT -j ACCEPT", True),
        ("-A INPUT -j nowhere\n-A INPUT -j ACCEPT", None),
        ("-A INPUT -j own\n-A own -j INPUT", None),
    ],
)
def test_a_rule_of_iptables(rules: str, way: bool | None) -> None:
    """Each is yes, no, or cannot be told; a loop of chains, which no kernel takes, ends."""
    assert read_iptables(SHUT.format(rules), 4).lets_in(REQUEST)[0] is way


def test_an_earlier_hook_refuses_too() -> None:
    """A packet must come through every chain: raw's PREROUTING drops what filter's INPUT would let in. IPv6 has rules of its own."""
    told = read_iptables("*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -m udp --dport 123 -j DROP\nCOMMIT\n", 4)
    way, by = read_iptables("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", 4, told).lets_in(REQUEST)
    assert (way, by.table if by else "") == (False, "ip raw")
    assert told.lets_in(REQUEST6)[0]


WORDS = (
    *(
        "nftables",
        "rule",
        "chain",
        "set",
        "expr",
        "match",
        "left",
        "right",
        "op",
        "vmap",
        "key",
        "data",
        "payload",
        "range",
        "prefix",
        "elem",
    ),
    *(
        "val",
        "concat",
        "jump",
        "target",
        "family",
        "table",
        "name",
        "hook",
        "accept",
        "meta",
        "protocol",
        "field",
        "udp",
        "dport",
        "==",
        "limit",
    ),
)
LEAVES = st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS) | st.text(max_size=6)
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4))


@given(ANYTHING)
def test_no_text_of_nft_breaks_the_reader(told: object) -> None:
    """Rules of a version that is not known yet are read as far as they are understood."""
    read_nft(json.dumps(told)).lets_in(REQUEST)
    chain = {"chain": {"family": "inet", "table": "t", "name": "c", "hook": "input"}}
    for expr in (told, [{"match": told}], [{"match": {"op": "==", "left": told, "right": told}}], [{"vmap": told}], [{"jump": told}]):
        rule = {"rule": {"family": "inet", "table": "t", "chain": "c", "expr": expr}}
        read_nft(json.dumps({"nftables": [chain, rule]})).lets_in(REQUEST)
    for left in (
        {"payload": {"protocol": "udp", "field": "dport"}},
        {"payload": {"protocol": "ip", "field": "saddr"}},
        {"meta": {"key": "iifname"}},
    ):
        rule = {"rule": {"family": "inet", "table": "t", "chain": "c", "expr": [{"match": {"op": "==", "left": left, "right": told}}]}}
        read_nft(json.dumps({"nftables": [chain, rule]})).lets_in(REQUEST)


@given(st.text(max_size=60))
def test_no_text_of_iptables_breaks_the_reader(text: str) -> None:
    """Neither a whole line nor the rest of a rule."""
    read_iptables(text, 4).lets_in(REQUEST)
    read_iptables(SHUT.format(f"-A INPUT {text}"), 4).lets_in(REQUEST)
    read_iptables(SHUT.format(f"-A {text}"), 4).lets_in(REQUEST)
