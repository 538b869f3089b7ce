"""The supervisor: children live, come back, and all end together, whatever becomes of those who read what they say."""

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from ppsd.cli.supervisor import PAUSES_S, Program, Screen, Supervisor
from ppsd.process.control import Reloaded
from ppsd.process.lifecycle import notify

pytestmark = [pytest.mark.device, pytest.mark.realtime]

SLEEPER = "import time; time.sleep(60)"
STUBBORN = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(1, b'up\\n'); time.sleep(60)"


def program(name: str, code: str, *words: str, awaits: Path | None = None) -> Program:
    return Program(name, (sys.executable, "-I", "-S", "-c", code, *words), awaits=awaits)


class Printing(Supervisor):
    """A supervisor, and what it has printed."""

    def __init__(self, programs: list[Program], out: TextIO) -> None:
        self.out = out
        super().__init__(programs, Screen(out), report=lambda: ("up", "all is well"), reload=lambda: (Reloaded(True, ()), programs))

    def printed(self) -> str:
        self.out.seek(0)
        return self.out.read()


Supervise = Callable[[list[Program]], Printing]


@pytest.fixture
def supervisor() -> Iterator[Supervise]:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        yield lambda programs: Printing(programs, out)


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


def test_runs_for_a_duration(supervisor: Supervise) -> None:
    """When the time is up all children have ended and the code is 0."""
    supervised = supervisor([program("a", SLEEPER), program("b", SLEEPER)])
    assert supervised.run(0.3) == 0
    assert supervised.printed() == "all is well\n"


@pytest.mark.parametrize("code", [64, 77, 78])
def test_final_codes_end_the_run(supervisor: Supervise, code: int) -> None:
    """A child that cannot work at all ends everything, with its own code."""
    supervised = supervisor([program("a", SLEEPER), program("b", f"raise SystemExit({code})")])
    assert supervised.run(30) == code


def test_a_crash_is_repaired_at_once(supervisor: Supervise, tmp_path: Path) -> None:
    """The first restart has no pause, and the crash is told."""
    count = tmp_path / "count"
    code = "import sys, os; open(sys.argv[1], 'a').write('x'); os.path.getsize(sys.argv[1]) > 1 and sys.exit(78); os.kill(os.getpid(), 9)"
    supervised = supervisor([program("clock", code, str(count))])
    assert supervised.run(30) == 78
    assert "clock was ended by SIGKILL; starting it again\n" in supervised.printed()


def test_a_crash_loop_slows_down(supervisor: Supervise, tmp_path: Path) -> None:
    """Each further start in a row waits longer."""
    count = tmp_path / "count"
    code = f"import sys, os; open(sys.argv[1], 'a').write('x'); sys.exit(78 if os.path.getsize(sys.argv[1]) > {len(PAUSES_S[:4])} else 1)"
    supervised = supervisor([program("clock", code, str(count))])
    assert supervised.run(60) == 78
    pauses = [line.rpartition("again")[2] for line in supervised.printed().splitlines() if line.startswith("clock ended with code 1")]
    assert pauses == ["", *(f" in {p:g} s" for p in PAUSES_S[1:4])]


def test_waits_for_what_another_child_makes(supervisor: Supervise, tmp_path: Path) -> None:
    """A program that awaits a path starts only when it is there."""
    path = tmp_path / "tty"
    second = program("second", "import sys, os; sys.exit(78 if os.path.exists(sys.argv[1]) else 64)", str(path), awaits=path)
    first = program("first", "import sys, time; time.sleep(0.2); open(sys.argv[1], 'w'); time.sleep(60)", str(path))
    assert supervisor([second, first]).run(30) == 78


def test_a_program_that_is_not_there(supervisor: Supervise) -> None:
    """It is told and tried again, and does not disturb the others."""
    supervised = supervisor([Program("x", ("/nonexistent/program",)), program("a", SLEEPER)])
    assert supervised.run(0.4) == 0
    assert "x cannot be started: /nonexistent/program: No such file" in supervised.printed()


