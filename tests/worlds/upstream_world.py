"""A world with NTP servers: real associations ask simulated servers over simulated paths, and the real engine hears what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from refclock_sim.worlds.scenario import Scenario
from refclock_sim.worlds.world import BOUND_RESOLUTION_NS, REQUEST, TURN_NS, World

from ppsd.config.tables import ServerUpstream
from ppsd.discipline.events import Ticked, UpstreamHeard
from ppsd.ntp.association import Association, Measurement, Polling
from ppsd.ntp.packet import Header
from refclock.sample import NS, EdgeKind, ForeignSample, UpstreamServer
from refclock.timescales import ntp64

ASKED_NS = 970_000_000
"""ns into a second at which answers arrive, after all else."""


def honest(_: float) -> float:
    """No lie: s by which a server is off at a second of the world."""
    return 0.0


@dataclass
class Peer:
    """A server and the path to it, ms. ``lie``: s that its time is off, by the second of the world. ``lost``: share of requests that get no
    answer. ``own_ms``: largest error of its own time, which is its root dispersion."""

    address: str
    out_ms: float = 1.0
    back_ms: float = 1.0
    jitter_ms: float = 0.1
    own_ms: float = 0.2
    stratum: int = 1
    lost: float = 0.0
    lie: Callable[[float], float] = honest
    polling: Polling = field(default_factory=Polling)


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
        tables = tuple(ServerUpstream(name=f"ntp{i}", host=peer.address) for i, peer in enumerate(peers))
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
                mode=4, stratum=peer.stratum, precision=-24, root_dispersion=dispersion, origin=nonce, receive=stamp, transmit=stamp
            )
            found = association.reply(reply.pack(), came.real_ns - (came.mono_ns - sent.mono_ns), came.real_ns)
            assert isinstance(found, Measurement), found
            self._told[name] = found
            middle = came.shifted(-(came.mono_ns - sent.mono_ns) // 2)
            sample = ForeignSample(middle, found.offset_ns, found.distance_ns, found.leap)
        m = self._told.get(name)
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
