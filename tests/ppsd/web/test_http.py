"""The web process's HTTP: what programs on this machine get, whatever they send."""

from __future__ import annotations

import gc
import http.client
import select
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_daemon import COUNTERS, LOCKED

from ppsd.faces.prometheus import Reports, compatible, native, page
from ppsd.process.log import Log
from ppsd.snapshot import ServerReport
from ppsd.web import http as web
from ppsd.web.http import CONNECTIONS, HEAD_BYTES, HttpServer, Request, Response, parsed
from refclock.sample import Satellite

pytestmark = pytest.mark.device


class Silent:
    """A log that nobody reads."""

    def write(self, text: str) -> bool:
        return bool(text)


def respond(request: Request) -> Response:
    """Says what was asked."""
    return Response(f"{request.path} {dict(request.query)} {request.headers.get('accept', '')}")


def a_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


class Serving:
    """A server in a thread."""

    def __init__(self) -> None:
        self.port = a_port()
        self.http = HttpServer(respond, Log(Silent()))
        self.http.listen([f"127.0.0.1:{self.port}"])
        self.stop, self.stopped = socket.socketpair()
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()

    def loop(self) -> None:
        poll = select.poll()
        poll.register(self.http, select.POLLIN)
        poll.register(self.stopped, select.POLLIN)
        while self.stopped.fileno() not in {fd for fd, _ in poll.poll(20)}:
            self.http.handle_ready()
            self.http.review()

    def close(self) -> None:
        self.stop.send(b"x")
        self.thread.join()
        for sock in (self.stop, self.stopped):
            sock.close()
        self.http.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def asked(self, data: bytes) -> bytes:
        """Everything that comes until the server hangs up."""
        with self.connect() as sock:
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.fixture
def serving() -> Iterator[Serving]:
    made = Serving()
    yield made
    made.close()


def test_a_page_is_got_again_and_again_on_one_connection(serving: Serving) -> None:
    """As Prometheus asks: GET with Accept, the connection stays open; HEAD tells the length alone."""
    with closing(http.client.HTTPConnection("127.0.0.1", serving.port, timeout=30)) as client:
        for n in range(3):
            client.request("GET", f"/metrics?compat=chrony&n={n}", headers={"Accept": "text/plain"})
            answer = client.getresponse()
            assert (answer.status, answer.read().decode()) == (200, f"/metrics {{'compat': 'chrony', 'n': '{n}'}} text/plain")
        client.request("HEAD", "/metrics")
        head = client.getresponse()
        assert int(head.headers["Content-Length"]) > 0
        assert head.read() == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET metrics HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: " + b"x" * HEAD_BYTES, 431),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET /%C3%A4?a=1&a=2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
    ],
)
def test_every_request_gets_one_answer_and_a_wrong_one_the_end(serving: Serving, request_: bytes, status: int) -> None:
    """A refusal names its status and ends the connection; so does what asked for the end."""
    assert serving.asked(request_).startswith(b"HTTP/1.1 %d " % status)


def test_a_client_that_sends_nothing_keeps_nobody_out(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """More connections than there is room for, all silent or half-way: the next one is served, and they are dropped after some seconds."""
    monkeypatch.setattr(web, "REQUEST_S", 0.5)
    idle = [serving.connect() for _ in range(2 * CONNECTIONS)]
    idle[-1].sendall(b"GET / HTTP/1.1\r\nHo")
    assert serving.asked(b"GET / HTTP/1.0\r\n\r\n").endswith(b"/ {} ")
    for sock in idle:
        with suppress(ConnectionResetError):
            assert sock.recv(1) == b""
        sock.close()


def test_a_client_that_reads_nothing_keeps_nobody_out(serving: Serving) -> None:
    """Answers that nobody reads pile up in nobody's memory, and others are served."""
    with serving.connect() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.setblocking(False)
        with suppress(OSError):  # its buffer is full, or the server has hung up
            for _ in range(1000):
                greedy.send(b"GET /" + b"a" * 4000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert serving.asked(b"GET / HTTP/1.0\r\n\r\n").endswith(b"/ {} ")


def test_an_address_that_is_held_is_taken_when_it_is_free(serving: Serving) -> None:
    """The port of another program is left to it, with the reason; once it is free, it is answered."""
    http_ = HttpServer(respond, Log(Silent()))
    http_.listen([f"127.0.0.1:{serving.port}"])
    (lacking,) = http_.unserved
    assert lacking.taken
    assert "another program" in lacking.why
    serving.http.listen(())
    http_.review()
    assert http_.served == (f"127.0.0.1:{serving.port}",)
    http_.close()


@pytest.mark.pure
@given(st.binary(max_size=200) | st.from_regex(rb"GET /[^ ]{0,20} HTTP/1\.[01](\r\n[^\r\n]{0,20}){0,3}", fullmatch=True))
def test_no_bytes_raise(head: bytes) -> None:
    """Whatever comes as a request's head is a request or a status."""
    assert isinstance(parsed(head), Request | int)


@pytest.mark.pure
def test_a_path_that_is_no_text_breaks_no_page() -> None:
    """A device's name may hold any octets; the page is UTF-8 all the same."""
    clock = replace(LOCKED, sources=(replace(LOCKED.sources[0], what="/dev/tty\udcff"),))
    Response(page(native(Reports(clock, None)))).to_bytes(False, True).decode("utf-8")


@pytest.mark.slow
def test_ten_thousand_pages_leave_nothing_behind() -> None:
    """Memory does not grow with the number of scrapes: pages of a receiver with forty satellites, in both formats and sets of names."""
    sky = tuple(Satellite("GPS", n, 45, n, 30, True) for n in range(40))
    clock = replace(LOCKED, sources=tuple(replace(source, satellites=sky) for source in LOCKED.sources))
    reports = Reports(clock, ServerReport(7, 60.0, ("0.0.0.0:123",), False, COUNTERS), 20)

    def scrape(n: int) -> None:
        request = parsed(b"GET /metrics?n=%d HTTP/1.1\r\nHost: x\r\nAccept: text/plain" % n)
        assert isinstance(request, Request)
        Response(page((compatible if n % 4 == 3 else native)(reports), n % 2 == 1)).to_bytes(False, False)

    for n in range(500):
        scrape(n)
    gc.collect()
    before = sys.getallocatedblocks()
    for n in range(10_000):
        scrape(n)
    gc.collect()
    assert sys.getallocatedblocks() - before < 200
