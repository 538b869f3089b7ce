"""Client configurations: what there is, and what is in it. The programs themselves read them in tests/peers/test_client_config.py."""

from __future__ import annotations

import json

import pytest

from ppsd.config.client_templates import TEMPLATES, NtsOffer, ServerNames, client_config, listed, nts_configurations, option_42, option_56

WORDS = (
    *("chrony", "ntpd", "ntpsec", "ntpd-rs", "timesyncd", "openntpd", "busybox", "windows", "windows-gpo", "macos", "cisco-ios"),
    *("cisco-nxos", "catos", "junos", "mikrotik", "opnsense", "openwrt", "fritzbox", "dnsmasq", "kea", "isc-dhcp", "dhcp", "maas"),
    *("docker", "kubernetes", "home-assistant", "pool"),
)
BOTH = ServerNames(("192.0.2.5",), ("2001:db8::5",))


def test_every_client_is_there_and_listed() -> None:
    """There is a text for each client that people have, and the list names all of them."""
    assert sorted(TEMPLATES) == sorted(WORDS)
    assert [line.split()[0] for line in listed().splitlines()] == list(TEMPLATES)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "names", [BOTH, ServerNames(("time.example.net",)), ServerNames(("2001:db8::5",)), ServerNames(("192.0.2.5", "192.0.2.6"), key=10)]
)
def test_each_says_where_it_goes_and_how_it_is_verified(word: str, names: ServerNames) -> None:
    """Each text begins with its place and ends with the command that verifies it; nothing of a template is left in it, and no secret."""
    text = client_config(word, names)
    lines, mark = text.splitlines(), TEMPLATES[word].mark
    assert lines[0].startswith(f"{mark} ")
    assert lines[-1].startswith(f"{mark} verify: ")
    assert "{" not in text.replace('{"', "").replace("{{", "").replace("machine: {time: {", "")
    assert "SERVER" not in text
    assert all(line == line.rstrip() and len(line) < 200 for line in lines)


@pytest.mark.parametrize("word", [word for word in WORDS if word not in ("docker", "dhcp", "dnsmasq", "isc-dhcp", "kea", "catos")])
def test_each_names_the_server(word: str) -> None:
    """The server's own address stands in each text; a second address of the same server is never a second server."""
    text = client_config(word, BOTH)
    assert "192.0.2.5" in text
    mark = TEMPLATES[word].mark
    active = [line for line in text.splitlines() if not line.startswith(mark)]
    assert word in ("timesyncd", "home-assistant") or not any("2001:db8::5" in line for line in active)


def test_a_key_is_named_only_where_keys_are_known() -> None:
    """With a key, its number stands in each text whose program knows keys; the others say that they do not."""
    for word, template in TEMPLATES.items():
        text = client_config(word, ServerNames(("192.0.2.5",), key=4711))
        assert "4711" in text
        assert ("it knows no symmetric keys" in text) != template.keys


def test_another_port_than_123_is_told() -> None:
    """Programs that can ask another port are given it, all others say that they cannot."""
    for word, template in TEMPLATES.items():
        text = client_config(word, ServerNames(("192.0.2.5",), port=1123))
        assert "1123" in text
        assert ("asks port 123 only" in text) != template.ports


def test_dhcp_options_are_those_of_the_standards() -> None:
    """Option 42 is four octets for each address (RFC 2132 section 8.3); option 56 has suboption 1 for an address and 3 for a name in DNS's
    own form (RFC 5908 section 4)."""
    assert option_42(ServerNames(("192.0.2.5",), ("2001:db8::5", "192.0.2.6"))).hex() == "c0000205c0000206"
    address = bytes.fromhex("00010010" + "20010db8000000000000000000000005")
    assert option_56(BOTH) == address
    name = bytes.fromhex("00030012") + b"\x04time\x07example\x03net\0"
    assert option_56(ServerNames(("time.example.net",))) == name
    assert option_56(ServerNames(("192.0.2.5",))) == b""


def test_keas_fragments_are_json() -> None:
    """What is not a comment in Kea's text is one JSON object, with option 42 by IPv4, else option 56."""
    for names, table in ((BOTH, "Dhcp4"), (ServerNames(("2001:db8::5",)), "Dhcp6")):
        body = "\n".join(line for line in client_config("kea", names).splitlines() if not line.startswith("//"))
        assert list(json.loads(body)) == [table]


def test_clients_that_know_nts_use_it_instead_of_a_key() -> None:
    """chrony, ntpsec and ntpd-rs are told to use NTS, with the file of the server's own authority where it has one; a key and the port of
    NTP are then not theirs to write. All others read the same as without."""
    plain, offered = ServerNames(("192.0.2.5",), key=7), ServerNames(("192.0.2.5",), key=7, nts=NtsOffer())
    assert nts_configurations(offered) == {
        "chrony": ("server 192.0.2.5 iburst nts", "ntstrustedcerts /etc/chrony/refclock-ca.pem"),
        "ntpsec": ("server 192.0.2.5 iburst nts ca /etc/ntpsec/refclock-ca.pem",),
        "ntpd-rs": (
            *("[[source]]", 'mode = "nts"', 'address = "192.0.2.5:4460"', 'certificate-authority = "/etc/ntpd-rs/refclock-ca.pem"'),
            *("[synchronization]", "minimum-agreeing-sources = 1"),
        ),
    }
    for word in TEMPLATES:
        if word not in nts_configurations(offered):
            assert client_config(word, offered) == client_config(word, plain)
    assert "refclock nts ca --out refclock-ca.pem" in client_config("chrony", offered)


def test_a_public_certificate_needs_no_file_and_another_port_is_told() -> None:
    """With a certificate of a public authority only the word nts is added; key establishment on another port is named."""
    given = nts_configurations(ServerNames(("time.example.net",), nts=NtsOffer(14460, own=False)))
    assert given["chrony"] == ("server time.example.net iburst nts ntsport 14460",)
    assert given["ntpsec"] == ("server time.example.net:14460 iburst nts",)
    assert 'address = "time.example.net:14460"' in given["ntpd-rs"]
