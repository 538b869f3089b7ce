"""Sources of time: they turn samples into a candidate for selection.

There are three kinds. A PulseSource has pulses that others number (``refclock.timing.pulse_time``), and one channel, ``pulse``. A
ReceiverSource has a receiver as well, whose labels and pulses ``refclock.timing.receiver_time`` turns into samples, and a second channel,
``label``. The pulse channel makes the candidate while it is fresh. The label channel makes it when there is no pulse, or when no pulse was
numbered for ``PULSE_PATIENCE_NS``. A SampleSource has the finished samples of another program (SOCK, SHM) and one channel. Each channel has
its own estimator.

    values -> ReceiverTime -> Sample ┐
    edge ---> PulseTime ----> Sample ┴-> Channel (Estimator) -> Candidate -> selection
    ForeignSample ----------> Sample ┘
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ppsd.discipline.estimate import Estimate
from ppsd.discipline.estimator import Estimator
from ppsd.discipline.leap import LeapKeeper
from ppsd.discipline.raw_clock import Voices
from ppsd.discipline.runaway import Pull
from ppsd.discipline.saved import Saved, SavedSource
from ppsd.discipline.selection import Candidate
from ppsd.discipline.tempcomp.compensation import CompensatedEstimator, Compensation
from ppsd.snapshot import SourceStatus
from refclock import config
from refclock.condition import Code, Condition, obstacle, ordered
from refclock.sample import (
    NS,
    Edge,
    FixMode,
    ForeignSample,
    Instant,
    LineStatus,
    ReceiverValue,
    Sample,
    SecondLabel,
    SourceId,
)
from refclock.timing.pairing import Present
from refclock.timing.pulse_time import Context, PulseTime
from refclock.timing.receiver_time import ReceiverTime

COARSEST_GRAIN_NS, CUT_STAMPS = 1_000, 4
"""ns, and stamps; this many stamps on a common grid show the resolution of their program. A struct timeval has whole microseconds, and four
stamps lie on that grid by chance once in 1e9. Half a grain is then added to the bias, because rounding errors of successive stamps do not
average out: with a crystal near a whole number of ppm they stay the same for minutes."""


@dataclass(slots=True)
class Channel:
    """An estimator with its statistics. ``claims``: the estimator that makes the claim; it may compensate temperature. ``first_mono_ns``,
    ``last_mono_ns``: of the first and the last sample that were used, ``heard_mono_ns``: of the last one at all."""

    estimator: Estimator
    claims: Estimator | CompensatedEstimator
    first_mono_ns: int = 0
    last_mono_ns: int = -(1 << 62)
    heard_mono_ns: int = -(1 << 62)
    last_offset_ns: int | None = None
    reach: int = 0
    reach_mono_ns: int = 0
    every_ns: int = NS
    _grain_ns: int = COARSEST_GRAIN_NS
    _first_real_ns: int | None = None
    _stamps: int = 0

    def add(self, sample: Sample, present: Present | None) -> bool:
        """Take one sample; ``present``: the timescale served at that time. Returns whether the estimator used the sample."""
        self.estimator.bias_ns = sample.bias_ns
        self.tick(sample.at.mono_ns)
        self.heard_mono_ns = sample.at.mono_ns
        if present is not None:
            self.last_offset_ns = sample.tai_ns - present.tai_at(sample.at.mono_ns)
        used = self.claims.add(sample.at.mono_ns, sample.tai_ns)
        if used:
            if self.last_mono_ns < 0:
                self.first_mono_ns = sample.at.mono_ns
            self.last_mono_ns = sample.at.mono_ns
            self.reach |= 1
        return used

    def tick(self, mono_ns: int) -> None:
        """Shift the reach register once a second, or once a period when pulses are slower."""
        if mono_ns - self.reach_mono_ns >= self.every_ns * 3 // 4:
            missed = min(8, max(1, round((mono_ns - self.reach_mono_ns) / self.every_ns))) if self.reach_mono_ns else 1
            self.reach = (self.reach << missed) & 0xFF
            self.reach_mono_ns = mono_ns

    def grain(self, real_ns: int) -> int:
        """ns; the resolution of another program's stamps, ``real_ns`` included. The estimator gets it as well."""
        self._stamps += 1
        if self._first_real_ns is None:
            self._first_real_ns = real_ns
        while self._grain_ns > 1 and (real_ns - self._first_real_ns) % self._grain_ns:
            self._grain_ns //= 10
        grain_ns = self._grain_ns if self._stamps >= CUT_STAMPS else 1
        self.estimator.cut_to(grain_ns)
        return grain_ns

    def says(self, now_ns: int, limit_ns: int) -> Estimate | None:
        """The estimate while samples come, used or refused: the last one is younger than ``limit_ns``."""
        heard = self.estimator.ready and now_ns - self.heard_mono_ns < limit_ns
        return self.claims.estimate(now_ns) if heard else None

    def fresh(self, now_ns: int, limit_ns: int) -> bool:
        """Whether there is an estimate with a used sample younger than ``limit_ns``."""
        return self.estimator.ready and now_ns - self.last_mono_ns < limit_ns


