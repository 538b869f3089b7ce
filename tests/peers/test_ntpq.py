"""The real ntpq (and ntpmon's questions) beside our server on port 123: what it prints is what the snapshot says."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from known_daemon import CLOCK, SOURCE
from packet_net import LOOPBACK, OPEN_HOUSE, Lan, Server, Serving, Sockets, drain, ntpsec_programs
from peers import Processes, wait_for
from unpacked import unpacked

from ppsd.faces import mode6, ntpq
from ppsd.process.control import ControlServer
from ppsd.snapshot import KernelStatus

PPS = replace(SOURCE, offset_ns=-21_400, jitter_ns=1_200)
WRONG = replace(PPS, name="sock0", kind="sock", tally="x", offset_ns=120_000_000)
SILENT = replace(PPS, name="shm0", kind="shm", tally="?", offset_ns=None, last_sample_s=None, bound_ns=None, jitter_ns=None, reach=0)
LOCKED = replace(CLOCK, sources=(PPS, WRONG, SILENT), kernel=KernelStatus(-12.345, 0, 2_500_000, 40_000, 0x2041))


class Clock:
    """A clock process that says ``LOCKED`` on its control socket."""

    def __init__(self, path: Path) -> None:
        self._server = ControlServer(path, lambda _: json.dumps(LOCKED.to_json()), 0o666)
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        while self._stopped not in select.select([self._server, self._stopped], [], [])[0]:
            self._server.handle_ready()

    def close(self) -> None:
        self._stop.send(b"x")
        self._thread.join()
        self._server.close()
        self._stop.close()
        self._stopped.close()


@pytest.fixture
def server(serve: Serving) -> Iterator[Server]:
    """Our server on a loopback of its own, with a clock process that says the same all the time."""
    started = serve(OPEN_HOUSE.replace('"127.0.0.1:123"', '"0.0.0.0:123", "[::]:123"'))
    clock = Clock(started.run_dir / "clock.sock")
    yield started
    clock.close()


def ask(processes: Processes, *words: str) -> str:
    """What ntpq prints, without blanks at the ends of lines."""
    done = processes.run([ntpsec_programs()[1], *words])
    assert "timed out" not in done.stdout + done.stderr, done.stdout + done.stderr
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "127.0.1.1"])
def test_the_billboard(server: Server, host: str) -> None:
    """``ntpq -pn`` prints what ``refclock peers`` prints, to the letter, but for the age of a sample; also by the address that Debian gives
    to this machine's name, from which the reply must come."""
    told = ask(server.processes, "-pn", host).splitlines()
    ours = ntpq.peers(LOCKED).text.splitlines()

    def ageless(line: str) -> str:
        return line[:38] + "   -" + line[42:]

    assert [ageless(line) for line in told] == [ageless(line) for line in ours]
    assert [line[0] for line in told[2:]] == ["o", "x", " "]


def test_units_variables_and_associations(server: Server) -> None:
    """-u prints our offsets with units; rv, cv and as print state, status and every association; sysinfo knows our system peer."""
    told = ask(server.processes, "-pu", "127.0.0.1")
    assert re.search(r"ogps0\(0\) +\.PPS\. +0 l +\S+ +1 +377 +0ns? +-21\.4\d*us +1\.2\d*us", told)
    rv = ask(server.processes, "-c", "rv", "127.0.0.1")
    assert "associd=0 status=0115 leap_none, sync_pps, 1 event, clock_sync" in rv
    for variable in (
        'version="refclock 0.1.0"',
        "stratum=1",
        "refid=PPS",
        "rootdisp=0.0181",
        "offset=-0.0214",
        "frequency=12.345",
        "tai=37",
    ):
        assert variable in rv
    assert "leap=00" in rv
    told = ask(server.processes, "-c", "as", "127.0.0.1").splitlines()
    assert told[3:] == [
        "  1     1  971a   yes   yes  none  pps.peer    sys_peer  1",
        "  2     2  9114   yes   yes  none falsetick   reachable  1",
        "  3     3  8013   yes    no  none    reject unreachable  1",
    ]
    peer = ask(server.processes, "-c", "rv 2", "127.0.0.1")
    assert 'srchost="sock0(1)"' in peer
    assert "offset=120" in peer
    assert "reach=377" in peer
    assert 'device="GPS+PPS"' in ask(server.processes, "-c", "cv 1", "127.0.0.1")
    assert "system peer:" in ask(server.processes, "-c", "sysinfo", "127.0.0.1")


