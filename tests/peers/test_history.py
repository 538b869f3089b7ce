"""The history of a real daemon, through its end; and ntpviz of ntpsec, which draws it from the files that it knows from ntpd."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from peers import REFCLOCK, Processes, free_port, wait_for
from spans_at_hand import minute

from ppsd.cli import main as cli
from ppsd.history.store import Store
from ppsd.process.control import ask
from ppsd.process.exit_codes import GOOD

pytestmark = pytest.mark.peers


def test_ntpviz_draws_our_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A day of minutes becomes pages with offset, frequency, jitter, temperature and the source's offset; it has nothing to complain of."""
    start = int(time.time()) // 60 * 60 - 86_400
    (tmp_path / "refclock.toml").write_text(f'[run]\nstate = "{tmp_path}/state"\n', encoding="utf-8")
    (tmp_path / "state" / "history").mkdir(parents=True)
    store = Store(tmp_path / "state" / "history", 64 << 20)
    store.add([replace(minute(0, (n * 37) % 500 - 250), at=start + 60 * n, celsius=40 + n % 7, frequency_ppm=n % 11) for n in range(1440)])
    store.close()
    stats = tmp_path / "stats"
    stats.mkdir()
    for form in ("loopstats", "peerstats", "temps"):
        assert cli.main(["history", "export", f"--{form}", "--run-dir", str(tmp_path)]) == GOOD
        (stats / f"{form}.refclock").write_text(capsys.readouterr().out, encoding="utf-8")
    words = ["ntpviz", "-d", str(stats), "-o", str(tmp_path / "pages"), "-p", "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if "loopstats" in line or "peerstats" in line or "temps" in line]
    assert complaints == []
    pages = {path.name for path in (tmp_path / "pages").iterdir()}
    assert {"index.html", "local-offset.png", "local-freq-temps.png", "local-jitter.png", "peer-offsets.png"} <= pages
    assert "gps0" in (tmp_path / "pages" / "index.html").read_text(encoding="utf-8")


def test_a_daemon_remembers_beyond_its_end(processes: Processes) -> None:
    """While it runs, its seconds are told; stopped, what it measured is in the file, also when its writer became another user; started
    again, the same minutes are there."""
    with TemporaryDirectory() as directory:
        where = Path(directory)
        where.chmod(0o755)
        config = where / "refclock.toml"
        ports = {name: free_port() for name in ("server", "metrics", "chronyc")}
        config.write_text("".join(f'[{name}]\nlisten = ["127.0.0.1:{port}"]\n' for name, port in ports.items()), encoding="utf-8")
        words = [
            *REFCLOCK,
            "run",
            "--sim",
            "--config",
            str(config),
            "--ntp",
            f"127.0.0.1:{ports['server']}",
            "--run-dir",
            str(where / "run"),
        ]

        def told(every: str) -> list[dict[str, object]]:
            done = processes.run([*REFCLOCK, "history", "export", "--json", "--every", every, "--run-dir", str(where / "run")])
            return list(json.loads(done.stdout)) if done.returncode == 0 else []

        daemon = processes.start("refclock", words)
        wait_for("seconds with a time", lambda: [one for one in told("second") if one["offsets"]], 90)
        pid = ask(where / "run" / "web.sock", "snapshot")["pid"]
        for words_ in (
            "history",
            "history 60 x 1",
            "history 7 0 1",
            f"history 60 {10**40} 5",
            f"history 1 -{10**40} {10**40}",
            "history 1 2 3 4",
        ):
            with suppress(OSError):  # an error in words
                ask(where / "run" / "web.sock", words_)
        assert ask(where / "run" / "web.sock", "snapshot")["pid"] == pid
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0
        before = told("minute")
        assert sum(int(str(minute["seconds"])) for minute in before) > 5
        assert "system call" not in processes.output("refclock")
        processes.start("refclock", words)
        wait_for("seconds of the second run", lambda: told("second"), 60)
        assert [minute["at"] for minute in told("minute")][: len(before)] == [minute["at"] for minute in before]
        processes.close()  # else they would make their files anew while these are removed
