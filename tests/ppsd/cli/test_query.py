"""``refclock query`` and ``doctor --against``: old servers, several addresses, keys, and what is said of a failure."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ppsd.cli import main as cli
from ppsd.cli.doctor.clock import cross_check
from ppsd.cli.doctor.finding import OK, WARN, Finding, Patient
from ppsd.cli.query import authenticator
from ppsd.config.keys import SymmetricKey
from ppsd.config.tables import Config
from ppsd.ntp.packet import Header, parse
from ppsd.serve.ntp_server import Authenticator
from refclock.kernel.host import Host
from refclock.timescales import ntp64

pytestmark = pytest.mark.device

KEYS = {"MD5": b"a secret", "SHA1": bytes(20), "SHA256": bytes(range(32)), "AES128": bytes(range(16)), "AES256": bytes(range(32))}


def now(request: Header) -> Header:
    """A good answer in the request's version."""
    stamp = ntp64(time.time_ns())
    return Header(version=request.version, mode=4, stratum=1, refid=0x47505300, origin=request.transmit, receive=stamp, transmit=stamp)


@contextlib.contextmanager
def server(answer: Callable[[bytes], bytes], host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A UDP server that answers each request by ``answer``; empty: silence. Yields its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))

        def loop() -> None:
            while (received := sock.recvfrom(200))[0] != b"end":
                if reply := answer(received[0]):
                    sock.sendto(reply, received[1])

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"end", sock.getsockname())
            thread.join()


