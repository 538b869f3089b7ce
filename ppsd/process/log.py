"""The log: one line per event on standard error, as text (``key=value``) or JSON, stamped in UTC.

The only importer of structlog. Logging must never block the clock, the server or the supervisor. A line that cannot be written at once is
dropped and counted, and the next line that can be written is preceded by the count. A fault that goes on is told when it begins; then it is
counted, and the count is told at growing intervals (``Repeats``).
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple, Protocol

import structlog

from refclock.errors import printable

LINE_BYTES: Final = 4096
"""Octets; a longer line is cut. PIPE_BUF of linux/limits.h: a pipe takes a write up to this size whole or not at all."""
FREE: Final = 3
"""Occurrences of one event that are told one by one."""
PAUSES_S: Final = (60.0, 600.0, 3600.0)
"""s between later tellings of an event that goes on; the last pause repeats. A fault once a second makes about 30 lines a day."""
KINDS: Final = 200
"""Events that are remembered: several times the number that one process has."""
LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
Field = str | int | float | bool | None
_NUMBER: Final = re.compile(r"[-+]?\d[\d.,:]*")


class Sink:
    """A descriptor that takes text and never makes its writer wait, whatever becomes of its reader: a terminal that is held by Ctrl-S, a
    pipe that nobody reads, a full disk.

    A pipe or a terminal is opened once more without blocking, because the flag O_NONBLOCK of the descriptor itself belongs to all programs
    that share it. Where that is not permitted, it is polled before each write."""

    def __init__(self, fd: int) -> None:
        self._fd = _opened_anew(fd)
        if self._fd != fd:
            weakref.finalize(self, os.close, self._fd)
        self._rest = b""
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)

    def write(self, text: str) -> bool:
        """Write ``text`` as it is. False: there is no room for it, and nothing was written."""
        if self._rest:
            self._rest = self._rest[self._put(self._rest) :]
        data = b"" if self._rest else text.encode("utf-8", "backslashreplace")
        written = self._put(data) if data else 0
        if not written:
            return False
        self._rest = data[written:]
        return True

    def _put(self, data: bytes) -> int:
        try:
            ready = self._poll.poll(0)
            return os.write(self._fd, data) if ready and ready[0][1] & select.POLLOUT else 0
        except OSError:  # no room, the reader has gone, or the disk is full
            return 0


def _opened_anew(fd: int) -> int:
    """Another descriptor of the same pipe or terminal, which does not block; ``fd`` itself for anything else."""
    try:
        kind = os.fstat(fd).st_mode
        if not (stat.S_ISFIFO(kind) or os.isatty(fd)):
            return fd
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return fd


@dataclass(slots=True)
class _Kind:
    """One event that was told ``told`` times, and left out ``left_out`` times since. ``until_s``: when it may be told next. ``last_s``:
    when it came last."""

    told: int = 0
    pauses: int = 0
    left_out: int = 0
    until_s: float = 0.0
    last_s: float = 0.0


class Telling(NamedTuple):
    """One occurrence of an event."""

    level: str
    event: str
    fields: Mapping[str, Field]

    @property
    def kind(self) -> str:
        """The same for two occurrences that differ in nothing but numbers."""
        texts = (self.level, self.event, *(value for value in self.fields.values() if isinstance(value, str)))
        return _NUMBER.sub("#", "\0".join(texts))


class Repeats:
    """Which occurrences of an event are told: the first few, then one after each growing pause, with the number of those between."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._latest: dict[str, Telling] = {}

    def admit(self, telling: Telling, now_s: float) -> int | None:
        """How many occurrences went untold before this one, which is to be told; None: leave this one out."""
        key = telling.kind
        kind = self._kinds.pop(key, None)
        if kind is None or (not kind.left_out and now_s - kind.last_s >= PAUSES_S[kind.pauses]):
            kind = _Kind()
        kind.last_s = now_s
        self._kinds[key] = kind
        if len(self._kinds) > KINDS:
            oldest = next(iter(self._kinds))
            del self._kinds[oldest]
            self._latest.pop(oldest, None)
        if kind.told < FREE:
            kind.told += 1
            kind.until_s = now_s + PAUSES_S[0]
            return 0
        if now_s < kind.until_s:
            kind.left_out += 1
            self._latest[key] = telling
            return None
        return self._tell(key, kind, now_s)

    def ended(self, now_s: float) -> Iterator[tuple[Telling, int]]:
        """The latest occurrences that were left out and whose pause is over, each with how many there were."""
        for key in [key for key in self._latest if now_s >= self._kinds[key].until_s]:
            telling = self._latest[key]
            yield telling, self._tell(key, self._kinds[key], now_s)

    def _tell(self, key: str, kind: _Kind, now_s: float) -> int:
        kind.pauses = min(kind.pauses + 1, len(PAUSES_S) - 1)
        kind.until_s = now_s + PAUSES_S[kind.pauses]
        left_out, kind.left_out = kind.left_out, 0
        self._latest.pop(key, None)
        return left_out


class Lines(Protocol):
    """Where lines go."""

    def write(self, text: str) -> bool:
        """Write ``text``; False: it could not be written."""
        ...


