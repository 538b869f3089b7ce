"""The boot loader's files and what is remembered of the slots, on the machine: reads, judges by ``ppsd.appliance.slots``, writes.

The boot loader's choice is on the FAT partition bootcfg, the memory on the data partition. The choice is written first: after a power cut
between the two the memory is made up for at the next start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ppsd.appliance.boot import BOOTCFG, TRIAL, Command, booted_slot, replace, writable
from ppsd.appliance.slots import (
    TRIES,
    Choice,
    Judgement,
    Loader,
    Memory,
    Slot,
    autoboot,
    grub_block,
    judge,
    memory,
    read_autoboot,
    read_grub_block,
    trial_file,
)
from refclock.kernel.files import owners, replace_file
from refclock.kernel.host import Host

UPDATES: Final = "/data/update"
"""Directory of the data partition for downloads and the memory."""
MEMORY: Final = f"{UPDATES}/slots.json"
REACHED: Final = f"{UPDATES}/reached"
"""How far the version on trial came (``slots.REACHED``)."""
GRUB: Final = f"{BOOTCFG}/grub/grubenv"
AUTOBOOT: Final = f"{BOOTCFG}/autoboot.txt"
TRIAL_FILE: Final = f"{BOOTCFG}/trial.txt"
MAILBOX: Final = "/dev/vcio"
"""Made by kernels that can ask the Raspberry Pi's firmware for a trial (drivers/char/broadcom/vcio.c of Raspberry Pi's own kernel)."""
CAN_TRY: Final = ("Raspberry Pi 4", "Raspberry Pi 5", "Raspberry Pi Compute Module 4", "Raspberry Pi Compute Module 5")
"""Models whose firmware does it (/proc/device-tree/model)."""


class Slots:
    """The slots of ``host``. ``run`` runs its programs. OSError: a file cannot be read or written, or this is not the image."""

    def __init__(self, host: Host, run: Command) -> None:
        self._host, self._run = host, run

    @property
    def loader(self) -> Loader:
        """How this machine tries a slot."""
        if self._host.path(GRUB).exists():
            return Loader.GRUB
        model = self._host.text("/proc/device-tree/model") or ""
        return Loader.TRYBOOT if self._host.path(MAILBOX).exists() and model.startswith(CAN_TRY) else Loader.COUNTER

    @property
    def running(self) -> Slot:
        """The slot that runs."""
        if not (name := booted_slot(self._host)):
            raise OSError("this machine does not run the refclock image, so there are no slots to update; use its package manager")
        return Slot(name)

    def device(self, kind: str, slot: Slot) -> str:
        """The partition ``kind`` ("boot", "root") of a slot."""
        return self._host.target(f"/dev/disk/by-partlabel/{kind}_{slot}")

    def choice(self) -> Choice:
        """What the boot loader has been told."""
        if self.loader is Loader.GRUB:
            return read_grub_block(self._host.path(GRUB).read_bytes())
        return read_autoboot(self._host.text(AUTOBOOT) or "", self._host.text(TRIAL_FILE) or "", self._partitions())

    def choose(self, choice: Choice) -> None:
        """Tell the boot loader."""
        mark = self._host.path(TRIAL)
        if choice.trial is not None:
            self._host.path(REACHED).unlink(missing_ok=True)
            self._keep(mark, f"refclock.slot={choice.trial}\n")
        if self.loader is Loader.GRUB:
            with writable(self._host.path(BOOTCFG), self._run):
                replace(self._host.path(GRUB), grub_block(choice), self._run)
        else:
            partitions = self._partitions()
            trial = trial_file(choice, partitions) if self.loader is Loader.COUNTER else None
            counter = self._host.path(TRIAL_FILE)
            if trial is not None:  # before the firmware is sent there, so that the first start counts
                replace(counter, trial, self._run)
            replace(self._host.path(AUTOBOOT), autoboot(choice, self.loader, partitions), self._run)
            if trial is None and counter.exists():
                with writable(counter.parent, self._run):
                    counter.unlink()
        if choice.trial is None:
            mark.unlink(missing_ok=True)

    def attempt(self, slot: Slot) -> None:
        """Start ``slot`` next: on trial, when it is not the usual one."""
        usual = self.choice().usual
        self.choose(Choice(usual) if slot is usual else Choice(usual, slot, TRIES[self.loader]))

    def known(self) -> Memory:
        """What is remembered."""
        return memory(self._host.text(MEMORY) or "")

    def remember(self, known: Memory) -> None:
        """Keep it."""
        if known != self.known():
            self._keep(self._host.path(MEMORY), known.to_json())

    def boot_id(self) -> str:
        """The kernel's name of this boot (random(4))."""
        return self._host.text("/proc/sys/kernel/random/boot_id") or ""

    def judge(self, silence: str | None, version: str) -> Judgement:
        """Judge, and write what follows. ``version`` is the one that runs; ``silence`` as in ``slots.judge``."""
        running, choice = self.running, self.choice()
        known = self.known().with_version(running, version)
        judgement = judge(running, choice, known, boot=self.boot_id(), reached=self._host.text(REACHED) or "", silence=silence)
        if judgement.choice != choice or (judgement.choice.trial is None and self._host.path(TRIAL).exists()):
            self.choose(judgement.choice)
        self.remember(judgement.memory)
        return judgement

    def _partitions(self) -> dict[Slot, int]:
        found = {}
        for slot in Slot:
            name = self.device("boot", slot).rpartition("/")[2]
            number = self._host.number(f"/sys/class/block/{name}/partition")
            if number is None:
                raise OSError(f"the partition boot_{slot} is not there: the card was partitioned otherwise; write the image to it anew")
            found[slot] = number
        return found

    def _keep(self, path: Path, text: str) -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(path, text.encode(), 0o644, owners())


