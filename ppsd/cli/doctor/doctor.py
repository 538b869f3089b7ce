"""``refclock doctor``: finds what is wrong with this machine as a time server, with evidence and remedy.

Each examination (in ``ppsd.cli.doctor``: ``receiver``, ``clock``, ``network``, ``lan``, ``system``, ``upstreams``) tests one thing and
returns a Finding.
Nothing is changed, except that ``--fix`` carries out the safe remedy of one finding. A safe remedy changes neither the clock nor another
program's files.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, TextIO

from ppsd import version
from ppsd.cli.daemon import configuration, run_directory, server_report
from ppsd.cli.doctor import clock, lan, network, receiver, system, upstreams
from ppsd.cli.doctor.finding import FAIL, OK, SKIP, WARN, Finding, Patient
from ppsd.cli.query import authenticator
from ppsd.config.file import load
from ppsd.config.tables import Config
from ppsd.process.control import ask
from ppsd.process.exit_codes import BAD, DEGRADED, FAILED, GOOD, IO_ERROR, NO_PERMISSION, USAGE
from ppsd.snapshot import Client, NtsReport, Snapshot
from refclock.errors import explain
from refclock.kernel.host import Host
from refclock.kernel.interfaces import Address, client_addresses
from refclock.schema import ConfigError

_SIGN: Final = {OK: "ok  ", WARN: "WARN", FAIL: "FAIL", SKIP: "-   "}
EXAMINATIONS: Final = (
    *(*receiver.EXAMINATIONS, *clock.EXAMINATIONS, *network.EXAMINATIONS, *lan.EXAMINATIONS, *system.EXAMINATIONS),
    *upstreams.EXAMINATIONS,
)
CLIENTS: Final = 500
"""Clients that are looked through."""
DEVICES: Final = ("RC01", "RC02", "RC04", "RC06", "RC07")
"""Examinations of this machine's lines and pulse devices."""
_CODES: Final = {OK: GOOD, SKIP: GOOD, WARN: DEGRADED, FAIL: BAD}


def run(args: argparse.Namespace) -> int:
    """Examine this machine, with the snapshot of the daemon when one is running."""
    if args.board:
        return _board(Host(), args.json, sys.stdout)
    directory = run_directory(args.run_dir)
    config, problems = _examined(configuration(directory, args.config))
    key = authenticator(args.key, args.keys, args.config)
    patient = replace(patient_of(directory, config), servers=args.against, key=key, problems=problems)
    if args.report is not None:
        return _write_report(patient, args.report, sys.stdout)
    return doctor(patient, args.json, args.fix, sys.stdout)


def _examined(file: Path | None) -> tuple[Config, tuple[str, ...]]:
    """The configuration, or the defaults and what is wrong with it: a doctor examines also who cannot start."""
    try:
        return load(file), ()
    except ConfigError as error:
        return Config(), tuple(str(problem) for problem in error.problems)


def patient_of(directory: Path, config: Config) -> Patient:
    """This machine with ``config``, and what its daemon in ``directory`` tells."""
    try:
        told = Snapshot.from_json(ask(directory / "clock.sock", "snapshot"))
    except (OSError, ValueError):
        told = None
    try:
        own: tuple[Address, ...] = client_addresses()
    except OSError:
        own = ()
    server, nts = server_report(directory), _nts(directory) if config.nts.enabled else None
    return Patient(Host(), config, told, server=server, clients=_clients(directory), addresses=own, nts=nts)


def _nts(directory: Path) -> NtsReport | None:
    """The report of the NTS-KE process; None when it does not tell."""
    try:
        return NtsReport.from_json(ask(directory / "nts-ke.sock", "snapshot"))
    except (OSError, ValueError):
        return None


def _clients(directory: Path) -> tuple[Client, ...]:
    """The server's latest clients; none when it does not tell."""
    try:
        return Client.many(ask(directory / "serve.sock", f"clients {CLIENTS}"))
    except (OSError, ValueError):
        return ()


def _write_report(patient: Patient, file: Path, out: TextIO) -> int:
    """Write the file for a bug report, readable by its owner alone, and say what it is; the doctor's exit code."""
    from ppsd.cli.doctor.bug_report import bug_report  # noqa: PLC0415 (the usual examination needs none of it)

    findings = examine(patient)
    text = bug_report(patient, report(findings))
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    print(f"written: {file} ({len(text.encode()) // 1024 + 1} kB). Public addresses, names, positions and keys are taken out.", file=out)
    print("Look through it before you attach it to a report: what nobody thought of may still be in it.", file=out)
    return max(_CODES[finding.state] for finding in findings)


def _board(host: Host, as_json: bool, out: TextIO) -> int:
    """Tell what only the hardware can tell; DEGRADED when something is to be looked at."""
    from ppsd.appliance import board  # noqa: PLC0415 (the usual examination needs none of it)

    found = list(board.facts(host, time.sleep))
    shown = json.dumps([asdict(fact) for fact in found]) if as_json else board.report(found, f"refclock {version()}")
    print(shown, file=out)
    return DEGRADED if any(fact.state is board.State.ODD for fact in found) else GOOD


def examine(patient: Patient) -> list[Finding]:
    """All findings, in the order of their numbers. With a simulated receiver, the examinations of devices are skipped."""
    findings = [look(patient) for look in EXAMINATIONS]
    findings.sort(key=lambda finding: finding.check)
    if patient.clock is None or not patient.clock.simulated:
        return findings
    return [Finding(f.check, SKIP, "not looked at: the receiver is simulated") if f.check in DEVICES else f for f in findings]


def report(findings: Sequence[Finding]) -> str:
    """The findings as text, each with its remedy, and a summary."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{_SIGN[finding.state]}  {finding.check}  {finding.what}")
        if finding.do and finding.state in (WARN, FAIL):
            lines.append(f"            do: {finding.do}")
            if finding.writes:
                lines.append(f"            or: refclock doctor --fix {finding.check}")
    counts = {state: sum(f.state == state for f in findings) for state in (OK, WARN, FAIL, SKIP)}
    lines.append(f"{counts[OK]} good, {counts[WARN]} to look at, {counts[FAIL]} wrong, {counts[SKIP]} not examined")
    return "\n".join(lines)


def _remedy(finding: Finding, host: Host, out: TextIO) -> int:
    if not finding.writes:
        why = {OK: "nothing is wrong there", SKIP: "it was not examined"}.get(finding.state, "its remedy is yours to carry out")
        print(f"refclock doctor: {finding.check} has nothing that could be fixed from here: {why}", file=sys.stderr)
        return FAILED
    for name, text in finding.writes:
        try:
            host.path(name).write_text(text, encoding="utf-8")
        except OSError as error:
            print(f"refclock doctor: {explain(error, name)}", file=sys.stderr)
            return NO_PERMISSION if isinstance(error, PermissionError) else IO_ERROR
        print(f"{finding.check}: wrote {name}", file=out)
    return GOOD


def doctor(patient: Patient, as_json: bool, fix: str | None, out: TextIO) -> int:
    """Examine and print; 0: all good, 1: a warning, 2: a failure. With ``fix``: carry out that finding's safe remedy instead."""
    findings = examine(patient)
    if fix is not None:
        chosen = next((f for f in findings if f.check == fix.upper()), None)
        if chosen is None:
            print(f"refclock doctor: there is no check {fix}; they are {findings[0].check} to {findings[-1].check}", file=sys.stderr)
            return USAGE
        return _remedy(chosen, patient.host, out)
    print(json.dumps([asdict(f) for f in findings]) if as_json else report(findings), file=out)
    return max(_CODES[f.state] for f in findings)
