"""Writes the manual pages and the completions of bash, zsh and fish, from the table of commands and the tables of the configuration.

``python image/manual.py DIRECTORY`` writes them into the folders that they have below /usr/share. A description of a key is its comment in
image/examples/refclock.toml; keys that are not there are described by their rule (``refclock.schema.Rule``).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ppsd import version
from ppsd.cli.arguments import Command, Option
from ppsd.cli.main import COMMANDS
from ppsd.config.file import as_value
from ppsd.config.tables import TABLES
from refclock import BUILD_DATE
from refclock.config import FEEDS, SOURCES
from refclock.schema import Rule

EXAMPLE = Path(__file__).parent / "examples" / "refclock.toml"
FILES = {"FILE", "DIR", "DEVICE", "LINE"}
"""Placeholders of arguments that name a file."""
EXITS = {
    "0": "good",
    "1": "answers no: nothing was found, or it did not succeed; of status: holdover; of doctor: at least one warning",
    "2": "of status: no time is served; of doctor: at least one failure",
    "3": "no daemon runs",
    "64": "the command line is wrong",
    "65": "the data is wrong",
    "74": "a file, device or socket failed",
    "77": "a permission is missing",
    "78": "the configuration is wrong",
    "130": "interrupted",
}


# ---- what an argument is ----------------------------------------------------------------------------------------------------------------


def placeholder(option: Option) -> str:
    """What the synopsis shows for the value: "FILE", "show|reset"; "" for a switch."""
    if option.settings.get("action") == "store_true":
        return ""
    if "choices" in option.settings:
        return "|".join(option.settings["choices"])
    return str(option.settings.get("metavar", option.names[-1].lstrip("-").upper()))


def is_switch(option: Option) -> bool:
    """Whether it is named by the user (``--json``), not by its place."""
    return option.names[0].startswith("-")


def repeated(option: Option) -> bool:
    """Whether it may be given several times."""
    return option.settings.get("action") == "append"


def help_of(option: Option) -> str:
    """Its description."""
    return str(option.settings.get("help", ""))


def names_file(option: Option) -> bool:
    """Whether its value is a file of this machine."""
    return option.settings.get("type") is Path or placeholder(option) in FILES


def synopsis(command: Command) -> str:
    """The arguments of a command as its manual page shows them."""
    words = []
    for option in command.options:
        shown = " ".join((option.names[-1], placeholder(option))).rstrip() if is_switch(option) else placeholder(option)
        words.append(f"[{shown}]" if is_switch(option) or option.settings.get("nargs") == "?" else shown)
    return " ".join(words)


# ---- manual pages -----------------------------------------------------------------------------------------------------------------------


def roff(text: str) -> str:
    """A text in the language of man(7). A hyphen stays one that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("\N{MICRO SIGN}", "\\(mc")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def entry(term: str, text: str) -> str:
    """One item of a list: the term, and its description beneath it."""
    return f".TP\n.B {roff(term)}\n{roff(text)}\n"


def page(name: str, section: int, what: str, body: str) -> str:
    """A whole manual page."""
    head = f'.TH "{name.upper()}" "{section}" "{BUILD_DATE}" "refclock {version()}" "refclock"\n'
    return f"{head}.SH NAME\n{roff(name)} \\- {roff(what)}\n{body}"


def refclock_1() -> str:
    """refclock(1): every command with its arguments."""
    parts = [".SH SYNOPSIS\n.B refclock\n.I COMMAND\n[\n.I ARGUMENT ...\n]\n", ".SH COMMANDS\n"]
    for command in COMMANDS.values():
        parts.append(f".SS {roff(f'refclock {command.name} {synopsis(command)}'.rstrip())}\n")
        parts.append(f"{roff(f'{command.help[0].upper()}{command.help[1:]}.')}\n")
        for option in command.options:
            term = " ".join((", ".join(option.names) if is_switch(option) else "", placeholder(option))).strip()
            parts.append(entry(term, help_of(option)))
        parts.append(f".P\nExample:\n.B refclock {roff(command.example)}\n")
    parts += [".SH EXIT STATUS\n", *(entry(code, meaning) for code, meaning in EXITS.items())]
    parts.append(".SH FILES\n" + entry("/etc/refclock/refclock.toml", "the configuration: refclock.toml(5)"))
    parts.append(
        entry("/run/refclock", "sockets and the served time") + entry("/var/lib/refclock", "what the next start knows of this one")
    )
    parts.append(".SH SEE ALSO\n.BR refclock.toml (5),\n.BR refclock\\-clock (8),\n.BR refclock\\-serve (8)\n")
    return page("refclock", 1, "a GPS receiver and a Linux box become an honest stratum-1 time server", "".join(parts))


def comments() -> Mapping[tuple[str, str], str]:
    """(table, key) of the example and what is said of it there."""
    table, found = "", {}
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\[+(\w+)\]+", line):
            table = match[1]
        elif match := re.match(r"(\w+) = .*?(?<!\S)#+ +(.*)$", line.removeprefix("# ")):
            found[table, match[1]] = match[2]
    return found


