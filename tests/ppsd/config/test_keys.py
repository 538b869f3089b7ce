"""keys.py: key files as chrony and ntp write them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.config.keys import SECRET_MAX, SymmetricKey, parse_keys, read_keys
from ppsd.config.tables import Config, KeysConfig
from ppsd.serve.ntp_server import NtpServer, ServerRules
from refclock.schema import ConfigError

CHRONY = """
# made by chronyc keygen
10 AES128 HEX:000102030405060708090A0B0C0D0E0F
11 AES256 HEX:000102030405060708090A0B0C0D0E0F000102030405060708090A0B0C0D0E0F
12 SHA256 ASCII:a-long-passphrase
13 SHA1 HEX:B0C5E1
% another comment
14 foo
"""
NTP = """
1 M secret            # md5 by its letter
2 SHA1 0123456789abcdef0123456789abcdef01234567
3 AES-128 00112233445566778899aabbccddeeff 192.0.2.0/24,2001:db8::1
4 AES128CMAC abcdefghijklmnop
"""


def test_chronys_file() -> None:
    """Types, HEX: and ASCII:, the type left out (MD5), comments."""
    keys, problems = parse_keys(CHRONY, allow_weak=True)
    assert problems == []
    assert [(k.key_id, k.kind, len(k.secret)) for k in keys] == [
        (10, "AES128", 16), (11, "AES256", 32), (12, "SHA256", 17), (13, "SHA1", 3), (14, "MD5", 3),
    ]  # fmt: skip
    assert keys[0].secret == bytes(range(16))


def test_ntps_file() -> None:
    """Letters, hexadecimal without a prefix when longer than 20, names of AES, addresses."""
    keys, problems = parse_keys(NTP, allow_weak=True)
    assert problems == []
    assert [(k.key_id, k.kind, len(k.secret), k.prefixes) for k in keys] == [
        (1, "MD5", 6, ()), (2, "SHA1", 20, ()), (3, "AES128", 16, ("192.0.2.0/24", "2001:db8::1")), (4, "AES128", 16, ()),
    ]  # fmt: skip
    assert keys[2].ranges()[0] == (0, 2)  # denied but for the two prefixes
    assert keys[0].ranges() == ()


def test_weak_keys_need_a_word() -> None:
    """MD5 and SHA1 are refused, by line, unless allowed; the others are kept."""
    keys, problems = parse_keys(CHRONY, allow_weak=False)
    assert [k.key_id for k in keys] == [10, 11, 12]
    assert [(line, "keys.weak = true" in what) for line, what in problems] == [(6, True), (8, True)]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("x MD5 secret", "begins with its number"),
        ("0 MD5 secret", "begins with its number"),
        ("4294967296 MD5 secret", "begins with its number"),
        ("1", "has no secret"),
        ("1 SHA512 secret", "not supported"),
        ("1 NONSENSE secret", "not known"),
        ("1 AES128 HEX:00", "has 16 bytes (32 digits after HEX:), this one has 1"),
        ("1 MD5 HEX:0g", "not a hexadecimal"),
        ("1 MD5 this-is-text-of-more-than-20", "ASCII:"),
        ("1 MD5 secret 192.168.1.7/24", "did you mean"),
        ("1 MD5 secret 192.168.1.7 more", "too many words"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(line: str, hint: str) -> None:
    """Line, number and remedy; never the secret."""
    keys, problems = parse_keys("\n" + line, allow_weak=True)
    assert keys == ()
    assert problems[0][0] == 2
    assert hint in problems[0][1]
    assert "secret " not in problems[0][1].replace("no secret", "").replace("secret of", "").replace("secret is", "").replace("SECRET", "")


def test_a_number_twice() -> None:
    """The first stays, the second is reported."""
    keys, problems = parse_keys("1 SHA256 a\n1 SHA256 b", allow_weak=False)
    assert keys == (SymmetricKey(1, "SHA256", b"a"),)
    assert problems == [(2, "key 1 is defined twice")]


def test_a_key_does_not_print_its_secret() -> None:
    """Logs and tracebacks may show keys."""
    assert "hush" not in repr(SymmetricKey(1, "MD5", b"hush"))


@given(st.text(max_size=200))
def test_any_text_is_keys_or_problems(text: str) -> None:
    """Never an exception, and every key is one that C takes."""
    keys, problems = parse_keys(text, allow_weak=True)
    assert all(0 < key.key_id < 1 << 32 and key.secret for key in keys)
    assert all(line >= 1 and what for line, what in problems)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another owner")
def test_keys_of_another_user_are_refused(tmp_path: Path) -> None:
    """Who can change the keys can forge replies: the file belongs to root, to the daemon's user or to run.user."""
    file = tmp_path / "keys"
    file.write_text("1 SHA256 HEX:00112233\n")
    file.chmod(0o640)
    config = replace(Config(), keys=KeysConfig(str(file)))
    assert [key.key_id for key in read_keys(config)] == [1]
    os.chown(file, 12345, 0)
    with pytest.raises(ConfigError, match=r"belongs to another user \(12345\)"):
        read_keys(config)
    assert read_keys(replace(config, run=replace(config.run, user="12345")))


def refused(path: Path) -> str:
    """What is told of a key file that is not taken."""
    with pytest.raises(ConfigError) as error:
        read_keys(Config(keys=KeysConfig(file=str(path))))
    return str(error.value)


def test_a_key_file_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    """Of a file of more than 1 MB nothing is cut off in silence; a pipe in its place is not waited for."""
    path = tmp_path / "keys"
    path.write_text("# a comment\n" * 100_000 + "7 AES128 HEX:000102030405060708090a0b0c0d0e0f\n")
    path.chmod(0o600)
    assert "the key file cannot be used: is larger than 1 MB" in refused(path)
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "is a pipe; a regular file is needed" in refused(path)


def test_secrets_longer_than_the_server_takes_are_named(tmp_path: Path) -> None:
    """One byte more than the server's limit is a problem of the file, with its line; the longest one is served."""
    path = tmp_path / "keys"
    path.write_text(f"1 SHA256 HEX:{'ab' * SECRET_MAX}\n2 SHA256 HEX:{'ab' * (SECRET_MAX + 1)}\n")
    path.chmod(0o600)
    assert f"{path}:2: key 2: a secret has at most 4096 bytes, this one has 4097" in refused(path)
    path.write_text(f"1 SHA256 HEX:{'ab' * SECRET_MAX}\n")
    keys = read_keys(Config(keys=KeysConfig(file=str(path))))
    with NtpServer(tmp_path / "timescale", [("127.0.0.1", 0)], ServerRules(ranges=(), keys=keys)) as server:
        server.configure(ServerRules(ranges=(), keys=keys))


def test_keys_that_systemd_hands_over_are_read_by_a_process_that_may_not_read_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server needs no right to root's key file. A lone # means that there was none, and the file itself counts."""
    copies, file = tmp_path / "credentials", tmp_path / "keys"
    copies.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(copies))
    config = Config(keys=KeysConfig(file=str(file)))
    copy = copies / "keys"
    copy.write_text("1 SHA256 HEX:000102030405060708090a0b0c0d0e0f\n", encoding="utf-8")
    copy.chmod(0o440)
    assert [key.key_id for key in read_keys(config)] == [1]
    copy.chmod(0o640)
    copy.write_text("#", encoding="utf-8")
    file.write_text("2 SHA256 HEX:000102030405060708090a0b0c0d0e0f\n", encoding="utf-8")
    file.chmod(0o600)
    assert [key.key_id for key in read_keys(config)] == [2]
