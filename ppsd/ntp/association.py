"""One association with an NTP server: when it is asked, what is sent, and which of the answers are believed. Sans-IO.

Flow: time -> ``due_ns`` -> **request** -> a socket of its own -> **reply** -> Measurement, to the clock process; or a Reason.

A request tells nothing of this machine (draft-ietf-ntp-data-minimization): everything is zero but version, mode and a random transmit
field, which the caller draws. A reply counts only when it echoes the transmit field of the request that waits for an answer, and each
request takes one answer. So a replay, an answer to an older request and a guess from off the path are worth nothing, a kiss-o'-death
included (CVE-2015-7704). The caller gives each request a new socket, and so a new source port (RFC 9109).

In interleaved mode (RFC 9769) an answer tells when the answer before it left, as the server's kernel or card has stamped it. So it
completes the exchange before, and its measurement is one interval old. A request that may be answered so has a second random number, in its
receive field; the answer echoes that one, or the other one, and then it is a basic one. After a silence the next request is a basic one.

The interval between two requests adapts to path and crystal (``ppsd.ntp.interval``).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from ppsd.ntp.interval import Interval
from ppsd.ntp.packet import COARSEST, RATES, Exchange, Header, Reason, judge, parse, refid_text
from refclock.sample import NS, Leap

BURST: Final = 4
"""Requests of a burst, as chronyd sends (chrony.conf(5), iburst: four to eight)."""
BURST_NS: Final = 2 * NS
"""ns between two of them: what servers' rate limits allow (chrony.conf(5), iburst; RFC 5905 appendix A, BTIME)."""
UNSENT_NS: Final = 10 * NS
"""ns until the next try when a request could not leave, as before the network is up. Nobody is bothered by such a try."""
REACH_BITS: Final = 0xFF
"""The reach register: the last eight requests, the latest at the lowest bit; 1: a usable answer (RFC 5905 section 9.2)."""
SETTLED: Final = 8
"""Requests without an answer after which a server is gone: when its register of reach is empty."""
MAX_POLL: Final = 17
"""log2 s; the longest interval (RFC 5905, MAXPOLL)."""
KISS_POLL: Final = 10
"""log2 s; no kiss RATE makes the interval longer than this, or than maxpoll: a server, or whoever took it over, must not silence us for
days (RFC 8633 section 5.4)."""
MAX_DISTANCE_NS: Final = 3 * NS
"""ns; a server with a larger root distance says nothing useful (chrony.conf(5), maxdistance)."""
CLOCK_ERROR: Final = 1e-6
"""By how much two clocks may drift apart between two answers, for the limits of delay: 1 ppm (chrony.conf(5), maxclockerror)."""
MAX_DELAY_NS: Final = 3 * NS
"""ns; a longer round trip says nothing useful (chrony.conf(5), maxdelay)."""
SPREAD: Final = 5
"""log2 of the share of the interval by which a request may come later, so that machines that were started together spread out: 1/32."""


@dataclass(frozen=True, slots=True)
class Polling:
    """How a server is asked, and which of its answers are used. ``minpoll``, ``maxpoll``: log2 s between two requests. ``iburst``: four
    requests in a row at the beginning, and when a server answers again; ``burst``: each time. ``version``: of NTP.

    An answer is not used with a root distance above ``maxdistance_ns``, or a round trip above ``maxdelay_ns``, above ``maxdelayratio``
    times the least of the last eight, or above that least by more than ``maxdelaydevratio`` times their standard deviation (0: no such
    limit; chrony.conf(5)). ``minstratum``: the least stratum that a server is taken for. ``xleave``: interleaved mode is wanted."""

    minpoll: int = 6
    maxpoll: int = 10
    iburst: bool = True
    burst: bool = False
    version: int = 4
    maxdistance_ns: int = MAX_DISTANCE_NS
    maxdelay_ns: int = MAX_DELAY_NS
    maxdelayratio: float = 0.0
    maxdelaydevratio: float = 0.0
    minstratum: int = 0
    xleave: bool = False


@dataclass(frozen=True, slots=True)
class _Past:
    """The exchange before: the answer's header, and raw ns at which the request left and the answer came."""

    header: Header
    sent_ns: int
    came_ns: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """A usable answer: at local UTC ``utc_ns`` server - local was ``offset_ns``. ``delay_ns``: the round trip without the server's part.
    ``dispersion_ns``: the error that the server states, and that of reading two clocks. Root delay and ``dispersion_ns`` reach from the
    server to the reference clock behind it. |true - (local + offset)| <= ``distance_ns``, whatever the asymmetry of the path. ``header``:
    of the answer; ``interleaved``: it came in that mode."""

    utc_ns: int
    offset_ns: int
    delay_ns: int
    root_delay_ns: int
    dispersion_ns: int
    stratum: int
    refid: int
    leap: Leap
    header: Header
    interleaved: bool = False

    @property
    def distance_ns(self) -> int:
        """The bound: half of both delays, and the dispersion."""
        return (self.delay_ns + self.root_delay_ns + 1) // 2 + self.dispersion_ns


