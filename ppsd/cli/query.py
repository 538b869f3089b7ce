"""``refclock query``: asks NTP servers for the time and prints the offset of this machine's clock with its error.

Each request has a new socket, for a random source port (RFC 9109), and a random transmit field. That field reveals nothing of this clock
and cannot be guessed; a reply counts only when it echoes the field. The system clock is read once a request, and CLOCK_MONOTONIC_RAW
gives the elapsed time, so a step of the clock during the exchange has no effect.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ppsd.config.file import load
from ppsd.config.keys import read_keys
from ppsd.config.tables import Config, KeysConfig, endpoint_text
from ppsd.faces.text import plain_ns
from ppsd.ntp.packet import Exchange, Header, Reason, judge, parse, refid_text
from ppsd.process.exit_codes import FAILED, GOOD, USAGE, Refused
from refclock.errors import explain
from refclock.sample import Leap

if TYPE_CHECKING:
    from ppsd.serve.ntp_server import Authenticator

NTP_PORT = 123
TIMEOUT_S = 1.0
"""s to wait for each reply: three times the longest terrestrial round trip."""
PAUSE_S = 0.2
"""s between requests: far below any server's rate limit for a burst of eight (chrony's default leak allows 16)."""
LEAP_WORDS = {Leap.NORMAL: "normal", Leap.INSERT: "insert second", Leap.DELETE: "delete second", Leap.UNSYNCHRONISED: "unsynchronised"}


def run(args: argparse.Namespace) -> int:
    """Ask the servers on the command line: GOOD when one of them gave the time, else FAILED."""
    places, key = [split_server(server) for server in args.server], authenticator(args.key, args.keys, args.config)
    asked = [_ask(host, port, args.count, key, aloud=not args.json) for host, port in places]
    best = min((one for one in asked if one.best is not None), key=_distance_ns, default=None)
    if args.json:
        told = [one.told() for one in asked]
        several = {"servers": told, "best": None if best is None else best.name}
        print(json.dumps(told[0] if len(told) == 1 else several))
    elif best is not None and best.best is not None and len(asked) > 1:
        print(f"of {len(asked)} servers {best.name} is nearest: {_verdict(best.best)}")
        for one in asked:
            if one.best is not None and _contradict(one.best, best.best):
                apart = plain_ns(abs(one.best.offset_ns - best.best.offset_ns))
                print(f"{one.name} contradicts it: {apart} apart, more than the errors of both; one of them is wrong")
    return GOOD if best is not None else FAILED


def split_server(text: str) -> tuple[str, int]:
    """(host, port) of HOST, HOST:PORT, an IPv6 address or [ADDRESS]:PORT. Refused: the port is none, or a bracket is missing."""
    host, separator, port = text.rpartition(":")
    if not separator or (":" in host and not text.startswith("[")) or text.endswith("]"):
        host, port = text, str(NTP_PORT)
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise Refused(USAGE, f"refclock: {text}: the port must be 1 to 65535")
    address = host.removeprefix("[").removesuffix("]")
    if not address or "[" in address or host.startswith("[") != host.endswith("]"):
        raise Refused(USAGE, f"refclock: {text}: write HOST, HOST:PORT, or an IPv6 address with a port as [ADDRESS]:PORT")
    return address, int(port)


def authenticator(key_id: int | None, file: Path | None, config: Path | None) -> Authenticator | None:
    """The key with that number, from ``file`` or else from ``keys.file`` of the configuration; None without a number. ConfigError: the key
    file is faulty. Refused: there is no such key. Weak kinds are taken too: what a server accepts is for the server to say."""
    if key_id is None:
        return None
    from ppsd.serve.ntp_server import Authenticator  # noqa: PLC0415 (the server's library, for those alone who have a key)

    path = str(file.absolute()) if file is not None else load(config).keys.file
    if not path:
        raise Refused(USAGE, "refclock: --key needs a key file: --keys FILE, or keys.file in the configuration")
    found = next((key for key in read_keys(Config(keys=KeysConfig(file=path, weak=True))) if key.key_id == key_id), None)
    if found is None:
        raise Refused(USAGE, f"refclock: {path} has no key {key_id}")
    return Authenticator(found)


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a server, as socket.getaddrinfo tells it."""

    family: int
    sockaddr: tuple[object, ...]

    def __str__(self) -> str:
        host, port = self.sockaddr[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def addresses_of(host: str, port: int) -> list[Address] | str:
    """The addresses of ``host`` in the order of preference; or why there are none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        return f"{host} is not a known host: {explain(error) if isinstance(error, OSError) else error}"
    return list(dict.fromkeys(Address(family, sockaddr) for family, _, _, _, sockaddr in found))


@dataclass(frozen=True, slots=True)
class Try:
    """Outcome of one request to ``address``: an exchange, or the reason without one. ``header``: the server's, when an unusable reply
    came."""

    address: Address
    exchange: Exchange | None
    why: str
    header: Header | None = None


def ask_once(sockaddr: tuple[object, ...], family: int, timeout_s: float = TIMEOUT_S, key: Authenticator | None = None) -> Try:
    """Send one request to one address, and take only replies that ``key`` authenticates. A network failure is returned as the reason."""
    address = Address(family, sockaddr)
    nonce = secrets.randbits(64) or 1
    request = Header(transmit=nonce).pack()
    if key is not None:
        request = key.sign(request)
    why = "no reply" + (f": silence is also the answer to a wrong key (key {key.key_id})" if key is not None else "")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(sockaddr)
            sent_utc = time.time_ns()
            started = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            sock.send(request)
            while True:
                elapsed = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - started
                if elapsed >= timeout_s * 1e9:
                    return Try(address, None, why)
                sock.settimeout(timeout_s - elapsed / 1e9)
                data = sock.recv(1024)
                received_utc = sent_utc + time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - started
                result = judge(nonce, data, sent_utc, received_utc)
                if key is not None and result not in (Reason.SHORT, Reason.MODE, Reason.ORIGIN) and not key.accepts(data):
                    why = f"the reply is not authenticated with key {key.key_id}: the server has no such key, or another secret"
                    continue
                if isinstance(result, Exchange):
                    return Try(address, result, "", result.header)
                why = result.value
                if result not in (Reason.SHORT, Reason.MODE, Reason.ORIGIN):
                    return Try(address, None, why, parse(data))
    except TimeoutError:
        return Try(address, None, why)
    except ConnectionRefusedError:
        return Try(address, None, "nothing listens there (port unreachable)")
    except OSError as error:
        return Try(address, None, explain(error))


def first_answer(addresses: Sequence[Address], key: Authenticator | None = None) -> list[Try]:
    """One request to each address in turn, until one gives a usable reply: the last one, if any does."""
    tries: list[Try] = []
    for address in addresses:
        tries.append(ask_once(address.sockaddr, address.family, key=key))
        if tries[-1].exchange is not None:
            break
    return tries


def failures(tries: Sequence[Try]) -> str:
    """What failed, by address: "192.0.2.1:123: no reply; ..."."""
    return "; ".join(dict.fromkeys(f"{t.address}: {_outcome(t)}" for t in tries if t.exchange is None))


def _facts(header: Header) -> dict[str, object]:
    return {
        "version": header.version,
        "stratum": header.stratum,
        "refid": refid_text(header.refid, header.stratum),
        "leap": LEAP_WORDS[header.leap],
        "root_delay_ns": header.root_delay_ns,
        "root_dispersion_ns": header.root_dispersion_ns,
        "precision": header.precision,
    }


def _signed(ns: int) -> str:
    return ("+" if ns >= 0 else "-") + plain_ns(abs(ns))


def _outcome(result: Try) -> str:
    if result.exchange is None:
        h = result.header
        return result.why + (f" (stratum {h.stratum}, refid {refid_text(h.refid, h.stratum)})" if h else "")
    e = result.exchange
    return (
        f"offset {_signed(e.offset_ns)} ±{plain_ns(e.root_distance_ns)}  delay {plain_ns(e.delay_ns)}  stratum {e.header.stratum}"
        f"  refid {refid_text(e.header.refid, e.header.stratum)}  leap {LEAP_WORDS[e.header.leap]}"
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking one server. ``why``: why it was not even asked, "" when it was. ``best``: the exchange with the least delay."""

    host: str
    port: int
    address: str
    tries: tuple[Try, ...]
    why: str = ""

    @property
    def name(self) -> str:
        """The server as a person writes it."""
        return self.host if self.port == NTP_PORT else endpoint_text(self.host, self.port)

    @property
    def exchanges(self) -> list[Exchange]:
        """The usable replies."""
        return [t.exchange for t in self.tries if t.exchange is not None]

    @property
    def best(self) -> Exchange | None:
        """The one with the least delay; None without any."""
        return min(self.exchanges, key=lambda e: e.delay_ns, default=None)

    def told(self) -> dict[str, object]:
        """For JSON."""
        report: dict[str, object] = {"server": self.host, "port": self.port}
        if self.why:
            return report | {"error": self.why}
        best = self.best
        report |= {"address": self.address, "sent": len(self.tries), "used": len(self.exchanges)}
        header = best.header if best else next((t.header for t in self.tries if t.header), None)
        report |= _facts(header) if header else {}
        if best is None:
            return report | {"error": failures(self.tries)}
        return report | {"offset_ns": best.offset_ns, "delay_ns": best.delay_ns, "root_distance_ns": best.root_distance_ns}


def _distance_ns(asked: Asked) -> float:
    return float("inf") if asked.best is None else asked.best.root_distance_ns


def _contradict(one: Exchange, other: Exchange) -> bool:
    """Whether no time is within the errors of both."""
    return abs(one.offset_ns - other.offset_ns) > one.root_distance_ns + other.root_distance_ns


def _verdict(e: Exchange) -> str:
    behind = "behind" if e.offset_ns >= 0 else "ahead"
    return f"this clock is {plain_ns(abs(e.offset_ns))} {behind}, true time within ±{plain_ns(e.root_distance_ns)} of that"


def _ask(host: str, port: int, count: int, key: Authenticator | None, *, aloud: bool) -> Asked:
    """Ask a server ``count`` times; ``aloud``: print each outcome. The addresses of the host are tried in turn, and the first that gives
    the time is asked from then on."""
    addresses = addresses_of(host, port)
    if isinstance(addresses, str):
        if aloud:
            print(addresses)
        return Asked(host, port, "", (), addresses)
    tries: list[Try] = []
    for i in range(count):
        if i:
            time.sleep(PAUSE_S)
        latest = first_answer(addresses, key)
        tries += latest
        if latest[-1].exchange is not None:
            addresses = [latest[-1].address]
        if aloud:
            for one in latest:
                print(f"{one.address}  {_outcome(one)}", flush=True)
    asked = Asked(host, port, str(addresses[0].sockaddr[0]), tuple(tries))
    if aloud and count > 1 and asked.best is not None:
        print(f"best of {len(asked.exchanges)}/{len(tries)}: {_verdict(asked.best)}")
    return asked
