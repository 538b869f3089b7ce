"""NTS as a client, over real sockets on loopback: keys are established with a key server, kept, lost and refused."""

from __future__ import annotations

import datetime
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from OpenSSL import SSL
from records import true_record

from ppsd.config.access import ACTIONS
from ppsd.config.tables import ServerUpstream
from ppsd.ntp import nts
from ppsd.ntp.nts import COOKIES, KeRecord, Kind
from ppsd.ntp.nts_client import asked
from ppsd.ntp.nts_errands import Keys, NoKeys
from ppsd.ntp.nts_keys import cookie_keys
from ppsd.process.log import Log
from ppsd.serve import nts_client
from ppsd.serve.certificates import OwnCertificates, Pair
from ppsd.serve.ntp_server import NtpServer, ServerRules
from ppsd.serve.nts_client import KeyClient
from ppsd.serve.nts_keyring import KEPT, Keyring
from ppsd.serve.nts_sessions import Offer, Sessions, sealed_cookie, tls_context
from ppsd.serve.upstream import Upstreams
from refclock.exchange.upstream import UpstreamIntake
from refclock.kernel.files import owners
from refclock.kernel.timescale import TimescaleWriter
from refclock.sample import NS

pytestmark = pytest.mark.device

BUILT = datetime.date(2026, 11, 1)
NOW_S = 1_796_083_200  # 2026-12-01
DAY_S = 86400
RULES = ServerRules(ranges=((0, ACTIONS.index("allow")),))
SECRET = bytes(range(32))


