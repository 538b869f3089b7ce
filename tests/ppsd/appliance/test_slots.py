"""The slots: a new version is tried, kept when it answers, and left when it does not."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slotted import AUTOBOOT, GRUB, MEMORY, PARTITIONS, REACHED, TRIAL, TRIAL_FILE, Box

from ppsd.appliance.loader import lines, on_trial
from ppsd.appliance.slots import (
    GRUB_BLOCK,
    TRIES,
    Attempt,
    Choice,
    Loader,
    Memory,
    Outcome,
    Slot,
    autoboot,
    grub_block,
    memory,
    read_autoboot,
    read_grub_block,
    trial_file,
)
from ppsd.cli.slots import backend
from ppsd.cli.update import confirm

CHOICES = st.builds(
    lambda usual, trial, left: Choice(usual, usual.other if trial else None, left if trial else 0),
    st.sampled_from(Slot),
    st.booleans(),
    st.integers(0, 3),
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)

pytestmark = pytest.mark.device


def install(box: Box, version: str = "0.2.0") -> Slot:
    """What `refclock update` leaves behind, without RAUC's writing."""
    slot = box.slots.running.other
    box.slots.attempt(slot)
    box.slots.remember(replace(box.slots.known().with_version(slot, version), attempt=Attempt(slot, version, box.slots.boot_id())))
    return slot


def good(box: Box, version: str, why: str = "") -> str:
    """What refclock-good.service prints; ``why``: the query is never answered."""
    out, seconds = io.StringIO(), iter(range(0, 10**6, 100))
    confirm(box.slots, version, ask=lambda: why, run=box.run, out=out, clock=lambda: next(seconds), sleep=lambda _: None)
    return out.getvalue()


def told(box: Box, version: str = "0.1.0") -> str:
    """The lines of `update --status` and of STATUS.txt."""
    return "\n".join(lines(box, box.run, version))


@pytest.fixture(params=Loader)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Box:
    """A box of each kind."""
    return Box(tmp_path, request.param)


def test_a_version_that_answers_is_kept(box: Box) -> None:
    """It is tried once the box restarts; when it has answered, every later start uses it, and the status says so."""
    good(box, "0.1.0")
    assert install(box) is Slot.B
    assert "tried at the next restart" in told(box)
    assert box.restart(tryboot=True) is Slot.B
    assert on_trial(box, box.run)
    assert "on trial" in told(box, "0.2.0")
    assert "has answered" in good(box, "0.2.0")
    assert not on_trial(box, box.run)
    assert [box.restart() for _ in range(5)] == [Slot.B] * 5
    assert "version 0.2.0 in slot b (the usual one)" in told(box, "0.2.0")
    assert "Other slot: a, version 0.1.0; it has answered before" in told(box, "0.2.0")
    assert not box.path(TRIAL).exists()
    assert not box.path(TRIAL_FILE).exists()


def test_a_version_that_does_not_answer_is_left(box: Box) -> None:
    """After minutes without an answer the box restarts with the version before, and says what was wrong."""
    good(box, "0.1.0")
    install(box)
    box.restart(tryboot=True)
    said = good(box, "0.2.0", "127.0.0.1:123: nothing listens there")
    assert "is left" in said
    assert box.words[-1] == ["systemctl", "reboot"]
    assert [box.restart() for _ in range(3)] == [Slot.A] * 3
    assert "version 0.2.0 in slot b was left: its services did not answer an NTP query in 300 s (127.0.0.1:123: nothing listens" in told(
        box
    )
    good(box, "0.1.0")
    assert "was left: its services did not" in told(box)
    assert not on_trial(box, box.run)


def test_a_version_that_says_nothing_is_left_by_the_boot_loader(box: Box) -> None:
    """A version that crashes at each start is started as often as the loader can count, and never again."""
    good(box, "0.1.0")
    install(box)
    starts = [box.restart(tryboot=number == 0) for number in range(6)]
    tries = TRIES[box.slots.loader]
    assert starts == [Slot.B] * tries + [Slot.A] * (6 - tries)
    said = good(box, "0.1.0")
    assert "the update to version 0.2.0 was left" in said
    came_up = "its kernel came up" in said  # /init wrote that down; GRUB's part of this play has no /init
    assert came_up or "its kernel did not come up" in said
    assert [box.restart() for _ in range(3)] == [Slot.A] * 3
    assert not box.path(TRIAL).exists()


def test_a_version_whose_services_hang_is_named_so(box: Box) -> None:
    """The timer that ends a trial writes down how far it came, and the version before tells it."""
    good(box, "0.1.0")
    install(box)
    box.restart(tryboot=True)
    box.put(REACHED, b"system\n")
    while box.restart() is Slot.B:
        pass
    box.put(REACHED, b"system\n")
    assert "did not answer an NTP query within minutes" in good(box, "0.1.0")


def test_an_update_is_not_judged_before_the_restart(box: Box) -> None:
    """When the services restart after an update was written and before the box does, the update still waits for its trial."""
    good(box, "0.1.0")
    install(box)
    good(box, "0.1.0")
    assert "tried at the next restart" in told(box)
    assert box.restart(tryboot=True) is Slot.B


def test_without_the_data_partition_the_slots_still_work(box: Box) -> None:
    """A data partition that was made anew, or nonsense in its files, costs the history alone."""
    install(box)
    box.restart(tryboot=True)
    box.put(MEMORY, b"\0\xff{")
    box.path(TRIAL).unlink()
    assert "has answered" in good(box, "0.2.0")
    assert box.restart() is Slot.B
    assert "version 0.2.0 in slot b has answered" in told(box, "0.2.0")


