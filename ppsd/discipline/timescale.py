"""The served timescale: an affine map from CLOCK_MONOTONIC_RAW to TAI, with the bound that goes with it.

Flow: selected Estimate -> **Timescale** -> published record -> server. Adopting a new estimate replaces the map. Without one the old map
runs on, and its bound grows by the record's own rule (native/record.h), in this process and in the server alike. In holdover the
temperature may bend it (``Turn``). What contradicts it widens its bound (``Doubt``). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ppsd.discipline.estimate import Estimate
from ppsd.discipline.network import KnownRate
from refclock.record import Record
from refclock.sample import NS
from refclock.timing.evidence import Rank
from refclock.timing.pairing import Present

PRECISION = -23
"""log2 s: 119 ns, about what one clock_gettime costs on a Raspberry Pi 4 (measured order; RFC 5905 section 7.3)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How the map goes on from raw ``mono_ns``: there it is ``ns`` beyond the straight line of its estimate, and from there on it runs away
    from it at ``rate`` (ns/s). Both are in doubt, by ``doubt_ns`` and ``doubt_rate``."""

    mono_ns: int
    ns: float
    rate: float
    doubt_ns: float
    doubt_rate: float


@dataclass(frozen=True, slots=True)
class Doubt:
    """What contradicts the map, beyond its own bound: ``ns`` at raw ``mono_ns``, growing by ``rate`` (ns/s)."""

    mono_ns: int
    ns: float
    rate: float

    def at(self, mono_ns: int) -> float:
        """ns at ``mono_ns``; before its own instant it is not smaller."""
        return self.ns + self.rate * max(0, mono_ns - self.mono_ns) / NS


class Timescale:
    """The map in force, or none before the first measurement. ``turn``: what the temperature has made of it since; None: it is straight.
    ``doubt``: what contradicts it, in its bound; None: nothing. ``unclear_ns``: how far off pulses are that may mark its seconds, in its
    bound too. Past ``valid_until_ns`` (raw) nothing may be served by it."""

    def __init__(self, simulated: bool, holdover_limit_ns: int, max_bound_ns: float) -> None:
        self.simulated = simulated
        self.holdover_limit_ns = holdover_limit_ns
        self.max_bound_ns = max_bound_ns
        self.estimate: Estimate | None = None
        self.turn: Turn | None = None
        self.doubt: Doubt | None = None
        self.unclear_ns = 0.0
        self.reference_mono_ns = 0
        self.valid_until_ns = 0
        self.refid = 0
        self.stratum = 1
        self.root_delay_ns = 0
        """ns; of whom it follows, to the reference clock and back. Half of it is in the bound."""
        self.rank = Rank.AGREEMENT
        """The best evidence that its second rests on. One of an earlier run has been served before: more than steadiness."""

    def rests_on(self, rank: Rank) -> None:
        """Its second was named by evidence of this rank, or agrees with it now."""
        self.rank = max(self.rank, rank)

    def adopt(self, estimate: Estimate, reference_mono_ns: int, refid: str) -> None:
        """Serve ``estimate`` from now on.

        ``reference_mono_ns``: raw instant of the last measurement in it; ``refid``: up to four ASCII letters.
        """
        self.adopt_server(estimate, reference_mono_ns, refid_number(refid), 1, 0)

    def adopt_server(self, estimate: Estimate, reference_mono_ns: int, refid: int, stratum: int, root_delay_ns: int) -> None:
        """The same as of an NTP server: ``refid`` stands for it, ``stratum`` is ours, and half of ``root_delay_ns`` is in the bound."""
        self.estimate, self.turn, self.doubt, self.unclear_ns = estimate, None, None, 0.0
        self.reference_mono_ns = reference_mono_ns
        self.refid, self.stratum, self.root_delay_ns = refid, stratum, root_delay_ns
        self._limit()

    def follow(self, turn: Turn) -> None:
        """The temperature has changed since the map was adopted. Needs a map."""
        self.turn = turn
        self._limit()

    def unlearn(self, plain: Estimate) -> None:
        """What the temperature made of the map is no longer believed. The map goes on as it is, for a step back would be worse; its bound
        now covers ``plain``, the estimate without temperature, as well."""
        e = self.estimate
        assert e is not None
        apart = abs(e.tai_ns - plain.tai_ns - round((e.mono_ns - plain.mono_ns) * (1 + plain.rate)))
        self.estimate = replace(
            e,
            bound_ns=max(e.bound_ns, plain.bound_ns) + apart,
            bound_rate=max(e.bound_rate, plain.bound_rate) + abs(e.rate - plain.rate),
            bound_wander_ns=max(e.bound_wander_ns, plain.bound_wander_ns),
        )
        if self.turn is not None:
            self.turn = replace(self.turn, doubt_ns=abs(self.turn.ns), doubt_rate=abs(self.turn.rate))
        self._limit()

    def rate_unknown(self, mono_ns: int, rate: float) -> None:
        """From raw ``mono_ns`` on the raw clock may run otherwise by ``rate`` (ns/s). Needs a map."""
        self.doubt = Doubt(mono_ns, 0.0 if self.doubt is None else self.doubt.at(mono_ns), rate)
        self._limit()

    def cover(self, mono_ns: int, claims: Iterable[Estimate], off_ns: float = 0.0) -> bool:
        """The bound covers these ``claims`` too, and pulses that are ``off_ns`` off its seconds, all of raw instant ``mono_ns``: they
        contradict the map and may be right. True when that changed it. Needs a map."""
        claims = list(claims)
        doubts = [doubt for claim in claims if (doubt := self._contradicted(claim)) is not None]
        doubt = None if claims else self.doubt  # without a claim nothing has resolved it
        if doubts:
            doubt = Doubt(mono_ns, max(d.ns for d in doubts), max(d.rate for d in doubts))
        if doubt == self.doubt and off_ns == self.unclear_ns:
            return False
        self.doubt, self.unclear_ns = doubt, off_ns
        self._limit()
        return True

    def _contradicted(self, claim: Estimate) -> Doubt | None:
        """What ``claim`` adds to the bound; None when it lies within it."""
        e, now = self.estimate, claim.mono_ns
        assert e is not None
        beyond = abs(claim.tai_ns - self.tai_at(now)) + claim.bound_ns - self._own_bound_ns(now)
        faster = abs(claim.rate - self.rate) + claim.bound_rate - e.bound_rate
        return Doubt(now, beyond, max(0.0, faster * NS)) if beyond > 0 else None

    def _limit(self) -> None:
        self.valid_until_ns = min(self.reference_mono_ns + self.holdover_limit_ns, self._reaches(self.max_bound_ns))

    def resume(self, record: Record, at_mono_ns: int) -> bool:
        """Go on from the record that an earlier run of this boot left. False when it is of no use (expired, another kind of run)."""
        if record.simulated != self.simulated or record.stratum == 0 or not record.raw_ns <= at_mono_ns < record.valid_until_raw_ns:
            return False
        skew = record.bound_rate / 4
        bound_ns = record.bound_ns + record.root_delay_ns / 2
        self.estimate = Estimate(
            record.raw_ns, record.tai_ns, record.rate, bound_ns, record.bound_rate, record.bound_wander_ns, bound_ns, skew, 0
        )
        self.reference_mono_ns = record.reference_raw_ns
        self.valid_until_ns = record.valid_until_raw_ns
        self.refid, self.stratum, self.root_delay_ns = record.refid, record.stratum, record.root_delay_ns
        return True

    def drop(self) -> None:
        """Nothing is known any more."""
        self.estimate = self.turn = self.doubt = None
        self.unclear_ns = 0.0
        self.rank, self.stratum, self.root_delay_ns = Rank.STEADINESS, 1, 0

    def present(self, mono_ns: int) -> Present | None:
        """The map as pairing needs it at ``mono_ns``; None when there is none or its holdover has ended. With its own bound: what
        contradicts it are mostly pulses that were numbered by it, and they must go on being numbered."""
        e = self.estimate
        if e is None or mono_ns >= self.valid_until_ns:
            return None
        return Present(*self._anchor(e), self._own_bound_ns(mono_ns), 0.0 if self.doubt is None else self.doubt.at(mono_ns))

    def _anchor(self, e: Estimate) -> tuple[int, int, float]:
        """(raw ns, TAI ns there, rate) of the straight line that holds now, from the last instant at which line or bound changed."""
        mono_ns = max(e.mono_ns, 0 if self.turn is None else self.turn.mono_ns, 0 if self.doubt is None else self.doubt.mono_ns)
        return mono_ns, self.tai_at(mono_ns), e.rate + (0.0 if self.turn is None else self.turn.rate / NS)

    @property
    def rate(self) -> float:
        """d(TAI)/d(raw) - 1 now. Needs a map."""
        assert self.estimate is not None
        return self._anchor(self.estimate)[2]

    def known_rate(self, mono_ns: int) -> KnownRate:
        """That rate at ``mono_ns`` with all that may be wrong with it. Needs a map."""
        e = self.estimate
        assert e is not None
        doubted = (0.0 if self.turn is None else self.turn.doubt_rate) + (0.0 if self.doubt is None else self.doubt.rate)
        then = KnownRate(e.mono_ns, self.rate, e.bound_rate + doubted / NS, e.bound_wander_ns)
        return replace(then, mono_ns=mono_ns, error=then.error_at(mono_ns))

    def bound_ns(self, mono_ns: int) -> float:
        """Error bound at ``mono_ns``. Needs a map."""
        assert self.estimate is not None
        own = self._own_bound_ns(mono_ns)
        return own + max(self.unclear_ns, 0.0 if self.doubt is None else self.doubt.at(mono_ns))

    def _own_bound_ns(self, mono_ns: int) -> float:
        """The same without what contradicts the map."""
        assert self.estimate is not None
        bound, turn = self.estimate.bound_at(mono_ns), self.turn
        return bound if turn is None else bound + turn.doubt_ns + turn.doubt_rate * max(0, mono_ns - turn.mono_ns) / NS

    def tai_at(self, mono_ns: int) -> int:
        """TAI at ``mono_ns``. Needs a map."""
        assert self.estimate is not None
        straight, turn = self.estimate.tai_at(mono_ns), self.turn
        return straight if turn is None else straight + round(turn.ns + turn.rate * (mono_ns - turn.mono_ns) / NS)

    def _raw_before(self, tai_ns: int) -> int:
        """Raw instant at which TAI is certainly not yet ``tai_ns``, by the present bound; 0 when the bound is longer than that."""
        assert self.estimate is not None
        raw_ns, anchor_ns, rate = self._anchor(self.estimate)
        since = tai_ns - anchor_ns
        then_ns = raw_ns + since - round(since * rate / (1 + rate))
        return max(0, then_ns - math.ceil(self.bound_ns(then_ns)))

    def _reaches(self, limit_ns: float) -> int:
        """Raw instant at which the bound reaches ``limit_ns``, by bisection to a second within the holdover limit."""
        e = self.estimate
        assert e is not None
        low, high = 0, self.holdover_limit_ns // NS + 1
        if self.bound_ns(e.mono_ns + high * NS) < limit_ns:
            return e.mono_ns + high * NS
        while high - low > 1:
            middle = (low + high) // 2
            if self.bound_ns(e.mono_ns + middle * NS) < limit_ns:
                low = middle
            else:
                high = middle
        return e.mono_ns + low * NS

    def record(
        self, leap_tai_ns: int, leap_step_s: int, tai_offset_s: int, *, until_tai_ns: int | None = None, withheld: bool = False
    ) -> Record:
        """The map as the server reads it, to be served until ``until_tai_ns`` at the latest; without a map, or while it is ``withheld``, an
        unsynchronised record (stratum 0)."""
        e = self.estimate
        if e is None or withheld:
            return Record(0, 0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, tai_offset_s, refid_number("INIT"), PRECISION, 0, self.simulated)
        raw_ns, tai_ns, rate = self._anchor(e)
        # (a + b)^1.5 <= a^1.5 + 1.5 a^0.5 b + b^1.5: a bound that is anchored later must not grow more slowly.
        grows = e.bound_rate + 1.5 * e.bound_wander_ns * ((raw_ns - e.mono_ns) / NS) ** 0.5 / NS
        grows += (0.0 if self.turn is None else self.turn.doubt_rate / NS) + (0.0 if self.doubt is None else self.doubt.rate / NS)
        return Record(
            raw_ns=raw_ns,
            tai_ns=tai_ns,
            rate=rate,
            bound_ns=max(0.0, self.bound_ns(raw_ns) - self.root_delay_ns / 2),
            bound_rate=grows,
            bound_wander_ns=e.bound_wander_ns,
            root_delay_ns=self.root_delay_ns,
            reference_raw_ns=self.reference_mono_ns,
            valid_until_raw_ns=self.valid_until_ns if until_tai_ns is None else min(self.valid_until_ns, self._raw_before(until_tai_ns)),
            leap_tai_ns=leap_tai_ns,
            leap_step_s=leap_step_s,
            tai_offset_s=tai_offset_s,
            refid=self.refid,
            precision=PRECISION,
            stratum=self.stratum,
            simulated=self.simulated,
        )


def refid_number(text: str) -> int:
    """Four ASCII characters, left-justified and zero-padded, in host order (RFC 5905 figure 12)."""
    return int.from_bytes(text.encode("ascii")[:4].ljust(4, b"\0"), "big")


def refid_text(number: int, stratum: int = 1) -> str:
    """Inverse of ``refid_number``; above stratum 1 a dotted quad."""
    octets = number.to_bytes(4, "big")
    return octets.rstrip(b"\0").decode("ascii", "replace") if stratum <= 1 else ".".join(map(str, octets))
