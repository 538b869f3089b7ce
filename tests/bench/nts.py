"""What NTS costs the server, beside chronyd on this machine: `make bench-nts`.

Prints a table, writes tests/bench/nts.json (every run) and tests/bench/nts.md (the table); 1 when a target is missed.

How it is taken: as in tests/bench/server.py, with 32 requests outstanding. Both servers have the same certificate. Load is one client that
has established keys with the server in question: AEAD 15 and one cookie, which every request carries; of every reply what is sealed is
opened. "More for NTS" is a server's cost with NTS minus its cost without. Handshakes come one after the other, a connection each, and their
cost is that of the process that serves them (chronyd's: with its helper, ``ntsprocesses 1``); a core serves the inverse of it.

The plain request at a server with NTS keys and at one without is counted in instructions (valgrind's callgrind, tests/bench/request.c):
that a per cent be seen at all.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from cost import requests
from OpenSSL import SSL
from report import Report, alternated, circumstances, ratios
from servers import CHRONY_LIMITS, OURS_LIMITS, Clock, Server, Zoo, cpu_s, free_port, hold_core

from ppsd.ntp.nts import Kind
from ppsd.serve.certificates import OwnCertificates
from refclock import BUILD_DATE
from refclock.kernel.files import owners

sys.path.append(str(Path(__file__).parents[1] / "ppsd" / "serve"))

from nts_client import Established, establish

ROUNDS = 9
SECS = 1.5
WINDOW = 32
"""Requests outstanding: chronyd loses none of so many."""
PATIENCE_S = 3
"""s for a reply: longer than a busy machine keeps a process waiting."""
HANDSHAKES = 60
"""Of one round."""
OURS = """
[nts]
enabled = true
listen = ["127.0.0.1:{ke}"]
certificate = "{certificate}"
key = "{key}"
"""
CHRONY = """
ntsport {ke}
ntsservercert {certificate}
ntsserverkey {key}
ntsprocesses 1
"""


def certificate_in(directory: Path) -> dict[str, str]:
    """A certificate for 127.0.0.1 and its key, as words of a configuration."""
    made = OwnCertificates(directory, date.fromisoformat(BUILD_DATE), owners())
    pair = made.server(made.authority("bench", time.time()), ["127.0.0.1"], time.time())
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(pair.pem())
    key.touch(mode=0o600)
    key.write_bytes(pair.secret_pem())
    return {"certificate": str(certificate), "key": str(key)}


def established(port: int) -> Established:
    """Keys and cookies, once the server gives any."""
    until_s = time.monotonic() + 20
    while True:
        try:
            return establish(port)
        except (OSError, SSL.Error):  # it does not listen yet, or has no certificate yet
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)


def session(port: int, directory: Path) -> Path:
    """A file with the keys and a cookie of one client."""
    found = established(port)
    path = directory / f"session-{port}"
    path.write_bytes(found.keys + found.bodies(Kind.COOKIE)[0])
    return path


def shaken(port: int, pid: int) -> dict[str, Any]:
    """Processor time of a handshake, ms."""
    before_s = cpu_s(pid)
    for _ in range(HANDSHAKES):
        establish(port)
    return {"ms": (cpu_s(pid) - before_s) / HANDSHAKES * 1e3}


def measure_requests(report: Report, servers: dict[str, Server], without: Server, sessions: dict[str, Path]) -> None:
    """Processor time of a request: plain, and with NTS."""
    cases: dict[str, Callable[[], dict[str, Any]]] = {}
    for name, server in servers.items():
        load = partial(server.clean_load, "--secs", SECS, "--window", WINDOW, "--timeout", PATIENCE_S)
        cases[f"plain, {name}"] = load
        cases[f"NTS, {name}"] = partial(load, "--nts", sessions[name])
    cases["plain, ours without NTS"] = partial(without.clean_load, "--secs", SECS, "--window", WINDOW, "--timeout", PATIENCE_S)
    for load in cases.values():
        load()
    runs = alternated(cases, ROUNDS)
    cost = {name: [run["cpu_s_per_million"] for run in case] for name, case in runs.items()}
    for name in cases:
        report.add(name, "CPU s/million", cost[name])
    for name in cases:
        report.add(f"{name}, rate", "replies/s", [run["rps"] for run in runs[name]])
    more = {name: [nts - plain for nts, plain in zip(cost[f"NTS, {name}"], cost[f"plain, {name}"], strict=True)] for name in servers}
    for name, values in more.items():
        report.add(f"more for NTS, {name}", "CPU s/million", values)
    report.add("NTS, ours/chrony", "ratio", ratios(cost["NTS, ours"], cost["NTS, chrony"]), 0.80)
    report.add("more for NTS, ours/chrony", "ratio", ratios(more["ours"], more["chrony"]), 0.60)
    report.add("plain, ours/ours without NTS", "ratio", ratios(cost["plain, ours"], cost["plain, ours without NTS"]))


def measure_handshakes(report: Report, servers: dict[str, tuple[int, int]]) -> None:
    """Processor time of key establishment. ``servers``: port and process."""
    cases: dict[str, Callable[[], dict[str, Any]]] = {name: partial(shaken, port, pid) for name, (port, pid) in servers.items()}
    cost = {name: [run["ms"] for run in runs] for name, runs in alternated(cases, ROUNDS).items()}
    for name, values in cost.items():
        report.add(f"key establishment, {name}", "CPU ms", values)
        report.add(f"key establishment, {name}, of a core", "clients/s", [1e3 / value for value in values])
    report.add("key establishment, ours/chrony", "ratio", ratios(cost["ours"], cost["chrony"]))


def measure_instructions(report: Report) -> None:
    """Instructions of our server's thread for a request."""
    found = requests(("batches", "batches-keyed", "alone", "nts", "nts-30"))
    for kind, count in found.items():
        report.add(f"instructions of a request, {kind}", "", [count])
    report.add("instructions of a plain request, with NTS keys/without", "ratio", [found["batches-keyed"] / found["batches"]], 1.01)


def main() -> int:
    """Measure, print, keep; 1 when a target is missed."""
    hold_core()
    report, clock = Report("What NTS costs the server", Path(__file__), circumstances(ROUNDS, SECS)), Clock()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        zoo, words, (ours_ke, chrony_ke) = (
            Zoo(stack, clock, directory),
            certificate_in(directory),
            (free_port(tcp=True), free_port(tcp=True)),
        )
        ours = zoo.ours("ours", limits=OURS_LIMITS + OURS.format(ke=ours_ke, **words))
        chrony = zoo.chrony("chrony", limits=CHRONY_LIMITS + CHRONY.format(ke=chrony_ke, **words))
        keys = zoo.key_server(ours)
        sessions = {"ours": session(ours_ke, directory), "chrony": session(chrony_ke, directory)}
        measure_requests(report, {"ours": ours, "chrony": chrony}, zoo.ours("ours without NTS"), sessions)
        measure_handshakes(report, {"ours": (ours_ke, keys), "chrony": (chrony_ke, chrony.pid)})
    measure_instructions(report)
    return report.kept()


if __name__ == "__main__":
    sys.exit(main())
