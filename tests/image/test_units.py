"""The units of image/systemd: how confined they are, and that refclock does its work within them.

No systemd need run: what the units ask of it is read from the files, judged by systemd-analyze, and done by hand (units.py).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nts_client import establish
from refclock_sim.ports.device import TTY, preload_environment
from units import GROUP, MODULES, NUMBERS, PYTHON, SYSTEMD, allowed_calls, as_the_unit, listening, own_calls, settings

from ppsd.cli.query import ask_once, authenticator
from ppsd.cli.setup import FEEDER, STARTED, privileges
from ppsd.clock import cpu_latency
from ppsd.config import keys
from ppsd.config.file import parse
from ppsd.ntp.nts import COOKIES, Kind
from ppsd.process import exit_codes
from ppsd.process.control import ask
from refclock.devices.ports import SERIAL_PATTERNS
from refclock.sample import Leap

pytestmark = pytest.mark.peers  # needs systemd's programs

SERVICES = ("refclock-clock.service", "refclock-serve.service", "refclock-web.service", "refclock-nts-ke.service")
MOST_EXPOSED = 1.5
"""Highest exposure by systemd-analyze (0 to 10). systemd 252 gives chrony 3.7, gpsd 9.6, ntpsec 9.4."""


def exposure(unit: Path) -> float:
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    told = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"SYSTEMD_COLORS": "0"}).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found is not None, told
    return float(found[1])


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_confined_at_least_as_well_as_promised(unit: str) -> None:
    """systemd's own judge finds little that is open to whoever takes the process over."""
    assert exposure(SYSTEMD / unit) <= MOST_EXPOSED


def test_the_right_to_set_the_clock_keeps_the_clock_process_confined(tmp_path: Path) -> None:
    """With what setup adds for clock.steer = "kernel" it is confined as well as promised."""
    text = '[clock]\nsteer = "kernel"\n'
    unit, more = SYSTEMD / SERVICES[0], privileges(parse(text))
    whole = unit.read_text(encoding="utf-8").replace("[Install]", f"{more}[Install]")
    (tmp_path / unit.name).write_text(whole, encoding="utf-8")
    assert exposure(tmp_path / unit.name) <= MOST_EXPOSED


@pytest.mark.parametrize("unit", SERVICES)
def test_no_service_has_root_or_a_capability(unit: str) -> None:
    """Each has a user of its own, and none of root's rights."""
    of = settings(unit)
    assert of["User"][0] in NUMBERS
    assert of["CapabilityBoundingSet"] == of["AmbientCapabilities"] == [""]
    assert not [line for name in of if name.startswith("Exec") for line in of[name] if re.match(r"[-@:]*[+!]", line)]


def test_the_two_services_have_different_users() -> None:
    """Who takes over the server cannot signal or trace the clock process, nor open a receiver."""
    assert settings(SERVICES[0])["User"] != settings(SERVICES[1])["User"]
    assert "SupplementaryGroups" not in settings(SERVICES[1])


def test_keys_are_handed_over_under_the_name_by_which_they_are_looked_for() -> None:
    """keys.file = "/etc/refclock/keys" works in the service, although only root can read that file; and without the file it starts."""
    of, file = settings(SERVICES[1]), Path("/etc/refclock/keys")
    assert of["LoadCredential"] == [f"{file.name}:{file}"]
    assert of["SetCredential"] == [f"{file.name}:#"]
    assert keys.NO_KEYS_BYTES == 1


def test_metrics_and_history_come_with_the_clock_process_alone() -> None:
    """On a machine that feeds chronyd, setup starts the clock process and no server: the web process starts too, after it."""
    clock, web = settings(STARTED[FEEDER]), settings(SERVICES[2])
    assert SERVICES[2] in " ".join(clock["Wants"]).split()
    assert SERVICES[0] in " ".join(web["After"]).split()


@pytest.mark.parametrize("unit", SERVICES)
def test_a_start_that_cannot_succeed_is_not_repeated(unit: str) -> None:
    """A wrong command line, a wrong configuration and a missing right stay wrong; anything else is tried again. The process for NTS ends
    well when nobody wants it."""
    prevented = {int(word) for word in settings(unit)["RestartPreventExitStatus"][0].split()}
    assert prevented == {exit_codes.USAGE, exit_codes.NO_PERMISSION, exit_codes.BAD_CONFIG}
    assert settings(unit)["Restart"] == ["on-failure" if unit == SERVICES[3] else "always"]


@pytest.mark.parametrize(
    ("unit", "process"), [(SERVICES[0], "CLOCK"), (SERVICES[1], "SERVE"), (SERVICES[2], "SERVE"), (SERVICES[3], "SERVE")]
)
def test_a_unit_allows_the_system_calls_that_its_process_makes(unit: str, process: str) -> None:
    """The process's own list, which was measured, lies within the unit's: nothing is refused that the program needs. It asks for real-time
    priority where it can get it, and the unit does not give that."""
    assert own_calls(process) - allowed_calls(unit) <= {"sched_setscheduler", "sched_setparam"}


