"""What people are told: an error of the operating system as one sentence, and texts from outside made harmless.

Devices, sockets and files fail with an OSError. Whoever knows what was being done, or a remedy, makes the sentence with ``explain``: either
it raises the error again with the sentence as its ``strerror``, or it shows the sentence. ``explain`` alone shows any OSError.

A receiver, another program or a server can send bytes that steer a terminal: ``printable`` shows them as escapes.
"""

from __future__ import annotations

from collections.abc import Mapping


def explain(error: OSError, doing: str = "", hints: Mapping[int, str] | None = None) -> str:
    """``doing: why; hint``. ``doing``: what was tried, or on what; default: the file that the error names, if any. ``hints``: a remedy for
    each errno that has one."""
    subject = doing or error.filename
    why = error.strerror or str(error)
    hint = (hints or {}).get(error.errno or 0)
    return f"{f'{subject}: ' if subject else ''}{why}{f'; {hint}' if hint else ''}"


def printable(text: str) -> str:
    """``text`` with each character that does not print as its escape, such as \\x1b for ESC."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
