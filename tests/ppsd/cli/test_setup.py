"""``refclock setup`` on a machine of files and a systemctl that only remembers: what is stopped, written and started, and taken back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import Machine

from ppsd.cli.setup import APPLIANCE, DROP_IN, FEEDER, JOURNAL, chosen, privileges
from ppsd.cli.takers import CHRONY_DROP_IN, CHRONY_LINES
from ppsd.config.file import DEFAULT_FILE, parse
from ppsd.process.exit_codes import FAILED, GOOD, Refused
from refclock.config import ShmFeed

CONFIGURATION = '# mine\n[server]\nlisten = ["192.0.2.1:123"] # the LAN\n\n[[source]]\ntype = "receiver"\ndevice = "/dev/ttyACM0"\n'


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "root", "chrony", "gpsd", "gpsd.socket")
    made.write(DEFAULT_FILE, CONFIGURATION)
    return made


def test_an_appliance_alone_sets_the_clock_and_serves(machine: Machine) -> None:
    """chronyd and gpsd are off, refclock is on and may set the clock; the rest of the configuration is as its owner wrote it."""
    assert machine.do(APPLIANCE) == GOOD
    assert machine.systemctl.enabled == machine.systemctl.active == {"refclock.target"}
    config = parse(machine.text(DEFAULT_FILE))
    assert (config.clock.steer, config.server.enabled) == ("kernel", True)
    assert "# the LAN" in machine.text(DEFAULT_FILE)
    assert "AmbientCapabilities=CAP_SYS_TIME" in machine.text(DROP_IN)


def test_a_feeder_leaves_the_clock_and_the_port_to_chronyd(machine: Machine) -> None:
    """chronyd goes on with one more file, which names the socket that refclock sends to. refclock gets no right, and no server starts."""
    assert machine.do(FEEDER) == GOOD
    assert machine.systemctl.active == {"chrony", "refclock-clock"}
    assert "refclock-clock.service, and with it metrics and history" in machine.out.getvalue()
    config = parse(machine.text(DEFAULT_FILE))
    assert (config.clock.steer, config.server.enabled) == ("none", False)
    (feed,) = config.feeds
    assert f"refclock SOCK {feed.path} " in machine.text(CHRONY_LINES)  # type: ignore[union-attr]
    assert "/bin/chgrp refclock" in machine.text(CHRONY_DROP_IN)
    assert not (machine.root / DROP_IN.lstrip("/")).exists()


@pytest.mark.parametrize("choice", [APPLIANCE, FEEDER])
@pytest.mark.parametrize("configured", [True, False])
def test_undo_leaves_the_machine_as_it_was(machine: Machine, choice: str, configured: bool) -> None:
    """Files, directories, and which services are on. The configuration of the setup is kept beside it."""
    kept = machine.root / f"{DEFAULT_FILE}.setup".lstrip("/")
    if not configured:
        (machine.root / DEFAULT_FILE.lstrip("/")).unlink()
    before = machine.state()
    machine.do(choice)
    assert machine.state() != before
    assert machine.setup().undo() == GOOD
    kept.unlink()
    assert machine.state() == before


def test_a_setup_that_failed_half_way_can_be_taken_back(machine: Machine) -> None:
    """The service does not start: the exit code says so, and undo puts chronyd back."""
    before = machine.state()
    machine.systemctl.broken = "refclock.target"
    assert machine.do(APPLIANCE) == FAILED
    assert "--undo" in machine.out.getvalue()
    machine.setup().undo()
    (machine.root / f"{DEFAULT_FILE}.setup".lstrip("/")).unlink()
    assert machine.state() == before


def test_gpsd_goes_on_when_it_is_the_source(machine: Machine) -> None:
    """It has the receiver because the configuration says so; the clock process may then talk to it."""
    machine.write(DEFAULT_FILE, '[[source]]\ntype = "gpsd"\n')
    assert machine.do(APPLIANCE) == GOOD
    assert machine.systemctl.active == {"gpsd", "gpsd.socket", "refclock.target"}
    assert "IPAddressAllow=localhost" in machine.text(DROP_IN)


def test_a_second_setup_does_not_forget_what_was_first(machine: Machine) -> None:
    """The journal of the first setup is what undo needs."""
    machine.do(APPLIANCE)
    journal = machine.text(JOURNAL)
    with pytest.raises(Refused, match="--undo"):
        machine.do(FEEDER)
    assert machine.text(JOURNAL) == journal


def test_a_program_that_would_fight_over_the_clock_is_named_and_nothing_changes(machine: Machine) -> None:
    """phc2sys is no unit that setup stops: the person is told how to."""
    for name, text in (("comm", "phc2sys\n"), ("cmdline", "phc2sys\0-s\0eth0\0"), ("status", "CapEff:\t000001ffffffffff\n")):
        machine.write(f"/proc/77/{name}", text)
    before = machine.state()
    with pytest.raises(Refused, match=r"phc2sys \(pid 77\).*systemctl disable --now phc2sys"):
        machine.do(APPLIANCE)
    assert machine.state() == before


@pytest.mark.parametrize(("clock", "said"), [("", "no program that takes samples"), ("systemd-timesyncd", "systemd-timesyncd, which")])
def test_without_a_program_that_takes_samples_there_is_nobody_to_feed(tmp_path: Path, clock: str, said: str) -> None:
    """A machine with no time program at all, or with one that only asks servers: the other way is named, and nothing is changed. To be
    the server works."""
    machine = Machine(tmp_path, *([clock] if clock else []))
    before = machine.state()
    with pytest.raises(Refused, match=f"{said}.*--as appliance"):
        machine.do(FEEDER)
    assert machine.state() == before
    assert machine.do(APPLIANCE) == GOOD
    assert machine.systemctl.active == {"refclock.target"}


def test_ntpd_of_ntpsec_gets_a_file_of_its_own(tmp_path: Path) -> None:
    """It reads shared memory, which outlives a restart of refclock's service, by a line in a file that its package leaves alone."""
    machine = Machine(tmp_path, "ntpsec")
    machine.write("/etc/ntpsec/ntp.conf", "pool ntp.example\n")
    assert machine.do(FEEDER) == GOOD
    (feed,) = parse(machine.text(DEFAULT_FILE)).feeds
    assert isinstance(feed, ShmFeed)
    assert f"refclock shm unit {feed.unit}" in machine.text("/etc/ntpsec/ntp.d/refclock.conf")
    assert "RemoveIPC=no" in machine.text(DROP_IN)
    assert machine.systemctl.active == {"ntpsec", "refclock-clock"}


