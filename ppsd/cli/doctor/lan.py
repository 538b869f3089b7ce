"""The doctor's examinations of this machine's place in its networks: name, addresses, DHCP, IPv6, VLANs, the internet: RC32 to RC50."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Final

from ppsd.cli.doctor.finding import OK, SKIP, WARN, Finding, Patient
from ppsd.config.client_templates import NTP_PORT
from ppsd.config.tables import parse_endpoint
from refclock.kernel.host import Host
from refclock.kernel.interfaces import SHARED, Address

RESPONDERS: Final = ("avahi-daemon", "mdnsd", "mDNSResponder", "systemd-resolve", "systemd-resolved")
"""Programs that answer for names under .local."""
DHCP_CLIENTS: Final = ("dhclient", "dhcpcd", "udhcpc", "NetworkManager", "systemd-networkd", "connmand")
STRANGERS: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses of nobody (RFC 5737, RFC 3849): what holds for them holds for everybody."""
ALONE: Final = "nothing is served to other machines"
NO_ADDRESS: Final = "this machine has no address but loopback"
LEASES: Final = (
    "/run/systemd/netif/leases/*",
    "/var/lib/dhcp/dhclient*.leases",
    "/var/lib/dhclient/*.leases",
    "/var/lib/dhcpcd5/*.lease",
    "/var/lib/NetworkManager/*.lease",
)
"""What DHCP clients remember: systemd-networkd, dhclient, dhcpcd, NetworkManager."""


def name(p: Patient) -> Finding:
    """RC32: is this machine found by its name under .local?"""
    label = (p.host.text("/proc/sys/kernel/hostname") or "").partition(".")[0]
    own = [each.address for each in p.addresses if isinstance(each.address, IPv4Address)]
    if not label or not own:
        return Finding("RC32", SKIP, "this machine has no name" if not label else "this machine has no IPv4 address but loopback")
    told = p.named(f"{label}.local", own)
    strangers = [each for each in told if ip_address(each) not in own and not ip_address(each).is_loopback]
    if told and not strangers:
        return Finding("RC32", OK, f"{label}.local is found as {', '.join(told)}")
    if strangers:
        do = f"give one of the two another name: sudo hostnamectl set-hostname {label}-2; or let clients use the address"
        return Finding("RC32", WARN, f"{label}.local is found as {strangers[0]}, which is another machine", do)
    running = [who for _, who in p.host.processes() if who in RESPONDERS[:3]]
    if running:
        do = f"sudo systemctl restart {running[0]}, and let UDP 5353 through the firewall"
        return Finding("RC32", WARN, f"{running[0]} runs, and {label}.local is not found", do)
    do = "sudo apt install avahi-daemon"
    return Finding("RC32", SKIP, f"nothing here answers for {label}.local: clients use the address", do)


def lasting(p: Patient) -> Finding:
    """RC33: do the addresses under which clients know this machine stay the same?"""
    if not p.addresses:
        return Finding("RC33", SKIP, NO_ADDRESS)
    leased = [own for own in p.addresses if not own.lasting or _is_leased(p.host, own)]
    lent = [own for own in leased if own.address.version == 4]
    if lent:
        told = ", ".join(f"{own.address} ({own.interface})" for own in lent)
        do = "let the router reserve that address for this machine's MAC, or set it by hand: NTP clients keep an address for months"
        return Finding("RC33", WARN, f"{told} {'is' if len(lent) == 1 else 'are'} on loan from a DHCP server", do)
    if len(leased) == len(p.addresses):
        do = "set an address by hand, or have the router announce a prefix of its own (fd00::/8), which no provider changes"
        return Finding("RC33", WARN, f"{leased[0].address} has a prefix on loan from a router, and there is no other address", do)
    return Finding("RC33", OK, f"set for good: {', '.join(str(own.address) for own in p.addresses if own not in leased)}")


