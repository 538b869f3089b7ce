"""Text from outside for people: a receiver, another program or a server can send bytes that steer a terminal.

Control characters, and others that print nothing or turn the direction of the text, are shown as escapes. Pure.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` with each character that does not print as its escape, such as \\x1b for ESC."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
