"""Each rule of RFC 8915 sections 5.3 to 5.7 for servers, asked on a socket by a client with a cipher of its own."""

import os
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nts_packets import AUTHENTICATOR, COOKIE, PLACEHOLDER, UNIQUE, Field, NtsClient, exchange, packed
from records import true_record

from ppsd.config.access import ACTIONS
from ppsd.ntp.nts_keys import cookie_keys
from ppsd.serve.ntp_server import NtpServer, ServerRules
from refclock.kernel.timescale import TimescaleWriter

pytestmark = pytest.mark.device

SECRET = bytes(range(32))
DAY = 20785
HEADER = bytes([4 << 3 | 3]) + bytes(39) + b"\1\2\3\4\5\6\7\x08"
RULES = ServerRules(ranges=((0, ACTIONS.index("allow")),), nts=cookie_keys(SECRET, DAY * 86400))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NtpServer]:
    path: Path = tmp_path_factory.mktemp("nts") / "timescale"
    writer = TimescaleWriter(path)
    writer.publish(true_record())
    with NtpServer(path, [("127.0.0.1", 0)], RULES) as made:
        made.start()
        yield made
    writer.close()


@pytest.fixture(scope="module")
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(5)
        yield made


@pytest.fixture
def client() -> NtsClient:
    return NtsClient(SECRET)


def answer(server: NtpServer, sock: socket.socket, request: bytes) -> bytes:
    """The reply; empty when a request sent after it is answered first."""
    plain = HEADER[:40] + os.urandom(8)
    to = server.bound_addresses[0]
    sock.sendto(request, to)
    reply = exchange(sock, to, plain)
    if reply[24:32] == plain[40:]:
        return b""
    assert sock.recv(4096)[24:32] == plain[40:]
    return reply


def fields(client: NtsClient, *, unique: int = 1, cookie: int = 1, more: tuple[Field, ...] = ()) -> bytes:
    """A header and fields, none of them sealed yet."""
    return HEADER + packed([*[(UNIQUE, client.unique)] * unique, *[(COOKIE, client.cookie(DAY))] * cookie, *more])


@pytest.mark.parametrize("placeholders", [0, 1, 3, 7, 9])
def test_reply_brings_a_cookie_for_each_one_asked_for(server: NtpServer, sock: socket.socket, client: NtsClient, placeholders: int) -> None:
    """5.7: a reply has a cookie for the one used and for each placeholder, eight at most; each is new, and none reveals what it holds."""
    request = client.request(client.cookie(DAY), placeholders)
    reply = client.opened(request, answer(server, sock, request))
    assert reply.packet[1] == 1
    assert len(reply.cookies) == min(8, 1 + placeholders)
    assert len(set(reply.cookies)) == len(reply.cookies)
    assert all(client.c2s not in cookie for cookie in reply.cookies)


def test_a_chain_of_cookies_goes_on(server: NtpServer, sock: socket.socket, client: NtsClient) -> None:
    """5.7: each new cookie serves for the next request."""
    cookie = client.cookie(DAY)
    for _ in range(20):
        request = client.request(cookie)
        (cookie,) = client.opened(request, answer(server, sock, request)).cookies


@pytest.mark.parametrize("day", range(DAY - 12, DAY + 5))
def test_cookies_of_eight_days_before_and_one_after_are_taken(server: NtpServer, sock: socket.socket, client: NtsClient, day: int) -> None:
    """6: a client that slept for a week goes on, and its new cookies are of today's key. An older cookie gets a NAK."""
    request = client.request(client.cookie(day))
    reply = answer(server, sock, request)
    if DAY - 8 <= day <= DAY + 1:
        (cookie,) = client.opened(request, reply).cookies
        assert int.from_bytes(cookie[:4]) == DAY
    else:
        assert reply[12:16] == b"NTSN"


@pytest.mark.parametrize("what", ["cookie", "secret", "header", "nonce", "tag", "placeholder", "foreign cookie"])
def test_what_cannot_be_verified_gets_a_nak(server: NtpServer, sock: socket.socket, client: NtsClient, what: str) -> None:
    """5.7: a kiss-o'-death NTSN, stratum 0, with the unique identifier and no other field, so that the client knows whose it is."""
    if what == "secret":
        request = client.request(NtsClient(bytes(32), client.c2s, client.s2c).cookie(DAY))
    elif what == "foreign cookie":
        request = client.request(os.urandom(96))
    else:
        place = {"header": 46, "cookie": 48 + 36 + 60, "placeholder": 48 + 36 + 104 + 30, "nonce": -30, "tag": -1}[what]
        damaged = bytearray(client.request(client.cookie(DAY), 1))
        damaged[place] ^= 1
        request = bytes(damaged)
    reply = answer(server, sock, request)
    assert (reply[0], reply[1], reply[12:16], reply[24:32]) == (3 << 6 | 4 << 3 | 4, 0, b"NTSN", request[40:48])
    assert reply[48:] == packed([(UNIQUE, client.unique)])


