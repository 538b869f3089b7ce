"""The settings of box.toml as files of systemd-networkd, systemd-resolved, wpa_supplicant and nftables.

Every value comes from ``ppsd.appliance.settings``, which lets nothing pass that could begin a line or a word of its own there. What may be
any text (a network's name) is written in hex.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from ipaddress import ip_interface
from typing import Final

from ppsd.appliance.settings import BoxSettings, NetworkSettings, WifiSettings
from ppsd.config.tables import NtsConfig, ServerConfig, parse_endpoint

NETWORKD: Final = "/run/systemd/network"
DNSSD: Final = "/run/systemd/dnssd/refclock.dnssd"
FIREWALL: Final = "/run/refclock-box/nftables.nft"
WIFI: Final = "/run/refclock-box/wpa_supplicant.conf"
WIRED_METRIC, WIFI_METRIC = 100, 600
"""Metrics of routes: the wire is preferred. As NetworkManager has them."""
_WRITTEN: Final = "# Written by refclock box at each boot, from box.toml on the card.\n"


# ---- systemd-networkd(8) ----------------------------------------------------------------------------------------------------------------


def networkd_files(settings: BoxSettings) -> dict[str, str]:
    """Files of systemd.network(5) and systemd.netdev(5), by path. What is set for one interface leaves the others to DHCP."""
    given, chosen = settings.network, settings.network.interface
    wired, wireless = "Type=ether\nKind=!*", "Type=wlan"
    files = {
        "50-wired.network": _network(wired, NetworkSettings() if chosen else given, WIRED_METRIC),
        "50-wifi.network": _network(wireless, NetworkSettings(), WIFI_METRIC),
    }
    match = f"Name={chosen}" if chosen else wired
    if chosen:
        files["40-chosen.network"] = _network(match, given, WIRED_METRIC)
    if given.vlan:
        name = f"vlan{given.vlan}"
        carrier = f"[Match]\n{match}\n\n[Network]\nVLAN={name}\nLinkLocalAddressing=no\nDHCP=no\nIPv6AcceptRA=no\nLLDP=no\n"
        files["40-chosen.network" if chosen else "50-wired.network"] = carrier
        files["40-vlan.netdev"] = f"[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={given.vlan}\n"
        files["40-vlan.network"] = _network(f"Name={name}", given, WIRED_METRIC)
    return {f"{NETWORKD}/{name}": _WRITTEN + text for name, text in files.items()}


def _network(match: str, given: NetworkSettings, metric: int) -> str:
    """One file of systemd.network(5)."""
    versions = {ip_interface(text).version for text in given.address}
    asks = given.ipv6 == "auto"
    lines = ["[Match]", match, "", "[Link]", "RequiredForOnline=no", "", "[Network]"]
    lines += [f"DHCP={'no' if 4 in versions else 'ipv4'}", f"IPv6AcceptRA={'yes' if asks else 'no'}"]
    lines += [f"LinkLocalAddressing={'no' if given.ipv6 == 'off' else 'ipv6'}", "MulticastDNS=yes", "LLMNR=no"]
    lines += [f"Address={address}" for address in given.address]
    lines += [f"DNS={server}" for server in given.dns]
    if given.address:
        lines.append("ConfigureWithoutCarrier=yes")
    for gateway in given.gateway:
        lines += ["", "[Route]", f"Gateway={gateway}", f"Metric={metric}"]
        lines += ["GatewayOnLink=yes"] if gateway.startswith("fe80:") else []
    # The address of the hardware names this machine to DHCP: what a router has reserved for it holds on a new card as well.
    lines += ["", "[DHCPv4]", "ClientIdentifier=mac", "UseNTP=no", "UseHostname=no", "UseTimezone=no", f"RouteMetric={metric}"]
    lines += ["UseDNS=no"] if given.dns else []
    lines += ["", "[DHCPv6]", "UseNTP=no", "UseHostname=no"]
    lines += ["", "[IPv6AcceptRA]", f"RouteMetric={metric}"] if asks else []
    return "\n".join([*lines, ""])


def ntp_service(port: int) -> str:
    """How systemd-resolved announces the server on the local network (systemd.dnssd(5), RFC 6763)."""
    return f"{_WRITTEN}[Service]\nName=%H\nType=_ntp._udp\nPort={port}\n"


# ---- wpa_supplicant(8) -----------------------------------------------------------------------------------------------------------------


def wifi_file(given: WifiSettings) -> str:
    """wpa_supplicant.conf(5). The network's name is in hex, and the passphrase is the key made of it (IEEE 802.11-2020, annex J.4)."""
    if len(given.passphrase) == 64:
        key = given.passphrase.lower()
    else:
        key = hashlib.pbkdf2_hmac("sha1", given.passphrase.encode(), given.ssid.encode(), 4096, 32).hex()
    lines = [f"country={given.country}", "update_config=0", "", "network={", f"    ssid={given.ssid.encode().hex()}"]
    lines += [f"    scan_ssid={int(given.hidden)}"]
    lines += [f"    psk={key}", "    key_mgmt=WPA-PSK WPA-PSK-SHA256", "    ieee80211w=1"] if given.passphrase else ["    key_mgmt=NONE"]
    return _WRITTEN + "\n".join([*lines, "}", ""])


