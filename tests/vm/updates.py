"""Updates as a machine gets them from a web server beside it, and what its owner reads of them.

The server is on this host, which every machine finds at 10.0.2.2. An update is made of what the machine itself runs; one that does not
start has the same kernel and a root without a system.
"""

from __future__ import annotations

import functools
import http.server
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import BOARDS, Machine

sys.path.insert(0, str(Path(__file__).parents[2] / "image" / "build"))

import signing
import update

from ppsd import version

ANSWER_S = 400
"""s for a start under emulation on a busy machine."""
WRITTEN_S = 500
"""s for a download of an update and its writing."""
TRIES = 3
"""Starts of a version that does not answer, before it is left."""


def architecture(box: Machine) -> str:
    """As in the names of images and updates."""
    return "arm64" if BOARDS[box.name].model else "amd64"


class Updates:
    """Updates for ``box`` in a ``directory`` that a web server shows at ``url``."""

    def __init__(self, box: Machine, directory: Path, url: str) -> None:
        self.box, self.directory, self.url = box, directory, url

    def make(self, name: str, *, root: bool = False, compatible: str = "", number: str = "99.0") -> str:
        """Make an update and return its address. ``root``: with the machine's own root, else it does not start. ``compatible``: what it is
        for, by default this machine."""
        content = self.directory / f"{name}.content"
        content.mkdir()
        with self.box.card.path.open("rb") as card:
            found = update.partitions(card)
            update.copy(card, *found["boot_a"], content / "boot.img")
            if root:
                start, _ = found["root_a"]
                update.copy(card, start, update.squashfs_octets(card, start), content / "root.img")
        if not root:
            empty = content.with_suffix(".empty")
            empty.mkdir()
            (empty / "noise").write_bytes(random.Random(1).randbytes(100_000))
            subprocess.run(["mksquashfs", empty, content / "root.img", "-quiet", "-no-progress"], check=True)
        hook = content / "hook.sh"
        hook.write_bytes(update.HOOK.read_bytes())
        hook.chmod(0o755)
        manifest = update.MANIFEST.format(architecture=compatible or architecture(self.box), version=number, build=name)
        (content / "manifest.raucm").write_text(manifest, encoding="utf-8")
        update.sign(content, self.directory / f"{name}.raucb")
        return f"{self.url}/{name}.raucb"

    def forge(self, name: str) -> str:
        """Make an update that does not start, signed by a key of somebody else."""
        key = self.directory / "forged.key"
        signing.make(key, key.with_suffix(".pem"), "somebody else")
        with using(key):
            return self.make(name)


@contextmanager
def using(key: Path) -> Iterator[None]:
    """Updates are signed with this key inside."""
    kept = update.signing
    update.signing = lambda: (key, key.with_suffix(".pem"))
    try:
        yield
    finally:
        update.signing = kept


@contextmanager
def served(box: Machine, directory: Path) -> Iterator[Updates]:
    """A web server with the updates of a machine."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(directory))) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a machine that lost its power is no error here
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Updates(box, directory, f"http://10.0.2.2:{server.server_address[1]}")
        server.shutdown()


def start(box: Machine) -> None:
    """Power on, up to the login. There is no receiver: "not synchronised" is an answer too."""
    box.switch_on(receiver=False, pulse=False)
    box.wait_answer(ANSWER_S)
    box.wait_login(ANSWER_S)


def status(box: Machine) -> str:
    """What the owner reads."""
    return box.run("refclock update --status", 200)


def judged(box: Machine, expected: str) -> str:
    """The status, once it says what is expected: the box has started, and has judged the version that runs."""
    box.wait_answer(ANSWER_S)
    box.wait_login(ANSWER_S)
    box.wait_for(lambda: expected in status(box), 300, f"the status does not say: {expected}")
    return status(box)


def refused(box: Machine, address: str) -> str:
    """The sentence with which an update is refused; the box stays as it was."""
    before = status(box)
    said = box.run(f"refclock update {address} 2>&1 && echo TAKEN || true", WRITTEN_S)
    assert "TAKEN" not in said
    assert status(box) == before
    return said


def begin(box: Machine, address: str) -> None:
    """Let the box fetch and write an update; it restarts then."""
    box.run(f"nohup refclock update {address} >/run/update.log 2>&1 </dev/null &")


def left(box: Machine, address: str, slot: str) -> str:
    """Try a version that does not start: as often as allowed, and then ``slot`` runs again. Returns the status."""
    begun = box.boots + TRIES + 1
    begun += 1 if BOARDS[box.name].model else 0  # a Pi's firmware does not count: /init sends it back, in a start of its own
    begin(box, address)
    box.wait_for(lambda: box.boots == begun, WRITTEN_S + 60 * TRIES, "it is not tried three times")
    told = judged(box, "was left: its kernel")
    assert f"in slot {slot} (the usual one)" in told
    assert box.boots == begun
    return told


def kept(box: Machine, address: str, slot: str) -> str:
    """Install a good version: ``slot`` runs from then on. Returns the status."""
    starts = box.boots
    begin(box, address)
    box.wait_for(lambda: box.boots == starts + 1, WRITTEN_S, "it does not restart")
    told = judged(box, f"Running: version {version()} in slot {slot} (the usual one)")
    assert f"refclock.slot={slot}" in box.run("cat /proc/cmdline")
    return told


def on_the_card(box: Machine, words: str) -> None:
    """STATUS.txt says it as well, for those who have no login."""
    box.wait_for(lambda: words in box.run("cat /boot/refclock/STATUS.txt", check=False), 120, f"STATUS.txt does not say: {words}")
