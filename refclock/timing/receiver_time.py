"""Makes samples from the labels and pulse edges of one receiver. A sample gives the TAI of an instant of the oscillator.

    label -> date possible? -> evidence? -> receiver well? ┐
    edge -> pulse of a rhythm? ---------> receiver well? -┴-> pairing -> Sample

Flow: ``receiver.session`` or gpsd (values), pulse devices (edges) -> **receiver_time** -> samples, for the daemon
(``ppsd.discipline.source``) or for a program that passes them to chronyd. The state of the rest of the system comes in with each call
(``Context``). A leap second that the labels state is part of the result. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from refclock.condition import Code, Condition, obstacle
from refclock.config import AUTO, HOLDOVER_PPB, GpsdSource, ReceiverSource
from refclock.sample import (
    NS,
    Edge,
    FixMode,
    HealthReport,
    Instant,
    LabelDoubt,
    LabelProtocol,
    LeapNotice,
    PulseReport,
    ReceiverValue,
    Sample,
    Sawtooth,
    SecondLabel,
    SkyView,
)
from refclock.timescales import DAY_S, LeapTable
from refclock.timing.dates import floor_s, impossible
from refclock.timing.evidence import CLOCK_ERROR_NS, NAMES_NS, STANDING, Belief, Dispute, Evidence, Rank, Witness, in_time
from refclock.timing.health import Health
from refclock.timing.pairing import DEFAULT_DELAY_UNCERTAINTY_NS, FIX_TIMEOUT_NS, Pairing, Present
from refclock.timing.pulses import Rhythm

SAWTOOTH_NS = 1500 * 1_000_000
"""ns; an older quantisation error (TIM-TP) belongs to an earlier pulse and is ignored."""
FRESH_NS = 3 * NS
"""ns without a pulse before a source of one pulse a second counts as silent; and without a label before its fix counts as lost."""
RETURN_NS: Final = 3600 * NS
"""ns after a fix within which a disciplined oscillator has taken its pulse back to the second. It may step it, or steer for several time
constants of its loop, 100 to 1000 s each."""
PULSE_BIAS_US = 15.0
"""us of latency allowed while the way of stamping is unknown: a Raspberry Pi takes 5 to 12 us to serve the interrupt."""
GPSD_PULSE_NS = 100_000.0
"""ns of latency allowed for gpsd's pulses. gpsd may stamp in user space after TIOCMIWAIT, 30 to 95 us late on a motherboard port."""


@dataclass(frozen=True, slots=True)
class Context:
    """The state of the rest of the system when a value or an edge of this receiver arrives.

    ``table``: leap seconds in force. ``present``: the served timescale, None without one. ``own_labels``: the timescale was made from this
    receiver's labels, so it cannot measure their delay. ``rivalled``: it was made from another source, so selection judges pulses off its
    seconds. ``kept_error_ns``: error within which another program keeps the system clock; None when none does. ``rank``: the best evidence
    that the served second rests on. ``lagging``: the line is never idle, so labels lag by an unknown delay.
    """

    table: LeapTable = field(default_factory=LeapTable)
    present: Present | None = None
    own_labels: bool = False
    rivalled: bool = False
    kept_error_ns: int | None = None
    rank: Rank = Rank.STEADINESS
    lagging: bool = False


