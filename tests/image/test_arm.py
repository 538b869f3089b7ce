"""The Debian package for 32-bit Raspberry Pis, run by an emulator: trixie's programs for armhf, unpacked and not installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from debians import mirror, package

SITE = "usr/lib/refclock/lib/python3/site-packages"
DEPENDS = ("base-files", "python3", "python3-cffi-backend", "python3-serial", "python3-structlog", "libnettle8t64", "tzdata")
COMMAND = "from ppsd.cli.main import main; sys.exit(main())"
SIMULATOR = "import runpy; runpy.run_module('refclock_sim', run_name='__main__', alter_sys=True)"
WORLD = 'claim = "It runs"\nduration_s = 60\n[limits]\nlocked_within_s = 20\n'

pytestmark = [pytest.mark.peers, pytest.mark.slow]


class Arm:
    """A tree with programs for ARM."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, program: str, *words: str) -> str:
        """What a program of the package, as a piece of Python, prints."""
        sites = [str(self.root / SITE), str(self.root / "usr/lib/python3/dist-packages")]
        start = f"import sys; sys.path[:0] = {sites}; {program}"
        python = next((self.root / "usr/bin").glob("python3.*[0-9]"))
        # The tree's libraries have the place that they would have on the machine: the emulator looks for them below the tree.
        emulator = ["qemu-arm", "-L", str(self.root), "-E", "LD_LIBRARY_PATH=/usr/lib/arm-linux-gnueabihf"]
        done = subprocess.run([*emulator, python, "-I", "-c", start, *words], capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Arm:
    """The package in a tree of trixie."""
    directory = tmp_path_factory.mktemp("arm")
    root = directory / "root"
    options = ["--quiet", "--architectures=armhf", "--variant=extract", "--skip=check/qemu", f"--include={','.join(DEPENDS)}"]
    unpacking = subprocess.Popen(["mmdebstrap", *options, "trixie", root, f"deb {mirror()} trixie main"])
    deb = package("armhf", directory)
    assert unpacking.wait() == 0
    subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
    return Arm(root)


def test_it_starts_and_judges_a_configuration(arm: Arm) -> None:
    """The command runs with Debian's Python and modules, and the C core loads: its parts for ARM and their libraries fit."""
    assert arm.run(COMMAND, "--version").startswith("refclock ")
    assert "good" in arm.run(COMMAND, "config", "check", "--config", str(arm.root / "etc/refclock/refclock.toml"))


def test_it_keeps_time(arm: Arm, tmp_path: Path) -> None:
    """A simulated receiver with its pulse is followed, and NTP requests are answered by the C core, to the limits of the scenario."""
    (tmp_path / "world.toml").write_text(WORLD, encoding="utf-8")
    assert "held" in arm.run(SIMULATOR, "world", str(tmp_path / "world.toml"), "--seeds", "1")


def test_its_core_knows_the_time_after_2038(arm: Arm) -> None:
    """No call of the C core to libc has a 32-bit time in it, on bookworm neither, where that is the default."""
    for name in ("refclock/kernel/_kernel.abi3.so", "ppsd/serve/_server.abi3.so"):
        words = ["arm-linux-gnueabihf-nm", "--dynamic", "--undefined-only", arm.root / SITE / name]
        needed = {line.split()[1].partition("@")[0] for line in subprocess.check_output(words, text=True).splitlines()}
        assert "__clock_gettime64" in needed, name
        assert not needed & {"clock_gettime", "clock_adjtime", "timerfd_settime", "gettimeofday", "time"}, name
