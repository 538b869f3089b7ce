"""Updates of a Raspberry Pi, whose firmware is played by the harness: it reads autoboot.txt as that does. In this order, one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from machine import Machine
from updates import Updates, kept, left, refused, served, start

from ppsd import version

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def updates(new_machine: Callable[..., Machine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Updates]:
    """Those of a box that has answered and can be logged in to."""
    box = new_machine("virt")
    start(box)
    with served(box, tmp_path_factory.mktemp("updates")) as found:
        yield found


def test_what_is_not_ours_is_refused(updates: Updates) -> None:
    """Another machine's, and another key's: a sentence each, and nothing is changed."""
    assert "it is for mips, and this box is arm64; nothing was changed" in refused(updates.box, updates.make("other", compatible="mips"))
    assert "its signature is not by the key that this box believes" in refused(updates.box, updates.forge("forged"))


def test_a_good_version_is_kept(updates: Updates) -> None:
    """The firmware starts slot b from then on, with the kernel's command line of slot b."""
    told = kept(updates.box, updates.make("good", root=True, number=version()), "b")
    assert f"Last update: version {version()} (good) in slot b has answered and is in use" in told


def test_a_version_that_does_not_start_is_left_by_itself(updates: Updates) -> None:
    """/init counts three starts, sends the firmware back, and the owner reads why, and what cannot be caught here."""
    told = left(updates.box, updates.make("broken"), "b")
    assert "Last update: version 99.0 (broken) in slot a was left" in told
    assert "When its kernel does not start at all, nothing can leave it" in told
