"""Receivers and NTP servers in one world: what is served when they are lost, lie, or come back. No packet may ever be beyond its bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from refclock_sim.worlds.scenario import Fault, Outcome, PulseModel, ReceiverModel, Scenario, Start
from upstream_world import Peer, PoolWorld, UpstreamWorld

from refclock.condition import Code
from refclock.sample import Leap, refid_of
from refclock.timescales import DAY_S, LeapTable

LAN = Peer("192.0.2.1", 0.3, 0.1, 0.05, 0.05)
NEAR = Peer("192.0.2.2", 1.0, 0.2, 0.1)
FAR = Peer("192.0.2.3", 8, 12, 1.0, 1.0)
THREE = (LAN, NEAR, FAR)
WAN = (
    Peer("192.0.2.4", 25, 5, 2, 1, stratum=2),
    Peer("192.0.2.5", 4, 24, 3, 2, stratum=2),
    Peer("192.0.2.6", 15, 12, 1.0, 1.0, lost=0.3),
)
"""Asymmetries of 20 ms, noise of milliseconds, and a third of all requests lost."""


def scenario(**changes: Any) -> Scenario:
    fields: dict[str, Any] = {
        "name": "upstreams",
        "claim": "",
        "duration_s": 900,
        "pulse": PulseModel("pi", 4.0),
        "receiver": ReceiverModel(),
    }
    return Scenario(**fields | changes)


def honest(outcome: Outcome) -> None:
    """Every packet was within its bound, and nothing that was served turned out wrong."""
    assert (outcome.violations, outcome.wrong_seconds) == (0, 0), outcome.worst
    assert not [note for note in outcome.notes if "beyond its bound" in note]


def test_a_receiver_is_lost_for_an_hour_and_comes_back() -> None:
    """First the holdover is better, and stratum 1 is served on; then a server is, and its stratum plus one, its address, and its delay and
    dispersion are served. Back with the receiver at stratum 1 within 20 s, and never a step beyond what was promised."""
    world = UpstreamWorld(scenario(duration_s=5400, faults=(Fault("unplugged", 900, 4500),)), 1, THREE, "fallback")
    world.advance(890)
    assert (world.snapshot().verdict, world.snapshot().stratum, world.snapshot().upstreams[0].tally) == ("LOCKED", 1, "-")
    world.advance(1000)
    assert (world.snapshot().verdict, world.snapshot().stratum) == ("HOLDOVER", 1)
    world.advance(4400)
    told = world.snapshot()
    assert (told.verdict, told.stratum, told.refid, told.mode) == ("FALLBACK", 2, "192.0.2.1", "fallback")
    assert [u.tally for u in told.upstreams] == ["*", "+", "+"]
    assert 0 < told.root_delay_ns < 1e6
    assert told.bound_ns is not None
    assert told.bound_ns < 1e6
    world.advance(4520)
    assert (world.snapshot().verdict, world.snapshot().refid) == ("LOCKED", "PPS")
    outcome = world.run()
    honest(outcome)
    assert set(world.served) <= {(1, "PPS"), (2, "192.0.2.1"), (0, "")}
    assert world.served[2, "192.0.2.1"] > 3000


def test_a_witness_is_never_served() -> None:
    """The same with role witness: stratum 1, in holdover, or nothing."""
    world = UpstreamWorld(scenario(duration_s=2400, faults=(Fault("unplugged", 600, 2000),)), 1, THREE, "witness")
    honest(world.run())
    assert {stratum for stratum, _ in world.served} <= {0, 1}


def test_without_a_receiver_the_world_wide_net_is_covered() -> None:
    """An hour of nothing but servers at the other end of slow, lopsided, lossy lines: covered at every packet, within 70 ms."""
    world = UpstreamWorld(scenario(duration_s=3600, faults=(Fault("unplugged", 0, 3600),)), 1, WAN, "fallback")
    honest(world.run())
    assert sum(world.served.values()) == sum(n for (stratum, _), n in world.served.items() if stratum in (0, 2, 3))
    assert world.served[0, ""] < 20
    assert world.most_ns < 70e6


def test_the_world_wide_net_bridges_a_loss() -> None:
    """A receiver is lost for an hour, and the holdover is over after five minutes. The same servers are followed then, covered at every
    packet; and what the receiver says when it comes back is within what was promised."""
    lost = scenario(duration_s=4500, faults=(Fault("unplugged", 400, 4200),))
    world = UpstreamWorld(lost, 1, WAN, "fallback", holdover_limit_s=300)
    world.advance(4100)
    told = world.snapshot()
    assert (told.verdict, told.stratum) == ("FALLBACK", 3)
    assert told.bound_ns is not None
    assert told.bound_ns < 50e6
    honest(world.run())
    assert (world.snapshot().verdict, world.snapshot().refid) == ("LOCKED", "PPS")


@pytest.mark.parametrize("liar", range(3))
def test_one_liar_among_three_is_left_out(liar: int) -> None:
    """A server that is off by more than its error says is marked, and not followed, whichever it is."""
    peers = [replace(peer, lie=lambda _: 0.2) if i == liar else peer for i, peer in enumerate(THREE)]
    world = UpstreamWorld(scenario(duration_s=300, faults=(Fault("unplugged", 0, 300),)), 1, peers, "fallback")
    world.advance(290)
    assert [u.tally == "x" for u in world.snapshot().upstreams] == [i == liar for i in range(3)]
    outcome = world.run()
    assert outcome.violations == 0, outcome.worst
    assert THREE[liar].address not in {reference for _, reference in world.served}


def test_a_server_alone_may_lie_and_moves_nothing() -> None:
    """One server against a receiver: it is marked, and the receiver's time is served as narrowly as before."""
    world = UpstreamWorld(scenario(), 1, [replace(LAN, lie=lambda s: 1.0 if s > 300 else 0.0)], "fallback")
    world.advance(890)
    told = world.snapshot()
    assert (told.verdict, told.upstreams[0].tally, told.has(Code.UPSTREAMS_CONTRADICT)) == ("LOCKED", "x", None)
    honest(world.run())
    assert world.most_ns < 5e6