def on_trial(host: Host, run: Command) -> bool:
    """Whether the version that runs has still to show that it answers."""
    try:
        slots = Slots(host, run)
        return slots.running is not slots.choice().usual
    except OSError:
        return False


def lines(host: Host, run: Command, version: str) -> list[str]:
    """For people: which slot runs, which is good, what was tried last and what came of it. Empty where there are no slots."""
    slots = Slots(host, run)
    try:
        running, choice, known = slots.running, slots.choice(), slots.known()
    except OSError:
        return []
    state = "on trial until it has answered an NTP query" if running is not choice.usual else "the usual one"
    told = [f"Running: version {version} in slot {running} ({state})."]
    other = known.versions.get(running.other)
    kept = f"version {other}" if other else "half an update" if other == "" else "what the image brought"
    judged = "has answered before" if running.other in known.good else "has not answered yet"
    told.append(f"Other slot: {running.other}, {kept}; it {judged}.")
    if (attempt := known.attempt) is None:
        ended = f"Last update: it ended while slot {running.other} was written; that slot is not started. Run the command again."
        return [*told, ended if other == "" else "Updates: none yet."]
    match attempt.outcome.value:
        case "good":
            told.append(f"Last update: version {attempt.version} in slot {attempt.slot} has answered and is in use.")
        case "left":
            told.append(f"Last update: version {attempt.version} in slot {attempt.slot} was left: {attempt.why}.")
        case _ if attempt.boot == slots.boot_id() and running is not attempt.slot:
            told.append(f"Last update: version {attempt.version} is in slot {attempt.slot} and is tried at the next restart.")
        case _:
            told.append(f"Last update: version {attempt.version} in slot {attempt.slot} has yet to answer.")
    if slots.loader is Loader.COUNTER:
        told.append(BLIND_SPOT)
    return told


BLIND_SPOT: Final = (
    "Here a new version is left by itself when it starts but does not serve. When its kernel does not start at all, nothing can leave it:"
    " then put the card into a computer, and in autoboot.txt set boot_partition back to the number in trial.txt (back_partition)."
)