def test_a_power_cut_between_the_two_files_is_made_up_for(box: Box) -> None:
    """The boot loader was told that the version is good, and the power failed before that was remembered."""
    good(box, "0.1.0")
    install(box)
    box.restart(tryboot=True)
    box.slots.choose(Choice(Slot.B))
    box.restart()
    good(box, "0.2.0")
    assert "has answered and is in use" in told(box, "0.2.0")


def test_a_power_cut_right_after_the_boot_loader_was_told(tmp_path: Path) -> None:
    """RAUC has told the boot loader, and the power failed before the update was written down: it is tried, and left, as any other."""
    for loader in (Loader.GRUB, Loader.COUNTER):
        box = Box(tmp_path / loader, loader)
        good(box, "0.1.0")
        backend(box, box.run, "set-primary", "b", None)
        starts = [box.restart() for _ in range(5)]
        assert starts == [Slot.B] * 3 + [Slot.A] * 2
        assert "was left" in good(box, "0.1.0")
        assert "in slot b was left" in told(box)
        assert backend(box, box.run, "get-primary", None, None) == "a\n"


def test_rauc_gets_its_answers(box: Box) -> None:
    """RAUC marks the other slot bad before it writes, makes it the next one afterwards, and a slot that it gives up is not tried."""
    good(box, "0.1.0")

    def ask(*words: str) -> str:
        return backend(box, box.run, words[0], *(*words[1:], None, None)[:2]).strip()

    assert (ask("get-current"), ask("get-primary"), ask("get-state", "a"), ask("get-state", "b")) == ("a", "a", "good", "bad")
    ask("set-state", "b", "bad")
    ask("set-primary", "b")
    assert (ask("get-primary"), ask("get-state", "b")) == (("a" if box.slots.loader is Loader.TRYBOOT else "b"), "bad")
    ask("set-state", "b", "bad")
    assert ask("get-primary") == "a"
    assert box.restart() is Slot.A


def test_the_owner_is_told_what_cannot_be_caught(tmp_path: Path) -> None:
    """Where /init counts, a kernel that does not start is not left by itself: the status says so, and what to do then."""
    assert "autoboot.txt set boot_partition back" in (install(box := Box(tmp_path, Loader.COUNTER)) and told(box))


def test_a_machine_without_slots_has_nothing_to_tell(tmp_path: Path) -> None:
    """Not the image: no lines, and no trial."""
    box = Box(tmp_path, Loader.GRUB)
    box.put("/proc/cmdline", b"root=/dev/sda1 ro\n")
    assert told(box) == ""
    assert not on_trial(box, box.run)


@given(CHOICES)
def test_the_files_say_what_was_chosen(choice: Choice) -> None:
    """Every choice reads back, from GRUB's block and from the firmware's files; the block has the size that GRUB demands."""
    block = grub_block(choice)
    assert len(block) == GRUB_BLOCK
    assert read_grub_block(block) == choice
    text, trial = autoboot(choice, Loader.COUNTER, PARTITIONS), trial_file(choice, PARTITIONS)
    assert read_autoboot(text.decode(), (trial or b"").decode(), PARTITIONS) == choice
    assert read_autoboot(autoboot(choice, Loader.TRYBOOT, PARTITIONS).decode(), "", PARTITIONS) == Choice(choice.usual)


@given(st.binary(max_size=1100), TEXT, TEXT)
def test_nonsense_in_the_files_is_slot_a(block: bytes, file: str, trial: str) -> None:
    """A file that a worn card has spoilt never raises."""
    assert isinstance(read_grub_block(block), Choice)
    assert isinstance(read_autoboot(file, trial, PARTITIONS), Choice)
    assert isinstance(memory(file), Memory)


@given(st.sets(st.sampled_from(Slot)), TEXT, st.sampled_from(Outcome))
def test_the_memory_reads_back(kept: set[Slot], word: str, outcome: Outcome) -> None:
    """What is remembered survives the file."""
    known = Memory(tuple(sorted(kept)), {Slot.A: word}, Attempt(Slot.B, word, word, outcome, word))
    assert memory(known.to_json()) == known
    assert memory(replace(known, attempt=None).to_json()) == replace(known, attempt=None)


@pytest.mark.skipif(shutil.which("grub-editenv") is None, reason="install grub-common")
def test_grub_and_we_read_each_other(tmp_path: Path) -> None:
    """grub-editenv(1) lists what we wrote, and we read what it wrote."""
    file = tmp_path / "grubenv"
    file.write_bytes(grub_block(Choice(Slot.A, Slot.B, 3)))
    listed = subprocess.run(["grub-editenv", file, "list"], capture_output=True, text=True, check=True).stdout
    assert listed.split() == ["slot=a", "trial=b", "left=3"]
    subprocess.run(["grub-editenv", file, "set", "left=2"], check=True)
    assert read_grub_block(file.read_bytes()) == Choice(Slot.A, Slot.B, 2)


def test_the_pc_and_the_pi_are_told_apart(tmp_path: Path) -> None:
    """The kind of boot loader follows from what is there."""
    for loader in Loader:
        box = Box(tmp_path / loader, loader)
        assert box.slots.loader is loader
        assert box.path(GRUB if loader is Loader.GRUB else AUTOBOOT).exists()
