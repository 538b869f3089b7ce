"""The kernel's services: clocks, pulses, the timescale record, facts about the machine."""
