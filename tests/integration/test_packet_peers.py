"""The serve process and what comes to it: other people's clients, old and odd packets, networks that change, floods, keys and rules."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import select
import shutil
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import packet_net
import pytest
from packet_net import (
    NO_CLOCK,
    Neighbour,
    Server,
    Sockets,
    ask,
    chronyc,
    chronyd,
    drain,
    ntpsec_programs,
    receive,
    request,
    secret_file,
    send_from,
    served_ns,
    there,
)
from peers import PYTHON, REFCLOCK, Processes, wait_for

from refclock.sample import NS

pytestmark = pytest.mark.peers

SECRETS = {
    "AES128": (1, bytes(range(16))),
    "AES256": (2, bytes(range(32, 64))),
    "SHA256": (3, bytes(range(64, 96))),
    "SHA1": (4, bytes(range(96, 116))),
    "MD5": (5, bytes(range(116, 132))),
}
LOOPBACK = ("127.0.0.1", 123)
OPEN_HOUSE = '[server]\nlisten = ["127.0.0.1:123"]\nthreads = 2\n[limits]\nrate = 0\n'
"""Loopback only, no limit."""

Serving = Callable[[str], Server]


@pytest.fixture
def serve(network: Processes) -> Iterator[Serving]:
    """Starts a server on a loopback of its own."""
    started: list[Server] = []

    def start(config: str) -> Server:
        started.append(Server(network, config))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def sockets(network: Processes) -> Iterator[Sockets]:
    """Sockets on that loopback."""
    assert network.network is not None
    maker = Sockets(network.network)
    yield maker
    maker.close()


class Lan:
    """The server's network, its neighbour's, and sockets of the latter."""

    def __init__(self, network: Processes, directory: Path) -> None:
        assert network.network is not None
        self.here = network.network
        self.neighbour = Neighbour(self.here)
        self.sockets = Sockets(self.neighbour)
        directory.mkdir()
        self.clients = Processes(directory)
        self.clients.network = self.neighbour

    def close(self) -> None:
        self.clients.close()
        self.sockets.close()
        self.neighbour.close()


@pytest.fixture
def lan(network: Processes, tmp_path: Path) -> Iterator[Lan]:
    """A cable from the server's network to another."""
    made = Lan(network, tmp_path / "neighbour")
    yield made
    made.close()


def key_lines(form: str) -> list[str]:
    """The same keys as chrony writes them (chrony.keys(5)) and as ntp does (ntp.keys(5))."""
    names = {"AES128": "AES-128", "AES256": "AES-256"} if form == "ntp" else {}
    prefix = "" if form == "ntp" else "HEX:"
    return [f"{number} {names.get(kind, kind)} {prefix}{secret.hex()}" for kind, (number, secret) in SECRETS.items()]


def keyed(config: str, keys: Path) -> str:
    return f'{config}[keys]\nfile = "{keys}"\nweak = true\n'


# ---- chronyd, ntpd and smaller clients ----------------------------------------------------------------------------------------------


def test_chronyd_with_every_kind_of_key(network: Processes, serve: Serving) -> None:
    """chronyd selects the server, authenticated, with AES128, AES256, SHA256, SHA1 and MD5 keys from a file in chrony's format that both
    read; one whose key has another secret never takes a single reply."""
    keys = secret_file(network.directory / "keys", key_lines("chrony"))
    wrong = secret_file(network.directory / "wrong.keys", [f"1 AES128 HEX:{bytes(16).hex()}"])
    server = serve(keyed(OPEN_HOUSE, keys))
    started = {}
    for number, kind in enumerate([*SECRETS, "wrong"], 1):
        key = SECRETS[kind][0] if kind in SECRETS else 1
        lines = [f"server 127.0.0.1 key {key} iburst minpoll -2 maxpoll -2", f"bindacqaddress 127.0.1.{number}"]
        started[kind] = chronyd(network, kind, *lines, f"keyfile {wrong if kind == 'wrong' else keys}")
    for kind, (number, _) in SECRETS.items():
        wait_for(f"^* with {kind}", lambda kind=kind: "^* 127.0.0.1" in chronyc(network, started[kind], "sources"), 30)
        authdata, ntpdata = chronyc(network, started[kind], "authdata"), chronyc(network, started[kind], "ntpdata")
        assert re.search(rf"127\.0\.0\.1 +SK +{number} ", authdata), authdata
        assert re.search(r"Authenticated +: Yes", ntpdata), ntpdata
        assert re.search(r"Reference ID +: 47505300 \(GPS\)", ntpdata), ntpdata
    wait_for("ten tries with the wrong key", lambda: server.counters()["nak"].get("wrong_mac", 0) >= 10, 20)
    ntpdata = chronyc(network, started["wrong"], "ntpdata")
    assert re.search(r"Total valid RX +: 0\b", ntpdata), ntpdata
    assert "^? 127.0.0.1" in chronyc(network, started["wrong"], "sources")
    clients = server.clients()
    assert [clients[f"127.0.1.{n}"]["authenticated"] for n in range(1, 7)] == [True] * 5 + [False]


