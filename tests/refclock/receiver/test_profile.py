"""Receivers configured by intent, over ptys, at every speed: what was wanted is what the simulated receiver is set to, and what it says."""

from __future__ import annotations

import io
import json
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from refclock_sim.ports.pty import Pty
from refclock_sim.receiver import output as simulation
from refclock_sim.receiver.gnss import Gnss

from ppsd.cli import receiver as receiver_tool
from ppsd.config.tables import Config
from refclock.config import BAUDS, ReceiverSource
from refclock.devices.serial_port import SerialPort
from refclock.kernel.clocks import LocalClock
from refclock.protocols.stream import ReceiverStream
from refclock.receiver.configurator import Configurator, News
from refclock.receiver.configure import SENTENCES, plan
from refclock.receiver.profile import TimingProfile, timing_profile
from refclock.receiver.readback import findings, questions
from refclock.sample import NS, Instant
from refclock.timescales import LeapTable

pytestmark = pytest.mark.device

TAI0 = int(datetime(2026, 12, 31, 12, tzinfo=UTC).timestamp()) + 37
KINDS = ("ublox8-nmea", "ublox8-timing", "ublox9", "mtk")


def simulated(model: str, baud: int | None = None) -> simulation.Receiver:
    return simulation.Receiver(simulation.MODELS[model], Gnss(7, TAI0, LeapTable(), fix_s=0), 7, baud)


class Bench:
    """A receiver behind a pty, on simulated time: what is due by then is written to it, what the host wrote is obeyed. The host's side is a
    real serial port."""

    def __init__(self, directory: Path, model: str, baud: int, wanted: TimingProfile | None = None, **config: object) -> None:
        self.sim = simulated(model, baud)
        self.pty = Pty(directory / "tty")
        self.source = ReceiverSource(device=str(directory / "tty"), baud=baud, **config)  # type: ignore[arg-type]
        self.port = SerialPort(self.source.device, baud, LocalClock())
        self.profile = wanted or timing_profile(self.source, baud)
        self.receiver, self.configurator = ReceiverStream(1_700_000_000), Configurator(self.profile)
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
                if wish := self.configurator.step(self.receiver, now):
                    self.port.write(wish)
                self.told += self.configurator.news()
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
    assert set(b.told[0].by_result()) == {"done"}
    b.carried.clear()
    b.run(60)
    assert max(b.carried) <= baud // 10
    wanted = dict(b.sim.settings.rates)
    assert b.receiver.labels > 100
    if model != "mtk":
        assert wanted["NAV-PVT"] == wanted["TIM-TP"] == 1
        assert (wanted.get("NAV-SAT", 0) == 5) is (baud > 4800)
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
    place = {"fixed_position": "47.5 -8.25 400.5", "position_accuracy_m": 2}
    b = Bench(tmp_path, model, 38_400, cable_delay_ns=73, pulse_width_ms=20, time_base="gnss", **place)
    bench.append(b)
    b.run(60)
    assert set(b.told[0].by_result()) == {"done"}
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
    from refclock.protocols.framing import Framer  # noqa: PLC0415
    from refclock.receiver.commands import CommandQueue  # noqa: PLC0415

    identity = b.told[-1].identity
    talk, framer, now = CommandQueue(questions(identity, b.profile)), Framer(), b.second * NS
    while not talk.finished:
        if wish := talk.send(now):
            for _end, data in b.sim.hear(wish, now):
                for frame in framer.feed(data, Instant(0, now), 0):
                    talk.hear(frame, now)
        now += NS // 10
    return findings(identity, b.profile, talk.told)


@pytest.mark.parametrize("model", ["ublox8-timing", "ublox9"])
def test_a_timing_receiver_surveys_and_tells_how_far_it_is(tmp_path: Path, bench: list[Bench], model: str) -> None:
    """By its name it is asked to; a new start of the daemon, which asks for the same, does not begin the survey anew; after it the fix is
    time-only."""
    b = Bench(tmp_path, model, 38_400, survey_in_s=180)
    bench.append(b)
    b.run(60)
    assert b.sim.settings.mode == 1
    began = b.sim.settings.survey_began_s
    b.receiver, b.configurator = ReceiverStream(1_700_000_000), Configurator(b.profile)
    b.run(60)
    assert len(b.told) == 2
    assert b.sim.settings.survey_began_s == began
    survey = next(f for f in read_back(b) if f.name == "survey")
    assert survey.found.startswith("goes on: ")
    b.run(90)
    survey = next(f for f in read_back(b) if f.name == "survey")
    assert survey.found.startswith("done: 180 s, position known to ±1.5 m")
    assert 'fixed_position = "ecef 3975149.12 -142.75 4971281.30"' in survey.found
    assert b.receiver.sky is not None
    assert b.receiver.sky.mode.name == "TIME_ONLY"


def test_others_are_not_asked_to_survey_and_say_so_when_they_are(tmp_path: Path, bench: list[Bench]) -> None:
    """survey_in not set: nothing; fixed_position on a navigation receiver: refused, with everything else done."""
    b = Bench(tmp_path, "ublox8-nmea", 38_400)
    bench.append(b)
    b.run(40)
    assert "timing mode" not in str(b.told[0].results)
    c = Bench(tmp_path, "ublox8-nmea", 38_400, fixed_position="47.5 -8.25 400.5")
    bench.append(c)
    c.run(40)
    assert c.told[0].by_result()["refused"] == ("timing mode",)
    assert c.told[0].by_result()["left_out"] == ("TIM-SVIN",)
    assert c.told[0].complete
    refused = next(f for f in read_back(c) if f.name == "timing mode")
    assert (refused.agrees, "no timing receiver" in refused.found) == (None, True)


