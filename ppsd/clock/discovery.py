"""Which receiver is whose: sources whose device is "auto" get the receivers that are found, and get them again when they come back.

Flow: ports, scan -> **discovery** -> (device, speed) -> ``ppsd.clock.inputs``, which opens it. While such a source has no receiver, or a
silent one, every free candidate is listened to side by side; as soon as all have theirs nothing is held that is not used. What was found is
kept in the state directory by what stays when the plug is pulled: the name by which udev knows the device, and what the receiver calls
itself. There it is looked for first, at the speed that it had.

Ports that somebody holds are left alone, and so are those that other sources name. Nothing is written to a line that has said nothing
intelligible. A port on which nothing was found is let go for a while, for somebody else may want it, and opening it resets some boards.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from ppsd.clock import state
from refclock.config import AUTO, ReceiverSource, Source
from refclock.devices.ports import SERIAL_PATTERNS, pair, pulses, serial_devices, serial_ports
from refclock.devices.receiver_line import SILENT_TICK_NS
from refclock.devices.scan import Found, Search
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.sample import NS, SourceId

FILE_NAME: Final = "receivers.json"
LOOK_NS: Final = 2 * NS
"""Between two looks at which devices there are: a receiver that is plugged in is noticed within that."""
PATIENCE_S: Final = 40.0
"""A port is listened to for so long at first: all speeds at the short and at the longer dwell, and receivers that take 20 s to speak."""
REST_NS: Final = (10 * NS, 30 * NS, 90 * NS, 270 * NS)
"""Before the n-th time that a port on which nothing was found is tried again; the last one repeats."""
HELD_NS: Final = 10 * NS
"""Before a port that was held or could not be opened, or a UART, which nothing resets, is tried again."""
DEFAULT: Final = ReceiverSource(name="gps0")
"""What is looked for when no source is configured: a receiver, wherever it is. Once it is found no other port is held."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a receiver was. ``identity``: of the device (``ports.Port``), ``said``: what the receiver calls itself, "" when it does not."""

    path: str
    identity: str
    baud: int = 0
    said: str = ""


@dataclass(slots=True)
class _Rest:
    """A port that is left alone until ``until_ns``, and why; ``times`` in a row."""

    until_ns: int
    times: int
    why: str


