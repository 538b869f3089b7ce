"""Receivers and pulses to samples: everything between a GPS receiver's bytes and one (local instant, true time) pair."""