def test_chronyd_interleaved(network: Processes, serve: Serving) -> None:
    """chronyd's xleave works: it reports interleaved replies, sent on kernel stamps; the server counts them, has stamped departures, and
    ``clients --json`` says interleaved; the time is within the two programs' stated errors."""
    server = serve(OPEN_HOUSE)
    directory = chronyd(network, "chronyd", "server 127.0.0.1 xleave iburst minpoll -2 maxpoll -2", "bindacqaddress 127.0.1.1")
    wait_for("^*", lambda: "^* 127.0.0.1" in chronyc(network, directory, "sources"), 30)

    def interleaved() -> str:
        told = chronyc(network, directory, "ntpdata")
        return told if re.search(r"Interleaved +: Yes", told) else ""

    told = wait_for("Interleaved: Yes", interleaved, 15)
    assert re.search(r"TX timestamping +: Kernel", told), told
    assert re.search(r"RX timestamping +: Kernel", told), told
    offset = re.search(r"^Offset +: ([-+0-9.]+) seconds", told, re.MULTILINE)
    assert offset is not None, told
    assert abs(float(offset[1])) < 0.001, told
    assert server.clients()["127.0.1.1"]["interleaved"]
    counters = server.counters()
    assert counters["reply"]["interleaved"] > 0
    assert counters["server"]["departures"] > 0


def test_ntpd_of_ntpsec_with_keys(network: Processes, serve: Serving, lan: Lan) -> None:
    """ntpsec's ntpd, without privilege to set a clock, has reach, our refid and stratum, authenticated, with an AES-128 and with a SHA1 key
    from a file in ntp's format that both read."""
    programs = ntpsec_programs()
    if programs is None:
        pytest.skip("no ntpd of ntpsec, and it could not be downloaded")
    ntpd, ntpq = programs
    keys = secret_file(network.directory / "keys", key_lines("ntp"))
    server = serve(keyed('[server]\nlisten = ["0.0.0.0:123"]\n', keys))
    status = lan.clients.run([*NO_CLOCK, "cat", "/proc/self/status"]).stdout
    assert not int(status.split("CapEff:")[1].split()[0], 16) >> 25 & 1, "CAP_SYS_TIME (linux/capability.h) is still there"
    directory = lan.clients.directory
    config = directory / "ntp.conf"
    config.write_text(
        "server 10.77.0.1 minpoll 3 maxpoll 3 iburst key 1\nserver 10.77.0.2 minpoll 3 maxpoll 3 iburst key 4\n"
        f"keys {keys}\ntrustedkey 1 4\ndisable ntp\n"
        "restrict default noquery\nrestrict 127.0.0.1\n",
        encoding="utf-8",
    )
    lan.clients.start(
        "ntpd", [*NO_CLOCK, ntpd, "-n", "-N", "-c", str(config), "-f", str(directory / "drift"), "-p", str(directory / "pid")]
    )

    def reached() -> str:
        told = lan.clients.run([ntpq, "-pn", "127.0.0.1"]).stdout
        return told if len(re.findall(r"10\.77\.0\.[12] +\.GPS\. +1 .* [1-9][0-9]* ", told)) == 2 else ""

    wait_for("reach on both", reached, 30)
    told = lan.clients.run([ntpq, "-c", "associations", "127.0.0.1"]).stdout
    assert len(re.findall(r"yes +yes +ok", told)) == 2, told
    assert server.clients()["10.77.0.9"]["authenticated"]
    assert "nak" not in server.counters() or not server.counters()["nak"]


