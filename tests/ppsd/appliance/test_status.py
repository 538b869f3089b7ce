"""ppsd.appliance.status: the box in plain words, on the card and on the terminal."""

from __future__ import annotations

from pathlib import Path

from appliance_tree import KEY, Appliance

from ppsd.appliance.boot import replace
from ppsd.appliance.status import HEADER_PINS, status_text
from refclock.kernel.interfaces import Network


def test_the_owner_reads_where_the_box_is_and_what_is_wrong(tmp_path: Path) -> None:
    """Name, addresses, who may log in, and each mistake with file and line: all that is needed without a screen."""
    appliance = Appliance(tmp_path)
    appliance.card(f'[system]\nhostname = "clock7"\nssh_keys = ["{KEY}"]\n[pins]\npps = 4\n')
    appliance.boot()
    appliance.card("[network]\n", "refclock.toml")
    applied = appliance.boot()
    text = status_text(applied, "refclock 1.2, slot A, on: a board", [Network("192.168.1.5/24", "end0")], ["version 1.1 is in slot B"])
    for words in (
        "refclock 1.2, slot A, on: a board\nversion 1.1 is in slot B\n",
        "name       clock7.local\n",
        "addresses  192.168.1.5/24 (end0)\n",
        "serves     NTP on port 123\n",
        "login      ssh root@clock7.local, with 1 key of box.toml\n",
        "wireless   off\n",
        "pulse on GPIO 4 (header pin 7)",
        "refclock.toml: the card's file has mistakes; the last good one stays in force\n",
        "1 mistake; correct and restart:\n  refclock.toml:1: network: unknown table or key; it belongs into box.toml\n",
    ):
        assert words in text, text


def test_a_file_that_no_longer_steers_the_clock_is_told(tmp_path: Path) -> None:
    """Whoever writes refclock.toml anew may not know that the flashed one steered the box's own clock."""
    appliance = Appliance(tmp_path)
    assert "own clock  follows the receiver\n" in status_text(appliance.boot(), "", [], [])
    appliance.card('[access]\nallow = ["own"]\n', "refclock.toml")
    assert 'own clock  is left alone; to have it follow the receiver: steer = "kernel"' in status_text(appliance.boot(), "", [], [])


def test_a_usual_boot_has_the_same_words(tmp_path: Path) -> None:
    """So it writes nothing to the card."""
    appliance = Appliance(tmp_path)
    told = [status_text(appliance.boot(), "", [], []) for _ in range(2)]
    told.append(status_text(appliance.box().look(), "", [], []))
    assert len(set(told)) == 1
    assert "No mistakes" in told[0]


def test_no_word_steers_a_terminal(tmp_path: Path) -> None:
    """A name of a network can be any text."""
    appliance = Appliance(tmp_path)
    appliance.card('["\\u001b[31m"]\n')
    text = status_text(appliance.boot(), "", [], [])
    assert "\x1b" not in text
    assert "\\x1b" in text


def test_header_pins_are_those_of_the_board() -> None:
    """Each GPIO number has a pin of its own; the well-known ones are right."""
    assert len(set(HEADER_PINS)) == len(HEADER_PINS) == 28
    assert [HEADER_PINS[gpio] for gpio in (4, 14, 15, 18, 21)] == [7, 8, 10, 12, 40]


def test_status_is_a_file_that_windows_shows(tmp_path: Path) -> None:
    """Its lines end as Notepad wants them."""
    appliance = Appliance(tmp_path)
    appliance.box().write_status("one\ntwo\n")
    path = tmp_path / "boot/refclock/STATUS.txt"
    assert path.read_bytes() == b"one\r\ntwo\r\n"
    assert not replace(path, b"one\r\ntwo\r\n", appliance.run)
