"""The Debian package that `make deb` makes, in a new Debian of its own: installed, run, upgraded, removed, purged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = ROOT / "build" / "debians"
DEPENDS = ("python3", "python3-cffi-backend", "python3-serial", "python3-structlog", "tzdata", "systemd")
NETTLE = {"bookworm": "libnettle8", "trixie": "libnettle8t64"}
KEPT = '[log]\nlevel = "debug"\n'
NOT_OURS = re.compile(r"var/lib/dpkg/.*|etc/(g?shadow|passwd|group)-")
"""dpkg's own lists, and the copies that system programs keep of the lists of users."""

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root can enter another Debian")]

WATCH = """
refclock run --sim --run-dir /run/sim >/tmp/log 2>&1 &
for i in $(seq 120); do refclock status --run-dir /run/sim >/dev/null 2>&1 && break; sleep 0.5; done
refclock query 127.0.0.1:11123 || cat /tmp/log
kill $!; wait
"""


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package for this processor's family: amd64."""
    subprocess.run(["sh", ROOT / "image/cross.sh", "packages"], cwd=ROOT, check=True)
    directory = tmp_path_factory.mktemp("deb")
    subprocess.run([sys.executable, ROOT / "image/deb/package.py", "amd64", directory], cwd=ROOT, check=True)
    return next(directory.glob("*.deb"))


class Debian:
    """A Debian in a directory, entered with processes, devices and a network of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, script: str) -> str:
        """What a shell script there prints."""
        mounts = "mount --make-rprivate /; mount -t proc proc $0/proc; mount --rbind /dev $0/dev; ip link set lo up"
        enter = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-ec", f'{mounts}; exec chroot $0 sh -ec "$1"']
        done = subprocess.run([*enter, self.root, script], capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def files(self) -> set[str]:
        """What a package may leave behind."""
        found = (path for top in ("etc", "usr", "var/lib", "run", "tmp") for path in (self.root / top).rglob("*"))
        return {name for path in found if not NOT_OURS.fullmatch(name := str(path.relative_to(self.root)))}


@pytest.fixture(params=NETTLE)
def debian(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Debian]:
    """A new one that has what the package depends on. It is downloaded once into build/debians."""
    suite = str(request.param)
    archive = MADE / f"{suite}.tar"
    if not archive.exists():
        MADE.mkdir(parents=True, exist_ok=True)
        listed = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=True).stdout
        mirror = next(uri for uri in listed.split() if uri.rstrip("/").endswith("/debian"))
        include = f"--include={','.join((*DEPENDS, NETTLE[suite]))}"
        command = ["mmdebstrap", "--quiet", "--variant=apt", "--format=tar", include, suite, archive.with_suffix(".new")]
        subprocess.run([*command, f"deb {mirror} {suite} main"], check=True)
        archive.with_suffix(".new").rename(archive)
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", root, "--exclude=./dev/*"], check=True)
    yield Debian(root)
    subprocess.run(["rm", "-rf", "--one-file-system", root], check=True)


def test_from_installation_to_purge(deb: Path, debian: Debian) -> None:
    """Installing starts and enables nothing. It runs with Debian's own Python and modules. An upgrade and a removal keep the configuration
    that the owner changed and the state; a purge leaves nothing."""
    (debian.root / "refclock.deb").write_bytes(deb.read_bytes())
    before = debian.files()
    debian.run("dpkg -i /refclock.deb")
    assert not [name for name in debian.files() if name.startswith("etc/systemd") and "refclock" in name]
    assert "stratum 1" in debian.run(WATCH)
    assert "good" in debian.run("refclock config check --config /etc/refclock/refclock.toml")
    configuration, state = debian.root / "etc/refclock/refclock.toml", debian.root / "var/lib/refclock/state.json"
    configuration.write_text(KEPT, encoding="utf-8")
    state.parent.mkdir(exist_ok=True)
    state.write_text("{}", encoding="utf-8")
    debian.run("dpkg -i /refclock.deb")
    assert configuration.read_text(encoding="utf-8") == KEPT
    debian.run("dpkg -r refclock")
    assert configuration.read_text(encoding="utf-8") == KEPT
    assert state.exists()
    assert not (debian.root / "usr/lib/refclock").exists()
    debian.run("dpkg -P refclock; rm -rf /tmp/log /run/sim")
    assert debian.files() - before == set()


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
