"""``refclock setup`` on a machine of files and a systemctl that only remembers: what is stopped, written and started, and taken back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppsd.cli.setup import APPLIANCE, CHRONY_DROP_IN, CHRONY_LINES, DROP_IN, FEEDER, JOURNAL, Setup, chosen, privileges
from ppsd.config.file import DEFAULT_FILE, parse
from ppsd.process.exit_codes import FAILED, GOOD, Refused
from refclock.kernel.host import Host

CONFIGURATION = '# mine\n[server]\nlisten = ["192.0.2.1:123"] # the LAN\n\n[[source]]\ntype = "receiver"\ndevice = "/dev/ttyACM0"\n'


class Systemctl:
    """Units that are enabled and active. ``broken``: a unit that does not start."""

    def __init__(self, *units: str) -> None:
        self.enabled, self.active, self.broken = set(units), set(units), ""

    def __call__(self, verb: str, *words: str) -> int:
        units = [word.removesuffix(".service") for word in words if not word.startswith("--")]
        if "chronyd" in units:
            if verb in ("enable", "disable"):
                return 1  # another name of chrony
            units = ["chrony"]
        if verb == "is-enabled":
            return int(units[0] not in self.enabled)
        if verb == "is-active":
            return int(units[0] not in self.active)
        if verb == "disable":
            self.enabled -= set(units)
            self.active -= set(units)
        if verb == "enable":
            self.enabled |= set(units)
        if verb in ("start", "restart") or (verb == "enable" and "--now" in words):
            if self.broken in units:
                return 1
            self.active |= set(units)
        return 0


class Machine:
    """The files of a machine, and its services."""

    def __init__(self, root: Path, *units: str) -> None:
        self.root, self.systemctl, self.out = root, Systemctl(*units), io.StringIO()
        for name in ("refclock.target", "refclock-clock.service"):
            self.write(f"/usr/lib/systemd/system/{name}", "")
        for unit in units:
            self.write(f"/usr/lib/systemd/system/{unit if '.' in unit else f'{unit}.service'}", "")
        alias = root / "etc/systemd/system/chronyd.service"
        alias.parent.mkdir(parents=True)
        alias.symlink_to("../../../usr/lib/systemd/system/chrony.service")
        self.write("/etc/chrony/chrony.conf", "pool ntp.example iburst\nconfdir /etc/chrony/conf.d\n")

    def write(self, name: str, text: str) -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def text(self, name: str) -> str:
        return (self.root / name.lstrip("/")).read_text(encoding="utf-8")

    def state(self) -> tuple[dict[str, str], set[str], set[str]]:
        """Every file with its text, and the services that are on."""
        files = {str(path): path.read_text(encoding="utf-8") for path in self.root.rglob("*") if path.is_file()}
        return files, set(self.systemctl.enabled), set(self.systemctl.active)

    def setup(self) -> Setup:
        return Setup(Host(self.root), self.systemctl, self.out)

    def do(self, choice: str) -> int:
        return self.setup().carry_out(self.setup().plan(choice))


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
    config = parse(machine.text(DEFAULT_FILE))
    assert (config.clock.steer, config.server.enabled) == ("none", False)
    (feed,) = config.feeds
    assert f"refclock SOCK {feed.path} " in machine.text(CHRONY_LINES)  # type: ignore[union-attr]
    assert "/bin/chgrp refclock" in machine.text(CHRONY_DROP_IN)
    assert not (machine.root / DROP_IN.lstrip("/")).exists()


@pytest.mark.parametrize("choice", [APPLIANCE, FEEDER])
@pytest.mark.parametrize("configured", [True, False])
def test_undo_leaves_the_machine_as_it_was(machine: Machine, choice: str, configured: bool) -> None:
    """Files, and which services are on. The configuration of the setup is kept beside it."""
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


def test_without_chronyd_there_is_nobody_to_feed(machine: Machine) -> None:
    """The other way is named."""
    machine.systemctl("disable", "--now", "chrony")
    with pytest.raises(Refused, match="refclock feed ntpd"):
        machine.do(FEEDER)


def test_both_choices_are_explained_before_one_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """A person who has read nothing can choose, by number or by name; another answer is asked again."""
    answers = iter(["what?", "2"])
    assert chosen(lambda _: next(answers)) == FEEDER
    said = capsys.readouterr().out
    assert "chronyd goes on" in said
    assert "port 123" in said


def test_rights_follow_the_configuration() -> None:
    """The clock process gets the right to set the clock, or the loopback, only when its configuration uses them."""
    assert privileges(parse("")) == ""
    assert "CAP_SYS_TIME" in privileges(parse('[clock]\nsteer = "kernel"\n'))
    gpsd = privileges(parse('[[source]]\ntype = "gpsd"\n'))
    assert "PrivateNetwork=no" in gpsd
    assert "CAP" not in gpsd
