"""Snapshots: what a daemon says comes back from JSON as it was, and the reason shown is a condition's."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from refclock_sim.worlds.scenario import load_scenario
from refclock_sim.worlds.world import World

from ppsd.snapshot import ServerReport, Snapshot, Stamping, Verdict
from refclock.condition import Code, Condition, blocking

pytestmark = pytest.mark.worlds

SCENARIOS = Path(__file__).parents[2] / "hw-sim" / "scenarios"
WORLDS = (
    *(("clean-pps", 2), ("clean-pps", 60), ("clock-stepped", 410), ("nmea-only", 60), ("unplugged", 620), ("temperature-ramp", 60)),
    *(("pains/01-reach-stays-zero", 30), ("pains/08-week-rollover-contradicted", 30), ("pains/11-trailing-edge-configured", 60)),
    *(("pains/17-hum-instead-of-pulses", 60), ("pains/18-antenna-cable-cut", 402), ("pains/21-five-pulses-a-second", 60)),
)


@cache
def told(scenario: str, second: int) -> Snapshot:
    """What a daemon says of itself at that second of a simulated world."""
    world = World(load_scenario(SCENARIOS / f"{scenario}.toml"), 101)
    world.advance(second)
    return world.snapshot()


def decoded(snapshot: Snapshot) -> Any:
    return json.loads(json.dumps(snapshot.to_json()))


def every_condition(snapshot: Snapshot) -> list[Condition]:
    """The daemon's own, then each source's."""
    return [*snapshot.conditions, *(c for source in snapshot.sources for c in source.conditions)]


@pytest.mark.parametrize(("scenario", "second"), WORLDS)
def test_a_snapshot_comes_back_as_it_was(scenario: str, second: int) -> None:
    """Through JSON nothing is lost and no type changes, in whatever state the daemon is."""
    snapshot = told(scenario, second)
    assert Snapshot.from_json(decoded(snapshot)) == snapshot


@pytest.mark.parametrize(("scenario", "second"), WORLDS)
def test_the_reason_shown_is_the_first_condition_that_blocks(scenario: str, second: int) -> None:
    """Not locked: the words of the first condition that blocks, the daemon's own before a source's. Locked: of the daemon's own only."""
    snapshot = told(scenario, second)
    asked = snapshot.conditions if snapshot.verdict is Verdict.LOCKED else every_condition(snapshot)
    reason = blocking(asked)
    assert snapshot.why == ("" if reason is None else reason.words)
    for source in snapshot.sources:
        assert all(c.source == source.name for c in source.conditions)
        if source.tally == "?":
            found = blocking(source.conditions)
            assert found is not None
            assert source.why == found.words


@pytest.mark.parametrize(
    ("scenario", "second", "code"),
    [
        ("clean-pps", 1, Code.WAITING_FOR_SECOND),
        ("pains/04-offset-calibrated-by-hand", 7, Code.LEARNING_FREQUENCY),
        ("unplugged", 620, Code.DEVICE_ABSENT),
        ("pains/01-reach-stays-zero", 30, Code.LABELS_REFUSED),
        ("pains/07-seconds-wrong-on-cold-start", 200, Code.LEAP_COUNT_UNKNOWN),
        ("pains/08-week-rollover-contradicted", 30, Code.WEEK_ROLLOVER),
        ("pains/11-trailing-edge-configured", 60, Code.MESSAGES_ONLY),
        ("pains/17-pulses-before-the-fix", 30, Code.NO_FIX),
        ("pains/18-antenna-cable-cut", 410, Code.ANTENNA_FAULT),
    ],
)
def test_each_kind_of_trouble_has_its_code(scenario: str, second: int, code: Code) -> None:
    """What an alert or a program acts on is the code of the first condition that blocks."""
    reason = blocking(every_condition(told(scenario, second)))
    assert reason is not None
    assert reason.code is code


def test_status_json_keeps_its_keys() -> None:
    """Scripts read these; new ones may come, none may go."""
    top = decoded(told("clean-pps", 60))
    assert set(top) >= {
        *("version", "pid", "simulated", "uptime_s", "utc", "mode", "verdict", "why", "stages", "stratum", "refid", "leap", "leap_pending"),
        *("tai_offset_s", "bound_ns", "frequency_ppm", "skew_ppm", "system_offset_ns", "holdover_s", "holdover_left_s", "steering"),
        *("clock_steps", "sources", "temperature", "feeds"),
    }
    assert set(top["sources"][0]) >= {
        *("name", "kind", "what", "present", "tally", "why", "reach", "last_sample_s", "offset_ns", "jitter_ns", "bound_ns"),
        *("frequency_ppm", "skew_ppm", "samples", "pulses", "labels", "fix", "satellites_used", "satellites_seen", "message_delay_ms"),
        *("message_spread_ms", "rejected", "message", "satellites", "health", "bias_us", "bias_how", "pulse", "timing", "cable"),
    }
    assert set(top["sources"][0]["pulse"]) >= {"rate_hz", "edge", "width_ms", "jitter_us", "good", "words", "doubts", "changed"}


def test_another_version_is_understood() -> None:
    """Unknown keys and codes of a newer daemon are passed over; what an older one does not send yet is as if it were nothing."""
    sent = decoded(told("pains/18-antenna-cable-cut", 402))
    sent["phase_of_the_moon"] = sent["sources"][0]["colour"] = 1
    sent["sources"][0]["conditions"].insert(0, {"code": "eaten-by-a-goat", "words": "gone", "blocks": True, "source": "gps0"})
    assert Snapshot.from_json(sent) == told("pains/18-antenna-cable-cut", 402)
    del sent["conditions"], sent["feeds"], sent["sources"][0]["conditions"]
    older = Snapshot.from_json(sent)
    assert (older.conditions, older.feeds, older.sources[0].conditions) == ((), (), ())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s.pop("verdict"), "verdict is missing: the daemon is of another version"),
        (lambda s: s.update(verdict="SPLENDID"), "verdict is 'SPLENDID': the daemon is of another version"),
        (lambda s: s.update(pid="7"), "pid is '7', not int"),
        (lambda s: s.update(pid=True), "pid is True, not int"),
        (lambda s: s.update(simulated=0), "simulated is 0, not bool"),
        (lambda s: s.update(bound_ns=1.5), "bound_ns is 1.5, not int"),
        (lambda s: s.update(sources={}), "sources is no list"),
        (lambda s: s["sources"].append(3), "sources[1] is no JSON object"),
        (lambda s: s["sources"][0].update(rejected=[]), "sources[0].rejected is no JSON object"),
        (lambda s: s["sources"][0]["satellites"][0].pop("used"), "sources[0].satellites[0].used is missing"),
        (lambda s: s.update(stages=[["locked"]]), "stages[0] has 1 values instead of 2"),
    ],
)
def test_nonsense_is_told_by_its_place(spoil: Callable[[Any], object], words: str) -> None:
    """A daemon that cannot be understood is said to be so, with what is wrong where; nothing is guessed."""
    sent = deepcopy(decoded(told("clean-pps", 60)))
    spoil(sent)
    with pytest.raises(ValueError) as caught:
        Snapshot.from_json(sent)
    assert words in str(caught.value)
    with pytest.raises(ValueError, match="the answer is no JSON object"):
        Snapshot.from_json([sent])


def test_the_servers_report_comes_back_as_it_was() -> None:
    """As a snapshot does."""
    report = ServerReport(3, 1.5, ("[::]:123",), True, {"reply": {"basic": 12}}, (Stamping("eth0", "kernel", "none", ""),))
    assert ServerReport.from_json(json.loads(json.dumps(report.to_json()))) == report
