"""Memory, idle CPU and start-up of the programs, on this machine: `make bench`. Prints a table and writes tests/bench/footprint.json.

How it is taken: `refclock run --sim` until LOCKED, 60 s of nobody asking; RSS from /proc/PID/status (VmRSS), CPU from /proc/PID/stat
(utime + stime) of every process of the run but the simulator, which is the test's own load. A bare interpreter is measured beside it.
Start-up: median wall time of 11 runs; metrics_ms: that of 51 scrapes, one a second; simulated_hour_s: that of an hour of
hw-sim/scenarios/pi-latency.toml, interpreter and all.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REFCLOCK = [sys.executable, "-m", "ppsd"]
IDLE_S = 60.0
LIMITS = {
    "clock_rss_mb": 40.0,
    "serve_rss_over_python_mb": 30.0,
    "idle_cpu_percent": 2.0,
    "help_ms": 150.0,
    "status_ms": 250.0,
    "metrics_ms": 20.0,
    "locked_s": 15.0,
    "simulated_hour_s": 4.0,
}


def rss_mb(pid: int) -> float:
    """VmRSS in MB (10^6 octets)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def cpu_s(pid: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wall_ms(words: list[str], runs: int = 11) -> float:
    """Median wall time of a command."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def page_ms(port: int, runs: int = 51) -> float:
    """Median wall time of the metrics page, on one connection, with reports that are asked anew each time."""
    times = []
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(runs):
        time.sleep(1.0)
        began = time.perf_counter()
        client.request("GET", "/metrics")
        client.getresponse().read()
        times.append((time.perf_counter() - began) * 1e3)
    client.close()
    return statistics.median(times)


def processes(run_dir: str) -> dict[str, int]:
    """clock, serve, run and simulator of this run directory, by what they are."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if run_dir in words and "ppsd" in words:
                found[words[words.index("ppsd") + 1]] = int(entry.name)
    return found


def main() -> int:
    """Measure, print, keep; 1 when a limit is missed."""
    bare = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    time.sleep(1.0)
    python_mb = rss_mb(bare.pid)
    bare.kill()
    bare.wait()
    figures: dict[str, float] = {"python_rss_mb": python_mb}
    with tempfile.TemporaryDirectory() as run_dir:
        began = time.monotonic()
        words = [*REFCLOCK, "run", "--sim", "--ntp", "127.0.0.1:11199", "--run-dir", run_dir]
        run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            status = [*REFCLOCK, "status", "--run-dir", run_dir]
            while subprocess.run(status, capture_output=True, check=False).returncode != 0:
                if time.monotonic() - began > 60:
                    print("never LOCKED")
                    return 1
            figures["locked_s"] = time.monotonic() - began
            time.sleep(10.0)
            ours = processes(run_dir)
            before = {name: cpu_s(pid) for name, pid in ours.items()}
            time.sleep(IDLE_S)
            used = {name: (cpu_s(pid) - before[name]) / IDLE_S * 100 for name, pid in ours.items()}
            figures |= {f"{name}_rss_mb": rss_mb(pid) for name, pid in ours.items()}
            figures |= {f"{name}_cpu_percent": used[name] for name in used}
            figures["serve_rss_over_python_mb"] = figures["serve_rss_mb"] - python_mb
            figures["idle_cpu_percent"] = sum(share for name, share in used.items() if name != "simulator")
            figures["status_ms"] = wall_ms(status)
            figures["metrics_ms"] = page_ms(19124)
        finally:
            run.send_signal(signal.SIGINT)
            run.wait(10)
    scenario = str(Path(__file__).parents[2] / "hw-sim" / "scenarios" / "pi-latency.toml")
    figures["simulated_hour_s"] = wall_ms([*REFCLOCK, "sim", scenario, "--seeds", "1"], 3) / 1e3
    figures["help_ms"] = wall_ms([*REFCLOCK, "--help"])
    missed = [name for name, limit in LIMITS.items() if figures[name] > limit]
    for name, value in figures.items():
        limit = f"  limit {LIMITS[name]:g}" if name in LIMITS else ""
        print(f"{name:28s} {value:8.2f}{limit}{'  MISSED' if name in missed else ''}")
    kept = {name: round(value, 2) for name, value in figures.items()}
    Path(__file__).with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
