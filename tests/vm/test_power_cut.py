"""The power goes at any moment: the appliance starts and serves each time, and has lost no more than the last seconds.

A PC and a Pi's card are cut at random moments: while they start, also for the first time, and while files on both partitions that are ever
written are replaced, and the history grows, as fast as they can. POWER_CUTS: how often in all; POWER_SEED: the moments.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable

import pytest
from machine import Machine

CUTS = int(os.environ.get("POWER_CUTS", "8"))
SEED = int(os.environ.get("POWER_SEED", str(random.randrange(10_000))))
EARLY = 0.3
"""Share of the cuts that come before the first answer."""
PATIENCE_S = 400
"""s: longest wait for what takes a minute on two idle cores."""
WRITER = """
import itertools
from pathlib import Path
from ppsd.appliance.boot import command, replace
from refclock.kernel.files import owners, replace_file
told = Path("/run/written")
for number in itertools.count(int(Path("/data/box/number").read_text()[:9]) if Path("/data/box/number").exists() else 1):
    content = f"{number:09}\\n" * 4000
    replace(Path("/boot/refclock/NUMBER.TXT"), content.encode(), command)
    replace_file(Path("/data/box/number"), content.encode(), 0o644, owners())
    told.write_text(str(number))
"""
"""Replaces a file on the FAT partition and one on data for ever, as the appliance does, and tells the number that both have by now."""
HISTORIAN = """
import itertools, sqlite3, time
from pathlib import Path
from ppsd.history.spans import Span
from ppsd.history.store import Store
store = Store(Path("/var/lib/refclock/history"), 64 << 20)
since = int(time.time()) // 86400 * 86400 - 30 * 86400
for number in itertools.count(sum(1 for _ in store.read(60, since, since + 20 * 86400))):
    store.add([Span(since + 60 * number, 60, 60, 1, "GPS", "NORMAL", None, *(None,) * 9)])
    Path("/run/historian/written").write_text(str(number + 1))
"""
"""Writes minutes of last month into the history for ever, as the web process does, and tells how many there are by now."""
HISTORY = """
import sqlite3
base = sqlite3.connect("file:/var/lib/refclock/history/history.db?mode=ro", uri=True)
print(*base.execute("PRAGMA integrity_check").fetchone(), *base.execute("SELECT count(*) FROM minute").fetchone())
"""
"""Prints "ok" when the history is whole, and how many minutes it has."""
SERVERS_USER = "setpriv --reuid refclock-serve --regid refclock --clear-groups"


class Cut:
    """One machine, and what it had told before its power went."""

    def __init__(self, machine: Machine, chance: random.Random) -> None:
        self.machine, self.chance = machine, chance
        self.told = self.remembered = 0
        self.identity = ""
        self.answer_s = 30.0

    def live(self, cuts: int) -> None:
        """Start, be looked at, write, lose power; so many times, and once more to the end."""
        for _ in range(cuts):
            self.machine.switch_on()
            if self.chance.random() < EARLY:
                time.sleep(self.chance.uniform(1, self.answer_s))
            else:
                self.look()
                self.write()
                time.sleep(self.chance.uniform(0, 5))
            self.machine.cut_power()
        self.machine.switch_on()
        self.look()
        self.machine.wait_stratum_1(PATIENCE_S)
        self.machine.cut_power()

    def look(self) -> None:
        """It serves, with all its units, with its own identity, and with what it had written."""
        machine = self.machine
        self.answer_s = machine.wait_answer(PATIENCE_S)
        machine.wait_login()  # with the owner's key, and the host key of the first boot
        machine.wait_for(lambda: machine.run("systemctl is-system-running", check=False).strip() != "starting", PATIENCE_S, "it starts on")
        assert machine.run("systemctl --failed --plain --no-legend") == ""
        assert machine.run("findmnt -no FSTYPE /data") == "ext4\n"
        identity = machine.run("cat /etc/machine-id")
        assert self.identity in ("", identity)
        self.identity = identity
        assert machine.run("ls /boot/refclock/STATUS.txt /boot/refclock/box.toml /boot/refclock/refclock.toml").count("\n") == 3
        if (state := machine.run("cat /var/lib/refclock/state.json", check=False)) != "":
            json.loads(state)
        if self.told:
            for name in ("/boot/refclock/NUMBER.TXT", "/data/box/number"):
                content = machine.run(f"cat {name}")
                assert content == content[:10] * 4000, f"{name} is half of one and half of another"
                assert int(content[:9]) >= self.told, f"{name} is older than the one of {self.told}"
        if self.remembered:
            whole, minutes = machine.run(f"{SERVERS_USER} python3 -c '{HISTORY}'").split()
            assert whole == "ok"
            assert int(minutes) >= self.remembered, f"of {self.remembered} minutes that were written {minutes} are there"

    def write(self) -> None:
        """Begin to write; the clock process saves its state as well."""
        run = self.machine.run
        as_server = "-p User=refclock-serve -p Group=refclock -p RuntimeDirectory=historian"
        for name, program, more in (("writer", WRITER, ""), ("historian", HISTORIAN, as_server)):
            run(f"cat >/run/{name}.py <<'END'\n{program}END\nsystemd-run --unit {name} {more} /usr/lib/refclock/bin/python3 /run/{name}.py")
        run("systemd-run --unit saver sh -c 'while :; do systemctl restart refclock-clock; done'")
        for file in ("/run/written", "/run/historian/written"):
            self.machine.wait_for(lambda file=file: run(f"cat {file}", check=False) != "", PATIENCE_S, "nothing is written")
        self.told, self.remembered = int(run("cat /run/written")), int(run("cat /run/historian/written"))


@pytest.mark.parametrize(("board", "share"), [pytest.param("pc", 0.75, marks=pytest.mark.long), ("virt", 0.25)])
def test_it_starts_and_serves_after_every_power_cut(
    board: str, share: float, new_machine: Callable[..., Machine], figure: Callable[..., None]
) -> None:
    """Whatever was being written, and however far it had started."""
    print(f"POWER_SEED={SEED}")
    began = time.monotonic()
    Cut(new_machine(board), random.Random(f"{SEED} {board}")).live(round(CUTS * share))
    figure(f"{round(CUTS * share)} power cuts of {board}", time.monotonic() - began, "s")
