"""``refclock takeover``: what is read beside another program, and the frequency that goes back to it. tests/peers has all the steps."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from installed import Machine

from ppsd.cli.setup import APPLIANCE
from ppsd.cli.takeover import Takeover, beside, other_of
from ppsd.config.file import DEFAULT_FILE, parse
from ppsd.process.exit_codes import GOOD, Refused
from refclock.config import GpsdSource, PpsSource, ShmSource
from refclock.kernel.host import Host

DATA = Path(__file__).parents[2] / "data" / "import"


def machine_of(root: Path, unit: str, file: str, text: str) -> Machine:
    """A machine on which ``unit`` keeps the clock by its configuration."""
    made = Machine(root, unit)
    made.write(file, text)
    return made


def test_beside_gpsd_and_chronyd(tmp_path: Path) -> None:
    """Ubuntu's chrony with gpsd: gpsd's JSON is read, for it has any number of listeners. Its socket and its shared memory stay
    chronyd's, and both are named."""
    text = (DATA / "ubuntu-gpsd-chrony.conf").read_text(encoding="utf-8")
    host = Host(machine_of(tmp_path, "chrony", "/etc/chrony/chrony.conf", text).root)
    sources, told = beside(parse(other_of(host, "chronyd", 7).text), host)
    assert [type(source) for source in sources] == [GpsdSource]
    assert [re.findall(r"socket /run/chrony.ttyUSB0.sock|shared memory unit 0", words) for words in told] == [
        ["shared memory unit 0"],
        ["socket /run/chrony.ttyUSB0.sock"],
    ]


def test_beside_ntpd_that_reads_the_receiver_itself(tmp_path: Path) -> None:
    """The line has one reader. Its pulse has several: it is numbered by the clock that ntpd keeps. Samples of a third program are looked at
    and left there. What counts is the file that the command line names."""
    conf = "refclock nmea unit 0 path /dev/ttyS1 ppspath /dev/pps0 time1 0.00000005\nrefclock shm unit 7\n"
    machine = machine_of(tmp_path, "ntpsec", "/etc/ntpsec/ntp.conf", conf)
    machine.write("/run/ntp.conf.dhcp", conf)
    machine.write("/etc/ntpsec/ntp.conf", "pool ntp.example\n")
    machine.write("/proc/77/comm", "ntpd\n")
    machine.write("/proc/77/cmdline", "/usr/sbin/ntpd\0-p\0/run/ntpd.pid\0-c\0/run/ntp.conf.dhcp\0")
    machine.write("/dev/ttyS1", "")
    (machine.root / "proc/77/fd").mkdir()
    (machine.root / "proc/77/fd/5").symlink_to("/dev/ttyS1")
    sources, told = beside(parse(other_of(Host(machine.root), "ntpd", 77).text), Host(machine.root))
    pulse, samples = sources
    assert isinstance(pulse, PpsSource)
    assert (pulse.pps, pulse.cable_delay_ns) == ("/dev/pps0", 50)
    assert isinstance(samples, ShmSource)
    assert samples.shared
    assert "ntpd (pid 77) reads" in told[0]
    assert parse(other_of(Host(machine.root), "ntpd", 77).text).sources[0].kind == "receiver"  # what the switch takes over


@pytest.mark.parametrize(
    ("unit", "file", "drift", "expected"),
    [
        ("chrony", "/etc/chrony/chrony.conf", "/var/lib/chrony/chrony.drift", "-12.500000 1.000000"),
        ("ntpsec", "/etc/ntpsec/ntp.conf", "/var/lib/ntpsec/ntp.drift", "12.500000"),
    ],
)
def test_the_frequency_goes_back_with_the_clock(tmp_path: Path, unit: str, file: str, drift: str, expected: str) -> None:
    """The kernel makes the clock 12.5 ppm faster. chronyd writes down how much the clock would gain by itself, ntpd the correction; either
    finds its own figure in its own file, and runs again."""
    machine = machine_of(tmp_path, unit, file, f"pool ntp.example\ndriftfile {drift}\n")
    machine.write(drift, "3.25\n")
    assert machine.do(APPLIANCE) == GOOD
    assert machine.systemctl.active == {"refclock.target"}
    kernel = SimpleNamespace(frequency_ppm=12.5)
    takeover = Takeover(Host(machine.root), machine.systemctl, machine.out, kernel=lambda: kernel)  # type: ignore[arg-type, return-value]
    assert takeover.rollback() == GOOD
    assert machine.text(drift).split() == expected.split()
    assert machine.systemctl.active == {unit}
    with pytest.raises(Refused, match="nothing to take back"):
        takeover.rollback()


def test_where_nothing_can_be_seen_beside_the_switch_says_so(tmp_path: Path) -> None:
    """chronyd alone has the only source, a socket. The switch is made when it is confirmed, to the same source, and it is said that
    nothing was compared; chronyd served nobody, and so does refclock, which is said as well."""
    machine = machine_of(tmp_path, "chrony", "/etc/chrony/chrony.conf", "refclock SOCK /run/samples.sock delay 0.001\n")
    takeover, asked = Takeover(Host(machine.root), machine.systemctl, machine.out), list[bool]()
    other = other_of(Host(machine.root), "chronyd", 7)
    assert takeover.commit(other, 1, 1, lambda: asked.append(True)) == GOOD
    assert asked
    config = parse(machine.text(DEFAULT_FILE))
    assert (config.clock.steer, config.server.enabled) == ("kernel", False)
    assert [source.kind for source in config.sources] == ["sock"]
    said = machine.out.getvalue()
    assert "nothing was compared" in said
    assert "serves nobody" in said
    assert machine.systemctl.active == {"refclock.target"}
