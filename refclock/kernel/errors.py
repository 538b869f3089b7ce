"""Turns error returns of the C core into OSError.

Every function of native/ returns 0 or more, or -errno. All its callers check the result here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

from refclock.errors import explain

_Handle = TypeVar("_Handle")


def checked(result: int, doing: str, hints: Mapping[int, str] | None = None) -> int:
    """``result`` when it is no error, else OSError with what failed, why, and what to do about it."""
    if result >= 0:
        return result
    raise OSError(-result, explain(OSError(-result, os.strerror(-result)), doing, hints))


def live(handle: _Handle | None, what: str) -> _Handle:
    """``handle`` while it is open, else ValueError: the caller has closed it."""
    if handle is None:
        raise ValueError(f"{what} is closed")
    return handle
