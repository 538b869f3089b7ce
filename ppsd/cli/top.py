"""``refclock top``: the daemon's state, live on a whole screen, until q is pressed.

Flow: ``Asker`` (a thread: the control sockets, once a second) -> **run** -> ``ppsd.faces.screen`` -> ``ppsd.cli.terminal``. A daemon that
is slow or stopped delays no key.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ppsd.cli.arguments import CLIENTS
from ppsd.cli.clients import told_clients
from ppsd.cli.daemon import clock_snapshot, run_directory, server_report
from ppsd.cli.show import why_undelivered
from ppsd.cli.terminal import RESIZED, Terminal
from ppsd.faces.screen import ZOOMS, Look, Moment, Pane, Seen, moment, screen
from ppsd.faces.text import plain_duration
from ppsd.process.encoding import PLAIN
from ppsd.process.exit_codes import GOOD, USAGE, Refused
from ppsd.snapshot import Client, ServerReport, Snapshot

KEPT_S: Final = 4 * 3600
"""s of offset and bound that are kept: a column of 60 s for each of 200 columns, and some."""
NEWS_S: Final = 60.0
"""s for which it is told that the daemon came back."""
REST: Final = 20
"""Times as long as the server needed to tell its clients it is left in peace: of a large table it takes seconds."""
PANES: Final = {
    "o": Pane.OVERVIEW, "escape": Pane.OVERVIEW, "s": Pane.SATELLITES, "c": Pane.CLIENTS, "m": Pane.CLIENTS, "p": Pane.SOURCES,
    "d": Pane.SOURCES, "v": Pane.SERVER, "h": Pane.HELP, "?": Pane.HELP,
}  # fmt: skip
ROUND: Final = (Pane.OVERVIEW, Pane.SATELLITES, Pane.CLIENTS, Pane.SOURCES, Pane.SERVER)
"""What the space key goes through."""
END: Final = 1_000_000
"""A row below every list."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the daemon said. ``clock``: its snapshot, or why there is none. The others: as of Seen."""

    at_s: float
    clock: Snapshot | str
    server: ServerReport | str
    failed: str
    clients: Sequence[Client] | str
    known: int


class Asker:
    """Asks the daemon in ``directory`` every ``every_s`` seconds, in a thread. ``fileno`` is readable when there is something to take."""

    def __init__(self, directory: Path, every_s: float) -> None:
        self._directory, self._every_s = directory, every_s
        self._heard = deque[Heard](maxlen=8)
        self._says, self._said = socket.socketpair()
        for end in (self._says, self._said):
            end.setblocking(False)
        self._clients: Sequence[Client] | str = "not asked yet"
        self._known, self._next_s = 0, 0.0
        threading.Thread(target=self._run, daemon=True).start()  # it may wait for a daemon, and nothing waits for it

    def fileno(self) -> int:
        return self._said.fileno()

    def take(self) -> list[Heard]:
        """What was heard since the last call, the oldest first."""
        with contextlib.suppress(BlockingIOError):
            self._said.recv(256)
        return [self._heard.popleft() for _ in range(len(self._heard))]

    def _run(self) -> None:
        due_s = time.monotonic()
        while True:
            self._heard.append(self._ask())
            with contextlib.suppress(BlockingIOError):  # it has not been read for a while, and it is known that there is something
                self._says.send(b"x")
            due_s = max(due_s + self._every_s, time.monotonic())
            time.sleep(max(0.0, due_s - time.monotonic()))

    def _ask(self) -> Heard:
        at_s, clock = time.monotonic(), _snapshot(self._directory)
        server = server_report(self._directory)
        if isinstance(server, str):
            self._clients, self._known, self._next_s = f"the server is {server}", 0, 0.0
        elif time.monotonic() >= self._next_s:
            began_s = time.monotonic()
            self._ask_clients()
            self._next_s = time.monotonic() + REST * (time.monotonic() - began_s)
        failed = "" if isinstance(clock, str) else why_undelivered(clock, server)
        return Heard(at_s, clock, server, failed, self._clients, self._known)

    def _ask_clients(self) -> None:
        try:
            told = told_clients(self._directory, CLIENTS)
            self._clients, self._known = [Client(**client) for client in told["clients"]], int(told["known"])
        except (Refused, KeyError, TypeError, ValueError) as error:
            self._clients, self._known = f"the server does not tell them: {error}", 0


