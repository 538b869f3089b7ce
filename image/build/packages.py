"""The Debian packages of the images: their lists, the locks that name each one with version and checksum, and their download.

The locks make a build the same whenever and wherever it is made. apt resolves what is asked for with lists of its own in build/image/apt:
the system's packages and lists are neither read nor changed. The mirror is the one that this system's apt uses.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SUITE = "trixie"
AREAS = "main non-free-firmware"
CONTENTS = tomllib.loads((HERE / "contents.toml").read_text(encoding="utf-8"))
"""What is in the images."""
ARCHITECTURE = {"arm64": "arm64", "amd64": "amd64", "tools": "amd64"}


class Failed(Exception):
    """The build cannot go on; the text says why and what to do."""


class Gone(Failed):
    """The mirror no longer has a version that is locked."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of a lock. ``archive``: debian or debian-security; ``path``: the file's below it."""

    name: str
    version: str
    sha256: str
    archive: str
    path: str

    @property
    def file(self) -> str:
        """The name of the file here."""
        return self.path.rsplit("/", 1)[1]


def mirrors() -> dict[str, str]:
    """Where this system's apt gets Debian and its security updates from."""
    listed = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for uri in listed.split():
        name = uri.rstrip("/").rsplit("/", 1)[1]
        found.setdefault(name, uri.rstrip("/"))
    if "debian" not in found:
        raise Failed("apt has no Debian archive on this system (apt-get indextargets): the images are made of Debian's packages")
    found.setdefault("debian-security", f"{found['debian']}-security")
    return found


def lock_file(lock: str, directory: Path) -> Path:
    """Where a lock is."""
    return directory / f"packages-{lock}.lock"


def locked(lock: str, directory: Path = HERE) -> list[Package]:
    """The packages of a lock."""
    lines = lock_file(lock, directory).read_text(encoding="utf-8").splitlines()
    return [Package(*line.split()) for line in lines if not line.startswith("#")]


def renew(lock: str, work: Path, directory: Path = HERE) -> int:
    """Resolve what is asked for against the mirror of today, and write the lock; returns the number of packages."""
    apt = _apt(ARCHITECTURE[lock], work / "apt" / lock)
    subprocess.run(["apt-get", "-qq", "update"], env=apt, check=True)

    listed = CONTENTS["packages"]
    asked = [*listed[lock], *([] if lock == "tools" else listed["common"])]
    plan = subprocess.run(["apt-get", "-s", "-y", "install", *asked], env=apt, capture_output=True, text=True, check=False)
    if plan.returncode:
        raise Failed(f"apt cannot resolve the packages of {lock}: {plan.stderr.strip()}")
    chosen = re.findall(r"^Inst (\S+) \((\S+) ", plan.stdout, re.MULTILINE)
    shown = subprocess.run(
        ["apt-cache", "show", *(f"{name}={version}" for name, version in chosen)], env=apt, capture_output=True, text=True, check=True
    ).stdout
    packages: dict[str, Package] = {}
    for paragraph in shown.split("\n\n"):
        field = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", paragraph, re.MULTILINE))
        if field and field["Package"] not in listed["unused"]:
            archive = "debian-security" if "/updates/" in field["Filename"] else "debian"
            packages[field["Package"]] = Package(field["Package"], field["Version"], field["SHA256"], archive, field["Filename"])
    lines = [f"{p.name} {p.version} {p.sha256} {p.archive} {p.path}\n" for _, p in sorted(packages.items())]
    header = "# Written by `make image-lock`: package, version, SHA-256, archive, file.\n"
    lock_file(lock, directory).write_text(header + "".join(lines), encoding="utf-8")
    return len(packages)


def fetch(packages: Iterable[Package], directory: Path) -> list[Path]:
    """Download what is not there yet; returns the files in the order of ``packages``."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = list(packages)
    missing = [p for p in wanted if not (directory / p.file).exists()]
    at = mirrors() if missing else {}
    words: list[str] = []
    for p in missing:
        words += [f"{at[p.archive]}/{p.path}", str(directory / p.file), f"SHA256:{p.sha256}"]
    if words:
        command = ["/usr/lib/apt/apt-helper", "-o", "APT::Sandbox::User=", "download-file", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if gone := [p for p in missing if not (directory / p.file).exists()]:
            raise _unfetched(gone, done.stdout + done.stderr)
    return [directory / p.file for p in wanted]


def _unfetched(packages: Sequence[Package], said: str) -> Failed:
    which = ", ".join(f"{p.name} {p.version}" for p in packages[:3]) + (f" and {len(packages) - 3} more" if len(packages) > 3 else "")
    if "404" in said:
        return Gone(
            f"the mirror no longer has {which}: run make image-lock, which locks what it has now, try the image, and commit the locks"
        )
    return Failed(f"{which} cannot be downloaded: {said.strip().splitlines()[-1] if said.strip() else 'apt-helper said nothing'}")


def _apt(architecture: str, directory: Path) -> dict[str, str]:
    """The environment in which apt works in ``directory`` for ``architecture``, as if nothing were installed."""
    directory = directory.absolute()
    for part in ("lists/partial", "cache/archives/partial", "parts"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    (directory / "status").write_text("", encoding="utf-8")
    at = mirrors()
    suites = [(at["debian"], SUITE), (at["debian"], f"{SUITE}-updates"), (at["debian"], f"{SUITE}-backports")]
    suites.append((at["debian-security"], f"{SUITE}-security"))
    (directory / "sources").write_text("".join(f"deb {uri} {suite} {AREAS}\n" for uri, suite in suites), encoding="utf-8")
    settings = {
        "Dir::State": directory,
        "Dir::State::status": directory / "status",
        "Dir::State::lists": directory / "lists",
        "Dir::Cache": directory / "cache",
        "Dir::Etc::sourcelist": directory / "sources",
        "Dir::Etc::sourceparts": directory / "parts",
        "Dir::Etc::preferences": directory / "none",
        "Dir::Etc::preferencesparts": directory / "parts",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    (directory / "conf").write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()), encoding="utf-8")
    return {**os.environ, "APT_CONFIG": str(directory / "conf"), "LC_ALL": "C"}


if __name__ == "__main__":
    for name in sys.argv[2:] or ARCHITECTURE:
        print(f"{name}: {renew(name, Path(sys.argv[1]))} packages locked")
