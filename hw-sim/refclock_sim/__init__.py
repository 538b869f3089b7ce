"""Simulated receivers, pulses, oscillators and worlds: the second shell around the real engine."""
