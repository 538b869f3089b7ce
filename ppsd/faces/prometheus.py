"""Metrics for Prometheus, from the daemon's own reports: its text format 0.0.4, and OpenMetrics 1.0.0 for who asks for that. Pure.

``native`` has the names of refclock; ``compatible`` those of chrony_exporter 0.12, so that boards and rules made for it work unchanged.
Units are in the names (seconds, ppm). Signs are a Snapshot's in ``native`` (offset = reference - local, positive: the local clock is
behind), and chronyd's, the opposite, in ``compatible``. What is not known has no sample: a gap, never a zero.

Source of the formats: prometheus.io, "Exposition formats", and the OpenMetrics specification 1.0.0; of the other names: chrony_exporter's
collectors, with the words of facebook/time/ntp/chrony for states.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ppsd.faces.chronyc import AnySource, error_s, every, offset_s, refid_hex, root, server_counts
from ppsd.faces.cmdmon import refids
from ppsd.snapshot import Mode, ServerReport, Snapshot, SourceStatus, UpstreamStatus

Labels = Mapping[str, str]
Sample = tuple[Labels, float]
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
"""Content types of the two formats."""
GAUGE, COUNTER = "gauge", "counter"
_NONE: Final[Labels] = {}
_STATES: Final = {
    "*": "selected",
    "+": "agrees",
    "-": "not_used",
    "x": "falseticker",
    "~": "too_variable",
    "?": "unusable",
}
_THEIR_STATES: Final = {"*": "sync", "?": "unreach", "x": "falseticket", "~": "jittery", "+": "candidate", "-": "outlier"}


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its samples. ``name``: of a counter, it ends in _total. ``help``: one sentence."""

    name: str
    kind: str
    help: str
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Reports:
    """What metrics are made from. None: that process does not answer. ``clients``: how many the server knows. ``deviations``: Allan
    deviations of the last hour's offsets, by averaging time in s."""

    clock: Snapshot | None
    server: ServerReport | None
    clients: int | None = None
    deviations: Mapping[int, float] | None = None


