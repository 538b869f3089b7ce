"""The control socket: answers, and never lets a client get in the way."""

import contextlib
import errno
import json
import os
import resource
import select
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppsd.process.control import CLIENTS, LINE_BYTES, ControlServer, alive, ask

BIG = {"text": "x" * 900_000}


def answer(verb: str) -> str:
    return json.dumps({"snapshot": {"mode": "track"}, "big": BIG, "list": []}.get(verb, {"error": f"unknown verb {verb[:20]}"}))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    made = ControlServer(tmp_path / "clock.sock", answer)
    yield made
    made.close()


@pytest.fixture
def served(server: ControlServer) -> Iterator[Path]:
    """The server driven by a select loop, as the processes do."""
    stop, stopped = socket.socketpair()

    def loop() -> None:
        while True:
            ready, _, _ = select.select([server, stopped], [], [])
            if stopped in ready:
                return
            server.handle_ready()

    thread = threading.Thread(target=loop)
    thread.start()
    yield server.path
    stop.send(b"x")
    thread.join()
    stop.close()
    stopped.close()


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    sock.connect(str(path))
    return sock


def test_answers(served: Path) -> None:
    """A verb gets its object, a long reply arrives whole, an unknown verb is an error with its text."""
    assert ask(served, "snapshot") == {"mode": "track"}
    assert ask(served, "big", 5.0) == BIG
    with pytest.raises(OSError, match="unknown verb dance"):
        ask(served, "dance")
    with pytest.raises(OSError, match="not a JSON object"):
        ask(served, "list")


def test_several_lines_on_one_connection(served: Path) -> None:
    """Requests may come in pieces and in bunches; replies keep their order."""
    with connect(served) as sock:
        sock.sendall(b"snap")
        sock.sendall(b"shot\nlist\nsnap")
        sock.sendall(b"shot\r\n")
        stream = sock.makefile("rb")
        assert [stream.readline() for _ in range(3)] == [b'{"mode": "track"}\n', b"[]\n", b'{"mode": "track"}\n']
        stream.close()


def test_a_client_that_does_not_read_blocks_nobody(served: Path) -> None:
    """Ten megabytes that nobody reads wait for their client alone; others are served."""
    with connect(served) as slow:
        slow.sendall(b"big\n" * 10)
        assert ask(served, "snapshot") == {"mode": "track"}
        received = 0
        while received < 10 * (len(json.dumps(BIG)) + 1):
            received += len(slow.recv(1 << 20))


def test_too_many_clients(served: Path) -> None:
    """When the table is full the oldest goes, the newest is served."""
    idle = [connect(served) for _ in range(CLIENTS + 1)]
    assert ask(served, "snapshot") == {"mode": "track"}
    assert idle[0].recv(1) == b""
    for sock in idle:
        sock.close()


def test_too_long_a_line(served: Path) -> None:
    """A request without end is cut off."""
    with connect(served) as sock:
        sock.sendall(b"x" * LINE_BYTES)
        sock.sendall(b"x" * LINE_BYTES)
        with contextlib.suppress(ConnectionResetError):  # what came after the cut was thrown away
            assert sock.recv(1) == b""
    assert ask(served, "snapshot")


def test_idle_server_is_not_ready(server: ControlServer) -> None:
    """Nothing to do, nothing readable; handle_ready does not wait."""
    assert select.select([server], [], [], 0) == ([], [], [])
    server.handle_ready()
    with connect(server.path):
        server.handle_ready()
        assert select.select([server], [], [], 0) == ([], [], [])


def test_user_and_group_may_ask_and_nobody_else(tmp_path: Path) -> None:
    """The socket has its mode whatever the umask is."""
    before = os.umask(0o077)
    try:
        server = ControlServer(tmp_path / "s", answer)
    finally:
        os.umask(before)
    assert server.path.stat().st_mode & 0o777 == 0o660
    server.close()


