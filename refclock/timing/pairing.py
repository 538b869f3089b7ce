"""Which second does this pulse mark? Edge + label + present bound -> Sample.

A pulse says exactly *when* a second begins, a label says roughly *which*. Pairing has no memory of being synchronised: each call is
given the present timescale as a value, and

* with a bound below 0.1 s the pulse is rounded to the nearest second of that timescale; labels only check it;
* otherwise ``AGREEING`` consecutive labels must put the pulses before them on the same seconds.

A label arrives some time after the second that it names. With only pulse and label that delay is known modulo one second: 0.5 s after a
pulse may be 0.5 s before the next, 0.8 s after it a receiver that speaks 0.2 s early. So only -0.05..+0.35 s is clear by itself. Beyond, a
second opinion must name the same pulse: the delay stated or learned before (then it is read within half a second of that), TIM-TP, which
names the *next* pulse, or a system clock whose seconds begin with the pulses. Otherwise nothing is named, and the reason says what would
help. The learned delay turns labels into (coarse) samples of their own.

Pulses that come n times a second leave the delay known modulo 1/n only, so no delay is clear by itself there: the one that marks the
second is found by a delay that was stated, or learned before with less doubt than a third of the period, by a timescale with a bound below
a tenth of it, or by a system clock that another program keeps to a third of it, as the kernel says. Neither TIM-TP (any of n pulses may
be its next) nor any other system clock (one in three is in phase by chance, and then wrong by a pulse) tells. Of pulses that come every
few seconds each marks one; the seconds between are counted.

A pulse of which the trailing edge is taken is late by its width, mostly 100 or 200 ms. It gives itself away when the message comes before
it, and when it lies off the seconds of a system clock that is kept so, or of the timescale: then it is refused unless another source serves
(then selection judges).
All times inside are TAI against CLOCK_MONOTONIC_RAW, so leap seconds and clock steps do not exist here.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace

from refclock.condition import Code, Condition, obstacle
from refclock.robust import median, spread
from refclock.sample import NS, Edge, Instant, Sample
from refclock.timescales import DAY_S

ROUNDING_BOUND_NS = 100_000_000
"""Below this bound a pulse is rounded to the timescale's nearest second: a fifth of the half second at which rounding fails."""
AMBIGUOUS_NS = 350_000_000
"""A message delay beyond this, early or late, does not tell this pulse from the next (0.15 s of margin for jitter)."""
EARLY_NS = 50_000_000
"""A label may come this much before its pulse without a second opinion: USB polling and the jitter of a receiver that speaks at once."""
LATEST_NS = NS - EARLY_NS
OPINION_NS = 100_000_000
"""A clock whose seconds begin within this of the pulses has an opinion on which second it is (by chance: one in five, and then it still
has to name the same second)."""
ANNOUNCED_NS = 1_050_000_000
"""TIM-TP comes within the second before the pulse that it names."""
AGREEING = 5
"""Labels that must agree, one after the other: a receiver's odd second or a torn burst never makes five."""
FIX_TIMEOUT_NS = 10 * NS
"""Pulses go on being believed this long after the last valid label: receivers keep pulsing, ever less exactly, without a fix."""
DISAGREEING_FRESH = 10
DISAGREEING_PROVEN = 300
"""Labels in a row that must contradict the timescale by a whole second before it is given up: few when it was named a short time ago,
five minutes when labels had confirmed it for longer than ``PROVEN`` (then late labels are likelier than a wrong timescale)."""
PROVEN = 60
TAKING_UP = obstacle(Code.TAKING_UP_PULSES, "taking up its pulses")
WRONG_EDGE_NS = 25_000_000
"""A pulse that far off the served second (and its bound) does not mark it: pulses are 100 or 200 ms wide, late stamps at most 20 ms."""
OFF_CLOCK_NS = 50_000_000
"""The same of another program's clock, whose word for its error may leave out what the network adds."""
SPEAKS_AT_ONCE_NS = 5_000_000
"""A label may seem this much earlier than a pulse of which one edge is all we see: USB polls each ms, drivers add some."""
KEPT_CLOCK_NS = 25_000_000
"""A system clock kept within this tells a trailing edge, 100 ms late, from a leading one."""
PHASE = 0.35
"""Share of a fast rhythm's period that a label may lie off its stated delay: as AMBIGUOUS_NS in one second."""
OTHER_EDGE = "have both edges captured (pps-gpio: capture_clear=on), or the other one (assert_falling_edge=on)"
DELAYS = 32
"""Message delays kept for the median."""


