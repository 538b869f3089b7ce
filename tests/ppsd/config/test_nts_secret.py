"""The secret of NTS cookies as the two processes find it."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from ppsd.config.file import parse
from ppsd.config.nts_secret import BYTES, FILE, nts_place, nts_secret
from ppsd.config.tables import Config, NtsConfig
from refclock.kernel.sandbox import account


def test_the_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    """Whichever process comes first makes the secret, for its user alone; the other, and the next start, find the same."""
    place = nts_place(tmp_path, account(str(os.geteuid())))
    made = nts_secret(Config(), place)
    assert len(made) == BYTES
    assert stat.S_IMODE((place / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert nts_secret(Config(), nts_place(tmp_path, account(str(os.geteuid())))) == made


@pytest.mark.parametrize("written", [bytes(range(BYTES)), bytes(range(BYTES)).hex().encode() + b"\n"])
def test_a_fleet_shares_a_secret_by_file(tmp_path: Path, written: bytes) -> None:
    """The file that nts.secret names holds 32 octets, as they are or in hexadecimal."""
    file = tmp_path / "secret"
    file.write_bytes(written)
    file.chmod(0o600)
    assert nts_secret(replace(Config(), nts=NtsConfig(secret=str(file))), tmp_path) == bytes(range(BYTES))


def test_a_secret_that_is_none_is_refused(tmp_path: Path) -> None:
    """A file of another length, and one that every user may read, are refused with what to do."""
    file = tmp_path / "secret"
    file.write_bytes(b"short")
    file.chmod(0o600)
    config = replace(Config(), nts=NtsConfig(secret=str(file)))
    with pytest.raises(OSError, match="head -c 32 /dev/urandom"):
        nts_secret(config, tmp_path)
    file.write_bytes(bytes(BYTES))
    file.chmod(0o644)
    with pytest.raises(OSError, match="chmod 640"):
        nts_secret(config, tmp_path)


def test_the_table_refuses_what_cannot_work() -> None:
    """A certificate without its key, and names that are none, are told with the remedy."""
    with pytest.raises(ValueError, match=r"nts.key: is needed beside certificate"):
        parse('[nts]\ncertificate = "/a.pem"\n')
    with pytest.raises(ValueError, match="neither a host's name nor an address"):
        parse('[nts]\nnames = ["a_b"]\n')
    assert parse('[nts]\nenabled = true\nnames = ["ntp.example.net", "192.0.2.7", "2001:db8::7"]\n').nts.enabled