@pytest.mark.parametrize(
    ("unit", "file", "line"),
    [
        ("ntp", "/etc/ntp.conf", "server 127.127.28.2"),
        ("ntpd-rs", "/etc/ntpd-rs/ntp.toml", 'mode = "sock"'),
        ("ntpsec", "/etc/ntpsec/ntp.conf", "refclock shm unit 2"),
        ("chrony", "/etc/chrony/chrony.conf", "refclock SOCK"),
    ],
)
def test_a_configuration_that_is_one_file_is_left_to_its_owner(tmp_path: Path, unit: str, file: str, line: str) -> None:
    """The line is shown with its place and what to do after; the file is as it was, and an undo says to take the line out again."""
    machine = Machine(tmp_path, unit)
    machine.write("/etc/chrony/chrony.conf", "pool ntp.example\n")  # from before there was conf.d
    machine.write("/run/ntpsec/ntp.conf.dhcp", "")  # ntpd reads this one, and looks for other files beside it
    machine.write(file, "server ntp.example\n")
    assert machine.do(FEEDER) == GOOD
    said = machine.out.getvalue()
    assert line in said
    assert file in said
    assert f"systemctl restart {unit}" in said
    assert machine.text(file) == "server ntp.example\n"
    machine.setup().undo()
    assert f"take out again what you put into {file}" in machine.out.getvalue()


def test_of_two_programs_that_keep_the_clock_none_is_fed(tmp_path: Path) -> None:
    """Both are named: only one can keep it. To be the server, both are stopped; an undo starts both."""
    machine = Machine(tmp_path, "chrony", "ntpd-rs", "openntpd", "systemd-timesyncd")
    before = machine.state()
    with pytest.raises(Refused, match="chrony and ntpd-rs run here"):
        machine.do(FEEDER)
    assert machine.state() == before
    assert machine.do(APPLIANCE) == GOOD
    assert machine.systemctl.active == {"refclock.target"}
    machine.setup().undo()
    assert machine.state()[1:] == before[1:]


