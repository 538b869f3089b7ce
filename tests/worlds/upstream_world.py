"""A world with NTP servers: real associations ask simulated servers over simulated paths, and the real engine hears what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from refclock_sim.worlds.scenario import Scenario
from refclock_sim.worlds.world import BOUND_RESOLUTION_NS, REQUEST, TURN_NS, World

from ppsd.config.tables import PoolUpstream, ServerUpstream
from ppsd.discipline.events import Ticked, UpstreamHeard
from ppsd.ntp.association import SETTLED, Association, Measurement, Polling
from ppsd.ntp.packet import Header
from ppsd.ntp.pool import Pool, outvoted
from refclock.sample import NS, EdgeKind, ForeignSample, Leap, UpstreamServer
from refclock.timescales import ntp64

ASKED_NS = 970_000_000
"""ns into a second at which answers arrive, after all else."""


def honest(_: float) -> float:
    """No lie: s by which a server is off at a second of the world."""
    return 0.0


@dataclass
class Peer:
    """A server and the path to it, ms. ``lie``: s that its time is off, by the second of the world. ``lost``: share of requests that get no
    answer. ``own_ms``: largest error of its own time, which is its root dispersion. ``options``: keys of its table.
    ``away``: the seconds in which it does not answer. ``leap``: its indicator."""

    address: str
    out_ms: float = 1.0
    back_ms: float = 1.0
    jitter_ms: float = 0.1
    own_ms: float = 0.2
    stratum: int = 1
    lost: float = 0.0
    lie: Callable[[float], float] = honest
    polling: Polling = field(default_factory=Polling)
    options: dict[str, Any] = field(default_factory=dict)
    away: tuple[float, float] = (0.0, 0.0)
    leap: Leap = Leap.NORMAL


class UpstreamWorld(World):
    """``served``: packets by (stratum, reference)."""

    def __init__(self, scenario: Scenario, seed: int, peers: Sequence[Peer], role: str, holdover_limit_s: float = 86_400) -> None:
        super().__init__(scenario, seed)
        self._peers = [(peer, Association(peer.polling, 0)) for peer in peers]
        self._paths = Random(f"paths {seed}")
        self._own = {peer.address: self._paths.uniform(-1, 1) * peer.own_ms * 1e6 for peer in peers}
        self._told: dict[str, Measurement] = {}
        self.served = Counter[tuple[int, str]]()
        self.most_ns = 0.0
        config = self.engine.config
        tables = tuple(ServerUpstream(name=f"ntp{i}", host=peer.address, **peer.options) for i, peer in enumerate(peers))
        sources = () if role == "only" else config.sources
        clock = replace(config.clock, upstreams=role, holdover_limit_s=holdover_limit_s)
        self.engine.configure(replace(config, sources=sources, upstreams=tables, clock=clock))
        for table in tables:
            self._effects(self.engine.handle(UpstreamHeard(UpstreamServer(table.name, table.host, 0, 6), None, self._instant(0))))

    def _second(self, k: int) -> list[tuple[float, str, bytes | EdgeKind]]:
        return [*super()._second(k), (float(ASKED_NS), "upstreams", b"")]

    def _happen(self, k: int, into: float, kind: str, payload: bytes | EdgeKind) -> None:
        if kind == "tick" and not self.engine.sources:
            self._effects(self.engine.handle(Ticked(self._instant(into))))
            return
        if kind != "upstreams":
            if kind == "packet" or self.engine.sources:
                super()._happen(k, into, kind, payload)
            return
        self._ask_servers(k)

    def _ask_servers(self, k: int) -> None:
        for i, (peer, association) in enumerate(self._peers):
            if association.due_ns is not None and association.due_ns <= k * NS:
                self._exchange(k, f"ntp{i}", peer, association)

    def _exchange(self, k: int, name: str, peer: Peer, association: Association) -> None:
        """One request of ``peer`` that is answered at ASKED_NS of second ``k``, or is not."""
        nonce = self._paths.getrandbits(64) | 1
        association.request(k * NS, nonce)
        out, back = (ms * 1e6 + self._paths.expovariate(1) * peer.jitter_ms * 1e6 for ms in (peer.out_ms, peer.back_ms))
        sent, came = self._instant(ASKED_NS - out - back), self._instant(ASKED_NS)
        sample = None
        if self._paths.random() >= peer.lost:
            at = self._truth.tai_to_utc_ns(self._tai0 + k * NS + ASKED_NS - round(back)) + round(
                self._own[peer.address] + peer.lie(k) * 1e9
            )
            stamp, dispersion = ntp64(at), round(peer.own_ms * 65.536) + 1
            reply = Header(
                leap=peer.leap,
                mode=4,
                stratum=peer.stratum,
                precision=-24,
                root_dispersion=dispersion,
                origin=nonce,
                receive=stamp,
                transmit=stamp,
            )
            found = association.reply(reply.pack(), came.real_ns - (came.mono_ns - sent.mono_ns), came.real_ns)
            assert isinstance(found, Measurement), found
            self._told[peer.address] = found
            middle = came.shifted(-(came.mono_ns - sent.mono_ns) // 2)
            sample = ForeignSample(middle, found.offset_ns, found.distance_ns, found.leap)
        m = self._told.get(peer.address)
        numbers = (m.stratum, m.refid, m.delay_ns, m.root_delay_ns, m.dispersion_ns) if m is not None else (0, 0, 0, 0, 0)
        server = UpstreamServer(name, peer.address, association.reach, association.poll, *numbers, association.why)
        self._effects(self.engine.handle(UpstreamHeard(server, sample, came)))

    def _ask(self, k: int, into: float) -> None:
        super()._ask(k, into)
        if self._path is None:
            return
        reply, _, _ = self._path.respond(REQUEST, self._raw_at(into), self._raw_at(into + TURN_NS))
        if reply[0] >> 6 == 3:
            self.served[0, ""] += 1
            return
        reference = reply[12:16].rstrip(b"\0").decode() if reply[1] == 1 else ".".join(map(str, reply[12:16]))
        self.served[reply[1], reference] += 1
        bound_ns = int.from_bytes(reply[8:12], "big") * NS / 65536 + int.from_bytes(reply[4:8], "big") * NS / 131072 + BOUND_RESOLUTION_NS
        self.most_ns = max(self.most_ns, bound_ns)


POOL, SHARE, ROUND_S = 200, 4, 60
"""Servers of the pool, those that its name gives at a time, and s between two judgements of the clock process."""


class PoolWorld(UpstreamWorld):
    """Nothing but a pool. ``asked``: the addresses that were."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        super().__init__(scenario, seed, (), "only")
        self._chance = Random(f"pool {seed}")
        self._all = {peer.address: peer for peer in (self._server(i) for i in range(POOL))}
        self._own = {address: self._chance.uniform(-1, 1) * peer.own_ms * 1e6 for address, peer in self._all.items()}
        self._pool = Pool(SHARE, 0)
        self._members: dict[str, Association] = {}
        self.asked = set[str]()
        self._lies_s = Counter[str]()
        table = PoolUpstream(name="pool0", host="pool.example")
        config = self.engine.config
        self.engine.configure(replace(config, upstreams=(table,), clock=replace(config.clock, upstreams="only")))

    @property
    def longest_lie_s(self) -> int:
        """s for which a liar was asked at most."""
        return max(self._lies_s.values())

    def _server(self, i: int) -> Peer:
        """One in four lies, by itself, half of these only from some time on; one in four is away for an hour or more; one in six has a bad
        line."""
        chance = self._chance
        peer = Peer(f"198.51.100.{i}", chance.uniform(1, 20), chance.uniform(1, 20), 1.0, chance.uniform(1, 5), stratum=2)
        day_s = self.scenario.duration_s
        if chance.random() < 1 / 4:
            off_s, from_s = chance.choice((-1, 1)) * chance.uniform(0.2, 2.0), chance.choice((0, chance.uniform(0, day_s)))
            return replace(peer, lie=lambda s: off_s if s >= from_s else 0.0)
        if chance.random() < 1 / 3:
            away_s = chance.uniform(0, day_s)
            return replace(peer, away=(away_s, away_s + chance.uniform(3600, 20_000)))
        if chance.random() < 1 / 3:
            return replace(peer, jitter_ms=30.0, lost=0.2)
        return peer

    def _ask_servers(self, k: int) -> None:
        pool, now = self._pool, k * NS
        if pool.due_ns is not None and pool.due_ns <= now:
            change = pool.resolved(self._chance.sample(sorted(self._all), SHARE), now)
            for address in change.end:
                del self._members[address]
                self._effects(self.engine.handle(UpstreamHeard(UpstreamServer("pool0", address, 0, 6, ended=True), None, self._instant(0))))
            for address in change.begin:
                self._members[address] = Association(Polling(), now)
                self.asked.add(address)
        for address, association in self._members.items():
            peer = self._all[address]
            self._lies_s[address] = self._lies_s[address] + 1 if peer.lie(k) else 0
            if association.due_ns is not None and association.due_ns <= now:
                away = peer.away[0] <= k < peer.away[1]
                self._exchange(k, "pool0", replace(peer, lost=1.0) if away else peer, association)
                if association.reach & 1:
                    pool.works(address)
                elif association.unanswered >= SETTLED and not association.reach:
                    pool.failing(address, now)
        if k % ROUND_S == 0:
            told = self.snapshot()
            pool.judged(outvoted({u.address: u.tally for u in told.upstreams}, told.synchronised), now)
