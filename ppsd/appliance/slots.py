"""The two slots, and what the boot loader is told about them: decisions and file formats alone, no file is touched.

A slot is a pair of partitions, boot and root. One is started as usual. An update is written into the other one, and that is started on
trial: a few times at most, and the boot loader goes back to the usual one by itself. When the new version has answered an NTP query of its
own, it becomes the usual one. Three boot loaders can do it (``Loader``):

* GRUB counts in its environment block, before it starts a kernel.
* The firmware of a Raspberry Pi 4, 5 and their modules starts another partition once ("tryboot"), if the kernel can ask for it.
* Elsewhere /init counts, which the *new* kernel starts: a kernel that does not come up at all is not left by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final


class Slot(StrEnum):
    """A slot's name, as on the kernel's command line (refclock.slot) and in the names of its partitions."""

    A = "a"
    B = "b"

    @property
    def other(self) -> Slot:
        """The slot beside it."""
        return Slot.B if self is Slot.A else Slot.A


class Loader(StrEnum):
    """How a slot is started on trial."""

    GRUB = "grub"
    TRYBOOT = "tryboot"
    COUNTER = "counter"


TRIES: Final = {Loader.GRUB: 3, Loader.TRYBOOT: 1, Loader.COUNTER: 3}
"""Starts of a new version before it is given up. More than one where the loader can count: one may end by a power cut."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the boot loader does. ``usual``: the slot that it starts. ``trial``: the one that it starts instead, ``left`` more times."""

    usual: Slot
    trial: Slot | None = None
    left: int = 0


# ---- what happened ---------------------------------------------------------------------------------------------------------------------


class Outcome(StrEnum):
    """What became of an update."""

    INSTALLED = "installed"
    GOOD = "good"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last update: its ``version``, the ``slot`` it was written to, the ``boot`` (boot_id) in which that was done. ``why``: a sentence
    part, why it was left."""

    slot: Slot
    version: str
    boot: str
    outcome: Outcome = Outcome.INSTALLED
    why: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the data partition keeps. ``good``: slots that have answered an NTP query. ``versions``: of what is in the slots, "" for an
    update that was begun and not finished."""

    good: tuple[Slot, ...] = ()
    versions: Mapping[Slot, str] = field(default_factory=dict)
    attempt: Attempt | None = None

    def with_good(self, slot: Slot, good: bool) -> Memory:
        """The same with another judgement of ``slot``."""
        return replace(self, good=tuple(sorted({*self.good} | {slot} if good else {*self.good} - {slot})))

    def with_version(self, slot: Slot, version: str) -> Memory:
        """The same after ``version`` was written to, or runs in, ``slot``."""
        return replace(self, versions={**self.versions, slot: version})

    def to_json(self) -> str:
        """As text, for ``memory``."""
        return json.dumps(asdict(self), indent=1)


