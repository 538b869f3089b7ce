"""What of the image needs no image to be tried: its units, its files, and the rules of its firewall. systemd itself does not run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ppsd.appliance.network import firewall
from ppsd.appliance.settings import BoxSettings, parse
from ppsd.cli.main import COMMANDS
from ppsd.cli.setup import privileges
from ppsd.config.file import read
from refclock.config import AUTO

IMAGE = Path(__file__).parents[2] / "image"
UNITS = IMAGE / "appliance" / "systemd"
TREE = IMAGE / "appliance" / "root"
MOST_EXPOSED = {
    "refclock-box.service": 1.8,
    "refclock-status.service": 2.0,
    "refclock-firewall.service": 1.7,
    "refclock-led.service": 0.8,
    "refclock-wifi@.service": 2.6,
}
"""Exposure by systemd-analyze 252 (0 to 10). All but the light's are root: they write files of the system, mount the card, name rules or
move a radio; each has at most the two capabilities for that. By the same judge Debian's systemd-networkd has 2.8, and its ssh 9.6."""


@pytest.mark.peers
@pytest.mark.parametrize("unit", MOST_EXPOSED)
def test_a_service_of_the_image_is_confined_as_its_work_allows(unit: str) -> None:
    """systemd's own judge finds no more open than is stated here, and why."""
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / unit)]
    told = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"SYSTEMD_COLORS": "0"}).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found is not None, told
    assert float(found[1]) <= MOST_EXPOSED[unit]


@pytest.mark.peers
def test_the_units_of_the_image_are_free_of_mistakes(tmp_path: Path) -> None:
    """systemd knows every setting and understands every value, and finds no circle among the units."""
    for unit in [*UNITS.glob("refclock*.*"), *(IMAGE / "systemd").glob("refclock*.*")]:
        text = re.sub(r"(?m)^Documentation=.*\n", "", unit.read_text(encoding="utf-8"))
        (tmp_path / unit.name.replace("@.", "@wlan0.")).write_text(text, encoding="utf-8")
    words = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "refclock" in line and "not executable" not in line]
    assert complaints == []


def test_every_unit_runs_a_command_that_there_is() -> None:
    """A unit's `refclock WORD ...` is on the command line of this version, arguments included."""
    for unit in UNITS.glob("*.service"):
        for words in re.findall(r"^Exec\w+=refclock (.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE):
            name, *rest = words.split()
            options = COMMANDS[name].options
            choices = {choice for o in options for choice in o.settings.get("choices", ())}
            assert {word for word in rest if not word.startswith("-")} <= choices or not choices, f"{unit.name}: {words}"
            assert {word for word in rest if word.startswith("-")} <= {n for o in options for n in o.names}, f"{unit.name}: {words}"


def test_the_owners_files_say_the_defaults() -> None:
    """box.toml on the card shows every key with what holds without it."""
    made, problems = parse((IMAGE / "appliance" / "box.toml").read_bytes())
    assert (made, problems) == (BoxSettings(), [])
    text = (IMAGE / "appliance" / "box.toml").read_text(encoding="utf-8")
    for table in (made.system, made.network, made.wifi, made.pins):
        for name in table.__dataclass_fields__:
            assert re.search(rf"^{name} = ", text, re.MULTILINE), name


def test_the_daemons_file_on_the_card_looks_for_a_receiver_and_steers() -> None:
    """The card as it is flashed serves whatever receiver is plugged in; with its remarks taken away it names one."""
    path = IMAGE / "appliance" / "refclock.toml"
    config = read(path)
    assert config.clock.steer == "kernel"
    assert config.sources == ()
    assert config.server.enabled
    assert AUTO in path.read_text(encoding="utf-8")


def test_the_remarks_in_the_daemons_file_can_be_used(tmp_path: Path) -> None:
    """An owner who takes the # away has a good file."""
    text = (IMAGE / "appliance" / "refclock.toml").read_text(encoding="utf-8")
    made = tmp_path / "refclock.toml"
    made.write_text(re.sub(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE), encoding="utf-8")
    config = read(made)
    assert len(config.sources) == 1
    assert config.access.deny


def test_the_clock_process_may_do_what_the_configuration_on_the_card_needs() -> None:
    """The drop-in that the image carries is the one that setup would write: python -c "from ppsd.cli.setup import privileges ..."."""
    carried = TREE / "usr/lib/systemd/system/refclock-clock.service.d/20-box.conf"
    assert carried.read_text(encoding="utf-8") == privileges(read(IMAGE / "appliance" / "refclock.toml"))


def rules(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def test_the_closed_rules_are_the_usual_ones_without_ssh() -> None:
    """What holds while the settings are unknown is made by the same hand."""
    closed = (TREE / "usr/share/refclock/appliance/closed.nft").read_text(encoding="utf-8")
    assert rules(closed) == rules(firewall([123], False))


@pytest.mark.peers
@pytest.mark.parametrize(("ports", "ssh"), [([123], False), ([123, 11123], True), ([], False), ([], True)])
def test_nft_takes_the_rules(tmp_path: Path, ports: list[int], ssh: bool) -> None:
    """The kernel accepts them, in a network namespace of the test's own: closed, but for what is served."""
    nft = shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin")
    assert nft, "nft is missing: make peers"
    (tmp_path / "rules").write_text(firewall(ports, ssh), encoding="utf-8")
    alone = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    done = subprocess.run([*alone, nft, "-c", "-f", str(tmp_path / "rules")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("dport 22 accept" in firewall(ports, ssh)) == ssh


def test_nobody_gets_in_by_a_password() -> None:
    """ssh takes root's keys alone, and does not even start without one."""
    text = (TREE / "etc/ssh/sshd_config.d/refclock.conf").read_text(encoding="utf-8")
    for line in ("PasswordAuthentication no", "KbdInteractiveAuthentication no", "AuthenticationMethods publickey", "AllowUsers root"):
        assert line in text.splitlines()
    drop_in = (TREE / "usr/lib/systemd/system/ssh.service.d/refclock.conf").read_text(encoding="utf-8")
    assert "ConditionPathExists=/root/.ssh/authorized_keys" in drop_in
    assert "Include /etc/ssh/sshd_config.d/*.conf" in (TREE / "etc/ssh/sshd_config").read_text(encoding="utf-8")
