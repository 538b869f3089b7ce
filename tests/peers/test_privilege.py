"""What the processes may still do once they run: whoever takes one over through a packet or a receiver's line gets no more than that."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nts_client import establish
from peers import let_others_in

from ppsd.cli.query import ask_once
from ppsd.ntp.nts import COOKIES, Kind
from ppsd.process.control import ask
from refclock.kernel.sandbox import Capability

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
REFCLOCK = [sys.executable, "-m", "ppsd"]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(look: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if look():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within 30 s: {what}")


class Daemon:
    """Processes started in a directory that only their user can enter."""

    def __init__(self, directory: Path) -> None:
        self.run_dir, self.config, self.port = directory / "run", directory / "refclock.toml", free_port()
        self.keys, self.log = directory / "keys", directory / "log"
        self._running: list[subprocess.Popen[bytes]] = []

    def write(self, more: str = "", listen: str = "127.0.0.1", threads: int = 2) -> None:
        server = f'[server]\nlisten = ["{listen}:{self.port}"]\nthreads = {threads}\n'
        self.config.write_text(f'{server}[run]\ndirectory = "{self.run_dir}"\n{more}')

    def start(self, *words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self._running.append(subprocess.Popen([*before, *REFCLOCK, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return self._running[-1]

    def pid(self, name: str) -> int:
        """The process that answers on the control socket."""
        found: list[int] = []

        def look() -> bool:
            try:
                found.append(ask(self.run_dir / f"{name}.sock", "snapshot")["pid"])
            except (OSError, KeyError):
                return False
            return True

        wait_for(look, f"{name} answers; {self.log.read_text()}")
        return found[0]

    def answers(self) -> bool:
        return ask_once(("127.0.0.1", self.port), socket.AF_INET, 1.0).header is not None

    def close(self) -> None:
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            process.wait(10)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    made.write()
    yield made
    made.close()


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def mask(*capabilities: Capability) -> int:
    return sum(1 << capability for capability in capabilities)


@ROOT_ONLY
@pytest.mark.parametrize("how", ["in the foreground", "alone"])
def test_root_does_not_parse_packets(daemon: Daemon, how: str) -> None:
    """Started by root, the server is another user in every thread, may bind a low port and nothing else, and still answers."""
    if how == "alone":
        daemon.start("serve", "--config", str(daemon.config))
    else:
        daemon.start("run", "--sim", "--run-dir", str(daemon.run_dir), "--ntp", f"127.0.0.1:{daemon.port}")
    pid = daemon.pid("serve")
    wait_for(daemon.answers, "an answer")
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    assert len(tasks) > 1
    for task in tasks:
        seen = status(int(task.name))
        assert "0" not in seen["Uid"].split() + seen["Gid"].split() + seen["Groups"].split()
        assert int(seen["CapEff"], 16) | int(seen["CapPrm"], 16) | int(seen["CapBnd"], 16) == mask(Capability.NET_BIND_SERVICE)
        assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")


@ROOT_ONLY
def test_who_establishes_keys_keeps_no_right(daemon: Daemon) -> None:
    """Started by root, the process that speaks TLS is another user without any capability, nicer than the server, and gives out cookies; it
    and the server made their secret between them."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    let_others_in(daemon.config.parent)  # what it makes is its own, below directories that it can enter
    daemon.write(f'[nts]\nenabled = true\nlisten = ["127.0.0.1:{port}"]\n')
    daemon.start("run", "--sim", "--config", str(daemon.config), "--run-dir", str(daemon.run_dir), "--ntp", f"127.0.0.1:{daemon.port}")
    pid = daemon.pid("nts-ke")
    wait_for(lambda: ask(daemon.run_dir / "nts-ke.sock", "snapshot")["until_s"] is not None, "a certificate")
    seen = status(pid)
    assert "0" not in seen["Uid"].split() + seen["Gid"].split() + seen["Groups"].split()
    assert int(seen["CapEff"], 16) | int(seen["CapPrm"], 16) | int(seen["CapBnd"], 16) == 0
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    assert os.getpriority(os.PRIO_PROCESS, pid) == max(10, os.getpriority(os.PRIO_PROCESS, daemon.pid("serve")))
    assert len(establish(port).bodies(Kind.COOKIE)) == COOKIES


@ROOT_ONLY
def test_the_clock_process_keeps_what_clocks_need(daemon: Daemon) -> None:
    """Setting the clock, waking in time, seeing who holds a port and reading: no network, no modules, no other users, no programs."""
    daemon.start("run", "--sim", "--run-dir", str(daemon.run_dir), "--ntp", f"127.0.0.1:{daemon.port}")
    seen = status(daemon.pid("clock"))
    most = mask(Capability.SYS_TIME, Capability.SYS_NICE, Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH)
    assert int(seen["CapEff"], 16) & ~most == 0
    assert int(seen["CapEff"], 16) & mask(Capability.SYS_TIME)
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")


@ROOT_ONLY
def test_who_answers_http_has_nothing_of_roots(daemon: Daemon) -> None:
    """The web process is another user without any capability; it reads a changed configuration and misses no system call."""
    daemon.write(f'[metrics]\nlisten = ["127.0.0.1:{free_port()}"]\n')
    process = daemon.start("web", "--config", str(daemon.config))
    seen = status(daemon.pid("web"))
    assert "0" not in seen["Uid"].split() + seen["Gid"].split() + seen["Groups"].split()
    assert int(seen["CapEff"], 16) | int(seen["CapPrm"], 16) | int(seen["CapBnd"], 16) == 0
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    other = f"127.0.0.1:{free_port()}"
    daemon.write(f'[metrics]\nlisten = ["{other}"]\n')
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: ask(daemon.run_dir / "web.sock", "snapshot")["metrics"] == [other], "the new address")
    assert "refused" not in daemon.log.read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


