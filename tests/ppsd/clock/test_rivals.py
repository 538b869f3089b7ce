"""Who else sets the system clock: the one answer that the clock process and the doctor go by, on made-up /proc trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppsd.cli.doctor.clock import other_disciplines
from ppsd.cli.doctor.finding import FAIL, OK, Patient
from ppsd.clock.system_clock import KernelClock
from ppsd.config.file import parse
from refclock.kernel.clocks import Adjtimex
from refclock.kernel.host import Host, rivals
from refclock.sample import Leap


class Kernel:
    """A kernel clock that obeys."""

    def read_adjtimex(self) -> Adjtimex:
        return Adjtimex(0.0, 0, 0, 0, 37, 0, 0, Leap.NORMAL)

    def adjust_frequency(self, ppm: float) -> None:
        pass

    def step(self, offset_ns: int) -> None:
        pass

    def set_status(self, leap: Leap, est_error_ns: int, max_error_ns: int, tai_offset_s: int | None = None) -> None:
        pass


def process(root: Path, pid: int, name: str, command: str, environment: bytes = b"") -> None:
    directory = root / "proc" / str(pid)
    directory.mkdir(parents=True)
    (directory / "comm").write_text(name[:15] + "\n")
    (directory / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in command.split()))
    (directory / "environ").write_bytes(environment)


@pytest.mark.parametrize(
    ("name", "command", "steers"),
    [
        ("chronyd", "/usr/sbin/chronyd -F 1", True),
        ("chronyd", "chronyd -f /etc/x.conf", True),
        ("chronyd", "chronyd -f/etc/x.conf", True),
        ("chronyd", "chronyd -u x", True),
        ("chronyd", "chronyd -x -f /etc/x.conf", False),
        ("chronyd", "chronyd -dx", False),
        ("chronyd", "chronyd -4xd", False),
        ("chronyd", "chronyd -Q", False),
        ("chronyd", "", False),  # a zombie
        ("ntpd", "/usr/sbin/ntpd -p /run/ntpd.pid -c /etc/ntpsec/ntp.conf -g -N", True),
        ("ntpd", "ntpd: [priv]", True),  # OpenNTPD
        ("openntpd", "/usr/sbin/openntpd", True),
        ("ntp-daemon", "/usr/bin/ntp-daemon", True),  # ntpd-rs
        ("ntpd-rs", "ntpd-rs", True),
        ("systemd-timesyncd", "/lib/systemd/systemd-timesyncd", True),
        ("busybox", "busybox ntpd -p pool.ntp.org", True),
        ("busybox", "/bin/busybox ntpd -wp pool.ntp.org", False),
        ("busybox", "busybox sh", False),
        ("phc2sys", "phc2sys -s eth0 -w", True),
        ("phc2sys", "phc2sys -s eth0 -c CLOCK_REALTIME -O -37", True),
        ("phc2sys", "phc2sys -c eth0 -s CLOCK_REALTIME -O 37", False),
        ("phc2sys", "phc2sys -a -rr", True),
        ("phc2sys", "phc2sys -a", False),
        ("phc2sys", "phc2sys -s eth0 -E ntpshm -m", False),
        ("ptp4l", "ptp4l -i eth0", False),  # steers the network card's clock
        ("ptp4l", "ptp4l -Sm -i eth0", True),
        ("ptp4l", "ptp4l -i eth0 --time_stamping=software", True),
        ("ptp4l", "ptp4l -f /etc/software.conf -i eth0", True),
        ("ptp4l", "ptp4l -f /etc/hardware.conf -i S", False),
        ("ptpd2", "ptpd2 -i eth0", True),
        ("clockspeed", "clockspeed", True),
        ("chronyc", "chronyc -n", False),
        ("bash", "bash -c chronyd", False),
    ],
)
def test_the_clock_and_the_doctor_know_the_same_rivals(tmp_path: Path, name: str, command: str, steers: bool) -> None:
    """Whoever steers CLOCK_REALTIME keeps the daemon from steering it, and is a failure for the doctor; whoever does not is neither."""
    process(tmp_path, 412, name, command)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/software.conf").write_text("[global]\n# time_stamping hardware\ntime_stamping\t\tsoftware\n")
    (tmp_path / "etc/hardware.conf").write_text("[global]\n#time_stamping software\ntime_stamping hardware\n")
    host = Host(tmp_path)
    assert [str(rival) for rival in rivals(host)] == ([f"{name[:15]} (pid 412)"] if steers else [])
    finding = other_disciplines(Patient(host, parse('[clock]\nsteer = "kernel"\n')))
    assert finding.state == (FAIL if steers else OK)
    if steers:
        with pytest.raises(OSError, match=r"\(pid 412\)"):
            KernelClock(Kernel(), host)
    else:
        KernelClock(Kernel(), host)


def test_a_clock_of_its_own_is_nobodys_rival(tmp_path: Path) -> None:
    """A chronyd with a preloaded library (a clock simulator) is no rival, and to a process with one nobody is."""
    process(tmp_path, 1, "chronyd", "chronyd", b"HOME=/\0LD_PRELOAD=/opt/simulator.so\0")
    process(tmp_path, 2, "chronyd", "chronyd", b"HOME=/\0NO_LD_PRELOAD=1\0")
    assert [rival.pid for rival in rivals(Host(tmp_path))] == [2]
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/environ").write_bytes(b"LD_PRELOAD=/opt/simulator.so\0")
    assert rivals(Host(tmp_path)) == []
