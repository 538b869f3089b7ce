"""What the serve process asks of the NTS-KE process, and gets: keys of an upstream, or why there are none. Values to octets and back.

Flow: **Errand** -> ``nts-client.sock`` (``ppsd.serve.nts_client``) -> **Keys** or **NoKeys** -> ``ppsd.serve.nts_keyring``, which also
keeps keys in this form. Both ends are of one user; what is no such value raises ValueError all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from ppsd.ntp.nts import AEAD_KEYS, COOKIES
from ppsd.ntp.nts_client import COOKIE_BYTES, Terms

FILE: Final = "nts-client.sock"
"""The name of the socket in the run directory."""
ASK_BYTES: Final = 32768
"""Octets of the longest question: a path of PATH_MAX (linux/limits.h), each of its octets written as an escape."""
WORDS: Final = 1024
"""Letters of the longest reason."""
ANSWER_BYTES: Final = 16384
"""Octets of the longest answer: eight cookies of COOKIE_BYTES in hexadecimal, two keys, and words."""


@dataclass(frozen=True, slots=True)
class Errand:
    """Keys are wanted of the upstream ``name``, from its key server at ``address``. ``host``, ``port``, ``ca``: as whoever asks has them
    configured; who does not have them so has not read the configuration yet, or still has the old one."""

    name: str
    address: str
    host: str
    port: int
    ca: str

    def to_bytes(self) -> bytes:
        """As a datagram."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Errand:
        """The inverse. ValueError."""
        told = _object(data)
        port = told.get("port")
        if not isinstance(port, int):
            raise ValueError("no port")
        return cls(_text(told, "name"), _text(told, "address"), _text(told, "host"), port, _text(told, "ca"))


@dataclass(frozen=True, slots=True)
class NoKeys:
    """There are no keys; ``why``."""

    why: str

    def to_bytes(self) -> bytes:
        """As a datagram."""
        return json.dumps({"why": self.why[:WORDS]}).encode()


@dataclass(frozen=True, slots=True)
class Keys:
    """The terms of a key server, and the keys for packets to the server and to the client. ``undated``: its certificate was accepted
    although its dates are wrong."""

    terms: Terms
    to_server: bytes = field(repr=False)
    to_client: bytes = field(repr=False)
    undated: bool = False

    def told(self) -> dict[str, object]:
        """For json.dumps."""
        terms = self.terms
        return {
            "cipher": terms.aead,
            "cookies": [cookie.hex() for cookie in terms.cookies],
            "server": terms.server,
            "port": terms.port,
            "to_server": self.to_server.hex(),
            "to_client": self.to_client.hex(),
            "undated": self.undated,
        }

    def to_bytes(self) -> bytes:
        """As a datagram."""
        return json.dumps(self.told()).encode()

    @classmethod
    def of(cls, told: Mapping[str, object]) -> Keys:
        """The inverse of ``told``. ValueError."""
        cookies, cipher, port, undated = told.get("cookies"), told.get("cipher"), told.get("port"), told.get("undated")
        if not isinstance(cookies, list) or not isinstance(cipher, int) or not isinstance(undated, bool):
            raise ValueError("no keys of NTS")
        if not (port is None or (isinstance(port, int) and 0 < port < 1 << 16)):
            raise ValueError("no port")
        found = tuple(_octets(text) for text in cookies)
        to_server, to_client = _octets(told.get("to_server")), _octets(told.get("to_client"))
        if len(found) > COOKIES or any(not 0 < len(one) <= COOKIE_BYTES for one in found):
            raise ValueError("no cookies")
        if not len(to_server) == len(to_client) == AEAD_KEYS.get(cipher):
            raise ValueError("no keys of this length")
        return cls(Terms(cipher, found, _text(told, "server"), port), to_server, to_client, undated)


def answer_of(data: bytes) -> Keys | NoKeys:
    """What the NTS-KE process has answered. ValueError."""
    told = _object(data)
    return NoKeys(_text(told, "why")) if "why" in told else Keys.of(told)


def _object(data: bytes) -> dict[str, object]:
    told = json.loads(data.decode())
    if not isinstance(told, dict):
        raise ValueError("no object")
    return told


def _text(told: Mapping[str, object], name: str) -> str:
    text = told.get(name)
    if not isinstance(text, str):
        raise ValueError(f"no {name}")
    return text


def _octets(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("no octets")
    return bytes.fromhex(text)
