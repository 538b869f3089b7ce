"""The engine and the thermometer: what is published, logged and kept when the temperature is used and when it fails."""

from __future__ import annotations

from itertools import pairwise

import pytest
from refclock_sim.models.oscillator import Oscillator
from refclock_sim.models.thermal import Board, Heat

from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Effect, LeapFileRead, Note, Publish, Sampled, SourceFound, TemperatureLost, TemperatureRead, Ticked
from ppsd.discipline.saved import Saved
from ppsd.snapshot import Mode
from refclock.config import ShmSource
from refclock.record import Record
from refclock.sample import NS, ForeignSample, Instant, SourceId
from refclock.timescales import LeapTable

pytestmark = pytest.mark.worlds

SOURCE = SourceId("shm0")
TAI0 = 1_800_000_037 * NS
SENSOR = "/sys/class/thermal/thermal_zone0/temp"


class Machine:
    """An engine with exact samples each second of a crystal that a thermostat moves by 0.6 ppm an hour."""

    def __init__(self, temperature: str = "auto") -> None:
        self.board = Board(Heat(day=2.0, day_s=3600.0), 5)
        self.oscillator = Oscillator(5, 12e-6, 1e-9, [self.board.error])
        self.raw, self.tai = 5000 * NS, TAI0
        self.config = Config(clock=ClockConfig(temperature=temperature), sources=(ShmSource(name=str(SOURCE), unit=0, bias_us=1.0),))
        self.out: list[Effect] = []
        self.boot(Saved(), None)

    def boot(self, state: Saved, resume: Record | None) -> None:
        """A new engine, on the same machine."""
        self.engine = Engine(self.config, state, self.at(), simulated=False, version="test", pid=1, resume=resume)
        self.engine.handle(LeapFileRead(LeapTable(), "", self.at()))
        self.engine.handle(SourceFound(SOURCE, "samples", self.at()))

    def at(self) -> Instant:
        return Instant(LeapTable().tai_to_utc_ns(self.tai), self.raw)

    def go(self, seconds: int, samples: bool = True, thermometer: bool = True) -> None:
        """So many seconds."""
        for _ in range(seconds):
            celsius = self.board.celsius()
            assert celsius is not None
            if thermometer:
                self.out += self.engine.handle(TemperatureRead(SENSOR, celsius, self.at()))
            if samples:
                self.out += self.engine.handle(Sampled(SOURCE, ForeignSample(self.at(), 0), self.at().shifted(1000)))
            self.out += self.engine.handle(Ticked(self.at().shifted(900_000_000)))
            self.raw += round(NS * (1 + self.oscillator.advance()))
            self.tai += NS

    def published(self) -> list[Record]:
        return [e.record for e in self.out if isinstance(e, Publish)]

    def logged(self) -> list[str]:
        return [e.event for e in self.out if isinstance(e, Note)]


@pytest.fixture(scope="module")
def learned() -> Machine:
    """After an hour and a half."""
    machine = Machine()
    machine.go(5400)
    return machine


def test_holdover_follows_the_thermometer_and_gives_it_up_when_it_fails(learned: Machine) -> None:
    """Without samples a record is published with every reading, its rate following the temperature; a thermometer that cannot be read is
    logged with why, and within two seconds the bound grows as if there were none. Then samples put everything right again."""
    assert "temperature in use" in learned.logged()
    snapshot = learned.engine.snapshot(learned.at())
    assert snapshot.temperature is not None
    assert snapshot.temperature.in_use
    assert snapshot.temperature.sensor == SENSOR
    learned.go(15, samples=False)
    assert learned.engine.mode is Mode.HOLDOVER
    learned.out.clear()
    learned.go(600, samples=False)
    records = learned.published()
    assert len(records) == 600
    assert abs(records[-1].rate - records[0].rate) > 50e-9
    assert all(b.raw_ns - a.raw_ns == pytest.approx(NS, rel=1e-4) for a, b in pairwise(records))
    assert abs(learned.engine.timescale.tai_at(learned.raw) - learned.tai) <= learned.engine.timescale.bound_ns(learned.raw)
    before = records[-1]
    learned.out.clear()
    learned.out += learned.engine.handle(TemperatureLost("it cannot be read: look at its wires", learned.at()))
    learned.go(2, samples=False, thermometer=False)
    assert {"temperature no longer used", "temperature cannot be read"} <= set(learned.logged())
    after = learned.published()[-1]
    assert after.bound_ns > before.bound_ns
    assert after.rate == pytest.approx(before.rate, abs=5e-9)
    told = learned.engine.snapshot(learned.at()).temperature
    assert told is not None
    assert told.words == "temperature not read: it cannot be read: look at its wires"
    learned.go(60)
    assert learned.engine.mode is Mode.TRACK
    assert abs(learned.engine.timescale.tai_at(learned.raw) - learned.tai) < 1000


def test_silence_of_the_thermometer_is_noticed() -> None:
    """No reading for more than ten seconds while the map counts on it: not used any more."""
    machine = Machine()
    machine.go(5400)
    machine.go(15, samples=False)
    machine.go(12, samples=False, thermometer=False)
    assert "temperature no longer used" in machine.logged()


def test_a_restart_in_holdover_goes_on_with_what_was_learned() -> None:
    """The record left by a run that counted on the temperature is resumed with a bound that allows for a crystal without it; the state
    puts the thermometer to use with its first reading, and the map is bent again."""
    machine = Machine()
    machine.go(5400)
    state = machine.engine.state()
    machine.go(60, samples=False)
    left = machine.published()[-1]
    machine.boot(state, left)
    machine.out.clear()
    assert machine.engine.mode is Mode.HOLDOVER
    estimate = machine.engine.timescale.estimate
    assert estimate is not None
    assert estimate.bound_wander_ns > left.bound_wander_ns
    machine.go(300, samples=False)
    assert len(machine.published()) == 300
    assert abs(machine.engine.timescale.tai_at(machine.raw) - machine.tai) <= machine.engine.timescale.bound_ns(machine.raw)


def test_off_means_off() -> None:
    """With clock.temperature = "off" readings change nothing, nothing is told of them and nothing is saved."""
    machine = Machine("off")
    machine.go(30)
    assert machine.engine.snapshot(machine.at()).temperature is None
    assert machine.engine.state().temperature is None
