"""One file with what makes this server this server: its configuration, the settings of the box, what it has learned; secrets on request.

The file is JSON: names from a fixed list, contents with their checksums. So it has no links, no directories and no sizes to be wrong about,
and restoring writes to no other place than backing up reads from. A restore judges the whole file before it changes anything.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from ppsd.appliance import settings
from ppsd.config.contents import contents
from ppsd.config.file import DEFAULT_FILE, parse_bytes
from ppsd.config.keys import parse_keys
from ppsd.process.exit_codes import BAD_DATA, FAILED, Refused
from refclock.errors import explain
from refclock.kernel.files import owners, replace_file
from refclock.kernel.host import Host
from refclock.schema import ConfigError, Problem

FORMAT: Final = 1
"""Of the file. A higher one is from a later refclock."""
KEY: Final = "refclock backup"
"""The key that marks such a file, with the format as its value."""
LIMIT_BYTES: Final = 32 << 20
"""Octets of a backup; a larger one is refused. Configuration and state are far below one megabyte."""
LIMIT_FILE_BYTES: Final = 4 << 20
"""Octets of one file in it."""
MOST_FILES: Final = 100
STATE: Final = "/var/lib/refclock"
KEYS: Final = "/etc/refclock/keys"
BOX: Final = "/data/box/box.toml"
SSH: Final = "/data/ssh"
_STATE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}\.json")
_SSH_NAME = re.compile(r"ssh_host_[a-z0-9]{1,20}_key(\.pub)?")
_PASSPHRASE = re.compile(r"^[ \t]*passphrase[ \t]*=.*$", re.MULTILINE)
LEFT_OUT: Final = '# passphrase = ""   # left out of the backup (--with-secrets keeps it)'


def place(name: str, secrets: bool) -> str | None:
    """Where the file ``name`` of a backup belongs; None: a backup has no such file. Secrets have a place only in one that keeps them."""
    if name == "refclock.toml":
        return DEFAULT_FILE
    if name == "box.toml":
        return BOX
    kind, _, rest = name.partition("/")
    if kind == "state" and _STATE_NAME.fullmatch(rest):
        return f"{STATE}/{rest}"
    if secrets and name == "keys":
        return KEYS
    return f"{SSH}/{rest}" if secrets and kind == "ssh" and _SSH_NAME.fullmatch(rest) else None


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds. ``version``: of the refclock that made it."""

    version: str
    secrets: bool
    files: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """As a file."""
        files = {name: {"sha256": sha256(data).hexdigest(), "base64": base64.b64encode(data).decode()} for name, data in self.files.items()}
        return json.dumps({KEY: FORMAT, "version": self.version, "secrets": self.secrets, "files": files}, indent=1).encode() + b"\n"


# ---- making ----------------------------------------------------------------------------------------------------------------------------


def collect(host: Host, secrets: bool, version: str) -> Backup:
    """What this machine has. OSError: a file cannot be read."""
    names = ["refclock.toml", "box.toml", *(f"state/{path.rpartition('/')[2]}" for path in host.names(f"{STATE}/*.json"))]
    if secrets:
        names += ["keys", *(f"ssh/{path.rpartition('/')[2]}" for path in host.names(f"{SSH}/ssh_host_*"))]
    files = {}
    for name in names:
        where = place(name, secrets)
        if where is not None and host.path(where).is_file():
            files[name] = contents(host.path(where), LIMIT_FILE_BYTES)
    if not secrets and "box.toml" in files:
        files["box.toml"] = without_passphrase(files["box.toml"])
    return Backup(version, secrets, files)


def without_passphrase(text: bytes) -> bytes:
    """box.toml without the Wi-Fi passphrase. Where it cannot be told apart from the rest, nothing of the file is left."""
    kept = _PASSPHRASE.sub(LEFT_OUT, text.decode("utf-8", "replace"))
    parsed, _ = settings.parse(kept.encode())
    return kept.encode() if not parsed.wifi.passphrase else b""


# ---- reading ---------------------------------------------------------------------------------------------------------------------------


def read(data: bytes, file: str, version: str) -> Backup:
    """Read a backup and judge every file in it. Refused: it is none, or not whole. ConfigError: what it would restore is not valid."""
    told = _object(data, file)
    made_by = str(told.get("version", "?"))[:40]
    if not isinstance(told[KEY], int) or told[KEY] > FORMAT:
        why = f"it was made by refclock {made_by}, and {version}, which runs, does not know its format"
        raise Refused(BAD_DATA, f"refclock restore: {file}: {why}; update first (`refclock update`). Nothing was changed")
    secrets, files = told.get("secrets") is True, told.get("files")
    if not isinstance(files, dict) or len(files) > MOST_FILES:
        raise _spoilt(file, "its list of files is missing or too long")
    found = {str(name): _content(name, entry, file, secrets) for name, entry in files.items()}
    backup = Backup(made_by, secrets, found)
    if problems := judge(backup):
        raise ConfigError(problems)
    return backup


