"""Our clock and chronyd steered by one NTP server alone, in the same simulated network: `make bench-upstreams CLKNETSIM=DIRECTORY`.

Needs clknetsim (mlichvar/clknetsim, built in DIRECTORY). Scenarios are those of chrony's own simulation tests (its test/simulation: 001,
006, 011, 125), and noise of other sizes. Node 1 is chronyd, stratum 1 with a perfect clock. Node 2 is chronyd with its default settings.
Node 3 speaks clknetsim's protocol (its protocol.h) itself: the association asks, the engine hears, and what the engine publishes is read
once a second. Both clients have the same crystal, and delays drawn from the same distributions. A run is 10000 s; its beginning, until
when chrony's tests allow a client to settle (max_sync_time), is not judged.

* rms, max: of the error of chronyd's system clock, and of our published map, against the simulator's time, over all seeds;
* asked: requests in a run; beyond: seconds at which our error was larger than our published bound.

    python tests/bench/upstreams.py DIRECTORY [--seeds 10] [--first-seed 700] [--only lan-10us,loss] [--keep]
"""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from random import Random

from clknetsim import arguments

from ppsd.config.tables import ClockConfig, Config, ServerUpstream
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Publish, Ticked, UpstreamHeard
from ppsd.discipline.saved import Saved
from ppsd.ntp.association import Association, Measurement, Polling
from refclock.record import Record
from refclock.sample import NS, ForeignSample, Instant, UpstreamServer

HERE = Path(__file__).parent
LENGTH_S = 10_000
EPOCH_S = 1_772_323_200
"""POSIX time of the simulator's zero: 2026-03-01, far from any leap second."""
EPOCH_NS = EPOCH_S * NS
RUN_S = 60.0
"""A run takes five."""
SERVER = "pidfile {directory}/pid1\ncmdport 0\nbindcmdaddress /\nallow\nlocal stratum 1\n"
CLIENT = "pidfile {directory}/pid2\ncmdport 0\nbindcmdaddress /\ndeny\nserver 192.168.123.1\n"
CLIENTS = 2, 3
OURS = 3


@dataclass(frozen=True, slots=True)
class Net:
    """A path and a crystal. ``base_s``: delay each way; ``jitter_s``: mean of what is added, exponential; ``up``, ``down``: factors on that
    to and from the server; ``lost``: share of packets. ``wander``: random walk of the frequency, 1/sqrt(s). ``settled_s``: when judging
    begins."""

    base_s: float = 1e-4
    jitter_s: float = 1e-4
    up: float = 1.0
    down: float = 1.0
    lost: float = 0.0
    wander: float = 1e-9
    settled_s: int = 210

    def delay(self, factor: float) -> str:
        """As clknetsim writes it. A negative delay is a lost packet."""
        lost = f"(* -1 (equal {self.lost} (uniform) 1.0))" if self.lost else ""
        return f"(+ {self.base_s} {lost} (* {factor} {self.jitter_s} (exponential)))"

    def lines(self, crystal: Path) -> Iterator[str]:
        """The simulator's configuration."""
        for client in CLIENTS:
            yield f'node{client}_freq = (file "{crystal}")'
            yield f"node{client}_offset = 0.1"
            yield f"node{client}_shift_pll = 2"
            yield f"node{client}_delay1 = {self.delay(self.up)}"
            yield f"node1_delay{client} = {self.delay(self.down)}"


NETS = {
    "lan-10us": Net(jitter_s=1e-5),
    "lan-100us": Net(),
    "wan-1ms": Net(base_s=1e-2, jitter_s=1e-3),
    "wan-10ms": Net(base_s=1e-2, jitter_s=1e-2),
    "asymmetric": Net(jitter_s=5e-4, up=0.06, down=1.94, settled_s=2000),
    "loss": Net(jitter_s=1e-5, lost=0.3, settled_s=2000),
    "wander": Net(wander=1e-7),
}


