"""NTS: chronyd as a client establishes keys with ours, and is served the time by them."""

from __future__ import annotations

import re
import signal
import sys
import time
from datetime import date
from pathlib import Path

import pytest
from key_server import CONFIG, KeyServer, established
from nts_packets import NtsClient, exchange
from packet_net import LOOPBACK, Lan, OtherBox, Server, Serving, Sockets, ask, chronyc, chronyd
from peers import REFCLOCK, Processes, wait_for

from ppsd.ntp.nts_keys import PERIOD_S, period_of
from refclock.kernel.clocks import read_clocks
from refclock.kernel.files import owners
from refclock.sample import NS

certificates = pytest.importorskip("ppsd.serve.certificates", reason="NTS needs pyOpenSSL")


def test_chronyd_establishes_keys_and_is_served_by_them(network: Processes, keys: KeyServer) -> None:
    """chronyd knows the box's own authority, gets AEAD 15 and eight cookies of 100 octets, and selects the server; its packets are
    authenticated."""
    client = keys.client("chronyd", 1)
    wait_for("^*", lambda: "^* 127.0.0.1" in chronyc(network, client, "sources"), 30)
    established(network, client)
    assert re.search(r"Authenticated +: Yes", chronyc(network, client, "ntpdata"))
    assert keys.sessions()["served"] == 1
    told = network.run([*REFCLOCK, "nts", *keys.where])
    assert told.returncode == 0, told.stderr
    assert re.search(r"for +time\.example, 127\.0\.0\.1\n", told.stdout), told.stdout
    assert re.search(r"sessions +1 accepted, 1 served", told.stdout), told.stdout


