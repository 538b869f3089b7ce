"""The engine of the clock process: takes events, decides, and returns effects.

    event -> source -> sample -> estimate -> selection -> timescale -> effects (publish, steer, feed, persist, log)

``Engine.handle(event)`` returns the effects. The engine owns the sources, the leap seconds, the selection and the timescale, and it alone
decides whether the daemon is synchronised. It has no clock, no I/O and no log: each event carries its time. So the same object runs on
devices (``ppsd.clock.main``) and in simulated time (``refclock_sim.worlds.world``). Pure.

Modes: ACQUIRE (no timescale, or one in doubt) -> CONVERGE (second known, few samples) -> TRACK (locked) <-> HOLDOVER (no usable source).
In ACQUIRE the server answers with leap indicator 3, unsynchronised. In HOLDOVER the bound grows; at its limit the mode is ACQUIRE again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ppsd.config.tables import Config, Upstream
from ppsd.discipline import report
from ppsd.discipline.copies import Copies
from ppsd.discipline.events import (
    ClockStepped,
    Configured,
    Effect,
    Event,
    Feed,
    LeapFileRead,
    LineSeen,
    Note,
    Persist,
    Publish,
    Pulsed,
    PulseFound,
    RawClockChanged,
    Reported,
    Sampled,
    SourceFound,
    SourceLost,
    TemperatureLost,
    TemperatureRead,
    Ticked,
    UpstreamHeard,
)
from ppsd.discipline.leap import LeapKeeper
from ppsd.discipline.runaway import TOLD_S, PullChange
from ppsd.discipline.saved import Saved, SavedSource
from ppsd.discipline.selection import Candidate, Choice, outvoted, select
from ppsd.discipline.source import LABEL_FRESH_NS, LABEL_REFID, Progress, PulseSource, ReceiverSource, SampleSource, Source
from ppsd.discipline.steering import Steering
from ppsd.discipline.tempcomp.compensation import Compensation
from ppsd.discipline.timescale import Timescale
from ppsd.discipline.upstream import Place, Upstreams, UpstreamSource, apart_ns, source_id
from ppsd.snapshot import Mode, Snapshot
from refclock.condition import Code, Condition, obstacle
from refclock.config import PpsSource, ShmSource, SockSource
from refclock.config import Source as Settings
from refclock.record import Record
from refclock.sample import MAX_FREQUENCY_PPM, NS, Instant, Sample, SourceId
from refclock.timescales import DAY_S
from refclock.timing.dates import SLACK_S, witness
from refclock.timing.evidence import CLOCK_ERROR_NS, NAMES_NS, OVERRULING, STANDING, Rank
from refclock.timing.pairing import Present
from refclock.timing.pulse_time import Context, PulseTime

TICK_NS = NS
"""ns between two ticks, and the longest time between two decisions."""
LOCK_SAMPLES = 8
"""Accepted samples of the selected source before TRACK: five make the first state, three confirm it."""
PERSIST_FIRST_NS, PERSIST_NS = 300 * NS, 3600 * NS
"""ns from the start to the first saving of the state, and between later ones."""
NAMED_ANEW_S = 60.0
"""s after a jump of the raw clock for which that is the reason told while nothing is served: naming the second takes ten."""
WORSE = 2.0
"""Factor; in holdover a source is selected unless its bound exceeds the timescale's by more."""
RESUME_BOUND_NS = 100_000_000
"""ns; a record of an earlier run is resumed below this bound: it can still number pulses."""
APART_NS = 600_000_000
"""ns; a kept clock that is farther from the served second names another one: half a second, and 0.1 s for what it leaves out."""
OVERRULED_NS = 5 * NS
"""ns; a kept clock that contradicts the served second for so long overrules it: a step of that clock is noticed before."""
CONFIRM = "confirm it: let NTP keep the system clock, or add a second source"
LEAP_TAKEN_NS = NS // 10
"""ns; a step of the system clock that differs from the due leap second by less is that leap second."""


@dataclass(frozen=True, slots=True)
class _Served:
    """The source that the timescale comes from. ``by_labels``: from its messages alone. ``held``: the timescale is in holdover.
    ``disputed``: the holdover began because the sources contradict each other."""

    source: SourceId | None = None
    by_labels: bool = False
    held: bool = False
    disputed: bool = False