class Heard:
    """A log that is read."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> bool:
        self.text += text
        return True


def free(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Box:
    """A key server and an NTP server of ours with one secret, for the names of its certificate."""

    def __init__(self, place: Path, names: Sequence[str] = ("time.example", "127.0.0.1")) -> None:
        self.place = place
        place.mkdir(mode=0o700)
        self.made = OwnCertificates(place, BUILT, owners())
        self.authority: Pair = self.made.authority("box", NOW_S)
        self.certificate = self.made.server(self.authority, names, NOW_S)
        self.port, self.ntp_port = free(socket.SOCK_STREAM), free(socket.SOCK_DGRAM)
        self.sessions = Sessions(Log(Heard()), lambda host: True)
        self.sessions.offer = Offer(tls_context(self.certificate.credentials()), self.cookies, port=self.ntp_port)
        self.sessions.listen({"here": ("127.0.0.1", self.port)})
        self.secret, self.given = SECRET, 0
        self.record = TimescaleWriter(place / "timescale")
        self.record.publish(true_record())
        self.serve("127.0.0.1")

    def serve(self, host: str) -> None:
        """Answer at this address."""
        self.server = NtpServer(self.place / "timescale", [(host, self.ntp_port)], self.rules())
        self.server.start()

    def rules(self) -> ServerRules:
        return replace(RULES, nts=cookie_keys(self.secret, NOW_S))

    def change(self, secret: bytes) -> None:
        """No cookie of before is understood any more."""
        self.secret = secret
        self.server.configure(self.rules())

    def cookies(self, keys: bytes) -> list[bytes]:
        self.given += 1
        found = cookie_keys(self.secret, NOW_S)
        key = found.keys[found.present - found.first]
        return [sealed_cookie(key, found.present, keys, bytes([n, self.given]) * 8) for n in range(COOKIES)]

    def close(self) -> None:
        self.sessions.close()
        self.server.close()
        self.record.close()


class Asking:
    """The two halves of the client: that which gets keys, and that which uses them."""

    def __init__(self, directory: Path, box: Box) -> None:
        self.directory, self.box = directory, box
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(box.authority.pem())
        self.served_s: int | None = NOW_S
        self.log = Heard()
        self.client = KeyClient(directory, Log(self.log), lambda: self.served_s, lambda file: Path(file).read_bytes(), lambda: 0)
        self.upstream = ServerUpstream(
            name="ntp0", host="127.0.0.1", nts=True, nts_port=box.port, port=1, ca=str(self.ca), minpoll=0, maxpoll=0
        )
        self.door = UpstreamIntake(directory / "upstream.sock")
        self.why, self.samples = "", 0
        self.told: list[tuple[str, bool]] = []
        self.begin()

    def begin(self) -> None:
        keyring = Keyring(self.directory, Log(self.log), self.directory, owners())
        self.upstreams = Upstreams(self.directory / "upstream.sock", Log(self.log), keyring)

    def configure(self, **changes: object) -> None:
        upstream = replace(self.upstream, **changes)  # type: ignore[arg-type]
        self.client.configure([upstream])
        self.client.review()
        self.upstreams.configure([upstream], [], [])

    def run(self, until: Callable[[], bool]) -> None:
        """Have everything work until ``until`` holds."""
        end_s = time.monotonic() + 60
        while not until():
            assert time.monotonic() < end_s, (self.why, self.samples, self.log.text)
            self.upstreams.work()
            pause_s = max(0.0, min(0.2, self.upstreams.due_s()))
            ready, _, _ = select.select([self.client, self.upstreams, self.door, self.box.sessions], [], [], pause_s)
            for one in ready:
                if one is not self.door:
                    one.handle_ready()
            self.client.review()
            for server, sample in self.door.read():
                self.why = server.why
                self.told.append((server.address, server.ended))
                self.samples += sample is not None

    def more(self, samples: int) -> None:
        """Wait for that many samples."""
        wanted = self.samples + samples
        self.run(lambda: self.samples >= wanted)

    def refused(self, what: str) -> None:
        """Wait until it is said ``what`` stands against the keys; there is no sample."""
        self.run(lambda: what in self.why)
        assert self.samples == 0

    def close(self) -> None:
        self.upstreams.close()
        self.client.close()
        self.door.close()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path / "box")
    yield made
    made.close()


@pytest.fixture
def asking(tmp_path: Path, box: Box) -> Iterator[Asking]:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    made = Asking(directory, box)
    yield made
    made.close()


def test_sealed_requests_are_answered_and_cookies_are_renewed(asking: Asking, box: Box) -> None:
    """One key establishment is enough for more requests than it gave cookies; each is sealed, and goes to the port that the key server
    names."""
    asking.configure()
    asking.more(COOKIES + 1)
    assert asking.why == ""
    assert box.given == 1
    counters = box.server.counters()
    assert counters["server"]["nts"] == sum(counters["reply"].values()) >= COOKIES + 1


def test_the_time_is_asked_for_where_the_key_server_says(asking: Asking, box: Box) -> None:
    """4.1.7: another address, which the clock process is told as the server's; also with the keys of the last run."""
    box.server.close()
    box.serve("127.0.0.3")
    assert box.sessions.offer is not None
    box.sessions.offer = replace(box.sessions.offer, server="127.0.0.3")
    asking.configure()
    asking.more(1)
    assert asking.told[-1] == ("127.0.0.3", False)
    assert ("127.0.0.1", True) in asking.told
    asking.upstreams.close()
    asking.begin()
    asking.configure()
    asking.more(1)
    assert asking.told[-1] == ("127.0.0.3", False)
    assert box.given == 1


def test_a_restart_needs_no_new_keys(asking: Asking, box: Box, tmp_path: Path) -> None:
    """What is kept is this user's alone, is written at the end and gone after the start: no cookie is in two places."""
    asking.configure()
    asking.more(2)
    asking.upstreams.close()
    kept = asking.directory / KEPT
    assert kept.stat().st_mode & 0o777 == 0o600
    first = kept.read_bytes()
    asking.begin()
    asking.configure()
    asking.more(2)
    assert not kept.exists()
    assert box.given == 1
    asking.upstreams.close()
    assert kept.read_bytes() != first
    asking.begin()
    asking.configure(host="localhost")  # another server, as far as one can tell
    asking.run(lambda: "not for localhost" in asking.why)


