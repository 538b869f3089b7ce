"""Real chronyc of several versions, against the sockets that answer it: what it prints is the snapshot that the answers were made of.

``make peers`` unpacks those of later releases of Debian (tests/peers/releases.sh). Where it could not, tests are skipped with its reason.
"""

from __future__ import annotations

import os
import random
import re
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from known_daemon import CLIENTS, COUNTERS, GPS, LOCKED, NEVER, Known
from peers import REFCLOCK, Processes, locked, snapshot, wait_for
from peers import free_port as a_port
from unpacked import of_release

from ppsd.config.tables import ChronycConfig
from ppsd.faces import chronyc
from ppsd.faces.cmdmon import Command
from ppsd.process.log import Log
from ppsd.serve.chronyc import Chronyc, Facts, handed
from ppsd.snapshot import ServerReport

pytestmark = pytest.mark.peers
VERSIONS = ["installed", "trixie", "forky"]


class KnownFacts(Known, Facts):
    """The daemon known by heart, behind the real sockets."""

    def __init__(self) -> None:
        Known.__init__(self)
        self.access = ChronycConfig().hears()
        self.received = self.dropped = 0

    def hears(self, address: str) -> bool:
        return Facts.hears(self, address)


class Told(list[str]):
    """A log that is kept."""

    def write(self, text: str) -> bool:
        self.append(text)
        return True


class Answering:
    """Sockets that are answered by a thread until the test ends."""

    def __init__(self, path: Path) -> None:
        self.facts, self.port, self.path = KnownFacts(), a_port(), path
        self.chronyc = Chronyc(self.facts, Log(Told()), {})
        self.chronyc.listen(ChronycConfig(listen=(f"127.0.0.1:{self.port}",), socket=str(path)))
        self.stop, stopped = socket.socketpair()
        self.thread = threading.Thread(target=self.loop, args=(stopped,))
        self.thread.start()

    def loop(self, stopped: socket.socket) -> None:
        poll = select.poll()
        poll.register(self.chronyc, select.POLLIN)
        poll.register(stopped, select.POLLIN)
        while stopped.fileno() not in {fd for fd, _ in poll.poll()}:
            self.chronyc.handle_ready()
        stopped.close()

    def close(self) -> None:
        self.stop.send(b"x")
        self.thread.join()
        self.stop.close()
        self.chronyc.close()


@pytest.fixture
def answering() -> Iterator[Answering]:
    with TemporaryDirectory() as directory:  # chronyc of root becomes another user, who makes a socket of its own there
        Path(directory).chmod(0o777)
        made = Answering(Path(directory) / "chronyd.sock")
        yield made
        made.close()


def program(version: str) -> list[str]:
    """The words that start a version of chronyc."""
    if version == "installed":
        return ["chronyc"]
    return of_release(version, "bin/chronyc")


