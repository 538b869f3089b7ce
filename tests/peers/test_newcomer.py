"""A newcomer follows README.md to the letter, on a machine that has nothing of ours: a plain user, a directory with a space, 80 x 24.

The machine is this one's /usr under an empty root, in namespaces of its own: no home, no configuration, no other program. What is typed
into a terminal (tmux) is what README and the program itself print. The prompt shows the exit code of the command before.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import wait_for

pytestmark = [pytest.mark.realtime, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TMP, USER = (f"/{name}" for name in ("tmp", "home/newcomer"))
"""Folders of the empty root."""
SETUP_S, LOCK_S = 600.0, 90.0
DEVELOPERS = ("pytest", "mypy", "ruff", "hypothesis", "xdist")
PROMPT = re.compile(r"^(?:\(\S+\) )?\[(\d+)\]> *\n*\Z", re.MULTILINE)
"""Of a shell that waits for a command, in a virtual environment or not; the exit code of the last one."""
KEPT = re.compile(r"(PIP|SSL|REQUESTS|UV|HTTPS?|https?|no|NO)_")
"""Variables by which this machine reaches its package index."""
MACHINE = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
for name in bin sbin lib lib32 lib64 libx32; do
    if [ -L /$name ]; then cp -P /$name .; elif [ -d /$name ]; then mkdir $name; mount --rbind -o ro /$name $name; fi
done
mkdir -p usr opt etc dev proc sys tmp run var root home/newcomer source
for name in usr opt; do mount --rbind -o ro /$name $name; done
cp -a /etc/. etc/
grep -q '^newcomer:' etc/passwd || echo 'newcomer:x:4711:4711::/home/newcomer:/bin/bash' >> etc/passwd
rm -rf etc/refclock
mount --bind -o ro "$2" source
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
chmod 1777 tmp dev/shm
mkdir "home/newcomer/My Projects"
chown -R 4711:4711 home/newcomer
mount -t proc proc proc
echo ready
exec chroot . sleep 3000
"""


def blocks(heading: str) -> list[list[str]]:
    """The commands of each block of code in a section of README.md, as they are printed."""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert section is not None, f"README.md has no section {heading}"
    found = re.findall(r"```\n(.*?)```", section[1], re.DOTALL)
    return [block.splitlines() for block in found]


