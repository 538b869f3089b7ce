"""The appliance's images, and machines with them: what the tests of this folder run in."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from card import Card, unpacked
from machine import BOARDS, OVMF, Machine

ROOT = Path(__file__).parents[2]
MADE = ROOT / "build" / "vm"
TOOLS = ("qemu-system-x86_64", "qemu-system-aarch64", "mcopy", "dtc", "ssh", "ssh-keygen", "setpriv", "zstd")
FIGURES = MADE / "figures.txt"


@pytest.fixture(autouse=True, scope="session")
def _tools() -> None:
    """What is missing is named, and how it is installed."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None] + [str(OVMF)] * (not OVMF.exists())
    assert not missing, f"missing: {', '.join(missing)}; they come with make test-vm"


@contextmanager
def alone() -> Iterator[None]:
    """One of the processes that run tests side by side at a time."""
    MADE.mkdir(parents=True, exist_ok=True)
    with (MADE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def image_of(architecture: str) -> Path:
    """The image of "arm64" or "amd64", from the directory REFCLOCK_IMAGES or else built here (``make image``), with today's packages
    where the mirror no longer has the locked ones."""
    given = os.environ.get("REFCLOCK_IMAGES")
    there = Path(given) if given is not None else ROOT / "build" / "image"
    with alone():
        if given is None:
            subprocess.run(["make", "image", f"IMAGES={architecture}", "RENEW=1"], cwd=ROOT, check=True)
        plain, packed = ([*there.glob(f"refclock-*{architecture}.{kind}")] for kind in ("img", "img.zst"))
        assert plain or packed, f"{there} has no image for {architecture}: run make image"
        return unpacked(max(plain or packed, key=lambda file: file.stat().st_mtime), MADE)


@pytest.fixture(scope="session")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The owner's key; the public half is beside it."""
    key = tmp_path_factory.mktemp("owner") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "owner", "-f", key], check=True)
    return key


@pytest.fixture(scope="session")
def box_toml(owner: Path) -> str:
    """The least that an owner writes into box.toml to be let in."""
    return f'[system]\nssh_keys = ["{owner.with_suffix(".pub").read_text(encoding="utf-8").strip()}"]\n'


@pytest.fixture(scope="module")
def new_machine(owner: Path, box_toml: str) -> Iterator[Callable[..., Machine]]:
    """``new_machine(board, files)``: a machine that is off, with the image as it is flashed and the owner's files on bootcfg."""
    with ExitStack() as machines:

        def made(board: str, files: dict[str, str] | None = None) -> Machine:
            directory = Path(machines.enter_context(tempfile.TemporaryDirectory(prefix="vm")))
            card = Card(image_of("arm64" if BOARDS[board].model else "amd64"), directory / "card")
            for name, text in ({"box.toml": box_toml} | (files or {})).items():
                card.write(name, text)
            return machines.enter_context(Machine(board, card, directory, owner))

        yield made


@pytest.fixture(scope="session")
def figure() -> Callable[[str, float, str], None]:
    """``figure(what, value, unit)``: a measured figure, printed and added to build/vm/figures.txt."""
    MADE.mkdir(parents=True, exist_ok=True)

    def note(what: str, value: float, unit: str) -> None:
        line = f"{datetime.now(UTC):%Y-%m-%d %H:%M} {what}: {value:.4g} {unit}"
        print(line)
        with FIGURES.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    return note
