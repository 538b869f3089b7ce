"""Metrics for Prometheus: what monitors read on the page is what the daemon reported, in both formats and under both sets of names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_daemon import COUNTERS, GPS, LOCKED
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from ppsd.faces import chronyc
from ppsd.faces.prometheus import Reports, compatible, native, page, wants_openmetrics
from ppsd.snapshot import ServerReport, TemperatureStatus, Unserved
from refclock.condition import Code, Condition
from refclock.sample import PulseReport, Satellite

EXAMPLES = Path(__file__).parents[3] / "image" / "examples" / "prometheus"
PULSE = PulseReport(1.0, "assert", 100.0, 0.4, 90, 2, 1, True, "good")
SKY = (Satellite("GPS", 7, 45, 120, 41, True), Satellite("GPS", 9, 5, 10, None, False), Satellite("Galileo", 7, 60, 200, 38, True))
WARM = TemperatureStatus("cpu", 48.5, None, True, "", 0.0, 30.0, 0.01, "")
JAMMED = Condition(Code.JAMMING, "jammed", blocks=False)
FULL = Reports(
    replace(
        LOCKED,
        sources=(replace(GPS, pulse=PULSE, satellites=SKY, rejected={"no fix": 3}, conditions=(JAMMED,)), LOCKED.sources[1]),
        temperature=WARM,
        holdover_s=12.0,
        holdover_left_s=3600.0,
        listen=("0.0.0.0:123",),
    ),
    ServerReport(
        7,
        60.0,
        ("0.0.0.0:123",),
        False,
        COUNTERS,
        unserved=(Unserved("[::]:123", "another program has it", taken=True),),
    ),
    20,
    {1: 1e-9, 2: 7e-10},
)
NOBODY = Reports(None, None)


def values(families: Iterable[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def told(reports: Reports, face: object = native) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What prometheus_client's own parser reads on the page."""
    assert callable(face)
    return values(text_families(page(face(reports))))


def one(reports: Reports, name: str, face: object = native, **labels: str) -> float | None:
    return told(reports, face).get((name, frozenset(labels.items())))


@pytest.mark.parametrize("face", [native, compatible], ids=["native", "chrony"])
@pytest.mark.parametrize("reports", [FULL, NOBODY, Reports(LOCKED, None)], ids=["full", "nobody", "no-server"])
def test_both_formats_are_accepted_and_say_the_same(face: object, reports: Reports) -> None:
    """prometheus_client reads the page as text and as OpenMetrics, and finds the same values."""
    assert callable(face)
    as_text = told(reports, face)
    assert values(openmetrics_families(page(face(reports), openmetrics=True))) == as_text
    assert as_text


def test_what_is_told_of_a_clock_that_is_locked() -> None:
    """Units are seconds, signs are the snapshot's."""
    for name, labels, value in (
        ("refclock_up", {"process": "clock"}, 1.0),
        ("refclock_locked", {}, 1.0),
        ("refclock_error_bound_seconds", {}, 18.1e-6),
        ("refclock_frequency_ppm", {}, -12.345),
        ("refclock_pps_offset_seconds", {"source": "gps0"}, -214e-9),
        ("refclock_leap_pending", {}, 1.0),
        ("refclock_holdover_left_seconds", {}, 3600.0),
        ("refclock_temperature_celsius", {"sensor": "cpu"}, 48.5),
        ("refclock_sats_used", {"source": "gps0", "gnss": "GPS"}, 1.0),
        ("refclock_sat_snr_dbhz", {"source": "gps0", "gnss": "Galileo", "sv": "7"}, 38.0),
        ("refclock_condition", {"source": "gps0", "code": "jamming"}, 1.0),
        ("refclock_source_state", {"source": "gps0", "state": "selected"}, 1.0),
        ("refclock_source_rejected_total", {"source": "gps0", "reason": "no fix"}, 3.0),
        ("refclock_requests_total", {"result": "drop", "reason": "rate"}, 7.0),
        ("refclock_server_addresses_missing", {}, 1.0),
        ("refclock_clients", {}, 20.0),
        ("refclock_adev", {"tau": "2"}, 7e-10),
    ):
        assert one(FULL, name, **labels) == pytest.approx(value), name


def test_what_is_not_known_is_a_gap() -> None:
    """A source without a sample has no offset, a satellite without a level no level, and a clock that does not answer no state."""
    away = {"source": LOCKED.sources[1].name}
    assert one(FULL, "refclock_source_offset_seconds", **away) is None
    assert one(FULL, "refclock_source_present", **away) == 0.0
    assert one(FULL, "refclock_sat_snr_dbhz", source="gps0", gnss="GPS", sv="9") is None
    assert one(NOBODY, "refclock_up", process="clock") == 0.0
    assert one(NOBODY, "refclock_locked") is None
    assert one(NOBODY, "chrony_up", compatible) == 0.0


