"""``refclock top`` in a terminal: a pseudo-terminal with a screen of its own (pyte), before a daemon that is known by heart."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pyte
import pytest
from known_daemon import CLIENTS, CLOCK, COUNTERS, GPS, LOCKED, NEVER

from ppsd.cli import main as cli
from ppsd.cli import top
from ppsd.cli.terminal import ENTER, LEAVE, has_unicode, keys
from ppsd.cli.top import Heard, Story, remembered, turned
from ppsd.faces.screen import Look, Pane, Seen
from ppsd.history.spans import second
from ppsd.process.control import ControlServer
from ppsd.process.exit_codes import USAGE
from ppsd.snapshot import ServerReport, Snapshot
from refclock.sample import Satellite

SKY = tuple(Satellite("GPS", n, 5 * n, 20 * n, 20 + 2 * n, True) for n in range(1, 13))
HEARD = replace(LOCKED, sources=(replace(GPS, satellites=SKY), NEVER))
SERVER = ServerReport(3, 60.0, ("0.0.0.0:123",), False, COUNTERS)


class Daemon:
    """The control sockets of a clock process and a server."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.clock = directory, HEARD
        self.start()

    def start(self) -> None:
        self._servers = [ControlServer(self.directory / f"{name}.sock", self.answer) for name in ("clock", "serve")]
        self._servers[1]._answer = self.serve_answer
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        while self._stopped not in (ready := select.select([*self._servers, self._stopped], [], [])[0]):
            for server in self._servers:
                if server in ready:
                    server.handle_ready()

    def answer(self, _: str) -> str:
        return json.dumps(self.clock.to_json())

    def serve_answer(self, line: str) -> str:
        if line.startswith("clients"):
            return json.dumps({"known": len(CLIENTS), "clients": [asdict(client) for client in CLIENTS]})
        return json.dumps(SERVER.to_json())

    def stop(self) -> None:
        self._stop.send(b"x")
        self._thread.join()
        for server in self._servers:
            server.close()
        self._stop.close()
        self._stopped.close()


