"""The refclock command: output, exit codes, and what it does not import."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from known_daemon import CLOCK
from known_daemon import SOURCE as KNOWN

from ppsd.cli import main as cli
from ppsd.cli.arguments import Command
from ppsd.cli.config import remarks
from ppsd.cli.detect import release
from ppsd.cli.feed import feed_lines, tighter_us
from ppsd.config.tables import ChronycConfig, Config, MetricsConfig, RunConfig, ServerConfig
from ppsd.faces import text as reports
from ppsd.ntp.packet import Header, parse
from ppsd.process.control import ControlServer
from ppsd.snapshot import Mode, ServerReport, Snapshot, TemperatureStatus, Unserved, Verdict
from refclock.condition import Code, Condition
from refclock.config import GpsdSource, ShmFeed, SockFeed
from refclock.kernel.host import Host
from refclock.sample import FeedStatus, Leap
from refclock.timescales import ntp64

SOURCE = replace(KNOWN, why="", rejected={"popcorn": 2})
LOCKED = replace(CLOCK, refid="GPS", sources=(SOURCE,))
HOLDOVER = replace(LOCKED, verdict=Verdict.HOLDOVER, mode=Mode.HOLDOVER, why="the antenna is off", holdover_s=130.0, holdover_left_s=3600.0)
ACQUIRING = replace(
    LOCKED, verdict=Verdict.ACQUIRING, mode=Mode.ACQUIRE, stratum=0, refid="", leap="unsynchronised", bound_ns=None, system_offset_ns=None,
    frequency_ppm=None, skew_ppm=None, sources=(replace(SOURCE, tally="?", offset_ns=None, last_sample_s=None, bound_ns=None, reach=0),),
)  # fmt: skip

SERVER = ServerReport(3, 60.0, ("0.0.0.0:123",), False, {"reply": {"basic": 12, "unsynchronised": 0}, "drop": {"short": 1}})


def answer(snapshot: Snapshot) -> Callable[[], str]:
    """What a daemon in that state sends."""
    return lambda: json.dumps(snapshot.to_json())


Daemon = Callable[[str, Callable[[], str]], Path]


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """Control sockets in a run directory, each answering what its function says, on a machine without other processes."""
    empty = Host(tmp_path / "machine")
    monkeypatch.setattr("refclock.kernel.host.Host", lambda: empty)
    servers: list[ControlServer] = []
    threads: list[threading.Thread] = []
    stop, stopped = socket.socketpair()

    def serve(name: str, answer: Callable[[], str]) -> Path:
        server = ControlServer(tmp_path / name, lambda _: answer())

        def loop() -> None:
            while stopped not in select.select([server, stopped], [], [])[0]:
                server.handle_ready()

        threads.append(threading.Thread(target=loop))
        threads[-1].start()
        servers.append(server)
        return tmp_path

    yield serve
    stop.send(b"x")
    for thread in threads:
        thread.join()
    for server in servers:
        server.close()
    stop.close()
    stopped.close()


@pytest.mark.parametrize(
    ("snapshot", "code"), [(LOCKED, 0), (HOLDOVER, 1), (ACQUIRING, 2), (replace(ACQUIRING, verdict=Verdict.NO_TIME), 2)]
)
def test_status_tells_by_its_exit_code(daemon: Daemon, capsys: pytest.CaptureFixture[str], snapshot: Snapshot, code: int) -> None:
    """0 locked, 1 holdover, 2 not serving; the top line comes first."""
    run_dir = daemon("clock.sock", answer(snapshot))
    assert cli.main(["status", "--run-dir", str(run_dir)]) == code
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(snapshot.verdict)
    assert any("server: not running" in line for line in rest)


@pytest.mark.parametrize("snapshot", [LOCKED, HOLDOVER], ids=["locked", "holdover"])
def test_the_bound_is_in_the_first_80_columns(snapshot: Snapshot) -> None:
    """A terminal of 80 columns, which cuts the line, shows within what the time is true: with long device names and in holdover too."""
    long = replace(SOURCE, what="/dev/serial/by-id/usb-u-blox_AG_-_www.u-blox.com_u-blox_7_-_GPS_GNSS_Receiver-if00 + /dev/pps0")
    assert "within ±18 µs" in reports.top_line(replace(snapshot, simulated=True, sources=(long,)))[:79]


def test_status_text(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Stages, sources in words, and the server's counters that are not zero."""
    run_dir = daemon("clock.sock", answer(LOCKED))
    daemon("serve.sock", lambda: json.dumps(SERVER.to_json()))
    assert cli.main(["status", "--run-dir", str(run_dir)]) == 0
    text = capsys.readouterr().out
    assert "LOCKED · within ±18 µs · by GPS+PPS" in text
    assert "[x] receiver  [x] locked" in text
    assert (
        "* gps0: GPS+PPS, selected, fix 3D, 9/12 sats, jitter 120 ns, message 143.2 ± 4.1 ms after the second, 2 rejected (mostly popcorn)"
        in text
    )
    assert "server: 12 answered, 1 dropped (short 1); system clock: left alone, 31 ns behind" in text


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (None, "NOT SERVED: the NTP server is not running · LOCKED · within"),
        (replace(SERVER, addresses=()), "NOT SERVED: no address could be bound: 0.0.0.0:123 · LOCKED · within"),
        (SERVER, "LOCKED · within"),
        (replace(SERVER, unserved=(Unserved("[::]:123", "no IPv6", harmless=True),)), "LOCKED · within"),
        (
            replace(SERVER, unserved=(Unserved("10.0.0.9:123", "10.0.0.9 is held by x (pid 5)", taken=True),)),
            "NOT SERVED everywhere: 10.0.0.9",
        ),
        (replace(SERVER, addresses=("0.0.0.0:123",), socket_activated=True), "LOCKED · within"),
    ],
)
def test_a_time_that_nobody_gets_is_not_called_well(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], server: ServerReport | None, words: str
) -> None:
    """Locked, and configured to serve: without a server or an address status begins with that, and exits with 2."""
    run_dir = daemon("clock.sock", answer(replace(LOCKED, listen=("0.0.0.0:123",))))
    if server is not None:
        daemon("serve.sock", lambda: json.dumps(server.to_json()))
    code = cli.main(["status", "--run-dir", str(run_dir)])
    assert capsys.readouterr().out.startswith(words)
    assert code == (2 if words.startswith("NOT") else 0)