def test_small_clients(network: Processes, serve: Serving) -> None:
    """ntpdig, ntpdig with an AES key, ntpdate -q, and sntp where there is one, are content with it."""
    keys = secret_file(network.directory / "keys", key_lines("ntp"))
    server = serve(keyed(OPEN_HOUSE, keys))
    commands = {"ntpdig": ["ntpdig", "127.0.0.1"], "ntpdig with a key": ["ntpdig", "-a", "1", "-k", str(keys), "127.0.0.1"]}
    commands["ntpdate"] = ["ntpdate", "-q", "127.0.0.1"]
    if shutil.which("sntp"):
        commands["sntp"] = ["sntp", "127.0.0.1"]
    for name, words in commands.items():
        before = sum(server.counters()["reply"].values())
        done = network.run([*NO_CLOCK, *words])
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        assert re.search(r"s1 |stratum 1", done.stdout + done.stderr), f"{name}: {done.stdout}{done.stderr}"
        assert sum(server.counters()["reply"].values()) > before, name
    assert not server.counters()["nak"]


# ---- packets ------------------------------------------------------------------------------------------------------------------------


def test_old_and_odd_requests(serve: Serving, sockets: Sockets) -> None:
    """Requests as systemd-timesyncd, busybox and Windows send them, of versions 1 to 4 and with leap bits set, get 48 octets of their own
    version in mode 4; with the trailer of a domain's computer a crypto-NAK; version 1 without a mode is answered except to port 123."""
    server = serve(OPEN_HOUSE)
    client, port_123 = sockets.open("127.0.0.5"), sockets.open("127.0.0.5", 123, timeout=0.5)
    for first in (0x23, 0xE3, 0x1B, 0xDB, 0x13, 0x0B, 0xCB, 0x08):
        reply, _ = ask(client, LOOPBACK, request(first))
        assert (len(reply), reply[0], reply[1], reply[12:16]) == (48, first & 0x38 | 4, 1, b"GPS\0"), hex(first)
    for first in (0x1B, 0xDB):
        reply, _ = ask(client, LOOPBACK, request(first, more=struct.pack("<I", 1105) + bytes(16)))
        assert (len(reply), reply[0], reply[48:]) == (52, first & 0x38 | 4, bytes(4)), hex(first)
    assert ask(port_123, LOOPBACK)[0][1] == 1, "a client on port 123 is answered"
    with pytest.raises(TimeoutError):
        ask(port_123, LOOPBACK, request(0x08))
    counters = server.counters()
    assert counters["reply"] == {"basic": 9}
    assert counters["nak"] == {"unknown_key": 2}
    assert counters["drop"] == {"mode_reserved": 1}


def test_silence(serve: Serving, sockets: Sockets) -> None:
    """Versions 0, 5, 6 and 7, modes 0, 1, 2, 4, 5, 6 and 7, and what is too short, too long or malformed get no answer at all, each under
    its own reason; a whole request between them is answered."""
    server = serve(OPEN_HOUSE)
    client = sockets.open("127.0.0.5")
    wanted: dict[str, int] = {}
    modes = ("reserved", "symmetric", "symmetric", "", "server", "broadcast", "control", "private")
    quiet = [(request(version << 3 | 3), "version") for version in (0, 5, 6, 7)]
    quiet += [(request(version << 3 | mode), f"mode_{modes[mode]}") for version in (2, 3, 4) for mode in range(8) if mode != 3]
    quiet += [(b"", "short"), (request()[:47], "short"), (request(more=bytes(2001)), "long"), (request(more=bytes(12)), "mac_malformed")]
    quiet += [(request(more=b"\x01\x04\x00\x05" + bytes(60)), "extension_malformed")]
    for data, reason in quiet:
        client.sendto(data, LOOPBACK)
        wanted[reason] = wanted.get(reason, 0) + 1
        cookie = os.urandom(8)
        client.sendto(request(cookie=cookie), LOOPBACK)
        assert client.recv(2048)[24:32] == cookie, reason
    assert not drain(client, 0.2)
    assert server.counters()["drop"] == wanted
    assert server.counters()["reply"] == {"basic": len(quiet)}