def test_a_login_on_the_receivers_line_ends_for_good(machine: Machine) -> None:
    """A getty would write to the receiver and read its sentences. It comes from a generator, so only a mask keeps it away. Others stay."""
    for tty in ("ttyAMA0", "ttyS1"):
        machine.systemctl("enable", "--now", f"serial-getty@{tty}")
    machine.write("/usr/lib/systemd/system/serial-getty@.service", "")
    machine.write("/dev/ttyAMA0", "")
    (machine.root / "dev/serial0").symlink_to("ttyAMA0")
    machine.write(DEFAULT_FILE, CONFIGURATION.replace("ttyACM0", "serial0"))
    before = machine.state()
    machine.do(APPLIANCE)
    assert machine.systemctl.masked == {"serial-getty@ttyAMA0"}
    assert machine.systemctl.active == {"serial-getty@ttyS1", "refclock.target"}
    machine.setup().undo()
    (machine.root / f"{DEFAULT_FILE}.setup".lstrip("/")).unlink()
    assert machine.state() == before


@pytest.mark.parametrize("choice", [APPLIANCE, FEEDER])
def test_a_setup_that_was_interrupted_anywhere_can_be_taken_back(tmp_path: Path, choice: str) -> None:
    """Ctrl-C after the first, second ... step: what was done is undone. So it is when the undo itself is interrupted and begun again."""
    for steps in range(30):
        machine = Machine(tmp_path / str(steps), "chrony", "gpsd", "gpsd.socket")
        machine.write(DEFAULT_FILE, CONFIGURATION)
        before, plan = machine.state(), machine.setup().plan(choice)
        machine.systemctl.patience = steps
        with contextlib.suppress(KeyboardInterrupt):
            machine.setup().carry_out(plan)
        machine.systemctl.patience = steps % 5
        with contextlib.suppress(KeyboardInterrupt, Refused):
            machine.setup().undo()
        machine.systemctl.patience = 1000
        with contextlib.suppress(Refused):  # there is nothing to take back
            machine.setup().undo()
        (machine.root / f"{DEFAULT_FILE}.setup".lstrip("/")).unlink(missing_ok=True)
        assert machine.state() == before, steps


@pytest.mark.parametrize("choice", [APPLIANCE, FEEDER])
def test_services_that_an_administrator_had_started_by_hand_read_the_new_configuration(machine: Machine, choice: str) -> None:
    """They are restarted; as a feeder, the server ends. An undo leaves them running, as they were."""
    machine.systemctl("enable", "--now", "refclock.target")
    machine.do(choice)
    assert machine.systemctl.active == ({"refclock.target"} if choice == APPLIANCE else {"chrony", "refclock-clock"})
    assert machine.systemctl.restarted[-1] == ("refclock.target" if choice == APPLIANCE else "refclock-clock")
    machine.setup().undo()
    assert machine.systemctl.active == machine.systemctl.enabled == {"chrony", "gpsd", "gpsd.socket", "refclock.target"}


def test_an_undo_after_a_program_was_removed(machine: Machine) -> None:
    """chrony was uninstalled since: the rest is put back, and no second try is asked for."""
    machine.do(APPLIANCE)
    (machine.root / "usr/lib/systemd/system/chrony.service").unlink()
    assert machine.setup().undo() == GOOD
    assert machine.systemctl.active == {"gpsd", "gpsd.socket"}


