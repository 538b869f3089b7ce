"""Around the serve process alone: a record that says what this machine's clock says, two namespaces joined by a cable, sockets in any of
them, packets from any number of addresses. Run as a program it makes sockets for its parent, or floods (see ``_main``)."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peers import PYTHON, REFCLOCK, Network, Processes, snapshot, wait_for
from records import true_record

from ppsd.process.control import ask as control_ask
from refclock.kernel.timescale import TimescaleWriter
from refclock.sample import NS

ROOT = Path(__file__).parents[2]
ERA_S = 2_208_988_800
"""1900 to 1970 (RFC 5905 figure 4)."""
IP_PKTINFO = 8
"""linux/in.h; Python 3.11 does not name it."""
SO_RCVBUFFORCE = 33
"""asm-generic/socket.h."""
NO_CLOCK = ["setpriv", "--bounding-set", "-sys_time", "--inh-caps", "-sys_time"]
"""Before a command: whatever it tries, it cannot set a clock."""
SECRETS = {
    "AES128": (1, bytes(range(16))),
    "AES256": (2, bytes(range(32, 64))),
    "SHA256": (3, bytes(range(64, 96))),
    "SHA1": (4, bytes(range(96, 116))),
    "MD5": (5, bytes(range(116, 132))),
}
LOOPBACK = ("127.0.0.1", 123)
OPEN_HOUSE = '[server]\nlisten = ["127.0.0.1:123"]\nthreads = 2\n[limits]\nrate = 0\n'
"""Loopback only, no limit."""
Address = tuple[str, int]


class Server:
    """One serve process of its own, in the network of ``processes``."""

    def __init__(self, processes: Processes, config: str) -> None:
        self.processes = processes
        self.run_dir, self.file = processes.directory / "run", processes.directory / "refclock.toml"
        self.run_dir.mkdir()
        self.configure(config)
        self._writer = TimescaleWriter(self.run_dir / "timescale")
        self.publish()
        self.process = self.start()

    def configure(self, config: str) -> None:
        self.file.write_text(config, encoding="utf-8")

    def publish(self, **changes: Any) -> None:
        self._writer.publish(true_record(**changes))

    def start(self) -> subprocess.Popen[bytes]:
        process = self.processes.start("serve", [*REFCLOCK, "serve", "--config", str(self.file), "--run-dir", str(self.run_dir)])
        wait_for("the server answers", lambda: process.poll() is not None or snapshot(self.run_dir, "serve.sock"), 20)
        assert process.poll() is None, self.log()
        return process

    def close(self) -> None:
        self._writer.close()

    def log(self) -> str:
        return self.processes.output("serve")

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def pause(self) -> None:
        """SIGSTOP, and back when every thread has stopped; SIGCONT goes on."""
        self.signal(signal.SIGSTOP)
        tasks = list(Path(f"/proc/{self.process.pid}/task").iterdir())
        wait_for("stopped", lambda: all((task / "stat").read_text().rpartition(") ")[2][0] == "T" for task in tasks), 5)

    def reload(self, config: str, told: str) -> None:
        """SIGHUP with ``config`` on disk; back when the log has one more line with ``told``."""
        before = self.log().count(told)
        self.configure(config)
        self.signal(signal.SIGHUP)
        wait_for(told, lambda: self.log().count(told) > before, 10)

    def counters(self) -> dict[str, dict[str, int]]:
        seen = snapshot(self.run_dir, "serve.sock")
        assert seen is not None, "the server does not answer on its socket"
        counters: dict[str, dict[str, int]] = seen["counters"]  # type: ignore[assignment]
        return counters

    def taken(self) -> int:
        """Packets that came to any end: counted, or dropped by the kernel."""
        counters = self.counters()
        return sum(sum(by.values()) for action, by in counters.items() if action != "server") + counters["server"]["kernel_drops"]

    def clients(self) -> dict[str, dict[str, Any]]:
        """What ``refclock clients --json`` says, by address."""
        told = self.processes.run([*REFCLOCK, "clients", "--json", "-n", "1000", "--run-dir", str(self.run_dir)])
        assert told.returncode == 0, told.stderr
        return {client["address"]: client for client in json.loads(told.stdout)["clients"]}

    def known(self) -> int:
        """How many clients are in the table."""
        return int(control_ask(self.run_dir / "serve.sock", "clients 1")["known"])

    def rss(self) -> int:
        """Resident memory, bytes."""
        words = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()
        return int(words[1]) * os.sysconf("SC_PAGESIZE")


# ---- networks ---------------------------------------------------------------------------------------------------------------------


class Beside(Network):
    """One more namespace of whoever owns the first."""

    def __init__(self, of: Network) -> None:
        self.of = of
        self.holder = subprocess.Popen(
            [*of.enter, "unshare", "-n", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000"], stdout=subprocess.PIPE, text=True
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "up\n", "a second network namespace cannot be made here (unshare -n)"
        self.enter = [str(self.holder.pid) if word == str(of.holder.pid) else word for word in of.enter]


class Neighbour(Beside):
    """A second namespace, joined to the first by a cable: s0 there, c0 here. Addresses 10.77.0.1, .2, fd77::1, ::2 there, .9, ::9 here."""

    def __init__(self, of: Network) -> None:
        super().__init__(of)
        there(self.of, f"ip link add s0 type veth peer name c0 netns {self.holder.pid}")
        for address in ("10.77.0.1/24", "10.77.0.2/24", "fd77::1/64 nodad", "fd77::2/64 nodad"):
            there(self.of, f"ip address add {address} dev s0")
        for address in ("10.77.0.9/24", "fd77::9/64 nodad"):
            there(self, f"ip address add {address} dev c0")
        there(self.of, "ip link set s0 up")
        there(self, "ip link set c0 up")

    def delay(self, milliseconds: int) -> bool:
        """A slow cable; False: this kernel has no netem."""
        return all(
            subprocess.run(
                [*net.enter, "tc", "qdisc", "add", "dev", device, "root", "netem", "delay", f"{milliseconds}ms"],
                capture_output=True, timeout=10, check=False,
            ).returncode == 0
            for net, device in ((self.of, "s0"), (self, "c0"))
        )  # fmt: skip


class OtherBox(Beside):
    """A namespace that has 10.77.0.1 too, and a cable of its own to the neighbour, whose requests go here after ``take_over``."""

    def __init__(self, neighbour: Neighbour) -> None:
        super().__init__(neighbour)
        there(neighbour, f"ip link add c1 type veth peer name s0 netns {self.holder.pid}")
        there(neighbour, "ip address add 10.78.0.9/24 dev c1")
        for address in ("10.78.0.1/24 dev s0", "10.77.0.1/32 dev lo"):
            there(self, f"ip address add {address}")
        there(neighbour, "ip link set c1 up")
        there(self, "ip link set s0 up")

    def take_over(self) -> None:
        """From now on 10.77.0.1 is this box for the neighbour."""
        there(self.of, "ip route add 10.77.0.1/32 via 10.78.0.1")


class Lan:
    """The server's network, its neighbour's, and sockets of the latter."""

    def __init__(self, network: Processes, directory: Path) -> None:
        assert network.network is not None
        self.here = network.network
        self.neighbour = Neighbour(self.here)
        self.sockets = Sockets(self.neighbour)
        directory.mkdir()
        self.clients = Processes(directory)
        self.clients.network = self.neighbour

    def close(self) -> None:
        self.clients.close()
        self.sockets.close()
        self.neighbour.close()


def there(network: Network, command: str) -> str:
    """Run a command in a namespace; what it says. Fails the test when it fails."""
    done = subprocess.run([*network.enter, *command.split()], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


class Sockets:
    """UDP sockets that belong to a namespace, used from here: a process inside makes them and hands them out."""

    def __init__(self, network: Network) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*network.enter, PYTHON, __file__, "sockets", str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self._ours.settimeout(20)
        self._made: list[socket.socket] = []

    def open(self, host: str = "0.0.0.0", port: int = 0, timeout: float = 3.0) -> socket.socket:
        """Bound there; tells the address that packets came to (``receive``) and may send broadcasts."""
        self._ours.send(json.dumps([host, port]).encode())
        data, fds, _, _ = socket.recv_fds(self._ours, 256, 1)
        assert fds, f"a socket at {host} port {port}: {data.decode()}"
        made = socket.socket(fileno=fds[0])
        made.settimeout(timeout)
        self._made.append(made)
        return made

    def close(self) -> None:
        for made in self._made:
            made.close()
        self._ours.close()
        self._process.wait(10)


def send_from(sock: socket.socket, source: str, to: Address, data: bytes) -> None:
    """From any local IPv4 address, whatever the socket is bound to (ip(7), IP_PKTINFO)."""
    sock.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 0, socket.inet_aton(source), bytes(4)))], 0, to)


def receive(sock: socket.socket) -> tuple[bytes, str, Address]:
    """(packet, IPv4 address it was sent to, where it is from)"""
    data, ancillary, _, source = sock.recvmsg(2048, 64)
    for _, _, control in ancillary:
        return data, socket.inet_ntoa(control[8:12]), (source[0], source[1])
    return data, "", (source[0], source[1])


def drain(sock: socket.socket, quiet: float) -> list[tuple[bytes, str]]:
    """Everything that comes until nothing has come for ``quiet`` s: (packet, address it was sent to)."""
    found = []
    while select.select([sock], [], [], quiet)[0]:
        data, to, _ = receive(sock)
        found.append((data, to))
    return found


def request(first: int = 0x23, cookie: bytes | None = None, more: bytes = b"") -> bytes:
    """48 octets, all zero but the first and transmit, and what follows."""
    return bytes([first]) + bytes(39) + (os.urandom(8) if cookie is None else cookie) + more


def ask(sock: socket.socket, to: tuple[Any, ...], data: bytes | None = None) -> tuple[bytes, str]:
    """The reply to one request, which echoes our transmit, and the address that it came from. TimeoutError: silence."""
    data = request() if data is None else data
    sock.sendto(data, to)
    while True:
        reply, source = sock.recvfrom(2048)
        if reply[24:32] == data[40:48]:
            return reply, source[0]


def served_ns(reply: bytes) -> int:
    """Receive timestamp as ns since 1970 (of NTP's first era)."""
    stamp = int.from_bytes(reply[32:40], "big")
    return ((stamp >> 32) - ERA_S) * NS + ((stamp & 0xFFFFFFFF) * NS >> 32)


Serving = Callable[[str], Server]
"""Starts a server with that configuration."""

# ---- programs ---------------------------------------------------------------------------------------------------------------------


def ntpsec_programs() -> tuple[str, str]:
    """ntpd and ntpq of ntpsec, installed or unpacked by ``make peers``."""
    found, unpacked = shutil.which("ntpd"), ROOT / "build" / "peers" / "ntpsec"
    if found and "ntpsec" in subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout:
        return found, shutil.which("ntpq") or "ntpq"
    assert (unpacked / "usr/sbin/ntpd").exists(), "no ntpd of ntpsec: run make peers"
    return str(unpacked / "usr/sbin/ntpd"), str(unpacked / "usr/bin/ntpq")


def chronyd(
    processes: Processes,
    name: str,
    *lines: str,
    preload: Mapping[str, str] | None = None,
    steer: bool = False,
    program: Sequence[str] = ("chronyd",),
) -> Path:
    """A chronyd -x with its own directory and command socket. ``preload``: environment in which it sees simulated devices, or a clock that
    it may ``steer``. ``program``: another one than the installed."""
    directory = processes.directory / name
    directory.mkdir(mode=0o750)
    common = [f"bindcmdaddress {directory}/chronyd.sock", "cmdport 0", "port 0", f"pidfile {directory}/chronyd.pid"]
    (directory / "chrony.conf").write_text("\n".join([*lines, *common, ""]), encoding="utf-8")
    processes.start(
        name,
        [*NO_CLOCK, *program, *([] if steer else ["-x"]), "-d", "-u", "root", "-f", str(directory / "chrony.conf")],
        **(preload or {}),
    )
    return directory


def chronyc(processes: Processes, directory: Path, *command: str) -> str:
    return processes.run(["chronyc", "-n", "-h", str(directory / "chronyd.sock"), *command]).stdout


def secret_file(path: Path, lines: Iterable[str]) -> Path:
    """A key file that nobody else may read."""
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    path.chmod(0o600)
    return path


def key_lines(form: str) -> list[str]:
    """The same keys as chrony writes them (chrony.keys(5)) and as ntp does (ntp.keys(5))."""
    names = {"AES128": "AES-128", "AES256": "AES-256"} if form == "ntp" else {}
    prefix = "" if form == "ntp" else "HEX:"
    return [f"{number} {names.get(kind, kind)} {prefix}{secret.hex()}" for kind, (number, secret) in SECRETS.items()]


def keyed(config: str, keys: Path) -> str:
    return f'{config}[keys]\nfile = "{keys}"\nweak = true\n'


# ---- as a program -----------------------------------------------------------------------------------------------------------------


def _hand_out(fd: int) -> None:
    with socket.socket(fileno=fd) as channel:
        while asked := channel.recv(256):
            host, port = json.loads(asked)
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as made:
                try:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                    if family == socket.AF_INET:
                        made.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
                    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE if os.geteuid() == 0 else socket.SO_RCVBUF, 8 << 20)
                    made.bind((host, port))
                except OSError as error:
                    channel.send(str(error).encode())
                    continue
                socket.send_fds(channel, [b"made"], [made.fileno()])


def _flood(source: str, host: str, port: int, rate: float, seconds: float) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.bind((source, 0))
        out.connect((host, port))
        data, began, sent = request(), time.monotonic(), 0
        while (gone := time.monotonic() - began) < seconds:
            if sent > gone * rate:
                time.sleep(0.0005)
                continue
            for _ in range(20):
                out.send(data)
            sent += 20
    return sent


def _main(words: list[str]) -> None:
    """``sockets FD`` or ``flood SOURCE HOST PORT RATE SECONDS``"""
    if words[0] == "sockets":
        _hand_out(int(words[1]))
    else:
        print(_flood(words[1], words[2], int(words[3]), float(words[4]), float(words[5])))


if __name__ == "__main__":
    _main(sys.argv[1:])