def test_the_list_of_those_who_ask(server: Server) -> None:
    """``mrulist`` gets a nonce, and lists the clients with their counts."""
    for _ in range(3):
        ask(server.processes, "-c", "rv", "127.0.0.1")
    told = ask(server.processes, "-nc", "mrulist", "127.0.0.1")
    assert re.search(r"^ +\d+ +[\d.]+ +0 +\S* +3 +\d+ +\d+ .* 127\.0\.0\.1$", told, re.MULTILINE), told


@pytest.fixture
def crowd(server: Server, sockets: Sockets) -> Server:
    """The server, asked by 300 addresses: the n-th asked once, and every tenth once more."""
    for n in range(300):
        asker = sockets.open(f"127.1.{n // 250}.{n % 250 + 1}")
        for _ in range(2 if n % 10 == 0 else 1):
            asker.sendto(bytes([0x23]) + bytes(47), LOOPBACK)
            asker.recv(100)
        asker.close()
    return server


def test_a_long_list_sorted_and_limited(crowd: Server) -> None:
    """``mrulist`` fetches all of 300 clients in several replies, the latest first; sort=, mincount= and recent= do what ntpq(1) says."""

    def listed(*words: str) -> list[tuple[str, int]]:
        told = ask(crowd.processes, "-nc", " ".join(("mrulist", *words)), "127.0.0.1").splitlines()
        rows = [line.split() for line in told if re.match(r" *\d+ ", line)]
        return [(row[-1], int(next(word for word in row[4:] if word.isdecimal()))) for row in rows if row[-1].startswith("127.1.")]

    whole = listed()
    assert [address for address, _ in whole] == [f"127.1.{n // 250}.{n % 250 + 1}" for n in reversed(range(300))]
    assert sorted(listed("limit=20")) == sorted(whole)
    by_address = listed("sort=addr")
    assert len(by_address) == 300
    assert by_address in (sorted(by_address, key=lambda row: [*map(int, row[0].split("."))]), by_address[::-1])
    assert len(listed("recent=20")) <= 20
    often = {address for address, _ in listed("mincount=2")}
    assert often == {f"127.1.{n // 250}.{n % 250 + 1}" for n in range(0, 300, 10)}


def test_counters(server: Server, sockets: Sockets) -> None:
    """sysstats, monstats, authinfo, iostats and kerninfo print what the server counts, and no line of what is not known here."""
    asker = sockets.open()
    for packet in (bytes([0x23]) + bytes(47), bytes([0x23]) + bytes(47), b"\x23"):
        asker.sendto(packet, LOOPBACK)
    asker.recv(100)

    def told(command: str) -> dict[str, str]:
        lines = ask(server.processes, "-c", command, "127.0.0.1").splitlines()
        return {name.strip(): " ".join(value.split()) for name, separator, value in (line.partition(":  ") for line in lines) if separator}

    stats = told("sysstats")
    assert re.fullmatch(r"\S.*", stats["uptime"])
    assert int(stats["control requests"]) >= 1
    assert stats["processed for time"].split()[0] == "2"
    assert stats["bad length or format"].split()[0] == "1"
    assert "current version" not in stats
    monitored = told("monstats")
    assert monitored["enabled"] == "1"
    assert monitored["addresses in use"] == "1"
    assert told("authinfo")["stored keys"] == "0"
    io = told("iostats")
    assert int(io["received packets"].split()[0]) >= 4
    assert io["ignored packets"].split()[0] == "1"
    kernel = told("kerninfo")
    assert kernel == {
        "pll offset": "0.0", "pll frequency": "-12.345", "maximum error": "2.5", "estimated error": "0.04",
        "kernel status": "pll unsync nano",
    }  # fmt: skip
    assert "1  971a" in ask(server.processes, "-c", "lassoc", "127.0.0.1")
    assert told("pstats 1")["packets received"] == "8"