# ---- networks -----------------------------------------------------------------------------------------------------------------------


def test_answers_come_from_the_address_asked(serve: Serving, lan: Lan) -> None:
    """On wildcard sockets, with several addresses on the interface and a slow cable (where the kernel has netem), IPv4, IPv6 and
    link-local requests are answered from the address asked."""
    serve('[server]\nlisten = ["0.0.0.0:123", "[::]:123"]\n')
    slow = lan.neighbour.delay(20)
    four, six = lan.sockets.open(), lan.sockets.open("::")
    for _ in range(2):
        for host in ("10.77.0.1", "10.77.0.2"):
            began = time.monotonic()
            reply, source = ask(four, (host, 123))
            assert (reply[1], source) == (1, host)
            assert not slow or time.monotonic() - began >= 0.04
        for host in ("fd77::1", "fd77::2"):
            reply, source = ask(six, (host, 123))
            assert (reply[1], source) == (1, host)
    local = re.search(r"fe80::[0-9a-f:]+", there(lan.here, "ip -6 address show dev s0 scope link"))
    scope = int(there(lan.neighbour, "ip -o link show c0").split(":")[0])
    assert local is not None

    def answered() -> bool:  # not before duplicate address detection is over on both sides
        try:
            return ask(six, (local[0], 123, 0, scope))[1].split("%")[0] == local[0]
        except OSError:
            return False

    six.settimeout(0.5)
    wait_for("an answer from the link-local address", answered, 10)


def test_addresses_and_links_change_while_serving(serve: Serving, lan: Lan) -> None:
    """An address goes, even between a request and its reply, another comes, the link goes down and up: requests to what is there are
    answered, by the same process."""
    server = serve('[server]\nlisten = ["0.0.0.0:123", "[::]:123"]\n')
    four, six = lan.sockets.open(), lan.sockets.open("::")
    assert ask(four, ("10.77.0.2", 123))[1] == "10.77.0.2"
    assert ask(six, ("fd77::2", 123))[1] == "fd77::2"
    server.pause()
    four.sendto(request(), ("10.77.0.2", 123))
    six.sendto(request(), ("fd77::2", 123))
    time.sleep(0.2)
    there(lan.here, "ip address del 10.77.0.2/24 dev s0")
    there(lan.here, "ip address del fd77::2/64 dev s0")
    there(lan.here, "ip address add 10.77.0.3/24 dev s0")
    there(lan.here, "ip address add fd77::3/64 dev s0 nodad")
    server.signal(signal.SIGCONT)
    for host in ("10.77.0.1", "10.77.0.3"):
        assert ask(four, (host, 123))[1] == host
    for host in ("fd77::1", "fd77::3"):
        assert ask(six, (host, 123))[1] == host
    assert server.counters()["drop"] == {"send_failed": 2}, server.counters()
    there(lan.here, "ip link set s0 down")
    with pytest.raises(OSError):
        four.settimeout(0.5)
        ask(four, ("10.77.0.1", 123))
    there(lan.here, "ip link set s0 up")
    there(lan.here, "ip address add fd77::4/64 dev s0 nodad")  # those of IPv6 went with the link

    def answered(sock: socket.socket, host: str) -> bool:
        try:
            return ask(sock, (host, 123))[1] == host
        except OSError:  # no carrier yet
            return False

    six.settimeout(0.5)
    wait_for("IPv4 again", lambda: answered(four, "10.77.0.1"), 10)
    wait_for("IPv6 again", lambda: answered(six, "fd77::4"), 10)
    assert server.process.poll() is None
    assert "error" not in server.log().lower()