def _s(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e9


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _leap(clock: Snapshot) -> float:
    return {"insert": 1.0, "delete": -1.0}.get(clock.leap, 0.0)


def _jitter_s(source: SourceStatus) -> float | None:
    return None if source.pulse is None else _scaled(source.pulse.jitter_us, 1e-6)


def _poll_s(source: AnySource) -> float:
    return 2.0**source.poll if isinstance(source, UpstreamStatus) else 1.0


def _stratum(source: AnySource) -> float:
    return source.stratum if isinstance(source, UpstreamStatus) else 0.0


S = TypeVar("S", SourceStatus, UpstreamStatus, AnySource)
_Of = tuple[str, str, str, Callable[[Snapshot], float | None]]
_OfSource = tuple[str, str, str, Callable[[SourceStatus], float | None]]
_OfUpstream = tuple[str, str, str, Callable[[UpstreamStatus], float | None]]
_OfAny = tuple[str, str, str, Callable[[AnySource], float | None]]

_CLOCK: Final[tuple[_Of, ...]] = (
    ("simulated", GAUGE, "Whether the receiver is simulated.", lambda c: c.simulated),
    ("uptime_seconds", GAUGE, "Seconds since the start of the clock process.", lambda c: c.uptime_s),
    ("locked", GAUGE, "Whether the clock is locked to a source.", lambda c: c.verdict == "LOCKED"),
    ("synchronised", GAUGE, "Whether time is served at all.", lambda c: c.synchronised),
    ("stratum", GAUGE, "Stratum that is served.", lambda c: c.stratum),
    ("error_bound_seconds", GAUGE, "The served time is claimed to be within this of the true one.", lambda c: _s(c.bound_ns)),
    ("frequency_ppm", GAUGE, "Frequency error of the local oscillator, positive: fast.", lambda c: c.frequency_ppm),
    ("frequency_skew_ppm", GAUGE, "Uncertainty of that frequency.", lambda c: c.skew_ppm),
    ("system_offset_seconds", GAUGE, "Served time minus the system clock.", lambda c: _s(c.system_offset_ns)),
    ("holdover_seconds", GAUGE, "Seconds without a usable measurement; 0: not in holdover.", lambda c: c.holdover_s or 0.0),
    ("holdover_left_seconds", GAUGE, "Seconds until holdover ends and time is no longer served.", lambda c: c.holdover_left_s),
    ("leap_pending", GAUGE, "The leap second that is announced: 1 inserted, -1 deleted, 0 none.", _leap),
    ("tai_offset_seconds", GAUGE, "TAI minus UTC.", lambda c: c.tai_offset_s),
    ("steering", GAUGE, "Whether the system clock is disciplined.", lambda c: c.steering != "none"),
    ("clock_steps_total", COUNTER, "Steps of the system clock by others.", lambda c: c.clock_steps),
)
"""Of the clock process: name without refclock_, type, what it is, value."""

_SOURCE: Final[tuple[_OfSource, ...]] = (
    ("source_present", GAUGE, "Whether the device or the program of a source is there.", lambda s: s.present),
    ("source_offset_seconds", GAUGE, "Last sample of a source minus the served time.", lambda s: _s(s.offset_ns)),
    ("source_jitter_seconds", GAUGE, "Robust standard deviation of a source's samples.", lambda s: _s(s.jitter_ns)),
    ("source_error_bound_seconds", GAUGE, "What would be claimed with this source alone.", lambda s: _s(s.bound_ns)),
    ("source_frequency_ppm", GAUGE, "Frequency error of the local oscillator by a source.", lambda s: s.frequency_ppm),
    ("source_last_sample_seconds", GAUGE, "Seconds since the last sample of a source.", lambda s: s.last_sample_s),
    ("source_reach_ratio", GAUGE, "Share of the last eight seconds that brought a sample.", lambda s: (s.reach & 255).bit_count() / 8),
    ("source_samples", GAUGE, "Samples that the estimate of a source stands on.", lambda s: s.samples),
    ("source_pulses_total", COUNTER, "Pulses of a source.", lambda s: s.pulses),
    ("source_labels_total", COUNTER, "Seconds that a source has named.", lambda s: s.labels),
    ("source_junk_bytes_total", COUNTER, "Octets of a source's line that belong to no message.", lambda s: s.junk_bytes),
    ("message_delay_seconds", GAUGE, "How long after the second its message begins.", lambda s: _scaled(s.message_delay_ms, 1e-3)),
    ("message_spread_seconds", GAUGE, "How far that delay varies.", lambda s: _scaled(s.message_spread_ms, 1e-3)),
    ("pps_offset_seconds", GAUGE, "Last pulse minus the served time.", lambda s: _s(s.offset_ns) if s.pulse and s.pulse.good else None),
    ("pps_good", GAUGE, "Whether the pulses of a source are fit for timing.", lambda s: s.pulse.good if s.pulse else None),
    ("pps_rate_hertz", GAUGE, "Pulses a second.", lambda s: s.pulse.rate_hz if s.pulse else None),
    ("pps_jitter_seconds", GAUGE, "Nine of ten pulses are this close to their rhythm.", _jitter_s),
    ("pps_missing_total", COUNTER, "Pulses that did not come.", lambda s: s.pulse.missing if s.pulse else None),
    ("pps_stray_total", COUNTER, "Edges that are no pulses.", lambda s: s.pulse.stray if s.pulse else None),
    ("satellites_used", GAUGE, "Satellites in a receiver's fix.", lambda s: s.satellites_used),
    ("satellites_seen", GAUGE, "Satellites that a receiver sees.", lambda s: s.satellites_seen),
)
"""Of each source, as above."""

_UPSTREAM: Final[tuple[_OfUpstream, ...]] = (
    ("upstream_offset_seconds", GAUGE, "Last sample of an NTP server minus the served time.", lambda u: _s(u.offset_ns)),
    ("upstream_error_bound_seconds", GAUGE, "How far its time may be off, whatever the asymmetry of the path.", lambda u: _s(u.bound_ns)),
    ("upstream_delay_seconds", GAUGE, "Its last round trip: half of it is the most that asymmetry explains.", lambda u: _s(u.delay_ns)),
    ("upstream_root_delay_seconds", GAUGE, "From it to its reference clock and back.", lambda u: _s(u.root_delay_ns)),
    ("upstream_root_dispersion_seconds", GAUGE, "The error that it states.", lambda u: _s(u.dispersion_ns)),
    ("upstream_jitter_seconds", GAUGE, "Mean distance of its answers from its estimate.", lambda u: _s(u.jitter_ns)),
    ("upstream_stratum", GAUGE, "Its stratum.", lambda u: u.stratum or None),
    ("upstream_poll_seconds", GAUGE, "The interval between two requests.", _poll_s),
    ("upstream_reach_ratio", GAUGE, "Share of the last eight requests that were answered.", lambda u: u.reach.bit_count() / 8),
    ("upstream_last_sample_seconds", GAUGE, "Seconds since its last answer that was used.", lambda u: u.last_sample_s),
    ("upstream_authenticated", GAUGE, "Whether its answers are authenticated.", lambda u: bool(u.authentication.mode)),
    ("upstream_requests_total", COUNTER, "Requests that it was sent.", lambda u: u.packets.sent),
    ("upstream_answers_total", COUNTER, "Its valid answers.", lambda u: u.packets.valid),
    ("upstream_used_total", COUNTER, "Its answers that were used.", lambda u: u.packets.good),
)
"""Of each NTP server."""


def _one(name: str, kind: str, what: str, value: float | None, labels: Labels = _NONE) -> Iterator[Family]:
    """A family of one sample; none without a value."""
    if value is not None:
        yield Family(name, kind, what, [(labels, float(value))])


def _of_each(
    prefix: str, sources: Sequence[S], table: Iterable[tuple[str, str, str, Callable[[S], float | None]]], names: Sequence[Labels]
) -> Iterator[Family]:
    """A family for each row of ``table``, with a sample for each of ``sources`` that has a value. ``names``: their labels."""
    for name, kind, what, value_of in table:
        values = [(labels, value_of(source)) for labels, source in zip(names, sources, strict=True)]
        samples = [(labels, float(value)) for labels, value in values if value is not None]
        if samples:
            yield Family(f"{prefix}{name}", kind, what, samples)


def native(reports: Reports) -> Iterator[Family]:
    """The metrics under the names of refclock."""
    clock, server = reports.clock, reports.server
    up: list[Sample] = [({"process": "clock"}, float(clock is not None))]
    if server is not None or clock is None or clock.listen:  # else no NTP server is wanted
        up.append(({"process": "serve"}, float(server is not None)))
    yield Family("refclock_up", GAUGE, "Whether a process of the daemon answers.", up)
    if clock is not None:
        yield from _one("refclock_build_info", GAUGE, "The version that runs.", 1.0, {"version": clock.version})
        for name, kind, what, value_of in _CLOCK:
            yield from _one(f"refclock_{name}", kind, what, value_of(clock))
        modes = [({"mode": mode.value}, float(clock.mode is mode)) for mode in Mode]
        yield Family("refclock_mode", GAUGE, "What the clock process is doing: 1 for one of the modes.", modes)
        yield from _conditions(clock)
        yield from _sources(clock)
        yield from _upstreams(clock)
        if clock.temperature is not None:
            labels = {"sensor": clock.temperature.sensor}
            yield from _one("refclock_temperature_celsius", GAUGE, "Temperature near the crystal.", clock.temperature.celsius, labels)
            in_use = clock.temperature.in_use
            yield from _one("refclock_temperature_in_use", GAUGE, "Whether estimates follow the temperature.", in_use, labels)
    if reports.deviations:
        taus = [({"tau": str(tau)}, value) for tau, value in reports.deviations.items()]
        yield Family("refclock_adev", GAUGE, "Overlapping Allan deviation of the last hour's offsets, by averaging time in s.", taus)
    if server is not None:
        yield from _server(server)
    yield from _one("refclock_clients", GAUGE, "Clients that the server remembers.", reports.clients)


def _conditions(clock: Snapshot) -> Iterator[Family]:
    """What is the matter, as codes: a sample for each condition that holds. The rows are those of ``refclock.condition``."""
    found: dict[tuple[str, str], float] = {}
    for condition in clock.conditions:
        found["", condition.code.value] = 1.0
    for source in every(clock):
        for condition in source.conditions:
            found[source.name, condition.code.value] = 1.0
    if found:
        samples = [({"source": source, "code": code}, value) for (source, code), value in found.items()]
        yield Family("refclock_condition", GAUGE, "What is the matter with a source, or with the daemon (source empty).", samples)


def _sources(clock: Snapshot) -> Iterator[Family]:
    names = [{"source": source.name} for source in clock.sources]
    info = [({"source": s.name, "kind": s.kind, "what": s.what}, 1.0) for s in clock.sources]
    if info:
        yield Family("refclock_source_info", GAUGE, "The sources.", info)
    states = [
        ({"source": source.name, "state": state}, float(source.tally == tally))
        for source in clock.sources
        for tally, state in _STATES.items()
    ]
    if states:
        yield Family("refclock_source_state", GAUGE, "Whether a source is selected, agrees ...: 1 for one of the states.", states)
    yield from _of_each("refclock_", clock.sources, _SOURCE, names)
    refused = [({"source": s.name, "reason": reason}, float(n)) for s in clock.sources for reason, n in s.rejected.items()]
    if refused:
        yield Family("refclock_source_rejected_total", COUNTER, "Statements and samples of a source that were refused.", refused)
    used: dict[tuple[str, str], float] = {}
    levels: dict[tuple[str, str, str], float] = {}
    for source in clock.sources:
        for one in source.satellites:
            used[source.name, one.gnss] = used.get((source.name, one.gnss), 0.0) + one.used
            if one.snr is not None:
                levels[source.name, one.gnss, str(one.number)] = float(one.snr)
    if used:
        by_system = [({"source": source, "gnss": gnss}, count) for (source, gnss), count in used.items()]
        yield Family("refclock_sats_used", GAUGE, "Satellites in a receiver's fix, by system.", by_system)
    if levels:
        each = [({"source": source, "gnss": gnss, "sv": number}, level) for (source, gnss, number), level in levels.items()]
        yield Family("refclock_sat_snr_dbhz", GAUGE, "Signal of a satellite (C/N0).", each)


def _upstreams(clock: Snapshot) -> Iterator[Family]:
    names = [{"upstream": u.name, "address": u.address} for u in clock.upstreams]
    info = [({**labels, "host": u.host}, 1.0) for labels, u in zip(names, clock.upstreams, strict=True)]
    if info:
        yield Family("refclock_upstream_info", GAUGE, "The NTP servers that are asked.", info)
        states = [
            ({**labels, "state": state}, float(u.tally == tally))
            for labels, u in zip(names, clock.upstreams, strict=True)
            for tally, state in _STATES.items()
        ]
        yield Family("refclock_upstream_state", GAUGE, "Whether an NTP server is followed, contradicts ...: 1 for one state.", states)
    yield from _of_each("refclock_", clock.upstreams, _UPSTREAM, names)
    found = [(labels, clock.asymmetry_ns(u)) for labels, u in zip(names, clock.upstreams, strict=True)]
    known = [(labels, pair) for labels, pair in found if pair is not None]
    for i, (name, what) in enumerate(
        (
            ("asymmetry", "The way to an NTP server minus the way back, if its time is right; measured against a receiver."),
            ("asymmetry_error", "How far that may be off."),
        )
    ):
        if known:
            yield Family(f"refclock_upstream_{name}_seconds", GAUGE, what, [(labels, pair[i] / 1e9) for labels, pair in known])


def _server(server: ServerReport) -> Iterator[Family]:
    yield from _one("refclock_server_uptime_seconds", GAUGE, "Seconds since the start of the serve process.", server.uptime_s)
    yield from _one("refclock_server_addresses", GAUGE, "Addresses that are served.", len(server.addresses))
    lacking = sum(not one.harmless for one in server.unserved)
    yield from _one("refclock_server_addresses_missing", GAUGE, "Addresses that should be served and are not.", lacking)
    results = ("reply", "kod", "drop")
    requests = [({"result": result, "reason": why}, float(n)) for result in results for why, n in server.counters.get(result, {}).items()]
    if requests:
        yield Family("refclock_requests_total", COUNTER, "Packets that came to the NTP port, by what became of them and why.", requests)
    own = server.counters.get("server", {})
    for name, what in (
        ("authenticated", "Requests with a valid key, or with NTS."),
        ("nts", "Requests answered with NTS."),
        ("kernel_drops", "Packets that the kernel dropped before the server saw them."),
        ("receive_errors", "Failed receptions."),
        ("unstamped", "Packets whose arrival the kernel did not stamp."),
        ("departures", "Replies whose departure the kernel has stamped."),
    ):
        yield from _one(f"refclock_server_{name}_total", COUNTER, what, own.get(name))


# ---- the names of chrony_exporter -------------------------------------------------------------------------------------------------------

_THEIR_SOURCE: Final[tuple[_OfAny, ...]] = (
    ("sources_last_sample_age_seconds", GAUGE, "Chrony sources last good sample age in seconds", lambda s: s.last_sample_s),
    (
        "sources_reachability_ratio",
        GAUGE,
        "Chrony sources ratio of packet reachability",
        lambda s: (s.reach & 255).bit_count() / 8,
    ),
    ("sources_reachability_success", GAUGE, "Chrony sources last poll reachability success", lambda s: s.reach & 1),
    ("sources_last_sample_offset_seconds", GAUGE, "Chrony sources last sample offset in seconds", offset_s),
    ("sources_last_sample_error_margin_seconds", GAUGE, "Chrony sources last sample margin of error in seconds", error_s),
    ("sources_polling_interval_seconds", GAUGE, "Chrony sources polling interval in seconds", _poll_s),
    ("sources_stratum", GAUGE, "Chrony sources stratum", _stratum),
    ("sourcestats_samples", GAUGE, "Sample points currently retained for the source (NP)", lambda s: s.samples),
    ("sourcestats_runs", GAUGE, "Runs of residuals of the same sign (NR)", lambda s: 0.0),
    ("sourcestats_span_seconds", GAUGE, "Interval between the oldest and newest samples in seconds", lambda s: s.span_s or 0.0),
    ("sourcestats_stddev", GAUGE, "Estimated sample standard deviation", lambda s: (s.jitter_ns or 0) / 1e9),
    ("sourcestats_frequency_skew_ppms", GAUGE, "Estimated error bounds on the frequency in ppm", lambda s: s.skew_ppm or 0.0),
    ("sourcestats_offset", GAUGE, "Estimated offset of the source", offset_s),
)


def compatible(reports: Reports) -> Iterator[Family]:
    """The metrics under the names of chrony_exporter, with every collector that has something to tell here."""
    clock, server = reports.clock, reports.server
    yield from _one("chrony_up", GAUGE, "Whether the chrony server is up.", clock is not None)
    if clock is not None:
        yield from _their_tracking(clock)
        yield from _their_sources(clock)
    if server is not None:
        yield from _their_serverstats(server)


def _their_tracking(clock: Snapshot) -> Iterator[Family]:
    synchronised, selected = clock.synchronised, clock.selected or clock.followed
    name = clock.refid if synchronised else ""
    labels = {"tracking_address": name, "tracking_name": name, "tracking_refid": refid_hex(clock)}
    yield from _one("chrony_tracking_info", GAUGE, "Chrony tracking info", 1.0, labels)
    delay_s, dispersion_s = root(clock)
    reference_s = clock.reference_utc_ns / 1e9 if synchronised else 0.0
    for what, value, words in (
        ("last_offset_seconds", offset_s(selected) if selected else 0.0, "last offset in seconds"),
        ("reference_timestamp_seconds", reference_s, "reference timestamp"),
        ("system_time_seconds", (clock.system_offset_ns or 0) / 1e9, "system time offset in seconds"),
        ("remote_reference", 1.0, "is connected to a remote source"),
        ("rms_offset_seconds", ((selected.jitter_ns or 0) if selected else 0) / 1e9, "long-term average of the offset"),
        ("root_delay_seconds", delay_s, "root delay in seconds"),
        ("root_dispersion_seconds", dispersion_s, "root dispersion in seconds"),
        ("frequency_ppms", clock.frequency_ppm or 0.0, "frequency in ppm"),
        ("residual_frequency_ppms", 0.0, "residual frequency in ppm"),
        ("skew_ppms", clock.skew_ppm or 0.0, "skew in ppm"),
        ("update_interval_seconds", 1.0 if selected else 0.0, "update interval in seconds"),
        ("stratum", clock.stratum if synchronised else 0, "client stratum"),
    ):
        yield from _one(f"chrony_tracking_{what}", GAUGE, f"Chrony tracking {words}", value)


def _their_sources(clock: Snapshot) -> Iterator[Family]:
    sources = every(clock)
    names = [{"source_address": name, "source_name": name} for name in map(_text, refids(clock))]
    names += [{"source_address": u.address, "source_name": u.host} for u in clock.upstreams]
    modes = ["ref"] * len(clock.sources) + ["client"] * len(clock.upstreams)
    states = [
        (name | {"source_state": _THEIR_STATES.get(source.tally, "unreach"), "source_mode": mode}, 1.0)
        for name, source, mode in zip(names, sources, modes, strict=True)
    ]
    if states:
        yield Family("chrony_sources_state_info", GAUGE, "Chrony sources state info", states)
    yield from _of_each("chrony_", sources, _THEIR_SOURCE, names)
    frequency: list[Sample] = []
    for name, source in zip(names, sources, strict=True):
        if source.frequency_ppm is not None:
            frequency.append((name, source.frequency_ppm - (clock.frequency_ppm or 0.0)))
    if frequency:
        yield Family("chrony_sourcestats_frequency_ppms", GAUGE, "Estimated residual frequency in ppm", frequency)


def _their_serverstats(server: ServerReport) -> Iterator[Family]:
    """Their names are chronyc's labels, but for the two of what is held, which is no count."""
    held = {"NTP timestamps held": "ntp_timestamps_held", "NTP timestamp span": "ntp_timestamp_span_seconds"}
    for label, value in server_counts(server.counters).items():
        name = label.lower().replace(" ", "_").replace("-", "_").replace("hardware", "hw")
        kind, what = (GAUGE, held[label]) if label in held else (COUNTER, f"{name}_total")
        yield from _one(f"chrony_serverstats_{what}", kind, f"{label}, as in chronyc serverstats.", value)


def _text(refid: int) -> str:
    """A reference identifier as its printable characters."""
    return "".join(chr(octet) for octet in refid.to_bytes(4, "big") if 32 <= octet < 127)


# ---- the formats ------------------------------------------------------------------------------------------------------------------------


def page(families: Iterable[Family], openmetrics: bool = False) -> str:
    """The families as text."""
    lines: list[str] = []
    for family in families:
        shown = family.name.removesuffix("_total") if openmetrics and family.kind == COUNTER else family.name
        lines.append(f"# HELP {shown} {_escaped(family.help, quotes=openmetrics)}")
        lines.append(f"# TYPE {shown} {family.kind}")
        for labels, value in family.samples:
            inside = ",".join(f'{name}="{_escaped(text, quotes=True)}"' for name, text in labels.items())
            lines.append(f"{family.name}{{{inside}}} {_number(value)}" if inside else f"{family.name} {_number(value)}")
    return "\n".join([*lines, *(["# EOF"] if openmetrics else []), ""])


def _escaped(text: str, quotes: bool) -> str:
    found = text.replace("\\", "\\\\").replace("\n", "\\n")
    return found.replace('"', '\\"') if quotes else found


def _number(value: float) -> str:
    if math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def wants_openmetrics(accept: str) -> bool:
    """Whether the header Accept of a request prefers OpenMetrics 1.0.0 to the text format (RFC 9110, section 12.5.1)."""
    best = {OPENMETRICS: 0.0, TEXT: 0.0}
    for part in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        if kind == "application/openmetrics-text" and "version=0.0.1" not in parameters:
            best[OPENMETRICS] = max(best[OPENMETRICS], _quality(parameters))
        elif kind in ("text/plain", "text/*"):
            best[TEXT] = max(best[TEXT], _quality(parameters))
    return best[OPENMETRICS] > best[TEXT]


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        if match := re.fullmatch(r"q=(1(?:\.0{0,3})?|0(?:\.[0-9]{0,3})?)", parameter):
            return float(match[1])
    return 1.0