@ROOT_ONLY
def test_an_ordinary_users_processes_are_fenced_in_too(daemon: Daemon, tmp_path: Path) -> None:
    """Without root there is nothing to give up but system calls and new privileges; the simulation runs as before."""
    unprivileged = shutil.which("setpriv")
    assert unprivileged is not None
    let_others_in(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 12345, 12345)
    daemon.run_dir = home / "run"
    words = ("run", "--sim", "--run-dir", str(daemon.run_dir), "--ntp", f"127.0.0.1:{daemon.port}")
    him = (unprivileged, "--reuid=12345", "--regid=12345", "--clear-groups")
    if subprocess.run([*him, "env", *REFCLOCK, "version"], capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("this interpreter is root's alone")
    daemon.start(*words, before=him)
    for name in ("clock", "serve"):
        seen = status(daemon.pid(name))
        assert seen["Uid"].split() == ["12345"] * 4
        assert (int(seen["CapEff"], 16), seen["NoNewPrivs"], seen["Seccomp"]) == (0, "1", "2")
    wait_for(daemon.answers, "an answer")
    wait_for(lambda: ask(daemon.run_dir / "clock.sock", "snapshot")["verdict"] == "LOCKED", "lock")
    assert "refused" not in daemon.log.read_text()


@ROOT_ONLY
def test_what_the_server_gave_up_it_does_not_miss(daemon: Daemon) -> None:
    """SIGHUP: rules, keys and addresses change, though configuration and keys are root's alone; after the end its socket is gone."""
    daemon.keys.write_text("1 SHA256 HEX:00112233\n")
    daemon.keys.chmod(0o600)
    daemon.write(f'[keys]\nfile = "{daemon.keys}"\n')
    process = daemon.start("serve", "--config", str(daemon.config))
    daemon.pid("serve")
    for key in (2, 3):
        daemon.keys.write_text(f"{key} SHA256 HEX:00112233\n")
        old, daemon.port = daemon.port, free_port()
        daemon.write(f'[keys]\nfile = "{daemon.keys}"\n')
        process.send_signal(signal.SIGHUP)
        wait_for(daemon.answers, f"an answer at the new address; {daemon.log.read_text()}")
        assert ask_once(("127.0.0.1", old), socket.AF_INET, 0.3).header is None
    assert "refused" not in daemon.log.read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert not (daemon.run_dir / "serve.sock").exists()


@pytest.mark.parametrize("threads", [1, 2])
def test_addresses_are_widened_and_narrowed_by_a_reload(daemon: Daemon, threads: int) -> None:
    """From one address to all and back: the server's own sockets, bound as root, are not taken for another program's."""
    daemon.write(threads=threads)
    daemon.start("serve", "--config", str(daemon.config))
    daemon.pid("serve")
    for listen in ("0.0.0.0", "127.0.0.1"):
        daemon.write(listen=listen, threads=threads)
        told = subprocess.run(
            [*REFCLOCK, "reload", "--run-dir", str(daemon.run_dir)], capture_output=True, text=True, timeout=30, check=False
        )
        assert (told.returncode, "server.listen" in told.stdout) == (0, True), told
        assert ask(daemon.run_dir / "serve.sock", "snapshot")["addresses"] == [f"{listen}:{daemon.port}"]
        assert daemon.answers()


@ROOT_ONLY
def test_a_reload_says_what_the_clock_process_may_do_no_more(daemon: Daemon, tmp_path: Path) -> None:
    """A feed that is added needs the right to enter chronyd's directory. Root gave it up at the start, so the next start is named."""
    state = f'state = "{tmp_path / "state"}"\n[[source]]\ntype = "sock"\npath = "{tmp_path / "in"}"\n'
    feed = f'[[feed]]\ntype = "sock"\npath = "{tmp_path / "out"}"\n'
    daemon.write(state)
    daemon.start("clock", "--config", str(daemon.config))
    daemon.pid("clock")
    for more, said in ((feed, True), (feed + '[log]\nlevel = "debug"\n', False)):
        daemon.write(state + more)
        told = subprocess.run([*REFCLOCK, "reload", "--run-dir", str(daemon.run_dir)], capture_output=True, text=True, check=False)
        assert (told.returncode, "works from the next start" in told.stdout) == (0, said), told


@ROOT_ONLY
def test_the_servers_user_cannot_exchange_the_clocks_files(daemon: Daemon) -> None:
    """It may make its own socket in the run directory; record, configuration and the clock's socket are not its to remove or write."""
    daemon.start("run", "--sim", "--run-dir", str(daemon.run_dir), "--ntp", f"127.0.0.1:{daemon.port}")
    daemon.pid("clock")
    seen = status(daemon.pid("serve"))
    user, group = seen["Uid"].split()[0], seen["Gid"].split()[0]
    as_server = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--bounding-set=-all"]
    for name in ("timescale", "refclock.toml", "clock.sock"):
        for words in (f"rm -f {name}", f"mv -f serve.sock {name}", f": >> {name}"):
            subprocess.run([*as_server, "sh", "-c", words], cwd=daemon.run_dir, capture_output=True, timeout=10, check=False)
        assert (daemon.run_dir / name).lstat().st_uid == 0
    assert subprocess.run([*as_server, "touch", "mine"], cwd=daemon.run_dir, timeout=10, check=False).returncode == 0