# ---- rules --------------------------------------------------------------------------------------------------------------------------


def ask_many(sock: socket.socket, sources: list[str], seconds: float, every: float) -> list[bytes]:
    """Requests from these addresses in turn for so long; the replies."""
    until, turn = time.monotonic() + seconds, itertools.cycle(sources)
    found = []
    while time.monotonic() < until:
        send_from(sock, next(turn), LOOPBACK, request())
        found += [data for data, _ in drain(sock, every)]
    return found


def test_public_sources_are_denied_unless_let_in(network: Processes, serve: Serving, sockets: Sockets) -> None:
    """By default a public address gets KoD DENY and nothing else, no more than kod_rate a second in all however many ask and whatever the
    threads; silence with denied = "silence"; the time once it is let in. ``access test`` tells which and exits accordingly."""
    assert network.network is not None
    there(network.network, "ip address add 198.51.100.1/24 dev lo")
    base = '[server]\nlisten = ["127.0.0.1:123"]\nthreads = 4\n[limits]\nkod_rate = 0.5\n'
    server = serve(base)
    sock = sockets.open()
    sources = [f"198.51.100.{n}" for n in range(2, 200)]
    replies = ask_many(sock, sources, 4.0, 0.005)
    assert replies
    assert {(len(data), data[0] >> 6, data[1], data[12:16]) for data in replies} == {(48, 3, 0, b"DENY")}
    assert len(replies) <= 0.5 * 4 + 4, "kod_rate, and one at once for each thread"
    assert ask(sockets.open("127.0.0.5"), LOOPBACK)[0][1] == 1

    def tested() -> tuple[int, str]:
        done = network.run([*REFCLOCK, "access", "test", "198.51.100.7", "--config", str(server.file), "--run-dir", str(server.run_dir)])
        return done.returncode, done.stdout

    assert tested()[0] == 1
    assert "is denied" in tested()[1]
    renewed = "rules, limits and keys renewed"
    server.reload(base + '[access]\ndenied = "silence"\n', renewed)
    assert not ask_many(sock, sources, 0.5, 0.005)
    server.reload(base + '[access]\nallow = ["198.51.100.0/24"]\nignore = ["198.51.100.8"]\n', renewed)
    assert ask(sockets.open("198.51.100.7"), LOOPBACK)[0][1] == 1
    assert tested()[0] == 0
    assert "198.51.100.0/24 in access.allow - the running server" in tested()[1]
    with pytest.raises(TimeoutError):
        ask(sockets.open("198.51.100.8", timeout=0.3), LOOPBACK)
    counters = server.counters()
    assert counters["drop"]["ignored"] == 1
    assert counters["kod"] == {"denied": len(replies)}


def test_reload_loses_no_request(network: Processes, serve: Serving, sockets: Sockets) -> None:
    """SIGHUP with other rules and keys, ten times in five seconds, under a client that asks 200 times a second: every request answered."""
    keys = secret_file(network.directory / "keys", key_lines("chrony"))
    server = serve(OPEN_HOUSE)
    sock = sockets.open("127.0.0.5")
    began, sent, hups, answered = time.monotonic(), set[bytes](), 0, set[bytes]()
    while (gone := time.monotonic() - began) < 5.0:
        if gone * 200 >= len(sent):
            sent.add(cookie := os.urandom(8))
            sock.sendto(request(cookie=cookie), LOOPBACK)
        if gone >= 0.25 + 0.5 * hups:
            config = OPEN_HOUSE + f'[access]\ndeny = ["10.{hups}.0.0/16"]\n'
            server.configure(keyed(config, keys) if hups % 2 else config)
            server.signal(signal.SIGHUP)
            hups += 1
        if select.select([sock], [], [], 0.002)[0]:
            answered.add(sock.recv(2048)[24:32])
    answered |= {data[24:32] for data, _ in drain(sock, 0.5)}
    assert len(sent) > 900
    assert answered == sent
    assert server.log().count("rules, limits and keys renewed") == hups == 10
    assert "deny" not in server.counters()["drop"]


