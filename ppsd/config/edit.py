"""Changes to the configuration file on disk: whole or not at all, keeping what was in it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TextIO

from ppsd.config.file import parse
from ppsd.config.toml_text import locate
from refclock.schema import ConfigError


def rewrite(path: Path, before: str, after: str, command: str, out: TextIO) -> int:
    """Make ``after`` of the configuration if that is good; what was there is kept, also as FILE.bak."""
    try:
        parse(after, str(path))
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        print(f"refclock {command}: {path} was left as it is: what was found does not go with what it says", file=sys.stderr)
        return 78
    path.parent.mkdir(parents=True, exist_ok=True)
    if before:
        path.with_name(path.name + ".bak").write_text(before, encoding="utf-8")
    partial = path.with_name(path.name + ".new")
    partial.write_text(after, encoding="utf-8")
    partial.replace(path)
    print(f"written into {path}" + (f"; as it was: {path}.bak" if before else ""), file=out)
    return 0


# ---- the command --------------------------------------------------------------------------------------------------------------------


def written(text: str, index: int, value: int) -> str:
    """A configuration's ``text`` with ``pps_bias_us`` of its ``index``-th source set."""
    lines, at = text.split("\n"), locate(text)
    told = f"pps_bias_us = {value}  # measured by refclock calibrate pps"
    stands = at.get(("source", index, "pps_bias_us"))
    if stands is not None:
        lines[stands - 1] = re.sub(r"^(\s*)pps_bias_us\b.*", rf"\g<1>{told}", lines[stands - 1])
    else:
        lines.insert(at["source", index], told)
    return "\n".join(lines)
