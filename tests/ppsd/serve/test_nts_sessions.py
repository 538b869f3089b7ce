"""What clients of NTS key establishment get, whatever they do: real TLS on loopback."""

from __future__ import annotations

import datetime
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from nts_client import USUAL, establish
from OpenSSL import SSL

from ppsd.ntp import nts
from ppsd.ntp.nts import COOKIES, KeRecord, Kind
from ppsd.process.log import Log
from ppsd.serve import nts_sessions
from ppsd.serve.certificates import OwnCertificates
from ppsd.serve.nts_sessions import CLIENT_SESSIONS, SESSIONS, WIRE_BYTES, Offer, Sessions, sealed_cookie, tls_context
from refclock.kernel.files import owners

pytestmark = pytest.mark.device

KEY = bytes(range(32))
PERIOD = 20785


class Silent:
    """A log that nobody reads."""

    def write(self, text: str) -> bool:
        return bool(text)


class Serving:
    """Sessions in a thread."""

    def __init__(self, place: Path) -> None:
        made = OwnCertificates(place, datetime.date(2026, 11, 1), owners())
        issuer = made.authority("box", time.time())
        self.tls = tls_context(made.server(issuer, ["box.local", "127.0.0.1"], time.time()).credentials())
        with socket.create_server(("127.0.0.1", 0)) as door:
            self.port = int(door.getsockname()[1])
        self.sessions = Sessions(Log(Silent()), lambda host: True)
        self.sessions.offer = Offer(self.tls, lambda keys: [sealed_cookie(KEY, PERIOD, keys, bytes([n]) * 16) for n in range(COOKIES)])
        self.sessions.listen({f"127.0.0.1:{self.port}": ("127.0.0.1", self.port)})
        self.most = 0
        self.stop, self.stopped = socket.socketpair()
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()

    def loop(self) -> None:
        poll = select.poll()
        poll.register(self.sessions, select.POLLIN)
        poll.register(self.stopped, select.POLLIN)
        while self.stopped.fileno() not in {fd for fd, _ in poll.poll(50)}:
            self.sessions.handle_ready()
            self.most = max(self.most, self.sessions.open)
            self.sessions.review()

    def close(self) -> None:
        self.stop.send(b"x")
        self.thread.join()
        self.sessions.close()
        self.stop.close()
        self.stopped.close()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    tmp_path.chmod(0o700)
    with closing(Serving(tmp_path)) as made:
        yield made


def test_a_client_gets_eight_cookies_that_hold_its_keys(serving: Serving) -> None:
    """NTPv4, AEAD 15 and eight cookies of 100 octets; whoever has the key of the day finds in each the keys that the client exported."""
    got = establish(serving.port)
    assert got.records[:2] == (USUAL[0], KeRecord(Kind.AEADS, b"\0\x0f"))
    cookies = got.bodies(Kind.COOKIE)
    assert len(set(cookies)) == COOKIES
    for cookie in cookies:
        assert len(cookie) == 100
        assert int.from_bytes(cookie[:4]) == PERIOD
        assert AESSIV(KEY).decrypt(cookie[20:], [cookie[4:20]]) == got.keys
    assert serving.sessions.tally.served == 1


@pytest.mark.parametrize("compliant", [True, False])
def test_keys_of_aead_30_are_shorter_and_so_are_cookies(serving: Serving, compliant: bool) -> None:
    """A cookie of AEAD 30 has 68 octets; its keys are exported under the number of AEAD 15, unless the client says otherwise."""
    asked = [USUAL[0], KeRecord(Kind.AEADS, b"\0\x1e\0\x0f"), *([KeRecord(Kind.COMPLIANT_EXPORT)] if compliant else [])]
    got = establish(serving.port, nts.message(asked), aead=nts.AES_128_GCM_SIV, exported_as=30 if compliant else 15)
    assert len(got.bodies(Kind.COMPLIANT_EXPORT)) == compliant
    assert {len(cookie) for cookie in got.bodies(Kind.COOKIE)} == {68}
    for cookie in got.bodies(Kind.COOKIE):
        assert AESSIV(KEY).decrypt(cookie[20:], [cookie[4:20]]) == got.keys


