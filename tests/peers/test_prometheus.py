"""A real Prometheus and its promtool: pages that they take, rules that fire, and a daemon that is scraped."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from peers import REFCLOCK, Processes, free_port, wait_for

pytestmark = pytest.mark.peers
EXAMPLES = Path(__file__).parents[2] / "image" / "examples" / "prometheus"


def promtool(*words: str | Path, text: str = "") -> None:
    done = subprocess.run(["promtool", *map(str, words)], input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_and_the_scrape_configuration_are_valid() -> None:
    """promtool takes what people copy."""
    promtool("check", "rules", EXAMPLES / "alerts.yml")
    promtool("check", "config", EXAMPLES / "scrape.yml")


def test_every_query_of_the_board_is_valid(tmp_path: Path) -> None:
    """promtool parses each expression of the Grafana dashboard."""
    board = json.loads((EXAMPLES / "dashboard.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = [{"record": "x:y", "labels": {"n": str(n)}, "expr": q.replace("$__rate_interval", "1m")} for n, q in enumerate(queries)]
    file = tmp_path / "board.yml"
    file.write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}), encoding="utf-8")
    promtool("check", "rules", file)


SERIES = {
    'up{job="refclock",instance="a"}': "1x60",
    'refclock_up{process="serve",instance="a"}': "0x60",
    'refclock_synchronised{instance="a"}': "0x60",
    'refclock_holdover_seconds{instance="a"}': "0+60x60",
    'refclock_holdover_left_seconds{instance="a"}': "3600-60x60",
    'refclock_error_bound_seconds{instance="a"}': "0.002x60",
    'refclock_pps_good{instance="a",source="gps0"}': "0x60",
    'refclock_satellites_used{instance="a",source="gps0"}': "3x60",
    'refclock_source_state{instance="a",source="gps0",state="falseticker"}': "1x60",
    'refclock_condition{instance="a",source="gps0",code="jamming"}': "1x60",
    'refclock_clock_steps_total{instance="a"}': "0x10 1x50",
    'refclock_server_addresses_missing{instance="a"}': "1x60",
    'refclock_leap_pending{instance="a"}': "1x60",
}
FIRING = {
    "RefclockProcessDown", "RefclockNotSynchronised", "RefclockHoldover", "RefclockHoldoverEnds", "RefclockBoundLarge",
    "RefclockPulsesBad", "RefclockFewSatellites", "RefclockFalseticker", "RefclockSignals", "RefclockClockStepped",
    "RefclockAddressMissing", "RefclockLeapSecond",
}  # fmt: skip


def test_alerts_fire_when_something_is_wrong(tmp_path: Path) -> None:
    """promtool plays an hour in which everything is wrong: each alert fires. In an hour in which all is well, none does."""
    well = {
        'up{job="refclock",instance="a"}': "1x60", 'refclock_up{process="serve",instance="a"}': "1x60",
        'refclock_synchronised{instance="a"}': "1x60", 'refclock_holdover_seconds{instance="a"}': "0x60",
        'refclock_error_bound_seconds{instance="a"}': "0.00002x60", 'refclock_pps_good{instance="a",source="gps0"}': "1x60",
        'refclock_satellites_used{instance="a",source="gps0"}': "11x60", 'refclock_clock_steps_total{instance="a"}': "3x60",
        'refclock_server_addresses_missing{instance="a"}': "0x60", 'refclock_leap_pending{instance="a"}': "0x60",
    }  # fmt: skip
    count = "count by (alertname) (ALERTS{alertstate='firing'})"
    wrong = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(FIRING)]
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [{"expr": count, "eval_time": "40m", "exp_samples": expected}],
        }
        for series, expected in ((SERIES, wrong), (well, []))
    ]
    file = tmp_path / "rules_test.yml"
    file.write_text(json.dumps({"rule_files": [str(EXAMPLES / "alerts.yml")], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", file)


@pytest.fixture
def simulated(processes: Processes) -> Iterator[tuple[Path, int]]:
    """A simulation's run directory, and the port of its metrics."""
    with TemporaryDirectory() as directory:
        where = Path(directory)
        metrics, ntp, chronyc = free_port(), free_port(), free_port()
        config = where / "refclock.toml"
        config.write_text(f'[metrics]\nlisten = ["127.0.0.1:{metrics}"]\n[chronyc]\nlisten = ["127.0.0.1:{chronyc}"]\n', encoding="utf-8")
        words = ["--sim", "--config", str(config), "--ntp", f"127.0.0.1:{ntp}", "--run-dir", str(where / "run")]
        processes.start("refclock", [*REFCLOCK, "run", *words])
        yield where, metrics
        processes.close()  # else they would make their files anew while these are removed


def asked(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_real_prometheus_scrapes_us(simulated: tuple[Path, int], processes: Processes) -> None:
    """Prometheus takes the page of a running daemon, under both sets of names, and answers queries from it; promtool has nothing against
    the pages."""
    where, metrics = simulated
    wait_for("metrics of a clock that is locked", lambda: "refclock_locked 1\n" in asked(metrics, "/metrics"), 60)
    for path in ("/metrics", "/metrics?compat=chrony"):
        promtool("check", "metrics", text=asked(metrics, path))
    scrape = (EXAMPLES / "scrape.yml").read_text(encoding="utf-8").replace("127.0.0.1:9124", f"127.0.0.1:{metrics}")
    config = f"global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [{EXAMPLES / 'alerts.yml'}]\n{scrape}"
    (where / "prometheus.yml").write_text(config, encoding="utf-8")
    own = free_port()
    words = [f"--config.file={where / 'prometheus.yml'}", f"--storage.tsdb.path={where / 'tsdb'}", f"--web.listen-address=127.0.0.1:{own}"]
    processes.start("prometheus", ["prometheus", *words])

    def value(query: str) -> float | None:
        told = asked(own, f"/api/v1/query?query={urllib.parse.quote(query)}")
        found = json.loads(told)["data"]["result"] if told else []
        return float(found[0]["value"][1]) if found else None

    wait_for("both jobs are scraped", lambda: value("count(up == 1)") == 2.0, 40)
    wait_for("the clock is locked", lambda: value("refclock_locked") == 1.0, 20)
    assert value("refclock_stratum") == value("chrony_tracking_stratum") == 1.0
    error, bound = wait_for("the rule of chrony's boards", lambda: value("instance:chrony_clock_error_seconds:abs"), 20), 1.0
    assert 0.0 < error < bound


def test_metrics_end_with_the_daemon_and_outlive_its_parts(simulated: tuple[Path, int]) -> None:
    """When the clock process is killed, the page says so at once, and the next one says that it is back."""
    where, metrics = simulated
    wait_for("metrics", lambda: 'refclock_up{process="clock"} 1\n' in asked(metrics, "/metrics"), 60)
    found = subprocess.run(["pgrep", "-f", f"ppsd clock .*{where}/run"], capture_output=True, text=True, check=True).stdout.split()
    for pid in found:
        os.kill(int(pid), 19)  # SIGSTOP: it answers nobody
    wait_for("the clock process does not answer", lambda: 'refclock_up{process="clock"} 0\n' in asked(metrics, "/metrics"), 20)
    for pid in found:
        os.kill(int(pid), 18)
    wait_for("it answers again", lambda: 'refclock_up{process="clock"} 1\n' in asked(metrics, "/metrics"), 30)
