"""What tests of the Debian package share: making it, and where Debian's own packages come from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def mirror() -> str:
    """The address from which this machine's apt has its packages."""
    listed = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=True).stdout
    return next(uri for uri in listed.split() if uri.rstrip("/").endswith("/debian"))


def package(architecture: str, directory: Path) -> Path:
    """Our package for an architecture, made in ``directory``."""
    subprocess.run(["sh", ROOT / "image/cross.sh", "packages"], cwd=ROOT, check=True)
    subprocess.run([sys.executable, ROOT / "image/deb/package.py", architecture, directory], cwd=ROOT, check=True)
    return next(directory.glob(f"*_{architecture}.deb"))


def later_version(deb: Path, directory: Path) -> Path:
    """The next version of a package, made in ``directory``: one file of the old one is gone, and one is new."""
    tree = directory / "tree"
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = [f"{line}+1" if line.startswith("Version: ") else line for line in control.read_text(encoding="utf-8").splitlines()]
    control.write_text("\n".join([*lines, ""]), encoding="utf-8")
    examples = tree / "usr/share/doc/refclock/examples"
    (examples / "usb-receiver.toml").rename(examples / "receiver.toml")
    made = directory / "later.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--build", tree, made], check=True, stdout=subprocess.DEVNULL)
    return made