def test_plugins_of_monitoring(server: Server) -> None:
    """check_ntp_peer and check_ntp_time of monitoring-plugins: what they read is the snapshot's, and their limits work."""
    plugins = unpacked("monitoring-plugins-basic") / "usr/lib/nagios/plugins"

    def check(name: str, *words: str) -> tuple[int, str]:
        done = server.processes.run([str(plugins / name), "-H", "127.0.0.1", *words])
        return done.returncode, done.stdout

    code, told = check("check_ntp_peer", "-j", "-1:100", "-k", "-1:200", "-m", "1:9", "-n", "1:9")
    assert code == 0, told
    assert "Offset -2.14e-05 secs" in told
    assert "jitter=0.001200" in told
    assert "truechimers=1" in told
    assert check("check_ntp_peer", "-w", "0.00001", "-c", "1")[0] == 1
    assert check("check_ntp_peer", "-w", "0.000001", "-c", "0.000002")[0] == 2
    code, told = check("check_ntp_time", "-w", "10", "-c", "20")
    assert code == 0, told
    assert "offset=" in told


def test_ntpmon(server: Server) -> None:
    """ntpmon, in a terminal, shows our sources and who asks."""
    assert server.processes.network is not None
    ours, theirs = os.openpty()
    ntpmon = ntpsec_programs()[1].removesuffix("ntpq") + "ntpmon"
    environment = os.environ | {"TERM": "xterm", "LINES": "24", "COLUMNS": "80"}
    words = [*server.processes.network.enter, ntpmon, "-n", "127.0.0.1"]
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""

    def complete() -> bool:
        nonlocal shown
        while select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 65536)
        return b"ogps0(0)" in shown and b"xsock0(1)" in shown and b"refclock 0.1.0" in shown and b"0 127.0.0.1" in shown

    try:
        wait_for("ntpmon shows sources and clients", complete, 20)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_nothing_is_written(server: Server, sockets: Sockets) -> None:
    """What writes, or needs a key, is refused with the code for permission; nonsense is not answered; each packet is counted."""
    asker = sockets.open()
    for operation in mode6.WRITES:
        asker.sendto(mode6.HEADER.pack(0x26, operation, 7, 0, 0, 0, 0), LOOPBACK)
        assert mode6.HEADER.unpack(asker.recv(100))[1:4] == (0xC0 | operation, 7, mode6.PERMISSION << 8)
    asker.sendto(mode6.HEADER.pack(0x26, 0x80 | mode6.READVAR, 7, 0, 0, 0, 0), LOOPBACK)
    asker.sendto(b"\x26", LOOPBACK)
    assert not drain(asker, 0.5)
    assert server.counters()["reply"] == {"mode_control": len(mode6.WRITES) + 1}
    assert server.counters()["drop"] == {"short": 1}


def test_others_get_silence(lan: Lan, serve: Serving) -> None:
    """A packet of mode 6 that comes over the network is dropped and counted."""
    server = serve('[server]\nlisten = ["0.0.0.0:123"]\n')
    asker = lan.sockets.open()
    asker.sendto(mode6.HEADER.pack(0x26, mode6.READVAR, 7, 0, 0, 0, 0), ("10.77.0.1", 123))
    asker.sendto(mode6.HEADER.pack(0x26, mode6.READVAR, 7, 0, 0, 0, 0) + bytes(60), ("10.77.0.1", 123))
    assert not drain(asker, 0.5)
    assert server.counters()["reply"] == {}
    assert server.counters()["drop"] == {"short": 1, "mode_control": 1}