def run(version: str, where: list[str], *words: str) -> tuple[int, str]:
    """(exit code, output) of one command."""
    command, environment = [*program(version), *where, "-n", *words], {**os.environ, "TZ": "UTC"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    return done.returncode, done.stdout


Asked = Callable[..., tuple[int, str]]


@pytest.fixture(params=VERSIONS)
def ask(request: pytest.FixtureRequest, answering: Answering) -> Asked:
    """Asks over UDP with one version."""
    return lambda *words: run(request.param, ["-h", "127.0.0.1", "-p", str(answering.port)], *words)


def csv(ask: Asked, *words: str) -> list[list[str]]:
    code, out = ask("-c", *words)
    assert code == 0, out
    return [line.split(",") for line in out.splitlines()]


OF_THE_CLOCK = {
    "tracking": chronyc.tracking,
    "sources": chronyc.sources,
    "sourcestats": chronyc.sourcestats,
    "selectdata": chronyc.selectdata,
    "activity": chronyc.activity,
    "ntpdata": chronyc.ntpdata,
}


@pytest.mark.parametrize("name", [*OF_THE_CLOCK, "clients", "serverstats"])
def test_our_reports_are_theirs(ask: Asked, answering: Answering, name: str) -> None:
    """``refclock`` and ``chronyc`` print the same to the last byte of the same snapshot: as text, with -c, and with -v the same legend.
    chronyc before 4.4 ends serverstats sooner, and 4.9 explains one more letter of selectdata, which no source has here,
    without the comma too many."""
    clock = replace(LOCKED, sources=(GPS, replace(NEVER, name="roof"), replace(GPS, name="x", tally="x", offset_ns=12_000_000)))
    answering.facts.snapshot = clock
    if name == "clients":
        asked = [{**asdict(client), "address": str(client.ip)} for client in CLIENTS]
        ours = chronyc.clients({"known": len(CLIENTS), "clients": asked})
    elif name == "serverstats":
        ours = chronyc.serverstats(ServerReport(1, 1.0, (), False, COUNTERS))
    else:
        ours = OF_THE_CLOCK[name](clock)
    text, rows = ask(name)[1].splitlines(), ask("-c", name)[1].splitlines()
    if name == "serverstats" and len(text) == 11:
        assert text == ours.text.splitlines()[:11]
        assert rows == [",".join(ours.rows[0].split(",")[:11])]
        return
    assert text == ours.text.splitlines()
    assert rows == list(ours.rows)
    if ours.legend:
        told = ask(name, "-v")[1].replace("missing samples, r - stratum", "missing samples,").replace("update, x", "update,, x")
        assert told == f"{ours.legend}{ours.text}\n"


def test_authdata(ask: Asked) -> None:
    """Reference clocks have no keys: the heading alone."""
    heading = "Name/IP address             Mode KeyID Type KLen Last Atmp  NAK Cook CLen"
    assert ask("authdata") == (0, f"{heading}\n{'=' * len(heading)}\n")
    assert ask("-c", "authdata") == (0, "")


def test_tracking(ask: Asked) -> None:
    """Every field of tracking, with chronyd's sign: the local clock minus the reference."""
    assert ask("tracking") == (
        0,
        """\
Reference ID    : 50505300 (PPS)
Stratum         : 1
Ref time (UTC)  : Sat Nov 21 11:59:57 2026
System time     : 0.000000031 seconds slow of NTP time
Last offset     : +0.000000214 seconds
RMS offset      : 0.000000120 seconds
Frequency       : 12.345 ppm slow
Residual freq   : +0.000 ppm
Skew            : 0.012 ppm
Root delay      : 0.000000000 seconds
Root dispersion : 0.000018100 seconds
Update interval : 1.0 seconds
Leap status     : Insert second
""",
    )
    (row,) = csv(ask, "tracking")
    assert row[:3] == ["50505300", "PPS", "1"]
    assert row[3] == f"{LOCKED.reference_utc_ns // 10**9}.{LOCKED.reference_utc_ns % 10**9:09d}"
    assert LOCKED.system_offset_ns is not None
    assert LOCKED.frequency_ppm is not None
    assert LOCKED.bound_ns is not None
    assert float(row[4]) == pytest.approx(LOCKED.system_offset_ns / 1e9)
    assert float(row[7]) == pytest.approx(LOCKED.frequency_ppm, abs=5e-4)
    assert float(row[11]) == pytest.approx(LOCKED.bound_ns / 1e9)
    assert row[5:7] + row[8:11] + row[12:] == ["0.000000214", "0.000000120", "0.000", "0.012", "0.000000000", "1.0", "Insert second"]


def test_sources(ask: Asked) -> None:
    """A row for each source; one that never gave a sample has no age."""
    code, out = ask("sources")
    assert (code, out.splitlines()[2:]) == (
        0,
        [
            "#* gps0                          0   0   377     3   +214ns[ +214ns] +/-   18us",
            "#? rece                          0   0     0     -     +0ns[   +0ns] +/-    0ns",
        ],
    )
    assert csv(ask, "sources") == [
        ["#", "*", "gps0", "0", "0", "377", "3", "0.000000214", "0.000000214", "0.000018100"],
        ["#", "?", "rece", "0", "0", "0", "4294967295", *["0.000000000"] * 3],
    ]
    assert ask("sources", "-v")[0] == 0


@pytest.mark.parametrize("tally", "*?x~+-")
def test_every_state_of_a_source(ask: Asked, answering: Answering, tally: str) -> None:
    """The state is that of `refclock sources`."""
    answering.facts.snapshot = replace(LOCKED, sources=(replace(GPS, tally=tally),))
    assert csv(ask, "sources")[0][1] == tally


def test_sourcestats(ask: Asked) -> None:
    """Frequency is that of the source against the served one."""
    code, out = ask("sourcestats")
    assert (code, out.splitlines()[2:]) == (
        0,
        [
            "gps0                        8   0    77     +0.045      0.010   +214ns   120ns",
            "rece                        0   0     0     +0.000      0.000     +0ns     0ns",
        ],
    )
    assert csv(ask, "sourcestats")[0] == ["gps0", "8", "0", "77", "0.045", "0.010", "0.000000214", "0.000000120"]


def test_selectdata(ask: Asked) -> None:
    """What is configured, and the interval in which the source says that the local clock is."""
    code, out = ask("selectdata")
    assert (code, out.splitlines()[2:]) == (
        0,
        [
            "* gps0                      N -P--- -P---    3   1.0   -18us   +18us  +",
            "N rece                      N N---- N----    -   1.0    +0ns    +0ns  ?",
        ],
    )
    row = csv(ask, "selectdata")[0]
    assert [float(limit) for limit in row[-3:-1]] == pytest.approx([214e-9 - 18.1e-6, 214e-9 + 18.1e-6], abs=1e-9)


def test_serverstats(ask: Asked) -> None:
    """The server's own counters; versions before 4.4 know no counts of time stamps."""
    code, out = ask("serverstats")
    told = [int(line.partition(":")[2]) for line in out.splitlines()]
    assert code == 0
    assert told[:2] + told[3:11] == [131, 8, 2, 0, 0, 0, 5, 20, 0, 0]
    assert told[2] > 0
    assert told[11:] in ([], [4, 102, 127, 18, 0, 0])


def test_clients(ask: Asked) -> None:
    """All clients, over several pages, with packets, drops, interval and age."""
    code, out = ask("clients")
    rows = out.splitlines()[2:]
    assert (code, len(rows)) == (0, len(CLIENTS))
    assert rows[:3] == [
        "192.0.2.7                    5123      3   4   -     3       0      0   -     -",
        "2001:db8:0:1::                  1      0   -   -    50       0      0   -     -",
        "fe80::1:2:3:4                   9      0   0   -     0       0      0   -     -",
    ]
    assert csv(ask, "clients")[0] == ["192.0.2.7", "5123", "3", "4", "127", "3", "0", "0", "127", "4294967295"]
    assert len(csv(ask, "clients", "-p", "10")) == sum(client.packets >= 10 for client in CLIENTS)
    assert ask("clients", "-r") == (1, out.split("=\n")[0] + "=\n501 Not authorised\n")


def test_the_rest(ask: Asked) -> None:
    """Activity, names, access, and what is not here, in chronyc's words."""
    assert csv(ask, "activity") == [["1", "1", "0", "0", "0"]]
    assert ask("sourcename", "114.101.99.101") == (0, f"{NEVER.name}\n")
    assert ask("accheck", "192.0.2.1") == (0, "208 Access allowed\n")
    assert ask("accheck", "8.8.8.8") == (0, "209 Access denied\n")
    assert ask("cmdaccheck", "192.0.2.1") == (0, "209 Access denied\n")
    assert ask("cmdaccheck", "127.0.0.1") == (0, "208 Access allowed\n")
    assert ask("smoothing") == (1, "505 Facility not enabled in daemon\n")
    assert ask("rtcdata") == (1, "505 Facility not enabled in daemon\n")
    assert ask("ntpdata", "192.0.2.1") == (1, "503 No such source\n")
    for words in (["ntpdata"], ["authdata"], ["manual", "list"]):
        assert ask(*words)[0] == 0
    for words in (["makestep"], ["burst", "1/2"], ["shutdown"], ["reset", "sources"], ["add", "server", "192.0.2.9"], ["deny", "all"]):
        assert ask(*words) == (1, "501 Not authorised\n")


def test_waitsync(ask: Asked, answering: Answering) -> None:
    """The usual way of scripts to wait for the time ends when there is time, and fails while there is none."""
    assert ask("waitsync", "1", "0.01")[0] == 0
    answering.facts.snapshot = replace(LOCKED, stratum=0, leap="unsynchronised")
    assert ask("waitsync", "1", "0", "0", "0.1")[0] == 1


def test_a_clock_process_that_is_silent(ask: Asked, answering: Answering) -> None:
    """Its part fails at once, instead of after chronyc's seven seconds."""
    answering.facts.snapshot = None
    assert ask("tracking") == (1, "500 Failure\n")
    assert ask("serverstats")[0] == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_the_unix_socket(version: str, answering: Answering) -> None:
    """There the verbs that change nothing succeed, and the others fail in chronyd's words."""

    def ask(*words: str) -> tuple[int, str]:
        return run(version, ["-h", str(answering.path)], *words)

    assert csv(ask, "tracking")[0][1] == "PPS"
    for verb in (["refresh"], ["cyclelogs"], ["reselect"], ["onoffline"]):
        assert ask(*verb) == (0, "200 OK\n")
    for verb in (["online"], ["offline"], ["burst", "1/2"]):
        assert ask(*verb) == (1, "503 No such source\n")
    for verb in (["makestep"], ["reset", "sources"], ["dump"]):
        assert ask(*verb) == (1, "500 Failure\n")
    assert ask("writertc") == (1, "513 RTC driver not running\n")
    assert ask("shutdown") == (1, "501 Not authorised\n")


def test_noise_on_the_port(answering: Answering) -> None:
    """Random datagrams, mutated requests and a flood: the sockets go on answering, and no reply is longer than its request."""
    chance = random.Random(14)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", answering.port))
        sock.settimeout(0.05)
        for k in range(2000):
            header = bytes([6, 1, 0, 0, 0, chance.choice(list(Command)), 0, 0]) if k % 2 else chance.randbytes(8)
            rest = chance.randbytes(chance.choice([0, 8, 60, 100, 184, 292, 508]))
            sent = (header + k.to_bytes(4, "big") + rest)[: chance.randrange(530)]
            sock.send(sent)
            if k % 10 == 0:
                try:
                    while reply := sock.recv(4096):
                        assert len(reply) <= 528
                        if reply[16:20] == sent[8:12]:
                            assert len(reply) <= len(sent)
                except TimeoutError:
                    pass
    answering.facts.received = 0
    assert re.match("Reference", run("installed", ["-h", "127.0.0.1", "-p", str(answering.port)], "tracking")[1])


def test_a_port_that_another_program_has() -> None:
    """It is left to that program and told once; when the port becomes free it is taken."""
    port, told = a_port(), Told()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))
        door = Chronyc(KnownFacts(), Log(told), {})
        door.listen(ChronycConfig(listen=(f"127.0.0.1:{port}",)))
        door.review()
        assert door.served == ()
        assert door.unserved[0].taken
        assert len(told) == 1
        assert "another program has it" in told[0]
    door.review()
    assert door.served == (f"127.0.0.1:{port}",)
    door.close()


