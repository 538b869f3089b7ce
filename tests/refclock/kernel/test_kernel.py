"""kernel.py: clocks, pulses, shared memory and the timescale record on the machine that runs the tests; no clock is set."""

import errno
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from refclock.exchange.shm import ShmSample, ShmSegment
from refclock.kernel import clocks as kernel
from refclock.kernel._kernel import ffi
from refclock.kernel.clocks import LocalClock, Reading, StepWatch
from refclock.kernel.pps import PpsDevice
from refclock.kernel.timescale import TimescaleReader, TimescaleWriter
from refclock.record import Record, TimescaleReading
from refclock.sample import NS, Instant, Leap

pytestmark = pytest.mark.device


class Clocks:
    """Readings that a test moves; ``slew`` is how much faster REALTIME and MONOTONIC run than RAW."""

    def __init__(self) -> None:
        self.real, self.mono, self.raw, self.slew = 1_800_000_000 * NS, 500 * NS, 490 * NS, 0.0

    def forward(self, ns: int) -> None:
        ahead = ns + round(ns * self.slew)
        self.real, self.mono, self.raw = self.real + ahead, self.mono + ahead, self.raw + ns

    def __call__(self) -> Reading:
        return Reading(self.real, self.mono, self.raw, 30)


def test_the_real_clocks_are_read_together() -> None:
    """Two readings a moment apart advance alike on all three clocks, and the pairing is within a millisecond even on a busy machine."""
    first, second = kernel.read_clocks(), kernel.read_clocks()
    assert 0 <= second.uncertainty_ns < 1_000_000
    assert second.raw_ns > first.raw_ns
    assert abs((second.real_ns - first.real_ns) - (second.raw_ns - first.raw_ns)) < 1_000_000


def test_now_is_realtime_and_raw() -> None:
    """Instant.mono_ns is CLOCK_MONOTONIC_RAW, real_ns CLOCK_REALTIME."""
    clocks = Clocks()
    assert LocalClock(clocks).now() == Instant(clocks.real, clocks.raw, 0)


def test_a_reading_made_elsewhere_is_placed_unless_the_clock_was_stepped_since() -> None:
    """A thread's reading is an Instant as it is, slewed clock or not; one from before a step is given up."""
    clocks = Clocks()
    clock = LocalClock(clocks)
    clocks.slew = 200e-6
    reading = clocks()
    clocks.forward(NS)
    assert clock.placed(reading) == Instant(reading.real_ns, reading.raw_ns, 0)
    reading = clocks()
    clocks.real += NS // 2
    assert clock.placed(reading) is None
    assert clock.placed(clocks()) == Instant(clocks.real, clocks.raw, 1)