def test_the_units_are_free_of_mistakes(tmp_path: Path) -> None:
    """systemd knows every setting and understands every value."""
    for unit in SYSTEMD.glob("refclock*.*"):
        text = re.sub(r"(?m)^Documentation=.*\n", "", unit.read_text(encoding="utf-8"))  # looks for the pages themselves
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    words = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "refclock" in line and "not executable" not in line]
    assert complaints == []


def test_every_user_of_a_unit_is_made_and_none_can_log_in(tmp_path: Path) -> None:
    """sysusers.d makes them, with a shell that refuses, and only the clock process's is in the group of devices."""
    if os.geteuid() != 0:
        pytest.skip("only root can make users, also below another root")
    (tmp_path / "etc").mkdir()
    conf = SYSTEMD / "sysusers.d" / "refclock.conf"
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", str(conf)], capture_output=True, check=True)
    users = dict(line.split(":", 1) for line in (tmp_path / "etc/passwd").read_text(encoding="utf-8").splitlines())
    groups = dict(line.split(":", 1) for line in (tmp_path / "etc/group").read_text(encoding="utf-8").splitlines())
    assert set(users) == {settings(unit)["User"][0] for unit in SERVICES}
    assert all(fields.endswith(":/usr/sbin/nologin") for fields in users.values())
    assert settings(SERVICES[0])["Group"][0] in groups
    assert groups[settings(SERVICES[0])["SupplementaryGroups"][0]].endswith(":refclock")


def test_the_run_directory_is_the_same_by_unit_and_at_boot() -> None:
    """Whoever comes first, systemd-tmpfiles or the clock process, makes it with the same owner and mode."""
    of = settings(SERVICES[0])
    lines = (SYSTEMD / "tmpfiles.d" / "refclock.conf").read_text(encoding="utf-8").splitlines()
    user, group = of["User"][0], of["Group"][0]
    assert f"d /run/{of['RuntimeDirectory'][0]} {of['RuntimeDirectoryMode'][0]} {user} {group} -" in lines
    assert f"d /var/lib/{of['StateDirectory'][0]} {of['StateDirectoryMode'][0]} {user} {group} -" in lines


def test_the_clock_process_may_open_every_kind_of_port_that_it_looks_for() -> None:
    """What `refclock detect` finds, the service can use; also what is plugged in after its start, for systemd allows only the kinds whose
    driver is loaded by then."""
    of = settings(SERVICES[0])
    kinds = {re.sub(r"[*]$", "", pattern) for pattern in SERIAL_PATTERNS if pattern.endswith("*")} | {"pps"}
    assert {f"char-{kind} rw" for kind in kinds} <= set(of["DeviceAllow"])
    loaded = of["Wants"][0].split()
    assert {"modprobe@usbserial.service", "modprobe@cdc_acm.service", "modprobe@gnss.service"} <= set(loaded)
    assert of["After"][0].split() == loaded


def test_what_the_daemon_opens_besides_ports_it_may_open() -> None:
    """clock.cpu_latency_us works in the service: the unit and the device's group allow it."""
    assert f"{cpu_latency.DEVICE} rw" in settings(SERVICES[0])["DeviceAllow"]
    (rule,) = [line for line in (SYSTEMD / "60-refclock.rules").read_text().splitlines() if cpu_latency.DEVICE.name in line]
    assert f'GROUP="{settings(SERVICES[0])["Group"][0]}"' in rule


# ---- the processes within the units' limits --------------------------------------------------------------------------------------------


