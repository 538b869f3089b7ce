"""Makes the Snapshot of the engine's state, with the conditions of the daemon and of each source.

Flow: engine (``Standing``) -> **report** -> Snapshot, to the control socket, status line and simulator. Nothing is decided here. Pure.

The reason why the clock is not locked is the first blocking condition: those of the daemon come first, then those of the sources in the
order of the configuration, each in the order of ``Code``. For a locked clock only the daemon's own conditions count, such as being served
from messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from ppsd.discipline.leap import LeapKeeper
from ppsd.discipline.selection import Choice
from ppsd.discipline.source import LABEL_REFID, ReceiverSource, Source
from ppsd.discipline.timescale import Timescale, refid_text
from ppsd.discipline.upstream import Place, UpstreamSource
from ppsd.snapshot import Mode, Snapshot, SourceStatus, TemperatureStatus, UpstreamStatus, Verdict
from refclock.condition import Code, Condition, blocking, obstacle, ordered
from refclock.sample import NS, Instant, Leap, SourceId

VERDICTS: Final = {
    Mode.ACQUIRE: Verdict.NO_TIME,
    Mode.CONVERGE: Verdict.ACQUIRING,
    Mode.TRACK: Verdict.LOCKED,
    Mode.HOLDOVER: Verdict.HOLDOVER,
    Mode.FALLBACK: Verdict.FALLBACK,
}
LEAP_WORDS: Final = {Leap.NORMAL: "normal", Leap.INSERT: "insert", Leap.DELETE: "delete", Leap.UNSYNCHRONISED: "unsynchronised"}


@dataclass(frozen=True, slots=True)
class Standing:
    """State of the engine. ``started``: its start; ``withheld``: why the timescale is not served, None while it is; ``told``: what else
    speaks against it; ``alone``: no receiver is wanted, upstreams are; ``steering``: clock.steer; ``clock_steps``: steps of the system
    clock by others."""

    version: str
    pid: int
    simulated: bool
    started: Instant
    mode: Mode
    withheld: Condition | None
    told: tuple[Condition, ...]
    sources: Mapping[SourceId, Source]
    selected: SourceId | None
    choice: Choice
    timescale: Timescale
    upstreams: Mapping[SourceId, tuple[UpstreamSource, Place]]
    alone: bool
    leaps: LeapKeeper
    steering: str
    clock_steps: int
    temperature: TemperatureStatus | None

    @property
    def by_messages(self) -> SourceId | None:
        """The selected source when it is served from its messages although it has a pulse; else None."""
        best = self.choice.selected
        if best is None or best.refid != LABEL_REFID:
            return None
        source = self.sources[best.source]
        return source.id if isinstance(source, ReceiverSource) and source.time.has_pulse else None


def snapshot(standing: Standing, at: Instant) -> Snapshot:
    """The state of the daemon at ``at``, for users and programs."""
    s, now = standing, at.mono_ns
    scale = s.timescale if s.withheld is None and s.timescale.present(now) is not None else None
    e = scale.estimate if scale is not None else None
    tai_ns = scale.tai_at(now) if scale is not None else s.leaps.table.utc_to_tai_ns(at.real_ns)
    utc_ns = s.leaps.table.tai_to_utc_ns(tai_ns)
    verdict = VERDICTS[s.mode]
    answers = s.alone and any(upstream.server.reach for upstream, _ in s.upstreams.values())
    if s.mode is Mode.ACQUIRE and (answers or any(source.present for source in s.sources.values())):
        verdict = Verdict.ACQUIRING
    held = (now - s.timescale.reference_mono_ns) / NS if s.mode is Mode.HOLDOVER else None
    conditions = tuple(_conditions(s, now, tai_ns))
    sources = tuple(_source_status(s, source, at) for source in s.sources.values())
    of_sources = () if verdict is Verdict.LOCKED else (c for source in sources for c in source.conditions)
    reason = blocking((*conditions, *of_sources))
    return Snapshot(
        version=s.version,
        pid=s.pid,
        simulated=s.simulated,
        uptime_s=(now - s.started.mono_ns) / NS,
        utc=f"{datetime.fromtimestamp(utc_ns // NS, UTC):%Y-%m-%dT%H:%M:%S}.{utc_ns % NS:09d}Z",
        mode=s.mode,
        verdict=verdict,
        why="" if reason is None else reason.words,
        stages=_stages(s),
        stratum=s.timescale.stratum if scale is not None else 0,
        refid=refid_text(s.timescale.refid, s.timescale.stratum) if scale is not None else "INIT",
        leap=LEAP_WORDS[s.leaps.announced(tai_ns) if scale is not None else Leap.UNSYNCHRONISED],
        leap_pending=s.leaps.pending(tai_ns),
        tai_offset_s=s.leaps.schedule(tai_ns)[2],
        bound_ns=round(scale.bound_ns(now)) if scale is not None else None,
        frequency_ppm=-s.timescale.rate * 1e6 if e is not None else None,
        skew_ppm=e.skew * 1e6 if e is not None else None,
        system_offset_ns=utc_ns - at.real_ns if scale is not None else None,
        holdover_s=held,
        holdover_left_s=(s.timescale.valid_until_ns - now) / NS if held is not None else None,
        steering=s.steering,
        clock_steps=s.clock_steps,
        sources=sources,
        upstreams=tuple(_upstream_status(upstream, place, now) for upstream, place in s.upstreams.values()),
        root_delay_ns=s.timescale.root_delay_ns if scale is not None else 0,
        temperature=s.temperature,
        conditions=conditions,
    )


def _conditions(s: Standing, now_ns: int, tai_ns: int) -> Iterator[Condition]:
    """What is the matter with the daemon as a whole, in the order of ``Code``."""
    if s.alone:
        yield from _upstreams_lacking(s)
    elif not s.sources:
        yield obstacle(Code.NO_SOURCE, "no receiver is configured and none was found")
    if s.withheld is not None:
        yield s.withheld
    if s.mode is not Mode.TRACK and s.choice.falsetickers and s.choice.selected is None:
        yield obstacle(Code.SOURCES_DISAGREE, "the sources disagree and none can be believed")
    if s.mode is Mode.CONVERGE:
        yield obstacle(Code.LEARNING_FREQUENCY, "the second is known, learning the frequency")
    if s.mode is Mode.TRACK and s.by_messages is not None:
        yield obstacle(Code.MESSAGES_ONLY, f"by messages only: {s.sources[s.by_messages].obstacle(now_ns).words}")
    yield from s.told
    if s.clock_steps:
        times = "once" if s.clock_steps == 1 else f"{s.clock_steps} times"
        yield Condition(Code.CLOCK_STEPPED, f"the system clock was stepped by others {times}")
    yield from s.leaps.conditions(tai_ns)
    if s.temperature is not None and s.temperature.celsius is None:
        yield Condition(Code.THERMOMETER_SILENT, s.temperature.words)


def _upstreams_lacking(s: Standing) -> Iterator[Condition]:
    """Why none of the upstreams is followed, when nothing else could be."""
    if s.mode is Mode.TRACK:
        return
    places = [place for _, place in s.upstreams.values()]
    if any(place.tally == "*" for place in places):
        return  # what is followed is withheld, and why is told
    if any(place.tally == "x" for place in places):
        yield obstacle(Code.SOURCES_DISAGREE, "the NTP servers disagree and none can be believed")
        return
    why = next((f"{name}: {place.why}" for name, (_, place) in s.upstreams.items()), "none has an address yet")
    yield obstacle(Code.UPSTREAM_SILENT, f"no NTP server can be followed: {why}")


def _stages(s: Standing) -> tuple[tuple[str, bool], ...]:
    if s.alone:
        answered = any(upstream.server.reach for upstream, _ in s.upstreams.values())
        return ("a server answers", answered), ("locked", s.mode is Mode.TRACK)
    sources = s.sources.values()
    return (
        ("source found", any(source.present for source in sources)),
        ("second known", any(source.second_known for source in sources)),
        ("pulses numbered", any(source.ready for source in sources)),
        ("locked", s.mode is Mode.TRACK),
    )


def _upstream_status(upstream: UpstreamSource, place: Place, now_ns: int) -> UpstreamStatus:
    why = upstream.obstacle()
    return upstream.status(now_ns, place, () if why is None else ordered([why], upstream.id))


def _source_status(s: Standing, source: Source, at: Instant) -> SourceStatus:
    by_ns, agrees = s.choice.falsetickers.get(source.id), source.id in s.choice.agreeing
    reason: Condition | None = None
    if by_ns is not None:
        reason = obstacle(Code.FALSETICKER, f"disagrees by {by_ns / NS:+.6f} s")
    elif s.selected is None or not agrees or source.id == s.by_messages:
        reason = source.obstacle(at.mono_ns)
    if source.id == s.selected:
        tally, why = "*", "selected"
    elif agrees:
        tally, why = "+", "agrees"
    else:
        tally, why = "?" if by_ns is None else "x", "" if reason is None else reason.words
    return source.status(at, tally, why, source.conditions(at.mono_ns, reason))
