"""Fuzzes the doors through which bytes of others come in: ``make fuzz``, or ``python tests/fuzz/doors.py DOOR [-max_total_time=SECONDS]``.

A door's function takes bytes. Whatever they are, it must never raise, nor take longer than 10 s. atheris goes on with inputs that reach new
code; one that ends badly is kept in build/fuzz. The packet path in C has a fuzzer of its own (tests/native/fuzz_packet.c).
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import atheris
from OpenSSL import SSL

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/ppsd/faces")]

with atheris.instrument_imports(include=["refclock", "ppsd"]):
    from known_daemon import CLIENTS, CLOCK, Known

    from ppsd.config.file import parse_bytes
    from ppsd.config.import_chrony import import_chrony
    from ppsd.config.import_ntp import import_ntp
    from ppsd.config.import_receivers import import_gpsd, import_satpulse
    from ppsd.config.import_servers import import_timesyncd
    from ppsd.config.keys import parse_keys
    from ppsd.config.tables import Config
    from ppsd.discipline.engine import Engine
    from ppsd.discipline.events import Publish, Sampled, Ticked
    from ppsd.discipline.leap import LeapKeeper
    from ppsd.discipline.noise import QUANTILES
    from ppsd.discipline.saved import Learned, Saved, SavedSource, from_json
    from ppsd.discipline.source import ReceiverSource
    from ppsd.faces import cmdmon, mode6
    from ppsd.faces.prometheus import wants_openmetrics
    from ppsd.ntp import nts
    from ppsd.ntp.association import Association, Measurement, Polling
    from ppsd.ntp.nts_client import TAG_BYTES, Seal, Terms, Verdict, granted
    from ppsd.ntp.packet import Header, judge
    from ppsd.process.log import Log
    from ppsd.serve.certificates import OwnCertificates
    from ppsd.serve.nts_sessions import Offer, Sessions, sealed_cookie, tls_context
    from ppsd.snapshot import ServerReport
    from ppsd.web.http import Request, parsed
    from refclock import config
    from refclock.exchange.samples import RawSample
    from refclock.exchange.sock import SOCK_64, SOCK_MAGIC, parse_sock
    from refclock.exchange.upstream import pack, parse
    from refclock.kernel.files import owners
    from refclock.protocols.gpsd import GpsdStream
    from refclock.protocols.stream import ReceiverStream
    from refclock.sample import NS, ForeignSample, Instant, Leap, SourceId, UpstreamServer
    from refclock.schema import ConfigError
    from refclock.timescales import ntp64
    from refclock.timing.pulse_time import Context

UTC0, RAW0 = 1_800_000_000, 5_000 * NS
OFFSET_S, LEAP_S = 1 << 20, 86_806
READ_BYTES = 64
"""Octets that a read gives at once, and DATAGRAM_BYTES the size of a chrony SOCK sample."""
DATAGRAM_BYTES = 40
ANSWER_BYTES = 48
NONCE = 0x1122334455667788
"""The transmit field of every request, which the first inputs echo; UNIQUE likewise the identifier of those with NTS."""
UNIQUE = bytes(range(32))


def _at(ns: int) -> Instant:
    return Instant(UTC0 * NS + ns, RAW0 + ns)


def receiver(data: bytes) -> None:
    """A receiver's line: framing, decoders, gate, dates, trust, health, pairing."""
    stream, leaps = ReceiverStream(UTC0 - OFFSET_S), LeapKeeper()
    source = ReceiverSource(config.ReceiverSource(name="gps0", device="/dev/x"), UTC0 - OFFSET_S, Saved())
    for k in range(0, len(data), READ_BYTES):
        now = _at(k * NS // READ_BYTES // 8)
        source.reported(stream.feed(data[k : k + READ_BYTES], now, LEAP_S), LEAP_S, leaps, Context())


def gpsd(data: bytes) -> None:
    """gpsd's JSON."""
    stream = GpsdStream(UTC0 - OFFSET_S)
    for k, line in enumerate(data.splitlines(keepends=True)):
        stream.feed(line, _at(k * NS))


def samples(data: bytes) -> None:
    """chrony SOCK datagrams, through the estimator: what is published, told and saved is finite."""
    engine = Engine(Config(sources=(config.SockSource(name="s", path="/x"),)), Saved(), _at(0), simulated=False, version="", pid=1)
    now = 0
    for k in range(0, len(data), DATAGRAM_BYTES + 1):
        piece = data[k : k + DATAGRAM_BYTES + 1]
        now += 1 << (piece[0] % 42)
        sample = parse_sock(piece[1:])
        if isinstance(sample, RawSample):
            engine.handle(Sampled(SourceId("s"), ForeignSample(_at(now), sample.offset_ns, 0, sample.leap, sample.pulse), _at(now)))
        for effect in engine.handle(Ticked(_at(now), None)):
            if isinstance(effect, Publish):
                assert math.isfinite(effect.record.bound_rate)
                assert effect.record.bound_ns >= 0
    json.dumps([engine.snapshot(_at(now)).to_json(), engine.state().to_json()], allow_nan=False)


def configuration(data: bytes) -> None:
    """refclock.toml."""
    try:
        parse_bytes(data, "file")
    except ConfigError as error:
        assert error.problems


def keys(data: bytes) -> None:
    """A key file."""
    parse_keys(data.decode("utf-8", "replace"), allow_weak=False)


def foreign(data: bytes) -> None:
    """Another program's configuration, as any of those that are imported: what comes out is valid."""
    text = data.decode("utf-8", "replace")
    for reader in (import_chrony, import_ntp, import_gpsd, import_satpulse, import_timesyncd):
        parse_bytes(reader(text, "file").text().encode(), "imported")


def state(data: bytes) -> None:
    """What an earlier run left, and a start with it."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict):
        saved, _ = from_json(found)
        engine = Engine(Config(sources=(config.SockSource(name="s", path="/x"),)), saved, _at(0), simulated=False, version="", pid=1)
        engine.handle(Ticked(_at(NS), None))
        json.dumps([engine.snapshot(_at(NS)).to_json(), engine.state().to_json()], allow_nan=False)


def reply(data: bytes) -> None:
    """A server's reply to `refclock query`."""
    judge(int.from_bytes(data[24:32], "big"), data, UTC0 * NS, UTC0 * NS + 1000)


def answers(data: bytes) -> None:
    """What comes to an association's sockets, one datagram for each request: no measurement is farther off than can be asked for."""
    for xleave in (False, True):
        association, now = Association(Polling(xleave=xleave), 0), 0
        for k in range(0, len(data), ANSWER_BYTES):
            now += 1 << (data[k] % 42)
            association.request(now, NONCE, NONCE + 1)
            at = UTC0 * NS + now
            found = association.reply(data[k : k + ANSWER_BYTES], at, at + 1_000_000, raw_ns=now + 1_000_000)
            if isinstance(found, Measurement):
                assert 0 <= found.distance_ns <= Polling().maxdistance_ns


def upstream(data: bytes) -> None:
    """What the serve process, or who has taken it over, tells the clock process of an NTP server: it can be told again."""
    found = parse(data)
    if isinstance(found, tuple):
        server, sample = found
        assert parse(pack(server, sample)) is not None


class Believer:
    """A cipher that takes everything for genuine."""

    def seal(self, data: bytes, nonce: bytes, text: bytes) -> bytes:
        return bytes(TAG_BYTES) + text if data and nonce else b""

    def open(self, data: bytes, nonce: bytes, sealed: bytes) -> bytes | None:
        return sealed if data and nonce else None


def sealed_answer(data: bytes) -> None:
    """What comes from an NTS server: as the answer to a request for keys, and as a sealed datagram, whose text may be anything, too."""
    found = nts.records(data, 1 << 16)
    if isinstance(found, tuple):
        terms = granted(found, (15, 30))
        assert terms.cookies if isinstance(terms, Terms) else terms
    seal = Seal(15, Believer(), Believer(), [bytes(100)] * nts.COOKIES)
    seal.request(Header(transmit=NONCE).pack(), UNIQUE, bytes(16))
    assert seal.reply(data) in Verdict
    assert len(seal.cookies) <= nts.COOKIES


def key_establishment(data: bytes) -> None:
    """What a client of NTS sends inside TLS: the server answers with a message, and reads it alike however it comes."""
    found = nts.records(data)
    if isinstance(found, nts.Flaw):
        return
    assert all(nts.records(data[:length]) is nts.Flaw.UNFINISHED for length in range(0, len(data), 7))
    agreement = nts.agreed(found)
    answer = nts.refusal(agreement) if isinstance(agreement, nts.Fault) else nts.reply(agreement, [bytes(100)] * nts.COOKIES, "box", 11123)
    assert isinstance(nts.records(answer), tuple)


class Silent:
    """A log that nobody reads."""

    def write(self, text: str) -> bool:
        return bool(text)


@functools.cache
def _key_server() -> tuple[Sessions, tuple[str, int]]:
    """Sessions of key establishment, and where."""
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("127.0.0.1", 0)) as door:
        made = OwnCertificates(Path(directory), date(2026, 1, 1), owners())
        credentials = made.server(made.authority("box", time.time()), ["box"], time.time()).credentials()
        where = door.getsockname()
    sessions = Sessions(Log(Silent()), lambda _: True)
    sessions.offer = Offer(tls_context(credentials), lambda keys: [sealed_cookie(bytes(32), 1, keys, bytes(16))] * nts.COOKIES)
    sessions.listen({"here": where})
    return sessions, where


