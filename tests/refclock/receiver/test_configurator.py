"""Configurator against simulated receivers: asked, configured, again after a loss of power, and left alone when they are plain."""

from __future__ import annotations

import pytest
from refclock_sim.receiver import output as simulation
from refclock_sim.receiver.gnss import Gnss

from refclock.protocols.stream import ReceiverStream
from refclock.receiver.configurator import ASKED, QUESTION, Configurator, News
from refclock.receiver.profile import TimingProfile
from refclock.sample import NS, Instant
from refclock.timescales import LeapTable

pytestmark = pytest.mark.worlds

TAI0 = 1_798_761_600 - 60 + 37


class Host:
    """A receiver on its paced line, the decoders and the configurator, looked at ten times a second."""

    def __init__(self, model: str, profile: TimingProfile | None = None) -> None:
        self.sim = simulation.Receiver(simulation.MODELS[model], Gnss(7, TAI0, LeapTable(), fix_s=0), 7)
        self.receiver = ReceiverStream(1_700_000_000)
        self.configurator = Configurator(profile or TimingProfile())
        self.second = TAI0
        self.written: list[bytes] = []
        self.told: list[News] = []
        self.deaf = self.mute = False
        self.echo_ns: int | None = None
        self._line: list[tuple[int, bytes]] = []

    def run(self, seconds: int) -> None:
        for tai_s in range(self.second, self.second + seconds):
            self._line += [(tai_s * NS + chunk.offset_ns, chunk.data) for chunk in self.sim.cycle(tai_s)]
            for now in range(tai_s * NS, (tai_s + 1) * NS, NS // 10):
                arrived = [part for part in sorted(self._line) if part[0] <= now]
                self._line = [part for part in self._line if part[0] > now]
                wish = self.configurator.step(self.receiver, now)
                for _, data in arrived if not self.mute else ():
                    self.receiver.feed(data, Instant(now - 37 * NS, now), self.sim.byte_ns)
                self.told += self.configurator.news()
                if wish:
                    self.written.append(wish)
                    self.receiver.wrote(wish)
                    self._line += [] if self.echo_ns is None else [(now + self.echo_ns, wish)]
                    self._line += [] if self.deaf else self.sim.hear(wish, now)
        self.second += seconds


@pytest.mark.parametrize(("model", "name"), [("ublox8-nmea", "NEO-M8N"), ("ublox9", "ZED-F9T"), ("mtk", "PA6H")])
def test_configured_once_and_again_after_a_power_dip(model: str, name: str) -> None:
    """Everything is done within half a minute and then nothing more is written but a question a minute to MediaTek; a dip is noticed by the
    greeting, by silenced sentences that come again, or (MediaTek) within a minute by what it is set to; and put right, silently."""
    host = Host(model)
    host.run(30)
    assert [(news.what, news.complete, set(news.by_result())) for news in host.told] == [("receiver configured", True, {"done"})]
    assert name in host.told[0].identity
    wanted, written = dict(host.sim.settings.rates), len(host.written)
    assert wanted != dict(host.sim.model.messages)
    host.run(70)
    assert [wish[:8] for wish in host.written[written:]] == ([b"$PMTK414"] if model == "mtk" else [])
    host.run(700)
    written = len(host.written)
    host.sim.power_dip()
    host.run(12)
    assert len(host.written) > written + 3
    assert host.sim.settings.rates == wanted
    host.run(700)
    written = len(host.written)
    host.sim.power_dip(greets=False)
    host.run(80)
    assert len(host.written) > written
    assert host.sim.settings.rates == wanted
    assert len(host.told) == 1


def test_a_plain_receiver_is_asked_and_left_alone() -> None:
    """Three questions, no settings, one line in the log; asked again when the line was silent, for it may be another receiver."""
    host = Host("nmea")
    host.run(60)
    assert host.written == [QUESTION] * ASKED
    assert [news.what for news in host.told] == ["receiver left as it is: it does not say what it is"]
    host.mute = True
    host.run(20)
    host.mute = False
    host.run(20)
    assert host.written == [QUESTION] * 2 * ASKED
    assert len(host.told) == 1


def test_nothing_is_written_to_a_silent_line() -> None:
    """Nor to one that says nothing intelligible."""
    host = Host("ublox8-nmea")
    host.mute = True
    host.run(20)
    assert host.written == []


def test_a_receiver_that_cannot_hear_keeps_its_sentences() -> None:
    """No answer while being configured: told as such, sentences not silenced; tried again ever more rarely, without more in the log."""
    host = Host("ublox8-nmea")
    host.run(2)
    host.deaf = True
    host.run(60)
    assert [news.complete for news in host.told] == [False]
    assert "NAV-SAT" in host.told[0].by_result()["no_answer"]
    assert host.receiver.labels > 50
    before = len(host.written)
    host.run(1800)
    assert len(host.written) - before < 40
    assert len(host.told) == 1
    host.deaf = False
    host.run(700)
    assert host.told[-1].complete
    assert host.sim.settings.rates["NAV-PVT"] == 1


@pytest.mark.parametrize("model", ["ublox8-nmea", "ublox9", "mtk"])
@pytest.mark.parametrize("late_ms", [0, 150, 700])
def test_a_receiver_on_a_line_that_echoes_is_configured_by_its_own_answers(model: str, late_ms: int) -> None:
    """A half-duplex adapter that hears itself: the settings reach the receiver, and each result is the receiver's own word."""
    host = Host(model)
    host.echo_ns = late_ms * NS // 1000
    host.run(60)
    assert [(news.what, news.complete, set(news.by_result())) for news in host.told] == [("receiver configured", True, {"done"})]


@pytest.mark.parametrize("late_ms", [0, 150, 1300])
def test_an_echoed_command_is_no_acknowledgement(late_ms: int) -> None:
    """A receiver that hears nothing any more, on a line that gives back every command: nothing counts as done."""
    host = Host("ublox8-nmea")
    host.echo_ns = late_ms * NS // 1000
    host.run(2)
    host.deaf = True
    host.run(60)
    assert [news.complete for news in host.told] == [False]
    assert "pulse" in host.told[0].by_result()["no_answer"]


@pytest.mark.parametrize("model", ["ublox8-nmea", "ublox9", "mtk"])
def test_the_settings_are_read_back_while_the_receiver_is_kept_set_up(model: str) -> None:
    """Asked in the middle of the set-up the questions wait for its end; every one is answered, nothing is set anew, and some time
    later the receiver is asked again."""
    host = Host(model)
    told = []
    for _ in range(2):
        asked = host.configurator.settings()
        while asked is None or not asked.finished:
            assert host.second < TAI0 + 200
            host.run(1)
            asked = host.configurator.settings()
        told.append(asked.told)
        rates = dict(host.sim.settings.rates)
        assert host.configurator.settings() is asked, "asked again at once, it fills no line"
        host.run(15)
    assert len(told[0]) > 2
    assert told[0].keys() == told[1].keys()
    assert told[0] is not told[1]
    assert host.sim.settings.rates == rates
    assert len(host.told) == 1


def test_a_receiver_that_is_not_known_has_no_settings_to_read() -> None:
    """Nothing is asked, and the answer is there at once."""
    host = Host("nmea")
    host.run(30)
    written = len(host.written)
    asked = host.configurator.settings()
    assert asked is not None
    assert asked.finished
    host.run(10)
    assert len(host.written) == written
