"""Sources that hand on another's pulses do not vote, so copies of a late stamp cannot outvote the pulse itself."""

from __future__ import annotations

from ppsd.config.file import parse
from ppsd.discipline.copies import Copies
from refclock.sample import NS, SourceId

START_NS = 1_795_000_000 * NS


def copies(*tables: str) -> Copies:
    return Copies(parse("\n".join(f"[[source]]\n{table}" for table in tables)).sources)


SHM, SOCK = 'type = "shm"\nname = "shm"\nunit = 9', 'type = "sock"\nname = "sock"\npath = "/run/x.sock"'
PPS = 'type = "pps"\nname = "pps"\npps = "/dev/pps0"'


def test_one_stamp_told_twice_is_a_copy_and_two_stamps_are_not() -> None:
    """Shared memory and a socket that tell the same stamps, cut to microseconds: the later source is the copy. Stamps 3 µs apart are two
    events, and so are stamps that somebody put on whole seconds."""
    same, apart, whole = copies(SHM, SOCK), copies(SHM, SOCK), copies(SHM, SOCK)
    for second in range(8):
        at = START_NS + second * NS + 1_234_567 + second * 7919
        for found, by_shm, by_sock in ((same, at, at // 1000 * 1000), (apart, at, at + 3000), (whole, START_NS, START_NS)):
            found.stamped(SourceId("shm"), by_shm)
            found.stamped(SourceId("sock"), by_sock)
    assert (same.original(SourceId("sock")), same.original(SourceId("shm"))) == (SourceId("shm"), None)
    assert (apart.original(SourceId("sock")), whole.original(SourceId("sock"))) == (None, None)


def test_whoever_has_the_pulse_itself_is_the_original() -> None:
    """Samples with the kernel's own stamps of our pulse are copies of it, wherever they stand in the configuration; once they have other
    stamps they are not."""
    found = copies(SHM, PPS)
    for second in range(8):
        for name in ("shm", "pps"):
            found.stamped(SourceId(name), START_NS + second * NS + 55_321)
    assert (found.original(SourceId("shm")), found.original(SourceId("pps"))) == (SourceId("pps"), None)
    for second in range(8, 16):
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
