"""Commands to a receiver, one frame at a time: each is repeated once, and ends with the receiver's answer or without.

An Item sets something or asks for it. u-blox receivers answer settings with ACK-ACK or ACK-NAK (u-blox 8/M8 protocol specification,
UBX-ACK), MediaTek receivers with PMTK001 (GlobalTop PMTK command packet). Neither carries a number of the command, only its kind.

Flow: Items (configure, readback) -> **commands** -> frames for the line; frames of the receiver -> **commands** -> results (configurator,
readback).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from refclock.config import BITS_PER_BYTE
from refclock.protocols.checksums import nmea_checksum
from refclock.protocols.framing import Frame, FrameKind
from refclock.protocols.ubx import encode
from refclock.receiver.ubx_settings import CFG
from refclock.sample import NS

ANSWER_NS: Final = NS
"""ns to wait for an answer, plus the time that BACKLOG_BYTES take on the line."""
BACKLOG_BYTES: Final = 1200
"""Bytes that a receiver may send before an answer, because its output buffer is full. Assumed: 1.25 s of output at 9600 baud."""
TRIES: Final = 2
"""Times that a frame is sent before its item ends without an answer."""
ACK: Final = 0x05
"""Class of ACK-NAK (id 0) and ACK-ACK (id 1)."""
_MTK_ACK: Final = 1
_MTK_DONE: Final = "3"
"""PMTK001 acknowledges; flag 3: the command was carried out."""


class Result(Enum):
    """How an item ended. ``LEFT_OUT``: another item that it needs was not done."""

    DONE = "done"
    REFUSED = "refused"
    NO_ANSWER = "no answer"
    LEFT_OUT = "left out"


Command = tuple[int, int] | int
"""Class and id, or the number of a PMTK sentence."""


@dataclass(frozen=True, slots=True)
class Item:
    """One setting or question.

    ``frame`` sets it; or, with ``edit``, it asks for the present state. That comes in a message ``reply`` which begins with ``begins`` and
    has at least ``least`` bytes, and ``edit`` turns it into the frame that sets what is wanted, b"" when nothing need be set. ``needs``:
    the item that must have been done before. ``instead``: another way to do the same, taken only when the item of that name was refused.
    """

    name: str
    frame: bytes
    command: Command
    edit: Callable[[bytes], bytes] | None = None
    reply: Command | None = None
    begins: bytes = b""
    least: int = 1
    needs: str = ""
    instead: bool = False

    @property
    def acknowledged(self) -> bool:
        """Whether ACK or PMTK001 follows: after every setting, and after questions that are CFG messages."""
        return self.reply is None or (isinstance(self.command, tuple) and self.command[0] == CFG)


def pmtk(body: str) -> bytes:
    """A complete sentence with this body."""
    return f"${body}*{nmea_checksum(body.encode('ascii')):02X}\r\n".encode("ascii")


def setting(name: str, command: tuple[int, int], payload: bytes, needs: str = "") -> Item:
    """A UBX message that sets something."""
    return Item(name, encode(*command, payload), command, needs=needs)


def question(name: str, command: tuple[int, int], payload: bytes = b"", begins: bytes = b"", least: int = 1) -> Item:
    """A UBX message that asks for the present state and changes nothing."""
    return Item(name, encode(*command, payload), command, _as_it_is, command, begins, least)


def _as_it_is(_payload: bytes) -> bytes:
    return b""


class CommandQueue:
    """Sends the frames of items, one after the other. ``results``: how each item ended, by its name, as the answers come; ``told``: the
    answers to questions. ``baud`` of the line, 0 for USB, says how long an answer may take.

    A frame without an answer is sent once more. Answers carry no number: after an item that was sent twice, the next one waits until a late
    answer to the first try must have come.
    """

    def __init__(self, items: Iterable[Item], baud: int = 0) -> None:
        self._patience_ns = ANSWER_NS + (BACKLOG_BYTES * BITS_PER_BYTE * NS // baud if baud else 0)
        self._left = list(items)
        self.results: dict[str, Result] = {}
        self.told: dict[str, bytes] = {}
        self._tries = 0  # of the frame on the line; 0: none is
        self._due_ns = 0  # when to give up waiting, or not to send before
        self._frame = b""
        self._command: Command = 0
        self._asked = False  # the frame asks for the present state
        self._told: bytes | None = None

    @property
    def finished(self) -> bool:
        """Every item has its result."""
        return not self._left

    def hear(self, frame: Frame, now_ns: int) -> None:
        """What the receiver said; anything that answers nothing is ignored."""
        if not self._tries:
            return
        item = self._left[0]
        command, payload = _spoken(frame)
        if self._asked and command == item.reply and payload.startswith(item.begins) and len(payload) >= item.least:
            self._told = payload
            if not item.acknowledged:
                self._answered(True, now_ns)
        elif command == _MTK_ACK and isinstance(self._command, int):
            number, _, flag = payload.decode("ascii", "replace").partition(",")
            if number == str(self._command) and flag:
                self._answered(flag.split(",")[0] == _MTK_DONE, now_ns)
        elif command in ((ACK, 0), (ACK, 1)) and payload[:2] == bytes(self._command if isinstance(self._command, tuple) else ()):
            self._answered(command == (ACK, 1), now_ns)

    def send(self, now_ns: int) -> bytes:
        """What to write to the line now; b"" while an answer is awaited and when all is done. Call it after each ``hear``, and once a
        second while nothing comes."""
        if self._tries and now_ns >= self._due_ns:
            if self._told is not None:  # answered, but not acknowledged
                self._answered(True, now_ns)
            elif self._tries < TRIES:
                return self._sent(now_ns)
            else:
                self._end(Result.NO_ANSWER)
        while not self._tries and self._left and now_ns >= self._due_ns:
            item = self._left[0]
            # An alternative is needed only when the first way was refused; an item whose condition was not met is left out.
            if item.instead and self.results.get(item.name) is not Result.REFUSED:
                self._left.pop(0)
                continue
            if item.needs and self.results.get(item.needs) is not Result.DONE:
                self._end(Result.LEFT_OUT)
                continue
            # A question that was answered: what has to be set follows from the answer. Else the item's own frame.
            if self._told is not None and item.edit is not None:
                self.told[item.name] = self._told
                self._frame, self._asked, self._told = item.edit(self._told), False, None
                if not self._frame:
                    self._end(Result.DONE)
                    continue
                self._command = (self._frame[2], self._frame[3])
            else:
                self._frame, self._command, self._asked = item.frame, item.command, item.edit is not None
            return self._sent(now_ns)
        return b""

    def _sent(self, now_ns: int) -> bytes:
        self._tries += 1
        self._due_ns = now_ns + self._patience_ns
        return self._frame

    def _answered(self, done: bool, now_ns: int) -> None:
        self._due_ns = now_ns + self._patience_ns if self._tries > 1 else now_ns
        if not done:
            self._end(Result.REFUSED)
        elif not self._asked:
            self._end(Result.DONE)
        elif self._told is not None:
            self._tries = 0  # ``send`` goes on with what ``edit`` makes of it

    def _end(self, result: Result) -> None:
        self.results[self._left.pop(0).name] = result
        self._tries, self._told, self._asked = 0, None, False


def _spoken(frame: Frame) -> tuple[Command, bytes]:
    """(message, its payload or fields); (0, b"") when it cannot be an answer."""
    if frame.kind is FrameKind.UBX:
        return (frame.data[0], frame.data[1]), frame.data[2:]
    head, _, rest = frame.data.partition(b",")
    number = head.removeprefix(b"PMTK")
    if not frame.checksum or number == head or not number.isdigit():
        return 0, b""
    return int(number), rest