def _snapshot(directory: Path) -> Snapshot | str:
    try:
        return clock_snapshot(directory)
    except Refused as refused:
        return str(refused).removeprefix("refclock: ")


@dataclass(slots=True)
class Story:
    """What was heard, up to now: the last good answer, the minutes before, and when the daemon was not there."""

    seen: Seen
    moments: deque[Moment] = field(default_factory=lambda: deque(maxlen=KEPT_S))
    gone_s: float | None = None
    news_s: float = 0.0

    def hear(self, heard: Heard) -> None:
        """Take in one more answer, or that there is none."""
        before, clock = self.seen.clock, heard.clock
        if isinstance(clock, str):
            self.gone_s = heard.at_s if self.gone_s is None else self.gone_s
            gone = f"NO ANSWER for {plain_duration(heard.at_s - self.gone_s)}: {clock}"
            self.seen = replace(self.seen, gone=gone, news="", now_s=heard.at_s)
            return
        news = self.seen.news if heard.at_s < self.news_s else ""
        another = clock.pid != before.pid
        if self.gone_s is not None:
            away = plain_duration(heard.at_s - self.gone_s)
            news = f"The daemon is back after {away}" + (", started anew." if another else ".")
        elif another:
            news = "The daemon was started anew."
        if self.gone_s is not None or another:
            self.gone_s, self.news_s = None, heard.at_s + NEWS_S
        self.moments.append(moment(clock, heard.at_s))
        self.seen = Seen(
            clock, heard.server, heard.clients, heard.known, self.moments, heard.at_s, news=news, failed=heard.failed, host=self.seen.host
        )


def turned(look: Look, key: str) -> Look:
    """The screen that a key leads to; the same one when it has no meaning."""
    page = max(1, look.height - 6)
    moves = {"j": 1, "down": 1, "k": -1, "up": -1, "page down": page, "page up": -page, "home": -END, "g": -END, "end": END, "G": END}
    if key in moves:
        return replace(look, first=max(0, look.first + moves[key]))
    if key in "+=-":
        steps = ZOOMS.index(look.zoom_s) + (-1 if key == "-" else 1)
        return replace(look, zoom_s=ZOOMS[max(0, min(len(ZOOMS) - 1, steps))])
    pane = PANES.get(key)
    if key == " ":
        pane = ROUND[(ROUND.index(look.pane) + 1) % len(ROUND)] if look.pane in ROUND else Pane.OVERVIEW
    elif pane is look.pane:  # its key once more
        pane = Pane.OVERVIEW
    return look if pane is None else replace(look, pane=pane, first=0)


def run(args: argparse.Namespace) -> int:
    """Show the daemon's state until somebody ends it."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        why = "it draws on a terminal and hears its keys, and this is none"
        raise Refused(USAGE, f"refclock top: {why}; for a file or a pipe: refclock status --watch")
    directory = run_directory(args.run_dir)
    first = clock_snapshot(directory)
    terminal = Terminal(sys.stdin, sys.stdout, os.environ)
    asker = Asker(directory, args.watch or 1.0)
    story = Story(Seen(first, "not asked yet", "not asked yet", 0, (), time.monotonic(), host=socket.gethostname()))
    zoom_s = next((step for step in ZOOMS if step >= (args.watch or 1.0)), ZOOMS[-1])
    look = Look(80, 24, None if terminal.unicode else PLAIN, zoom_s=zoom_s)
    with terminal:
        while True:
            for heard in asker.take():
                story.hear(heard)
            width, height = terminal.size()
            lines, row = screen(story.seen, replace(look, width=width, height=height))
            look = replace(look, width=width, height=height, first=row)
            terminal.draw(lines)
            try:
                pressed = terminal.wait(60.0, asker.fileno())
            except EOFError:
                return GOOD
            for key in pressed:
                if key == "q":
                    return GOOD
                if key in (RESIZED, "r", "\x0c"):
                    terminal.redraw()
                else:
                    look = turned(look, key)
