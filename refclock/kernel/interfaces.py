"""The networks that this machine's interfaces are in, and a socket that tells when interfaces and addresses change (rtnetlink(7)).

A network is what an address and its prefix length name, and for IPv6 also what a router has announced as on the link (RFC 4861 section
4.6.2): with DHCPv6 the address itself is a /128. Addresses of loopback stand for themselves alone, for no other machine is there. Any
process may read this; it needs no privilege.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr of linux/netlink.h: length, type, flags, sequence, port."""
_ADDRESS: Final = struct.Struct("=BBBBI")
"""struct ifaddrmsg of linux/if_addr.h: family, prefix length, flags, scope, interface."""
_ROUTE: Final = struct.Struct("=8BI")
"""struct rtmsg of linux/rtnetlink.h: family, lengths of destination and source, TOS, table, protocol, scope, type, flags."""
_ATTRIBUTE: Final = struct.Struct("=HH")
"""struct rtattr: length, type."""
_NEW_ADDRESS, _GET_ADDRESS, _NEW_ROUTE, _GET_ROUTE = 20, 22, 24, 26
"""RTM_* of linux/rtnetlink.h."""
_ERROR, _DONE, _DUMP = 2, 3, 0x301
"""NLMSG_ERROR, NLMSG_DONE; NLM_F_REQUEST | NLM_F_DUMP."""
_IFA_ADDRESS, _IFA_LOCAL, _RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 2, 1, 4, 5
"""Attributes of addresses and routes."""
_UNFIT, _PERMANENT = 0x01 | 0x08 | 0x20 | 0x40, 0x80
"""IFA_F_TEMPORARY, _DADFAILED, _DEPRECATED and _TENTATIVE; IFA_F_PERMANENT (linux/if_addr.h)."""
_MAIN, _UNICAST, _BY_KERNEL, _BY_ROUTER = 254, 1, 2, 9
"""RT_TABLE_MAIN, RTN_UNICAST, RTPROT_KERNEL, RTPROT_RA."""
_SOL_NETLINK, _STRICT = 270, 12
"""NETLINK_GET_STRICT_CHK of linux/netlink.h: the kernel tells only what a dump asks for, so a router's many routes stay where they are."""
_GROUPS: Final = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR."""
_LOOPBACK: Final = 1
"""LOOPBACK_IFINDEX of include/net/flow.h: the interface lo of each network namespace."""
_WIDEST: Final = {4: 8, 6: 32}
"""Shortest prefix that is taken for a network. No link has a shorter one; a mistaken /0 would be everybody."""
SHARED: Final = IPv4Network("100.64.0.0/10")
"""Shared address space (RFC 6598). A carrier or an overlay network numbers its machines from it, mostly as single addresses. So an
interface in it is taken to be in all of it."""
PATIENCE_S: Final = 1.0
"""Seconds to wait for the kernel's answer, which comes at once."""


class Network(NamedTuple):
    """A network, written as a prefix, and the interface that is in it."""

    prefix: str
    interface: str


def networks() -> tuple[Network, ...]:
    """The networks that the interfaces are in, without link-local ones. OSError: the kernel does not tell."""
    found: dict[str, int] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asker:
        asker.settimeout(PATIENCE_S)
        for body, attributes in _dump(asker, _GET_ADDRESS, _NEW_ADDRESS, _ADDRESS, bytes(_ADDRESS.size)):
            _, length, _, _, interface = body
            for network in _of_address(attributes, length, interface == _LOOPBACK):
                found.setdefault(str(network), interface)
        with contextlib.suppress(OSError):  # before Linux 4.20: everything is told
            asker.setsockopt(_SOL_NETLINK, _STRICT, 1)
        for protocol in (_BY_KERNEL, _BY_ROUTER):
            wanted = _ROUTE.pack(socket.AF_INET6, 0, 0, 0, _MAIN, protocol, 0, _UNICAST, 0)
            for body, attributes in _dump(asker, _GET_ROUTE, _NEW_ROUTE, _ROUTE, wanted):
                family, length, _, _, table, by, _, kind, _ = body
                if (family, table, by, kind) != (socket.AF_INET6, _MAIN, protocol, _UNICAST) or _RTA_GATEWAY in attributes:
                    continue
                network6 = IPv6Network((attributes.get(_RTA_DST, bytes(16)), length))
                if length >= _WIDEST[6] and not network6.is_link_local and not network6.is_multicast and _RTA_OIF in attributes:
                    found.setdefault(str(network6), int.from_bytes(attributes[_RTA_OIF], sys.byteorder))
    return tuple(Network(prefix, _name(interface)) for prefix, interface in sorted(found.items()))


