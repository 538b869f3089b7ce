"""A receiver's line as the daemon opens it: the receiver behind it is set up, or only listened to."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from refclock_sim.ports.plug import SimulatedClock
from refclock_sim.ports.wire import TICK_NS, Wire
from refclock_sim.receiver import output as simulation
from refclock_sim.receiver.gnss import Gnss

from ppsd.clock.sources import Line
from ppsd.config.tables import Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Configured, Reported
from ppsd.discipline.saved import Saved
from ppsd.discipline.source import ReceiverSource
from refclock import config
from refclock.kernel.clocks import LocalClock
from refclock.sample import NS, SourceId
from refclock.timescales import LeapTable

pytestmark = pytest.mark.device


@pytest.mark.parametrize("configure", [True, False])
def test_a_receiver_is_set_up_over_its_line(configure: bool) -> None:
    """Through a real tty: asked, told everything, reported once; with configure = false not a byte is written."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    tai_s = int(datetime.now(UTC).timestamp()) + 37
    sim = simulation.Receiver(simulation.MODELS["ublox8-nmea"], Gnss(7, tai_s, LeapTable(), fix_s=0), 7)
    source = config.ReceiverSource(name="gps", device=os.ttyname(slave), baud=9600, pps="", configure=configure)
    clock = LocalClock()
    engine = Engine(Config(sources=(source,)), Saved(), clock.now(), simulated=True, version="test", pid=1)
    line = Line(source, clock, engine.not_before_s)
    seen: list[Configured] = []
    written = b""
    try:
        for i in range(60):
            os.write(master, b"".join(chunk.data for chunk in sim.cycle(tai_s + i)))
            for _ in range(3):
                while select.select([line.fileno()], [], [], 0.02)[0]:
                    for event in line.read():
                        engine.handle(event)
                        assert isinstance(event, Reported | Configured)
                        seen += [event] if isinstance(event, Configured) else []
                line.tick(clock.now())
                time.sleep(0.005)
                if select.select([master], [], [], 0)[0]:
                    wish = os.read(master, 4096)
                    written += wish
                    os.write(master, b"".join(data for _, data in sim.hear(wish, (tai_s + i + 1) * NS)))
    finally:
        line.close()
        os.close(master)
        os.close(slave)
    if not configure:
        assert (written, seen) == (b"", [])
        return
    assert [event.what for event in seen] == ["receiver configured"]
    assert set(seen[0].results) == {"done"}
    assert sim.settings.rates["NAV-PVT"] == 1
    assert sim.settings.rates["RMC"] == 0


@pytest.mark.parametrize(("baud", "bits"), [(9600, "7E1"), (4800, "7N2"), (57600, "8N1")])
def test_the_daemon_finds_speed_and_format_and_follows_a_change(baud: int, bits: str) -> None:
    """Through a real tty in simulated time: labels come within 8 s, and again within 20 s after the receiver was set to another speed."""
    master, slave = os.openpty()
    tai_s = 1_900_000_000
    sim = simulation.Receiver(simulation.MODELS["minimal"], Gnss(7, tai_s, LeapTable(), fix_s=0), 7, baud)
    sim.bits = bits
    wire = Wire(sim, tai_s, begin_ns=2 * NS + NS // 3, listens=False)
    clock = SimulatedClock(wire.now)
    source = config.ReceiverSource(name="gps", device=os.ttyname(slave), pps="", configure=False)
    engine = Engine(Config(sources=(source,)), Saved(), clock.now(), simulated=True, version="test", pid=1)
    line = Line(source, clock, engine.not_before_s)
    receiver = engine.sources[SourceId("gps")]
    assert isinstance(receiver, ReceiverSource)

    def run(until: Callable[[], bool], limit_s: float) -> float:
        began = wire.now
        while not until() and wire.now - began < limit_s * NS:
            data = wire.read(line.baud)
            clock.ns = wire.now
            if data:
                os.write(master, data)
                for event in line.read():
                    engine.handle(event)
            if wire.now // NS != (wire.now - TICK_NS) // NS:
                line.tick(clock.now())
        return (wire.now - began) / NS

    try:
        assert run(lambda: receiver.time.labels > 0, 8.0) < 8
        assert run(lambda: str(baud) in line.what, 2.0) < 2
        sim.baud = 38400
        so_far = receiver.time.labels
        assert run(lambda: receiver.time.labels > so_far + 2, 20.0) < 20
        run(lambda: "38400" in line.what, 2.0)
        assert "at 38400 baud" in line.what
    finally:
        line.close()
        os.close(master)
        os.close(slave)
