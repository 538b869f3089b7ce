"""Oscillators, pulses, noise and warmth: each returns an error, none reads a clock."""
