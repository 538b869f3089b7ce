"""Who else sets the system clock: the one answer that the clock process and the doctor go by, on made-up /proc trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppsd.cli.doctor.clock import other_disciplines
from ppsd.cli.doctor.finding import FAIL, OK, SKIP, Patient
from ppsd.clock.system_clock import KernelClock
from ppsd.config.file import parse
from refclock.kernel.clocks import Adjtimex
from refclock.kernel.host import Host
from refclock.kernel.rivals import rivals
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


def process(root: Path, pid: int, name: str, command: str, environment: bytes = b"", *, exe: str = "", rights: int | None = None) -> None:
    directory = root / "proc" / str(pid)
    directory.mkdir(parents=True)
    if exe:
        (directory / "exe").symlink_to(exe)
    if rights is not None:
        (directory / "status").write_text(f"Name:\t{name}\nCapPrm:\t000001ffffffffff\nCapEff:\t{rights:016x}\n")
    (directory / "comm").write_text(name[:15] + "\n")
    (directory / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in command.split()))
    (directory / "environ").write_bytes(environment)


def test_a_program_with_a_helper_is_one_rival(tmp_path: Path) -> None:
    """Debian's chronyd has a child of the same name, which may set the clock too. Two chronyds of their own are two."""
    for pid, parent in ((828, 1), (829, 828)):
        process(tmp_path, pid, "chronyd", "/usr/sbin/chronyd -F 1")
        (tmp_path / f"proc/{pid}/status").write_text(f"Name:\tchronyd\nPPid:\t{parent}\nCapEff:\t000001ffffffffff\n")
    assert [rival.pid for rival in rivals(Host(tmp_path))] == [828]
    (tmp_path / "proc/829/status").write_text("Name:\tchronyd\nPPid:\t1\nCapEff:\t000001ffffffffff\n")
    assert [rival.pid for rival in rivals(Host(tmp_path))] == [828, 829]


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
        ("ptp4l", "ptp4l", True),
        ("ptp4l", "ptp4l -i eth0", False),  # steers the network card's clock
        ("ptp4l", "ptp4l -Sm -i eth0", True),
        ("ptp4l", "ptp4l -i eth0 --time_stamping=software", True),
        ("ptp4l", "ptp4l -f /etc/software.conf -i eth0", True),
        ("ptp4l", "ptp4l -f /etc/hardware.conf -i S", False),
        ("ptpd2", "ptpd2 -i eth0", True),
        ("clockspeed", "clockspeed", True),
        ("ptp4l", "ptp4l -S --free_running 1 -i eth0", False),
        ("ts2phc", "ts2phc", True),
        ("ts2phc", "ts2phc -c eth0 -s nmea", False),
        ("ts2phc", "ts2phc -s generic -c CLOCK_REALTIME", True),
        ("vmtoolsd", "/usr/bin/vmtoolsd", True),
        ("VBoxService", "/usr/sbin/VBoxService --pidfile /run/vbox.pid", True),
        ("VBoxService", "/usr/sbin/VBoxService --pidfile /run/vbox.pid --disable-timesync", False),
        ("connmand", "/usr/sbin/connmand -n", True),
        ("htpdate", "/usr/sbin/htpdate -D example.org", True),
        ("chronyc", "chronyc -n", False),
        ("bash", "bash -c chronyd", False),
    ],
)
def test_the_clock_and_the_doctor_know_the_same_rivals(tmp_path: Path, name: str, command: str, steers: bool) -> None:
    """Whoever steers CLOCK_REALTIME keeps the daemon from steering it, and is a failure for the doctor; whoever does not is neither."""
    process(tmp_path, 1, "systemd", "/sbin/init")
    process(tmp_path, 412, name, command)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/software.conf").write_text("[global]\n# time_stamping hardware\ntime_stamping\t\tsoftware\n")
    (tmp_path / "etc/hardware.conf").write_text("[global]\n#time_stamping software\ntime_stamping hardware\n")
    host = Host(tmp_path)
    assert [str(rival) for rival in rivals(host)] == ([f"{name} (pid 412)"] if steers else [])
    finding = other_disciplines(Patient(host, parse('[clock]\nsteer = "kernel"\n')))
    assert finding.state == (FAIL if steers else OK)
    if steers:
        with pytest.raises(OSError, match=r"\(pid 412\)"):
            KernelClock(Kernel(), host)
    else:
        KernelClock(Kernel(), host)


def test_a_preloaded_library_is_no_alibi_and_a_simulated_clock_is(tmp_path: Path) -> None:
    """A chronyd with a preloaded allocator is a rival, also to a daemon with one. A simulated clock is nobody's rival and has none."""
    process(tmp_path, 1, "chronyd", "chronyd", b"HOME=/\0LD_PRELOAD=/lib/libjemalloc.so\0")
    process(tmp_path, 2, "chronyd", "chronyd", b"LD_PRELOAD=/usr/lib/clknetsim.so\0CLKNETSIM_SOCKET=/tmp/socket\0")
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/environ").write_bytes(b"LD_PRELOAD=/lib/libjemalloc.so\0")
    assert [rival.pid for rival in rivals(Host(tmp_path))] == [1]
    (tmp_path / "proc/self/environ").write_bytes(b"LD_PRELOAD=/x/fake_clock.so\0REFCLOCK_FAKE_CLOCK=/tmp/clock\0")
    assert rivals(Host(tmp_path)) == []


