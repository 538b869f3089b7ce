"""``refclock run`` as a whole, with a simulated receiver: reloads, processes that stop, sockets of systemd, a log in JSON."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import REFCLOCK, Processes, ask_ntp, free_port, let_others_in, locked, snapshot, wait_for

LOCK_SECONDS = 60.0


class Foreground:
    """A run of the simulation under a configuration file of its own."""

    def __init__(self, processes: Processes, more: str = "") -> None:
        self.processes, self.port = processes, free_port()
        self.directory, self.config = processes.directory / "run", processes.directory / "refclock.toml"
        self.write(more)
        words = [*REFCLOCK, "run", "--sim", "--config", str(self.config), "--run-dir", str(self.directory)]
        self.process = processes.start("refclock", [*words, "--ntp", f"127.0.0.1:{self.port}"])

    def write(self, more: str = "") -> None:
        self.config.write_text(more, encoding="utf-8")

    def reload(self) -> subprocess.CompletedProcess[str]:
        return self.processes.run([*REFCLOCK, "reload", "--run-dir", str(self.directory)], 40)

    def pid(self, name: str) -> Any:
        seen = snapshot(self.directory, f"{name}.sock")
        return None if seen is None else seen["pid"]

    def answers(self) -> bool:
        return ask_ntp(self.port, seconds=0.2) is not None


@pytest.fixture
def run(processes: Processes) -> Iterator[Foreground]:
    made = Foreground(processes)
    wait_for("LOCKED", lambda: locked(made.directory), LOCK_SECONDS)
    wait_for("an answer", made.answers, 15)
    yield made
    made.process.send_signal(signal.SIGTERM)
    assert made.process.wait(10) == 0


def test_a_reload_of_a_simulation_ends_nothing(run: Foreground) -> None:
    """kill -HUP and ``refclock reload`` leave receiver, clock and server alone and say what happened. What a simulation must not do is
    refused by name. The server goes and comes as ``server.enabled`` says; what concerns the simulator waits for the next start."""
    clock, serve = run.pid("clock"), run.pid("serve")
    run.write('[access]\nallow = ["127.0.0.1", "10.0.0.0/8"]\n')
    run.process.send_signal(signal.SIGHUP)
    wait_for("the news", lambda: "changed: access.allow" in run.processes.output("refclock"), 10)
    run.write('[access]\nallow = ["127.0.0.1"]\n[simulation]\nseed = 9\n')
    told = run.reload()
    assert told.returncode == 0, told
    assert "the server has taken up: access.allow; no request was lost" in told.stdout
    assert "changed for the next start of refclock only: simulation.seed" in told.stdout
    run.write('[clock]\nsteer = "kernel"\n')
    told = run.reload()
    assert (told.returncode, "must not steer the clock" in told.stderr) == (78, True), told
    assert (run.pid("clock"), run.pid("serve")) == (clock, serve)
    assert locked(run.directory)
    assert run.answers()
    run.config.unlink()
    told = run.reload()
    assert (told.returncode, str(run.config) in told.stderr) == (78, True), told
    assert (run.pid("clock"), run.pid("serve")) == (clock, serve)


def test_a_process_that_is_stopped_is_started_anew(run: Foreground) -> None:
    """SIGSTOP of the server: requests are answered again, by another process, and the clock process does not notice."""
    clock, serve = run.pid("clock"), run.pid("serve")
    os.kill(serve, signal.SIGSTOP)
    wait_for("another server", lambda: (found := run.pid("serve")) is not None and found != serve, 40)
    wait_for("an answer", run.answers, 10)
    assert run.pid("clock") == clock
    second = run.processes.run([*REFCLOCK, "run", "--sim", "--run-dir", str(run.directory)])
    assert (second.returncode, "runs there already" in second.stderr) == (74, True), second


def test_a_simulation_outlives_its_directory(run: Foreground) -> None:
    """The simulated receiver's files are removed with the run directory; it comes back, and the same clock process locks to it again."""
    clock = run.pid("clock")
    shutil.rmtree(run.directory)
    wait_for("the receiver", (run.directory / "ttySIM0").is_symlink, 30)
    wait_for("LOCKED", lambda: locked(run.directory), LOCK_SECONDS)
    assert run.answers()
    assert run.pid("clock") == clock


def pid_at(directory: Path, name: str) -> int | None:
    """The process that answers on a control socket."""
    seen = snapshot(directory, name)
    return None if seen is None else int(str(seen["pid"]))