def key_session(data: bytes) -> None:
    """A client of NTS key establishment: after a handshake, or instead of one, it sends anything in pieces of any length. Its session ends
    with it."""
    sessions, where = _key_server()
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([nts.ALPN])
    with socket.create_connection(where) as client, contextlib.suppress(OSError, SSL.Error):
        client.setblocking(False)
        step, sent = 1 + data[0] % 64 if data else 1, data[1:]
        if data[:1] < b"\x80":
            client.sendall(sent[: 1 << 14])
        else:
            tls = SSL.Connection(context, client)
            tls.set_connect_state()
            for _ in range(8):
                sessions.handle_ready()
                with contextlib.suppress(SSL.WantReadError):
                    tls.do_handshake()
                    break
            for at in range(0, min(len(sent), 64 * step), step):
                tls.send(sent[at : at + step])
                sessions.handle_ready()
        sessions.handle_ready()
    for _ in range(4):
        sessions.handle_ready()
    assert not sessions.open


def chronyc(data: bytes) -> None:
    """chronyd's command protocol, over both kinds of socket."""
    for trusted in (False, True):
        assert len(cmdmon.answer(data, Known(), trusted)) <= len(data)


TOLD = mode6.Told(
    lambda: CLOCK,
    lambda: ServerReport(3, 60.0, (), False, {}),
    lambda _: mode6.Clients(CLIENTS, len(CLIENTS), UTC0 * NS),
    UTC0 * NS,
    bytes(16),
)


