"""``refclock nts``: tells how NTS stands, and gives clients the certificate of this machine's own authority."""

from __future__ import annotations

import argparse
import hashlib
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Final

from ppsd.cli.client_config import nts_offer, preferred, server_names
from ppsd.cli.daemon import configuration, may_not_ask, run_directory, silent
from ppsd.config.client_templates import AUTHORITY_FILE, ServerNames, nts_configurations
from ppsd.config.file import load
from ppsd.config.tables import Config
from ppsd.process.control import PATIENCE_S, ask
from ppsd.process.exit_codes import FAILED, GOOD, NO_DAEMON, Refused
from ppsd.snapshot import NtsReport
from refclock.errors import explain
from refclock.kernel.files import UserFile, owners
from refclock.kernel.interfaces import client_addresses
from refclock.timescales import day_of

DAY_S: Final = 86400


def run(args: argparse.Namespace) -> int:
    """``show`` or ``ca``; FAILED when NTS is off, NO_DAEMON when nobody answers."""
    directory = run_directory(args.run_dir)
    config = load(configuration(directory, args.config))
    if not config.nts.enabled:
        where = config.file or "the configuration"
        own = " (keys that this machine has got from upstreams: refclock authdata)" if config.establishes_keys else ""
        raise Refused(FAILED, f"NTS is off{own}; write [nts] enabled = true into {where}, then: refclock reload")
    return _authority(directory, config, args.out) if args.action == "ca" else _show(directory, args.json)


def _asked(directory: Path, verb: str) -> dict[str, object]:
    path = directory / "nts-ke.sock"
    try:
        return ask(path, verb)
    except PermissionError:
        raise may_not_ask(path) from None
    except (FileNotFoundError, ConnectionRefusedError):
        why = "start it: sudo systemctl start refclock-nts-ke, or refclock run"
        raise Refused(NO_DAEMON, f"refclock: the NTS-KE process does not run in {directory} ({why})") from None
    except TimeoutError:
        raise silent("NTS-KE process", directory, PATIENCE_S) from None
    except OSError as error:
        raise Refused(FAILED, f"refclock: {explain(error)}") from None


def _show(directory: Path, as_json: bool) -> int:
    told = _asked(directory, "snapshot")
    try:
        report = NtsReport.from_json(told)
    except ValueError as error:
        raise Refused(NO_DAEMON, f"refclock: {directory / 'nts-ke.sock'}: {error}") from None
    print(json.dumps(report.to_json()) if as_json else shown(report, time.time()))
    return FAILED if report.until_s is None or not report.addresses else GOOD


def shown(report: NtsReport, now_s: float) -> str:
    """The report in words."""
    lines = [("keys established on", ", ".join(report.addresses) or "no address")]
    lines += [("not on", f"{one.address}: {one.why}") for one in report.unserved if not one.harmless]
    if report.until_s is not None:
        lines.append(("certificate", "by this machine's own authority (refclock nts ca)" if report.own else "as configured"))
        lines += [("for", ", ".join(report.names)), ("until", _until(report.until_s, now_s))]
    if report.authority_until_s is not None:
        lines.append(("authority until", _until(report.authority_until_s, now_s)))
    if report.problem:
        lines.append(("problem", report.problem))
    counts = ", ".join(f"{count} {name}" for name, count in report.sessions.items())
    lines.append(("sessions", f"{counts}, {report.open} open"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _until(until_s: int, now_s: float) -> str:
    days = int((until_s - now_s) // DAY_S)
    return f"{day_of(until_s)} ({f'{days} days' if days >= 0 else 'it has ended'})"


def _authority(directory: Path, config: Config, out: Path | None) -> int:
    told = _asked(directory, "ca")
    pem, certified = str(told["pem"]), told["names"]
    if out is not None:
        UserFile(out.absolute(), owners()).replace(pem.encode("ascii"))
        print(f"{out} is written; copy it to the clients")
    else:
        print(pem, end="")
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    print(f"# SHA-256 fingerprint: {':'.join(fingerprint[i : i + 2] for i in range(0, len(fingerprint), 2))}")
    print(f"# on a client: openssl x509 -noout -fingerprint -sha256 -in {AUTHORITY_FILE}")
    names = _names(config, [str(name) for name in certified] if isinstance(certified, list) else [])
    for word, lines in nts_configurations(names).items():
        print(f"# {word}:", *(f"#   {line}" for line in lines), sep="\n")
    if not names.servers:
        print("refclock: no name of the certificate reaches this machine: write one into nts.names", file=sys.stderr)
    return GOOD


def _names(config: Config, certified: list[str]) -> ServerNames:
    """By which names clients reach this server: its addresses as far as the certificate has them, else the certificate's own names."""
    try:
        found = client_addresses()
    except OSError:
        found = ()
    reached, _ = server_names(config.server, (), found, preferred())
    good = [name for name in reached.every if name in certified] or certified
    return ServerNames(tuple(good[:1]), port=reached.port, nts=nts_offer(config))