def test_sockets_of_systemd_are_told_apart_by_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the sockets handed over, those bound to chronyc.listen answer chronyc; the others are the NTP server's, but for any on the port of
    chronyd's commands, which never serves NTP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ntp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given:
        for sock in (ntp, given):
            sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{given.getsockname()[1]}"
        inherited = handed([ntp.fileno(), given.fileno(), 10_000], [address, "[::1]:323"])
        assert inherited == {address: given.fileno()}
        monkeypatch.setattr("ppsd.serve.chronyc.PORT", ntp.getsockname()[1])
        assert ntp.fileno() in handed([ntp.fileno(), given.fileno()], []).values()
        door = Chronyc(KnownFacts(), Log(Told()), inherited)
        door.listen(ChronycConfig(listen=(address,)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.sendto(bytes([6, 1, 0, 0, 0, Command.N_SOURCES]).ljust(32, b"\0"), given.getsockname())
            door.handle_ready()
            assert client.recv(100)[28:] == b"\0\0\0\2"
        door.close()
        assert given.getsockname(), "it stays its owner's"


class Machine:
    """A simulation in a network of its own, where port 323 may be had."""

    def __init__(self, network: Processes, keys: str = 'listen = ["127.0.0.1:323"]') -> None:
        self.network, self.directory, self.config = network, network.directory / "run", network.directory / "refclock.toml"
        self.directory.parent.chmod(0o755)
        self.write(keys)
        network.start("refclock", [*REFCLOCK, "run", "--sim", "--config", str(self.config), "--run-dir", str(self.directory)])
        wait_for("LOCKED", lambda: locked(self.directory), 60)

    def write(self, keys: str) -> None:
        self.config.write_text(f"[chronyc]\n{keys}\n", encoding="utf-8")

    def chronyc(self, *words: str, host: str = "127.0.0.1") -> tuple[int, str]:
        done = self.network.run(["chronyc", "-h", host, "-n", *words])
        return done.returncode, done.stdout

    def serves(self) -> bool:
        return self.network.run([*REFCLOCK, "query", "127.0.0.1:11123"]).returncode == 0

    def log(self) -> str:
        return self.network.output("refclock")


def test_a_running_refclock(network: Processes) -> None:
    """As installed: tracking is the clock process's, clients are the server's. When the clock process stops, its part fails and the rest,
    NTP above all, goes on."""
    machine = Machine(network)
    tracking = wait_for("tracking", lambda: (told := machine.chronyc("-c", "tracking"))[0] == 0 and told[1].split(","), 20)
    assert (tracking[1], tracking[2], tracking[-1]) == ("SIM", "1", "Normal\n")
    wait_for("an answer", machine.serves, 20)
    assert machine.chronyc("clients")[1].splitlines()[2].startswith("127.0.0.1                       1      0")
    assert machine.chronyc("-c", "sources")[1].startswith("#,*,gps0,")
    clock = snapshot(machine.directory)
    assert clock is not None
    os.kill(int(str(clock["pid"])), signal.SIGSTOP)
    wait_for("failure", lambda: machine.chronyc("tracking") == (1, "500 Failure\n"), 10)
    assert machine.chronyc("serverstats")[0] == 0
    assert machine.network.run([*REFCLOCK, "query", "127.0.0.1:11123"]).stdout
    os.kill(int(str(clock["pid"])), signal.SIGCONT)
    assert "system call refused" not in machine.log()


def test_beside_chronyd(network: Processes) -> None:
    """chronyd keeps its port, the log says so, and the server serves."""
    pid_file = f"pidfile {network.directory}/chronyd.pid"  # chronyd replaces what is there
    network.start("chronyd", ["chronyd", "-n", "-x", "-u", "root", "-f", "/dev/null", "port 0", pid_file])
    wait_for("chronyd", lambda: network.run(["chronyc", "-h", "127.0.0.1", "-n", "activity"]).returncode == 0, 10)
    machine = Machine(network)
    wait_for("an answer", machine.serves, 20)
    assert 'event="chronyc is not answered" address=127.0.0.1:323 problem="another program has it' in machine.log()
    assert "PPS" not in machine.chronyc("tracking")[1]


def test_other_machines_get_silence_unless_configured(network: Processes) -> None:
    """Listening at every address is not enough: without chronyc.allow only this machine is answered. A reload changes that."""
    assert network.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"]).returncode == 0
    machine = Machine(network, 'listen = ["0.0.0.0:323"]')
    wait_for("tracking", lambda: machine.chronyc("tracking")[0] == 0, 20)
    quick = ("-m", "timeout 200", "retries 0", "tracking")
    assert machine.chronyc(*quick, host="192.0.2.1") == (1, "506 Cannot talk to daemon\n")
    machine.write('listen = ["0.0.0.0:323"]\nallow = ["192.0.2.0/24"]')
    reloaded = machine.network.run([*REFCLOCK, "reload", "--run-dir", str(machine.directory)], 60)
    assert reloaded.returncode == 0, reloaded
    assert "chronyc.allow" in reloaded.stdout
    wait_for("tracking", lambda: machine.chronyc("tracking", host="192.0.2.1")[0] == 0, 20)
