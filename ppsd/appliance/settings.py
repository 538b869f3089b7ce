"""box.toml: the tables of the box itself, beside the daemon's refclock.toml on the card.

A value that passes here is safe to be written into the files of other programs: it has no control character, and names, addresses and keys
have no character that is special there. Whatever else those programs must not see (a network's name, its passphrase) is written in hex.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address, ip_interface
from typing import Any, Final

from ppsd.appliance.made import BOX_FILE
from ppsd.config.reader import Hint, Reader, as_text
from ppsd.config.tables import TABLES as DAEMON_TABLES
from refclock.schema import ConfigError, Problem, key

HOSTNAME: Final = "refclock"
PPS_PIN: Final = 18
"""GPIO number (BCM), header pin 12: where the widespread receiver boards have their pulse."""
UART_PINS: Final = (14, 15)
"""GPIO numbers of TXD and RXD, header pins 8 and 10."""
_EEPROM_PIN: Final = 1
"""GPIO number of ID_SC; ID_SD, which is 0, means none here."""
KEY_TYPES: Final = (
    *("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"),
)
"""Public keys that sshd(8) of today takes, section AUTHORIZED_KEYS FILE FORMAT."""


def _hostname(text: str) -> str | None:
    if not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", text) or text.isdigit():
        return "must be one name of at most 63 letters, digits and hyphens, without .local"
    return "is every machine's own name; choose another" if text.lower() == "localhost" else None


def _ssh_key(text: str) -> str | None:
    kind, _, rest = text.partition(" ")
    body = rest.partition(" ")[0]
    if "PRIVATE" in text:
        return "is a private key, which stays with you; write the line of the .pub file"
    if kind not in KEY_TYPES:
        return f"does not begin with a kind of key, such as {KEY_TYPES[0]}: write the whole line of the .pub file"
    try:
        blob = base64.b64decode(body, validate=True)
    except binascii.Error:
        blob = b""
    if not blob.startswith(len(kind).to_bytes(4, "big") + kind.encode()) or len(blob) < len(kind) + 36:
        return "is no whole key: copy the line of the .pub file again"
    return None


def _led(text: str) -> str | None:
    return None if re.fullmatch(r"[A-Za-z0-9_:.-]{1,64}", text) else "is not a light's name; ls /sys/class/leds lists them"


def _interface(text: str) -> str | None:
    return None if re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", text) and text not in (".", "..") else "is not an interface's name, such as end0"


def _address(text: str) -> str | None:
    try:
        given = ip_interface(text)
    except ValueError:
        return 'must be an address with the length of its network, like "192.168.1.5/24"'
    if "/" not in text:
        return f"lacks the length of its network: {text}/{24 if given.version == 4 else 64}"
    if "%" in text or given.is_multicast or given.is_loopback or given.is_unspecified:
        return "is no address that a machine can have on a network"
    if given.version == 4 and given.network.prefixlen < 31 and given.ip in (given.network[0], given.network[-1]):
        return "is the network's own or its broadcast address"
    return None


def _server(text: str) -> str | None:
    try:
        given = ip_address(text)
    except ValueError:
        return "is not an IPv4 or IPv6 address"
    return "is no address of another machine" if "%" in text or given.is_multicast or given.is_unspecified else None


def _ssid(text: str) -> str | None:
    return None if len(text.encode()) <= 32 else "is longer than the 32 octets that a network's name may have"


def _country(text: str) -> str | None:
    return None if re.fullmatch(r"[A-Z]{2}", text) else 'must be a country\'s two capital letters, like "DE" (ISO 3166)'


@dataclass(frozen=True, slots=True)
class SystemSettings:
    """The machine. ``ssh_keys``: public keys that may log in as root; without any, nobody can. ``led``: the light that shows the state."""

    hostname: str = key(HOSTNAME, "a name", check=_hostname)
    ssh_keys: tuple[str, ...] = key((), 'a list of public keys like ["ssh-ed25519 AAAA... me@laptop"]', check=_ssh_key)
    led: str = key("auto", '"auto", "off" or a name of /sys/class/leds', check=_led)


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Addresses of the wired network, or of ``interface`` alone. Without an IPv4 ``address`` it is asked for by DHCP. ``ipv6``: "auto":
    router advertisements, besides addresses given; "static": addresses given alone. ``vlan``: tag of the only network spoken, 0: none."""

    interface: str = key("", 'an interface such as "end0", or "" for every wired one', empty=True, check=_interface)
    address: tuple[str, ...] = key((), 'a list like ["192.168.1.5/24", "2001:db8::5/64"]', check=_address)
    gateway: tuple[str, ...] = key((), 'a list like ["192.168.1.1"]', check=_server)
    dns: tuple[str, ...] = key((), 'a list like ["192.168.1.1"]', check=_server)
    ipv6: str = key("auto", "where IPv6 addresses come from", choices=("auto", "static", "off"))
    vlan: int = key(0, "a tag, 0 for none", low=0, high=4094)