# ---- nftables(8) -----------------------------------------------------------------------------------------------------------------------


def served_ports(server: ServerConfig) -> list[int]:
    """UDP ports of the NTP server; none when it is off."""
    endpoints = [parse_endpoint(text) for text in server.listen] if server.enabled else []
    return sorted({port for endpoint in endpoints if endpoint is not None for port in [endpoint[1]]})


def key_ports(nts: NtsConfig) -> list[int]:
    """TCP ports at which NTS keys are established; none when it is off."""
    endpoints = [parse_endpoint(text) for text in nts.listen] if nts.enabled else []
    return sorted({port for endpoint in endpoints if endpoint is not None for port in [endpoint[1]]})


def firewall(ports: Sequence[int], ssh: bool, keyed: Sequence[int] = ()) -> str:
    """Rules of nft(8): closed but for the NTP server on these UDP ports, NTS key establishment on the TCP ports ``keyed``, mDNS, DHCP, ICMP
    and IGMP, and for ssh when somebody may log in.
    Requests for the time and their replies are not tracked: the table of connections could not hold a flood's."""
    ntp = f"{{ {', '.join(map(str, ports))} }}"
    raw = [f"udp dport {ntp} notrack"] if ports else []
    back = [f"udp sport {ntp} notrack"] if ports else []
    served = [f"udp dport {ntp} accept"] if ports else []
    icmp = "destination-unreachable, time-exceeded, parameter-problem, echo-request"
    neighbours = "nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, mld-listener-report, mld2-listener-report"
    allowed = [
        'iif "lo" accept',
        *served,
        "ct state established,related accept",
        f"icmp type {{ {icmp} }} accept",
        f"icmpv6 type {{ {icmp}, packet-too-big, {neighbours} }} accept",
        "ip protocol igmp accept",
        "udp dport 5353 ip daddr 224.0.0.251 accept",
        "udp dport 5353 ip6 daddr ff02::fb accept",
        "udp sport 67 udp dport 68 accept",
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
        *([f"tcp dport {{ {', '.join(map(str, keyed))} }} accept"] if keyed else []),
        *(["tcp dport 22 accept"] if ssh else []),
    ]
    chains = [
        ("arriving", "type filter hook prerouting priority raw; policy accept;", raw),
        ("leaving", "type filter hook output priority raw; policy accept;", back),
        ("input", "type filter hook input priority filter; policy drop;", allowed),
        ("forward", "type filter hook forward priority filter; policy drop;", []),
    ]
    body = [line for name, hook, rules in chains for line in (f"    chain {name} {{", f"        {hook}", *_indented(rules), "    }")]
    return _WRITTEN + "\n".join(["flush ruleset", "table inet refclock {", *body, "}", ""])


def _indented(rules: Sequence[str]) -> list[str]:
    return [f"        {rule}" for rule in rules]