def _is_leased(host: Host, own: Address) -> bool:
    """Whether a DHCP client that sets addresses for good (udhcpc, old dhcpcd) has this one: by its command line or its lease."""
    for pid, who in host.processes():
        words = host.words(pid)
        if who in ("udhcpc", "busybox") and any(word.endswith("udhcpc") for word in words[:2]) and own.interface in words:
            return own.address.version == 4
        if who in ("dhclient", "dhcpcd") and own.address.version == 4 and own.interface in words:
            return True
    return False


def _handed_out(host: Host) -> Iterator[tuple[str, str]]:
    """(file, NTP server) of what DHCP clients of this machine were told (option 42, RFC 2132 section 8.3)."""
    for file in (file for pattern in LEASES for file in host.names(pattern)):
        text = host.text(file) or ""
        leases = re.findall(r"^lease \{.*?^\}", text, re.MULTILINE | re.DOTALL)
        latest = leases[-1] if leases else text  # dhclient adds each lease at the end
        for found in re.findall(r"(?:^NTP=|^\s*option ntp-servers |^ntp_servers=)(.+?);?$", latest, re.MULTILINE):
            yield from ((file, word) for word in re.split(r"[\s,]+", found.strip("'\"")) if word)


def handed_out(p: Patient) -> Finding:
    """RC37: does the DHCP server of the network name this machine as its NTP server (option 42)?"""
    if not p.addresses:
        return Finding("RC37", SKIP, NO_ADDRESS)
    leases = any(p.host.text(file) for pattern in LEASES for file in p.host.names(pattern))
    told = [*_handed_out(p.host)]
    own = {str(each.address) for each in p.addresses}
    do = "have your DHCP server name this machine: refclock client-config dnsmasq (or kea, isc-dhcp, mikrotik, openwrt ...) prints the line"
    if ours := [server for _, server in told if server in own]:
        return Finding("RC37", OK, f"the DHCP server hands out {ours[0]} as the NTP server")
    if told:
        servers = ", ".join(dict.fromkeys(server for _, server in told))
        return Finding("RC37", WARN, f"the DHCP server hands out {servers} as the NTP server, and not this machine ({told[0][0]})", do)
    if leases:
        return Finding("RC37", SKIP, "the DHCP server hands out no NTP server, as far as this machine was told", do)
    return Finding("RC37", SKIP, "this machine takes no address by DHCP, so it is not told what is handed out", do)


def ipv6(p: Patient) -> Finding:
    """RC48: are clients served by IPv6 where this machine has it?"""
    own = [each for each in p.addresses if each.address.version == 6]
    if not _for_others(p):
        return Finding("RC48", SKIP, ALONE)
    if not own:
        return Finding("RC48", SKIP, "this machine has no IPv6 address but link-local ones")
    served = [ip_address(end[0]) for text in p.listen if (end := parse_endpoint(text)) is not None]
    there = [each for each in own if any(one.version == 6 and (one.is_unspecified or one == each.address) for one in served)]
    if not there:
        do = f'[server] listen = ["0.0.0.0:{NTP_PORT}", "[::]:{NTP_PORT}"]'
        return Finding("RC48", WARN, f"{own[0].address} ({own[0].interface}) is not served: clients that ask by IPv6 get no answer", do)
    refused = [each for each in there if _refused(p, each)]
    if refused:
        what = f"no rule lets in {ip_network((refused[0].address, refused[0].length), strict=False)}, a network of this machine"
        return Finding("RC48", WARN, what, '[access] allow = ["own"], then refclock reload')
    return Finding("RC48", OK, f"served by IPv6 at {', '.join(str(each.address) for each in there)}")


def _for_others(p: Patient) -> bool:
    """Whether other machines are to be served at all."""
    return any(not ip_address(end[0].partition("%")[0]).is_loopback for text in p.listen if (end := parse_endpoint(text)) is not None)


def _refused(p: Patient, own: Address) -> bool:
    """Whether a neighbour of an address is refused by the access rules."""
    near = ip_network((own.address, own.length), strict=False)
    rules = p.config.access.rules([(str(ip_network((each.address, each.length), strict=False)), each.interface) for each in p.addresses])
    return rules.decide(str(near.network_address)).action not in ("allow", "authenticated")


