"""The certificates that a machine makes by itself, as a client's TLS library judges them."""

from __future__ import annotations

import datetime
import stat
import subprocess
from pathlib import Path

import pytest

from ppsd.serve.certificates import AUTHORITY, OWN, OWN_DAYS, RENEW_DAYS, Credentials, OwnCertificates, Pair
from refclock.kernel.files import owners

pytestmark = pytest.mark.device

BUILT = datetime.date(2026, 11, 1)
DAY_S = 86400
BUILT_S = 1_793_491_200  # 2026-11-01
NAMES = ["box", "box.local", "192.0.2.7", "2001:db8::7"]


@pytest.fixture
def made(tmp_path: Path) -> OwnCertificates:
    tmp_path.chmod(0o700)
    return OwnCertificates(tmp_path, BUILT, owners())


def verified(authority: Pair, server: Pair, where: Path, name: str, at_s: float) -> str:
    """What OpenSSL says of a server's certificate for ``name`` at a time."""
    (where / "ca").write_bytes(authority.pem())
    (where / "server").write_bytes(server.pem())
    how = ["-verify_ip", name] if ":" in name or name[0].isdigit() else ["-verify_hostname", name]
    line = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-attime", str(round(at_s)), "-CAfile", str(where / "ca")]
    ran = subprocess.run([*line, *how, str(where / "server")], capture_output=True, text=True, check=False)
    return "OK" if ran.returncode == 0 else ran.stderr


def test_a_client_that_knows_the_authority_believes_the_server(made: OwnCertificates, tmp_path: Path) -> None:
    """Under each of its names, for as long as it lasts, and under no other name."""
    authority = made.authority("box", BUILT_S + 30 * DAY_S)
    server = made.server(authority, NAMES, BUILT_S + 30 * DAY_S)
    for name in NAMES:
        assert verified(authority, server, tmp_path, name, BUILT_S + 31 * DAY_S) == "OK"
    assert "mismatch" in verified(authority, server, tmp_path, "other.local", BUILT_S + 31 * DAY_S)
    assert "expired" in verified(authority, server, tmp_path, "box", BUILT_S + (OWN_DAYS + 31) * DAY_S)


def test_a_machine_that_does_not_know_the_day_makes_good_ones(made: OwnCertificates, tmp_path: Path) -> None:
    """Made at the start of 1970, they are good from the day of building on."""
    authority = made.authority("box", 60)
    server = made.server(authority, NAMES, 60)
    assert verified(authority, server, tmp_path, "box", BUILT_S + 60) == "OK"


def test_files_are_the_servers_alone_and_last(made: OwnCertificates, tmp_path: Path) -> None:
    """Both files are 0600; the next start finds the same authority and the same certificate."""
    authority = made.authority("box", BUILT_S)
    server = made.server(authority, NAMES, BUILT_S)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in (AUTHORITY, OWN)} == {0o600}
    assert made.authority("renamed", BUILT_S + DAY_S).pem() == authority.pem()
    assert made.server(authority, NAMES[1:], BUILT_S + DAY_S).pem() == server.pem()


def test_the_servers_is_renewed_in_time(made: OwnCertificates, tmp_path: Path) -> None:
    """Well before its end, with a new name, and by a new authority; the authority stays."""
    authority = made.authority("box", BUILT_S)
    first = made.server(authority, NAMES, BUILT_S)
    late_s = BUILT_S + (OWN_DAYS - RENEW_DAYS + 1) * DAY_S
    second = made.server(authority, NAMES, late_s)
    assert second.until_s == late_s + OWN_DAYS * DAY_S > first.until_s
    third = made.server(authority, [*NAMES, "192.0.2.8"], late_s)
    assert verified(authority, third, tmp_path, "192.0.2.8", late_s) == "OK"
    (tmp_path / AUTHORITY).unlink()
    other = made.authority("box", late_s)
    assert verified(other, made.server(other, NAMES, late_s), tmp_path, "box", late_s) == "OK"


def test_a_half_written_file_is_made_anew(made: OwnCertificates, tmp_path: Path) -> None:
    """What is no certificate of ours is replaced, so that a damaged card does not end the service."""
    authority = made.authority("box", BUILT_S)
    made.server(authority, NAMES, BUILT_S)
    (tmp_path / OWN).write_bytes((tmp_path / OWN).read_bytes()[:300])
    assert verified(authority, made.server(authority, NAMES, BUILT_S), tmp_path, "box", BUILT_S) == "OK"


def test_what_a_person_names_is_judged(made: OwnCertificates) -> None:
    """A chain without certificate, a key with a passphrase or of another certificate: each is told in words."""
    authority = made.authority("box", BUILT_S)
    server = made.server(authority, NAMES, BUILT_S)
    good = Credentials.of(server.pem() + authority.pem(), server.secret_pem())
    assert (good.names, good.until_s, len(good.chain)) == (tuple(NAMES), BUILT_S + OWN_DAYS * DAY_S, 2)
    with pytest.raises(ValueError, match="no certificate"):
        Credentials.of(b"hello", server.secret_pem())
    with pytest.raises(ValueError, match="cannot be read"):
        Credentials.of(server.pem(), b"hello")
    with pytest.raises(ValueError, match="do not belong together"):
        Credentials.of(server.pem(), authority.secret_pem())
    sealed = subprocess.run(
        ["openssl", "ec", "-aes128", "-passout", "pass:x"], input=server.secret_pem(), capture_output=True, check=True
    ).stdout
    with pytest.raises(ValueError, match="without a passphrase"):
        Credentials.of(server.pem(), sealed)
