"""Lines of seven data bits (7N2, 7E1, 7O1), read on a line set to 8N1: noticed by their eighth bit, which is then taken away.

Flow: tty bytes -> **seven_bits** -> framing. All these have ten bits a character, as 8N1 has, so a port set to 8N1 reads each character
without an error, and the eighth bit is what the sender puts there: the first stop bit (always 1, as with mark parity) or the parity bit
(8250 UART data sheet, line control register). Text on a line of eight bits has it 0. So nothing has to be set and nothing tried: what was
heard tells. With space parity (7S1) it is 0, and there is nothing to do.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

RUN: Final = 48
"""So many characters in a row, all of them text and all with the right eighth bit: by chance once in 2**48."""
SET: Final = 8
"""... and so many of them with it set: text of eight bits may happen to have few letters, "AAAA" all of even parity."""
BREACHES: Final = 4
SPAN: Final = 4 * RUN
"""Four wrong eighth bits among so many characters: it is something else now. A bad cable has one now and then."""

_TEXT = (*range(0x20, 0x7F), 0x0D, 0x0A)
_GOOD = {
    "7N2": bytes(c | 0x80 for c in _TEXT),
    "7E1": bytes(c | (c.bit_count() & 1) << 7 for c in _TEXT),
    "7O1": bytes(c | (~c.bit_count() & 1) << 7 for c in _TEXT),
}
_RUN = {bits: re.compile(b"(?=([" + re.escape(good) + b"]{%d}))" % RUN) for bits, good in _GOOD.items()}
_BREACH = {bits: re.compile(b"[^" + re.escape(good) + b"]") for bits, good in _GOOD.items()}
_STRIP = bytes(c & 0x7F for c in range(256))


class SevenBits:
    """One line. ``bits``: "7N2", "7E1" or "7O1" while its characters are such, else "". What comes out depends on the bytes alone, never on
    how reads cut them up."""

    def __init__(self) -> None:
        self.bits = ""
        self._tail = b""
        self._breaches: deque[int] = deque(maxlen=BREACHES - 1)
        self._position = 0

    def strip(self, data: bytes) -> bytes:
        """The characters: ``data`` itself, without the eighth bit from the end of the first run of RUN on."""
        out, begin = b"", 0
        while begin < len(data):
            rest = data[begin:]
            strips = bool(self.bits)
            taken = self._ended(rest) if strips else self._begun(rest)
            out += rest[:taken].translate(_STRIP) if strips else rest[:taken]
            begin += taken
            self._position += taken
        return out

    def _begun(self, data: bytes) -> int:
        """How much of ``data`` still has eight bits."""
        heard = self._tail + data
        if heard.isascii():  # nothing to take away
            self._tail = heard[-(RUN - 1) :]
            return len(data)
        runs = ((bits, match) for bits, run in _RUN.items() for match in run.finditer(heard))
        found = [(match.end(1), bits) for bits, match in runs if sum(c >> 7 for c in match[1]) >= SET]
        if not found:
            self._tail = heard[-(RUN - 1) :]
            return len(data)
        end, self.bits = min(found)
        taken = end - len(self._tail)
        self._tail = b""
        self._breaches.clear()
        return taken

    def _ended(self, data: bytes) -> int:
        """How much of ``data`` has seven bits."""
        for breach in _BREACH[self.bits].finditer(data):
            at = self._position + breach.start()
            if len(self._breaches) == BREACHES - 1 and at - self._breaches[0] < SPAN:
                self.bits = ""
                self._breaches.clear()
                return breach.start() + 1
            self._breaches.append(at)
        return len(data)