class Finder:
    """``directory``: where what was found is kept. ``complaint``: what is wrong with that, "" when nothing is."""

    def __init__(self, sources: Collection[Source], clock: LocalClock, host: Host, not_before_s: int, directory: Path) -> None:
        receivers = [source for source in sources if isinstance(source, ReceiverSource)]
        self._wanted = {SourceId(source.name): source for source in receivers if source.device == AUTO}
        self._named = {source.device for source in receivers} - {AUTO}
        self._clock, self._host, self._directory = clock, host, directory
        self._not_before_s = not_before_s
        self._search = Search(clock, not_before_s, PATIENCE_S, ask=False)
        self._places, complaint = _load(directory, self._wanted)
        self.complaint = complaint or ""
        self._given: dict[SourceId, str] = {}
        """Device of each source that was told where its receiver is, without links."""
        self._rest: dict[str, _Rest] = {}
        self._missing: set[SourceId] = set()
        self._look_ns = self._stepped_ns = 0
        self._spare: dict[str, Found] = {}

    def fileno(self) -> int:
        """Readable when a line that is listened to has something."""
        return self._search.fileno()

    @property
    def due_ns(self) -> int | None:
        """When ``step`` is wanted at the latest; None while nothing is missing."""
        if not self._missing:
            return None
        return min(self._look_ns, self._stepped_ns + SILENT_TICK_NS) if self._search.listening else self._look_ns

    # ---- what a source is told -------------------------------------------------------------------------------------------------------

    def place(self, source: ReceiverSource) -> tuple[ReceiverSource, int]:
        """The source with its device, and the speed to try first (0: none). OSError: it has none yet, and why."""
        if source.device != AUTO:
            return source, 0
        name = SourceId(source.name)
        place = self._places.get(name)
        path = self._there(place) if place is not None else None
        target = self._host.target(path) if path else ""
        if place is None or path is None or target in self._rest or target in self._taken(name):
            self._given.pop(name, None)
            raise OSError(errno.ENODEV, self.words(name))
        for open_path in self._search.listening:
            if self._host.target(open_path) == target:
                self._search.drop(open_path)
        others = [who for who in self._host.holders(target) if not who.endswith(f"(pid {os.getpid()})")]
        if others:
            raise OSError(errno.EBUSY, f"{path} is left to {', '.join(others)}")
        self._given[name] = target
        return replace(source, device=path), place.baud

    def _there(self, place: Place) -> str | None:
        """The path at which the device of ``place`` is now; None when it is not there."""
        devices = serial_devices(self._host)
        return next((path for path in (place.identity, place.path) if self._host.target(path) in devices), None)

    def _taken(self, name: SourceId) -> set[str]:
        """Devices that are others'."""
        return {target for other, target in self._given.items() if other != name} | {self._host.target(path) for path in self._named}

    def pulse(self, device: str, in_use: Collection[str]) -> str:
        """The pulse to open for the receiver at ``device``; "" when there is none now. ``in_use``: those of other sources."""
        return pair(self._host, [device], [p for p in pulses(self._host) if p.path not in in_use])[device]

    def settled(self, name: SourceId, baud: int, said: str) -> None:
        """The receiver of ``name`` speaks at ``baud``: remember that."""
        place = self._places.get(name)
        if place is not None and name in self._given:
            self._keep(name, replace(place, baud=baud, said=said or place.said))

    def _keep(self, name: SourceId, place: Place) -> None:
        if self._places.get(name) != place:
            self._places[name] = place
            saved = {str(n): asdict(p) for n, p in self._places.items()}
            self.complaint = state.save(self._directory, saved, FILE_NAME) or ""

    # ---- looking ---------------------------------------------------------------------------------------------------------------------

    def step(self, lacking: Collection[SourceId]) -> list[SourceId]:
        """Look on. ``lacking``: sources without a receiver, or with a silent one. Those for which one was found now: open them again."""
        self._stepped_ns = now_ns = self._clock.now().mono_ns
        before, self._missing = self._missing, set(lacking) & set(self._wanted)
        if self._missing and not before and any(name in self._places for name in self._missing):
            self._look_ns = now_ns + LOOK_NS  # it is tried where it was; it may only have been unplugged for a moment
        if not self._missing:
            self._search.stop()
            self._spare.clear()
            return []
        if now_ns >= self._look_ns:
            self._look_ns = now_ns + LOOK_NS
            self._look(now_ns)
        for found in self._search.step():
            self._judge(found, now_ns)
        return self._deal()

    def _look(self, now_ns: int) -> None:
        """Listen to what is new, or has rested."""
        devices = serial_devices(self._host)
        for target in [target for target in self._rest if target not in devices]:  # unplugged: what comes back is something new
            del self._rest[target]
        listening = {self._host.target(path) for path in self._search.listening}
        taken = self._taken(SourceId("")) | listening | {self._host.target(path) for path in self._spare}
        tired = {target for target, rest in self._rest.items() if now_ns < rest.until_ns}
        if not set(devices) - taken - tired:
            return
        for port in serial_ports(self._host):
            target = self._host.target(port.path)
            if target in taken or target in tired:
                continue
            known = next((p for p in self._places.values() if port.identity == p.identity), None)
            self._search.add(port, known.baud if known else 0)

    def _judge(self, found: Found, now_ns: int) -> None:
        if found.verdict is not None and found.verdict.usable:
            self._spare[found.port.path] = found
            return
        target = self._host.target(found.port.path)
        v = found.verdict
        why = found.problem if v is None else v.advice if v.protocol not in ("silent", "noise") else f"{v.protocol}, {v.advice}"
        before = self._rest.get(target)
        times = before.times + 1 if before else 0
        plugged = v is not None and ("USB" in found.port.path or "ACM" in found.port.path)
        pause = REST_NS[min(times, len(REST_NS) - 1)] if plugged else HELD_NS
        self._rest[target] = _Rest(now_ns + pause, times, why if why.startswith(found.port.path) else f"{found.port.path}: {why}")

    def _deal(self) -> list[SourceId]:
        """Give what was found to those that miss one: to whom it belonged, by device, by name; else to the first that never had any."""
        dealt: list[SourceId] = []
        for path, found in list(self._spare.items()):
            assert found.verdict is not None
            said = found.verdict.identity
            missing = sorted(self._missing - set(dealt), key=list(self._wanted).index)
            by_device = [n for n in missing if n in self._places and self._places[n].identity == found.port.identity]
            by_name = [n for n in missing if said and n in self._places and self._places[n].said == said]
            new = [n for n in missing if n not in self._places]
            name = next(iter((*by_device, *by_name, *new, *missing)), None)
            if name is None:
                break
            del self._spare[path]
            self._rest.pop(self._host.target(path), None)
            self._given[name] = self._host.target(path)
            self._keep(name, Place(path, found.port.identity, found.verdict.baud, said))
            dealt.append(name)
        return dealt

    def words(self, name: SourceId) -> str:
        """Why ``name`` has no receiver, for people; told in full of the first such source only."""
        first = next((other for other in self._wanted if other in self._missing), name)
        if first != name:
            return f"no receiver found for it yet, nor for {first}"
        devices = serial_devices(self._host)
        if not devices:
            looked = f"looked for {' '.join(SERIAL_PATTERNS)} in /dev"
            return f"no serial device that could be a receiver ({looked}): plug one in; on a Pi's pins: enable_uart=1 in config.txt"
        free = {target: path for target, path in devices.items() if target not in self._taken(SourceId(""))}
        told = [self._rest[target].why if target in self._rest else f"listening on {path}" for target, path in free.items()]
        return f"no receiver found yet: {'; '.join(told) or 'there is no other serial device'}"

    def close(self) -> None:
        """Let everything go."""
        self._search.close()


def _load(directory: Path, wanted: Collection[SourceId]) -> tuple[dict[SourceId, Place], str | None]:
    """What an earlier run kept of these sources; and what is wrong with it, None when nothing is."""
    saved, complaint = state.load(directory, FILE_NAME)
    return {name: place for name in wanted if (place := _read(saved.get(name))) is not None}, complaint


def _read(saved: object) -> Place | None:
    if not isinstance(saved, Mapping):
        return None
    path, identity, baud, said = (saved.get(key) for key in ("path", "identity", "baud", "said"))
    if not isinstance(path, str) or not isinstance(identity, str):
        return None
    return Place(path, identity, baud if isinstance(baud, int) else 0, said if isinstance(said, str) else "")
