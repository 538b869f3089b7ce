"""What ``refclock run`` would start: devices found, effective configuration, run directory."""

import os
import socket
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import ppsd.clock.pulses
from ppsd.cli.run import Run, spelled
from ppsd.clock.pulses import PulseInputs
from ppsd.config.file import read
from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.events import PulseFound
from ppsd.process.control import ControlServer, Reloaded
from ppsd.process.lifecycle import make_run_directory
from refclock.config import DEFAULT_SOURCE, ReceiverSource, ShmFeed
from refclock.devices.ports import pair, pulses, serial_ports
from refclock.devices.pps import BY_KERNEL
from refclock.kernel.clocks import LocalClock
from refclock.kernel.host import Host
from refclock.schema import ConfigError


def devices(tmp_path: Path, *names: str) -> Path:
    made = tmp_path / "dev"
    made.mkdir(exist_ok=True)
    for name in names:
        (made / name).touch()
    return made


def test_devices_are_found_once(tmp_path: Path) -> None:
    """An alias hides what it points to; pulses go to receivers in order; a receiver too many has none."""
    dev = devices(tmp_path, "ttyAMA0", "ttyUSB0", "ttyS0", "pps0", "console")
    (dev / "serial0").symlink_to("ttyAMA0")
    host = Host(tmp_path)
    paths = [port.path for port in serial_ports(host)]
    assert paths == ["/dev/serial0", "/dev/ttyUSB0"]
    assert pair(host, paths, pulses(host)) == {"/dev/serial0": "/dev/pps0", "/dev/ttyUSB0": ""}


def test_a_pulse_goes_to_the_line_it_came_by(tmp_path: Path) -> None:
    """sysfs tells whose DCD line a pulse is; a pin's pulse goes to the first that has none; the kernel's own timer to nobody."""
    devices(tmp_path, "ttyAMA0", "ttyUSB0", "pps0", "pps1", "pps2")
    for number, (name, tty) in enumerate([("ktimer", ""), ("pps@12.-1", ""), ("usbserial0", "/dev/ttyUSB0")]):
        entry = tmp_path / f"sys/class/pps/pps{number}"
        entry.mkdir(parents=True)
        (entry / "name").write_text(name + "\n")
        (entry / "path").write_text(tty + "\n")
    host = Host(tmp_path)
    paths = [port.path for port in serial_ports(host)]
    assert pair(host, paths, pulses(host)) == {"/dev/ttyUSB0": "/dev/pps2", "/dev/ttyAMA0": "/dev/pps1"}


@pytest.mark.parametrize(
    ("own", "pin", "chosen"),
    [("0", "4711", "pps0"), ("17", "4711", "pps1"), ("17", "0", "pps1"), ("0", "0", "pps1"), ("", "4711", "pps1"), ("", "", "pps1")],
)
def test_a_pulse_device_that_has_ticked_goes_before_one_that_never_has(tmp_path: Path, own: str, pin: str, chosen: str) -> None:
    """The pulse device of a USB port whose carrier wire no receiver drives is left for a pin's that ticks; where the kernel does not count,
    the port's own is taken."""
    devices(tmp_path, "ttyACM0", "pps0", "pps1")
    for name, driver, tty, edges in (("pps0", "pps@12.-1", "", pin), ("pps1", "acm0", "/dev/ttyACM0", own)):
        entry = tmp_path / "sys/class/pps" / name
        entry.mkdir(parents=True)
        for file, text in (("name", driver), ("path", tty), ("assert", f"1795818000.000003123#{edges}"), ("clear", "0.000000000#0")):
            if file in ("name", "path") or edges:
                (entry / file).write_text(text + "\n")
    host = Host(tmp_path)
    assert pair(host, ["/dev/ttyACM0"], pulses(host)) == {"/dev/ttyACM0": f"/dev/{chosen}"}


def test_what_others_hold_is_left_to_them(tmp_path: Path) -> None:
    """gpsd's receiver is not taken away from it, and the user is told who has it."""
    devices(tmp_path, "ttyACM0", "ttyUSB0")
    (tmp_path / "proc/412/fd").mkdir(parents=True)
    (tmp_path / "proc/412/comm").write_text("gpsd\n")
    (tmp_path / "proc/412/fd/7").symlink_to("/dev/ttyACM0")
    run = Run(None, False, "127.0.0.1:11999", tmp_path / "run", Host(tmp_path))
    run.prepare()
    assert "looking for receivers on /dev/ttyUSB0; pulse: none; /dev/ttyACM0 is left to gpsd (pid 412)" in run.outlook()


