"""The serve process and what comes to it: other people's clients, old and odd packets, networks that change."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import time

import pytest
from packet_net import (
    LOOPBACK,
    NO_CLOCK,
    OPEN_HOUSE,
    SECRETS,
    Lan,
    Serving,
    Sockets,
    ask,
    chronyc,
    chronyd,
    drain,
    key_lines,
    keyed,
    ntpsec_programs,
    request,
    secret_file,
    served_ns,
    there,
)
from peers import Processes, wait_for

from refclock.sample import NS

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
    wait_for("ten tries with the wrong key", lambda: server.counters()["drop"].get("wrong_mac", 0) >= 10, 20)
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
    ntpd, ntpq = ntpsec_programs()
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
    assert not server.counters()["drop"]


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
    assert not server.counters()["drop"]


# ---- packets ------------------------------------------------------------------------------------------------------------------------


def test_old_and_odd_requests(serve: Serving, sockets: Sockets) -> None:
    """Requests as systemd-timesyncd, busybox and Windows send them, of versions 1 to 4 and with leap bits set, get 48 octets of their own
    version in mode 4; in mode 1, as Windows without 0x8 and Cisco's ntp peer send them, in mode 2; with 20 or 24 octets behind them that
    are no MAC of ours, as a domain's computers send them, silence as from chronyd; version 1 without a mode is answered except to port
    123."""
    server = serve(OPEN_HOUSE)
    client, port_123 = sockets.open("127.0.0.5"), sockets.open("127.0.0.5", 123, timeout=0.5)
    for first in (0x23, 0xE3, 0x1B, 0xDB, 0x13, 0x0B, 0xCB, 0x08):
        reply, _ = ask(client, LOOPBACK, request(first))
        assert (len(reply), reply[0], reply[1], reply[12:16]) == (48, first & 0x38 | 4, 1, b"GPS\0"), hex(first)
    for first in (0x21, 0x19, 0xD9, 0x11, 0x09):
        for sock in (client, port_123):
            reply, _ = ask(sock, LOOPBACK, request(first))
            assert (len(reply), reply[0], reply[1], reply[12:16]) == (48, first & 0x38 | 2, 1, b"GPS\0"), hex(first)
            assert abs(served_ns(reply) - time.time_ns()) < NS
    for first in (0x1B, 0xDB, 0x23, 0x19):
        for size in (16, 20):
            client.sendto(request(first, more=struct.pack("<I", 1105) + bytes(size)), LOOPBACK)
    assert not drain(client, 0.2)
    assert ask(port_123, LOOPBACK)[0][1] == 1, "a client on port 123 is answered"
    with pytest.raises(TimeoutError):
        ask(port_123, LOOPBACK, request(0x08))
    counters = server.counters()
    assert counters["reply"] == {"basic": 9, "symmetric_passive": 10}
    assert counters["drop"] == {"mode_reserved": 1, "unknown_key": 8}


def test_what_is_no_request_gets_no_answer(serve: Serving, sockets: Sockets) -> None:
    """Versions 0, 5, 6 and 7, modes 0, 2, 4, 5 and 7, mode 1 where it is switched off, and what is too short, too long or malformed get no
    answer at all, each under its own reason; a whole request between them is answered. (Mode 6: test_ntpq.)"""
    server = serve(OPEN_HOUSE.replace("threads", "symmetric = false\nthreads"))
    client = sockets.open("127.0.0.5")
    wanted: dict[str, int] = {}
    modes = ("reserved", "symmetric", "symmetric", "", "server", "broadcast", "control", "private")
    quiet = [(request(version << 3 | 3), "version") for version in (0, 5, 6, 7)]
    quiet += [(request(version << 3 | mode), f"mode_{modes[mode]}") for version in (2, 3, 4) for mode in range(8) if mode not in (3, 6)]
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
