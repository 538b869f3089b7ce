"""``refclock pool-check``: may this server join the NTP pool? A list of go and no-go, and the score that the monitors would give."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from ipaddress import ip_address
from typing import Final

from ppsd.cli.daemon import configuration, run_directory
from ppsd.cli.doctor import network
from ppsd.cli.doctor.doctor import patient_of
from ppsd.cli.doctor.finding import FAIL, NO_DAEMON, OK, SKIP, WARN, Finding, Patient
from ppsd.cli.doctor.lan import STRANGERS
from ppsd.cli.query import Try
from ppsd.config.client_templates import NTP_PORT
from ppsd.config.file import load
from ppsd.config.tables import parse_endpoint
from ppsd.faces.text import plain_ns
from ppsd.ntp.packet import refid_text
from ppsd.ntp.pool_score import IN_POOL, PAUSE_S, SAMPLES, PoolReply, checks_until, mark_of
from ppsd.process.exit_codes import FAILED, GOOD
from ppsd.snapshot import Verdict
from refclock.kernel.interfaces import Address

_SIGN: Final = {OK: "go   ", WARN: "look ", FAIL: "NO-GO", SKIP: "-    "}


def run(args: argparse.Namespace) -> int:
    """Examine, and print the list; FAILED when something is no-go."""
    directory = run_directory(args.run_dir)
    findings = examine(patient_of(directory, load(configuration(directory, args.config))))
    stopped = sum(finding.state == FAIL for finding in findings)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{_SIGN[finding.state]}  {finding.what}")
            if finding.do and finding.state != OK:
                print(f"       do: {finding.do}")
        print("go: add the address at https://manage.ntppool.org" if not stopped else f"no-go: {stopped} to mend first", file=sys.stdout)
    return FAILED if stopped else GOOD


def examine(patient: Patient) -> list[Finding]:
    """All findings, in the order in which one would mend them."""
    public = [own for own in patient.addresses if own.address.is_global]
    return [
        _time(patient),
        replace(network.server(patient), check="server"),
        _port(patient),
        _public(public),
        *(_lasting(own) for own in public),
        _everybody(patient),
        _limits(patient),
        _smear(patient),
        replace(network.ntp_let_in(patient), check="firewall"),
        replace(network.tracking(patient), check="tracking"),
        _score(patient),
        _outside(public),
    ]


def _time(p: Patient) -> Finding:
    if p.clock is None:
        return Finding("time", FAIL, NO_DAEMON, "refclock run, or the service")
    if p.clock.simulated:
        return Finding("time", FAIL, "the receiver is simulated: nobody may be given its time", "connect a receiver")
    if p.clock.verdict is not Verdict.LOCKED:
        return Finding(
            "time", FAIL, f"{p.clock.verdict}: {p.clock.why}", "refclock status tells what is missing; the pool needs it for days"
        )
    return Finding("time", OK, f"LOCKED, stratum {p.clock.stratum}")


def _port(p: Patient) -> Finding:
    endpoints = [endpoint for text in p.listen if (endpoint := parse_endpoint(text)) is not None]
    if any(port == NTP_PORT and not ip_address(host.partition("%")[0]).is_loopback for host, port in endpoints):
        return Finding("port", OK, f"port {NTP_PORT} is served")
    return Finding(
        "port", FAIL, f"port {NTP_PORT} is not served to others, and clients ask no other", '[server] listen = ["0.0.0.0:123", "[::]:123"]'
    )


def _public(public: Sequence[Address]) -> Finding:
    if public:
        return Finding("public", OK, f"public addresses: {', '.join(str(own.address) for own in public)}")
    do = f"forward UDP {NTP_PORT} of your public address to this machine, in the router; a fixed public address is needed"
    return Finding("public", WARN, "no interface has a public address: others can only come through a router", do)


def _lasting(own: Address) -> Finding:
    if own.lasting:
        return Finding("lasting", OK, f"{own.address} has no lease that ends")
    do = "let the provider or the router reserve it, or set it by hand: clients of the pool go on asking an address for years"
    return Finding(
        "lasting", WARN, f"{own.address} ({own.interface}) comes by a lease (DHCP or router advertisement): it must stay the same", do
    )


def _everybody(p: Patient) -> Finding:
    rules = p.config.access.rules()
    refused = [f"IPv{version}" for version, address in STRANGERS.items() if rules.decide(address).action != "allow"]
    if not refused:
        return Finding("everybody", OK, "everybody may ask")
    return Finding(
        "everybody",
        FAIL,
        f"not everybody may ask by {' and '.join(refused)}",
        '[access] allow = ["0.0.0.0/0", "::/0"], then refclock reload',
    )


def _limits(p: Patient) -> Finding:
    """A monitor asks SAMPLES times, PAUSE_S apart: it must never be refused."""
    limits = p.config.limits
    if limits.rate == 0 or limits.burst >= SAMPLES or limits.rate * PAUSE_S >= 1:
        return Finding("limits", OK, f"the monitors' {SAMPLES} requests within {(SAMPLES - 1) * PAUSE_S:g} s are below the limits")
    do = f"[limits] burst = {SAMPLES} or more"
    return Finding("limits", FAIL, f"the limits refuse the monitors, which ask {SAMPLES} times within {(SAMPLES - 1) * PAUSE_S:g} s", do)


def _smear(p: Patient) -> Finding:
    if p.config.server.leap_smear:
        return Finding("smear", FAIL, "leap seconds are smeared, which public servers must not do (RFC 8633 3.7.1)", "leap_smear = false")
    return Finding("smear", OK, "leap seconds are announced, not smeared")


def _heard(tried: Try) -> PoolReply | None:
    """A try as a monitor sees it, the worst case for the offset: as far off as the reply says that it may be."""
    if tried.exchange is not None:
        header = tried.exchange.header
        error_s = (header.root_dispersion_ns + header.root_delay_ns / 2) / 1e9
        return PoolReply(error_s, tried.exchange.delay_ns / 1e9, header.stratum)
    if tried.header is None:
        return None
    return PoolReply(0.0, 0.0, tried.header.stratum or 0, refid_text(tried.header.refid, 0))


def _score(p: Patient) -> Finding:
    endpoint = next((found for text in p.listen if (found := parse_endpoint(text)) is not None), None)
    if endpoint is None:
        return Finding("score", SKIP, network.NO_SERVER)
    host, port = network.ANYWHERE.get(endpoint[0], endpoint[0]), endpoint[1]
    replies: list[PoolReply | None] = []
    for index in range(SAMPLES):
        if index:
            p.pause(PAUSE_S)
        replies.append(_heard(p.ask((host, port), socket.AF_INET6 if ":" in host else socket.AF_INET)))
    mark = mark_of(replies)
    checks = checks_until(mark)
    heard = [reply for reply in replies if reply is not None]
    how = f"within ±{plain_ns(max(1, round(heard[0].offset_s * 1e9)))}" if heard and heard[0].stratum else "without the time"
    how = how if heard else "without an answer"
    if checks is None:
        do = "see what refclock status and refclock query say"
        return Finding("score", FAIL, f"a monitor's check ({how}) adds {mark.step:+.2f}: the score never reaches {IN_POOL:g}", do)
    return Finding("score", OK, f"a monitor's check ({how}) adds {mark.step:+.2f}: score {IN_POOL:g} after {checks} checks")


def _outside(public: Sequence[Address]) -> Finding:
    where = str(public[0].address) if public else "YOUR-PUBLIC-ADDRESS"
    return Finding(
        "outside", SKIP, "whether requests from outside arrive cannot be told from here", f"from another network: ntpdate -q {where}"
    )