def test_bad_reloads_change_nothing(network: Processes, serve: Serving, sockets: Sockets) -> None:
    """SIGHUP with a bad file or a bad key file: the log says what is wrong and where, the old rules and keys stay in force; likewise a key
    file that everybody may read, with the command that mends it. No secret gets into the log."""
    assert network.network is not None
    keys = secret_file(network.directory / "keys", ["1 SHA256 HEX:" + bytes(20).hex()])
    good = keyed(OPEN_HOUSE, keys) + '[access]\nignore = ["127.0.0.6"]\n'
    server = serve(good)

    def unchanged() -> None:
        data = request()
        code = hashlib.sha256(bytes(20) + data).digest()[:20]
        reply, _ = ask(sockets.open("127.0.0.5"), LOOPBACK, data + struct.pack(">I", 1) + code)
        assert reply[48:] == struct.pack(">I", 1) + hashlib.sha256(bytes(20) + reply[:48]).digest()[:20]
        with pytest.raises(TimeoutError):
            ask(sockets.open("127.0.0.6", timeout=0.3), LOOPBACK)

    unchanged()
    refused = "configuration refused"
    server.reload(good.replace("127.0.0.6", "127.0.0.6/8"), refused)
    assert "access.ignore" in server.log()
    unchanged()
    server.reload("[server\n", refused)
    unchanged()
    secret_file(keys, ["1 SHA256 HEX:" + bytes(20).hex(), "2 AES128 HEX:0123456789abcdef"])
    server.reload(good, refused)
    assert f"{keys}:2" in server.log()
    unchanged()
    secret_file(keys, ["1 SHA256 HEX:" + bytes(range(20)).hex()])
    keys.chmod(0o644)
    server.reload(good, f"chmod 640 {keys}")
    unchanged()
    elsewhere = good.replace("127.0.0.1:123", "203.0.113.1:123").replace(str(keys), "").replace("weak = true", "")
    server.reload(elsewhere, refused)  # the sockets were given up for an address that is not ours, and the old keys are needed again
    assert server.log().count(refused) == 5
    unchanged()
    assert "0123456789abcdef" not in server.log()
    assert bytes(20).hex() not in server.log()


def test_a_key_file_for_everybody_is_refused(network: Processes) -> None:
    """A server whose key file everybody may read does not start: exit 78 and the chmod to run; after that it starts."""
    keys = secret_file(network.directory / "keys", key_lines("chrony"))
    keys.chmod(0o644)
    config = network.directory / "refclock.toml"
    config.write_text(keyed(OPEN_HOUSE, keys), encoding="utf-8")
    words = [*REFCLOCK, "serve", "--config", str(config), "--run-dir", str(network.directory / "run")]
    refused = network.run(words)
    assert refused.returncode == 78, refused.stderr
    assert f"chmod 640 {keys}" in refused.stderr
    assert SECRETS["AES128"][1].hex() not in refused.stderr
    keys.chmod(0o640)
    started = network.start("serve", words)
    wait_for("it serves", lambda: "serving" in network.output("serve"), 10)
    started.terminate()
    assert started.wait(5) == 0


# ---- floods -------------------------------------------------------------------------------------------------------------------------


