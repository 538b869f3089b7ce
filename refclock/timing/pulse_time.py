"""The pulses of one source: their rhythm, their stamps, and the second that each of them marks.

A source without a receiver's line (``type = "pps"``) has nothing but pulses, and they name no second. Others number them: the served
timescale while its bound is small, else a clock that another program keeps, as the kernel says. The clock says which second it is, within
its error, and the pulse when that begins. A pulse that lies beside the clock's seconds by more than that error is refused (``pairing``);
when this goes on, the second that was made of such pulses is given up. Without either the pulses wait, and people are told for whom.

    edge -> pulse of a rhythm? -> numbered by the timescale or a kept clock -> Sample

``receiver_time`` is the same with a receiver's labels. Flow: pulse devices (edges) -> **pulse_time** -> samples. Pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from refclock.condition import Code, Condition, obstacle
from refclock.config import AUTO, PpsSource, PulsedSource, ReceiverSource
from refclock.sample import NS, Edge, Instant, PulseReport, Sample
from refclock.timescales import LeapTable
from refclock.timing.evidence import CLOCK_ERROR_NS, Rank
from refclock.timing.pairing import DEFAULT_DELAY_UNCERTAINTY_NS, TAKING_UP, Pairing, Present
from refclock.timing.pulses import Rhythm

FRESH_NS: Final = 3 * NS
"""ns without a pulse before a source of one pulse a second counts as silent; and without a label before its fix counts as lost."""
PULSE_BIAS_US: Final = 15.0
"""us of latency allowed while the way of stamping is unknown: a Raspberry Pi takes 5 to 12 us to serve the interrupt."""
CLOCK_SHARE: Final = 0.25
"""Share of the period (of a second, when it is longer) within which a kept clock must be right to number a pulse: half of what it takes to
take one for its neighbour."""
BESIDE_CLOCK: Final = 10
"""Pulses in a row beside the seconds of a kept clock, after which the second that was made of them is given up: no gust of load lasts as
long."""
WAITING: Final = obstacle(Code.WAITING_FOR_PULSES, "waiting for pulses")
FOR_EVER_NS: Final = 1 << 62
"""ns; nobody states a fix of these pulses, so they have no last one."""


@dataclass(frozen=True, slots=True)
class Context:
    """The state of the rest of the system when a value or an edge of this source arrives.

    ``table``: leap seconds in force. ``present``: the served timescale, None without one. ``own_labels``: the timescale was made from this
    receiver's labels, so it cannot measure their delay. ``rivalled``: it was made from another source, so selection judges pulses off its
    seconds. ``seconded``: another source, which names seconds itself, agrees with it. ``kept_error_ns``: error within which another program
    keeps the system clock; None when none does. ``rank``: the best evidence that the served second rests on. ``lagging``: the line is never
    idle, so labels lag by an unknown delay. ``count_s``: TAI-UTC with which this label counts, near a leap second; None: as ``table`` says.
    """

    table: LeapTable = field(default_factory=LeapTable)
    present: Present | None = None
    own_labels: bool = False
    rivalled: bool = False
    seconded: bool = False
    kept_error_ns: int | None = None
    rank: Rank = Rank.STEADINESS
    lagging: bool = False
    count_s: int | None = None


class PulseTime:
    """The time of one source that has pulses."""

    def __init__(self, config: PulsedSource) -> None:
        self.config = config
        self.rhythm = Rhythm.configured(config)
        self.pulses = 0
        self.has_pulse = config.pps not in ("", AUTO)
        self.cable_told = False
        """Whether the receiver allows for the antenna cable's delay. Until it confirms that, it is taken to allow for none."""
        self.numbered_by = ""
        """What names the seconds of the pulses, in words; "" while nothing does."""
        self._beside_clock = 0  # pulses in a row that lie beside the seconds of a kept clock
        self._off_clock_ns = 0  # how far after these the last one came; 0 when it marks one, or when the clock was not asked
        self._pulse_mono_ns = 0
        self._pulse_told = ("", False, 0)
        self.stamped_by("", PULSE_BIAS_US)
        self.forget()

    def forget(self) -> None:
        """Start the numbering again, because the second was wrong."""
        self.pairing = Pairing(None, DEFAULT_DELAY_UNCERTAINTY_NS, FOR_EVER_NS)
        self.pairing.condition = WAITING
        self._beside_clock = 0
        self._tell_rhythm()

    def raw_jumped(self, since_ns: int) -> None:
        """The raw clock has jumped, at ``since_ns`` or just before. Find the pulses and number them again. The rhythm too was found on the
        old raw clock: of a square wave that stood still for half a period it takes the other edge."""
        del since_ns
        self.rhythm = Rhythm.configured(self.config)
        self.forget()

    def _tell_rhythm(self) -> None:
        if self.rhythm.period_ns:
            self.pairing.rhythm(self.rhythm.period_ns, self.rhythm.alone)

    def lost(self) -> None:
        """The device is gone: forget an unfinished numbering, keep what was learned."""
        self.cable_told = False
        self.numbered_by = ""
        self.pairing.lost()

    def stamped_by(self, how: str, bias_us: float) -> None:
        """How pulses are stamped, in words, and the latency to allow, us. A latency stated in the configuration takes precedence."""
        stated = self.config.pps_bias_us
        self.bias_ns = (bias_us if stated is None else stated) * 1e3
        self.bias_how = how if stated is None else "as configured"

    # ---- what arrives ------------------------------------------------------------------------------------------------------------

    def pulse(self, edge: Edge, context: Context) -> list[Sample]:
        """An edge. Returns samples of the pulses that it completes and that can be numbered, oldest first."""
        pulses = self.rhythm.accept(edge)
        self._tell_rhythm()
        return [sample for pulse in pulses if (sample := self._pulse(pulse, context)) is not None]

    def _pulse(self, edge: Edge, context: Context) -> Sample | None:
        """A pulse of the rhythm."""
        self.pulses += 1
        self._pulse_mono_ns = edge.at.mono_ns
        at = self._corrected(edge.at)
        contradiction = self.rhythm.contradiction()
        if contradiction is not None and not context.rivalled:
            self.pairing.refuse(contradiction.code, contradiction.words)
            return None
        sample = self._number(Edge(at, edge.kind, edge.sequence, edge.uncertainty_ns), context)
        self.rhythm.off_by(self.pairing.off_ns or self._off_clock_ns)
        return None if sample is None else Sample(sample.at, sample.tai_ns, sample.uncertainty_ns, self._allowance_ns(edge.at.mono_ns))

    def _number(self, edge: Edge, context: Context) -> Sample | None:
        """The pulse with its second; None when nobody names that, or when the pulse lies beside it."""
        present, kept_ns, sample = context.present, context.kept_error_ns, None
        named = present is not None and present.bound_ns < self.pairing.rounding_ns
        standing = named and (context.rivalled or context.seconded)  # between the sources and that clock the engine decides
        kept = kept_ns is not None and max(CLOCK_ERROR_NS, kept_ns) <= CLOCK_SHARE * min(NS, self.rhythm.period_ns)
        self._off_clock_ns = 0
        if kept and kept_ns is not None and not standing:
            opinion = context.table.utc_to_tai_ns(edge.at.real_ns)
            by_clock = self.pairing.kept(edge, opinion, kept_ns, edge_known=named or self.rhythm.fixed is not None)
            if isinstance(by_clock, Condition):
                self._off_clock_ns = (opinion + NS // 2) % NS - NS // 2
                self._beside_clock += 1
                return None
            sample = by_clock
        self._beside_clock = 0
        if present is not None and named:
            sample = self.pairing.edge(edge, present, context.rivalled)
        if standing:
            self.numbered_by = "numbered by the seconds of another source"
        elif kept and kept_ns is not None:
            self.numbered_by = f"numbered by the system clock, which another program keeps within {kept_ns / 1e6:.0f} ms"
        elif named:
            self.numbered_by = "counted on from the seconds before"
        else:
            self.numbered_by = ""
            self.pairing.refuse(Code.PULSES_UNNUMBERED, _unnumbered(kept_ns, present, self.pairing.rounding_ns))
        if sample is not None:
            self.pairing.condition = TAKING_UP
        return sample

    def _corrected(self, at: Instant) -> Instant:
        """The edge corrected for the delay of the antenna's cable."""
        return at if self.cable_told else at.shifted(-self._cable_ns)

    @property
    def _cable_ns(self) -> int:
        """Delay of the antenna's cable, ns; positive: it makes the pulse late."""
        config = self.config
        return (config.cable_delay_ns or 0) if isinstance(config, ReceiverSource | PpsSource) and config.pps else 0

    def _allowance_ns(self, mono_ns: int) -> float:
        """Systematic error allowed for a pulse at raw ``mono_ns``, ns."""
        del mono_ns
        return self.bias_ns

    # ---- how it stands -----------------------------------------------------------------------------------------------------------

    @property
    def shown_bias_us(self) -> float | None:
        """How late pulses may be stamped, us; None without pulses."""
        return self.bias_ns / 1e3 if self.has_pulse else None

    @property
    def fresh_ns(self) -> int:
        """ns for which the last pulse counts: three seconds, or two and a half periods if longer."""
        return max(FRESH_NS, 5 * self.rhythm.period_ns // 2)

    @property
    def contradicts(self) -> bool:
        """Whether its pulses have come before the served seconds, or beside those of a kept clock, for long enough to give these up."""
        return self.pairing.contradicts or self._beside_clock >= BESIDE_CLOCK

    @property
    def refused(self) -> Counter[str]:
        """Labels and pulses that were not used, by reason (``Code``)."""
        return self.pairing.refused

    @property
    def cable_words(self) -> str:
        """Which side subtracts the cable's delay, the receiver or this program; "" when none is configured."""
        here = "taken off here, for the receiver was not told" if isinstance(self.config, ReceiverSource) else "taken off here"
        who = "the receiver takes it off" if self.cable_told else here
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

    def conditions(self, now_mono_ns: int) -> list[Condition]:
        """All that is wrong with the source, whether it is used or not."""
        del now_mono_ns
        return [*self.rhythm.conditions(), *self._doubts()]

    def no_pulse(self, now_mono_ns: int) -> Condition | None:
        """Why there are no pulses to number; None when there are."""
        if (refusal := self.rhythm.refusal()) is not None:
            return refusal
        if not self.pulses:
            return WAITING
        silent_ns = now_mono_ns - self._pulse_mono_ns
        if silent_ns > self.fresh_ns:
            words = f"no pulse for {silent_ns / NS:.0f} s: check the wire and the receiver's pulse setting"
            return obstacle(Code.PULSES_STOPPED, words)
        return None


def _unnumbered(kept_ns: int | None, present: Present | None, wanted_ns: int) -> str:
    """Why neither the served time nor a kept clock numbers the pulses, and what to do. ``kept_ns``: that clock's error, None without one.
    ``wanted_ns``: the bound of the served time that is wanted."""
    if present is not None:
        why = f"the served time is good to {present.bound_ns / 1e6:.0f} ms only, and {wanted_ns / 1e6:.0f} ms are wanted"
    elif kept_ns is not None:
        why = f"the system clock is kept within {kept_ns / 1e6:.0f} ms only"
    else:
        why = "no program keeps the system clock independently of this one"
    return (
        f"pulses come, but nobody names their seconds: {why}; let NTP keep that clock (chronyd or ntpd with servers; here "
        'steer = "none" and no [[feed]]), or add a receiver, or another [[source]] that is good to a tenth of a second'
    )