ROWS = {
    "no unique identifier (5.3)": lambda c: c.sealed(fields(c, unique=0)),
    "two unique identifiers (5.7)": lambda c: c.sealed(fields(c, unique=2)),
    "a unique identifier of 28 octets (5.3)": lambda c: c.sealed(HEADER + packed([(UNIQUE, bytes(28)), (COOKIE, c.cookie(DAY))])),
    "no cookie (5.4)": lambda c: c.sealed(fields(c, cookie=0)),
    "a placeholder without a cookie (5.5)": lambda c: c.sealed(fields(c, cookie=0, more=((PLACEHOLDER, bytes(100)),))),
    "two cookies (5.7)": lambda c: c.sealed(fields(c, cookie=2)),
    "a cookie behind the authenticator (5.6)": lambda c: c.sealed(fields(c, cookie=0)) + packed([(COOKIE, c.cookie(DAY))]),
    "a short nonce without padding (5.6)": lambda c: c.sealed(fields(c), nonce=bytes(12)),
    "a nonce longer than its field (5.6)": lambda c: fields(c) + packed([(AUTHENTICATOR, b"\0\x40\0\x10" + bytes(32))]),
    "a sealed text longer than its field (5.6)": lambda c: fields(c) + packed([(AUTHENTICATOR, b"\0\x10\0\x20" + bytes(32))]),
    "a sealed text without room for a tag (5.6)": lambda c: fields(c) + packed([(AUTHENTICATOR, b"\0\x10\0\x0f" + bytes(32))]),
    "a MAC as well": lambda c: c.request(c.cookie(DAY)) + bytes(20),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_no_client_sends_gets_silence(server: NtpServer, sock: socket.socket, client: NtsClient, row: str) -> None:
    """5.3 to 5.7: a request that breaks a rule of the format is discarded, and counted as such."""
    before = server.counters()["drop"].get("nts_malformed", 0)
    assert answer(server, sock, ROWS[row](client)) == b""
    assert server.counters()["drop"]["nts_malformed"] == before + 1


GOOD = {
    "fields of other kinds, in any order (5.7)": (lambda c: c.sealed(fields(c, more=((0x2005, bytes(24)), (0xF5FF, bytes(40))))), 1),
    "what is behind the authenticator is discarded (5.6)": (
        lambda c: c.request(c.cookie(DAY)) + packed([(PLACEHOLDER, bytes(100))] * 3 + [(UNIQUE, bytes(32))]),
        1,
    ),
    "a placeholder of another length does not count (5.5)": (lambda c: c.sealed(fields(c, more=((PLACEHOLDER, bytes(60)),))), 1),
    "a placeholder's content does not matter (5.5)": (lambda c: c.sealed(fields(c, more=((PLACEHOLDER, b"\xaa" * 100),))), 2),
    "placeholders may be sealed (5.7)": (lambda c: c.sealed(fields(c), [(PLACEHOLDER, bytes(100))] * 2), 3),
    "a short nonce with padding (5.6)": (lambda c: c.sealed(fields(c), nonce=bytes(9), padding=4), 1),
    "a long nonce (5.6)": (lambda c: c.sealed(fields(c), nonce=bytes(61)), 1),
    "more padding than needed (5.6)": (lambda c: c.sealed(fields(c), padding=200), 1),
}


@pytest.mark.parametrize("row", GOOD)
def test_what_a_client_may_send_is_answered(server: NtpServer, sock: socket.socket, client: NtsClient, row: str) -> None:
    """5.5 to 5.7: whatever the rules leave to a client, its reply verifies and brings the cookies that it is due."""
    made, cookies = GOOD[row]
    request = made(client)
    assert len(client.opened(request, answer(server, sock, request)).cookies) == cookies


def test_interleaved_mode_is_as_without_nts(server: NtpServer, sock: socket.socket, client: NtsClient) -> None:
    """RFC 9769: a request whose origin is the last receive timestamp is told when the last reply left, sealed as others are."""
    replies: list[bytes] = []
    request = client.request(client.cookie(DAY))
    for _ in range(4):
        sock.sendto(request, server.bound_addresses[0])
        replies.append(sock.recv(4096))
        head = HEADER[:24] + replies[-1][32:40] + os.urandom(16)
        request = client.sealed(head + packed([(UNIQUE, client.unique), (COOKIE, client.cookie(DAY))]))
    for before, after in pairwise(replies):
        assert before[32:40] < after[40:48] < after[32:40]


def test_a_client_of_nts_is_listed_as_such(server: NtpServer, sock: socket.socket, client: NtsClient) -> None:
    """The table of clients says that the last answered request was authenticated, and by NTS; the counters count it."""
    before = server.counters()["server"]
    request = client.request(client.cookie(DAY))
    sock.sendto(request, server.bound_addresses[0])
    client.opened(request, sock.recv(4096))
    (listed,), _ = server.clients(10)
    after = server.counters()["server"]
    assert listed.authenticated
    assert listed.nts
    assert (after["nts"] - before["nts"], after["authenticated"] - before["authenticated"]) == (1, 1)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_request_never_gets_time_under_another_name(server: NtpServer, sock: socket.socket, data: st.DataObject) -> None:
    """Octets changed, cut off or put in anywhere: the reply verifies, or it is a NAK, plain time without a field, or nothing. It is never
    longer than the request."""
    client = NtsClient(SECRET)
    request = bytearray(client.request(client.cookie(DAY), data.draw(st.integers(0, 3))))
    start = data.draw(st.integers(0, len(request) - 1))
    request[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    reply = answer(server, sock, bytes(request))
    assert len(reply) <= len(request)
    if len(reply) > 48 and reply[12:16] != b"NTSN":
        client.unique = bytes(request[52:84])
        client.opened(bytes(request), reply)