def test_servers_that_all_lie_by_a_second_do_not_move_what_they_have_confirmed() -> None:
    """The receiver's second was confirmed by two witnesses: it is served on, and the contradiction is told."""
    world = UpstreamWorld(scenario(), 1, [replace(peer, lie=lambda s: 1.0 if s > 300 else 0.0) for peer in THREE], "witness")
    world.advance(890)
    told = world.snapshot()
    assert told.verdict == "LOCKED"
    assert told.has(Code.UPSTREAMS_CONTRADICT) is not None
    assert {u.tally for u in told.upstreams} == {"x"}
    honest(world.run())


def test_a_receiver_that_names_the_wrong_second_is_withheld() -> None:
    """Its leap count is wrong for ever, and nobody but the servers knows: not one wrong second is served, and the reason is told."""
    wrong = scenario(duration_s=1000, receiver=ReceiverModel(leap_error_s=1, leap_known_after_s=99_999), start=Start(clock_offset_s=40.0))
    world = UpstreamWorld(wrong, 1, THREE, "witness")
    world.advance(990)
    told = world.snapshot()
    assert (told.verdict, told.stratum) == ("ACQUIRING", 0)
    assert told.has(Code.UPSTREAMS_CONTRADICT) is not None
    outcome = world.run()
    assert (outcome.wrong_seconds, outcome.violations) == (0, 0)


@pytest.mark.parametrize("by_s", [1, -1, 7 * DAY_S, -7 * DAY_S])
@pytest.mark.parametrize("from_s", [0, 300])
def test_a_receiver_whose_labels_lie_is_not_believed(by_s: int, from_s: int) -> None:
    """By a second or by a week, from power-on or from some time on, as when its signals are forged: with three servers that are right no
    wrong second is served, and what is wrong is told."""
    lies = scenario(duration_s=500, faults=(Fault("late-label", from_s, 500, value=float(by_s)),))
    world = UpstreamWorld(lies, 1, THREE, "witness")
    world.advance(490)
    told = world.snapshot()
    assert [*told.conditions, *told.sources[0].conditions]
    outcome = world.run()
    assert (outcome.wrong_seconds, outcome.violations) == (0, 0), outcome.worst


def test_a_pulse_that_is_dragged_away_is_covered() -> None:
    """Pulses 20 ms off, which the receiver's labels allow: what several servers say is in the bound, and it is told."""
    world = UpstreamWorld(scenario(duration_s=1800, faults=(Fault("pulse-offset", 600, 1800, value=0.02),)), 1, (LAN, NEAR), "witness")
    world.advance(1790)
    assert world.snapshot().has(Code.UPSTREAMS_CONTRADICT) is not None
    assert world.run().violations == 0


