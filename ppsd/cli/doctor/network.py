"""The doctor's examinations of the NTP server: port, packet filters, stamps, limits, answers; and of its metrics: RC30 to RC39, RC51."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Final

from ppsd.cli.daemon import UNSEEN, holders
from ppsd.cli.doctor.finding import FAIL, NO_DAEMON, OK, SKIP, WARN, Finding, Patient, worst
from ppsd.cli.doctor.packet_filter import Chain, Filter, Request, read_iptables, read_nft
from ppsd.config.client_templates import NTP_PORT
from ppsd.config.tables import endpoint_text, parse_endpoint
from ppsd.snapshot import Verdict
from refclock.sample import Leap

ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that stand for all of a machine's -> one of them at which it can be asked."""
EVERYWHERE: Final = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
NO_SERVER: Final = "no NTP server is configured ([server] enabled = false)"
NFT: Final = ("nft", "-j", "list", "ruleset")
IPTABLES_SAVE: Final = {4: "iptables-save", 6: "ip6tables-save"}
"""Commands that print the kernel's rules for packets; only root may use them."""
CONNTRACK: Final = "/proc/sys/net/netfilter/nf_conntrack"
"""What the kernel tells of the connections that it keeps track of: _count, _max (nf_conntrack-sysctl.rst)."""
FULL: Final = 0.7
"""Share of the table of connections above which that is a warning: a client that asks anew takes an entry for 30 s."""
REFUSED: Final = 0.01
"""Share of the requests that are refused above which that is told."""
FEW: Final = 100
"""Requests below which shares say nothing."""
READVAR: Final = bytes((0x16, 2)) + bytes(10)
"""A request for a server's variables: NTP version 2, mode 6, opcode READVAR (RFC 9327 section 2)."""
MONLIST: Final = bytes((0x17, 0, 3, 42)) + bytes(188)
"""A request for the list of clients: NTP version 2, mode 7, implementation XNTPD, MON_GETLIST_1 (ntp_request.h of ntpd 4.2)."""
TRACKING: Final = bytes((6, 1, 0, 0)) + (33).to_bytes(2, "big") + bytes(98)
"""A request of chronyc for its tracking report: protocol 6, command 33, padded to the reply's length (candm.h)."""
CHRONYC_PORT: Final = 323


def server(p: Patient) -> Finding:
    """RC30: does the NTP server run, on every address that is wanted?"""
    if not p.listen:
        return Finding("RC30", SKIP, NO_SERVER)
    if p.server == UNSEEN:
        return Finding("RC30", SKIP, f"the NTP server is {UNSEEN}")
    for address, who in holders(p.listen, p.server, p.host).items():
        do = f"end {who.partition(' (pid')[0]}, or set another port or address: [server] listen"
        return Finding("RC30", FAIL, f"{address} is held by {who}: nothing is served there", do)
    if p.clock is None:
        return Finding("RC30", SKIP, NO_DAEMON)
    if isinstance(p.server, str):
        do = "see its log; start it: refclock run, or the unit that runs refclock's serve process"
        return Finding("RC30", FAIL, f"the NTP server is {p.server}: nothing is served", do)
    served, lacking = ", ".join(p.server.addresses), [one for one in p.server.unserved if not one.harmless]
    words = "; ".join(one.why for one in lacking)
    if not served:
        why = words or f"none of {', '.join(p.listen)} could be bound"
        return Finding("RC30", FAIL, f"nothing is served: {why}", "see the server's log")
    if taken := [end for one in lacking if one.taken and (end := parse_endpoint(one.address)) is not None]:
        do = "end the program that has it, or set another port or address: [server] listen"
        others = [who for who in p.host.port_holders(taken) if not who.endswith(f"(pid {p.server.pid})")]
        by = f" ({', '.join(others)} has it)" if others else ""
        return Finding("RC30", FAIL, f"serving on {served} only; {words}{by}", do)
    if lacking:
        do = "an address that is not there comes with its interface; take it out of [server] listen if it never does"
        return Finding("RC30", WARN, f"serving on {served} only; {words}", do)
    return Finding("RC30", OK, f"serving on {served}")