class Association:
    """See the module. Times are raw ns. ``poll``: log2 s between two requests now; ``reach``: the register; ``why``: what is wrong with the
    last answer, "" when it was usable; ``due_ns``: when the next request is wanted, None when the server refuses to be asked. Counts:
    requests ``sent``, datagrams ``received``, answers that are ``valid``, and those that are ``good``, so used."""

    def __init__(self, polling: Polling, now_ns: int) -> None:
        self._polling = polling
        self._floor = polling.minpoll
        self.poll = polling.minpoll
        self.reach = 0
        self.why = "not asked yet"
        self.due_ns: int | None = now_ns
        self.unanswered = 0
        self._silence = ""
        self._left = BURST if polling.iburst else 0  # requests of the present burst that are still to come
        self._nonce = 0  # transmit field of the request that waits for its answer; 0: none waits
        self._second = 0  # its receive field; 0: it is a basic one
        self._past: _Past | None = None
        self._interval = Interval()
        self._asked_ns = now_ns
        self.sent = self.received = self.valid = self.good = 0

    @property
    def waiting(self) -> bool:
        """Whether a request waits for its answer."""
        return self._nonce != 0

    # ---- asking ----------------------------------------------------------------------------------------------------------------------

    def request(self, now_ns: int, nonce: int, second: int = 0) -> bytes:
        """The next request, at ``now_ns``. ``nonce``: its transmit field, random and not 0. ``second``: another random number, its receive
        field in interleaved mode."""
        assert nonce, "a transmit field of zero would be answered by everybody"
        if self._nonce:
            self._unanswered()
        self._nonce, self._asked_ns = nonce, now_ns
        self.sent += 1
        self.reach = self.reach << 1 & REACH_BITS
        if self._left:
            self._left -= 1
        elif self._polling.burst and self.reach:
            self._left = BURST - 1
        interval_ns = NS << self.poll
        later_ns = (interval_ns >> SPREAD) * (nonce & 0xFF) >> 8
        self.due_ns = now_ns + (min(BURST_NS, interval_ns) if self._left else interval_ns + later_ns)
        self._second = second if self._past is not None and second != nonce else 0
        if self._past is None or not self._second:
            return Header(version=self._polling.version, transmit=nonce).pack()
        return Header(version=self._polling.version, origin=self._past.header.receive, receive=second, transmit=nonce).pack()

    def unsent(self, now_ns: int, why: str) -> None:
        """The request could not leave: ``why``. It is tried again soon, and is no silence of the server."""
        self._nonce, self._past, self.why = 0, None, why
        self._left = BURST if self._polling.iburst and not self.reach else 0
        self.due_ns = now_ns + min(UNSENT_NS, NS << self.poll)

    def undeliverable(self, why: str) -> None:
        """The network says ``why`` no answer will come. It is not authenticated, so nothing but the words changes."""
        self._silence = why

    def wake(self, now_ns: int) -> None:
        """The network has changed: a server that was out of reach is asked at once."""
        if not self.reach and self.due_ns is not None and self.unanswered:
            self._left = BURST if self._polling.iburst else 0
            self.poll = self._floor
            self.unanswered = 0
            self.due_ns = now_ns

    def _unanswered(self) -> None:
        """The last request got no answer. After every eight the interval grows, so that a server that is gone is not bothered."""
        self.unanswered += 1
        self._past = None
        self.why, self._silence = self._silence or "no answer", ""
        if self.unanswered % SETTLED == 0 and not self.reach and not self._left:
            self._set_poll(self.poll + 1)

    # ---- answers ---------------------------------------------------------------------------------------------------------------------

    def reply(
        self,
        data: bytes,
        sent_utc_ns: int,
        received_utc_ns: int,
        *,
        authentic: bool = True,
        ours: Collection[int] = (),
        raw_ns: int = 0,
    ) -> Measurement | Reason:
        """What a datagram is worth that came to the socket of the last request. ``sent_utc_ns``, ``received_utc_ns``: local UTC when that
        request left and when this came; ``raw_ns``: when this came, on the raw clock. ``authentic``: it has the MAC of the key, or none is
        configured. ``ours``: the reference identifiers by which a server says that it follows this machine."""
        self.received += 1
        if not self._nonce:
            return Reason.ORIGIN
        header, past = parse(data), self._past
        now = _Past(header or Header(), raw_ns - (received_utc_ns - sent_utc_ns), raw_ns)
        interleaved = header is not None and past is not None and 0 != self._second == header.origin
        if header is not None and past is not None and interleaved:
            data = _completed(header, past, self._nonce)
            sent_utc_ns = received_utc_ns - (raw_ns - past.sent_ns)
            received_utc_ns -= raw_ns - past.came_ns
        result = judge(self._nonce, data, sent_utc_ns, received_utc_ns)
        if result in (Reason.SHORT, Reason.MODE, Reason.VERSION, Reason.ORIGIN):
            return result
        if not authentic:
            self.why = Reason.UNAUTHENTIC.value
            return Reason.UNAUTHENTIC
        self._nonce, self._past = 0, None
        if result is Reason.KISS:
            self._kissed(data)
            return result
        if isinstance(result, Exchange):
            found = _measurement(result, received_utc_ns, self._polling.minstratum, interleaved)
            h = result.header
            if h.stratum > 1 and h.refid in ours:
                result = Reason.LOOP
            elif found.distance_ns > self._polling.maxdistance_ns:
                result = Reason.DISTANT
            else:
                is_delayed = self._is_delayed(found.delay_ns)
                self._answered(found)
                if self._polling.xleave:
                    self._past = now
                if not is_delayed:
                    self.good += 1
                    return found
                result = Reason.DELAYED
        self.why = result.value
        return result

    def _is_delayed(self, delay_ns: int) -> bool:
        """Whether a round trip is too long to be used. All round trips are remembered, so that a path which has become longer for good is
        used again after eight answers."""
        p = self._polling
        if delay_ns > p.maxdelay_ns:
            return True
        if len(self._interval.trips) < SETTLED // 2:
            return False
        least, drift_ns = min(self._interval.trips), (NS << self.poll) * CLOCK_ERROR
        if p.maxdelayratio >= 1 and delay_ns > p.maxdelayratio * least + drift_ns:
            return True
        return p.maxdelaydevratio > 0 and delay_ns - least > p.maxdelaydevratio * _deviation(self._interval.trips) + 2 * drift_ns

    def _answered(self, found: Measurement) -> None:
        back = self.unanswered > 0 and not self.reach
        if back and self._polling.iburst and not self._left:
            self._left = BURST - 1
        if self.unanswered >= SETTLED:
            self.poll = self._floor
        if back and self.due_ns is not None:
            self.due_ns = min(self.due_ns, self._asked_ns + (BURST_NS if self._left else NS << self.poll))
        self.unanswered, self.why = 0, ""
        self.valid += 1
        self.reach |= 1
        if step := self._interval.answered(self.poll, found.utc_ns, found.offset_ns, found.delay_ns):
            self._set_poll(self.poll + step)

    def _set_poll(self, poll: int) -> None:
        self.poll = max(self._floor, min(poll, max(self._floor, self._polling.maxpoll)))
        self._interval.changed()

    def _kissed(self, data: bytes) -> None:
        """A kiss-o'-death that answers our request (RFC 5905 section 7.4)."""
        header = parse(data)
        assert header is not None
        code = refid_text(header.refid, 0)
        self.why = f"the server refuses to serve (kiss {code})"
        if code in ("DENY", "RSTR"):
            self.due_ns = None
        elif code == "RATE":
            most = max(KISS_POLL, self._polling.maxpoll, self._floor)
            self._floor = min(max(self.poll, min(header.poll, MAX_POLL)) + 1, most)
            self._left = 0
            self._set_poll(self._floor)
            if self.due_ns is not None:
                self.due_ns += NS << self.poll


