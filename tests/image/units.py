"""What the unit files ask of systemd, read and done without it: user, capabilities, network, system calls, sockets handed over."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

SYSTEMD = Path(__file__).parents[2] / "image" / "systemd"
NUMBERS = {"refclock": 61101, "refclock-serve": 61102}
"""Users whom no system has, in place of those that sysusers.d makes."""
GROUP = 61100
PYTHON = "/usr/bin/python3"
"""The units' own. A virtual environment may lead to one that only its user can read."""
MODULES = os.pathsep.join([str(SYSTEMD.parents[1]), str(SYSTEMD.parents[1] / "hw-sim"), sysconfig.get_path("purelib")])
"""Where it finds refclock and its dependencies: those of the Python that runs the tests."""


def settings(unit: str) -> dict[str, list[str]]:
    """The settings of a unit file: name -> values, in their order."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / unit).read_text(encoding="utf-8").splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@cache
def calls_of(group: str) -> frozenset[str]:
    """The system calls of a group, as systemd has them ("@system-service")."""
    words = ["systemd-analyze", "--no-pager", "syscall-filter", group]
    told = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | {"SYSTEMD_COLORS": "0"}).stdout
    names = [line.strip() for line in told.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return frozenset().union(*(calls_of(name) if name.startswith("@") else {name} for name in names))


def allowed_calls(unit: str) -> frozenset[str]:
    """The system calls that SystemCallFilter= of a unit allows (systemd.exec(5))."""
    allowed: frozenset[str] = frozenset()
    for value in settings(unit)["SystemCallFilter"]:
        named = frozenset().union(*(calls_of(word) if word.startswith("@") else {word} for word in value.lstrip("~").split()))
        allowed = allowed - named if value.startswith("~") else allowed | named
    return allowed


def own_calls(process: str) -> frozenset[str]:
    """The system calls that native/sandbox.c leaves to a process ("CLOCK", "SERVE"). musl's names of 32-bit calls become systemd's."""
    text = (SYSTEMD.parents[1] / "native" / "sandbox.c").read_text(encoding="utf-8")
    named = (name for name, by in re.findall(r"CALL\((\w+), (\w+)\)", text) if by in (process, "BOTH"))
    return frozenset(re.sub(r"(_time32|(?<=time)32)$", "", name) for name in named)


def as_the_unit(unit: str, words: list[str], handed_over: int = 0) -> list[str]:
    """The command that runs ``words`` with the rights that ``unit`` gives: its user, no capability, its system calls, and with
    PrivateNetwork= no network. ``handed_over``: a socket's descriptor, for descriptor 3."""
    of = settings(unit)
    user = NUMBERS[of["User"][0]]
    alone = ["unshare", "-n"] if of.get("PrivateNetwork") == ["yes"] else []
    drop = ["setpriv", f"--reuid={user}", f"--regid={GROUP}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    rigid = "MemoryDenyWriteExecute" in of
    calls = json.dumps([str(handed_over), str(int(rigid)), *sorted(allowed_calls(unit))])
    return [*alone, *drop, PYTHON, "-P", str(Path(__file__)), calls, *words]


def _enter(handed_over: int, rigid: bool, calls: list[str], words: list[str]) -> None:
    """Allow these system calls only (libseccomp; others: EPERM), and become the program. ``rigid``: it makes no memory writable and
    executable."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(0x00050000 | 1)))  # SCMP_ACT_ERRNO(EPERM)
    for name in calls:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != -1 and library.seccomp_rule_add(context, ctypes.c_uint32(0x7FFF0000), number, 0) not in (0, -22):
            raise SystemExit(f"no rule for {name}")
    environment = dict(os.environ)
    if handed_over:
        os.dup2(handed_over, 3, inheritable=True)
        environment |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    if rigid:
        ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN; Linux 6.3
    if library.seccomp_load(context) != 0:
        raise SystemExit("the filter cannot be loaded")
    os.execve(shutil.which(words[0]) or words[0], words, environment)


def listening(port: int) -> socket.socket:
    """A socket as refclock-serve.socket makes it."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", port))
    return made


if __name__ == "__main__":
    handed, whether_rigid, *allowed = json.loads(sys.argv[1])
    _enter(int(handed), whether_rigid == "1", allowed, sys.argv[2:])
