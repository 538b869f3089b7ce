"""For all tests: tiers, properties that do not depend on the machine's speed, golden files (``--update-golden`` rewrites them).

A test belongs to one tier: **pure** (no process, no terminal, no waiting), **device** (ptys, preloads, processes), **worlds** (long runs in
simulated time), **peers** (programs of others) or **vm** (an emulated computer). tests/worlds, tests/peers, tests/vm and tests/native
(device) are tiers by folder; elsewhere a test is pure unless it is marked. ``realtime`` marks a device test that fails when another test
takes the processor: it runs alone.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Never

import pytest
from hypothesis import HealthCheck, settings

from refclock.kernel.host import Host

settings.register_profile("refclock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("refclock")

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"
TIERS = ("pure", "device", "worlds", "peers", "vm")
FOLDERS = {"vm": ["vm"], "worlds": ["worlds"], "peers": ["peers"], "native": ["device", "realtime"]}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what the tests saw into tests/golden")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its tier."""
    for item in items:
        for mark in FOLDERS.get(item.path.relative_to(TESTS).parts[0], []):
            item.add_marker(mark)
        if not any(item.get_closest_marker(tier) for tier in TIERS):
            item.add_marker("pure")


ENVIRONMENT = (
    *("COLUMNS", "LINES", "TERM", "NO_COLOR", "LANG", "LC_ALL", "TZ", "PYTHONIOENCODING", "LD_PRELOAD", "SUDO_USER", "XDG_RUNTIME_DIR"),
    *("REFCLOCK_RUN_DIR", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"),
)
"""Variables that would change what programs do, and that the person who runs the tests may have set."""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs run as in a plain environment, whatever the one of the tests is, and this machine's own configuration is not read."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ppsd.config.file.DEFAULT_FILE", os.devnull + "/none")


@pytest.fixture(autouse=True)
def _purity(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pure test that starts a process, opens a terminal, waits or looks at the machine that it runs on fails: what it finds there is not
    the code's doing."""
    if request.node.get_closest_marker("pure") is None:
        return

    def refuse(what: str) -> Callable[..., Never]:
        def refused(*_: object, **__: object) -> Never:
            pytest.fail(f"{what} in a pure test: mark it device", pytrace=True)

        return refused

    def machine(host: Host, root: Path = Path("/")) -> None:
        if root == Path("/"):
            pytest.fail("a look at this machine's own processes and files in a pure test: give Host a root", pytrace=True)
        made(host, root)

    made = Host.__init__
    monkeypatch.setattr(Host, "__init__", machine)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse("a process"))
    for where, name in ((os, "fork"), (os, "openpty"), (time, "sleep")):
        monkeypatch.setattr(where, name, refuse(f"{where.__name__}.{name}"))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: the text is that of tests/golden/name, to the letter."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} does not exist: run pytest --update-golden and look at it"
        assert text == path.read_text(encoding="utf-8")

    return compare