def test_nothing_configured_nothing_found(tmp_path: Path) -> None:
    """The run goes on without a source and says where it looked; the clock process takes a receiver that is plugged in later."""
    empty = tmp_path / "empty.toml"
    empty.touch()
    run = Run(empty, False, "127.0.0.1:11999", tmp_path / "run", Host(tmp_path))
    run.prepare()
    assert run.config.sources == ()
    text = "\n".join(run.greeting())
    assert "/dev/ttyACM*" in text
    assert "it will be noticed" in text
    assert "refclock query 127.0.0.1:11999" in text
    assert replace(DEFAULT_SOURCE, name="") == ReceiverSource(device="auto", pps="auto")


def test_commands_are_printed_as_they_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a virtual environment that is not active, its activation comes first; with sudo the whole path; on the PATH just the name. A
    space in a path is quoted."""
    programs = tmp_path / "my clone" / "bin"
    programs.mkdir(parents=True)
    script = programs / "refclock"
    script.touch(0o755)
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert spelled(script) == ([], f"'{script}'")
    (programs / "activate").touch()
    assert spelled(script) == ([f". '{programs}/activate'"], "refclock")
    monkeypatch.setenv("SUDO_USER", "pi")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert spelled(script) == ([], f"sudo '{script}'")
    monkeypatch.setenv("PATH", str(programs))
    assert spelled(script) == ([], "sudo refclock")
    monkeypatch.delenv("SUDO_USER")
    assert spelled(script) == ([], "refclock")


def test_effective_configuration_keeps_what_was_configured(tmp_path: Path) -> None:
    """Children read the user's configuration with only the command line's changes in it."""
    file = tmp_path / "c.toml"
    file.write_text('[log]\nlevel = "debug"\n[server]\nthreads = 3\n[[source]]\ntype = "shm"\nunit = 4\n')
    run = Run(file, False, "[::1]:11999", tmp_path / "run", Host(tmp_path))
    run.prepare()
    user, effective = read(file), read(run.file)
    changed = replace(user.run, directory=str(tmp_path / "run"))
    assert effective == replace(user, server=replace(user.server, listen=("[::1]:11999",)), run=changed)
    assert [p.name for p in run.programs()] == ["clock", "serve", "web"]
    file.write_text("[log]\nlevel = 1")
    refused = run.reload()
    assert not refused.good
    assert refused.lines[0].startswith(f"{file}:2: log.level: ")
    assert read(run.file) == effective
    file.write_text("[server]\nenabled = false\n[[source]]\ntype = 'shm'\nunit = 4\n")
    run.listen = None
    assert run.reload() == Reloaded(True, ("changed: server.enabled, server.listen, server.threads, log.level",))
    assert [p.name for p in run.programs()] == ["clock", "web"]
    file.write_text("[server]\nenabled = false\n[run]\nstate = '/elsewhere'\n[[source]]\ntype = 'shm'\nunit = 4\n")
    later = "changed for the next start of refclock only: run.state"
    assert run.reload() == Reloaded(True, ("nothing has changed that takes effect now", later))


def test_what_children_read_is_written_again_when_it_was_removed(tmp_path: Path) -> None:
    """A child that dies after a cleaner has been there starts again under the configuration in force."""
    file = tmp_path / "c.toml"
    file.write_text("[server]\nthreads = 3\n")
    run = Run(file, False, None, tmp_path / "run", Host(tmp_path))
    run.prepare()
    before = read(run.file)
    run.file.unlink()
    file.write_text("not read before a reload")
    assert run.keep() == ""
    assert read(run.file) == before
    run.file.unlink()
    run.directory.rmdir()
    assert "No such file or directory" in run.keep()


def test_simulation_is_fenced_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated time: own directory, loopback, feeds only of a file named here and now, configured receivers left alone, no steering."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    file = tmp_path / "c.toml"
    file.write_text('[[source]]\ntype = "receiver"\ndevice = "/dev/ttyS0"\n[[feed]]\ntype = "shm"\nunit = 2\n')
    run = Run(file, True, None, None, Host(tmp_path))
    run.prepare()
    assert run.directory == tmp_path / "refclock-sim"
    assert stat.S_IMODE(run.directory.stat().st_mode) == 0o700
    assert [f.kind for f in run.config.feeds] == ["shm"]
    assert [s.device for s in run.config.sources if isinstance(s, ReceiverSource)] == [str(run.directory / "ttySIM0")]
    assert run.config.server.listen == ("127.0.0.1:11123",)
    assert run.config.run.state.startswith(str(run.directory))
    assert "SIMULATED" in run.greeting()[0]
    file.write_text('[clock]\nsteer = "kernel"\n')
    with pytest.raises(ConfigError, match="must not steer"):
        run.prepare()
    file.write_text('[simulation]\nreceiver = "sextant"\n')
    with pytest.raises(ConfigError, match=r'c\.toml:2: .*allowed: "ublox8"'):
        run.prepare()
    monkeypatch.setattr("ppsd.cli.run.load", lambda _: replace(Config(), feeds=(ShmFeed(unit=2, name="shm0"),)))
    default = Run(None, True, None, None, Host(tmp_path))
    default.prepare()
    assert default.config.feeds == ()
    monkeypatch.setattr("ppsd.cli.run.load", lambda _: replace(Config(), clock=ClockConfig(steer="kernel")))
    appliance = Run(None, True, None, None, Host(tmp_path))
    appliance.prepare()
    assert appliance.config.clock.steer == "none"


def test_foreign_directories_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link, a file, a directory that others own or may change: none becomes a private run directory."""
    make_run_directory(tmp_path / "good", private=True)
    make_run_directory(tmp_path / "good", private=True)
    (tmp_path / "link").symlink_to(tmp_path / "good")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(NotADirectoryError):
            make_run_directory(tmp_path / name, private=True)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PermissionError):
        make_run_directory(tmp_path / "open", private=True)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(PermissionError, match="another user"):
        make_run_directory(tmp_path / "good", private=True)