class Simulator:
    """A node's side of clknetsim's protocol. Everything is in seconds."""

    REGISTER, GETTIME, SELECT, SEND, RECV = 1, 2, 6, 7, 8
    TIMES = struct.Struct("=5d")
    """Real, monotonic, raw, and true time, and the error of the frequency."""
    WAITED = struct.Struct("=i4I4x")
    TIMEOUT, NORMAL, _, TERMINATE = range(4)

    def __init__(self, path: Path, node: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for _ in range(200):
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                time.sleep(0.05)
        self._ask(self.REGISTER, struct.pack("=I", node - 1), True)

    def _ask(self, what: int, data: bytes, answered: bool) -> bytes:
        self._socket.send(struct.pack("=ii", what, 0) + data)
        return self._socket.recv(8192) if answered else b""

    def time(self) -> tuple[Instant, int]:
        """Our clocks, and the true UTC (ns)."""
        return self._times(self._ask(self.GETTIME, struct.pack("=I", 0), True))

    def _times(self, data: bytes) -> tuple[Instant, int]:
        real, _, raw, true, _ = self.TIMES.unpack(data)
        return Instant(EPOCH_NS + round(real * NS), NS + round(raw * NS)), EPOCH_NS + round(true * NS)

    def wait(self, timeout_s: float) -> int | None:
        """Until a packet comes or time is up; None at the end."""
        data = self._ask(self.SELECT, struct.pack("=dii", timeout_s, 1, 0), True)
        found = int(self.WAITED.unpack_from(data)[0])
        return None if found == self.TERMINATE or not data else found

    def send(self, node: int, data: bytes) -> None:
        """An NTP packet to ``node``."""
        self._ask(self.SEND, struct.pack("=6I", 1, 0, node - 1, 40_000, 123, len(data)) + data, False)

    def close(self) -> None:
        """Leave the simulation."""
        self._socket.close()

    def receive(self) -> bytes:
        """The packet that came."""
        return self._ask(self.RECV, b"", True)[24:]


@dataclass
class Ours:
    """Our client. ``errors``: true UTC - published, ns, a value a second; ``beyond``: how many of them exceeded their bound."""

    simulator: Simulator
    settled_s: int
    seed: int

    def __post_init__(self) -> None:
        self.errors: list[float] = []
        self.beyond = self.asked = 0
        self._record: Record | None = None
        self._chance = Random(self.seed)
        at, _ = self.simulator.time()
        clock = ClockConfig(upstreams="only", not_before=date(2009, 1, 1))
        table = ServerUpstream(name="ntp0", host="192.0.2.1")
        self._polling = Polling(table.minpoll, table.maxpoll, table.iburst)
        config = replace(Config(), clock=clock, upstreams=(table,))
        self._engine = Engine(config, Saved(), at, simulated=False, version="", pid=0)
        self._association = Association(self._polling, at.mono_ns)
        self._sent = at
        self._told: Measurement | None = None

    def run(self) -> None:
        """Until the simulator ends."""
        second = 1
        while True:
            at, true_ns = self.simulator.time()
            if true_ns >= EPOCH_NS + second * NS:
                second += 1
                self._second(at, true_ns)
            due_ns = self._association.due_ns
            assert due_ns is not None
            if due_ns <= at.mono_ns:
                self._request(at)
                continue
            wait_ns = min(due_ns - at.mono_ns, round((EPOCH_NS + second * NS - true_ns) * 1.001) + 1000)
            found = self.simulator.wait(wait_ns / NS)
            if found is None:
                return
            if found == Simulator.NORMAL:
                self._reply(self.simulator.receive())

    def _request(self, at: Instant) -> None:
        self.asked += 1
        self._sent = at
        self.simulator.send(1, self._association.request(at.mono_ns, self._chance.getrandbits(64) | 1))
        self._hear(at, None)

    def _reply(self, data: bytes) -> None:
        at, _ = self.simulator.time()
        found = self._association.reply(data, at.real_ns - (at.mono_ns - self._sent.mono_ns), at.real_ns)
        if isinstance(found, Measurement):
            self._told = found
            middle = at.shifted(-(at.mono_ns - self._sent.mono_ns) // 2)
            self._hear(at, ForeignSample(middle, found.offset_ns, found.distance_ns, found.leap))

    def _hear(self, at: Instant, sample: ForeignSample | None) -> None:
        m, a = self._told, self._association
        numbers = (m.stratum, m.refid, m.delay_ns, m.root_delay_ns, m.dispersion_ns) if m is not None else (0, 0, 0, 0, 0)
        self._take(UpstreamHeard(UpstreamServer("ntp0", "192.0.2.1", a.reach, a.poll, *numbers, a.why), sample, at))

    def _take(self, event: UpstreamHeard | Ticked) -> None:
        for effect in self._engine.handle(event):
            if isinstance(effect, Publish):
                self._record = effect.record

    def _second(self, at: Instant, true_ns: int) -> None:
        deadline = self._engine.deadline()
        if deadline is not None and deadline <= at.mono_ns:
            self._take(Ticked(at))
        r = self._record
        if r is None or not r.stratum:
            return
        since = at.mono_ns - r.raw_ns
        served_ns = self._engine.leaps.table.tai_to_utc_ns(r.tai_ns + since + round(since * r.rate))
        bound_ns = r.bound_ns + r.bound_rate * since + r.bound_wander_ns * (since / NS) ** 1.5 + r.root_delay_ns / 2
        if true_ns - EPOCH_NS >= self.settled_s * NS:
            self.errors.append(float(true_ns - served_ns))
        self.beyond += abs(true_ns - served_ns) > bound_ns


def run(net: Net, seed: int, simulator: Path) -> tuple[list[float], int, Ours]:
    """chronyd's errors (ns) and requests, and ours."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        chance, rate = Random(f"crystal {seed}"), 1e-4
        with (directory / "crystal").open("w", encoding="ascii") as crystal:
            for _ in range(LENGTH_S + 10):
                rate += chance.gauss(0, net.wander)
                crystal.write(f"{rate:.15e}\n")
        (directory / "net").write_text("\n".join([*net.lines(directory / "crystal"), ""]), encoding="ascii")
        (directory / "1").write_text(SERVER.format(directory=directory), encoding="ascii")
        (directory / "2").write_text(CLIENT.format(directory=directory), encoding="ascii")
        lent = {"CLKNETSIM_SOCKET": str(directory / "socket"), "CLKNETSIM_RANDOM_SEED": str(seed), "CLKNETSIM_START_DATE": str(EPOCH_S)}
        preload = {"LD_PRELOAD": str(simulator / "clknetsim.so")}
        with (directory / "log").open("wb") as log:
            daemons = [
                subprocess.Popen(
                    ["chronyd", "-d", "-f", str(directory / str(node))],
                    env=os.environ | lent | preload | {"CLKNETSIM_NODE": str(node)},
                    stdout=log,
                    stderr=log,
                )
                for node in (1, 2)
            ]
            files = ["-o", str(directory / "offset"), "-p", str(directory / "packets"), "-s", str(directory / "socket")]
            words = [simulator / "clknetsim", *files, "-l", str(LENGTH_S), str(directory / "net"), "3"]
            network = subprocess.Popen(words, env=os.environ | lent, stdout=log, stderr=log)
            try:
                ours = Ours(Simulator(directory / "socket", OURS), net.settled_s, seed)
                ours.run()
                ours.simulator.close()
                network.wait(RUN_S)
            finally:
                network.kill()
                for daemon in daemons:
                    daemon.kill()
                for process in (network, *daemons):
                    process.wait()
        offsets = [float(line.split()[1]) * -1e9 for line in (directory / "offset").read_text("ascii").splitlines()[net.settled_s :]]
        packets = [line.split() for line in (directory / "packets").read_text("ascii").splitlines()]
        return offsets, sum(packet[1] == "2" for packet in packets), ours


def rms(errors: list[float]) -> float:
    """us, of ns."""
    return math.sqrt(math.fsum(e * e for e in errors) / len(errors)) / 1e3


HEAD = "| scenario | rms µs | max µs | asked | beyond | chrony rms | its max | it asked | to chrony | worst seed |\n" + "|---" * 10 + "|"


def main() -> int:
    """0; 1 when we are worse than chronyd somewhere, or were beyond our bound."""
    args, simulator, seeds = arguments("our clock and chronyd steered by the same NTP server", 10, "upstreams.json and upstreams.md")
    kept, lines = {}, [HEAD]
    print(HEAD, flush=True)
    for name in args.only.split(",") if args.only else NETS:
        runs = [run(NETS[name], seed, simulator) for seed in seeds]
        theirs, mine = [e for errors, _, _ in runs for e in errors], [e for _, _, ours in runs for e in ours.errors]
        kept[name] = found = {
            "rms_us": rms(mine),
            "max_us": max(map(abs, mine)) / 1e3,
            "asked": sum(ours.asked for _, _, ours in runs) / len(runs),
            "beyond": sum(ours.beyond for _, _, ours in runs),
            "chrony_rms_us": rms(theirs),
            "chrony_max_us": max(map(abs, theirs)) / 1e3,
            "chrony_asked": sum(asked for _, asked, _ in runs) / len(runs),
            "ratio": rms(mine) / rms(theirs),
            "worst_ratio": max(rms(ours.errors) / rms(errors) for errors, _, ours in runs),
        }
        cells = [f"{value:.3g}" for value in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    told = subprocess.run(["chronyd", "--version"], capture_output=True, text=True, check=True).stdout.split()[3]
    note = f"seeds {seeds[0]}..{seeds[-1]}, chrony {told}"
    print(f"\n{note}")
    if args.keep:
        rounded = {name: {key: float(f"{value:.6g}") for key, value in found.items()} for name, found in kept.items()}
        (HERE / "upstreams.json").write_text(json.dumps({"note": note, "scenarios": rounded}, indent=1) + "\n", encoding="utf-8")
        (HERE / "upstreams.md").write_text("\n".join([*lines, "", note, ""]), encoding="utf-8")
    return int(any(found["ratio"] > 1 or found["beyond"] for found in kept.values()))


if __name__ == "__main__":
    sys.exit(main())
