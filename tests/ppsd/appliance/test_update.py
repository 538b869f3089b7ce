"""`refclock update`: what it installs, what it refuses, and the sentences that people read."""

from __future__ import annotations

import http.server
import io
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from slotted import MEMORY, Box

from ppsd.appliance.download import SPARE, download
from ppsd.appliance.slots import Choice, Loader, Outcome, Slot
from ppsd.appliance.update import Bundle, Rauc, Updater
from ppsd.cli.update import Progress, restart, status
from ppsd.process.exit_codes import Refused

pytestmark = pytest.mark.device

BYTES = bytes(range(256)) * 4000
IMAGES = {"boot": 32 << 20, "root": 130 << 20}


class Pretended(Rauc):
    """rauc, for files that hold what it would say of them as JSON. ``installed``: the files that it wrote to the other slot."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__(("false",))
        self.installed: list[Path] = []
        self._broken = broken

    def look(self, file: Path) -> Bundle:
        told = json.loads(file.read_text(encoding="utf-8"))
        return Bundle(file, told["compatible"], told["version"], "", told.get("sizes", IMAGES))

    def install(self, file: Path, progress: object) -> None:
        if self._broken:
            raise Refused(1, "the power failed")
        self.installed.append(file)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A Raspberry Pi."""
    return Box(tmp_path / "box", Loader.COUNTER)


def bundle(directory: Path, compatible: str = "refclock-arm64", version: str = "0.2.0", **more: object) -> str:
    """A file for ``Pretended``."""
    file = directory / "update.json"
    file.write_text(json.dumps({"compatible": compatible, "version": version, **more}), encoding="utf-8")
    return str(file)


def updater(box: Box, rauc: Rauc, free: int = 1 << 40) -> Updater:
    """It runs version 0.1.0."""
    return Updater(box, box.slots, rauc, "0.1.0", progress=Progress(io.StringIO(), False), free=lambda _: free)


def refusal(box: Box, rauc: Pretended, source: str, older: bool = False) -> str:
    """The sentence with which an update is refused; nothing is written then."""
    before = box.slots.choice()
    with pytest.raises(Refused) as refused:
        updater(box, rauc).install(source, older)
    assert not rauc.installed
    assert box.slots.choice() == before
    return str(refused.value)


def test_an_update_is_tried_at_the_next_restart(box: Box, tmp_path: Path) -> None:
    """It is written, and the boot loader and the status know of it."""
    rauc = Pretended()
    assert updater(box, rauc).install(bundle(tmp_path)) is Slot.B
    assert [file.name for file in rauc.installed] == ["update.json"]
    assert box.slots.choice() == Choice(Slot.A, Slot.B, 3)
    out = io.StringIO()
    status(box, box.run, out)
    assert "version 0.2.0 is in slot b and is tried at the next restart" in out.getvalue()


def test_the_name_of_a_file_on_the_fat_partition_is_enough(box: Box, tmp_path: Path) -> None:
    """The owner copied it there with his PC."""
    box.path("/boot/refclock/new.raucb").write_bytes(Path(bundle(tmp_path)).read_bytes())
    assert updater(box, Pretended()).install("new.raucb") is Slot.B


def test_a_wrong_update_is_refused_with_what_to_do(box: Box, tmp_path: Path) -> None:
    """Another machine's, an older one, one that is too large, none at all."""
    rauc = Pretended()
    said = refusal(box, rauc, bundle(tmp_path, compatible="refclock-amd64"))
    assert "it is for amd64, and this box is arm64; nothing was changed. Get refclock-0.2.0-arm64.raucb" in said
    said = refusal(box, rauc, bundle(tmp_path, version="0.0.9"))
    assert "version 0.0.9 is older than 0.1.0, which runs; nothing was changed. If you want it all the same: --older" in said
    said = refusal(box, rauc, bundle(tmp_path, sizes={"root": 900 << 20}))
    assert "no space: its root has 900 MB, and the partition root_b 512 MB; nothing was changed. Write the new image to the card" in said
    assert "there is no file absent.raucb (looked in " in refusal(box, rauc, "absent.raucb")
    assert "allowed is a file, http://... or https://..." in refusal(box, rauc, "ftp://example.org/a")
    assert updater(box, rauc).install(bundle(tmp_path, version="0.0.9"), older=True) is Slot.B


def test_the_slot_to_go_back_to_is_not_overwritten(box: Box, tmp_path: Path) -> None:
    """While a version is on trial, no other one is installed: it would be written over the one that works."""
    updater(box, Pretended()).install(bundle(tmp_path))
    assert box.restart() is Slot.B
    assert "on trial, and slot a is needed" in refusal(box, Pretended(), bundle(tmp_path, version="0.3.0"))


