"""Programs of Debian that are only unpacked, into build/peers, and run from there: installing them would put others out of the way."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "build" / "peers"
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
