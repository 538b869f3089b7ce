"""The output of ``refclock status``, from a Snapshot: the daemon's state in words for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ppsd.snapshot import ServerReport, Snapshot, SourceStatus, Verdict
from refclock.condition import Code


def plain_ns(ns: float) -> str:
    """A time in the unit that suits its size: 85 ns, 1.2 µs, 17 ms, 3.1 s."""
    for limit, unit, scale in ((1e3, "ns", 1.0), (1e6, "µs", 1e3), (1e9, "ms", 1e6)):
        if abs(ns) < limit:
            value = ns / scale
            return f"{value:.0f} {unit}" if abs(value) >= 10 or unit == "ns" else f"{value:.1f} {unit}"
    return f"{ns / 1e9:.1f} s"


def plain_duration(s: float) -> str:
    """A duration in one or two units: 45 s, 12 m, 2 h 10 m, 12 d."""
    if s < 120:
        return f"{s:.0f} s"
    if s < 7200:
        return f"{s / 60:.0f} m"
    if s < 2 * 86400:
        return f"{int(s // 3600)} h {int(s % 3600 // 60)} m"
    return f"{s / 86400:.0f} d"


def undelivered(clock: Snapshot, server: ServerReport | str, holders: Mapping[str, str]) -> str:
    """Why the time does not reach those whom it is for, "" while it does. ``server``: its report, or why there is none. ``holders``: which
    program holds an address while no server of ours runs."""
    if clock.listen and isinstance(server, str):
        return "; ".join([f"NOT SERVED: the NTP server is {server}", *(f"{address} is held by {who}" for address, who in holders.items())])
    if clock.listen and not isinstance(server, str):
        taken = [one.why for one in server.unserved if one.taken]
        if not server.addresses:
            lacking = [one.why for one in server.unserved] or [f"no address could be bound: {', '.join(clock.listen)}"]
            return f"NOT SERVED: {'; '.join(lacking)}"
        if taken:
            return f"NOT SERVED everywhere: {'; '.join(taken)}"
    if (fed := clock.has(Code.FEED_NOT_TAKEN)) is not None:
        return f"NOT TAKEN: {fed.words}"
    return ""


def top_line(clock: Snapshot, failed: str = "") -> str:
    """The summary in one line: state, error bound, source, leap second, satellites, uptime. What matters most comes first: a terminal of 80
    columns shows the line's beginning. ``failed``: what ``undelivered`` says."""
    selected, words = clock.selected, list[str]()
    if clock.verdict is Verdict.HOLDOVER and clock.holdover_s is not None:
        words.append(f"HOLDOVER {plain_duration(clock.holdover_s)}")
    else:
        words.append(clock.verdict)
    if clock.bound_ns is not None:
        words.append(f"within ±{plain_ns(clock.bound_ns)}")
    if clock.verdict is Verdict.HOLDOVER and clock.holdover_left_s is not None:
        words.append(f"safe for {plain_duration(clock.holdover_left_s)}")
    if clock.verdict is Verdict.LOCKED and selected is not None:
        words.append(f"by {selected.what}")
    if clock.why:
        words.append(clock.why)
    words.append(f"leap: {'none pending' if clock.leap_pending == 'none' else clock.leap_pending}")
    counted = selected or (clock.sources[0] if clock.sources else None)
    if counted is not None and counted.satellites_used is not None:
        words.append(f"{counted.satellites_used}/{counted.satellites_seen} sats")
    words.append(f"up {plain_duration(clock.uptime_s)}")
    return (f"{failed} · " if failed else "") + ("SIMULATED " if clock.simulated else "") + " · ".join(words)


_TALLY = {
    "*": "selected",
    "+": "agrees",
    "-": "not used",
    "x": "falseticker",
    "~": "too variable",
    "?": "unusable",
}


def sources_in_words(clock: Snapshot) -> list[str]:
    """One sentence for each source: what it is, its state, and why. Below it one line for each further detail."""
    lines = []
    for s in clock.sources:
        words = [f"{s.tally} {s.name}: {s.what}", _TALLY.get(s.tally, s.tally) if s.present else "absent"]
        if s.fix not in ("unknown", ""):
            words.append(f"fix {s.fix}")
        if s.satellites_used is not None:
            words.append(f"{s.satellites_used}/{s.satellites_seen} sats")
        if s.jitter_ns is not None:
            words.append(f"jitter {plain_ns(s.jitter_ns)}")
        if s.message:
            words.append(s.message)
        elif s.message_delay_ms is not None:
            spread = f" ± {s.message_spread_ms:.1f}" if s.message_spread_ms is not None else ""
            words.append(f"message {s.message_delay_ms:.1f}{spread} ms after the second")
        rejected = sum(s.rejected.values())
        if rejected:
            words.append(f"{rejected} rejected (mostly {max(s.rejected, key=lambda reason: s.rejected[reason])})")
        lines.append(", ".join(words) + (f" — {s.why}" if s.why else ""))
        lines += [f"  {s.name}: {line}" for line in dict.fromkeys(_details(s)) if line and line != s.why]
    for u in clock.upstreams:
        place = u.address if u.host == u.address else f"{u.host} ({u.address})"
        words = [f"{u.tally} {u.name}: NTP server {place}" if u.name != u.address else f"{u.tally} NTP server {place}"]
        if u.stratum:
            words.append(f"stratum {u.stratum}, delay {plain_ns(u.delay_ns)}")
        if u.authentication.mode:
            words.append("authenticated by NTS" if u.authentication.mode == "nts" else f"authenticated by key {u.authentication.key_id}")
        if u.offset_ns is not None and u.bound_ns is not None:
            words.append(f"{plain_ns(abs(u.offset_ns))} {'ahead' if u.offset_ns > 0 else 'behind'}, may be off by {plain_ns(u.bound_ns)}")
        lines.append(", ".join(words) + (f" — {u.why}" if u.why else ""))
        asymmetry = clock.asymmetry_ns(u) if u.tally == "-" else None
        if asymmetry is not None:
            by_ns, within_ns = asymmetry
            way = "the way there takes longer than the way back" if by_ns >= 0 else "the way back takes longer than the way there"
            lines.append(f"  {u.name}: if it is right, {way} by {plain_ns(abs(by_ns))} ± {plain_ns(within_ns)}")
    return lines


