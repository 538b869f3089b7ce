"""Updates: a signed file (a RAUC bundle) becomes the content of the slot that does not run, which is then started on trial.

RAUC checks the signature against the certificate in the image, and writes the partitions. Everything that a person may have done wrong is
found and said before anything is written. Nothing ever writes to the slot that runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ppsd.appliance.boot import BOOTCFG
from ppsd.appliance.download import Progress, download
from ppsd.appliance.loader import UPDATES, Slots
from ppsd.appliance.slots import Attempt, Slot
from ppsd.process.exit_codes import BAD_DATA, FAILED, Refused
from refclock.kernel.host import Host

SYSTEM: Final = "/etc/rauc/system.conf"
DOWNLOADED: Final = "update.raucb"
"""Name of a download below ``UPDATES``."""
_STEP = re.compile(r"^ *(\d{1,3})% (.*?)\.?$")
"""A line of `rauc install`'s progress."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a verified update says of itself. ``sizes``: octets of the image for each kind of partition."""

    file: Path
    compatible: str
    version: str
    build: str
    sizes: Mapping[str, int]

    @property
    def name(self) -> str:
        """Its version, for people."""
        return f"{self.version} ({self.build})" if self.build else self.version


class Rauc:
    """The program rauc(1), called with ``words`` before each command. Refused: what it did not do, in our words, then in its own."""

    def __init__(self, words: Sequence[str] = ("rauc",)) -> None:
        self._words = words

    def look(self, file: Path) -> Bundle:
        """Verify a file and read what it is."""
        done = self._run("info", "--output-format=json", str(file))
        if done.returncode != 0:
            raise Refused(BAD_DATA, f"refclock update: {file}: {_complaint(done.stderr)}")
        try:
            told = json.loads(done.stdout)
            images = [(kind, image) for entry in told["images"] for kind, image in entry.items()]
            sizes = {kind: int(image["size"]) for kind, image in images}
            return Bundle(file, str(told["compatible"]), str(told["version"] or ""), str(told["build"] or ""), sizes)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Refused(BAD_DATA, f"refclock update: {file}: signed, but not made by `make update`; nothing was changed") from None

    def install(self, file: Path, progress: Progress) -> None:
        """Write a file's images to the slot that does not run."""
        words = [*self._words, "install", str(file)]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            last = ""
            for line in process.stdout or ():
                if match := _STEP.match(line.rstrip()):
                    progress(match[2].lower(), int(match[1]))
                elif line.strip():
                    last = line.strip()
        if process.returncode != 0:
            why = last.removeprefix("LastError: ") or "rauc gave no reason"
            remedy = "the other slot is not used until an update succeeds. Run the command again; `journalctl -u rauc` has more"
            raise Refused(FAILED, f"refclock update: {file.name} could not be written: {why}; {remedy}")

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run([*self._words, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise Refused(FAILED, "refclock update: rauc is not here; only the refclock image can be updated in this way") from None


def _complaint(said: str) -> str:
    """What is wrong with a file, from what rauc said of it."""
    last = said.strip().rpartition("\n")[2]
    if "signature verification failed" in said.lower() or "verify error" in said.lower() or "certificate" in said.lower():
        why = "its signature is not by the key that this box believes, so it may be anybody's"
        return f"{why}; nothing was changed. Get the update where the image came from (rauc: {last})"
    if (
        "signature size" in said.lower()
        or "no signature" in said.lower()
        or "invalid bundle" in said.lower()
        or "too small" in said.lower()
    ):
        return f"this is no update, or only a part of one; nothing was changed. Download it again (rauc: {last})"
    return f"it cannot be used; nothing was changed (rauc: {last})"


def numbers(version: str) -> tuple[int, ...]:
    """A version's order: its numbers up to the first part that has none."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, leading[0].split("."))) if leading else ()


class Updater:
    """Updates of the machine ``host``, which runs ``version``. ``progress`` hears of long work.
    ``free`` tells how many octets the disk of a directory has left."""

    def __init__(self, host: Host, slots: Slots, rauc: Rauc, version: str, *, progress: Progress, free: Callable[[Path], int]) -> None:
        self._host, self._slots, self._rauc, self._version = host, slots, rauc, version
        self._progress, self._free = progress, free

    def check(self, source: str, older: bool = False) -> Bundle:
        """Fetch an update, when ``source`` is an address, and tell what it is. Refused: it would not be installed, and why."""
        self._slots.running  # noqa: B018 (OSError: not the image)
        bundle = self._rauc.look(self._fetch(source))
        ours = self._compatible()
        if bundle.compatible != ours:
            theirs, mine = (name.removeprefix("refclock-") for name in (bundle.compatible, ours))
            why = f"it is for {theirs}, and this box is {mine}; nothing was changed"
            raise Refused(FAILED, f"refclock update: {bundle.file}: {why}. Get refclock-{bundle.version}-{mine}.raucb")
        if not older and numbers(bundle.version) < numbers(self._version):
            why = f"version {bundle.version} is older than {self._version}, which runs; nothing was changed"
            raise Refused(FAILED, f"refclock update: {bundle.file}: {why}. If you want it all the same: --older")
        other = self._slots.running.other
        for kind, size in bundle.sizes.items():
            device = self._slots.device(kind, other)
            sectors = self._host.number(f"/sys/class/block/{device.rpartition('/')[2]}/size")
            if sectors is not None and size > sectors * 512:
                why = f"no space: its {kind} has {size >> 20} MB, and the partition {kind}_{other} {sectors * 512 >> 20} MB"
                remedy = "Write the new image to the card instead (`refclock backup` first)"
                raise Refused(FAILED, f"refclock update: {bundle.file}: {why}; nothing was changed. {remedy}")
        return bundle

    def install(self, source: str, older: bool = False) -> Slot:
        """Install an update; returns the slot that is tried at the next restart. Refused: it was not installed, and why."""
        with self._alone():
            running, choice = self._slots.running, self._slots.choice()
            if running is not choice.usual:
                why = f"the version that runs is on trial, and slot {choice.usual} is needed in case that it fails"
                raise Refused(FAILED, f"refclock update: {why}; wait until `refclock update --status` says that it has answered")
            bundle = self.check(source, older)
            other = running.other
            known = self._slots.known()
            self._slots.remember(replace(known.with_good(other, False).with_version(other, ""), attempt=None))
            self._rauc.install(bundle.file, self._progress)
            self._slots.attempt(other)
            attempt = Attempt(other, bundle.name, self._slots.boot_id())
            self._slots.remember(replace(self._slots.known().with_version(other, bundle.name), attempt=attempt))
            self._host.path(f"{UPDATES}/{DOWNLOADED}").unlink(missing_ok=True)
            return other

    def _fetch(self, source: str) -> Path:
        """The file that ``source`` names: an address, a file, or the name of a file on the FAT partition."""
        if "://" in source:
            to = self._host.path(f"{UPDATES}/{DOWNLOADED}")
            return download(source, to, self._progress, self._free)
        places = [Path(source)] if "/" in source else [Path(source), self._host.path(BOOTCFG) / source]
        for file in places:
            if file.is_file():
                return file
        looked = " and ".join(str(place.parent.absolute()) for place in places)
        raise Refused(FAILED, f"refclock update: there is no file {source} (looked in {looked})")

    def _compatible(self) -> str:
        match = re.search(r"^compatible=(.*)$", self._host.text(SYSTEM) or "", re.MULTILINE)
        if match is None:
            raise Refused(FAILED, f"refclock update: {SYSTEM} does not say what this box is; write the image to the card anew")
        return match[1].strip()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one update at a time."""
        directory = self._host.path(UPDATES)
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Refused(FAILED, "refclock update: another update is being installed; wait for it") from None
        finally:
            os.close(fd)


def free_octets(directory: Path) -> int:
    """Octets that the disk of ``directory`` has left."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