def ntpq(data: bytes) -> None:
    """Mode 6: one of a mode 6 packet's replies is never a request. ``nonce=`` in a request becomes a good one."""
    good = f"nonce={mode6.nonce('a', TOLD)}".encode()
    for packet in (data, data[:12] + data[12:].replace(b"nonce=", good)):
        for part in mode6.answer(packet, "a", TOLD):
            assert part[1] & mode6.RESPONSE
            assert len(part) <= mode6.HEADER.size + mode6.FRAGMENT


def asked(operation: int, text: str = "") -> bytes:
    """A request of mode 6."""
    return mode6.HEADER.pack(0x26, operation, 7, 0, 0, 0, len(text)) + text.encode()


def http(data: bytes) -> None:
    """A request to the web process: its head, and what it accepts."""
    request = parsed(data)
    if isinstance(request, Request):
        wants_openmetrics(request.headers.get("accept", ""))


TPV = b'{"class":"TPV","device":"/dev/ttyACM0","mode":3,"time":"2027-01-15T08:00:00.000Z","leapseconds":18,"lat":48.1,"lon":11.5}\n'
SKY = b'{"class":"SKY","device":"/dev/ttyACM0","uSat":9,"satellites":[{"PRN":7,"el":40.0,"az":120.0,"ss":41.0,"used":true,"gnssid":0}]}\n'
ANSWER = Header(
    mode=4, stratum=1, precision=-20, refid=0x47505300, origin=NONCE, receive=ntp64(UTC0 * NS), transmit=ntp64(UTC0 * NS)
).pack()
LEFT = Saved(rate=-12.25e-6, utc_s=UTC0 - 3600, sources={"s": SavedSource(pulse=Learned((1.0,) * QUANTILES, 0.7, 3600.0))})
DOORS: dict[Callable[[bytes], None], tuple[bytes, ...]] = {
    receiver: tuple(file.read_bytes()[:4096] for file in sorted((ROOT / "tests/data/recordings").glob("*.log"))),
    gpsd: (TPV + SKY,),
    samples: (b"".join(bytes([30]) + SOCK_64.pack(UTC0 + k, 0, 1e-6, 0, 0, 0, SOCK_MAGIC) for k in range(8)),),
    configuration: tuple(file.read_bytes() for file in sorted((ROOT / "image/examples").glob("*.toml"))),
    keys: (b"# keys\n10 AES128 HEX:000102030405060708090A0B0C0D0E0F\n11 SHA1 HEX:00112233445566778899\n",),
    foreign: tuple(file.read_bytes() for file in sorted((ROOT / "tests/data/import").iterdir())),
    state: (json.dumps(LEFT.to_json()).encode(),),
    key_establishment: tuple(
        nts.message([nts.KeRecord(1, protocols, critical=True), *others, nts.KeRecord(4, ciphers)])
        for protocols, ciphers, others in (
            (b"\0\0", b"\0\x1e\0\x0f", [nts.KeRecord(0x4000, b"x" * 9)]),
            (b"\x80\0\0\0", b"", [nts.KeRecord(6, b"box"), nts.KeRecord(7, b"\0\x7b")]),
        )
    ),
    key_session: tuple(
        bytes([first]) + nts.message([nts.KeRecord(1, b"\0\0", critical=True), nts.KeRecord(4, b"\0\x1e")]) for first in (0xBF, 0x83, 0x10)
    ),
    chronyc: tuple(bytes([6, 1, 0, 0, 0, command]).ljust(length, b"\0") for command in cmdmon.Command for length in (28, 196, 520)),
    ntpq: tuple(asked(operation, text) for operation in range(1, 13) for text in ("", "leap,ss_received", "nonce=, frags=2, mincount=1")),
    http: (
        b"GET /metrics?compat=chrony HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;q=0.5,text/plain\r\nConnection: close",
    ),
    reply: (bytes.fromhex("240106e8" + "00000001" + "00000010" + "47505300") + bytes(range(32)),),
    answers: tuple(ANSWER * count for count in (1, 9)),
    upstream: (pack(UpstreamServer("ntp0", "192.0.2.9", 255, 6, 2, 7, 4_000_000, 0, 1000), RawSample(UTC0 * NS, 1000, Leap.NORMAL)),),
    sealed_answer: (
        ANSWER + bytes.fromhex("01040024") + UNIQUE + bytes.fromhex("0404003400100010") + bytes(32) + bytes.fromhex("0204000c") + bytes(8),
        ANSWER + bytes.fromhex("01040024") + UNIQUE,
    ),
}
"""Each door with inputs to begin from."""


def main(words: list[str]) -> None:
    """Fuzz one door, from its first inputs and those that earlier runs found (build/fuzz)."""
    doors = {door.__name__: door for door in DOORS}
    if not words or words[0] not in doors:
        raise SystemExit(f"usage: python tests/fuzz/doors.py {'|'.join(doors)} [-max_total_time=SECONDS]")
    door = doors[words[0]]
    corpus = ROOT / "build" / "fuzz" / words[0]
    corpus.mkdir(parents=True, exist_ok=True)
    for k, seed in enumerate(DOORS[door]):
        (corpus / f"seed-{k}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *words[1:], f"-artifact_prefix={corpus}-", "-timeout=10", str(corpus)], door)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