def _object(data: bytes, file: str) -> dict[str, Any]:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or KEY not in told:
        why = "is no backup of refclock, or only a part of one"
        raise Refused(BAD_DATA, f"refclock restore: {file}: {why}; take a file that `refclock backup` wrote. Nothing was changed")
    return told


def _content(name: str, entry: Mapping[str, str], file: str, secrets: bool) -> bytes:
    if place(name, secrets) is None:
        raise _spoilt(file, f"it names {name[:60]!r}, which refclock does not keep there")
    try:
        data = base64.b64decode(entry["base64"], validate=True)
        whole = sha256(data).hexdigest() == entry["sha256"]
    except (KeyError, TypeError, ValueError):  # also binascii.Error
        raise _spoilt(file, f"{name} is not readable") from None
    if not whole or len(data) > LIMIT_FILE_BYTES:
        raise _spoilt(file, f"{name} is not what was saved")
    return data


def _spoilt(file: str, why: str) -> Refused:
    return Refused(BAD_DATA, f"refclock restore: {file}: {why}: the file was damaged or changed. Nothing was changed here")


def judge(backup: Backup) -> list[Problem]:
    """What is wrong with the files of a backup."""
    problems: list[Problem] = []
    for name, data in backup.files.items():
        if name == "refclock.toml":
            try:
                parse_bytes(data, name)
            except ConfigError as error:
                problems += error.problems
        elif name == "box.toml":
            problems += settings.parse(data, name)[1]
        elif name == "keys":
            problems += [Problem(name, line, "", what) for line, what in parse_keys(data.decode("utf-8", "replace"), allow_weak=True)[1]]
        elif name.startswith("state/"):
            with suppress(ValueError, RecursionError):
                if isinstance(json.loads(data), dict):
                    continue
            problems.append(Problem(name, 0, "", "is no state of refclock"))
        elif not name.endswith(".pub") and not data.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----"):
            problems.append(Problem(name, 0, "", "is no host key of OpenSSH"))
    return problems


# ---- restoring -------------------------------------------------------------------------------------------------------------------------


def restore(host: Host, backup: Backup, appliance: bool, run: Callable[[Sequence[str]], int]) -> list[str]:
    """Put the files of a judged backup back; returns what was done and what remains to be done, a sentence each. The clock process, which
    writes its state when it ends, is stopped meanwhile. OSError: a file could not be written; those before it are restored."""
    files = {name: data for name, data in backup.files.items() if appliance or not name.startswith(("box.toml", "ssh/"))}
    stopped = run(["systemctl", "--quiet", "is-active", "refclock-clock.service"]) == 0
    if stopped and run(["systemctl", "stop", "refclock-clock.service"]) != 0:
        raise Refused(
            FAILED, "refclock restore: refclock-clock.service cannot be stopped, and would overwrite its state; nothing was changed"
        )
    try:
        for name, data in files.items():
            if (where := place(name, backup.secrets)) is not None:
                _put(host.path(where), name, data)
    finally:
        if stopped:
            run(["systemctl", "start", "refclock-clock.service"])
            run(["systemctl", "try-restart", "refclock-serve.service"])
    said = [f"restored: {', '.join(sorted(files))}"]
    if left := sorted(set(backup.files) - set(files)):
        said.append(f"left out, since this is not the appliance: {', '.join(left)}")
    if LEFT_OUT.encode() in files.get("box.toml", b""):
        said.append("the Wi-Fi passphrase is not in this backup: write it into box.toml on the card")
    if "box.toml" in files or any(name.startswith("ssh/") for name in files):
        said.append("restart the box for its settings to act: systemctl reboot")
    return said


def _put(path: Path, name: str, data: bytes) -> None:
    path.parent.mkdir(mode=0o700 if name != "refclock.toml" else 0o755, parents=True, exist_ok=True)
    directory = path.parent.stat()
    public = name == "refclock.toml" or name.endswith(".pub")
    try:
        replace_file(path, data, 0o644 if public else 0o600, {*owners(), directory.st_uid})
        if name.startswith("state/"):
            os.chown(path, directory.st_uid, directory.st_gid)
    except OSError as error:
        raise OSError(error.errno, explain(error, f"{path} cannot be restored")) from error


def write(file: Path, backup: Backup) -> None:
    """Write a backup. It is readable for its owner alone: even without secrets it tells who may ask and from where."""
    replace_file(file, backup.to_bytes(), 0o600, owners())
