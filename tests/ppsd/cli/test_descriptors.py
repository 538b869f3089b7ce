"""Commands that inherit more open descriptors than select(2) can hold, as from a supervisor that closes none."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from ppsd.cli.doctor import probes
from ppsd.cli.terminal import Terminal

pytestmark = pytest.mark.device


@pytest.fixture(autouse=True)
def _crowd() -> Iterator[None]:
    """1,100 descriptors, so that each new one has a higher number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1300:
        pytest.skip("no more than 1,300 descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1300), hard))
    null = os.open("/dev/null", os.O_RDONLY)
    crowd = [null, *(os.dup(null) for _ in range(1100))]
    yield
    for fd in crowd:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_top_takes_keys() -> None:
    """A key that is pressed is heard."""
    ours, theirs = os.openpty()
    one, other = socket.socketpair()
    with (
        one,
        other,
        os.fdopen(theirs) as keyboard,
        os.fdopen(os.dup(theirs), "w") as display,
        Terminal(keyboard, display, {"TERM": "xterm"}) as terminal,
    ):
        os.write(ours, b"q")
        assert terminal.wait(10.0, other.fileno()) == ["q"]
    os.close(ours)


def test_the_doctor_hears_answers() -> None:
    """A server on this machine that answers is told from one that does not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        for each in (server, silent):
            each.bind(("127.0.0.1", 0))
        answering = threading.Thread(target=lambda: server.sendto(b"!", server.recvfrom(64)[1]))
        answering.start()
        asked = [("127.0.0.1", each.getsockname()[1], b"?") for each in (server, silent)]
        assert probes.answers(asked) == [True, False]
        answering.join()