class Machine:
    """The empty root. ``networks``: the way into each network: the host's, to fetch packages, and one with a loopback only."""

    def __init__(self, root: Path, source: Path) -> None:
        self.root = root
        words = ["unshare", "-m", "-p", "-f", "--kill-child", "sh", "-c", MACHINE, "machine", str(root), str(source)]
        self._holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", "the machine could not be made"
        (first,) = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text(encoding="ascii").split()
        inside = Path(f"/proc/{first}", "root")
        self._enter = ["nsenter", "-t", first, "-m", "-p", f"--root={inside}", f"--wd={inside}"]
        self._alone = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "ip link set lo up && echo up && exec sleep 3000"], stdout=subprocess.PIPE, text=True
        )
        assert self._alone.stdout is not None
        assert self._alone.stdout.readline() == "up\n"
        self.networks = {"connected": [], "alone": ["nsenter", "-t", str(self._alone.pid), "-n"]}

    def run(self, words: list[str], network: str = "alone", *, as_root: bool = False) -> str:
        """A command of the plain user's or of root's; its output."""
        kept = [f"{name}={value}" for name, value in os.environ.items() if KEPT.match(name)]
        clean = ["env", "-i", *kept, f"HOME={USER}", "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "USER=newcomer"]
        plain = ["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", "--no-new-privs"]
        done = subprocess.run(
            [*self.networks[network], *self._enter, *([] if as_root else plain), *clean, *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def close(self) -> None:
        for holder in (self._holder, self._alone):
            holder.kill()
            holder.wait()
            assert holder.stdout is not None
            holder.stdout.close()


class Terminal:
    """A terminal of 80 x 24 on the machine, with a shell in the newcomer's directory."""

    def __init__(self, machine: Machine, name: str, network: str = "alone") -> None:
        self._machine, self._socket = machine, f"{TMP}/terminal-{name}"
        shell = "cd 'My Projects' && exec env PS1='[$?]> ' bash --norc --noprofile"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-c", USER, "-x", "80", "-y", "24", shell, network=network)
        self._tmux("set-option", "-g", "history-limit", "20000")
        wait_for("a prompt", lambda: "[0]>" in self.screen(), 10)

    def _tmux(self, *words: str, network: str = "alone") -> str:
        return self._machine.run(["tmux", "-S", self._socket, *words], network)

    def screen(self) -> str:
        """What a person sees."""
        return self._tmux("capture-pane", "-p")

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._tmux("send-keys", "C-c")

    def text(self) -> str:
        """Everything that was shown since the last ``run`` began, with wrapped lines joined."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-")

    def run(self, line: str, seconds: float = 30.0) -> tuple[int, str]:
        """(exit code, output) of a command that ends."""
        self._tmux("send-keys", "-R", ";", "clear-history")
        self.type("")
        wait_for("a prompt", lambda: PROMPT.search(self.text()), 10)
        self._tmux("send-keys", "-R", ";", "clear-history")
        self.type(line)
        wait_for(line, lambda: len(self.text().splitlines()) > 1 and PROMPT.search(self.text()), seconds)
        time.sleep(0.1)
        text = self.text()
        found = PROMPT.search(text)
        assert found is not None
        return int(found[1]), text[: found.start()].partition("\n")[2]

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """The machine, and a repository with the source as it is here under /source."""
    if os.geteuid() != 0:
        pytest.skip("an empty root with another user in it needs root")
    source, tree = tmp_path / "source", tmp_path / "root"
    tree.mkdir()
    names = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["git", "init", "-q", source], check=True)
    there = b"\0".join(name for name in names.split(b"\0") if name and (ROOT / os.fsdecode(name)).is_file())
    archive = subprocess.run(["tar", "-c", "--null", "-T", "-"], cwd=ROOT, input=there, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    commit = ["git", "-C", str(source), "-c", "user.name=n", "-c", "user.email=n@n"]
    subprocess.run([*commit, "add", "-A"], check=True)
    subprocess.run([*commit, "commit", "-q", "-m", "source"], check=True)
    subprocess.run(["chown", "-R", "4711:4711", source], check=True)
    tmp_path.chmod(0o755)
    made = Machine(tree, source)
    yield made
    made.close()


def test_the_newcomers_path(machine: Machine) -> None:
    """README from "Get it" to "Remove it": every command works as it is printed, and nothing is left."""
    first = Terminal(machine, "first")
    (needed, clone), (run, test) = blocks("Get it")[0], blocks("Get it")[1]
    assert re.fullmatch(r"sudo apt install [a-z ]+", needed)
    for program in needed.split()[3:]:  # a machine with these, and nothing else of ours
        assert first.run(f"command -v {program}")[0] == 0
    code, told = first.run(clone.replace("ADDRESS", "/source"))
    assert code == 0, told
    assert run.startswith("make run ")
    assert test.startswith("make test ")

    # without a network: one sentence, and nothing half made
    code, told = first.run(run, SETUP_S)
    assert code == 2
    assert "is there a network? Then run make again." in " ".join(told.split())
    assert "Traceback" not in told
    assert len(told.splitlines()) < 10, told
    assert first.run("ls -d .venv")[0] == 2

    # with one: nothing for developers is installed
    connected = Terminal(machine, "connected", "connected")
    connected.run("cd refclock")
    ((setup,),) = blocks("Install")
    code, told = connected.run(setup, SETUP_S)
    assert code == 0, told
    connected.close()
    packages = first.run("ls .venv/lib/python3*/site-packages .venv/bin")[1]
    assert not [name for name in DEVELOPERS if name in packages], packages
    size_kib = int(first.run("du -sk .venv")[1].split()[0])
    assert size_kib < 60_000, "what a Raspberry Pi's user waits for"

    # the simulation: the bound is on the screen, and what the program suggests can be typed
    first.type(run)
    wait_for(
        "the bound on a line of 80 columns",
        lambda: re.search(r"^SIMULATED LOCKED .*within ±[0-9.]+ .s", first.screen(), re.MULTILINE),
        LOCK_S,
    )
    assert "try, in another terminal:" in first.screen(), "the greeting has scrolled away"
    greeting = first.text()
    suggested = re.search(r"^try, in another terminal:\n((?:  .*\n)+)", greeting, re.MULTILINE)
    assert suggested is not None, greeting
    second = Terminal(machine, "second")
    for line in suggested[1].splitlines():
        code, told = second.run(line.strip())
        assert code == 0, (line, told)
    second.close()

    # README's first five minutes, in a terminal of their own
    third = Terminal(machine, "third")
    third.run("cd refclock")
    for line in blocks("The first five minutes")[0]:
        code, told = third.run(line)
        assert code == 0, (line, told)
        assert "Traceback" not in told
        if line.startswith(("refclock sats", "refclock tracking")):
            assert max(map(len, told.splitlines())) <= 80, told
    for name in sorted(set(re.findall(r"^\| `refclock ([a-z-]+)", README, re.MULTILINE))):
        code, told = third.run(f"refclock {name} --help")
        assert code == 0, (name, told)
        assert f"refclock {name}" in told
    code, told = third.run("refclock doctor")
    assert code in (0, 1, 2), told
    assert "Traceback" not in told
    third.close()

    # Ctrl-C, and away with it
    first.interrupt()
    wait_for("an end", lambda: re.search(r"^\[(0|130)\]>", first.screen(), re.MULTILINE), 15)
    assert "Error" not in first.screen()
    # once as root, which serves on port 123; the source stays its owner's
    machine.run([f"{USER}/My Projects/refclock/.venv/bin/refclock", "run", "--duration", "8"], as_root=True)
    for line in blocks("Remove it")[0]:
        code, told = first.run(line)
        assert code == 0, (line, told)
    for line in blocks("Remove it")[1]:
        sudo, *words = shlex.split(line)
        assert sudo == "sudo"
        machine.run(words, as_root=True)
    left = machine.run(["find", USER, TMP, "/etc", "/run", "/var", "/dev/shm", "-name", "*refclock*"], as_root=True)
    assert left == ""
    assert machine.run(["ls", "-A", f"{USER}/My Projects"]) == ""
    first.close()
