"""The main job, end to end, through the real path: simulated bytes on a pty, pulses through /dev/ppsN, real clients."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

from peers import REFCLOCK, Processes, ask_ntp, free_port, locked, snapshot, wait_for

LOCK_SECONDS = 60.0
"""What a test waits; how fast it is on a quiet machine is printed by the bench, not asserted here."""
CHRONYD = ["chronyd", "-x", "-d", "-u", "root"]


def start_sim(processes: Processes, address: str, *more: str) -> tuple[subprocess.Popen[bytes], Path]:
    run_dir = processes.directory / "run"
    words = [*REFCLOCK, "run", "--sim", "--ntp", address, "--run-dir", str(run_dir)]
    return processes.start("refclock", [*words, *(more or ("--config", os.devnull))]), run_dir


def children(run_dir: Path) -> set[int]:
    """Every process whose command line names the run directory."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(run_dir).encode() in line and b"ppsd" in line:
                found.add(int(entry.name))
    return found


def test_sim_locks_and_ends(processes: Processes) -> None:
    """`refclock run --sim` is LOCKED, `status` says within what and exits 0, Ctrl-C ends every process with exit 0."""
    port = free_port()
    run, run_dir = start_sim(processes, f"127.0.0.1:{port}")
    early = wait_for("an answer before the lock", lambda: ask_ntp(port), 15)
    if not locked(run_dir):
        assert (early[0] >> 6, early[1], early[12:16]) in ((3, 0, b"INIT"), (0, 1, b"SIM\0"))
    wait_for("LOCKED", lambda: locked(run_dir), LOCK_SECONDS)
    status = processes.run([*REFCLOCK, "status", "--run-dir", str(run_dir)])
    assert status.returncode == 0, status.stdout + status.stderr
    assert re.search(r"SIMULATED LOCKED .* within ±[0-9.]+ (ns|µs)", status.stdout), status.stdout
    reply = ask_ntp(port)
    assert reply is not None
    assert (reply[0] >> 6, reply[1], reply[12:16]) == (0, 1, b"SIM\0")
    everyone = children(run_dir)
    assert len(everyone) >= 3
    began = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    assert run.wait(10) == 0
    took = time.monotonic() - began
    assert not children(run_dir), "left behind"
    assert took < 5, "the promise is 1 s on a quiet machine"


def test_ntpdig_and_ntpdate(network: Processes) -> None:
    """Debian's ntpdig and ntpdate -q see stratum 1 on port 123 and an offset of microseconds to milliseconds."""
    _, run_dir = start_sim(network, "127.0.0.1:123")
    wait_for("LOCKED", lambda: locked(run_dir), LOCK_SECONDS)
    digged = network.run(["ntpdig", "127.0.0.1"])
    assert digged.returncode == 0, digged.stderr
    assert re.search(r"\+/- [0-9.]+ .*127\.0\.0\.1.* s1 ", digged.stdout), digged.stdout
    dated = network.run(["ntpdate", "-q", "127.0.0.1"])
    assert re.search(r"s1 |stratum 1", dated.stdout + dated.stderr), dated.stdout + dated.stderr
    asked = network.run([*REFCLOCK, "query", "127.0.0.1:123"])
    assert asked.returncode == 0, asked.stderr
    assert "stratum" in asked.stdout
    assert "SIM" in asked.stdout


def chronyc(processes: Processes, directory: Path, command: str) -> str:
    return processes.run(["chronyc", "-n", "-h", str(directory / "chronyd.sock"), "-c", command]).stdout


def chrony_config(directory: Path, *lines: str) -> Path:
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    path = directory / "chrony.conf"
    common = [f"bindcmdaddress {directory}/chronyd.sock", "cmdport 0", "port 0", f"pidfile {directory}/chronyd.pid"]
    path.write_text("\n".join([*lines, *common, ""]), encoding="utf-8")
    return path


def test_chronyd_selects_it(network: Processes) -> None:
    """A real chronyd -x with refclock as its only server selects it (^*)."""
    _, run_dir = start_sim(network, "127.0.0.1:123")
    wait_for("LOCKED", lambda: locked(run_dir), LOCK_SECONDS)
    directory = network.directory / "chrony"
    config = chrony_config(directory, "server 127.0.0.1 iburst minpoll 0 maxpoll 2")
    network.start("chronyd", [*CHRONYD, "-f", str(config)])
    wait_for("chronyd selects refclock", lambda: chronyc(network, directory, "sources").startswith("^,*"), 40)