def test_a_flood_does_not_hurt_the_others(network: Processes, serve: Serving, sockets: Sockets) -> None:
    """While one address sends tens of thousands of requests a second, 50 others that ask once a second get every reply; the kernel blocks
    the flooder, who is told so at kod_rate at most, and it is not blocked any more afterwards."""
    seconds = 5.0
    server = serve('[server]\nlisten = ["127.0.0.1:123"]\nthreads = 2\n')
    sock = sockets.open()
    flood = [PYTHON, packet_net.__file__, "flood", "127.9.9.9", "127.0.0.1", "123", "50000", str(seconds)]
    flooder = network.start("flood", flood)
    began, asked, answered, blocked, turn = time.monotonic(), set[bytes](), set[bytes](), 0, 0
    while (gone := time.monotonic() - began) < seconds + 1:
        if gone >= turn * 0.02:
            cookie = os.urandom(8)
            asked.add(cookie)
            send_from(sock, f"127.1.0.{1 + turn % 50}", LOOPBACK, request(cookie=cookie))
            turn += 1
            if turn % 25 == 0:
                blocked = max(blocked, server.counters()["server"]["blocked"])
        if select.select([sock], [], [], 0.005)[0]:
            data = receive(sock)[0]
            assert data[1] == 1
            answered.add(data[24:32])
    answered |= {data[24:32] for data, _ in drain(sock, 0.5)}
    assert flooder.wait(10) == 0
    sent = int(network.output("flood"))
    assert sent > 5000 * seconds, "the flooder is too slow to be one"
    assert len(asked) >= 50 * seconds
    assert answered == asked, f"{len(asked - answered)} of {len(asked)} lost"
    counters = server.counters()
    assert blocked == 1
    assert 0 < counters["kod"]["rate"] <= 4 * (seconds + 1) + 4
    assert counters["server"]["kernel_drops"] > sent // 2, "most of it never reached the process"
    wait_for("unblocked", lambda: server.counters()["server"]["blocked"] == 0, 5)
    flooding = sockets.open("127.9.9.9")
    time.sleep(0.5)
    assert ask(flooding, LOOPBACK)[0][1] == 1
    assert server.taken() == sent + len(asked) + 1


def test_two_thousand_at_once(serve: Serving, sockets: Sockets) -> None:
    """2000 requests of 2000 addresses that are all there before the server looks: 2000 answers."""
    server = serve('[server]\nlisten = ["127.0.0.1:123"]\nthreads = 2\n')
    sources = [f"127.2.{n // 250}.{1 + n % 250}" for n in range(2000)]
    sock = sockets.open()
    server.pause()
    for source in sources:
        send_from(sock, source, LOOPBACK, request())
    server.signal(signal.SIGCONT)
    found = drain(sock, 1.0)
    room = server.counters()["server"]["receive_buffer"]
    if len(found) < 2000 and room < 4 << 20:
        pytest.skip(f"a receive buffer of {room} bytes is all that this user may have (net.core.rmem_max)")
    assert sorted(to for _, to in found) == sorted(sources)
    assert {(len(data), data[1]) for data, _ in found} == {(48, 1)}
    assert server.known() == 2000


def test_garbage(network: Processes, serve: Serving, sockets: Sockets) -> None:
    """100,000 random packets and 100,000 mutated requests from everywhere: the server serves on, every packet is in one counter or among
    the kernel's drops, no answer is longer than the longest code allows, and memory has not grown by more than the table."""
    keys = secret_file(network.directory / "keys", key_lines("chrony"))
    config = '[server]\nlisten = ["127.0.0.1:123"]\nthreads = 2\nclient_table_mib = 1\nsymmetric = true\n'
    server = serve(keyed(config, keys))
    sock, asker = sockets.open(), sockets.open("127.0.0.5")
    assert ask(asker, LOOPBACK)[0][1] == 1
    before, dice, longest = server.rss(), random.Random(1), 0
    noise = dice.randbytes(1 << 16)
    wholes = [request(first, bytes(8), more) for first in (0x23, 0x1B, 0x21, 0x08) for more in (b"", struct.pack(">I", 1) + bytes(16))]
    wholes += [request(more=b"\x01\x04\x00\x20" + bytes(28) + struct.pack(">I", 3) + bytes(20))]
    for turn in range(200_000):
        if turn % 2:
            at = dice.randrange(1 << 15)
            data = noise[at : at + dice.choice((0, 1, 47, 48, 52, 68, 72, 100, 500, 2048, 2049, 3000))]
        else:
            whole = bytearray(dice.choice(wholes))
            for _ in range(dice.randrange(4)):
                whole[dice.randrange(len(whole))] = dice.randrange(256)
            data = bytes(whole)
        send_from(sock, f"127.{dice.randrange(3, 250)}.{dice.randrange(256)}.{dice.randrange(1, 255)}", LOOPBACK, data)
        if turn % 500 == 0:
            longest = max([longest, *(len(data) for data, _ in drain(sock, 0))])
    longest = max([longest, *(len(data) for data, _ in drain(sock, 0.5))])
    assert 48 <= longest <= 84
    wait_for("every packet is accounted for", lambda: server.taken() == 200_001, 10)
    assert ask(asker, LOOPBACK)[0][1] == 1
    assert server.rss() - before < (1 + 2) << 20
    assert server.process.poll() is None


