"""What tomllib does not report and error messages need: the line of each table, key and list element, and what is probably meant by a line
that is no TOML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from ppsd.config.directives import COUNTERPARTS
from refclock.schema import Key

_TOKEN = re.compile(
    r'''(?P<long>"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5})|(?P<text>"(?:[^"\\\n]|\\.)*"|'[^'\n]*')|(?P<comment>\#[^\n]*)'''
    r"""|(?P<word>[A-Za-z0-9_+:-]+)|(?P<end>\n)|(?P<mark>[\[\]{}=.,])|(?P<other>.)""",
    re.DOTALL,
)


def _statements(text: str) -> Iterator[tuple[int, list[str], list[int]]]:
    """(line, tokens before the value, line of each element when the value is a list) of each header and assignment of a valid TOML text. A
    header's tokens include its brackets."""
    line, first, depth, tokens, in_value, elements, fresh = 1, 1, 0, list[str](), False, list[int](), False
    for match in _TOKEN.finditer(text + "\n"):
        what, token = match.lastgroup, match[0]
        if what == "end" and depth == 0:
            if tokens:
                yield first, tokens, elements
            tokens, in_value, elements = [], False, []
        elif in_value:
            if fresh and depth == 1 and token != "]" and (what in ("text", "word", "long") or token in ("[", "{")):
                elements.append(line)
                fresh = False
            if what == "mark":
                fresh = fresh or (token == "[" and depth == 0) or (token == "," and depth == 1)
                depth += (token in ("[", "{")) - (token in ("]", "}"))
        elif what == "mark" and token == "=" and tokens:
            in_value, fresh = True, False
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
    """The line, from 1, of every table, key, and element of an array of a TOML text. A key inside an inline table has its statement's
    line."""
    lines: dict[Key, int] = {}
    counts: dict[Key, int] = {}
    at: Key = ()
    for line, tokens, elements in _statements(text):
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
            for index, where in enumerate(elements):
                lines.setdefault((*at, *parts, index), where)
    return lines


def line_of(lines: Mapping[Key, int], at: Key) -> int:
    """The line of a key, or of the innermost table that contains it; 0 when there is none."""
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 0)


def written(at: Key) -> str:
    """A key in dotted notation: server.threads, source[1].baud."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")


# ---- lines that are no TOML -------------------------------------------------------------------------------------------------------


def counterpart(word: str) -> str:
    """What is written here instead of ``word``; "" when it is no word of those files. They take it in any case (chrony.conf(5))."""
    return COUNTERPARTS.get(word.lower(), "")


def _quoted(value: str) -> str:
    """``value`` as TOML writes a text."""
    return json.dumps(value.strip(), ensure_ascii=False)


def meant(line: str) -> str:
    """What is most probably wrong with a line that is not TOML, "; ..."; "" when nothing usual is."""
    bare = line.partition("#")[0].strip()
    word = re.match(r"[A-Za-z_-]+(?=\s+[^=\s]|$)", bare)
    if word is not None and (instead := counterpart(word[0])):
        return f"; {word[0]} is a word of chrony.conf or ntp.conf: {instead}"
    key, equals, value = (part.strip() for part in bare.partition("=")) if "=" in bare else ("", "", bare.rstrip(","))
    if value.count('"') % 2 or (value.count("'") % 2 and '"' not in value):
        return "; a quotation mark is missing"
    if value in ("true", "false"):
        return ""
    if value.lower() in ("true", "yes", "on", "false", "no", "off"):
        return f"; write it {'true' if value.lower() in ('true', 'yes', 'on') else 'false'}"
    if value.startswith("["):
        elements = [element.strip(" \"'") for element in value.strip("[]").split(",")]
        return f"; texts need quotes: {key} = [{', '.join(map(_quoted, filter(None, elements)))}]" if equals and "[[" not in value else ""
    if re.match(r"[A-Za-z/]|[0-9a-fA-F]*[.:][0-9a-fA-F.:]", value) and not re.search(r"[\"'={}]", value):
        return f"; a text needs quotes: {f'{key} = ' if equals else ''}{_quoted(value)}"
    return ""
