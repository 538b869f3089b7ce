"""NTP servers as sources of time: each is a claim with its error, which contradicts or confirms what the receivers say.

Flow: datagram of the NTP client -> UpstreamHeard -> **UpstreamSource** -> Candidate -> **Upstreams**, which compares and combines them ->
engine, which decides what that is worth beside receivers; UpstreamStatus, to people. Pure.

A server that is not heard of any more, as when the process that asks it is gone, gives no candidate after some intervals, and is forgotten
after some more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final

from ppsd.config.tables import PoolUpstream, Upstream
from ppsd.discipline.estimate import Estimate
from ppsd.discipline.events import UpstreamHeard
from ppsd.discipline.network import KnownRate, NetworkEstimator
from ppsd.discipline.selection import Candidate, Choice, select
from ppsd.snapshot import UpstreamStatus
from refclock.condition import Code, Condition, obstacle
from refclock.sample import NS, Leap, SourceId, UpstreamServer, refid_of
from refclock.timing.pairing import Present

SERVERS: Final = 64
"""NTP servers at most; as many as one file can name (``ppsd.config.reader.ELEMENTS``)."""
INDEPENDENT: Final = 1 / 6
"""Share of a bound that is the standard deviation of what no answer shows, the asymmetry of the path (``selection.CLOSE``)."""
MISSED: Final = 8
"""Intervals without an answer after which a server makes no candidate: when its register of reach is empty."""
FIRST_NS: Final = 10 * NS
"""ns in which a server answers its first requests: four in six seconds, and four for the slowest answer."""
FORGOTTEN: Final = 3
"""Intervals without a word of a server after which it is forgotten; the NTP client tells of each at every request."""
FORGOTTEN_NS: Final = 60 * NS
"""ns; more than that many short intervals, for the NTP client may be started anew."""


def source_id(upstream: Upstream, server: UpstreamServer) -> SourceId:
    """How a server is called: by the name of its table; the servers of a pool by their addresses."""
    return SourceId(server.address if isinstance(upstream, PoolUpstream) else upstream.name)


@dataclass(frozen=True, slots=True)
class Place:
    """How a server stands beside what is served. ``tally``: as in chronyc sources. ``why``: one sentence."""

    tally: str
    why: str


class UpstreamSource:
    """One server. ``settings``: its table."""

    def __init__(self, settings: Upstream, server: UpstreamServer, now_ns: int) -> None:
        self.settings, self.server = settings, server
        self.id = source_id(settings, server)
        self.began_ns = self.heard_ns = now_ns
        self.estimator = NetworkEstimator()
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.last_offset_ns: int | None = None
        self.leap = Leap.NORMAL

    def heard(self, event: UpstreamHeard, tai_ns: int | None, rate: KnownRate | None, present: Present | None) -> None:
        """What the NTP client says of it. ``tai_ns``: the time of its sample, None without one. ``rate``: of the raw clock, by the
        receivers; ``present``: the served time now."""
        self.server, self.heard_ns = event.server, event.at.mono_ns
        if rate is not None:
            self.estimator.runs_at(rate)
        if event.sample is None or tai_ns is None:
            return
        at_ns = event.sample.at.mono_ns
        self.estimator.add(at_ns, tai_ns, event.sample.uncertainty_ns, event.server.delay_ns)
        self.first_ns = at_ns if self.first_ns is None else self.first_ns
        self.last_ns, self.leap = at_ns, event.sample.leap
        if present is not None:
            self.last_offset_ns = tai_ns - present.tai_at(at_ns)

    @property
    def interval_ns(self) -> int:
        """ns between two requests."""
        return NS << max(0, min(self.server.poll, 17))

    def forgotten(self, now_ns: int) -> bool:
        """Whether nothing is heard of it any more."""
        return self.server.ended or now_ns - self.heard_ns > FORGOTTEN * self.interval_ns + FORGOTTEN_NS

    def undecided(self, now_ns: int) -> bool:
        """Whether it may still answer its first requests: until then nobody knows whether it agrees with the others."""
        return self.last_ns is None and now_ns - self.began_ns < FIRST_NS and not self.settings.noselect

    def candidate(self, now_ns: int) -> Candidate | None:
        """Its claim at raw ``now_ns``; None without a fresh one."""
        if self.last_ns is None or now_ns - self.last_ns > MISSED * self.interval_ns + FORGOTTEN_NS:
            return None
        s = self.settings
        return Candidate(self.id, self.estimator.estimate(now_ns), self.last_ns, "", s.prefer, s.trust)

    @property
    def refid(self) -> int:
        """The reference identifier of whoever follows it."""
        return refid_of(self.server.address)

    @property
    def root_delay_ns(self) -> int:
        """ns from here to its reference clock and back."""
        return self.estimator.trip_ns + self.server.root_delay_ns

    def obstacle(self) -> Condition | None:
        """Why it gives no time; None while it does."""
        if self.server.why and not self.server.reach:
            return obstacle(Code.UPSTREAM_SILENT, self.server.why)
        return obstacle(Code.WATCHED_ONLY, "watched, not used (noselect)") if self.settings.noselect else None

    def status(self, now_ns: int, place: Place, conditions: tuple[Condition, ...]) -> UpstreamStatus:
        """For users."""
        e = self.estimator.estimate(now_ns) if self.estimator.ready else None
        s = self.server
        return UpstreamStatus(
            name=str(self.id),
            host=self.settings.host,
            address=s.address,
            tally=place.tally,
            why=place.why,
            stratum=s.stratum,
            refid=s.refid,
            poll=s.poll,
            reach=s.reach,
            last_sample_s=None if self.last_ns is None else (now_ns - self.last_ns) / NS,
            span_s=None if self.last_ns is None or self.first_ns is None else (self.last_ns - self.first_ns) / NS,
            offset_ns=self.last_offset_ns,
            delay_ns=s.delay_ns,
            root_delay_ns=s.root_delay_ns,
            dispersion_ns=s.dispersion_ns,
            jitter_ns=None if e is None else round(e.jitter_ns),
            bound_ns=None if e is None else round(e.bound_ns),
            frequency_ppm=None if e is None else -e.rate * 1e6,
            skew_ppm=None if e is None else e.skew * 1e6,
            samples=self.estimator.samples,
            prefer=self.settings.prefer,
            trust=self.settings.trust,
            noselect=self.settings.noselect,
            conditions=conditions,
            packets=s.packets,
            authentication=s.authentication,
        )


class Upstreams:
    """The servers, by name. ``choice``: what they say among themselves."""

    def __init__(self) -> None:
        self._servers: dict[SourceId, UpstreamSource] = {}
        self._claims: list[Candidate] = []
        self.choice = Choice(None, frozenset(), {})

    def __iter__(self) -> Iterator[UpstreamSource]:
        """In the order in which they were first heard."""
        return iter(self._servers.values())

    def __getitem__(self, name: SourceId) -> UpstreamSource:
        """The server of this name."""
        return self._servers[name]

    def heard(self, settings: Upstream, event: UpstreamHeard, tai_ns: int | None, rate: KnownRate | None, present: Present | None) -> bool:
        """What the NTP client says of a server of the table ``settings``; as ``UpstreamSource.heard``. Whether the server is known now."""
        name, upstream = source_id(settings, event.server), self._servers.get(source_id(settings, event.server))
        same = upstream is not None and upstream.server.address == event.server.address
        if event.server.ended:
            if same:
                self._forget(name)
            return False
        if upstream is None or not same:
            if upstream is None and len(self._servers) >= SERVERS:
                return False
            upstream = self._servers[name] = UpstreamSource(settings, event.server, event.at.mono_ns)
        upstream.heard(event, tai_ns, rate, present)
        return True

    def keep(self, asked: Collection[Upstream]) -> None:
        """Forget those of other tables."""
        for name in [name for name, upstream in self._servers.items() if upstream.settings not in asked]:
            self._forget(name)

    def rate_changed(self) -> None:
        """The raw clock has another rate from now on."""
        for upstream in self:
            upstream.estimator.rate_changed()

    def compare(self, now_ns: int, followed: SourceId | None) -> None:
        """Forget those that are not heard of any more, and compare the others."""
        for name in [name for name, upstream in self._servers.items() if upstream.forgotten(now_ns)]:
            self._forget(name)
        before = self.choice.selected
        self._claims = [c for u in self if not u.settings.noselect and (c := u.candidate(now_ns)) is not None]
        self.choice = select(self._claims, followed or (before.source if before is not None else None))

    def _forget(self, name: SourceId) -> None:
        del self._servers[name]
        self.choice = Choice(None, frozenset(), {})

    @property
    def best(self) -> Candidate | None:
        """The best of those that agree, when they are a majority."""
        return self.choice.selected

    @property
    def several(self) -> Candidate | None:
        """The best of several that agree; None while fewer do. One alone may lie."""
        return self.best if len(self.choice.agreeing) > 1 else None

    @property
    def leap(self) -> Leap:
        """What most of several that agree indicate of a leap second; nothing is NORMAL."""
        said = Counter(self[name].leap for name in self.choice.agreeing)
        leap, votes = said.most_common(1)[0] if said else (Leap.NORMAL, 0)
        return leap if votes > 1 and 2 * votes > said.total() else Leap.NORMAL

    def undecided(self, now_ns: int) -> bool:
        """Whether as many may still answer their first requests as agree: who answers first may be the one who lies."""
        return sum(upstream.undecided(now_ns) for upstream in self) >= len(self.choice.agreeing)

    @property
    def weighed(self) -> dict[SourceId, Estimate]:
        """Those that make the time which is followed: all that agree, or of them the preferred ones."""
        best = self.best
        if best is None:
            return {}
        return {c.source: c.estimate for c in self._claims if c.source in self.choice.agreeing and c.prefer == best.prefer}

    def combined(self) -> Estimate | None:
        """The mean of all that are weighed, by what is unknown of each. It stays within the interval of the best, and its bound covers all
        of that."""
        best = self.best
        if best is None:
            return None
        some = self.weighed.values()
        weights = [1 / (e.phase_sigma_ns**2 + (INDEPENDENT * e.bound_ns) ** 2 + 1) for e in some]
        total = sum(weights)
        at = sum(w * (e.tai_ns - best.estimate.tai_ns) for w, e in zip(weights, some, strict=True)) / total
        at = min(max(at, -best.estimate.bound_ns), best.estimate.bound_ns)
        return replace(
            best.estimate,
            tai_ns=best.estimate.tai_ns + round(at),
            bound_ns=best.estimate.bound_ns + abs(at) + 1,
            phase_sigma_ns=math.sqrt(1 / total),
        )


def apart_ns(claim: Candidate, tai_ns: int, bound_ns: float) -> float:
    """ns between the nearest times that both allow, negative when they have one in common."""
    return abs(claim.estimate.tai_ns - tai_ns) - claim.estimate.bound_ns - bound_ns