def keys_of(table: str, cls: type[Any], said: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """The keys of one table of the configuration."""
    for spec in fields(cls):
        rule: Rule = spec.metadata["rule"]
        given = "required" if spec.default is MISSING else "not set" if spec.default is None else f"default: {as_value(spec.default)}"
        sentences = dict.fromkeys(text.rstrip(".") for text in (said.get((table, spec.name), ""), rule.what, rule.allowed()) if text)
        yield entry(spec.name, f"({given}) {'. '.join(f'{text[0].upper()}{text[1:]}' for text in sentences)}.")


def first_sentence(cls: type[Any]) -> str:
    """What a table is about."""
    return re.split(r"(?<=[.])\s", " ".join((cls.__doc__ or "").split()), maxsplit=1)[0].replace("``", '"')


def refclock_toml_5() -> str:
    """refclock.toml(5): every table with its keys."""
    said = comments()
    parts = [
        ".SH DESCRIPTION\n",
        roff("/etc/refclock/refclock.toml is a TOML file. Every key is optional, and an empty file is good: it looks for a receiver."),
        "\n.P\n",
        roff("refclock config check tells every mistake with its line. refclock reload makes the daemon read the file again."),
        "\n",
    ]
    for name, cls in TABLES.items():
        parts += [f".SH [{name}]\n{roff(first_sentence(cls))}\n", *keys_of(name, cls, said)]
    for name, kinds in (("source", SOURCES), ("feed", FEEDS)):
        for kind, item in kinds.items():
            parts += [f'.SH [[{name}]], type = "{kind}"\n{roff(first_sentence(item))}\n', *keys_of(name, item, said)]
    parts.append(".SH SEE ALSO\n.BR refclock (1),\n.BR refclock\\-clock (8)\n")
    return page("refclock.toml", 5, "configuration of refclock", "".join(parts))


PROCESSES = {
    "clock": "reads receivers and pulses and decides what time it is. It has no network. It sets the system clock only with clock.steer "
    '= "kernel", and needs CAP_SYS_TIME only then',
    "serve": "answers NTP requests from the time that refclock-clock publishes. It opens no device and has no privilege. While "
    "refclock-clock is away it goes on answering, with an error bound that grows",
}
FILES_OF = {
    "serve": {
        "/etc/refclock/keys": 'symmetric keys (keys.file = "/etc/refclock/keys"). Only root needs to be able to read it: systemd hands '
        "a copy to the service when it starts (LoadCredential= of systemd.exec(5)). After a change: systemctl restart refclock-serve",
    },
}
"""Files of one process alone, and what they are."""


def process_8(name: str) -> str:
    """refclock-clock(8), refclock-serve(8): the two processes of the daemon."""
    parts = [
        f".SH SYNOPSIS\n.B python3 \\-I \\-m ppsd {name}\n[\\-\\-config FILE] [\\-\\-run\\-dir DIR]\n",
        f".SH DESCRIPTION\nThis process {roff(PROCESSES[name])}.\n.P\n",
        roff("refclock run starts both processes; systemd starts each as a service of this name. Neither ends with the other.") + "\n",
        ".SH SIGNALS\n",
        entry("SIGHUP", "reads the configuration again; a file with a mistake is refused, and the old configuration stays"),
        entry("SIGTERM, SIGINT", "ends the process"),
        ".SH EXIT STATUS\n",
        *(entry(code, EXITS[code]) for code in ("0", "64", "74", "77", "78")),
        ".SH ENVIRONMENT\n",
        entry("NOTIFY_SOCKET, WATCHDOG_USEC", "where the process reports that it is ready and alive (sd_notify(3))"),
        entry("LISTEN_FDS, LISTEN_PID", "sockets that systemd hands over (sd_listen_fds(3))"),
        ".SH FILES\n",
        entry("/etc/refclock/refclock.toml", "the configuration: refclock.toml(5)"),
        entry("/run/refclock/timescale", "the time that is served: written by refclock-clock, read by refclock-serve"),
        entry(f"/run/refclock/{name}.sock", "answers refclock(1)"),
        *(entry(file, what) for file, what in FILES_OF.get(name, {}).items()),
        ".SH SEE ALSO\n.BR refclock (1),\n.BR refclock.toml (5)\n",
    ]
    return page(f"refclock-{name}", 8, f"the {name} process of refclock", "".join(parts))


# ---- completions ------------------------------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """A word of a shell, as bash and zsh read it."""
    return "'" + text.replace("'", "'\\''") + "'"


def bash() -> str:
    """Completion of bash."""
    names = " ".join(COMMANDS)
    values, words = [], []
    for command in COMMANDS.values():
        for option in command.options:
            if is_switch(option) and placeholder(option):
                what = " ".join(option.settings.get("choices", ())) or ("FILES" if names_file(option) else "")
                values += [f"    '{command.name} {name}') offered={quoted(what)} ;;" for name in option.names]
        places = [option for option in command.options if not is_switch(option)]
        switches = [name for option in command.options if is_switch(option) for name in option.names]
        offered = [*(choice for option in places for choice in option.settings.get("choices", ())), *switches, "--help"]
        files = "FILES " if any(names_file(option) for option in places) else ""
        words.append(f"    {command.name}) offered={quoted(files + ' '.join(offered))} ;;")
    return "\n".join(
        [
            "# Completion of refclock for bash. Made by image/manual.py.",
            "_refclock() {",
            "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} offered=",
            "    COMPREPLY=()",
            '    if [ "$COMP_CWORD" = 1 ] || { [ "$COMP_CWORD" = 2 ] && [ "$command" = help ]; }; then',
            f"        COMPREPLY=($(compgen -W '{names} help --help --version' -- \"$word\"))",
            "        return",
            "    fi",
            '    case "$command $before" in',
            *values,
            '    *) case "$command" in',
            *(f"    {line}" for line in words),
            "    esac ;;",
            "    esac",
            '    case "$offered" in',
            '    FILES*) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -W "${offered#FILES}" -- "$word")) ;;',
            '    *) COMPREPLY=($(compgen -W "$offered" -- "$word")) ;;',
            "    esac",
            "}",
            "complete -F _refclock refclock",
            "",
        ]
    )


def zsh() -> str:
    """Completion of zsh."""

    def specification(option: Option) -> str:
        def plain(text: str) -> str:
            return re.sub(r"([\[\]:\\])", r"\\\1", text)

        choices = option.settings.get("choices", ())
        action = f"({' '.join(choices)})" if choices else "_files" if names_file(option) else " "
        value = f":{plain(placeholder(option))}:{action}" if placeholder(option) else ""
        if is_switch(option):
            return quoted(f"{'*' if repeated(option) else ''}{option.names[-1]}[{plain(help_of(option))}]{value}")
        return quoted(f":{value}" if option.settings.get("nargs") == "?" else value)

    lines = ["#compdef refclock", "# Completion of refclock for zsh. Made by image/manual.py.", "local -a commands", "commands=("]
    lines += [f"    {quoted(f'{command.name}:{command.help}')}" for command in COMMANDS.values()]
    lines += ["    'help:describe a command'", ")", "if (( CURRENT == 2 )) || { (( CURRENT == 3 )) && [[ $words[2] == help ]]; }; then"]
    lines += ["    _describe command commands", "    return", "fi", "shift words", "(( CURRENT-- ))", "case $words[1] in"]
    for command in COMMANDS.values():
        lines.append(f"{command.name}) _arguments '--help[describe this command]' {' '.join(map(specification, command.options))} ;;")
    return "\n".join([*lines, "esac", ""])


def fish() -> str:
    """Completion of fish."""

    def line(*words: str) -> str:
        return " ".join(("complete -c refclock", *words))

    def text(words: str) -> str:
        return "'" + words.replace("\\", "\\\\").replace("'", "\\'") + "'"

    lines = ["# Completion of refclock for fish. Made by image/manual.py.", line("-f"), line("-l help -d 'describe it'")]
    lines += [line(f"-n __fish_use_subcommand -a {c.name} -d {text(c.help)}") for c in COMMANDS.values()]
    lines += [line("-n __fish_use_subcommand -a help -d 'describe a command'"), line("-n __fish_use_subcommand -l version")]
    lines.append(line(f"-n '__fish_seen_subcommand_from help' -a '{' '.join(COMMANDS)}'"))
    for command in COMMANDS.values():
        when = f"-n '__fish_seen_subcommand_from {command.name}; and not __fish_seen_subcommand_from help'"
        for option in command.options:
            choices, files = " ".join(option.settings.get("choices", ())), "-F" if names_file(option) else ""
            offered = f"-a '{choices}'" if choices else files
            if is_switch(option):
                name = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
                lines.append(line(when, name, "-r" if placeholder(option) else "", offered, f"-d {text(help_of(option))}"))
            elif offered:
                lines.append(line(when, offered))
    return "\n".join([*(re.sub(r" +", " ", made) for made in lines), ""])


DOCUMENTS = {
    "man/man1/refclock.1": refclock_1,
    "man/man5/refclock.toml.5": refclock_toml_5,
    "man/man8/refclock-clock.8": lambda: process_8("clock"),
    "man/man8/refclock-serve.8": lambda: process_8("serve"),
    "bash-completion/completions/refclock": bash,
    "zsh/vendor-completions/_refclock": zsh,
    "fish/vendor_completions.d/refclock.fish": fish,
}
"""Files below /usr/share, and what writes each."""


def write(directory: Path) -> None:
    """Write all of them below ``directory``."""
    for name, made in DOCUMENTS.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python image/manual.py DIRECTORY")
    write(Path(sys.argv[1]))
