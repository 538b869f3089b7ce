"""Simulated time around the real engine: scenarios as files, and noise as others were measured on."""
