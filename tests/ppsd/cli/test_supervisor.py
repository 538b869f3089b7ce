"""The supervisor: children live, come back, and all end together."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ppsd.cli.supervisor import PAUSES_S, Program, Screen, Supervisor
from ppsd.process.lifecycle import notify

pytestmark = [pytest.mark.device, pytest.mark.realtime]

SLEEPER = "import time; time.sleep(60)"
STUBBORN = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(1, b'up\\n'); time.sleep(60)"


def program(name: str, code: str, *words: str, awaits: Path | None = None) -> Program:
    return Program(name, (sys.executable, "-I", "-S", "-c", code, *words), awaits=awaits)


def supervisor(programs: list[Program], **hooks: Callable[[], object]) -> tuple[Supervisor, io.StringIO]:
    out = io.StringIO()
    return Supervisor(programs, Screen(out), **{"report": lambda: ("up", "all is well"), **hooks}), out  # type: ignore[arg-type]


def gone(pid: int) -> bool:
    """The process has ended (a zombie that nobody reaped yet has too)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def test_runs_for_a_duration() -> None:
    """When the time is up all children have ended and the code is 0."""
    supervised, out = supervisor([program("a", SLEEPER), program("b", SLEEPER)])
    assert supervised.run(0.3) == 0
    assert out.getvalue() == "all is well\n"


@pytest.mark.parametrize("code", [64, 77, 78])
def test_final_codes_end_the_run(code: int) -> None:
    """A child that cannot work at all ends everything, with its own code."""
    supervised, _ = supervisor([program("a", SLEEPER), program("b", f"raise SystemExit({code})")])
    assert supervised.run(30) == code


def test_a_crash_is_repaired_at_once(tmp_path: Path) -> None:
    """The first restart has no pause, and the crash is told."""
    count = tmp_path / "count"
    code = "import sys, os; open(sys.argv[1], 'a').write('x'); os.path.getsize(sys.argv[1]) > 1 and sys.exit(78); os.kill(os.getpid(), 9)"
    supervised, out = supervisor([program("clock", code, str(count))])
    assert supervised.run(30) == 78
    assert "clock was ended by SIGKILL; starting it again\n" in out.getvalue()


def test_a_crash_loop_slows_down(tmp_path: Path) -> None:
    """Each further start in a row waits longer."""
    count = tmp_path / "count"
    code = f"import sys, os; open(sys.argv[1], 'a').write('x'); sys.exit(78 if os.path.getsize(sys.argv[1]) > {len(PAUSES_S[:4])} else 1)"
    supervised, out = supervisor([program("clock", code, str(count))])
    assert supervised.run(60) == 78
    pauses = [line.rpartition("again")[2] for line in out.getvalue().splitlines() if line.startswith("clock ended with code 1")]
    assert pauses == ["", *(f" in {p:g} s" for p in PAUSES_S[1:4])]


def test_waits_for_what_another_child_makes(tmp_path: Path) -> None:
    """A program that awaits a path starts only when it is there."""
    path = tmp_path / "tty"
    second = program("second", "import sys, os; sys.exit(78 if os.path.exists(sys.argv[1]) else 64)", str(path), awaits=path)
    first = program("first", "import sys, time; time.sleep(0.2); open(sys.argv[1], 'w'); time.sleep(60)", str(path))
    assert supervisor([second, first])[0].run(30) == 78


def test_a_program_that_is_not_there() -> None:
    """It is told and tried again, and does not disturb the others."""
    supervised, out = supervisor([Program("x", ("/nonexistent/program",)), program("a", SLEEPER)])
    assert supervised.run(0.4) == 0
    assert "x: cannot be started: No such file" in out.getvalue()


SCRIPT = """
import sys
from ppsd.cli.supervisor import Program, Screen, Supervisor
programs = [Program(n, (sys.executable, "-c", code)) for n, code in {programs!r}.items()]
raise SystemExit(Supervisor(programs, Screen(sys.stdout), report=lambda: ("up", "status"), reload=lambda: {reload}).run())
"""