@dataclass(frozen=True, slots=True)
class WifiSettings:
    """The wireless network; "" for none. ``passphrase``: "" for an open network; its rules are checked by ``_judge``, which does not repeat
    it. ``country``: whose rules the radio keeps; it may not send before it knows. ``hidden``: the network does not tell its name."""

    ssid: str = key("", "the network's name", empty=True, check=_ssid)
    passphrase: str = key("", "a text in quotes", empty=True)
    country: str = key("", 'two capital letters like "DE"', empty=True, check=_country)
    hidden: bool = key(False, "true or false")


@dataclass(frozen=True, slots=True)
class PinSettings:
    """The header of a Raspberry Pi. ``pps``: GPIO number (not header pin) of the pulse, 0 for none. ``uart``: pins 8 and 10 of the header
    are the receiver's line, and Bluetooth is off where it would need the same UART."""

    pps: int = key(PPS_PIN, "a GPIO number", low=0, high=27)
    uart: bool = key(True, "true or false")


@dataclass(frozen=True, slots=True)
class BoxSettings:
    """The whole of box.toml."""

    system: SystemSettings = field(default_factory=SystemSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    wifi: WifiSettings = field(default_factory=WifiSettings)
    pins: PinSettings = field(default_factory=PinSettings)


TABLES: Final[Mapping[str, type[Any]]] = {"system": SystemSettings, "network": NetworkSettings, "wifi": WifiSettings, "pins": PinSettings}


def _judge_network(given: NetworkSettings, reader: Reader) -> NetworkSettings:
    """The network without what contradicts itself, which is reported."""
    addresses = [ip_interface(text) for text in given.address]
    if given.ipv6 == "off" and any(address.version == 6 for address in addresses):
        reader.report(("network", "ipv6"), 'is "off", and address has an IPv6 address: leave out one of the two; did you mean "static"?')
        addresses = [address for address in addresses if address.version == 4]
    gateways: list[str] = []
    read = not any(problem.key.startswith("network.address") for problem in reader.problems)
    for index, text in enumerate(given.gateway if read else ()):
        gateway, at = ip_address(text), ("network", "gateway", index)
        own = [address for address in addresses if address.version == gateway.version]
        if not own:
            reader.report(at, f"{text} needs an address of its own kind in address; without one, DHCP or the router tells the gateway")
        elif not gateway.is_link_local and not any(gateway in address.network for address in own):
            reader.report(at, f"{text} is not in the network of {', '.join(map(str, own))}")
        elif any(gateway == address.ip for address in own):
            reader.report(at, f"{text} is this machine's own address; write the router's")
        elif any(ip_address(other).version == gateway.version for other in gateways):
            reader.report(at, f"{text} is a second gateway for IPv{gateway.version}; leave in the one that leads out")
        else:
            gateways.append(str(gateway))
    servers = tuple(str(ip_address(text)) for text in given.dns)
    return replace(given, address=tuple(map(str, addresses)), gateway=tuple(gateways), dns=servers)


def _judge_wifi(given: WifiSettings, reader: Reader) -> WifiSettings:
    """The wireless network; none when it could not be joined, which is reported. The passphrase is not repeated."""
    before = len(reader.problems)
    if given.passphrase and not given.ssid:
        reader.report(("wifi", "passphrase"), "is given without ssid, the network's name")
    if given.ssid and not given.country:
        reader.report(("wifi", "ssid"), 'needs country, whose rules the radio keeps: country = "DE"')
    if given.passphrase and not usable_passphrase(given.passphrase):
        reader.report(("wifi", "passphrase"), "is none of WPA; allowed: 8 to 63 characters of plain ASCII, or 64 hexadecimal digits")
    return given if len(reader.problems) == before else WifiSettings()


def usable_passphrase(text: str) -> bool:
    """Whether it is a passphrase of WPA (IEEE 802.11-2020, annex J.4) or the key itself in hex."""
    return bool(re.fullmatch(r"[ -~]{8,63}|[0-9A-Fa-f]{64}", text))


def _judge_pins(given: PinSettings, reader: Reader) -> PinSettings:
    if given.uart and given.pps in UART_PINS:
        reader.report(("pins", "pps"), f"GPIO {given.pps} is the receiver's line while uart = true; another pin, or uart = false")
        return replace(given, pps=PPS_PIN)
    if given.pps == _EEPROM_PIN:
        reader.report(("pins", "pps"), f"GPIO {given.pps} belongs to the EEPROM of a board on the header; allowed: 0 for none, 2 to 27")
        return replace(given, pps=PPS_PIN)
    return given


def _veiled(problems: Sequence[Problem], text: str) -> list[Problem]:
    """The problems without the passphrase, which the words of some would repeat: what is told may be shown to others."""
    lines = text.replace("\r\n", "\n").split("\n")
    secret = {number for number, line in enumerate(lines, 1) if re.search("pass|psk|secret", line, re.IGNORECASE)}
    after = {number + 1 for number in secret if lines[number - 1].rstrip().endswith("=")}
    told = 'is no text in quotes; write it in one line: passphrase = "..."'

    def is_secret(problem: Problem) -> bool:
        shows = problem.what.startswith("not TOML") or problem.key.endswith(".passphrase")
        return problem.line in after or (problem.line in secret and shows)

    return list(dict.fromkeys(replace(p, key="wifi.passphrase", what=told) if is_secret(p) else p for p in problems))


def _elsewhere(here: str) -> Hint:
    """Makes hints for unknown keys of table ``here``: the table, or the file, that has the key."""

    def hint(name: str) -> str:
        tables = [table for table, cls in TABLES.items() if table != here and name in {f.name for f in fields(cls)}]
        if tables:
            return f"; did you mean {name} of [{tables[0]}]?"
        if name in DAEMON_TABLES or (not here and name in ("source", "feed")):
            return "; it belongs into refclock.toml"
        return ""

    return hint


def parse(data: bytes, file: str = BOX_FILE) -> tuple[BoxSettings, list[Problem]]:
    """The settings that ``data`` gives, and every problem in the order of the file. A value that is refused is its default."""
    try:
        text = as_text(data, file)
    except ConfigError as error:
        return BoxSettings(), error.problems
    reader = Reader(file, text, _elsewhere)
    reader.unknown(list(TABLES))
    settings = BoxSettings(
        reader.table("system", SystemSettings),
        reader.table("network", NetworkSettings),
        reader.table("wifi", WifiSettings),
        reader.table("pins", PinSettings),
    )
    reader.problems[:] = _veiled(reader.problems, text)
    settings = replace(settings, network=_judge_network(settings.network, reader), wifi=_judge_wifi(settings.wifi, reader))
    return replace(settings, pins=_judge_pins(settings.pins, reader)), sorted(reader.problems, key=lambda p: p.line)