def answer(p: Patient) -> Finding:
    """RC39: does the server answer a request of this machine, and with the time?"""
    if not p.listen:
        return Finding("RC39", SKIP, NO_SERVER)
    if p.clock is None or isinstance(p.server, str) or not p.server.addresses:
        return Finding("RC39", SKIP, "no server to ask")
    told = [_asked(p, address) for address in p.server.addresses]
    return worst(told, told[0])


def _asked(p: Patient, address: str) -> Finding:
    endpoint = parse_endpoint(address)
    if endpoint is None:
        return Finding("RC39", SKIP, f"{address}: not an address that can be asked")
    host, port = ANYWHERE.get(endpoint[0], endpoint[0]), endpoint[1]
    tried = p.ask((host, port), socket.AF_INET6 if ":" in host else socket.AF_INET)
    if tried.exchange is not None:
        return Finding("RC39", OK, f"{address} answers with the time, stratum {tried.exchange.header.stratum}")
    if tried.header is None:
        return Finding("RC39", FAIL, f"{address} does not answer this machine: {tried.why}", "a firewall on loopback, or see the log")
    if tried.header.leap is not Leap.UNSYNCHRONISED or tried.header.stratum != 0:
        return Finding("RC39", FAIL, f"{address} gives an unusable answer: {tried.why}", "see the server's log")
    locked = p.clock is not None and p.clock.verdict is Verdict.LOCKED
    if tried.header.refid in KISSES:
        return Finding("RC39", SKIP, f"{address} refuses this machine by its rules (refclock access test {host})")
    if locked:
        do = "the two processes have different run directories, or the clock of this machine was set a moment ago: see [run] directory"
        return Finding("RC39", FAIL, f"{address} answers that it has no time, while the clock process is locked", do)
    return Finding("RC39", OK, f"{address} answers that it has no time yet, as is right")


KISSES: Final = tuple(int.from_bytes(code, "big") for code in (b"DENY", b"RSTR", b"RATE"))
"""Reference identifiers of kiss-o'-death packets by which a server refuses a client (RFC 5905 section 7.4)."""


def filters(p: Patient) -> Filter | None:
    """The packet filters of this machine; None when this user may not read them, or there is no command that prints them."""
    found, read = Filter(), False
    for version, command in IPTABLES_SAVE.items():
        for words in ((command,), (command.replace("tables", "tables-legacy"),)):
            if (text := p.output(words)) is not None:
                found, read = read_iptables(text, version, found), True
    if (text := p.output(NFT)) is not None:
        try:
            found, read = read_nft(text, found), True
        except ValueError:
            return None
    return found if read else None


def requests(p: Patient) -> list[Request]:
    """A request from each network of this machine to each NTP port that is served to others."""
    only = p.config.server.interface
    return [request for request in _from_near(p, p.listen) if not only or request.interface in ("", only)]


def _from_near(p: Patient, listen: Sequence[str]) -> list[Request]:
    """A request from each network of this machine to each of these addresses, but loopback; without known addresses, one from anywhere."""
    found = []
    for host, port in (endpoint for text in listen if (endpoint := parse_endpoint(text)) is not None):
        bound = ip_address(host.partition("%")[0])
        if bound.is_loopback:
            continue
        near = [own for own in p.addresses if own.address.version == bound.version and (bound.is_unspecified or own.address == bound)]
        found += [Request(ip_network((own.address, own.length), strict=False), own.address, own.interface, port) for own in near]
        if not p.addresses:
            found.append(Request(EVERYWHERE[bound.version], bound, "", port))
    return found


def _place(request: Request) -> str:
    return f"{request.source} at {request.interface}" if request.interface else f"IPv{request.version}"


def firewall(p: Patient) -> Finding:
    """RC31: do this machine's own packet filters let requests in, from every network and by IPv4 and IPv6? Those for the time, and those
    for keys of NTS."""
    found = ntp_let_in(p)
    keys = [replace(request, protocol="tcp") for request in _from_near(p, p.config.nts.listen)] if p.config.nts.enabled else []
    return worst([found, _let_in(p, keys, "clients of NTS get no keys")], found) if keys else found


def ntp_let_in(p: Patient) -> Finding:
    """RC31 without NTS."""
    asked = requests(p)
    if not asked:
        return Finding("RC31", SKIP, NO_SERVER if not p.listen else "nothing is served to other machines")
    return _let_in(p, asked, "other machines get no answer")