PULSE_FLOOR_NS = 50.0
"""ns; smallest random error assumed for a pulse: one reading of the clocks (half of timescale.PRECISION)."""
LABEL_FLOOR_NS = 1e6
"""ns; smallest random error assumed for a message: a byte at 9600 baud takes 1.04 ms."""
LABEL_FRESH_NS = 10 * NS
"""ns; a source whose last label, or finished sample, is older makes no candidate."""
PULSE_PATIENCE_NS = 30 * NS
"""ns without a numbered pulse before a source with a pulse is served from its labels."""
STATE_RATE_SIGMA = 5e-7
"""Standard deviation of the saved frequency, 0.5 ppm: the temperature may differ after a restart (noise scenario b-ramp: a Raspberry Pi
warms up by 1 ppm)."""
PULSE_REFID, LABEL_REFID = "PPS", "GPS"
"""Served reference identifiers (RFC 5905 figure 12): numbered by its pulse, or by its messages alone."""
PULSE_NAMED_NS = 100_000_000
"""ns; a timescale with a smaller bound numbers samples that are known modulo one second, as it does pulses (``timing.pairing``)."""
FIX_WORDS = {FixMode.NONE: "none", FixMode.FIX_2D: "2D", FixMode.FIX_3D: "3D", FixMode.TIME_ONLY: "time-only"}


