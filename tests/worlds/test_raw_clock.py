"""The raw clock stands still, jumps or changes its rate under the real engine and packet code."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from refclock_sim.worlds.scenario import Fault, OscillatorModel, PulseModel, Ramp, ReceiverModel, Scenario
from refclock_sim.worlds.world import World

from ppsd.discipline.events import RawClockChanged
from ppsd.snapshot import Mode
from refclock.condition import Code
from refclock.sample import NS

AT_S = 600
"""When the fault begins."""
PI = PulseModel("pi", 4.0)
NO_PULSE = PulseModel("none")


@dataclass
class Seen:
    """``beyond``: seconds since the fault of packets beyond their bound; ``modes``: by second since the fault."""

    world: World
    beyond: list[int] = field(default_factory=list)
    modes: dict[int, Mode] = field(default_factory=dict)

    @property
    def locked_s(self) -> int:
        """Seconds from the fault until it stays locked."""
        return max((k for k, mode in self.modes.items() if mode is not Mode.TRACK), default=0)

    @property
    def told(self) -> list[Code]:
        """What people are told of the daemon and of its sources at the end."""
        snapshot = self.world.snapshot()
        return [c.code for c in (*snapshot.conditions, *(c for s in snapshot.sources for c in s.conditions))]


def run(
    *faults: Fault,
    seed: int = 1,
    after_s: int = 60,
    pulse: PulseModel = PI,
    receiver: ReceiverModel | None = None,
    ramps: tuple[Ramp, ...] = (),
    config: dict[str, object] | None = None,
) -> Seen:
    """A world with these faults, until ``after_s`` after ``AT_S``."""
    scenario = Scenario(
        name="raw-clock",
        claim="",
        duration_s=AT_S + after_s,
        oscillator=OscillatorModel(ramps=ramps),
        pulse=pulse,
        receiver=receiver or ReceiverModel("nmea"),
        faults=faults,
        config=config or {},
    )
    world = World(scenario, seed)
    seen = Seen(world)
    for k in range(scenario.duration_s):
        before = world.outcome.violations
        world.advance(k + 1)
        if world.outcome.violations > before:
            seen.beyond.append(k - AT_S)
        if k >= AT_S:
            seen.modes[k - AT_S] = world.engine.mode
    assert all(k >= 0 for k in seen.beyond)
    return seen


def stop(length_s: float) -> Fault:
    return Fault("vm-stop", AT_S, value=length_s)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("length_s", [0.1, 0.3, 0.5, 1.003, 2.5, 120.0])
def test_a_stopped_machine_begins_anew_within_seconds(length_s: float, seed: int) -> None:
    """A virtual machine is stopped and its clocks with it: a few pulses later nothing wrong is served, and it is LOCKED again within
    25 s of running, with the labels' evidence as before. Stops of whole seconds leave the pulses' phase nearly in place."""
    seen = run(stop(length_s), seed=seed, after_s=60 + round(length_s))
    assert [k for k in seen.beyond if k > length_s + 4] == []
    assert seen.locked_s <= length_s + 25
    assert Code.RAW_CLOCK_JUMPED in seen.told
    assert f"stood still for {length_s:.1f}" in seen.world.snapshot().conditions[0].words or length_s not in (0.3, 2.5)


@pytest.mark.parametrize("by_s", [0.3, 2.5, 100.2])
def test_a_jump_ahead_is_noticed_as_well(by_s: float) -> None:
    """The raw clock jumps ahead, as after the migration of a machine: the same."""
    seen = run(Fault("raw-jump", AT_S, value=by_s))
    assert [k for k in seen.beyond if k > 3] == []
    assert seen.locked_s <= 25
    assert Code.RAW_CLOCK_JUMPED in seen.told


def delayed(by_s: float, from_s: int = 300) -> Fault:
    return Fault("label-delay", from_s, value=by_s)


@pytest.mark.parametrize("delay_s", [0.0, 0.3])
@pytest.mark.parametrize("length_s", [0.0003, 0.005, 0.03])
def test_a_short_pause_is_in_the_bound(length_s: float, delay_s: float) -> None:
    """A pause that messages cannot show moves the pulses alone: the bound reaches out to them until they are believed, also when the
    messages have come later for a while."""
    seen = run(stop(length_s), delayed(delay_s), after_s=120)
    assert [k for k in seen.beyond if k > 3] == []
    assert seen.locked_s <= 40


@pytest.mark.parametrize("fault", [Fault("raw-jump", AT_S, value=2.5), stop(2.7)], ids=["jump", "stop"])
@pytest.mark.parametrize(("delay_s", "locked"), [(0.3, True), (0.85, False), (1.2, False)])
def test_after_messages_became_late_the_raw_clock_is_watched_as_before(delay_s: float, locked: bool, fault: Fault) -> None:
    """Messages have come later for five minutes. A jump or a stop is noticed all the same; messages in doubt name no second after it."""
    seen = run(delayed(delay_s), fault)
    assert [k for k in seen.beyond if k > 6] == []
    assert (seen.modes[59] is Mode.TRACK) is locked


@pytest.mark.parametrize(("kind", "delay_s"), [("nmea", 2.5), ("nmea", 1.4), ("ublox8", 2.5)])
def test_late_messages_alone_never_move_the_second(kind: str, delay_s: float) -> None:
    """Without a pulse messages become late: nothing is served from then on, and never a wrong second, however long it lasts."""
    seen = run(delayed(delay_s, AT_S), pulse=NO_PULSE, receiver=ReceiverModel(kind), after_s=150)
    assert seen.beyond == []
    assert seen.modes[149] is not Mode.TRACK


@pytest.mark.parametrize(
    ("kind", "pulse", "config"),
    [
        ("ublox8", PI, {}),
        ("mtk", PI, {"message_delay_ms": 497}),
        ("nmea", PulseModel("usb"), {"pps_bias_us": 1000}),
        ("nmea", PulseModel("pi", 4.0, rate_hz=5.0), {"message_delay_ms": 140}),
    ],
    ids=["ublox", "late messages", "usb", "5 Hz"],
)
def test_whatever_the_receiver(kind: str, pulse: PulseModel, config: dict[str, object]) -> None:
    """Binary protocols, messages half a second late, pulses over USB and five a second: LOCKED again after a stop of 2.3 s."""
    seen = run(stop(2.3), pulse=pulse, receiver=ReceiverModel(kind), config=config)
    assert [k for k in seen.beyond if k > 7] == []
    assert seen.locked_s <= 30


def test_messages_alone_show_that_the_clock_stood_still() -> None:
    """Without a pulse: labels that come 2.5 s early prove it, for no line makes them early. Served again within half a minute."""
    seen = run(stop(2.5), pulse=NO_PULSE)
    assert [k for k in seen.beyond if k > 7] == []
    assert seen.locked_s <= 30


@pytest.mark.parametrize("fault", [stop(1.0), Fault("raw-jump", AT_S, value=2.0)], ids=["stop", "jump"])
def test_messages_alone_that_move_by_whole_seconds_are_not_served(fault: Fault) -> None:
    """Without a pulse a move by whole seconds may be another leap count, or a line that delays: nothing is served until the labels have
    been steady for as long as after a cold start."""
    seen = run(fault, pulse=NO_PULSE, after_s=300)
    assert [k for k in seen.beyond if k > 5] == []
    assert seen.modes[299] is not Mode.TRACK


@pytest.mark.parametrize("ppm", [5, -5, 50, -50, 300])
def test_another_rate_is_in_the_bound_and_learned(ppm: int) -> None:
    """The raw clock changes its rate at once. One receiver cannot tell that from forged signals: the bound covers both within a few pulses,
    and after five steady minutes the new rate is taken up, and people are told."""
    seen = run(Fault("raw-rate", AT_S, value=ppm), after_s=400)
    assert [k for k in seen.beyond if k > 3] == []
    assert abs(ppm) > 5 or not seen.beyond
    assert 300 <= seen.locked_s <= 360
    assert Code.RAW_CLOCK_CHANGED in seen.told


def test_a_rate_that_comes_back() -> None:
    """A board is throttled for a minute: the bound covers it all along, and it is LOCKED again."""
    seen = run(Fault("raw-rate", AT_S, AT_S + 60, value=20), after_s=500)
    assert [k for k in seen.beyond if k > 3] == []
    assert seen.locked_s <= 420


@pytest.mark.parametrize("ramp", [Ramp(4.0, AT_S, over_s=60), Ramp(4.0, AT_S, lag_s=20)], ids=["linear", "lag"])
def test_heat_outruns_no_bound(ramp: Ramp) -> None:
    """4 ppm within a minute, as of a board without a heat sink: no packet beyond its bound, LOCKED again."""
    seen = run(ramps=(ramp,), after_s=460)
    assert seen.beyond == []
    assert seen.modes[459] is Mode.TRACK


@pytest.mark.parametrize("ppm", [100, 450])
def test_a_counter_that_the_kernel_gives_up_is_learned_anew_at_once(ppm: float) -> None:
    """The kernel says that it counts on another counter: the bound allows for any rate at once, nobody suspects the receiver, and the new
    rate is learned within seconds."""
    scenario = Scenario("counter", "", AT_S + 60, pulse=PI, receiver=ReceiverModel("nmea"), faults=(Fault("raw-rate", AT_S, value=ppm),))
    world = World(scenario, 1)
    world.advance(AT_S)
    before = world.engine.timescale.estimate
    assert before is not None
    at = world._instant(0)
    world._effects(world.engine.handle(RawClockChanged("tsc", "hpet", at)))
    assert world.engine.timescale.bound_ns(at.mono_ns + NS) >= before.bound_ns + 500_000
    world.advance(AT_S + 20)
    assert world.engine.mode is Mode.TRACK
    world.advance(AT_S + 60)
    assert not world.outcome.violations
    snapshot = world.snapshot()
    assert [c.code for c in snapshot.conditions] == [Code.RAW_CLOCK_CHANGED]
    assert "hpet instead of tsc" in snapshot.conditions[0].words
    assert not [c for c in snapshot.sources[0].conditions if c.code is Code.TIME_RUNS_AWAY]