def test_one_daemon_for_a_directory(tmp_path: Path) -> None:
    """A second run in the directory of a living one is refused."""
    server = ControlServer(tmp_path / "clock.sock", lambda _: "{}")
    with pytest.raises(OSError, match="runs there already"):
        Run(None, False, None, tmp_path, devices(tmp_path)).prepare()
    server.close()


def test_defaults_do_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration file at all is the defaults."""
    monkeypatch.setattr("ppsd.config.file.DEFAULT_FILE", str(tmp_path / "none"))
    run = Run(None, False, None, tmp_path / "r", Host(tmp_path))
    run.prepare()
    assert run.config == replace(Config(), run=replace(Config().run, directory=str(tmp_path / "r")))


def test_whether_a_pulse_comes_over_usb_is_asked_of_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pin's pulse is not polled, an adapter's is; what the user says stands; without sysfs nobody knows."""
    for number, (name, tty) in enumerate([("pps@12.-1", ""), ("usbserial0", "/dev/ttyUSB0"), ("serial1", "/dev/ttyS1")]):
        entry = tmp_path / f"sys/class/pps/pps{number}"
        entry.mkdir(parents=True)
        (entry / "name").write_text(name + "\n")
        (entry / "path").write_text(tty + "\n")
    monkeypatch.setattr(ppsd.clock.pulses, "open_pulse", lambda path, clock, wake: SimpleNamespace(stamping=BY_KERNEL))
    sources = [ReceiverSource(name=f"gps{n}", device=f"/dev/tty{n}", pps=f"/dev/pps{n}") for n in range(4)]
    sources.append(ReceiverSource(name="gps4", device="/dev/tty4", pps="/dev/pps0", pps_over_usb=True))
    clock = LocalClock()
    inputs = PulseInputs(sources, clock, lambda: None, lambda what, why: None, host=Host(tmp_path))
    found = inputs.open_due(clock.now().mono_ns)
    assert [f.over_usb for f in found if isinstance(f, PulseFound)] == [False, True, False, None, True]


@pytest.mark.device
def test_who_has_an_address_and_a_line(tmp_path: Path) -> None:
    """Both are told by name and pid, through links; what nobody has is nobody's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        (who,) = Host().port_holders([("0.0.0.0", port), ("::", port)])
        assert who.endswith(f"(pid {os.getpid()})")
        assert Host().port_holders([("::", port)]) == []
    master, slave = os.openpty()
    link = tmp_path / "gps"
    link.symlink_to(os.ttyname(slave))
    assert Host().holders(str(link)) == [who]
    os.close(slave)
    assert Host().holders(str(link)) == []
    os.close(master)


def test_a_simulation_answers_chronyc_where_it_needs_no_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where chronyc is installed the greeting says how to ask; chronyc.listen of a configuration file is kept."""
    (tmp_path / "chronyc").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / "refclock.toml"
    for text, said in (
        ("", "chronyc -h 127.0.0.1 -p 10323 sources"),
        ('[chronyc]\nlisten = ["[::1]:1323"]\n', "chronyc -h ::1 -p 1323 sources"),
    ):
        file.write_text(text, encoding="utf-8")
        run = Run(file, True, "127.0.0.1:11999", tmp_path / "run", Host(tmp_path))
        run.prepare()
        assert run.greeting()[-1].strip() == said
    monkeypatch.setenv("PATH", "")
    assert "chronyc" not in run.greeting()[-1]
