"""The secret that makes the keys of NTS cookies, and the directory of what the server keeps for NTS.

Two processes share it: that which gives cookies and that which takes them (``ppsd.ntp.nts_keys``). Whichever needs it first makes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from ppsd.config.contents import contents
from ppsd.config.tables import Config
from refclock.kernel.files import Opener, closed_directory, owners, replace_file, user_name
from refclock.kernel.sandbox import Account, account, give

DIRECTORY: Final = "nts"
"""The directory in ``run.state``, the server's alone."""
FILE: Final = "nts-secret"
"""In DIRECTORY: the secret of a box that shares none."""
BYTES: Final = 32
"""Octets of a secret; a file holds them as they are, or as hexadecimal digits."""
LIMIT_BYTES: Final = 1 << 20
"""Octets; a larger file is no secret's."""


def nts_place(state: Path, to: Account) -> Path:
    """The directory of NTS in the state directory ``state``, as ``refclock.kernel.sandbox.give`` makes it."""
    return give(state, DIRECTORY, 0o700, to)


def nts_secret(config: Config, place: Path, opener: Opener = os.open) -> bytes:
    """The 32 octets of ``nts.secret``; without that of the file in ``place``, made when it is missing. OSError: it cannot be used."""
    if config.nts.secret:
        return _read(Path(config.nts.secret), config, opener)
    path = place / FILE
    try:
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as error:
        if (closed := closed_directory(place)) is None:
            raise
        what = f"user {user_name(os.geteuid())} may not enter {closed}; run: chmod o+x {closed}, or set run.state"
        raise PermissionError(error.errno, what, str(place)) from None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # the other process may be about to make it, too
        try:
            return _read(path, config, os.open)
        except FileNotFoundError:
            replace_file(path, os.urandom(BYTES), 0o600, believed(config))
        if os.geteuid() == 0:  # this process will be the directory's owner
            os.chown(path, os.fstat(directory).st_uid, -1, follow_symlinks=False)
    finally:
        os.close(directory)
    return _read(path, config, os.open)


def believed(config: Config) -> frozenset[int]:
    """Whose files of NTS are believed: the server's among them, also while it is a number that nobody has."""
    return owners(str(account(config.run.user).user))


def _read(path: Path, config: Config, opener: Opener) -> bytes:
    data = contents(path, LIMIT_BYTES, private=believed(config), opener=opener)
    if len(data) == BYTES:
        return data
    with contextlib.suppress(ValueError):
        if len(found := bytes.fromhex(data.decode("ascii"))) == BYTES:
            return found
    what = f"is no NTS secret: it needs {BYTES} random bytes; make it: head -c {BYTES} /dev/urandom > {path}"
    raise OSError(errno.EINVAL, what, str(path))