class Shown:
    """A terminal with ``refclock top`` in it."""

    def __init__(self, directory: Path, columns: int = 80, lines: int = 24, environment: Mapping[str, str] | None = None) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.sent = b""
        self.ours, self.theirs = os.openpty()
        self.size(columns, lines)
        self.before = termios.tcgetattr(self.theirs)
        signals = ["env", "--default-signal=INT"]  # a shell lets what it starts with & ignore ^C, and the tests may be such a thing
        words = [*signals, sys.executable, "-m", "ppsd", "top", "--run-dir", str(directory), "--watch", "0.2"]
        self.process = subprocess.Popen(
            words, stdin=self.theirs, stdout=self.theirs, stderr=self.theirs, process_group=0,  # an orphaned group is never stopped by ^Z
            env=os.environ | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | dict(environment or {}),
        )  # fmt: skip

    def size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self.size(columns, lines)
        self.screen.resize(lines, columns)
        self.process.send_signal(signal.SIGWINCH)

    def press(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def _read(self) -> None:
        while select.select([self.ours], [], [], 0.05)[0]:
            data = os.read(self.ours, 65536)
            self.sent += data
            self._stream.feed(data)

    def text(self) -> str:
        self._read()
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait(self, pattern: str, seconds: float = 60.0) -> str:
        """What is shown as soon as ``pattern`` is in it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            text = self.text()
            if re.search(pattern, text):
                return text
        raise AssertionError(f"not shown: {pattern}\n{self.text()}")

    def ended(self) -> int:
        """Its exit code; the terminal is as before, with the first screen, the cursor, and lines that wrap."""
        end = time.monotonic() + 60.0
        while self.process.poll() is None:  # it may wait until somebody reads
            assert time.monotonic() < end, self.text()
            self._read()
        self._read()
        assert termios.tcgetattr(self.theirs) == self.before
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.theirs)
        os.close(self.ours)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.stop()


Start = Callable[..., Shown]


@pytest.fixture
def start(daemon: Daemon) -> Iterator[Start]:
    """Starts ``refclock top`` in a terminal."""
    made: list[Shown] = []

    def begin(columns: int = 80, lines: int = 24, **environment: str) -> Shown:
        made.append(Shown(daemon.directory, columns, lines, environment))
        return made[-1]

    yield begin
    for shown in made:
        shown.close()


@pytest.mark.device
def test_all_sizes_and_a_change(start: Start) -> None:
    """The overview fills 80x24, and after each change of the size the new one; smaller ones show what has room."""
    shown = start()
    for columns, lines in ((80, 24), (120, 40), (200, 50), (80, 24), (30, 5)):
        shown.resize(columns, lines)
        if columns < 40:
            shown.wait(r"LOCKED · within ±18")
            continue
        text = shown.wait(rf"(?s)^.{{{columns - 4}}}UTC\nLOCKED · within ±18 µs.*120 answered.* q quit")
        assert len(text.splitlines()) == lines
        for part in ("Offset", "Bound", "#* gps0", "G12 ■", "192.0.2.7"):
            assert part in text
    shown.press("q")
    assert shown.ended() == 0


@pytest.mark.device
def test_keys(start: Start) -> None:
    """Each pane by its key, help by h, back by Esc; lists scroll by arrows; unknown keys do nothing; q ends with 0."""
    shown = start()
    shown.wait("q quit")
    for key, part in (
        ("s", r"elev\. azim"),
        ("c", r"Known V Mode"),
        ("p", r"gps0: GPS\+PPS, selected"),
        ("v", "reply: basic +100"),
        ("h", "\\^C +end"),
    ):
        shown.press(key)
        shown.wait(part)
    shown.press("\x1b")
    shown.wait("─ Offset")
    shown.press("c\x1b[B\x1b[B")
    shown.wait("Clients 3 to 2")
    shown.press("\x1b[1;5Dx")
    shown.press("q")
    assert shown.ended() == 0
    assert shown.sent.decode().endswith(LEAVE)


@pytest.mark.device
def test_a_daemon_that_goes_away_and_comes_back(start: Start, daemon: Daemon) -> None:
    """It is said that there is none, and as of when the rest is; then that it is back, and that it was started anew."""
    shown = start()
    shown.wait("LOCKED")
    daemon.stop()
    shown.wait(r"NO ANSWER for \d+ s: no daemon in")
    assert "as of 12:00:00 UTC" in shown.text()
    shown.press("s")  # keys are heard meanwhile
    shown.wait("elev")
    daemon.clock = replace(HEARD, pid=8)
    daemon.start()
    shown.wait(r"The daemon is back after \d+ s, started anew")
    assert "NO ANSWER" not in shown.text()
    shown.press("q")
    assert shown.ended() == 0


@pytest.mark.device
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signals_leave_the_terminal_as_it_was(start: Start, number: signal.Signals, code: int) -> None:
    """However it ends, the terminal works as before, and the first screen is back."""
    shown = start()
    shown.wait("q quit")
    assert termios.tcgetattr(shown.theirs) != shown.before
    shown.process.send_signal(number)
    assert shown.ended() == code
    assert ENTER in shown.sent.decode()
    assert LEAVE in shown.sent.decode()


@pytest.mark.device
def test_stopped_and_resumed(start: Start) -> None:
    """^Z gives the terminal back while it stands still; then everything is drawn anew."""
    shown = start()
    shown.wait("q quit")
    shown.process.send_signal(signal.SIGTSTP)
    state = Path(f"/proc/{shown.process.pid}/stat")
    end = time.monotonic() + 60.0
    while state.read_text(encoding="ascii").split(")")[1].split()[0] != "T":
        assert time.monotonic() < end
        shown.text()
    shown.text()
    assert termios.tcgetattr(shown.theirs) == shown.before
    assert shown.sent.decode().endswith(LEAVE)
    shown.process.send_signal(signal.SIGCONT)
    shown.screen.reset()
    shown.wait("q quit")
    shown.press("q")
    assert shown.ended() == 0


@pytest.mark.device
@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "linux"}, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "latin-1"}])
def test_plain_characters(start: Start, environment: dict[str, str]) -> None:
    """Where the terminal has no more, everything is ASCII; a dumb one gets no control characters, one screen below the other."""
    shown = start(**environment)
    dumb, end = environment.get("TERM") == "dumb", time.monotonic() + 60.0
    if not dumb:
        shown.wait(r"(?s)within \+/-18 us.*- Offset.*G12 #####")
    while dumb and not re.search(rb"(?s)within \+/-18 us.*- Offset.*G12 #####", shown.sent):
        assert time.monotonic() < end, shown.text()
        shown.text()
    assert shown.sent.isascii()
    if dumb:
        assert not re.search(rb"[^\r\n -~]", shown.sent)
    shown.press("q")
    assert shown.ended() == 0


@pytest.mark.device
def test_no_color(start: Start) -> None:
    """With NO_COLOR nothing is coloured; without it what is well is green."""
    for environment, coloured in (({"NO_COLOR": "1"}, False), ({}, True)):
        shown = start(**environment)
        shown.wait("q quit")
        assert bool(re.search(rb"\x1b\[(?:\d;)?3\dm", shown.sent)) == coloured


@pytest.mark.device
def test_little_is_sent(start: Start) -> None:
    """Over a slow line a second costs what has changed, not the whole screen."""
    shown = start()
    shown.wait("─ Server")
    whole = len(shown.sent)
    time.sleep(2.0)
    shown.text()
    assert len(shown.sent) - whole < 5 * whole, "ten looks"


def test_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe or a file is refused, with the command that prints there."""
    assert cli.main(["top"]) == USAGE
    assert "refclock status --watch" in capsys.readouterr().err


def test_keys_are_told_apart() -> None:
    """Sequences in pieces, unknown ones, and the key Esc itself."""
    assert keys("q\x1b[A\x1bOBx") == (["q", "up", "down", "x"], "")
    assert keys("\x1b[5~\x1b[6~\x1b[1;5C") == (["page up", "page down"], "")
    assert keys("a\x1b") == (["a"], "\x1b")
    assert keys("\x1b[") == ([], "\x1b[")
    assert keys("\x1b[1;") == ([], "\x1b[1;")
    assert keys("\x1bq") == (["escape", "q"], "")


@pytest.mark.parametrize(
    ("encoding", "environment", "has"),
    [
        ("utf-8", {"TERM": "xterm"}, True),
        ("UTF8", {"TERM": "tmux-256color", "LC_ALL": "de_DE.UTF-8"}, True),
        ("utf-8", {"TERM": "linux"}, False),
        ("utf-8", {"TERM": "dumb"}, False),
        ("utf-8", {}, False),
        ("utf-8", {"TERM": "xterm", "LC_ALL": "C"}, False),
        ("iso8859-1", {"TERM": "xterm"}, False),
    ],
)
def test_which_terminal_has_bars(encoding: str, environment: dict[str, str], has: bool) -> None:
    """One of UTF-8 that is not the Linux console, unless ASCII is asked for."""
    assert has_unicode(encoding, environment) == has


def test_where_keys_lead() -> None:
    """Space goes round, a pane's own key leads back, + and - stay within their steps, a list has no row before the first."""
    look, seen = Look(80, 24), []
    for _ in range(5):
        look = turned(look, " ")
        seen.append(look.pane)
    assert seen == [Pane.SATELLITES, Pane.CLIENTS, Pane.SOURCES, Pane.SERVER, Pane.OVERVIEW]
    assert turned(turned(look, "h"), "h").pane is Pane.OVERVIEW
    assert turned(turned(look, "c"), "s").pane is Pane.SATELLITES
    for _ in range(9):
        look = turned(look, "+")
    assert look.zoom_s == 60
    assert turned(look, "-").zoom_s == 15
    assert turned(turned(Look(80, 24), "k"), "page up").first == 0
    assert turned(Look(80, 24), "down").first == 1


def test_the_story() -> None:
    """Without an answer the last one stays, with the time since; what came back is told for a minute."""
    story = Story(Seen(LOCKED, "not asked yet", "not asked yet", 0, (), 0.0))

    def hear(at_s: float, clock: Snapshot | str) -> Seen:
        story.hear(Heard(at_s, clock, SERVER, "", CLIENTS, len(CLIENTS)))
        return story.seen

    assert hear(1.0, LOCKED).news == ""
    assert hear(2.0, "no daemon in /run").gone == "NO ANSWER for 0 s: no daemon in /run"
    assert hear(12.0, "no daemon in /run").gone.startswith("NO ANSWER for 10 s")
    assert hear(13.0, LOCKED).news == "The daemon is back after 11 s."
    assert hear(60.0, LOCKED).news
    assert hear(80.0, LOCKED).news == ""
    assert hear(81.0, replace(LOCKED, pid=99)).news == "The daemon was started anew."
    assert [m.at_s for m in story.moments] == [1.0, 13.0, 60.0, 80.0, 81.0]
    assert story.moments.maxlen == top.KEPT_S


def test_the_curves_begin_with_the_history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the web process remembers of the last minutes is on the curves at once, with the sign of what follows; without it, nothing."""
    span = second(CLOCK, 3, 1)
    spans = [replace(span, at=span.at - 2), replace(span, at=span.at - 1, offsets=None), span]

    def told(_: Path, line: str) -> dict[str, object]:
        assert line == f"history 1 {CLOCK.reference_utc_ns // 10**9 - 300} 300"
        return {"spans": [(one.row(), [source.row() for source in one.sources]) for one in spans]}

    monkeypatch.setattr(top, "ask", told)
    found = remembered(tmp_path, CLOCK, 50.0)
    assert [(m.at_s, m.offset_ns, m.bound_ns) for m in found] == [(47.0, 214, 18_100), (48.0, None, 18_100), (49.0, 214, 18_100)]
    for answer in ({"error": "no history is kept: history.enabled is false"}, {"spans": []}, {"spans": [([1], [])]}):
        monkeypatch.setattr(top, "ask", lambda *_, answer=answer: answer)
        assert remembered(tmp_path, CLOCK, 50.0) == []