class Source(ABC):
    """What all kinds share. ``saved``: learned by an earlier run. ``compensation``: of the crystal's temperature, None without."""

    def __init__(self, settings: config.Source, saved: Saved, compensation: Compensation | None) -> None:
        self.id = SourceId(settings.name)
        self.settings = settings
        self.present = False
        self.lost_why = "not opened yet"
        self.what = settings.kind
        self.pull = Pull()
        self._rate = saved.rate
        self._saved = saved.sources.get(self.id, SavedSource())
        self._compensation = compensation

    def found(self, what: str) -> None:
        """The device was opened."""
        self.present, self.what, self.lost_why = True, what, ""

    def lost(self, why: str) -> None:
        """The device is gone; keep what was learned."""
        self.present, self.lost_why = False, why

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether its best channel has an estimate."""

    @property
    @abstractmethod
    def second_known(self) -> bool:
        """Whether it names the second."""

    @property
    def names_seconds(self) -> bool:
        """Whether it says by itself which second it is. One that does not has no vote about that."""
        return True

    @abstractmethod
    def forget(self) -> None:
        """Start again, because the second was wrong."""

    @abstractmethod
    def raw_jumped(self, since_ns: int, rate: float) -> None:
        """The raw clock has jumped, at ``since_ns`` or just before; ``rate``: d(TAI)/d(raw) - 1 until then. Find the second again."""

    @abstractmethod
    def rate_changed(self) -> None:
        """The raw clock has another rate from now on: learn it anew, and keep the numbering."""

    @abstractmethod
    def candidate(self, now_ns: int) -> Candidate | None:
        """This source's claim at raw time ``now_ns``; None without a fresh one."""

    @abstractmethod
    def doubtful(self, now_ns: int) -> Estimate | None:
        """What its samples say now, whether they are believed or refused; None while none come."""

    def obstacle(self, now_ns: int) -> Condition:
        """Why it gives no time, or no time from its pulses."""
        if not self.present:
            return obstacle(Code.DEVICE_ABSENT, self.lost_why)
        if self.pull.condition is not None:
            return self.pull.condition
        if self.settings.noselect:
            return obstacle(Code.WATCHED_ONLY, "watched, not used (noselect)")
        return self._obstacle(now_ns)

    @abstractmethod
    def _obstacle(self, now_ns: int) -> Condition:
        """The same for a source that is open and may be selected."""

    def conditions(self, now_ns: int, why: Condition | None) -> tuple[Condition, ...]:
        """All that is wrong with it. ``why``, what keeps it from being used, comes first; None while it is used."""
        found = (why, self.pull.condition, self.pull.learned(now_ns), *self._conditions(now_ns))
        return ordered((c for c in found if c is not None), self.id)

    def _conditions(self, now_ns: int) -> list[Condition]:
        """Further conditions of this kind of source."""
        del now_ns
        return []

    @abstractmethod
    def state(self) -> SavedSource:
        """The state to save for the next start."""

    @abstractmethod
    def status(self, now: Instant, tally: str, why: str, conditions: tuple[Condition, ...]) -> SourceStatus:
        """The source's status, for users."""

    def _claim(self, channel: Channel, refid: str, now_ns: int) -> Candidate:
        """The claim of ``channel`` now."""
        claim, s = channel.claims.estimate(now_ns), self.settings
        return Candidate(self.id, claim, channel.last_mono_ns, refid, s.prefer, s.trust, self.names_seconds)

    def _channel(self, estimator: Estimator) -> Channel:
        """A new channel."""
        return Channel(estimator, estimator if self._compensation is None else self._compensation.around(estimator))

    def _channel_status(self, channel: Channel, now: Instant, tally: str, why: str, conditions: tuple[Condition, ...]) -> SourceStatus:
        """The part of the status that comes from the channel."""
        channel.tick(now.mono_ns)
        estimate = channel.estimator.estimate(now.mono_ns) if channel.estimator.ready else None
        used = channel.last_mono_ns > -(1 << 61)
        return SourceStatus(
            name=str(self.id),
            kind=self.settings.kind,
            what=self.what,
            present=self.present,
            tally=tally,
            why=why,
            reach=channel.reach,
            last_sample_s=(now.mono_ns - channel.last_mono_ns) / NS if used else None,
            offset_ns=channel.last_offset_ns,
            jitter_ns=round(estimate.jitter_ns) if estimate else None,
            bound_ns=round(estimate.bound_ns) if estimate else None,
            bound_terms_ns=estimate.terms.shown(estimate.bound_ns) if estimate is not None and estimate.terms is not None else {},
            frequency_ppm=-estimate.rate * 1e6 if estimate else None,
            skew_ppm=estimate.skew * 1e6 if estimate else None,
            samples=channel.estimator.accepted,
            pulses=0,
            labels=0,
            fix="unknown",
            satellites_used=None,
            satellites_seen=None,
            message_delay_ms=None,
            message_spread_ms=None,
            rejected={"outlier": channel.estimator.refused} if channel.estimator.refused else {},
            conditions=conditions,
            span_s=(channel.last_mono_ns - channel.first_mono_ns) / NS if used else None,
            prefer=self.settings.prefer,
            trust=self.settings.trust,
            noselect=self.settings.noselect,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """The result of a receiver's values: new samples, oldest first; whether its labels became trusted or untrusted; whether the table of
    leap seconds changed."""

    samples: list[Sample]
    trust_changed: bool
    leaps_changed: bool


_Pulsed = config.ReceiverSource | config.GpsdSource | config.PpsSource


class PulseSource(Source):
    """Pulses. Without a receiver they name no second."""

    def __init__(self, settings: _Pulsed, time: PulseTime, saved: Saved, compensation: Compensation | None = None) -> None:
        super().__init__(settings, saved, compensation)
        self.settings: _Pulsed = settings
        self.time = time
        self.pulse_path = ""
        self._make_channels()

    def _make_channels(self) -> None:
        self.pulse = self._pulse_channel()

    def _pulse_channel(self) -> Channel:
        rate, polled = self._rate, self.settings.pps_over_usb is not False
        learned = self._saved.pulse
        return self._channel(
            Estimator(PULSE_FLOOR_NS, self.time.bias_ns, rate, STATE_RATE_SIGMA, centred=False, polled=polled, learned=learned)
        )

    def forget(self) -> None:
        """Start estimators and numbering again."""
        self.time.forget()
        self._make_channels()
        self.pull = Pull()

    def raw_jumped(self, since_ns: int, rate: float) -> None:
        """As Source."""
        self.time.raw_jumped(since_ns)
        self._rate = rate
        self._make_channels()
        self.pull = Pull()

    def rate_changed(self) -> None:
        """Start the estimators again."""
        self._rate = None
        self._make_channels()
        self.pull = Pull()

    def pulsed(self, edge: Edge, context: Context) -> Sample | None:
        """Take an edge of the pulse. Returns the last sample that it completes and that was used."""
        samples = self.time.pulse(edge, context)
        if self.time.rhythm.period_ns:
            self.pulse.every_ns = max(NS, self.time.rhythm.period_ns)
        used = [sample for sample in samples if self.pulse.add(sample, context.present)]
        return used[-1] if used else None

    def pulse_found(self, path: str, over_usb: bool | None, bias_us: float, how: str) -> None:
        """The pulse device at ``path`` is open; arguments as in ``PulseFound``. Another kind of line starts with a new estimator."""
        self.time.has_pulse, self.pulse_path = True, path
        self.time.stamped_by(how, bias_us)
        if over_usb != self.settings.pps_over_usb:
            self.settings = replace(self.settings, pps_over_usb=over_usb)
            self.pulse = self._pulse_channel()

    def lost(self, why: str) -> None:
        """The device is gone: forget an unfinished numbering, keep what was learned."""
        super().lost(why)
        self.time.lost()

    @property
    def ready(self) -> bool:
        """Whether its pulses have an estimate."""
        return self.pulse.estimator.ready

    @property
    def second_known(self) -> bool:
        """Whether somebody numbers its pulses."""
        return self.time.numbered_by != ""

    @property
    def names_seconds(self) -> bool:
        """As Source."""
        return False

    def candidate(self, now_ns: int) -> Candidate | None:
        """This source's claim now; None without a fresh one."""
        return self._claim(self.pulse, PULSE_REFID, now_ns) if self.pulse.fresh(now_ns, self.time.fresh_ns) else None

    def doubtful(self, now_ns: int) -> Estimate | None:
        """What its pulses say now."""
        return self.pulse.says(now_ns, LABEL_FRESH_NS)

    def _obstacle(self, now_ns: int) -> Condition:
        return self.time.no_pulse(now_ns) or self.time.pairing.condition

    def _conditions(self, now_ns: int) -> list[Condition]:
        return [*self.time.conditions(now_ns), *self._unnamed_line(now_ns)]

    def _unnamed_line(self, now_ns: int) -> list[Condition]:
        """Why the bound is wide when the driver of the pulse does not say whether its line is polled, and the stamps do not show it."""
        if self.settings.pps_over_usb is not None or not self.pulse.estimator.ready:
            return []
        terms = self.pulse.estimator.estimate(now_ns).terms
        if terms is None or 2 * terms.doubt_ns < terms.total_ns:
            return []
        line = self.pulse_path or "its pulse"
        words = (
            f"nothing says whether the line of {line} is polled over USB, which alone is {terms.doubt_ns / 1e3:.0f} µs "
            "of its bound: state pps_over_usb = false in [[source]] for a pin or a real serial port, true for a USB adapter"
        )
        return [Condition(Code.PULSE_LINE_UNNAMED, words)]

    def state(self) -> SavedSource:
        """The state to save for the next start."""
        return SavedSource(pulse=self.pulse.estimator.learned())

    def status(self, now: Instant, tally: str, why: str, conditions: tuple[Condition, ...]) -> SourceStatus:
        """The source's status, for users."""
        return self._pulse_status(self._channel_status(self.pulse, now, tally, why, conditions))

    def _pulse_status(self, status: SourceStatus) -> SourceStatus:
        """The status with what is known of the pulses."""
        time = self.time
        return replace(
            status,
            what=f"{self.what}, pulse {self.pulse_path}" if self.pulse_path and self.pulse_path not in self.what else self.what,
            pulses=time.pulses,
            message=time.numbered_by,
            cable=time.cable_words,
            rejected={**time.refused, **status.rejected},
            bias_us=time.shown_bias_us,
            bias_how=time.bias_how,
            pulse=time.report(),
        )


class ReceiverSource(PulseSource):
    """A receiver on its own line or behind gpsd. ``not_before_s``: no true date is before it (POSIX). ``battery_ns``: the battery clock
    (POSIX ns) minus raw time; None without one, or when another program keeps the system clock."""

    def __init__(
        self,
        settings: config.ReceiverSource | config.GpsdSource,
        not_before_s: int,
        saved: Saved,
        battery_ns: int | None = None,
        compensation: Compensation | None = None,
    ) -> None:
        learned = saved.sources.get(settings.name, SavedSource()).delay
        self.time: ReceiverTime = ReceiverTime(settings, not_before_s, saved_s=saved.utc_s, battery_ns=battery_ns, delay=learned)
        self.line = LineStatus()
        self.voices = Voices()
        self._byte_ns = 0
        super().__init__(settings, self.time, saved, compensation)

    def _make_channels(self) -> None:
        super()._make_channels()
        self.label = self._channel(Estimator(LABEL_FLOOR_NS, 0.0, self._rate, STATE_RATE_SIGMA, learned=self._saved.label))

    def forget(self) -> None:
        """As PulseSource."""
        super().forget()
        self.voices = Voices()

    def raw_jumped(self, since_ns: int, rate: float) -> None:
        """As PulseSource; labels are trusted as before."""
        super().raw_jumped(since_ns, rate)
        self.voices = Voices()

    # ---- what arrives ------------------------------------------------------------------------------------------------------------

    def reported(self, values: Sequence[ReceiverValue], byte_ns: int, leaps: LeapKeeper, context: Context) -> Progress:
        """Take the receiver's values in order; ``leaps`` takes their leap seconds."""
        self._byte_ns = byte_ns
        out: list[Sample] = []
        trust_changed, before = False, leaps.table
        for value in values:
            count_s = self._heard(value, leaps, context) if isinstance(value, SecondLabel) else None
            came = self.time.take(value, byte_ns, replace(context, table=leaps.table, count_s=count_s))
            if isinstance(value, SecondLabel) and value.doubt is None:
                counted = count_s is not None
                named = value.utc_ns + (count_s or 0) * NS if counted else leaps.table.utc_to_tai_ns(value.utc_ns, value.second_60)
                self._voice(named, value.at, context)
            trust_changed ^= came.trust_changed
            if came.notice is not None:
                leaps.notice(self.id, came.notice, self.time.named_s)
            if came.label is not None:
                self.label.add(came.label, context.present)
                if not self.time.has_pulse:
                    out.append(came.label)
                    continue
            for sample in came.pulses:
                self.pulse.add(sample, context.present)
            out += came.pulses
        return Progress(out, trust_changed, leaps.table != before)

    def pulsed(self, edge: Edge, context: Context) -> Sample | None:
        """As PulseSource."""
        sample = super().pulsed(edge, context)
        if context.present is not None and edge.kind is self.time.rhythm.chosen and self.time.health.blocked(edge.at.mono_ns) is None:
            self.voices.edge(edge.at.mono_ns, self.time.pairing.period_ns, context.present)
        return sample

    def _voice(self, named_tai_ns: int, at: Instant, context: Context) -> None:
        """Compare a label with the served time, to see whether the raw clock has moved. A receiver that is not well moves by itself."""
        if context.present is not None and self.time.health.blocked(at.mono_ns) is None:
            self.voices.label(at.mono_ns, named_tai_ns, context.present, context.own_labels)

    def _heard(self, label: SecondLabel, leaps: LeapKeeper, context: Context) -> int | None:
        """TAI-UTC (s) of a label near a leap second, as ``Context`` wants it."""
        if context.present is None or self.settings.noselect:
            return None
        trusted = self.time.belief.trusted
        return leaps.heard(self.id, label.utc_ns, label.at, context.present, own=context.own_labels, trusted=trusted)

    def line_seen(self, line: LineStatus) -> list[Condition]:
        """What its line has shown. Returns what is new of it: the conditions to log."""
        before = self.line, self._line_conditions()
        self.line = line
        new = [c for c in self._line_conditions() if c not in before[1]]
        if line.unlabelled and line.unlabelled != before[0].unlabelled:
            new.append(Condition(Code.LABELS_REFUSED, line.unlabelled))
        return new

    def lost(self, why: str) -> None:
        """The device is gone: forget an unfinished numbering, keep what was learned."""
        super().lost(why)
        self.line = LineStatus()

    # ---- what is claimed ---------------------------------------------------------------------------------------------------------

    @property
    def second_known(self) -> bool:
        """Whether its labels are trusted."""
        return self.time.belief.trusted

    @property
    def names_seconds(self) -> bool:
        """As Source."""
        return True

    def candidate(self, now_ns: int) -> Candidate | None:
        """This source's claim now; None without a fresh one."""
        if (by_pulse := super().candidate(now_ns)) is not None:
            return by_pulse
        patience_ns = max(self.time.waiting_since_ns or 0, self.pulse.last_mono_ns) + PULSE_PATIENCE_NS
        if (self.time.has_pulse and now_ns < patience_ns) or not self.label.fresh(now_ns, LABEL_FRESH_NS):
            return None
        return self._claim(self.label, LABEL_REFID, now_ns)

    def doubtful(self, now_ns: int) -> Estimate | None:
        """What its pulses say now, or its labels when it has no pulse."""
        return super().doubtful(now_ns) if self.time.has_pulse else self.label.says(now_ns, LABEL_FRESH_NS)

    def _obstacle(self, now_ns: int) -> Condition:
        return self.time.obstacle(now_ns, self.line)

    def _conditions(self, now_ns: int) -> list[Condition]:
        return [*super()._conditions(now_ns), *self._line_conditions()]

    def _line_conditions(self) -> list[Condition]:
        """What its line shows beside its time."""
        found = list[Condition]()
        if self.line.saturated:
            carried = f"{NS // self._byte_ns} bytes a second" if self._byte_ns else "all that it can"
            words = f"its line carries {carried} and is never idle, so its messages lag: raise the speed (baud), or have it send fewer"
            found.append(Condition(Code.LINE_SATURATED, words))
        if self.line.complaints:
            found.append(Condition(Code.RECEIVER_COMPLAINS, "; ".join(self.line.complaints)))
        if self.line.habit:
            found.append(Condition(Code.CHECKSUM_HABIT, f"it {self.line.habit}; it always does, so they are taken"))
        return found

    def state(self) -> SavedSource:
        """The state to save for the next start."""
        return SavedSource(self.pulse.estimator.learned(), self.label.estimator.learned(), self.time.learned_delay())

    def status(self, now: Instant, tally: str, why: str, conditions: tuple[Condition, ...]) -> SourceStatus:
        """The source's status, for users."""
        time = self.time
        channel = self.pulse if self.pulse.estimator.ready or time.has_pulse else self.label
        status = self._pulse_status(self._channel_status(channel, now, tally, why, conditions))
        delay, sky = time.learned_delay(), time.sky
        delay_ns = time.pairing.delay_ns() if delay is not None else None
        return replace(
            status,
            labels=time.labels,
            fix=FIX_WORDS[sky.mode] if sky is not None else "unknown",
            satellites_used=sky.used if sky is not None else None,
            satellites_seen=len(sky.satellites) if sky is not None else None,
            satellites=sky.satellites if sky is not None else (),
            message=time.spoken_delay,
            message_delay_ms=delay_ns[0] / 1e6 if delay_ns else None,
            message_spread_ms=delay_ns[1] / 2e6 if delay_ns else None,
            timing=time.health.timing,
            junk_bytes=self.line.junk_bytes,
            rejected={**self.line.rejected, **status.rejected},
        )


class SampleSource(Source):
    """The finished samples of another program."""

    def __init__(self, settings: config.ShmSource | config.SockSource, saved: Saved, compensation: Compensation | None = None) -> None:
        super().__init__(settings, saved, compensation)
        self.settings: config.ShmSource | config.SockSource = settings
        self.samples = 0
        self.copy_of: SourceId | None = None
        self._make_channel()

    def _make_channel(self) -> None:
        rate, learned = self._rate, self._saved.pulse
        bias_ns = self.settings.bias_us * 1e3
        self.channel = self._channel(Estimator(PULSE_FLOOR_NS, bias_ns, rate, STATE_RATE_SIGMA, centred=True, polled=True, learned=learned))

    def forget(self) -> None:
        """Start the estimator again."""
        self._make_channel()
        self.pull = Pull()

    def raw_jumped(self, since_ns: int, rate: float) -> None:
        """Start the estimator again: finished samples name their seconds."""
        del since_ns
        self._rate = rate
        self.forget()

    def rate_changed(self) -> None:
        """Start the estimator again."""
        self._rate = None
        self.forget()

    def sampled(
        self, sample: ForeignSample, leaps: LeapKeeper, named_by: Present | None, present: Present | None, *, own: bool = False
    ) -> Sample | None:
        """Take a sample of the other program. Returns it as a Sample when it was used. ``named_by``: the timescale at its stamp, which
        names the second of a sample that is known modulo one second. ``present``: the timescale now. ``own``: that is made from this
        source."""
        utc_ns = sample.at.real_ns + sample.offset_ns
        leaps.indicated(self.id, sample.leap, utc_ns // NS)
        count_s = None
        if present is not None and not sample.pulse and not self.settings.noselect:
            count_s = leaps.heard(self.id, utc_ns, sample.at, present, own=own)
        tai_ns = leaps.table.utc_to_tai_ns(utc_ns) if count_s is None else utc_ns + count_s * NS
        if sample.pulse:
            if named_by is None or named_by.bound_ns > PULSE_NAMED_NS:
                return None
            tai_ns += round((named_by.tai_at(sample.at.mono_ns) - tai_ns) / NS) * NS
        self.samples += 1
        grain_ns = self.channel.grain(sample.at.real_ns)
        bias_ns = max(self.settings.bias_us * 1e3, float(sample.uncertainty_ns), grain_ns / 2)
        ours = Sample(sample.at, tai_ns, sample.uncertainty_ns, bias_ns)
        return ours if self.channel.add(ours, present) else None

    @property
    def ready(self) -> bool:
        """Whether there is an estimate."""
        return self.channel.estimator.ready

    @property
    def second_known(self) -> bool:
        """True once there is an estimate: finished samples name their seconds."""
        return self.ready

    @property
    def names_seconds(self) -> bool:
        """As Source. A copy says what its original says."""
        return self.copy_of is None

    def _conditions(self, now_ns: int) -> list[Condition]:
        del now_ns
        if self.copy_of is None:
            return []
        return [Condition(Code.COPY, f"it hands on the pulses of {self.copy_of}: no second opinion, so it has no vote beside it")]

    @property
    def allowance_ns(self) -> float:
        """ns; systematic error that the bound allows for."""
        return self.channel.estimator.bias_ns

    def candidate(self, now_ns: int) -> Candidate | None:
        """This source's claim now; None without a fresh one."""
        if not self.channel.fresh(now_ns, LABEL_FRESH_NS):
            return None
        return self._claim(self.channel, "SHM" if isinstance(self.settings, config.ShmSource) else "SOCK", now_ns)

    def doubtful(self, now_ns: int) -> Estimate | None:
        """What its samples say now."""
        return self.channel.says(now_ns, LABEL_FRESH_NS)

    def _obstacle(self, now_ns: int) -> Condition:
        del now_ns
        return obstacle(Code.WAITING_FOR_SAMPLES, "gathering samples" if self.samples else "waiting for samples")

    def state(self) -> SavedSource:
        """The state to save for the next start."""
        return SavedSource(pulse=self.channel.estimator.learned())

    def status(self, now: Instant, tally: str, why: str, conditions: tuple[Condition, ...]) -> SourceStatus:
        """The source's status, for users."""
        return replace(self._channel_status(self.channel, now, tally, why, conditions), pulses=self.samples)
