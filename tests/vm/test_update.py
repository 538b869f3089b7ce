"""Updates of the appliance, from a web server beside it: a power cut in the middle, one that does not start, one that is good, wrong keys.

One machine of each kind lives through all tests of this file, in their order. The PC has a real GRUB; the Pi's firmware is played by the
harness, which reads autoboot.txt as it does.
"""

from __future__ import annotations

import functools
import http.server
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine import BOARDS, Machine

sys.path.insert(0, str(Path(__file__).parents[2] / "image" / "build"))

import signing
import update

from ppsd import version

ANSWER_S = 400
"""s for a start under emulation on a busy machine."""
WRITTEN_S = 400
"""s for a download of an update and its writing."""
TRIES = 3


def content(box: Machine, directory: Path) -> Path:
    """What an update consists of, without its root: the boot partition as the box has it."""
    directory.mkdir()
    with box.card.path.open("rb") as image:
        start, length = update.partitions(image)["boot_a"]
        update.copy(image, start, length, directory / "boot.img")
    (directory / "hook.sh").write_bytes(update.HOOK.read_bytes())
    (directory / "hook.sh").chmod(0o755)
    return directory


def manifest(directory: Path, architecture: str, name: str, build: str) -> None:
    """What an update says of itself."""
    text = update.MANIFEST.format(architecture=architecture, version=name, build=build)
    (directory / "manifest.raucm").write_text(text, encoding="utf-8")


def empty_root(file: Path) -> None:
    """A root without a system: its kernel starts, and then nothing does."""
    root = file.with_suffix("")
    root.mkdir()
    (root / "noise").write_bytes(random.Random(1).randbytes(100_000))
    subprocess.run(["mksquashfs", root, file, "-quiet", "-no-progress"], check=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A directory, and the address at which the machines find its files."""
    directory = tmp_path_factory.mktemp("served")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(directory))) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield directory, f"http://10.0.2.2:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module", params=["pc", "virt"])
def box(request: pytest.FixtureRequest, new_machine: Callable[..., Machine]) -> Machine:
    """A box that has answered and is logged in to."""
    machine = new_machine(request.param)
    machine.switch_on(receiver=False, pulse=False)
    machine.wait_answer(ANSWER_S)
    machine.wait_login(ANSWER_S)
    return machine


@pytest.fixture(scope="module")
def architecture(box: Machine) -> str:
    return "arm64" if BOARDS[box.name].model else "amd64"


@pytest.fixture(scope="module")
def good(box: Machine, served: tuple[Path, str], architecture: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the box runs, as an update; its address."""
    directory = content(box, tmp_path_factory.mktemp("good") / "content")
    with box.card.path.open("rb") as image:
        start, _ = update.partitions(image)["root_a"]
        update.copy(image, start, update.squashfs_octets(image, start), directory / "root.img")
    manifest(directory, architecture, version(), "good")
    update.sign(directory, served[0] / f"good-{architecture}.raucb")
    return f"{served[1]}/good-{architecture}.raucb"


@pytest.fixture(scope="module")
def broken(box: Machine, served: tuple[Path, str], architecture: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A version that does not start; its address."""
    directory = content(box, tmp_path_factory.mktemp("broken") / "content")
    empty_root(directory.parent / "root.img")
    (directory.parent / "root.img").rename(directory / "root.img")
    manifest(directory, architecture, "99.0", "broken")
    update.sign(directory, served[0] / f"broken-{architecture}.raucb")
    return f"{served[1]}/broken-{architecture}.raucb"


def status(box: Machine) -> str:
    """What the owner reads."""
    return box.run("refclock update --status", 200)


def refused(box: Machine, source: str) -> str:
    """The sentence with which an update is refused."""
    return box.run(f"refclock update {source} 2>&1 && echo TAKEN || true", WRITTEN_S)


def judged(box: Machine, expected: str) -> str:
    """The status, once it says what is expected: the box has started, and has judged the version that runs."""
    box.wait_answer(ANSWER_S)
    box.wait_login(ANSWER_S)
    box.wait_for(lambda: expected in status(box), 200, f"the status does not say: {expected}")
    return status(box)


def test_a_new_box_says_which_slot_it_runs(box: Machine) -> None:
    """Slot a, the usual one, never updated; STATUS.txt on the card says the same."""
    assert "Updates: none yet" in judged(box, f"Running: version {version()} in slot a (the usual one)")
    box.wait_for(lambda: "in slot a (the usual one)" in box.run("cat /boot/refclock/STATUS.txt", check=False), 60, "STATUS.txt")


def test_what_is_not_ours_is_refused(
    box: Machine, served: tuple[Path, str], architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another key, and another machine's update: a sentence each, and nothing is changed."""
    directory = content(box, tmp_path / "content")
    empty_root(tmp_path / "root.img")
    (tmp_path / "root.img").rename(directory / "root.img")
    manifest(directory, "mips", "99.0", "other")
    update.sign(directory, served[0] / "other.raucb")
    assert f"it is for mips, and this box is {architecture}; nothing was changed" in refused(box, f"{served[1]}/other.raucb")
    manifest(directory, architecture, "99.0", "forged")
    signing.make(tmp_path / "forged.key", tmp_path / "forged.pem", "somebody else")
    monkeypatch.setenv("UPDATE_KEY", str(tmp_path / "forged.key"))
    monkeypatch.setenv("UPDATE_CERT", str(tmp_path / "forged.pem"))
    update.sign(directory, served[0] / "forged.raucb")
    said = refused(box, f"{served[1]}/forged.raucb")
    assert "its signature is not by the key that this box believes" in said
    assert "TAKEN" not in said
    assert "Updates: none yet" in status(box)


def test_the_power_fails_while_an_update_is_written(box: Machine, good: str) -> None:
    """The version that ran starts again and serves; the half of an update is not started."""
    box.run(f"nohup refclock update --later {good} >/run/update.log 2>&1 &")
    box.wait_for(lambda: "updating slots" in box.run("cat /run/update.log", check=False).lower(), WRITTEN_S, "not written")
    box.cut_power()
    box.switch_on(receiver=False, pulse=False)
    assert "Updates: none yet" in judged(box, "in slot a (the usual one)")


def test_a_version_that_does_not_start_is_left_by_itself(box: Machine, broken: str) -> None:
    """It is tried three times; then the version before runs again, and the owner reads why, also on the card."""
    starts = box.boots
    box.run(f"nohup refclock update {broken} >/run/update.log 2>&1 &")
    box.wait_for(lambda: box.boots == starts + TRIES + 1, WRITTEN_S + 200, "it is not tried")
    told = judged(box, "Last update: version 99.0 (broken) in slot b was left: its kernel")
    assert "in slot a (the usual one)" in told
    assert box.boots == starts + TRIES + 1
    box.wait_for(lambda: "99.0 (broken) in slot b was left" in box.run("cat /boot/refclock/STATUS.txt", check=False), 60, "STATUS.txt")


def test_a_good_version_is_kept(box: Machine, good: str) -> None:
    """It answers, so it is the usual one from then on; what was in the other slot stays as the way back."""
    box.run(f"nohup refclock update {good} >/run/update.log 2>&1 &")
    starts = box.boots
    box.wait_for(lambda: box.boots == starts + 1, WRITTEN_S, "it does not restart")
    told = judged(box, f"Running: version {version()} in slot b (the usual one)")
    assert f"Last update: version {version()} (good) in slot b has answered and is in use" in told
    assert "Other slot: a" in told
    assert "refclock.slot=b" in box.run("cat /proc/cmdline")
