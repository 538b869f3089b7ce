"""Updates of a PC with a real GRUB, on one machine in this order: wrong ones, a power cut, one that does not start, a good one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from machine import Machine
from updates import WRITTEN_S, Updates, begin, judged, kept, left, on_the_card, refused, served, start

from ppsd import version

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def updates(new_machine: Callable[..., Machine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Updates]:
    """Those of a box that has answered and can be logged in to."""
    box = new_machine("pc")
    start(box)
    with served(box, tmp_path_factory.mktemp("updates")) as found:
        yield found


@pytest.fixture(scope="module")
def box(updates: Updates) -> Machine:
    return updates.box


@pytest.fixture(scope="module")
def good(updates: Updates) -> str:
    return updates.make("good", root=True, number=version())


def test_a_new_box_says_which_slot_it_runs(box: Machine) -> None:
    """Slot a, the usual one, never updated; STATUS.txt on the card says the same."""
    assert "Updates: none yet" in judged(box, f"Running: version {version()} in slot a (the usual one)")
    on_the_card(box, "in slot a (the usual one)")


def test_what_is_not_ours_is_refused(box: Machine, updates: Updates) -> None:
    """Another machine's, and another key's: a sentence each, and nothing is changed."""
    assert "it is for mips, and this box is amd64; nothing was changed" in refused(box, updates.make("other", compatible="mips"))
    assert "its signature is not by the key that this box believes" in refused(box, updates.forge("forged"))


def test_the_power_fails_while_an_update_is_written(box: Machine, good: str) -> None:
    """The version that ran starts again and serves; half an update is not started."""
    begin(box, good)
    box.wait_for(lambda: "copying image" in box.run("cat /run/update.log", check=False), WRITTEN_S, "nothing is written")
    box.cut_power()
    start(box)
    assert "in slot a (the usual one)" in judged(box, "Last update: it ended while slot b was written; that slot is not started")


def test_a_version_that_does_not_start_is_left_by_itself(box: Machine, updates: Updates) -> None:
    """GRUB tries it three times; then the version before runs again, and the owner reads why, also on the card."""
    assert "Last update: version 99.0 (broken) in slot b was left" in left(box, updates.make("broken"), "a")
    on_the_card(box, "99.0 (broken) in slot b was left")


def test_a_good_version_is_kept(box: Machine, good: str) -> None:
    """It answers, so it is the usual one from then on; what was in the other slot stays as the way back."""
    told = kept(box, good, "b")
    assert f"Last update: version {version()} (good) in slot b has answered and is in use" in told
    assert f"Other slot: a, version {version()}; it has answered before" in told
