"""The reports of chronyc, from the daemon's own reports: the same text, the same columns of ``chronyc -c``, and JSON.

People and scripts that know chronyc can read them. chronyc prints offsets as local - reference (positive: the local clock is ahead of the
source), the opposite of this code's sign. What chronyd measures and this daemon does not have is 0, or "-" where chronyc has that word.
Source of labels, widths, units and columns: the output of chronyc 4.3 beside a chronyd, and chronyc(1). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any, Final

from ppsd.ntp.packet import refid_text
from ppsd.snapshot import ServerReport, Snapshot, SourceStatus, UpstreamStatus
from refclock.sample import NS, refid_of

NAME: Final = 25
"""Characters of the column of names."""
UNKNOWN_S: Final = 2**32 - 1
"""s; an age that is not known, in ``chronyc -c``."""
NO_INTERVAL: Final = 127
"""log2 s; an interval that is not known, in ``chronyc -c``."""
MOST_POINTS: Final = 999
"""Samples that have room in the column NP."""
LEAPS: Final = {"normal": 0, "insert": 1, "delete": 2, "unsynchronised": 3}
"""A snapshot's words for leap indicators, and their numbers."""
LEAP_WORDS: Final = ("Normal", "Insert second", "Delete second", "Not synchronised")
"""chronyc's words for them."""


def leap_of(clock: Snapshot, source: AnySource) -> int:
    """The leap indicator of a source: that of a receiver is what is served; 3 without an estimate."""
    if source.bound_ns is None:
        return 3
    return source.packets.leap if isinstance(source, UpstreamStatus) else LEAPS.get(clock.leap, 3)


@dataclass(frozen=True, slots=True)
class Report:
    """One report. ``text``: as chronyc prints it. ``rows``: the lines of ``chronyc -c``. ``told``: the same for JSON. ``legend``: what
    ``-v`` prints above the text."""

    text: str
    rows: tuple[str, ...]
    told: Any
    legend: str = ""


def _row(*values: object) -> str:
    """A line of ``chronyc -c``."""
    return ",".join(str(value) for value in values)


def _table(heading: str, lines: Sequence[str]) -> str:
    return "\n".join((heading, "=" * len(heading), *lines))


def _name(name: str) -> str:
    """A name in its column; a longer one is cut, and marked as cut."""
    return f"{name:<{NAME}}" if len(name) <= NAME else f"{name[: NAME - 1]}>"


def interval(s: float | None) -> str:
    """An age in four columns: seconds below 1200, then m, h, d, y; - when unknown."""
    if s is None:
        return "   -"
    for limit, unit, scale in ((1200, "", 1), (36_000, "m", 60), (345_600, "h", 3600), (1000 * 86_400, "d", 86_400)):
        if s < limit:
            return f"{int(s / scale):{4 - len(unit)}d}{unit}"
    return f"{int(s / 31_536_000):3d}y"