def test_an_emptied_run_directory_ends_nothing(processes: Processes) -> None:
    """A cleaner removes the run directory, then a process dies: it starts again as before, and ``refclock reload`` finds the daemon."""
    config, directory, port = processes.directory / "refclock.toml", processes.directory / "run", free_port()
    config.write_text(f'[server]\nlisten = ["127.0.0.1:{port}"]\n[[source]]\ntype = "sock"\npath = "{processes.directory}/gps"\n')
    words = [*REFCLOCK, "run", "--config", str(config), "--run-dir", str(directory)]
    process = processes.start("refclock", words)
    wait_for("the clock process", lambda: snapshot(directory), 30)
    wait_for("an answer", lambda: ask_ntp(port, seconds=0.2), 30)
    wait_for("the last process", (directory / "web.sock").exists, 30)
    shutil.rmtree(directory)
    found = {"run.sock", "clock.sock", "serve.sock", "web.sock", "refclock.toml", "timescale"}
    wait_for("all files", lambda: directory.exists() and {path.name for path in directory.iterdir()} >= found, 30)
    for name in ("clock.sock", "serve.sock"):
        was = pid_at(directory, name)
        assert was is not None
        os.kill(was, signal.SIGKILL)
        wait_for("another process", lambda name=name, was=was: pid_at(directory, name) not in (None, was), 30)
    wait_for("an answer", lambda: ask_ntp(port, seconds=0.2), 30)
    told = processes.run([*REFCLOCK, "reload", "--run-dir", str(directory)], 40)
    assert told.returncode == 0, told
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_systemd_hands_over_its_socket_and_hears_that_all_is_up(tmp_path: Path) -> None:
    """Started as a service of Type=notify with a socket unit, refclock answers on the socket that it was handed, says READY, and writes
    nothing but JSON when it is asked to."""
    config = tmp_path / "refclock.toml"
    config.write_text('[log]\nformat = "json"\n', encoding="utf-8")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(LOCK_SECONDS)
        served.bind(("127.0.0.1", 0))
        words = [*REFCLOCK, "run", "--sim", "--config", str(config), "--run-dir", str(tmp_path / "run")]
        start = (
            f"import os; os.dup2({served.fileno()}, 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
            f"os.environ['NOTIFY_SOCKET'] = {str(tmp_path / 'notify')!r}; os.execv({sys.executable!r}, {words!r})"
        )
        with (tmp_path / "out").open("wb") as out:
            process = subprocess.Popen([sys.executable, "-c", start], stdout=out, stderr=out, pass_fds=(served.fileno(),))
        try:
            while b"READY=1" not in systemd.recv(4096):
                pass
            assert wait_for("an answer", lambda: ask_ntp(served.getsockname()[1], seconds=0.2), 10)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
    lines = [json.loads(line) for line in (tmp_path / "out").read_text(encoding="utf-8").splitlines()]
    assert {line["program"] for line in lines} >= {"refclock", "clock"}


def test_the_server_goes_and_comes_with_its_switch(network: Processes) -> None:
    """``server.enabled = false`` ends the server and nothing else. True again, it serves; while another program holds its address, that is
    refused, with the reason, before anything is touched."""
    config, directory = network.directory / "refclock.toml", network.directory / "run"

    def reload(more: str) -> subprocess.CompletedProcess[str]:
        config.write_text(more, encoding="utf-8")
        return network.run([*REFCLOCK, "reload", "--run-dir", str(directory)], 40)

    def served() -> bool:
        return "stratum" in network.run([*REFCLOCK, "query", "127.0.0.1:11123"]).stdout

    config.write_text("", encoding="utf-8")
    process = network.start("refclock", [*REFCLOCK, "run", "--sim", "--config", str(config), "--run-dir", str(directory)])
    wait_for("LOCKED", lambda: locked(directory), LOCK_SECONDS)
    wait_for("an answer", served, 15)
    clock = snapshot(directory)
    told = reload("[server]\nenabled = false\n")
    assert (told.returncode, "changed: server.enabled" in told.stdout) == (0, True), told
    wait_for("no server", lambda: not (directory / "serve.sock").exists(), 10)
    holder = (
        "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 11123)); print('up', flush=True)"
    )
    other = network.start("holder", [sys.executable, "-c", holder + "; sys.stdin.read(); import time; time.sleep(600)"])
    wait_for("it holds the port", lambda: "up" in network.output("holder"), 10)
    told = reload("[server]\nenabled = true\n")
    assert (told.returncode, "another program has it" in told.stderr) == (78, True), told
    other.kill()
    other.wait()
    told = reload("[server]\nenabled = true\n")
    assert told.returncode == 0, told
    wait_for("an answer", served, 15)
    seen = snapshot(directory)
    assert seen is not None
    assert clock is not None
    assert seen["pid"] == clock["pid"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_nts_goes_and_comes_with_its_switch(run: Foreground) -> None:
    """`[nts] enabled = true` and a reload are enough: keys are established and the server takes their cookies; `false` ends it."""
    pytest.importorskip("OpenSSL", reason="NTS needs pyOpenSSL")
    let_others_in(run.processes.directory)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        door = probe.getsockname()[1]
    told = {on: f'[nts]\nenabled = {on}\nlisten = ["127.0.0.1:{door}"]\nnames = ["127.0.0.1"]\n' for on in ("true", "false")}

    def shown() -> subprocess.CompletedProcess[str]:
        return run.processes.run([*REFCLOCK, "nts", "show", "--run-dir", str(run.directory)], 20)

    for _ in range(2):
        run.write(told["true"])
        said = run.reload()
        assert said.returncode == 0, said
        assert "nts.enabled" in said.stdout
        wait_for("keys are established", lambda: shown().returncode == 0, 15)
        run.write(told["false"])
        assert run.reload().returncode == 0
        wait_for("they are not any more", lambda: "NTS is off" in shown().stderr, 15)
        wait_for("its process has ended", lambda: run.pid("nts-ke") is None, 15)
