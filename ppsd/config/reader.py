"""One TOML file read against tables: every mistake is reported at once, each with its line.

``Reader`` decodes the text, keeps the line of each key, and collects the problems of what its tables refuse (``refclock.schema``). After a
syntax error the faulty line is left out and the rest is checked as well.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ppsd.config.toml_text import line_of, locate, meant, written
from refclock.schema import ConfigError, Key, Problem, read_table, report_unknown, suggestion

SYNTAX_ERRORS = 20
"""Syntax errors after which reading stops: the file is probably not TOML."""
TOLD = 200
"""Characters of a syntax error that are told: it may contain a key of any length."""
KEY_DEPTH = 64
"""Dots outside strings in one line; a line with more is refused. tomllib's time grows with the square of a key's parts (0.6 s for 8000;
measured on x86-64)."""
ELEMENTS = 64
"""Sources, and feeds, that one file may have: more than any machine has ports for."""
_NO_KEY = re.compile(r""""(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|\#.*""")
"""What is no key: strings and comments. A string that does not end goes to the end of its line, so no text is looked at twice."""
Hint = Callable[[str], str]
"""Where an unknown key belongs, "; ..."; "" when nobody knows."""
T = TypeVar("T")


def as_text(data: bytes, file: str) -> str:
    """UTF-8 bytes to a text. ConfigError: the line of the first byte that is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, "", f"byte 0x{data[error.start]:02x} is not UTF-8 text")]) from None


def _syntax(text: str, file: str) -> tuple[dict[str, Any], str, list[Problem]]:
    """Parse ``text``. A faulty line is reported and removed, a faulty header with its whole table, and the rest is parsed again. Returns
    the decoded file, the text that it was decoded from, and the problems."""
    problems: list[Problem] = []
    for number, line in enumerate(_NO_KEY.sub("", text).split("\n"), 1):
        if line.count(".") > KEY_DEPTH:
            return {}, "", [Problem(file, number, "", "the key has too many parts")]
    while True:
        try:
            return tomllib.loads(text), text, problems
        except RecursionError:
            return {}, "", [*problems, Problem(file, 0, "", "lists or tables are nested too deeply")]
        except ValueError as error:  # TOMLDecodeError, or int() on thousands of digits
            what, _, place = str(error).rpartition(" (at line ")
            match = re.fullmatch(r"(\d+), column \d+\)", place)
            lines = text.split("\n")
            number = int(match[1]) if match else 0
            what = what if match else str(error).removesuffix(" (at end of document)")
            if not number and "end of document" in str(error):
                problems.append(Problem(file, len(lines), "", f"not TOML: {what} at the end of the file{meant(lines[-1])}"))
                return {}, "", problems
            remedy = meant(lines[number - 1]) if number else ""
            problems.append(Problem(file, number, "", f"not TOML: {what[:TOLD]}{remedy}"))
            if not number or not lines[number - 1].strip() or len(problems) == SYNTAX_ERRORS or len(text) > 1 << 16:
                return {}, "", problems
            last = number
            if lines[number - 1].lstrip().startswith("["):
                while last < len(lines) and not lines[last].startswith("["):
                    last += 1
            text = "\n".join([*lines[: number - 1], *[""] * (last - number + 1), *lines[last:]])


def _no_hints(_: str) -> Hint:
    return lambda _: ""


class Reader:
    """Turns the ``text`` of a file into tables, and collects problems. ``file``: how people are told its name. ``elsewhere``: of a table's
    name ("" for none), what makes hints for its unknown keys. ``complete``: no faulty line was left out, so a missing key is an error."""

    def __init__(self, file: str, text: str, elsewhere: Callable[[str], Hint] = _no_hints) -> None:
        self.file, self._elsewhere = file, elsewhere
        self.raw, text, self.problems = _syntax(text.removeprefix("\ufeff").replace("\r\n", "\n"), file)
        self.lines: Mapping[Key, int] = locate(text)
        self.complete = not self.problems

    def report(self, at: Key, what: str) -> None:
        """The value at the key ``at`` is wrong: ``what`` says why, and what is allowed."""
        self.problems.append(Problem(self.file, line_of(self.lines, at), written(at), what))

    def unknown(self, known: list[str]) -> None:
        """Report the tables, and keys outside a table, that are not ``known``."""
        report_unknown("table or key", self.raw, (), known, self.report, self._elsewhere(""))

    def check(self) -> None:
        """ConfigError when anything was reported, with all of it in the order of the file."""
        if self.problems:
            raise ConfigError(sorted(self.problems, key=lambda p: p.line))

    def table(self, name: str, cls: type[T]) -> T:
        """The table ``name`` as a ``cls``, which has a default for every key."""
        value = self.raw.get(name, {})
        if not isinstance(value, dict):
            self.report((name,), f"expected a table, written [{name}]")
            return cls()
        return read_table(cls, value, (name,), self.report, elsewhere=self._elsewhere(name), complete=self.complete) or cls()

    def array(self, name: str, kinds: Mapping[str, type[Any]], default: str | None) -> list[tuple[Key, Any]]:
        """The valid elements of ``[[name]]``, each with its key. ``default``: the type if an element has none; None: it must have one."""
        found: list[tuple[Key, Any]] = []
        value = self.raw.get(name, [])
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            self.report((name,), f"expected tables, each written [[{name}]]")
            return found
        if len(value) > ELEMENTS:
            self.report((name, ELEMENTS), f"more than {ELEMENTS} [[{name}]] tables")
        allowed = "allowed: " + ", ".join(f'"{k}"' for k in kinds)
        for i, table in enumerate(value[:ELEMENTS]):
            at: Key = (name, i)
            kind = table.get("type", default)
            if kind is None:
                if self.complete:
                    self.report(at, f"type is missing; {allowed}")
            elif not isinstance(kind, str) or kind not in kinds:
                hint = suggestion(kind, list(kinds)) if isinstance(kind, str) else ""
                self.report((*at, "type"), f"is not known; {allowed}{hint}")
            else:
                hints = self._elsewhere(f"[{name}]")
                item = read_table(kinds[kind], table, at, self.report, also=("type",), elsewhere=hints, complete=self.complete)
                if item is not None:
                    found.append((at, item))
        return found

    def named(self, items: list[tuple[Key, Any]], prefix: Mapping[str, str]) -> list[Any]:
        """The items with unique names: duplicates are reported, missing names are generated (gps0, gps1, shm0)."""
        taken: dict[str, Key] = {}
        for at, item in items:
            if item.name in taken:
                self.report((*at, "name"), f'"{item.name}" is taken on line {line_of(self.lines, (*taken[item.name], "name"))}')
            elif item.name:
                taken[item.name] = at
        result = []
        for at, item in items:
            name, n = item.name, 0
            while not name:
                candidate = f"{prefix[item.kind]}{n}"
                name, n = ("" if candidate in taken else candidate), n + 1
                taken.setdefault(candidate, at)
            result.append(replace(item, name=name))
        return result

    def unique(self, items: Iterable[tuple[Key, str, object]]) -> None:
        """Report every resource that two keys name. Items: (key, kind of resource, which one)."""
        seen: dict[tuple[str, object], Key] = {}
        for at, what, which in items:
            first = seen.setdefault((what, which), at)
            if first != at:
                self.report(at, f"{what} {which} is already used on line {line_of(self.lines, first)}")
