"""Reloading the configuration: trying what it needs beforehand, and what a process tells of its last reload (``refclock reload``)."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from refclock.errors import explain

JUDGE: Final = "judge"
"""The request to read the configuration, to try what it needs, and to say what stands against it. It changes nothing."""
TELL: Final = "reloads"
"""The request to tell how many reloads there were, and what happened at the last one."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did. ``good``: the configuration that was read is in force; else the old one still is. ``lines``: for people."""

    good: bool
    lines: tuple[str, ...]


class Reloads:
    """The reloads of this process so far."""

    def __init__(self) -> None:
        self._count = 0
        self._last = Reloaded(True, ())

    def happened(self, what: Reloaded) -> None:
        """There was one more."""
        self._count += 1
        self._last = what

    def answer(self) -> str:
        """The reply to ``TELL``."""
        return json.dumps({"pid": os.getpid(), "count": self._count, "good": self._last.good, "lines": self._last.lines})


def judgement(problems: list[str]) -> str:
    """The reply to ``JUDGE``."""
    return json.dumps({"problems": problems})


_HINTS: Final = {
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE or socket activation",
    errno.EADDRINUSE: "another program has it (ss -ulnp says which); stop that one, or use another port",
}


def refused_addresses(endpoints: Iterable[tuple[str, int]]) -> list[str]:
    """Why each of these addresses (numeric host, port) cannot be served. An address that no interface has may come later, and an address
    family that this machine does not have is none of its faults: neither is refused."""
    refused: list[str] = []
    for host, port in endpoints:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # one of this user's that overlaps is none of anybody else
                sock.bind((host, port))
        except OSError as error:
            if error.errno in _HINTS:
                refused.append(explain(error, f"listening at {host} port {port}", _HINTS))
    return refused