def memory(text: str) -> Memory:
    """Read what ``Memory.to_json`` wrote. Anything else is an empty memory: the boot loader's choice says the rest."""
    try:
        told = json.loads(text)
        attempt = told["attempt"]
        versions = {Slot(slot): str(version) for slot, version in told["versions"].items()}
        made = attempt and Attempt(
            Slot(attempt["slot"]), str(attempt["version"]), str(attempt["boot"]), Outcome(attempt["outcome"]), str(attempt["why"])
        )
        return Memory(tuple(map(Slot, told["good"])), versions, made or None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Memory()


NEVER_CAME_UP: Final = "its kernel did not come up, or the power failed meanwhile"
REACHED: Final = {
    "kernel": "its kernel came up, but the system did not get as far as its services",
    "system": "its services did not answer an NTP query within minutes",
}
"""How far a version came that is left without a word of its own, by what it wrote down last."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What follows. ``restart``: leave this slot now. ``said``: a sentence for the log; "" when nothing has changed."""

    choice: Choice
    memory: Memory
    restart: bool = False
    said: str = ""


def judge(running: Slot, choice: Choice, known: Memory, *, boot: str, reached: str, silence: str | None) -> Judgement:
    """What the slot that runs makes of it. ``boot``: the present boot_id. ``reached``: what the tried version wrote down last. ``silence``:
    why our own NTP query was not answered, "" when it was, None when it has not been asked."""
    attempt = known.attempt if known.attempt and known.attempt.outcome is Outcome.INSTALLED else None
    if running is not choice.usual:
        version = known.versions.get(running, "?")
        tried = attempt if attempt and attempt.slot is running else Attempt(running, version, "")
        if silence is None:
            return Judgement(choice, known)
        if silence:
            left = replace(tried, outcome=Outcome.LEFT, why=silence)
            said = f"version {tried.version} in slot {running} is left: {silence}; the box restarts with slot {choice.usual}"
            return Judgement(Choice(choice.usual), replace(known.with_good(running, False), attempt=left), True, said)
        good = replace(tried, outcome=Outcome.GOOD)
        said = f"version {tried.version} in slot {running} has answered and is used from now on"
        return Judgement(Choice(running), replace(known.with_good(running, True), attempt=good), False, said)
    said = ""
    gone = attempt if attempt and attempt.slot is not running and attempt.boot != boot else None
    if gone is None and choice.trial is not None and choice.left == 0:  # the power failed before the update was written down
        gone = Attempt(choice.trial, known.versions.get(choice.trial) or "?", "")
    if gone is not None:
        why = REACHED.get(reached, NEVER_CAME_UP)
        known = replace(known.with_good(gone.slot, False), attempt=replace(gone, outcome=Outcome.LEFT, why=why))
        said = f"the update to version {gone.version} was left: {why}; slot {running} runs as before"
        choice = Choice(running)
    elif attempt and attempt.slot is running and silence == "":
        known = replace(known, attempt=replace(attempt, outcome=Outcome.GOOD))
    return Judgement(choice, known.with_good(running, True) if silence == "" else known, False, said)


# ---- GRUB's environment block ----------------------------------------------------------------------------------------------------------

GRUB_BLOCK: Final = 1024
"""Octets; grub-editenv(1) makes and expects this size, and GRUB writes into the file in place."""
_GRUB_HEAD: Final = "# GRUB Environment Block\n"


def grub_block(choice: Choice) -> bytes:
    """The environment block that image/appliance/grub/grub.cfg reads."""
    trial = choice.trial or ""
    text = f"{_GRUB_HEAD}slot={choice.usual}\ntrial={trial}\nleft={choice.left if trial else 0}\n"
    return text.encode().ljust(GRUB_BLOCK, b"#")


def read_grub_block(block: bytes) -> Choice:
    """What a block says. As grub.cfg does, slot a is taken when it says nothing."""
    return _choice(_settings(block.decode("ascii", "replace")), "slot")


# ---- the firmware's autoboot.txt, and the trial that /init counts ------------------------------------------------------------------------


def autoboot(choice: Choice, loader: Loader, partitions: Mapping[Slot, int]) -> bytes:
    """The firmware's file. ``partitions``: the number of each slot's boot partition."""
    if loader is Loader.TRYBOOT:
        other = partitions[choice.usual.other]
        text = f"[all]\ntryboot_a_b=1\nboot_partition={partitions[choice.usual]}\n[tryboot]\nboot_partition={other}\n"
    else:
        text = f"[all]\nboot_partition={partitions[choice.trial or choice.usual]}\n"
    return text.encode()


def trial_file(choice: Choice, partitions: Mapping[Slot, int]) -> bytes | None:
    """The file beside autoboot.txt that image/appliance/initramfs/trial.sh counts in; None: there is no trial."""
    if choice.trial is None:
        return None
    text = f"slot={choice.trial}\nback={choice.usual}\nleft={choice.left}\nback_partition={partitions[choice.usual]}\n"
    return text.encode()


def read_autoboot(file: str, trial: str, partitions: Mapping[Slot, int]) -> Choice:
    """The choice by the texts of autoboot.txt and of the trial's file ("" when there is none)."""
    if trial and (choice := _choice(settings := _settings(trial), "back")).trial and "back" in settings:
        return choice
    everywhere = re.split(r"^\[tryboot\]", file, maxsplit=1, flags=re.MULTILINE)[0]
    number = _settings(everywhere).get("boot_partition", "")
    return Choice(next((slot for slot, partition in partitions.items() if str(partition) == number), Slot.A))


def _settings(text: str) -> dict[str, str]:
    return {key.strip(): value.strip() for key, equals, value in (line.partition("=") for line in text.split("\n")) if equals}


def _choice(settings: Mapping[str, Any], usual: str) -> Choice:
    """The choice by decoded settings; ``usual`` is the key of the usual slot."""
    names = {slot.value: slot for slot in Slot}
    kept = names.get(settings.get(usual, ""), Slot.A)
    trial = names.get(settings.get("trial" if usual == "slot" else "slot", ""))
    left = settings.get("left", "0")
    return (
        Choice(kept, trial, min(int(left), 9) if re.fullmatch(r"[0-9]{1,3}", left) else 0) if trial and trial is not kept else Choice(kept)
    )
