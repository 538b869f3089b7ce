"""The state of the time server as blinks of one light on the board, for whoever stands before it without a screen.

A light that does not blink at all shows nothing: the program that moves it has ended. Between the blinks of the state come those of a
mistake in the owner's files, when there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from refclock.kernel.host import Host

Pattern = tuple[int, ...]
"""Milliseconds: lit, dark, lit, dark ..."""
NO_TIME: Final = "NO TIME"
PATTERNS: Final[dict[str, Pattern]] = {
    "LOCKED": (1900, 100),
    "ACQUIRING": (500, 500),
    "HOLDOVER": (100, 200, 100, 1600),
    "FALLBACK": (1000, 200, 100, 700),
    NO_TIME: (100, 100),
}
"""Of each ``ppsd.snapshot.Verdict``. LOCKED: lit, and dark for an instant every two seconds. ACQUIRING: slow and even. HOLDOVER: two
flashes every two seconds. FALLBACK: lit for a second, then a flash. NO TIME, also without a daemon or a server: quick."""
MISTAKE: Final[Pattern] = (100, 200, 100, 200, 100, 1300)
"""Three flashes, then dark for more than a second."""
WANTED: Final = "/run/refclock-box/led"
"""The light that box.toml names."""
MISTAKES: Final = "/run/refclock-box/mistakes"
"""The mistakes in the owner's files, a line each."""
STATE_MS: Final = 6000
"""ms for which the state is shown between two showings of the mistake."""
_BOARDS: Final = "Raspberry Pi"
"""Beginning of the model of the boards whose light is taken by itself."""
_FUNCTIONS: Final = ("act", "activity", "status", "led0")
"""What kernels call the green light of a Raspberry Pi, alone or after its colour: ACT, led0, green:activity (leds-class.rst). The others
are the red one (PWR), those of the network socket, and those of a card reader."""


def light(host: Host, wanted: str) -> str:
    """The directory of the light to use: ``wanted`` by its name, with "auto" the green one of a Raspberry Pi; "" for none."""
    there = {path.rpartition("/")[2]: path for path in host.names("/sys/class/leds/*")}
    if wanted != "auto":
        return there.get(wanted, "")
    if not (host.text("/proc/device-tree/model") or "").startswith(_BOARDS):
        return ""
    return next((path for name, path in there.items() if _is_usual(name.lower().split(":"))), "")


def _is_usual(parts: Sequence[str]) -> bool:
    return parts[-1] in _FUNCTIONS and (len(parts) == 1 or parts[-2] in ("", "green"))


def blinks(verdict: str, mistake: bool) -> Iterator[tuple[bool, float]]:
    """(whether lit, for how many seconds) for one round of the state; after it comes the next look at the state."""
    pattern = PATTERNS.get(verdict, PATTERNS[NO_TIME])
    rounds = [*[pattern] * (STATE_MS // sum(pattern)), (0, 500), MISTAKE] if mistake else [pattern] * max(1, 2000 // sum(pattern))
    for each in rounds:
        yield from ((index % 2 == 0, ms / 1000) for index, ms in enumerate(each) if ms)


class Light:
    """The light in ``directory``. OSError: it cannot be moved."""

    def __init__(self, host: Host, directory: str) -> None:
        self._brightness = host.path(f"{directory}/brightness")
        self._brightest = str(host.number(f"{directory}/max_brightness") or 1)
        host.path(f"{directory}/trigger").write_text("none", encoding="ascii")

    def turn(self, on: bool) -> None:
        """Lit or dark."""
        self._brightness.write_text(self._brightest if on else "0", encoding="ascii")
