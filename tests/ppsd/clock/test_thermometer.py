"""Thermometers: what their files say, and what is said of those that cannot be read."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ppsd.clock.thermometer import PROCESSOR, Thermometer, celsius
from ppsd.discipline.events import TemperatureLost, TemperatureRead
from refclock.kernel.host import Host
from refclock.sample import Instant

NOW = Instant(1, 2)


def board(root: Path, path: str, text: str) -> Path:
    """A file of a machine below ``root``."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="ascii")
    return file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("48312\n", 48.312),
        ("-5250\n", -5.25),
        ("72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n", 23.125),
    ],
)
def test_formats_of_the_kernel_are_read(tmp_path: Path, text: str, value: float) -> None:
    """Zones and hwmon files give millidegrees, a 1-wire probe two lines that end in t=millidegrees."""
    assert celsius(board(tmp_path, "temp", text)) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no temperature"),
        ("warm\n", "no temperature"),
        ("9999999\n", "no working board"),
        ("-127000\n", "no working board"),
        ("00 00 : crc=57 NO\n00 00 t=23125\n", "checksum"),
    ],
)
def test_what_is_no_temperature_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    """Empty, foreign, impossible and damaged files are errors that say so."""
    with pytest.raises(OSError, match=said):
        celsius(board(tmp_path, "temp", text))


def test_the_processors_thermometer_is_found_by_itself(tmp_path: Path) -> None:
    """``auto`` reads thermal zone 0 where there is one and nothing where there is none; ``off`` reads nothing."""
    host = Host(tmp_path)
    assert Thermometer("auto", host).read(NOW) is None
    board(tmp_path, PROCESSOR, "48312\n")
    assert Thermometer("auto", host).read(NOW) == TemperatureRead(PROCESSOR, 48.312, NOW)
    assert Thermometer("off", host).read(NOW) is None


def test_trouble_is_told_once_and_ends(tmp_path: Path) -> None:
    """A thermometer that cannot be read is reported when that begins, with the file and the key to change, and is read again later."""
    thermometer = Thermometer("/sys/probe/temp1_input", Host(tmp_path))
    lost = thermometer.read(NOW)
    assert isinstance(lost, TemperatureLost)
    assert "temp1_input" in lost.why
    assert "clock.temperature" in lost.why
    assert thermometer.read(NOW) is None
    board(tmp_path, "/sys/probe/temp1_input", "20000\n")
    assert thermometer.read(NOW) == TemperatureRead("/sys/probe/temp1_input", 20.0, NOW)


@pytest.mark.device
def test_a_probe_on_a_wire_is_waited_for_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 1-wire probe is read by a thread, each conversion once; asking for it never waits."""
    monkeypatch.setattr("ppsd.clock.thermometer.PAUSE_S", 0.01)
    name = "/sys/devices/w1_bus_master1/28-00000a/temperature"
    board(tmp_path, name, "21062\n")
    thermometer = Thermometer(name, Host(tmp_path))
    until = time.monotonic() + 10.0
    while (reading := thermometer.read(NOW)) is None and time.monotonic() < until:
        time.sleep(0.005)
    thermometer.close()
    assert reading == TemperatureRead(name, 21.062, NOW)
