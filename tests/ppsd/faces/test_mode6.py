"""Mode 6 from bytes to bytes: whatever comes is answered or not, and never ends anything; fragments, nonces, and what is told of whom."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_daemon import CLOCK as LOCKED
from known_daemon import SOURCE

from ppsd.faces.mode6 import (
    BAD_VALUE,
    ERROR,
    FRAGMENT,
    HEADER,
    MORE,
    READ_MRU,
    READCLOCK,
    READSTAT,
    READVAR,
    REQ_NONCE,
    RESPONSE,
    UNKNOWN_VARIABLE,
    Told,
    answer,
)
from ppsd.snapshot import Client, Snapshot

NOW_NS: Final = 1_795_262_400_500_000_000
CLIENTS = [
    Client("192.0.2.7", 9, 1, 64.0, 3.0, 900.0, 4, False, False),
    Client("2001:db8:1:2::/64", 1, 0, None, 5.0, 5.0, 3, True, False),
    Client("1:2:3:4 (local)", 2, 0, 1.0, 6.0, 7.0, 4, False, False),
]


def told(clock: Snapshot | None = LOCKED, clients: list[Client] = CLIENTS, utc_ns: int = NOW_NS) -> Told:
    return Told(lambda: clock, lambda: clients, utc_ns, bytes(16))


def request(operation: int, text: str = "", association: int = 0) -> bytes:
    return HEADER.pack(0x26, operation, 77, 0, association, 0, len(text)) + text.encode()


def reply(packets: list[bytes]) -> tuple[int, str]:
    """(status, text) of whole replies: right sequence, offsets without holes, more on all but the last."""
    text = b""
    for i, packet in enumerate(packets):
        first, operation, sequence, status, _, offset, count = HEADER.unpack_from(packet)
        assert (first, sequence, offset) == (0x26, 77, len(text))
        assert operation & RESPONSE
        assert bool(operation & MORE) == (i < len(packets) - 1)
        assert count <= FRAGMENT
        assert len(packet) == HEADER.size + (count + 3) // 4 * 4
        if operation & ERROR:
            return status, "error"
        text += packet[HEADER.size : HEADER.size + count]
    return status, text.decode("latin-1")


REQUESTS = [request(READSTAT), request(READVAR, "leap,stratum"), request(READVAR, "", 1), request(READCLOCK), request(READ_MRU, "nonce=1")]


@given(st.one_of(st.binary(max_size=600), st.tuples(st.sampled_from(REQUESTS), st.integers(0, 40), st.integers(0, 255)).map(lambda m:
    m[0][: m[1]] + bytes([m[2]]) + m[0][m[1] + 1 :])), st.sampled_from([LOCKED, None]))  # fmt: skip
def test_anything_may_come(packet: bytes, clock: Snapshot | None) -> None:
    """Random and mutated packets, with and without a clock process: packets of mode 6 that are marked as replies, or silence."""
    for part in answer(packet, "a", told(clock)):
        assert part[0] & 7 == 6
        assert part[1] & RESPONSE
        assert len(part) <= HEADER.size + FRAGMENT


def test_long_replies_come_in_fragments() -> None:
    """Thirty sources make more than one packet of associations' states, and a list of clients ends at what ntpq puts together."""
    many = replace(LOCKED, sources=tuple(replace(SOURCE, name=f"s{i}") for i in range(150)))
    status, text = reply(answer(request(READSTAT), "a", told(many)))
    assert len(text) == 600
    assert status == 0x0115
    _, word = reply(answer(request(REQ_NONCE), "a", told()))
    crowd = [Client(f"10.0.{i // 250}.{i % 250}", 9, 0, 64.0, float(i), 900.0, 4, False, False) for i in range(500)]
    packets = answer(request(READ_MRU, f"{word}, frags=32"), "a", told(clients=crowd))
    assert 20 < len(packets) <= 32
    _, text = reply(packets)
    assert "addr.0=" in text
    assert "=10.0.0.0:0, " in text, "the latest of them is told, whoever is left out"
    last = re.findall(r"last\.\d+=(\S+),", text)
    assert text.endswith(f"last.newest={last[-1]}")
    assert last == sorted(last)


def test_a_nonce_is_for_one_address_and_some_seconds() -> None:
    """READ_MRU without a nonce, with another's, with an old one or with one of another secret is refused."""
    _, word = reply(answer(request(REQ_NONCE), "a", told()))
    assert "ct.2=9" in reply(answer(request(READ_MRU, word), "a", told(utc_ns=NOW_NS + 15 * 10**9)))[1]
    for asked, source, later in (("", "a", 0), (word, "b", 0), (word, "a", 60), ("nonce=0", "a", 0)):
        packets = answer(request(READ_MRU, asked), source, told(utc_ns=NOW_NS + later * 10**9))
        assert reply(packets) == (BAD_VALUE << 8, "error")


def test_the_list_tells_addresses() -> None:
    """Oldest first; a /64 by its first address, a link-local one as such; the mode is that of clients, the version theirs."""
    _, word = reply(answer(request(REQ_NONCE), "a", told()))
    _, text = reply(answer(request(READ_MRU, word), "a", told()))
    assert "addr.0=[fe80::1:2:3:4]:0" in text
    assert "addr.1=[2001:db8:1:2::]:0" in text
    assert "addr.2=192.0.2.7:0" in text
    assert "mv.1=27" in text
    assert "dr.2=1" in text


def test_what_is_asked_for_is_told() -> None:
    """Named variables come in their order; an unknown one, or an unknown association, is an error as in ntpd."""
    assert reply(answer(request(READVAR, "stratum,leap"), "a", told()))[1] == "stratum=1, leap=0"
    assert reply(answer(request(READVAR, "reach", 1), "a", told())) == (0x971A, "reach=0xff")
    assert reply(answer(request(READVAR, "nonsense"), "a", told())) == (UNKNOWN_VARIABLE << 8, "error")
    assert reply(answer(request(READVAR, "", 9), "a", told()))[1] == "error"


def test_without_a_clock_process() -> None:
    """The server says that it is not synchronised, and knows no sources."""
    status, text = reply(answer(request(READVAR), "a", told(None)))
    assert status >> 14 == 3
    assert "stratum=16" in text
    assert reply(answer(request(READSTAT), "a", told(None)))[1] == ""


@pytest.mark.parametrize("packet", [b"", b"\x26", request(READVAR)[:11], bytes([0x23]) + bytes(47), request(READVAR | RESPONSE)])
def test_what_is_no_request_gets_silence(packet: bytes) -> None:
    """Short packets, time requests, and replies, which two servers would send each other for ever."""
    assert answer(packet, "a", told()) == []