SCRIPT = """
import sys
from ppsd.cli.supervisor import Program, Screen, Supervisor
from ppsd.process.control import Reloaded
programs = [Program(n, (sys.executable, "-c", code), reports=n in {reporting!r}) for n, code in {programs!r}.items()]
def reload(): return Reloaded({reload}, ("reread",)), [p for p in programs if p.name != "unwanted"]
screen = Screen(sys.stdout, {form!r})
raise SystemExit(Supervisor(programs, screen, report=lambda: ("up", "status"), reload=reload).run())
"""


def script(programs: dict[str, str], reload: bool = True, reporting: tuple[str, ...] = (), form: str = "text") -> str:
    return SCRIPT.format(programs=programs, reload=reload, reporting=reporting, form=form)


@contextlib.contextmanager
def start(
    programs: dict[str, str], reload: bool = True, reporting: tuple[str, ...] = (), form: str = "text"
) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", script(programs, reload, reporting, form)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


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


def test_asked_to_end_while_children_are_started(supervisor: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM that comes before the first child runs ends that one too, and no other is started."""
    popen, began = subprocess.Popen, time.monotonic()
    started: list[object] = []

    def asked_meanwhile(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        if not started:
            os.kill(os.getpid(), signal.SIGTERM)
        started.append(words)
        return popen(*words, **options)

    monkeypatch.setattr(subprocess, "Popen", asked_meanwhile)
    assert supervisor([program("a", SLEEPER), program("b", SLEEPER)]).run() == 0
    assert len(started) == 1
    assert time.monotonic() - began < 50  # a sleeper that was left alone sleeps for 60


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


HANGS_UP = "import os, signal, time; signal.signal(signal.SIGHUP, lambda *_: os.write(1, b'again\\n'))\n"
READY = "from ppsd.process.lifecycle import notify; os.write(1, b'up\\n'); notify('READY=1')\n"
SLEEPS = "while True: time.sleep(60)"


def test_a_hangup_waits_for_a_child_that_is_only_starting() -> None:
    """A program that does not handle SIGHUP yet is not ended by a reload: it is told when it is ready."""
    begins = "import os, time; os.write(1, b'begins\\n'); time.sleep(1)\n"
    with start({"a": f"{begins}{HANGS_UP}{READY}{SLEEPS}"}, reporting=("a",)) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert "begins\n" in lines
        process.send_signal(signal.SIGHUP)
        heard = [next(line for line in lines if line in ("begins\n", "up\n", "again\n")) for _ in range(2)]
        assert heard == ["up\n", "again\n"]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@pytest.mark.parametrize("good", [True, False])
def test_hangup_reaches_the_children_when_the_configuration_is_good(good: bool) -> None:
    """SIGHUP is passed on after a good reload, kept back after a bad one; a program that knows nothing of it is spared."""
    with start({"a": f"{HANGS_UP}{READY}{SLEEPS}", "deaf": SLEEPER}, reload=good, reporting=("a",)) as process:
        assert process.stdout is not None
        wait_for(lambda: process.stdout.readline() == "up\n")  # type: ignore[union-attr]
        wait_for(lambda: len(children(process.pid)) == 2)
        process.send_signal(signal.SIGHUP)
        if good:
            wait_for(lambda: process.stdout.readline() == "again\n")  # type: ignore[union-attr]
        else:
            time.sleep(0.2)
        assert len(children(process.pid)) == 2
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
        "Supervisor([program], Screen(sys.stdout), report=lambda: ('', 'LOCKED ' + 'x' * 500), reload=lambda: 1 / 0).run(0.8)"
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
    """The same state is not repeated within the minute, and one that flaps, or counts seconds, does not fill the log."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        screen = Screen(out)
        for key in ("a", "a", "b", "b", "a"):
            screen.status(key, f"state {key}")
        out.seek(0)
        assert out.read() == "state a\nstate b\nstate a\n"
        for second in range(1000):
            screen.status(f"lost for {second} s", f"lost for {second} s")
        out.seek(0)
        assert len(out.readlines()) < 10


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


# ---- whatever becomes of the reader ----------------------------------------------------------------------------------------------

NOISY = "import os, time\nwhile True: os.write(1, b'x' * 1000 + b'\\n'); time.sleep(0.001)"


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """The process ends with 0 on SIGTERM, and nothing of it is left."""
    try:
        yield
        pids = children(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert all(gone(pid) for pid in pids)
    finally:
        process.kill()
        process.wait()


def killed_and_back(process: subprocess.Popen[bytes]) -> None:
    """A child that is killed comes back: the supervisor does its work."""
    wait_for(lambda: len(children(process.pid)) == 2)
    (victim, *_), before = children(process.pid), set(children(process.pid))
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(children(process.pid)) == 2 and set(children(process.pid)) != before)


@pytest.mark.parametrize("reader", ["dies", "stalls", "full disk"])
def test_no_reader_stops_the_supervisor(reader: str) -> None:
    """Whoever reads the log dies, reads no more, or has no room: children that write all the time come back when they die, and SIGTERM ends
    everything."""
    read, write = os.pipe()
    if reader == "full disk":
        os.close(write)
        write = os.open("/dev/full", os.O_WRONLY)
    words = [sys.executable, "-c", script({"a": NOISY, "b": NOISY})]
    process = subprocess.Popen(words, stdout=write, stderr=write)
    os.close(write)
    with ended(process):
        wait_for(lambda: len(children(process.pid)) == 2)
        if reader == "dies":
            os.close(read)
        time.sleep(0.5)  # more than a pipe holds
        killed_and_back(process)
    if reader != "dies":
        os.close(read)


def in_a_terminal(code: str, *before: str) -> tuple[subprocess.Popen[bytes], int]:
    """A process whose controlling terminal is a new one, and the other end of that."""
    master, slave = pty.openpty()
    words, env = [*before, sys.executable, "-c", f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n{code}"], {"TERM": "xterm"}
    process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=os.environ | env)
    os.close(slave)
    return process, master


def read_until(master: int, words: bytes) -> bytes:
    """What the terminal shows, until it has shown ``words``."""
    data, end = b"", time.monotonic() + 20
    while words not in data:
        assert time.monotonic() < end, data
        data += os.read(master, 4096)
    return data


def test_a_terminal_that_is_held_stops_nothing() -> None:
    """Ctrl-S: children come back when they die and SIGTERM ends everything; what comes after Ctrl-Q is shown."""
    process, master = in_a_terminal(script({"a": NOISY, "b": NOISY}))
    with ended(process):
        read_until(master, b"status")
        os.write(master, b"\x13")
        time.sleep(0.5)
        killed_and_back(process)
        os.write(master, b"\x11")
        read_until(master, b"log lines dropped: ")
        os.write(master, b"\x13")
    os.close(master)


def test_a_hang_up_ends_and_a_kill_reloads() -> None:
    """In a terminal kill -HUP makes the daemon read its configuration again. When the terminal goes, everything ends, unless with nohup."""
    process, master = in_a_terminal(script({"a": SLEEPER}))
    read_until(master, b"status")
    process.send_signal(signal.SIGHUP)
    read_until(master, b"reread")
    assert len(children(process.pid)) == 1
    os.close(master)
    assert process.wait(20) == 0

    process, master = in_a_terminal(script({"a": SLEEPER}), "env", "--ignore-signal=HUP")
    with ended(process):
        read_until(master, b"status")
        os.close(master)
        time.sleep(0.5)
        assert len(children(process.pid)) == 1


def test_more_descriptors_than_select_can_hold() -> None:
    """A supervisor that inherits 1,100 open descriptors works as any other."""
    import resource  # noqa: PLC0415

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1300:
        pytest.skip("no more than 1,300 descriptors are allowed here")
    code = f"import os\nfor _ in range(1100): os.set_inheritable(os.dup(0), True)\n{script({'a': SLEEPER, 'b': SLEEPER})}"
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1300, {hard}))\n{code}"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    with ended(process):
        killed_and_back(process)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_json_is_json_on_every_line() -> None:
    """Status, faults, what children print and their tracebacks: each line is one object."""
    crash = "print('plain words'); raise ValueError('of its own')"
    with start({"a": crash, "b": SLEEPER}, form="json") as process:
        assert process.stdout is not None
        seen = []
        while "a ended with code 1; starting it again" not in [line["event"] for line in seen]:
            seen.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGTERM)
        seen += [json.loads(line) for line in process.stdout]
    events = [line["event"] for line in seen]
    assert {"status", "plain words", "ValueError: of its own", "a ended with code 1; starting it again"} <= set(events)
    assert all("timestamp" in line for line in seen)