def test_no_server_is_missed_where_none_is_wanted() -> None:
    """A machine that only feeds chronyd or ntpd raises no alarm about a server; one that should serve does."""
    assert one(Reports(LOCKED, None), "refclock_up", process="serve") is None
    assert one(Reports(replace(LOCKED, listen=("0.0.0.0:123",)), None), "refclock_up", process="serve") == 0.0


def test_the_names_of_chrony_exporter_carry_chronyds_signs() -> None:
    """The values are those of ``chronyc tracking`` and ``sources``: boards made for chronyd show the same as chronyc."""
    assert FULL.clock is not None
    row = chronyc.tracking(FULL.clock).rows[0].split(",")
    for name, column in (
        ("stratum", 2), ("reference_timestamp_seconds", 3), ("system_time_seconds", 4), ("last_offset_seconds", 5),
        ("rms_offset_seconds", 6), ("frequency_ppms", 7), ("residual_frequency_ppms", 8), ("skew_ppms", 9), ("root_delay_seconds", 10),
        ("root_dispersion_seconds", 11), ("update_interval_seconds", 12),
    ):  # fmt: skip
        assert one(FULL, f"chrony_tracking_{name}", compatible) == pytest.approx(float(row[column]), abs=1e-9), name
    labels = {"tracking_address": "PPS", "tracking_name": "PPS", "tracking_refid": row[0]}
    assert one(FULL, "chrony_tracking_info", compatible, **labels) == 1.0
    named = {"source_address": "gps0", "source_name": "gps0"}
    assert one(FULL, "chrony_sources_last_sample_offset_seconds", compatible, **named) == pytest.approx(214e-9)
    assert one(FULL, "chrony_sources_state_info", compatible, **named, source_state="sync", source_mode="ref") == 1.0
    assert one(FULL, "chrony_serverstats_ntp_packets_received_total", compatible) == 131.0
    assert {name.removeprefix("chrony_serverstats_") for name in names(FULL) if name.startswith("chrony_serverstats_")} == {
        "ntp_packets_received_total", "ntp_packets_dropped_total", "command_packets_received_total", "command_packets_dropped_total",
        "client_log_records_dropped_total", "nts_ke_connections_accepted_total", "nts_ke_connections_dropped_total",
        "authenticated_ntp_packets_total", "interleaved_ntp_packets_total", "ntp_timestamps_held", "ntp_timestamp_span_seconds",
        "ntp_daemon_rx_timestamps_total", "ntp_daemon_tx_timestamps_total", "ntp_kernel_rx_timestamps_total",
        "ntp_kernel_tx_timestamps_total", "ntp_hw_rx_timestamps_total", "ntp_hw_tx_timestamps_total",
    }  # fmt: skip
    assert one(FULL, "chrony_serverstats_command_packets_received_total", compatible) == 41.0


def test_the_clock_error_rule_gives_the_bound() -> None:
    """The recording rule of chrony_exporter's README, |last offset| + root dispersion + root delay / 2, is no smaller than our bound."""
    parts = [one(FULL, f"chrony_tracking_{name}", compatible) for name in ("last_offset_seconds", "root_dispersion_seconds")]
    assert FULL.clock is not None
    assert FULL.clock.bound_ns is not None
    assert sum(abs(part) for part in parts if part is not None) >= FULL.clock.bound_ns / 1e9


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_in_a_label_comes_back(name: str, reason: str) -> None:
    """Quotation marks, line breaks and backslashes in names and reasons break no page."""
    source = replace(GPS, name=name, rejected={reason: 2})
    assert one(Reports(replace(LOCKED, sources=(source,)), None), "refclock_source_rejected_total", source=name, reason=reason) == 2.0


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5,*/*;q=0.1", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5", False),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", False),
        ("application/openmetrics-text;q=0", False),
        ("*/*", False),
        ("", False),
        ("application/openmetrics-text;q=nonsense,,;;,text/plain;q=0.2", True),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, wanted: bool) -> None:
    """OpenMetrics for Prometheus, which prefers it; plain text for a browser and for curl."""
    assert wants_openmetrics(accept) is wanted


def names(reports: Reports) -> set[str]:
    return {name for face in (native, compatible) for name, _ in told(reports, face)}


def test_board_and_alerts_use_names_that_there_are() -> None:
    """Every metric in the shipped board and alert rules is on the page of a daemon that has everything; none was renamed away."""
    board = json.loads((EXAMPLES / "dashboard.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += re.findall(r"expr: (.*)", (EXAMPLES / "alerts.yml").read_text(encoding="utf-8"))
    used = {name for query in queries for name in re.findall(r"\b(?:refclock|chrony)_\w+", query)}
    assert len(used) > 20
    assert used <= names(FULL)


def test_alerts_ask_for_conditions_and_states_that_there_are() -> None:
    """The codes in the alert rules are codes of conditions."""
    codes = re.findall(r'code=~?"([^"]+)"', (EXAMPLES / "alerts.yml").read_text(encoding="utf-8"))
    assert {code for text in codes for code in text.split("|")} <= {code.value for code in Code}