@dataclass(frozen=True, slots=True)
class LearnedDelay:
    """A message delay learned in an earlier run: median and spread in ms; line time of a byte (ns) on the line where it was learned."""

    delay_ms: float
    spread_ms: float | None
    byte_ns: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a value. ``pulses``: numbered by a label, oldest first. ``label``: the label as a coarse sample. ``notice``: leap
    second information from a trusted receiver. ``trust_changed``: labels became trusted or untrusted."""

    pulses: Sequence[Sample] = ()
    label: Sample | None = None
    notice: LeapNotice | None = None
    trust_changed: bool = False


NOTHING: Final = Outcome()
"""Of a value that is only remembered."""


class ReceiverTime:
    """One receiver's time.

    ``not_before_s``: no true date is before it (POSIX). ``saved_s``: POSIX second that an earlier run knew; None without. ``battery_ns``:
    the battery clock (POSIX ns) minus raw time; None without one, or when another program keeps the system clock. ``delay``: learned
    earlier.
    """

    def __init__(
        self,
        config: ReceiverSource | GpsdSource,
        not_before_s: int,
        *,
        saved_s: int | None = None,
        battery_ns: int | None = None,
        delay: LearnedDelay | None = None,
    ) -> None:
        self.config = config
        self._not_before_s, self._saved_s, self._battery_ns = not_before_s, saved_s, battery_ns
        self._learned = delay
        self.earliest_s = floor_s(not_before_s, saved_s)
        self.evidence = Evidence()
        self.belief = Belief(doubt=obstacle(Code.WAITING_FOR_SECOND, "waiting for the receiver's first valid second"))
        """What holds of the receiver's labels."""
        self.health = Health()
        self.sky: SkyView | None = None
        self.rhythm = Rhythm.configured(config)
        self.labels = self.pulses = 0
        self.place_ns = self.label_mono_ns = 0
        """The last label: POSIX time that it named minus raw arrival (ns), and raw arrival."""
        self.named_s = not_before_s
        """POSIX second that the last label named."""
        self.waiting_since_ns: int | None = None
        """Raw time of the first trusted label since the start or since ``forget``."""
        self.has_pulse = config.pps not in ("", AUTO)
        self.cable_told = False
        """Whether the receiver allows for the antenna cable's delay. Until it confirms that, it is taken to allow for none."""
        self._byte_ns = 0
        self._spoke = LabelProtocol.NMEA
        self._pulse_mono_ns = 0
        self._rival: tuple[str, int] | None = None  # what a talker says that nothing confirms, in words, and when
        self._sawtooth: Sawtooth | None = None
        self._reported_ns = 0.0
        self._pulse_told = ("", False, 0)
        self._strayed_most_ns, self._strayed_mono_ns = 0.0, 0  # of the oscillator without a fix, and when that was last so
        self.stamped_by("", PULSE_BIAS_US)
        self.forget()

    def forget(self) -> None:
        """Start the numbering again, because the second was wrong."""
        config, learned = self.config, self._learned
        stated = config.message_delay_ms
        delay = stated if stated is not None else learned.delay_ms if learned is not None else None
        uncertainty = config.message_delay_uncertainty_ms
        if uncertainty is None and stated is None and learned is not None:
            uncertainty = learned.spread_ms
        self.pairing = Pairing(
            None if delay is None else round(delay * 1e6),
            DEFAULT_DELAY_UNCERTAINTY_NS if uncertainty is None else round(uncertainty * 1e6),
            round(config.pulse_without_fix_s * NS),
        )
        self._delay_unchecked = stated is None and delay is not None
        self.waiting_since_ns = None
        if self.rhythm.period_ns:
            self.pairing.rhythm(self.rhythm.period_ns, self.rhythm.alone)

    def lost(self) -> None:
        """The device is gone: forget an unfinished numbering, keep what was learned."""
        self.cable_told = False
        self.health = Health()
        self.sky = None
        self.pairing.lost()

    def stamped_by(self, how: str, bias_us: float) -> None:
        """How pulses are stamped, in words, and the latency to allow, us. A latency stated in the configuration takes precedence."""
        stated = self.config.pps_bias_us
        self.bias_ns = (bias_us if stated is None else stated) * 1e3
        self.bias_how = how if stated is None else "as configured"

    # ---- what arrives ------------------------------------------------------------------------------------------------------------

    def take(self, value: ReceiverValue, byte_ns: int, context: Context) -> Outcome:
        """One decoded value of the receiver. ``byte_ns``: line time of a byte, 0 when unknown."""
        match value:
            case SecondLabel():
                return self.label(value, byte_ns, context)
            case SkyView():
                self.sky = value
                self.health.sky(value)
            case HealthReport():
                self.health.report(value)
            case Sawtooth():
                self._sawtooth = value
                if value.utc_ns is not None and self.belief.trusted:
                    self.pairing.announced(context.table.utc_to_tai_ns(value.utc_ns), value.at)
            case LeapNotice():
                self.evidence.notice(value)
                if self.belief.trusted:
                    return Outcome(notice=value)
        return NOTHING

    def label(self, label: SecondLabel, byte_ns: int, context: Context) -> Outcome:
        """A valid label. It numbers pulses only while labels are trusted."""
        self.labels += 1
        self._byte_ns = byte_ns
        self.place_ns, self.label_mono_ns = label.utc_ns - label.at.mono_ns, label.at.mono_ns
        self._spoke = label.protocol
        self.named_s = label.utc_ns // NS
        tai_ns = context.table.utc_to_tai_ns(label.utc_ns, label.second_60)
        kept, served = self._witnesses(label.at, context)
        before = self.belief.trusted
        belief = self._judge(label, tai_ns, kept, served)
        changed = self.belief.trusted != before
        notice = None
        if label.second_60 and belief.trusted:  # an NMEA receiver's only way to announce it
            notice = LeapNotice(None, 1, (self.named_s // DAY_S + 1) * DAY_S, label.at)
        if not belief.trusted:
            if served is not None and belief.doubt is not None:  # a label in doubt still says that there is a fix
                self.pairing.fixed(label.at)
                self.pairing.refused[belief.doubt.code] += 1
            return Outcome(trust_changed=changed)
        if self.health.blocked(label.at.mono_ns):
            self.pairing.refused[Code.DOUBTFUL_RECEIVER] += 1
            return Outcome(notice=notice, trust_changed=changed)
        if self._delay_unchecked:  # learned in an earlier run, perhaps at another line speed
            self._delay_unchecked = False
            if self._learned is None or self._learned.byte_ns != byte_ns:
                self.pairing.assume_nothing()
        if context.lagging and served is None and (kept is None or kept.error_ns > NAMES_NS):
            words = "its line is never idle, so its messages lag and name no second: raise the speed (baud), or let it send fewer sentences"
            self.pairing.refuse(Code.LINE_SATURATED, words)
            return Outcome(notice=notice, trust_changed=changed)
        if self.waiting_since_ns is None:
            self.waiting_since_ns = label.at.mono_ns
        clock_ns = context.table.utc_to_tai_ns(label.at.real_ns) - label.at.mono_ns
        out = self.pairing.label(tai_ns, label.at, context.present, clock_ns, not context.own_labels, kept_ns=context.kept_error_ns)
        if isinstance(out, Condition):
            return Outcome(notice=notice, trust_changed=changed)
        bias_ns = self.pulse_bias_ns + self._strayed_ns(label.at.mono_ns)
        pulses = [Sample(s.at, s.tai_ns, s.uncertainty_ns, bias_ns) for s in out.pulses]
        return Outcome(pulses, out.label, notice, changed)

    def _witnesses(self, at: Instant, context: Context) -> tuple[Witness | None, Witness | None]:
        """(the clock that another program keeps, the served timescale) at ``at``."""
        kept = served = None
        if context.kept_error_ns is not None:
            kept = Witness(context.table.utc_to_tai_ns(at.real_ns), max(CLOCK_ERROR_NS, context.kept_error_ns))
        if context.present is not None and context.present.bound_ns < NAMES_NS:
            served = Witness(context.present.tai_at(at.mono_ns), context.present.bound_ns, context.rank)
        return kept, served

    def _judge(self, label: SecondLabel, tai_ns: int, kept: Witness | None, served: Witness | None) -> Belief:
        """Whether this very label may be used. ``belief`` is what holds of the receiver: one stray does not end it."""
        battery_s = None if self._battery_ns is None else (self._battery_ns + label.at.mono_ns) // NS
        wrong = impossible(label, self._not_before_s, self._saved_s, battery_s)
        if wrong is not None:
            self.belief = Belief(doubt=wrong)
            return self.belief
        belief = self.evidence.judge(label, tai_ns, kept=kept, served=served, usual_ns=self.pairing.usual_ns)
        if label.doubt is LabelDoubt.RIVAL_TALKER and not belief.trusted:
            self._rival = (belief.why, label.at.mono_ns)
            if self.belief.trusted:
                return belief
        dispute = self.dispute
        if dispute is None or dispute.labels >= STANDING:
            self.belief = belief
        return belief

    def pulse(self, edge: Edge, context: Context) -> list[Sample]:
        """An edge. Returns samples of the pulses that it completes and that the timescale numbers, oldest first. ``label`` returns the
        pulses that labels number."""
        if not self.has_pulse:  # gpsd reports pulses although none was configured
            self.has_pulse, self._reported_ns = True, GPSD_PULSE_NS + edge.uncertainty_ns
        pulses = self.rhythm.accept(edge)
        if not pulses:
            return []
        self.pairing.rhythm(self.rhythm.period_ns, self.rhythm.alone)
        return [sample for pulse in pulses if (sample := self._pulse(pulse, context)) is not None]

    def _pulse(self, edge: Edge, context: Context) -> Sample | None:
        """A pulse of the rhythm."""
        self.pulses += 1
        self._pulse_mono_ns = edge.at.mono_ns
        at = self._corrected(edge.at)
        if self.health.blocked(edge.at.mono_ns):
            self.pairing.refuse(Code.DOUBTFUL_RECEIVER, "the receiver is well again: waiting for its next second")
            return None
        contradiction = self.rhythm.contradiction()
        if contradiction is not None and not context.rivalled:
            self.pairing.refuse(contradiction.code, contradiction.words)
            return None
        sample = self.pairing.edge(Edge(at, edge.kind, edge.sequence, edge.uncertainty_ns), context.present, context.rivalled)
        self.rhythm.off_by(self.pairing.off_ns)
        bias_ns = self.pulse_bias_ns + self._strayed_ns(edge.at.mono_ns)
        return None if sample is None else Sample(sample.at, sample.tai_ns, sample.uncertainty_ns, bias_ns)

    def _strayed_ns(self, mono_ns: int) -> float:
        """How far the receiver's oscillator may have strayed since its last fix, or may not have come back from since then; ns."""
        ppb, since_ns = self.config.holdover_ppb, self.pairing.since_fix_ns(mono_ns)
        if ppb is None:
            ppb = HOLDOVER_PPB if self.config.pulse_without_fix_s * NS > FIX_TIMEOUT_NS else 0.0
        left = max(0.0, 1.0 - (mono_ns - self._strayed_mono_ns) / RETURN_NS)
        if since_ns > FRESH_NS:
            self._strayed_most_ns, self._strayed_mono_ns, left = max(self._strayed_most_ns * left, since_ns * ppb * 1e-9), mono_ns, 1.0
        return self._strayed_most_ns * left

    def _corrected(self, at: Instant) -> Instant:
        """The edge corrected for the pulse's quantisation error and for the delay of the antenna's cable."""
        saw, self._sawtooth = self._sawtooth, None
        if saw is not None and at.mono_ns - saw.at.mono_ns < SAWTOOTH_NS:
            at = at.shifted(-round(saw.error_ns) if self.rhythm.period_ns == NS else 0)
        return at if self.cable_told else at.shifted(-self._cable_ns)

    @property
    def _cable_ns(self) -> int:
        """Delay of the antenna's cable, ns; positive: it makes the pulse late."""
        config = self.config
        return (config.cable_delay_ns or 0) if isinstance(config, ReceiverSource) and config.pps else 0

    # ---- how it stands -----------------------------------------------------------------------------------------------------------

    @property
    def pulse_bias_ns(self) -> float:
        """Systematic error allowed for a pulse: its stamping, its way through gpsd, a fix without height; ns."""
        return self.bias_ns + self._reported_ns + self.health.extra_ns

    @property
    def shown_bias_us(self) -> float | None:
        """How late pulses may be stamped, us; None without pulses."""
        return (self.bias_ns + self._reported_ns) / 1e3 if self.has_pulse else None

    @property
    def fresh_ns(self) -> int:
        """ns for which the last pulse counts: three seconds, or two and a half periods if longer."""
        return max(FRESH_NS, 5 * self.rhythm.period_ns // 2)

    @property
    def dispute(self) -> Dispute | None:
        """Its labels contradict the served second; None while they do not."""
        return self.evidence.dispute

    @property
    def contradicts(self) -> bool:
        """Whether its pulses have come before the served seconds for long enough to give these up."""
        return self.pairing.contradicts

    @property
    def refused(self) -> Counter[str]:
        """Labels and pulses that were not used, by reason (``Code``)."""
        return self.pairing.refused

    @property
    def spoken_delay(self) -> str:
        """The measured message delay in words; "" while it is not measured."""
        return self.pairing.delay_words(self._spoke)

    @property
    def cable_words(self) -> str:
        """Which side subtracts the cable's delay, the receiver or this program; "" when none is configured."""
        who = "the receiver takes it off" if self.cable_told else "taken off here, for the receiver was not told"
        return f"antenna cable {self._cable_ns} ns: {who}" if self._cable_ns else ""

    def report(self) -> PulseReport | None:
        """Statistics and quality of the pulses; None before the first edge."""
        return self.rhythm.report(self._doubts())

    def _doubts(self) -> list[Condition]:
        doubt = self.pairing.doubt()
        return [] if doubt is None else [doubt]

    def pulse_news(self) -> str:
        """A change to log, once: of the rate, or of a doubt about the edge or the second that the pulses mark; "" when nothing changed."""
        off = (self.pairing.off_ns > 0) - (self.pairing.off_ns < 0)
        contradiction = self.rhythm.contradiction()
        now = (self.rhythm.changed, contradiction is not None, off)
        if now == self._pulse_told:
            return ""
        self._pulse_told = now
        doubt = contradiction or self.pairing.off_second()
        return doubt.words if doubt is not None else self.rhythm.changed or "its pulses are in phase again"

    def learned_delay(self) -> LearnedDelay | None:
        """The message delay for the next start; None while it is not measured. One that only a kept clock could name is not saved: a wrong
        leap count may be in it, and the receiver may have the right one by then."""
        delay, spread = self.pairing.delay_ns()
        if not self.pairing.delay_learned or not in_time(delay, None):
            return None
        return LearnedDelay(delay / 1e6, max(spread / 1e6, 5.0), self._byte_ns)

    def conditions(self, now_mono_ns: int) -> list[Condition]:
        """All that is wrong with the receiver, whether it is used or not."""
        found = [*self.health.conditions(now_mono_ns), *self.rhythm.conditions(), *self._doubts()]
        if self.dispute is not None and self.dispute.labels >= STANDING and self.belief.doubt is not None:
            found.append(Condition(Code.LABELS_IN_DOUBT, f"{self.belief.doubt.words}; the pulses hold the second"))
        if self._rival is not None and now_mono_ns - self._rival[1] < FIX_TIMEOUT_NS:
            found.append(Condition(Code.TWO_TALKERS, self._rival[0]))
        return found

    def obstacle(self, now_mono_ns: int, advice: str) -> Condition:
        """Why the receiver gives no time, or how far its start has progressed. ``advice``: what to do about a protocol that is not
        understood; "" for none. Causes are tested in the order of ``Code``, and the first is returned."""
        return self._no_second(now_mono_ns, advice) or self._no_pulse(now_mono_ns) or self.pairing.condition

    def _no_second(self, now_mono_ns: int, advice: str) -> Condition | None:
        """Why the receiver names no usable second; None when it does."""
        if not self.labels and advice:
            return obstacle(Code.FOREIGN_PROTOCOL, advice)
        if not self.labels and self.sky is not None and self.sky.mode is not FixMode.NONE and not self.belief.held_s:
            return obstacle(Code.NO_DATE, "the receiver has a fix but sends no date: switch on RMC or ZDA (or NAV-PVT)")
        if self.sky is not None and self.sky.mode is FixMode.NONE and not self.belief.trusted:
            seen = len(self.sky.satellites)
            heard = f"{self.sky.used} of {seen} satellites used" if seen else "no satellites seen"
            return obstacle(Code.NO_FIX, f"no fix yet, {heard}")
        if (doubt := self.health.blocked(now_mono_ns)) is not None:
            return doubt
        silent_s = (now_mono_ns - self.label_mono_ns) / NS
        if self.labels and silent_s * NS > FIX_TIMEOUT_NS:
            words = f"no valid second from the receiver for {silent_s:.0f} s: is the antenna covered or off?"
            return obstacle(Code.SECONDS_STOPPED, words)
        return self.belief.doubt

    def _no_pulse(self, now_mono_ns: int) -> Condition | None:
        """Why the receiver has no pulses to number; None when it has."""
        if not self.has_pulse:
            return obstacle(Code.TIMING_MESSAGES, "timing its messages")
        if (refusal := self.rhythm.refusal()) is not None:
            return refusal
        if not self.pulses:
            return obstacle(Code.WAITING_FOR_PULSES, "waiting for pulses")
        silent_ns = now_mono_ns - self._pulse_mono_ns
        if silent_ns > self.fresh_ns:
            words = f"no pulse for {silent_ns / NS:.0f} s: check the wire and the receiver's pulse setting"
            return obstacle(Code.PULSES_STOPPED, words)
        return None