def test_a_rival_is_known_by_its_file_and_its_command_line_too(tmp_path: Path) -> None:
    """A process that calls itself something else, BusyBox under its applet's name, and one started by another
    name are found; BusyBox that only measures and
    a program of another name are not."""
    process(tmp_path, 1, "time-keeper", "keeper -F 1", exe="/usr/sbin/chronyd")
    process(tmp_path, 2, "ntpd", "/usr/sbin/ntpd -p pool.ntp.org", exe="/bin/busybox")
    process(tmp_path, 3, "ntpd", "/usr/sbin/ntpd -w -p pool.ntp.org", exe="/bin/busybox")
    process(tmp_path, 4, "worker-1", "/usr/bin/ntp-daemon -c /etc/ntp.toml")
    process(tmp_path, 5, "chronyd-exporter", "chronyd-exporter", exe="/usr/bin/chronyd-exporter")
    process(tmp_path, 6, "chronyd", "/usr/sbin/chronyd -F 1", exe="/usr/sbin/chronyd (deleted)")
    found = sorted((rival.pid, rival.name) for rival in rivals(Host(tmp_path)))
    assert found == [(1, "chronyd"), (2, "busybox"), (4, "ntp-daemon"), (6, "chronyd")]


def test_without_the_right_to_set_the_clock_nobody_is_a_rival(tmp_path: Path) -> None:
    """OpenNTPD's unprivileged half and a container that may not set the clock are none; the half with CAP_SYS_TIME is."""
    process(tmp_path, 1, "ntpd", "ntpd: [priv]", rights=0x1FFFFFFFFFF)
    process(tmp_path, 2, "ntpd", "ntpd: ntp engine", rights=0)
    process(tmp_path, 3, "chronyd", "chronyd", rights=0x1FFFFFFFFFF)
    (tmp_path / "proc/3/ns").mkdir()
    (tmp_path / "proc/3/ns/user").symlink_to("user:[4026532301]")
    assert [rival.pid for rival in rivals(Host(tmp_path))] == [1]


@pytest.mark.parametrize(
    ("name", "group", "remedy"),
    [
        ("chronyd", "0::/system.slice/chronyd.service\n", "sudo systemctl disable --now chronyd"),
        ("chronyd", "1:name=systemd:/system.slice/chrony.service\n", "sudo systemctl disable --now chrony"),
        ("ntp-daemon", "0::/system.slice/docker-0a1b2c.scope\n", "stop the container in which it runs"),
        ("ntpd", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte.scope\n", "sudo kill 412"),
        ("vmtoolsd", "0::/system.slice/open-vm-tools.service\n", "disable-all=true into /etc/vmware-tools/tools.conf"),
        ("VBoxService", "0::/system.slice/vboxadd-service.service\n", "--disable-timesync"),
    ],
)
def test_the_remedy_names_what_runs_it_here(tmp_path: Path, name: str, group: str, remedy: str) -> None:
    """The daemon's refusal and the doctor say how to stop a rival by the unit or container that really runs it."""
    process(tmp_path, 412, name, name)
    (tmp_path / "proc/412/cgroup").write_text(group)
    with pytest.raises(OSError, match=r"already sets the system clock") as refused:
        KernelClock(Kernel(), Host(tmp_path))
    assert remedy in str(refused.value.strerror)
    assert remedy in other_disciplines(Patient(Host(tmp_path), parse('[clock]\nsteer = "kernel"\n'))).do


def test_tools_that_were_told_to_leave_the_clock_alone_do(tmp_path: Path) -> None:
    """What each remedy says to write makes the program no rival any more."""
    process(tmp_path, 1, "vmtoolsd", "/usr/bin/vmtoolsd")
    process(tmp_path, 2, "connmand", "connmand")
    assert len(rivals(Host(tmp_path))) == 2
    (tmp_path / "etc/vmware-tools").mkdir(parents=True)
    (tmp_path / "etc/vmware-tools/tools.conf").write_text("[timeSync]\ndisable-all=true\n")
    (tmp_path / "var/lib/connman").mkdir(parents=True)
    (tmp_path / "var/lib/connman/settings").write_text("[global]\nOfflineMode=false\nTimeUpdates=manual\n")
    assert rivals(Host(tmp_path)) == []


def test_two_others_are_a_failure_whoever_steers(tmp_path: Path) -> None:
    """chronyd and timesyncd at once: the doctor fails and names both, although we leave the clock alone."""
    process(tmp_path, 7, "chronyd", "chronyd")
    process(tmp_path, 8, "systemd-timesyncd", "/lib/systemd/systemd-timesyncd")
    finding = other_disciplines(Patient(Host(tmp_path), parse("")))
    assert finding.state == FAIL
    assert "chronyd (pid 7) and systemd-timesyncd (pid 8)" in finding.what


def test_processes_that_are_hidden_are_not_called_absent(tmp_path: Path) -> None:
    """Where /proc shows only this user's processes, the doctor does not say that nobody steers."""
    process(tmp_path, 900, "bash", "bash")
    assert other_disciplines(Patient(Host(tmp_path), parse(""))).state == SKIP