def _deviation(values: Collection[int]) -> float:
    """Their standard deviation, without the statistics module, which would bring decimal and random into the server's memory."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def _completed(header: Header, past: _Past, nonce: int) -> bytes:
    """The answer before, as ``header`` of an answer in interleaved mode completes it: with the departure that this one tells. ``nonce``:
    stands for the proof that it is an answer, which the receive field of the request gave. Of both the larger distance counts."""
    before = past.header
    return replace(
        header,
        origin=nonce,
        receive=before.receive,
        root_delay=max(header.root_delay, before.root_delay),
        root_dispersion=max(header.root_dispersion, before.root_dispersion),
    ).pack()


def _measurement(exchange: Exchange, received_utc_ns: int, minstratum: int, interleaved: bool) -> Measurement:
    """The exchange in the middle of its round trip, where the offset holds whatever the rate of this clock."""
    h, trip_ns = exchange.header, received_utc_ns - exchange.local_utc_ns
    reading_ns = trip_ns // (2 * RATES) + round(NS * 2.0 ** min(h.precision, COARSEST))
    return Measurement(
        utc_ns=exchange.local_utc_ns + trip_ns // 2,
        offset_ns=exchange.offset_ns,
        delay_ns=exchange.delay_ns,
        root_delay_ns=h.root_delay_ns,
        dispersion_ns=h.root_dispersion_ns + reading_ns,
        stratum=max(h.stratum, minstratum),
        refid=h.refid,
        leap=h.leap,
        header=h,
        interleaved=interleaved,
    )
