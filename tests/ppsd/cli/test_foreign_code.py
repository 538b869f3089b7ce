"""A program of root runs no code of another user, wherever it is started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ppsd.config.file import read

pytestmark = pytest.mark.device

REFCLOCK = [str(Path(sys.executable).with_name("refclock"))]
PLANTED = ("json", "ppsd", "refclock_sim", "structlog", "refclock", "argparse", "selectors", "sitecustomize", "usercustomize")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A directory with modules that leave a mark when they are imported."""
    made = tmp_path / "trap"
    made.mkdir()
    for name in PLANTED:
        (made / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'a').write({name!r} + ' ')\n")
    return made


def sprung(trap: Path) -> str:
    mark = trap.parent / "sprung"
    return mark.read_text() if mark.exists() else ""


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.mark.parametrize("variable", [{}, {"PYTHONPATH": ""}, {"PYTHONSTARTUP": "json.py"}, {"PYTHONUSERBASE": "."}])
def test_the_working_directory_adds_no_code(trap: Path, tmp_path: Path, variable: dict[str, str]) -> None:
    """``refclock run --sim`` in a directory full of foreign modules imports none of them in any of its processes, and serves."""
    words = ["run", "--sim", "--ntp", f"127.0.0.1:{free_port()}", "--run-dir", str(tmp_path / "run"), "--duration", "4"]
    done = subprocess.run([*REFCLOCK, *words], cwd=trap, env=os.environ | variable, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert sprung(trap) == ""
    assert "starting it again" not in done.stdout + done.stderr
    assert read(tmp_path / "run" / "refclock.toml").server.enabled


def test_children_ignore_a_path_of_modules_in_the_environment(trap: Path) -> None:
    """PYTHONPATH of whoever starts the daemon is no source of code for its children."""
    words = ["sim", "hw-sim/scenarios/no-such.toml"]
    env = os.environ | {"PYTHONPATH": str(trap)}
    wrapped = [
        sys.executable,
        "-I",
        "-c",
        "import sys; sys.argv = ['refclock', *sys.argv[1:]]; from ppsd.cli.main import main; sys.exit(main())",
    ]
    subprocess.run([*wrapped, *words], cwd=trap, env=env, capture_output=True, timeout=60, check=False)
    assert sprung(trap) == ""


@pytest.mark.parametrize("words", [["ppsd", "version"], ["ppsd", "clock", "--config", "/none"], ["refclock_sim", "--help"]])
def test_a_process_started_by_hand_leaves_the_working_directory(tmp_path: Path, words: list[str]) -> None:
    """``python -m ppsd`` in a foreign directory imports what belongs to Python and to us, and not the directory's json.py."""
    for name in ("json", "argparse", "tomllib", "selectors"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('foreign code')\n")
    done = subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "foreign code" not in done.stdout + done.stderr
    assert done.stdout + done.stderr
