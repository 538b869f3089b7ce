"""The line of each table and key in a TOML text. Error messages need it, and tomllib does not report it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from refclock.schema import Key

_TOKEN = re.compile(
    r'''(?P<long>"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5})|(?P<text>"(?:[^"\\\n]|\\.)*"|'[^'\n]*')|(?P<comment>\#[^\n]*)'''
    r"""|(?P<word>[A-Za-z0-9_+:-]+)|(?P<end>\n)|(?P<mark>[\[\]{}=.,])|(?P<other>.)""",
    re.DOTALL,
)


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line, tokens before the value) of each header and assignment of a valid TOML text. A header's tokens include its brackets."""
    line, first, depth, tokens, in_value = 1, 1, 0, list[str](), False
    for match in _TOKEN.finditer(text + "\n"):
        what, token = match.lastgroup, match[0]
        if what == "end" and depth == 0:
            if tokens:
                yield first, tokens
            tokens, in_value = [], False
        elif in_value:
            depth += (token in ("[", "{")) - (token in ("]", "}")) if what == "mark" else 0
        elif what == "mark" and token == "=" and tokens:
            in_value = True
        elif what in ("text", "word", "mark", "long"):
            first = line if not tokens else first
            tokens.append(token)
        line += token.count("\n")


def _parts(tokens: Iterable[str]) -> Key:
    """The parts of a key, which may be dotted or quoted."""
    parts: list[str | int] = []
    for token in tokens:
        if token[0] == '"':
            try:
                parts.append(str(json.loads(token)))
            except ValueError:  # an escape of TOML that JSON lacks: \UXXXXXXXX
                parts.append(token)
        elif token not in (".", "[", "]"):
            parts.append(token.strip("'"))
    return tuple(parts)


def locate(text: str) -> dict[Key, int]:
    """The line, from 1, of every table, array element and key of a TOML text. A key inside an inline table has its statement's line."""
    lines: dict[Key, int] = {}
    counts: dict[Key, int] = {}
    at: Key = ()
    for line, tokens in _statements(text):
        parts = _parts(tokens)
        if tokens[0] == "[":
            if tokens[1:2] == ["["]:
                counts[parts] = counts.get(parts, -1) + 1
                at = (*parts, counts[parts])
            else:
                at = parts
            lines.setdefault(at, line)
        else:
            for n in range(1, len(parts) + 1):
                lines.setdefault((*at, *parts[:n]), line)
    return lines


def line_of(lines: Mapping[Key, int], at: Key) -> int:
    """The line of a key, or of the innermost table that contains it; 0 when there is none."""
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 0)


def written(at: Key) -> str:
    """A key in dotted notation: server.threads, source[1].baud."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
