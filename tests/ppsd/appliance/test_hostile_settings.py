"""The owner's files may hold anything: a damaged card, another program's file, a passphrase with quotes, somebody's bad idea.

Whatever box.toml and refclock.toml are, a boot goes on, writes its own files alone, and no value begins a line or a setting of its own in a
file of another program.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_tree import KEY, Appliance
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ppsd.appliance.network import firewall, networkd_files, ntp_service, served_ports, wifi_file
from ppsd.appliance.pins import user_text
from ppsd.appliance.settings import TABLES, BoxSettings, parse
from ppsd.config.tables import ServerConfig

GOOD: dict[str, list[object]] = {
    "hostname": ["refclock", "a", "A-1", "x" * 63],
    "ssh_keys": [[KEY], [KEY, KEY.replace("me@laptop", "ünï")], []],
    "led": ["auto", "off", "green:activity"],
    "interface": ["", "end0", "wlan0", "enp1s0"],
    "address": [["192.168.1.5/24"], ["2001:db8::5/64", "10.0.0.1/255.0.0.0"], ["fe80::5/64"], []],
    "gateway": [["192.168.1.1"], ["fe80::1"], []],
    "dns": [["192.168.1.1", "2001:db8::1"], []],
    "ipv6": ["auto", "static", "off"],
    "vlan": [0, 7, 4094],
    "ssid": ["home", 'a "b" \\c', "ß" * 16, "#}"],
    "passphrase": ["12345678", 'pass"}\\word', "0" * 64, ""],
    "country": ["DE", ""],
    "hidden": [True, False],
    "pps": [0, 4, 18, 27],
    "uart": [True, False],
}
BREAKS = [
    "\n",
    "\r",
    "\r\n",
    "\0",
    "\x85",
    "\u2028",
    '"',
    "'",
    "\\",
    "#",
    ";",
    "=",
    "]",
    "[",
    "}",
    " ",
    "\t",
    "%",
    "$(reboot)",
    "\n[Service]\n",
]


def spoilt(value: object) -> st.SearchStrategy[object]:
    """``value`` with something put into it that has a meaning in some file."""
    if isinstance(value, list):
        return st.one_of(*map(spoilt, value)).map(lambda each: [each, *value[1:]]) if value else st.just(["\n"])
    text = str(value)
    return st.tuples(st.integers(0, len(text)), st.sampled_from(BREAKS)).map(lambda cut: text[: cut[0]] + cut[1] + text[cut[0] :])


ANYTHING = st.one_of(
    st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.lists(st.text(max_size=10), max_size=3), st.just({"a": 1})
)


def value_of(name: str) -> st.SearchStrategy[object]:
    good = st.sampled_from(GOOD[name])
    return st.one_of(good, good, good, good.flatmap(spoilt), ANYTHING)


def toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{ a = 1 }"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf").replace("\x7f", "")


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A box.toml, mostly of right keys with right values."""
    lines: list[str] = []
    for table, cls in TABLES.items():
        keys = draw(st.lists(st.sampled_from(list(cls.__dataclass_fields__)), unique=True))
        lines += [f"[{table}]", *(f"{name} = {toml(draw(value_of(name)))}" for name in keys)]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


FILES = st.one_of(files(), files(), st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))

IP = r"[0-9a-f.:]+"
NETWORKD = re.compile(
    r"# Written by refclock box .*|\[(Match|Link|Network|Route|DHCPv4|DHCPv6|IPv6AcceptRA|NetDev|VLAN)\]||Type=(ether|wlan)|Kind=(!\*|vlan)"
    r"|Name=[A-Za-z0-9_.-]{1,15}|RequiredForOnline=no|DHCP=(no|ipv4)|IPv6AcceptRA=(yes|no)|LinkLocalAddressing=(no|ipv6)|MulticastDNS=yes"
    rf"|LLMNR=no|Address={IP}/\d+|DNS={IP}|ConfigureWithoutCarrier=yes|Gateway={IP}|GatewayOnLink=yes|Metric=\d+|RouteMetric=\d+"
    r"|ClientIdentifier=mac|Use(NTP|Hostname|Timezone|DNS)=no|VLAN=vlan\d+|LLDP=no|Id=\d+"
)
WPA = re.compile(
    r"# Written by refclock box .*||country=[A-Z]{2}|update_config=0|network=\{|\}|    ssid=([0-9a-f]{2}){1,32}|    scan_ssid=[01]"
    r"|    psk=[0-9a-f]{64}|    key_mgmt=(WPA-PSK WPA-PSK-SHA256|NONE)|    ieee80211w=1"
)
PINS = re.compile(r"# Written .*|\[(all|pi02|pi3|pi4|pi5)\]|enable_uart=[01]|dtoverlay=(pps-gpio(-pi5)?,gpiopin=\d+|disable-bt)")


