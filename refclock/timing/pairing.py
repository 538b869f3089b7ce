"""Numbers the pulses of one receiver: finds which second each pulse marks.

    edge + label + present timescale -> Sample

A pulse says exactly *when* a second begins. A label says roughly *which* second it is. The present timescale comes in with each call; this
module has no memory of being synchronised.

* When the timescale's bound is below 0.1 s, the pulse is rounded to the nearest second of the timescale. Labels only check it.
* Otherwise ``AGREEING`` consecutive labels must name the same seconds for the pulses before them.

Message delay. A label arrives some time after the second that it names. Pulse and label alone give that delay modulo one second: a label
0.8 s after a pulse may also be 0.2 s early for the next one. Only -0.05 to +0.35 s is unambiguous. Any other delay needs a second opinion
that names the same pulse:

* the delay that was stated or learned earlier; the label may then lie within 0.35 s of it;
* UBX TIM-TP, which names the *next* pulse;
* a system clock whose seconds begin with the pulses.

Without one the pulse is not numbered, and the reason says what would help. The learned delay makes labels (coarse) samples of their own.

Several pulses a second. With n pulses a second the delay is known modulo 1/n s only, so no delay is unambiguous. The pulse that marks the
second is found by a delay that is known to a third of the period, by a timescale with a bound below a tenth of the period, or by a system
clock that another program keeps to a third of the period, as the kernel reports. TIM-TP does not help: any of n pulses may be its next one.
Other system clocks do not help: one in three is in phase by chance. When pulses come every few seconds, each marks a second, and the
seconds between them are counted.

Trailing edges. A trailing edge is late by the pulse's width, mostly 100 or 200 ms. It is recognised in two ways: the message comes before
it, or it lies off the seconds of the timescale or of a system clock that another program keeps. It is refused, with one exception: off a
timescale that comes from another source it passes, and selection judges it.

Flow: ``receiver_time`` (trusted labels, edges of a rhythm) -> **pairing** -> samples. Times are TAI against CLOCK_MONOTONIC_RAW, so leap
seconds and clock steps do not occur here. Pure.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace

from refclock.condition import Code, Condition, obstacle
from refclock.robust import median, spread
from refclock.sample import NS, Edge, Instant, Sample
from refclock.timing.evidence import CLOCK_ERROR_NS, NAMES_NS

ROUNDING_BOUND_NS = 100_000_000
"""ns; below this bound a pulse is rounded to the timescale's nearest second. Rounding fails at five times as much, half a second."""
AMBIGUOUS_NS = 350_000_000
"""ns; a message delay beyond this, early or late, is ambiguous: half a second less 0.15 s for jitter."""
EARLY_NS = 50_000_000
"""ns by which a label may come before its pulse without a second opinion: USB polling, and jitter of a receiver with no message delay."""
LATEST_NS = NS - EARLY_NS
"""ns; the longest message delay that a system clock may confirm."""
OPINION_NS = 100_000_000
"""ns; a system clock whose seconds begin within this of the pulses has an opinion on the second. One wrong clock in five does so by chance;
its second must agree as well."""
ANNOUNCED_NS = 1_050_000_000
"""ns; TIM-TP comes at most this long before the pulse that it names: within the second before it, and 50 ms for jitter."""
AGREEING = 5
"""Consecutive labels that must agree: a single wrong second or a torn burst of messages never makes five."""
FIX_TIMEOUT_NS = 10 * NS
"""ns; pulses are believed this long after the last valid label. Without a fix, receivers go on pulsing with a growing error."""
PROVEN = 60
"""Labels; a timescale that this many labels have confirmed is proven."""
EARLY_FRESH = 10
"""Pulses in a row; a timescale that is not proven is given up when this many come before its seconds, which no trailing edge does."""
EARLY_PROVEN = 300
"""The same for a proven timescale: five minutes, because a wrong wire is then likelier than a wrong timescale."""
TAKING_UP = obstacle(Code.TAKING_UP_PULSES, "taking up its pulses")
WRONG_EDGE_NS = 25_000_000
"""ns; a pulse farther than this and the bound from the served second does not mark it. Pulses are 100 or 200 ms wide; stamps are at most
20 ms late."""
OFF_CLOCK_NS = 50_000_000
"""ns; the same for a system clock that another program keeps. Its stated error may leave out the asymmetry of the network."""
SHORTEST_NS = 100_000_000
"""ns by which a trailing edge is late at least: the width that most receivers' pulses have (u-blox, MediaTek, SiRF)."""
SPEAKS_AT_ONCE_NS = 5_000_000
"""ns by which a label may come before a pulse of which only one edge is captured: USB polls once a ms, and drivers add delay."""
PHASE = 0.35
"""Share of the period by which a label may deviate from its known delay when several pulses come a second: as AMBIGUOUS_NS of one
second."""
OTHER_EDGE = "have both edges captured (pps-gpio: capture_clear=on), or the other one (assert_falling_edge=on)"
DELAYS = 32
"""Message delays kept for the median."""


