"""A receiver's line written by hand, through the simulated world: the real engine and packet code, every reply held against the truth.

A case is a script beside this file, or with it on the path, that says what a receiver sends in each second and what must come of it:

    from line_world import *
    case("RMC alone", lambda utc, k: [(0.12, s(rmc(utc)))], want="locked")
    done()                                              # exit code 0 when every case went as expected, else 1
"""

from __future__ import annotations

import functools
import operator
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from refclock_sim.receiver.output import Chunk
from refclock_sim.worlds.scenario import Fault, OscillatorModel, PulseModel, ReceiverModel, Scenario, Start
from refclock_sim.worlds.world import RAW_START_NS, World

from ppsd.discipline.events import Effect, Event, LeapFileRead, Ticked
from refclock.config import BITS_PER_BYTE
from refclock.sample import NS
from refclock.timescales import LeapTable

__all__ = ["UTC", "Fault", "case", "datetime", "done", "gga", "rmc", "s", "timedelta", "zda"]
NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
Say = Callable[[datetime, int], Sequence[tuple[float, bytes]]]
"""``say(utc, k)`` for true second ``k``: (seconds after it at which the first byte comes, bytes) of each message."""
failed: list[str] = []


def s(body: str) -> bytes:
    """An NMEA sentence with its checksum and line end."""
    return f"${body}*{functools.reduce(operator.xor, body.encode('latin-1'), 0):02X}\r\n".encode("latin-1")


def rmc(  # noqa: PLR0917 (the interface of cases)
    t: datetime, status: str = "A", date: datetime | None = None, talker: str = "GP", frac: str = ".00", mode: str = "A"
) -> str:
    """RMC: position, date and time; ``status`` V: void."""
    return f"{talker}RMC,{t:%H%M%S}{frac},{status},4717.1125,N,00833.9189,E,0.02,45.1,{(date or t):%d%m%y},,,{mode}"


def gga(t: datetime, q: int = 1, n: int = 8, talker: str = "GP", frac: str = ".00") -> str:
    """GGA: time of day, quality ``q`` and ``n`` satellites."""
    return f"{talker}GGA,{t:%H%M%S}{frac},4717.1125,N,00833.9189,E,{q},{n:02d},0.94,408.2,M,47.9,M,,"


def zda(t: datetime, talker: str = "GP", frac: str = ".00", zone: str = "00,00") -> str:
    """ZDA: date and time."""
    return f"{talker}ZDA,{t:%H%M%S}{frac},{t:%d,%m,%Y},{zone}"


class HandWritten:
    """Stands in the world for the simulated receiver."""

    def __init__(self, say: Say, truth: LeapTable, baud: int) -> None:
        self.say, self.truth, self.k = say, truth, -1
        self.byte_ns = BITS_PER_BYTE * NS // baud if baud else 0

    def cycle(self, tai_s: int) -> list[Chunk]:
        """The output of one true second: messages queue on the line."""
        self.k += 1
        utc = datetime.fromtimestamp(self.truth.tai_to_utc_ns(tai_s * NS) // NS, UTC)
        out, free_ns = [], 0
        for after_s, data in self.say(utc, self.k):
            free_ns = max(free_ns, round(after_s * NS)) + len(data) * self.byte_ns
            out.append(Chunk(free_ns, data))
        return out

    def hear(self, _data: bytes, _tai_ns: int) -> list[tuple[int, bytes]]:
        """Deaf."""
        return []


class LineWorld(World):
    """A world with a hand-written line. ``told``: (second, verdict and why), each change of it, numbers apart."""

    def __init__(self, scenario: Scenario, say: Say, baud: int) -> None:
        super().__init__(scenario, 1)
        leap = scenario.receiver.leap_at
        truth = LeapTable() if leap is None else LeapTable().with_leap(int(leap.timestamp()), scenario.receiver.leap_step_s)
        self._receiver = HandWritten(say, truth, baud)  # type: ignore[assignment]
        self.told: list[tuple[int, str]] = []
        handle = self.engine.handle

        def watched(event: Event) -> list[Effect]:
            effects = handle(event)
            if isinstance(event, Ticked):
                self.last = self.engine.snapshot(event.at)
                words = f"{self.last.verdict} | {self.last.why}"
                if not self.told or re.sub(r"[\d.]+", "#", self.told[-1][1]) != re.sub(r"[\d.]+", "#", words):
                    self.told.append(((event.at.mono_ns - RAW_START_NS) // NS, words))
            return effects

        self.engine.handle = watched  # type: ignore[method-assign]

    def read(self, table: LeapTable) -> None:
        """The host reads another table of leap seconds."""
        self._effects(self.engine.handle(LeapFileRead(table, "the host's table", self._instant(0))))


def run_case(
    name: str,
    say: Say,
    *,
    duration: int = 300,
    clock_off_s: float = 0.002,
    kept_ms: float | None = None,
    pulse: str = "pi",
    utc: datetime = NOON,
    baud: int = 9600,
    config: dict[str, Any] | None = None,
    faults: Sequence[Fault] = (),
    leap_at: datetime | None = None,
    leap_step_s: int = 1,
    table: LeapTable | None = None,
) -> LineWorld:
    """Run one case. ``kept_ms``: the kernel says that NTP keeps the system clock within that, and it does. ``leap_step_s``: of the leap
    second at ``leap_at``. ``table``: that the host reads; None: one that has no leap second and no expiry."""
    scenario = Scenario(
        name=name,
        claim="",
        duration_s=duration,
        start=Start(utc, clock_off_s, kept_ms),
        oscillator=OscillatorModel(ppm=0.0 if kept_ms else 12.0),
        pulse=PulseModel(pulse, 4.0 if pulse != "none" else 0.0),
        receiver=ReceiverModel("nmea", leap_at=leap_at, leap_step_s=leap_step_s),
        config=config or {},
        faults=tuple(faults),
    )
    world = LineWorld(scenario, say, baud)
    if table is not None:
        world.read(table)
    world.run()
    return world


def case(name: str, say: Say, *, want: str, says: str = "", **conditions: Any) -> LineWorld:
    """Run one case (``conditions``: as of ``run_case``) and print what came of it.

    ``want``: "locked" (LOCKED at the end, no packet beyond its bound) or "never-wrong" (no packet beyond its bound). ``says``: a part of
    what people must have been told.
    """
    world = run_case(name, say, **conditions)
    o = world.outcome
    ok = not o.violations and (want == "never-wrong" or o.final == "LOCKED") and any(says in words for _, words in world.told)
    if not ok:
        failed.append(name)
    locked = "never LOCKED" if o.locked_after_s is None else f"LOCKED after {o.locked_after_s:.0f} s"
    beyond = f"{o.violations} of {o.synchronised} packets beyond their bound, {o.wrong_seconds} wrong seconds"
    print(f"{'as expected' if ok else 'FAILED     '}  {name}: {locked}, ends {o.final}; {beyond}; {o.worst}")
    for k, words in world.told[-3:]:
        print(f"      {k:5d} s  {words[:230]}")
    print("      not used:", {str(reason): count for reason, count in world.last.sources[0].rejected.items()})
    return world


def done() -> None:
    """End the script: 1 when a case failed."""
    sys.exit(1 if failed else 0)