def test_a_stamp_is_interpolated_between_the_readings_around_it() -> None:
    """With REALTIME slewed by 200 ppm, a stamp half-way between two readings gets the RAW instant half-way, to the nanosecond."""
    clocks = Clocks()
    clock = LocalClock(clocks)
    clocks.slew = 200e-6
    start_real, start_raw = clocks.real, clocks.raw
    clocks.forward(NS)
    assert clock.instant_of(start_real + NS // 2 + 100_000) == Instant(start_real + NS // 2 + 100_000, start_raw + NS // 2, 0)
    assert clock.uncertainty_ns == 30


def test_an_older_stamp_uses_the_readings_of_its_time() -> None:
    """A frequency change after the stamp does not move it."""
    clocks = Clocks()
    clock = LocalClock(clocks)
    clocks.forward(NS)
    stamp = Instant(clocks.real, clocks.raw, 0)
    for slew in (0.0, 400e-6, -400e-6):
        clocks.forward(NS)
        clock.now()
        clocks.slew = slew
    assert clock.instant_of(stamp.real_ns) == stamp


@pytest.mark.parametrize("age_ns", [-1, 10 * NS + 1, 3 * NS + 1])
def test_a_stamp_out_of_range_is_given_up(age_ns: int) -> None:
    """The future, more than ten seconds ago, and before the first reading (3 s ago) have no instant."""
    clocks = Clocks()
    clock = LocalClock(clocks)
    clocks.forward(3 * NS)
    assert clock.instant_of(clocks.real - age_ns) is None
    assert clock.instant_of(clocks.real - 3 * NS) is not None


@pytest.mark.parametrize("step_ns", [2_000_000, -2_000_000, 3600 * NS, -NS])
def test_a_step_starts_an_era(step_ns: int) -> None:
    """REALTIME set by somebody: the era counts up once, the step is known with its sign, and stamps from across it are given up."""
    clocks = Clocks()
    clock = LocalClock(clocks)
    clocks.forward(NS)
    before = clocks.real - NS // 10
    clocks.real += step_ns
    clocks.forward(1000)
    assert clock.instant_of(before) is None
    assert (clock.now().era, clock.last_step_ns) == (1, step_ns)
    clocks.forward(NS)
    assert clock.now().era == 1
    assert clock.instant_of(clocks.real - NS // 2) == Instant(clocks.real - NS // 2, clocks.raw - NS // 2, 1)


def test_slewing_is_no_step() -> None:
    """An hour at 500 ppm moves REALTIME by 1.8 s against RAW and leaves the era alone."""
    clocks = Clocks()
    clock = LocalClock(clocks)
    clocks.slew = 500e-6
    for _ in range(60):
        clocks.forward(60 * NS)
        assert clock.now().era == 0


def test_nobody_stepped_the_clock() -> None:
    """A fresh watch has a descriptor to wait on and reports nothing."""
    watch = StepWatch()
    assert watch.fileno() >= 0
    assert not watch.stepped()
    watch.close()
    assert watch.fileno() == -1


def test_the_kernel_clock_can_be_looked_at() -> None:
    """Reading adjtimex needs no privilege and gives a frequency that the kernel can hold."""
    state = kernel.read_adjtimex()
    assert abs(state.frequency_ppm) <= 500
    assert state.state in range(6)


def test_an_impossible_frequency_is_refused_before_the_kernel() -> None:
    """600 ppm is an OSError that says the limit."""
    with pytest.raises(OSError, match="at most 500 ppm") as caught:
        kernel.adjust_frequency(600.0)
    assert caught.value.errno == errno.ERANGE


def test_opening_what_is_no_pulse_source_says_what_to_do(tmp_path: Path) -> None:
    """A missing device and a file that is none are told apart, each with advice."""
    with pytest.raises(FileNotFoundError, match="plugged in"):
        PpsDevice(tmp_path / "pps0")
    with pytest.raises(OSError, match="no PPS device") as caught:
        PpsDevice("/dev/null")
    assert caught.value.errno == errno.ENOTTY


@pytest.fixture
def unit() -> Iterator[int]:
    """A shared memory unit that nobody uses; removed afterwards."""
    for _ in range(100):
        number = random.randrange(100, 256)
        try:
            ShmSegment(number).close()
        except FileNotFoundError:
            break
        except OSError:
            continue
    yield number
    subprocess.run(["ipcrm", "-M", hex(0x4E545030 + number)], check=False, stderr=subprocess.DEVNULL)


def test_a_sample_goes_through_shared_memory_once(unit: int) -> None:
    """What one program writes another reads, once, to the nanosecond."""
    with pytest.raises(FileNotFoundError, match="writer"):
        ShmSegment(unit)
    writer = ShmSegment(unit, create=True, permissions=0o600)
    reader = ShmSegment(unit)
    assert reader.read() is None
    writer.write(1_893_456_000_123_456_789, 1_893_456_000_000_000_001, Leap.INSERT, -23)
    assert reader.read() == ShmSample(1_893_456_000_123_456_789, 1_893_456_000_000_000_001, Leap.INSERT, -23)
    assert reader.read() is None
    writer.close()
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read()


def test_an_impossible_unit_is_refused() -> None:
    """Units are 0..255."""
    with pytest.raises(OSError, match="unit 256"):
        ShmSegment(256)


def record(raw_ns: int = 1000 * NS, **changes: int) -> Record:
    """A synchronised record whose anchor is 2027-01-15 08:00:00 UTC."""
    fields: dict[str, int] = {
        "raw_ns": raw_ns,
        "tai_ns": 1_800_000_037 * NS,
        "root_delay_ns": 40,
        "reference_raw_ns": raw_ns - NS,
        "valid_until_raw_ns": raw_ns + 3600 * NS,
        "leap_tai_ns": 0,
        "leap_step_s": 0,
        "tai_offset_s": 37,
        "refid": 0x47505300,
        "precision": -24,
        "stratum": 1,
    } | changes
    return Record(rate=1e-6, bound_ns=100.5, bound_rate=1e-8, bound_wander_ns=0.0, simulated=True, **fields)


def test_a_record_has_the_fields_of_the_c_struct() -> None:
    """Every field of struct rec_params but its padding is a field of Record, in the same order: none is lost on the way."""
    names = [name for name, _ in ffi.typeof("struct rec_params").fields]
    assert [field.name for field in fields(Record)] == names[:-1]
    assert names[-1] == "reserved"


def test_a_record_comes_back_as_it_was_published(tmp_path: Path) -> None:
    """What a later run of the clock process resumes from is the record that the earlier one left, field by field."""
    writer, reader = TimescaleWriter(tmp_path / "timescale"), TimescaleReader(tmp_path / "timescale")
    assert reader.record() is None
    left = record(leap_tai_ns=1_800_100_000 * NS, leap_step_s=-1)
    writer.publish(left)
    assert reader.record() == left
    reader.close()
    writer.close()


def test_the_timescale_goes_through_its_file(tmp_path: Path) -> None:
    """A reader in any process sees the last published record, evaluated where it asks; before the first there is none."""
    path = tmp_path / "timescale"
    writer = TimescaleWriter(path)
    reader = TimescaleReader(path)
    assert reader.read() is None
    writer.publish(record())
    assert reader.at(1010 * NS) == TimescaleReading(
        utc_ns=1_800_000_010 * NS + 10_000,
        tai_ns=1_800_000_047 * NS + 10_000,
        bound_ns=201,
        root_delay_ns=40,
        reference_utc_ns=1_799_999_999 * NS - 1000,
        refid=0x47505300,
        precision=-24,
        stratum=1,
        leap=Leap.NORMAL,
        simulated=True,
    )
    expired = reader.at(5000 * NS)
    assert expired is not None
    assert (expired.leap, expired.stratum) == (Leap.UNSYNCHRONISED, 0)
    writer.publish(record(kernel.read_clocks().raw_ns))
    now = reader.read()
    assert now is not None
    assert 0 <= now.utc_ns - 1_800_000_000 * NS < 60 * NS
    writer.close()
    assert reader.at(1010 * NS) is not None
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read()


def test_the_wrong_file_is_not_taken_for_a_timescale(tmp_path: Path) -> None:
    """A missing file, somebody else's file and a symbolic link are refused with advice, and nothing is written to them."""
    path = tmp_path / "letter"
    with pytest.raises(FileNotFoundError, match="not started yet"):
        TimescaleReader(path)
    path.write_text("dear John")
    with pytest.raises(OSError, match="no timescale record"):
        TimescaleWriter(path)
    assert path.read_text() == "dear John"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        TimescaleWriter(link)
    assert not (tmp_path / "elsewhere").exists()


def test_no_descriptor_leaks(tmp_path: Path) -> None:
    """Opening and closing everything, also in vain, leaves the descriptors as they were."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a count
    for _ in range(20):
        TimescaleWriter(tmp_path / "timescale").close()
        TimescaleReader(tmp_path / "timescale").close()
        StepWatch().close()
        with pytest.raises(OSError, match="PPS"):
            PpsDevice("/dev/null")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
