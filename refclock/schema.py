"""Tables of a configuration file checked against dataclasses: every problem at once, with place, allowed values and a suggestion.

A ``Rule`` in the metadata of each field says what its key accepts. The reader (``read_table``), the error text and the printed
configuration all use it. Reading does not stop at an error: the default replaces a refused value, and the rest is checked as well.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import date, datetime
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")
Key = tuple[str | int, ...]
"""Path of a value in the file: ("server", "threads"), ("source", 0, "baud")."""
UNKNOWN_TOLD = 20
"""Unknown keys of a table that are told one by one. With more it is probably another program's file, and each takes 0.1 ms to explain."""
TEXT_LENGTH = 4096
"""Characters of the longest text value: PATH_MAX of linux/limits.h."""
DATE_YEARS = (1980, 2200)
"""Years that a date may have: from the first GPS week (1980-01-06) to well before 2**63 ns after 1970 (year 2262)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in a configuration. ``line`` counts from 1; 0 when the error concerns the whole file. ``key``: as the user writes it."""

    file: str
    line: int
    key: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.what}" if self.key else f"{place}: {self.what}"


class ConfigError(ValueError):
    """A configuration that cannot be used; ``problems`` lists every error in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Rule:
    """What a key accepts: one of ``choices``, a number in [low, high], or a text that ``check`` (value -> complaint or None) accepts."""

    what: str
    choices: tuple[str | int, ...] = ()
    low: float | None = None
    high: float | None = None
    empty: bool = False
    check: Callable[[str], str | None] | None = None

    def allowed(self) -> str:
        """The accepted values in words."""
        if self.choices:
            return "allowed: " + ", ".join(_shown(c) for c in self.choices)
        if self.low is not None and self.high is not None:
            return f"allowed: {self.low:.10g} to {self.high:.10g}"
        return self.what


def key(default: Any, what: str, **rule: Any) -> Any:
    """A dataclass field with its Rule; ``default=MISSING`` makes the key required."""
    return field(default=default, metadata={"rule": Rule(what, **rule)})


# ---- reading ----------------------------------------------------------------------------------------------------------------------


def _shown(value: object) -> str:
    """A value as TOML writes it, cut to 60 characters. Python refuses to print integers of thousands of digits."""
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return "a huge number"
    text = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:56] + " ..."


def suggestion(word: str, known: Sequence[str]) -> str:
    """ "; did you mean X?" when a known word is similar (difflib ratio 0.6), else ""."""
    near = difflib.get_close_matches(word[:64].lower(), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _text_complaint(value: str, rule: Rule) -> str | None:
    if not value and not rule.empty:
        return f"must not be empty; {rule.what}"
    if len(value) > TEXT_LENGTH:
        return f"longer than {TEXT_LENGTH} characters"
    if not value.isprintable():
        return "contains a control character"
    if value and rule.check is not None:
        complaint = rule.check(value)
        return f"{_shown(value)} {complaint}" if complaint else None
    return None


def _number_complaint(value: int | float, rule: Rule) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a usable number; {rule.allowed()}"
    if (rule.low is not None and value < rule.low) or (rule.high is not None and value > rule.high):
        return f"{_shown(value)} is out of range; {rule.allowed()}"
    return None


def _convert(kind: object, value: object, rule: Rule) -> tuple[Any, str | None]:
    """(value of the declared type, None) or (None, complaint)."""
    name, complaint, result = "", None, value
    if kind in (bool, bool | None):
        name = "" if isinstance(value, bool) else "true or false"
    elif kind in (int, int | None):
        name = "a whole number" if isinstance(value, bool) or not isinstance(value, int) else ""
        complaint = None if name else _number_complaint(value, rule)  # type: ignore[arg-type]
    elif kind in (float, float | None):
        if isinstance(value, bool) or not isinstance(value, int | float):
            name = "a number"
        else:
            complaint = _number_complaint(value, rule)
            result = None if complaint else float(value)
    elif kind is date:
        if not isinstance(value, date) or isinstance(value, datetime):
            name = "a date"
        elif not DATE_YEARS[0] <= value.year <= DATE_YEARS[1]:
            complaint = f"{value} is out of range; allowed: years {DATE_YEARS[0]} to {DATE_YEARS[1]}"
    elif kind == tuple[str, ...]:
        name = "" if isinstance(value, list) else "a list"
        result = tuple(value) if isinstance(value, list) else None
    else:
        name = "" if isinstance(value, str) else "a text in quotes"
        complaint = None if name or rule.choices else _text_complaint(value, rule)  # type: ignore[arg-type]
    if name:
        return None, f"expected {name}, found {_kind_shown(value)}; {rule.allowed()}"
    if complaint is None and rule.choices and value not in rule.choices:
        hint = suggestion(value, [str(c) for c in rule.choices]) if isinstance(value, str) else ""
        complaint = f"{_shown(value)} is not known; {rule.allowed()}{hint}"
    return result, complaint


def _element_complaints(value: list[object], rule: Rule) -> Iterator[tuple[int, str]]:
    """(index, complaint) of every wrong element of a list of texts."""
    for index, element in enumerate(value):
        if not isinstance(element, str):
            yield index, f"expected a text in quotes, found {_kind_shown(element)}; {rule.allowed()}"
        elif complaint := _text_complaint(element, rule):
            yield index, complaint


def _kind_shown(value: object) -> str:
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else _shown(value)


def report_unknown(  # noqa: PLR0917 (one table, as read_table has it)
    what: str, names: Iterable[str], at: Key, known: list[str], report: Callable[[Key, str], None], elsewhere: Callable[[str], str]
) -> None:
    """Report the ``names`` of table ``at`` that are not ``known``: ``UNKNOWN_TOLD`` of them one by one, with what was probably meant."""
    unknown = [name for name in names if name not in known]
    for name in unknown[:UNKNOWN_TOLD]:
        report((*at, name), f"unknown {what}{suggestion(name, known) or elsewhere(name)}")
    if len(unknown) > UNKNOWN_TOLD:
        report((*at, unknown[UNKNOWN_TOLD]), f"is unknown, and so are {len(unknown) - UNKNOWN_TOLD - 1} more")


def read_table(
    cls: type[T],
    table: Mapping[str, Any],
    at: Key,
    report: Callable[[Key, str], None],
    *,
    also: tuple[str, ...] = (),
    elsewhere: Callable[[str], str] = lambda _: "",
    complete: bool = True,
) -> T | None:
    """Read one table as a ``cls``; report refused and missing values under their keys. None when a required key has no value.

    ``also``: keys that the caller reads itself. ``elsewhere``: hint for an unknown key that another table has. ``complete``: False when
    lines with wrong syntax were left out; a missing key is then not reported.
    """
    specs: dict[str, Field[Any]] = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    known = [*specs, *also]
    report_unknown("key", table, at, known, report, elsewhere)
    values: dict[str, Any] = {}
    whole = True
    for name, spec in specs.items():
        rule: Rule = spec.metadata["rule"]
        if name in table:
            value, complaint = _convert(hints[name], table[name], rule)
            wrong = list(_element_complaints(table[name], rule)) if isinstance(value, tuple) else []
            if complaint is None and not wrong:
                values[name] = value
                continue
            if complaint is not None:
                report((*at, name), complaint)
            for index, what in wrong:
                report((*at, name, index), what)
            whole = whole and spec.default is not MISSING
        elif spec.default is MISSING:
            whole = False
            if complete:
                report(at, f"{name} is missing; {rule.what}")
    return cls(**values) if whole else None
