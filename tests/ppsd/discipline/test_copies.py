"""Sources that hand on another's pulses do not vote, so copies of a late stamp cannot outvote the pulse itself."""

from __future__ import annotations

import random

from ppsd.config.file import parse
from ppsd.discipline.copies import Copies
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Pulsed, PulseFound, Reported, Sampled, SourceFound, Ticked
from ppsd.discipline.saved import Saved
from refclock.sample import NS, Edge, EdgeKind, ForeignSample, Instant, Leap, SecondLabel, SourceId

START_NS = 1_795_000_000 * NS


def copies(*tables: str) -> Copies:
    return Copies(parse("\n".join(f"[[source]]\n{table}" for table in tables)).sources)


SHM, SOCK = 'type = "shm"\nname = "shm"\nunit = 9', 'type = "sock"\nname = "sock"\npath = "/run/x.sock"'
PPS = 'type = "pps"\nname = "pps"\npps = "/dev/pps0"'


def test_one_stamp_told_twice_is_a_copy_and_two_stamps_are_not() -> None:
    """Shared memory and a socket that tell the same stamps, cut to microseconds: the later source is the copy. Stamps 3 µs apart are two
    events, and so are stamps that somebody put on whole seconds."""
    same, apart, whole = copies(SHM, SOCK), copies(SHM, SOCK), copies(SHM, SOCK)
    for second in range(16):
        at = START_NS + second * NS + 1_234_567 + second * 7919
        for found, by_shm, by_sock in ((same, at, at // 1000 * 1000), (apart, at, at + 3000), (whole, START_NS, START_NS)):
            found.stamped(SourceId("shm"), by_shm)
            found.stamped(SourceId("sock"), by_sock)
    assert (same.original(SourceId("sock")), same.original(SourceId("shm"))) == (SourceId("shm"), None)
    assert (apart.original(SourceId("sock")), whole.original(SourceId("sock"))) == (None, None)


def test_two_receivers_whose_stamps_lie_close_are_two() -> None:
    """Pulses of two receivers are stamped within a microsecond of each other, one of them with whole microseconds: neither is a copy,
    so both have a vote."""
    close, cut, chance = copies(SHM, PPS), copies(SOCK, PPS), random.Random(1)
    for second in range(600):
        at = START_NS + second * NS + 1_234_567 + chance.randrange(10_000)
        other = at + chance.randrange(-1000, 1000)
        close.stamped(SourceId("pps"), at)
        close.stamped(SourceId("shm"), other)
        cut.stamped(SourceId("pps"), at)
        cut.stamped(SourceId("sock"), other // 1000 * 1000)
        assert (close.original(SourceId("shm")), cut.original(SourceId("sock"))) == (None, None), second


def test_whoever_has_the_pulse_itself_is_the_original() -> None:
    """Samples with the kernel's own stamps of our pulse are copies of it, wherever they stand in the configuration; once they have other
    stamps they are not."""
    found = copies(SHM, PPS)
    for second in range(8):
        for name in ("shm", "pps"):
            found.stamped(SourceId(name), START_NS + second * NS + 55_321)
    assert (found.original(SourceId("shm")), found.original(SourceId("pps"))) == (SourceId("pps"), None)
    for second in range(8, 24):
        found.stamped(SourceId("shm"), START_NS + second * NS + 800_123)
        found.stamped(SourceId("pps"), START_NS + second * NS + 55_321)
    assert found.original(SourceId("shm")) is None


def test_what_gpsd_gives_to_ntp_daemons_is_a_copy_of_gpsd() -> None:
    """Beside this host's gpsd its shared memory and chrony's socket have no vote, however late they are; another unit or path, and a gpsd
    of another host, say nothing of them."""
    gpsd, unit = 'type = "gpsd"\nname = "gps"', 'type = "shm"\nname = "shm"\nunit = 1'
    path = 'type = "sock"\nname = "sock"\npath = "/run/chrony.ttyAMA0.sock"'
    found = copies(gpsd, unit, path)
    assert {found.original(SourceId(name)) for name in ("shm", "sock")} == {SourceId("gps")}
    assert copies(gpsd, SHM, SOCK).original(SourceId("sock")) is None
    assert copies(f'{gpsd}\nhost = "10.0.0.7"', unit, path).original(SourceId("shm")) is None
    assert copies(f"{gpsd}\nnoselect = true", unit, path).original(SourceId("shm")) is None


def test_late_copies_do_not_outvote_the_pulse_that_they_copy() -> None:
    """Two copies that agree on being 5 ms late, beyond what is stated of them, against the pulse itself: the pulse is served and the copies
    are told to be wrong. Did they vote, they would win two to one."""
    engine = Engine(
        parse(
            '[[source]]\ntype = "gpsd"\nname = "gps"\npps = "/dev/pps0"\n'
            '[[source]]\ntype = "shm"\nname = "shm"\nunit = 1\nbias_us = 2000\n'
            '[[source]]\ntype = "sock"\nname = "sock"\npath = "/run/chrony.ttyAMA0.sock"\nbias_us = 2000\n'
        ),
        Saved(),
        Instant(START_NS, 0),
        simulated=False,
        version="",
        pid=1,
    )
    engine.handle(SourceFound(SourceId("gps"), "gpsd", Instant(START_NS, 0)))
    engine.handle(PulseFound(SourceId("gps"), "/dev/pps0", False, 15.0, "by the kernel", Instant(START_NS, 0)))
    for second in range(1, 40):

        def at(s: float, second: int = second) -> Instant:
            return Instant(START_NS + round((second + s) * NS), round((second + s) * NS))

        for late, kind in ((0.0, EdgeKind.ASSERT), (0.1, EdgeKind.CLEAR)):
            edge = Edge(at(late + 1e-6), kind, second, 100)
            engine.handle(Pulsed(SourceId("gps"), edge, at(late + 2e-6)))
        for name in ("shm", "sock"):
            sample = ForeignSample(at(0.005), -5_000_000, 0, Leap.NORMAL)
            engine.handle(Sampled(SourceId(name), sample, at(0.11)))
        label = SecondLabel(START_NS + second * NS, at(0.15), "TPV", leap_known=True)
        engine.handle(Reported(SourceId("gps"), (label,), at(0.16)))
        engine.handle(Ticked(at(0.9), None))
    seen = engine.snapshot(Instant(START_NS + 40 * NS, 40 * NS))
    assert {s.name: s.tally for s in seen.sources} == {"gps": "*", "shm": "x", "sock": "x"}
    assert seen.system_offset_ns is not None
    assert abs(seen.system_offset_ns) < 20_000