class Address(NamedTuple):
    """An address that an interface has, and the length of its prefix. ``lasting``: no lease limits its life."""

    address: IPv4Address | IPv6Address
    length: int
    interface: str
    lasting: bool


def addresses() -> tuple[Network, ...]:
    """The interfaces' own addresses, each with its prefix length, without loopback and link-local ones. OSError: as ``networks``."""
    return tuple(sorted({Network(f"{own.address}/{own.length}", own.interface) for own in _own_addresses(unfit=0)}))


def client_addresses() -> tuple[Address, ...]:
    """Addresses under which others may know this machine for long: as ``addresses``, without temporary ones (RFC 8981) and those that are
    being given up or not yet proven unique (ip-address(8)). OSError: as ``networks``."""
    return tuple(_own_addresses(_UNFIT))


def has_address(address: str) -> bool:
    """Whether this machine has an address, on loopback too: whether a socket can be bound to it (ip(7), EADDRNOTAVAIL)."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as tried:
            tried.bind(socket.getaddrinfo(address, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4])
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV) and not isinstance(error, socket.gaierror)
    return True


def _own_addresses(unfit: int) -> Iterator[Address]:
    """The interfaces' addresses in the kernel's order; of IPv6 those with a flag of ``unfit`` are left out."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asker:
        asker.settimeout(PATIENCE_S)
        for body, attributes in _dump(asker, _GET_ADDRESS, _NEW_ADDRESS, _ADDRESS, bytes(_ADDRESS.size)):
            family, length, flags, _, interface = body
            packed = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS))
            if packed is None or interface == _LOOPBACK or (address := ip_address(packed)).is_link_local:
                continue
            if family != socket.AF_INET6 or not flags & unfit:
                yield Address(address, length, _name(interface), bool(flags & _PERMANENT))


def _name(interface: int) -> str:
    try:
        return socket.if_indextoname(interface)
    except OSError:  # it has gone meanwhile
        return ""


def _of_address(attributes: dict[int, bytes], length: int, loopback: bool) -> Iterator[IPv4Network | IPv6Network]:
    """The networks of one address. With a peer IFA_ADDRESS is the peer's, and the prefix length belongs to it."""
    far, near = attributes.get(_IFA_ADDRESS), attributes.get(_IFA_LOCAL)
    for packed in {far or near, near or far} - {None}:
        assert packed is not None
        address: IPv4Address | IPv6Address = ip_address(packed)
        if address.is_link_local or address.is_multicast:
            continue
        if isinstance(address, IPv4Address) and address in SHARED:
            yield SHARED
        elif loopback or length < _WIDEST[address.version]:
            yield ip_network(address)
        else:
            yield ip_network((packed, length), strict=False)


def _dump(
    asker: socket.socket, ask: int, answer: int, body: struct.Struct, wanted: bytes
) -> Iterator[tuple[tuple[int, ...], dict[int, bytes]]]:
    """(fields of the body, attributes) of every message of type ``answer`` that a dump tells."""
    asker.send(_HEADER.pack(_HEADER.size + len(wanted), ask, _DUMP, 1, 0) + wanted)
    while True:
        data = asker.recv(1 << 16)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, at)
            if kind == _DONE or length < _HEADER.size:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                raise OSError(code, f"reading the interfaces: {os.strerror(code)}")
            if kind == answer:
                begin = at + _HEADER.size
                yield body.unpack_from(data, begin), dict(_attributes(data[begin + body.size : at + length]))
            at += length + 3 & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3


class InterfaceWatch:
    """Readable when interfaces or addresses have changed. OSError: the kernel does not tell (no netlink here)."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, _GROUPS))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Take note of the changes so far. What they are has to be looked up: messages may be lost. False: the kernel no longer tells."""
        while True:
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # that one says that there were more than the buffer holds
                    return False

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()