# ---- reports of children ---------------------------------------------------------------------------------------------------------

REPORTING = (
    "import os, time\nfrom ppsd.process.lifecycle import notify, watchdog_s\nnotify('READY=1')\n"
    "os.write(1, b'up\\n')\nwhile True: notify('WATCHDOG=1'); time.sleep(watchdog_s(60) / 10)"
)
QUICK = "import ppsd.cli.supervisor as s; s.SILENT_S = 1.0\n"


def test_a_child_that_is_stopped_is_noticed() -> None:
    """SIGSTOP of one of the daemon's processes: it is killed and started again; the other one is left alone."""
    words = [sys.executable, "-c", QUICK + script({"a": REPORTING, "b": REPORTING}, reporting=("a", "b"))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = 0
        while seen < 2:
            seen += process.stdout.readline() == "up\n"
        stopped, other = children(process.pid)
        os.kill(stopped, signal.SIGSTOP)
        wait_for(lambda: "it is stopped or stuck, and is killed" in process.stdout.readline())  # type: ignore[union-attr]
        wait_for(lambda: len(children(process.pid)) == 2 and stopped not in children(process.pid))
        assert other in children(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_nobody_but_a_child_can_reach_the_supervisor() -> None:
    """No socket of it has a name, so no other process can report for a child, nor fill a queue so that the child's own reports are lost."""
    with start({"a": REPORTING}, reporting=("a",)) as process:
        wait_for(lambda: process.stdout.readline() == "up\n")  # type: ignore[union-attr]
        links = []
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.append(str(link.readlink()))
        sockets = [line.split() for line in Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()[1:]]
        own = [columns for columns in sockets if f"socket:[{columns[6]}]" in links]
        assert own
        assert [columns[7] for columns in own if len(columns) > 7] == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_systemd_hears_of_the_whole_and_its_sockets_reach_the_server(tmp_path: Path) -> None:
    """Started by systemd, the supervisor says READY once the children are, and WATCHDOG while it runs. The socket that systemd bound is the
    child's descriptor 3, and the child takes it for its own."""
    child = (
        "import os, socket\nfrom ppsd.process.lifecycle import handed_over, notify\nnumber = handed_over()\n"
        "name = socket.socket(fileno=3).getsockname()[1]\nos.write(1, f'{number} at {name}\\n'.encode())\n" + REPORTING
    )
    code = script({"a": child}, reporting=("a",)).replace("reports=", "sockets=handed_over(), reports=")
    code = "from ppsd.process.lifecycle import handed_over\n" + code
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        served.bind(("127.0.0.1", 0))
        port = served.getsockname()[1]
        start = (
            f"import os; os.dup2({served.fileno()}, 3); os.environ |= dict(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
            f"os.environ['NOTIFY_SOCKET'] = {str(tmp_path / 'notify')!r}\n" + code
        )
        with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True, pass_fds=(served.fileno(),)) as process:
            assert process.stdout is not None
            wait_for(lambda: process.stdout.readline() == f"1 at {port}\n")  # type: ignore[union-attr]
            heard = b""
            while b"READY=1" not in heard or b"WATCHDOG=1\nSTATUS=status" not in heard:
                heard += systemd.recv(4096) + b"\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_a_reload_starts_and_ends_programs() -> None:
    """A program that the new configuration does not want ends; the others go on."""
    with start({"a": SLEEPER, "unwanted": SLEEPER}) as process:
        wait_for(lambda: len(children(process.pid)) == 2)
        kept = children(process.pid)[0]
        time.sleep(0.5)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: children(process.pid) == [kept])
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
