"""``refclock client-config``: prints what a client of this server writes into its configuration, and how it is verified there."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from typing import Final

from ppsd.cli.daemon import configuration, run_directory
from ppsd.config.client_templates import NTP_PORT, NTS_PORT, TEMPLATES, NtsOffer, ServerNames, client_config, listed
from ppsd.config.file import load
from ppsd.config.keys import WEAK, read_keys
from ppsd.config.tables import Config, ServerConfig, parse_endpoint
from ppsd.process.exit_codes import FAILED, GOOD, USAGE, Refused
from refclock.kernel.interfaces import Address, client_addresses
from refclock.schema import ConfigError, suggestion

_FAR: Final = ("192.0.2.1", "2001:db8::1")
"""Addresses of nobody (RFC 5737, RFC 3849): the route to them is that to everybody."""
_SERVER_NAME: Final = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:_")
"""Characters of names and addresses: nothing that a file could take for something else."""


def run(args: argparse.Namespace) -> int:
    """Print the list, or the text for one client."""
    if args.client is None:
        print(listed(), end="")
        return GOOD
    if args.client not in TEMPLATES:
        known = suggestion(args.client, list(TEMPLATES)) or "; refclock client-config lists what there is"
        raise Refused(USAGE, f"refclock: there is no client {args.client}{known}")
    for name in args.server:
        if not name or not set(name) <= _SERVER_NAME or name.startswith("-"):
            raise Refused(USAGE, f"refclock: {name!r} is neither a name nor an address")
    config = load(configuration(run_directory(args.run_dir), args.config))
    found = _addresses()
    names, remarks = server_names(config.server, tuple(args.server), found, preferred())
    if not names.servers:
        raise Refused(FAILED, f"refclock: {remarks[0]}")
    for remark in remarks:
        print(f"refclock: {remark}", file=sys.stderr)
    print(client_config(args.client, _with_key(names, config, args.key)), end="")
    return GOOD


def _addresses() -> tuple[Address, ...]:
    try:
        return client_addresses()
    except OSError:
        return ()


def preferred() -> str:
    """The interface by which this machine reaches everybody: that of the default route; "" without one. Nothing is sent."""
    for family, far in zip((socket.AF_INET, socket.AF_INET6), _FAR, strict=True):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as asker:
                asker.connect((far, NTP_PORT))
                here = ip_address(asker.getsockname()[0])
        except OSError:
            continue
        for own in _addresses():
            if own.address == here:
                return own.interface
    return ""


def server_names(server: ServerConfig, given: Sequence[str], found: Sequence[Address], first: str) -> tuple[ServerNames, tuple[str, ...]]:
    """What clients are told, and remarks to whoever asked. ``given``: names by which the user wants the server called. ``found``: the
    interfaces' addresses; those of interface ``first`` come first. No servers: the remark says why."""
    endpoints = [endpoint for text in server.listen if (endpoint := parse_endpoint(text)) is not None] if server.enabled else []
    ports = {port for _, port in endpoints}
    port = NTP_PORT if NTP_PORT in ports or not ports else min(ports)
    if given:
        return ServerNames(tuple(given), port=port), ()
    served: list[str] = []
    elsewhere: list[str] = []
    for host, _ in (endpoint for endpoint in endpoints if endpoint[1] == port):
        address = ip_address(host.partition("%")[0])
        if not address.is_unspecified:
            served.append(str(address))
            continue
        usable = [own for own in found if own.address.version == address.version and server.interface in ("", own.interface)]
        main = first if any(own.interface == first for own in usable) else next((own.interface for own in usable), "")
        served += [str(own.address) for own in usable if own.interface == main]
        elsewhere += [f"{own.address} ({own.interface})" for own in usable if own.interface != main]
    served.sort(key=lambda text: isinstance(ip_address(text), IPv6Address))
    served = list(dict.fromkeys(served))
    if not served:
        why = "the server is disabled (server.enabled)" if not server.enabled else "no interface has an address that clients could ask"
        return ServerNames(()), (f"{why}; name one yourself: --server ADDRESS",)
    remarks = [f"other networks reach it as {', '.join(dict.fromkeys(elsewhere))}: --server ADDRESS"] if elsewhere else []
    if all(ip_address(text).is_loopback for text in served):
        remarks.append(f"the server listens on {', '.join(served)} alone, which no other machine reaches: [server] listen")
    return ServerNames((served[0],), tuple(served[1:]), port), tuple(remarks)


def nts_offer(config: Config) -> NtsOffer | None:
    """How clients establish keys with this server; None: NTS is not enabled."""
    own = config.nts
    if not own.enabled:
        return None
    ports = {endpoint[1] for text in own.listen if (endpoint := parse_endpoint(text)) is not None}
    return NtsOffer(NTS_PORT if NTS_PORT in ports else min(ports), own=not own.certificate)


def _with_key(names: ServerNames, config: Config, wanted: int | None) -> ServerNames:
    """``names`` with the key ``wanted``; None: NTS where it is offered, and the first strong one of ``keys.file``, 0: none. A key file that
    this user may not read is no reason to fail: it is told."""
    offer = nts_offer(config) if wanted is None else None
    if wanted is None and config.keys.file:
        try:
            keys = read_keys(config)
        except ConfigError as error:
            print(f"refclock: no key is named: {error.problems[0]}; --key N names one", file=sys.stderr)
            return replace(names, nts=offer)
        wanted = next((key.key_id for key in sorted(keys, key=lambda key: key.kind in WEAK)), None)
    return replace(names, key=wanted or None, nts=offer)
