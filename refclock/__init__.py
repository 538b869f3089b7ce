"""Receivers and pulses to samples: everything between a GPS receiver's bytes and one (local instant, true time) pair."""

BUILD_DATE = "2026-11-01"
"""No receiver is right that dates itself earlier than this release: the start of the date window (set with each release)."""
