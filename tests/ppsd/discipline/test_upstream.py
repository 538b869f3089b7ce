"""Several NTP servers: whom the time is taken of, and how it is combined."""

from __future__ import annotations

import pytest

from ppsd.config.tables import ServerUpstream
from ppsd.discipline.events import UpstreamHeard
from ppsd.discipline.upstream import SERVERS, Upstreams
from refclock.sample import NS, ForeignSample, Instant, SourceId, UpstreamServer

TAI0 = 1_800_000_000 * NS


def heard(upstreams: Upstreams, name: str, off_ms: float, trip_ms: float, *, prefer: bool = False, ended: bool = False) -> None:
    """Server ``name``, whose time is off by ``off_ms``, after a round trip of ``trip_ms``."""
    table = ServerUpstream(name=name, host="192.0.2.1", prefer=prefer)
    at = Instant(TAI0, NS)
    server = UpstreamServer(name, f"192.0.2.{name}", 1, 6, 1, 0, round(trip_ms * 1e6), ended=ended)
    sample = None if ended else ForeignSample(at, round(off_ms * 1e6), round(trip_ms * 5e5))
    upstreams.heard(table, UpstreamHeard(server, sample, at), None if sample is None else TAI0 + sample.offset_ns, None, None)


def combined(*servers: tuple[float, float, bool]) -> tuple[float, float]:
    """ms by which the combination of (off, trip, preferred) is off, and its bound."""
    upstreams = Upstreams()
    for i, (off, trip, prefer) in enumerate(servers):
        heard(upstreams, str(i), off, trip, prefer=prefer)
    upstreams.compare(NS, None)
    found = upstreams.combined()
    assert found is not None
    return (found.tai_ns - TAI0) / 1e6, found.bound_ns / 1e6


def test_those_that_agree_are_weighed() -> None:
    """Two alike: the middle. A far one hardly counts beside a near one, and a liar not at all."""
    assert combined((-1, 10, False), (1, 10, False))[0] == pytest.approx(0, abs=1e-3)
    assert abs(combined((0.1, 1, False), (5, 20, False))[0] - 0.1) < 0.05
    assert combined((0, 4, False), (1, 4, False), (900, 4, False))[0] == pytest.approx(0.5, abs=1e-3)


def test_the_bound_covers_all_that_the_best_one_allows() -> None:
    """Moving the time moves the bound with it."""
    off, bound = combined((-1, 10, False), (1, 10, False))
    assert bound == pytest.approx(5 + abs(off + 1), abs=1e-3)


def test_a_preferred_one_stands_for_itself() -> None:
    """Others agree with it, and do not move it."""
    assert combined((-1, 10, True), (1, 10, False))[0] == -1


def test_servers_come_and_go() -> None:
    """No more than one file can name; one that is not asked any more is gone, and nobody is followed then."""
    upstreams = Upstreams()
    for i in range(SERVERS + 1):
        heard(upstreams, str(i), 0, 10)
    assert len(list(upstreams)) == SERVERS
    upstreams.compare(NS, None)
    assert upstreams.best is not None
    heard(upstreams, "3", 0, 10, ended=True)
    assert SourceId("3") not in [upstream.id for upstream in upstreams]
    assert upstreams.best is None
    upstreams.keep(())
    assert not list(upstreams)
