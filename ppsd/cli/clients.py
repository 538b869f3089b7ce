"""``refclock clients`` and ``refclock access``: the server's clients, and the rules that admit them."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ppsd.cli.arguments import MOST
from ppsd.cli.daemon import may_not_ask, run_directory, silent
from ppsd.config.access import Decision, Rule, address_number
from ppsd.config.file import load
from ppsd.config.tables import Config
from ppsd.process.control import ask
from ppsd.process.exit_codes import FAILED, GOOD, NO_DAEMON, USAGE, Refused
from refclock.errors import explain
from refclock.kernel.interfaces import Network, networks

WORDS = {
    "allow": "is answered",
    "authenticated": "is answered only with a valid key",
    "deny": "is denied",
    "ignore": "is ignored: no answer at all",
}
COLUMNS: Final = f"{'Packets':>9} {'Drops':>7} {'Every':>7} {'Last':>7} {'Known':>7} V Mode"
"""Headings behind the address."""
ADDRESS: Final = 80 - len(COLUMNS) - 5
"""Characters of the longest address that leaves the figures on its line, in a terminal of 80 columns: a mode has up to 9."""
PATIENCE_S = 10.0
"""Seconds to wait for the clients: the largest table takes about 5 s to look through."""


def run(args: argparse.Namespace) -> int:
    """Execute ``access``."""
    if (args.action == "test") != (args.address is not None):
        raise Refused(USAGE, "refclock access: test needs an address, list takes none")
    config = load(args.config)
    if args.action == "list":
        return list_access(config, run_directory(args.run_dir), args.json)
    return test_access(config, run_directory(args.run_dir), args.address, args.json)


def told_clients(directory: Path, most: int) -> dict[str, Any]:
    """The server's latest clients, as it tells them. Refused: it does not."""
    path = directory / "serve.sock"
    try:
        return ask(path, f"clients {most}", PATIENCE_S)
    except PermissionError:
        raise may_not_ask(path) from None
    except TimeoutError:
        raise silent("server", directory, PATIENCE_S) from None
    except OSError as error:
        raise Refused(NO_DAEMON, f"refclock: no server in {directory} ({error.strerror or error}); start one: refclock run") from None


def _span(seconds: float | None) -> str:
    """A duration in at most 7 characters: 0.2 s, 64 s, 12 min, 3 h, 5 d."""
    if seconds is None:
        return "-"
    for limit, unit, one in ((10, "s", 1.0), (120, "s", 1.0), (7200, "min", 60.0), (172800, "h", 3600.0)):
        if seconds < limit:
            return f"{seconds / one:.{1 if limit == 10 else 0}f} {unit}"
    return f"{seconds / 86400:.0f} d"


def table(answer: dict[str, Any]) -> str:
    """The clients as a table of at most 80 columns, the latest first. A longer address has a line of its own."""
    width = max([7, *(n for c in answer["clients"] if (n := len(c["address"])) <= ADDRESS)])
    header = f"{'Address':<{width}} {COLUMNS}"
    lines = [header, "=" * max(len(header), width + len(COLUMNS) + 6)]
    for c in answer["clients"]:
        figures = f"{c['packets']:>9} {c['drops']:>7} {_span(c['interval_s']):>7} {_span(c['last_s']):>7} {_span(c['first_s']):>7}"
        mode = (
            "+".join(word for word, on in (("nts" if c.get("nts") else "key", c["authenticated"]), ("inter", c["interleaved"])) if on)
            or "basic"
        )
        address = c["address"]
        if len(address) > width:
            lines.append(address)
            address = ""
        lines.append(f"{address:<{width}} {figures} {c['version']} {mode}")
    rest = answer["known"] - len(answer["clients"])
    if rest > 0:
        lines.append(f"... and {rest} more" + (f" (-n {answer['known']})" if answer["known"] <= MOST else ""))
    if not answer["clients"]:
        lines.append("nobody has asked yet")
    return "\n".join(lines)


def own_networks() -> tuple[Network, ...]:
    """The networks that this machine's interfaces are in; none where the kernel does not tell."""
    try:
        return networks()
    except OSError:
        return ()


def verdict(address: str, decision: Decision) -> str:
    """The treatment of an address and the rule that decides it, in one sentence."""
    why = f" by {decision.prefix} in {decision.source}" if decision.prefix else ": no rule matches; access.allow would let it in"
    return f"{address} {WORDS[decision.action]}{why}"


def test_access(config: Config, directory: Path, address: str, as_json: bool) -> int:
    """Print the rule for an address: of the running server, else of the configuration. GOOD: it is answered, FAILED: it is not."""
    if address_number(address) is None:
        print(f"{address} is not an IPv4 or IPv6 address; names are not looked up")
        return USAGE
    try:
        decision = Decision(**ask(directory / "serve.sock", f"access {address}"))
        whose = "the running server"
    except OSError as error:
        decision = config.access.rules(own_networks()).decide(address)
        absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
        why = "no server is running" if absent else f"the running server was not asked: {error.strerror or error}"
        whose = f"{config.file or 'the defaults'} ({why})"
    if as_json:
        print(json.dumps({"address": address, "whose": whose} | asdict(decision)))
    else:
        print(f"{verdict(address, decision)} - {whose}")
    return GOOD if decision.action in ("allow", "authenticated") else FAILED


def list_access(config: Config, directory: Path, as_json: bool) -> int:
    """Print every rule of the running server, else of the configuration, the longest prefix first: the order in which they decide."""
    path = directory / "serve.sock"
    try:
        told = ask(path, "rules")
        rules, denied, whose = [Rule(**rule) for rule in told["rules"]], str(told["denied"]), f"the running server ({directory})"
    except OSError as error:
        rules, denied = list(config.access.rules(own_networks()).rules()), config.access.denied
        nobody = isinstance(error, FileNotFoundError | ConnectionRefusedError)
        whose = f"{config.file or 'the defaults'} ({'no server is running' if nobody else explain(error, str(path))})"
    if as_json:
        print(json.dumps([{"prefix": r.prefix, "action": r.action, "source": r.source} for r in rules]))
        return GOOD
    print(f"# {whose}")
    for rule in rules:
        print(f"{rule.prefix:<43} {rule.action:<13} {rule.source.partition(': ')[2]}".rstrip())
    print(f"{'everything else':<43} deny{' (told so now and then)' if denied == 'kod' else ' (silently)'}")
    return GOOD
