"""The NTS-KE process beside a server, and clients that know its authority."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from packet_net import Server, Serving, chronyc, chronyd
from peers import REFCLOCK, Processes, snapshot, wait_for

CONFIG = """
[server]
listen = ["127.0.0.1:123"]
threads = 1
[limits]
rate = 0
[run]
state = "{state}"
user = "0"
[nts]
enabled = true
listen = ["127.0.0.1:4460"]
names = ["time.example", "127.0.0.1"]
"""


class KeyServer:
    """The NTS-KE process beside a server, with its own authority."""

    def __init__(self, processes: Processes, server: Server) -> None:
        self.processes, self.server = processes, server
        self.authority = processes.directory / "ca.pem"
        self.process = self.start()
        told = processes.run([*REFCLOCK, "nts", "ca", "--out", str(self.authority), *self.where])
        assert told.returncode == 0, told.stderr
        self.told = told.stdout

    @property
    def where(self) -> list[str]:
        return ["--config", str(self.server.file), "--run-dir", str(self.server.run_dir)]

    def start(self) -> object:
        process = self.processes.start("nts-ke", [*REFCLOCK, "nts-ke", *self.where])
        wait_for("keys are established", lambda: process.poll() is not None or (self.report() or {}).get("until_s"), 20)
        assert process.poll() is None, self.processes.output("nts-ke")
        self.pid = process.pid
        return process

    def report(self) -> dict[str, object] | None:
        return snapshot(self.server.run_dir, "nts-ke.sock")

    def sessions(self) -> dict[str, int]:
        report = self.report()
        assert report is not None
        counts: dict[str, int] = report["sessions"]  # type: ignore[assignment]
        return counts

    def client(self, name: str, number: int, *lines: str, program: Sequence[str] = ("chronyd",)) -> Path:
        """A chronyd that knows the authority."""
        asked = ["server 127.0.0.1 nts iburst minpoll -2 maxpoll -2", f"ntstrustedcerts {self.authority}", "log measurements"]
        return chronyd(self.processes, name, *asked, f"bindacqaddress 127.0.1.{number}", *lines, program=program)


@pytest.fixture
def keys(network: Processes, serve: Serving, tmp_path: Path) -> Iterator[KeyServer]:
    """A server with NTS in a network of its own."""
    made = KeyServer(network, serve(CONFIG.format(state=tmp_path / "state")))
    yield made
    time.sleep(1.5)  # its next look
    assert "system call refused" not in network.output("nts-ke")


def established(network: Processes, client: Path, server: str = "127.0.0.1") -> str:
    """authdata of a client once it has its first keys, and eight cookies of them."""

    def look() -> str:
        told = chronyc(network, client, "authdata")
        return told if re.search(rf"{re.escape(server)} +NTS +1 +(15 +256 +\d+ +0 +0 +8 +100|30 +128 +\d+ +0 +0 +8 +68)\b", told) else ""

    return wait_for("keys and eight cookies", look, 30)
