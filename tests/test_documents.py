"""The documents: what they name is there. A reader who follows a path, a command or a key finds it."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import pytest

from ppsd.cli.main import COMMANDS
from ppsd.config.tables import UPSTREAMS, Config
from refclock.config import FEEDS, SOURCES

ROOT = Path(__file__).parents[1]
README, ARCHITECTURE, BOUND = ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "ppsd" / "discipline" / "THE_BOUND.md"
DOCUMENTS = pytest.mark.parametrize("path", [README, ARCHITECTURE, BOUND, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
GENERATED = re.compile(r"<!-- code map -->.*<!-- end of code map -->", re.DOTALL)
FILE = r"(?:[\w.-]+/)*[\w*.-]+\.(?:py|pyi|c|h|md|toml|json|txt|sh|svg)"


@cache
def text(path: Path) -> str:
    """A document as written by hand."""
    return GENERATED.sub("", path.read_text(encoding="utf-8"))


def code(path: Path) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text(path), flags=re.DOTALL))


def anchors(document: str) -> set[str]:
    """What a heading is linked by."""
    heads = re.findall(r"^#+ (.*)$", document, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@DOCUMENTS
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link names a file or folder of the repository, and a heading that it has."""
    for link in re.findall(r"\]\(([^)\s]+)\)", text(path)):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors(text(target)), f"{path.name}: {link}"


@pytest.mark.parametrize("path", [README, ARCHITECTURE, BOUND], ids=lambda path: path.name)
def test_files_and_what_is_in_them(path: Path) -> None:
    """Every file that is named with its folder exists; of `file: Name.part` each name is in the file. A `*` stands for any."""
    for span in code(path):
        match = re.fullmatch(rf"({FILE})(?:: ([\w.]+))?", span)
        if match is None or ("/" not in match[1] and match[2] is None):
            continue
        found = sorted(ROOT.glob(match[1]))
        assert found, f"{path.name} names {match[1]}"
        words = set(re.findall(r"\w+", found[0].read_text(encoding="utf-8"))) if match[2] else set()
        assert not match[2] or words.issuperset(match[2].split(".")), f"{path.name}: {span}"


@pytest.mark.parametrize("path", [README, ARCHITECTURE, BOUND], ids=lambda path: path.name)
def test_folders(path: Path) -> None:
    """Every folder of the repository that is named exists, and every file without an ending."""
    for span in code(path):
        if re.fullmatch(r"(?:refclock|ppsd|native|hw-sim|tests|image)/(?:[\w-]+/)*[\w-]*", span):
            assert (ROOT / span).exists(), f"{path.name} names {span}"


@pytest.mark.parametrize("path", [README, ARCHITECTURE, BOUND], ids=lambda path: path.name)
def test_commands_and_make_targets(path: Path) -> None:
    """Every `refclock COMMAND` is a command and takes those options; every `make TARGET` is a target."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):(?!=)", makefile, re.MULTILINE))
    shown = "\n".join([*code(path), *re.findall(r"```(.*?)```", text(path), re.DOTALL)])
    for name, rest in re.findall(r"(?:^|[ /])refclock ([a-z][a-z-]*)\b(.*)$", shown, re.MULTILINE):
        assert name in COMMANDS, f"{path.name}: refclock {name}"
        known = {option for o in COMMANDS[name].options for option in o.names}
        options = set(re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", rest.partition("#")[0]))
        assert options <= known | {"--help"}, f"{path.name}: refclock {name}{rest}"
    for target in re.findall(r"(?:^|\n)make ([a-z][a-z-]*)", shown):
        assert target in targets, f"{path.name}: make {target}"


def test_every_command_is_in_the_readme() -> None:
    """The table of commands is complete, but for those of the image."""
    assert not [name for name, command in COMMANDS.items() if not command.appliance and f"`refclock {name}" not in text(README)]


def tables() -> dict[str, set[str]]:
    """Each table of the configuration file, and its keys."""
    found: dict[str, set[str]] = {"source": set(), "feed": set(), "upstream": set()}
    for f in fields(Config):
        table = getattr(Config(), f.name)
        if is_dataclass(table):
            found[f.name] = {key.name for key in fields(table)}
    for name, kinds in (("source", SOURCES), ("feed", FEEDS), ("upstream", UPSTREAMS)):
        for kind in kinds.values():
            found[name] |= {key.name for key in fields(kind)} | {"type"}
    return found


@DOCUMENTS
def test_configuration_keys(path: Path) -> None:
    """`[table] key = value`, `key = value` and, in the README, every `key_with_a_unit` are of the configuration file."""
    keys = set[str]().union(*tables().values())
    for span in code(path):
        if match := re.match(r"\[+(\w+)\]+(?: (\w+) = |$)", span):
            assert match[1] in tables(), f"{path.name}: {span}"
            assert match[2] is None or match[2] in tables()[match[1]], f"{path.name}: {span}"
        elif match := re.match(r"([a-z_]+) = ", span):
            assert match[1] in keys, f"{path.name}: {span}"
        elif path == README and re.fullmatch(r"[a-z]+(_[a-z]+)+", span):
            assert span in keys, f"{path.name}: {span}"


def test_code_names_modules_that_are_there() -> None:
    """A module that a docstring or comment names exists, and so does what is named in it; so do files that are named with their folder."""
    trees = {"refclock": ROOT, "ppsd": ROOT, "refclock_sim": ROOT / "hw-sim"}
    missing = []
    for package, where in trees.items():
        for path in sorted((where / package).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            for dotted in re.findall(r"``((?:refclock|ppsd|refclock_sim)(?:\.\w+)+)", source):
                parts = dotted.split(".")
                home = trees[parts[0]]
                while parts and (home / parts[0]).is_dir():
                    home /= parts.pop(0)
                here = [file for file in home.glob("*.*") if not parts or file.name.split(".")[0] == parts[0]]
                words = {word for file in here if file.suffix == ".py" for word in re.findall(r"\w+", file.read_text(encoding="utf-8"))}
                if not here or not words.issuperset(parts[1:]):
                    missing.append(f"{path.relative_to(ROOT)}: {dotted}")
            named = re.findall(r"(?<![\w/-])((?:native|tests|hw-sim|image|refclock|ppsd)/[\w/-]+\.(?:py|c|h|md|svg))\b", source)
            missing += [f"{path.relative_to(ROOT)}: {name}" for name in named if not (ROOT / name).exists()]
    assert not missing, "\n".join(missing)
