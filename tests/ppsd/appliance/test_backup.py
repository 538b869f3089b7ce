"""`refclock backup` and `refclock restore`: what they keep, and what they refuse before anything is changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.appliance.backup import BOX, KEY, KEYS, LIMIT_FILE_BYTES, Backup, collect, read, restore, write
from ppsd.process.exit_codes import Refused
from refclock.kernel.host import Host
from refclock.schema import ConfigError

CONFIG = '[log]\nlevel = "debug"   # mine\n'
WIFI = '[system]\nhostname = "clock"\n\n[wifi]\nssid = "home"\npassphrase = "correct horse"   # do not tell\ncountry = "DE"\n'
SECRET_FILES = {
    "etc/refclock/keys": "1 AES128 HEX:00112233445566778899aabbccddeeff\n",
    "data/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAA\n",
}
SECRET_FILES |= {"data/ssh/ssh_host_ed25519_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"}
FILES = {"etc/refclock/refclock.toml": CONFIG, "data/box/box.toml": WIFI, "var/lib/refclock/state.json": '{"frequency_ppm": 1.5}'}
ELSEWHERE = {
    "var/lib/refclock/.state.json.new": "{",
    "etc/refclock/setup.json": "{}",
    "etc/shadow": "root:x",
    "data/update/slots.json": "{}",
}


def machine(root: Path, files: dict[str, str]) -> Host:
    """A machine with these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return Host(root)


@pytest.fixture
def whole(tmp_path: Path) -> Host:
    """A box with everything."""
    return machine(tmp_path / "whole", FILES | SECRET_FILES | ELSEWHERE)


def idle(words: Sequence[str]) -> int:
    """systemctl on a machine where nothing runs."""
    return 3


def restored(host: Host, backup: Backup, appliance: bool = True) -> list[str]:
    """What is said of a backup that went through its file."""
    return restore(host, read(backup.to_bytes(), "file", "0.1.0"), appliance, idle)


def files(root: Path) -> dict[str, str]:
    """Names and texts below a directory."""
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in root.rglob("*") if path.is_file()}