def amount(s: float, signed: bool) -> str:
    """A time in four digits (with a sign, five columns) and one of ns, us, ms, s, m, h, d, y."""
    sign, width = ("+", 5) if signed else ("", 4)
    value = s if signed else abs(s)
    for limit, unit, scale in ((9999.5e-9, "ns", 1e-9), (9999.5e-6, "us", 1e-6), (9999.5e-3, "ms", 1e-3)):
        if abs(s) < limit:
            return f"{value / scale:{sign}{width}.0f}{unit}"
    if abs(s) < 999.5:
        return f"{value:{sign}{width + 1}.1f}s"
    for unit, scale in (("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)):
        if abs(s) < 99_999.5 * scale:
            return f"{value / scale:{sign}{width + 1}.0f}{unit}"
    return f"{value / 31_536_000:{sign}{width + 1}.0f}y"


def _age(s: float | None) -> int:
    """An age in ``chronyc -c``."""
    return UNKNOWN_S if s is None else int(s)


AnySource = SourceStatus | UpstreamStatus
"""A receiver, or an NTP server."""


def every(clock: Snapshot) -> tuple[AnySource, ...]:
    """All sources in chronyc's order: receivers, then servers."""
    return (*clock.sources, *clock.upstreams)


def offset_s(source: AnySource) -> float:
    """A source's offset in seconds with chronyc's sign; 0 when there is none."""
    return (0 - (source.offset_ns or 0)) / 1e9


def error_s(source: AnySource) -> float:
    """How far a source's time may be off, in seconds."""
    return (source.bound_ns if source.bound_ns is not None else source.jitter_ns or 0) / 1e9


# ---- of the clock process ---------------------------------------------------------------------------------------------------------------

SOURCES_LEGEND: Final = r"""
  .-- Source mode  '^' = server, '=' = peer, '#' = local clock.
 / .- Source state '*' = current best, '+' = combined, '-' = not combined,
| /             'x' = may be in error, '~' = too variable, '?' = unusable.
||                                                 .- xxxx [ yyyy ] +/- zzzz
||      Reachability register (octal) -.           |  xxxx = adjusted offset,
||      Log2(Polling interval) --.      |          |  yyyy = measured offset,
||                                \     |          |  zzzz = estimated error.
||                                 |    |           \
"""


def sources(clock: Snapshot) -> Report:
    """``chronyc sources``. A receiver is a reference clock, mode #, with a sample a second, poll 0; an NTP server is mode ^."""
    lines, rows = [], []
    for s in clock.sources:
        offset, error = offset_s(s), error_s(s)
        sample = f"{amount(offset, True)}[{amount(offset, True)}] +/- {amount(error, False)}"
        lines.append(f"#{s.tally} {_name(s.name):<27}  {0:2d}  {0:2d}   {s.reach:3o}  {interval(s.last_sample_s)}  {sample}")
        rows.append(
            _row("#", s.tally, s.name, 0, 0, f"{s.reach:o}", _age(s.last_sample_s), f"{offset:.9f}", f"{offset:.9f}", f"{error:.9f}")
        )
    for u in clock.upstreams:
        offset, error = offset_s(u), error_s(u)
        sample = f"{amount(offset, True)}[{amount(offset, True)}] +/- {amount(error, False)}"
        lines.append(f"^{u.tally} {_name(u.name):<27}  {u.stratum:2d}  {u.poll:2d}   {u.reach:3o}  {interval(u.last_sample_s)}  {sample}")
        values = (f"{offset:.9f}", f"{offset:.9f}", f"{error:.9f}")
        rows.append(_row("^", u.tally, u.name, u.stratum, u.poll, f"{u.reach:o}", _age(u.last_sample_s), *values))
    heading = "MS Name/IP address         Stratum Poll Reach LastRx Last sample               "
    told = clock.to_json()
    return Report(_table(heading, lines), tuple(rows), [*told["sources"], *told["upstreams"]], SOURCES_LEGEND)


SOURCESTATS_LEGEND: Final = r"""                             .- Number of sample points in measurement set.
                            /    .- Number of residual runs with same sign.
                           |    /    .- Length of measurement set (time).
                           |   |    /      .- Est. clock freq error (ppm).
                           |   |   |      /           .- Est. error in freq.
                           |   |   |     |           /         .- Est. offset.
                           |   |   |     |          |          |   On the -.
                           |   |   |     |          |          |   samples. \
                           |   |   |     |          |          |             |
"""


def sourcestats(clock: Snapshot) -> Report:
    """``chronyc sourcestats``. The filter here counts no runs (NR 0). Frequency is what the source says beyond the served frequency."""
    lines, rows, told = [], [], list[dict[str, object]]()
    for s in every(clock):
        points, span = min(s.samples, MOST_POINTS), int(s.span_s or 0.0)
        frequency = (s.frequency_ppm or 0.0) - (clock.frequency_ppm or 0.0) if s.frequency_ppm is not None else 0.0
        skew, deviation = s.skew_ppm or 0.0, (s.jitter_ns or 0) / 1e9
        lines.append(
            f"{_name(s.name)} {points:3d} {0:3d}  {interval(span)} {frequency:+10.3f} {skew:10.3f}"
            f"  {amount(offset_s(s), True)}  {amount(deviation, False)}"
        )
        rows.append(_row(s.name, points, 0, span, f"{frequency:.3f}", f"{skew:.3f}", f"{offset_s(s):.9f}", f"{deviation:.9f}"))
        told.append(
            {
                "name": s.name,
                "samples": s.samples,
                "span_s": s.span_s,
                "residual_frequency_ppm": frequency,
                "skew_ppm": skew,
                "offset_ns": s.offset_ns,
                "jitter_ns": s.jitter_ns,
            }
        )
    heading = "Name/IP Address            NP  NR  Span  Frequency  Freq Skew  Offset  Std Dev"
    return Report(_table(heading, lines), tuple(rows), told, SOURCESTATS_LEGEND)


SELECTDATA_LEGEND: Final = r"""  . State: N - noselect, s - unsynchronised, M - missing samples,
 /         d/D - large distance, ~ - jittery, w/W - waits for others,
|          S - stale, O - orphan, T - not trusted, P - not preferred,
|          U - waits for update,, x - falseticker, + - combined, * - best.
|   Effective options   ---------.  (N - noselect, P - prefer
|   Configured options  ----.     \  T - trust, R - require)
|   Auth. enabled (Y/N) -.   \     \     Offset interval --.
|                        |    |     |                       |
"""


def mark_of(source: AnySource) -> str:
    """Y for a server whose answers are authenticated."""
    return "Y" if isinstance(source, UpstreamStatus) and source.authentication.mode else "N"


def selection(s: AnySource) -> str:
    """The letter of ``chronyc selectdata``: N noselect, M no estimate yet, S stale, P another is preferred, s unsynchronised, and as in
    ``chronyc sources``."""
    if s.noselect:
        return "N"
    if s.tally != "?":
        return "P" if s.tally == "-" else s.tally
    return "M" if s.bound_ns is None else "S" if not s.reach else "s"


def selectdata(clock: Snapshot) -> Report:
    """``chronyc selectdata``: why a source is selected, or not. The interval is its offset with its bound on both sides."""
    lines, rows, told = [], [], list[dict[str, object]]()
    for s in every(clock):
        state, offset, error = selection(s), offset_s(s), error_s(s)
        options = "".join(letter if on else "-" for letter, on in (("N", s.noselect), ("P", s.prefer), ("T", s.trust))) + "--"
        known = s.bound_ns is not None
        low, high = (offset - error, offset + error) if known else (0.0, 0.0)
        said = LEAP_WORDS[leap_of(clock, s)]
        mark = "N+-?"[leap_of(clock, s)]
        lines.append(
            f"{state} {_name(s.name)} {mark_of(s)} {options} {options} {interval(s.last_sample_s)} {1.0:5.1f} {amount(low, True)}"
            f" {amount(high, True)}  {mark}"
        )
        letters = [*options[:3], "-", "-"]
        rows.append(_row(state, s.name, mark_of(s), *letters, *letters, _age(s.last_sample_s), "1.0", f"{low:.9f}", f"{high:.9f}", said))
        told.append({"name": s.name, "state": state, "why": s.why, "low_ns": round(low * 1e9), "high_ns": round(high * 1e9)})
    heading = "S Name/IP Address        Auth COpts EOpts Last Score     Interval  Leap"
    return Report(_table(heading, lines), tuple(rows), told, SELECTDATA_LEGEND)


def tests(u: UpstreamStatus) -> int:
    """The ten tests of ``ntpdata`` as bits, the first one highest: RFC 5905's 1 to 3 and 5 to 7, then maximum delay, its two ratios, and
    loop. An answer that is told of has passed all; without one none is."""
    return 0x3FF if u.packets.good else 0


def ntpdata(clock: Snapshot) -> Report:
    """``chronyc ntpdata``: the packets of each NTP source. Reference clocks have none, and chronyc prints nothing for them."""
    texts, rows, told = [], [], list[dict[str, object]]()
    for u in clock.upstreams:
        p = u.packets
        remote, local = refid_of(u.address), refid_of(p.local) if p.local else 0
        leap, at_s = LEAP_WORDS[p.leap], p.reference_utc_ns / NS
        reference = datetime.fromtimestamp(p.reference_utc_ns // NS, UTC)
        flags, refid = f"{tests(u):010b}", refid_text(u.refid, p.stratum) if p.stratum == 1 else ""
        measured = (p.offset_ns / 1e9, u.delay_ns / 1e9, p.reading_ns / 1e9, p.turn_ns / 1e9)
        roots = (p.root_delay_ns / 1e9, p.root_dispersion_ns / 1e9)
        stamps = ("Daemon", "Kernel" if p.stamped else "Daemon")
        counts = (p.sent, p.received, p.valid, p.good)
        lines = (
            ("Remote address", f"{u.address} ({remote:08X})"),
            ("Remote port", p.port),
            ("Local address", f"{p.local or '[UNSPEC]'} ({local:08X})"),
            ("Leap status", leap),
            ("Version", p.version),
            ("Mode", "Server"),
            ("Stratum", p.stratum),
            ("Poll interval", f"{p.poll} ({2.0**p.poll:.0f} seconds)"),
            ("Precision", f"{p.precision} ({2.0**p.precision:.9f} seconds)"),
            ("Root delay", f"{roots[0]:.6f} seconds"),
            ("Root dispersion", f"{roots[1]:.6f} seconds"),
            ("Reference ID", f"{u.refid:08X} ({refid})"),
            ("Reference time", f"{reference:%a %b %d %H:%M:%S %Y}"),
            ("Offset", f"{measured[0]:+.9f} seconds"),
            ("Peer delay", f"{measured[1]:.9f} seconds"),
            ("Peer dispersion", f"{measured[2]:.9f} seconds"),
            ("Response time", f"{measured[3]:.9f} seconds"),
            ("Jitter asymmetry", f"{0.0:+.2f}"),
            ("NTP tests", f"{flags[:3]} {flags[3:6]} {flags[6:]}"),
            ("Interleaved", "Yes" if p.interleaved else "No"),
            ("Authenticated", "Yes" if u.authentication.mode else "No"),
            ("TX timestamping", stamps[0]),
            ("RX timestamping", stamps[1]),
            *zip(("Total TX", "Total RX", "Total valid RX", "Total good RX"), counts, strict=True),
        )
        texts.append("\n" + "\n".join(f"{label:<16}: {value}" for label, value in lines))
        rows.append(
            _row(
                *(u.address, f"{remote:08X}", p.port, p.local or "[UNSPEC]", f"{local:08X}", leap, p.version, "Server", p.stratum),
                *(p.poll, f"{2.0**p.poll:.0f}", p.precision, f"{2.0**p.precision:.9f}", *(f"{root:.6f}" for root in roots)),
                *(f"{u.refid:08X}", refid, f"{at_s:.9f}", *(f"{value:.9f}" for value in measured), "0.00"),
                *(flags[:3], flags[3:6], flags[6:], "Yes" if p.interleaved else "No", "Yes" if u.authentication.mode else "No"),
                *(*stamps, *counts),
            )
        )
        told.append({"name": u.name, "address": u.address, "delay_ns": u.delay_ns, **asdict(p)})
    return Report("\n".join(texts).lstrip("\n"), tuple(rows), told)


AUTHDATA_LEGEND: Final = r"""
                             .- Auth. mechanism (NTS, SK - symmetric key)
                            |   Key length -.  Cookie length (bytes) -.
                            |       (bits)  |  Num. of cookies --.    |
                            |               |  Key est. attempts  |   |
                            |               |           |         |   |
"""


def authdata(clock: Snapshot) -> Report:
    """``chronyc authdata``: how the answers of each NTP source are authenticated."""
    lines, rows, told = [], [], list[dict[str, object]]()
    for u in clock.upstreams:
        a = u.authentication
        mode = {"key": "SK", "nts": "NTS"}.get(a.mode, "-")
        lines.append(
            f"{_name(u.name):<27} {mode:>4} {a.key_id:5d} {a.key_type:4d} {a.key_bits:4d} {interval(a.ke_age_s)} {a.ke_attempts:4d}"
            f" {a.naks:4d} {a.cookies:4d} {a.cookie_bytes:4d}"
        )
        rows.append(
            _row(u.name, mode, a.key_id, a.key_type, a.key_bits, _age(a.ke_age_s), a.ke_attempts, a.naks, a.cookies, a.cookie_bytes)
        )
        told.append({"name": u.name, "address": u.address, **asdict(a)})
    heading = "Name/IP address             Mode KeyID Type KLen Last Atmp  NAK Cook CLen"
    return Report(_table(heading, lines), tuple(rows), told, AUTHDATA_LEGEND)


def online(clock: Snapshot) -> tuple[int, int]:
    """Sources that are there, and those that are not: a source whose device is there is online, and a server that is asked."""
    there = sum(s.present for s in clock.sources) + len(clock.upstreams)
    return there, len(clock.sources) + len(clock.upstreams) - there


def activity(clock: Snapshot) -> Report:
    """``chronyc activity``."""
    counts = (*online(clock), 0, 0, 0)
    words = ("online", "offline", "doing burst (return to online)", "doing burst (return to offline)", "with unknown address")
    lines = ("200 OK", *(f"{n} sources {what}" for n, what in zip(counts, words, strict=True)))
    return Report("\n".join(lines), (_row(*counts),), {"online": counts[0], "offline": counts[1]})


def reference(clock: Snapshot) -> int:
    """The reference identifier as a number; 0 while not synchronised."""
    if not clock.synchronised:
        return 0
    if clock.stratum > 1:
        return int(IPv4Address(clock.refid))
    return int.from_bytes(clock.refid.encode("ascii", "replace")[:4].ljust(4, b"\0"), "big")


def refid_hex(clock: Snapshot) -> str:
    """The reference identifier as chronyc prints it: "47505300"; zeros while not synchronised."""
    return f"{reference(clock):08X}"


def root(clock: Snapshot) -> tuple[float, float]:
    """Root delay and dispersion in seconds: half of the one and the other are the error bound. A receiver has no delay. Both are 1 s while
    not synchronised, as chronyd's: nobody may compute a small error from them."""
    if not clock.synchronised:
        return 1.0, 1.0
    return clock.root_delay_ns / 1e9, max(0.0, (clock.bound_ns or 0) - clock.root_delay_ns / 2) / 1e9


def tracking(clock: Snapshot) -> Report:
    """``chronyc tracking``."""
    synchronised, selected = clock.synchronised, clock.selected or clock.followed
    name = clock.refid if synchronised else ""
    stratum = clock.stratum if synchronised else 0
    reference_ns = clock.reference_utc_ns if synchronised else 0
    reference = datetime.fromtimestamp(reference_ns // NS, UTC)
    system, frequency = (clock.system_offset_ns or 0) / 1e9, clock.frequency_ppm or 0.0
    last = offset_s(selected) if selected else 0.0
    rms = ((selected.jitter_ns or 0) if selected else 0) / 1e9
    skew, update = clock.skew_ppm or 0.0, 1.0 if selected else 0.0
    delay, dispersion = root(clock)
    leap = LEAP_WORDS[LEAPS.get(clock.leap, 3)]
    text = "\n".join(
        f"{label:<16}: {value}"
        for label, value in (
            ("Reference ID", f"{refid_hex(clock)} ({name})"),
            ("Stratum", stratum),
            ("Ref time (UTC)", f"{reference:%a %b %d %H:%M:%S %Y}"),
            ("System time", f"{abs(system):.9f} seconds {'slow' if system > 0 else 'fast'} of NTP time"),
            ("Last offset", f"{last:+.9f} seconds"),
            ("RMS offset", f"{rms:.9f} seconds"),
            ("Frequency", f"{abs(frequency):.3f} ppm {'slow' if frequency < 0 else 'fast'}"),
            ("Residual freq", f"{0.0:+.3f} ppm"),
            ("Skew", f"{skew:.3f} ppm"),
            ("Root delay", f"{delay:.9f} seconds"),
            ("Root dispersion", f"{dispersion:.9f} seconds"),
            ("Update interval", f"{update:.1f} seconds"),
            ("Leap status", leap),
        )
    )
    row = _row(
        *(refid_hex(clock), name, stratum, f"{reference_ns // NS}.{reference_ns % NS:09d}", f"{system:.9f}", f"{last:.9f}", f"{rms:.9f}"),
        *(f"{frequency:.3f}", "0.000", f"{skew:.3f}", f"{delay:.9f}", f"{dispersion:.9f}", f"{update:.1f}", leap),
    )
    return Report(text, (row,), {key: value for key, value in clock.to_json().items() if key != "sources"})


# ---- of the server ----------------------------------------------------------------------------------------------------------------------


def server_counts(counters: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The numbers of ``chronyc serverstats`` of chrony 4.6 and later, by their labels. ``counters``: as in ``ServerReport``."""
    replies, drops, own = counters.get("reply", {}), sum(counters.get("drop", {}).values()), counters.get("server", {})
    received = sum(replies.values()) + sum(counters.get("kod", {}).values()) + drops
    commands, sessions = counters.get("command", {}), counters.get("nts-ke", {})
    unstamped, departures = own.get("unstamped", 0), own.get("departures", 0)
    return {
        "NTP packets received": received,
        "NTP packets dropped": drops,
        "Command packets received": commands.get("received", 0),
        "Command packets dropped": commands.get("dropped", 0),
        "Client log records dropped": 0,
        "NTS-KE connections accepted": sessions.get("accepted", 0),
        "NTS-KE connections dropped": sessions.get("denied", 0) + sessions.get("slow", 0),
        "Authenticated NTP packets": own.get("authenticated", 0),
        "Interleaved NTP packets": replies.get("interleaved", 0),
        "NTP timestamps held": 0,
        "NTP timestamp span": 0,
        "NTP daemon RX timestamps": unstamped,
        "NTP daemon TX timestamps": max(0, sum(replies.values()) - departures),
        "NTP kernel RX timestamps": max(0, received - unstamped),
        "NTP kernel TX timestamps": departures,
        "NTP hardware RX timestamps": 0,
        "NTP hardware TX timestamps": 0,
    }


def serverstats(server: ServerReport) -> Report:
    """``chronyc serverstats``."""
    values = server_counts(server.counters)
    text = "\n".join(f"{label:<27}: {value}" for label, value in values.items())
    return Report(text, (_row(*values.values()),), server.to_json())


def clients(answer: dict[str, Any]) -> Report:
    """``chronyc clients``, from the server's answer to "clients". There are no clients of a command protocol."""
    lines, rows = [], []
    for c in answer["clients"]:
        every = None if not c["interval_s"] else max(-7, min(NO_INTERVAL - 1, round(math.log2(c["interval_s"]))))
        shown = " -" if every is None else f"{every:2d}"
        lines.append(
            f"{_name(c['address'])}  {c['packets']:6d}  {c['drops']:5d}  {shown}   -  {interval(c['last_s'])}  {0:6d}  {0:5d}   -     -"
        )
        every = NO_INTERVAL if every is None else every
        rows.append(_row(c["address"], c["packets"], c["drops"], every, NO_INTERVAL, _age(c["last_s"]), 0, 0, NO_INTERVAL, UNKNOWN_S))
    heading = "Hostname                      NTP   Drop Int IntL Last     Cmd   Drop Int  Last"
    return Report(_table(heading, lines), tuple(rows), answer)