def _details(s: SourceStatus) -> list[str]:
    """Further details of a source. Lines may be empty or repeated; the caller removes those."""
    told = [s.timing, s.cable, *s.health]
    if s.pulse is not None:
        allowed = f"stamps up to {s.bias_us:.4g} µs late allowed for ({s.bias_how or 'as usual'})" if s.bias_us is not None else ""
        told += [s.pulse.words, allowed, *s.pulse.doubts, s.pulse.changed]
    return told + [c.words for c in s.conditions]


_ACTIONS = {"reply": "answered", "kod": "told off (kiss-o'-death)", "drop": "dropped"}
"""enum pkt_action in words."""


def server_line(server: ServerReport | str) -> str:
    """The NTP server in one line: requests by outcome, and defences in force. ``server`` as text: why there is no report."""
    if isinstance(server, str):
        return f"server: {server}"
    words = [f"not on {one.address}: {one.why}" for one in server.unserved if not one.harmless]
    for action, word in _ACTIONS.items():
        reasons = {reason: n for reason, n in server.counters.get(action, {}).items() if n}
        if reasons:
            why = ", ".join(f"{reason.replace('_', ' ')} {n}" for reason, n in reasons.items())
            words.append(f"{sum(reasons.values())} {word} ({why})" if list(reasons) != ["basic"] else f"{sum(reasons.values())} {word}")
    own = server.counters.get("server", {})
    if own.get("kernel_drops"):
        words.append(f"{own['kernel_drops']} dropped by the kernel")
    if own.get("blocked"):
        words.append(f"{own['blocked']} flooding sources blocked")
    if own.get("let_through", 1000) < 1000:
        words.append(f"overloaded: {own['let_through'] / 10:.0f} % of unknown clients let through")
    return "server: " + (", ".join(words) or "no requests yet")


def status(clock: Snapshot, server: ServerReport | str, failed: str = "") -> str:
    """The summary line, the stages of synchronisation, the sources in words, further conditions, and the server's line."""
    stages = "  ".join(f"[{'x' if done else ' '}] {name}" for name, done in clock.stages)
    lines = [top_line(clock, failed), "", stages]
    lines += ["", *(sources_in_words(clock) or ["no source"])]
    told = [clock.temperature.words] if clock.temperature else []
    told += [c.words for c in clock.conditions if c.words != clock.why]
    lines += dict.fromkeys(told)
    lines.append(f"{server_line(server)}; system clock: {system_clock(clock)}")
    return "\n".join(lines)


def system_clock(clock: Snapshot) -> str:
    """Whether the system clock is steered, and how far it is from the timescale."""
    how, offset = "steered" if clock.steering == "kernel" else "left alone", clock.system_offset_ns
    if offset is None:
        return how
    distance = plain_ns(abs(offset)) if abs(offset) < 1e11 else plain_duration(abs(offset) / 1e9)
    return f"{how}, {distance} {'behind' if offset >= 0 else 'ahead'}"


def status_json(clock: Snapshot, server: ServerReport | str, failed: str = "") -> str:
    """The snapshot with the server's report beside it, and what ``undelivered`` says."""
    reported = {"error": server} if isinstance(server, str) else server.to_json()
    return json.dumps({**clock.to_json(), "server": reported, "undelivered": failed, "line": top_line(clock, failed)})


def status_row(clock: Snapshot, failed: str = "") -> str:
    """The state in one row: verdict, "undelivered" or "", bound in s, stratum, reference identifier, leap, offset of the system clock in s
    (+: it is ahead), frequency error in ppm, selected source, satellites used, satellites seen, uptime in s. "" for what is not known."""
    selected = clock.selected
    values: tuple[object, ...] = (
        *(clock.verdict, "undelivered" if failed else "", _decimal(clock.bound_ns, 1e-9, 9), clock.stratum, clock.refid, clock.leap),
        *(_decimal(clock.system_offset_ns, -1e-9, 9), _decimal(clock.frequency_ppm, 1.0, 3), selected.name if selected else ""),
        *(("" if n is None else n for n in (selected.satellites_used, selected.satellites_seen)) if selected else ("", "")),
        int(clock.uptime_s),
    )
    return ",".join(str(value) for value in values)


def _decimal(value: float | None, scale: float, decimals: int) -> str:
    return "" if value is None else f"{value * scale:.{decimals}f}"
