"""A leap-seconds.list as its makers write it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from refclock.timescales import NTP_UNIX_S, START_2017_S

UPDATE = 3_676_924_800
"""NTP second of 2016-07-08."""
TO_2017 = ((START_2017_S + NTP_UNIX_S, 37),)


def leap_list(lines: Sequence[tuple[int, int]] = TO_2017, expiry: int | None = 3_739_132_800, hashed: str = "right") -> str:
    """Its text. ``lines``: (NTP second, TAI-UTC). ``expiry``: NTP second. ``hashed``: "right", "" for none, or the words of the hash."""
    text = [f"#$\t {UPDATE}"] + ([f"#@\t{expiry}"] if expiry is not None else []) + ["#", "#NTP Time      DTAI"]
    text += [f"{second}\t{offset}\t# comment 1 Jan" for second, offset in lines]
    if hashed == "right":
        digits = f"{UPDATE}{expiry or ''}" + "".join(f"{second}{offset}" for second, offset in lines)
        found = hashlib.sha1(digits.encode(), usedforsecurity=False).hexdigest()
        hashed = " ".join(found[i : i + 8] for i in range(0, 40, 8))
    return "\n".join([*text, *([f"#h\t{hashed}"] if hashed else [])]) + "\n"