def wait_for(look: Callable[[], object], what: Callable[[], str]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if look():
            return
        time.sleep(0.2)
    raise AssertionError(what())


class Appliance:
    """Directories as the units and tmpfiles.d make them, and processes that run in them with the units' rights."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.run_dir, self.state = directory, directory / "run", directory / "state"
        self.config, self.log = directory / "refclock.toml", directory / "log"
        directory.chmod(0o755)
        for made, mode in ((self.run_dir, 0o1770), (self.state, 0o700), (directory / "devices", 0o755)):
            made.mkdir()
            os.chown(made, NUMBERS["refclock"], GROUP)
            made.chmod(mode)
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, words: list[str], fds: tuple[int, ...] = (), **environment: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": MODULES} | environment,
                pass_fds=fds,
                cwd="/",
            )
        self._running.append(process)
        return process

    def service(self, name: str, fd: int = 0, **environment: str) -> subprocess.Popen[bytes]:
        unit = f"refclock-{name}.service"
        (start,) = settings(unit)["ExecStart"]
        words = start.replace("/etc/refclock/refclock.toml", str(self.config)).replace("/run/refclock", str(self.run_dir)).split()
        return self.start(as_the_unit(unit, words, fd), (fd,) if fd else (), **environment)

    def close(self) -> None:
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@pytest.fixture
def appliance() -> Iterator[Appliance]:
    if os.geteuid() != 0:
        pytest.skip("only root can start processes as other users")
    reads = as_the_unit(SERVICES[1], [PYTHON, "-P", "-c", "import ppsd.clock.main, ppsd.serve.main, refclock_sim"])
    tried = subprocess.run(reads, capture_output=True, check=False, cwd="/", env=os.environ | {"PYTHONPATH": MODULES})
    if tried.returncode != 0:
        pytest.skip("the system's Python, run by another user, cannot import this checkout")
    directory = Path(tempfile.mkdtemp())
    made = Appliance(directory)
    yield made
    made.close()
    shutil.rmtree(directory)


@pytest.mark.slow
def test_an_ordinary_receiver_is_served_within_the_limits_of_the_units(appliance: Appliance) -> None:
    """Two users without rights: one hears the receiver and has no network, the other answers on a socket that it was given. A client gets
    stratum 1, authenticated by a key of a file that only root may read, and neither process complains of a right that it misses."""
    devices = appliance.directory / "devices"
    secrets, copies = appliance.directory / "secrets", appliance.directory / "copies"
    for made, owner in ((secrets, 0), (copies, NUMBERS["refclock-serve"])):  # the second as systemd makes it for LoadCredential=
        made.mkdir(mode=0o700)
        (made / "keys").write_text("7 AES128 HEX:000102030405060708090a0b0c0d0e0f\n", encoding="utf-8")
        (made / "keys").chmod(0o400)
        os.chown(made, owner, owner)
        os.chown(made / "keys", owner, owner)
    appliance.config.write_text(
        f'[run]\nuser = "{NUMBERS["refclock"]}"\nstate = "{appliance.state}"\ndirectory = "{appliance.run_dir}"\n'
        f'[keys]\nfile = "{secrets / "keys"}"\n[[source]]\ntype = "receiver"\ndevice = "{devices / TTY}"\n',
        encoding="utf-8",
    )
    sim = [PYTHON, "-m", "refclock_sim", "--directory", str(devices)]
    as_user = ["setpriv", f"--reuid={NUMBERS['refclock']}", f"--regid={GROUP}", "--clear-groups"]
    appliance.start([*as_user, *sim])
    wait_for((devices / TTY).exists, appliance.log.read_text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with listening(port) as given:
        serve = appliance.service("serve", given.fileno(), CREDENTIALS_DIRECTORY=str(copies))
        clock = appliance.service("clock", **preload_environment(devices))

        def answered() -> bool:
            header = ask_once(("127.0.0.1", port), socket.AF_INET, 1.0, authenticator(7, secrets / "keys", None)).header
            return header is not None and header.stratum == 1 and header.leap != Leap.UNSYNCHRONISED

        wait_for(answered, appliance.log.read_text)
        # Before, there is nothing worth to be saved.
        wait_for(lambda: ask(appliance.run_dir / "clock.sock", "snapshot")["verdict"] == "LOCKED", appliance.log.read_text)
    report = ask(appliance.run_dir / "serve.sock", "snapshot")
    assert report["socket_activated"]
    for process, user in ((clock, "refclock"), (serve, "refclock-serve")):
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        assert re.search(rf"^Uid:\t{NUMBERS[user]}\t", status, re.MULTILINE)
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
    said = appliance.log.read_text(encoding="utf-8")
    assert not re.search(r"not given up|system call refused|[Nn]ot permitted|[Dd]enied", said), said
    process_stops(clock, serve)
    assert (appliance.state / "state.json").exists(), said


def test_keys_are_established_within_the_limits_of_the_unit(appliance: Appliance) -> None:
    """A user without rights gives a client eight cookies, by a certificate that it makes itself in a directory that is its own; where NTS
    is off the process ends well, and is not started again."""
    own = appliance.state / "nts"
    own.mkdir()
    own.chmod(0o700)
    os.chown(own, NUMBERS["refclock-serve"], GROUP)
    appliance.state.chmod(0o710)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    given = f'[run]\nuser = "{NUMBERS["refclock"]}"\nstate = "{appliance.state}"\ndirectory = "{appliance.run_dir}"\n[nts]\n'
    appliance.config.write_text(given, encoding="utf-8")
    assert appliance.service("nts-ke").wait(20) == exit_codes.GOOD
    appliance.config.write_text(f'{given}enabled = true\nlisten = ["127.0.0.1:{port}"]\n', encoding="utf-8")
    process = appliance.service("nts-ke")

    def ready() -> bool:
        try:
            return ask(appliance.run_dir / "nts-ke.sock", "snapshot")["until_s"] is not None
        except OSError:
            return False

    wait_for(ready, appliance.log.read_text)
    assert len(establish(port).bodies(Kind.COOKIE)) == COOKIES
    time.sleep(2.5)  # its next look
    said = appliance.log.read_text(encoding="utf-8")
    assert not re.search(r"not given up|system call refused|[Nn]ot permitted|[Dd]enied", said), said
    process_stops(process)


def process_stops(*processes: subprocess.Popen[bytes]) -> None:
    """Each ends on SIGTERM, and says that it ended well."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == exit_codes.GOOD
