"""``refclock query``: asks an NTP server for the time and prints the offset of this machine's clock with its error.

Each request has a new socket, for a random source port (RFC 9109), and a random transmit field. That field reveals nothing of this clock
and cannot be guessed; a reply counts only when it echoes the field. The system clock is read once a request, and CLOCK_MONOTONIC_RAW
gives the elapsed time, so a step of the clock during the exchange has no effect.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import sys
import time
from dataclasses import dataclass
from typing import TextIO

from ppsd.faces.text import plain_ns
from ppsd.ntp.packet import Exchange, Header, Reason, judge, parse, refid_text
from ppsd.process.exit_codes import FAILED, GOOD, USAGE, Refused
from refclock.errors import explain
from refclock.sample import Leap

TIMEOUT_S = 1.0
"""s to wait for each reply: three times the longest terrestrial round trip."""
PAUSE_S = 0.2
"""s between requests: far below any server's rate limit for a burst of eight (chrony's default leak allows 16)."""
LEAP_WORDS = {Leap.NORMAL: "normal", Leap.INSERT: "insert second", Leap.DELETE: "delete second", Leap.UNSYNCHRONISED: "unsynchronised"}


def run(args: argparse.Namespace) -> int:
    """Ask the server on the command line."""
    host, separator, port = args.server.rpartition(":")
    if not separator or (":" in host and not args.server.startswith("[")) or args.server.endswith("]"):
        host, port = args.server, "123"
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise Refused(USAGE, f"refclock query: {args.server}: the port must be 1 to 65535")
    return query(host.removeprefix("[").removesuffix("]"), int(port), args.count, args.json)


@dataclass(frozen=True, slots=True)
class Try:
    """Outcome of one request: an exchange, or the reason without one. ``header``: the server's, when an unusable reply came."""

    exchange: Exchange | None
    why: str
    header: Header | None = None


def ask_once(address: tuple[object, ...], family: int, timeout_s: float = TIMEOUT_S) -> Try:
    """Send one request to one address. A network failure is returned as the reason, not raised."""
    nonce = secrets.randbits(64) or 1
    request = Header(transmit=nonce).pack()
    why = "no reply"
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            sent_utc = time.time_ns()
            started = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            sock.send(request)
            while True:
                elapsed = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - started
                if elapsed >= timeout_s * 1e9:
                    return Try(None, why)
                sock.settimeout(timeout_s - elapsed / 1e9)
                data = sock.recv(1024)
                received_utc = sent_utc + time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - started
                result = judge(nonce, data, sent_utc, received_utc)
                if isinstance(result, Exchange):
                    return Try(result, "", result.header)
                why = result.value
                if result not in (Reason.SHORT, Reason.MODE, Reason.ORIGIN):
                    return Try(None, why, parse(data))
    except TimeoutError:
        return Try(None, why)
    except ConnectionRefusedError:
        return Try(None, "nothing listens there (port unreachable)")
    except OSError as error:
        return Try(None, explain(error))


def _facts(header: Header) -> dict[str, object]:
    return {
        "stratum": header.stratum,
        "refid": refid_text(header.refid, header.stratum),
        "leap": LEAP_WORDS[header.leap],
        "root_delay_ns": header.root_delay_ns,
        "root_dispersion_ns": header.root_dispersion_ns,
        "precision": header.precision,
    }


def _signed(ns: int) -> str:
    return ("+" if ns >= 0 else "-") + plain_ns(abs(ns))


def _line(result: Try) -> str:
    if result.exchange is None:
        h = result.header
        return result.why + (f" (stratum {h.stratum}, refid {refid_text(h.refid, h.stratum)})" if h else "")
    e = result.exchange
    return (
        f"offset {_signed(e.offset_ns)} ±{plain_ns(e.root_distance_ns)}  delay {plain_ns(e.delay_ns)}  stratum {e.header.stratum}"
        f"  refid {refid_text(e.header.refid, e.header.stratum)}  leap {LEAP_WORDS[e.header.leap]}"
    )


def query(host: str, port: int, count: int, as_json: bool, out: TextIO | None = None) -> int:
    """Ask ``count`` times and print; GOOD when some reply gave synchronised time, else FAILED. The best reply has the least delay."""
    out = out or sys.stdout
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except (OSError, UnicodeError) as error:
        why = f"{host} is not a known host: {error}"
        print(json.dumps({"server": host, "port": port, "error": why}) if as_json else why, file=out)
        return FAILED
    tries: list[Try] = []
    for i in range(count):
        if i:
            time.sleep(PAUSE_S)
        tries.append(ask_once(address, family))
        if not as_json:
            print(f"{address[0]}:{port}  {_line(tries[-1])}", file=out, flush=True)
    exchanges = [t.exchange for t in tries if t.exchange is not None]
    best = min(exchanges, key=lambda e: e.delay_ns, default=None)
    if as_json:
        report: dict[str, object] = {"server": host, "address": address[0], "port": port, "sent": count, "used": len(exchanges)}
        header = best.header if best else next((t.header for t in tries if t.header), None)
        report |= _facts(header) if header else {}
        if best is not None:
            report |= {"offset_ns": best.offset_ns, "delay_ns": best.delay_ns, "root_distance_ns": best.root_distance_ns}
        else:
            report["error"] = tries[-1].why
        print(json.dumps(report), file=out)
    elif best is not None and count > 1:
        behind = "behind" if best.offset_ns >= 0 else "ahead"
        print(
            f"best of {len(exchanges)}/{count}: this clock is {plain_ns(abs(best.offset_ns))} {behind}"
            f", true time within ±{plain_ns(best.root_distance_ns)} of that",
            file=out,
        )
    return GOOD if best is not None else FAILED
