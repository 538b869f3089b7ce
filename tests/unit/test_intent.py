"""Receivers configured by intent, over ptys, at every speed: what was wanted is what the simulated receiver is set to, and what it says."""

from __future__ import annotations

import io
import json
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from refclock_sim import receiver as simulation
from refclock_sim.gnss import Gnss
from refclock_sim.pty import Pty

from ppsd import receiver_tool
from ppsd.config import Config
from ppsd.devices import intent
from refclock.config import BAUDS, ReceiverSource
from refclock.configure import SENTENCES, plan
from refclock.inquiry import findings, questions
from refclock.intent import Intent
from refclock.kernel import LocalClock
from refclock.receiver import Receiver
from refclock.sample import NS, Instant
from refclock.serial_port import SerialPort
from refclock.timescales import LeapTable
from refclock.upkeep import News, Upkeep

TAI0 = int(datetime(2026, 12, 31, 12, tzinfo=UTC).timestamp()) + 37
KINDS = ("ublox8-nmea", "ublox8-timing", "ublox9", "mtk")


def simulated(model: str, baud: int | None = None) -> simulation.Receiver:
    return simulation.Receiver(simulation.MODELS[model], Gnss(7, TAI0, LeapTable(), fix_s=0), 7, baud)


class Bench:
    """A receiver behind a pty, on simulated time: what is due by then is written to it, what the host wrote is obeyed. The host's side is a
    real serial port."""

    def __init__(self, directory: Path, model: str, baud: int, wanted: Intent | None = None, **config: object) -> None:
        self.sim = simulated(model, baud)
        self.pty = Pty(directory / "tty")
        self.source = ReceiverSource(device=str(directory / "tty"), baud=baud, **config)  # type: ignore[arg-type]
        self.port = SerialPort(self.source.device, baud, LocalClock())
        self.intent = wanted or intent(self.source, self.port)
        self.receiver, self.upkeep = Receiver(1_700_000_000), Upkeep(self.intent)
        self.second = TAI0
        self.told: list[News] = []
        self.carried: list[int] = []
        """Bytes of each second."""
        self._line: list[tuple[int, bytes]] = []

    def run(self, seconds: int) -> None:
        for tai_s in range(self.second, self.second + seconds):
            chunks = self.sim.cycle(tai_s)
            self.carried.append(sum(len(chunk.data) for chunk in chunks))
            self._line += [(tai_s * NS + chunk.offset_ns, chunk.data) for chunk in chunks]
            for now in range(tai_s * NS, (tai_s + 1) * NS, NS // 10):
                arrived = [part for part in sorted(self._line) if part[0] <= now]
                self._line = [part for part in self._line if part[0] > now]
                for _end, data in arrived:
                    self.pty.send(data, self.sim.baud)
                while select.select([self.port.fileno()], [], [], 0)[0]:
                    data, _at = self.port.read()
                    self.receiver.feed(data, Instant(now - 37 * NS, now), self.sim.byte_ns)
                if wish := self.upkeep.step(self.receiver, now):
                    self.port.write(wish)
                self.told += self.upkeep.news()
                if heard := self.pty.receive():
                    self._line += self.sim.hear(heard, now)
        self.second += seconds

    def close(self) -> None:
        self.port.close()
        self.pty.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[list[Bench]]:
    """Whatever is put in is closed in the end."""
    benches: list[Bench] = []
    yield benches
    for b in benches:
        b.close()


@pytest.mark.parametrize("baud", BAUDS)
@pytest.mark.parametrize("model", KINDS)
def test_set_up_at_every_speed_and_again_after_a_dip(tmp_path: Path, bench: list[Bench], model: str, baud: int) -> None:
    """Everything is acknowledged; afterwards no second holds more bytes than the line carries, the sky comes where the speed allows it, and
    a dip that nobody announced is put right without a second report."""
    b = Bench(tmp_path, model, baud)
    bench.append(b)
    b.run(60)
    assert [(news.what, news.complete) for news in b.told] == [("receiver configured", True)]
    assert set(b.told[0].results) == {"done"}
    b.carried.clear()
    b.run(60)
    assert max(b.carried) <= baud // 10
    wanted = dict(b.sim.settings.rates)
    assert b.receiver.labels > 100
    if model != "mtk":
        assert wanted["NAV-PVT"] == wanted["TIM-TP"] == 1
        assert (wanted.get("NAV-SAT", 0) == 5) is (baud > (9600 if model == "ublox9" else 4800))
        assert not any(wanted.get(name) for name in SENTENCES)
    b.sim.power_dip(greets=False)
    b.run(120)
    assert b.sim.settings.rates == wanted
    assert len(b.told) == 1


@pytest.mark.parametrize("model", KINDS[:3])
@pytest.mark.parametrize("baud", BAUDS)
def test_sentences_that_are_kept_do_not_overrun_the_line(tmp_path: Path, bench: list[Bench], model: str, baud: int) -> None:
    """keep_nmea: RMC and GGA stay at each speed that carries them, the long ones only where there is room."""
    b = Bench(tmp_path, model, baud, keep_nmea=True)
    bench.append(b)
    b.run(60)
    b.carried.clear()
    b.run(30)
    assert max(b.carried) <= baud // 10
    if baud >= 9600:
        assert b.sim.settings.rates["RMC"] == b.sim.settings.rates["GGA"] == 1
    if baud >= 38_400:
        assert b.sim.settings.rates["GSV"] == 5


@pytest.mark.parametrize("model", ["ublox8-timing", "ublox9"])
def test_every_key_reaches_the_receiver(tmp_path: Path, bench: list[Bench], model: str) -> None:
    """Cable, width, model, time base, a fixed position: read back from the receiver itself, all as wanted; and told in words."""
    config = {"cable_delay_ns": 73, "pulse_width_ms": 20, "time_base": "gnss", "fixed_position": "47.5 -8.25 400.5", "position_accuracy_m": 2}
    b = Bench(tmp_path, model, 38_400, **config)
    bench.append(b)
    b.run(60)
    assert set(b.told[0].results) == {"done"}
    assert b.told[0].pulse_set
    assert b.sim.settings.mode == 2
    found = {f.name: f for f in read_back(b)}
    assert [f.name for f in found.values() if f.agrees is not True] == []
    assert found["pulse"].found == "once a second, 20 ms, with a fix only, rising edge on the second of GNSS time, 73 ns of cable taken off"
    assert found["timing mode"].found == "fixed at 47.5000000 -8.2500000 400.50, ±2 m"
    assert found["stationary"].found == "stationary"
    assert found["jamming monitor"].found == "on"
    assert b.receiver.sky is not None
    assert b.receiver.sky.mode.name == "TIME_ONLY"


def read_back(b: Bench) -> list:  # type: ignore[type-arg]
    """What the receiver says that it is set to."""
    from refclock.dialogue import Configurator  # noqa: PLC0415
    from refclock.framing import Framer  # noqa: PLC0415

    identity = b.told[-1].identity
    talk, framer, now = Configurator(questions(identity, b.intent)), Framer(), b.second * NS
    while not talk.finished:
        if wish := talk.send(now):
            for _end, data in b.sim.hear(wish, now):
                for frame in framer.feed(data, Instant(0, now), 0):
                    talk.hear(frame, now)
        now += NS // 10
    return findings(identity, b.intent, talk.told)