class Log:
    """Writes events to ``sink``; never waits, never raises. ``form``: text, json, or plain for the sentence alone. ``level``: the least
    important level shown. ``dropped``: lines lost so far."""

    def __init__(self, sink: Lines, form: str = "text", level: str = "info", program: str = "refclock") -> None:
        self.dropped = 0
        self._untold = 0
        self._sink, self._program = sink, program
        self.speak(form, level)
        self._stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        self._as_text = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "program", "event"], bool_as_flag=False)
        self._repeats = Repeats()

    def speak(self, form: str, level: str) -> None:
        """Write in ``form``, from ``level`` on, from now on."""
        self._form, self._least = form, LEVELS[level]

    def debug(self, event: str, **fields: Field) -> None:
        """Log what only a developer wants to know."""
        self.tell("debug", event, fields)

    def info(self, event: str, **fields: Field) -> None:
        """Log what happens as it should."""
        self.tell("info", event, fields)

    def warning(self, event: str, **fields: Field) -> None:
        """Log what is worse than it should be."""
        self.tell("warning", event, fields)

    def error(self, event: str, **fields: Field) -> None:
        """Log what does not work."""
        self.tell("error", event, fields)

    def answer(self, level: str, event: str, **fields: Field) -> None:
        """Log what a person has just asked for, however often."""
        if LEVELS[level] >= self._least:
            self._write(level, event, fields)

    def tell(self, level: str, event: str, fields: Mapping[str, Field]) -> None:
        """Log an event, or count it when it goes on and on."""
        if LEVELS[level] < self._least:
            return
        missed = self._repeats.admit(Telling(level, event, fields), time.monotonic())
        if missed is not None:
            self._write(level, event, {**fields, "repeated": missed} if missed else fields)

    def say(self, words: str) -> None:
        """Tell people something, however often it was told before."""
        self._write("info", words, {})

    def settle(self) -> None:
        """Tell the counts of events that went on and whose pause is over. To be called now and then."""
        for telling, missed in self._repeats.ended(time.monotonic()):
            self._write(telling.level, telling.event, {**telling.fields, "repeated": missed})

    def passed_on(self, line: str, program: str, counted: bool) -> None:
        """Write a line of another program as it is; in JSON what is no JSON becomes the event of one that is. ``counted``: count it when
        it comes again and again."""
        missed: int | None = 0
        if counted:
            missed = self._repeats.admit(Telling("info", line, {"program": program}), time.monotonic())
        if missed is None:
            return
        is_json = self._form == "json" and line.startswith("{") and line.endswith("}")
        if is_json or (self._form != "json" and not missed):
            self._put(line if is_json else printable(line))
        else:
            self._write("info", line, {"program": program, **({"repeated": missed} if missed else {})})

    def _write(self, level: str, event: str, fields: Mapping[str, Field]) -> None:
        self._put(self._rendered(level, event, fields))

    def _put(self, line: str) -> None:
        if self._untold and self._sink.write(_cut(self._rendered("warning", f"log lines dropped: {self._untold}", {})) + "\n"):
            self._untold = 0
        if not self._sink.write(_cut(line) + "\n"):
            self.dropped += 1
            self._untold += 1

    def _rendered(self, level: str, event: str, fields: Mapping[str, Field]) -> str:
        if self._form == "plain":
            missed = fields.get("repeated")
            return printable(f"{event} ({missed} more times)" if missed else event)
        told: dict[str, Field] = {"level": level, "program": self._program, "event": event, **fields}
        stamped = self._stamp(None, level, told)
        if self._form == "text":
            return printable(str(self._as_text(None, level, stamped)))
        line = json.dumps(stamped)
        longest = LINE_BYTES
        while len(line) >= LINE_BYTES and longest > 16:  # JSON that is cut is none, so its texts are
            longest //= 2
            line = json.dumps({key: _shortened(value, longest) for key, value in stamped.items()})
        return line


def _shortened(value: object, longest: int) -> object:
    """A text with its middle left out when it is longer than ``longest`` characters; anything else as it is."""
    if not isinstance(value, str) or len(value) <= longest:
        return value
    return f"{value[: longest // 2]} ... {value[-longest // 2 :]}"


def _cut(line: str) -> str:
    """``line`` with at most LINE_BYTES octets, the newline included."""
    return line if len(line) < LINE_BYTES // 4 else line.encode("utf-8", "backslashreplace")[: LINE_BYTES - 1].decode("utf-8", "ignore")


def open_log(form: str = "text", level: str = "info", program: str = "refclock", fd: int | None = None) -> Log:
    """The log of a process: ``log.info("event", key=value)``. ``fd``: where to write; None means standard error."""
    return Log(Sink(sys.stderr.fileno() if fd is None else fd), form, level, program)


def catch_crashes(log: Log) -> None:
    """Log an exception that ends the process or a thread as one event, instead of the lines of a traceback."""

    def crashed(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        log.error("crashed", error=f"{kind.__name__}: {error}", traceback="".join(traceback.format_exception(kind, error, trace)))

    sys.excepthook = crashed
    threading.excepthook = lambda args: crashed(args.exc_type, args.exc_value, args.exc_traceback)


def speaker(log: Log, form: str) -> Callable[[str], None]:
    """What a process says its last words with: an event in JSON, a plain line in text."""
    return log.error if form == "json" else lambda words: print(words, file=sys.stderr)