class Engine:
    """The engine; see the module.

    ``state``: saved by the last run. ``resume``: the record that it left published in this boot. ``battery_s``: POSIX second of the battery
    clock at ``at``; None without one, or when another program keeps the system clock.
    """

    def __init__(
        self,
        config: Config,
        state: Saved,
        at: Instant,
        *,
        simulated: bool,
        version: str,
        pid: int,
        resume: Record | None = None,
        battery_s: int | None = None,
    ) -> None:
        not_before = config.clock.not_before
        self.not_before_s = int(datetime(not_before.year, not_before.month, not_before.day, tzinfo=UTC).timestamp())
        self.config = config
        self.version, self.pid, self.simulated = version, pid, simulated
        self.mode = Mode.ACQUIRE
        self._state = state
        self._battery_ns = None if battery_s is None else battery_s * NS - at.mono_ns
        self.leaps = LeapKeeper()
        self.timescale = Timescale(simulated, round(config.clock.holdover_limit_s * NS), config.clock.max_bound_ms * 1e6)
        self.compensation = Compensation(state.temperature, self.timescale, config.clock.temperature != "off")
        self.sources = {SourceId(settings.name): self._source(settings) for settings in config.sources}
        self._saved_s = state.utc_s
        self._copies = Copies(config.sources)
        self._served = _Served()
        self._kept_error_ns: int | None = None
        self._just_stepped = False  # the clock was set since the kernel was asked who keeps it: it numbers nothing until then
        self.selected: SourceId | None = None
        self.choice = Choice(None, frozenset(), {})
        self.upstreams = Upstreams()
        self.followed: SourceId | None = None
        """The upstream that is served; None while a receiver is."""
        self._started = self._now = at
        self._deadline = at.mono_ns + TICK_NS
        self._persist_at = at.mono_ns + PERSIST_FIRST_NS
        self._decided_at = at.mono_ns
        self._steering = Steering(config.clock, synchronised=resume is not None and resume.stratum > 0)
        self._steps = 0
        self._withheld: Condition | None = None
        self._withheld_ns = at.mono_ns  # since when, for this reason
        self._jumped: tuple[Instant, int] | None = None  # when the raw clock was found to have jumped, and by how much
        self._changed: RawClockChanged | None = None
        self._contradicting: set[SourceId] = set()  # whose labels contradict the seconds served from other sources
        resumed = resume is not None and self.timescale.resume(resume, at.mono_ns)
        if resume is not None and resumed and self.timescale.bound_ns(at.mono_ns) < RESUME_BOUND_NS:
            self.mode = Mode.HOLDOVER
            self.compensation.resumed()
            self.leaps.resume(resume)
        else:
            self.timescale.drop()

    def _source(self, settings: Settings) -> Source:
        """A source as it begins."""
        if isinstance(settings, ShmSource | SockSource):
            return SampleSource(settings, self._state, self.compensation)
        if isinstance(settings, PpsSource):
            return PulseSource(settings, PulseTime(settings), self._state, self.compensation)
        return ReceiverSource(settings, self.not_before_s, self._state, self._battery_ns, self.compensation)

    def configure(self, wanted: Config) -> None:
        """Go on under another configuration, whose clock.temperature and clock.not_before are the same. Sources with the same settings go
        on as they are; any other begins anew, and those that are not configured any more are gone."""
        before, clock = self.config.clock, wanted.clock
        self.config = wanted
        self._copies = Copies(wanted.sources)
        kept = {name: source for name, source in self.sources.items() if source.settings in wanted.sources}
        names = {SourceId(settings.name): settings for settings in wanted.sources}
        self.sources = {name: kept.get(name) or self._source(settings) for name, settings in names.items()}
        self.selected = self.selected if self.selected in kept else None
        self.upstreams.keep(wanted.asked)
        best, falsetickers = self.choice.selected, {n: by_ns for n, by_ns in self.choice.falsetickers.items() if n in kept}
        best = best if best is not None and best.source in kept else None
        self.choice = Choice(best, self.choice.agreeing & kept.keys(), falsetickers)
        self._contradicting &= kept.keys()
        self.timescale.holdover_limit_ns = round(clock.holdover_limit_s * NS)
        self.timescale.max_bound_ns = clock.max_bound_ms * 1e6
        self._steering = self._steering.under(clock) if clock.steer == before.steer else Steering(clock, synchronised=False)

    # ---- events in, effects out --------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> list[Effect]:
        """Take one event; events must come in the order of their instants."""
        at = self._now = event.at
        present = self.timescale.present(at.mono_ns)
        out: list[Effect] = []
        match event:
            case Reported():
                self._reported(event, present, out)
            case LineSeen():
                seen = self._receiver(event.source).line_seen(event.line)
                out += [Note(c.code.replace("-", " "), "warning", {"source": event.source, "why": c.words}) for c in seen]
            case Pulsed():
                self._pulsed(event, present, out)
            case Sampled():
                self._sampled(event, at, out)
            case UpstreamHeard():
                self._upstream_heard(event, present, out)
            case SourceFound():
                self.sources[event.source].found(event.what)
                out.append(Note("source found", "info", {"source": event.source, "what": event.what}))
            case PulseFound():
                self._pulses_of(event.source).pulse_found(event.path, event.over_usb, event.bias_us, event.how)
                out.append(Note("pulse found", "info", {"source": event.source, "what": event.path, "stamped": event.how}))
            case SourceLost():
                what = "source lost" if self.sources[event.source].present else "source missing"
                self.sources[event.source].lost(event.why)
                out.append(Note(what, "warning", {"source": event.source, "why": event.why}))
            case Configured():
                self._receiver(event.source).time.cable_told = event.pulse_set
                results = {result: ", ".join(names) for result, names in event.results.items()}
                fields = {"source": event.source, "receiver": event.identity, **results}
                out.append(Note(event.what, "info" if event.complete else "warning", fields))
            case ClockStepped():
                self._stepped(event, out)
            case RawClockChanged():
                self._raw_changed(event, out)
            case LeapFileRead():
                self._leap_file(event, out)
            case TemperatureRead() | TemperatureLost():
                bent, notes = self.compensation.read(event, self.mode is Mode.HOLDOVER)
                out += [self._record(at), *notes] if bent else notes
            case Ticked():
                self._kept_error_ns, self._just_stepped = None if self._near_leap(at) else event.kept_error_ns, False
        if isinstance(event, Reported | Pulsed):
            self._look_at_raw(self.sources[event.source], at, out)
        if at.mono_ns >= self._deadline:
            self._tick(at, out)
        self._doubt(at, out)
        return out

    def deadline(self) -> int | None:
        """Raw instant at which a ``Ticked`` is wanted."""
        return self._deadline

    def _stepped(self, event: ClockStepped, out: list[Effect]) -> None:
        known = self.timescale.estimate is not None
        step = self.leaps.near(self.timescale.tai_at(event.at.mono_ns)) if known else 0
        if step and abs(event.by_ns + step * NS) < LEAP_TAKEN_NS:
            out.append(Note("leap second taken by the system clock", "info", {"by_s": event.by_ns / NS}))
            return
        self._steps += 1
        self._just_stepped = True
        self._steering.anew()
        self._deadline = min(self._deadline, event.at.mono_ns)  # corrected at once
        out.append(Note("system clock stepped", "warning", {"by_s": event.by_ns / NS, "served_time": "not affected"}))

    def _receiver(self, name: SourceId) -> ReceiverSource:
        source = self.sources[name]
        assert isinstance(source, ReceiverSource), f"{name} has no receiver"
        return source

    def _pulses_of(self, name: SourceId) -> PulseSource:
        source = self.sources[name]
        assert isinstance(source, PulseSource), f"{name} has no pulses"
        return source

    def _context(self, source: PulseSource, present: Present | None) -> Context:
        """The state of the rest of the system, as ``source`` needs it."""
        served = self._served
        own_labels = served.by_labels and served.source == source.id
        rivalled = served.disputed if served.held else served.source not in (None, source.id)
        lagging = isinstance(source, ReceiverSource) and source.line.saturated
        kept_error_ns = None if self._just_stepped else self._kept_error_ns
        return Context(
            self.leaps.table,
            present,
            own_labels,
            rivalled,
            self._seconded(source),
            kept_error_ns,
            self.timescale.rank,
            lagging,
        )

    def _pulsed(self, event: Pulsed, present: Present | None, out: list[Effect]) -> None:
        source = self._pulses_of(event.source)
        self._copies.stamped(source.id, event.edge.at.real_ns)
        sample = source.pulsed(event.edge, self._context(source, present))
        if news := source.time.pulse_news():
            out.append(Note("pulses changed", "warning", {"source": source.id, "what": news}))
        if sample is not None:
            self._after_sample(source, sample, event.at, out)
        elif present is not None and not source.names_seconds and self._gives_up(source):
            out.append(Note("second given up", "error", {"source": source.id, "why": source.time.pairing.condition.words}))
            self._relearn(event.at, out)

    def _gives_up(self, source: PulseSource) -> bool:
        """Whether pulses that name no second contradict the one that was made of them, and no other source names it."""
        return source.time.contradicts and self._served.source == source.id and not self._seconded(source)

    def _seconded(self, source: Source) -> bool:
        """Whether a source other than ``source`` names seconds itself and agrees with what is served."""
        return any(self.sources[agreeing].names_seconds for agreeing in self.choice.agreeing if agreeing != source.id)

    def _reported(self, event: Reported, present: Present | None, out: list[Effect]) -> None:
        receiver = self._receiver(event.source)
        came = receiver.reported(event.values, event.byte_ns, self.leaps, self._context(receiver, present))
        if came.leaps_changed and self.timescale.estimate is not None:  # a label may state 23:59:60 now
            out.append(self._record(event.at))
        self._after_labels(receiver, came, event.at, out)

    def _sampled(self, event: Sampled, at: Instant, out: list[Effect]) -> None:
        source, sample = self.sources[event.source], event.sample
        assert isinstance(source, SampleSource), f"{event.source} has no samples of another program"
        self._copies.stamped(source.id, sample.at.real_ns)
        source.copy_of = self._copies.original(source.id)
        named_by = self.timescale.present(sample.at.mono_ns) if sample.pulse else None
        leaps = self.leaps.table
        ours = source.sampled(sample, self.leaps, named_by, self.timescale.present(at.mono_ns), own=self._served.source == source.id)
        if self.leaps.table != leaps and self.timescale.estimate is not None:
            out.append(self._record(at))
        if ours is None:
            return
        self._after_sample(source, ours, at, out)

    def _leap_file(self, event: LeapFileRead, out: list[Effect]) -> None:
        e, damage = self.timescale.estimate, self.leaps.damage
        before = self.leaps.schedule(e.tai_ns)[2] if e is not None else None
        self.leaps.read(event.table, event.path, max(event.at.real_ns // NS, self.not_before_s), event.kernel_s)
        if self.leaps.damage is not None and self.leaps.damage != damage:
            out.append(Note("leap second table in doubt", "warning", {"why": self.leaps.damage.words}))
        if e is not None and before is not None and self.leaps.schedule(e.tai_ns)[2] != before:
            out.append(Note("leap second table changed the present TAI-UTC", "error", {"was": before}))
            self._relearn(event.at, out)

    def _after_labels(self, source: ReceiverSource, came: Progress, at: Instant, out: list[Effect]) -> None:
        belief, contradicts, dispute = source.time.belief, source.time.contradicts, source.time.dispute
        if came.trust_changed:
            what, level = ("labels trusted", "info") if belief.trusted else ("labels not trusted", "warning")
            out.append(Note(what, level, {"source": source.id, "why": belief.why}))
        beside = self._witness_beside(source, at)
        overruled = beside != "" or (dispute is not None and dispute.overrules(self.timescale.rank))
        withdrawn = source.time.evidence.withdrawn and self.timescale.rank is Rank.COUNT and self._served.source == source.id
        if withdrawn:
            out.append(Note("second given up", "error", {"source": source.id, "why": "the receiver says that its leap count is not known"}))
            self._relearn(at, out)
            return
        if overruled or (contradicts and self.selected in (None, source.id) and self.followed is None):
            why = belief.why if overruled else source.time.pairing.condition.words
            why += f"; {beside} says the same" if beside else ""
            out.append(Note("second given up", "error", {"source": source.id, "why": why}))
            self._relearn(at, out)
            return
        against = self.selected != source.id and (contradicts or (dispute is not None and dispute.labels >= OVERRULING))
        if against != (source.id in self._contradicting):
            self._contradicting ^= {source.id}
            if against:
                why = source.time.pairing.condition.words if contradicts else belief.why
                out.append(Note("sources disagree", "warning", {"source": source.id, "why": why}))
        if came.samples:
            self._after_sample(source, came.samples[-1], at, out)

    def _witness_beside(self, source: ReceiverSource, at: Instant) -> str:
        """Who else speaks for the date and time of ``source``, which contradict the served ones; "" for nobody, or when another clock
        speaks for the served ones. A clock that we set or feed may speak against us, not for us."""
        dispute = source.time.dispute
        if dispute is None or dispute.labels < STANDING or self.timescale.estimate is None or self.timescale.rank is Rank.KEPT:
            return ""
        if source.settings.noselect:
            return ""
        served_s = self._served_s(at)
        voting = [r for r in self._receivers() if not r.settings.noselect and r is not source]
        standing = {str(r.id): d for r in voting if (d := r.time.dispute) is not None and d.labels >= STANDING}
        says = {name: served_s - d.late_ns / NS for name, d in standing.items()}
        return self._speaks_for(served_s - dispute.late_ns / NS, served_s, {**source.time.clocks(at), **says}, at)

    def _speaks_for(self, said_s: float, against_s: float, clocks: Mapping[str, float], at: Instant) -> str:
        """As ``dates.witness``; "" as well when a clock that we neither set nor feed speaks for the other second."""
        return "" if witness(against_s, said_s, self._own_clocks(at)) else witness(said_s, against_s, clocks)

    def _own_clocks(self, at: Instant) -> dict[str, float]:
        """POSIX seconds that this machine's clocks show at ``at``, by name; none when we set or feed them."""
        if self.config.clock.steer == "kernel" or self.config.feeds:
            return {}
        return next((r.time.clocks(at) for r in self._receivers()), {})

    def _served_s(self, at: Instant) -> float:
        """POSIX second of the timescale at ``at``. Needs a timescale."""
        return self.leaps.table.tai_to_utc_ns(self.timescale.tai_at(at.mono_ns)) / NS

    def _date_to_save(self) -> int | None:
        """POSIX second that is certainly known: the served one, when a second witness names the same date, else the one that an earlier run
        saved, unless it was contradicted. A clock that we set or feed is no witness."""
        if self.timescale.estimate is not None and self.mode is Mode.TRACK:
            served_s, clocks = self._served_s(self._now), self._own_clocks(self._now).values()
            if self.timescale.rank is Rank.KEPT or any(abs(clock_s - served_s) <= SLACK_S for clock_s in clocks):
                return int(served_s)
        contradicted = any(r.time.saved_s is None for r in self._receivers())
        return None if contradicted else self._saved_s

    def _relearn(self, at: Instant, out: list[Effect]) -> None:
        """The second was wrong: stop serving time and number the seconds again."""
        for source in self.sources.values():
            source.forget()
        self._begin_anew(at, out)

    def _begin_anew(self, at: Instant, out: list[Effect]) -> None:
        """The second is not known any more."""
        self.timescale.drop()
        self.selected = self.followed = None
        self._steering.anew()
        self._enter(Mode.ACQUIRE, at, out)
        out.append(self._record(at))

    # ---- the raw clock -------------------------------------------------------------------------------------------------------------

    def _look_at_raw(self, receiver: Source, at: Instant, out: list[Effect]) -> None:
        """Begin anew when both voices of ``receiver`` show that the raw clock has jumped."""
        if not isinstance(receiver, ReceiverSource):
            return
        by_ns = receiver.voices.moved_ns if self._raw_doubted(receiver, at.mono_ns) else None
        if by_ns is None or self.timescale.estimate is None:
            return
        out.append(Note("raw clock jumped", "error", {"source": receiver.id, "by_s": by_ns / NS}))
        self._jumped = at, by_ns
        self.upstreams.rate_changed()
        since_ns = receiver.voices.since_ns if receiver.voices.trusted else at.mono_ns
        rate = self.timescale.rate
        for source in self.sources.values():
            source.raw_jumped(since_ns, rate)
        self._begin_anew(at, out)

    def _raw_doubted(self, receiver: ReceiverSource, now_ns: int) -> bool:
        """Whether the raw clock may have jumped: both voices of ``receiver`` have, and no other source goes on as before."""
        if not receiver.voices.moving:
            return False
        others = (source.candidate(now_ns) for source in self.sources.values() if source is not receiver)
        return all(other is None or other.reference_mono_ns < receiver.voices.since_ns for other in others)

    def _raw_changed(self, event: RawClockChanged, out: list[Effect]) -> None:
        """Learn the rate anew; meanwhile the bound allows for any that a clock can have."""
        out.append(Note("raw clock changed", "warning", {"was": event.was, "now": event.now}))
        self._changed = event
        self.upstreams.rate_changed()
        for source in self.sources.values():
            source.rate_changed()
        if self.timescale.estimate is not None:
            self.selected = None
            self.timescale.rate_unknown(event.at.mono_ns, MAX_FREQUENCY_PPM * 1e3)
            self._decide(event.at, out)
            out.append(self._record(event.at))

    def _raw_told(self, now_ns: int) -> Iterator[Condition]:
        """What people are told of the raw clock for a day."""
        if self._jumped is not None and now_ns - self._jumped[0].mono_ns < TOLD_S * NS:
            at, by_ns = self._jumped
            did = f"jumped ahead by {by_ns / NS:.1f} s" if by_ns > 0 else f"stood still for {-by_ns / NS:.1f} s"
            ago_s = (now_ns - at.mono_ns) / NS
            words = (
                f"this computer's clock {did}, {ago_s:.0f} s ago, as the receiver shows; the second is named anew; a virtual machine that "
                "was stopped or moved, or a processor that lost ticks: find out what stopped it"
            )
            yield Condition(Code.RAW_CLOCK_JUMPED, words, blocks=self.mode is not Mode.TRACK and ago_s < NAMED_ANEW_S)
        if self._changed is not None and now_ns - self._changed.at.mono_ns < TOLD_S * NS:
            words = (
                f"the kernel counts its clocks on {self._changed.now} instead of {self._changed.was}, "
                f"{(now_ns - self._changed.at.mono_ns) / NS:.0f} s ago: the rate was learned anew; its log says why (dmesg), and "
                "clocksource= on its command line chooses another"
            )
            yield Condition(Code.RAW_CLOCK_CHANGED, words)

    # ---- decisions ---------------------------------------------------------------------------------------------------------------

    def _after_sample(self, source: Source, sample: Sample, at: Instant, out: list[Effect]) -> None:
        if self.selected in (None, source.id) or at.mono_ns - self._decided_at > TICK_NS:
            self._decide(at, out)
        certain = self.leaps.unsettled(sample.tai_ns) is None
        served = certain and source.id == self.selected and self.mode in (Mode.CONVERGE, Mode.TRACK)
        if served and sample.at.era == at.era and not self.leaps.near(sample.tai_ns):
            offset = self.leaps.table.tai_to_utc_ns(sample.tai_ns) - sample.at.real_ns
            bound_ns = math.ceil(self.timescale.bound_ns(at.mono_ns))
            out.append(Feed(sample.at, offset, bound_ns, self.leaps.announced(sample.tai_ns)))

    def _decide(self, at: Instant, out: list[Effect]) -> None:
        """Choose a source and serve its estimate, or hold over."""
        now = at.mono_ns
        self._decided_at = now
        candidates = [c for s in self.sources.values() if not s.settings.noselect and (c := s.candidate(now)) is not None]
        candidates = self._without_pulled(candidates, at, out)
        before = self.choice
        known = self.timescale.estimate is not None
        odd = {} if known else outvoted({s.id: s.time.place_ns for s in self._naming(at)})
        choice = select([c for c in candidates if c.source not in odd], self.selected)
        self.choice = Choice(choice.selected, choice.agreeing, choice.falsetickers | odd)
        for name, by_ns in self.choice.falsetickers.items():
            if name not in before.falsetickers:
                out.append(Note("sources disagree", "warning", {"source": name, "by_s": by_ns / NS}))
        self.upstreams.compare(now, self.followed)
        best = self.choice.selected
        if best is None or best.estimate.bound_ns >= self._least_worth(now) or self._outvoted_by_upstreams(best):
            self.selected = None
            if not self._follow_upstream(at, out):
                self._hold(at, out)
            return
        if self.followed is not None:
            out.append(Note("a receiver is followed again", "info", {"source": best.source, "instead_of": self.followed}))
        self.followed = None
        if best.source != self.selected:
            out.append(Note("source selected", "info", {"source": best.source, "bound_ns": round(best.estimate.bound_ns)}))
        self.selected = best.source
        if known and now < self.timescale.valid_until_ns:
            jump = best.estimate.tai_ns - self.timescale.tai_at(now)
            if abs(jump) > self.timescale.bound_ns(now) + best.estimate.bound_ns:
                out.append(Note("served time corrected beyond its bound", "error", {"by_ns": jump}))
        self._served = _Served(best.source, by_labels=best.refid == LABEL_REFID)
        self.timescale.adopt(best.estimate, best.reference_mono_ns, "SIM" if self.simulated else best.refid)
        self.timescale.rests_on(self._rank(best.source, at))
        if self._by_upstreams(now) is not None:
            self._cover(now)
        out += self.compensation.adopted(best.estimate, (best.source, best.refid))
        self._enter(Mode.TRACK if best.estimate.samples >= LOCK_SAMPLES else Mode.CONVERGE, at, out)
        out.append(self._record(at))

    # ---- upstreams -----------------------------------------------------------------------------------------------------------------

    def _upstream_heard(self, event: UpstreamHeard, present: Present | None, out: list[Effect]) -> None:
        """An NTP server, known or new. One that is not configured is not meant for us."""
        settings = next((u for u in self.config.asked if u.name == event.server.name), None)
        if settings is None:
            return
        by_receivers = self.followed is None and self.timescale.stratum == 1 and present is not None
        rate = self.timescale.known_rate(event.at.mono_ns) if by_receivers else None
        leaps = self.leaps.table
        tai_ns = self._tai_of(settings, event, present)
        if self.leaps.table != leaps and self.timescale.estimate is not None:
            out.append(self._record(event.at))
        known = self.upstreams.heard(settings, event, tai_ns, rate, present)
        if known and event.sample is not None and (self.followed is not None or self.selected is None):
            self._decide(event.at, out)

    def _tai_of(self, settings: Upstream, event: UpstreamHeard, present: Present | None) -> int | None:
        """TAI by a server's answer; None without one, and where a leap second is, for every server has a way of its own there."""
        if event.sample is None:
            return None
        utc_ns = event.sample.at.real_ns + event.sample.offset_ns
        if present is None:
            return self.leaps.table.utc_to_tai_ns(utc_ns)
        ours_ns = present.tai_at(event.sample.at.mono_ns)
        if self.leaps.between(ours_ns):
            return None
        count_s = self.leaps.told(source_id(settings, event.server), utc_ns, ours_ns, self.upstreams.choice.agreeing)
        self.leaps.agreed(self.upstreams.leap, utc_ns // NS)
        return self.leaps.table.utc_to_tai_ns(utc_ns) if count_s is None else utc_ns + count_s * NS

    def _by_upstreams(self, now_ns: int) -> Condition | None:
        """What several upstreams that agree say against the served time; None when they allow it. It blocks when another second is
        meant, and nothing of the same worth speaks for the served one."""
        several = self.upstreams.several
        if several is None or self.timescale.estimate is None or self.followed is not None or several.estimate.mono_ns > now_ns:
            return None
        e, tai_ns = several.estimate, self.timescale.tai_at(now_ns)
        off_ns = tai_ns - e.tai_at(now_ns)
        own = self.timescale.estimate.bound_at(now_ns)
        if abs(off_ns) <= e.bound_at(now_ns) + own:
            return None
        second = abs(off_ns) >= APART_NS
        where = "ahead of" if off_ns > 0 else "behind"
        words = (
            f"the served time is {abs(off_ns) / NS:.3g} s {where} {len(self.upstreams.choice.agreeing)} NTP servers that agree: the "
            "receiver or all of them are wrong; compare with another server (refclock query), and look at the antenna"
        )
        return Condition(Code.UPSTREAMS_CONTRADICT, words, blocks=second and self.timescale.rank < Rank.KEPT)

    def _upstreams_name(self, now_ns: int) -> bool:
        """Whether several upstreams that agree name the served second."""
        several = self.upstreams.several
        if several is None or self.timescale.estimate is None or several.estimate.bound_ns > NAMES_NS:
            return False
        return apart_ns(several, self.timescale.tai_at(several.estimate.mono_ns), self.timescale.bound_ns(now_ns)) <= 0

    def _least_worth(self, now_ns: int) -> float:
        """ns; a receiver with a larger bound is not followed: what is served is better."""
        if self.mode is Mode.HOLDOVER:
            return min(self.timescale.max_bound_ns, WORSE * self.timescale.bound_ns(now_ns))
        if self.followed is not None and self.upstreams.best is not None:
            return min(self.timescale.max_bound_ns, self.upstreams.best.estimate.bound_ns)
        return self.timescale.max_bound_ns

    def _outvoted_by_upstreams(self, best: Candidate) -> bool:
        """Whether a receiver comes back with another time than several upstreams, while those are followed."""
        several = self.upstreams.several
        if self.followed is None or several is None:
            return False
        if apart_ns(several, best.estimate.tai_ns, best.estimate.bound_ns) <= 0:
            return False
        outside = {**self.choice.falsetickers, best.source: best.estimate.tai_ns - several.estimate.tai_ns}
        self.choice = Choice(None, frozenset(), outside)
        return True

    def _follow_upstream(self, at: Instant, out: list[Effect]) -> bool:
        """No usable receiver: serve the best upstream, if that is wanted and better than the holdover. False: it is not."""
        now, best, estimate = at.mono_ns, self.upstreams.best, self.upstreams.combined()
        if self.config.clock.upstreams not in ("fallback", "only") or best is None or estimate is None:
            return False
        if estimate.bound_ns >= self.timescale.max_bound_ns or (self.followed is None and self.upstreams.undecided(now)):
            return False
        if self.timescale.estimate is not None and self.followed is None and now < self.timescale.valid_until_ns:
            held_ns = self.timescale.bound_ns(now)
            if best.estimate.bound_ns >= held_ns or apart_ns(best, self.timescale.tai_at(now), held_ns) > 0:
                return False
        upstream = self.upstreams[best.source]
        if best.source != self.followed:
            bound_ns, stratum = round(estimate.bound_ns), upstream.server.stratum + 1
            level = "info" if self.config.upstreams_alone else "warning"
            out.append(Note("upstream followed", level, {"upstream": best.source, "bound_ns": bound_ns, "stratum": stratum}))
        self.followed = best.source
        self._served = _Served(best.source)
        self.compensation.left()
        stratum = min(upstream.server.stratum + 1, 15)
        self.timescale.adopt_server(estimate, best.reference_mono_ns, upstream.refid, stratum, upstream.root_delay_ns)
        self.timescale.rests_on(Rank.KEPT if self.upstreams.several is not None else Rank.AGREEMENT)
        self._enter(Mode.TRACK if self.config.upstreams_alone else Mode.FALLBACK, at, out)
        out.append(self._record(at))
        return True

    def _upstream_standing(self, upstream: UpstreamSource) -> Place:
        """How it stands beside what is served, for people."""
        if upstream.id == self.followed:
            return Place("*", "followed")
        why, now_ns = upstream.obstacle(), self._now.mono_ns
        claim = upstream.candidate(now_ns)
        if claim is None or why is not None:
            return Place("?", "waiting for answers" if why is None else why.words)
        if self.timescale.present(now_ns) is None:
            by_ns = self.upstreams.choice.falsetickers.get(upstream.id)
            return Place("?", "nothing is served to compare it with") if by_ns is None else Place("x", f"disagrees by {by_ns / NS:+.6f} s")
        off_ns = claim.estimate.tai_ns - self.timescale.tai_at(now_ns)
        own_ns = self.timescale.estimate.bound_at(now_ns) if self.timescale.estimate is not None else 0.0
        if apart_ns(claim, self.timescale.tai_at(now_ns), own_ns) > 0:
            return Place("x", f"says {off_ns / NS:+.6f} s, more than both errors")
        weighed = self.followed is not None and upstream.id in self.upstreams.weighed
        return Place("+", "agrees, and is weighed in") if weighed else Place("-", "agrees")

    # ---- the choice ----------------------------------------------------------------------------------------------------------------

    def _naming(self, at: Instant) -> list[ReceiverSource]:
        """The receivers that have a say in which second it is, while none is served: those that are believed, and those that are not yet,
        but have a clock beside them against a believed one. So a second that this clock made us give up is not taken up again, and given
        up again, in turn."""
        voting = (r for r in self._receivers() if not r.settings.noselect)
        fresh = [r for r in voting if at.mono_ns - r.time.label_mono_ns < LABEL_FRESH_NS]
        known = [r for r in fresh if r.second_known]

        def waits(r: ReceiverSource) -> bool:
            doubt, clocks = r.time.belief.doubt, r.time.clocks(at)
            said_s = r.time.place_ns + at.mono_ns
            others = ((said_s + o.time.place_ns - r.time.place_ns) / NS for o in known)
            waiting = doubt is not None and doubt.code is Code.LEAP_COUNT_UNKNOWN
            return waiting and any(self._speaks_for(said_s / NS, other_s, clocks, at) for other_s in others)

        return [r for r in fresh if r.second_known or waits(r)]

    def _without_pulled(self, candidates: list[Candidate], at: Instant, out: list[Effect]) -> list[Candidate]:
        """Leave out sources whose time runs away. When one of them was served, return to the estimate from before that."""
        for c in candidates:
            pull, others = self.sources[c.source].pull, [o.estimate for o in candidates if o is not c]
            change = pull.judge(c.estimate, others, steady=c.refid != LABEL_REFID)
            pulled = pull.condition
            if change is PullChange.BEGAN and pull.before is not None and pulled is not None:
                out.append(Note("time pulled away", "warning", {"source": c.source, "by_ppm": pull.rate * 1e6, "why": pulled.words}))
                if c.source == self.selected:
                    self.timescale.adopt(pull.before, pull.before.mono_ns, "SIM" if self.simulated else c.refid)
                    out.append(self._record(at))
            elif change is PullChange.ENDED:
                out.append(Note("time as expected again", "info", {"source": c.source}))
            elif change is PullChange.LEARNED:
                out.append(Note("new rate of the raw clock taken up", "warning", {"source": c.source, "by_ppm": pull.rate * 1e6}))
        return [c for c in candidates if self.sources[c.source].pull.before is None]

    def _hold(self, at: Instant, out: list[Effect]) -> None:
        """No usable source: extrapolate the timescale while its bound is within the limits."""
        if self.timescale.estimate is None:
            return
        self._served, self.followed = replace(self._served, held=True, disputed=bool(self.choice.falsetickers)), None
        if at.mono_ns >= self.timescale.valid_until_ns:
            self.timescale.drop()
            for source in self.sources.values():  # no timescale is left to compare it with
                source.pull.acquit()
            self._enter(Mode.ACQUIRE, at, out)
            out.append(self._record(at))
        elif self.mode is not Mode.HOLDOVER:
            self._enter(Mode.HOLDOVER, at, out)
        bent, notes = self.compensation.hold(at.mono_ns)
        covered = self._cover(at.mono_ns)
        out += [self._record(at), *notes] if bent or covered else notes

    def _cover(self, now_ns: int) -> bool:
        """While nothing is selected, the bound covers what the sources say, for any of them may be right; and always what
        several upstreams say that agree, when they contradict it. True when that changed it."""
        if self.timescale.estimate is None:
            return False
        said = [] if self.selected is not None else [s.doubtful(now_ns) for s in self.sources.values() if not s.settings.noselect]
        claims = [claim for claim in said if claim is not None]
        several = self.upstreams.several
        if (
            several is not None
            and self._by_upstreams(now_ns) is not None
            and abs(several.estimate.tai_ns - self.timescale.tai_at(now_ns)) < APART_NS
        ):
            claims.append(several.estimate)  # another second is withheld or told: no bound is that wide
        off_ns = max((r.voices.unclear_ns for r in self._receivers()), default=0.0)
        return (bool(claims) or off_ns != self.timescale.unclear_ns) and self.timescale.cover(now_ns, claims, off_ns)

    def _doubt(self, at: Instant, out: list[Effect]) -> None:
        """Withhold the timescale while something stands against it: it goes on, but nobody is told the time by it."""
        known = self.timescale.estimate is not None
        self.leaps.watch(self.timescale.tai_at(at.mono_ns) if known else None)
        doubt = next(self._against(at), None) if known else None
        before, self._withheld = self._withheld, doubt
        if before is None or doubt is None or before.code is not doubt.code:
            self._withheld_ns = at.mono_ns
        if (doubt is None) == (before is None):
            return
        if doubt is not None:
            out.append(Note("time withheld", "error", {"why": doubt.words}))
            self._enter(Mode.ACQUIRE, at, out)
        elif self.timescale.estimate is not None:
            out.append(Note("time no longer withheld", "info", {}))
            self._steering.anew()  # the kernel may have inserted a leap second that did not come, or none
            self._decide(at, out)
        out.append(self._record(at))

    def _against(self, at: Instant) -> Iterator[Condition]:
        """What stands against serving the timescale now."""
        unsettled = self.leaps.unsettled(self.timescale.tai_at(at.mono_ns) + math.ceil(self.timescale.bound_ns(at.mono_ns)))
        if unsettled is not None:
            yield unsettled
        by_clock = self._by_kept_clock(at)
        if by_clock is not None and self.timescale.rank < Rank.KEPT:
            yield replace(by_clock, blocks=True)
        by_upstreams = self._by_upstreams(at.mono_ns)
        if by_upstreams is not None and by_upstreams.blocks:
            yield by_upstreams
        for receiver in self._receivers():
            if self._raw_doubted(receiver, at.mono_ns):
                words = f"what {receiver.id} says has moved at once, as if this computer's clock had stood still or jumped: being checked"
                yield obstacle(Code.RAW_CLOCK_JUMPED, words)
        for receiver in self._receivers():
            dispute = receiver.time.dispute
            if dispute is not None and dispute.unsettles(self.timescale.rank) and self._served.source in (None, receiver.id):
                words = f"the second rests on the steadiness of {receiver.id} alone, and now {receiver.time.belief.why}; {CONFIRM}"
                yield obstacle(Code.SECOND_UNCERTAIN, words)

    def _told(self, at: Instant) -> Iterator[Condition]:
        """What people are to know of the second that is served."""
        if self.timescale.estimate is None or self._withheld is not None:
            return
        if self.mode is Mode.FALLBACK:
            yield obstacle(Code.UPSTREAMS_ONLY, f"no receiver can be used: {self.followed} is followed over the network")
        if (by_upstreams := self._by_upstreams(at.mono_ns)) is not None:
            yield by_upstreams
        if (by_clock := self._by_kept_clock(at)) is not None:
            yield by_clock
        if self.timescale.rank is Rank.STEADINESS:
            words = f"the second rests on the steadiness of one receiver alone; {CONFIRM}"
            yield Condition(Code.SECOND_UNCONFIRMED, words)

    def _by_kept_clock(self, at: Instant) -> Condition | None:
        """What the clock that another program keeps says against the served second; None when it says nothing."""
        ahead_ns = self._ahead_of_kept_clock(at)
        if ahead_ns is None or abs(ahead_ns) < max(APART_NS, self._kept_bound_ns(at)):
            return None
        words = (
            f"the served second is {abs(ahead_ns) / NS:.2f} s {'ahead of' if ahead_ns > 0 else 'behind'} the system clock, which another "
            "program keeps: one of them is wrong; compare both with a third (chronyc sources, refclock query)"
        )
        return Condition(Code.CLOCK_CONTRADICTS, words)

    def _ahead_of_kept_clock(self, at: Instant) -> int | None:
        """ns by which the timescale is ahead of the system clock; None unless another program keeps that clock."""
        if self._kept_error_ns is None or self.timescale.estimate is None:
            return None
        return self.timescale.tai_at(at.mono_ns) - self._system_tai(at)

    def _kept_bound_ns(self, at: Instant) -> float:
        """ns by which the timescale and a kept clock may differ."""
        return max(CLOCK_ERROR_NS, self._kept_error_ns or 0) + self.timescale.bound_ns(at.mono_ns)

    def _near_leap(self, at: Instant) -> bool:
        """Whether a leap second is less than a day away, or may just have come. A program that smears it, or knows more or less of it than
        the table in force, keeps the system clock off by up to a second."""
        if self.timescale.estimate is not None and self.leaps.open(self.timescale.tai_at(at.mono_ns)):
            return True
        tai_ns = self._system_tai(at)
        leap_tai_ns, step, _ = self.leaps.schedule(tai_ns - DAY_S * NS)
        return bool(step) and abs(tai_ns - leap_tai_ns) < DAY_S * NS

    def _rank(self, selected: SourceId, at: Instant) -> Rank:
        """The best evidence that names the second of the selected source now. A kept clock that numbers pulses is no second witness for
        them: when it says otherwise later, nothing but that clock speaks for the first."""
        source = self.sources[selected]
        ahead_ns = self._ahead_of_kept_clock(at)
        names = (self._kept_error_ns or 0) <= NAMES_NS
        kept = ahead_ns is not None and names and abs(ahead_ns) <= self._kept_bound_ns(at)
        naming = sum(self.sources[agreeing].names_seconds for agreeing in self.choice.agreeing)
        if not naming:
            return Rank.COUNT if kept else Rank.STEADINESS
        if naming > 1 or kept or self._upstreams_name(self._now.mono_ns):
            return Rank.KEPT
        return source.time.belief.rank or Rank.STEADINESS if isinstance(source, ReceiverSource) else Rank.COUNT

    def _enter(self, mode: Mode, at: Instant, out: list[Effect]) -> None:
        mode = mode if self._withheld is None else Mode.ACQUIRE
        if mode is not self.mode:
            fields: dict[str, str | int | float | bool | None] = {"was": self.mode.value}
            if self.timescale.estimate is not None:
                fields["bound_ns"] = round(self.timescale.bound_ns(at.mono_ns))
            out.append(Note(f"mode {mode.value}", "warning" if mode in (Mode.HOLDOVER, Mode.ACQUIRE) else "info", fields))
            self.mode = mode

    def _tick(self, at: Instant, out: list[Effect]) -> None:
        """Once a second: decide when no sample came, steer, save."""
        self._deadline = at.mono_ns + TICK_NS
        doubt = self._withheld
        if doubt is not None and doubt.code is Code.CLOCK_CONTRADICTS and at.mono_ns - self._withheld_ns >= OVERRULED_NS:
            out.append(Note("second given up", "error", {"why": doubt.words}))
            self._relearn(at, out)
        if at.mono_ns - self._decided_at >= TICK_NS:
            self._decide(at, out)
        if self.config.clock.steer == "kernel" and self.mode is not Mode.ACQUIRE:
            selected = None if self.selected is None else self.sources[self.selected]
            allowance_ns = selected.allowance_ns if isinstance(selected, SampleSource) else 0.0
            out.append(self._steering.steer(at.mono_ns, self.timescale, self.leaps, allowance_ns))
        if at.mono_ns >= self._persist_at and self.mode is Mode.TRACK:
            self._persist_at = at.mono_ns + PERSIST_NS
            out.append(Persist(self.state()))

    def _receivers(self) -> list[ReceiverSource]:
        return [s for s in self.sources.values() if isinstance(s, ReceiverSource)]

    def _record(self, at: Instant) -> Publish:
        tai_ns = self.timescale.tai_at(at.mono_ns) if self.timescale.estimate is not None else self._system_tai(at)
        # as of a day ago: a past leap second stays in the record, because the smear lasts until noon after it
        leap, until = self.leaps.schedule(tai_ns - DAY_S * NS), self.leaps.certain_until_ns
        return Publish(self.timescale.record(*leap, until_tai_ns=until, withheld=self._withheld is not None))

    def _system_tai(self, at: Instant) -> int:
        return self.leaps.table.utc_to_tai_ns(at.real_ns)

    # ---- what is told ------------------------------------------------------------------------------------------------------------

    def state(self) -> Saved:
        """The state to save for the next start; ``Saved()`` while nothing was learned."""
        e = self.timescale.estimate if self.mode is Mode.TRACK else None
        learned = {str(source.id): state for source in self.sources.values() if (state := source.state()) != SavedSource()}
        return Saved(
            rate=None if e is None else e.rate,
            utc_s=self._date_to_save(),
            sources=learned,
            temperature=self.compensation.state(),
        )

    def snapshot(self, at: Instant) -> Snapshot:
        """The state of the daemon at ``at``, for users and programs."""
        self._now = at
        standing = report.Standing(
            version=self.version,
            pid=self.pid,
            simulated=self.simulated,
            started=self._started,
            mode=self.mode,
            withheld=self._withheld,
            told=(*self._raw_told(at.mono_ns), *self._told(at)),
            sources=self.sources,
            selected=self.selected,
            choice=self.choice,
            timescale=self.timescale,
            upstreams={upstream.id: (upstream, self._upstream_standing(upstream)) for upstream in self.upstreams},
            leaps=self.leaps,
            alone=self.config.upstreams_alone,
            steering=self.config.clock.steer,
            clock_steps=self._steps,
            temperature=self.compensation.status(),
        )
        return report.snapshot(standing, at)
