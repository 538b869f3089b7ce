"""Receivers looked for on several lines at once: each open port with its ``autobaud.Probe``.

A port that another program has open is not opened. Every open line is read as soon as something comes, and closed when it is known what is
on it. The caller waits for ``fileno``, but not longer than SILENT_TICK_NS.

Flow: ports -> **scan** -> Found -> ``ppsd.clock.discovery``, ``refclock detect``.
"""

from __future__ import annotations

import select
from dataclasses import dataclass

from refclock.devices.modem_lines import Changes
from refclock.devices.ports import Port
from refclock.devices.receiver_line import ReceiverLine
from refclock.devices.serial_port import open_port
from refclock.errors import explain
from refclock.kernel.clocks import LocalClock
from refclock.receiver.autobaud import Identification, Probe
from refclock.sample import NS


@dataclass(frozen=True, slots=True)
class Found:
    """A serial device and what is on it. ``verdict``: None when nobody listened, and ``problem`` says why. ``pulse``: the device of its
    pulse, or the control line that has one, or "". ``after_s``: s of listening. ``has_speed``: whether the speed found means anything."""

    port: Port
    verdict: Identification | None
    pulse: str = ""
    problem: str = ""
    after_s: float = 0.0
    has_speed: bool = True


class _Candidate:
    """A port that is being listened to. OSError when it cannot be opened."""

    def __init__(self, port: Port, clock: LocalClock, probe: Probe, patience_ns: int) -> None:
        self.port, self.probe = port, probe
        self.began_ns = clock.now().mono_ns
        self.until_ns = self.began_ns + patience_ns
        self.line = ReceiverLine(open_port(port.path, probe.baud, clock), probe, clock)
        self.changes = Changes(self.line.fileno(), self.began_ns)
        self.verdict: Identification | None = None
        self.line.attend(clock.now())


class Search:
    """Listens for ``patience_s`` to each port. ``ask``: see Probe. ``clock``: the one that will time the receivers."""

    def __init__(self, clock: LocalClock, not_before_s: int, patience_s: float, *, ask: bool) -> None:
        self._clock, self._not_before_s, self._ask = clock, not_before_s, ask
        self._patience_ns = round(patience_s * NS)
        self._candidates: dict[int, _Candidate] = {}
        self._early: list[Found] = []
        self._epoll = select.epoll()

    def fileno(self) -> int:
        """Readable when a line has something."""
        return self._epoll.fileno()

    @property
    def listening(self) -> dict[str, int]:
        """The speed at which each open port is listened to."""
        return {candidate.port.path: candidate.probe.baud for candidate in self._candidates.values()}

    def add(self, port: Port, first_baud: int = 0) -> None:
        """Listen to ``port`` as well, first at ``first_baud``. One that cannot be opened is among what ``step`` returns next."""
        if port.holders:
            self._early.append(Found(port, None, problem=f"left to {', '.join(port.holders)}"))
            return
        probe = Probe(self._clock.now().mono_ns, self._not_before_s, first=first_baud, ask=self._ask)
        try:
            candidate = _Candidate(port, self._clock, probe, self._patience_ns)
        except OSError as error:
            self._early.append(Found(port, None, problem=explain(error).removeprefix(f"{port.path}: ")))
            return
        self._candidates[candidate.line.fileno()] = candidate
        self._epoll.register(candidate.line.fileno(), select.EPOLLIN)

    def step(self) -> list[Found]:
        """Read what has come; the ports about which all is known, which are closed."""
        done, self._early = self._early, []
        ready = {fd for fd, _ in self._epoll.poll(0)}
        for fd, candidate in list(self._candidates.items()):
            problem, pulse = "", None
            try:
                if fd in ready:
                    _, _, now = candidate.line.read()
                else:
                    now = self._clock.now()
                    candidate.line.attend(now)
                if candidate.verdict is None:
                    candidate.verdict = candidate.probe.verdict(now.mono_ns)
                if candidate.verdict is None and now.mono_ns >= candidate.until_ns:
                    candidate.verdict = candidate.probe.give_up()
                if (
                    candidate.verdict is not None
                    and (pulse := candidate.changes.pulse(now.mono_ns)) is None
                    and now.mono_ns < candidate.until_ns
                ):
                    continue  # the receiver is known; whether the line has a pulse is not yet
            except OSError as error:
                problem = explain(error).removeprefix(f"{candidate.port.path}: ")
            if candidate.verdict is not None or problem:
                after_s = (self._clock.now().mono_ns - candidate.began_ns) / NS
                own, has_speed = f"{candidate.port.path}:{pulse}" if pulse else "", candidate.line.baud > 0
                done.append(Found(candidate.port, candidate.verdict, own, problem, after_s, has_speed))
                self._drop(fd)
        return done

    def _drop(self, fd: int) -> None:
        self._epoll.unregister(fd)
        self._candidates.pop(fd).line.close()

    def drop(self, path: str) -> None:
        """Stop listening to this port."""
        for fd in [fd for fd, candidate in self._candidates.items() if candidate.port.path == path]:
            self._drop(fd)

    def stop(self) -> None:
        """Close all lines; others may be added."""
        for fd in list(self._candidates):
            self._drop(fd)

    def close(self) -> None:
        """End the search."""
        self.stop()
        self._epoll.close()