def test_an_address_that_has_still_to_come_is_told(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Served elsewhere: status exits with 1 and says what is missing and why."""
    run_dir = daemon("clock.sock", answer(replace(LOCKED, listen=("0.0.0.0:123", "10.0.0.9:123"))))
    report = replace(SERVER, unserved=(Unserved("10.0.0.9:123", "no interface has that address"),))
    daemon("serve.sock", lambda: json.dumps(report.to_json()))
    assert cli.main(["status", "--run-dir", str(run_dir)]) == 1
    assert "server: not on 10.0.0.9:123: no interface has that address" in capsys.readouterr().out


def test_a_killed_server_is_not_called_well(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """A socket that a killed server left behind is no server."""
    run_dir = daemon("clock.sock", answer(replace(LOCKED, listen=("0.0.0.0:123",))))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(run_dir / "serve.sock"))
    assert cli.main(["status", "--run-dir", str(run_dir)]) == 2
    assert capsys.readouterr().out.startswith("NOT SERVED: the NTP server is not running (it was killed)")


def test_status_tells_what_else_is_the_matter(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """A locked clock whose feed is not taken and whose clock somebody set: a line for each, and one for each of a source's conditions."""
    feed, stepped = Condition(Code.FEED_NOT_TAKEN, "feed a: chronyd does not run"), Condition(Code.CLOCK_STEPPED, "stepped by others once")
    flat = replace(SOURCE, conditions=(Condition(Code.FIX_2D, "2D fix only", source="gps0"),))
    run_dir = daemon("clock.sock", answer(replace(LOCKED, conditions=(stepped, feed), sources=(flat,))))
    assert cli.main(["status", "--run-dir", str(run_dir)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("NOT TAKEN: feed a: chronyd does not run · LOCKED")
    assert lines[-3:-1] == ["stepped by others once", "feed a: chronyd does not run"]
    assert "  gps0: 2D fix only" in lines


def test_an_answer_that_is_not_understood_is_told(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """A daemon of another version: what is missing, and exit 3."""
    run_dir = daemon("clock.sock", lambda: json.dumps({"mode": "track"}))
    assert cli.main(["status", "--run-dir", str(run_dir)]) == 3
    assert "clock.sock: version is missing: the daemon is of another version" in capsys.readouterr().err


def test_json_reports(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Every report is also one JSON object or list."""
    run_dir = str(daemon("clock.sock", answer(LOCKED)))
    decoded = {}
    for command in ("status", "sources", "tracking"):
        cli.main([command, "--json", "--run-dir", run_dir])
        decoded[command] = json.loads(capsys.readouterr().out)
    assert decoded["status"]["verdict"] == "LOCKED"
    assert decoded["status"]["server"] == {"error": "not running"}
    assert decoded["sources"][0]["name"] == "gps0"
    assert decoded["tracking"]["refid"] == "GPS"


def test_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there: 3, and what to start."""
    assert cli.main(["status", "--run-dir", str(tmp_path)]) == 3
    assert "refclock run --sim" in capsys.readouterr().err
    monkeypatch.setenv("REFCLOCK_RUN_DIR", str(tmp_path / "x"))
    assert cli.main(["sources"]) == 3
    assert str(tmp_path / "x") in capsys.readouterr().err


def test_the_living_simulation_is_found(
    daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --run-dir a living simulation is asked; with two daemons alive the system's, and it says so."""
    monkeypatch.delenv("REFCLOCK_RUN_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("ppsd.cli.daemon.system_directory", lambda: tmp_path / "system")
    for name in ("refclock-sim", "system"):
        (tmp_path / name).mkdir()
    daemon("refclock-sim/clock.sock", answer(replace(LOCKED, simulated=True)))
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().out.startswith("SIMULATED LOCKED")
    daemon("system/clock.sock", answer(HOLDOVER))
    assert cli.main(["status"]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("HOLDOVER")
    assert "two daemons are alive" in told.err


def test_the_temperature_is_shown_where_there_is_a_thermometer() -> None:
    """status says what the thermometer reads and whether it is used; json has the fields."""
    words = "temperature 48.2 °C: explains 0.31 ppm, in use"
    warm = replace(LOCKED, temperature=TemperatureStatus("/sys/x", 48.2, 0.31, True, "", 6.5, 40.0, -0.16, words))
    assert words in reports.status(warm, "off").splitlines()
    assert json.loads(reports.status_json(warm, "off"))["temperature"]["in_use"] is True
    assert "temperature" not in reports.status(LOCKED, "off")


def test_the_rules_in_force_are_listed(daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``access list`` shows what the running server goes by, not what the file says by now; without a server the file, and says so."""
    file = tmp_path / "c.toml"
    file.write_text('[access]\nallow = ["10.0.0.0/8"]\n', encoding="utf-8")
    words = ["access", "list", "--config", str(file), "--run-dir", str(tmp_path)]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "10.0.0.0/8" in told
    assert f"# {file} (no server is running)" in told
    rule = {"prefix": "192.0.2.0/24", "action": "ignore", "source": "access.ignore"}
    daemon("serve.sock", lambda: json.dumps({"denied": "silence", "rules": [rule]}))
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert f"# the running server ({tmp_path})" in told
    assert "192.0.2.0/24                                ignore" in told
    assert "10.0.0.0/8" not in told
    assert "deny (silently)" in told


def test_the_table_of_clients_fits_a_terminal(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """80 columns suffice for the longest addresses, largest counts and every mode; figures stay under their headings."""
    figures = {"packets": 123_456_789, "drops": 1_234_567, "interval_s": 7000.0, "last_s": 90_000.0, "first_s": 9e6, "version": 4}
    flags = {"authenticated": True, "interleaved": True}
    addresses = ("192.0.2.7", "2001:db8:1:2::/64", "2001:db8:1234:5678:9abc:def0:1234:5678")
    told = {"known": 3, "clients": [{"address": address} | figures | flags for address in addresses]}
    run_dir = daemon("serve.sock", lambda: json.dumps(told))
    assert cli.main(["clients", "-v", "--run-dir", str(run_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    end = lines[0].index("Packets") + len("Packets")
    assert [line[end - 9 : end] for line in lines if "123456789" in line] == ["123456789"] * 3
    assert all(any(address in line for line in lines) for address in addresses)


def test_feed_lines() -> None:
    """The line for each program that takes our samples; without feeds also what to write on our side."""
    feeds = (SockFeed(name="a", path="/run/chrony/x.sock"), ShmFeed(name="b", unit=3))
    assert feed_lines("chrony", feeds)[0].startswith("refclock SOCK /run/chrony/x.sock ")
    assert feed_lines("chrony", feeds)[1].startswith("refclock SHM 3 ")
    assert feed_lines("ntpd", feeds)[0].startswith("#")
    assert "127.127.28.3" in feed_lines("ntpd", feeds)[1]
    assert "refclock shm unit 3" in feed_lines("ntpsec", feeds)[1]
    assert 'path = "/run/chrony/x.sock"\nprecision = 1e-06' in feed_lines("ntpd-rs", feeds)[0]
    assert feed_lines("ntpd-rs", feeds)[1].startswith("#")
    assert "# [[feed]]" in feed_lines("chrony", ())
    assert all("delay 0.002" in line for line in feed_lines("chrony", feeds))
    assert "delay 0.0001" in feed_lines("chrony", [SockFeed(path="/x", max_bound_us=50)])[0]
    assert "precision 1e-3 delay 2" in feed_lines("chrony", feeds, [GpsdSource()])[0]


def test_a_tighter_promise_is_offered_only_when_it_is_one() -> None:
    """Twice the present bound, rounded up to 1, 2 or 5; nothing when the promise is as tight already."""
    assert [tighter_us(ns, 1000) for ns in (18_000, 3_100, 260_000, 600_000, 10)] == [50, 10, 0, 0, 1]


@pytest.mark.device
@pytest.mark.parametrize(("step", "code"), [(1, 0), (0, 1)])
def test_feed_is_checked_against_the_daemon(
    daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: int, code: int
) -> None:
    """Samples that are taken: 0; a counter that stands still: 1, with the daemon's reason."""
    sent = [10]

    def counting() -> str:
        sent[0] += step
        feed = FeedStatus("a", "sock", "/x", "absent", sent[0], 3, "chronyd does not run")
        return json.dumps(replace(LOCKED, feeds=(feed,)).to_json())

    config = tmp_path / "c.toml"
    config.write_text('[[feed]]\ntype = "sock"\npath = "/x"\nname = "a"\n')
    run_dir = daemon("clock.sock", counting)
    assert cli.main(["feed", "--config", str(config), "--run-dir", str(run_dir)]) == code
    told = capsys.readouterr()
    assert told.out.startswith("refclock SOCK /x ")
    assert "a: sock /x: absent (chronyd does not run)" in told.err


@contextlib.contextmanager
def ntp_server(reply: Callable[[Header], Header]) -> Iterator[int]:
    """A UDP server on a free port that answers each request by ``reply``, after a forged one with a wrong origin."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)

        def loop() -> None:
            while len(request := sock.recvfrom(100)) and len(request[0]) >= 48:
                header = parse(request[0])
                assert header is not None
                answer = reply(header)
                sock.sendto(replace(answer, origin=header.transmit ^ 1, refid=0).pack(), request[1])
                sock.sendto(answer.pack(), request[1])

        thread = threading.Thread(target=loop)
        thread.start()
        yield sock.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"end", sock.getsockname())
        thread.join()


def good(request: Header) -> Header:
    now = ntp64(time.time_ns() + 5_000_000_000)
    return Header(mode=4, stratum=1, refid=0x47505300, origin=request.transmit, receive=now, transmit=now, root_dispersion=66)


@pytest.mark.device
def test_query(capsys: pytest.CaptureFixture[str]) -> None:
    """A server five seconds ahead is measured so, forged replies are not believed, each request is a new random number."""
    nonces = []

    def reply(request: Header) -> Header:
        nonces.append(request.transmit)
        return good(request)

    with ntp_server(reply) as port:
        assert cli.main(["query", f"127.0.0.1:{port}", "-n", "2", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert cli.main(["query", f"127.0.0.1:{port}"]) == 0
        text = capsys.readouterr().out
    assert abs(report["offset_ns"] - 5_000_000_000) <= report["delay_ns"] / 2 + 1000
    assert (report["stratum"], report["refid"], report["leap"], report["used"]) == (1, "GPS", "normal", 2)
    assert report["root_distance_ns"] >= 1_000_000
    assert "offset +5.0 s" in text
    assert len(set(nonces)) == 3


def test_query_of_a_server_without_time(capsys: pytest.CaptureFixture[str]) -> None:
    """It answers, it has no time: 1, with its words."""
    with ntp_server(lambda r: Header(leap=Leap.UNSYNCHRONISED, mode=4, refid=0x494E4954, origin=r.transmit)) as port:
        assert cli.main(["query", f"127.0.0.1:{port}"]) == 1
        assert "not synchronised (stratum 0, refid INIT)" in capsys.readouterr().out
        assert cli.main(["query", f"127.0.0.1:{port}", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["leap"] == "unsynchronised"


def test_query_of_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """A closed port, a name that is none and a port that is none: 1, 1, 64, each with its reason."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert cli.main(["query", f"127.0.0.1:{port}"]) == 1
    assert "nothing listens there" in capsys.readouterr().out
    assert cli.main(["query", "no..such..host"]) == 1
    assert cli.main(["query", "127.0.0.1:99999"]) == 64
    for broken in ("[::1", "[::1:123", "::1]"):
        assert cli.main(["query", broken]) == 64


@pytest.mark.device
def test_config_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """check tells every mistake and exits 78; show prints what reads back."""
    file = tmp_path / "c.toml"
    file.write_text("[log]\nlevel = 1\nformat = 2\n")
    assert cli.main(["config", "check", "--config", str(file)]) == 78
    assert capsys.readouterr().err.count(str(file)) == 2
    assert cli.main(["run", "--config", str(file)]) == 78
    file.write_text("[server]\nthreads = 2\n")
    assert cli.main(["config", "check", "--config", str(file)]) == 0
    capsys.readouterr()
    assert cli.main(["config", "show", "--config", str(file)]) == 0
    assert "threads = 2" in capsys.readouterr().out
    assert cli.main(["config", "check", "--config", str(tmp_path / "none")]) == 78


def test_a_user_and_a_group_that_are_not_there_are_told(tmp_path: Path) -> None:
    """Each with the command that makes it, for without them it runs otherwise than was meant. The usual user need not be there."""
    told = list(remarks(Config(run=RunConfig(user="no-such-user", group="no-such-group")), Host(tmp_path)))
    assert ["useradd --system no-such-user" in told[0], "groupadd --system no-such-group" in told[1]] == [True, True]
    assert not list(remarks(Config(run=RunConfig(group="0")), Host(tmp_path)))


@pytest.mark.device
@pytest.mark.parametrize("words", [["nmea"], ["receiver", "show"]])
def test_a_device_that_is_not_there_is_named_once(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what is there instead."""
    path = str(tmp_path / "ttyX")
    assert cli.main([*words, path, "--run-dir", str(tmp_path)]) != 0
    told = capsys.readouterr().err
    assert told.count(path) == 1
    assert "there is no such device" in told


def test_an_interface_that_is_not_there_is_told(tmp_path: Path) -> None:
    """No mistake in the file, for it may come (USB, VLAN): what is meant and what there is are told, and that nobody is served now."""
    for name in ("eth0", "lo"):
        (tmp_path / "sys/class/net" / name).mkdir(parents=True)
    config = Config(server=ServerConfig(interface="eht0"))
    (told,) = remarks(config, Host(tmp_path))
    assert "there is no eht0 now; did you mean eth0?" in told
    assert "nobody is served" in told
    assert not list(remarks(Config(server=ServerConfig(interface="eth0")), Host(tmp_path)))
    assert not list(remarks(Config(server=ServerConfig(interface="eht0", enabled=False)), Host(tmp_path)))


def test_an_address_that_no_interface_has_is_told(tmp_path: Path) -> None:
    """No mistake in the file, for it may come: each address of a listen that is not there is named with its key.
    Nothing is said of wildcards, loopback, those that are there, and a server that is switched off."""
    listen = ("0.0.0.0:123", "[::]:1123", "127.0.0.1:123", "192.168.1.5:123", "10.9.9.9:123", "[2001:db8::5]:123")
    metrics = MetricsConfig(listen=("10.9.9.7:9124",))
    config = Config(server=ServerConfig(listen=listen), chronyc=ChronycConfig(listen=("[::1]:323", "10.9.9.8:323")), metrics=metrics)
    told = list(remarks(config, Host(tmp_path), lambda address: address == "192.168.1.5"))
    assert [(line.partition(":")[0], line.partition("has ")[2].partition(" now")[0]) for line in told] == [
        *(("server.listen", "10.9.9.9"), ("server.listen", "2001:db8::5"), ("chronyc.listen", "10.9.9.8")),
        ("metrics.listen", "10.9.9.7"),
    ]
    assert "until one does" in told[0]
    off = Config(server=ServerConfig(listen=listen, enabled=False), chronyc=ChronycConfig(listen=()))
    assert not list(remarks(off, Host(tmp_path), lambda _: False))


@pytest.mark.device
def test_config_check_warns_of_such_an_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is that of a good file. TEST-NET-1 (RFC 5737) is nobody's; all of 127.0.0.0/8 is this machine."""
    file = tmp_path / "refclock.toml"
    file.write_text('[server]\nlisten = ["192.0.2.77:11123", "127.0.0.9:11123"]\n')
    assert cli.main(["config", "check", "--config", str(file)]) == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "listen" in line]
    assert warning.startswith("but: server.listen: no interface has 192.0.2.77 now")


@pytest.mark.parametrize(
    "words", [[], ["dance"], ["run", "--duration", "-1"], ["run", "--ntp", "here"], ["query"], ["query", "h", "-n", "0"]]
)
def test_wrong_command_lines(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """64, as sysexits.h has it, and a line that says what is wrong."""
    try:
        code: object = cli.main(words)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 64
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statsu"], "there is no command statsu; did you mean status?"),
        (["source"], "there is no command source; did you mean sources?"),
        (["help", "detcet"], "there is no command detcet; did you mean detect?"),
        (["xyzzy"], "there is no command xyzzy; there are run, status, "),
    ],
)
def test_a_misspelled_command_is_recognised(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with what was probably meant, else all that there are; exit 64."""
    assert cli.main(words) == 64
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["config", "chek"], "there is no 'chek'; did you mean check?"),
        (["feed", "Chrony"], "there is no 'Chrony'; did you mean chrony?"),
        (["feed", "xyzzy"], "there is no 'xyzzy'; there are chrony, ntpd, ntpsec"),
    ],
)
def test_a_misspelled_argument_is_recognised(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a misspelled command."""
    with pytest.raises(SystemExit, match="64"):
        cli.main(words)
    assert said in capsys.readouterr().err


def test_help_and_version_in_the_usual_ways(capsys: pytest.CaptureFixture[str]) -> None:
    """``help`` is ``--help``, ``help COMMAND`` that of the command; ``--version`` and ``-V`` are ``version``."""
    told = []
    for words in (["help"], ["--help"], ["help", "query"], ["query", "--help"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert told[2] == told[3]
    assert told[2] != told[0]
    for words in (["version"], ["--version"], ["-V"]):
        assert cli.main(words) == 0
        assert capsys.readouterr().out.startswith("refclock ")


@pytest.mark.device
@pytest.mark.parametrize(("encoding", "bound"), [("ascii", "within +/-18 us"), ("latin-1", "within ±18 µs"), ("utf-8", "within ±18 µs")])
def test_a_terminal_of_any_encoding(daemon: Daemon, encoding: str, bound: str) -> None:
    """What the encoding lacks is written with what it has: status, and a file name that is no text in an error."""
    run_dir = daemon("clock.sock", answer(LOCKED))
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "ppsd"]
    done = subprocess.run([*command, "status", "--run-dir", str(run_dir)], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert bound in done.stdout.decode(encoding)
    done = subprocess.run([*command, "status", "--run-dir", b"/no/\xff\xc2\xb5"], env=environment, capture_output=True, check=False)
    assert done.returncode == 3
    assert b"no daemon in /no/?" in done.stderr


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help names an example for each."""
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert f"Example: refclock {command}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", cli.COMMANDS.values(), ids=list(cli.COMMANDS))
def test_every_command_has_a_module_that_carries_it_out(command: Command) -> None:
    """The table names modules as text: each is there, has ``run``, and does not need the table."""
    module = import_module(f"ppsd.cli.{command.module}")
    assert callable(module.run)
    assert "ppsd.cli.main" not in Path(module.__file__ or "").read_text(encoding="utf-8")


@pytest.mark.device
def test_quick_commands_import_little(tmp_path: Path) -> None:
    """help and status load neither the log, nor the engine, nor asyncio, nor serial lines, nor the configuration that they do not read."""
    code = "import sys; from ppsd.cli.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\nprint(*sys.modules)"
    for words in (["--help"], ["status", "--run-dir", str(tmp_path)]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        loaded = set(done.stdout.splitlines()[-1].split())
        assert not loaded & {
            "structlog",
            "asyncio",
            "serial",
            "pynmea2",
            "ppsd.discipline.engine",
            "ppsd.process.log",
            "ssl",
            "ppsd.serve._server",
            "refclock.kernel._kernel",
            "subprocess",
            "ppsd.config.file",
            "refclock.schema",
            "tempfile",
            "lzma",
        }


@pytest.mark.device
def test_a_scenario_is_run_by_the_simulator(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its output and its exit codes come through: 74 for a file that is not there, 64 for one that is no scenario."""
    assert cli.main(["sim", str(tmp_path / "none.toml")]) == 74
    assert capfd.readouterr().out == f"{tmp_path}/none.toml: No such file or directory\n"
    (tmp_path / "bad.toml").write_text("dance = 1\n")
    assert cli.main(["sim", str(tmp_path / "bad.toml")]) == 64
    assert "dance" in capfd.readouterr().out


@pytest.mark.device
def test_closed_pipe() -> None:
    """``refclock ... | head -0`` ends without a traceback."""
    code = "import sys; from ppsd.cli.main import main; sys.exit(main(['config', 'show', '--config', '/dev/null']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("command", "name", "advice"),
    [
        ("python3\0-I\0-m\0ppsd\0clock\0", "ppsd", "refclock itself"),
        ("/usr/bin/python3\0/usr/bin/gpscat\0/dev/ttyUSB0\0", "gpscat", "end gpscat"),
        ("python3\0-c\0import serial\0", "python3", "ps -fp 77 tells what runs there"),
    ],
)
def test_nobody_is_told_to_end_python(tmp_path: Path, command: str, name: str, advice: str) -> None:
    """A program in an interpreter is named by its script or module; where there is none, how to find out what it is."""
    directory = tmp_path / "proc/77"
    (directory / "fd").mkdir(parents=True)
    (directory / "comm").write_text("python3\n")
    (directory / "cmdline").write_text(command)
    (directory / "fd/3").symlink_to("/dev/ttyUSB0")
    (who,) = Host(tmp_path).holders("/dev/ttyUSB0")
    assert who == f"{name} (pid 77)"
    assert advice in release(who, "/dev/ttyUSB0")[0]