def test_a_power_cut_while_an_update_is_written_leaves_the_old_one(box: Box, tmp_path: Path) -> None:
    """The slot with half an update is not started, and not called good."""
    updater(box, Pretended()).install(bundle(tmp_path))
    box.restart()
    box.slots.judge("", "0.2.0")
    box.restart()
    with pytest.raises(Refused):
        updater(box, Pretended(broken=True)).install(bundle(tmp_path, version="0.3.0"))
    assert Slot.A not in box.slots.known().good
    assert box.restart() is Slot.B
    out = io.StringIO()
    status(box, box.run, out)
    assert "Other slot: a, half an update" in out.getvalue()
    assert "it ended while slot a was written; that slot is not started. Run the command again" in out.getvalue()


def test_only_one_update_at_a_time(box: Box, tmp_path: Path) -> None:
    """The second says that it waits for the first."""
    said: list[str] = []

    class Two(Pretended):
        def install(self, file: Path, progress: object) -> None:
            said.append(refusal(box, Pretended(), bundle(tmp_path)))

    updater(box, Two()).install(bundle(tmp_path))
    assert "another update is being installed" in said[0]


def test_elsewhere_there_is_nothing_to_update(box: Box, tmp_path: Path) -> None:
    """On a machine that does not run the image, both say so."""
    box.put("/proc/cmdline", b"root=/dev/sda1\n")
    with pytest.raises(OSError, match="does not run the refclock image"):
        updater(box, Pretended()).install(bundle(tmp_path))
    with pytest.raises(Refused, match="does not run the refclock image"):
        status(box, box.run, io.StringIO())


def test_what_comes_next_is_said() -> None:
    """How often it is tried, and how to restart later; a firmware that tries once is told so by the restart."""
    ran: list[Sequence[str]] = []

    def run(words: Sequence[str]) -> int:
        ran.append(words)
        return 0

    out = io.StringIO()
    restart(Loader.TRYBOOT, Slot.B, True, run, out)
    assert "tries it once" in out.getvalue()
    assert 'systemctl reboot "--reboot-argument=0 tryboot"' in out.getvalue()
    assert not ran
    restart(Loader.GRUB, Slot.B, False, run, out)
    assert "up to 3 times" in out.getvalue()
    assert ran == [["systemctl", "reboot"]]


class Server(http.server.ThreadingHTTPServer):
    """Serves BYTES, breaks off after ``cut`` octets, and knows ranges. ``asked``: the Range of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut, self.mark, self.asked = len(BYTES), '"one"', list[str]()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}/update.raucb"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has heard enough is no error."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        wanted = self.headers.get("Range", "")
        self.server.asked.append(wanted)
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.headers["If-Range"] == self.server.mark else 0
        self.send_response(404 if "absent" in self.path else 206 if first else 200)
        self.send_header("ETag", self.server.mark)
        self.send_header("Content-Length", str(len(BYTES) - first))
        self.end_headers()
        self.wfile.write(BYTES[first : first + self.server.cut])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on this machine."""
    with Server() as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def fetch(url: str, to: Path, free: int = 1 << 40) -> bytes:
    """What a download brings."""
    return download(url, to, lambda what, percent: None, lambda _: free, pause_s=0).read_bytes()


def test_a_download_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    """A connection that ends early is taken up again; when that does not help, the next command goes on."""
    to, server.cut = tmp_path / "update.raucb", 300_000
    with pytest.raises(Refused, match="Run the same command again: it goes on from there"):
        fetch(server.url, to)
    assert not to.exists()
    server.cut = len(BYTES)
    assert fetch(server.url, to) == BYTES
    assert server.asked == ["", "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["update.raucb"]


def test_the_rest_of_another_version_is_not_put_behind(server: Server, tmp_path: Path) -> None:
    """The file on the server changed between two tries: it is fetched anew."""
    to, server.cut = tmp_path / "update.raucb", 300_000
    with pytest.raises(Refused):
        fetch(server.url, to)
    server.cut, server.mark = len(BYTES), '"two"'
    assert fetch(server.url, to) == BYTES


def test_a_download_that_cannot_be_had_says_why(server: Server, tmp_path: Path) -> None:
    """No such file, no server, no room."""
    to = tmp_path / "update.raucb"
    with pytest.raises(Refused, match="the server says 404 Not Found; check the address"):
        fetch(server.url.replace("update", "absent"), to)
    with pytest.raises(Refused, match="nothing has come"):
        fetch("http://127.0.0.1:1/update.raucb", to)
    with pytest.raises(Refused, match="on the data partition and 16 MB are free; use a larger card"):
        fetch(server.url, to, SPARE)


def test_an_address_is_downloaded_and_installed(server: Server, box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download is removed once it is installed: the data partition is for other things."""
    file = Path(bundle(tmp_path))
    monkeypatch.setattr(f"{__name__}.BYTES", file.read_bytes())
    assert updater(box, Pretended()).install(server.url) is Slot.B
    assert not list(box.path("/data/update").glob("update*"))
    attempt = box.slots.known().attempt
    assert attempt is not None
    assert attempt.outcome is Outcome.INSTALLED
    assert box.path(MEMORY).exists()
