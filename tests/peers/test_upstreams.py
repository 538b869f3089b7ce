"""NTP servers of others as our upstreams: chronyd answers, refclock asks, shows, and follows when no receiver is left."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from packet_net import LOOPBACK, Sockets, ask, key_lines, ntpsec_programs, secret_file, served_ns
from peers import REFCLOCK, Processes, snapshot, wait_for
from records import true_record

from refclock.kernel.timescale import TimescaleWriter
from refclock.sample import NS

SERVERS = {"near": "127.0.1.1", "next": "127.0.1.2", "third": "127.0.1.3"}
TABLE = '[[upstream]]\nname = "{name}"\nhost = "{host}"\nport = 1123\nminpoll = 1\nmaxpoll = 2\n'


def chronyd(processes: Processes, name: str, host: str, *lines: str, program: Sequence[str] = ("chronyd",)) -> None:
    """A chronyd that tells what the system clock says, at stratum 3. ``program``: another one than the installed."""
    directory = processes.directory / name
    directory.mkdir(mode=0o750)
    text = [
        "local stratum 3",
        "allow",
        "port 1123",
        "cmdport 0",
        f"bindaddress {host}",
        f"pidfile {directory}/pid",
        "bindcmdaddress /",
        *lines,
    ]
    (directory / "chrony.conf").write_text("\n".join([*text, ""]), encoding="utf-8")
    processes.start(name, [*program, "-d", "-x", "-u", "root", "-f", str(directory / "chrony.conf")])


class Daemon:
    """Clock and serve process; a receiver's place is taken by samples that say what the system clock says, while they are fed."""

    def __init__(self, processes: Processes, config: str) -> None:
        self.processes, self.run_dir = processes, processes.directory / "run"
        self.run_dir.mkdir()
        self.socket = processes.directory / "in.sock"
        source = f'[[source]]\ntype = "sock"\nname = "gps0"\npath = "{self.socket}"\nbias_us = 20\n'
        self._file = processes.directory / "refclock.toml"
        places = f'[run]\nstate = "{processes.directory}/state"\n[server]\nlisten = ["127.0.0.1:123"]\n[metrics]\nlisten = []\n'
        self._rest = places, source
        self._write(config)
        self.fed = threading.Event()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()
        words = ["--config", str(self._file), "--run-dir", str(self.run_dir)]
        self.started = [processes.start(process, [*REFCLOCK, process, *words]) for process in ("clock", "serve")]

    def _write(self, config: str) -> None:
        places, source = self._rest
        self._file.write_text(places + config + source, encoding="utf-8")

    def reload(self, config: str) -> None:
        """Have both processes read another configuration."""
        self._write(config)
        for process in self.started:
            process.send_signal(signal.SIGHUP)

    def _feed(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            while not self._ends.wait(0.5):
                now = time.time_ns()
                if self.fed.is_set() and self.socket.exists():
                    out.sendto(struct.pack("=qqdiiii", now // NS, now % NS // 1000, 0.0, 0, 0, 0, 0x534F434B), str(self.socket))

    def close(self) -> None:
        self._ends.set()
        self._thread.join()

    def clock(self) -> dict[str, Any]:
        told: dict[str, Any] | None = snapshot(self.run_dir)
        return told or {"upstreams": [], "mode": "", "stratum": 0}

    def upstreams(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.clock()["upstreams"]}

    def command(self, *words: str) -> str:
        done = self.processes.run([*REFCLOCK, *words, "--run-dir", str(self.run_dir)])
        return done.stdout + done.stderr


@pytest.fixture
def daemon(network: Processes) -> Iterator[Callable[[str], Daemon]]:
    started: list[Daemon] = []

    def start(config: str) -> Daemon:
        started.append(Daemon(network, config))
        return started[-1]

    yield start
    for one in started:
        one.close()


def tables(names: dict[str, str]) -> str:
    return "".join(TABLE.format(name=name, host=host) for name, host in names.items())


def test_upstreams_are_shown_beside_the_receiver(network: Processes, daemon: Callable[[str], Daemon]) -> None:
    """refclock sources shows servers with mode ^, stratum, interval and register, and an offset that agrees; nobody selects them, and the
    served stratum is 1. One that does not answer is shown as unusable, with its reason."""
    chronyd(network, "near", SERVERS["near"])
    chronyd(network, "next", SERVERS["next"])
    started = daemon(tables({"near": SERVERS["near"], "next": SERVERS["next"], "gone": "127.0.1.9"}))
    started.fed.set()
    wait_for("both agree", lambda: [started.upstreams().get(n, {}).get("tally") for n in ("near", "next")] == ["-", "-"], 40)
    wait_for("reach 377", lambda: started.upstreams()["near"]["reach"] == 0o377, 40)
    shown = started.command("sources")
    assert re.search(r"^\^- near +3 +[12] +[0-7]+ ", shown, re.MULTILINE), shown
    assert re.search(r"^\^\? gone +0 +\d+ +0 +- ", shown, re.MULTILINE), shown
    assert re.search(r"^#\* gps0 ", shown, re.MULTILINE), shown
    near = started.upstreams()["near"]
    assert abs(near["offset_ns"]) < near["bound_ns"] + started.clock()["bound_ns"] < 0.2 * NS
    assert "refused" in started.upstreams()["gone"]["why"].lower()
    assert started.clock()["stratum"] == 1
    by_chronyc = network.run(["chronyc", "-n", "sources"]).stdout
    assert re.search(r"^\^- 127\.0\.1\.1 +3 +[12] +[0-7]+ ", by_chronyc, re.MULTILINE), by_chronyc
    assert re.search(r"^#\* GPS0|^#\* gps0", by_chronyc, re.MULTILINE), by_chronyc
    for command in ("sourcestats", "selectdata", "activity", "tracking"):
        done = network.run(["chronyc", "-n", command])
        assert (done.returncode, "127.0.1.1" in done.stdout) == (0, command in ("sourcestats", "selectdata")), done.stdout
    ntpdata = network.run(["chronyc", "-n", "ntpdata", "127.0.1.1"]).stdout
    for label, value in {
        "Remote address": r"127\.0\.1\.1 \(7F000101\)", "Remote port": "1123", "Local address": r"127\.0\.\d+\.\d+ \([0-9A-F]{8}\)",
        "Leap status": "Normal", "Mode": "Server", "Stratum": "3", "NTP tests": "111 111 1111", "Authenticated": "No",
        "RX timestamping": "Kernel", "Total good RX": r"\d+",
    }.items():  # fmt: skip
        assert re.search(rf"^{label} *: {value}$", ntpdata, re.MULTILINE), (label, ntpdata)
    ours = started.command("ntpdata").split("\n\n")[0]
    assert [line[:17] for line in ours.splitlines()] == [line[:17] for line in ntpdata.splitlines()]
    assert network.run(["chronyc", "-n", "ntpdata"]).returncode == 0
    shown = network.run([ntpsec_programs()[1], "-pn"]).stdout
    assert re.search(r"^-127\.0\.1\.1 +\.?[0-9A-F.a-z]+\.? +3 u +\S+ +[124] +377 ", shown, re.MULTILINE), shown
    shown = network.run([ntpsec_programs()[1], "-nc", "rv 2"]).stdout
    assert "srcport=1123" in shown, shown
    assert "NTP server 127.0.1.1" in started.command("status")
    rows = started.command("sources", "-c").splitlines()
    assert any(row.startswith("^,-,near,3,") for row in rows), rows


def test_a_key_is_asked_for_and_wrong_secrets_count_for_nothing(network: Processes, daemon: Callable[[str], Daemon]) -> None:
    """With the right AES128 key a server is heard; one whose secret differs is never believed, and it is said why."""
    right = secret_file(network.directory / "keys", key_lines("chrony"))
    wrong = secret_file(network.directory / "wrong.keys", [f"1 AES128 HEX:{bytes(16).hex()}"])
    chronyd(network, "near", SERVERS["near"], f"keyfile {right}")
    chronyd(network, "next", SERVERS["next"], f"keyfile {wrong}")
    named = tables({"near": SERVERS["near"], "next": SERVERS["next"]}).replace("port =", "key = 1\nport =")
    started = daemon(f'[keys]\nfile = "{right}"\nweak = true\n{named}')
    started.fed.set()
    wait_for("the right key", lambda: started.upstreams().get("near", {}).get("tally") == "-", 40)
    wait_for("eight requests", lambda: started.upstreams()["near"]["reach"] == 0o377, 40)
    assert started.upstreams()["next"]["tally"] == "?"
    assert started.upstreams()["next"]["samples"] == 0
    authdata = network.run(["chronyc", "-n", "authdata"]).stdout
    assert re.search(r"^127\.0\.1\.1 +SK +1 +13 +128 ", authdata, re.MULTILINE), authdata
    assert re.search(r"^Authenticated +: Yes$", network.run(["chronyc", "-n", "ntpdata", "127.0.1.1"]).stdout, re.MULTILINE)


def test_interleaved_mode_with_chronyd_and_with_ourselves(network: Processes, daemon: Callable[[str], Daemon]) -> None:
    """With xleave both kinds of server answer in that mode, by IPv4 and IPv6, every answer is used, and the offsets agree; without it none
    does."""
    chronyd(network, "near", SERVERS["near"], "bindaddress ::1")
    other = network.directory / "other"
    other.mkdir()
    places = '[server]\nlisten = ["127.0.1.7:1123"]\n[metrics]\nlisten = []\n[chronyc]\nlisten = []\n'
    (other / "refclock.toml").write_text(places, encoding="utf-8")
    writer = TimescaleWriter(other / "timescale")
    writer.publish(true_record())
    network.start("other", [*REFCLOCK, "serve", "--config", str(other / "refclock.toml"), "--run-dir", str(other)])
    wait_for("our other server", lambda: snapshot(other, "serve.sock"), 20)
    asked = {"near": SERVERS["near"], "six": "::1", "ours": "127.0.1.7"}
    plain = TABLE.format(name="plain", host=SERVERS["near"])
    started = daemon(tables(asked).replace("minpoll =", "xleave = true\nminpoll =") + plain)
    started.fed.set()
    wait_for("reach 377", lambda: [started.upstreams().get(n, {}).get("reach") for n in (*asked, "plain")] == [0o377] * 4, 60)
    heard = started.upstreams()
    assert [heard[name]["packets"]["interleaved"] for name in (*asked, "plain")] == [True, True, True, False]
    for one in heard.values():
        assert one["tally"] == "-", one
        assert one["packets"]["good"] == one["packets"]["valid"] >= one["packets"]["sent"] - 2, one
        assert abs(one["offset_ns"]) < 20_000_000
    assert re.search(r"^Interleaved +: Yes$", network.run(["chronyc", "-n", "ntpdata", "127.0.1.7"]).stdout, re.MULTILINE)
    counters = snapshot(other, "serve.sock")
    assert counters is not None
    assert counters["counters"]["reply"]["interleaved"] > 3
    writer.close()


def test_servers_are_followed_without_a_receiver_and_left_when_it_is_back(
    network: Processes, daemon: Callable[[str], Daemon], sockets: Sockets
) -> None:
    """From nothing, the servers' time is served at stratum 4 with one of their addresses as reference, and root delay and dispersion that
    cover the truth; when the receiver comes, at stratum 1 again. No packet is ever farther off than it says."""
    for name, host in SERVERS.items():
        chronyd(network, name, host)
    started = daemon('[clock]\nupstreams = "fallback"\n' + tables(SERVERS))
    client = sockets.open()

    def covered() -> tuple[int, str]:
        """(stratum, reference) of a reply, which is held against the system clock."""
        before = time.time_ns()
        reply, _ = ask(client, LOOPBACK)
        after, served = time.time_ns(), served_ns(reply)
        if reply[0] >> 6 != 3 and reply[1]:
            bound_ns = (int.from_bytes(reply[4:8], "big") / 2 + int.from_bytes(reply[8:12], "big")) * NS / 65536
            assert before - bound_ns <= served <= after + bound_ns
        return reply[1], ".".join(map(str, reply[12:16]))

    wait_for("the server answers", lambda: snapshot(started.run_dir, "serve.sock"), 20)
    wait_for("stratum 4", lambda: covered()[0] == 4, 40)
    assert covered()[1] in SERVERS.values()
    told = started.clock()
    assert (told["mode"], told["verdict"], told["refid"]) == ("fallback", "FALLBACK", covered()[1])
    assert "followed over the network" in told["why"]
    assert re.search(r"^\^\* ", started.command("sources"), re.MULTILINE)
    tracking = network.run(["chronyc", "-n", "tracking"]).stdout
    assert re.search(r"^Reference ID +: 7F00010[123] \(127\.0\.1\.[123]\)$", tracking, re.MULTILINE), tracking
    assert re.search(r"^Stratum +: 4$", tracking, re.MULTILINE), tracking
    started.fed.set()
    wait_for("stratum 1", lambda: covered()[0] == 1, 60)
    assert started.clock()["refid"] == "SOCK"
    assert json.dumps(started.clock()).count("followed over the network") == 0


def test_upstreams_come_and_go_with_a_reload(network: Processes, daemon: Callable[[str], Daemon]) -> None:
    """SIGHUP with another list: the new server is asked, the one that is no longer there is no longer shown, the third is asked on."""
    for name, host in SERVERS.items():
        chronyd(network, name, host)
    started = daemon(tables({"near": SERVERS["near"], "next": SERVERS["next"]}))
    started.fed.set()
    wait_for("both", lambda: {n for n, u in started.upstreams().items() if u["tally"] == "-"} == {"near", "next"}, 40)
    samples = started.upstreams()["near"]["samples"]
    started.reload(tables({"near": SERVERS["near"], "third": SERVERS["third"]}))
    wait_for("the other two", lambda: {n for n, u in started.upstreams().items() if u["tally"] == "-"} == {"near", "third"}, 40)
    assert started.upstreams()["near"]["samples"] >= samples
    started.reload(f'[clock]\nupstreams = "off"\n{tables(SERVERS)}')
    wait_for("none", lambda: not started.upstreams(), 20)
    assert not (started.run_dir / "upstream.sock").exists()


def test_a_rack_follows_the_region(network: Processes, daemon: Callable[[str], Daemon], sockets: Sockets) -> None:
    """refclock behind refclock, without a receiver: stratum 2 with the region's address as reference, root delay and dispersion that cover
    the truth, LOCKED without a complaint. Without the region its bound grows, and no answer is ever beyond it."""
    region = daemon("")
    region.fed.set()
    client = sockets.open()
    rack = network.directory / "rack"
    rack.mkdir()
    table = '[[upstream]]\nname = "region"\nhost = "127.0.0.1"\nminpoll = 1\nmaxpoll = 2\n'
    places = f'[run]\nstate = "{rack}/state"\n[server]\nlisten = ["127.0.2.1:1124"]\n[metrics]\nlisten = []\n[chronyc]\nlisten = []\n'
    (rack / "refclock.toml").write_text(f'[clock]\nupstreams = "only"\n{places}{table}', encoding="utf-8")
    for process in ("clock", "serve"):
        network.start(f"rack {process}", [*REFCLOCK, process, "--config", str(rack / "refclock.toml"), "--run-dir", str(rack)])
    wait_for("stratum 1", lambda: region.clock()["stratum"] == 1, 60)
    wait_for("the rack", lambda: (snapshot(rack) or {"verdict": ""})["verdict"] == "LOCKED", 60)

    def reply() -> tuple[int, int, str, float]:
        """(leap, stratum, reference, bound) of the rack's answer, which is held against the system clock."""
        before = time.time_ns()
        data, _ = ask(client, ("127.0.2.1", 1124))
        after, served = time.time_ns(), served_ns(data)
        bound_ns = (int.from_bytes(data[4:8], "big") / 2 + int.from_bytes(data[8:12], "big")) * NS / 65536
        if data[1]:
            assert before - bound_ns <= served <= after + bound_ns
        return data[0] >> 6, data[1], ".".join(map(str, data[12:16])), bound_ns

    wait_for("an answer", lambda: reply()[1] == 2, 20)
    leap, stratum, reference, bound_ns = reply()
    assert (leap, stratum, reference) == (0, 2, "127.0.0.1")
    told = snapshot(rack)
    assert told is not None
    assert {one["code"] for one in told["conditions"]} <= {"leap-table-expired"}, told["conditions"]
    query = network.run([*REFCLOCK, "query", "127.0.2.1:1124"]).stdout
    assert "stratum 2  refid 127.0.0.1  leap" in query
    region.fed.clear()
    for process in region.started:
        process.terminate()
    wait_for("a wider bound", lambda: reply()[3] > 2 * bound_ns or reply()[0] == 3, 60)