def _let_in(p: Patient, asked: Sequence[Request], otherwise: str) -> Finding:
    """Whether requests of one protocol come through, and what follows ``otherwise``."""
    rules = filters(p)
    if rules is None:
        modules = p.host.text("/proc/modules")
        if modules is not None and not re.search(r"^(nf_tables|ip_tables|ip6_tables) ", modules, re.MULTILINE):
            return Finding("RC31", OK, "the kernel has no firewall loaded")
        return Finding("RC31", SKIP, "the firewall's rules cannot be read (nft or iptables, as root)")
    found = [(request, *rules.lets_in(replace(request, tracked=rules.keeps_track(request)))) for request in asked]
    shut = [(request, by) for request, way, by in found if way is False and by is not None]
    open_to = [request for request, way, _ in found if way]
    service = f"{asked[0].protocol.upper()} {asked[0].port}"
    if not shut and len(open_to) < len(found):
        return Finding("RC31", SKIP, "the firewall lets in by what cannot be told from here: ask from another machine (refclock query)")
    if not shut:
        ports = ", ".join(map(str, sorted({request.port for request in asked})))
        return Finding("RC31", OK, f"no rule of this machine's firewall keeps {asked[0].protocol.upper()} {ports} out")
    refused, by = shut[0]
    if not open_to:
        what = f"this machine's firewall ({by.table}, chain {by.name}) keeps {service} out"
        return Finding("RC31", FAIL, f"{what}: {otherwise}", opening(p, refused, by))
    half = [(request, by) for request, by in shut if any(r.interface == request.interface for r in open_to)]
    if half:
        request, by = half[0]
        other = next(r for r in open_to if r.interface == request.interface)
        where = f"from {_place(other)}, and keeps it out from {_place(request)} ({by.table}, chain {by.name})"
        return Finding("RC31", WARN, f"the firewall lets {service} in {where}", opening(p, request, by))
    closed = ", ".join(_place(request) for request, _ in shut)
    return Finding("RC31", OK, f"the firewall lets {service} in from {_place(open_to[0])}; it keeps out {closed}, as somebody decided")


def opening(p: Patient, request: Request, by: Chain) -> str:
    """The command that lets the request in, of the firewall that keeps it out."""
    port, protocol, six = request.port, request.protocol, request.version == 6
    if by.table == "inet firewalld" or any(name == "firewalld" for _, name in p.host.processes()):
        zones = re.findall(
            r"^(\S+)(?: \(.*\))?\n(?:  .*\n)*?  interfaces: (.*)$", p.output(("firewall-cmd", "--get-active-zones")) or "", re.MULTILINE
        )
        zone = next((f" --zone={name}" for name, interfaces in zones if request.interface and request.interface in interfaces.split()), "")
        what = "--add-service=ntp" if (port, protocol) == (NTP_PORT, "udp") else f"--add-port={port}/{protocol}"
        return f"sudo firewall-cmd --permanent{zone} {what} && sudo firewall-cmd --reload"
    if re.search(r"^ENABLED=yes", p.host.text("/etc/ufw/ufw.conf") or "", re.MULTILINE):
        return f"sudo ufw allow {port}/{protocol}"
    if by.name.isupper():
        command = "ip6tables" if six else "iptables"
        keep = (
            "sudo netfilter-persistent save"
            if p.host.path("/usr/sbin/netfilter-persistent").exists()
            else "keep it over a reboot: sudo apt install iptables-persistent"
        )
        return f"sudo {command} -I {by.name} -p {protocol} --dport {port} -j ACCEPT; {keep}"
    return f"sudo nft insert rule {by.table} {by.name} {protocol} dport {port} accept; and write that rule into /etc/nftables.conf"


