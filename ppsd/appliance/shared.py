"""A file that the owner edits on the card and the box keeps in force: which content holds, and what is written where.

Three contents decide: the card's now, the card's when it was last seen, and the box's own. A card that differs from what was last seen was
edited by its owner, and holds when it is good; else the box's own stays in force, and the owner's file stays as it is. While the card is
unchanged, a change of the box's own, made by a tool, goes back to the card.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from refclock.schema import Problem

T = TypeVar("T")
Judge = Callable[[bytes, str], tuple[T | None, list[Problem]]]
"""(the value that a content gives, None when it gives none; its problems), of a content and the name that people know it by."""


@dataclass(frozen=True, slots=True)
class Settled(Generic[T]):
    """``value``, from ``content``, is in force. ``to_card``: the card is to have it. ``lost``: a change of the box's own that the owner's
    replaced. ``problems``: of the card's file, or of the box's own. ``words``: what happened, "" when nothing did."""

    value: T
    content: bytes
    to_card: bool = False
    lost: bytes | None = None
    problems: tuple[Problem, ...] = ()
    words: str = ""


def settle(  # noqa: PLR0917 (three contents of one file, and what they fall back on)
    name: str, card: bytes | None, seen: bytes | None, own: bytes | None, default: bytes, judge: Judge[T]
) -> Settled[T]:
    """Which content of ``name`` holds. None: there is no such file. ValueError: the default is not good."""
    if card is not None and card != seen:
        value, problems = judge(card, name)
        if value is not None and not problems:
            if own == card:
                return Settled(value, card)
            lost = own if seen is not None and own not in (None, seen) else None
            more = "; it replaced what this box had changed meanwhile" if lost else ""
            return Settled(value, card, lost=lost, words=f"{name}: the card's file is new and in force{more}")
        kept = _own(name, own, default, judge)
        why = "the last good one stays in force" if seen is not None and kept.content == own else "the defaults are in force"
        return Settled(kept.value, kept.content, problems=tuple(problems), words=f"{name}: the card's file has mistakes; {why}")
    if card is not None and (own is None or judge(own, name)[0] is None):  # lost, or spoiled: the card still has the last good one
        own = card
    kept = _own(name, own, default, judge)
    if card is None:
        return Settled(kept.value, kept.content, True, problems=kept.problems, words=f"{name}: was not on the card, and has been put back")
    if kept.content == own != card:
        return Settled(kept.value, own, True, problems=kept.problems, words=f"{name}: changed on this box, and now on the card as well")
    return kept


def _own(name: str, own: bytes | None, default: bytes, judge: Judge[T]) -> Settled[T]:
    """The box's own content, or the default when there is none that gives a value."""
    if own is not None:
        value, problems = judge(own, f"{name} as kept on this box")
        if value is not None:
            return Settled(value, own, problems=tuple(problems))
    else:
        problems = []
    value, wrong = judge(default, name)
    if value is None or wrong:
        raise ValueError(f"the default {name} is not good: {wrong}")
    return Settled(value, default, problems=tuple(problems))
