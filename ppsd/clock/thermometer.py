"""The thermometer nearest to the crystal, read once a second.

Flow: sysfs -> **thermometer** -> TemperatureRead, TemperatureLost -> engine. A thermometer is a file. It holds either one number in
millidegrees Celsius (thermal_zone*/temp, hwmon*/temp*_input, ``temperature`` of a w1 device) or the lines of ``w1_slave``, whose last word
is t=millidegrees (kernel: Documentation/driver-api/thermal/sysfs-api.rst, hwmon/sysfs-interface.rst, w1/slaves/w1_therm.rst).

A probe on a 1-wire bus converts while it is read, which takes 0.75 s (DS18B20 data sheet); a thread waits for it. The other files answer at
once. A failure is an OSError whose text names the remedy. It becomes ``TemperatureLost`` when the text changes.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from ppsd.config.contents import contents
from ppsd.discipline.events import TemperatureLost, TemperatureRead
from refclock.kernel.host import Host
from refclock.sample import Instant

PROCESSOR: Final = "/sys/class/thermal/thermal_zone0/temp"
"""The only thermal zone of a single-board computer: on the processor, centimetres from the crystal."""
PLAUSIBLE: Final = (-60.0, 150.0)
"""°C; a reading outside this range is refused, for no working board is that cold or hot."""
ONE_WIRE: Final = "w1_bus_master"
"""Part of the resolved path of every probe on a 1-wire bus."""
LIMIT_BYTES: Final = 1 << 20
"""Octets of a thermometer's file; those of the kernel have less than 4096."""
PAUSE_S: Final = 1.0
"""Seconds between two conversions of a 1-wire probe."""


def celsius(path: Path) -> float:
    """The temperature in the file at ``path``. OSError says what is wrong and names the remedy."""
    try:
        text = contents(path, LIMIT_BYTES).decode("ascii", "replace")
    except OSError as error:
        raise OSError(f'{path} cannot be read ({error.strerror}): correct clock.temperature, or set it to "off"') from None
    words = text.split()
    if "NO" in words:
        raise OSError(f"{path}: the probe's answer is damaged (checksum): look at its wires")
    try:
        value = int(words[-1].removeprefix("t=")) / 1e3
    except (IndexError, ValueError):
        raise OSError(f'{path} holds no temperature in millidegrees: correct clock.temperature, or set it to "off"') from None
    if not PLAUSIBLE[0] < value < PLAUSIBLE[1]:
        raise OSError(f"{path} says {value:g} °C, which no working board has: name another thermometer in clock.temperature")
    return value


class Thermometer:
    """``choice``: the value of clock.temperature. "off", or "auto" on a machine without the default zone: nothing is ever read."""

    def __init__(self, choice: str, host: Host) -> None:
        name = PROCESSOR if choice == "auto" else choice
        known = choice != "off" and (choice != "auto" or host.number(PROCESSOR) is not None)
        self._path = host.path(name) if known else None
        self._name = name
        self._why = ""
        self._latest: float | OSError | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if self._path is not None and ONE_WIRE in str(self._path.resolve()):
            self._thread = threading.Thread(target=self._convert, args=(self._path,), name="thermometer", daemon=True)
            self._thread.start()

    def read(self, now: Instant) -> TemperatureRead | TemperatureLost | None:
        """The reading at ``now``, or its loss; None when there is nothing new."""
        if self._path is None:
            return None
        latest = self._latest if self._thread is not None else _look(self._path)
        if isinstance(latest, OSError):
            news, self._why = str(latest) != self._why, str(latest)
            return TemperatureLost(self._why, now) if news else None
        if latest is None:
            return None
        self._why, self._latest = "", None
        return TemperatureRead(self._name, latest, now)

    def _convert(self, path: Path) -> None:
        while not self._stop.wait(PAUSE_S):
            self._latest = _look(path)

    def close(self) -> None:
        """End the thread after its present conversion."""
        self._stop.set()


def _look(path: Path) -> float | OSError:
    try:
        return celsius(path)
    except OSError as error:
        return error