def stamps(p: Patient) -> Finding:
    """RC34: does the kernel stamp the arrival of packets, and do the network drivers stamp departures?"""
    works = p.stamped()
    if works is None:
        return Finding("RC34", SKIP, "no packet can be sent on this machine's loopback")
    if not works:
        what = "the kernel gives no time stamps of packets (SO_TIMESTAMPNS): the server's own are late by 10 to 100 µs"
        return Finding("RC34", WARN, what, "run it outside this sandbox (gVisor and the like), or under another kernel")
    if isinstance(p.server, str):
        return Finding("RC34", OK, "the kernel stamps arriving packets")
    answered, missed = sum(p.server.counters.get("reply", {}).values()), p.server.counters.get("server", {}).get("unstamped", 0)
    if missed > REFUSED * answered and answered > FEW:
        what = f"{missed} of {answered} requests came without the kernel's time stamp"
        return Finding("RC34", WARN, what, "see dmesg about the network card's driver; another card or a newer kernel helps")
    cards = [card for card in p.server.interfaces if card.name != "lo"]
    if silent := [card.name for card in cards if card.departures == "none"]:
        do = "nothing must be done: only clients in interleaved mode (chrony's xleave) lose some µs; ethtool -T shows what a driver can"
        return Finding("RC34", OK, f"the kernel stamps arriving packets; departures at {', '.join(silent)} are not stamped", do)
    return Finding(
        "RC34", OK, "the kernel stamps packets as they arrive" + (f" and leave ({', '.join(c.name for c in cards)})" if cards else "")
    )


def tracking(p: Patient) -> Finding:
    """RC35: does the firewall keep track of each client, and is there room for them?"""
    count, most = p.host.number(f"{CONNTRACK}_count"), p.host.number(f"{CONNTRACK}_max")
    if count is None or not most:
        return Finding("RC35", OK, "the kernel keeps no track of connections")
    lost = _lost(p.host.text("/proc/net/stat/nf_conntrack") or "")
    rules, asked = filters(p), requests(p)
    if rules is not None and asked and not any(rules.keeps_track(request) for request in asked):
        return Finding("RC35", OK, "NTP is exempt from connection tracking")
    share = f"{count} of {most} connections are tracked"
    if lost or count >= most:
        dropped = f"{lost} packets were dropped because that table was full" if lost else "new clients get no answer"
        return Finding("RC35", FAIL, f"{share}: {dropped}", exempting(asked))
    if count > FULL * most:
        return Finding("RC35", WARN, f"{share}: when that table is full, requests are dropped", exempting(asked))
    return Finding("RC35", OK, f"{share}: there is room")


def _lost(text: str) -> int:
    """Packets that were dropped for want of room, of all processors: columns in hexadecimal (/proc/net/stat/nf_conntrack)."""
    names, *rows = [line.split() for line in text.splitlines()] or [[]]
    if "drop" not in names:
        return 0
    return sum(int(row[names.index("drop")], 16) for row in rows if len(row) == len(names))


def exempting(asked: Sequence[Request]) -> str:
    """Commands that exempt NTP from connection tracking."""
    port = asked[0].port if asked else NTP_PORT
    chains = (("in", "prerouting", "dport"), ("out", "output", "sport"))
    rules = "; ".join(
        f"add chain inet ntp {name} {{ type filter hook {hook} priority raw; }}; add rule inet ntp {name} udp {side} {port} notrack"
        for name, hook, side in chains
    )
    return f"sudo nft 'add table inet ntp; {rules}'; and write that into /etc/nftables.conf"


def rates(p: Patient) -> Finding:
    """RC36: are many requests refused, by limits or by access rules?"""
    if isinstance(p.server, str):
        return Finding("RC36", SKIP, NO_SERVER if not p.listen else f"the NTP server is {p.server}")
    counters = p.server.counters
    refused = {reason: sum(counters.get(action, {}).get(reason, 0) for action in ("drop", "kod")) for reason in REFUSALS}
    everything = sum(sum(counters.get(action, {}).values()) for action in ("reply", "drop", "kod"))
    if everything < FEW:
        return Finding("RC36", SKIP, f"{everything} requests so far: too few to judge")
    reason, number = max(refused.items(), key=lambda item: item[1])
    if kernel := counters.get("server", {}).get("kernel_drops", 0):
        what = f"the kernel dropped {kernel} packets that the server did not take in time"
        return Finding("RC36", WARN, what, "more threads: [server] threads; and see what else uses the processor (top)")
    if number <= REFUSED * everything:
        return Finding("RC36", OK, f"{sum(refused.values())} of {everything} requests were refused")
    what = f"{number} of {everything} requests were refused: {REFUSALS[reason][0]}"
    if reason == "rate" and (busiest := max(p.clients, key=lambda client: client.drops, default=None)) is not None and busiest.drops:
        what += f"; most of {busiest.address}, {busiest.drops} of {busiest.packets}"
    return Finding("RC36", WARN, what, REFUSALS[reason][1])


