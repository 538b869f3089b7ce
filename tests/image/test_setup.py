"""image/setup.sh, which `make run` calls: what it says when something is missing, and what it leaves behind.

The programs that it calls are played by scripts, on a PATH that has nothing else but a few tools.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.device

SETUP = Path(__file__).parents[2] / "image" / "setup.sh"
TOOLS = ("cat", "chmod", "cut", "grep", "mkdir", "pwd", "rm", "sed", "sh", "tail", "tee", "touch")
OLD = """case "$*" in *'sys.exit(sys.version_info'*) exit 1 ;; *python_version*) echo 3.10.12 ;; *) exit 9 ;; esac"""
VENV = """[ "$1" = -m ] && [ "$2" = venv ] || exit 0
mkdir -p "$3/bin"; echo "command = python3 -m venv $PWD/$3" > "$3/pyvenv.cfg"
cat > "$3/bin/python" <<'X'
#!/bin/sh
case "$*" in *'pip install'*) {pip} ;; esac
X
chmod 755 "$3/bin/python"
"""


class Machine:
    """A directory to set up, and the programs that there are."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.programs = directory / "my clone", directory / "programs"
        for made in (self.directory, self.programs):
            made.mkdir()
        for name in TOOLS:
            found = shutil.which(name)
            assert found is not None
            (self.programs / name).symlink_to(found)

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def setup(self, *words: str) -> tuple[int, list[str]]:
        """(exit code, what is said, line by line)"""
        command = ["sh", str(SETUP), *words]
        done = subprocess.run(command, cwd=self.directory, env={"PATH": str(self.programs)}, capture_output=True, text=True, check=False)
        return done.returncode, (done.stdout + done.stderr).splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("step", [("build", "gcc", "python3"), ("venv", ".venv")])
def test_an_old_python_is_a_sentence(machine: Machine, step: tuple[str, ...]) -> None:
    """Python 3.10: what is needed, what there is and what to do; nothing is installed, nothing is made."""
    for name in ("python3", "python3.11"):
        machine.program(name, OLD)
    machine.program("apt-get", "touch installed")
    code, (line,) = machine.setup(*step)
    assert code == 1
    assert "refclock needs Python 3.11 or later, and python3 is 3.10.12" in line
    assert "run make again" in line
    assert {path.name for path in machine.directory.iterdir()} == {"build"}


def test_a_later_python_beside_an_old_one_is_taken(machine: Machine) -> None:
    """python3 is 3.10, python3.12 is there too: that one makes the environment."""
    machine.program("python3", OLD)
    machine.program("python3.12", VENV.replace("{pip}", "exit 0"))
    assert machine.setup("venv", ".venv")[0] == 0
    assert (machine.directory / ".venv").exists()


@pytest.mark.parametrize(
    ("pip", "said"),
    [
        ("echo 'Retrying: [Errno -3] Temporary failure in name resolution'; exit 1", "is there a network? Then run make again."),
        ("echo 'Retrying: [Errno 101] Network is unreachable'; exit 1", "is there a network? Then run make again."),
        ("echo noise; echo 'native/x.c:7: fatal error: nettle/cmac.h: no such file'; exit 1", "fatal error: nettle/cmac.h"),
    ],
)
def test_a_failure_is_a_sentence_and_leaves_nothing_half_made(machine: Machine, pip: str, said: str) -> None:
    """No network, no header: why, and what to do. An environment that was begun is removed; the next try succeeds."""
    machine.program("python3", VENV.replace("{pip}", pip))
    code, lines = machine.setup("venv", ".venv")
    assert code == 1
    assert said in lines[-1]
    assert "noise" not in "".join(lines)
    assert not (machine.directory / ".venv").exists()
    machine.program("python3", VENV.replace("{pip}", "exit 0"))
    assert machine.setup("venv", ".venv")[0] == 0


def test_an_update_without_a_network_keeps_what_works(machine: Machine) -> None:
    """The environment of an earlier set-up stays when it cannot be brought up to date."""
    machine.program("python3", VENV.replace("{pip}", "[ ! -e offline ] || { echo 'Connection timed out'; exit 1; }"))
    assert machine.setup("venv", ".venv")[0] == 0
    (machine.directory / "offline").touch()
    code, lines = machine.setup("venv", ".venv")
    assert code == 1
    assert "is there a network?" in lines[-1]
    assert (machine.directory / ".venv/bin/python").exists()


def test_a_directory_that_was_moved_is_set_up_anew(machine: Machine) -> None:
    """Scripts of an environment name their interpreter by its full path: after mv or cp it is made again, and that is told."""
    machine.program("python3", VENV.replace("{pip}", "exit 0"))
    machine.setup("venv", ".venv")
    assert "anew" not in "".join(machine.setup("venv", ".venv")[1])
    machine.directory = machine.directory.rename(machine.directory.with_name("moved"))
    code, lines = machine.setup("venv", ".venv")
    assert code == 0
    assert "making .venv anew" in lines[0]


def test_packages_that_cannot_be_installed_are_named(machine: Machine) -> None:
    """Without sudo: the command for root. Without a network: that. Neither a trace of apt's own output."""
    machine.program("dpkg-query", "exit 1")
    machine.program("id", "echo 1000")
    code, (line,) = machine.setup("build", "gcc", "nettle-dev")
    assert code == 1
    assert "As root: apt-get install gcc nettle-dev; then run make again." in line
    machine.program("sudo", '[ "$1" = true ] || [ "$1" != apt-get ] || { shift; exec apt-get "$@"; }')
    machine.program("apt-get", "echo 'Err:1 Could not resolve host'; echo 'E: Unable to locate package'; exit 100")
    code, lines = machine.setup("build", "gcc", "nettle-dev")
    assert code == 1
    assert lines[-1].startswith("setup: there is no way to the package servers: gcc nettle-dev cannot be installed")
    assert not [line for line in lines if line.startswith(("E:", "Err"))]