@dataclass(frozen=True, slots=True)
class Present:
    """The timescale as pairing needs it: at raw ``mono_ns`` TAI was ``tai_ns`` within ``bound_ns``; ``rate`` = d(TAI)/d(raw) - 1.
    ``doubt_ns``: how far off pulses that contradict it may lie and still mark its seconds, when the raw clock may have changed its rate."""

    mono_ns: int
    tai_ns: int
    rate: float
    bound_ns: float
    doubt_ns: float = 0.0

    def tai_at(self, mono_ns: int) -> int:
        """TAI at ``mono_ns`` by the affine map."""
        return self.tai_ns + (mono_ns - self.mono_ns) + round((mono_ns - self.mono_ns) * self.rate)


@dataclass(frozen=True, slots=True)
class Numbered:
    """The result of a label: the pulses that it numbers, oldest first, and the label itself as a coarse sample, None when it makes none."""

    pulses: list[Sample]
    label: Sample | None


class Pairing:
    """One receiver's pulses and labels.

    ``delay_ns``: message delay that was stated or learned earlier, None without one; ``delay_uncertainty_ns``: its uncertainty.
    ``period_ns``: period of the pulses. ``alone``: only one kind of edge is captured. ``off_ns``: how far after the served
    second the last pulse came; 0 when it is close enough to mark it.
    """

    def __init__(self, delay_ns: int | None, delay_uncertainty_ns: int, fix_timeout_ns: int = FIX_TIMEOUT_NS) -> None:
        self.stated_delay_ns = delay_ns
        self.assumed_uncertainty_ns = delay_uncertainty_ns
        self.fix_timeout_ns = fix_timeout_ns
        self.refused: Counter[str] = Counter()
        self.condition = obstacle(Code.WAITING_FOR_SECOND, "waiting for the receiver's first valid second")
        """Why the last pulse was not numbered, or the progress of the numbering."""
        self.period_ns = NS
        self.alone = False
        self.off_ns = 0
        self._edges: deque[Edge] = deque(maxlen=AGREEING + 3)
        self._delays: deque[float] = deque(maxlen=DELAYS)
        self._naming: deque[int] = deque(maxlen=AGREEING)
        self._announced: tuple[int, int] | None = None  # (TAI of the next pulse, raw arrival of the announcement)
        self._numbered: tuple[int, int] | None = None  # (TAI minus raw by that announcement, raw of its pulse)
        self._last_label_mono: int | None = None
        self._confirmed = 0
        self._early_pulses = 0
        self._seen_pulse = False

    @property
    def rounding_ns(self) -> int:
        """The bound below which the timescale numbers a pulse."""
        return min(ROUNDING_BOUND_NS, self.period_ns // 10)

    def rhythm(self, period_ns: int, alone: bool) -> None:
        """Period of the pulses, and whether only one kind of edge is captured. Another period starts the numbering again."""
        self.alone = alone
        if period_ns != self.period_ns:
            self.period_ns = period_ns
            self._edges = deque(maxlen=(AGREEING + 3) * max(1, NS // period_ns))
            self._naming.clear()
            self._numbered = None

    # ---- labels ------------------------------------------------------------------------------------------------------------------

    def announced(self, tai_ns: int, at: Instant) -> None:
        """The receiver says which second the next pulse marks (UBX TIM-TP)."""
        self._announced = (tai_ns, at.mono_ns)

    def label(
        self,
        tai_ns: int,
        at: Instant,
        present: Present | None,
        clock_ns: int | None = None,
        calibrates: bool = True,
        *,
        kept_ns: int | None = None,
    ) -> Numbered | Condition:
        """A trusted label.

        ``tai_ns``: the second that it names. ``at``: arrival of its first byte. ``clock_ns``: TAI by the system clock minus raw.
        ``calibrates``: the timescale does not come from these labels, so the delay can be measured against it. ``kept_ns``: the error
        within which another program keeps the system clock, None when none does.
        """
        self.fixed(at)
        numbered: list[Sample] = []
        checked = present is not None and present.bound_ns < ROUNDING_BOUND_NS
        if checked and present is not None:
            self._confirmed += 1
            beside = self.off_second()
            self.condition = TAKING_UP if beside is None else replace(beside, blocks=True)
            if calibrates:
                self._delays.append(present.tai_at(at.mono_ns) - tai_ns)
        if self._edges and (not checked or present is None or present.bound_ns >= self.rounding_ns):
            named = self._name(tai_ns, at, clock_ns, kept_ns)
            if isinstance(named, Condition):
                if named.code is Code.AMBIGUOUS_DELAY:
                    return named  # no coarse sample either: its delay may be wrong by a whole second
            else:
                numbered = named
        delay, uncertainty = self.delay_ns()
        if kept_ns is not None and kept_ns <= NAMES_NS and clock_ns is not None:  # it tells the delay of this very label
            delay, uncertainty = at.mono_ns + clock_ns - tai_ns, max(CLOCK_ERROR_NS, kept_ns)
        return Numbered(numbered, Sample(at.shifted(-round(delay)), tai_ns, round(uncertainty), bias_ns=float(round(uncertainty))))

    def fixed(self, at: Instant) -> None:
        """A label says that there is a fix, whatever its second is worth."""
        self._last_label_mono = at.mono_ns

    def since_fix_ns(self, mono_ns: int) -> int:
        """ns from the last label to raw ``mono_ns``; 0 before the first one."""
        return 0 if self._last_label_mono is None else mono_ns - self._last_label_mono

    def refuse(self, code: Code, words: str) -> Condition:
        """Count a refusal and make it the reason that is shown."""
        self.refused[code] += 1
        self.condition = obstacle(code, words)
        return self.condition

    @property
    def contradicts(self) -> bool:
        """Whether the numbering must start again: too many pulses came early."""
        return self._early_pulses >= (EARLY_PROVEN if self._confirmed >= PROVEN else EARLY_FRESH)

    def _name(self, tai_ns: int, at: Instant, clock_ns: int | None, kept_ns: int | None) -> list[Sample] | Condition:
        """Number the pulses seen so far with the help of a label; empty until enough labels agree."""
        edge = min(self._edges, key=lambda e: abs(at.mono_ns - e.at.mono_ns))
        gap = at.mono_ns - edge.at.mono_ns
        if abs(gap) > max(NS, self.period_ns):
            self._naming.clear()
            return self.refuse(Code.NO_PULSE_NEAR_LABEL, "labels arrive but no pulse with them")
        pulse = edge.at.mono_ns + (gap // NS * NS if self.period_ns > NS else 0)  # the last second before the label, counted from the pulse
        apparent = tai_ns - (at.mono_ns - pulse)  # TAI of the pulse if the label had no delay
        opinion = None if clock_ns is None else pulse + clock_ns
        if self.period_ns < NS:
            tells = kept_ns is not None and self._tells(max(CLOCK_ERROR_NS, kept_ns))
            second = self._one_of_many(tai_ns, at.mono_ns - pulse, opinion if tells else None)
        else:
            by_clock = opinion if kept_ns is not None and kept_ns <= NAMES_NS else None
            if by_clock is None or kept_ns is None:
                second = self._second(apparent, pulse, opinion)
            else:
                second = self._by_clock(by_clock, kept_ns)
                if not isinstance(second, Condition) and self.stated_delay_ns is None and not self._leads(by_clock - second, kept_ns):
                    second = self._after_message(second - apparent, AMBIGUOUS_NS) or second
        if isinstance(second, Condition):
            self._naming.clear()
            return second
        delay = second - apparent
        origin = second - pulse
        if self._naming and abs(origin - self._naming[-1]) > min(ROUNDING_BOUND_NS, self.period_ns // 2):
            self.refuse(Code.LABELS_DISAGREE, f"successive labels disagree by {(origin - self._naming[-1]) / NS:+.1f} s")
            self._naming.clear()
        self._naming.append(origin)
        self._delays.append(delay)
        if len(self._naming) < AGREEING:
            words = f"naming the second: {len(self._naming)} of {AGREEING} labels agree"
            self.condition = obstacle(Code.NAMING_SECOND, words)
            return []
        samples = [s for e in self._edges if (s := self._rounded(e, e.at.mono_ns + origin)) is not None]
        self.condition = TAKING_UP
        self._naming.clear()
        self._edges.clear()
        self._confirmed = 0
        return samples

    def _tells(self, error_ns: float) -> bool:
        """Whether a time or delay known within ``error_ns`` distinguishes one of several pulses a second from the next."""
        return error_ns <= PHASE * self.period_ns

    def _leads(self, off_ns: float, kept_ns: int) -> bool:
        """Whether an edge that comes ``off_ns`` after the seconds of a clock kept within ``kept_ns`` begins the pulse: both edges are
        captured and compared, or the trailing one would come farther off."""
        return not self.alone or abs(off_ns) + max(CLOCK_ERROR_NS, kept_ns) < SHORTEST_NS

    def _by_clock(self, opinion: int, kept_ns: int) -> int | Condition:
        """TAI second that a pulse marks by a system clock kept within ``kept_ns``, or why it lies off the seconds of that clock.

        ``opinion``: the pulse's TAI by that clock.
        """
        second = _nearest(opinion)
        off = opinion - second
        if abs(off) <= OFF_CLOCK_NS + kept_ns:
            return second
        return self.refuse(
            Code.OFF_CLOCK,
            f"its pulses come {abs(off) / 1e6:.0f} ms {'after' if off > 0 else 'before'} the seconds of the system clock, which another "
            f"program keeps within {kept_ns / 1e6:.0f} ms: probably a trailing edge; {OTHER_EDGE}; or that clock is wrong: stop "
            "what keeps it",
        )

    def _second(self, apparent: int, pulse: int, opinion: int | None) -> int | Condition:
        """TAI second that the pulse at raw ``pulse`` marks, or why that is ambiguous. ``apparent``: the pulse's TAI if the label had no
        delay. ``opinion``: the pulse's TAI by the system clock."""
        if self.stated_delay_ns is not None:
            second = _nearest(apparent + self.stated_delay_ns)
            if abs(second - apparent - self.stated_delay_ns) <= AMBIGUOUS_NS:
                return second
        second = _nearest(apparent)
        # TIM-TP tells a trailing edge from the next pulse no better: it may come between the two edges.
        announced = self._numbered if self._numbered is not None and pulse - self._numbered[1] < FIX_TIMEOUT_NS else None
        before = self._after_message(second - apparent, EARLY_NS if announced is None else AMBIGUOUS_NS)
        if before is not None:
            return before
        if -EARLY_NS <= second - apparent <= AMBIGUOUS_NS:
            return second
        if announced is not None:
            second = _nearest(pulse + announced[0])
            if -AMBIGUOUS_NS <= second - apparent <= NS + AMBIGUOUS_NS:
                return second
        elif opinion is not None:
            second = _nearest(opinion)
            if abs(opinion - second) < OPINION_NS and -EARLY_NS <= second - apparent <= LATEST_NS:
                return second
        late_s = -apparent % NS / NS
        return self.refuse(
            Code.AMBIGUOUS_DELAY,
            f"labels arrive {late_s:.2f} s after a pulse or {1 - late_s:.2f} s before the next: which second it is cannot be told; "
            "wanted: a right system clock (NTP), another receiver, UBX TIM-TP, or message_delay_ms in the configuration",
        )

    def _after_message(self, delay_ns: int, early_ns: int) -> Condition | None:
        """Why the only edge that is captured is not used: a message with ``delay_ns`` comes before it, by less than ``early_ns``; None when
        it does not."""
        if not self.alone or not -early_ns <= delay_ns < -SPEAKS_AT_ONCE_NS:
            return None
        return self.refuse(
            Code.PULSE_AFTER_MESSAGE,
            f"its messages come {-delay_ns / 1e6:.0f} ms before the pulse, and only one edge is captured: probably the trailing edge; "
            f"{OTHER_EDGE}; for a receiver that sends before its pulse: message_delay_ms = {delay_ns / 1e6:.0f}",
        )

    def _one_of_many(self, tai_ns: int, since_pulse: int, opinion: int | None) -> int | Condition:
        """TAI of the pulse ``since_pulse`` ns before the label when several come a second, or why it is ambiguous. It need not be a whole
        second. ``opinion``: the pulse's TAI by a system clock that is good enough to distinguish the pulses; None without one."""
        period = self.period_ns
        delay, unsure = self._known_delay()
        if opinion is not None and (delay is None or not self._tells(unsure)):
            unsure = 0.0
            delay = since_pulse + round((opinion - tai_ns) / period) * period
            if not -EARLY_NS <= delay <= LATEST_NS:
                delay = None
        if delay is None or not self._tells(unsure):
            known = "is not known" if delay is None else f"is known to {unsure / 1e6:.0f} ms only"
            return self.refuse(
                Code.WHICH_OF_MANY,
                f"{round(NS / period)} pulses a second: which of them marks the second cannot be told, for the message delay {known}; "
                "set the receiver's pulse to 1 Hz (configure = true does that for u-blox and MTK), state message_delay_ms, within "
                f"{PHASE * period / 1e6:.0f} ms, or let NTP keep the system clock",
            )
        turns = round((since_pulse - delay) / period)
        if abs(since_pulse - delay - turns * period) > PHASE * period:
            return self.refuse(
                Code.WHICH_OF_MANY,
                f"labels arrive {since_pulse % period / 1e6:.0f} ms after one of {round(NS / period)} pulses a second, which does not go "
                f"with their delay of {delay / 1e6:.0f} ms: correct message_delay_ms, or set the receiver's pulse to 1 Hz",
            )
        return tai_ns - turns * period

    @property
    def usual_ns(self) -> float | None:
        """How late labels usually come after their second, ns: measured, else stated or learned earlier; None while it is not known."""
        return self.delay_ns()[0] if self.delay_learned else self.stated_delay_ns

    def _known_delay(self) -> tuple[int | None, float]:
        """(message delay, its uncertainty), ns: measured, else stated or saved; None without any. Uncertainty 0: none was stated."""
        if len(self._delays) >= AGREEING:
            delay, unsure = self.delay_ns()
            return round(delay), unsure
        unsure = self.assumed_uncertainty_ns
        return self.stated_delay_ns, 0 if unsure == DEFAULT_DELAY_UNCERTAINTY_NS else unsure

    def delay_ns(self) -> tuple[float, float]:
        """(message delay, its uncertainty), ns: measured when enough labels were compared, else stated or assumed."""
        if len(self._delays) >= AGREEING:
            return median(self._delays), 2 * spread(self._delays)
        return DEFAULT_DELAY_NS if self.stated_delay_ns is None else self.stated_delay_ns, self.assumed_uncertainty_ns

    def assume_nothing(self) -> None:
        """Forget the earlier delay: it belongs to another receiver or line speed."""
        self.stated_delay_ns, self.assumed_uncertainty_ns = None, DEFAULT_DELAY_UNCERTAINTY_NS

    def delay_words(self, what: str) -> str:
        """The measured delay in words: "NMEA arrives 143 ms ± 4 after the pulse"; "" while it is not measured."""
        if not self.delay_learned:
            return ""
        delay, uncertainty = (value / 1e6 for value in self.delay_ns())
        when = "after" if delay >= 0 else "before"
        return f"{what} arrives {abs(delay):.0f} ms ± {max(1.0, uncertainty):.0f} {when} the {'pulse' if self._seen_pulse else 'second'}"

    @property
    def delay_learned(self) -> bool:
        """Whether ``delay_ns`` was measured."""
        return len(self._delays) >= AGREEING

    # ---- pulses ------------------------------------------------------------------------------------------------------------------

    def edge(self, edge: Edge, present: Present | None, rivalled: bool = False) -> Sample | None:
        """A pulse: its Sample when the timescale numbers it. None when it is refused, or kept until labels number it.

        ``rivalled``: the timescale comes from another source. A pulse off its seconds then passes, and selection judges it.
        """
        self._seen_pulse = True
        if self._announced is not None:
            tai_ns, said = self._announced
            if 0 < edge.at.mono_ns - said < ANNOUNCED_NS and self.period_ns >= NS:
                self._numbered = (tai_ns - edge.at.mono_ns, edge.at.mono_ns)
            self._announced = None
        if present is None or present.bound_ns >= self.rounding_ns:
            self._edges.append(edge)
            return None
        if self._last_label_mono is None:
            self._last_label_mono = edge.at.mono_ns  # the timescale comes from an earlier run: labels must come within the timeout
        if edge.at.mono_ns - self._last_label_mono > self.fix_timeout_ns:
            self.refuse(Code.PULSES_WITHOUT_FIX, "pulses without a valid fix are not believed")
            return None
        tai_ns = present.tai_at(edge.at.mono_ns)
        period = min(self.period_ns, NS)
        off = (tai_ns + period // 2) % period - period // 2
        self.off_ns = off if abs(off) > min(WRONG_EDGE_NS + present.bound_ns + present.doubt_ns, 0.4 * period) else 0
        self._early_pulses = self._early_pulses + 1 if self.off_ns < 0 and not rivalled else 0
        beside = self.off_second()
        if beside is not None and (not rivalled or abs(off) > 0.4 * period):
            self.refuse(beside.code, beside.words)
            return None
        return self._rounded(edge, tai_ns)

    def kept(self, edge: Edge, opinion: int, kept_ns: int, *, edge_known: bool) -> Sample | Condition | None:
        """A pulse as the sample of its second by a system clock that another program keeps within ``kept_ns``, or why it lies beside that
        clock's seconds; None when it marks none. ``opinion``: its TAI by that clock. ``edge_known``: the configuration says which
        edge marks the second, or the served second has been named already."""
        if self.period_ns >= NS:
            second = self._by_clock(opinion, kept_ns)
            if isinstance(second, Condition):
                return second
            if not edge_known and not self._leads(opinion - second, kept_ns):
                return self.refuse(
                    Code.OFF_CLOCK,
                    "only one edge is captured, and whether it begins the pulse cannot be told by the system clock, which another program "
                    f"keeps within {kept_ns / 1e6:.0f} ms only, and which is {abs(opinion - second) / 1e6:.0f} ms off it: have both "
                    'captured (pps-gpio: capture_clear=on), or state the edge that marks the second (edge = "assert" or "clear")',
                )
        return self._rounded(edge, opinion)

    def off_second(self) -> Condition | None:
        """How far the pulses lie off the served seconds, and the likely cause; None when they mark them."""
        if not self.off_ns:
            return None
        much = f"its pulses come {abs(self.off_ns) / 1e6:.0f} ms"
        if self.off_ns < 0:
            words = f"{much} before the served seconds: those may be made of a pulse's trailing edge; given up if that goes on"
        else:
            words = f'{much} after the served seconds: probably the trailing edge of a pulse of that width; set edge = "auto", '
            words += OTHER_EDGE
        return Condition(Code.OFF_SECOND, words)

    def doubt(self) -> Condition | None:
        """What contradicts the numbering: pulses off the served seconds, or messages before their pulses; None when nothing does."""
        delay = self.delay_ns()[0] if self.delay_learned else 0.0
        if self.off_ns or delay >= -SPEAKS_AT_ONCE_NS or (self.stated_delay_ns or 0) < 0:
            return self.off_second()
        return Condition(
            Code.PULSE_AFTER_MESSAGE,
            f"its messages come {-delay / 1e6:.0f} ms before the pulse: unless this receiver speaks before its pulse, the trailing edge is "
            f"taken; {OTHER_EDGE}",
        )

    def _rounded(self, edge: Edge, tai_ns: int) -> Sample | None:
        """The pulse as a sample of its nearest second; None when it marks none, as most of several pulses a second do."""
        second = _nearest(tai_ns)
        if abs(tai_ns - second) > 0.4 * min(self.period_ns, NS):
            return None
        return Sample(edge.at, second, edge.uncertainty_ns)

    def lost(self) -> None:
        """The receiver is gone: forget an unfinished numbering, keep the measured delay."""
        self._edges.clear()
        self._naming.clear()
        self._announced = self._numbered = None
        self._last_label_mono = None


DEFAULT_DELAY_NS = 250_000_000
"""ns; message delay assumed while none is known: between 60 ms (u-blox F10) and 500 ms (MTK3339), measured on receivers of these makes."""
DEFAULT_DELAY_UNCERTAINTY_NS = 300_000_000
"""ns; half width about it that covers all of them."""


def _nearest(tai_ns: int) -> int:
    return (tai_ns + NS // 2) // NS * NS
