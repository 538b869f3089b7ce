"""Mode 6 from bytes to bytes: whatever comes is answered or not, and never ends anything; fragments, nonces, and what is told of whom."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_daemon import CLOCK as LOCKED
from known_daemon import SOURCE, noise

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
    Clients,
    Told,
    answer,
)
from ppsd.snapshot import Client, KernelStatus, ServerReport, Snapshot

COUNTERS = {
    "reply": {"basic": 100, "interleaved": 20, "mode_control": 7}, "kod": {"rate": 3, "denied": 1},
    "drop": {"rate": 30, "short": 2, "wrong_mac": 4, "ignored": 5}, "server": {"kernel_drops": 6},
}  # fmt: skip
SERVER = ServerReport(3, 7260.4, ("0.0.0.0:123",), False, COUNTERS, keys=2)
NOW_NS: Final = 1_795_262_400_500_000_000
CLIENTS = [
    Client("192.0.2.7", 9, 1, 64.0, 3.0, 900.0, 4, False, False),
    Client("2001:db8:1:2::/64", 1, 0, None, 5.0, 5.0, 3, True, False),
    Client("1:2:3:4 (local)", 2, 0, 1.0, 6.0, 7.0, 4, False, False),
]


def told(clock: Snapshot | None = LOCKED, clients: list[Client] = CLIENTS, utc_ns: int = NOW_NS) -> Told:
    return Told(lambda: clock, lambda: SERVER, lambda _: Clients(clients, len(clients), utc_ns), utc_ns, bytes(16))


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


REQUESTS = [
    request(READSTAT),
    request(READVAR, "leap,stratum"),
    request(READVAR, "", 1),
    request(READCLOCK),
    request(READ_MRU, "nonce=1"),
    request(READVAR, "ss_received,koffset"),
]


@given(st.one_of(st.binary(max_size=600), st.tuples(st.sampled_from(REQUESTS), st.integers(0, 40), st.integers(0, 255)).map(lambda m:
    m[0][: m[1]] + bytes([m[2]]) + m[0][m[1] + 1 :])), st.sampled_from([LOCKED, None]))  # fmt: skip
def test_anything_may_come(packet: bytes, clock: Snapshot | None) -> None:
    """Random and mutated packets, with and without a clock process: packets of mode 6 that are marked as replies, or silence."""
    for part in answer(packet, "a", told(clock)):
        assert part[0] & 7 == 6
        assert part[1] & RESPONSE
        assert len(part) <= HEADER.size + FRAGMENT


def test_100_000_datagrams() -> None:
    """Random and mutated ones, with good nonces among them: none raises, and each reply is whole and marked as one."""
    replies = 0
    _, word = reply(answer(request(REQ_NONCE), "a", told()))
    lists = [
        request(READ_MRU, f"{word}{more}") for more in ("", ", frags=2", ", limit=1, mincount=0x1", ", addr.0=192.0.2.7:0, last.0=0x1.2")
    ]
    whole = [*REQUESTS, *lists, request(READVAR, "ss_received,koffset"), *(request(operation) for operation in range(32))]
    for k, sent in enumerate(noise(6, whole, 2)):
        parts = answer(sent, "a", told() if k % 5 else told(None))
        assert len(parts) <= 32
        for part in parts:
            assert part[0] & 7 == 6
            assert part[1] & RESPONSE
            assert len(part) <= HEADER.size + FRAGMENT
        replies += bool(parts)
    assert replies > 30_000


def test_long_replies_come_in_fragments() -> None:
    """Many sources make more than one packet of associations' states."""
    many = replace(LOCKED, sources=tuple(replace(SOURCE, name=f"s{i}") for i in range(150)))
    status, text = reply(answer(request(READSTAT), "a", told(many)))
    assert len(text) == 600
    assert status == 0x0115


