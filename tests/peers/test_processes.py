"""The clock and the serve process side by side, fed through a SOCK source: what each does when the other comes, goes, or has to stop."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from peers import let_others_in

from ppsd.cli.query import ask_once
from ppsd.ntp.packet import Header
from ppsd.process.control import ask
from refclock.kernel.clocks import read_clocks
from refclock.kernel.timescale import TimescaleReader
from refclock.sample import Leap

T = TypeVar("T")
LOCK_SECONDS = 30.0
CONFIG = """
[server]
listen = ["127.0.0.1:{port}"]
[run]
directory = "{run}"
state = "{state}"
[[source]]
type = "sock"
bias_us = 15
path = "{sock}"
"""


def wait_for(what: str, look: Callable[[], T | None], seconds: float) -> T:
    """What ``look`` returns as soon as it is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class House:
    """One configuration and a program that sends a sample with offset 0.0 five times a second."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[subprocess.Popen[bytes]] = []
        self.environment: dict[str, str] = {}
        self.run_dir, self.sock, self.config = self.directory / "run", self.directory / "in.sock", self.directory / "refclock.toml"
        self.port = free_port()
        self.write()
        self._ended = threading.Event()
        self._feeder = threading.Thread(target=self._feed)
        self._feeder.start()

    def write(self, more: str = "") -> None:
        text = CONFIG.format(port=self.port, run=self.run_dir, state=self.directory / "state", sock=self.sock)
        self.config.write_text(text + more, encoding="utf-8")

    def _feed(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)  # a clock process that is stopped reads nothing
            while not self._ended.wait(0.2):
                now = time.time_ns()
                data = struct.pack("=qqdiiii", now // 10**9, now % 10**9 // 1000, 0.0, 0, 0, 0, 0x534F434B)  # chrony, refclock_sock.c
                with contextlib.suppress(OSError):  # nobody there
                    out.sendto(data, str(self.sock))

    def close(self) -> None:
        self._ended.set()
        self._feeder.join()
        for process in self._running:
            process.kill()
            process.wait()

    def words(self, name: str) -> list[str]:
        return [sys.executable, "-m", "ppsd", name, "--config", str(self.config)]

    def start(self, name: str, *under: str) -> subprocess.Popen[bytes]:
        """A process of the daemon; ``under``: the command that runs it."""
        words, environment = [*under, *self.words(name)], os.environ | self.environment
        with (self.directory / f"{name}.log").open("ab") as log:
            self._running.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment))
        return self._running[-1]

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(encoding="utf-8")

    def snapshot(self, name: str = "clock") -> dict[str, Any] | None:
        try:
            return ask(self.run_dir / f"{name}.sock", "snapshot")
        except OSError:
            return None

    def locked(self) -> bool:
        seen = self.snapshot()
        return seen is not None and seen["verdict"] == "LOCKED"

    def ask(self) -> Header | None:
        """The server's answer, whatever it says; None without one."""
        tried = ask_once(("127.0.0.1", self.port), socket.AF_INET, 1.0)
        return tried.header

    def stratum(self) -> int | None:
        answer = self.ask()
        return None if answer is None else answer.stratum


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    os.kill(process.pid, number)
    return process.wait(5)


def test_leap_3_before_the_clock_and_stratum_1_after(house: House) -> None:
    """The server answers "unsynchronised" while there is no clock process, and stratum 1 once that is locked; SIGTERM ends both with 0."""
    serve = house.start("serve")
    answer = wait_for("the server answers", house.ask, LOCK_SECONDS)
    assert (answer.leap, answer.stratum) == (Leap.UNSYNCHRONISED, 0)
    clock = house.start("clock")
    wait_for("LOCKED", house.locked, LOCK_SECONDS)
    wait_for("stratum 1", lambda: house.stratum() == 1, 5)
    told = house.snapshot("serve")
    assert told is not None
    assert told["pid"] == serve.pid
    assert told["addresses"] == [f"127.0.0.1:{house.port}"]
    assert (end(clock), end(serve)) == (0, 0)
    assert not list(house.run_dir.glob("*.sock"))
    assert (house.directory / "state" / "state.json").exists()