def test_what_stands_in_the_way(tmp_path: Path) -> None:
    """A dead socket is replaced; a living one of either type and a file are not."""
    path = tmp_path / "s"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    assert not alive(path)
    first = ControlServer(path, answer)
    assert alive(path)
    with pytest.raises(OSError) as caught:
        ControlServer(path, answer)
    assert caught.value.errno == errno.EADDRINUSE
    first.close()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(path))
        with pytest.raises(OSError, match="in use"):
            ControlServer(path, answer)
        assert path.exists()
        path.unlink()
    path.touch()
    with pytest.raises(FileExistsError):
        ControlServer(path, answer)
    assert path.exists()
    with pytest.raises(OSError):
        ControlServer(tmp_path / "none" / "s", answer)


def test_asking_nobody(tmp_path: Path, server: ControlServer) -> None:
    """No socket and no reply are both OSError, the latter in time."""
    with pytest.raises(FileNotFoundError):
        ask(tmp_path / "no", "snapshot")
    with pytest.raises(TimeoutError):
        ask(server.path, "snapshot", 0.05)


@pytest.mark.device
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_member_of_the_group_may_ask_and_others_may_not() -> None:
    """With run.group an unprivileged status works for its members: not root, not the daemon's user. Anybody else is refused."""
    with tempfile.TemporaryDirectory(prefix="refclock-group-") as name:
        Path(name).chmod(0o755)
        server = ControlServer(Path(name) / "clock.sock", answer, group="54321")
        assert server.complaint == ""
        assert (server.path.stat().st_gid, server.path.stat().st_mode & 0o777) == (54321, 0o660)
        for groups, code in (([54321], 0), ([54322], 77)):
            child = os.fork()
            if child == 0:  # what another user's process would do
                os.setgroups(groups)
                os.setgid(65534)
                os.setuid(65534)
                try:
                    ask(server.path, "snapshot")
                    os._exit(0)
                except PermissionError:
                    os._exit(77)
                finally:
                    os._exit(1)
            while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
                server.handle_ready()
            assert os.waitstatus_to_exitcode(ended[1]) == code
        server.close()


def test_a_group_that_is_not_there_is_told_and_ends_nothing(tmp_path: Path) -> None:
    """The socket is there all the same, for its owner."""
    server = ControlServer(tmp_path / "s", answer, group="no-such-group")
    assert "there is no group no-such-group" in server.complaint
    assert "groupadd" in server.complaint
    server.close()


def test_a_socket_that_somebody_removed_is_made_anew_as_it_was(tmp_path: Path) -> None:
    """Its directory too; one that is there is left alone, also when it is another process's by now."""
    group = str(os.getgid())
    directory = tmp_path / "run"
    directory.mkdir(0o750)
    server = ControlServer(directory / "s", answer, group=group)
    was = (server.path.stat().st_mode, server.path.stat().st_gid)
    assert not server.renew()
    server.path.unlink()
    directory.rmdir()
    assert server.renew()
    assert (server.path.stat().st_mode, server.path.stat().st_gid) == was
    assert directory.stat().st_mode & 0o777 == 0o750
    with connect(server.path) as client:
        client.sendall(b"snapshot\n")
        for _ in range(2):  # the connection, then the request
            server.handle_ready()
        assert client.recv(100) == b'{"mode": "track"}\n'
    server.path.unlink()
    server.path.touch()
    assert not server.renew()
    server.close()


def test_without_descriptors_it_sleeps_and_answers_when_there_are_some(server: ControlServer) -> None:
    """A client that comes while all descriptors of the process are used up wakes the loop twice, not for ever. It is answered once a later
    client shows that there are some again."""
    first, later = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    poll = select.poll()
    poll.register(server, select.POLLIN)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        first.connect(str(server.path))
        wakes = 0
        while poll.poll(0) and wakes < 100:
            wakes += 1
            server.handle_ready()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 1 <= wakes <= 2
    later.connect(str(server.path))
    with first, later:
        for client in (first, later):
            client.settimeout(5)
            client.sendall(b"snapshot\n")
        while poll.poll(100):
            server.handle_ready()
        assert [json.loads(client.recv(4096)) for client in (first, later)] == [{"mode": "track"}] * 2
