"""Timescale records for tests that serve without a clock process."""

from __future__ import annotations

from typing import Any

from refclock.kernel.clocks import read_clocks
from refclock.record import Record
from refclock.sample import NS


def true_record(**changes: Any) -> Record:
    """A record that says what CLOCK_REALTIME says now."""
    now = read_clocks()
    fields: dict[str, Any] = {
        "raw_ns": now.raw_ns,
        "tai_ns": now.real_ns + 37 * NS,
        "rate": 0.0,
        "bound_ns": 1e5,
        "bound_rate": 1e-6,
        "bound_wander_ns": 0.0,
        "root_delay_ns": 0,
        "reference_raw_ns": now.raw_ns,
        "valid_until_raw_ns": now.raw_ns + 3600 * NS,
        "leap_tai_ns": 0,
        "leap_step_s": 0,
        "tai_offset_s": 37,
        "refid": int.from_bytes(b"GPS\0", "big"),
        "precision": -24,
        "stratum": 1,
        "simulated": False,
    }
    return Record(**fields | changes)
