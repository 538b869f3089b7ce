"""The house: what each room may import and touch, read from the source itself. ARCHITECTURE.md gives the reasons.

A room is a package, or the package's own values; a module belongs to the deepest room that contains it. Every import counts: those inside
functions and those for type checkers too. ``python tests/test_house.py --write`` brings the code map of ARCHITECTURE.md up to date.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREES = {"refclock": ROOT, "ppsd": ROOT, "refclock_sim": ROOT / "hw-sim"}
MAP = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- code map -->", "<!-- end of code map -->"

REFCLOCK = {f"refclock{room}" for room in ("", ".protocols", ".timing", ".receiver", ".kernel", ".exchange", ".devices")}
SIMULATOR = [f"refclock_sim{room}" for room in ("", ".models", ".receiver", ".worlds", ".ports")]
SHARED = {"refclock", "ppsd", "ppsd.config", "ppsd.process"}
ROOMS: dict[str, set[str]] = {  # room: what it may import besides itself
    "refclock": set(),
    "refclock.protocols": {"refclock"},
    "refclock.timing": {"refclock"},
    "refclock.kernel": {"refclock"},
    "refclock.receiver": {"refclock", "refclock.protocols"},
    "refclock.exchange": {"refclock", "refclock.protocols", "refclock.kernel"},
    "refclock.devices": {"refclock", "refclock.receiver", "refclock.kernel"},
    "ppsd": {"refclock"},
    "ppsd.ntp": {"refclock"},
    "ppsd.config": {"refclock", "refclock.kernel"},
    "ppsd.process": {"refclock", "refclock.kernel", "ppsd.config"},
    "ppsd.faces": {"refclock", "ppsd", "ppsd.ntp", "ppsd.config"},
    "ppsd.history": {"refclock", "ppsd"},
    "ppsd.discipline": {"refclock", "refclock.timing", "ppsd", "ppsd.config"},
    "ppsd.clock": REFCLOCK | SHARED | {"ppsd.discipline", "ppsd.faces"},
    "ppsd.serve": {"refclock.kernel", "refclock.exchange", "ppsd.ntp", "ppsd.faces"} | SHARED,
    "ppsd.web": {"refclock.kernel", "ppsd.faces", "ppsd.history"} | SHARED,
    "ppsd.appliance": REFCLOCK | SHARED | {"ppsd.faces", "ppsd.ntp"},
    "ppsd.cli": REFCLOCK | SHARED | {"ppsd.faces", "ppsd.ntp", "ppsd.serve", "ppsd.history", "ppsd.appliance"},
    "ppsd.__main__": SHARED | {"ppsd.clock", "ppsd.serve", "ppsd.web", "ppsd.cli"},
    **dict.fromkeys(SIMULATOR, REFCLOCK | SHARED | {*SIMULATOR, "ppsd.ntp", "ppsd.faces", "ppsd.discipline", "ppsd.clock", "ppsd.serve"}),
}
PURE = {"refclock", "refclock.protocols", "refclock.timing", "refclock.receiver", "ppsd", "ppsd.ntp", "ppsd.faces", "ppsd.discipline"}
MACHINE = {"time", "random", "os", "io", "pathlib", "socket", "select", "selectors", "threading", "asyncio", "subprocess", "signal"}
MACHINE |= {"fcntl", "termios", "ctypes", "mmap", "structlog"}
"""What a pure room touches nothing of: clock, files, processes, chance, log. Nor does it call ``open`` or ``print``."""
DOORS: dict[str, set[str]] = {
    "pynmea2": {"refclock.protocols.nmea"},
    "gpsd": {"refclock.protocols.gpsd"},
    "serial": {"refclock.devices.serial_port"},
    "structlog": {"ppsd.process.log"},
    "sqlite3": {"ppsd.history.store"},
    "OpenSSL": {"ppsd.serve.nts_sessions", "ppsd.serve.nts_client", "ppsd.serve.certificates"},
    "cryptography": {"ppsd.serve.nts_sessions", "ppsd.serve.nts_client", "ppsd.serve.certificates"},
    "refclock.kernel._kernel": {"refclock.kernel", "refclock.exchange.shm"},
    "ppsd.serve._server": {"ppsd.serve.ntp_server"},
}
"""The module, or the room, through which alone a library or an extension is reached."""
RECEIVERS = {"refclock.devices", "refclock.receiver", "refclock.timing"}
FENCES: dict[str, set[str]] = {
    "ppsd.serve.main": RECEIVERS | {"ppsd.discipline", "ppsd.clock", "ppsd.web", "ppsd.cli", "refclock_sim", "OpenSSL", "cryptography"},
    "ppsd.serve.nts_ke": RECEIVERS
    | {"ppsd.discipline", "ppsd.clock", "ppsd.web", "ppsd.cli", "refclock_sim", "ppsd.serve.main", "ppsd.serve.ntp_server"},
    "ppsd.web.main": RECEIVERS | {"ppsd.discipline", "ppsd.clock", "ppsd.serve", "ppsd.cli", "refclock_sim", "refclock.exchange"},
    "ppsd.clock.main": {"ppsd.serve", "ppsd.web", "ppsd.cli", "refclock_sim", "ssl", "http", "asyncio"},
}
"""What nothing that a process may ever load imports. Libraries are not searched: structlog itself brings asyncio, and that brings ssl."""
SERVE_MODULES = 53
"""Modules of ours that the process in front of the network may load."""
MOST_ROOMS, MOST_FLOORS = 13, 5
"""Of ppsd. A room's floor is one above the highest room that it imports."""

