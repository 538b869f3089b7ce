"""A terminal as a screen that is drawn anew: keys come one by one, and whatever happens the terminal is as before in the end.

Control sequences are those of ECMA-48, which every terminal emulator and the Linux console know, and xterm's for a second screen. No
database of terminals is asked: a small machine lacks the entries of new ones, and curses refuses those. Lines that have not changed are not
sent again, which is kind to a slow line. A terminal that can do none of this (TERM=dumb) gets the lines one after another.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import termios
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final, Self, TextIO

from ppsd.faces.screen import Line, Style

ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
"""The second screen, no cursor, no wrapping of long lines, an empty screen (xterm: DECSET 1049, 25, 7; ECMA-48: CUP, ED)."""
LEAVE: Final = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
CLEAR_REST: Final = "\x1b[K"
"""Empties the line from here (EL). Not behind a full line: the cursor is then still on its last character."""
COLOURS: Final = {
    Style.STRONG: "1", Style.FAINT: "2", Style.GOOD: "32", Style.CAUTION: "33", Style.BAD: "1;31", Style.NEWS: "36", Style.TITLE: "7",
}  # fmt: skip
"""Parameters of SGR; the colours are the terminal's own green, yellow, red and cyan."""
NO_COLOURS: Final = {Style.STRONG: "1", Style.FAINT: "2", Style.BAD: "1", Style.NEWS: "1", Style.TITLE: "7"}
"""The same with NO_COLOR (https://no-color.org): bold, faint and reverse stay."""
SEQUENCES: Final[Mapping[str, str]] = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1b[F": "end", "\x1bOH": "home", "\x1bOF": "end", "\x1b[1~": "home", "\x1b[4~": "end",
}  # fmt: skip
"""What keys send (xterm, VT220, the Linux console)."""
RESIZED: Final = "resized"
"""Told among the keys when the screen must be drawn whole: its size is another, or the process was stopped and goes on."""
REST_S: Final = 0.1
"""s in which the rest of a key's sequence comes, over a slow line too; what began with ESC and then has nothing more is the key Esc."""


def has_unicode(encoding: str, environment: Mapping[str, str]) -> bool:
    """Whether bars and curves can be drawn. The Linux console has an encoding for them, but a font of 256 or 512 characters. Python takes
    UTF-8 for the locale C, but who asks for that one wants ASCII."""
    ascii_only = environment.get("TERM", "") in ("dumb", "linux", "") or environment.get("LC_ALL", "") in ("C", "POSIX")
    return encoding.lower().replace("-", "") == "utf8" and not ascii_only


def keys(typed: str) -> tuple[list[str], str]:
    """The keys of what was ``typed``, and what may be the beginning of one. Unknown sequences are left out."""
    found, rest = list[str](), typed
    while rest:
        if rest[0] != "\x1b":
            found.append(rest[0])
            rest = rest[1:]
            continue
        if len(rest) == 1 or (rest[1] in "[O" and len(rest) == 2):
            break
        if rest[1] not in "[O":
            found.append("escape")
            rest = rest[1:]
            continue
        end = next((i for i, c in enumerate(rest[2:], 2) if "@" <= c <= "~"), None)
        if end is None:
            break
        if (name := SEQUENCES.get(rest[: end + 1])) is not None:
            found.append(name)
        rest = rest[end + 1 :]
    return found, rest


class Terminal:
    """The terminal of ``keyboard`` and ``display``, as a context: inside it is ours. ``plain``: it cannot be drawn on, lines are printed.
    ``unicode``: it has bars and braille. OSError: it is gone."""

    def __init__(self, keyboard: TextIO, display: TextIO, environment: Mapping[str, str]) -> None:
        self._in, self._out, self._encoding = keyboard.fileno(), display.fileno(), display.encoding
        self.plain = environment.get("TERM", "") in ("dumb", "")
        self.unicode = has_unicode(display.encoding, environment)
        self._sgr = NO_COLOURS if environment.get("NO_COLOR") else COLOURS
        self._shown: list[str] = []
        self._typed = ""
        self._waker, self._woken = socket.socketpair()
        for end in (self._waker, self._woken):
            end.setblocking(False)

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._in)
        self._handlers = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGHUP)}
        self._handlers |= {n: signal.signal(n, self._note) for n in (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)}
        self._wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number in (signal.SIGTERM, signal.SIGHUP):  # a second one must not end this before its end
            signal.signal(number, signal.SIG_IGN)
        try:
            self._give_back()
        except (OSError, termios.error):  # the terminal has gone: nothing is to be put right
            pass
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            self._waker.close()
            self._woken.close()

    @staticmethod
    def _end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    @staticmethod
    def _note(number: int, frame: FrameType | None) -> None:
        """The number itself comes through the wake-up socket."""

    def _take(self) -> None:
        mode = termios.tcgetattr(self._in)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._in, termios.TCSADRAIN, mode)
        self._shown = []
        if not self.plain:
            self._send(ENTER)

    def _give_back(self) -> None:
        try:
            if not self.plain:
                self._send(LEAVE)
        finally:
            termios.tcsetattr(self._in, termios.TCSANOW, self._before)

    def _send(self, text: str) -> None:
        left = text.encode(self._encoding, "replace")
        while left:
            left = left[os.write(self._out, left) :]

    def size(self) -> tuple[int, int]:
        """Columns and lines; 80 and 24 when the terminal does not tell."""
        size = os.get_terminal_size(self._out)
        return size.columns or 80, size.lines or 24

    def draw(self, lines: Sequence[Line]) -> None:
        """Show the lines; only those that have changed are sent."""
        if self.plain:
            texts = ["".join(span.text for span in line).rstrip() for line in lines]
            self._send("\n".join([*filter(None, texts), "", ""]))
            return
        columns = self.size()[0]
        rows = [self._row(line, columns) for line in lines]
        changed = [f"\x1b[{i + 1};1H{row}" for i, row in enumerate(rows) if i >= len(self._shown) or row != self._shown[i]]
        self._shown = rows
        if changed:
            self._send("".join(changed))

    def _row(self, line: Line, columns: int) -> str:
        parts = []
        for span in line:
            parameters = self._sgr.get(span.style)
            parts.append(f"\x1b[{parameters}m{span.text}\x1b[0m" if parameters else span.text)
        return "".join(parts) + (CLEAR_REST if sum(len(span.text) for span in line) < columns else "")

    def redraw(self) -> None:
        """What is drawn next is sent whole, onto an empty screen."""
        self._shown = []
        if not self.plain:
            self._send("\x1b[0m\x1b[2J")

    def wait(self, seconds: float, other: int) -> list[str]:
        """The keys that were pressed: as soon as there are some, ``other`` is readable, or after ``seconds`` none. RESIZED is among them.
        EOFError: nobody can type any more."""
        pressed = list[str]()
        poll = select.poll()
        for fd in (self._in, self._woken.fileno(), other):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll((REST_S if self._typed else seconds) * 1000)}
        if self._woken.fileno() in ready:
            pressed += self._signalled()
        if self._in in ready:
            typed = os.read(self._in, 1024)
            if not typed:
                raise EOFError
            found, self._typed = keys(self._typed + typed.decode("utf-8", "replace"))
            pressed += found
        elif self._typed and not ready:
            self._typed = ""
            pressed.append("escape")
        return pressed

    def _signalled(self) -> list[str]:
        numbers = self._woken.recv(256)
        if signal.SIGTSTP in numbers:
            self._give_back()
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)  # here the process stands still until somebody wants it to go on
            signal.signal(signal.SIGTSTP, self._note)
            self._take()
            return [RESIZED]
        if signal.SIGCONT in numbers:  # it was stopped otherwise, and the shell has set the terminal since
            self._take()
            return [RESIZED]
        return [RESIZED] if signal.SIGWINCH in numbers else []
