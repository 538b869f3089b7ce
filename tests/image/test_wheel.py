"""The wheel and the source distribution that `make wheel` makes, as somebody meets them who has neither the repository nor a compiler."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = [pytest.mark.peers, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
DEPENDENCIES = ("cffi", "gpsd-py3", "pynmea2", "pyserial", "structlog")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from the source distribution."""
    directory = tmp_path_factory.mktemp("dist")
    environment = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", directory, ROOT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="module")
def refclock(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in a new environment that has nothing but the wheel and what it depends on."""
    venv = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    site = next(venv.glob("lib/python*/site-packages"))
    for name in DEPENDENCIES:
        for file in distribution(name).files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                (site / file).write_bytes(Path(str(file.locate())).read_bytes())
    subprocess.run([venv / "bin/python", "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel], check=True)
    return venv / "bin/refclock"


def test_one_wheel_serves_every_python_from_3_11_on(wheel: Path) -> None:
    """Its name says so, and so does that of each shared object in it."""
    assert re.fullmatch(r"refclock-[\d.]+-cp311-abi3-linux_\w+\.whl", wheel.name)
    objects = [name for name in ZipFile(wheel).namelist() if name.endswith(".so")]
    assert len(objects) == 4
    assert not [name for name in objects if not name.endswith(".abi3.so")]


def test_it_says_what_it_depends_on(wheel: Path) -> None:
    """What the tests here put beside it is what it asks for, so that nothing is left out."""
    with ZipFile(wheel) as archive:
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    assert set(re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)) == set(DEPENDENCIES)


def test_it_runs_without_a_compiler(refclock: Path, tmp_path: Path) -> None:
    """Installed in a bare environment, `refclock run --sim` locks onto the simulated receiver and answers NTP requests."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    bare = {"PATH": str(refclock.parent), "HOME": str(tmp_path)}

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([refclock, *words], env=bare, cwd=tmp_path, capture_output=True, text=True, check=False)

    run = ["--run-dir", str(tmp_path / "run")]
    with (tmp_path / "log").open("w") as log:
        daemon = subprocess.Popen([refclock, "run", "--sim", "--ntp", address, *run], env=bare, cwd=tmp_path, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while command("status", *run).returncode and time.monotonic() < until:
            time.sleep(0.5)
        answer = command("query", address)
        assert answer.returncode == 0, answer.stdout + answer.stderr + (tmp_path / "log").read_text()
        assert "stratum 1" in answer.stdout
    finally:
        daemon.terminate()
        assert daemon.wait(20) == 0