def aged(machine: Machine, name: str, journal: bool) -> None:
    """The drop-in ``name`` becomes one that an older version wrote. ``journal``: so old that it did not yet remember what it wrote."""
    old = "# Written by refclock setup.\n[Service]\nOld=yes\n"
    machine.write(name, old)
    told = json.loads(machine.text(JOURNAL))
    told["written"][name] = old
    if not journal:
        del told["written"]
    machine.write(JOURNAL, json.dumps(told))


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize(("choice", "name"), [(APPLIANCE, DROP_IN), (FEEDER, CHRONY_DROP_IN)])
def test_an_upgrade_renews_what_an_older_setup_wrote(machine: Machine, choice: str, name: str, journal: bool) -> None:
    """The drop-ins are those of the new version; systemd reads them, no service is touched, and an undo still leaves nothing."""
    before = machine.state()
    machine.do(choice)
    fresh, on = machine.state(), set(machine.systemctl.restarted)
    aged(machine, name, journal)
    assert machine.setup().renew() == GOOD
    assert {file: text for file, text in machine.state()[0].items() if JOURNAL not in file} == {
        file: text for file, text in fresh[0].items() if JOURNAL not in file
    }
    assert set(machine.systemctl.restarted) == on
    machine.setup().undo()
    (machine.root / f"{DEFAULT_FILE}.setup".lstrip("/")).unlink()
    assert machine.state() == before


def test_an_upgrade_follows_the_configuration(machine: Machine) -> None:
    """gpsd became a source after the setup: the service may talk to it from the upgrade on. When nothing is needed any more, no drop-in
    stays. An undo leaves none either."""
    machine.do(FEEDER)
    own = machine.text(DEFAULT_FILE)
    machine.write(DEFAULT_FILE, f'{own}\n[[source]]\ntype = "gpsd"\n')
    machine.setup().renew()
    assert "IPAddressAllow=localhost" in machine.text(DROP_IN)
    machine.write(DEFAULT_FILE, own)
    machine.setup().renew()
    assert not (machine.root / DROP_IN.lstrip("/")).exists()
    machine.setup().undo()
    assert not (machine.root / DROP_IN.lstrip("/")).parent.exists()


def test_an_upgrade_leaves_what_somebody_has_changed(machine: Machine) -> None:
    """A drop-in that its owner edited or removed stays so, and he is told. Without a setup there is nothing to renew."""
    assert machine.setup().renew() == GOOD
    assert machine.systemctl.restarted == []
    machine.do(FEEDER)
    machine.write(CHRONY_DROP_IN, "# Written by refclock setup, and mine\n[Service]\nUMask=0007\n")
    before = machine.state()
    assert machine.setup().renew() == GOOD
    assert machine.state() == before
    assert f"{CHRONY_DROP_IN} was changed since the setup, and stays" in machine.out.getvalue()


def test_refclock_in_the_foreground_is_not_fought_over_port_123(machine: Machine) -> None:
    """Somebody runs it from a checkout, with directories of its own: it has the port, and is named."""
    machine.write("/proc/55/comm", "python3\n")
    machine.write("/proc/55/cmdline", "python3\0-m\0ppsd\0serve\0")
    machine.write("/proc/55/cgroup", "0::/user.slice/user-1000.slice/session-1.scope\n")
    (machine.root / "proc/55/fd").mkdir()
    (machine.root / "proc/55/fd/4").symlink_to("socket:[4711]")
    machine.write("/proc/net/udp", "sl local rem\n 1: 00000000:007B 00000000:0000 07 0:0 0:0 0 0 0 4711\n")
    before = machine.state()
    with pytest.raises(Refused, match=r"ppsd \(pid 55\) has port 123: end it"):
        machine.do(APPLIANCE)
    assert machine.state() == before


def test_both_choices_are_explained_before_one_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """A person who has read nothing can choose, by number or by name; another answer is asked again."""
    answers = iter(["what?", "2"])
    assert chosen(lambda _: next(answers)) == FEEDER
    said = capsys.readouterr().out
    assert "goes on to set the clock" in said
    assert "port 123" in said


def test_rights_follow_the_configuration() -> None:
    """The clock process gets the right to set the clock, or the loopback, only when its configuration uses them."""
    assert privileges(parse("")) == ""
    assert "CAP_SYS_TIME" in privileges(parse('[clock]\nsteer = "kernel"\n'))
    assert "DeviceAllow=char-ttyWCH rw" in privileges(parse('[[source]]\ntype = "receiver"\ndevice = "/dev/ttyWCH3"\n'))
    gpsd = privileges(parse('[[source]]\ntype = "gpsd"\n'))
    assert "PrivateNetwork=no" in gpsd
    assert "CAP" not in gpsd