def test_the_server_outlives_the_clock_and_the_clock_resumes_without_a_step(house: House) -> None:
    """kill -9 of the clock: the server goes on from the record and its bound grows; a new clock process resumes from it at once, the server
    never says "unsynchronised", and the served time does not move by more than the bound it had."""
    house.start("serve")
    clock = house.start("clock")
    wait_for("LOCKED", house.locked, LOCK_SECONDS)
    wait_for("stratum 1", lambda: house.stratum() == 1, 5)
    end(clock, signal.SIGKILL)
    record = TimescaleReader(house.run_dir / "timescale")
    raw_ns = read_clocks().raw_ns
    first, later = record.at(raw_ns), record.at(raw_ns + 10**9)
    assert first is not None
    assert later is not None
    assert later.bound_ns > first.bound_ns
    assert house.stratum() == 1
    house.start("clock")
    while not house.locked():
        assert house.stratum() == 1
        time.sleep(0.25)  # a client that asks more often is told to slow down, with stratum 0
    assert "resumed" in house.log("clock")
    resumed = record.at(raw_ns)
    record.close()
    assert resumed is not None
    assert abs(resumed.utc_ns - first.utc_ns) <= later.bound_ns


def test_a_stopped_clock_keeps_the_server_going(house: House) -> None:
    """SIGTERM of the clock publishes nothing: the server still answers stratum 1 afterwards."""
    house.start("serve")
    clock = house.start("clock")
    wait_for("stratum 1", lambda: house.stratum() == 1, LOCK_SECONDS)
    assert end(clock) == 0
    assert house.stratum() == 1


@pytest.mark.parametrize("stopped", [True, False], ids=["clock stopped", "clock running"])
def test_after_a_suspend_not_one_answer_is_wrong(house: House, stopped: bool) -> None:
    """The machine sleeps for 600 s, so the raw clock has stood still: from the first request on the server says that it is unsynchronised,
    by itself while the clock process is stopped, and the clock process does not put the old time in force when it wakes."""
    preload, slept = house.directory / "sleeping_clock.so", house.directory / "slept"
    let_others_in(house.directory)  # the server's user looks for the file too
    source = Path(__file__).with_name("sleeping_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(preload), str(source), "-ldl"], check=True)
    house.environment = {"LD_PRELOAD": str(preload), "SLEEPING_CLOCK": str(slept), "SLEEPING_CLOCK_S": "600"}
    house.start("serve")
    clock = house.start("clock")
    wait_for("stratum 1", lambda: house.stratum() == 1, LOCK_SECONDS)
    wait_for("LOCKED", house.locked, LOCK_SECONDS)
    if stopped:
        os.kill(clock.pid, signal.SIGSTOP)
        time.sleep(0.5)
        assert house.stratum() == 1
    slept.touch()
    for i in range(25):
        assert house.stratum() == 0
        time.sleep(0.2)  # slower than the server's limit
        if i == 10:
            os.kill(clock.pid, signal.SIGCONT)
    assert "the machine was suspended" in house.log("clock")


def test_reload_keeps_the_old_configuration_when_the_new_one_is_bad(house: House) -> None:
    """SIGHUP with a broken file: the reason with its line goes to the log and nothing else changes. With a good one the same run goes on
    under the new configuration, and so do sources that are configured as before; for another thermometer the engine begins anew, from the
    record in force."""
    clock = house.start("clock")
    wait_for("LOCKED", house.locked, LOCK_SECONDS)
    house.write("[clock]\nmax_bound_ms = -1\n")
    os.kill(clock.pid, signal.SIGHUP)
    wait_for("the refusal", lambda: "max_bound_ms" in house.log("clock"), 5)
    assert house.locked()
    house.write("[clock]\nmax_bound_ms = 500\n")
    os.kill(clock.pid, signal.SIGHUP)
    wait_for("the news", lambda: 'event="configuration taken up" changed=clock.max_bound_ms' in house.log("clock"), 5)
    assert house.locked()
    assert "resumed" not in house.log("clock")
    house.write('[[source]]\ntype = "shm"\nunit = 213\n')
    os.kill(clock.pid, signal.SIGHUP)
    wait_for("the news", lambda: 'source shm0"' in house.log("clock"), 5)
    wait_for("the source", lambda: [s["name"] for s in (house.snapshot() or {"sources": []})["sources"]] == ["sock0", "shm0"], 5)
    assert house.locked()
    house.write('[clock]\ntemperature = "off"\n')
    os.kill(clock.pid, signal.SIGHUP)
    wait_for("the new run", lambda: "resumed" in house.log("clock"), 5)
    wait_for("LOCKED again", house.locked, LOCK_SECONDS)
    assert clock.poll() is None


def reload(house: House) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "ppsd", "reload", "--run-dir", str(house.run_dir)]
    return subprocess.run(words, capture_output=True, text=True, timeout=40, check=False)


