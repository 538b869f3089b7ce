"""The doctor's examinations of what leaves this machine: the NTP server, its port, the firewall and the feeds: RC30 to RC33."""

from __future__ import annotations

import re
import socket
from typing import Final

from ppsd.cli.daemon import UNSEEN, holders
from ppsd.cli.doctor.finding import FAIL, NO_DAEMON, OK, SKIP, WARN, Finding, Patient, worst
from ppsd.config.tables import parse_endpoint
from ppsd.snapshot import Verdict
from refclock.condition import Code
from refclock.sample import Leap

ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that stand for all of a machine's -> one of them at which it can be asked."""
NO_SERVER: Final = "no NTP server is configured ([server] enabled = false)"
FIREWALL_TOOLS: Final = (("nft", "list", "ruleset"), ("iptables-save",))
"""Commands that print the kernel's rules for packets; only root may use them."""


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
    if any(one.taken for one in lacking):
        do = "end the program that has it, or set another port or address: [server] listen"
        return Finding("RC30", FAIL, f"serving on {served} only; {words}", do)
    if lacking:
        do = "an address that is not there comes with its interface; take it out of [server] listen if it never does"
        return Finding("RC30", WARN, f"serving on {served} only; {words}", do)
    return Finding("RC30", OK, f"serving on {served}")


def answer(p: Patient) -> Finding:
    """RC31: does the server answer a request of this machine, and with the time?"""
    if not p.listen:
        return Finding("RC31", SKIP, NO_SERVER)
    if p.clock is None or isinstance(p.server, str) or not p.server.addresses:
        return Finding("RC31", SKIP, "no server to ask")
    told = [_asked(p, address) for address in p.server.addresses]
    return worst(told, told[0])


def _asked(p: Patient, address: str) -> Finding:
    endpoint = parse_endpoint(address)
    if endpoint is None:
        return Finding("RC31", SKIP, f"{address}: not an address that can be asked")
    host, port = ANYWHERE.get(endpoint[0], endpoint[0]), endpoint[1]
    tried = p.ask((host, port), socket.AF_INET6 if ":" in host else socket.AF_INET)
    if tried.exchange is not None:
        return Finding("RC31", OK, f"{address} answers with the time, stratum {tried.exchange.header.stratum}")
    if tried.header is None:
        return Finding("RC31", FAIL, f"{address} does not answer this machine: {tried.why}", "a firewall on loopback, or see the log")
    if tried.header.leap is not Leap.UNSYNCHRONISED or tried.header.stratum != 0:
        return Finding("RC31", FAIL, f"{address} gives an unusable answer: {tried.why}", "see the server's log")
    locked = p.clock is not None and p.clock.verdict is Verdict.LOCKED
    if tried.header.refid in KISSES:
        return Finding("RC31", SKIP, f"{address} refuses this machine by its rules (refclock access test {host})")
    if locked:
        do = "the two processes have different run directories, or the clock of this machine was set a moment ago: see [run] directory"
        return Finding("RC31", FAIL, f"{address} answers that it has no time, while the clock process is locked", do)
    return Finding("RC31", OK, f"{address} answers that it has no time yet, as is right")


KISSES: Final = tuple(int.from_bytes(code, "big") for code in (b"DENY", b"RSTR", b"RATE"))
"""Reference identifiers of kiss-o'-death packets by which a server refuses a client (RFC 5905 section 7.4)."""


