"""clock.py: CLOCK_REALTIME follows the timescale, on a simulated clock that obeys the corrections."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ppsd.clock.system_clock import TAU_S, FreeRunningClock, KernelClock
from ppsd.discipline.events import Note, Steer
from refclock.condition import Code
from refclock.kernel.clocks import STA_UNSYNC, Adjtimex
from refclock.kernel.host import Host
from refclock.sample import NS, Instant, Leap

NOWHERE = Host(Path("/nonexistent"))
RATE = 12e-6
"""The true rate of UTC against RAW: an oscillator that is 12 ppm slow."""


@dataclass
class FakeKernel:
    """REALTIME as the kernel makes it: ``own_ppm`` is what it does at correction 0. ``error_ns``: UTC - REALTIME at raw 0."""

    error_ns: int
    own_ppm: float = 0.0
    frequency_ppm: float = 0.0
    raw_ns: int = 0
    real_ns: float = 0.0
    steps: list[int] = field(default_factory=list)
    set_ppm: list[float] = field(default_factory=list)
    status: list[tuple[Leap, int, int, int | None]] = field(default_factory=list)
    refuse: int = 0

    def __post_init__(self) -> None:
        self.real_ns = float(-self.error_ns)

    def read_adjtimex(self) -> Adjtimex:
        return Adjtimex(self.frequency_ppm, 0, 0, 0, 37, 0, 0, Leap.NORMAL)

    def adjust_frequency(self, ppm: float) -> None:
        if self.refuse:
            raise OSError(self.refuse, "no")
        assert abs(ppm) <= 500
        self.frequency_ppm = ppm
        self.set_ppm.append(ppm)

    def step(self, offset_ns: int) -> None:
        self.steps.append(offset_ns)
        self.real_ns += offset_ns

    def set_status(self, leap: Leap, est_error_ns: int, max_error_ns: int, tai_offset_s: int | None = None) -> None:
        self.status.append((leap, est_error_ns, max_error_ns, tai_offset_s))

    def run(self, ns: int) -> Instant:
        """Let time pass."""
        self.raw_ns += ns
        self.real_ns += ns * (1 + (self.frequency_ppm + self.own_ppm) * 1e-6)
        return self.now()

    def now(self) -> Instant:
        return Instant(round(self.real_ns), self.raw_ns, len(self.steps))

    @property
    def phase_ns(self) -> float:
        """UTC - REALTIME."""
        return self.raw_ns * (1 + RATE) - self.real_ns


def steer(kernel: FakeKernel, step_above_ns: int | None = None, leap: Leap = Leap.NORMAL, utc_ns: int | None = None) -> Steer:
    """What the engine says now."""
    utc = round(kernel.raw_ns * (1 + RATE)) if utc_ns is None else utc_ns
    return Steer(kernel.raw_ns, utc, RATE, step_above_ns, leap, 37, 100, 20_000)


def settle(clock: KernelClock, kernel: FakeKernel, seconds: int) -> list[Note]:
    notes: list[Note] = []
    for _ in range(seconds):
        kernel.run(NS)
        notes += clock.apply(steer(kernel), kernel.now())
    return notes


@pytest.mark.parametrize("own_ppm", [0.0, 0.8, -100.0])
@pytest.mark.parametrize("error_ns", [3_000_000, -3_000_000])
def test_the_phase_error_goes_and_the_rate_is_met(own_ppm: float, error_ns: int) -> None:
    """Behind or ahead, and whatever the clock does by itself, REALTIME ends on UTC at UTC's rate, without a step."""
    kernel = FakeKernel(error_ns, own_ppm)
    clock = KernelClock(kernel, NOWHERE)
    settle(clock, kernel, 120)
    assert abs(kernel.phase_ns) < 100
    assert clock.frequency_ppm + own_ppm == pytest.approx(RATE * 1e6, abs=0.01)
    assert not kernel.steps


def test_behind_is_made_to_run_faster() -> None:
    """A positive phase error (UTC - REALTIME) raises the correction above the rate, a negative one lowers it."""
    for error_ns in (1_000_000, -1_000_000):
        kernel = FakeKernel(error_ns)
        clock = KernelClock(kernel, NOWHERE)
        clock.apply(steer(kernel), kernel.now())
        assert kernel.frequency_ppm == pytest.approx(RATE * 1e6 + error_ns / TAU_S / 1000)


def test_one_step_when_allowed_and_none_otherwise() -> None:
    """Half an hour off is stepped once, when the engine allows it; without leave it is slewed at the limit and said so once."""
    kernel = FakeKernel(1800 * NS)
    clock = KernelClock(kernel, NOWHERE)
    notes = clock.apply(steer(kernel, step_above_ns=100_000_000), kernel.now())
    assert kernel.steps == [1800 * NS]
    assert [n.event for n in notes] == ["system clock stepped by us"]
    settle(clock, kernel, 30)
    assert abs(kernel.phase_ns) < 1000

    kernel = FakeKernel(1800 * NS)
    clock = KernelClock(kernel, NOWHERE)
    notes = settle(clock, kernel, 30)
    assert not kernel.steps
    assert kernel.frequency_ppm == 500
    assert [n.event for n in notes] == ["system clock is far off, slewing"]
    assert clock.trouble is not None
    assert clock.trouble.code is Code.CLOCK_SLEWING
    assert "the kernel allows 500" in clock.trouble.words