def test_refclock_reload_prints_what_happened_and_touches_only_what_changed(house: House) -> None:
    """Rules of access, a feed, the log: taken up without a new run of the sources or of the sockets. A setting that needs a right which the
    process does not have, and an address that another program holds, are refused by both processes with the reason; what waits for the next
    start is said."""
    deny = house.directory / "deny"
    subprocess.run(["cc", "-O1", "-o", str(deny), str(Path(__file__).with_name("deny.c"))], check=True)
    house.start("serve")
    clock = house.start("clock", str(deny), "clock")
    wait_for("LOCKED", house.locked, LOCK_SECONDS)
    wait_for("stratum 1", lambda: house.stratum() == 1, 5)
    house.write(f'[access]\nallow = ["127.0.0.1"]\n[[feed]]\ntype = "sock"\npath = "{house.directory}/out"\n[log]\nformat = "json"\n')
    told = reload(house)
    assert told.returncode == 0, told
    assert "the clock process has taken up: log.format, feed sock0; its sources were not touched" in told.stdout
    assert "the server has taken up: access.allow, log.format; no request was lost" in told.stdout
    assert house.locked()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        held = f"127.0.0.1:{other.getsockname()[1]}"
        own = house.config.read_text(encoding="utf-8")
        for new, why in (
            (own + '[clock]\nsteer = "kernel"\n', r"a sandbox refuses adjtimex\(2\)|already sets the system clock"),
            (own.replace('["127.0.0.1"]', '["127.0.0.0.1"]'), "access.allow"),
            (own + f'[keys]\nfile = "{house.directory}/none"\n', "none"),
            (own.replace(f"127.0.0.1:{house.port}", held), "another program has it"),
        ):
            house.config.write_text(new, encoding="utf-8")
            told = reload(house)
            assert told.returncode == 78, told
            assert re.search(why, told.stderr), told.stderr
            assert "the configuration stays as it was" in told.stderr
            assert house.locked()
            assert house.stratum() == 1
    assert clock.poll() is None
    house.config.write_text(own.replace(str(house.directory / "state"), str(house.directory / "state2")), encoding="utf-8")
    assert reload(house).returncode == 0


def test_what_a_cleaner_removes_is_made_anew(house: House) -> None:
    """The run directory is emptied, then removed, and the sample socket with it: within seconds the clock process can be asked again, takes
    samples, and a server that is started then has the time. The processes that ran go on."""
    clock = house.start("clock")
    wait_for("LOCKED", house.locked, LOCK_SECONDS)
    for how in ("emptied", "removed"):
        shutil.rmtree(house.run_dir)
        if how == "emptied":
            house.run_dir.mkdir()
        house.sock.unlink()
        wait_for(f"an answer after the directory was {how}", house.locked, LOCK_SECONDS)
        wait_for("a socket for samples", house.sock.exists, LOCK_SECONDS)
        serve = house.start("serve")
        wait_for("stratum 1", lambda: house.stratum() == 1, LOCK_SECONDS)
        serve.terminate()
        serve.wait(10)
    assert clock.poll() is None
    assert house.log("clock").count("the timescale was removed from the run directory") == 2


def test_a_second_one_is_refused(house: House) -> None:
    """A second clock process or a second server in the same run directory, and a second server at the same address, end with 74 and say
    why; the first ones are not disturbed."""
    house.start("clock")
    house.start("serve")
    wait_for("LOCKED", house.locked, LOCK_SECONDS)
    wait_for("stratum 1", lambda: house.stratum() == 1, 5)
    other = subprocess.run(house.words("clock"), capture_output=True, text=True, timeout=20, check=False)
    assert other.returncode == 74
    assert "another clock process runs there" in other.stderr
    (house.run_dir / "clock.sock").unlink()  # a cleaner of directories cannot make room for a second one
    other = subprocess.run(house.words("clock"), capture_output=True, text=True, timeout=20, check=False)
    assert other.returncode == 74
    other = subprocess.run(
        [*house.words("serve"), "--run-dir", str(house.directory / "run2")], capture_output=True, text=True, timeout=20, check=False
    )
    assert other.returncode == 74
    assert f"port {house.port}" in other.stderr
    assert "held by" in other.stderr
    elsewhere = house.directory / "elsewhere.toml"
    elsewhere.write_text(house.config.read_text(encoding="utf-8").replace(str(house.port), str(free_port())), encoding="utf-8")
    words = [sys.executable, "-m", "ppsd", "serve", "--config", str(elsewhere)]
    other = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert other.returncode == 74
    assert "serve.sock: is in use: another program listens there" in other.stderr
    assert house.stratum() == 1