def test_what_clients_are_told_works(network: Processes, keys: KeyServer) -> None:
    """``nts ca`` prints chronyd's lines, which chronyd takes as they are, but for the place of the file; and the file's fingerprint."""
    lines = [line.strip("# ") for line in keys.told.splitlines() if line.startswith("#   ")]
    assert "server 127.0.0.1 iburst nts" in lines
    assert "ntstrustedcerts /etc/chrony/refclock-ca.pem" in lines
    shown = network.run(["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(keys.authority)]).stdout
    assert shown.strip().partition("=")[2] in keys.told


def test_chronyd_refuses_a_server_that_it_does_not_know(network: Processes, keys: KeyServer) -> None:
    """Without the authority's certificate chronyd takes neither keys nor time: nobody in between can pretend to be the box."""
    client = chronyd(network, "stranger", "server 127.0.0.1 nts iburst minpoll -2 maxpoll -2", "bindacqaddress 127.0.1.2")
    wait_for("a session that the client gave up", lambda: keys.sessions()["failed"] >= 1, 30)
    assert "^? 127.0.0.1" in chronyc(network, client, "sources")


def test_a_client_outlives_a_restart_of_both(network: Processes, keys: KeyServer) -> None:
    """Key establishment ends and starts again, with the same authority; the client goes on with its cookies, and a new one gets keys."""
    client = keys.client("first", 1)
    established(network, client)
    chronyc(network, client, "offline")  # each request that is not answered costs it a cookie
    keys.server.signal(signal.SIGTERM)
    keys.process.send_signal(signal.SIGTERM)  # type: ignore[attr-defined]
    wait_for("both have ended", lambda: keys.server.process.poll() is not None and keys.process.poll() is not None, 10)  # type: ignore[attr-defined]
    keys.server.process = keys.server.start()
    keys.process = keys.start()
    keys.server.publish()
    chronyc(network, client, "online")
    wait_for("three replies", lambda: sum(keys.server.counters()["reply"].values()) >= 3, 30)
    assert "^* 127.0.0.1" in chronyc(network, client, "sources")
    assert keys.sessions()["accepted"] == 0
    established(network, keys.client("second", 2))


def test_a_renewed_certificate_is_noticed(network: Processes, keys: KeyServer, tmp_path: Path) -> None:
    """A certificate and key named by path are used after a reload; when their files change they are used without one, and a pair that does
    not fit leaves the old one in force, and is told."""
    made = [certificates.OwnCertificates(tmp_path / name, date(2026, 11, 1), owners()) for name in ("first", "second")]
    pairs = []
    for one in made:
        one.directory.mkdir(mode=0o700)
        pairs.append(one.server(one.authority("box", time.time()), ["127.0.0.1"], time.time()))
    certificate, key = tmp_path / "x.crt", tmp_path / "x.key"

    def put(chain: bytes, secret: bytes) -> None:
        certificate.write_bytes(chain)
        key.write_bytes(secret)
        key.chmod(0o600)

    def log(what: str) -> bool:
        return what in network.output("nts-ke")

    put(pairs[0].pem(), pairs[0].secret_pem())
    named = f'certificate = "{certificate}"\nkey = "{key}"\n'
    keys.server.configure(CONFIG.format(state=tmp_path / "state") + named)
    keys.process.send_signal(signal.SIGHUP)  # type: ignore[attr-defined]
    wait_for("the named one", lambda: (keys.report() or {}).get("own") is False, 20)
    keys.authority.write_bytes(made[0].authority("box", 0).pem())
    first = keys.client("first-ca", 1)
    established(network, first)
    put(pairs[1].pem(), pairs[0].secret_pem())
    wait_for("a pair that does not fit is told", lambda: log("certificate and key do not belong together"), 30)
    assert network.run([*REFCLOCK, "nts", *keys.where]).returncode == 0
    put(pairs[1].pem(), pairs[1].secret_pem())
    wait_for("the new one", lambda: (keys.report() or {}).get("problem") == "", 30)
    keys.authority.write_bytes(made[1].authority("box", 0).pem())
    established(network, keys.client("second-ca", 2))
    established(network, first)  # with the keys that it had


DAY_NS = PERIOD_S * NS
RENEWED = "a new period of NTS cookies"


def test_a_client_follows_to_another_box_of_the_fleet(network: Processes, serve: Serving, lan: Lan, tmp_path: Path) -> None:
    """Two boxes have one secret and one address. A client of the first goes on with its keys while the key of cookies changes three times,
    and, when its packets go to the second box, which has never seen it: without a request lost, and without new keys."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_bytes(bytes(range(32)))
    config = CONFIG.format(state=tmp_path / "state").replace("127.0.0.1:", "0.0.0.0:").replace("127.0.0.1", "10.77.0.1")
    keys = KeyServer(network, serve(f'{config}secret = "{secret}"\n'))
    other = Processes(tmp_path / "other")
    other.directory.mkdir()
    other.network = box = OtherBox(lan.neighbour)
    second = Server(other, f'{config}secret = "{secret}"\n')
    clients = lan.clients
    asked = ("server 10.77.0.1 nts iburst minpoll -2 maxpoll -2", f"ntstrustedcerts {keys.authority}")
    client = chronyd(clients, "chronyd", *asked)

    def served(by: Server, requests: int) -> None:
        before = by.counters()["server"].get("nts", 0)
        wait_for("replies with NTS", lambda: by.counters()["server"].get("nts", 0) >= before + requests, 20)

    try:
        established(clients, client, "10.77.0.1")
        for days in (1, 2, 3):
            now = read_clocks()
            for server in (keys.server, second):
                server.publish(tai_ns=now.real_ns + 37 * NS + days * DAY_NS, raw_ns=now.raw_ns)
                wait_for("the key of the day", lambda server=server, days=days: server.log().count(RENEWED) == days, 10)
            served(keys.server, 6)
        box.take_over()
        served(second, 10)
        established(clients, client, "10.77.0.1")
        assert keys.sessions()["accepted"] == 1
        told = chronyc(clients, client, "ntpdata")
        sent, valid = (int(found[1]) for found in (re.search(rf"Total {what} +: (\d+)", told) for what in ("TX", "valid RX")) if found)
        assert valid >= sent - 1, told
    finally:
        other.close()
        second.close()
        box.close()


HOSTILE = """
import itertools, os, socket, sys, time
begun = {
    "silent": b"",
    "half a record": bytes.fromhex("160301"),
    "a hello that never ends": bytes.fromhex("1603010200010001fc0303"),
    "noise": os.urandom(900),
    "another protocol": b"GET / HTTP/1.1\\r\\n\\r\\n",
    "a long record": bytes.fromhex("1603014000") + bytes(9000),
}
held = []
def come(number, bytes_of):
    s = socket.socket()
    s.bind(("127.0.2.%d" % (number % 250 + 1), 0))
    s.connect(("127.0.0.1", 4460))
    s.sendall(bytes_of)
    held.append(s)
for number, kind in zip(range(1000), itertools.cycle(begun)):
    come(number, begun[kind])
print("held", flush=True)
while True:  # and others, for as long as it takes
    for number, kind in zip(range(250), itertools.cycle(begun)):
        come(number, begun[kind])
        held.pop(0).close()
        time.sleep(0.02)
"""


def test_thousand_slow_and_hostile_clients_leave_time_and_memory_untouched(
    network: Processes, keys: KeyServer, sockets: Sockets, tmp_path: Path
) -> None:
    """While a thousand clients connect, send nothing, little or noise and hold on, and others follow, each request for the time is
    answered, with and without NTS; a new client gets its keys, and the process stays small."""
    network.start("hostile", [sys.executable, "-c", HOSTILE])
    wait_for("a thousand are there", lambda: "held" in network.output("hostile"), 60)
    client, sock = NtsClient((tmp_path / "state" / "nts" / "nts-secret").read_bytes()), sockets.open()
    cookie = client.cookie(period_of(int(time.time())))
    for _ in range(100):
        assert ask(sock, LOOPBACK)[0][1] == 1
        request = client.request(cookie)
        (cookie,) = client.opened(request, exchange(sock, LOOPBACK, request)).cookies
    established(network, keys.client("chronyd", 1))
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{keys.pid}/status").read_text(encoding="ascii"))
    assert peak is not None
    assert int(peak[1]) < 80_000
    report = keys.report()
    assert report is not None
    assert int(str(report["open"])) <= 100
    assert int(str(report["sessions"]["slow"])) + int(str(report["sessions"]["failed"])) > 900  # type: ignore[index]
