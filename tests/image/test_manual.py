"""image/manual.py: the manual pages and completions that the packages install, as a person at a shell meets them."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from ppsd.cli.main import COMMANDS
from ppsd.config.tables import TABLES
from refclock.config import FEEDS, SOURCES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What goes to /usr/share."""
    directory = tmp_path_factory.mktemp("share")
    subprocess.run([sys.executable, ROOT / "image" / "manual.py", directory], check=True, cwd=ROOT)
    return directory


def unescaped(page: Path) -> str:
    return page.read_text(encoding="utf-8").replace("\\-", "-")


def bash(share: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    load = f"source {share}/bash-completion/completions/refclock; "
    script = load + 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _refclock; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script, "bash", "refclock", *words], capture_output=True, text=True, check=True, cwd=share)
    return set(done.stdout.split())


@pytest.mark.device
def test_the_page_of_the_command_is_complete(share: Path) -> None:
    """refclock(1) has every command, and each option beneath its command."""
    sections = dict(
        re.findall(r"^\.SS refclock ([\w-]+)(.*?)(?=^\.S[SH])", unescaped(share / "man/man1/refclock.1"), re.MULTILINE | re.DOTALL)
    )
    assert sections.keys() == COMMANDS.keys()
    for name, command in COMMANDS.items():
        assert not [word for option in command.options for word in option.names if word.startswith("-") and word not in sections[name]]


@pytest.mark.device
def test_the_page_of_the_configuration_is_complete(share: Path) -> None:
    """refclock.toml(5) has every table, and each key beneath its table."""
    sections = dict(re.findall(r"^\.SH \[(.*?)\n(.*?)(?=^\.SH)", unescaped(share / "man/man5/refclock.toml.5"), re.MULTILINE | re.DOTALL))
    tables = {f"{name}]": table for name, table in TABLES.items()}
    tables |= {f'[source]], type = "{kind}"': table for kind, table in SOURCES.items()}
    tables |= {f'[feed]], type = "{kind}"': table for kind, table in FEEDS.items()}
    assert sections.keys() == tables.keys()
    for name, table in tables.items():
        assert set(re.findall(r"^\.B (\w+)$", sections[name], re.MULTILINE)) == {spec.name for spec in fields(table)}


@pytest.mark.peers
def test_man_has_nothing_to_complain_of(share: Path) -> None:
    """groff formats each page without a warning."""
    for page in sorted((share / "man").glob("*/*")):
        done = subprocess.run(["groff", "-man", "-ww", "-Kutf8", "-Tutf8", page], capture_output=True, text=True, check=True)
        assert not done.stderr, page.name


@pytest.mark.device
def test_bash_completes_what_the_command_takes(share: Path) -> None:
    """Commands, the options of a command, words that an argument may be, and files where a file is meant."""
    assert bash(share, "st") == {"status"}
    assert bash(share, "") >= COMMANDS.keys() | {"help"}
    assert bash(share, "help", "cal") == {"calibrate"}
    assert bash(share, "status", "--") == {"--csv", "--json", "--numeric", "--run-dir", "--watch", "--help"}
    assert bash(share, "receiver", "re") == {"reset"}
    (share / "mine.toml").touch()
    assert bash(share, "config", "check", "--config", "mi") == {"mine.toml"}
    assert bash(share, "replay", "mi") == {"mine.toml"}
    assert not bash(share, "detect", "--wait", "")


@pytest.mark.peers
def test_fish_completes_what_the_command_takes(share: Path) -> None:
    """Commands, options and words."""

    def offered(line: str) -> set[str]:
        script = f'source {share}/fish/vendor_completions.d/refclock.fish; complete -C "{line}"'
        done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True)
        return {found.partition("\t")[0] for found in done.stdout.splitlines()}

    assert offered("refclock trac") == {"tracking"}
    assert offered("refclock status --") == {"--csv", "--json", "--numeric", "--run-dir", "--watch", "--help"}
    assert offered("refclock config ch") == {"check"}


@pytest.mark.peers
def test_zsh_completes_what_the_command_takes(share: Path) -> None:
    """Commands, options and words, on a terminal."""
    script = f"""
        zmodload zsh/zpty
        zpty z zsh -f -i
        zpty -w z 'fpath=({share}/zsh/vendor-completions $fpath); autoload -Uz compinit; compinit -u -d {share}/dump; print RE""ADY'
        zpty -r -m z out '*READY*'
        typed() {{ zpty -n -w z "$1"$'\\t'; zpty -r -m z out "*$2*"; zpty -n -w z $'\\x15' }}
        typed 'refclock trac' 'tracking '
        typed 'refclock config ch' 'check '
        typed 'refclock calibrate pps --ec' '--echo'
    """
    subprocess.run(
        ["zsh", "-f", "-c", script], check=True, timeout=60, env={"PATH": "/usr/bin:/bin", "TERM": "dumb"}
    )  # waits for each word
