"""The serve process: NTP on the network, from the record that the clock process publishes.

It only sets up the C threads (``ppsd.server``) and then sleeps: its one loop wakes for a question on ``serve.sock``, a signal, or the
watchdog. It needs no device and no privilege once the port is bound; the sockets may also be handed over by systemd (LISTEN_FDS,
sd_listen_fds(3)), and then ``server.listen`` is not looked at. Nothing here talks to the clock process: it may die, come back or never
have been there, and the threads go on with the last record, whose bound grows by its own rule, or say LI 3.

SIGTERM, SIGINT: end, 0. SIGHUP: the configuration is read again; a bad one is refused and the old one stays, one whose [server] or [log]
differs makes the addresses anew (requests wait in no queue for those milliseconds: they are lost, and NTP clients ask again).
"""

from __future__ import annotations

import errno
import json
import os
import select
import time
from pathlib import Path

from ppsd.config import Config, load, parse_endpoint
from ppsd.control import ControlServer
from ppsd.log import open_log
from ppsd.server import NtpServer
from ppsd.signals import Signals
from ppsd.supervise import notify
from refclock.config import ConfigError

FIRST_FD = 3
"""SD_LISTEN_FDS_START (sd_listen_fds(3))."""
BEAT_S = 10.0
"""Between two beats of the watchdog: the unit's WatchdogSec is at least three times that."""


def inherited_sockets() -> list[int]:
    """The UDP sockets that systemd handed to this very process; the variables are taken away so that no child believes them."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    fds = list(range(FIRST_FD, FIRST_FD + min(int(count), 32)))  # SRV_SOCKETS_MAX of native/server.h
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds


def port_holder(host: str, port: int, proc: Path = Path("/proc")) -> str:
    """Who has UDP ``port``: "chronyd (pid 412)", or "" when it is not to be seen (another user's, another network namespace)."""
    family = "udp6" if ":" in host else "udp"
    inodes: set[str] = set()
    try:
        lines = (proc / "net" / family).read_text(encoding="ascii", errors="replace").splitlines()[1:]
    except OSError:
        return ""
    for line in lines:  # "sl local_address rem_address ... inode": proc(5), /proc/net/udp
        words = line.split()
        if len(words) > 9 and int(words[1].rpartition(":")[2], 16) == port:
            inodes.add(f"socket:[{words[9]}]")
    for directory in proc.glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) in inodes for fd in (directory / "fd").iterdir()):
                return f"{(directory / 'comm').read_text(encoding='utf-8', errors='replace').strip()} (pid {directory.name})"
        except OSError:  # not ours to see, or it ended
            continue
    return ""


def open_server(config: Config, run_dir: Path, fds: list[int]) -> NtpServer:
    """The server of ``config``, listening but not started. OSError: which address, why, who has it, what to do."""
    addresses = [] if fds else [a for text in config.server.listen if (a := parse_endpoint(text)) is not None]
    try:
        return NtpServer(run_dir / "timescale", addresses, config.server.threads, fds)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            holders = {holder for host, port in addresses if (holder := port_holder(host, port))}
            if holders:
                raise OSError(errno.EADDRINUSE, f"{error.strerror}; held by {', '.join(sorted(holders))}") from error
        raise


class Serve:
    """One run of the server under one configuration."""

    def __init__(self, config: Config, run_dir: Path, fds: list[int], started_s: float) -> None:
        self._started_s = started_s
        self.log = open_log(config.log.format, config.log.level, "serve")
        self._activated = bool(fds)
        self._server = open_server(config, run_dir, fds)
        try:
            self._control = ControlServer(run_dir / "serve.sock", self._answer)
        except OSError:
            self._server.close()
            raise
        self._server.start()
        self.addresses = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self._server.bound_addresses]
        self.log.info("serving", addresses=", ".join(self.addresses))
        notify(f"READY=1\nSTATUS=serving NTP on {', '.join(self.addresses)}")

    def _answer(self, line: str) -> str:
        if line != "snapshot":
            return json.dumps({"error": f"unknown verb {line[:32]!r}; known: snapshot"})
        return json.dumps(
            {
                "pid": os.getpid(),
                "uptime_s": time.monotonic() - self._started_s,
                "addresses": self.addresses,
                "socket_activated": self._activated,
                "counters": self._server.counters(),
            }
        )

    def wait(self, signals: Signals, until_s: float | None) -> None:
        """Answer questions until a signal came or ``until_s`` (time.monotonic) has come."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(signals.wake, select.POLLIN)
        while until_s is None or time.monotonic() < until_s:
            pause_s = BEAT_S if until_s is None else max(0.0, min(BEAT_S, until_s - time.monotonic()))
            ready = {fd for fd, _ in poll.poll(pause_s * 1000)}
            if self._control.fileno() in ready:
                self._control.handle_ready()
            notify("WATCHDOG=1")
            if signals.wake in ready:
                signals.drain()
                return

    def close(self) -> None:
        """Give up addresses and socket."""
        self._control.close()
        self._server.close()


def main(config: Config, run_dir: Path, simulated: bool, duration_s: float | None) -> int:
    """Serve until told to stop, or for ``duration_s``; 0. OSError when an address or the control socket cannot be had.

    ``simulated`` changes nothing here: a simulated record says so itself.
    """
    del simulated
    started_s = time.monotonic()
    until_s = None if duration_s is None else started_s + duration_s
    signals = Signals()
    run_dir.mkdir(parents=True, exist_ok=True)
    fds = inherited_sockets()
    serve = Serve(config, run_dir, fds, started_s)
    try:
        while not signals.stop and (until_s is None or time.monotonic() < until_s):
            serve.wait(signals, until_s)
            if signals.reload and not signals.stop:
                signals.reload = False
                renewed = _reread(config, serve)
                if (renewed.server, renewed.log) != (config.server, config.log):
                    serve.close()
                    try:
                        serve = Serve(renewed, run_dir, fds, started_s)
                    except OSError as error:
                        serve = Serve(config, run_dir, fds, started_s)
                        serve.log.error("configuration refused, the old one stays", problem=error.strerror)
                        continue
                config = renewed
    finally:
        notify("STOPPING=1")
        serve.close()
    return 0


def _reread(config: Config, serve: Serve) -> Config:
    """The configuration as it is now on disk; ``config`` when that is bad."""
    try:
        return load(Path(config.file) if config.file else None)
    except ConfigError as error:
        for problem in error.problems:
            serve.log.error("configuration refused, the old one stays", problem=str(problem))
        return config
