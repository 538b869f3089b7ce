"""Conditions: their codes are stable and documented, and their order is told."""

from __future__ import annotations

import re

import pytest

from refclock.condition import Code, Condition, blocking, obstacle, ordered


@pytest.mark.parametrize("code", Code)
def test_each_code_is_documented_in_the_order_of_precedence(code: Code) -> None:
    """A kebab-case word with a line in the table: what it means and what to do."""
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
    rows = [line.split()[0] for line in (Code.__doc__ or "").splitlines() if re.match(r"    [a-z0-9-]+  +\S.*  +\S", line)]
    rows.remove("code")
    assert rows == [c.value for c in Code]


def test_what_blocks_comes_first_in_the_order_of_the_codes() -> None:
    """Of one code the condition that blocks is kept; the reason is the first that blocks."""
    flat, jammed, off = Condition(Code.FIX_2D, "flat"), Condition(Code.JAMMING, "a little"), obstacle(Code.OFF_SECOND, "off")
    found = ordered([flat, off, jammed, Condition(Code.OFF_SECOND, "off, but used"), obstacle(Code.NO_FIX, "none")], "gps0")
    assert [c.words for c in found] == ["none", "off", "a little", "flat"]
    assert {c.source for c in found} == {"gps0"}
    assert blocking(found) == Condition(Code.NO_FIX, "none", True, "gps0")
    assert blocking([flat, jammed]) is None
