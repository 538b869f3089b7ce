"""The servers that `make bench-server` and `make bench-nts` compare: ours, chronyd and the ceiling, each started on its core with its
configuration."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refclock.kernel.clocks import Reading, read_clocks
from refclock.kernel.timescale import TimescaleWriter
from refclock.record import Record
from refclock.sample import NS

BUILD = Path(__file__).parents[2] / "build" / "bench"
TAI_OFFSET_S = 37
KEY_ID, KEY = 7, "00112233445566778899aabbccddeeff"
SERVER_CORE, LOAD_CORE = 0, 1

PPSD = [sys.executable, "-m", "ppsd"]
OURS_CONFIG = """
[server]
listen = ["{host}:{port}"]
[keys]
file = "{directory}/keys"
[run]
directory = "{directory}"
state = "{directory}"
user = "0"
[log]
level = "warning"
{limits}
"""
OURS_LIMITS = "[limits]\nrate = 2000000.0\nburst = 1000000\n"
"""On, and the load within it."""
CHRONY_CONFIG = """
port {port}
cmdport 0
bindcmdaddress {directory}/cmd.sock
pidfile {directory}/chronyd.pid
keyfile {directory}/keys
local stratum 1
allow 127.0.0.0/8
{limits}
"""
CHRONY_LIMITS = "ratelimit interval -19 burst 255 leak 1"
"""The highest rate that it knows, 524288/s."""
CHRONY_FLOOD_LIMITS = "ratelimit interval 1 burst 16 leak 2"


def fifo_allowed() -> bool:
    """Whether SCHED_FIFO can be had."""
    return subprocess.run(["chrt", "-f", "10", "true"], capture_output=True, check=False).returncode == 0


def on_core(core: int, priority: int = 10) -> list[str]:
    """The words before a command that runs there."""
    return [*(["chrt", "-f", str(priority)] if FIFO else []), "taskset", "-c", str(core)]


FIFO = shutil.which("chrt") is not None and fifo_allowed()


def hold_core() -> None:
    """Keep this process on the load's core. SystemExit: there are no two."""
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise SystemExit("needs two cores")
    os.sched_setaffinity(0, {LOAD_CORE})