# ---- broadcast, smear ---------------------------------------------------------------------------------------------------------------


def test_broadcast(network: Processes, serve: Serving, lan: Lan) -> None:
    """With server.broadcast, packets in mode 5 with the poll and a valid MAC of that key arrive at the broadcast address every
    2**broadcast_poll s from port 123; without it none do; without a key it is refused."""
    there(lan.here, "ip address add 10.78.0.1/24 broadcast 10.78.0.255 dev s0")
    there(lan.neighbour, "ip address add 10.78.0.9/24 broadcast 10.78.0.255 dev c0")
    keys = secret_file(network.directory / "keys", key_lines("chrony"))
    plain = f'[server]\nlisten = ["0.0.0.0:123"]\n{{}}[keys]\nfile = "{keys}"\nweak = true\n'
    server = serve(plain.format(""))
    sock = lan.sockets.open("0.0.0.0", 123)
    assert not drain(sock, 1.0), "off by default"
    on = 'broadcast = ["10.78.0.255:123"]\nbroadcast_poll = 3\n'
    server.reload(plain.format(on), "configuration refused")
    assert "broadcast_key" in server.log()
    began = time.monotonic()
    server.reload(plain.format(on + "broadcast_key = 3\n"), "rules, limits and keys renewed")
    sock.settimeout(12)
    packets = [receive(sock), receive(sock)]
    assert 7 < time.monotonic() - began < 11
    for data, to, source in packets:
        assert (to, source) == ("10.78.0.255", ("10.78.0.1", 123))
        assert (data[0], data[1], data[2], data[12:16]) == (4 << 3 | 5, 1, 3, b"GPS\0")
        assert data[48:] == struct.pack(">I", 3) + hashlib.sha256(SECRETS["SHA256"][1] + data[:48]).digest()[:20]
    sent = (int.from_bytes(data[40:48], "big") / 2**32 - packet_net.ERA_S for data, _, _ in packets)
    assert abs(time.time() - list(sent)[1]) < 1


@pytest.mark.parametrize(("step", "hours"), [(1, 3), (1, -3), (-1, 3), (-1, -3)])
def test_leap_smear(serve: Serving, sockets: Sockets, step: int, hours: int) -> None:
    """With leap_smear and a leap second in three hours, or three hours ago, no leap is announced and the time served is off UTC by what a
    linear smear from noon to noon UTC demands; without it leap is announced and the time is UTC."""
    server = serve(OPEN_HOUSE)
    sock = sockets.open("127.0.0.5")

    def shift() -> tuple[float, int]:
        """(served minus UTC before the leap second in s, leap bits)"""
        before = time.time_ns()
        reply, _ = ask(sock, LOOPBACK)
        after = time.time_ns()
        assert after - before < 0.1 * NS
        return (served_ns(reply) - (before + after) // 2) / NS, reply[0] >> 6

    now_tai = time.time_ns() + 37 * NS
    server.publish(leap_tai_ns=now_tai + hours * 3600 * NS, leap_step_s=step)
    plain, leap = shift()
    assert abs(plain - (0 if hours > 0 else -step)) < 0.05
    assert leap == ((1 if step > 0 else 2) if hours > 0 else 0)
    server.reload(OPEN_HOUSE.replace("threads", "leap_smear = true\nthreads"), "rules, limits and keys renewed")
    smeared, leap = shift()
    length = 86400 + step
    gone = 43200 + min(step, 0) - hours * 3600  # SI seconds since noon; the 12 h before a deleted second are one shorter
    assert abs(smeared - (gone * 86400 / length - gone)) < 0.05
    assert leap == 0
