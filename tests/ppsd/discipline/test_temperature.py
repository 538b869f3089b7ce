"""The temperature: learned when it moves the crystal, left alone when the thermometer shows something else, never a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
from refclock_sim.models.oscillator import Oscillator
from refclock_sim.models.thermal import Board, Heat

from ppsd.discipline.estimate import Estimate
from ppsd.discipline.tempcomp.model import ON, Bend, Temperature
from ppsd.discipline.timescale import Timescale
from refclock.sample import NS

pytestmark = pytest.mark.worlds

RAW0, TAI0 = 10**13, 1_800_000_037 * NS
THERMOSTAT = Heat(day=2.0, day_s=3600.0)
SENSOR = "thermometer"


class Run:
    """A crystal whose phase is known to 200 ns, and the thermometer beside it; 5 µs a second."""

    def __init__(self, heat: Heat, seed: int, lies: Callable[[float], str] = lambda _: "", temperature: Temperature | None = None) -> None:
        self.board = Board(heat, seed, lies)
        self.oscillator = Oscillator(seed, 12e-6, 1e-9, [self.board.error])
        self.temperature = Temperature(None) if temperature is None else temperature
        self.raw, self.tai = RAW0, TAI0
        self._gauss = Random(seed).gauss
        self._rate = 0.0

    def go(self, seconds: int, learning: bool = True) -> None:
        """So many seconds; ``learning`` False: without samples."""
        for _ in range(seconds):
            celsius = self.board.celsius()
            if celsius is not None:
                self.temperature.read(self.raw, celsius, SENSOR)
            if learning and self.temperature.due(self.raw):
                seen = self.tai + round(self._gauss(0.0, 200.0))
                self.temperature.learn(Estimate(self.raw, seen, self._rate, 0.0, 0.0, 0.0, 1e3, 1e-8, 100, 200.0), "key")
            error = self.oscillator.advance()
            self._rate = -error
            self.raw += round(NS * (1 + error))
            self.tai += NS


@pytest.mark.parametrize("seed", range(5))
def test_a_thermometer_that_explains_the_crystal_is_used_within_an_hour(seed: int) -> None:
    """0.6 ppm an hour by temperature: in use within 3600 s, said in °C and ppm; three hours later the slope is right to 20 %."""
    run = Run(THERMOSTAT, seed)
    run.go(3600)
    assert run.temperature.in_use
    run.go(7200)
    status = run.temperature.status()
    assert status.ppm_per_kelvin == pytest.approx(-0.008 * (45.0 - 25.0), rel=0.2)
    assert 0.4 < (status.explains_ppm or 0.0) < 0.8
    assert status.words.startswith("temperature 4")
    assert status.words.endswith("ppm, in use")


@pytest.mark.parametrize("seed", range(5))
def test_a_thermometer_of_something_else_is_not_used(seed: int) -> None:
    """Readings of another place, in the same range, over ten hours: never in use, and it is said that it does not help."""
    run = Run(THERMOSTAT, seed, lambda _: "sensor-elsewhere")
    for _ in range(36):
        run.go(1000)
        assert not run.temperature.in_use
    assert "does not help yet" in run.temperature.status().words


@pytest.mark.parametrize("seed", range(3))
def test_a_board_that_nothing_warms_has_no_use_for_it(seed: int) -> None:
    """Sensor noise alone explains nothing: not in use in ten hours."""
    run = Run(Heat(), seed)
    for _ in range(10):
        run.go(3600)
        assert not run.temperature.in_use


@pytest.mark.parametrize(
    ("lie", "after_s", "why"),
    [("sensor-jump", 2, "jumped by 20 K"), ("sensor-frozen", 400, "stood still"), ("sensor-lost", 400, "no reading")],
)
def test_a_thermometer_that_fails_is_left_alone_and_used_again(lie: str, after_s: int, why: str) -> None:
    """A jump, a reading that stands still and silence end the use, with the reason; an hour and a half after they end it is used again."""
    run = Run(THERMOSTAT, 1, lambda t: lie if 5000 <= t < 5500 else "")
    run.go(5000)
    assert run.temperature.in_use
    run.go(after_s)
    run.temperature.expire(run.raw)
    assert not run.temperature.in_use
    assert why in run.temperature.status().why
    run.go(6000)
    assert run.temperature.in_use


def test_nothing_ever_jumps() -> None:
    """Through learning, two jumps of 20 K (3 ppm) and the loss of use: what the temperature adds goes on from where it was to a ns, and its
    rate never changes by more than 0.15 ppm in a second, as 6 K of load can make it."""
    run = Run(Heat(load=6.0), 2, lambda t: "sensor-jump" if 6000 <= t < 9000 else "")
    run.go(10)
    bend = Bend(run.temperature, run.raw)
    before = bend.at(run.raw)
    for _ in range(12_000):
        run.go(1)
        now = bend.at(run.raw)
        assert abs(now[0] - before[0] - now[1]) < 1.0
        assert abs(now[1] - before[1]) < 150.0
        before = now


@pytest.mark.parametrize("seed", range(3))
def test_what_was_learned_is_used_after_a_restart_with_doubt(seed: int) -> None:
    """The saved state puts the thermometer to use with its first reading; one that then shows something else is out within
    three hours, and another thermometer starts from nothing."""
    run = Run(THERMOSTAT, seed)
    run.go(7200)
    state = run.temperature.state()
    again = Temperature(state)
    assert again.was_in_use
    run.temperature = again
    run.go(1)
    assert again.in_use
    assert again.score < ON
    run.go(5000)
    assert again.in_use
    liar = Run(THERMOSTAT, seed, lambda _: "sensor-elsewhere", Temperature(state))
    liar.go(10_800)
    assert not liar.temperature.in_use
    other = Temperature(state)
    other.read(RAW0, 45.0, "another thermometer")
    assert not other.in_use


def test_forecasts_with_the_temperature_are_several_times_better() -> None:
    """Half an hour ahead, over the thermostat's steepest part: the RMS of eight crystals is at most a third of the straight line's."""
    with_it, without = [], []
    for seed in range(8):
        run = Run(THERMOSTAT, 20 + seed)
        run.go(10_800)
        bend, raw, tai, rate = Bend(run.temperature, run.raw), run.raw, run.tai, run._rate
        run.go(1800, learning=False)
        straight = (run.tai - tai) - (run.raw - raw) * (1 + rate)
        without.append(straight)
        with_it.append(straight - bend.at(run.raw)[0])
    assert math.hypot(*with_it) < math.hypot(*without) / 3


def test_a_bent_map_is_continuous_and_its_record_never_claims_less() -> None:
    """In holdover: the map goes on from where it is when the temperature bends it, the published record says what the map says, and a
    record that is read long after it was published has a bound at least as wide as the map's."""
    scale = Timescale(False, 86_400 * NS, 1e9)
    scale.adopt(Estimate(RAW0, TAI0, -12e-6, 1e3, 1e-8, 3.0, 1e3, 1e-8, 100), RAW0, "PPS")
    run = Run(THERMOSTAT, 3)
    run.go(7200)
    bend, start = Bend(run.temperature, run.raw), run.raw - RAW0
    for _ in range(600):
        at = run.raw - start
        before, bound = scale.tai_at(at), scale.bound_ns(at)
        turn = bend.turn(run.raw)
        scale.follow(type(turn)(at, turn.ns, turn.rate, turn.doubt_ns, turn.doubt_rate))
        assert abs(scale.tai_at(at) - before) <= 2
        assert scale.bound_ns(at) >= bound - 1.0
        run.go(1)
    record = scale.record(0, 0, 37)
    for later in (0, NS, 100 * NS, 3600 * NS):
        at = record.raw_ns + later
        assert abs(record.tai_ns + later + round(later * record.rate) - scale.tai_at(at)) <= 2
        claimed = record.bound_ns + record.bound_rate * later + record.bound_wander_ns * (later / NS) ** 1.5
        assert claimed >= scale.bound_ns(at) - 1.0


def test_a_map_that_no_longer_counts_on_it_covers_both() -> None:
    """When the thermometer is given up in holdover, the bound reaches what a map without it would have covered."""
    plain = Estimate(RAW0, TAI0 + 300, -11.99e-6, 2e3, 2e-8, 9.0, 1e3, 1e-8, 100)
    scale = Timescale(False, 86_400 * NS, 1e9)
    scale.adopt(Estimate(RAW0, TAI0, -12e-6, 1e3, 1e-8, 3.0, 1e3, 1e-8, 100), RAW0, "PPS")
    run = Run(THERMOSTAT, 3)
    run.go(100)
    turn = type(Bend(run.temperature, run.raw).turn(run.raw))(RAW0 + 600 * NS, 40_000.0, 90.0, 100.0, 1.0)
    scale.follow(turn)
    scale.unlearn(plain)
    alone = Timescale(False, 86_400 * NS, 1e9)
    alone.adopt(plain, RAW0, "PPS")
    for s in (600, 1000, 3600):
        at = RAW0 + s * NS
        assert abs(scale.tai_at(at) - alone.tai_at(at)) + alone.bound_ns(at) <= scale.bound_ns(at) + 5.0
