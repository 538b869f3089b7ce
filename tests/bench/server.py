"""The NTP server under load, beside chronyd and the ceiling of a socket server, on this machine: `make bench-server`.

Prints a table, writes tests/bench/server.json (every run) and tests/bench/server.md (the table); 1 when a target is missed.

How it is taken: everything on the loopback interface, servers pinned to core 0, load (build/bench/ntpload) to core 1, both under
SCHED_FIFO 10 when that is allowed. Ours is `python -m ppsd serve` with a configuration file, a record published from here that says what
CLOCK_REALTIME says, the default table and access rules, and a rate limit that is on and high enough for the load. chronyd is the
installed one (-x), client log and rate limit on, the limit likewise. A run that loses one request stops the benchmark. In every round
all servers are run one after the other, in an order that rotates; ratios are taken within a round, and medians of those over the rounds.
CPU time is that of all threads of the server, from /proc/PID/task/*/schedstat.

Stamps: the record is renewed before every run and checked after it; bursts leave some 10 ms apart. Floods: the limits are our defaults,
chronyd's are the example of chrony.conf(5); the decent clients (SCHED_FIFO 20) ask once a second from an address each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from report import Report, alternated, circumstances, ratios
from servers import CHRONY_FLOOD_LIMITS, KEY, KEY_ID, Clock, Server, Zoo, hold_core, rss_mib

ROUNDS = 7
SECS = 1.5
SOURCES = 1_000_000
TABLE_MIB = 16
"""Default of server.client_table_mib."""
SLACK_MIB = 0.5
"""What a server may grow by besides its table."""
BURST_SOURCES = 2000
CLIENTS = 200
FLOOD_S = 10.0
FLOOD_PER_S = 100_000


# ---- what is measured ---------------------------------------------------------------------------------------------------------------


def measure_cost(report: Report, zoo: Zoo) -> None:
    """CPU time of a request: plain, authenticated, and from a million sources."""
    fixed, wild = zoo.ours("ours"), zoo.ours("ours, wildcard", host="0.0.0.0")
    chrony, chrony_wild = zoo.chrony("chrony"), zoo.chrony("chrony, wildcard", host="0.0.0.0")
    ceiling = zoo.ceiling("udpceiling")
    cases: dict[str, Callable[[], dict[str, Any]]] = {}
    for server in (fixed, chrony, ceiling, wild, chrony_wild):
        cases[f"plain, {server.name}"] = partial(server.clean_load, "--secs", SECS)
    for server in (fixed, chrony):
        cases[f"AES-128-CMAC, {server.name}"] = partial(server.clean_load, "--secs", SECS, "--mac", f"{KEY_ID}:{KEY}")
    for server in (fixed, ceiling, chrony):
        cases[f"{SOURCES} sources, {server.name}"] = partial(server.clean_load, "--secs", 30, "--srcs", SOURCES, "--count", SOURCES)
    for server in (fixed, chrony, ceiling, wild, chrony_wild):
        server.clean_load("--secs", 0.5)
    before_mib = rss_mib(fixed.pid)
    runs = alternated(cases, ROUNDS)
    after_mib = rss_mib(fixed.pid)
    cost = {name: [run["cpu_s_per_million"] for run in case] for name, case in runs.items()}
    for name in cases:
        report.add(name, "CPU s/million", cost[name])
    for name in cases:
        report.add(f"{name}, rate", "replies/s", [run["rps"] for run in runs[name]])
    many, mac = f"{SOURCES} sources", "AES-128-CMAC"
    report.add("plain, ours/chrony", "ratio", ratios(cost["plain, ours"], cost["plain, chrony"]), 0.90)
    report.add("plain, ours/udpceiling", "ratio", ratios(cost["plain, ours"], cost["plain, udpceiling"]), 1.12)
    report.add("plain, wildcard, ours/chrony", "ratio", ratios(cost["plain, ours, wildcard"], cost["plain, chrony, wildcard"]), 0.90)
    report.add("plain, ours on wildcard/udpceiling", "ratio", ratios(cost["plain, ours, wildcard"], cost["plain, udpceiling"]))
    report.add(f"{mac}, ours/chrony", "ratio", ratios(cost[f"{mac}, ours"], cost[f"{mac}, chrony"]), 1.0)
    report.add(f"ours, {many}/plain", "ratio", ratios(cost[f"{many}, ours"], cost["plain, ours"]), 1.25)
    for name in ("udpceiling", "chrony"):
        report.add(f"{name}, {many}/plain", "ratio", ratios(cost[f"{many}, {name}"], cost[f"plain, {name}"]))
    report.add("ours, resident before", "MiB", [before_mib])
    report.add(f"ours, grown by {many}", "MiB", [after_mib - before_mib], TABLE_MIB + SLACK_MIB)


def quantile(values: list[int], q: float) -> float:
    """Of sorted values."""
    return float(values[min(len(values) - 1, int(q * len(values)))])


def measure_stamps(report: Report, zoo: Zoo, clock: Clock) -> None:
    """The kernel's stamp of each reply's arrival minus the transmit timestamp in it."""
    servers = [zoo.ours("ours, stamps"), zoo.chrony("chrony, stamps")]
    map_errors: list[float] = []

    def run(server: Server, bursts: int, burst: int) -> dict[str, Any]:
        clock.publish()
        found = server.load("--stamps", bursts, "--burst", burst, "--nap-us", 10_000)
        if found["lost"] or len(found["errors_ns"]) != bursts * burst:
            raise SystemExit(f"{server.name}: replies missing")
        map_errors.append(clock.error_ns())
        return found

    cases: dict[str, Callable[[], dict[str, Any]]] = {}
    for burst in (1, 16):
        for server in servers:
            what = f"{'single requests' if burst == 1 else 'bursts of 16'}, {server.name.partition(',')[0]}"
            cases[what] = partial(run, server, 200, burst)
    for name, found in alternated(cases, ROUNDS).items():
        values = [sorted(one["errors_ns"]) for one in found]
        for label, q in (("median", 0.5), ("p1", 0.01), ("p99", 0.99)):
            report.add(f"arrival - transmit stamp, {label}, {name}", "us", [quantile(one, q) / 1e3 for one in values])
        far = [quantile(sorted(abs(v) for v in one), 0.99) / 1e3 for one in values]
        report.add(f"|arrival - transmit stamp|, p99, {name}", "us", far)
    report.add("our record minus CLOCK_REALTIME after a run, worst", "us", [max(abs(error) for error in map_errors) / 1e3])


def flooded(server: Server) -> dict[str, Any]:
    """One source floods while decent clients ask once a second; both as ntpload tells, and what the server used."""
    flood = subprocess.Popen(server.command("--secs", FLOOD_S, "--open-rate", FLOOD_PER_S), stdout=subprocess.PIPE)
    options = ("--secs", FLOOD_S - 1, "--srcs", CLIENTS, "--open-rate", CLIENTS, "--nap-us", 500)
    time.sleep(0.2)
    decent = subprocess.run(server.command(*options, priority=20), check=True, capture_output=True, timeout=60)
    told, _ = flood.communicate(timeout=60)
    return {"flood": json.loads(told), "decent": json.loads(decent.stdout)}


def measure_floods(report: Report, zoo: Zoo) -> None:
    """One source's flood, and a burst of many."""
    servers = {"ours": zoo.ours("ours, flooded", limits=""), "chrony": zoo.chrony("chrony, flooded", limits=CHRONY_FLOOD_LIMITS)}
    burst = ("--srcs", BURST_SOURCES, "--count", BURST_SOURCES, "--window", BURST_SOURCES)
    cases: dict[str, Callable[[], dict[str, Any]]] = {name: partial(server.load, *burst) for name, server in servers.items()}
    for name, runs in alternated(cases, ROUNDS).items():
        target = float(BURST_SOURCES) if name == "ours" else None
        report.add(f"answers to {BURST_SOURCES} requests at once, {name}", "", [run["valid"] for run in runs], target, at_least=True)
    cases = {name: partial(flooded, server) for name, server in servers.items()}
    for name, runs in alternated(cases, 3).items():
        floods, decent = [run["flood"] for run in runs], [run["decent"] for run in runs]
        share = [run["valid"] / run["sent"] for run in decent]
        report.add(f"flood, decent clients answered, {name}", "share", share, 0.99 if name == "ours" else None, at_least=True)
        report.add(f"flood, decent clients' p99, {name}", "us", [run["p99_us"] for run in decent])
        report.add(f"flood, requests, {name}", "/s", [run["sent"] / run["secs"] for run in floods])
        report.add(f"flood, flooder's answers, {name}", "share", [run["valid"] / run["sent"] for run in floods])
        report.add(f"flood, kisses-o'-death, {name}", "/s", [run["kod"] / run["secs"] for run in floods])
        report.add(f"flood, processor, {name}", "share of a core", [run["cpu_s"] / run["secs"] for run in floods])


def main() -> int:
    """Measure, print, keep; 1 when a target is missed."""
    hold_core()
    report, clock = Report("The NTP server under load", Path(__file__), circumstances(ROUNDS, SECS)), Clock()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        zoo = Zoo(stack, clock, Path(directory))
        measure_cost(report, zoo)
        clock.publish()
        measure_stamps(report, zoo, clock)
        measure_floods(report, zoo)
    return report.kept()


if __name__ == "__main__":
    sys.exit(main())
