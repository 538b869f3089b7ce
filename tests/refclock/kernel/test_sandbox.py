"""What a process has given up: it goes on without, and what it was refused is told by name."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from refclock.kernel.sandbox import CLOCK, NOBODYS, SERVE, Helper, account, confine, lend, refused

pytestmark = pytest.mark.device

CLONE_NEWUSER = 0x10000000


def in_a_child(test: Callable[[], str]) -> str:
    """What ``test`` returns in a process of its own, which may give up what it likes."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            theirs.sendall(test().encode())
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        told = b"".join(iter(lambda: ours.recv(4096), b"")).decode()
    os.waitpid(child, 0)
    return told


@pytest.mark.parametrize("process", [CLOCK, SERVE])
def test_a_refused_call_has_a_name_and_ends_nothing(process: int) -> None:
    """A program is not run: the caller gets an error, the log can name the call, once, and the process works on."""

    def test() -> str:
        if confine(process, []):
            return "no filter here"
        error = 0
        try:
            os.execv("/bin/true", ["true"])
        except OSError as failure:
            error = failure.errno or 0
        seen = list(refused())
        with Path("/proc/self/comm").open() as stream:
            stream.read()
        return f"{errno.errorcode[error]} {' '.join(name.split()[0] for name in seen)} {list(refused())}"

    told = in_a_child(test)
    if told == "no filter here":
        pytest.skip(told)
    assert told == "ENOSYS execve []"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_a_helper_opens_what_it_was_told_to_and_nothing_else(tmp_path: Path) -> None:
    """Another user than root gets the keys that a reload needs, also when the file was replaced, and no other file of root."""
    keys, secret = tmp_path / "keys", tmp_path / "secret"
    for file in (keys, secret):
        file.write_text(file.name)
        file.chmod(0o600)

    def test() -> str:
        to = account("nobody-of-this-name")
        helper = Helper(to, tmp_path / "run", lambda: [str(keys)])
        confine(SERVE, [], to)
        told = [str(os.geteuid() == NOBODYS)]
        for path in (keys, secret):
            try:
                with open(path, opener=helper.open) as stream:
                    told.append(stream.read())
            except PermissionError:
                told.append("refused")
        return " ".join(told)

    assert in_a_child(test) == "True keys refused"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
@pytest.mark.parametrize("by", ["nothing", "another"])
def test_a_run_directory_that_was_moved_away_is_left(tmp_path: Path, by: str) -> None:
    """The server works where the clock process and the commands look, whether there is a directory again or none yet."""

    def test() -> str:
        directory, to = tmp_path / "run", account("nobody-of-this-name")
        directory.mkdir()
        helper = Helper(to, directory, list)
        lend(directory, to)
        helper.enter()
        directory.rename(tmp_path / "moved")
        if by == "another":
            directory.mkdir()
        helper.enter()
        Path("mine").touch()
        return f"{(directory / 'mine').exists()} {directory.stat().st_gid == NOBODYS}"

    assert in_a_child(test) == "True True"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_a_late_answer_is_not_taken_for_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the helper was held up, the server gets the file that it asks for now, not the one that it had given up waiting for."""
    files = [tmp_path / name for name in ("first", "second")]
    for file in files:
        file.write_text(file.name)
        file.chmod(0o600)
    monkeypatch.setattr("refclock.kernel.sandbox.PATIENCE_S", 0.3)

    def test() -> str:
        to = account("nobody-of-this-name")
        helper = Helper(to, tmp_path / "run", lambda: list(map(str, files)))
        (pid,) = map(int, Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
        os.kill(pid, signal.SIGSTOP)
        if os.fork() == 0:
            time.sleep(1)
            os.kill(pid, signal.SIGCONT)
            os._exit(0)
        confine(SERVE, [], to)
        for path in itertools.chain(files[:1], itertools.repeat(files[1])):
            with contextlib.suppress(TimeoutError), open(path, opener=helper.open) as stream:
                return stream.read()
        return ""

    assert in_a_child(test) == "second"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_a_helper_that_has_ended_is_told(tmp_path: Path) -> None:
    """The server then knows that it must be started again, instead of looking for its directory for ever."""

    def test() -> str:
        directory, to = tmp_path / "run", account("nobody-of-this-name")
        directory.mkdir()
        helper = Helper(to, directory, list)
        (pid,) = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        os.kill(int(pid), signal.SIGKILL)
        os.waitpid(int(pid), 0)
        lend(directory, to)
        directory.rename(tmp_path / "moved")
        try:
            helper.enter()
        except BrokenPipeError as error:
            return str(error.strerror)
        return ""

    assert "has ended; start refclock again" in in_a_child(test)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_where_nothing_can_be_given_to_another_user_root_goes_on_without_rights(tmp_path: Path) -> None:
    """In a user namespace with root alone, as of a rootless container, no other user can be taken on: that is told, and the directory can
    be used."""

    def test() -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWUSER) < 0:
            return "no user namespace here"
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text("0 0 1")
        Path("/proc/self/gid_map").write_text("0 0 1")
        to = account("nobody-of-this-name")
        path, group = lend(tmp_path, to)
        (told,) = confine(SERVE, [], to, group)
        (path / "mine").touch()
        return f"{told}; {os.geteuid()}; {(tmp_path / 'mine').exists()}"

    told = in_a_child(test)
    if told == "no user namespace here":
        pytest.skip(told)
    assert told == f"stays user 0, without its rights: user {NOBODYS} cannot be taken on (Invalid argument); 0; True"
