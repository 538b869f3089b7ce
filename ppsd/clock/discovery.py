"""Finding receivers: each source whose device is "auto" gets a serial port on which a receiver speaks.

Flow: ``refclock.devices.ports``, ``refclock.devices.scan`` -> **discovery** -> (device, speed) -> ``ppsd.clock.inputs``, which opens it.
While such a source has no receiver, or a silent one, all free ports are listened to in parallel. As soon as every source has its receiver,
the other ports are closed. The result is saved in the state directory under two names that survive unplugging: udev's name for the device,
and the receiver's own identity. The next search starts at the saved device and speed.

A port that another process holds is left alone, and so is a port that another source names. Nothing is written to a line before it has
sent something intelligible. A port without a receiver is closed and rests for a while: another program may want it, and opening it resets
some boards.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from ppsd.clock import state
from ppsd.clock.pulses import Ticking
from refclock.config import AUTO, ReceiverSource, Source
from refclock.devices.ports import SERIAL_PATTERNS, PulseNode, pair, pulses, serial_devices, serial_ports
from refclock.devices.receiver_line import SILENT_TICK_NS
from refclock.devices.scan import Found, Search
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.receiver.autobaud import SEARCH_BAUDS
from refclock.sample import NS, SourceId
from refclock.schema import TEXT_LENGTH

FILE_NAME: Final = "receivers.json"
LOOK_NS: Final = 2 * NS
"""Nanoseconds between two listings of the devices: a receiver that is plugged in is noticed within this time."""
PATIENCE_S: Final = 40.0
"""Seconds for which a port is listened to at first: enough for all speeds at the short and at the longer dwell, and for receivers that
take 20 s to speak."""
REST_NS: Final = (10 * NS, 30 * NS, 90 * NS, 270 * NS)
"""Nanoseconds of rest before the n-th new attempt at a USB port without a receiver; the last value repeats."""
HELD_NS: Final = 10 * NS
"""Nanoseconds of rest for a port that was held or could not be opened, and for a UART: opening a UART resets no board."""
SAID_MAX: Final = 256
"""Characters of a receiver's identity that are believed of the file; receivers send less than 100."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a receiver was. ``identity``: the device's lasting name (``refclock.devices.ports.Port``). ``said``: the receiver's own
    identity, "" when it sent none. ``baud``: 0 when unknown."""

    path: str
    identity: str
    baud: int = 0
    said: str = ""


@dataclass(slots=True)
class _Rest:
    """A port that is left alone until ``until_ns`` (raw), and why. ``times``: how many rests in a row came before."""

    until_ns: int
    times: int
    why: str


class Finder:
    """Assigns receivers to the sources whose device is "auto". ``directory``: where the places are saved. ``complaint``: why they could
    not be loaded or saved, "" when they could."""

    def __init__(self, sources: Collection[Source], clock: LocalClock, host: Host, not_before_s: int, directory: Path) -> None:
        self._wanted, self._named = _devices(sources)
        self._clock, self._host, self._directory = clock, host, directory
        self._not_before_s = not_before_s
        self._search = Search(clock, not_before_s, PATIENCE_S, ask=False)
        self._places, complaint = _load(directory, self._wanted)
        self.complaint = complaint or ""
        self._given: dict[SourceId, str] = {}
        """The device that each source has been given, with symbolic links resolved."""
        self._rest: dict[str, _Rest] = {}
        self._missing: set[SourceId] = set()
        self._look_ns = self._stepped_ns = 0
        self._spare: dict[str, Found] = {}
        self._ticking: dict[str, Ticking] = {}
        """For each device whose pulse is silent: which others tick."""

    def configure(self, sources: Collection[Source]) -> None:
        """Find the receivers of ``sources`` from now on. Receivers of sources that are configured as before stay where they are."""
        before, (self._wanted, self._named) = self._wanted, _devices(sources)
        same = {name for name, source in self._wanted.items() if before.get(name) == source}
        saved, complaint = _load(self._directory, self._wanted)
        self._places = saved | {name: place for name, place in self._places.items() if name in self._wanted}
        self.complaint = complaint or self.complaint
        self._given = {name: target for name, target in self._given.items() if name in same}
        self._missing &= same

    def fileno(self) -> int:
        """The descriptor to wait on: readable when a line under search has bytes."""
        return self._search.fileno()

    @property
    def due_ns(self) -> int | None:
        """The latest raw instant for the next ``step``; None while no receiver is missing."""
        if not self._missing:
            return None
        return min(self._look_ns, self._stepped_ns + SILENT_TICK_NS) if self._search.listening else self._look_ns

    # ---- what a source gets ----------------------------------------------------------------------------------------------------------

    def place(self, source: ReceiverSource) -> tuple[ReceiverSource, int]:
        """The source with its device filled in, and the speed to try first (0: none). OSError: no receiver yet, and why."""
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
        """Devices that belong to sources other than ``name``."""
        return {target for other, target in self._given.items() if other != name} | {self._host.target(path) for path in self._named}

    def pulse(self, device: str, in_use: Collection[str]) -> PulseNode | None:
        """The pulse device that belongs to the receiver at ``device``; None when there is none now. ``in_use``: pulses of other sources."""
        some = [node for node in pulses(self._host) if node.path not in in_use]
        path = pair(self._host, [device], some)[device]
        return next((node for node in some if node.path == path), None)

    def ticking_pulse(self, device: str, in_use: Collection[str], now_ns: int) -> str:
        """Another pulse device that the receiver at ``device`` may have, and that ticks while its own is silent; "" when none does. To be
        called about once a second as long as that lasts; ``ticks_again`` ends it."""
        some = [node for node in pulses(self._host) if not node.refused and node.path not in in_use]
        mine = [node for node in some if not node.tty or node.belongs(self._host, device)]
        found = self._ticking.setdefault(device, Ticking()).look(mine, now_ns)
        return next((node.path for node in found), "")

    def ticks_again(self, device: str) -> None:
        """The pulse of the receiver at ``device`` is not silent."""
        self._ticking.pop(device, None)

    def settled(self, name: SourceId, baud: int, said: str) -> None:
        """Remember that the receiver of ``name`` speaks at ``baud`` and calls itself ``said``."""
        place = self._places.get(name)
        if place is not None and name in self._given:
            self._keep(name, replace(place, baud=baud, said=said or place.said))

    def _keep(self, name: SourceId, place: Place) -> None:
        if self._places.get(name) != place:
            self._places[name] = place
            saved = {str(n): asdict(p) for n, p in self._places.items()}
            self.complaint = state.save(self._directory, saved, FILE_NAME) or ""

    # ---- searching -------------------------------------------------------------------------------------------------------------------

    def step(self, lacking: Collection[SourceId]) -> list[SourceId]:
        """Continue the search. ``lacking``: sources without a receiver, or with a silent one. Returns those that have one now."""
        self._stepped_ns = now_ns = self._clock.now().mono_ns
        before, self._missing = self._missing, set(lacking) & set(self._wanted)
        if self._missing and not before and any(name in self._places for name in self._missing):
            self._look_ns = now_ns + LOOK_NS  # its old place is tried first: the receiver may only have been unplugged for a moment
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
        """Start to listen on ports that are new, or whose rest is over."""
        devices = serial_devices(self._host)
        for target in [target for target in self._rest if target not in devices]:  # unplugged: a device that returns is new
            del self._rest[target]
        listening = {self._host.target(path) for path in self._search.listening}
        taken = self._taken(SourceId("")) | listening | {self._host.target(path) for path in self._spare}
        resting = {target for target, rest in self._rest.items() if now_ns < rest.until_ns}
        if not set(devices) - taken - resting:
            return
        for port in serial_ports(self._host):
            target = self._host.target(port.path)
            if target in taken or target in resting:
                continue
            known = next((p for p in self._places.values() if port.identity == p.identity), None)
            self._search.add(port, known.baud if known else 0)

    def _judge(self, found: Found, now_ns: int) -> None:
        """Keep a port with a usable receiver for ``_deal``; put any other to rest."""
        if found.verdict is not None and found.verdict.usable:
            self._spare[found.port.path] = found
            return
        target = self._host.target(found.port.path)
        verdict = found.verdict
        if verdict is None:
            why = found.problem
        elif verdict.protocol in ("silent", "noise", "echo"):
            why = f"{verdict.protocol}, {verdict.advice}"
        else:
            why = verdict.advice
        before = self._rest.get(target)
        times = before.times + 1 if before else 0
        on_usb = "USB" in found.port.path or "ACM" in found.port.path
        opened = verdict is not None
        pause_ns = REST_NS[min(times, len(REST_NS) - 1)] if opened and on_usb else HELD_NS
        self._rest[target] = _Rest(now_ns + pause_ns, times, f"{found.port.path}: {why}")

    def _deal(self) -> list[SourceId]:
        """Assign each receiver found to a source that lacks one: to its former owner by device, then by the receiver's identity; else to
        the first source that never had a receiver; else to the first that lacks one."""
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
        """Why ``name`` has no receiver, in a sentence. Only the first source without one gets the full reason; the others refer to it."""
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
        """End the search and close its ports."""
        self._search.close()


def _devices(sources: Collection[Source]) -> tuple[dict[SourceId, ReceiverSource], set[str]]:
    """The receivers of ``sources`` that are to be found, and the devices that others name."""
    receivers = [source for source in sources if isinstance(source, ReceiverSource)]
    wanted = {SourceId(source.name): source for source in receivers if source.device == AUTO}
    return wanted, {source.device for source in receivers} - {AUTO}


def _load(directory: Path, wanted: Collection[SourceId]) -> tuple[dict[SourceId, Place], str | None]:
    """The places that an earlier run saved for these sources, and why the file could not be read (None: it could)."""
    saved, complaint = state.load(directory, FILE_NAME)
    return {name: place for name in wanted if (place := _read(saved.get(name))) is not None}, complaint


def _read(saved: object) -> Place | None:
    """The place that was saved so; None when it cannot be one. A speed that is none is left out: it is looked for."""
    if not isinstance(saved, Mapping):
        return None
    path, identity, baud, said = (saved.get(key) for key in ("path", "identity", "baud", "said"))
    if not isinstance(path, str) or not isinstance(identity, str) or not all(_is_device(name) for name in (path, identity)):
        return None
    identified = isinstance(said, str) and len(said) <= SAID_MAX and said.isprintable()
    speed = baud if isinstance(baud, int) and baud in SEARCH_BAUDS else 0
    return Place(path, identity, speed, said if isinstance(said, str) and identified else "")


def _is_device(name: str) -> bool:
    """Whether it can be the name of a file."""
    return name.startswith("/") and len(name) <= TEXT_LENGTH and name.isprintable()
