"""Files and directories that another user has prepared are neither believed nor written through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from refclock.kernel.files import UserFile, judge, open_trusted, owners, replace_file

STRANGER = 12345

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another owner")


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    made = tmp_path / "precious"
    made.write_text("precious")
    return made


def test_a_directory_of_ones_own_is_good(tmp_path: Path) -> None:
    """Below a sticky directory such as /tmp, and through links of one's own."""
    (tmp_path / "real" / "run").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    judge(tmp_path / "link" / "run", owners())


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Itself, even a sticky one, and any directory above it that is not sticky."""
    directory = tmp_path / "open" / "run"
    directory.mkdir(parents=True)
    directory.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="can be changed by another user"):
        judge(directory, owners())
    directory.parent.chmod(0o1777)
    judge(directory, owners())
    with pytest.raises(PermissionError, match="choose a directory of its own"):
        judge(directory.parent, owners())


@root_only
def test_a_directory_below_one_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner could exchange it, or the link to it, at any time."""
    directory, link = tmp_path / "his" / "run", tmp_path / "link"
    directory.mkdir(parents=True)
    os.chown(directory.parent, STRANGER, STRANGER)
    with pytest.raises(PermissionError, match=r"belongs to another user \(12345\)"):
        judge(directory, owners())
    judge(directory, owners(str(STRANGER)))
    (tmp_path / "ours").mkdir()
    link.symlink_to("ours")
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(PermissionError, match="another user"):
        judge(link, owners())


@root_only
def test_a_file_of_another_user_is_not_read(precious: Path) -> None:
    """Nor is one that everybody may write, a link or a pipe. One of a user who is named is read."""
    os.close(open_trusted(precious, owners()))
    os.chown(precious, STRANGER, STRANGER)
    with pytest.raises(PermissionError, match="belongs to another user"):
        open_trusted(precious, owners())
    os.close(open_trusted(precious, owners(str(STRANGER))))
    os.chown(precious, 0, 0)
    precious.chmod(0o646)
    with pytest.raises(PermissionError, match="every user may change it"):
        open_trusted(precious, owners())
    link, pipe = precious.with_name("link"), precious.with_name("pipe")
    link.symlink_to(precious)
    os.mkfifo(pipe)
    for name in (link, pipe):
        with pytest.raises(OSError):
            open_trusted(name, owners())


def test_a_planted_link_is_not_written_through(precious: Path) -> None:
    """Whatever lies where the temporary file is made: what it points to stays as it is."""
    directory = precious.parent / "run"
    directory.mkdir()
    file = directory / "refclock.toml"
    for plant in (".refclock.toml.new", "refclock.toml", "refclock.toml.new", "refclock.toml.bak"):
        (directory / plant).symlink_to(precious)
    replace_file(file, b"ours", 0o644, owners())
    assert (precious.read_text(), file.read_text(), file.is_symlink()) == ("precious", "ours", False)
    UserFile(file, owners()).replace(b"ours", ".bak")
    assert (precious.read_text(), file.with_name("refclock.toml.bak").read_text()) == ("precious", "ours")


@root_only
def test_a_users_file_is_changed_in_his_name_and_no_other(precious: Path) -> None:
    """Root changes a file in its owner's directory. It follows no link of his to a file of root, and makes nothing new in his directory."""
    home = precious.parent / "home"
    home.mkdir()
    file, link = home / "refclock.toml", home / "link.toml"
    file.write_text("his")
    link.symlink_to(precious)
    for made in (home, file, link):
        os.chown(made, STRANGER, STRANGER, follow_symlinks=False)
    UserFile(file, owners()).replace(b"changed")
    assert (file.read_text(), file.stat().st_uid) == ("changed", STRANGER)
    with pytest.raises(PermissionError, match="another user"):
        UserFile(link, owners())
    with pytest.raises(PermissionError, match="another user"):
        UserFile(home / "new.toml", owners()).replace(b"new")
    assert precious.read_text() == "precious"
    assert not (home / "new.toml").exists()


def test_a_file_that_was_exchanged_meanwhile_is_left_alone(precious: Path) -> None:
    """What was read is what is changed: another file of that name is not overwritten."""
    file = UserFile(precious, owners())
    precious.rename(precious.with_name("moved"))
    precious.write_text("another")
    with pytest.raises(OSError, match="replaced meanwhile"):
        file.replace(b"changed")
    assert precious.read_text() == "another"


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    """A device or a pipe, named or linked to, is not replaced: for root that would be the end of /dev/null."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OSError, match="is no file, and is left alone"):
            UserFile(path, owners()).replace(b"text")
    assert pipe.is_fifo()