def test_missing_devices_are_named_and_awaited(house: House) -> None:
    """A receiver and a pulse device that do not exist end nothing: the snapshot says what is missing and what to do."""
    house.config.write_text(
        f'[run]\ndirectory = "{house.run_dir}"\nstate = "{house.directory}/state"\n'
        f'[[source]]\ntype = "receiver"\ndevice = "{house.directory}/tty"\npps = "{house.directory}/pps"\n'
        f'[[source]]\ntype = "shm"\nunit = 213\n[[feed]]\ntype = "sock"\npath = "{house.directory}/chrony.sock"\n',
        encoding="utf-8",
    )
    clock = house.start("clock")
    seen = wait_for("a snapshot", house.snapshot, LOCK_SECONDS)
    assert seen["verdict"] == "NO TIME"
    assert "plug the receiver in" in seen["why"]
    assert [feed["state"] for feed in seen["feeds"]] == ["waiting"]
    assert "pulse of" in house.log("clock")
    assert end(clock) == 0


@pytest.mark.parametrize(("what", "told"), [("clock", "kernel's clock"), ("netlink", ""), ("watch", "step watch"), ("cpus", "")])
def test_a_look_that_is_refused_costs_only_what_it_would_have_shown(house: House, what: str, told: str) -> None:
    """The kernel refuses to tell the state of its clock, its interfaces, steps of the clock or the processors: the time is served all the
    same, ``status`` is answered, and the log says what is missing."""
    deny = house.directory / "deny"
    subprocess.run(["cc", "-O1", "-o", str(deny), str(Path(__file__).with_name("deny.c"))], check=True)
    serve, clock = house.start("serve", str(deny), what), house.start("clock", str(deny), what)
    wait_for("stratum 1", lambda: house.stratum() == 1, LOCK_SECONDS)
    seen = house.snapshot("serve")
    assert seen is not None
    assert (seen["interfaces"] == []) == (what == "netlink")
    assert told in house.log("clock")
    assert (end(clock), end(serve)) == (0, 0)


def test_no_space_is_a_sentence_that_names_the_file(house: House) -> None:
    """On a full file system the clock process ends with 74 and names the file that has no room; nothing dies of a page that cannot be had.
    A server that finds what was left there answers "not synchronised"."""
    room = house.directory / "room"
    room.mkdir()
    text = house.config.read_text(encoding="utf-8")
    house.config.write_text(text.replace("[run]", '[run]\nuser = "0"'), encoding="utf-8")  # in this namespace there is no other
    fill = f"mount -t tmpfs -o size=16k,mode=755 tmpfs {room} && {{ dd if=/dev/zero of={room}/full bs=4k 2>/dev/null; :; }}"
    words = [*house.words("clock"), "--run-dir", str(room), "--duration", "1"]
    told = subprocess.run(["unshare", "-rm", "sh", "-c", f'{fill}; exec "$@"', "sh", *words], capture_output=True, text=True, check=False)
    assert told.returncode == 74, told
    assert f"{room}/timescale: No space left on device" in told.stderr
    words = [*house.words("serve"), "--run-dir", str(room), "--duration", "2"]
    served = ["unshare", "-rm", "sh", "-c", f'{fill}; truncate -s 4096 {room}/timescale; rm {room}/full; exec "$@"', "sh", *words]
    with subprocess.Popen(served) as process:
        answer = wait_for("an answer", house.ask, LOCK_SECONDS)
        assert (answer.leap, answer.stratum) == (Leap.UNSYNCHRONISED, 0)
        assert process.wait(20) == 0


LIAR = """
import select, socket, sys, time
from ppsd.__main__ import main

class Liar:
    def __init__(self): self.lies, self.fds = 0, set()
    def register(self, fd, events): self.fds.add(fd) if events & select.POLLIN else None
    def unregister(self, fd): self.fds.remove(fd)
    def poll(self, ms):
        if self.fds:
            self.lies += 1
            if self.lies > 100: raise SystemExit(f"busy for ever with {len(self.fds)} descriptors")
            return [(fd, select.POLLIN) for fd in self.fds]
        time.sleep(ms / 1000)
        return []

class NoSocket(socket.socket):
    def __init__(self, *_): raise OSError(22, "Invalid argument")

select.poll, socket.socket = Liar, NoSocket
sys.exit(main(sys.argv[1:]))
"""


def test_fed_by_shared_memory_nothing_else_is_waited_for(tmp_path: Path) -> None:
    """A simulator in front of libc lets time pass only in waits, calls each descriptor of the real machine readable at once, and knows no
    unix sockets: fed by shared memory the clock process soon waits for time alone, so the simulation goes on."""
    text = f'[[source]]\ntype = "shm"\nunit = 241\n[server]\nenabled = false\n[run]\ndirectory = "{tmp_path}"\nstate = "{tmp_path}"\n'
    (tmp_path / "config").write_text(text, encoding="ascii")
    words = ["clock", "--config", str(tmp_path / "config"), "--run-dir", str(tmp_path), "--duration", "1.5"]
    subprocess.run([sys.executable, "-c", LIAR, *words], timeout=60, check=True)