def pages(asked: str, clients: list[Client]) -> list[list[str]]:
    """The addresses of each reply to ntpq, which names the last ones that it has, until the end is told."""
    found, behind, look = list[list[str]](), "", Clients(clients, len(clients), NOW_NS)
    while True:
        _, word = reply(answer(request(REQ_NONCE), "a", told()))
        packets = answer(request(READ_MRU, f"{word}, {asked}{behind}"), "a", replace(told(), clients=lambda _: look))
        assert len(packets) <= 32
        _, text = reply(packets)
        addresses, last = re.findall(r"addr\.\d+=(\S+),", text), re.findall(r"last\.\d+=(\S+),", text)
        assert last == sorted(last)
        found.append(addresses)
        if "now=" in text:
            return found
        behind = "".join(f", addr.{i}={a}, last.{i}={t}" for i, (a, t) in enumerate(list(zip(addresses, last, strict=True))[:-4:-1]))


def test_a_long_list_is_told_in_parts() -> None:
    """All clients come, the oldest first, none twice, in replies of as many packets or rows as ntpq wants."""
    crowd = [Client(f"10.0.{i // 250}.{i % 250}", i, i % 3, 64.0, float(i // 2), 900.0, 4, False, False) for i in range(500)]
    whole = [f"{client.address}:0" for client in reversed(crowd)]
    for asked in ("frags=32", "frags=3", "limit=7", "limit=7, frags=2"):
        found = pages(asked, crowd)
        assert [address for page in found for address in page] == whole
        assert len(found) > 3
    assert max(len(page) for page in pages("limit=7", crowd)) == 7


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("mincount=490", range(490, 500)), ("mincount=0x1ea, mindrop=2", (491, 494, 497)), ("recent=3", (0, 1, 2)),
        ("maxlstint=1", (0, 1, 2, 3)), ("minlstint=249", (498, 499)), ("resany=0x20", ()), ("minscore=1", ()),
    ],
)  # fmt: skip
def test_the_list_is_limited_as_ntpq_asks(asked: str, wanted: Iterable[int]) -> None:
    """By packets, drops, age and number. Nobody has a score or a restriction here, so those who ask for such get none."""
    crowd = [Client(f"10.0.{i // 250}.{i % 250}", i, i % 3, 64.0, float(i // 2), 900.0, 4, False, False) for i in range(500)]
    found = [address for page in pages(f"frags=32, {asked}", crowd) for address in page]
    assert found == [f"{crowd[i].address}:0" for i in sorted(wanted, reverse=True)]


def test_a_list_that_has_changed_begins_anew() -> None:
    """When none of the clients that ntpq names is as it was, it is told so, and asks from the beginning."""
    _, word = reply(answer(request(REQ_NONCE), "a", told()))
    behind = ", addr.0=192.0.2.7:0, last.0=0x00000000.00000001"
    assert reply(answer(request(READ_MRU, word + behind), "a", told())) == (UNKNOWN_VARIABLE << 8, "error")
    assert reply(answer(request(READ_MRU, f"{word}, limit=x"), "a", told())) == (BAD_VALUE << 8, "error")


def test_statistics_are_told_to_who_names_them() -> None:
    """The server's counters in ntpd's names; what has no meaning here is left out; without names they are not told."""

    def ask(names: str, clock: Snapshot | None = LOCKED) -> str:
        return reply(answer(request(READVAR, names), "a", told(clock)))[1]

    assert ask("ss_uptime,ss_numctlreq,ss_thisver") == "ss_uptime=7260, ss_numctlreq=7"
    assert ask("ss_received,ss_received_r") == "ss_received=172, ss_received_r=172"
    assert ask("ss_badformat,ss_badauth,ss_restricted,ss_limited") == "ss_badformat=2, ss_badauth=4, ss_restricted=6, ss_limited=33"
    assert ask("ss_kodsent,ss_processed") == "ss_kodsent=4, ss_processed=120"
    assert ask("authkeys,io_sent,io_dropped,io_ignored,mru_depth") == "authkeys=2, io_sent=131, io_dropped=6, io_ignored=41, mru_depth=3"
    assert ask("koffset,kppsfreq") == ""
    steered = replace(LOCKED, kernel=KernelStatus(-12.345, 1500, 2_500_000, 40_000, 0x2041))
    kernel = "koffset=0.001500, kfreq=-12.345000, kmaxerr=2.500000, kesterr=0.040000"
    assert ask("koffset,kfreq,kmaxerr,kesterr,kstflags", steered) == f'{kernel}, kstflags="pll unsync nano"'
    assert "ss_" not in ask("")
    assert reply(answer(request(READVAR, "received,sent", 1), "a", told()))[1] == "received=8"


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