def test_everything_comes_back_on_a_new_card(whole: Host, tmp_path: Path) -> None:
    """With secrets: configuration, box, state, keys and host keys are there as they were, and nothing else is."""
    new = tmp_path / "new"
    assert "systemctl reboot" in restored(Host(new), collect(whole, True, "0.1.0"))[-1]
    assert files(new) == FILES | SECRET_FILES
    assert (new / KEYS.lstrip("/")).stat().st_mode & 0o777 == 0o600
    assert (new / "data/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert (new / "data/ssh").stat().st_mode & 0o777 == 0o700


def test_without_being_asked_no_secret_is_in_it(whole: Host, tmp_path: Path) -> None:
    """No key and no passphrase; the rest of box.toml is, and the owner is told to write the passphrase himself."""
    backup = collect(whole, False, "0.1.0")
    assert set(backup.files) == {"refclock.toml", "box.toml", "state/state.json"}
    for secret in ("correct horse", "00112233", "PRIVATE KEY"):
        assert not any(secret.encode() in data for data in backup.files.values())
    said = restored(Host(tmp_path / "new"), backup)
    assert "the Wi-Fi passphrase is not in this backup: write it into box.toml on the card" in said
    assert 'ssid = "home"' in (tmp_path / "new" / BOX.lstrip("/")).read_text(encoding="utf-8")


@given(
    st.sampled_from(
        ['passphrase="x y z 1 2"', "'passphrase' = 'abcdefgh'", 'passphrase = """abcdefgh"""', '"pass\\u0070hrase" = "abcdefgh"']
    )
)
def test_a_passphrase_is_found_however_it_is_written(line: str) -> None:
    """TOML has many ways to write it; where the line cannot be told apart, nothing of the file is kept."""
    from ppsd.appliance.backup import without_passphrase  # noqa: PLC0415

    kept = without_passphrase(f'[wifi]\nssid = "home"\n{line}\ncountry = "DE"\n'.encode())
    assert b"abcdefgh" not in kept
    assert b"x y z" not in kept


def test_the_file_is_for_its_owner_alone(whole: Host, tmp_path: Path) -> None:
    """Whatever the umask is."""
    write(tmp_path / "server.backup", collect(whole, True, "0.1.0"))
    assert (tmp_path / "server.backup").stat().st_mode & 0o777 == 0o600


def test_a_server_that_is_no_appliance_takes_what_concerns_it(whole: Host, tmp_path: Path) -> None:
    """From a box to a PC with the package: configuration and state; the rest is named."""
    said = restored(Host(tmp_path / "new"), collect(whole, True, "0.1.0"), appliance=False)
    assert set(files(tmp_path / "new")) == {"etc/refclock/refclock.toml", "etc/refclock/keys", "var/lib/refclock/state.json"}
    assert any("not the appliance: box.toml, ssh/" in words for words in said)


def test_the_clock_process_does_not_write_over_what_was_restored(whole: Host, tmp_path: Path) -> None:
    """It writes its state when it ends: it is stopped first, and started again afterwards."""
    calls: list[str] = []

    def systemctl(words: Sequence[str]) -> int:
        calls.append(" ".join(words))
        assert ("start" not in words) or (tmp_path / "new/var/lib/refclock/state.json").exists()
        return 0

    restore(Host(tmp_path / "new"), collect(whole, False, "0.1.0"), True, systemctl)
    assert [call for call in calls if call.endswith("clock.service")] == [
        "systemctl --quiet is-active refclock-clock.service",
        "systemctl stop refclock-clock.service",
        "systemctl start refclock-clock.service",
    ]


def changed(backup: Backup, **change: Any) -> bytes:
    """The file of a backup with other values."""
    return json.dumps(json.loads(backup.to_bytes()) | change).encode()


def test_what_is_no_backup_is_refused_in_words(whole: Host) -> None:
    """Something else, half a file, a later format, a spoilt content."""
    backup = collect(whole, True, "0.1.0")
    data = backup.to_bytes()
    for other in (b"", b"{}", b"[]", b"\x1f\x8b\x08", data[: len(data) // 2], b"[" * 100_000):
        with pytest.raises(Refused, match="is no backup of refclock, or only a part of one"):
            read(other, "file", "0.1.0")
    with pytest.raises(Refused, match=r"made by refclock 9\.0, and 0\.1\.0, which runs, does not know its format; update first"):
        read(changed(backup, **{KEY: 2, "version": "9.0"}), "file", "0.1.0")
    with pytest.raises(Refused, match="is not what was saved: the file was damaged or changed"):
        read(data.replace(b'"base64": "W2', b'"base64": "X2'), "file", "0.1.0")


@pytest.mark.parametrize(
    "name",
    [
        "../etc/shadow",
        "/etc/shadow",
        "state/../../../etc/shadow",
        "state/x/y.json",
        "state/.json",
        "ssh/../authorized_keys",
        "ssh/config",
        "",
        "state/\0.json",
        "state/a.json\n",
        "keys/x",
        "refclock.toml/",
        "state/" + "a" * 300 + ".json",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(whole: Host, name: str) -> None:
    """Only the places that a backup is made from can be written."""
    backup = collect(whole, True, "0.1.0")
    entry = json.loads(backup.to_bytes())["files"]["state/state.json"]
    with pytest.raises(Refused, match="which refclock does not keep there"):
        read(changed(backup, files={name: entry}), "file", "0.1.0")


def test_secrets_come_only_from_a_backup_that_says_so(whole: Host) -> None:
    """A file that hides keys among the rest is refused."""
    with pytest.raises(Refused, match="'keys', which refclock does not keep there"):
        read(changed(collect(whole, True, "0.1.0"), secrets=False), "file", "0.1.0")


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        {str(i): {} for i in range(101)},
        {"refclock.toml": None},
        {"refclock.toml": {"base64": 1, "sha256": ""}},
        {"refclock.toml": {"base64": "%%%", "sha256": ""}},
    ],
)
def test_a_list_of_files_that_is_none_is_refused(files: object) -> None:
    """No exception but ours, whatever somebody wrote."""
    with pytest.raises(Refused, match="Nothing was changed"):
        read(json.dumps({KEY: 1, "version": "0.1.0", "secrets": True, "files": files}).encode(), "file", "0.1.0")


def test_a_backup_with_mistakes_changes_nothing(whole: Host, tmp_path: Path) -> None:
    """All mistakes of all files are told, with their lines, and none of the files is restored."""
    bad = {
        "refclock.toml": b"[log]\nlevel = 7\n",
        "box.toml": b"[system]\nhostname = 1\n",
        "state/state.json": b"[]",
        "keys": b"1 AES128 HEX:00\n",
    }
    bad |= {"ssh/ssh_host_ed25519_key": b"hello"}
    with pytest.raises(ConfigError) as error:
        restored(Host(tmp_path / "new"), Backup("0.1.0", True, bad))
    told = {(problem.file, problem.line) for problem in error.value.problems}
    assert {("refclock.toml", 2), ("box.toml", 2), ("keys", 1), ("state/state.json", 0), ("ssh/ssh_host_ed25519_key", 0)} <= told
    assert not (tmp_path / "new").exists()


def test_a_file_of_any_size_is_refused(tmp_path: Path) -> None:
    """One that is larger than any of ours is not restored, and not backed up."""
    with pytest.raises(Refused, match="is not what was saved"):
        restored(Host(tmp_path / "new"), Backup("0.1.0", False, {"state/state.json": b" " * (LIMIT_FILE_BYTES + 1)}))
    host = machine(tmp_path / "big", {"etc/refclock/refclock.toml": "#" * (LIMIT_FILE_BYTES + 1)})
    with pytest.raises(OSError, match="is larger than 4 MB"):
        collect(host, False, "0.1.0")


def test_links_are_replaced_and_not_followed(whole: Host, tmp_path: Path) -> None:
    """Somebody put a link in the place of a file of ours: what it points to is not touched."""
    target = tmp_path / "target"
    target.write_text("precious", encoding="utf-8")
    place = tmp_path / "new" / BOX.lstrip("/")
    place.parent.mkdir(parents=True)
    place.symlink_to(target)
    restored(Host(tmp_path / "new"), collect(whole, True, "0.1.0"))
    assert target.read_text(encoding="utf-8") == "precious"
    assert not place.is_symlink()
