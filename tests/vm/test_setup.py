"""``refclock setup`` on a Debian with real systemd, Debian's chrony and Debian's gpsd: both choices, and everything taken back.

The machine is the PC's image with the appliance's own services off and the two others unpacked into its memory, as they are after
``apt install chrony gpsd refclock``. One machine lives through all tests of this file, in their order.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MADE, ROOT
from machine import Machine

PATIENCE_S = 240
BEFORE = """
systemctl disable --now refclock.target refclock-clock refclock-serve refclock-serve.socket refclock-good refclock-trial.timer
rm -f /run/systemd/system/refclock-clock.service.d/*.conf
printf '' >/etc/refclock/refclock.toml
tar -xz -C / --keep-directory-symlink
systemd-sysusers --inline 'u _chrony - "chrony" /var/lib/chrony' 'u gpsd - "gpsd" /run/gpsd' 'm gpsd dialout'
install -d -o _chrony -g _chrony -m 750 /var/lib/chrony /var/log/chrony
ldconfig
sed -i 's/^DEVICES=.*/DEVICES="\\/dev\\/ttyUSB0"/; s/^GPSD_OPTIONS=.*/GPSD_OPTIONS="-n"/' /etc/default/gpsd
printf 'allow\\nlocal stratum 9\\n' >/etc/chrony/conf.d/serve.conf
systemctl daemon-reload
systemctl enable --now chrony gpsd.socket gpsd
"""
"""A machine whose chronyd serves (stratum 10: it has no source), and whose gpsd reads the receiver."""
OTHERS = ("chrony", "gpsd.socket", "gpsd")
OURS = ("refclock-clock", "refclock-serve", "refclock-serve.socket", "refclock.target")


def others_unpacked() -> bytes:
    """chrony and gpsd with what they need beyond the image, as an archive (tar, gzip)."""
    sys.path.insert(0, str(ROOT / "image" / "build"))
    import packages  # type: ignore[import-not-found]  # noqa: PLC0415

    there = {package.name for package in packages.locked("amd64")}
    files = packages.fetch([package for package in packages.locked("peers") if package.name not in there], MADE / "debs")
    with tempfile.TemporaryDirectory() as directory:
        for file in files:
            subprocess.run(["dpkg-deb", "-x", file, directory], check=True)
        for useless in ("usr/share/doc", "usr/share/man"):
            subprocess.run(["rm", "-rf", Path(directory) / useless], check=True)
        return subprocess.run(["tar", "-cz", "--owner=0", "--group=0", "-C", directory, "."], capture_output=True, check=True).stdout


def states(machine: Machine, verb: str, units: tuple[str, ...]) -> list[str]:
    """What ``systemctl is-active`` or ``is-enabled`` says of each."""
    return machine.run(f"systemctl {verb} {' '.join(units)}", check=False).split()


@pytest.fixture(scope="module")
def debian(new_machine: Callable[..., Machine]) -> Machine:
    machine = new_machine("pc")
    machine.switch_on()
    machine.wait_login()
    machine.run(BEFORE, PATIENCE_S, given=others_unpacked())
    assert states(machine, "is-active", OTHERS) == ["active"] * 3
    assert stratum(machine) == 10
    return machine


def stratum(machine: Machine) -> int:
    """What a client outside is told; 0: nothing."""
    header = machine.ask(3).header
    return header.stratum if header is not None else 0


def as_before(machine: Machine) -> None:
    """chronyd serves and gpsd has the receiver, now and after a boot; nothing of refclock runs, and its files are gone."""
    assert states(machine, "is-active", OTHERS) == ["active"] * 3
    assert states(machine, "is-enabled", OTHERS) == ["enabled"] * 3
    assert set(states(machine, "is-active", OURS)) == {"inactive"}
    assert "enabled" not in states(machine, "is-enabled", OURS)
    machine.wait_for(lambda: stratum(machine) == 10, PATIENCE_S, "chronyd does not serve")
    left = machine.run("ls /etc/refclock/setup.json /etc/chrony/conf.d/refclock.conf; ls /etc/systemd/system/*/*refclock*", check=False)
    assert left.split() == []
    assert machine.run("cat /etc/refclock/refclock.toml") == ""


def test_the_server_takes_over_and_gives_back(debian: Machine) -> None:
    """--as appliance: chronyd and gpsd are stopped also for the next boot, and a client gets stratum 1. --undo: all as before."""
    said = debian.run("refclock setup --yes --as appliance", PATIENCE_S, check=False)
    assert "chrony" in said, said
    assert "Done." in said, said
    assert set(states(debian, "is-active", OTHERS)) == {"inactive"}, said
    assert "enabled" not in states(debian, "is-enabled", OTHERS)
    assert states(debian, "is-active", OURS) == ["active"] * 4
    debian.wait_stratum_1(PATIENCE_S)
    assert states(debian, "is-enabled", ("refclock.target",)) == ["enabled"]
    assert '"steering": "kernel"' in debian.run("refclock status --json")
    said = debian.run("refclock setup --undo", PATIENCE_S)
    assert "as it was before" in said
    as_before(debian)


def test_the_feeder_makes_chronyd_a_stratum_1(debian: Machine) -> None:
    """--as feeder: chronyd goes on to serve, now by the receiver. --undo: all as before."""
    said = debian.run("refclock setup --yes --as feeder", PATIENCE_S, check=False)
    assert "Done." in said, said
    assert states(debian, "is-active", ("chrony", "refclock-clock")) == ["active"] * 2
    assert "active" not in states(debian, "is-active", ("refclock-serve", "refclock-serve.socket", "gpsd"))
    debian.wait_stratum_1(PATIENCE_S)
    assert "chronyd" in debian.run("ss -lnupH 'sport = :123'")
    debian.wait_for(lambda: debian.run("chronyc -c sources", check=False).startswith("#,*"), PATIENCE_S, "chronyd does not select it")
    said = debian.run("refclock setup --undo", PATIENCE_S)
    assert "as it was before" in said
    as_before(debian)