REFUSALS: Final = {
    "rate": (
        "their clients ask too often",
        "have that client poll at 64 s or slower; many behind one address: raise [limits] rate and burst",
    ),
    "denied": ("no rule lets them in", 'refclock clients shows who; let a network in: [access] allow = ["own", "192.0.2.0/24"]'),
    "unauthenticated": (
        "they must have a key and have none",
        "give the clients a key, or take their network out of [access] authenticated",
    ),
    "nts_nak": (
        "their NTS cookies are not of our secret, or were changed on the way",
        "boxes behind one name need one secret: [nts] secret; clients alone get new cookies by themselves",
    ),
    "wrong_mac": ("their key is another than ours", "compare the key files: number, type and text must be the same on both sides"),
    "unknown_key": ("they use a key that we do not have", "add the key to the file that keys.file names, then: refclock reload"),
}
"""Reasons of refusal -> (in words, remedy)."""


def control(p: Patient) -> Finding:
    """RC38: is chronyc's or ntpq's protocol answered to the network? Such answers tell much, and are used to flood third parties.

    A packet from an address of this machine to itself is taken for one of the network by every server here: only loopback is trusted."""
    owns = [own.address for own in p.addresses if not own.address.is_link_local]
    if not owns:
        return Finding("RC38", SKIP, "this machine has no address but loopback")
    asked = [(str(own), port, request) for own in owns for port, request in CONTROLS]
    told = p.answers(asked)
    heard = next((one for one, answered in zip(asked, told, strict=True) if answered), None)
    if heard is not None:
        own, port, request = heard
        who, protocol = p.host.port_holders([(own, port)]), CONTROLS[port, request]
        what = f"{protocol} is answered at {endpoint_text(own, port)}, not only on this machine's loopback{f', by {who[0]}' if who else ''}"
        return Finding("RC38", WARN, what, REMEDIES[port])
    if all(answered is None for answered in told):
        return Finding("RC38", SKIP, "no packet can be sent to this machine's own addresses")
    return Finding("RC38", OK, "neither chronyc's nor ntpq's protocol is answered to the network")


def metrics(p: Patient) -> Finding:
    """RC51: does the internet reach the metrics? They have no access rules: whoever reaches an address of theirs is answered."""
    if not p.config.metrics.listen:
        return Finding("RC51", SKIP, "no metrics are answered ([metrics] listen = [])")
    asked = [replace(request, protocol="tcp") for request in _from_near(p, p.config.metrics.listen)]
    if not asked:
        return Finding("RC51", OK, "metrics are answered to this machine alone")
    rules = filters(p) or Filter()
    for request in (replace(each, source=EVERYWHERE[each.version]) for each in asked if each.own.is_global):
        if rules.lets_in(replace(request, tracked=rules.keeps_track(request)))[0]:
            where, port = endpoint_text(str(request.own), request.port), request.port
            do = f'[metrics] listen = ["127.0.0.1:{port}"], or let the firewall keep TCP {port} out but for your monitor'
            return Finding("RC51", WARN, f"metrics are answered at {where}, which is public, to everybody who reaches it", do)
    return Finding(
        "RC51", OK, f"metrics are answered to everybody in {', '.join(dict.fromkeys(map(_place, asked)))}, as [metrics] listen says"
    )


CONTROLS: Final = {(NTP_PORT, READVAR): "ntpq (mode 6)", (NTP_PORT, MONLIST): "ntpdc (mode 7)", (CHRONYC_PORT, TRACKING): "chronyc"}
"""Port and request -> whose protocol it is."""
REMEDIES: Final = {
    CHRONYC_PORT: 'refclock: [chronyc] listen = ["127.0.0.1:323", "[::1]:323"]; chronyd: no bindcmdaddress and cmdallow in chrony.conf',
    NTP_PORT: "ntpd: restrict default kod limited nomodify notrap nopeer noquery, for -4 and -6, in ntp.conf",
}


EXAMINATIONS: Final = (server, firewall, stamps, tracking, rates, control, metrics, answer)