def test_a_foreign_frequency_is_noticed_and_undone() -> None:
    """Another program's +100 ppm is named and replaced within the second, costs at most the 100 us it made, and teaches us nothing."""
    kernel = FakeKernel(0)
    clock = KernelClock(kernel, NOWHERE)
    settle(clock, kernel, 30)
    kernel.frequency_ppm += 100
    notes = clock.apply(steer(kernel), kernel.run(NS))
    assert [(n.event, n.fields["by_ppm"]) for n in notes] == [("system clock's frequency was changed by somebody else", pytest.approx(100))]
    assert abs(kernel.phase_ns) < 101_000
    assert not settle(clock, kernel, 30)
    assert abs(kernel.phase_ns) < 1000


def test_nothing_beyond_the_panic_limit_is_corrected() -> None:
    """An hour off where 1000 s are the limit: neither step nor slew, an error said once, and the kernel is told that it is wrong. The
    trouble stands in the snapshot until the clock is right."""
    kernel = FakeKernel(3600 * NS)
    clock = KernelClock(kernel, NOWHERE)
    told = []
    for _ in range(3):
        told += clock.apply(replace(steer(kernel, step_above_ns=100_000_000), panic_ns=1000 * NS), kernel.run(NS))
    assert [n.event for n in told] == ["system clock is too far off, left alone"]
    assert not kernel.steps
    assert kernel.status[-1][0] is Leap.UNSYNCHRONISED
    assert abs(kernel.frequency_ppm) < 0.1
    assert clock.trouble is not None
    assert clock.trouble.code is Code.CLOCK_TOO_FAR_OFF
    assert "more than clock.panic_s = 1000: it is left alone" in clock.trouble.words
    notes = clock.apply(steer(kernel, step_above_ns=100_000_000), kernel.run(NS))
    assert [n.event for n in notes] == ["system clock stepped by us", "system clock caught up"]
    assert clock.trouble is None


def test_a_small_error_is_never_stepped() -> None:
    """Leave to step is not an order: 99 ms are slewed."""
    kernel = FakeKernel(99_000_000)
    clock = KernelClock(kernel, NOWHERE)
    clock.apply(steer(kernel, step_above_ns=100_000_000), kernel.now())
    assert not kernel.steps


