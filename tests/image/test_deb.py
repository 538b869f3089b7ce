"""The Debian package that `make deb` makes, in a new Debian of its own: installed, set up, upgraded, removed, purged."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from debians import ROOT, later_version, mirror, package

from ppsd import version

MADE = ROOT / "build" / "debians"
SUITES = ("bookworm", "trixie")
KEPT = '[log]\nlevel = "debug"\n'
NOT_OURS = re.compile(r"var/lib/dpkg/.*|etc/(g?shadow|passwd|group)-|var/lib/systemd/.*")
"""dpkg's own lists, and the copies that system programs keep of the lists of users."""
APT = "apt-get --quiet=2 --yes --no-install-recommends -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io"
INSTALLED = "usr/lib/refclock/bin/refclock"

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root can enter another Debian")]

WATCH = """
refclock run --sim --run-dir /run/sim >/tmp/log 2>&1 &
for i in $(seq 120); do refclock status --run-dir /run/sim >/dev/null 2>&1 && break; sleep 0.5; done
refclock query 127.0.0.1:11123 || cat /tmp/log
kill $!; wait
rm -rf /tmp/log /run/sim
"""
SYSTEMCTL = """#!/bin/sh
# Plays systemd: remembers which units are enabled and active, and what it was asked.
echo "$*" >> /units/asked
verb= units= now=
for word in "$@"; do
    case $word in --now) now=1 ;; -*) ;; *) if [ -z "$verb" ]; then verb=$word; else units="$units $word"; fi ;; esac
done
for unit in $units; do
    case $unit in *.*) ;; *) unit=$unit.service ;; esac
    case $verb in
    is-active | is-enabled) [ -e "/units/${verb#is-}/$unit" ]; exit ;;
    enable) touch "/units/enabled/$unit"; [ -z "$now" ] || touch "/units/active/$unit" ;;
    disable) rm -f "/units/enabled/$unit"; [ -z "$now" ] || rm -f "/units/active/$unit" ;;
    start | restart) touch "/units/active/$unit" ;;
    stop) rm -f "/units/active/$unit" ;;
    esac
done
"""
CHRONY = """
mkdir -p /units/enabled /units/active /run/systemd/system /etc/chrony/conf.d
touch /units/enabled/chrony.service /units/active/chrony.service /usr/lib/systemd/system/chrony.service /etc/chrony/conf.d/README
echo 'confdir /etc/chrony/conf.d' > /etc/chrony/chrony.conf
"""


def depends(deb: Path) -> str:
    """What the package depends on, and what every Debian but the smallest has: programs that remove users."""
    return subprocess.run(["dpkg-deb", "-f", deb, "Depends"], capture_output=True, text=True, check=True).stdout.strip() + ", passwd"


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package for this processor's family: amd64."""
    return package("amd64", tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="module")
