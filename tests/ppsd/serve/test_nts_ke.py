"""The NTS-KE process as supervisors and people meet it: exit codes, and what it says when it cannot do its work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.importorskip("OpenSSL", reason="NTS needs pyOpenSSL")
pytestmark = pytest.mark.device

ENABLED = '[nts]\nenabled = true\nlisten = ["127.0.0.9:44600"]\nnames = ["box"]\n'


def ran(directory: Path, config: str, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """The process, until its end."""
    file = directory / "refclock.toml"
    file.write_text(f'{config}[run]\nstate = "{directory}/state"\nuser = "65534"\ngroup = "65534"\n', encoding="utf-8")
    command = [sys.executable, "-m", "ppsd", "nts-ke", "--config", str(file), "--run-dir", str(directory / "run"), *words]
    environment = os.environ | ({"PYTHONPATH": path} if path else {})
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_a_configuration_that_is_wrong_ends_it_with_78(tmp_path: Path) -> None:
    """systemd does not start it again (RestartPreventExitStatus=78), and the line is named."""
    done = ran(tmp_path, ENABLED.replace("names", "name"))
    assert done.returncode == 78, done
    assert re.search(r"refclock\.toml:4: nts\.name: unknown key; did you mean names\?", done.stderr)


def test_without_its_library_it_ends_with_78(tmp_path: Path) -> None:
    """Where pyOpenSSL is not installed, people are told how to install it."""
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "OpenSSL.py").write_text("raise ModuleNotFoundError('none', name='OpenSSL')\n", encoding="utf-8")
    done = ran(tmp_path, ENABLED, path=str(absent))
    assert done.returncode == 78, done
    assert "apt install python3-openssl" in done.stderr + done.stdout


def test_when_nts_is_off_it_ends_well(tmp_path: Path) -> None:
    """Its unit may be enabled everywhere."""
    done = ran(tmp_path, ENABLED.replace("true", "false"))
    assert done.returncode == 0, done
    assert "NTS is not enabled" in done.stderr + done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_closed_directory_above_its_files_is_named() -> None:
    """Below a directory of root's that nobody else may enter no certificate can be made; the directory and the remedy are told."""
    with TemporaryDirectory() as closed:
        (Path(closed) / "above").mkdir()
        done = ran(Path(closed) / "above", ENABLED, "--duration", "1")
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "no keys are established" in told
    assert f"may not enter {closed}; run: chmod o+x {closed}, or set run.state" in told
