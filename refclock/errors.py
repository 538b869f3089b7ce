"""An error of the operating system as one sentence for people: what failed, why, and what to do about it.

Devices, sockets and files fail with an OSError. Whoever knows what was being done, or a remedy, makes the sentence with ``explain``: either
it raises the error again with the sentence as its ``strerror``, or it shows the sentence. ``explain`` alone shows any OSError.
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
