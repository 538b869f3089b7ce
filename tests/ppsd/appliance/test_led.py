"""ppsd.appliance.led: the state of the server as blinks of the board's light."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppsd.appliance.led import MISTAKE, PATTERNS, Light, blinks, light
from ppsd.snapshot import Verdict
from refclock.kernel.host import Host

PI = "Raspberry Pi 4 Model B Rev 1.4\0"


def machine(root: Path, model: str, *names: str) -> Host:
    """A machine of that model with these lights."""
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/device-tree/model").write_text(model, encoding="utf-8")
    for name in names:
        (root / "sys/class/leds" / name).mkdir(parents=True)
        for file, text in (("trigger", "[mmc0] none"), ("brightness", "0"), ("max_brightness", "255")):
            (root / "sys/class/leds" / name / file).write_text(text, encoding="utf-8")
    return Host(root)


@pytest.mark.parametrize(
    "names",
    [
        ("ACT", "PWR", "mmc0::"),
        ("led0", "led1"),
        ("PWR", "ACT", "unimac-mdio--19:01:amber:lan", "unimac-mdio--19:01:green:lan"),
        ("green:activity", "red:power"),
        ("green:act", "red:power", "default-on"),
        ("act", "input0::capslock"),
        ("rpi:green:status", "rpi:red:power"),
    ],
)
def test_the_green_light_of_a_raspberry_pi_is_found_by_any_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Kernels have called it ACT, led0 and by colour and function; the red one, the network's and the keyboard's are left alone."""
    found = light(machine(tmp_path, PI, *names), "auto")
    assert found.rpartition("/")[2] in {"ACT", "led0", "green:activity", "green:act", "act", "rpi:green:status"}


def test_a_pc_keeps_its_lights(tmp_path: Path) -> None:
    """Nobody wants a keyboard or a network card to blink; who names a light means it."""
    pc = machine(tmp_path, "some PC", "input3::capslock", "ACT", "enp1s0:green:activity")
    assert light(pc, "auto") == ""
    assert light(pc, "off") == ""
    assert light(pc, "input3::capslock") == "/sys/class/leds/input3::capslock"
    assert light(pc, "input9::capslock") == ""


def test_every_state_has_a_pattern_of_its_own_and_none_stands_still() -> None:
    """A person tells them apart, and tells a program that has ended from each of them."""
    shown = [*PATTERNS.values(), MISTAKE]
    assert PATTERNS.keys() == set(Verdict)
    assert len(set(shown)) == len(shown)
    assert all(len(pattern) >= 2 and len(pattern) % 2 == 0 for pattern in shown)
    lit = {name: sum(pattern[::2]) / sum(pattern) for name, pattern in PATTERNS.items()}
    assert lit[Verdict.LOCKED] > 0.9
    assert lit[Verdict.HOLDOVER] < 0.2


@pytest.mark.parametrize("verdict", [*Verdict, "a state of a later version"])
def test_the_state_is_looked_at_again_within_seconds(verdict: str) -> None:
    """A change is seen soon; a mistake in a file is shown beside the state, not instead of it."""
    plain, mistaken = list(blinks(verdict, False)), list(blinks(verdict, True))
    assert 1 <= sum(seconds for _, seconds in plain) <= 2.5
    assert sum(seconds for _, seconds in mistaken) <= 10
    assert mistaken[-len(MISTAKE) :] == [(index % 2 == 0, ms / 1000) for index, ms in enumerate(MISTAKE)]
    assert mistaken[: len(plain)] == plain


def test_a_light_is_taken_from_the_kernel_and_moved(tmp_path: Path) -> None:
    """What moved it before (the card's activity) stops."""
    shown = Light(machine(tmp_path, PI, "ACT"), "/sys/class/leds/ACT")
    there = tmp_path / "sys/class/leds/ACT"
    assert (there / "trigger").read_text(encoding="utf-8") == "none"
    shown.turn(True)
    assert (there / "brightness").read_text(encoding="utf-8") == "255"
    shown.turn(False)
    assert (there / "brightness").read_text(encoding="utf-8") == "0"