def free_port(*, tcp: bool = False) -> int:
    """A port that nobody has on any address; of UDP unless told otherwise."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
        s.bind(("0.0.0.0", 0))
        return int(s.getsockname()[1])


def rss_mib(pid: int) -> float:
    """VmRSS."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    """Processor time of a process, all its threads, and of its children, s."""
    total_ns, tasks = 0, list(Path(f"/proc/{pid}/task").iterdir())
    for task in tasks:
        total_ns += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    children = [int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]
    return total_ns / NS + sum(map(cpu_s, children))


# ---- the servers ------------------------------------------------------------------------------------------------------------------


class Clock:
    """What is served: CLOCK_REALTIME as it runs against CLOCK_MONOTONIC_RAW since this was made."""

    def __init__(self) -> None:
        self._first = read_clocks()
        self._writers: list[TimescaleWriter] = []
        self._last = self._first
        self._rate = 0.0

    def serve(self, path: Path) -> None:
        """One more record file."""
        self._writers.append(TimescaleWriter(path))
        self.publish()

    def publish(self) -> None:
        """Renew all records."""
        now = read_clocks()
        if now.raw_ns > self._first.raw_ns + NS:
            self._rate = (now.real_ns - self._first.real_ns) / (now.raw_ns - self._first.raw_ns) - 1
        self._last = now
        for writer in self._writers:
            writer.publish(self._record(now))

    def error_ns(self) -> float:
        """The record in force minus CLOCK_REALTIME, now: how far the comparison of stamps can be believed."""
        now: Reading = read_clocks()
        return self._last.real_ns - now.real_ns + (now.raw_ns - self._last.raw_ns) * (1 + self._rate)

    def _record(self, now: Reading) -> Record:
        return Record(
            raw_ns=now.raw_ns,
            tai_ns=now.real_ns + TAI_OFFSET_S * NS,
            rate=self._rate,
            bound_ns=1e6,
            bound_rate=1e-6,
            bound_wander_ns=0.0,
            root_delay_ns=0,
            reference_raw_ns=now.raw_ns,
            valid_until_raw_ns=now.raw_ns + 3600 * NS,
            leap_tai_ns=0,
            leap_step_s=0,
            tai_offset_s=TAI_OFFSET_S,
            refid=int.from_bytes(b"GPS\0", "big"),
            precision=-24,
            stratum=1,
            simulated=False,
        )


@dataclass(frozen=True, slots=True)
class Server:
    """One running server."""

    name: str
    port: int
    pid: int
    config: Path | None = None

    def command(self, *options: object, priority: int = 10) -> list[str]:
        """ntpload against it."""
        words = [*on_core(LOAD_CORE, priority), str(BUILD / "ntpload"), "--port", str(self.port), "--pid", str(self.pid)]
        return [*words, *(str(option) for option in options)]

    def load(self, *options: object) -> dict[str, Any]:
        """What ntpload says."""
        done = subprocess.run(self.command(*options), check=True, capture_output=True, timeout=60)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def clean_load(self, *options: object) -> dict[str, Any]:
        """The same, when every request must be answered, and properly."""
        run = self.load(*options)
        if not run["sent"] == run["valid"] > 0:
            raise SystemExit(f"{self.name}: not every request was answered: {run}")
        return run


def await_answer(name: str, port: int, process: subprocess.Popen[bytes]) -> None:
    """Until the server says a stratum."""
    request = bytes([4 << 3 | 3]) + bytes(39) + b"\1\2\3\4\5\6\7\1"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.2)
            s.connect(("127.0.0.1", port))
            try:
                s.send(request)
                if s.recv(512)[1] == 1:
                    return
            except OSError:
                time.sleep(0.1)
    raise SystemExit(f"{name} does not serve the time")


@contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process on core 0, until the end of the block."""
    process = subprocess.Popen([*on_core(SERVER_CORE), *words], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@contextmanager
def running(name: str, words: list[str], port: int, config: Path | None = None) -> Iterator[Server]:
    """A server of ``config``, until the end of the block."""
    with started(words) as process:
        await_answer(name, port, process)
        yield Server(name, port, process.pid, config)


class Zoo:
    """All the servers, each in a directory of its own."""

    def __init__(self, stack: ExitStack, clock: Clock, directory: Path) -> None:
        self._stack, self._clock, self._directory = stack, clock, directory

    def _place(self, name: str) -> Path:
        place = self._directory / name.replace(", ", "-")
        place.mkdir(mode=0o750)
        keys = place / "keys"
        keys.write_text(f"{KEY_ID} AES128 HEX:{KEY}\n", encoding="ascii")
        keys.chmod(0o640)
        return place

    def ours(self, name: str, host: str = "127.0.0.1", limits: str = OURS_LIMITS) -> Server:
        """``python -m ppsd serve``."""
        place, port = self._place(name), free_port()
        config = place / "refclock.toml"
        config.write_text(OURS_CONFIG.format(host=host, port=port, directory=place, limits=limits), encoding="ascii")
        self._clock.serve(place / "timescale")
        return self._stack.enter_context(running(name, [*PPSD, "serve", "--config", str(config)], port, config))

    def key_server(self, ours: Server) -> int:
        """``python -m ppsd nts-ke`` beside a server of ours: its process."""
        return self._stack.enter_context(started([*PPSD, "nts-ke", "--config", str(ours.config)])).pid

    def chrony(self, name: str, host: str = "127.0.0.1", limits: str = CHRONY_LIMITS) -> Server:
        """chronyd; it is on the wildcard address unless told otherwise."""
        place, port = self._place(name), free_port()
        bind = f"bindaddress {host}\n" if host != "0.0.0.0" else ""
        config = place / "chrony.conf"
        config.write_text(bind + CHRONY_CONFIG.format(port=port, directory=place, limits=limits), encoding="ascii")
        words = ["chronyd", "-4", "-x", "-d", "-L", "2", "-u", "root", "-f", str(config)]
        return self._stack.enter_context(running(name, words, port, config))

    def ceiling(self, name: str) -> Server:
        """udpceiling."""
        port = free_port()
        return self._stack.enter_context(running(name, [str(BUILD / "udpceiling"), str(port)], port))