UNDER_WAY: dict[str, set[str]] = {}
"""Rule: what breaks it for now. Each entry goes when what it waits for has come; an entry that nothing needs fails."""


@cache
def modules() -> dict[str, Path]:
    """Dotted name of every module of ours, and its file."""
    found = {}
    for package, where in TREES.items():
        for path in sorted((where / package).rglob("*.py")):
            found[".".join(path.relative_to(where).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a file's syntax."""
    return tuple(ast.walk(tree(path)))


def inside(name: str, rooms: Iterable[str]) -> str:
    """The deepest of ``rooms`` that contains the module ``name``; "" when none does."""
    return max((room for room in rooms if name == room or name.startswith(f"{room}.")), key=len, default="")


@cache
def imports(module: str) -> frozenset[str]:
    """Modules that a module imports anywhere in it: ours by their own names, ``refclock.kernel.clocks`` not ``refclock.kernel``."""
    found: set[str] = set()
    for node in nodes(modules()[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            dotted = {f"{node.module}.{alias.name}": node.module for alias in node.names}
            found |= {name if name in modules() or name in DOORS else package for name, package in dotted.items()}
    return frozenset(found)


def reached(start: str) -> set[str]:
    """Everything that ``start`` may ever import, at any depth: modules of ours, and the libraries that they name."""
    seen, ahead = {start}, [start]
    while ahead:
        for name in imports(ahead.pop()) - seen:
            seen.add(name)
            if name in modules():
                ahead.append(name)
    return seen


def hold(rule: str, broken: Iterable[str]) -> None:
    """Fail with what breaks a rule, but for what is under way."""
    found, excused = set(broken), UNDER_WAY.get(rule, set())
    assert not found - excused, f"{rule}:\n" + "\n".join(sorted(found - excused))
    assert not excused - found, f"{rule}: no longer under way:\n" + "\n".join(sorted(excused - found))


def test_rooms_import_their_allow_list_only() -> None:
    """A module imports its own room and those that its room may; refclock never imports ppsd, nobody imports the simulator."""
    arrows = [(m, name, inside(m, ROOMS), other) for m in modules() for name in imports(m) if (other := inside(name, ROOMS))]
    hold("allow list", (f"{m} -> {name}" for m, name, room, other in arrows if other not in ROOMS[room] | {room}))


def test_a_package_loads_none_of_its_modules() -> None:
    """An ``__init__`` imports nothing of ours: what a process loads is what its own modules import, and no more."""
    assert not [m for m, path in modules().items() if path.name == "__init__.py" and any(inside(name, ROOMS) for name in imports(m))]


def test_pure_rooms_touch_nothing_of_the_machine() -> None:
    """What decides, decodes or words has no clock, no file, no thread, no chance and no log: all of it comes with the call."""

    def touched() -> Iterator[str]:
        for module, path in modules().items():
            if inside(module, ROOMS) in PURE:
                yield from (f"{module}: {name}" for name in imports(module) if name.split(".")[0] in MACHINE)
                called = {n.func.id for n in nodes(path) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
                yield from (f"{module}: {name}()" for name in called & {"open", "print", "input"})

    hold("pure", touched())


def test_each_library_has_one_door() -> None:
    """One module imports a third-party package or a C extension; a new dependency is justified in ARCHITECTURE.md and given a door."""

    def beside() -> Iterator[str]:
        for module in modules():
            for name in imports(module):
                library = inside(name, DOORS)
                ours = name.split(".")[0] in {*TREES, *sys.stdlib_module_names}
                if not inside(module, DOORS[library]) if library else not ours:
                    yield f"{module} -> {name}"

    hold("doors", beside())


def test_no_circle_of_imports() -> None:
    """The modules can be read from the bottom up: none is imported by what it imports."""
    try:
        TopologicalSorter({m: imports(m) & modules().keys() for m in modules()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_the_daemon_has_few_rooms_on_few_floors() -> None:
    """Rooms import downwards only: at most 13 rooms of ppsd on 5 floors."""
    below: dict[str, set[str]] = {room: set() for room in ROOMS if room.startswith("ppsd")}
    for module in modules():
        if (room := inside(module, ROOMS)) in below:
            below[room] |= {other for name in imports(module) if (other := inside(name, ROOMS)) in below} - {room}
    floor: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():  # raises CycleError when an arrow goes upwards
        floor[room] = 1 + max((floor[other] for other in below[room]), default=0)
    assert len(floor) <= MOST_ROOMS
    assert max(floor.values()) <= MOST_FLOORS, floor


@pytest.mark.parametrize("process", FENCES)
def test_a_process_never_reaches_what_is_fenced_off(process: str) -> None:
    """The process in front of the network holds no device and decides no time; the one that moves the clock has no network code."""
    hold(f"fence of {process}", (name for name in reached(process) if inside(name, FENCES[process])))


def test_the_process_in_front_of_the_network_is_small() -> None:
    """At most 53 modules of ours, lazily loaded ones included, can be reached by a packet's process."""
    ours = [name for name in reached("ppsd.serve.main") if name in modules() and modules()[name].name != "__init__.py"]
    assert len(ours) <= SERVE_MODULES, sorted(ours)


def test_a_class_name_means_one_thing() -> None:
    """No two classes of a package have the same name."""
    where: dict[tuple[str, str], list[str]] = {}
    for module, path in modules().items():
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                where.setdefault((module.split(".")[0], node.name), []).append(module)


def test_nobody_swallows_everything() -> None:
    """`except Exception` occurs nowhere: our own mistakes end the process, and it is restarted."""
    for module, path in modules().items():
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type is not None else "everything"
                assert caught not in ("everything", "Exception", "BaseException"), f"{module}:{node.lineno} catches {caught}"


def test_tests_need_nothing_outside_the_repository() -> None:
    """No test looks above the repository, or into a home or temporary directory of this machine."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        depth = len(path.relative_to(ROOT).parts)
        for node in nodes(path):
            if isinstance(node, ast.Attribute) and node.attr in ("parents", "expanduser", "home") and path != Path(__file__):
                text = next((ast.unparse(s) for s in nodes(path) if isinstance(s, ast.Subscript) and s.value is node), "")
                above = re.search(r"parents\[(\d+)\]$", text)
                assert above and int(above[1]) < depth, f"{path}:{node.lineno} looks outside: {text or node.attr}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and path != Path(__file__):
                assert not re.match(r"/(work|home|root|tmp|opt|mnt)(/|$)", node.value), f"{path}:{node.lineno} names {node.value}"


# ---- the code map ------------------------------------------------------------------------------------------------------------------------


def sentence(path: Path) -> str:
    """The first sentence of a module's docstring, up to a full stop."""
    text = " ".join((ast.get_docstring(tree(path)) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[^a-z])", text)[0].replace("``", "`")


def code_map() -> str:
    """A line for each room and each module."""
    lines = []
    for room in ROOMS:
        if room in modules() and not room.endswith("__main__"):
            lines += ["", f"**`{room}`** {sentence(modules()[room])}", ""]
            home = [m for m in modules() if inside(m, ROOMS) in (room, f"{room}.__main__") and m != room and modules()[m].stat().st_size]
            lines += [f"* `{m.removeprefix(room + '.')}`: {sentence(modules()[m])}" for m in home if modules()[m].name != "__init__.py"]
    return "\n".join(["", *lines, "", ""]).replace("\n\n\n", "\n\n")


def mapped(document: str) -> str:
    """The document with today's code map between its markers."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + code_map() + END + after


def test_every_module_says_what_it_is() -> None:
    """Each module begins with a sentence for the code map."""
    hold("sentences", (m for m, path in modules().items() if not sentence(path)))


def test_the_code_map_is_up_to_date() -> None:
    """The rooms and modules in ARCHITECTURE.md are those that there are, in their own words."""
    document = MAP.read_text(encoding="utf-8")
    if "code map" in UNDER_WAY:
        assert BEGIN not in document, "no longer under way: code map"
        return
    assert BEGIN in document
    assert document == mapped(document), "run python tests/test_house.py --write"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_house.py --write")
    MAP.write_text(mapped(MAP.read_text(encoding="utf-8")), encoding="utf-8")