def lines_of(made: BoxSettings) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Every line that these settings put into a file, and what is a line there."""
    for text in networkd_files(made).values():
        yield from ((line, NETWORKD) for line in text.split("\n"))
    if made.wifi.ssid:
        yield from ((line, WPA) for line in wifi_file(made.wifi).split("\n"))
    yield from ((line, PINS) for line in user_text(made.pins).rstrip("\n").split("\n"))
    yield made.system.hostname, re.compile("[A-Za-z0-9-]{1,63}")
    for key in made.system.ssh_keys:
        yield key, re.compile(r"(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( .*)?")


@settings(max_examples=200)
@given(FILES)
@example(b'[system]\nhostname = "a\\nb"\n')
@example(b'[wifi]\nssid = "a\\"\\n}\\nnetwork={"\ncountry = "DE"\n')
@example(b'[system]\nssh_keys = ["' + KEY.encode() + b'\\ncommand=\\"x\\" ssh-rsa AAAA"]\n')
def test_no_value_becomes_a_line_of_its_own(data: bytes) -> None:
    """Every line of every file is one that this box writes there, for any content of box.toml; and nothing that is told steers a
    terminal."""
    made, problems = parse(data)
    for line, form in lines_of(made):
        assert form.fullmatch(line), repr(line)
        assert line.isprintable()
    assert all(problem.line >= 0 for problem in problems)


@settings(max_examples=20)
@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=8, max_size=63))
def test_no_word_about_a_file_repeats_the_passphrase(passphrase: str) -> None:
    """STATUS.txt and reports are shown to others; the passphrase is nobody's business, right or wrong, quoted or not."""
    secret = f"Q7{passphrase}7Q"
    for written in (
        secret,
        json.dumps(secret),
        json.dumps(secret + "\n"),
        f"'{secret}",
        f'"{secret}',
        f"[{json.dumps(secret)}]",
        f"{secret} =",
    ):
        for line in (f"passphrase = {written}", f"passphrase {written}", f"password = {written}", f"passphrase =\n{written}"):
            _, problems = parse(f'[wifi]\nssid = "x"\n{line}\n'.encode())
            assert not [problem for problem in problems if secret[:12] in str(problem)]


@given(
    st.lists(st.sampled_from(["0.0.0.0:123", "[::]:123", "127.0.0.1:11123", "nonsense", "0.0.0.0:123; accept"])),
    st.booleans(),
    st.booleans(),
)
def test_the_firewall_opens_ports_and_nothing_else(listen: list[str], enabled: bool, ssh: bool) -> None:
    """Whatever the server listens on, the rules differ by its ports and by ssh alone."""
    ports = served_ports(ServerConfig(enabled=enabled, listen=tuple(listen)))
    shape = firewall([1], ssh) if ports else firewall([], ssh)
    assert firewall(ports, ssh).replace(f"{{ {', '.join(map(str, ports))} }}", "{ 1 }") == shape
    assert ntp_service(123).count("\n") == ntp_service(65535).count("\n")


WRITTEN = re.compile(
    r"etc/hostname|root/\.ssh/authorized_keys|boot/refclock/(box\.toml|refclock\.toml|STATUS\.txt)|data/box/(box\.toml|refclock\.toml"
    r"|seen/(box|refclock)\.toml|(box|refclock)\.toml\.replaced|pins-tried|made\.json)|data/etc/refclock/refclock\.toml|data/ssh/ssh_host_ed25519_key(\.pub)?"
    r"|run/systemd/network/[\w-]+\.(network|netdev)|run/systemd/dnssd/refclock\.dnssd|run/refclock-box/(nftables\.nft|wpa_supplicant\.conf|words"
    r"|mistakes|led)|run/systemd/system/refclock-clock\.service\.d/20-box\.conf|firmware/user\.txt"
)


@pytest.mark.slow
@settings(max_examples=25)
@given(FILES, st.one_of(st.just(b"[clock]\nholdover_limit_s = 9\n"), FILES), st.booleans())
def test_a_boot_writes_its_own_files_alone(box: bytes, daemon: bytes, again: bool) -> None:
    """No content of the two files raises, and none makes a boot write anywhere else, or to the card."""
    root = Path(tempfile.mkdtemp())
    try:
        appliance = Appliance(root)
        before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        (root / "boot/refclock/box.toml").write_bytes(box)
        (root / "boot/refclock/refclock.toml").write_bytes(daemon)
        for _ in range(1 + again):
            appliance.boot()
        after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        changed = {str(path.relative_to(root)) for path in {*before, *after} if before.get(path) != after.get(path)}
        assert not {name for name in changed if not WRITTEN.fullmatch(name)}
        assert (root / "boot/refclock/box.toml").read_bytes() == box
        assert (root / "boot/refclock/refclock.toml").read_bytes() == daemon
        with contextlib.suppress(FileNotFoundError):
            assert (root / "root/.ssh/authorized_keys").read_text(encoding="utf-8").count("\n") <= 2
    finally:
        shutil.rmtree(root)
