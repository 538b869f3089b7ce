"""Output in any encoding of a terminal: characters that it lacks are written with those that every encoding has.

Python refuses to print them (UnicodeEncodeError), as it refuses bytes of file names that are no text.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable
from typing import Final, TextIO

PLAIN: Final = {"±": "+/-", "µ": "u", "°": "deg ", "·": "|", "—": "-", "–": "-", "²": "^2", "…": "...", "─": "-", "■": "#", "□": "o"}
"""What is written for the characters that our texts have besides ASCII; for every other one a question mark."""
_NAME: Final = "refclock.plain"


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Error handler of codecs: plain text instead of what cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end


def print_anywhere(streams: Iterable[TextIO]) -> None:
    """Make ``streams`` print every text."""
    codecs.register_error(_NAME, _plainly)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)
