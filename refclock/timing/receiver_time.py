"""Makes samples from the labels and pulse edges of one receiver. A sample gives the TAI of an instant of the oscillator.

    label -> date possible? -> evidence? -> receiver well? ┐
    edge -> pulse of a rhythm? ---------> receiver well? -┴-> pairing -> Sample

Flow: ``receiver.session`` or gpsd (values), pulse devices (edges) -> **receiver_time** -> samples, for the daemon
(``ppsd.discipline.source``) or for a program that passes them to chronyd. The state of the rest of the system comes in with each call
(``Context``). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from refclock.condition import Code, Condition, obstacle
from refclock.config import HOLDOVER_PPB, GpsdSource, ReceiverSource
from refclock.sample import (
    NS,
    Edge,
    FixMode,
    HealthReport,
    Instant,
    LabelDoubt,
    LabelProtocol,
    LeapNotice,
    LineStatus,
    ReceiverValue,
    Sample,
    Sawtooth,
    SecondLabel,
    SkyView,
)
from refclock.timing.dates import SLACK_S, floor_s, impossible, repaired, witness
from refclock.timing.evidence import CLOCK_ERROR_NS, COUNTS_S, NAMES_NS, STANDING, Belief, Dispute, Evidence, Witness, in_time
from refclock.timing.health import Health
from refclock.timing.pairing import DEFAULT_DELAY_UNCERTAINTY_NS, FIX_TIMEOUT_NS, Pairing
from refclock.timing.pulse_time import FRESH_NS, Context, PulseTime

SAWTOOTH_NS = 1500 * 1_000_000
"""ns; an older quantisation error (TIM-TP) belongs to an earlier pulse and is ignored."""
RETURN_NS: Final = 3600 * NS
"""ns after a fix within which a disciplined oscillator has taken its pulse back to the second. It may step it, or steer for several time
constants of its loop, 100 to 1000 s each."""
GPSD_PULSE_NS = 100_000.0
"""ns of latency allowed for gpsd's pulses. gpsd may stamp in user space after TIOCMIWAIT, 30 to 95 us late on a motherboard port."""


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