def test_upstreams_alone_are_no_makeshift() -> None:
    """With role only nobody misses a receiver: locked with the first answers, at the server's stratum plus one, no complaint."""
    world = UpstreamWorld(scenario(faults=(Fault("unplugged", 0, 900),)), 1, THREE, "only")
    world.advance(15)
    assert world.snapshot().verdict == "LOCKED"
    world.advance(890)
    told = world.snapshot()
    assert (told.verdict, told.mode, told.stratum, told.sources, told.why) == ("LOCKED", "track", 2, (), "")
    assert not [condition for condition in told.conditions if condition.blocks]
    honest(world.run())


def test_upstreams_alone_that_are_silent_are_told() -> None:
    """Nothing is served, and the reason names the servers, not a receiver."""
    mute = [replace(peer, lost=1.0) for peer in THREE]
    world = UpstreamWorld(scenario(duration_s=60, faults=(Fault("unplugged", 0, 60),)), 1, mute, "only")
    world.advance(50)
    told = world.snapshot()
    assert (told.stratum, told.has(Code.NO_SOURCE)) == (0, None)
    assert told.why.startswith("no NTP server can be followed: ntp0: ")


def test_a_cold_start_is_confirmed_by_what_is_followed() -> None:
    """A receiver that cannot say whether it has the leap count waits for 13 minutes by itself; beside servers it is locked in half a
    minute, and meanwhile their time is served."""
    cold = scenario(receiver=ReceiverModel(), start=Start(clock_offset_s=40.0), duration_s=120)
    outcome = UpstreamWorld(cold, 1, THREE, "fallback").run()
    honest(outcome)
    assert outcome.locked_after_s is not None
    assert outcome.locked_after_s < 30


def alone(peers: Sequence[Peer], until_s: int = 300) -> tuple[UpstreamWorld, str]:
    """A world of nothing but servers shortly before its end, and the tallies."""
    world = UpstreamWorld(scenario(duration_s=until_s), 1, peers, "only")
    world.advance(until_s - 10)
    return world, "".join(u.tally for u in world.snapshot().upstreams)


def test_only_trusted_servers_vote() -> None:
    """One with trust against two that lie alike: it is followed, and they are marked."""
    lying = [replace(peer, lie=lambda _: 0.2) for peer in (NEAR, FAR)]
    world, tallies = alone([replace(LAN, options={"trust": True}), *lying])
    assert tallies == "*xx"
    assert world.run().violations == 0


def test_a_preferred_server_is_followed() -> None:
    """Although another one has the smaller bound; when it lies it is not."""
    _, tallies = alone([LAN, NEAR, replace(FAR, options={"prefer": True})])
    assert tallies == "--*"
    _, tallies = alone([LAN, NEAR, replace(FAR, options={"prefer": True}, lie=lambda _: 0.2)])
    assert tallies == "*+x"


def test_a_server_with_noselect_is_watched() -> None:
    """It has no vote and is never followed, however good; two others and it, of which one lies: nothing is served."""
    _, tallies = alone([replace(LAN, options={"noselect": True}), NEAR, FAR])
    assert tallies == "?*+"
    world, _ = alone([replace(LAN, options={"noselect": True}), NEAR, replace(FAR, lie=lambda _: 0.2)])
    assert world.snapshot().stratum == 0
    assert "noselect" in world.snapshot().upstreams[0].why


@pytest.mark.parametrize("liars", [(0, 1), (0, 4), (2, 3)])
@pytest.mark.parametrize("alike", [True, False])
def test_two_lying_of_five_are_left_out(liars: tuple[int, int], alike: bool) -> None:
    """Alike or each by itself: they are marked, the other three are not, and every packet is covered."""
    five = [replace(peer, address=f"192.0.2.{i}") for i, peer in enumerate((LAN, NEAR, FAR, NEAR, LAN), 1)]
    peers = [replace(peer, lie=lambda _, i=i: 0.2 if alike else 0.2 + 0.3 * i) if i in liars else peer for i, peer in enumerate(five)]
    world, tallies = alone(peers, 150)
    assert [tally == "x" for tally in tallies] == [i in liars for i in range(5)]
    assert world.run().violations == 0


