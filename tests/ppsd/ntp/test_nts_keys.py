"""Cookie keys are derived from one secret as RFC 5869 says, one for each day."""

import pytest

from ppsd.ntp.nts_keys import KEY_BYTES, SECRET_BYTES, cookie_key, cookie_keys, period_of


def test_key_is_hkdf_of_secret_and_period() -> None:
    """A key is what another implementation of HKDF-SHA256 makes of the same secret, name and period."""
    hazmat = pytest.importorskip("cryptography.hazmat.primitives.kdf.hkdf")
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    secret = bytes(range(SECRET_BYTES))
    for period in (0, 1, 20785, 2**32 - 1):
        info = b"refclock nts cookie key" + period.to_bytes(4)
        derived = hazmat.HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)
        assert cookie_key(secret, period) == derived


def test_key_is_the_same_in_every_version() -> None:
    """Cookies outlive an update: the key of a given secret and period never changes."""
    assert cookie_key(bytes(range(SECRET_BYTES)), 20785).hex() == "5c5bd3c6a507c3a086df05064dae153a760cb31621ece9f36babbfe44fd9933d"


def test_each_period_and_each_secret_has_its_own_key() -> None:
    """Neighbouring days and neighbouring secrets share no key."""
    secrets = (bytes(SECRET_BYTES), bytes(SECRET_BYTES - 1) + b"\x01")
    assert len({cookie_key(secret, period) for secret in secrets for period in range(10)}) == 20


@pytest.mark.parametrize("length", [0, 31, 33])
def test_secret_of_another_length_makes_no_key(length: int) -> None:
    """A file that was cut short never becomes a key."""
    with pytest.raises(ValueError, match=f"{length} bytes"):
        cookie_key(bytes(length), 1)


def test_period_changes_at_midnight_of_utc() -> None:
    """A day's key serves from midnight to midnight; eight days before and one day after are taken with it."""
    assert period_of(86399) == 0
    assert period_of(86400) == 1
    assert period_of(-1) == 0
    secret = bytes(SECRET_BYTES)
    day, second = cookie_keys(secret, 86400 * 20785), cookie_keys(secret, 86400)
    assert (day.first, day.present) == (20777, 20785)
    assert day.keys == tuple(cookie_key(secret, period) for period in range(20777, 20787))
    assert (second.first, second.present, len(second.keys)) == (0, 1, 3)
    assert secret.hex() not in repr(day)
    assert str(day.keys[0]) not in repr(day)
