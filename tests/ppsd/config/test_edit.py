"""Changes to the configuration on disk: whole or not at all, and everything about the file that was not to change stays."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from ppsd.config.edit import edit
from ppsd.config.file import read
from refclock.kernel.files import UserFile, owners, replace_file
from refclock.schema import ConfigError

OLD = '# ours\n[log]\nlevel = "warning"\n'


def two_threads(text: str) -> str:
    return text + "\n[server]\nthreads = 2\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "etc" / "refclock.toml"
    made.parent.mkdir()
    made.write_text(OLD)
    made.chmod(0o640)
    return made


def test_mode_and_owner_stay_as_they_were(file: Path) -> None:
    """A configuration that only its group may read is not opened to everybody, nor is the copy of what it was."""
    if os.geteuid() == 0:
        os.chown(file, 1234, 4321)
    before = file.stat()
    backup = edit(file, two_threads)
    assert read(file).server.threads == 2
    assert backup == file.with_name("refclock.toml.bak")
    assert backup.read_text() == OLD
    for made in (file, backup):
        now = made.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    """What a chain of links points to is changed; the links go on pointing there."""
    link, outer = tmp_path / "link.toml", tmp_path / "outer.toml"
    link.symlink_to("etc/refclock.toml")
    outer.symlink_to(link)
    assert edit(outer, two_threads) == file.with_name("refclock.toml.bak")
    assert (outer.readlink(), link.readlink()) == (link, Path("etc/refclock.toml"))
    assert read(file).server.threads == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["etc", "link.toml", "outer.toml"]


def test_a_new_configuration_is_made_with_its_directory(tmp_path: Path) -> None:
    """Where there was no file nothing is kept; who may read it is as the umask has it."""
    os.umask(umask := os.umask(0))
    file = tmp_path / "etc" / "refclock" / "refclock.toml"
    assert edit(file, two_threads) is None
    assert read(file).server.threads == 2
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [p.name for p in file.parent.iterdir()] == ["refclock.toml"]


def test_what_would_not_be_a_good_configuration_is_not_written(file: Path) -> None:
    """The problems are told by line, the file and its directory are as before."""
    with pytest.raises(ConfigError, match=r"refclock.toml:6: server.threads: 0 is out of range"):
        edit(file, lambda text: two_threads(text).replace("2", "0"))
    assert [p.name for p in file.parent.iterdir()] == ["refclock.toml"]
    assert file.read_text() == OLD


def full_disk(patched: pytest.MonkeyPatch) -> Callable[[], None]:
    del patched
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refused(name: str) -> Callable[[pytest.MonkeyPatch], Callable[[], None]]:
    def patch(patched: pytest.MonkeyPatch) -> Callable[[], None]:
        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.EIO, "no")

        patched.setattr(os, name, fail)
        return patched.undo

    return patch


FOREIGN_OWNER = refused("fchown")


@pytest.mark.parametrize("trouble", [full_disk, refused("fsync"), FOREIGN_OWNER, refused("replace")])
def test_a_failure_leaves_the_old_file_whole_and_nothing_else(
    file: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[pytest.MonkeyPatch], Callable[[], None]]
) -> None:
    """A full disk, a disk that does not take it, an owner that cannot be kept, a rename that fails: OSError, and all is as before."""
    if os.geteuid() == 0:
        os.chown(file, 1234, 4321)
    elif trouble is FOREIGN_OWNER:
        pytest.skip("only root can make a file of another owner")
    again = trouble(monkeypatch)
    try:
        with pytest.raises(OSError):
            UserFile(file, owners()).replace(b"x" * 100)
    finally:
        again()
    assert file.read_text() == OLD
    assert [p.name for p in file.parent.iterdir()] == ["refclock.toml"]


def test_a_file_of_ours_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A file with a mode of our own takes the place of a link; neither what that points to nor what a link in the way points to changes."""
    target, link = tmp_path / "target", tmp_path / "state"
    target.write_text("precious")
    link.symlink_to(target)
    (tmp_path / ".state.new").symlink_to(target)
    replace_file(link, b"new", 0o600, owners())
    assert (target.read_text(), link.is_symlink(), link.read_text()) == ("precious", False, "new")
    assert link.stat().st_mode & 0o777 == 0o600
