"""``refclock backup`` and ``refclock restore``: one file with the configuration, the box's settings, and what the clock has learned."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ppsd import version
from ppsd.appliance.backup import LIMIT_BYTES, Backup, collect, read, restore, write
from ppsd.appliance.boot import booted_slot, command
from ppsd.config.contents import contents
from ppsd.process.exit_codes import FAILED, GOOD, NO_PERMISSION, Refused
from refclock.errors import explain
from refclock.kernel.host import Host


def run(args: argparse.Namespace) -> int:
    """Back up or restore, whichever was called."""
    if os.geteuid() != 0:
        raise Refused(NO_PERMISSION, f"refclock {args.command}: only root may do this; run: sudo refclock {args.command} {args.file}")
    host = Host()
    if args.command == "backup":
        return back_up(host, args.file, args.with_secrets)
    return put_back(host, args.file)


def back_up(host: Host, file: Path, secrets: bool) -> int:
    """Write a backup."""
    backup = collect(host, secrets, version())
    if not backup.files:
        raise Refused(FAILED, "refclock backup: there is nothing to back up: no configuration and no state")
    try:
        write(file, backup)
    except OSError as error:
        raise Refused(FAILED, f"refclock backup: {explain(error)}") from None
    print(f"{file}: {', '.join(sorted(backup.files))}")
    print(_about_secrets(backup), file=sys.stderr)
    return GOOD


def _about_secrets(backup: Backup) -> str:
    if backup.secrets:
        return "It holds secrets (keys, the Wi-Fi passphrase, this box's ssh host keys): keep it as you keep a password."
    return "Keys, the Wi-Fi passphrase and ssh host keys are not in it; --with-secrets adds them."


def put_back(host: Host, file: Path) -> int:
    """Restore a backup."""
    try:
        data = contents(file, LIMIT_BYTES)
    except OSError as error:
        raise Refused(FAILED, f"refclock restore: {explain(error, str(file))}; nothing was changed") from None
    backup = read(data, str(file), version())
    print(*restore(host, backup, bool(booted_slot(host)), command), sep="\n")
    return GOOD
