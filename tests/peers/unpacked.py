"""Programs of Debian that are only unpacked, into build/peers, and run from there: installing them would put others out of the way.

Those of later releases are in build/releases (``make peers``, tests/peers/releases.sh)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "build" / "peers"
RELEASES = ROOT / "build" / "releases"
APT = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root"]


def unpacked(name: str, *more: str) -> Path:
    """The directory into which the package ``name`` is unpacked, with ``more`` packages that it needs and that may be missing here."""
    directory = PEERS / name
    if not (directory / ".complete").exists():
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run([*APT, name, *more], cwd=directory, check=True, timeout=300)
        for archive in sorted(directory.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=directory, check=True, timeout=60)
            archive.unlink()
        (directory / ".complete").touch()
    return directory


def with_libraries(directory: Path) -> list[str]:
    """Before a command: it finds the libraries that were unpacked with it."""
    paths = [str(path) for path in (directory / "usr/lib").glob("*-linux-*")]
    return ["env", f"LD_LIBRARY_PATH={os.pathsep.join(paths)}"]


def of_release(release: str, program: str) -> list[str]:
    """The words that start a program, such as "sbin/chronyd", of a later release with its own libraries. Where that could not be unpacked,
    the test is skipped with the reason."""
    root = RELEASES / release / "usr"
    if not (root / program).exists():
        why = RELEASES / f"{release}.why"
        pytest.skip(f"no {program} of {release}: {why.read_text(encoding='utf-8').strip() if why.exists() else 'run make peers'}")
    (libraries,) = [path.parent for path in root.glob("lib/*/libc.so.6")]
    return [str(next(root.glob("lib64/ld-linux-*"))), "--library-path", str(libraries), str(root / program)]