@pytest.mark.parametrize("model", KINDS)
def test_one_that_answers_late_is_set_up_all_the_same(tmp_path: Path, bench: list[Bench], model: str) -> None:
    """1.3 s behind every question: set up all the same, nothing taken for the answer to something else."""
    b = Bench(tmp_path, model, 38_400)
    bench.append(b)
    b.sim.late_ns = 1300 * simulation.MS
    b.run(150)
    assert [(news.complete, set(news.by_result())) for news in b.told] == [(True, {"done"})]


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("model", KINDS)
def test_one_that_forgets_half_way_is_set_up_in_the_end(tmp_path: Path, bench: list[Bench], model: str, greets: bool) -> None:
    """Power lost in the middle of being set up: in the end all of it is as wanted."""
    b = Bench(tmp_path, model, 9600)
    bench.append(b)
    while not b.configurator._talk.results:
        b.run(1)
    b.sim.power_dip(greets=greets)
    b.run(150)
    assert b.told[-1].complete
    whole = Bench(tmp_path, model, 9600)
    bench.append(whole)
    whole.run(60)
    assert b.sim.settings.rates == whole.sim.settings.rates
    assert b.sim.settings.pulse == whole.sim.settings.pulse
    assert b.sim.settings.values == whole.sim.settings.values
    assert b.sim.settings.pmtk_values == whole.sim.settings.pmtk_values


@pytest.mark.parametrize(("model", "command"), [("ublox8-nmea", (6, 0x31)), ("mtk", 285)])
def test_one_that_refuses_is_told_item_by_item(tmp_path: Path, bench: list[Bench], model: str, command: tuple[int, int] | int) -> None:
    """A NAK is told under the item's name, the rest is done, and the cable is then taken off in software."""
    b = Bench(tmp_path, model, 38_400, cable_delay_ns=100)
    bench.append(b)
    b.sim.settings.refuses.add(command)
    b.run(60)
    assert b.told[0].by_result()["refused"] == ("pulse",)
    assert b.told[0].complete
    assert not b.told[0].pulse_set


def test_save_keeps_the_settings_beyond_a_loss_of_power(tmp_path: Path, bench: list[Bench]) -> None:
    """save: CFG-CFG behind all else, or the kept layers of every key; of MediaTek, which keeps nothing, it is told."""
    b = Bench(tmp_path, "mtk", 9600, save=True)
    bench.append(b)
    b.run(40)
    assert b.told[0].by_result()["left_out"][0].startswith("save (MediaTek receivers keep no settings")
    identity = "u-blox LEA-M8T-0 EXT CORE 3.01 hardware 00080000"
    assert plan(identity, replace(b.profile, save=True))[-1].name == "save"
    keyed = plan("u-blox ZED-F9T EXT hardware 00190000", replace(b.profile, save=True))
    assert {item.frame[7] for item in keyed if item.frame[3] == 0x8A} == {7}


@contextmanager
def playing(directory: Path, model: str) -> Iterator[tuple[simulation.Receiver, Path]]:
    """A receiver behind a pty, in real time but without a line's pace, in a thread."""
    sim, stop = simulated(model, 115_200), threading.Event()
    with Pty(directory / "tty") as pty:

        def run() -> None:
            tai_s, due = TAI0, time.monotonic()
            while not stop.is_set():
                if time.monotonic() >= due:
                    for chunk in sim.cycle(tai_s):
                        pty.send(chunk.data, 0)
                    tai_s, due = tai_s + 1, due + 0.2
                if heard := pty.receive():
                    for _end, data in sim.hear(heard, tai_s * NS):
                        pty.send(data, 0)
                stop.wait(0.002)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield sim, directory / "tty"
        finally:
            stop.set()
            thread.join()


def command(action: str, device: Path, *, save: bool = False, as_json: bool = False, **config: object) -> tuple[int, str]:
    out = io.StringIO()
    source = ReceiverSource(name="gps", device=str(device), **config)  # type: ignore[arg-type]
    code = receiver_tool.receiver_command(action, str(device), Config(sources=(source,)), save=save, as_json=as_json, out=out)
    return code, out.getvalue()


@pytest.mark.parametrize("model", KINDS)
def test_show_tells_what_configure_and_reset_did(tmp_path: Path, model: str) -> None:
    """show tells what is not as wanted and exits 1; after configure all is; reset undoes it; JSON has the same."""
    with playing(tmp_path, model) as (sim, device):
        code, text = command("show", device, cable_delay_ns=73)
        assert code == 1
        assert "settings; set them with: refclock receiver configure" in text
        assert "\n! " in text
        code, text = command("configure", device, cable_delay_ns=73)
        assert code == 0
        assert "receiver configured" in text
        code, text = command("show", device, as_json=True, cable_delay_ns=73)
        told = json.loads(text)
        assert (code, told["as_wanted"]) == (0, True)
        assert all(set(s) == {"name", "wanted", "found", "agrees"} for s in told["settings"])
        rates = dict(sim.settings.rates)
        code, text = command("reset", device)
        assert code == 0
        assert "factory" in text
        end = time.monotonic() + 10
        while sim.settings.rates == rates and time.monotonic() < end:
            time.sleep(0.01)
        assert sim.settings.rates != rates


def test_nothing_is_left_open(tmp_path: Path) -> None:
    """The port is free again after each command."""
    with playing(tmp_path, "mtk") as (_sim, device):
        before = len(list(Path("/proc/self/fd").iterdir()))
        command("show", device)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
