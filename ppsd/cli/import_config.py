"""``refclock import FILE``: prints the configuration of another program as one of this program, or writes it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from ppsd.cli.config import apply
from ppsd.config.contents import contents
from ppsd.config.directives import Fate
from ppsd.config.file import DEFAULT_FILE
from ppsd.config.import_chrony import CHRONY, INCLUDES, import_chrony
from ppsd.config.import_ntp import NTP, TOGETHER, import_ntp
from ppsd.config.import_receivers import import_gpsd, import_satpulse
from ppsd.config.import_servers import import_timesyncd
from ppsd.config.imported import LIMIT_BYTES, Draft, Line, Look
from ppsd.config.keys import read_keys
from ppsd.config.tables import Config, KeysConfig
from ppsd.process.exit_codes import BAD_DATA, GOOD, USAGE, Refused
from refclock.errors import explain
from refclock.schema import ConfigError

KINDS: Final[dict[str, Callable[[str, str, Look], Draft]]] = {
    "chrony": import_chrony,
    "ntp": import_ntp,
    "gpsd": lambda text, origin, _: import_gpsd(text, origin),
    "satpulse": lambda text, origin, _: import_satpulse(text, origin),
    "timesyncd": lambda text, origin, _: import_timesyncd(text, origin),
}
"""What reads the file of which program."""
FILES: Final = 100
"""Files that one directive may include."""


def run(args: argparse.Namespace) -> int:
    """Read the file, and print or write the result."""
    result = imported(args.file, args.kind)
    if not args.apply:
        print(result, end="")
        return GOOD
    return apply(args.config or Path(DEFAULT_FILE), lambda _: result, "import", sys.stdout)


def imported(path: Path, kind: str | None) -> str:
    """The file at ``path`` as refclock.toml. ``kind``: the program whose file it is, of KINDS; None: its name or its lines tell."""
    text = _text(path)
    kind = kind or kind_of(path.name, text)
    if kind is None:
        words = ", ".join(KINDS)
        raise Refused(USAGE, f"refclock: whose file {path} is, neither its name nor its lines tell: --from PROGRAM with one of {words}")
    draft = KINDS[kind](text, str(path), _including(path.parent))
    _judge_keys(draft)
    return draft.text()


def _text(path: Path) -> str:
    """What the file holds, whatever its encoding."""
    try:
        data = contents(path, 1 << 20)
    except OSError as error:
        raise OSError(error.errno, explain(error, str(path))) from error
    if len(data) > LIMIT_BYTES:
        raise Refused(BAD_DATA, f"refclock: {path} is larger than {LIMIT_BYTES >> 10} kB: that is no configuration")
    return data.decode("utf-8", "replace").removeprefix("\ufeff")


def _judge_keys(draft: Draft) -> None:
    """Allow weak keys when the other program's file has some; leave the file out when the daemon could not use it."""
    value, line = draft.values.get(("keys", "file"), ("", Line(0, ())))
    if not isinstance(value, str) or not value.startswith("/"):
        return
    try:
        found = read_keys(Config(keys=KeysConfig(file=value, weak=True)))
    except ConfigError as error:
        del draft.values["keys", "file"]
        draft.tell(line, Fate.REFUSED, str(error.problems[0]))
        return
    has = {key.key_id for key in found}
    for settings in [one for one in draft.upstreams if one.keys.get("key", 0) not in {0, *has}]:
        draft.upstreams.remove(settings)
        draft.tell(settings.line, Fate.REFUSED, f"{value} has no key {settings.keys['key']}, and without it anybody could answer")
    try:
        read_keys(Config(keys=KeysConfig(file=value)))
    except ConfigError as error:
        draft.put("keys", "weak", True, line)
        draft.tell(line, Fate.TAKEN, f"with the weak ones: {error.problems[0]}")


def kind_of(name: str, text: str) -> str | None:
    """Whose file it is: by its name, else by whose directives its lines begin with; None when neither tells."""
    lowered = name.lower()
    for kind in ("satpulse", "timesyncd", "chrony", "gpsd", "ntp"):
        if kind in lowered and not (kind == "ntp" and lowered.endswith(".toml")):
            return kind
    if lowered.endswith(".toml") or re.search(r"^\s*\[(?:serial|gps|phc)\]", text, re.MULTILINE):
        return "satpulse" if re.search(r"^\s*\[(?:serial|gps|phc|ntp)\]", text, re.MULTILINE) else None
    if re.search(r"^\s*\[Time\]", text, re.MULTILINE):
        return "timesyncd"
    if re.search(r"^\s*(?:DEVICES|GPSD_OPTIONS)=", text, re.MULTILINE):
        return "gpsd"
    words = {line.split()[0].lower() for line in text.splitlines() if line.split()}
    chrony, ntp = {*CHRONY, *INCLUDES}, {*NTP, *TOGETHER}
    score = len(words & (chrony - ntp)) - len(words & (ntp - chrony))
    if score == 0 and not words & (chrony | ntp):
        return None
    by_unit = re.search(r"^\s*refclock\s+\w+.*\sunit\s|^\s*server\s+127\.127\.", text, re.MULTILINE | re.IGNORECASE)
    return "ntp" if score < 0 or by_unit is not None else "chrony"


def _including(directory: Path) -> Look:
    """How files are found that a file in ``directory`` includes: by their pattern; those that cannot be read are passed over."""

    def look(pattern: str) -> Sequence[tuple[str, str]]:
        found = []
        where = directory / pattern
        try:
            paths = sorted(islice(where.parent.glob(where.name), FILES))
        except (OSError, ValueError, NotImplementedError):  # no such directory, or no pattern
            paths = []
        for path in paths:
            try:
                found.append((str(path), _text(path)))
            except (OSError, Refused):
                continue
        return found

    return look