def test_a_server_with_other_keys_is_asked_for_new_ones(asking: Asking, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers NTSN; the next request brings new keys, and time."""
    monkeypatch.setattr("ppsd.ntp.nts_association.FIRST_PAUSE_NS", NS)
    asking.configure()
    asking.more(1)
    box.change(bytes(32))
    asking.run(lambda: "does not know the keys" in asking.why)
    asking.more(2)
    assert box.given == 2
    assert asking.why == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"host": "localhost"}, "certificate is for time.example, 127.0.0.1, not for localhost"),
        ({"ca": ""}, "no authority known to this system (package ca-certificates) has signed the certificate"),
        ({"ca": "{key}"}, "has no certificate in PEM form"),
        ({"ca": "/nowhere"}, "No such file"),
        ({"nts_port": 1}, "Connection refused"),
    ],
)
def test_a_server_that_cannot_prove_its_name_gives_no_time(asking: Asking, changes: dict[str, object], why: str) -> None:
    """Another name, an unknown authority, an unreadable one, nobody there: no request leaves, and the reason is said in words."""
    if changes.get("ca") == "{key}":
        key = asking.directory / "key.pem"
        key.write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
        changes = {"ca": str(key)}
    asking.configure(**changes)
    asking.refused(why)
    assert sum(asking.box.server.counters()["reply"].values()) == 0


def test_certificates_are_held_against_the_served_time(asking: Asking, box: Box) -> None:
    """One that has ended, or has not begun by the time that is served, is refused, whatever the system clock says, also with
    unchecked_dates: that is for clocks that know no time."""
    for now_s, why in ((box.certificate.until_s + DAY_S, "the certificate ended on"), (NOW_S - 60 * DAY_S, "begins on 2026-11-01")):
        asking.served_s = now_s
        assert why in refusal(asking, unchecked_dates=16)


def test_wrong_dates_are_accepted_so_often_and_no_more(asking: Asking, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no time is known, a certificate that is wrong in its dates alone is accepted unchecked_dates times, and it is logged; never a
    wrong name or authority."""
    monkeypatch.setattr("ppsd.serve.nts_client.time.time", lambda: 60.0)
    asking.served_s = None
    assert "for localhost" in refusal(asking, unchecked_dates=2, host="localhost")
    for left in (1, 0):
        found = answer(asking, unchecked_dates=2)
        assert isinstance(found, Keys)
        assert found.undated
        assert f"more_times={left}" in asking.log.text
    assert "the certificate begins on 2026-11-01, and it is 1970-01-01" in refusal(asking, unchecked_dates=2)
    assert isinstance(answer(asking, unchecked_dates=2), NoKeys)


def answer(asking: Asking, asked_for: ServerUpstream | None = None, **changes: object) -> Keys | NoKeys:
    """What the process that speaks TLS answers for the upstream with these changes. ``asked_for``: as whoever asks has it configured."""
    upstream = replace(asking.upstream, **changes)  # type: ignore[arg-type]
    asking.client.configure([upstream])
    asking.client.review()
    keyring = Keyring(asking.directory, Log(asking.log))
    found: list[Keys | NoKeys] = []
    assert keyring.ask(upstream if asked_for is None else asked_for, "127.0.0.1") == ""

    def until() -> bool:
        found.extend(answer for _, answer in keyring.take())
        return bool(found)

    asking.run(until)
    keyring.close()
    return found[0]


def refusal(asking: Asking, asked_for: ServerUpstream | None = None, **changes: object) -> str:
    found = answer(asking, asked_for, **changes)
    assert isinstance(found, NoKeys)
    return found.why


def test_keys_are_got_only_for_what_both_have_configured(asking: Asking) -> None:
    """Between two reloads, nothing is established by an old name or authority; nor for a stranger."""
    for changes in ({"host": "localhost"}, {"ca": "/other.pem"}, {"name": "stranger"}):
        assert "has not read its configuration yet" in refusal(asking, replace(asking.upstream, **changes))  # type: ignore[arg-type]


# ---- key servers that misbehave ----------------------------------------------------------------------------------------------------------


class Strange:
    """A server with the box's certificate that answers ``says`` to whatever it is asked. ``knows``: the protocol's name."""

    def __init__(self, box: Box, says: bytes, *, knows: bool = True, version: int = SSL.TLS1_3_VERSION, ends: bool = True) -> None:
        self.context = tls_context(box.certificate.credentials())
        self.context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self.context.set_max_proto_version(version)
        self.context.set_alpn_select_callback(lambda _, __: nts.ALPN if knows else SSL.NO_OVERLAPPING_PROTOCOLS)
        self.says, self.ends = says, ends
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.door.getsockname()[1])
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        sock, _ = self.door.accept()
        sock.settimeout(20)
        with sock:
            if not self.ends:
                sock.recv(1 << 16)
                sock.recv(1 << 16)  # until the client gives up
                return
            sock.setblocking(True)
            tls = SSL.Connection(self.context, sock)
            tls.set_accept_state()
            try:
                tls.do_handshake()
                tls.recv(4096)
                tls.sendall(self.says)
                tls.shutdown()
                sock.recv(4096)
            except (SSL.Error, OSError):
                pass

    def close(self) -> None:
        self.thread.join()
        self.door.close()