def _vlans(host: Host) -> list[str]:
    """Interfaces that are VLANs (/sys/class/net/NAME/uevent: DEVTYPE=vlan)."""
    files = host.names("/sys/class/net/*/uevent")
    return [file.split("/")[4] for file in files if "DEVTYPE=vlan" in (host.text(file) or "")]


def vlans(p: Patient) -> Finding:
    """RC49: is each VLAN of this machine served?"""
    found = _vlans(p.host)
    if not found or not _for_others(p):
        return Finding("RC49", SKIP, ALONE if found else "this machine is in no VLAN (tagged)")
    only, served = p.config.server.interface, [ip_address(end[0]) for text in p.listen if (end := parse_endpoint(text)) is not None]
    told: list[str] = []
    for vlan in found:
        own = [each for each in p.addresses if each.interface == vlan]
        if not own:
            do = f"give it an address: sudo ip address add 192.168.10.2/24 dev {vlan}, and in the network's configuration; or remove it"
            return Finding("RC49", WARN, f"{vlan} has no address, so nobody in that VLAN can ask", do)
        if only and only != vlan:
            do = '[server] interface = "" serves all of them'
            return Finding("RC49", WARN, f"{vlan} is not served: [server] interface names {only} alone", do)
        if not any(one.is_unspecified or one == each.address for one in served for each in own if one.version == each.address.version):
            do = (
                f'add "{own[0].address}:{NTP_PORT}" to [server] listen' if own[0].address.version == 4 else '[server] listen = ["[::]:123"]'
            )
            return Finding("RC49", WARN, f"{vlan} ({own[0].address}) is not served: it is not among the addresses of [server] listen", do)
        if any(_refused(p, each) for each in own):
            near = ip_network((own[0].address, own[0].length), strict=False)
            return Finding("RC49", WARN, f"no rule lets in {near} ({vlan})", f'add "{near}" to [access] allow, then refclock reload')
        told.append(f"{vlan} ({own[0].address})")
    return Finding("RC49", OK, f"served in {', '.join(told)}")


def outside(p: Patient) -> Finding:
    """RC50: can the internet ask, where it may? What comes in from there is the only proof; a machine cannot ask itself from outside."""
    rules = p.config.access.rules()
    if not _for_others(p) or all(rules.decide(address).action != "allow" for address in STRANGERS.values()):
        return Finding("RC50", SKIP, "only this machine's own networks may ask, so the internet need not reach it")
    far = [client for client in p.clients if client.ip.is_global]
    if far:
        return Finding("RC50", OK, f"the internet reaches this server: {len(far)} of its latest clients are from there")
    public = [own for own in p.addresses if own.address.is_global]
    carrier = [own for own in p.addresses if own.address.version == 4 and own.address in SHARED]
    if public:
        where = public[0].address
        do = f"from another network: ntpdate -q {where}; see to the firewalls on the way"
        if isinstance(p.server, str) or p.server.uptime_s < 86_400:
            return Finding("RC50", SKIP, f"{where} is public; nobody has asked from outside yet", do)
        return Finding("RC50", WARN, f"{where} is public, and nobody has asked from outside for {p.server.uptime_s / 86_400:.0f} days", do)
    if carrier:
        do = "ask the provider for a public address, or serve the internet by IPv6"
        return Finding(
            "RC50", WARN, f"{carrier[0].address} is shared by the provider (RFC 6598): nobody outside reaches this machine by IPv4", do
        )
    do = f"forward UDP {NTP_PORT} of the public address to this machine, in the router; then from another network: ntpdate -q YOUR-ADDRESS"
    return Finding("RC50", WARN, "everybody may ask, and this machine has no public address: it is behind a router", do)


EXAMINATIONS: Final = (name, lasting, handed_out, ipv6, vlans, outside)