def test_feeds_chronyd_by_sock_and_shm(processes: Processes) -> None:
    """chronyd -x reaches #* and reach 377 on the SOCK and on the SHM feed, within the noise; restarted it gets samples again; before
    the second is known nothing is fed."""
    unit = 100 + os.getpid() % 100
    sock = processes.directory / "sock" / "chrony.refclock.sock"
    directories = {kind: processes.directory / kind for kind in ("sock", "shm")}
    lines = {"sock": f"refclock SOCK {sock} refid RCS poll 1 filter 1", "shm": f"refclock SHM {unit} refid RCM poll 1 filter 1"}
    configs = {kind: chrony_config(directories[kind], line) for kind, line in lines.items()}
    started = {kind: processes.start(f"chronyd-{kind}", [*CHRONYD, "-f", str(config)]) for kind, config in configs.items()}
    config = processes.directory / "refclock.toml"
    config.write_text(f'[[feed]]\ntype = "sock"\npath = "{sock}"\n[[feed]]\ntype = "shm"\nunit = {unit}\n', encoding="utf-8")
    _, run_dir = start_sim(processes, f"127.0.0.1:{free_port()}", "--config", str(config))
    wait_for("the clock process", lambda: snapshot(run_dir), 20)
    while not locked(run_dir):
        seen = snapshot(run_dir)
        assert seen is not None
        if seen["stratum"] == 0:
            feeds = seen["feeds"]
            assert isinstance(feeds, list)
            assert all(feed["sent"] == 0 for feed in feeds), "fed before the second was known"
        time.sleep(0.2)

    def good(kind: str) -> bool:
        fields = chronyc(processes, directories[kind], "sources").split(",")
        return len(fields) > 8 and fields[:2] == ["#", "*"] and fields[5] == "377" and abs(float(fields[7])) < 0.001

    for kind in started:
        wait_for(f"#* and reach 377 by {kind}", lambda kind=kind: good(kind), 60)
    fed = processes.run([*REFCLOCK, "feed", "--config", str(config), "--run-dir", str(run_dir)])
    assert "refclock SOCK" in fed.stdout, fed.stdout + fed.stderr
    for kind, process in started.items():
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        (directories[kind] / "chronyd.pid").unlink(missing_ok=True)
        processes.start(f"chronyd-{kind}", [*CHRONYD, "-f", str(configs[kind])])

    def sampled(kind: str) -> bool:
        fields = chronyc(processes, directories[kind], "sources").split(",")
        return len(fields) > 5 and fields[5] != "0"

    for kind in started:
        wait_for(f"samples again by {kind}", lambda kind=kind: sampled(kind), 15)


def test_kill_either_process(processes: Processes) -> None:
    """kill -9 of the clock: the server goes on answering with a growing bound, and LOCKED again without a step. Of the server: the clock
    does not notice, and it serves again."""
    port = free_port()
    _, run_dir = start_sim(processes, f"127.0.0.1:{port}")
    wait_for("LOCKED", lambda: locked(run_dir), LOCK_SECONDS)

    def pid(name: str) -> int:
        seen = snapshot(run_dir, f"{name}.sock")
        assert seen is not None
        assert isinstance(seen["pid"], int)
        return seen["pid"]

    def offset() -> tuple[int, int, float, float]:
        """(leap, stratum, served minus system clock in s, root dispersion in s)"""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(2.0)
            s.sendto(bytes([0x23]) + bytes(47), ("127.0.0.1", port))
            before = time.time()
            reply = s.recv(1024)
        dispersion, stamp = struct.unpack(">8xI", reply[:12])[0] / 65536, struct.unpack(">Q", reply[40:48])[0]
        return reply[0] >> 6, reply[1], stamp / 2**32 - 2_208_988_800 - before, dispersion

    clock = pid("clock")
    _, _, before, _ = offset()
    os.kill(clock, signal.SIGKILL)
    for _ in range(40):
        leap, stratum, now, _ = offset()
        assert (leap, stratum) == (0, 1), "the server went on answering"
        assert abs(now - before) < 0.02, "and did not step"
        time.sleep(0.05)
    wait_for("a new clock process", lambda: (s := snapshot(run_dir)) is not None and s["pid"] != clock, 15)
    wait_for("LOCKED again", lambda: locked(run_dir), LOCK_SECONDS)
    assert abs(offset()[2] - before) < 0.02
    clock, serve = pid("clock"), pid("serve")
    os.kill(serve, signal.SIGKILL)
    wait_for("serving again", lambda: ask_ntp(port, seconds=0.2), 10)
    assert pid("clock") == clock
    assert locked(run_dir)
