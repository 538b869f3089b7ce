"""NTP servers as sources of time: each is a claim with its error, which contradicts or confirms what the receivers say.

Flow: datagram of the NTP client -> UpstreamHeard -> **UpstreamSource** -> Candidate, to the engine; UpstreamStatus, to people. Pure.

A server that is not heard of any more, as when the process that asks it is gone, gives no candidate after some intervals, and is forgotten
after some more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ppsd.config.tables import PoolUpstream, Upstream
from ppsd.discipline.events import UpstreamHeard
from ppsd.discipline.network import KnownRate, NetworkEstimator
from ppsd.discipline.selection import Candidate
from ppsd.snapshot import UpstreamStatus
from refclock.condition import Code, Condition, obstacle
from refclock.sample import NS, SourceId, UpstreamServer, refid_of
from refclock.timing.pairing import Present

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
        self.last_ns = at_ns
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
        return self.server.delay_ns + self.server.root_delay_ns

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
