"""What the doctor tries on this machine: commands that print facts, and packets from this machine to itself. Nothing is changed by them."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple

COMMAND_S: Final = 5.0
"""s; listing the rules of a firewall takes some milliseconds."""
REPLY_S: Final = 0.5
"""s; a packet to this machine itself is answered within a millisecond."""
NAME_S: Final = 0.6
"""s; a responder answers for a name of its own within 20 ms (RFC 6762 section 6); it is asked three times in this time."""
MDNS: Final = ("224.0.0.251", 5353)
"""Where names under .local are asked (RFC 6762 section 3)."""
STAMP_OFF_S: Final = 1.0
"""s; a stamp that differs more from the clock is none of this packet. The clock may be set in between."""
SO_TIMESTAMPNS: Final = 35
"""asm-generic/socket.h; the control message has the same number."""
_QUESTION: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")
"""DNS (RFC 1035 section 4.1): type and class; type, class, time to live, length."""


def output_of(words: Sequence[str]) -> str | None:
    """What a command prints; None when it is not there, fails, or takes longer than COMMAND_S."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=COMMAND_S, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def answers(asked: Sequence[tuple[str, int, bytes]]) -> list[bool | None]:
    """Whether each datagram (own address, port, octets), sent from an address of this machine to itself, is answered; None: it cannot be
    sent. All are sent at once, and awaited for REPLY_S."""
    askers: list[socket.socket | None] = []
    found: dict[int, bool] = {}
    for own, port, request in asked:
        asker = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            asker.bind((own, 0))
            asker.connect((own, port))
            asker.send(request)
        except ConnectionRefusedError:
            found[asker.fileno()] = False
        except OSError:
            asker.close()
        askers.append(None if asker.fileno() < 0 else asker)
    waiting = [asker for asker in askers if asker is not None and asker.fileno() not in found]
    end_s = time.monotonic() + REPLY_S
    while waiting and (left_s := end_s - time.monotonic()) > 0:
        for asker in _ready(waiting, left_s):
            waiting.remove(asker)
            try:
                found[asker.fileno()] = bool(asker.recv(2048))
            except OSError:  # nobody has the port
                found[asker.fileno()] = False
    told = [None if asker is None else found.get(asker.fileno(), False) for asker in askers]
    for each in askers:
        if each is not None:
            each.close()
    return told


def _ready(askers: Sequence[socket.socket], seconds: float) -> list[socket.socket]:
    """Those that have something to read, as soon as one has."""
    poll, by_number = select.poll(), {asker.fileno(): asker for asker in askers}
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(seconds * 1000)]


def arrivals_stamped() -> bool | None:
    """Whether the kernel stamps the arrival of a packet (socket(7), SO_TIMESTAMPNS); None: no packet can be sent here."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            taker.bind(("127.0.0.1", 0))
            taker.settimeout(REPLY_S)
            sender.sendto(b"", taker.getsockname())
            taker.recv(16)
    except OSError:
        return None
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            taker.bind(("127.0.0.1", 0))
            taker.settimeout(REPLY_S)
            taker.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sender.sendto(b"", taker.getsockname())
            _, control, _, _ = taker.recvmsg(16, 128)
    except OSError:
        return False
    stamps = [struct.unpack_from("@ll", data) for level, kind, data in control if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS)]
    return any(abs(seconds + ns / 1e9 - time.time()) < STAMP_OFF_S for seconds, ns in stamps if len(stamps) == 1)


def mdns_addresses(name: str, at: Sequence[IPv4Address]) -> list[str]:
    """The addresses that multicast DNS gives for ``name``, asked at the networks of the own addresses ``at``; empty: nobody answers."""
    request = struct.pack("!6H", 0, 0, 1, 0, 0, 0) + _encoded(name) + _QUESTION.pack(1, 1)
    askers: list[socket.socket] = []
    found: list[str] = []
    try:
        for own in at:
            asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            askers.append(asker)
            asker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own.packed)
            asker.bind((str(own), 0))
        for _ in range(3):
            for asker in askers:
                asker.sendto(request, MDNS)
            end_s = time.monotonic() + NAME_S / 3
            while not found and (left_s := end_s - time.monotonic()) > 0:
                for asker in _ready(askers, left_s):
                    found += _answered(asker.recv(4096))
            if found or not askers:
                break
    except OSError:
        pass
    finally:
        for asker in askers:
            asker.close()
    return sorted(set(found))


def _encoded(name: str) -> bytes:
    labels = [label.encode("utf-8")[:63] for label in name.split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _answered(reply: bytes) -> Iterator[str]:
    """The IPv4 addresses in a reply. One that is cut off or broken ends early."""
    try:
        questions, answered = struct.unpack_from("!HH", reply, 4)
        at = 12
        for _ in range(questions):
            at = _after_name(reply, at) + _QUESTION.size
        for _ in range(answered):
            at = _after_name(reply, at)
            kind, _, _, length = _RECORD.unpack_from(reply, at)
            at += _RECORD.size
            if kind == 1 and length == 4:
                yield str(ip_address(reply[at : at + 4]))
            at += length
    except (struct.error, IndexError, ValueError):
        return


def _after_name(reply: bytes, at: int) -> int:
    while (length := reply[at]) != 0:
        if length >= 0xC0:  # a pointer ends a name (RFC 1035 section 4.1.4)
            return at + 2
        at += 1 + length
    return at + 1


class Space(NamedTuple):
    """Of a file system: bytes and files that may still be written, and their shares of all. ``read_only``: it is mounted so."""

    free_bytes: int
    free_share: float
    files_share: float
    read_only: bool


def space_at(path: str) -> Space | None:
    """The space where ``path`` is, or would be made; None when that cannot be told."""
    wanted = Path(path)
    there = next((each for each in (wanted, *wanted.parents) if each.exists()), Path("/"))
    try:
        told = os.statvfs(there)
    except OSError:
        return None
    share = told.f_bavail / told.f_blocks if told.f_blocks else 1.0
    files = told.f_favail / told.f_files if told.f_files else 1.0
    return Space(told.f_bavail * told.f_frsize, share, files, bool(told.f_flag & os.ST_RDONLY))
