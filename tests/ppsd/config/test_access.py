"""access.py and clients.py: which rule decides, and how people are told."""

from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.cli.clients import table, verdict
from ppsd.config.access import ACTIONS, MAPPED, AccessList, Decision, Rule, address_number, is_private, prefix_complaint
from ppsd.config.tables import Config

HOME = Config().access.rules()


@pytest.mark.parametrize("address", ["192.168.1.7", "10.255.255.255", "172.16.0.1", "127.0.0.1", "::1", "fe80::1", "fd00::7"])
def test_a_new_box_answers_its_own_networks(address: str) -> None:
    """Private and link-local addresses are let in without configuration."""
    assert HOME.decide(address).action == "allow"


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "192.169.0.1", "2001:db8::1", "::ffff:8.8.8.8", "0.0.0.0", "::"])
def test_a_new_box_is_no_open_server(address: str) -> None:
    """Everything else is denied, and no rule is named for it."""
    assert HOME.decide(address) == Decision("deny")


def test_the_longest_prefix_decides_whatever_the_order() -> None:
    """A host inside a denied network inside an allowed one is let in."""
    rules = AccessList.of({"allow": ["10.0.0.0/8", "10.1.2.3"], "deny": ["10.1.0.0/16"], "ignore": ["10.1.2.0/30"]})
    asked = {a: rules.decide(a).action for a in ("10.0.0.1", "10.1.0.1", "10.1.2.1", "10.1.2.3")}
    assert asked == {"10.0.0.1": "allow", "10.1.0.1": "deny", "10.1.2.1": "ignore", "10.1.2.3": "allow"}


def test_for_the_same_prefix_the_stricter_rule_decides() -> None:
    """allow and deny of one prefix: denied."""
    assert AccessList.of({"allow": ["10.0.0.0/8"], "deny": ["10.0.0.0/8"]}).decide("10.0.0.1").action == "deny"


def test_mapped_addresses_are_ipv4() -> None:
    """::ffff:10.0.0.1 meets the rules of 10.0.0.1, and a rule for ::ffff:10.0.0.0/104 those of IPv4 clients."""
    assert HOME.decide("::ffff:10.0.0.1").action == "allow"
    assert AccessList.of({"allow": ["::ffff:10.0.0.0/104"]}).decide("10.9.9.9").action == "allow"


prefixes = st.builds(
    lambda number, length, four: str(ip_network((number >> 96 if four else number, min(length, 32) if four else length), strict=False)),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
    st.booleans(),
)


@given(st.lists(st.tuples(prefixes, st.sampled_from(ACTIONS)), max_size=12), st.lists(st.integers(0, 2**128 - 1), max_size=20))
def test_the_flattened_ranges_say_what_the_rules_say(rules: list[tuple[str, str]], numbers: list[int]) -> None:
    """For any rules and any address, also at the prefixes' very edges, the range found is the rule that explains."""
    access = AccessList(Rule(prefix, action) for prefix, action in rules)
    ranges = access.ranges()
    assert ranges[0][0] == 0
    assert all(a[0] < b[0] for a, b in pairwise(ranges))
    edges = [int(ip_network(p)[0]) | (MAPPED if ip_network(p).version == 4 else 0) for p, _ in rules]
    for number in (*numbers, *edges, *(edge - 1 for edge in edges if edge), *(first for first, _ in ranges)):
        found = next(action for first, action in reversed(ranges) if first <= number)
        text = str(ip_address(number - MAPPED)) if number >> 32 == 0xFFFF else f"{ip_address(number | 1 << 128 - 1)}"
        if number >> 32 == 0xFFFF or number >> 127:
            assert ACTIONS[found] == access.decide(text).action


def test_what_is_no_prefix_is_explained() -> None:
    """Host bits get a proposal, nonsense an example."""
    assert prefix_complaint("192.168.1.0/24") is None
    assert 'did you mean "192.168.1.0/24"' in (prefix_complaint("192.168.1.7/24") or "")
    assert "write it like" in (prefix_complaint("my-lan") or "")
    assert address_number("fe80::1%eth0") == address_number("fe80::1")
    with pytest.raises(ValueError, match="not an access rule"):
        AccessList([Rule("10.0.0.0/8", "admit")])


def test_private_means_the_whole_prefix() -> None:
    """A prefix that reaches out of a private range is public."""
    assert is_private("192.168.4.0/22")
    assert is_private("fe80::/64")
    assert not is_private("192.0.0.0/8")
    assert not is_private("::/0")


def test_people_are_told_in_one_sentence() -> None:
    """The rule, or what to do when there is none."""
    assert verdict("10.0.0.1", Decision("allow", "10.0.0.0/8", "access.allow")) == ("10.0.0.1 is answered by 10.0.0.0/8 in access.allow")
    assert "access.allow would let it in" in verdict("8.8.8.8", Decision("deny"))


def test_the_table_of_clients() -> None:
    """Aligned, with units that people read, and what was left out is said."""
    client = {"address": "192.168.1.7", "packets": 12, "drops": 0, "interval_s": 64.0, "last_s": 3.25, "first_s": 9000.0,
              "version": 4, "authenticated": True, "interleaved": False}  # fmt: skip
    once = client | {"interval_s": None, "authenticated": False, "first_s": 200_000.0}
    lines = table({"known": 3, "clients": [client, once]}).splitlines()
    assert lines[2].split() == ["192.168.1.7", "12", "0", "64", "s", "3.2", "s", "2", "h", "4", "key"]
    assert lines[3].split()[-4:] == ["2", "d", "4", "basic"]
    assert lines[4] == "... and 1 more (-n 3)"
    assert table({"known": 0, "clients": []}).endswith("nobody has asked yet")
