"""Who may import whom: the layers of ARCHITECTURE.md as an allow list, read from the source itself."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MACHINE = {"time", "os", "socket", "threading", "asyncio", "random", "structlog", "select", "selectors", "signal", "subprocess", "ctypes"}
"""What the pure layers must not touch: clock, machine, chance, log."""

LAYERS: dict[str, int] = {
    # 1 values
    **dict.fromkeys(["refclock", "refclock.sample", "refclock.timescales", "refclock.record", "refclock.config", "refclock.intent"], 1),
    **dict.fromkeys(["ppsd", "ppsd.events", "ppsd.ntp", "ppsd.config", "ppsd.access", "ppsd.keys", "ppsd.toml_lines"], 1),
    # 2 machines
    **dict.fromkeys([f"refclock.{m}" for m in ("foreign", "framing", "seven_bits", "labels", "nmea", "ubx", "ubx_health", "health")], 2),
    **dict.fromkeys(
        [f"refclock.{m}" for m in ("dates", "detect", "proprietary", "gpsd", "receiver", "trust", "pairing", "filter", "rhythm")], 2
    ),
    **dict.fromkeys([f"refclock.{m}" for m in ("budget", "cable", "ubx_keys", "dialogue", "configure", "inquiry", "configurator")], 2),
    **dict.fromkeys([f"ppsd.{m}" for m in ("bank", "channel", "frames", "noise", "pull", "wander")], 2),
    **dict.fromkeys([f"ppsd.{m}" for m in ("thermal", "temperature", "compensated", "following")], 2),
    **dict.fromkeys([f"ppsd.{m}" for m in ("estimator", "selection", "timescale", "leap", "discipline", "source", "engine", "status")], 2),
    # 3 devices
    **dict.fromkeys([f"refclock.{m}" for m in ("kernel", "host", "ports", "serial_port", "pps", "feed", "intake")], 3),
    **dict.fromkeys([f"refclock.{m}" for m in ("gpsd_socket", "control_line", "output_line", "search", "_kernel")], 3),
    **dict.fromkeys([f"ppsd.{m}" for m in ("clock", "devices", "server", "interfaces", "state", "control", "wakeup", "_server")], 3),
    **dict.fromkeys(["ppsd.finder", "ppsd.inputs", "ppsd.thermometer"], 3),
    # 4 programs
    **dict.fromkeys([f"ppsd.{m}" for m in ("run", "serve", "signals", "supervise", "foreground", "cli", "reports", "query", "clients")], 4),
    **dict.fromkeys([f"ppsd.{m}" for m in ("examination", "doctor", "doctor_hardware", "doctor_clock")], 4),
    **dict.fromkeys([f"ppsd.{m}" for m in ("arguments", "tools", "calibrate", "receiver_tool", "replay", "log", "__main__")], 4),
}
THIRD_PARTY = {
    "pynmea2": {"refclock.nmea"},
    "gpsd": {"refclock.gpsd"},
    "serial": {"refclock.serial_port"},
    "structlog": {"ppsd.log"},
    "refclock._kernel": {"refclock.kernel"},
    "ppsd._server": {"ppsd.server"},
}
"""Each library and extension has one door."""
PURE_EXCEPTIONS: dict[str, set[str]] = {}


def modules(package: str) -> list[str]:
    """Every module of a package by its dotted name."""
    names = []
    for path in sorted((ROOT / package).rglob("*.py")):
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names.append(dotted.removesuffix(".__init__"))
    return names


def imports(module: str) -> set[str]:
    """Dotted names of what a module imports anywhere in it, type-checking blocks included."""
    path = ROOT / (module.replace(".", "/") + ".py")
    if not path.exists():
        path = ROOT / module.replace(".", "/") / "__init__.py"
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{module}: relative import"
            found |= {f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in LAYERS else node.module for a in node.names}
    return found


OURS = modules("refclock") + modules("ppsd")


@pytest.mark.parametrize("module", OURS)
def test_every_module_has_a_layer_and_imports_only_downwards(module: str) -> None:
    """A module imports its own layer or lower ones, and refclock never imports ppsd."""
    assert module in LAYERS, f"{module} has no layer: add it to LAYERS and to ARCHITECTURE.md"
    for name in imports(module):
        if name.split(".")[0] in ("refclock", "ppsd"):
            assert LAYERS[name] <= LAYERS[module], f"{module} (layer {LAYERS[module]}) imports {name} (layer {LAYERS[name]})"
            assert not (module.startswith("refclock") and name.startswith("ppsd")), f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in OURS if LAYERS.get(m, 9) <= 2])
def test_values_and_machines_are_pure(module: str) -> None:
    """Layers 1 and 2 have no clock, no I/O, no threads, no chance and no log."""
    touched = {n.split(".")[0] for n in imports(module)} & MACHINE
    assert touched <= PURE_EXCEPTIONS.get(module, set()), f"{module} touches {touched}"


@pytest.mark.parametrize("module", OURS)
def test_each_library_has_one_door(module: str) -> None:
    """Only the named module imports a third-party package or a C extension."""
    for name in imports(module):
        top = name.split(".")[0]
        for library in {name, top} & THIRD_PARTY.keys():
            assert module in THIRD_PARTY[library], f"{module} imports {library}; its door is {THIRD_PARTY[library]}"
        known = top in ("refclock", "ppsd", "refclock_sim") or top in sys.stdlib_module_names or {name, top} & THIRD_PARTY.keys()
        assert known, f"{module} imports {name}: a new dependency is justified in ARCHITECTURE.md and given a door here"


def test_nobody_swallows_everything() -> None:
    """`except Exception` occurs nowhere: our own mistakes end the process, and it is restarted."""
    for tree in ("refclock", "ppsd", "hw-sim"):
        for path in (ROOT / tree).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ExceptHandler):
                    caught = ast.unparse(node.type) if node.type is not None else "everything"
                    assert caught not in ("everything", "Exception", "BaseException"), f"{path.name}:{node.lineno} catches {caught}"


def test_files_stay_readable() -> None:
    """No Python file of the packages is longer than 450 lines: past it, split by machine."""
    for tree in ("refclock", "ppsd", "hw-sim"):
        for path in (ROOT / tree).rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, path.name