NTP = KeRecord(Kind.PROTOCOLS, b"\0\0", critical=True)
SIV = KeRecord(Kind.AEADS, b"\0\x0f")
COOKIE = KeRecord(Kind.COOKIE, bytes(100))
ANSWERS = {
    "no cookies": (nts.message([NTP, SIV]), "gives no cookies"),
    "an error": (nts.refusal(nts.Fault.INTERNAL), "has a fault of its own"),
    "an unfinished answer": (nts.message([NTP, SIV, COOKIE])[:-4], "before its answer is complete"),
    "an answer without end": (KeRecord(Kind.COOKIE, bytes(60000)).to_bytes() * 2, "malformed"),
    "another cipher": (nts.message([NTP, KeRecord(Kind.AEADS, b"\0\x11"), COOKIE]), "other protocols or ciphers"),
    "no NTPv4": (nts.message([KeRecord(Kind.PROTOCOLS, critical=True)]), "no keys for NTPv4"),
    "port 0": (nts.message([NTP, SIV, COOKIE, KeRecord(Kind.PORT, b"\0\0")]), "names no server"),
    "no text": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "before its answer is complete"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_answers_that_are_none_are_refused_in_words(asking: Asking, box: Box, what: str) -> None:
    """RFC 8915 sections 4 and 4.1: the client takes no keys from it, and says why."""
    says, why = ANSWERS[what]
    with ExitStack() as stack:
        strange = Strange(box, says)
        stack.callback(strange.close)
        assert why in refusal(asking, nts_port=strange.port)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"knows": False}, "another service has this port"),
        ({"version": SSL.TLS1_2_VERSION}, "has no TLS 1.3"),
        ({"ends": False}, "does not answer within"),
    ],
)
def test_what_is_no_key_server_is_told_apart(
    asking: Asking, box: Box, options: dict[str, object], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another protocol inside TLS, an old TLS, and silence, which ends in time."""
    monkeypatch.setattr(nts_client, "SESSION_S", 2.0 if "ends" in options else 8.0)
    with ExitStack() as stack:
        strange = Strange(box, nts.message([NTP, SIV, COOKIE]), **options)  # type: ignore[arg-type]
        stack.callback(strange.close)
        assert why in refusal(asking, nts_port=strange.port)


def test_the_request_is_the_one_that_servers_expect() -> None:
    """NTPv4 and AEAD 15, in the order and with the critical bits that RFC 8915 section 4 shows; with AEAD 30 the record by which chronyd
    knows that keys are exported as the RFC says."""
    end = KeRecord(Kind.END, critical=True)
    assert nts.records(asked((15,))) == (NTP, replace(SIV, critical=True), end)
    both = KeRecord(Kind.AEADS, b"\0\x1e\0\x0f", critical=True)
    assert nts.records(asked((30, 15))) == (NTP, both, KeRecord(Kind.COMPLIANT_EXPORT), end)


@pytest.mark.parametrize(
    ("host", "name", "same"),
    [
        ("time.example.net", "TIME.example.net", True),
        ("time.example.net", "*.example.net", True),
        ("a.time.example.net", "*.example.net", False),
        ("example.net", "*.example.net", False),
        ("example.net", "*.net", False),
        ("time.example.net", "t*.example.net", False),
        ("192.0.2.7", "192.0.2.7", False),
    ],
)
def test_names_of_certificates(host: str, name: str, same: bool) -> None:
    """RFC 6125 section 6.4: a wildcard is the first label, whole; an address is no name."""
    assert nts_client._matches(host, name) is same
