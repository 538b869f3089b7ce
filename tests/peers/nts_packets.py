"""A client of NTS (RFC 8915) for tests: it seals cookies itself from the server's secret, makes requests and opens replies.

The cipher is the ``cryptography`` package's, so nothing of the server's code checks the server.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from ppsd.ntp.nts_keys import cookie_key

UNIQUE, COOKIE, PLACEHOLDER, AUTHENTICATOR = 0x0104, 0x0204, 0x0304, 0x0404
TAG = 16

Field = tuple[int, bytes]
"""Type and body of an extension field."""


def packed(fields: Sequence[Field]) -> bytes:
    """Extension fields as they are sent (RFC 7822)."""
    return b"".join(kind.to_bytes(2) + (4 + len(body)).to_bytes(2) + body for kind, body in fields)


def unpacked(data: bytes) -> list[Field]:
    """Extension fields of a packet, or of what it has sealed."""
    fields: list[Field] = []
    while data:
        length = int.from_bytes(data[2:4])
        assert 16 <= length <= len(data), "no extension field"
        assert length % 4 == 0, "no extension field"
        fields.append((int.from_bytes(data[:2]), data[4:length]))
        data = data[length:]
    return fields


@dataclass(frozen=True)
class Reply:
    """A reply that was authenticated: its packet, and the cookies that it had sealed."""

    packet: bytes
    cookies: tuple[bytes, ...]


@dataclass
class NtsClient:
    """One client: its keys, and what it sent last."""

    secret: bytes
    c2s: bytes = field(default_factory=lambda: os.urandom(32))
    s2c: bytes = field(default_factory=lambda: os.urandom(32))
    unique: bytes = field(default_factory=lambda: os.urandom(32))

    def cookie(self, period: int) -> bytes:
        """A cookie that the server's secret makes on that day."""
        nonce = os.urandom(16)
        return period.to_bytes(4) + nonce + AESSIV(cookie_key(self.secret, period)).encrypt(self.c2s + self.s2c, [nonce])

    def sealed(self, head: bytes, inside: Sequence[Field] = (), nonce: bytes | None = None, padding: int = 0) -> bytes:
        """``head`` with an authenticator behind it, which seals ``inside``."""
        nonce = os.urandom(16) if nonce is None else nonce
        text = AESSIV(self.c2s).encrypt(packed(inside), [head, nonce])
        body = len(nonce).to_bytes(2) + len(text).to_bytes(2)
        body += nonce + bytes(-len(nonce) % 4) + text + bytes(-len(text) % 4) + bytes(padding)
        return head + packed([(AUTHENTICATOR, body)])

    def request(self, cookie: bytes, placeholders: int = 0) -> bytes:
        """A request as clients send it."""
        header = bytes([4 << 3 | 3]) + bytes(39) + os.urandom(8)
        return self.sealed(header + packed([(UNIQUE, self.unique), (COOKIE, cookie), *[(PLACEHOLDER, bytes(len(cookie)))] * placeholders]))

    def opened(self, request: bytes, packet: bytes) -> Reply:
        """The reply to a request, checked as RFC 8915 section 5.7 has a client do."""
        fields = unpacked(packet[48:])
        assert [kind for kind, _ in fields] == [UNIQUE, AUTHENTICATOR], "one unique identifier, one authenticator, nothing in the clear"
        assert fields[0][1] == self.unique, "the unique identifier is echoed"
        assert packet[24:32] == request[40:48], "origin is the request's transmit timestamp"
        assert len(packet) <= len(request), "no reply is longer than its request"
        body = fields[1][1]
        nonce, text = int.from_bytes(body[:2]), int.from_bytes(body[2:4])
        start = 4 + nonce + -nonce % 4
        inside = AESSIV(self.s2c).decrypt(body[start : start + text], [packet[: -len(body) - 4], body[4 : 4 + nonce]])
        cookies = unpacked(inside)
        assert {kind for kind, _ in cookies} == {COOKIE}
        return Reply(packet, tuple(cookie for _, cookie in cookies))


def exchange(sock: socket.socket, to: tuple[str, int], request: bytes) -> bytes:
    """What comes back. TimeoutError: silence."""
    sock.sendto(request, to)
    return sock.recv(4096)
