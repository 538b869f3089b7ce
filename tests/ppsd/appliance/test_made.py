"""ppsd.appliance.made: a boot that finds everything as it was repeats what the last one made, and no other does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from appliance_tree import KEY, Appliance

from ppsd.appliance.made import MADE, Machine, remembered

BOX = f"""[system]
hostname = "clock7"
ssh_keys = ["{KEY}"]
[network]
address = ["192.168.1.5/24"]
[wifi]
ssid = "x"
passphrase = "12345678"
country = "DE"
"""


@pytest.fixture
def appliance(tmp_path: Path) -> Appliance:
    made = Appliance(tmp_path)
    made.card(BOX)
    made.boot()
    return made


def files(root: Path) -> dict[str, tuple[bytes, int]]:
    """Content and mode of every file that a boot makes in memory."""
    there = [path for place in ("run", "root", "etc") for path in (root / place).rglob("*") if path.is_file()]
    told = {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode) for path in there}
    return {name: what for name, what in told.items() if name not in ("run/refclock-box/words", "run/refclock-box/mistakes")}


def test_a_repeated_boot_makes_the_same(appliance: Appliance) -> None:
    """Every file with its content and mode, the name of the machine, and no more."""
    appliance.boot()
    before, ran = files(appliance.root), list(appliance.ran)
    appliance.forget()
    appliance.ran.clear()
    made = remembered(appliance.root)
    assert made is not None
    assert not Machine(appliance.root, appliance.run).carry_out(made)
    assert files(appliance.root) == before
    assert [words for words in appliance.ran if words[0] == "hostname"] == [words for words in ran if words[0] == "hostname"][-1:]


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.card(BOX.replace("clock7", "clock8")),
        lambda a: a.card("[clock]\n", "refclock.toml"),
        lambda a: (a.root / "boot/refclock/box.toml").unlink(),
        lambda a: a.card("", "box.toml.txt"),
        lambda a: a.write("data/etc/refclock/refclock.toml", "[clock]\n"),
        lambda a: a.write("data/etc/refclock/keys", "1 AES128 HEX:00\n"),
        lambda a: a.write("data/box/box.toml", ""),
        lambda a: a.write("data/box/seen/box.toml", ""),
        lambda a: a.write("usr/share/refclock/appliance/box.toml", ""),
        lambda a: a.write("usr/lib/systemd/system/refclock-clock.service.d/20-box.conf", ""),
        lambda a: a.write("data/box/made.json", "{"),
        lambda a: a.write("data/box/made.json", "[]"),
        lambda a: a.write("data/box/made.json", a.text("data/box/made.json").replace('"hostname": "clock7"', '"host": 1')),
        lambda a: (a.root / "data/box/made.json").unlink(),
    ],
)
def test_whatever_has_changed_is_read_anew(appliance: Appliance, change: Callable[[Appliance], object]) -> None:
    """An edit on the card or by a tool, another version's defaults, a new key, a damaged memory."""
    appliance.boot()
    assert remembered(appliance.root) is not None
    change(appliance)
    assert remembered(appliance.root) is None


def test_a_boot_with_a_mistake_is_not_repeated(appliance: Appliance) -> None:
    """The owner is told at every boot."""
    appliance.card("[wify]\n")
    appliance.boot()
    assert remembered(appliance.root) is None


def test_the_memory_is_for_root_alone(appliance: Appliance) -> None:
    """It has the key of the wireless network."""
    path = appliance.root / MADE.lstrip("/")
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.device
def test_a_repeated_boot_loads_nothing_of_the_configuration() -> None:
    """What makes it worth while: none of the modules that read and judge."""
    code = "import sys, ppsd.cli.box, ppsd.appliance.made; print(*sorted(m for m in sys.modules if m.startswith(('ppsd', 'refclock'))))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    loaded = {name for name in told if name.count(".") > 1 or name.startswith("refclock.")}
    assert loaded <= {
        *("ppsd.appliance.boot", "ppsd.appliance.made", "ppsd.cli.box", "ppsd.config.contents", "ppsd.process.exit_codes"),
        *("refclock.errors", "refclock.kernel", "refclock.kernel.files"),
    }