def answered(packet: bytes) -> bytes:
    """The reply of a server without keys."""
    header = parse(packet)
    assert header is not None
    return now(header).pack()


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``name(port, host, ...)``: "many.example" has these addresses, in this order."""

    def resolve(port: int, *hosts: str) -> None:
        found = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (host, port)) for host in hosts]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    return resolve


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_server_that_answers_in_an_older_version_is_believed(version: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Old servers and routers answer version 3 whatever they are asked."""

    def old(packet: bytes) -> bytes:
        header = parse(packet)
        assert header is not None
        return replace(now(header), version=version).pack()

    with server(old) as port:
        assert cli.main(["query", f"127.0.0.1:{port}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == version


def test_every_address_of_a_name_is_tried(name: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    """The first address refuses, the second answers: the time is that of the second, which alone is asked from then on, and what failed is
    printed. When all fail, each is named with its reason."""
    with server(answered, "127.0.0.3") as port:
        name(port, "127.0.0.2", "127.0.0.3")
        assert cli.main(["query", "many.example", "-n", "2"]) == 0
        told = capsys.readouterr().out
        assert told.count(f"127.0.0.2:{port}  nothing listens there") == 1
        assert told.count(f"127.0.0.3:{port}  offset") == 2
        name(port, "127.0.0.2", "127.0.0.4")
        assert cli.main(["query", "many.example", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert f"127.0.0.2:{port}: nothing listens there" in error
    assert f"127.0.0.4:{port}: nothing listens there" in error


def test_several_servers(capsys: pytest.CaptureFixture[str]) -> None:
    """Each server is asked; the one with the least error is named, and one that contradicts it beyond the errors of both. One that fails is
    told, and does no harm while another answers."""

    def early(packet: bytes) -> bytes:
        header = parse(packet)
        assert header is not None
        stamp = ntp64(time.time_ns() - 3_000_000_000)
        return replace(now(header), receive=stamp, transmit=stamp, root_dispersion=1 << 14).pack()

    with server(answered) as good, server(early) as wrong:
        names = [f"127.0.0.1:{good}", f"127.0.0.1:{wrong}", "127.0.0.1:9"]
        assert cli.main(["query", *names]) == 0
        text = capsys.readouterr().out
        assert f"of 3 servers {names[0]} is nearest: this clock is" in text
        assert f"{names[1]} contradicts it: 3.0 s apart" in text
        assert cli.main(["query", *names, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["best"] == names[0]
        assert ["offset_ns" in one for one in told["servers"]] == [True, True, False]
    assert cli.main(["query", "127.0.0.1:9", "127.0.0.1:9"]) == 1


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("version", [3, 4])
def test_with_a_key_only_authenticated_replies_count(kind: str, version: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The request carries a MAC of that key, and the reply must; a reply without one or with another's is named as that."""
    secret = SymmetricKey(7, kind, KEYS[kind])
    file = tmp_path / "keys"
    file.write_text(f"7 {kind} HEX:{KEYS[kind].hex()}\n", encoding="utf-8")
    file.chmod(0o600)
    ours, others = Authenticator(secret), Authenticator(replace(secret, secret=bytes(len(KEYS[kind]))[:-1] + b"\1"))

    def keyed(by: Authenticator | None) -> Callable[[bytes], bytes]:
        def reply(packet: bytes) -> bytes:
            header = parse(packet)
            assert header is not None
            if not ours.accepts(packet):
                return b""
            plain = replace(now(header), version=version).pack()
            return by.sign(plain) if by is not None else plain

        return reply

    for by, code in ((ours, 0), (others, 1), (None, 1)):
        with server(keyed(by)) as port:
            assert cli.main(["query", f"127.0.0.1:{port}", "--key", "7", "--keys", str(file)]) == code
        told = capsys.readouterr().out
        assert ("not authenticated with key 7" in told) == (code == 1)


def test_silence_to_a_key_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that does not know the key says nothing; the words name that cause. A key that is not in the file, or no file: exit 64."""
    file = tmp_path / "keys"
    file.write_text(f"7 AES128 HEX:{bytes(16).hex()}\n", encoding="utf-8")
    file.chmod(0o600)
    with server(lambda _: b"") as port:
        assert cli.main(["query", f"127.0.0.1:{port}", "--key", "7", "--keys", str(file)]) == 1
        assert "wrong key (key 7)" in capsys.readouterr().out
        assert cli.main(["query", f"127.0.0.1:{port}", "--key", "8", "--keys", str(file)]) == 64
        assert "has no key 8" in capsys.readouterr().err
        config = tmp_path / "c.toml"
        config.write_text("", encoding="utf-8")
        assert cli.main(["query", f"127.0.0.1:{port}", "--key", "7", "--config", str(config)]) == 64
        assert "--keys FILE" in capsys.readouterr().err


def examined(tmp_path: Path, *servers: str, key: Authenticator | None = None) -> Finding:
    """What the doctor says of these servers."""
    return cross_check(Patient(Host(tmp_path), Config(), servers=servers, key=key))


def test_the_doctor_says_which_server_failed_and_why(tmp_path: Path, name: Callable[..., None]) -> None:
    """An old server is compared with, every address is tried; of several servers those that fail are named with the reason."""
    with server(answered, "127.0.0.3") as port, server(lambda _: b"", "127.0.0.4", port):
        assert examined(tmp_path, f"127.0.0.3:{port}").state == OK
        some = examined(tmp_path, f"127.0.0.3:{port}", f"127.0.0.4:{port}", f"127.0.0.2:{port}")
        assert some.state == WARN
        assert "1 of 3 servers agree" in some.what
        assert f"127.0.0.4:{port}: no reply" in some.what
        assert f"127.0.0.2:{port}: nothing listens there" in some.what
        assert "is not a known host" in examined(tmp_path, "no..such..host").what
        name(port, "127.0.0.2", "127.0.0.3")
        assert examined(tmp_path, "many.example").state == OK


def test_the_doctor_uses_a_key(tmp_path: Path) -> None:
    """With a key a server that answers without a MAC is no witness."""
    file = tmp_path / "keys"
    file.write_text(f"7 AES128 HEX:{bytes(16).hex()}\n", encoding="utf-8")
    file.chmod(0o600)
    key = authenticator(7, file, None)
    assert key is not None
    with server(answered) as port:
        finding = examined(tmp_path, f"127.0.0.1:{port}", key=key)
        assert finding.state == WARN
        assert "not authenticated with key 7" in finding.what
        signed = lambda packet: key.sign(answered(packet))  # noqa: E731
        with server(signed, "127.0.0.5") as other:
            assert examined(tmp_path, f"127.0.0.5:{other}", key=key).state == OK