class ReceiverTime(PulseTime):
    """One receiver's time.

    ``not_before_s``: no true date is before it (POSIX). ``saved_s``: POSIX second that an earlier run knew, None without. It is a hint.
    ``battery_ns``: the battery clock (POSIX ns) minus raw time; None without one, or when another program keeps the system clock.
    ``delay``: learned earlier.
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
        self.config: ReceiverSource | GpsdSource = config
        self._not_before_s, self._battery_ns = not_before_s, battery_ns
        self.saved_s = saved_s
        """As the argument; None once the receiver and a second witness contradict it."""
        self._learned = delay
        self.evidence = Evidence()
        self.belief = Belief(doubt=obstacle(Code.WAITING_FOR_SECOND, "waiting for the receiver's first valid second"))
        """What holds of the receiver's labels."""
        self.health = Health()
        self.sky: SkyView | None = None
        self.labels = 0
        self.place_ns = self.label_mono_ns = 0
        """The last label: POSIX time that it named minus raw arrival (ns), and raw arrival."""
        self.named_s = not_before_s
        """POSIX second that the last label named."""
        self.waiting_since_ns: int | None = None
        """Raw time of the first trusted label since the start or since ``forget``."""
        self._byte_ns = 0
        self._spoke = LabelProtocol.NMEA
        self._aside: tuple[Condition, int] | None = None  # what was said that is not believed, beside what is, and when
        self._sawtooth: Sawtooth | None = None
        self._reported_ns = 0.0
        self._strayed_most_ns, self._strayed_mono_ns = 0.0, 0  # of the oscillator without a fix, and when that was last so
        self._unfixed: tuple[int, float] | None = None  # since when it has had no fix, and how far it had strayed by then
        super().__init__(config)

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
        self._tell_rhythm()

    def raw_jumped(self, since_ns: int) -> None:
        """As PulseTime; evidence and message delay hold."""
        self.evidence.raw_clock_jumped(since_ns)
        self._learned = self.learned_delay() or self._learned
        super().raw_jumped(since_ns)

    def lost(self) -> None:
        """The device is gone: forget an unfinished numbering, keep what was learned."""
        super().lost()
        self.health = Health()
        self.sky = None

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
                self.evidence.notice(value, context.table.certain_s(self.named_s))
                if self.belief.trusted:
                    return Outcome(notice=value)
        return NOTHING

    def label(self, label: SecondLabel, byte_ns: int, context: Context) -> Outcome:
        """A valid label. It numbers pulses only while labels are trusted."""
        label = self._dated(label)
        self.labels += 1
        self._byte_ns = byte_ns
        self.place_ns, self.label_mono_ns = label.utc_ns - label.at.mono_ns, label.at.mono_ns
        self._spoke = label.protocol
        self.named_s = label.utc_ns // NS
        counted = context.count_s is not None
        tai_ns = label.utc_ns + (context.count_s or 0) * NS if counted else context.table.utc_to_tai_ns(label.utc_ns, label.second_60)
        kept, served = self._witnesses(label.at, context)
        before = self.belief.trusted
        belief = self._judge(label, tai_ns, kept, served)
        changed = self.belief.trusted != before
        if not belief.trusted:
            if served is not None and belief.doubt is not None:  # a label in doubt still says that there is a fix
                self.pairing.fixed(label.at)
                self.pairing.refused[belief.doubt.code] += 1
            return Outcome(trust_changed=changed)
        if self.health.blocked(label.at.mono_ns):
            self.pairing.refused[Code.DOUBTFUL_RECEIVER] += 1
            return Outcome(trust_changed=changed)
        if self._delay_unchecked:  # learned in an earlier run, perhaps at another line speed
            self._delay_unchecked = False
            if self._learned is None or self._learned.byte_ns != byte_ns:
                self.pairing.assume_nothing()
        if context.lagging and served is None and (kept is None or kept.error_ns > NAMES_NS):
            words = "its line is never idle, so its messages lag and name no second: raise the speed (baud), or let it send fewer sentences"
            self.pairing.refuse(Code.LINE_SATURATED, words)
            return Outcome(trust_changed=changed)
        if self.waiting_since_ns is None:
            self.waiting_since_ns = label.at.mono_ns
        clock_ns = context.table.utc_to_tai_ns(label.at.real_ns) - label.at.mono_ns
        out = self.pairing.label(tai_ns, label.at, context.present, clock_ns, not context.own_labels, kept_ns=context.kept_error_ns)
        if isinstance(out, Condition):
            return Outcome(trust_changed=changed)
        bias_ns = self._allowance_ns(label.at.mono_ns)
        pulses = [Sample(s.at, s.tai_ns, s.uncertainty_ns, bias_ns) for s in out.pulses]
        return Outcome(pulses, out.label, trust_changed=changed)

    def clocks(self, at: Instant) -> dict[str, float]:
        """POSIX seconds that the system clock and the battery clock show at ``at``, by name."""
        shown = {"system clock": at.real_ns / NS}
        return shown if self._battery_ns is None else {**shown, "battery clock": (self._battery_ns + at.mono_ns) / NS}

    def _dated(self, label: SecondLabel) -> SecondLabel:
        """The label with its date repaired by the saved one, as long as that stands."""
        if self.saved_s is None:
            return label
        utc_s = label.utc_ns / NS
        if utc_s < self.saved_s - SLACK_S and witness(utc_s, self.saved_s, self.clocks(label.at)):
            self.saved_s = None
        return repaired(label, floor_s(self._not_before_s, self.saved_s))

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
        wrong = impossible(label, self._not_before_s, self.saved_s, battery_s)
        if wrong is not None:
            self._aside = wrong, label.at.mono_ns
            self.belief = Belief(doubt=wrong)
            return self.belief
        belief = self.evidence.judge(label, tai_ns, kept=kept, served=served, usual_ns=self.pairing.usual_ns)
        if label.doubt in (LabelDoubt.RIVAL_TALKER, LabelDoubt.RIVAL_SENTENCE) and belief.doubt is not None:
            self._aside = (belief.doubt, label.at.mono_ns)
            if self.belief.trusted:
                return belief
        dispute = self.dispute
        if dispute is None or dispute.labels >= STANDING:
            self.belief = belief
        return belief

    def pulse(self, edge: Edge, context: Context) -> list[Sample]:
        """As PulseTime; ``label`` returns the pulses that labels number."""
        if not self.has_pulse:  # gpsd reports pulses although none was configured
            self.has_pulse, self._reported_ns = True, GPSD_PULSE_NS + edge.uncertainty_ns
        return super().pulse(edge, context)

    def _number(self, edge: Edge, context: Context) -> Sample | None:
        if self.health.blocked(edge.at.mono_ns):
            self.pairing.refuse(Code.DOUBTFUL_RECEIVER, "the receiver is well again: waiting for its next second")
            return None
        present, long_trusted = context.present, self.pairing.fix_timeout_ns > FIX_TIMEOUT_NS
        if present is not None and long_trusted and not (self.labels or context.rivalled or self._strayed_mono_ns):
            # An earlier run may have left it without a fix. What it had strayed by then is in the bound that was left.
            self._strayed_most_ns, self._strayed_mono_ns = present.bound_ns, edge.at.mono_ns
        return self.pairing.edge(edge, present, context.rivalled)

    def _strayed_ns(self, mono_ns: int) -> float:
        """How far the receiver's oscillator may have strayed since its last fix, or may not have come back from since then; ns."""
        ppb, since_ns = self.config.holdover_ppb, self.pairing.since_fix_ns(mono_ns)
        if ppb is None:
            ppb = HOLDOVER_PPB if self.config.pulse_without_fix_s * NS > FIX_TIMEOUT_NS else 0.0
        if since_ns > FRESH_NS:  # nothing brings it back meanwhile: it strays on from where it was
            lost_ns = mono_ns - since_ns
            if self._unfixed is None or self._unfixed[0] != lost_ns:
                self._unfixed = lost_ns, self._returning_ns(lost_ns)
            self._strayed_most_ns, self._strayed_mono_ns = self._unfixed[1] + since_ns * ppb * 1e-9, mono_ns
        return self._returning_ns(mono_ns)

    def _returning_ns(self, mono_ns: int) -> float:
        """How much of it is left at raw ``mono_ns`` when it has had a fix since."""
        return self._strayed_most_ns * max(0.0, 1.0 - max(0, mono_ns - self._strayed_mono_ns) / RETURN_NS)

    def _corrected(self, at: Instant) -> Instant:
        """The edge corrected for the pulse's quantisation error and for the delay of the antenna's cable."""
        saw, self._sawtooth = self._sawtooth, None
        if saw is not None and at.mono_ns - saw.at.mono_ns < SAWTOOTH_NS:
            at = at.shifted(-round(saw.error_ns) if self.rhythm.period_ns == NS else 0)
        return super()._corrected(at)

    # ---- how it stands -----------------------------------------------------------------------------------------------------------

    @property
    def pulse_bias_ns(self) -> float:
        """Systematic error allowed for a pulse: its stamping, its way through gpsd, a fix without height; ns."""
        return self.bias_ns + self._reported_ns + self.health.extra_ns

    def _allowance_ns(self, mono_ns: int) -> float:
        """As PulseTime; with an oscillator that strays without a fix."""
        return self.pulse_bias_ns + self._strayed_ns(mono_ns)

    @property
    def shown_bias_us(self) -> float | None:
        """As PulseTime; with the way through gpsd."""
        return (self.bias_ns + self._reported_ns) / 1e3 if self.has_pulse else None

    @property
    def dispute(self) -> Dispute | None:
        """Its labels contradict the served second; None while they do not."""
        return self.evidence.dispute

    @property
    def spoken_delay(self) -> str:
        """The measured message delay in words; "" while it is not measured."""
        return self.pairing.delay_words(self._spoke)

    def learned_delay(self) -> LearnedDelay | None:
        """The message delay for the next start; None while it is not measured. One that only a kept clock could name is not saved: a wrong
        leap count may be in it, and the receiver may have the right one by then."""
        delay, spread = self.pairing.delay_ns()
        if not self.pairing.delay_learned or not in_time(delay, None):
            return None
        return LearnedDelay(delay / 1e6, max(spread / 1e6, 5.0), self._byte_ns)

    def conditions(self, now_mono_ns: int) -> list[Condition]:
        """All that is wrong with the receiver, whether it is used or not."""
        found = [*self.health.conditions(now_mono_ns), *super().conditions(now_mono_ns)]
        if self.dispute is not None and self.dispute.labels >= STANDING and self.belief.doubt is not None:
            dated = abs(self.dispute.late_ns) > COUNTS_S * NS
            remedy = "; if the served date is wrong, set the system clock, and the one that it confirms is served" if dated else ""
            found.append(Condition(Code.LABELS_IN_DOUBT, f"{self.belief.doubt.words}; the pulses hold the second{remedy}"))
        if self._aside is not None and now_mono_ns - self._aside[1] < FIX_TIMEOUT_NS:
            found.append(replace(self._aside[0], blocks=False))
        return found

    def obstacle(self, now_mono_ns: int, line: LineStatus) -> Condition:
        """Why the receiver gives no time, or how far its start has progressed. ``line``: what its line has shown. Causes are tested in the
        order of ``Code``, and the first is returned, but a receiver that says that it has no fix is told as such."""
        return self._no_second(now_mono_ns, line) or self.no_pulse(now_mono_ns) or self.pairing.condition

    def _no_second(self, now_mono_ns: int, line: LineStatus) -> Condition | None:
        """Why the receiver names no usable second; None when it does."""
        if not self.labels and line.silent:
            return obstacle(Code.NOTHING_COMES, line.silent)
        if not self.labels and line.advice:
            return obstacle(Code.FOREIGN_PROTOCOL, line.advice)
        trusted, why = self.belief.trusted, line.unlabelled
        if self.sky is not None and self.sky.mode is FixMode.NONE and not trusted:
            seen = len(self.sky.satellites)
            heard = f"{self.sky.used} of {seen} satellites used" if seen else "no satellites seen"
            return obstacle(Code.NO_FIX, f"no fix yet, {heard}" + (f"; {why}" if why and not line.fixless else ""))
        if why and not trusted:
            return obstacle(Code.LABELS_REFUSED, why)
        if not self.labels and self.sky is not None and self.sky.mode is not FixMode.NONE and not self.belief.held_s:
            return obstacle(Code.NO_DATE, "the receiver has a fix but sends no date: switch on RMC or ZDA (or NAV-PVT)")
        if (doubt := self.health.blocked(now_mono_ns)) is not None:
            return doubt
        silent_s = (now_mono_ns - self.label_mono_ns) / NS
        if self.labels and silent_s * NS > FIX_TIMEOUT_NS:
            words = f"no valid second from the receiver for {silent_s:.0f} s: {why or line.silent or 'is the antenna covered or off?'}"
            return obstacle(Code.SECONDS_STOPPED, words)
        return self.belief.doubt

    def no_pulse(self, now_mono_ns: int) -> Condition | None:
        """As PulseTime."""
        return super().no_pulse(now_mono_ns) if self.has_pulse else obstacle(Code.TIMING_MESSAGES, "timing its messages")