def firewall(p: Patient) -> Finding:
    """RC32: does this machine's own firewall let requests in? Only what is plain is called wrong."""
    ports = sorted({endpoint[1] for text in p.listen if (endpoint := parse_endpoint(text)) is not None and not _loopback(endpoint[0])})
    if not ports:
        return Finding("RC32", SKIP, NO_SERVER if not p.listen else "nothing is served to other machines")
    rules = next((text for words in FIREWALL_TOOLS if (text := p.output(words)) is not None), None)
    if rules is None:
        if p.host.text("/proc/modules") is not None and not re.search(r"^(nf_tables|ip_tables) ", p.host.text("/proc/modules") or "", re.M):
            return Finding("RC32", OK, "the kernel has no firewall loaded")
        return Finding("RC32", SKIP, "the firewall's rules cannot be read (nft or iptables, as root)")
    verdicts = {port: refuses(rules, port) for port in ports}
    shut = [port for port, verdict in verdicts.items() if verdict]
    if not shut and None in verdicts.values():
        return Finding("RC32", SKIP, "the firewall lets in by interface or address: ask from another machine (refclock query)")
    if not shut:
        return Finding("RC32", OK, f"no rule of this machine's firewall keeps UDP {', '.join(map(str, ports))} out")
    what = f"this machine's firewall refuses what no rule lets in, and no rule lets UDP {shut[0]} in: other machines get no answer"
    return Finding("RC32", FAIL, what, _opening(p, shut[0]))


def _loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def refuses(rules: str, port: int) -> bool | None:
    """Whether input chains of ``nft list ruleset`` or ``iptables-save`` refuse by default and no rule lets UDP ``port`` in. None: rules
    that let in by interface or address may do so. A rule that names the port may still refuse it: that is somebody's will."""
    nft = re.search(r"hook input [^\n}]*policy drop", rules) is not None
    nft |= re.search(r"hook input [^}]*\n\s*(counter [^\n]*)?(drop|reject)\b[^}]*\}", rules) is not None
    iptables = re.search(r"^:INPUT DROP", rules, re.M) or re.search(r"^-A INPUT (-m comment [^\n]* )?-j (DROP|REJECT)", rules, re.M)
    if not nft and iptables is None:
        return False
    names = rf"\b{port}\b" + (r"|\bntp\b" if port == 123 else "")
    accepting = [line for line in rules.splitlines() if re.search(r"\baccept\b", line, re.I) and not re.search(OTHERWISE, line)]
    if any(re.search("dport", line) and re.search(names, line) for line in accepting):
        return False
    return True if all("dport" in line for line in accepting) else None


OTHERWISE: Final = r"policy|^:|established|\blo\b|icmp|^-A (FORWARD|OUTPUT|DOCKER|POSTROUTING|PREROUTING)|multicast|igmp|239\.|224\.|ff02"
"""What marks lines that let something in which is no request: replies, this machine itself, ICMP, multicast, and chains of other hooks."""


def _opening(p: Patient, port: int) -> str:
    """The command that lets the port in, of the firewall that this machine uses."""
    if re.search(r"^ENABLED=yes", p.host.text("/etc/ufw/ufw.conf") or "", re.MULTILINE):
        return f"sudo ufw allow {port}/udp"
    if any(name == "firewalld" for _, name in p.host.processes()):
        return f"sudo firewall-cmd --permanent --add-port={port}/udp && sudo firewall-cmd --reload"
    return f"let it in: nft add rule inet filter input udp dport {port} accept (your table and chain), and write it into /etc/nftables.conf"


def feeds(p: Patient) -> Finding:
    """RC33: do the programs that are fed take the samples?"""
    if not (p.clock.feeds if p.clock is not None else p.config.feeds):
        return Finding("RC33", SKIP, "no feed is configured")
    if p.clock is None:
        return Finding("RC33", SKIP, NO_DAEMON)
    if (lost := p.clock.has(Code.FEED_NOT_TAKEN)) is not None:
        return Finding("RC33", FAIL, lost.words, "refclock feed prints the other program's line and watches whether samples are taken")
    waiting = [feed for feed in p.clock.feeds if not feed.sent]
    if waiting:
        return Finding("RC33", SKIP, f"feed {waiting[0].name}: {waiting[0].why or 'no sample has been made yet'}")
    return Finding("RC33", OK, ", ".join(f"feed {feed.name}: {feed.sent} samples taken" for feed in p.clock.feeds))


EXAMINATIONS: Final = (server, answer, firewall, feeds)