def test_ipv6_servers_are_followed() -> None:
    """Their reference identifier is a hash of the address (RFC 5905 section 7.3)."""
    peers = [replace(peer, address=f"2001:db8::{i}") for i, peer in enumerate(THREE, 1)]
    world, tallies = alone(peers, 150)
    assert tallies == "*++"
    assert world.run().violations == 0
    refid = refid_of("2001:db8::1")
    assert world.served[2, ".".join(str(refid >> shift & 255) for shift in (24, 16, 8, 0))] > 100


NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


def over_new_year(peers: Sequence[Peer], step_s: int, role: str = "only", valid: bool = False) -> UpstreamWorld:
    """Ten minutes before a year ends, with a leap second or not, and half an hour after it. The table of leap seconds has expired unless it
    is ``valid`` and knows of none."""
    start = NEW_YEAR - timedelta(minutes=10)
    receiver = ReceiverModel(leap_at=NEW_YEAR, leap_step_s=step_s) if step_s else ReceiverModel()
    faults = (Fault("unplugged", 0, 2400),)
    world = UpstreamWorld(scenario(duration_s=2400, start=Start(utc=start), receiver=receiver, faults=faults), 1, peers, role)
    expires_s = int(start.timestamp()) + (100 if valid else -3) * DAY_S
    world.engine.leaps.read(LeapTable(expires_s=expires_s), "leap-seconds.list", int(start.timestamp()))
    return world


@pytest.mark.parametrize("role", ["only", "fallback"])
@pytest.mark.parametrize("step_s", [0, 1])
def test_servers_show_whether_a_year_ended_with_a_leap_second(role: str, step_s: int) -> None:
    """Where no table and no receiver tells: nothing is served until most of the servers that agreed have answered after the midnight, and
    then what they count. No second is wrong."""
    world = over_new_year(THREE, step_s, role)
    world.advance(610)
    assert world.snapshot().stratum == 0
    assert "most of the 3 NTP servers" in world.snapshot().why
    world.advance(800)
    assert world.snapshot().stratum == 2
    honest(world.run())
    assert world.served[0, ""] < 300


@pytest.mark.parametrize("liar", range(3))
@pytest.mark.parametrize("step_s", [0, 1])
def test_one_server_that_counts_otherwise_is_outvoted(liar: int, step_s: int) -> None:
    """One of three takes a leap second that is none, or none that is one: the two others decide."""
    off_s = -1.0 if step_s == 0 else 1.0
    peers = [replace(peer, lie=lambda s: off_s if s >= 600 else 0.0) if i == liar else peer for i, peer in enumerate(THREE)]
    world = over_new_year(peers, step_s)
    world.advance(1500)
    assert [u.tally == "x" for u in world.snapshot().upstreams] == [i == liar for i in range(3)]
    honest(world.run())


def test_a_table_that_is_valid_needs_no_servers() -> None:
    """It settles the midnight beforehand: there is no second without time."""
    world = over_new_year(THREE, 0, valid=True)
    honest(world.run())
    assert world.served[0, ""] < 20


def test_most_servers_announce_a_leap_second() -> None:
    """Two of three that agree indicate one: it is announced, and taken once it has come. One alone is not believed, and none is against a
    valid table."""
    two = [replace(peer, leap=Leap.INSERT) for peer in (LAN, NEAR)]
    world = over_new_year([*two, FAR], 1)
    world.advance(300)
    assert (world.snapshot().leap, world.snapshot().leap_pending) == ("insert", "+1 s at the end of 2026-12-31")
    honest(world.run())
    for other in (over_new_year([two[0], NEAR, FAR], 0), over_new_year([*two, FAR], 0, valid=True)):
        other.advance(300)
        assert other.snapshot().leap == "normal"
        honest(other.run())


def test_a_pool_of_changing_quality_gives_good_time() -> None:
    """Two hundred servers, of which many lie, vanish, or have bad lines; four are asked at a time. Every packet is covered, who
    lies is asked for no longer than twenty minutes, and there is time for nine tenths of two hours."""
    world = PoolWorld(scenario(duration_s=7200), 1)
    outcome = world.run()
    assert outcome.violations == 0, outcome.worst
    assert 900 < world.longest_lie_s < 1200  # one was found out, and has gone
    assert world.served[0, ""] < 0.1 * sum(world.served.values())
    assert len(world.asked) > 5
