"""What the kernel gives: clocks, pulses, the timescale record, facts about the machine."""