@dataclass(frozen=True, slots=True)
class Present:
    """The timescale as pairing needs it: what TAI was at a raw instant, and within what."""

    mono_ns: int
    tai_ns: int
    rate: float
    bound_ns: float

    def tai_at(self, mono_ns: int) -> int:
        """TAI at ``mono_ns`` by the affine map."""
        return self.tai_ns + (mono_ns - self.mono_ns) + round((mono_ns - self.mono_ns) * self.rate)


@dataclass(frozen=True, slots=True)
class Numbered:
    """What came of a label: the pulses that it numbers, oldest first, and itself as a coarse sample; None when it is not even that."""

    pulses: list[Sample]
    label: Sample | None


class Pairing:
    """One receiver's pulses and labels. ``period_ns``: the pulses' rhythm; ``alone``: one kind of edge is all that reaches us; ``off_ns``:
    how far after the served second the last pulse came, 0 while that is nothing."""

    def __init__(self, delay_ns: int | None, delay_uncertainty_ns: int, fix_timeout_ns: int = FIX_TIMEOUT_NS) -> None:
        self.stated_delay_ns = delay_ns
        self.assumed_uncertainty_ns = delay_uncertainty_ns
        self.fix_timeout_ns = fix_timeout_ns
        self.refused: Counter[str] = Counter()
        self.condition = obstacle(Code.WAITING_FOR_SECOND, "waiting for the receiver's first valid second")
        """Why no pulse was numbered lately, or how far the numbering is."""
        self.period_ns = NS
        self.alone = False
        self.off_ns = 0
        self._edges: deque[Edge] = deque(maxlen=AGREEING + 3)
        self._delays: deque[float] = deque(maxlen=DELAYS)
        self._naming: deque[int] = deque(maxlen=AGREEING)
        self._announced: tuple[int, int] | None = None  # (TAI of the next pulse, when that was said)
        self._numbered: tuple[int, int] | None = None  # (TAI minus raw by that announcement, raw of its pulse)
        self._last_label_mono: int | None = None
        self._confirmed = 0
        self._contradicted = 0
        self._early_pulses = 0
        self._seen_pulse = False

    @property
    def rounding_ns(self) -> int:
        """The bound below which the timescale numbers a pulse."""
        return min(ROUNDING_BOUND_NS, self.period_ns // 10)

    def rhythm(self, period_ns: int, alone: bool) -> None:
        """How the pulses come; another rhythm is numbered from the start."""
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

        ``tai_ns`` is what the label says, ``at`` its first byte; ``clock_ns``: TAI by the system clock minus raw; ``calibrates``: the
        present timescale was not made from these very labels, so the delay can be measured by it; ``kept_ns``: within what the system
        clock is kept by another program, None when nobody does.
        """
        self._last_label_mono = at.mono_ns
        numbered: list[Sample] = []
        checked = present is not None and present.bound_ns < ROUNDING_BOUND_NS
        if checked and present is not None:
            if not self.confirms(tai_ns, at, present):
                self._contradicted += 1
                late_s = (present.tai_at(at.mono_ns) - tai_ns) / NS
                if abs(late_s) > DAY_S:
                    words = f"its date is {abs(late_s) / DAY_S:.0f} days off the served time"
                else:
                    words = f"its labels come {late_s:+.1f} s after the seconds they name"
                return self.refuse(Code.SECOND_CONTRADICTED, words)
            self._confirmed += 1
            self._contradicted = 0
            beside = self.off_second()
            self.condition = TAKING_UP if beside is None else replace(beside, blocks=True)
            if calibrates:
                self._delays.append(present.tai_at(at.mono_ns) - tai_ns)
        if self._edges and (not checked or present is None or present.bound_ns >= self.rounding_ns):
            named = self._name(tai_ns, at, clock_ns, kept_ns)
            if isinstance(named, Condition):
                if named.code is Code.AMBIGUOUS_DELAY:
                    return named  # not even as a coarse sample: it may be off by what the delay is taken for
            else:
                numbered = named
        delay, uncertainty = self.delay_ns()
        return Numbered(numbered, Sample(at.shifted(-round(delay)), tai_ns, round(uncertainty), bias_ns=float(round(uncertainty))))

    def refuse(self, code: Code, words: str) -> Condition:
        """Count a refusal and remember it as the reason that is told."""
        self.refused[code] += 1
        self.condition = obstacle(code, words)
        return self.condition

    def confirms(self, tai_ns: int, at: Instant, present: Present) -> bool:
        """Whether a label names the timescale's second (it came -0.35 to 0.82 s after it); False too when the bound is too large to say."""
        return present.bound_ns < ROUNDING_BOUND_NS and -AMBIGUOUS_NS <= present.tai_at(at.mono_ns) - tai_ns <= NS - AMBIGUOUS_NS // 2

    @property
    def contradicts(self) -> bool:
        """Labels have contradicted the timescale, or pulses come too early for it, for so long that it must be named anew."""
        limit = DISAGREEING_PROVEN if self._confirmed >= PROVEN else DISAGREEING_FRESH
        return max(self._contradicted, self._early_pulses) >= limit

    def _name(self, tai_ns: int, at: Instant, clock_ns: int | None, kept_ns: int | None) -> list[Sample] | Condition:
        """Try to number the pulses seen so far; empty until enough labels agree."""
        edge = min(self._edges, key=lambda e: abs(at.mono_ns - e.at.mono_ns))
        gap = at.mono_ns - edge.at.mono_ns
        if abs(gap) > max(NS, self.period_ns):
            self._naming.clear()
            return self.refuse(Code.NO_PULSE_NEAR_LABEL, "labels arrive but no pulse with them")
        pulse = edge.at.mono_ns + (gap // NS * NS if self.period_ns > NS else 0)  # where a pulse a second would be
        apparent = tai_ns - (at.mono_ns - pulse)  # what the pulse would mark if the label came without delay
        opinion = None if clock_ns is None else pulse + clock_ns
        if self.period_ns < NS:
            second = self._one_of_many(tai_ns, at.mono_ns - pulse, opinion if kept_ns is not None and self._tells(kept_ns) else None)
        else:
            second = self._second(apparent, pulse, opinion)
            if opinion is not None and kept_ns is not None and kept_ns < KEPT_CLOCK_NS:
                off = self._off_clock(opinion, kept_ns)
                # An ambiguous delay stays the reason: the label is then no coarse sample either.
                second = off if off is not None and not isinstance(second, Condition) else second
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
        self._confirmed = self._contradicted = 0
        return samples

    def _tells(self, error_ns: float) -> bool:
        """Whether something known to ``error_ns`` tells one of several pulses in a second from the next."""
        return error_ns <= PHASE * self.period_ns

    def _off_clock(self, opinion: int, kept_ns: int) -> Condition | None:
        """The refusal of a pulse whose TAI is ``opinion`` by a well kept system clock and lies off that clock's seconds; else None."""
        off = opinion - _nearest(opinion)
        if abs(off) <= OFF_CLOCK_NS + kept_ns:
            return None
        return self.refuse(
            Code.OFF_CLOCK,
            f"its pulses come {abs(off) / 1e6:.0f} ms {'after' if off > 0 else 'before'} the seconds of the system clock, which another "
            f"program keeps within {kept_ns / 1e6:.0f} ms: by all appearance a trailing edge; {OTHER_EDGE}; or that clock is wrong: stop "
            "what keeps it",
        )

    def _second(self, apparent: int, pulse: int, opinion: int | None) -> int | Condition:
        """TAI second that the pulse at raw ``pulse`` marks, or why that cannot be told. ``apparent``: the pulse's TAI if the label had no
        delay, ``opinion``: by the system clock."""
        if self.stated_delay_ns is not None:
            second = _nearest(apparent + self.stated_delay_ns)
            if abs(second - apparent - self.stated_delay_ns) <= AMBIGUOUS_NS:
                return second
        second = _nearest(apparent)
        if self.alone and -EARLY_NS <= second - apparent < -SPEAKS_AT_ONCE_NS:
            return self.refuse(
                Code.PULSE_AFTER_MESSAGE,
                f"its messages come {(apparent - second) / 1e6:.0f} ms before the pulse, of which one edge is all that reaches us: by all "
                f"appearance the trailing edge; {OTHER_EDGE}; a receiver that does speak before its pulse: message_delay_ms = "
                f"{(second - apparent) / 1e6:.0f}",
            )
        if -EARLY_NS <= second - apparent <= AMBIGUOUS_NS:
            return second
        if self._numbered is not None and pulse - self._numbered[1] < FIX_TIMEOUT_NS:
            second = _nearest(pulse + self._numbered[0])
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

    def _one_of_many(self, tai_ns: int, since_pulse: int, opinion: int | None) -> int | Condition:
        """Of several pulses a second: TAI of the one ``since_pulse`` before the label, not always a whole second, or why that cannot be
        told. ``opinion``: the pulse's TAI by a system clock that tells."""
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

    def _known_delay(self) -> tuple[int | None, float]:
        """(message delay measured here, or stated, or saved; None if neither, its doubt in ns; 0 where it was stated without)."""
        if len(self._delays) >= AGREEING:
            delay, unsure = self.delay_ns()
            return round(delay), unsure
        unsure = self.assumed_uncertainty_ns
        return self.stated_delay_ns, 0 if unsure == DEFAULT_DELAY_UNCERTAINTY_NS else unsure

    def delay_ns(self) -> tuple[float, float]:
        """(message delay, its uncertainty): learned from pulses when there are any, assumed otherwise."""
        if len(self._delays) >= AGREEING:
            return median(self._delays), 2 * spread(self._delays)
        return DEFAULT_DELAY_NS if self.stated_delay_ns is None else self.stated_delay_ns, self.assumed_uncertainty_ns

    def assume_nothing(self) -> None:
        """A delay learned before does not belong to this receiver or line speed."""
        self.stated_delay_ns, self.assumed_uncertainty_ns = None, DEFAULT_DELAY_UNCERTAINTY_NS

    def delay_words(self, what: str) -> str:
        """For people: "NMEA arrives 143 ms ± 4 after the pulse"; "" while it is not measured."""
        if not self.delay_learned:
            return ""
        delay, uncertainty = (value / 1e6 for value in self.delay_ns())
        when = "after" if delay >= 0 else "before"
        return f"{what} arrives {abs(delay):.0f} ms ± {max(1.0, uncertainty):.0f} {when} the {'pulse' if self._seen_pulse else 'second'}"

    @property
    def delay_learned(self) -> bool:
        """Whether ``delay_ns`` was measured against pulses."""
        return len(self._delays) >= AGREEING

    # ---- pulses ------------------------------------------------------------------------------------------------------------------

    def edge(self, edge: Edge, present: Present | None, rivalled: bool = False) -> Sample | None:
        """A pulse: its Sample when the timescale can number it, None while labels must (it is kept for them) or when it is refused.

        ``rivalled``: the timescale is another source's, so that a pulse off its seconds is an opinion that selection has to judge.
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
            self._last_label_mono = edge.at.mono_ns  # a timescale taken over from an earlier run: labels must come soon
        if edge.at.mono_ns - self._last_label_mono > self.fix_timeout_ns:
            self.refuse(Code.PULSES_WITHOUT_FIX, "pulses without a valid fix are not believed")
            return None
        tai_ns = present.tai_at(edge.at.mono_ns)
        period = min(self.period_ns, NS)
        off = (tai_ns + period // 2) % period - period // 2
        self.off_ns = off if abs(off) > min(WRONG_EDGE_NS + present.bound_ns, 0.4 * period) else 0
        self._early_pulses = self._early_pulses + 1 if self.off_ns < 0 and not rivalled else 0
        beside = self.off_second()
        if beside is not None and (not rivalled or abs(off) > 0.4 * period):
            self.refuse(beside.code, beside.words)
            return None
        return self._rounded(edge, tai_ns)

    def off_second(self) -> Condition | None:
        """How the pulses lie against the served seconds, and what that may be; None while they are where they should be."""
        if not self.off_ns:
            return None
        much = f"its pulses come {abs(self.off_ns) / 1e6:.0f} ms"
        if self.off_ns < 0:
            words = f"{much} before the served seconds: those may be made of a pulse's trailing edge; given up if that goes on"
        else:
            words = f'{much} after the served seconds: by all appearance the trailing edge of a pulse that wide; set edge = "auto", '
            words += OTHER_EDGE
        return Condition(Code.OFF_SECOND, words)

    def doubt(self) -> Condition | None:
        """What speaks against the pulses as they are numbered: off the served seconds, or after their messages; None for nothing."""
        delay = self.delay_ns()[0] if self.delay_learned else 0.0
        if self.off_ns or delay >= -SPEAKS_AT_ONCE_NS or (self.stated_delay_ns or 0) < 0:
            return self.off_second()
        return Condition(
            Code.PULSE_AFTER_MESSAGE,
            f"its messages come {-delay / 1e6:.0f} ms before the pulse: unless this receiver speaks before its pulse, the trailing edge is "
            f"taken; {OTHER_EDGE}",
        )

    def _rounded(self, edge: Edge, tai_ns: int) -> Sample | None:
        """The pulse on its nearest second, None when it is another of several in the second, or too far off to be any."""
        second = _nearest(tai_ns)
        if abs(tai_ns - second) > 0.4 * min(self.period_ns, NS):
            return None
        return Sample(edge.at, second, edge.uncertainty_ns)

    def lost(self) -> None:
        """The receiver is gone: what was half learned is forgotten, the delay is kept."""
        self._edges.clear()
        self._naming.clear()
        self._announced = self._numbered = None
        self._last_label_mono = None


DEFAULT_DELAY_NS = 250_000_000
"""Message delay taken without a pulse to measure it: middle of what receivers do (60 ms u-blox F10 .. 500 ms MTK3339: receivers.md (c))."""
DEFAULT_DELAY_UNCERTAINTY_NS = 300_000_000
"""Half width that covers all of them."""


def _nearest(tai_ns: int) -> int:
    return (tai_ns + NS // 2) // NS * NS
