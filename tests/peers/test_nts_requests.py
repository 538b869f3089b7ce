"""The serve process with NTS: its secret, its keys from day to day, reloads, and what people are told of it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

from nts_packets import NtsClient, exchange
from packet_net import LOOPBACK, OPEN_HOUSE, Server, Serving, Sockets, ask, chronyc, chronyd
from peers import REFCLOCK, Processes, wait_for

from ppsd.ntp.nts_keys import PERIOD_S, period_of
from refclock.kernel.clocks import read_clocks
from refclock.sample import NS

RENEWED = "rules, limits and keys renewed"


def with_nts(directory: Path, secret: bytes, name: str = "secret") -> str:
    """A configuration whose NTS secret is in a file."""
    path = directory / name
    path.touch(mode=0o600)
    path.write_bytes(secret)
    return f'{OPEN_HOUSE}[nts]\nenabled = true\nsecret = "{path}"\n'


def start_again(server: Server) -> None:
    server.process.terminate()
    assert server.process.wait(10) == 0
    server.process = server.start()


def today() -> int:
    return period_of(int(time.time()))


def test_two_servers_with_one_secret_take_each_others_cookies(network: Processes, serve: Serving, sockets: Sockets, tmp_path: Path) -> None:
    """A cookie that the secret makes anywhere is good here, and the client is told the time and a new cookie. ``refclock clients`` names
    it, the counters count it, and an access rule that demands authentication is satisfied by it."""
    secret = os.urandom(32)
    server = serve(with_nts(tmp_path, secret) + '[access]\nauthenticated = ["127.0.0.0/8"]\n')
    client, sock = NtsClient(secret), sockets.open()
    cookie = client.cookie(today())
    for placeholders in (0, 7):
        request = client.request(cookie, placeholders)
        reply = client.opened(request, exchange(sock, LOOPBACK, request))
        assert (reply.packet[0] >> 6, reply.packet[1], len(reply.cookies)) == (0, 1, 1 + placeholders)
        cookie = reply.cookies[-1]
    assert server.counters()["server"]["nts"] == 2
    assert server.clients()["127.0.0.1"]["nts"]
    listed = network.run([*REFCLOCK, "clients", "-v", "--run-dir", str(server.run_dir)])
    assert "nts" in listed.stdout


def test_cookies_outlive_days_and_a_restart(serve: Serving, sockets: Sockets, tmp_path: Path) -> None:
    """As the served time goes from day to day the cookies are of each day's key, and those of eight days ago are still taken, without a
    reload. A server that is started again takes the cookies that it gave before."""
    secret = os.urandom(32)
    server = serve(with_nts(tmp_path, secret))
    client, sock, first = NtsClient(secret), sockets.open(), today()
    old = client.cookie(first)
    for days in (1, 2, 3, 8):
        now = read_clocks()
        server.publish(tai_ns=now.real_ns + (37 + days * PERIOD_S) * NS, raw_ns=now.raw_ns)

        def of_today(days: int = days) -> bool:
            request = client.request(old)
            (cookie,) = client.opened(request, exchange(sock, LOOPBACK, request)).cookies
            return int.from_bytes(cookie[:4]) == first + days

        wait_for(f"cookies of day {days}", of_today, 10)
    start_again(server)
    assert of_today()
    now = read_clocks()
    server.publish(tai_ns=now.real_ns + (37 + 9 * PERIOD_S) * NS, raw_ns=now.raw_ns)
    wait_for("a NAK", lambda: exchange(sock, LOOPBACK, client.request(old))[12:16] == b"NTSN", 10)


def test_a_reload_turns_nts_on_and_off_and_changes_the_secret(serve: Serving, sockets: Sockets, tmp_path: Path) -> None:
    """SIGHUP takes up another secret; a file that is none is refused and the old one stays. Without NTS its fields mean nothing: plain
    time comes back."""
    first, second = os.urandom(32), os.urandom(32)
    server, sock = serve(OPEN_HOUSE), sockets.open()
    clients = NtsClient(first), NtsClient(second)

    def answers() -> list[bytes]:
        return [exchange(sock, LOOPBACK, client.request(client.cookie(today()))) for client in clients]

    assert [len(reply) for reply in answers()] == [48, 48]
    server.reload(with_nts(tmp_path, first), RENEWED)
    assert [reply[12:16] for reply in answers()] == [b"GPS\0", b"NTSN"]
    server.reload(with_nts(tmp_path, second.hex().encode() + b"\n", "other"), RENEWED)
    assert [reply[12:16] for reply in answers()] == [b"NTSN", b"GPS\0"]
    server.reload(with_nts(tmp_path, b"too short", "bad"), "configuration refused")
    assert "is no NTS secret" in server.log()
    assert [reply[12:16] for reply in answers()] == [b"NTSN", b"GPS\0"]
    server.reload(OPEN_HOUSE, RENEWED)
    assert [len(reply) for reply in answers()] == [48, 48]


def test_a_box_makes_its_own_secret_and_keeps_it(serve: Serving, sockets: Sockets, tmp_path: Path) -> None:
    """Without a shared secret the server makes one in its state directory, for its own eyes only, and takes the same one at the next
    start."""
    server = serve(f'{OPEN_HOUSE}[nts]\nenabled = true\n[run]\nstate = "{tmp_path}/state"\n')
    path, sock = tmp_path / "state/nts/nts-secret", sockets.open()
    secret = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        client = NtsClient(secret)
        request = client.request(client.cookie(today()))
        client.opened(request, exchange(sock, LOOPBACK, request))
        start_again(server)
    assert path.read_bytes() == secret


def test_plain_time_is_served_when_the_secret_cannot_be_read(serve: Serving, sockets: Sockets, tmp_path: Path) -> None:
    """A missing secret ends nothing but NTS: the log says what and why, and clients without NTS get the time."""
    server = serve(f'{OPEN_HOUSE}[nts]\nenabled = true\nsecret = "{tmp_path}/none"\n')
    assert ask(sockets.open(), LOOPBACK)[0][1] == 1
    (line,) = [json.loads(line) if line.startswith("{") else line for line in server.log().splitlines() if "NTS is off" in line]
    assert f"{tmp_path}/none" in str(line)


def test_chronyd_gets_keys_and_then_the_time(network: Processes, serve: Serving, tmp_path: Path) -> None:
    """A real chronyd that trusts this box's own authority establishes keys and is then served with NTS, basic and interleaved, for more
    requests than it got cookies. After the server's secret was exchanged a NAK has it establish keys anew, and time goes on."""
    config = '[nts]\nenabled = true\nlisten = ["127.0.0.1:4460"]\nnames = ["127.0.0.1"]\n'
    config = f'{OPEN_HOUSE}{config}[run]\nstate = "{tmp_path}/state"\nuser = "0"\n'
    server = serve(config)
    where = ["--config", str(server.file), "--run-dir", str(server.run_dir)]
    established = network.start("nts-ke", [*REFCLOCK, "nts-ke", *where])
    authority = tmp_path / "ca.pem"
    wait_for("an authority", lambda: network.run([*REFCLOCK, "nts", "ca", "--out", str(authority), *where]).returncode == 0, 20)
    options = "iburst minpoll -4 maxpoll -4 xleave nts ntsport 4460"
    lines = (f"server 127.0.0.1 port 123 {options}", f"ntstrustedcerts {authority}", f"ntsdumpdir {tmp_path}", "nocerttimecheck 9")
    directory = chronyd(network, "chronyd", *lines)

    def served(more: int) -> bool:
        return server.counters()["server"]["nts"] >= more

    wait_for("twenty replies with NTS", lambda: served(20), 30)
    assert server.counters()["reply"]["interleaved"] > 5
    assert set(server.counters()["kod"]) == set()
    authdata = chronyc(network, directory, "-c", "authdata").split(",")
    assert (authdata[1], authdata[3], int(authdata[8]) >= 7) == ("NTS", "15", True), authdata
    stats = [*REFCLOCK, "serverstats", "--run-dir", str(server.run_dir)]
    wait_for("sessions in serverstats", lambda: re.search(r"NTS-KE connections accepted *: 1\n", network.run(stats).stdout), 30)
    (tmp_path / "state/nts/nts-secret").write_bytes(os.urandom(32))
    for process in (established, server.process):
        process.send_signal(signal.SIGHUP)
    wait_for("a NAK", lambda: server.counters()["kod"].get("nts_nak", 0) > 0, 20)
    so_far = server.counters()["server"]["nts"]
    wait_for("replies with other cookies", lambda: served(so_far + 20), 60)
