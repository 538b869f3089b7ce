"""The doctor's examination of the NTP servers that this machine asks: RC52."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Final

from ppsd.cli.doctor.finding import NO_DAEMON, OK, SKIP, WARN, Finding, Patient, worst
from ppsd.config.tables import PoolUpstream, Upstream, endpoint_text
from ppsd.snapshot import UpstreamStatus

ENOUGH: Final = 3
"""Servers of which one may lie: two that agree outvote it. RFC 8633 section 3.2 wants four, so that one may also be away."""
NETWORK: Final = {4: 16, 6: 32}
"""Bits of the network that one operator has, as a rule: the least that registries give to a provider (/22 to /16, and /32)."""
TRIES: Final = 3
"""Tries to get new keys of NTS that may fail: a server is restarted now and then."""
POOL: Final = "pool.ntp.org"
"""The pool's zone, whose servers have many operators."""


def _operator(upstream: Upstream) -> str | None:
    """Who runs a server, as its name or its public address tells; None: nobody can tell, or many do."""
    if isinstance(upstream, PoolUpstream) or upstream.host.lower().rstrip(".").endswith(POOL):
        return None
    try:
        address = ip_address(upstream.host)
    except ValueError:
        return ".".join(upstream.host.lower().rstrip(".").split(".")[-2:])
    if address.is_private:
        return None
    return str(ip_network((address, NETWORK[address.version]), strict=False))


def _each(asked: tuple[Upstream, ...], heard: tuple[UpstreamStatus, ...]) -> Iterator[Finding]:
    """What is wrong with single servers. ``asked``: the tables; ``heard``: what is known of the servers behind them."""
    for upstream in asked:
        host = upstream.host
        if not any(u.host == host for u in heard):
            what = f"no server behind {host} is asked: its name has no address, as far as this machine's resolver knows"
            yield Finding("RC52", WARN, what, f"getent ahosts {host}; if that names none, mend the name, or DNS (/etc/resolv.conf)")
    ports = {upstream.host: upstream.nts_port for upstream in asked}
    for u in heard:
        nts = u.authentication
        look = f"openssl s_client -connect {endpoint_text(u.host or u.address, ports.get(u.host, 4460))} -tls1_3 -alpn ntske/1"
        where = u.address if u.host in (u.address, "") else f"{u.host} ({u.address})"
        if u.tally == "x":
            do = "ask another one in its place, unless it is the receiver that is wrong: refclock sources"
            yield Finding("RC52", WARN, f"the time of {where} is wrong: it {u.why}", do)
        elif not u.reach and nts.mode == "nts" and not nts.cookies:
            yield Finding("RC52", WARN, f"{where} gives no time: {u.why}", f"see what it shows: {look}")
        elif nts.mode == "nts" and nts.ke_attempts > TRIES:
            what = f"{where} gave no new keys of NTS, asked {nts.ke_attempts} times: it is followed with the old ones while they last"
            yield Finding("RC52", WARN, what, f"journalctl -u refclock-nts-ke says why; see what it shows: {look}")
        elif not u.reach and u.packets.sent:
            port = u.packets.port
            do = f"refclock query {endpoint_text(u.host or u.address, port)}; requests need UDP port {port} to be open outwards"
            yield Finding("RC52", WARN, f"{where} gives no time: {u.why}", do)


def _together(asked: tuple[Upstream, ...], heard: tuple[UpstreamStatus, ...], followed: bool) -> Iterator[Finding]:
    """What is wrong with all of them. ``followed``: their time may be served."""
    usable = sum(bool(u.reach) and not u.noselect for u in heard)
    if followed and usable < ENOUGH and not any(u.trust for u in heard):
        what = f"{usable} of the servers that may be followed answer{'s' if usable == 1 else ''}: one that lies would not be noticed"
        do = 'name four or more, or a pool: [[upstream]] type = "pool", host = "pool.ntp.org"'
        yield Finding("RC52", WARN, what, do)
    operators = {_operator(upstream) for upstream in asked}
    if len(asked) > 1 and len(operators) == 1 and None not in operators:
        what = f"all servers belong to {operators.pop()}: one mistake of its operator moves them all"
        yield Finding("RC52", WARN, what, "name servers of other operators as well")


def servers(p: Patient) -> Finding:
    """RC52: do the NTP servers that are asked answer, are they right, and would one that lies be noticed?"""
    asked, role = p.config.asked, p.config.clock.upstreams
    if not asked:
        off = ' (clock.upstreams = "off")' if p.config.upstreams else ""
        return Finding("RC52", SKIP, f"no NTP server is asked{off}")
    if p.clock is None:
        return Finding("RC52", SKIP, NO_DAEMON)
    heard = p.clock.upstreams
    good = Finding("RC52", OK, f"{sum(bool(u.reach) for u in heard)} NTP servers answer, and none of them contradicts what is served")
    return worst((*_each(asked, heard), *_together(asked, heard, role != "witness")), good)


EXAMINATIONS: Final = (servers,)