def later(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version."""
    return later_version(deb, tmp_path_factory.mktemp("later"))


def archive(suite: str, wanted: str) -> Path:
    """A smallest Debian, and the packages that ``wanted`` names, downloaded and not installed. It is made once into build/debians."""
    made = MADE / f"{suite}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}.tar"
    if not made.exists():
        MADE.mkdir(parents=True, exist_ok=True)
        fetch = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --quiet=2 --yes --download-only --no-install-recommends satisfy "{wanted}"'
        options = ["--quiet", "--variant=apt", "--format=tar", "--skip=cleanup/apt", f"--customize-hook={fetch}"]
        subprocess.run(["mmdebstrap", *options, suite, made.with_suffix(".new"), f"deb {mirror()} {suite} main"], check=True)
        made.with_suffix(".new").rename(made)
    return made


class Debian:
    """A Debian in a directory, entered with processes, devices and a network of its own. No systemd runs there; a script plays it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, script: str) -> str:
        """What a shell script there prints."""
        mounts = "mount --make-rprivate /; mount -t proc proc $0/proc; mount --rbind /dev $0/dev; ip link set lo up"
        enter = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-ec", f'{mounts}; exec chroot $0 sh -ec "$1"']
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [*enter, self.root, script], capture_output=True, text=True, check=False, timeout=300, env=environment, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def files(self) -> set[str]:
        """What a package may leave behind."""
        found = (path for top in ("etc", "usr", "var/lib", "run", "tmp") for path in (self.root / top).rglob("*"))
        return {name for path in found if not NOT_OURS.fullmatch(name := str(path.relative_to(self.root)))}

    def users(self) -> set[str]:
        """Names of users and groups."""
        texts = ((self.root / name).read_text(encoding="utf-8") for name in ("etc/passwd", "etc/group"))
        return {line.partition(":")[0] for text in texts for line in text.splitlines()}

    def units(self, state: str) -> set[str]:
        """The units that are "active" or "enabled"."""
        return {path.name for path in (self.root / "units" / state).iterdir()}

    def text(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")


def journey(root: Path, suite: str, deb: Path, later: Path) -> None:
    """From installation to purge in a Debian below ``root`` that has nothing of what the package depends on."""
    root.mkdir()
    subprocess.run(["tar", "-xf", archive(suite, depends(deb)), "-C", root, "--exclude=./dev/*"], check=True)
    for name, file in (("refclock.deb", deb), ("later.deb", later)):
        shutil.copyfile(file, root / name)
    debian = Debian(root)
    debian.run(f"{APT} satisfy '{depends(deb)}'")
    systemctl = debian.root / "usr/bin/systemctl"
    systemctl.unlink()
    systemctl.write_text(SYSTEMCTL, encoding="utf-8")
    systemctl.chmod(0o755)
    debian.run(CHRONY)
    before, users = debian.files(), debian.users()
    installed = debian.run(f"{APT} install /refclock.deb")
    assert "Setting up refclock" in installed
    assert debian.users() - users == {"refclock", "refclock-serve"}
    assert not [name for name in debian.files() if name.startswith("etc/systemd") and "refclock" in name]
    assert debian.units("active") == debian.units("enabled") == {"chrony.service"}
    assert not re.search(r"(enable|start) .*refclock", debian.text("units/asked"))

    assert "stratum 1" in debian.run(WATCH)
    assert "good" in debian.run("refclock config check --config /etc/refclock/refclock.toml")
    configuration, state = debian.root / "etc/refclock/refclock.toml", debian.root / "var/lib/refclock/state.json"
    configuration.write_text(KEPT, encoding="utf-8")
    state.write_text("{}", encoding="utf-8")
    said = debian.run("refclock setup --yes --as feeder || [ $? -le 2 ]")  # the doctor finds that no receiver is here
    assert re.search(r"Done\..*\n.* wrong, ", said, re.DOTALL), said
    assert debian.units("active") == {"chrony.service", "refclock-clock.service"}

    debian.run("sed -i s/0660/0666/ /etc/systemd/system/chrony.service.d/10-refclock.conf /etc/refclock/setup.json")  # an older setup
    (debian.root / "units/asked").unlink()
    set_up = configuration.read_text(encoding="utf-8")
    debian.run(f"{APT} install /later.deb")
    assert debian.run("dpkg-query -W -f '${Version}' refclock") == f"{version()}+1"
    examples = debian.root / "usr/share/doc/refclock/examples"
    assert {path.name for path in examples.glob("*receiver*")} == {"receiver.toml"}
    assert configuration.read_text(encoding="utf-8") == set_up
    assert "refclock SOCK" in debian.text("etc/chrony/conf.d/refclock.conf")
    assert "chmod 0660" in debian.text("etc/systemd/system/chrony.service.d/10-refclock.conf")
    assert state.exists()
    asked = debian.text("units/asked")
    assert re.search(r"try-restart.* refclock-clock.service", asked), asked
    assert not re.search(r"(?<!try-re)start |enable |stop |--now", asked), asked
    assert debian.units("active") == {"chrony.service", "refclock-clock.service"}

    debian.run(f"{APT} remove refclock")
    assert debian.units("active") == debian.units("enabled") == {"chrony.service"}
    assert not (debian.root / "etc/chrony/conf.d/refclock.conf").exists()
    assert configuration.read_text(encoding="utf-8") == KEPT
    assert state.exists()
    assert not (debian.root / INSTALLED).exists()

    debian.run(f"{APT} install /later.deb; refclock setup --yes --as appliance || [ $? -le 2 ]")
    assert debian.units("active") == {"refclock.target"}
    debian.run(f"{APT} purge refclock")
    assert debian.units("active") == debian.units("enabled") == {"chrony.service"}
    assert debian.files() - before == set()
    assert debian.users() == users
    subprocess.run(["rm", "-rf", "--one-file-system", root], check=True)


@pytest.fixture(scope="module")
def journeys(deb: Path, later: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """The journeys through all suites, side by side."""
    directory = tmp_path_factory.mktemp("debians")
    with ThreadPoolExecutor() as pool:
        yield {suite: pool.submit(journey, directory / suite, suite, deb, later) for suite in SUITES}


@pytest.mark.parametrize("suite", SUITES)
def test_from_installation_to_purge(journeys: dict[str, Future[None]], suite: str) -> None:
    """apt finds what the package depends on in the suite. Installing starts and enables nothing; it runs with Debian's own Python and
    modules. An upgrade keeps the configuration that the owner changed, the state and the setup, renews the files, and restarts what runs.
    A removal takes the setup back: chronyd is as before. A purge leaves nothing, even if the setup was in force."""
    journeys[suite].result()


def test_what_is_carried_has_its_licence(deb: Path) -> None:
    """The modules of others that are inside are named with their licence."""
    copyright_file = subprocess.run(
        f"dpkg-deb --fsys-tarfile {deb} | tar -xO ./usr/share/doc/refclock/copyright",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    listed = subprocess.run(["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True).stdout
    site = "usr/lib/refclock/lib/python3/site-packages"
    for carried in ("gpsd", "pynmea2"):
        assert f"./{site}/{carried}/__init__.py" in listed
        assert f"Files: {site}/{carried}/*" in copyright_file
    assert "Permission is hereby granted" in copyright_file


def test_debians_own_judge_of_packages_finds_nothing(deb: Path) -> None:
    """lintian has no error and no warning, but for those that image/deb/lintian-overrides gives a reason for."""
    done = subprocess.run(["lintian", "--no-cfg", "--allow-root", deb], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