def test_the_phase_correction_expires() -> None:
    """Without a new Steer for two seconds only the rate stays, and it stays."""
    kernel = FakeKernel(1_000_000)
    clock = KernelClock(kernel, NOWHERE)
    clock.apply(steer(kernel), kernel.now())
    clock.expire(kernel.run(NS))
    assert kernel.frequency_ppm > 200
    clock.expire(kernel.run(NS + NS // 10))
    assert kernel.frequency_ppm == pytest.approx(RATE * 1e6)
    calls = len(kernel.set_ppm)
    clock.expire(kernel.run(NS))
    assert len(kernel.set_ppm) == calls


def test_close_leaves_the_best_rate() -> None:
    """At the end of the process no phase correction is left behind."""
    kernel = FakeKernel(1_000_000)
    clock = KernelClock(kernel, NOWHERE)
    clock.apply(steer(kernel), kernel.now())
    clock.close()
    assert kernel.frequency_ppm == pytest.approx(RATE * 1e6)


def test_the_kernel_is_told_leap_tai_and_errors() -> None:
    """Leap, TAI-UTC and the errors of the Steer reach the kernel; the errors count how far REALTIME still is from UTC."""
    kernel = FakeKernel(5_000)
    clock = KernelClock(kernel, NOWHERE)
    clock.apply(steer(kernel, leap=Leap.INSERT), kernel.now())
    assert kernel.status == [(Leap.INSERT, 5_100, 25_000, 37)]


def test_a_leap_second_is_left_to_the_kernel() -> None:
    """Right after an announced leap UTC has gone back and REALTIME not yet: neither the announcement nor the frequency is touched, so that
    the kernel's tick does it; a clock that still has not leapt two seconds later is slewed."""
    kernel = FakeKernel(0)
    clock = KernelClock(kernel, NOWHERE)
    clock.apply(steer(kernel, leap=Leap.INSERT), kernel.now())
    told, frequency = len(kernel.status), kernel.frequency_ppm
    kernel.run(NS)
    clock.apply(steer(kernel, utc_ns=round(kernel.raw_ns * (1 + RATE)) - NS), kernel.now())
    assert (len(kernel.status), kernel.frequency_ppm, kernel.steps) == (told, frequency, [])
    kernel.run(2 * NS)
    clock.apply(steer(kernel, utc_ns=round(kernel.raw_ns * (1 + RATE)) - NS), kernel.now())
    assert kernel.frequency_ppm == -500
    assert not kernel.steps


def test_a_leap_second_that_did_not_come_is_taken_back_at_once() -> None:
    """The kernel has inserted the second that was announced, and labels have refuted it: the first correction steps."""
    kernel = FakeKernel(0)
    clock = KernelClock(kernel, NOWHERE)
    clock.apply(steer(kernel, leap=Leap.INSERT), kernel.now())
    kernel.run(NS)
    clock.apply(steer(kernel, step_above_ns=100_000, utc_ns=round(kernel.raw_ns * (1 + RATE)) + NS), kernel.now())
    assert kernel.steps == [pytest.approx(NS, abs=100_000)]


def test_no_permission_is_said_at_the_start() -> None:
    """Without CAP_SYS_TIME the constructor fails: nobody finds out hours later."""
    with pytest.raises(PermissionError):
        KernelClock(FakeKernel(0, refuse=errno.EPERM), NOWHERE)


def process(root: Path, pid: int, name: str, *words: str) -> None:
    directory = root / "proc" / str(pid)
    directory.mkdir(parents=True)
    (directory / "comm").write_text(name + "\n")
    (directory / "cmdline").write_bytes(b"".join(w.encode() + b"\0" for w in words))


def test_another_discipliner_is_refused_by_name(tmp_path: Path) -> None:
    """A running chronyd is named with its pid and what to do; the clock is not touched."""
    process(tmp_path, 412, "chronyd", "/usr/sbin/chronyd", "-F", "1")
    process(tmp_path, 7, "bash", "bash")
    kernel = FakeKernel(0)
    with pytest.raises(OSError, match=r"chronyd \(pid 412\).*steer") as refused:
        KernelClock(kernel, Host(tmp_path))
    assert refused.value.errno == errno.EBUSY
    assert not kernel.set_ppm


def test_the_free_running_clock_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """steer = "none" touches nothing and says nothing; how well another program keeps the clock is the kernel's own word."""
    kernel = FakeKernel(0)
    clock = FreeRunningClock(kernel)
    assert clock.apply(steer(kernel, step_above_ns=100_000_000), kernel.now()) == []
    assert clock.kept_error_ns() is None
    for status, error_ns, kept in ((0, 4_000_000, 4_000_000), (STA_UNSYNC, 4_000_000, None), (0, 0, None)):
        told = Adjtimex(0.0, 0, error_ns, 0, 37, status, 0, Leap.NORMAL)
        monkeypatch.setattr(kernel, "read_adjtimex", lambda told=told: told)
        assert clock.kept_error_ns() == kept
        assert KernelClock(kernel, NOWHERE).kept_error_ns() is None
    clock.expire(kernel.now())
    clock.close()


def test_a_rival_that_comes_later_gets_the_clock_until_it_goes(tmp_path: Path) -> None:
    """chronyd started beside us sets the frequency: within a second the clock is left to it, by name and told once; a minute after it has
    gone the clock is taken up again."""
    kernel = FakeKernel(0)
    clock = KernelClock(kernel, Host(tmp_path))
    settle(clock, kernel, 30)
    chronyd = tmp_path / "proc/77"
    chronyd.mkdir(parents=True)
    (chronyd / "comm").write_text("chronyd\n")
    (chronyd / "cmdline").write_bytes(b"chronyd\0")
    notes = []
    for _ in range(90):
        kernel.frequency_ppm = 42.0
        notes += settle(clock, kernel, 1)
    assert kernel.frequency_ppm == 42.0
    assert [note.event for note in notes] == [
        "system clock's frequency was changed by somebody else",
        "system clock left to another program",
    ]
    assert clock.trouble is not None
    assert clock.trouble.code is Code.CLOCK_SHARED
    assert "chronyd (pid 77)" in clock.trouble.words
    for file in chronyd.iterdir():
        file.unlink()
    chronyd.rmdir()
    assert "system clock taken up again" in [note.event for note in settle(clock, kernel, 90)]
    assert clock.trouble is None
    assert abs(kernel.phase_ns) < 1000


def test_an_unknown_rival_is_told_and_counted(tmp_path: Path) -> None:
    """Something that nobody knows sets the frequency each second: told as one condition, which names who was given the right to, one line
    in the log, and the clock stays ours."""
    keeper = tmp_path / "proc/78"
    keeper.mkdir(parents=True)
    (keeper / "comm").write_text("acme-keeper\n")
    (keeper / "cmdline").write_bytes(b"/usr/sbin/acme-keeper\0")
    (keeper / "status").write_text("CapEff:\t0000000002000000\n")
    kernel = FakeKernel(0)
    clock = KernelClock(kernel, Host(tmp_path))
    settle(clock, kernel, 30)
    notes = []
    for _ in range(120):
        kernel.frequency_ppm += 50.0
        notes += settle(clock, kernel, 1)
    assert len(notes) == 1
    assert clock.trouble is not None
    assert clock.trouble.code is Code.CLOCK_SHARED
    assert "acme-keeper (pid 78)" in clock.trouble.words
    assert kernel.frequency_ppm != 42.0
    settle(clock, kernel, 90)
    assert clock.trouble is None
