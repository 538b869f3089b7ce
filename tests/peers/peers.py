"""Real programs around refclock: a network of their own, processes that end with the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

PYTHON = sys.executable
T = TypeVar("T")
REFCLOCK = [PYTHON, "-m", "ppsd"]


PATIENCE = 3.0
"""Times as long as on a quiet machine a test waits: how fast something is, the benches print, and no test asserts."""


def wait_for(what: str, look: Callable[[], T | None], seconds: float) -> T:
    """What ``look`` returns as soon as it is true; fails the test when it takes PATIENCE times the ``seconds`` of a quiet machine."""
    end = time.monotonic() + PATIENCE * seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {PATIENCE * seconds} s: {what}")


def free_port() -> int:
    """A UDP port of 127.0.0.1 that nobody has at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Network:
    """A network namespace with a loopback of its own, where port 123 is free, and System V shared memory of its own. Needs no root."""

    def __init__(self) -> None:
        user = [] if os.geteuid() == 0 else ["-r"]
        self.holder = subprocess.Popen(
            ["unshare", *user, "-n", "-i", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000"], stdout=subprocess.PIPE, text=True
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "up\n", "a network namespace cannot be made here (unshare -n)"
        self.enter = ["nsenter", "-t", str(self.holder.pid), *(["-U", "--preserve-credentials"] if user else []), "-n", "-i"]

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()
        assert self.holder.stdout is not None
        self.holder.stdout.close()


class Processes:
    """Processes that are killed when the test ends; their output goes to files in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network: Network | None = None
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, words: list[str], **environment: str) -> subprocess.Popen[bytes]:
        inside = self.network.enter if self.network is not None else []
        with (self.directory / f"{name}.out").open("ab") as out:
            process = subprocess.Popen(
                [*inside, *words], stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=os.environ | environment, start_new_session=True
            )
        self._running.append(process)
        return process

    def output(self, name: str) -> str:
        return (self.directory / f"{name}.out").read_text(encoding="utf-8", errors="replace")

    def run(self, words: list[str], seconds: float = 20.0) -> subprocess.CompletedProcess[str]:
        """A command to its end, in the same network."""
        inside = self.network.enter if self.network is not None else []
        return subprocess.run([*inside, *words], capture_output=True, text=True, timeout=seconds, check=False)

    def close(self) -> None:
        for process in reversed(self._running):
            if process.poll() is None:
                try:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait(3)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                except ProcessLookupError:
                    process.wait()


def let_others_in(directory: Path) -> None:
    """Let other users reach what is in ``directory``."""
    mode = directory.stat().st_mode
    if mode & 0o011 != 0o011:
        directory.chmod(mode & 0o7777 | 0o011)
    if directory != directory.parent:
        let_others_in(directory.parent)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Instead of pytest's, a short one: programs of others make sockets in it, whose paths have at most 107 octets (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Processes on the host's loopback."""
    all_of_them = Processes(tmp_path)
    yield all_of_them
    all_of_them.close()


@pytest.fixture
def network(processes: Processes) -> Iterator[Processes]:
    """Processes in a network namespace of their own."""
    processes.network = Network()
    yield processes
    processes.close()
    processes.network.close()


def snapshot(run_dir: Path, socket_name: str = "clock.sock") -> dict[str, object] | None:
    """The JSON that a process answers on its control socket; None when it does not."""
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(1.0)
            s.connect(str(run_dir / socket_name))
            s.sendall(b"snapshot\n")
            data = b""
            while not data.endswith(b"\n"):
                more = s.recv(65536)
                if not more:
                    break
                data += more
    except OSError:
        return None
    answer = json.loads(data) if data else None
    return answer if isinstance(answer, dict) else None


def locked(run_dir: Path) -> bool:
    """The clock process there says LOCKED."""
    seen = snapshot(run_dir)
    return seen is not None and seen["verdict"] == "LOCKED"


def ask_ntp(port: int, host: str = "127.0.0.1", seconds: float = 1.0) -> bytes | None:
    """One plain NTPv4 request; the reply or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(seconds)
        s.sendto(bytes([0x23]) + bytes(39) + os.urandom(8), (host, port))
        try:
            return s.recv(1024)
        except OSError:
            return None