def start(programs: dict[str, str], reload: bool = True) -> subprocess.Popen[str]:
    script = SCRIPT.format(programs=programs, reload=reload)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_within_a_second(number: signal.Signals) -> None:
    """Asked to end, it does so with 0, although one child does not listen; none is left."""
    with start({"a": SLEEPER, "b": STUBBORN}) as process:
        assert process.stdout is not None
        wait_for(lambda: "up" in process.stdout.readline())  # type: ignore[union-attr]
        wait_for(lambda: len(children(process.pid)) == 2)
        pids = children(process.pid)
        started = time.monotonic()
        process.send_signal(number)
        assert process.wait(20) == 0
        assert time.monotonic() - started >= 0.6  # the stubborn one was given its time
    assert all(gone(pid) for pid in pids)


def test_nothing_is_left_behind_by_sigkill() -> None:
    """When the supervisor is killed its children hear of it by their pipe."""
    child = "import os; from ppsd.process.lifecycle import die_with_parent; die_with_parent(); os.write(1, b'up\\n')\n" + SLEEPER
    with start({"a": child, "b": child}) as process:
        assert process.stdout is not None
        seen = 0
        while seen < 2:
            seen += process.stdout.readline() == "up\n"
        pids = children(process.pid)
        process.kill()
        wait_for(lambda: all(gone(pid) for pid in pids))


@pytest.mark.parametrize("good", [True, False])
def test_hangup_reaches_the_children_when_the_configuration_is_good(good: bool) -> None:
    """SIGHUP is passed on after a good reload, kept back after a bad one."""
    child = (
        "import os, signal, time; signal.signal(signal.SIGHUP, lambda *_: os.write(1, b'again\\n')); os.write(1, b'up\\n')\n"
        "while True: time.sleep(60)"
    )
    with start({"a": child}, reload=good) as process:
        assert process.stdout is not None
        wait_for(lambda: process.stdout.readline() == "up\n")  # type: ignore[union-attr]
        process.send_signal(signal.SIGHUP)
        if good:
            wait_for(lambda: process.stdout.readline() == "again\n")  # type: ignore[union-attr]
        else:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert "again" not in rest
        assert process.wait(20) == 0


def test_live_screen() -> None:
    """On a terminal the status is redrawn in place below the log lines, cut to the width and without colour when NO_COLOR is set."""
    master, slave = os.openpty()
    child = "import sys, time; print('a log line', file=sys.stderr); time.sleep(9)"
    code = (
        f"import sys; from ppsd.cli.supervisor import *; program = Program('a', (sys.executable, '-c', {child!r}));"
        "Supervisor([program], Screen(sys.stdout), report=lambda: ('', 'LOCKED ' + 'x' * 500)).run(0.8)"
    )
    env = {**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "40"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=slave, stderr=slave, stdin=slave, env=env) as process:
        os.close(slave)
        data = b""
        try:
            while chunk := os.read(master, 4096):
                data += chunk
        except OSError:  # EIO: the last one closed the terminal
            pass
        assert process.wait(20) == 0
    os.close(master)
    text = data.decode().replace("\r\n", "\n")
    assert "\r\x1b[Ka log line\nLOCKED xxx" in text
    assert "x" * 41 not in text
    assert "\x1b[1" not in text


def test_status_off_a_terminal_is_told_when_it_changes() -> None:
    """The same state is not repeated within the minute."""
    out = io.StringIO()
    screen = Screen(out)
    for key in ("a", "a", "b", "b", "a"):
        screen.status(key, f"state {key}")
    assert out.getvalue() == "state a\nstate b\nstate a\n"


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    """systemd gets the datagram, on a path and on an abstract name; without systemd nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    name = f"@refclock-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert not notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        assert notify("READY=1")
        assert systemd.recv(100) == b"READY=1"