def test_a_client_without_our_cipher_gets_no_cookie(serving: Serving) -> None:
    """An empty AEAD record tells it."""
    got = establish(serving.port, nts.message([USUAL[0], KeRecord(Kind.AEADS, b"\0\x10")]))
    assert got.bodies(Kind.AEADS) == [b""]
    assert not got.bodies(Kind.COOKIE)


@pytest.mark.parametrize(("extra", "code"), [(KeRecord(0x4000, critical=True), 0), (USUAL[0], 1)])
def test_a_bad_request_is_told_why(serving: Serving, extra: KeRecord, code: int) -> None:
    """An unknown critical record is error 0, a request that is none error 1."""
    got = establish(serving.port, nts.message([*USUAL, extra]))
    assert got.bodies(Kind.ERROR) == [code.to_bytes(2)]


def test_tls_before_1_3_is_refused(serving: Serving) -> None:
    """A client that speaks TLS 1.2 at most is told so by an alert."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["ntske/1"])
    with socket.create_connection(("127.0.0.1", serving.port), 10) as sock, pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        context.wrap_socket(sock)


def test_no_cookie_without_the_name_of_the_protocol(serving: Serving) -> None:
    """A client that offers another protocol is told by an alert, one that offers none is hung up on: neither gets a cookie (RFC 8915
    section 4)."""
    with pytest.raises(SSL.Error):
        establish(serving.port, alpn=b"http/1.1")
    with pytest.raises(SSL.Error):
        establish(serving.port, alpn=b"")
    assert serving.sessions.tally.served == 0


def test_a_request_in_pieces_is_answered(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may send its request octet by octet."""
    monkeypatch.setattr(nts_sessions, "TURN_BYTES", 1)
    assert len(establish(serving.port).bodies(Kind.COOKIE)) == COOKIES


def test_a_client_that_says_nothing_is_told_after_a_while(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time is over, a client whose request has not come is told error 1 (RFC 8915 section 4.1.3), and the session ends."""
    monkeypatch.setattr(nts_sessions, "SESSION_S", 1.0)
    got = establish(serving.port, nts.message(USUAL)[:7])
    assert got.bodies(Kind.ERROR) == [b"\0\1"]
    end_s = time.monotonic() + 10.0
    while serving.sessions.open and time.monotonic() < end_s:  # the client hangs up only now
        time.sleep(0.01)
    assert serving.sessions.open == 0


def test_thousand_slow_clients_leave_room_for_one_more(serving: Serving) -> None:
    """Of a thousand clients that connect and send nothing, few are kept, and who asks properly is answered at once."""
    silent = [socket.create_connection(("127.0.0.1", serving.port), 10) for _ in range(1000)]
    try:
        assert len(establish(serving.port).bodies(Kind.COOKIE)) == COOKIES
        assert serving.most <= CLIENT_SESSIONS <= SESSIONS
    finally:
        for sock in silent:
            sock.close()


def test_an_endless_client_is_cut_off(serving: Serving) -> None:
    """A client that sends on and on is hung up on after some kilobytes."""
    with socket.create_connection(("127.0.0.1", serving.port), 10) as sock, pytest.raises(OSError, match=r"reset|Broken"):
        for _ in range(10_000):
            sock.sendall(b"\x16\x03\x01\x40\x00" + bytes(WIRE_BYTES))


def test_what_is_no_tls_harms_nobody(serving: Serving) -> None:
    """Garbage, an HTTP request, half a handshake: the session ends, the next client is served."""
    for words in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)), b"\x16\x03\x01\x00\x05\x01\x00"):
        with socket.create_connection(("127.0.0.1", serving.port), 10) as sock:
            sock.sendall(words)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(10)
            while sock.recv(4096):
                pass
    assert len(establish(serving.port).bodies(Kind.COOKIE)) == COOKIES
