"""The commands about who asks: ``refclock clients`` and ``refclock access``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ppsd.config.access import address_number
from ppsd.config.tables import Config
from ppsd.process.control import ask

WORDS = {
    "allow": "is answered",
    "authenticated": "is answered only with a valid key",
    "deny": "is denied",
    "ignore": "is ignored: no answer at all",
}
MOST = 1000
"""What -n takes at most."""
HEADER = f"{'Address':<39} {'Packets':>9} {'Drops':>7} {'Every':>8} {'Last':>8} {'Known':>8}  V Mode"


def _span(seconds: float | None) -> str:
    """A duration in at most 7 characters: 0.2 s, 64 s, 12 min, 3 h, 5 d."""
    if seconds is None:
        return "-"
    for limit, unit, one in ((10, "s", 1.0), (120, "s", 1.0), (7200, "min", 60.0), (172800, "h", 3600.0)):
        if seconds < limit:
            return f"{seconds / one:.{1 if limit == 10 else 0}f} {unit}"
    return f"{seconds / 86400:.0f} d"


def table(answer: dict[str, Any]) -> str:
    """The clients for people, the latest first."""
    lines = [HEADER, "=" * len(HEADER)]
    for c in answer["clients"]:
        times = f"{_span(c['interval_s']):>8} {_span(c['last_s']):>8} {_span(c['first_s']):>8}"
        mode = " ".join(word for word, on in (("key", c["authenticated"]), ("interleaved", c["interleaved"])) if on) or "basic"
        lines.append(f"{c['address']:<39} {c['packets']:>9} {c['drops']:>7} {times}  {c['version']} {mode}")
    rest = answer["known"] - len(answer["clients"])
    if rest > 0:
        lines.append(f"... and {rest} more" + (f" (-n {answer['known']})" if answer["known"] <= MOST else ""))
    if not answer["clients"]:
        lines.append("nobody has asked yet")
    return "\n".join(lines)


def print_clients(directory: Path, most: int, as_json: bool) -> int:
    """Ask the serve process; 0. OSError: it does not answer."""
    answer = ask(directory / "serve.sock", f"clients {most}")
    print(json.dumps(answer) if as_json else table(answer))
    return 0


def verdict(address: str, answer: dict[str, Any]) -> str:
    """What happens to an address, and by which rule, in one sentence."""
    why = f" by {answer['prefix']} in {answer['source']}" if answer["prefix"] else ": no rule matches; access.allow would let it in"
    return f"{address} {WORDS[answer['action']]}{why}"


def test_access(config: Config, directory: Path, address: str, as_json: bool) -> int:
    """Which rule decides for an address: of the running server, else of the configuration. 0: it may ask, 1: it may not, 64: no address."""
    if address_number(address) is None:
        print(f"{address} is not an IPv4 or IPv6 address; names are not looked up")
        return 64
    try:
        answer = ask(directory / "serve.sock", f"access {address}")
        whose = "the running server"
    except OSError:
        action, rule = config.access.rules().explain(address)
        answer = {"action": action, "prefix": rule.prefix if rule else "", "source": rule.source if rule else ""}
        whose = f"{config.file or 'the defaults'} (no server is running)"
    print(json.dumps({"address": address, "whose": whose} | answer) if as_json else f"{verdict(address, answer)} - {whose}")
    return 0 if answer["action"] in ("allow", "authenticated") else 1


def list_access(config: Config, as_json: bool) -> int:
    """Every rule of the configuration, the longest prefix first: the order in which they decide."""
    rules = config.access.rules().rules()
    if as_json:
        print(json.dumps([{"prefix": r.prefix, "action": r.action} for r in rules]))
    else:
        for rule in rules:
            print(f"{rule.prefix:<43} {rule.action}")
        print(f"{'everything else':<43} deny{' (told so now and then)' if config.access.denied == 'kod' else ' (silently)'}")
    return 0
